"""The project keeps its rules as a whole; and each rule finds what breaks it."""

from __future__ import annotations

from tests.house import project_rules as rules
from tests.house.findings import Source, project_files, report, sources
from tests.support import ROOT

ERRORS_PAGE = "docs/errors.md"
GUARANTEES_PAGE = "docs/guarantees.md"
_TEXT = (".py", ".md", ".toml", ".json", ".css", ".js", ".html", ".lock", ".txt", "Makefile", "run")


def pages() -> dict[str, str]:
    """Return all documents of the project, by path."""
    return {name: (ROOT / name).read_text("utf-8") for name in project_files() if name.endswith(".md")}


def test_every_public_name_has_a_test() -> None:
    """Each exported name and each error of the library comes up in a test, and no public name is unused."""
    found = report(rules.untested(sources("src"), sources("tests")))
    assert not found, f"\n{found}"


def test_every_error_has_its_section() -> None:
    """Each error class has a code of its own with a section in docs/errors.md, and no section is left over."""
    page = (ROOT / ERRORS_PAGE).read_text("utf-8")
    found = report(rules.error_codes(rules.error_classes(sources("src")), page, ERRORS_PAGE))
    assert not found, f"\n{found}"


def test_no_file_tells_of_a_machine() -> None:
    """No committed text holds an absolute path of the machine that it was written on."""
    texts = [name for name in project_files() if name.endswith(_TEXT)]
    found = report(found for name in texts for found in rules.machine_paths(name, (ROOT / name).read_text("utf-8")))
    assert not found, f"\n{found}"


def test_links_lead_somewhere() -> None:
    """Each relative link in a document leads to a file, and to a heading that is there."""
    every = pages()
    found = report(found for name in every for found in rules.broken_links(name, every, project_files()))
    assert not found, f"\n{found}"


def test_guarantees_name_their_tests() -> None:
    """Each promise that is said to be held names a test that exists."""
    text = (ROOT / GUARANTEES_PAGE).read_text("utf-8")
    found = report(rules.guarantees(GUARANTEES_PAGE, text, {source.path: source for source in sources("tests")}))
    assert not found, f"\n{found}"


def test_an_untested_name_is_found() -> None:
    """An export and an error without test are found, and a name that nothing uses; others are not."""
    face = Source.of("__all__ = ['Used', 'Untested', 'LIMIT']", "src/mainstem/__init__.py")
    sample = Source.of(
        "class Used: ...\nclass Untested: ...\ndef unused(): ...\ndef _private(): ...\n"
        "class BadError(MainstemError):\n    code = 'bad'\nclass WorseError(BadError):\n    code = 'worse'\n"
        "class WorstError(BadError):\n    code = 'worst'\nraise BadError(WorseError, WorstError, Untested)"
    )
    tests = Source.of("from mainstem.sample import Used\nassert code == 'worse'")
    assert [found.message for found in rules.untested([face, sample], [tests])] == [
        "exported, and no test uses Untested",
        "neither a test nor the library uses unused",
        "no test shows when WorstError is raised",
    ]


def test_wrong_error_codes_are_found() -> None:
    """A missing code, a code used twice, a missing section and a section too many are found, over two files."""
    one = Source.of(
        "class LogError(MainstemError):\n    code = 'log'\nclass TornError(LogError): ...\nclass Other: ..."
    )
    two = Source.of(
        "class SameError(errors.LogError):\n    code: ClassVar[str] = 'log'\n"
        "class NewError(LogError):\n    code = 'new'"
    )
    found = rules.error_codes(rules.error_classes([one, two]), "# Errors\n\n## log\n\n## gone\n", "errors.md")
    assert sorted(each.message for each in found) == [
        "SameError has the code of LogError: log",
        "TornError states no code of its own",
        "errors.md has no section '## new' (NewError)",
        "no error has the code gone",
    ]


def test_machine_paths_are_found() -> None:
    """A path of a home is found; an address and a relative path are not."""
    text = "in {}home/me/x\nhttps://example.org/home/x\nsrc/home/x\n/data/home".format("/")
    assert [found.line for found in rules.machine_paths("a.md", text)] == [1]


def test_broken_links_are_found() -> None:
    """A link to a missing file and one to a missing heading are found; what leads somewhere, and code, are not."""
    a = "[b](b.md#the-second-part) [x](../gone.md) [self](#top) [dir](..)\n# Top\n```\n[code](nowhere)\n```\n[site](https://x.org/)"
    every = {"docs/a.md": a + "\n[bad](b.md#third)", "docs/b.md": "## The `second` part\n"}
    files = {*every, "README.md"}
    found = list(rules.broken_links("docs/a.md", every, files))
    assert [each.message for each in found] == [
        "links to ../gone.md, which is not there",
        "links to b.md#third: there is no such heading",
    ]


def test_empty_promises_are_found() -> None:
    """A promise held by no test, or by one that is missing, a double id and an unknown state are found."""
    page = """\
| id | promise | test | mutant | state |
|---|---|---|---|---|
| LOG-1 | good | `tests/a.py::test_one` | — | held |
| LOG-1 | twice | | | not yet held |
| LOG-2 | none | — | — | held |
| LOG-3 | missing | `tests/a.py::test_two` | `tests/b.py` | held |
| LOG-4 | state | | | nearly |
| LOG-5 | short |
"""
    tests = {"tests/a.py": Source.of("async def test_one(): pass")}
    assert [found.message.split(":")[0] for found in rules.guarantees("g.md", page, tests)] == [
        "LOG-1 is there twice",
        "LOG-2 is held by no test",
        "LOG-3 names `tests/a.py",
        "LOG-3 names `tests/b.py`, which is not there",
        "LOG-4",
        "LOG-5",
    ]
