"""Rules that one Python file keeps or breaks by itself. Each is a pure function from a source to findings."""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from collections.abc import Iterator

from tests.house.findings import Finding, Source, name_of

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60

_UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
_LEFT_OUT = {"pytest.skip", "pytest.xfail", "pytest.importorskip", "unittest.skip", "unittest.SkipTest"}
_LEFT_OUT_MARKS = {
    "pytest.mark.skip",
    "pytest.mark.skipif",
    "pytest.mark.xfail",
    "unittest.skipIf",
    "unittest.skipUnless",
}
_SLEEPS = {"time.sleep", "asyncio.sleep"}
_SLEEP_REASON = "# sleeps: "
_UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
_SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_EVALUATES = {"eval", "exec"}
_WIDE = {"Exception", "BaseException"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: Source) -> Iterator[FunctionNode]:
    """Yield all functions and methods, nested ones too."""
    for node in ast.walk(source.tree):
        if isinstance(node, FunctionNode):
            yield node


def unfinished(source: Source) -> Iterator[Finding]:
    """Nothing is left for later: no such marks in comments and docstrings, no unimplemented function."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and _UNFINISHED.search(token.string):
            yield Finding(source.path, token.start[0], "marked as unfinished")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield source.found(node, "unimplemented")
        elif isinstance(node, ast.Module | ast.ClassDef | FunctionNode) and _UNFINISHED.search(
            ast.get_docstring(node) or ""
        ):
            yield source.found(node, "its docstring is marked as unfinished")


def stubs(source: Source) -> Iterator[Finding]:
    """A body of ``...`` is for protocols and overloads only."""
    allowed: set[ast.AST] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and any(
            name_of(_unsubscripted(base)).endswith("Protocol") for base in node.bases
        ):
            allowed.update(node.body)
    for function in functions(source):
        body = _without_docstring(function)
        is_stub = bool(body) and all(
            isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and line.value.value is ...
            for line in body
        )
        if is_stub and function not in allowed and not _is_overload(function):
            yield source.found(function, f"{function.name} has no body")


def _unsubscripted(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Subscript) else node


def _without_docstring(node: FunctionNode) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node) is not None else node.body


def _is_overload(node: FunctionNode) -> bool:
    return any(name_of(decorator).endswith("overload") for decorator in node.decorator_list)


def left_out_tests(source: Source) -> Iterator[Finding]:
    """No test is skipped or expected to fail."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and name_of(node) in _LEFT_OUT | _LEFT_OUT_MARKS:
            yield source.found(node, f"{name_of(node)}: a test runs, or it is not there")


def sleeps(source: Source) -> Iterator[Finding]:
    """Tests wait for what they need, never for time to pass; ``# sleeps: why`` on the line says why one must."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or name_of(node.func) not in _SLEEPS or not node.args:
            continue
        duration = node.args[0]
        if isinstance(duration, ast.Constant) and duration.value == 0:
            continue  # a turn of the event loop, not a time
        if _SLEEP_REASON not in source.lines[node.lineno - 1]:
            yield source.found(
                node, f"{name_of(node.func)}: wait for a condition (tests/support.py), or say '{_SLEEP_REASON}…'"
            )


def swallowed_errors(source: Source) -> Iterator[Finding]:
    """An error that is caught is dealt with, or a comment says why the work goes on.

    To answer a named error with a value is to deal with it; so is to use the error that was caught.
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            yield from _handler(source, node)
        elif isinstance(node, ast.With | ast.AsyncWith):
            yield from _suppress(source, node)


def _handler(source: Source, node: ast.ExceptHandler) -> Iterator[Finding]:
    commented = source.comment_in(node.lineno, node.end_lineno or node.lineno)
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
    if node.type is None:
        yield source.found(node, "bare except: name the errors")
    elif any(isinstance(line, ast.Pass) for line in node.body):
        yield source.found(node, "swallowed: contextlib.suppress with a reason, or deal with it")
    elif all(_does_nothing(line) for line in node.body) and not commented:
        yield source.found(node, "the work goes on after this error: a comment says why that is right")
    elif {name_of(kind) for kind in caught} & _WIDE and not commented and not _raises(node) and not _uses_error(node):
        yield source.found(node, "catches everything: a comment says why that is right")


