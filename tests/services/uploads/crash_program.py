"""Child program: uploads again and again in forked children, each of which dies at another operation.

``python crash_program.py DIRECTORY kill|power [MUTANT]`` leaves one data directory a death, ``DIRECTORY/<operation>``,
and prints a JSON object ``{"steps": [names], "findings": [what went wrong]}``. Each upload is tried several times: the
first try dies at the directory's operation, those that resume it die early on, and the last one lives.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
from pathlib import Path

from mainstem.log import Append, Record, open_log
from mainstem.services.uploads import UPLOAD_COMPLETED, Uploads
from mainstem.services.uploads.protocol import Finished, Progressed, encode_record
from mainstem.services.uploads.registry import Entry, Registry
from mainstem.services.uploads.storage import PartFile, PartFiles
from mainstem.trace.context import TraceContext
from tests.services.uploads.fuse import DIED, Fuse, FusedBlobs, FusedDisk, fuse_log
from tests.services.uploads.helpers import LOG, serving

DATA = random.Random(4).randbytes(40_000)
PIECE_BYTES = 15_000


async def upload(data: Path, fuse: Fuse) -> None:
    """Upload, or go on with the upload that the directory has; die when the fuse blows."""
    log = await open_log(data / "log", settings=LOG)
    fuse_log(log, fuse)
    note = data / "url"
    async with serving(
        data, Uploads(disk=FusedDisk(fuse), checkpoint_bytes=5000), log=log, blobs=FusedBlobs(data / "blobs", fuse)
    ) as desk:
        if not note.exists():
            note.write_text(await desk.create(len(DATA)))
        url = note.read_text()
        offset = await desk.offset(url)
        while offset < len(DATA):
            answer = await desk.patch(url, offset, DATA[offset : offset + PIECE_BYTES])
            assert answer.status_code == 204, answer.text
            offset = int(answer.headers["upload-offset"])
    await log.close()


def attempt(data: Path, die_at: int, *, power_cut: bool) -> tuple[list[str], list[str]]:
    """Upload in a forked child; return its steps where it lived to the end, and what went wrong."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fuse = Fuse(die_at, power_cut=power_cut)
            asyncio.run(upload(data, fuse))
            os.write(write_end, json.dumps(fuse.steps).encode())
            code = 0
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(write_end, repr(error).encode()[:4000])
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        said = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    findings = [f"{data.name}: {path} has other bytes than its name says" for path in altered_blobs(data)]
    if code not in (0, DIED):
        findings.append(f"{data.name}: a try failed: {said.decode()}")
    return (list(json.loads(said)) if code == 0 else []), findings


def altered_blobs(data: Path) -> list[Path]:
    """Return the blobs whose bytes are not those of their name."""
    blobs = (data / "blobs").glob("??/*")
    return [path for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name + path.name]


def leave_out(mutant: str) -> None:
    """Break one promise, to show that the test would see it."""
    match mutant:
        case "sync":

            def no_sync(self: PartFile) -> None:
                return

            PartFile.sync = no_sync  # type: ignore[method-assign]
        case "detach":

            async def no_detach(self: PartFiles, upload_id: str, offset: int) -> None:
                return

            PartFiles.detach = no_detach  # type: ignore[method-assign]
        case "one commit":

            async def twice(
                self: Registry, entry: Entry, last: Progressed, span: TraceContext, finished: Finished
            ) -> None:
                event = entry.upload.completed_event(finished.blob)
                await self._append(entry, [last, finished], span)
                await self._log.append_many([Append(UPLOAD_COMPLETED, [Record(encode_record(event))])])

            Registry.finish = twice  # type: ignore[method-assign]


def main() -> None:
    """Let an upload die at each of its operations."""
    directory, power_cut = Path(sys.argv[1]), sys.argv[2] == "power"
    for mutant in sys.argv[3:]:
        leave_out(mutant)
    (directory / "0").mkdir(parents=True)
    steps, findings = attempt(directory / "0", 0, power_cut=power_cut)
    chance = random.Random(7)
    for number in range(1, len(steps) + 1):
        data = directory / str(number)
        data.mkdir()
        findings += attempt(data, number, power_cut=power_cut)[1]
        # Once a blob shares its bytes with the upload's file, every one of the next operations is tried as the last.
        later = range(1, 9) if (data / "blobs").exists() else [chance.randint(1, 12)]
        for die_at in (*later, 0):
            findings += attempt(data, die_at, power_cut=power_cut)[1]
    print(json.dumps({"steps": steps, "findings": findings}))


if __name__ == "__main__":
    main()
