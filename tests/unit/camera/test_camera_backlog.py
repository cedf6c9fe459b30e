"""What stands for the exposure of a frame without a time of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inspector.camera.backlog import Backlog

MS = 1_000_000


def test_a_fetch_that_waited_began_with_an_empty_driver() -> None:
    backlog = Backlog(0)
    assert backlog.frame(2 * MS, 8 * MS) == 2 * MS


def test_a_fetch_that_did_not_wait_proves_nothing() -> None:
    backlog = Backlog(0)
    assert backlog.frame(2 * MS, 8 * MS) == 2 * MS
    assert backlog.frame(9 * MS, 9 * MS + 1000) == 2 * MS
    backlog.nothing(10 * MS, 20 * MS)
    assert backlog.frame(21 * MS, 21 * MS + 1000) == 10 * MS


def test_after_a_standstill_frames_that_come_one_by_one_were_kept_back() -> None:
    """The driver hands them out one every 3 ms: each fetch waits, and none of them is new."""
    backlog = Backlog(0)
    assert backlog.frame(2 * MS, 8 * MS) == 2 * MS
    assert backlog.frame(9 * MS, 409 * MS) == 2 * MS, "frozen in the fetch: it may have had its frame before"
    for at in range(410, 800, 4):
        assert backlog.frame(at * MS, (at + 3) * MS) == 2 * MS
    assert backlog.frame(815 * MS, 820 * MS) == 815 * MS, "as much time has passed as was lost"


def test_after_a_standstill_a_fetch_that_finds_nothing_ends_the_backlog() -> None:
    backlog = Backlog(0)
    assert backlog.frame(2 * MS, 8 * MS) == 2 * MS
    backlog.nothing(9 * MS, 409 * MS)  # frozen in it: it timed out before the driver had its turn
    assert backlog.frame(410 * MS, 413 * MS) == 9 * MS
    backlog.nothing(414 * MS, 424 * MS)
    assert backlog.frame(425 * MS, 428 * MS) == 425 * MS


def test_a_standstill_between_two_fetches_counts_too() -> None:
    backlog = Backlog(0)
    assert backlog.frame(2 * MS, 8 * MS) == 2 * MS
    assert backlog.frame(408 * MS, 411 * MS) == 2 * MS


@given(st.lists(st.tuples(st.integers(0, 100 * MS), st.integers(0, 20 * MS), st.booleans()), max_size=40))
def test_it_never_goes_back_and_never_lies_after_the_fetch_began(turns: list[tuple[int, int, bool]]) -> None:
    backlog, now, last = Backlog(0), 0, 0
    for pause, fetch, found in turns:
        begun, now = now + pause, now + pause + fetch
        if found:
            since = backlog.frame(begun, now)
            assert last <= since <= begun
            last = since
        else:
            backlog.nothing(begun, now)
