"""What the documents say is so: their code runs, their commands work and print what is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.document import Block, Command, DocumentError, Session, blocks_of, matches
from tests.house.findings import project_files
from tests.support import ROOT

CHAINS = [
    ("README.md",),
    ("docs/tutorial.md", "docs/commands.md"),  # the second looks at what the first has left
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain[0])
def test_documents_work(chain: tuple[str, ...], tmp_path: Path) -> None:
    """A reader who does what the page says gets what the page says."""
    with Session(tmp_path) as session:
        for name in chain:
            session.run_page((ROOT / name).read_text("utf-8"))


def test_every_document_with_code_is_run() -> None:
    """No page with code or commands is left out."""
    with_code = {
        name for name in project_files() if name.endswith(".md") and blocks_of((ROOT / name).read_text("utf-8"))
    }
    assert with_code == {name for chain in CHAINS for name in chain}


def test_every_decision_is_in_the_index() -> None:
    """The index of decisions names each page once, by number and title, in their order."""
    directory = ROOT / "docs" / "decisions"
    titles = [(page.name, page.read_text("utf-8").splitlines()[0]) for page in sorted(directory.glob("0*.md"))]
    expected = [
        f"{number}. [{title}]({name})" for name, (number, title) in ((n, t[2:].split(". ", 1)) for n, t in titles)
    ]
    index = (directory / "README.md").read_text("utf-8").splitlines()
    assert [line for line in index if "](0" in line] == expected


def test_links_between_documents_lead_somewhere() -> None:
    """Each file that a document links to is there."""
    lost = [
        f"{name}: {target}"
        for name in project_files()
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (ROOT / name).read_text("utf-8"))
        if not ((ROOT / name).parent / target).exists()
    ]
    assert lost == []


PAGE = """\
```python
# app.py
print("hi")
```
```python sketch
not … code
```
```text
$ neither
```
```console
$ python app.py
hi
$ python -c 'print(1)'   # a comment
```
"""


def test_blocks_are_found() -> None:
    """Python and console blocks are found with their lines; sketches and other languages are not."""
    python, console = blocks_of(PAGE)
    assert (python.file_name, python.line) == ("app.py", 2)
    assert list(console.commands()) == [
        Command(12, "python app.py", "hi"),
        Command(14, "python -c 'print(1)'   # a comment", None),
    ]


def test_printed_text_is_compared() -> None:
    """Spaces at the ends of lines do not count, and an ellipsis stands for anything; all else counts."""
    assert matches("a …\nb", "a  1 2 \nb\n")
    assert matches("…", "anything\nat all")
    assert not matches("a", "a\nb")
    assert not matches("a.c", "abc")


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```console\n$ python -c 'print(2)'\n1\n```\n", "printed"),
        ("```console\n$ python -c 'raise SystemExit(3)'\n```\n", "exit 3"),
        ("```console\n$ rm -rf x\n```\n", "no test knows"),
        ("```console\n$ make nothing-like-it\n```\n", "no make target"),
        ("```console\n$ curl -d x http://127.0.0.1:8000/\n```\n", "nothing runs"),
        ("```console\n$ mainstem dev missing.py\n```\n", "before it was ready"),
        ("```python\nassert 1 == 2\n```\n", "AssertionError"),
    ],
)
def test_what_is_not_so_is_found(page: str, complaint: str, tmp_path: Path) -> None:
    """Wrong output, a failing command, an unknown one, a missing target, and code that fails are errors."""
    with Session(tmp_path) as session, pytest.raises(DocumentError, match=complaint):
        session.run_page(page)


def test_code_of_a_page_shares_names_and_may_await(tmp_path: Path) -> None:
    """Blocks may await at their top level, and import the files of their page."""
    blocks = ["# lib.py\nX = 3", "import asyncio, lib\nx = lib.X", "assert await asyncio.sleep(0, x) == 3"]
    page = "".join(f"```python\n{block}\n```\n" for block in blocks)
    with Session(tmp_path) as session:
        session.run_page(page)
    assert Block("python", "", "x = 1\n", 1).file_name == ""
