"""The checker finds nothing wrong with our videos, much with others', and each broken rule by its number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mainstem.services.media import mp4
from mainstem.services.media.checker import Finding, Resolver, check_delivery, check_video, directory_resolver
from tests.services.media.clips import Clips, ffmpeg
from tests.services.media.pipeline import Published


def rules(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


def test_our_own_video(published: Callable[[str], Published]) -> None:
    """Our video has no finding at all, not even advice."""
    assert check_video(directory_resolver(published("plain.mp4").directory)) == []


@pytest.fixture(scope="module")
def stock(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with what stock ffmpeg makes of a clip: two variants, sound apart, fragmented MP4."""
    directory = tmp_path_factory.mktemp("stock")
    video = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-keyint_min", "50", "-sc_threshold", "0"]
    ffmpeg(
        "-i", clips.get("plain.mp4"), "-map", "0:v", "-map", "0:v", "-map", "0:a", *video,
        "-b:v:0", "300k", "-b:v:1", "100k",
        "-c:a", "aac", "-f", "hls", "-hls_time", "1", "-hls_segment_type", "fmp4", "-master_pl_name", "main.m3u8",
        "-var_stream_map", "v:0,agroup:sound v:1,agroup:sound a:0,agroup:sound", directory / "%v.m3u8",
    )  # fmt: skip
    return directory


def test_stock_ffmpeg(stock: Path) -> None:
    """Stock ffmpeg's HLS lacks I-frame playlists, FRAME-RATE, LANGUAGE, VOD and honest bandwidths, and the checker says
    so.
    """
    findings = check_video(directory_resolver(stock))
    print(*findings, sep="\n")  # for who runs it with -rP
    assert {"6.1", "8.2", "8.6", "8.10", "9.13", "9.15", "1.26", "1.27"} <= rules(
        [one for one in findings if one.level == "must"]
    )
    assert all(str(finding).count(finding.rule) for finding in findings)


def changed(video: Published, name_part: str, old: str, new: str) -> Resolver:
    """Return a resolver that replaces one text in every playlist whose name contains a part."""
    original = directory_resolver(video.directory)

    def resolve(uri: str) -> bytes:
        data = original(uri)
        if uri.endswith(".m3u8") and name_part in uri:
            return data.replace(old.encode(), new.encode())
        return data

    return resolve


@pytest.mark.parametrize(
    ("name_part", "old", "new", "rule"),
    [
        ("main", "#EXTM3U", "#EXTMU", "RFC 8216 4"),
        ("main", "#EXT-X-I-FRAME-STREAM-INF", "#EXT-X-OTHER", "6.1"),
        ("main", "#EXT-X-INDEPENDENT-SEGMENTS\n", "", "9.11"),
        ("main", 'LANGUAGE="und",', "", "8.10"),
        ("main", 'CODECS="avc1', 'CODECS="hvc1', "9.1"),
        ("main", "CODECS=", "X-CODECS=", "9.1"),
        ("main", "RESOLUTION=320x180,F", "RESOLUTION=640x360,F", "9.2"),
        ("main", "RESOLUTION=", "X-RESOLUTION=", "9.4"),
        ("main", "FRAME-RATE=25.000", "FRAME-RATE=30.000", "9.15"),
        ("main", "FRAME-RATE=25.000,", "", "9.15"),
        ("main", ":BANDWIDTH=", ":BANDWIDTH=9", "1.27"),
        ("main", ":BANDWIDTH=", ":X-BANDWIDTH=", "9.13"),
        ("main", "AVERAGE-BANDWIDTH=", "AVERAGE-BANDWIDTH=9", "1.26"),
        ("main", "AVERAGE-BANDWIDTH=", "X-AVERAGE-BANDWIDTH=", "9.14"),
        ("main", ",AUDIO=", ",X-AUDIO=", "9.5"),
        ("", "#EXT-X-PLAYLIST-TYPE:VOD\n", "", "8.6"),
        ("", "#EXT-X-ENDLIST\n", "", "8.6"),
        ("", "#EXT-X-MAP", "#EXT-X-NOMAP", "8.20"),
        ("", "#EXTINF:2.0", "#EXTINF:2.2", "8.1"),
        ("", "#EXT-X-TARGETDURATION:2", "#EXT-X-TARGETDURATION:1", "7.7"),
        ("", "#EXT-X-TARGETDURATION:2", "#EXT-X-TARGETDURATION:x", "RFC 8216 4.3.3.1"),
        ("", "@0", "@4", "6.1"),
        ("", "#EXT-X-I-FRAMES-ONLY\n", "", "6.1"),
        ("", ".m4s", ".gone", "RFC 8216 3.3"),
    ],
)
def test_broken_playlists(name_part: str, old: str, new: str, rule: str, published: Callable[[str], Published]) -> None:
    """Each broken rule is found, by its number."""
    assert rule in rules(check_video(changed(published("plain.mp4"), name_part, old, new)))


