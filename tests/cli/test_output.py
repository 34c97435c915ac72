"""What is printed: nothing of a stranger's reaches a terminal raw, and numbers read well."""

from __future__ import annotations

import errno
import io
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.cli.errors import CommandError
from mainstem.cli.output import (
    Output,
    format_count,
    format_time,
    iso_time,
    json_text,
    layout,
    printable,
    printable_lines,
)


@given(st.text())
def test_printable_leaves_no_control_character(text: str) -> None:
    """No control character and no change of direction survives, whatever a stranger wrote."""
    shown = printable(text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert not any(character in shown for character in "\u202a\u202e\u2066\u2028\u200f")


def test_printable_shows_what_was_there() -> None:
    """A control character is shown as its escape."""
    assert printable("a\x1b[31mb\n") == "a\\x1b[31mb\\n"
    assert printable_lines("a\nb\x07") == "a\nb\\x07"


def test_counts() -> None:
    """A noun takes its plural from its number."""
    assert [format_count(number, "step") for number in (0, 1, 1200)] == ["0 steps", "1 step", "1,200 steps"]


def test_times() -> None:
    """Programs get UTC with microseconds, people their own time with milliseconds."""
    assert iso_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert format_time(1_700_000_000_123_456_789).endswith(":20.123")


def test_layout_aligns_columns() -> None:
    """Columns are as wide as their widest cell, numbers stand flush right, the last column is cut."""
    rows = [("name", "n", "what"), ("a", "1,000", "something long")]
    assert layout(rows, right=frozenset({1}), width=20) == ["name      n  what", "a     1,000  someth…"]
    assert layout([]) == []


def test_off_terminal_there_are_no_styles() -> None:
    """Output into a file has no colours and a fixed width."""
    stream = io.StringIO()
    output = Output(as_json=False, stdout=stream)
    output.text(output.style("bad", "red"))
    assert not output.styled
    assert not output.is_terminal
    assert output.width == 120
    assert stream.getvalue() == "bad\n"


def test_on_a_terminal_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets colours, unless ``NO_COLOR`` is set."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Output(as_json=False, stdout=stream).style("bad", "red") == "\x1b[31mbad\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Output(as_json=False, stdout=stream).style("bad", "red") == "bad"


def test_errors_and_documents() -> None:
    """Remarks go to standard error, documents to standard output, errors to either by the format asked for."""
    out, err = io.StringIO(), io.StringIO()
    plain = Output(as_json=False, stdout=out, stderr=err)
    plain.remark("looking")
    plain.error(CommandError("it\x1b broke", try_command="mainstem runs"))
    assert err.getvalue() == "looking\nerror: it\\x1b broke\n  try: mainstem runs\n"
    machine = Output(as_json=True, stdout=out, stderr=err)
    machine.document({"a": 1})
    machine.error(CommandError("no"))
    machine.flush()
    assert out.getvalue() == '{\n  "a": 1\n}\n{"error":{"code":"command","message":"no","try":""}}\n'


def test_what_is_no_text_is_written_out_in_json() -> None:
    """A file's name that is no UTF-8 and a record's JSON whose strings are none are JSON that is text."""
    name = os.fsdecode(b"/tmp/\xff")
    assert json_text({name: [(name, 1)], "summary": Named(name)}) == (
        '{"/tmp/\\\\udcff":[["/tmp/\\\\udcff",1]],"summary":{"name":"/tmp/\\\\udcff"}}'
    )
    assert json_text({"value": msgspec.Raw(b'"\xff"')}) == '{"value":"\ufffd"}'


@given(st.text(st.characters(exclude_categories=[])))
def test_everything_can_be_printed(text: str) -> None:
    """Whatever the text and the terminal's encoding, a line is printed, and JSON stays what it was."""
    for encoding in ("ascii", "latin-1", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        output = Output(as_json=True, stdout=stream)
        output.text(text)
        output.json_line([text])
        stream.seek(0)
        *_lines, line, rest = stream.buffer.read().split(b"\n")
        assert rest == b""
        assert msgspec.json.decode(line.decode(encoding)) == [text.encode(errors="backslashreplace").decode()]


class Named(msgspec.Struct):
    """Something with a name."""

    name: str


class Full(io.StringIO):
    """A stream to a disk that is full."""

    def write(self, _text: str) -> int:
        """Refuse it."""
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stdout", [Full(), None], ids=["full", "closed"])
def test_an_output_that_takes_nothing_is_told_where_it_can_be(
    stdout: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printing names standard output as what is at fault; an error that was to be JSON there goes to standard error."""
    monkeypatch.setattr("sys.stdout", None)
    err = io.StringIO()
    output = Output(as_json=True, stdout=stdout, stderr=err)
    for printing in (output.text, output.document, output.json_line):
        with pytest.raises(OSError, match="standard output") as caught:
            printing("a")
        assert caught.value.filename == "standard output"
    output.error(CommandError("no"))
    assert err.getvalue() == "error: no\n"
    output.settle()


def test_nobody_left_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a standard error, or with a full one, a remark is nobody's, and the exit code tells."""
    monkeypatch.setattr("sys.stderr", None)
    for stderr in (None, Full()):
        Output(as_json=False, stderr=stderr).error(CommandError("no"))
