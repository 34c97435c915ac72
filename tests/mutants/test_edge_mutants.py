"""Promises of the log's edges, the workflows' and the services', each with a small break that its own test must catch.

The tests are those that the promises are shown by elsewhere: here each is run against broken code, and must fail by
what it asserts.
"""

from __future__ import annotations

import copy
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.bus.lanes import Delivery
from mainstem.flow import RunFailedError
from mainstem.flow import flow as flow_module
from mainstem.flow import steps as steps_module
from mainstem.flow import timers as timers_module
from mainstem.flow.engine import Engine
from mainstem.flow.history import RunFold
from mainstem.flow.journal import StepStarted
from mainstem.flow.process_pool import Worker
from mainstem.flow.queues import Queue, Window
from mainstem.flow.run import Run
from mainstem.host import lock as lock_module
from mainstem.host.disk import SystemFile
from mainstem.log import Record
from mainstem.log.embedded import engine as log_engine
from mainstem.log.embedded import recovery, scan
from mainstem.log.embedded.budget import ByteBudget
from mainstem.log.embedded.rolling import Rolling
from mainstem.log.errors import LogClosedError
from mainstem.services.media import service as media_service
from mainstem.services.media import work as media_work
from mainstem.services.uploads import headers as headers_module
from mainstem.services.uploads.reception import Body
from mainstem.services.uploads.registry import Entry, Registry
from mainstem.services.uploads.service import Uploads
from mainstem.services.uploads.storage import PartFile
from mainstem.web import security as security_module
from tests.app import test_unreadable
from tests.bus import test_bus
from tests.flow import test_ids, test_interrupted, test_jobs, test_parts, test_recovery, test_worker_faults
from tests.host import test_disk
from tests.log import test_damage, test_engine, test_io_errors
from tests.services.media import test_lives, test_workflow
from tests.services.media.clips import Clips
from tests.services.uploads import test_headers, test_lifecycle, test_reception, test_service
from tests.web import test_security


