"""Bare features of a whole data set: read once, cached, with unreadable images left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from iqakit.contracts import Dataset, Features, Preprocessing, Progress, Sample, TaskFacts
from iqakit.errors import ConfigurationError, ImageError
from iqakit.imaging.tensors import prepare
from iqakit.runtimes.torch_runtime import TorchRuntime, join_features
from iqakit.storage.checkpoint import FileCheckpoint

_SAVE_EVERY = 500
"""Images between two saves of a feature cache."""


@dataclass(frozen=True, slots=True)
class Subset:
    """Some images of a data set, in the order given; follows the ``Dataset`` contract."""

    dataset: Dataset
    indices: tuple[int, ...]

    @property
    def facts(self) -> TaskFacts:
        """The whole set's facts."""
        return self.dataset.facts

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        """Name, score and content of image ``index``."""
        return self.dataset.sample(self.indices[index])

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB."""
        return self.dataset.image(self.indices[index])

    def path(self, index: int) -> Path | None:
        """The image's file, or None."""
        return self.dataset.path(self.indices[index])


def prepared_images(
    dataset: Dataset, preprocessing: Preprocessing, workers: int, start: int = 0
) -> Iterator[tuple[int, Tensor | ImageError]]:
    """Decode and prepare a data set's images with threads, in order.

    Args:
        dataset: The images.
        preprocessing: How they become input.
        workers: Threads; 0: the caller's own.
        start: The first image.

    Yields:
        Index, and the prepared image (3, h, w) or why it cannot be read.

    Raises:
        ConfigurationError: ``workers`` is negative.
    """
    if workers < 0:
        raise ConfigurationError(f"workers is {workers}; it must be 0 or more")

    def load(index: int) -> Tensor | ImageError:
        try:
            return prepare(dataset.image(index), preprocessing)[0]
        except ImageError as error:
            return error

    if workers == 0:
        for index in range(start, len(dataset)):
            yield index, load(index)
        return
    threads = ThreadPoolExecutor(workers, thread_name_prefix="iqakit-read")
    ahead: deque[tuple[int, Future[Tensor | ImageError]]] = deque()
    try:
        for index in range(start, len(dataset)):
            ahead.append((index, threads.submit(load, index)))
            if len(ahead) >= 2 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def bare_features(
    runtime: TorchRuntime,
    dataset: Dataset,
    preprocessing: Preprocessing,
    *,
    what: str,
    progress: Progress,
    workers: int,
    cache: FileCheckpoint,
) -> tuple[Dataset, Features]:
    """Features of every readable image under the bare backbone.

    Args:
        runtime: Runs the backbone.
        dataset: The images.
        preprocessing: How they become input.
        what: What is being read, for people.
        progress: Where to say how far it is.
        workers: Threads that decode.
        cache: Where features are kept; a cut run goes on from it.

    Returns:
        The images that could be read, and their features in that order. Each that could not is named on ``progress``.
    """
    kept = _restored(cache)
    parts, failed, start = ([kept[0]], kept[1], kept[2]) if kept else ([], {}, 0)
    progress.start(what, len(dataset))
    progress.advance(start)
    since = 0
    for index, image in prepared_images(dataset, preprocessing, workers, start):
        if isinstance(image, ImageError):
            failed[index] = str(image)
        else:
            parts += runtime.passes(image[None], [{}])
        progress.advance()
        since += 1
        if since >= _SAVE_EVERY and parts:
            parts, since = [join_features(parts)], 0
            _keep(cache, parts[0], failed, index + 1)
    for message in failed.values():
        progress.message(f"left out: {message}")
    if not parts:
        first = next(iter(failed.values()), "there are none")
        raise ImageError(f"{what}: none of the {len(dataset)} images can be read; the first: {first}")
    features = join_features(parts)
    if start < len(dataset):
        _keep(cache, features, failed, len(dataset))
    if not failed:
        return dataset, features
    return Subset(dataset, tuple(index for index in range(len(dataset)) if index not in failed)), features


def readable(dataset: Dataset, progress: Progress) -> Dataset:
    """The images that can be read; each that cannot is named on ``progress``."""
    usable = []
    for index in range(len(dataset)):
        try:
            dataset.image(index)
        except ImageError as error:
            progress.message(f"left out: {error}")
        else:
            usable.append(index)
    return dataset if len(usable) == len(dataset) else Subset(dataset, tuple(usable))


def _keep(cache: FileCheckpoint, features: Features, failed: dict[int, str], done: int) -> None:
    tensors = {"embedding": features.embedding}
    for index, (stage, deviation) in enumerate(zip(features.stages, features.deviations, strict=True)):
        tensors |= {f"stage/{index}": stage, f"deviation/{index}": deviation}
    failures = {str(index): message for index, message in failed.items()}
    cache.save(tensors, {"done": done, "failed": failures, "stages": len(features.stages)})


def _restored(cache: FileCheckpoint) -> tuple[Features, dict[int, str], int] | None:
    kept = cache.load()
    if kept is None:
        return None
    tensors, state = kept
    stages = range(state["stages"])
    features = Features(
        tensors["embedding"],
        tuple(tensors[f"stage/{index}"] for index in stages),
        tuple(tensors[f"deviation/{index}"] for index in stages),
    )
    return features, {int(index): message for index, message in state["failed"].items()}, state["done"]