def segments_changed(video: Published, change: Callable[[bytes], bytes]) -> Resolver:
    original = directory_resolver(video.directory)

    def resolve(uri: str) -> bytes:
        data = original(uri)
        return change(data) if uri.endswith(".m4s") else data

    return resolve


def test_segment_that_begins_in_the_middle(published: Callable[[str], Published]) -> None:
    """A segment whose first picture is no IDR picture is found (7.4)."""

    def no_idr(data: bytes) -> bytes:
        fragment = mp4.read_fragments(data)[0]
        sample = fragment.samples[0]
        picture = data[sample.offset : sample.offset + sample.size_bytes]
        return data.replace(picture, picture.replace(b"\x65\x88", b"\x61\x88"))

    assert "7.4" in rules(check_video(segments_changed(published("silent.mp4"), no_idr)))


def test_segment_at_another_time(published: Callable[[str], Published]) -> None:
    """Segments whose times do not follow each other are found (7.3)."""
    video = published("plain.mp4")
    original = directory_resolver(video.directory)

    def twice(uri: str) -> bytes:
        data = original(uri)
        if uri.endswith(".m3u8") and b"#EXT-X-I-FRAMES-ONLY" not in data and b"#EXTINF" in data:
            entry = data[data.index(b"#EXTINF") : data.index(b"#EXT-X-ENDLIST")]
            return data.replace(entry, entry + entry)
        return data

    assert "7.3" in rules(check_video(twice))


def test_missing_files(tmp_path: Path) -> None:
    """A video that is not there is a finding, not a crash."""
    assert rules(check_video(directory_resolver(tmp_path))) == {"RFC 8216 4"}
    (tmp_path / "main.m3u8").write_text("#EXTM3U\n")
    assert rules(check_video(directory_resolver(tmp_path))) == {"9.1"}


def test_sound_of_another_length(published: Callable[[str], Published]) -> None:
    """Sound that is shorter than the pictures is found (8.3)."""
    video = published("plain.mp4")
    original = directory_resolver(video.directory)

    def shortened(uri: str) -> bytes:
        data = original(uri)
        if not uri.endswith(".m4s"):
            return data
        fragment = mp4.read_fragments(data)[0]
        if len(fragment.samples) < 60:
            return data  # pictures: a group has 12 of them
        samples = [(data[one.offset : one.offset + one.size_bytes], one.duration) for one in fragment.samples[:40]]
        return mp4.build_fragment(sequence_number=1, decode_time=0, samples=samples)

    assert "8.3" in rules(check_video(shortened))


def test_delivery() -> None:
    """Playlists that are not compressed, or of another media type, are found (10.1)."""
    good = {"content-encoding": "gzip", "content-type": "application/vnd.apple.mpegurl"}
    assert check_delivery(good) == []
    assert rules(check_delivery({"content-type": "text/plain"})) == {"10.1", "RFC 8216 4"}
