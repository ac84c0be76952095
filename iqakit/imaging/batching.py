"""A stream of prepared images: decoded ahead by threads, given out in order, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from iqakit.contracts import Preprocessing
from iqakit.errors import ConfigurationError, ImageError
from iqakit.imaging.decoding import ImageSource, decode, pixel_limit
from iqakit.imaging.preprocessing import prepare


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image, ready for the backbone.

    Attributes:
        source: What was asked for.
        image: float32 (3, h, w), channels last in memory.
        width: Width of the image as a viewer shows it.
        height: Its height.
        warnings: Names of what was done or doubted.
    """

    source: ImageSource
    image: Tensor
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


def prepare_source(
    source: ImageSource, pre: Preprocessing, *, max_pixels: int | None = None, reduce_to: int | None = None
) -> Prepared | Failed:
    """Decode and prepare one image; a failure is a value, not an exception."""
    try:
        decoded = decode(source, max_pixels=max_pixels, reduce_to=reduce_to)
    except ImageError as error:
        return Failed(source, error)
    size, warnings = (decoded.width, decoded.height), decoded.warnings
    pixels = decoded.pixels
    del decoded
    image, more = prepare(pixels, pre, full_size=(size[1], size[0]))
    return Prepared(source, image, size[0], size[1], warnings + more)


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
        return (prepare_source(source, pre, max_pixels=limit, reduce_to=reduce_to) for source in sources)
    return _threaded(iter(sources), pre, workers, ahead or 4 * workers, limit, reduce_to)


def _threaded(
    sources: Iterator[ImageSource], pre: Preprocessing, workers: int, ahead: int, limit: int, reduce_to: int | None
) -> Generator[Prepared | Failed, None, None]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="iqakit-decode")
    waiting: deque[Future[Prepared | Failed]] = deque()
    try:
        for source in sources:
            waiting.append(pool.submit(prepare_source, source, pre, max_pixels=limit, reduce_to=reduce_to))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
