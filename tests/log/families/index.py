"""The families of faults that a log's tests must hold, by number, and the tests that show each.

The oracle is the same for all: what was acknowledged is recovered; what is recovered is, for each writer, a prefix of
what it submitted; no bytes are made up; and recovery is idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass

CRASHES = "tests/log/test_crashes.py::"
DAMAGE = "tests/log/test_damage.py::"
ERRORS = "tests/log/test_io_errors.py::"
SEGMENTS = "tests/log/test_segments.py::"
TAKEOVER = "tests/log/test_takeover.py::"
HISTORY = "tests/sim/test_history.py::test_history"
KILLS = "tests/e2e/test_kill_every_call.py::"
PLACES = "tests/log/families/test_places.py::"
SYSTEM = "tests/log/families/test_system_errors.py::"
PASSING = "tests/log/families/test_passing_on.py::"
BESIDE = "tests/log/families/test_readers_beside.py::"


@dataclass(frozen=True)
class Family:
    """One family of faults.

    Attributes:
        title: What happens.
        tests: The tests that show what becomes of it.
        absent: What of it cannot happen yet, because the part of the log that it would happen to does not exist.
    """

    title: str
    tests: tuple[str, ...]
    absent: str = ""


FAMILIES: dict[int, Family] = {
    1: Family(
        "the last frame cut at every byte",
        (DAMAGE + "test_last_frame_written_up_to_any_byte", DAMAGE + "test_file_cut_at_every_byte"),
    ),
    2: Family(
        "a zeroed tail, a zeroed sector in the last frame, stale bytes in preallocated space",
        (
            DAMAGE + "test_last_frame_written_from_any_byte",
            DAMAGE + "test_missing_sector_anywhere_in_the_last_frame",
            DAMAGE + "test_zeroed_range_anywhere",
            DAMAGE + "test_zeroed_tail_after_a_clean_close",
            DAMAGE + "test_stale_bytes_behind_the_end",
        ),
    ),
    3: Family("a length that lies: huge, past the end of the file, zero", (DAMAGE + "test_length_field_that_lies",)),
    4: Family(
        "a flipped bit at every offset",
        (
            DAMAGE + "test_bit_flip_at_every_byte_after_a_kill",
            DAMAGE + "test_bit_flip_before_an_end_mark",
            DAMAGE + "test_bit_flip_in_a_segment_that_was_rolled",
            "tests/log/test_repair.py::test_a_flipped_bit_costs_one_commit",
            "tests/log/test_repair.py::test_random_damage",
        ),
    ),
    5: Family(
        "a segment missing, duplicated, exchanged, emptied, renamed, cut exactly on a frame's boundary",
        (
            SEGMENTS + "test_damaged_set_of_segments",
            SEGMENTS + "test_cut_on_a_frame_boundary",
            SEGMENTS + "test_last_frames_zeroed_before_an_end_mark",
            "tests/log/test_repair.py::test_damaged_set_of_segments",
            "tests/log/test_repair.py::test_cut_at_a_frame_boundary_or_within",
        ),
    ),
    6: Family(
        "a valid frame at the wrong offset, in the wrong segment, from another log or another history",
        (
            DAMAGE + "test_frame_at_the_wrong_offset",
            DAMAGE + "test_frame_of_another_log",
            DAMAGE + "test_frame_that_does_not_chain",
            SEGMENTS + "test_segment_of_another_log",
            PLACES + "test_frame_of_another_segment",
            PLACES + "test_segment_of_a_deposed_owner",
        ),
    ),
    7: Family(
        "writes between two syncs persisted in any subset and order",
        (
            CRASHES + "test_any_subset_of_an_unfinished_commit",
            CRASHES + "test_any_drawn_subset_of_an_unfinished_commit",
            HISTORY,
        ),
    ),
    8: Family(
        "EIO from write, sync and close",
        (
            ERRORS + "test_io_error_is_poison",
            ERRORS + "test_nobody_is_acknowledged_by_anothers_sync",
            ERRORS + "test_error_while_closing",
            SYSTEM + "test_a_close_that_fails_in_a_roll",
            SYSTEM + "test_a_close_that_fails_at_the_end",
        ),
    ),
    9: Family(
        "no space or over quota in mid frame, at a roll, in the manifest; short write; interrupted call",
        (
            ERRORS + "test_error_that_is_no_io_error_is_poison_too",
            ERRORS + "test_error_of_a_roll",
            ERRORS + "test_full_disk",
            TAKEOVER + "test_no_room_for_a_new_owners_copy",
            SYSTEM + "test_no_room_at_a_roll",
            SYSTEM + "test_no_room_for_the_manifest",
            SYSTEM + "test_interrupted_calls",
            "tests/host/test_disk.py::test_a_short_write_is_gone_on_with",
        ),
    ),
    10: Family(
        "death around each call of a roll, a takeover and a repair; names that were not synced",
        (
            CRASHES + "test_death_around_every_operation",
            CRASHES + "test_death_during_recovery_after_a_roll",
            PASSING + "test_death_around_each_operation_of_a_takeover",
            PASSING + "test_names_that_were_not_synced",
            "tests/log/test_repair.py::test_a_repair_may_die_anywhere",
            HISTORY,
        ),
        absent="retention, compaction and checkpoints: nothing is removed yet but what another file replaces",
    ),
    11: Family(
        "kill -9 at every system call; death in a recovery, twice",
        (
            KILLS + "test_a_life_of_a_log",
            KILLS + "test_a_takeover_of_a_killed_one",
            CRASHES + "test_death_during_recovery_of_a_torn_tail",
            PASSING + "test_deaths_while_a_living_owner_is_deposed",
        ),
    ),
    12: Family(
        "two writers, a stale lock, a fork with an open handle, a reader beside a roll and a takeover",
        (
            CRASHES + "test_two_openers",
            TAKEOVER + "test_of_two_who_take_a_log_over_one_succeeds",
            TAKEOVER + "test_a_deposed_owner_acknowledges_nothing",
            PASSING + "test_a_deposed_owner_learns_it_after_others_came_and_went",
            CRASHES + "test_forked_child_cannot_touch_the_log",
            "tests/log/test_shared.py::test_a_forked_child_is_refused",
            BESIDE + "test_a_reader_at_each_operation_of_a_roll",
            BESIDE + "test_a_reader_at_each_operation_of_a_takeover",
        ),
    ),
    13: Family(
        "the wall clock backwards, forwards, equal",
        (
            CRASHES + "test_wall_clock_may_jump",
            PASSING + "test_a_clock_that_stands_still",
            "tests/flow/test_parts.py::test_a_wall_clock_that_jumps_is_noticed",
        ),
        absent="retention by age",
    ),
    14: Family(
        "append and failure racing: nobody is acknowledged by another's sync",
        (
            ERRORS + "test_nobody_is_acknowledged_by_anothers_sync",
            ERRORS + "test_calls_behind_a_failed_commit_were_not_written",
            ERRORS + "test_cancelled_awaits",
            HISTORY,
        ),
    ),
    15: Family(
        "a reader that tails through rolls and takeovers; a cursor past the recovered end",
        (
            CRASHES + "test_reader_follows_over_rolls_and_deaths",
            TAKEOVER + "test_a_reader_turns_to_the_new_owners_files",
            BESIDE + "test_a_tail_goes_through_rolls_takeovers_and_a_repair",
            CRASHES + "test_cursor_behind_a_recovered_end",
        ),
        absent="truncation from the front",
    ),
    16: Family(
        "an unknown version, kind or feature, a compressed frame among them",
        (
            DAMAGE + "test_unknown_version_kind_or_feature",
            DAMAGE + "test_unknown_format_in_the_meta_file",
            "tests/log/test_repair.py::test_a_log_of_another_version_is_not_repaired",
        ),
    ),
    17: Family(
        "answers to named calls after a crash and a takeover; a repeat that straddles two segments",
        (
            CRASHES + "test_answers_survive_a_crash",
            PASSING + "test_a_repeat_in_the_segment_behind",
            PASSING + "test_answers_after_an_owner_was_deposed",
        ),
    ),
    18: Family(
        "death in tiering: after the upload, after the commit, with an unknown outcome",
        (),
        absent="tiering: segments are not moved anywhere",
    ),
}
"""All of them, by number."""
