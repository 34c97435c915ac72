"""How long a container says that its own file is: Matroska's and WebM's segment, AVI's RIFF chunks. Bytes in, numbers
out.

A file that ends before that was cut off, however well its beginning plays. What is streamed live says nothing of its
length, and is taken as it is; so is a file that has more bytes than it says.

Sources: RFC 8794, sections 4 to 6 (EBML), RFC 9559, section 5.1 (Matroska's segment); "OpenDML AVI File Format
Extensions", version 1.02, section 4 (several RIFF chunks one after the other).
"""

from __future__ import annotations

from typing import BinaryIO

_EBML_HEADER = 0x1A45DFA3
_SEGMENT = 0x18538067
_ELEMENTS_MAX = 16
_RIFFS_MAX = 10_000


def declared_size_bytes(file: BinaryIO, format_name: str) -> int | None:
    """Return how many bytes a file must have, by what it says itself; ``None`` where it does not tell.

    Args:
        file: The file, open for reading; its place is changed.
        format_name: ffmpeg's name of the format.
    """
    file.seek(0)
    if format_name.startswith("matroska"):
        return _segment_end(file)
    return _riff_end(file) if format_name == "avi" else None


def _segment_end(file: BinaryIO) -> int | None:
    """Return where the first segment ends; ``None`` where its size is unknown, as in a live stream."""
    for _element in range(_ELEMENTS_MAX):
        kind, _is_unknown = _read_number(file, keep_marker=True)
        size, is_unknown = _read_number(file, keep_marker=False)
        if kind is None or size is None or is_unknown:
            return None
        if kind == _SEGMENT:
            return file.tell() + size
        file.seek(size, 1)
    return None


def _read_number(file: BinaryIO, *, keep_marker: bool) -> tuple[int | None, bool]:
    """Read an EBML number of variable length: its value (``None`` for none), and whether all its bits are set, which
    says of a size that it is unknown (RFC 8794, 6.2).
    """
    first = file.read(1)
    if not first or not first[0]:
        return None, False
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) != length - 1:
        return None, False
    whole = int.from_bytes(first + rest, "big")
    bits = 7 * length
    value = whole & ((1 << bits) - 1)
    return whole if keep_marker else value, value == (1 << bits) - 1


def _riff_end(file: BinaryIO) -> int | None:
    """Return where the last RIFF chunk ends that begins within the file; ``None`` where one does not tell its size."""
    start = 0
    end: int | None = None
    for _chunk in range(_RIFFS_MAX):
        file.seek(start)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        size = int.from_bytes(header[4:], "little")
        if size in (0, 0xFFFFFFFF):  # never filled in: the program died, or could not go back
            return None
        end = start + size  # and the header of 8 bytes, which some programs count in
        start += 8 + size + size % 2
    return end
