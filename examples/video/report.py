"""What the demonstration found, and whether that is good. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

CHUNKS_MIN = 6
"""A clip of fewer chunks shows too little of what a kill costs."""

CUTS = 2
"""How often the connection is cut."""


class Source(msgspec.Struct, frozen=True):
    """The clip that was uploaded."""

    frames: int
    duration_s: float


class Rendition(msgspec.Struct, frozen=True):
    """One rendition, as it was decoded from the playlist; ``bandwidth`` in bits a second, as declared."""

    width: int
    height: int
    frames: int
    bandwidth: int


class Report(msgspec.Struct, kw_only=True):
    """The demonstration's result: its last line is this as one JSON object.

    Attributes:
        ok: Whether nothing is wrong; see :func:`faults`.
        playlist: Path of the multivariant playlist.
        source: The clip.
        renditions: What came of it, the largest first.
        cuts: How often the connection was cut.
        bytes_sent_again: Bytes of the clip that were sent more than once.
        kills: How often the server was killed with -9.
        chunks: Chunks that the clip was encoded in.
        chunks_done_before_kill: Chunks whose result was durable when the server was killed.
        chunks_encoded_again: Chunks whose encoding began more than once.
        playlist_findings: Violations that the playlist checker found.
        wall_s: Duration of the whole.
    """

    ok: bool = False
    playlist: str = ""
    source: Source = Source(0, 0.0)
    renditions: list[Rendition] = []
    cuts: int = 0
    bytes_sent_again: int = 0
    kills: int = 0
    chunks: int = 0
    chunks_done_before_kill: int = 0
    chunks_encoded_again: int = 0
    playlist_findings: int = 0
    wall_s: float = 0.0


def faults(report: Report, problems: Sequence[str], *, workers: int) -> list[str]:
    """Return a sentence for each thing that is not as it should be; none of them makes the demonstration good.

    Args:
        report: What was found.
        problems: Sentences about what the renditions are not, compared with the clip.
        workers: Number of chunks that are encoded at the same time: a kill may cost as many, and no more.
    """
    found = list(problems)
    if report.playlist_findings:
        found.append(f"the playlist checker found {report.playlist_findings} violations, expected none")
    if report.cuts != CUTS:
        found.append(f"the connection was cut {report.cuts} times, expected {CUTS}")
    if report.chunks < CHUNKS_MIN:
        found.append(
            f"the clip has {report.chunks} chunks, expected {CHUNKS_MIN} or more: a longer one shows what a kill costs"
        )
    if report.kills != 1:
        found.append("the server was not killed: no chunk was done while another one was under way")
    elif report.chunks_done_before_kill < 1:
        found.append("no chunk was done when the server was killed")
    if report.chunks_encoded_again > workers:
        found.append(
            f"{report.chunks_encoded_again} chunks were encoded again, expected at most {workers}, one a worker"
        )
    return found
