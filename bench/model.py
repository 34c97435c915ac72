"""What a bench is: contenders doing the same work, one number each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Json = str | int | float | bool | None
Work = Mapping[str, Json]
"""What a contender is told to do; goes to it as JSON."""

Role = Literal["ours", "peer", "limit"]
Better = Literal["higher", "lower"]
Server = Callable[[Path], AbstractContextManager[Work]]
"""Starts a server that keeps its data in the given directory; yields what a contender needs to reach it."""


class BenchError(Exception):
    """A bench could not be run: a contender failed, a peer could not be started, an environment could not be built."""


@dataclass(frozen=True)
class Contender:
    """One program that does a bench's work, in one way.

    Attributes:
        role: Ours, a peer, or the limit that the machine itself sets.
        name: The key in the printed line. Several contenders may share it: the best of them stands for the name.
        module: Program, run with ``python -m``; see ``child.py`` for what passes between it and the runner.
        variant: Tells contenders of one name apart.
        venv: Environment of its own, by the name of its ``requirements-NAME.txt``; ``None`` for ours.
        work: What it is told, beyond what the bench tells everyone.
        server: Server that it needs while it runs.
        counts: Whether it may stand for its name. One that does not is printed among the variants only: a peer behind a
            group commit written by hand in the bench is not the peer as its users have it.
    """

    role: Role
    name: str
    module: str
    variant: str = ""
    venv: str | None = None
    work: Work = field(default_factory=dict)
    server: Server | None = None
    counts: bool = True

    @property
    def label(self) -> str:
        """Name and variant, for messages."""
        return f"{self.name} ({self.variant})" if self.variant else self.name


@dataclass(frozen=True)
class Bench:
    """A comparison.

    Attributes:
        name: As in ``--only``.
        unit: Of every contender's number.
        better: Whether a higher number or a lower one wins.
        contenders: In the order of the first round.
        work: What every contender is told.
        settings: What a reader must know to judge the comparison; printed with the line.
        seconds: Default of ``--seconds``; what it means is up to the bench.
        keeps_directory: Whether a contender finds its directory of the last round again, after one start that is not
            counted, instead of an empty one.
        idles: Whether contenders stay up in the last round, for ``seconds``, while their use of the machine is
            measured.
        timeout_s: How long a contender may take beyond ``seconds`` until it counts as failed.
    """

    name: str
    unit: str
    better: Better
    contenders: tuple[Contender, ...]
    work: Work
    settings: Mapping[str, str]
    seconds: float
    keeps_directory: bool = False
    idles: bool = False
    timeout_s: float = 120.0
