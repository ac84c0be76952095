"""A stream of prepared images: decoded ahead by threads, given out in order, bounded in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from iqakit.contracts import Preprocessing
from iqakit.errors import ConfigurationError, ImageError
from iqakit.imaging.decoding import ImageSource, decode_raster, describe, pixel_limit
from iqakit.imaging.preprocessing import Planes, prepare_pixels

if TYPE_CHECKING:
    from concurrent.futures import Future

DECODING_BYTES: Final = 1_000_000_000
"""What the threads of one stream may take together while decoding; an image that needs more is decoded alone."""
WAITING_BYTES: Final = 256_000_000
"""What prepared images that wait may take before no more are begun."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image, ready for the backbone.

    Attributes:
        source: What was asked for.
        image: float32 array (3, h, w), channels last in memory; ``torch.from_numpy`` makes a tensor of it.
        width: Width of the image as a viewer shows it.
        height: Its height.
        warnings: Names of what was done or doubted.
    """

    source: ImageSource
    image: Planes
    width: int
    height: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that could not be read.

    Attributes:
        source: What was asked for.
        error: Why not.
    """

    source: ImageSource
    error: ImageError


class MemoryGate:
    """Lets threads decode side by side as long as what they take together stays under a bound; a larger one goes alone."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes fit."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + size <= self._budget)
            self._taken += size

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()


def prepare_source(
    source: ImageSource, pre: Preprocessing, *, max_pixels: int | None = None, reduce_to: int | None = None
) -> Prepared | Failed:
    """Decode and prepare one image; a failure is a value, not an exception.

    Args:
        source: What to decode.
        pre: How to prepare.
        max_pixels: See ``decode``.
        reduce_to: See ``decode``.
    """
    return _prepare(source, pre, pixel_limit(max_pixels), reduce_to, None)


def _prepare(
    source: ImageSource, pre: Preprocessing, limit: int, reduce_to: int | None, gate: MemoryGate | None
) -> Prepared | Failed:
    taken = 0

    def reserve(size: int) -> None:
        nonlocal taken
        if gate is not None:
            gate.take(size)
            taken += size

    try:
        with ExitStack() as opened:
            decoded = decode_raster(source, limit, reduce_to, reserve, opened)
            image, more = prepare_pixels(decoded.raster, pre, full_size=(decoded.height, decoded.width))
        return Prepared(source, image, decoded.width, decoded.height, decoded.warnings + more)
    except ImageError as error:
        return Failed(source, error)
    except MemoryError:
        return Failed(source, ImageError(f"{describe(source)} needs more memory than there is"))
    finally:
        if gate is not None and taken:
            gate.give(taken)


def stream(
    sources: Iterable[ImageSource],
    pre: Preprocessing,
    *,
    workers: int,
    ahead: int | None = None,
    max_pixels: int | None = None,
    reduce_to: int | None = None,
) -> Generator[Prepared | Failed, None, None]:
    """Decode and prepare images, in the order given.

    Args:
        sources: What to decode; taken one by one as needed, so it may be endless.
        pre: How to prepare.
        workers: Threads that decode; 0: decode when the next image is asked for, in the caller's thread.
        ahead: How many images may be under way or waiting; default four a worker.
        max_pixels: See ``decode``.
        reduce_to: See ``decode``.

    Yields:
        ``Prepared``, or ``Failed`` for an image that cannot be read.

    Raises:
        ConfigurationError: A setting makes no sense.
    """
    if workers < 0:
        raise ConfigurationError(f"workers is {workers}; it must be 0 or more")
    if ahead is not None and ahead < 1:
        raise ConfigurationError(f"ahead is {ahead}; it must be at least 1")
    limit = pixel_limit(max_pixels)
    if workers == 0:
        return (_prepare(source, pre, limit, reduce_to, None) for source in sources)
    return _threaded(iter(sources), pre, workers, ahead or 4 * workers, limit, reduce_to)


def _threaded(
    sources: Iterator[ImageSource], pre: Preprocessing, workers: int, ahead: int, limit: int, reduce_to: int | None
) -> Generator[Prepared | Failed, None, None]:
    from concurrent.futures import ThreadPoolExecutor  # costs 15 ms, and one image needs no threads

    pool = ThreadPoolExecutor(workers, thread_name_prefix="iqakit-decode")
    gate = MemoryGate(DECODING_BYTES)
    waiting: deque[Future[Prepared | Failed]] = deque()
    try:
        for source in sources:
            waiting.append(pool.submit(_prepare, source, pre, limit, reduce_to, gate))
            while len(waiting) >= ahead or _held(waiting) > WAITING_BYTES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _held(waiting: Iterable[Future[Prepared | Failed]]) -> int:
    """Bytes of the images that are ready and wait to be asked for."""
    ready = (future.result() for future in waiting if future.done() and future.exception() is None)
    return sum(item.image.nbytes for item in ready if isinstance(item, Prepared))
