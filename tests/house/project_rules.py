"""Rules that the project keeps as a whole: names and their tests, error codes and their pages, links, guarantees."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.house.findings import Finding, Source, name_of

BASE_ERROR = "MainstemError"

_MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|work|Users)/\w")
_LINK = re.compile(r"(?<!`)!?\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_ROW_ID = re.compile(r"[A-Z]+-\d+")
_TEST_NAME = re.compile(r"`(tests/[\w/.-]+\.py)(?:::(\w+))?`")


def public_names(source: Source) -> Iterator[tuple[str, int]]:
    """Yield the top-level public classes and functions of a file, with their lines."""
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node.lineno


def face_of(source: Source) -> Iterator[tuple[str, int]]:
    """Yield the names that a package's ``__init__.py`` exports in ``__all__``, with the line."""
    for node in source.tree.body:
        match node:
            case ast.Assign([ast.Name("__all__")], value) | ast.AnnAssign(ast.Name("__all__"), value=value):
                for element in getattr(value, "elts", ()):
                    if isinstance(element, ast.Constant) and isinstance(element.value, str):
                        yield element.value, node.lineno
            case _:
                continue


def used_names(source: Source) -> set[str]:
    """Return every identifier that a file uses: names, attributes, what it imports, and texts that could be codes."""
    names: set[str] = set()
    for node in ast.walk(source.tree):
        match node:
            case ast.Name(name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                names.update(alias.name for alias in aliases)
            case ast.Constant(str(text)) if re.fullmatch(r"[a-z0-9-]+", text):
                names.add(text)
            case _:
                pass
    return names


def untested(product: Iterable[Source], tests: Iterable[Source]) -> Iterator[Finding]:
    """What a package exports is used by some test, each error comes up in one, and no other public name is unused."""
    product = list(product)
    in_tests = {name for source in tests for name in used_names(source)}
    in_product = {name for source in product for name in used_names(source)}
    for source in product:
        if source.path.endswith("/__init__.py"):
            for name, line in face_of(source):
                if name not in in_tests and not name.isupper():
                    yield Finding(source.path, line, f"exported, and no test uses {name}")
        for name, line in public_names(source):
            if name not in in_tests | in_product:
                yield Finding(source.path, line, f"neither a test nor the library uses {name}")
    yield from _errors_without_test(error_classes(product), in_tests)


def _errors_without_test(errors: Collection[ErrorClass], in_tests: Collection[str]) -> Iterator[Finding]:
    bases = {base for error in errors for base in error.bases}
    for error in errors:
        if error.name not in in_tests and error.code not in in_tests and error.name not in bases:
            yield Finding(error.path, error.line, f"no test shows when {error.name} is raised")


@dataclass(frozen=True)
class ErrorClass:
    """An error class of the product, and the code that its body states; ``None`` when it states none."""

    name: str
    bases: tuple[str, ...]
    code: str | None
    path: str
    line: int


def error_classes(product: Iterable[Source]) -> list[ErrorClass]:
    """Return all classes that are, however indirectly, errors of the project."""
    classes = [
        ErrorClass(
            node.name,
            tuple(name_of(base).rpartition(".")[2] for base in node.bases),
            _stated_code(node),
            source.path,
            node.lineno,
        )
        for source in product
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef)
    ]
    errors = {BASE_ERROR}
    while new := {each.name for each in classes if errors.intersection(each.bases)} - errors:
        errors |= new
    return [each for each in classes if each.name in errors]


def _stated_code(node: ast.ClassDef) -> str | None:
    for line in node.body:
        match line:
            case ast.Assign([ast.Name("code")], ast.Constant(str(code))):
                return code
            case ast.AnnAssign(ast.Name("code"), value=ast.Constant(str(code))):
                return code
            case _:
                continue
    return None


