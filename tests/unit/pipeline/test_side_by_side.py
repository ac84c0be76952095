"""Items are worked on side by side, and nothing shows it but the time it takes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.pipeline.side_by_side import side_by_side


@given(st.lists(st.integers()), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_results_are_those_of_map(items: list[int], threads: int) -> None:
    assert list(side_by_side(lambda item: item * 3, items, threads)) == [item * 3 for item in items]


def test_order_is_kept_where_later_items_are_done_first() -> None:
    first_may_end = threading.Event()

    def slow_second(item: int) -> int:
        if item == 1:
            assert first_may_end.wait(10)
        if item == 2:
            first_may_end.set()
        return item

    assert list(side_by_side(slow_second, range(5), 2)) == [0, 1, 2, 3, 4]


def test_as_many_calls_as_threads_meet() -> None:
    meeting = threading.Barrier(3, timeout=10)

    def meet(item: int) -> int:
        if item:
            meeting.wait()
        return item

    assert list(side_by_side(meet, range(7), 3)) == list(range(7))


def test_the_first_and_a_single_thread_stay_in_the_callers() -> None:
    def where(item: int) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert list(side_by_side(where, range(4), 2)) == [True, False, False, False]
    assert list(side_by_side(where, range(4), 1)) == [True] * 4


def test_items_are_taken_as_needed() -> None:
    taken = itertools.count()

    def endless() -> Iterator[int]:
        while True:
            yield next(taken)

    found = side_by_side(lambda item: item, endless(), 2)
    assert [next(found) for _ in range(10)] == list(range(10))
    found.close()  # type: ignore[attr-defined]
    assert next(taken) <= 14


def test_an_error_comes_in_its_place() -> None:
    def picky(item: int) -> int:
        if item == 3:
            raise ValueError("not 3")
        return item

    found = side_by_side(picky, range(9), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="not 3"):
        next(found)


def test_an_error_of_the_items_comes_through_and_no_thread_is_left() -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(side_by_side(lambda item: time.sleep(0.01), broken(), 2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("iqakit-score")]
