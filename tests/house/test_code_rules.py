"""The tree keeps the rules of single files; and each rule finds what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.house import code_rules as rules
from tests.house.findings import Finding, Source, report, sources

Rule = Callable[[Source], Iterator[Finding]]

EVERYWHERE = ("src", "tests", "bench", "examples", "scripts")
PRODUCT = ("src", "bench", "examples", "scripts")

KEPT: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "unfinished": (rules.unfinished, EVERYWHERE),
    "stubs": (rules.stubs, PRODUCT),
    "left out tests": (rules.left_out_tests, ("tests",)),
    "sleeps": (rules.sleeps, ("tests",)),
    "swallowed errors": (rules.swallowed_errors, EVERYWHERE),
    "unsafe calls": (rules.unsafe_calls, EVERYWHERE),
    "sizes": (rules.sizes, EVERYWHERE),
    "undocumented": (rules.undocumented, ("src",)),
    "untold tests": (rules.untold_tests, ("tests",)),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_tree_keeps_the_rule(name: str) -> None:
    """No file breaks the rule."""
    rule, directories = KEPT[name]
    found = report(finding for source in sources(*directories) for finding in rule(source))
    assert not found, f"\n{found}"


LONG_FUNCTION = "def long():\n" + "    x = 1\n" * 61

BROKEN: list[tuple[Rule, str]] = [
    (rules.unfinished, "x = 1  # TODO later"),
    (rules.unfinished, 'def f():\n    """Fine, but FIXME."""'),
    (rules.unfinished, "def f():\n    raise NotImplementedError"),
    (rules.unfinished, "raise NotImplementedError('x')"),
    (rules.stubs, "def f(): ..."),
    (rules.stubs, 'class C(Base):\n    def f(self):\n        """Say."""\n        ...'),
    (rules.left_out_tests, "import pytest\npytest.skip('no')"),
    (rules.left_out_tests, "@pytest.mark.skipif(True, reason='')\ndef test_a(): pass"),
    (rules.left_out_tests, "@pytest.mark.xfail\ndef test_a(): pass"),
    (rules.left_out_tests, "av = pytest.importorskip('av')"),
    (rules.sleeps, "time.sleep(0.1)"),
    (rules.sleeps, "await asyncio.sleep(delay)"),
    (rules.swallowed_errors, "try:\n    f()\nexcept:\n    raise"),
    (rules.swallowed_errors, "try:\n    f()\nexcept OSError:\n    pass  # never mind"),
    (rules.swallowed_errors, "for x in y:\n    try:\n        f()\n    except OSError:\n        continue"),
    (rules.swallowed_errors, "def f():\n    try:\n        g()\n    except OSError:\n        return"),
    (rules.swallowed_errors, "try:\n    f()\nexcept (ValueError, Exception):\n    g()"),
    (rules.swallowed_errors, "with suppress(OSError):\n    f()"),
    (rules.swallowed_errors, "with contextlib.suppress(Exception):  # why\n    f()"),
    (rules.unsafe_calls, "import pickle"),
    (rules.unsafe_calls, "from shelve import open"),
    (rules.unsafe_calls, "subprocess.run('ls', shell=True)"),
    (rules.unsafe_calls, "subprocess.run('ls', shell=wanted)"),
    (rules.unsafe_calls, "os.system('ls')"),
    (rules.unsafe_calls, "eval(text)"),
    (rules.sizes, "x = 1\n" * 601),
    (rules.sizes, LONG_FUNCTION),
    (rules.sizes, "class C:\n" + LONG_FUNCTION.replace("\n", "\n    ").replace("def", "    def", 1)),
    (rules.undocumented, "x = 1"),
    (rules.undocumented, '"""Module."""\ndef f(): pass'),
    (rules.undocumented, '"""Module."""\nclass C:\n    """Class."""\n    def f(self): pass'),
    (rules.undocumented, '"""Module."""\nLIMIT: int = 3\n'),
    (rules.untold_tests, "async def test_a(): pass"),
]


@pytest.mark.parametrize(("rule", "text"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_what_breaks_a_rule_is_found(rule: Rule, text: str) -> None:
    """The rule finds exactly one fault in the text."""
    assert len(list(rule(Source.of(text)))) == 1


FINE: list[tuple[Rule, str]] = [
    (rules.unfinished, "todo = 'TODO'  # a list of things"),
    (rules.stubs, "class P(Protocol[T]):\n    def f(self): ..."),
    (rules.stubs, "@overload\ndef f(): ..."),
    (rules.left_out_tests, "pytest.fail('no')"),
    (rules.sleeps, "await asyncio.sleep(0)"),
    (rules.sleeps, "await asyncio.sleep(5)  # sleeps: the step's work, cancelled by the test"),
    (rules.swallowed_errors, "try:\n    f()\nexcept OSError as error:\n    raise MyError() from error"),
    (
        rules.swallowed_errors,
        "for x in y:\n    try:\n        f()\n    except OSError:\n        continue  # gone: not ours",
    ),
    (rules.swallowed_errors, "try:\n    f()\nexcept BaseException:\n    undo()\n    raise"),
    (rules.swallowed_errors, "def f():\n    try:\n        return g()\n    except KeyError:\n        return None"),
    (rules.swallowed_errors, "try:\n    f()\nexcept Exception as error:\n    tell(error)"),
    (rules.swallowed_errors, "with suppress(OSError):  # it may be gone already\n    f()"),
    (rules.unsafe_calls, "subprocess.run(['ls'], shell=False)"),
    (rules.sizes, LONG_FUNCTION.removesuffix("    x = 1\n")),
    (
        rules.undocumented,
        '"""Module."""\nLEAST = 1\nMOST = 3\n"""Limits."""\nTHIRD = 3  # of three\n_x = 1\ndef _f(): pass',
    ),
    (rules.untold_tests, 'def test_a():\n    """One fact."""'),
]


@pytest.mark.parametrize(("rule", "text"), FINE, ids=[rule.__name__ for rule, _ in FINE])
def test_what_keeps_a_rule_is_left_alone(rule: Rule, text: str) -> None:
    """The rule finds nothing in the text."""
    assert report(rule(Source.of(text))) == ""