def error_codes(errors: Iterable[ErrorClass], page: str, page_path: str) -> Iterator[Finding]:
    """Each error has a code of its own, and the page a section for each code and none besides."""
    headings = {match[1].strip("`"): page.count("\n", 0, match.start()) + 1 for match in _sections(page)}
    codes: dict[str, str] = {}
    for error in errors:
        if error.code is None:
            yield Finding(error.path, error.line, f"{error.name} states no code of its own")
        elif error.code in codes:
            yield Finding(error.path, error.line, f"{error.name} has the code of {codes[error.code]}: {error.code}")
        elif error.code not in headings:
            yield Finding(error.path, error.line, f"{page_path} has no section '## {error.code}' ({error.name})")
        if error.code is not None:
            codes.setdefault(error.code, error.name)
    for heading in headings.keys() - codes.keys():
        yield Finding(page_path, headings[heading], f"no error has the code {heading}")


def _sections(page: str) -> Iterator[re.Match[str]]:
    return re.finditer(r"^## +(\S+)$", page, re.MULTILINE)


def machine_paths(path: str, text: str) -> Iterator[Finding]:
    """No file tells of the machine that it was written on."""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _MACHINE_PATH.search(line):
            yield Finding(path, number, f"a path of some machine: {match[0]}…")


def anchor_of(heading: str) -> str:
    """Return the anchor that a page gives to a heading: lower case, punctuation dropped, hyphens for spaces."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower())
    return kept.replace(" ", "-")


def broken_links(path: str, pages: Mapping[str, str], files: Collection[str]) -> Iterator[Finding]:
    """Relative links of a page lead to files of the project, and to headings that are there."""
    text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), pages[path])
    for match in _LINK.finditer(text):
        target, _, anchor = match[1].partition("#")
        if re.match(r"[a-z]+:", target):
            continue  # another site
        line = text.count("\n", 0, match.start()) + 1
        place = _resolve(path, target) if target else path
        is_directory = not place or any(name.startswith(place.rstrip("/") + "/") for name in files)
        if place not in files and not is_directory:
            yield Finding(path, line, f"links to {match[1]}, which is not there")
        elif anchor and place in pages and anchor not in _anchors(pages[place]):
            yield Finding(path, line, f"links to {match[1]}: there is no such heading")


def _anchors(page: str) -> set[str]:
    return {anchor_of(match[1]) for match in _HEADING.finditer(_FENCE.sub("", page))}


def _resolve(path: str, target: str) -> str:
    parts = path.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


HELD, NOT_YET = "held", "not yet held"
"""The two states of a promise."""


def guarantees(path: str, text: str, tests: Mapping[str, Source]) -> Iterator[Finding]:
    """Each promise has an id of its own; one that is held names tests that exist."""
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|") or not _ROW_ID.fullmatch(cells[0]):
            continue
        if len(cells) != 5:
            yield Finding(
                path, number, f"{cells[0]}: expected id, promise, test, mutant, state; got {len(cells)} cells"
            )
            continue
        if cells[0] in seen:
            yield Finding(path, number, f"{cells[0]} is there twice")
        seen.add(cells[0])
        if cells[4] not in {HELD, NOT_YET}:
            yield Finding(path, number, f"{cells[0]}: state is '{HELD}' or '{NOT_YET}', got {cells[4]!r}")
        if cells[4] == HELD and not _TEST_NAME.search(cells[2]):
            yield Finding(path, number, f"{cells[0]} is held by no test: expected `tests/….py::test_name`")
        for match in _TEST_NAME.finditer(cells[2] + cells[3]):
            if not is_a_test(match[1], match[2], tests):
                yield Finding(path, number, f"{cells[0]} names {match[0]}, which is not there")


def is_a_test(path: str, name: str | None, tests: Mapping[str, Source]) -> bool:
    """Tell whether a file of the tests is there, and holds a function or class of this name."""
    source = tests.get(path)
    if source is None or name is None:
        return source is not None
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        for node in ast.walk(source.tree)
    )
