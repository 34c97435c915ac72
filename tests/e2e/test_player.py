"""From an upload to a picture that moves: the player's page in a browser, on a line that becomes slow."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from tusclient.client import TusClient

from mainstem.services.media.tools import find_ffmpeg
from tests.e2e.test_dashboard import SIZES, check_soundness
from tests.support import wait_until

pytestmark = pytest.mark.serial

CLIP_S = 24
SLOW_BYTES_PER_S = 70_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with so much noise in it that its renditions need what they are allowed."""
    path = tmp_path_factory.mktemp("clip") / "noise.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25,noise=alls=30:allf=t"]
    sound = ["-f", "lavfi", "-i", "sine=frequency=440"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    command = [str(find_ffmpeg()), "-loglevel", "error", *picture, *sound, "-t", str(CLIP_S), *coding, str(path)]
    subprocess.run(command, check=True, timeout=120)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address."""
    directory = tmp_path_factory.mktemp("video")
    with (directory / "server.log").open("w") as log:
        command = [sys.executable, str(Path(__file__).with_name("video_app.py")), str(directory / "data")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (directory / "server.log").read_text()
    yield f"http://127.0.0.1:{int(line)}/deep/prefix/"
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    process.stdout.close()


@pytest.fixture
def page() -> Iterator[Page]:
    program = shutil.which("chromium") or "chromium"
    arguments = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser.new_page()
        browser.close()


def _upload(server: str, clip: Path, name: str) -> None:
    with clip.open("rb") as stream:
        TusClient(server + "uploads/files").uploader(file_stream=stream, metadata={"filename": name}).upload()


def _time_s(page: Page) -> float:
    # Not wait_for_function: it evaluates text within the page, which the page's policy forbids.
    return float(page.evaluate("document.querySelector('video').currentTime"))


def test_an_upload_becomes_a_picture_that_moves(page: Page, server: str, clip: Path) -> None:
    """The list follows the work live; then the player shows the video, its time advances, its worker is from this
    origin, and on a slow line the level changes by itself.
    """
    found: list[str] = []
    workers: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("worker", lambda worker: workers.append(worker.url))
    page.goto(server + "videos")
    expect(page.locator("#connection")).to_have_text("Live")
    _upload(server, clip, "a <b>.mp4")
    expect(page.locator("tbody .pill")).to_have_text("ready", timeout=90_000)
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_have_text("a <b>.mp4")

    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    line = {"offline": False, "latency": 20, "downloadThroughput": SLOW_BYTES_PER_S, "uploadThroughput": -1}
    devtools.send("Network.emulateNetworkConditions", line)
    page.reload()
    level = page.locator("#level")
    expect(level).to_contain_text("kbit/s", timeout=60_000)
    page.evaluate("document.querySelector('video').play()")
    wait_until(lambda: _time_s(page) > 1.5, 60)
    expect(page.locator("#level-changes")).to_have_text("1 change", timeout=90_000)
    before_s = _time_s(page)
    wait_until(lambda: _time_s(page) > before_s + 1, 60)

    assert workers and all(url.startswith(server + "static/") for url in workers)
    assert page.evaluate("document.querySelector('video').error") is None
    assert found == []


def test_the_uploads_page_and_the_trace(page: Page, server: str, clip: Path) -> None:
    """The upload has its requests, and its trace leads from them to the video."""
    _upload(server, clip, "second.mp4")
    page.goto(server + "uploads")
    page.get_by_role("link", name="second.mp4").click()
    expect(page.locator("#f-requests")).to_contain_text(f"{clip.stat().st_size:,}")
    page.locator("#f-facts a").first.click()
    waterfall = page.locator(".waterfall")
    for words in ("PATCH 1", "upload.completed", "encode_chunk", "video.ready"):
        expect(waterfall).to_contain_text(words, timeout=60_000)


def test_pages_of_uploads_videos_and_traces_are_sound(page: Page, server: str, clip: Path) -> None:
    """The lists of videos, uploads and traces, and a video with its player, an upload and a trace: wide and narrow,
    light and dark, they have no error, no violation of the policy, no request elsewhere, nothing to scroll sideways,
    and nothing serious for axe-core.
    """
    _upload(server, clip, "third.mp4")
    page.goto(server + "videos")
    row = page.locator("tbody tr", has_text="third.mp4")
    expect(row.locator(".pill")).to_have_text("ready", timeout=90_000)
    paths = ["videos", "uploads", "traces"]
    row.locator("a").first.click()
    expect(page.locator("video")).to_be_visible()
    paths.append(page.url.removeprefix(server))
    page.goto(server + "uploads")
    page.get_by_role("link", name="third.mp4").click()
    expect(page.locator("#f-requests")).to_be_visible()
    paths.append(page.url.removeprefix(server))
    page.locator("#f-facts a").first.click()
    expect(page.locator(".waterfall")).to_be_visible()
    paths.append(page.url.removeprefix(server))
    assert [path.partition("/")[0] for path in paths] == ["videos", "uploads", "traces"] * 2
    browser = page.context.browser
    assert browser is not None
    for size in SIZES:
        for scheme in ("light", "dark"):
            check_soundness(browser, server, "/deep/prefix/", paths, size, scheme)
