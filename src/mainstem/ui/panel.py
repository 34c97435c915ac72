"""The shape of a panel: what a part of mainstem shows on the dashboard.

A panel projects records into tables of the page state, and renders pages from them. Both happen in one thread with one
SQLite connection, away from the event loop; both are pure but for that connection. The page state is disposable: a
higher ``version`` throws it away, and it is made again from the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from mainstem.log.contract import StoredRecord
from mainstem.trace.spans import UnderWay
from mainstem.ui.html import Html


class GroupFacts(msgspec.Struct, frozen=True):
    """What the bus knows about one consumer group at this moment.

    Attributes:
        lag: Matching records that are not done yet.
        in_flight: Records that are being worked on.
        retrying: Records that failed and wait for their next attempt.
        dead: Records that were given up and lie in ``$dead.<group>``.
        failure: Why the group stopped, if it did.
    """

    name: str
    pattern: str
    position: int
    lag: int
    in_flight: int
    retrying: int
    dead: int
    failure: str = ""


class LiveFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows that is no record: the log's size, the groups' lag.

    Attributes:
        now_ns: Wall-clock time of the rendering.
        end_position: Position of the log's last record.
        record_count: Records that the log holds.
        stream_count: Streams that hold them.
        size_bytes: Space that they take.
        groups: The consumer groups.
        writable: Whether the application runs here, so that cancel and resume work.
        at_work: Ids of the runs that have had their turn: before the end of their first attempt no record tells.
        under_way: The attempts that are being carried out for the page's run, where it is the page of one.
    """

    now_ns: int
    end_position: int = 0
    record_count: int = 0
    stream_count: int = 0
    size_bytes: int = 0
    groups: Sequence[GroupFacts] = ()
    writable: bool = True
    under_way: Sequence[UnderWay] = ()
    at_work: frozenset[str] = frozenset()


class PageRequest(msgspec.Struct, frozen=True):
    """What a page is rendered from, beside the page state.

    Attributes:
        path: Values of the path's parameters, by name.
        query: The query's parameters, by name; of repeated ones the last.
        base: Address of the dashboard's root, ending in a slash: every link begins with it.
        facts: See :class:`LiveFacts`.
        files: Paths below the root of the dashboard's own files, by name.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    base: str
    facts: LiveFacts
    files: Mapping[str, str] = {}


class Fragment(msgspec.Struct, frozen=True):
    """A part of a page that is replaced by itself when it changes.

    Attributes:
        id: Its element's id, unique on the page.
        html: What the element holds.
        label: What a screen reader calls it, if it is a region of its own.
        live: Whether a screen reader announces its changes (politely).
        class_: Classes of its element.
    """

    id: str
    html: Html
    label: str = ""
    live: bool = False
    class_: str = ""


class PageView(msgspec.Struct, frozen=True):
    """A rendered page.

    Attributes:
        title: Its heading and the window's title.
        fragments: Its parts, in order.
        topics: A change of any of these renders the page again: what :meth:`Panel.apply` returned.
        subtitle: What stands beside the heading.
        parents: Links above the heading: (text, address below the root).
        scripts: Files of the dashboard's own that it needs beside the usual ones.
    """

    title: str
    fragments: Sequence[Fragment]
    topics: frozenset[str]
    subtitle: Html | str = ""
    parents: Sequence[tuple[str, str]] = ()
    scripts: Sequence[str] = ()


class Page(msgspec.Struct, frozen=True):
    """An address of the dashboard.

    Attributes:
        path: Below the root, with parameters in braces: ``"uploads/{upload_id}"``.
        render: Returns the view, or ``None`` when there is no such thing (the answer is then 404).
        nav: Its name in the navigation; empty for pages that are reached by links.
        icon: Name of its icon there.
    """

    path: str
    render: Callable[[sqlite3.Connection, PageRequest], PageView | None]
    nav: str = ""
    icon: str = ""


class Panel(Protocol):
    """What a service or a part of the core shows on the dashboard."""

    @property
    def name(self) -> str:
        """Short name, unique among the panels."""
        ...

    @property
    def version(self) -> int:
        """Version of the schema and of :meth:`apply`; any change throws the page state away."""
        ...

    @property
    def patterns(self) -> Sequence[str]:
        """The streams that it projects."""
        ...

    @property
    def schema(self) -> str:
        """SQL that creates its tables, all of whose names begin with its own name and ``_``."""
        ...

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Take records into the page state and return the topics that they changed.

        It runs inside a transaction of the caller's. A record that it cannot read is passed over: others write to these
        streams too.
        """
        ...

    def pages(self) -> Sequence[Page]:
        """Return its pages."""
        ...