def unknown_told_as_not_written(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a commit that failed half-way is told that nothing was written."""
    patch.setattr(log_engine, "AppendOutcomeUnknownError", LogClosedError)


def reserve_for_everyone(patch: pytest.MonkeyPatch) -> None:
    """On a full disk any append may fill a segment to its last byte."""
    patch.setattr(Rolling, "room_bytes", lambda self, **_options: self.active.room_bytes)


def full_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Once the disk was full nobody looks again whether there is room."""
    patch.setattr(Rolling, "is_full", property(lambda self: self._full_until_s is not None))


def versions_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A frame of whatever version, kind and features is read as one of this version."""
    for module in (scan, recovery):
        patch.setattr(module, "check_format", lambda _header, _place: None, raising=False)


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


def places_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes to a queue has a place at once."""
    patch.setattr(Queue, "add", lambda _self, take: take())


def delay_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After a restart jobs run at once, whatever their delay."""
    settle = Engine._settle

    def at_once(self: Engine, fold: RunFold) -> None:
        early = copy.copy(fold)
        early.not_before_ns = 0
        settle(self, early)

    patch.setattr(Engine, "_settle", at_once)


def rate_ignored(patch: pytest.MonkeyPatch) -> None:
    """The next start may always be now."""
    patch.setattr(Window, "next_s", lambda _self, now_s: now_s)


def worker_death_is_final(patch: pytest.MonkeyPatch) -> None:
    """A step whose process died is not tried again."""
    patch.setattr(steps_module, "may_retry", lambda _retry, _error, _attempt: False)


def a_worker_that_dies(directory: Path) -> None:
    """A step whose process dies has a result in the end."""
    try:
        test_jobs.test_a_worker_that_dies_is_a_failed_attempt(directory)
    except RunFailedError as error:
        raise AssertionError("the run failed with its step's process") from error


def interruption_unnoticed(patch: pytest.MonkeyPatch) -> None:
    """Code that cancels its own calls goes on, whichever way chance has taken."""
    patch.setattr(Run, "check_interrupted", lambda _self, _branch, _key: None)


def end_of_the_loop_taken_for_the_codes_doing(patch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled without a reason has cancelled itself, also while the event loop is closed."""
    patch.setattr(Engine, "is_stopping", False)


def unreadable_passed_over(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read in a journal is passed over, as if it were not there."""
    patch.setattr(RunFold, "_set_aside", lambda _self, _record, _error: None)


def policy_left_out(patch: pytest.MonkeyPatch) -> None:
    """Answers let a page load from anywhere."""
    loose = {**security_module.HEADERS, "content-security-policy": "default-src *"}
    patch.setattr(security_module, "HEADERS", loose)


def names_of_strangers_kept(patch: pytest.MonkeyPatch) -> None:
    """A file name is taken as it comes, with its directories."""
    patch.setattr(headers_module, "display_name", lambda name: name)


def room_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Any number of uploads may be open."""
    patch.setattr(Registry, "_check_room", lambda _self, _size_bytes: None)


def writers_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Any number of requests may bring bytes at once."""
    patch.setattr(Uploads, "_check_active", lambda _self, _tools: None)


def failed_sync_tried_again(patch: pytest.MonkeyPatch) -> None:
    """When a sync of an upload's file has failed, the next one is believed."""
    sync = PartFile.sync

    def again(self: PartFile) -> None:
        self._failure = None
        sync(self)

    patch.setattr(PartFile, "sync", again)


def ending_not_seen(patch: pytest.MonkeyPatch) -> None:
    """Bytes are taken in for an upload whose end is being recorded."""
    patch.setattr(Entry, "busy", property(lambda self: self.reception is not None))


def metadata_of_any_length(patch: pytest.MonkeyPatch) -> None:
    """Metadata are taken however long they are."""
    patch.setattr(headers_module, "METADATA_MAX_BYTES", 1 << 40)


def client_not_held_back(patch: pytest.MonkeyPatch) -> None:
    """Bytes are taken in as fast as they come."""
    patch.setattr(Body, "is_full", False)


def finished_chunks_forgotten(patch: pytest.MonkeyPatch) -> None:
    """After a restart all chunks are encoded again."""
    patch.setattr(test_workflow, "APPLICATION", "tests.mutants.forgetful_application")


def a_kill_in_mid_encode(directory: Path) -> None:
    """What was encoded when the process was killed is not encoded again."""
    clips = directory / "clips"
    clips.mkdir()
    test_workflow.test_kill_in_mid_encode(Clips(clips), directory)


def open_runs_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """At a start the unfinished files of all videos go, whatever the log says of their runs."""

    async def nobody(*_arguments: object) -> bool:
        return False

    patch.setattr(media_service, "_is_open", nobody)


def a_year_down(directory: Path) -> None:
    """An application that comes back goes on with its videos."""
    clips = directory / "clips"
    clips.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        encoding = test_lives.Encoding(patch)
        test_lives.test_chunks_wait_as_long_as_their_run("nothing", Clips(clips), directory, encoding)


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


def ids_that_can_be_taken(patch: pytest.MonkeyPatch) -> None:
    """The run of an event has an id that a caller may choose as well."""
    patch.setattr(flow_module, "made_id", lambda name, place: f"{name}-{place}")


def starts_are_progress(patch: pytest.MonkeyPatch) -> None:
    """An attempt whose start is on record counts as progress, though it never ends."""
    advance = RunFold._advance

    def hopeful(self: RunFold, entry: Any) -> None:
        advance(self, entry)
        if isinstance(entry, StepStarted):
            self.claims_in_vain = 0

    patch.setattr(RunFold, "_advance", hopeful)


def clock_seldom_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a moment of the wall clock sleeps as long as it seemed at first, however that clock is set."""
    patch.setattr(timers_module, "_LONGEST_SLEEP_S", 1e9)


def short_write_believed(patch: pytest.MonkeyPatch) -> None:
    """What the system took of a write is taken for all of it."""

    def once(self: SystemFile, offset: int, buffers: Sequence[Any]) -> int:
        os.pwrite(self._descriptor, b"".join(buffers), offset)
        return sum(map(len, buffers))

    patch.setattr(SystemFile, "write_at", once)


def writes_cut_short(directory: Path) -> None:
    """What the system cuts short is written in full."""
    with pytest.MonkeyPatch.context() as patch:
        test_disk.test_a_short_write_is_gone_on_with(directory, patch, 3, 4)


def death_in_mid_step_unnoticed(patch: pytest.MonkeyPatch) -> None:
    """A worker that has served before is taken for one that died while it was idle."""
    patch.setattr(Worker, "has_taken", property(lambda _self: False, lambda _self, _value: None), raising=False)


def a_reused_worker_that_dies(directory: Path) -> None:
    """An attempt that began in a worker counts, also in one that had served before."""
    with pytest.MonkeyPatch.context() as patch:
        test_worker_faults.test_a_reused_worker_that_dies_is_a_failed_attempt(directory, patch)


def bytes_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A group that is busy reads on, however large the events are that wait."""
    patch.setattr(Delivery, "size_bytes", 0)


def a_busy_group(directory: Path) -> None:
    """What waits for a handler is bounded in bytes."""
    with pytest.MonkeyPatch.context() as patch:
        test_bus.test_read_ahead_is_bounded_in_bytes(directory, patch)


CASES: Sequence[tuple[Callable[[Path], None], Callable[[pytest.MonkeyPatch], None]]] = (
    (lambda _path: test_io_errors.test_calls_behind_a_failed_commit_were_not_written(), unknown_told_as_not_written),
    (lambda _path: test_io_errors.test_mixed_callers_on_a_full_disk(), reserve_for_everyone),
    (lambda _path: test_io_errors.test_full_disk(), full_for_ever),
    (lambda _path: test_damage.test_unknown_version_kind_or_feature(4, 2), versions_not_looked_at),
    (test_engine.test_backpressure_bounds_what_waits, budget_ignored),
    (test_engine.test_second_opener_is_told_who_owns_the_directory, lock_not_taken),
    (
        lambda path: test_recovery.test_code_that_no_longer_fits_pauses_the_run(path, "other arguments", "first#1"),
        digest_not_compared,
    ),
    (test_recovery.test_a_sleeper_is_not_taken_over_before_it_wakes, wake_time_forgotten),
    (lambda path: test_recovery.test_three_claims_in_vain_are_a_quarantine(path, False), claims_never_counted),
    (lambda path: test_recovery.test_three_claims_in_vain_are_a_quarantine(path, True), starts_are_progress),
    (lambda _path: test_parts.test_a_wall_clock_that_jumps_is_noticed(), clock_seldom_looked_at),
    (writes_cut_short, short_write_believed),
    (test_ids.test_an_events_run_cannot_be_taken_before, ids_that_can_be_taken),
    (
        lambda path: test_unreadable.test_an_unreadable_journal_is_a_paused_run(b"nonsense", path),
        unreadable_passed_over,
    ),
    (test_jobs.test_a_queue_runs_so_many_at_once, places_not_counted),
    (test_jobs.test_a_delayed_job_waits_across_restarts, delay_forgotten),
    (test_jobs.test_a_rate_limited_queue, rate_ignored),
    (a_worker_that_dies, worker_death_is_final),
    (a_reused_worker_that_dies, death_in_mid_step_unnoticed),
    (a_busy_group, bytes_not_counted),
    (
        lambda path: test_interrupted.test_a_run_that_cancels_its_own_call_fails("timeout", "sleep#1", path),
        interruption_unnoticed,
    ),
    (test_interrupted.test_a_loop_that_is_closed_leaves_runs_open, end_of_the_loop_taken_for_the_codes_doing),
    (test_service.test_number_of_open_uploads_is_limited, room_not_looked_at),
    (test_service.test_number_of_writers_is_limited, writers_not_counted),
    (lambda path: test_lifecycle.test_a_failed_sync_is_never_believed(path, 1), failed_sync_tried_again),
    (lambda path: test_lifecycle.test_terminated_and_completed_exclude_each_other(path, "DELETE"), ending_not_seen),
    (lambda _path: test_headers.test_long_metadata_is_refused(), metadata_of_any_length),
    (lambda _path: test_reception.test_fast_client_is_held_back(), client_not_held_back),
    (a_kill_in_mid_encode, finished_chunks_forgotten),
    (a_year_down, open_runs_not_asked_for),
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
