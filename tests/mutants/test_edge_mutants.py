"""Promises of the log's edges, the workflows' and the services', each with a small break that its own test must catch.

The tests are those that the promises are shown by elsewhere: here each is run against broken code, and must fail by
what it asserts.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import steps as steps_module
from mainstem.flow.history import RunFold
from mainstem.host import lock as lock_module
from mainstem.log import Record
from mainstem.log.embedded import engine as log_engine
from mainstem.log.embedded.budget import ByteBudget
from mainstem.log.errors import LogClosedError
from mainstem.services.media import work as media_work
from mainstem.services.uploads import headers as headers_module
from mainstem.web import security as security_module
from tests.flow import test_recovery
from tests.log import test_engine, test_io_errors
from tests.services.media import test_workflow
from tests.services.media.clips import Clips
from tests.services.uploads import test_service
from tests.web import test_security


def unknown_told_as_not_written(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a commit that failed half-way is told that nothing was written."""
    patch.setattr(log_engine, "AppendOutcomeUnknownError", LogClosedError)


def budget_ignored(patch: pytest.MonkeyPatch) -> None:
    """Bytes that wait are counted, never waited for."""
    patch.setattr(ByteBudget, "_fits", lambda _self, _size: True)


def lock_not_taken(patch: pytest.MonkeyPatch) -> None:
    """The owner of a directory is not looked for: neither in this process nor in another."""
    patch.setattr(lock_module.RecordLock, "_refuse_second_taker", lambda _self, _path: (0, 0))
    patch.setattr(fcntl, "lockf", lambda _descriptor, _operation: None)


def digest_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A step that is called with other arguments gets the recorded result of the earlier ones."""
    patch.setattr(steps_module, "digest", lambda _arguments: "0")
    patch.setattr(steps_module, "_NO_ARGUMENTS_DIGEST", "0")


def wake_time_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After a restart a run that sleeps is taken over at once: nobody knows when it shall wake."""
    advance = RunFold._advance

    def forgetful(self: RunFold, entry: Any) -> None:
        advance(self, entry)
        self.wake_at_ns = 0

    patch.setattr(RunFold, "_advance", forgetful)


def claims_never_counted(patch: pytest.MonkeyPatch) -> None:
    """Nobody counts how often a run was taken over in vain."""
    apply = RunFold.apply

    def forgiving(self: RunFold, record: Any) -> Any:
        entry = apply(self, record)
        self.claims_in_vain = 0
        return entry

    patch.setattr(RunFold, "apply", forgiving)


def policy_left_out(patch: pytest.MonkeyPatch) -> None:
    """Answers let a page load from anywhere."""
    loose = {**security_module.HEADERS, "content-security-policy": "default-src *"}
    patch.setattr(security_module, "HEADERS", loose)


def names_of_strangers_kept(patch: pytest.MonkeyPatch) -> None:
    """A file name is taken as it comes, with its directories."""
    patch.setattr(headers_module, "display_name", lambda name: name)


def visible_before_it_is_complete(patch: pytest.MonkeyPatch) -> None:
    """A video is announced when its packaging begins."""
    do_package = media_work.do_package

    async def early(shop: media_work.Workshop, *rest: Any) -> Any:
        await shop.log.append("video.ready", [Record(b"{}", headers={"about": "video:upload-1"})])
        return await do_package(shop, *rest)

    patch.setattr(media_work, "do_package", early)


def a_failed_packaging(directory: Path) -> None:
    """What fails to be packaged is not announced."""
    clips = directory / "clips"
    clips.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        test_workflow.test_a_failure_of_ours_publishes_nothing(Clips(clips), directory, patch)


CASES: Sequence[tuple[Callable[[Path], None], Callable[[pytest.MonkeyPatch], None]]] = (
    (lambda _path: test_io_errors.test_calls_behind_a_failed_commit_were_not_written(), unknown_told_as_not_written),
    (test_engine.test_backpressure_bounds_what_waits, budget_ignored),
    (test_engine.test_second_opener_is_told_who_owns_the_directory, lock_not_taken),
    (
        lambda path: test_recovery.test_code_that_no_longer_fits_pauses_the_run(path, "other arguments", "first#1"),
        digest_not_compared,
    ),
    (test_recovery.test_a_sleeper_is_not_taken_over_before_it_wakes, wake_time_forgotten),
    (test_recovery.test_three_claims_in_vain_are_a_quarantine, claims_never_counted),
    (a_failed_packaging, visible_before_it_is_complete),
    (test_service.test_hostile_names_stay_words, names_of_strangers_kept),
    (test_security.test_every_answer_carries_the_policy, policy_left_out),
)


@pytest.mark.parametrize(("check", "mutant"), CASES, ids=[mutant.__name__ for _check, mutant in CASES])
def test_mutant(
    check: Callable[[Path], None],
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken code does not keep the promise, and its test notices."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(tmp_path)