def _does_nothing(line: ast.stmt) -> bool:
    return isinstance(line, ast.Continue | ast.Break) or (isinstance(line, ast.Return) and line.value is None)


def _raises(node: ast.ExceptHandler) -> bool:
    return any(isinstance(inner, ast.Raise) for inner in ast.walk(node))


def _uses_error(node: ast.ExceptHandler) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == node.name for line in node.body for inner in ast.walk(line))


def _suppress(source: Source, node: ast.With | ast.AsyncWith) -> Iterator[Finding]:
    for item in node.items:
        call = item.context_expr
        if not isinstance(call, ast.Call) or name_of(call.func) not in {"suppress", "contextlib.suppress"}:
            continue
        if {name_of(argument) for argument in call.args} & _WIDE:
            yield source.found(node, "suppresses everything: name the errors")
        elif not source.comment_in(node.lineno - 1, node.body[0].lineno) and not isinstance(node.body[-1], ast.Return):
            yield source.found(node, "suppressed: a comment says why that is right")


def unsafe_calls(source: Source) -> Iterator[Finding]:
    """No pickle and its like, no shell, no evaluation of text."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for module in _UNSAFE_MODULES.intersection(module.split(".")[0] for module in modules):
                yield source.found(node, f"{module} runs what it reads")
        elif isinstance(node, ast.Call):
            if name_of(node.func) in _SHELLS or any(_is_shell(keyword) for keyword in node.keywords):
                yield source.found(node, "a shell: programs get argument lists")
            elif name_of(node.func) in _EVALUATES and not source.path.startswith("tests/"):
                yield source.found(node, f"{name_of(node.func)} runs text")


def _is_shell(keyword: ast.keyword) -> bool:
    return keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)


def sizes(source: Source) -> Iterator[Finding]:
    """Files and functions stay small enough to be read at once; a docstring does not count as its function's length."""
    if len(source.lines) > FILE_LINES_MAX:
        yield Finding(
            source.path, 0, f"{len(source.lines)} lines, at most {FILE_LINES_MAX}: what is the second subject in it?"
        )
    for function in functions(source):
        body = _without_docstring(function)
        if not body:
            continue
        length = (function.end_lineno or function.lineno) - body[0].lineno + 1
        if length > FUNCTION_LINES_MAX:
            yield source.found(function, f"{function.name} has {length} lines, at most {FUNCTION_LINES_MAX}")


def undocumented(source: Source) -> Iterator[Finding]:
    """Every public module, class, function, method and constant says what it is."""
    if ast.get_docstring(source.tree) is None and source.text.strip():
        yield Finding(source.path, 1, "the module has no docstring")
    yield from _undocumented_in(source, source.tree)


def _undocumented_in(source: Source, parent: ast.Module | ast.ClassDef) -> Iterator[Finding]:
    for position, node in enumerate(parent.body):
        if isinstance(node, ast.ClassDef | FunctionNode):
            if node.name.startswith("_") or (isinstance(node, FunctionNode) and _is_overload(node)):
                continue
            if ast.get_docstring(node) is None and not _is_setter(node):
                yield source.found(node, f"{node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                yield from _undocumented_in(source, node)
        elif isinstance(parent, ast.Module) and (name := _constant_name(node)) and not name.startswith("_"):
            following = itertools.dropwhile(_constant_name, parent.body[position:])
            commented = source.comment_in(node.lineno, node.end_lineno or node.lineno)
            if not commented and not _is_docstring(next(following, None)):
                yield source.found(node, f"{name} has neither a docstring below it nor a comment")


def _is_docstring(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_setter(node: ast.AST) -> bool:
    return isinstance(node, FunctionNode) and any(name_of(line).endswith(".setter") for line in node.decorator_list)


def _constant_name(node: ast.stmt) -> str:
    match node:
        case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)) if name.isupper() and len(name) > 1:
            return name
        case _:
            return ""


def untold_tests(source: Source) -> Iterator[Finding]:
    """Each test's docstring states the one fact that it shows."""
    for function in functions(source):
        if function.name.startswith("test_") and ast.get_docstring(function) is None:
            yield source.found(function, f"{function.name} does not say what it shows")
