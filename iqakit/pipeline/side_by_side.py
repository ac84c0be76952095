"""Several images at work at once, results in order. Loads no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Call a function on each item, several at a time, and give out what it returns in the order of the items.

    The first call is made alone, in the caller's thread: it opens what the others then share, and one item needs no
    threads. Items are taken as they are needed: at most ``threads + 1`` are under way or wait.

    Args:
        function: Called from several threads at once.
        items: What it is called on; may be endless.
        threads: Calls at a time, 1 or more.

    Yields:
        Results, in order. What a call raises is raised in its place.
    """
    pool: ThreadPoolExecutor | None = None
    waiting: deque[Future[Result]] = deque()
    try:
        for number, item in enumerate(items):
            if number == 0 or threads == 1:
                yield function(item)
                continue
            if pool is None:
                from concurrent.futures import ThreadPoolExecutor  # costs 15 ms

                pool = ThreadPoolExecutor(threads, thread_name_prefix="iqakit-score")
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
