"""Training images at the size that crops are cut from, kept in memory as far as a budget goes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Generator, Tensor

from iqakit.contracts import Dataset, Preprocessing
from iqakit.errors import ConfigurationError
from iqakit.imaging.tensors import normalise, random_crop, resize

__all__ = ["MEMORY_BUDGET", "TrainingImages", "crop_side", "human_scores"]

MEMORY_BUDGET = 3 * 1024**3
"""Bytes of decoded pixels kept: 3 GiB holds about 4,000 images of 512x512."""


def human_scores(dataset: Dataset) -> Tensor:
    """Scores of every image of a data set: (N,), float32, higher is better."""
    return torch.tensor([dataset.sample(index).score for index in range(len(dataset))], dtype=torch.float32)


def crop_side(preprocessing: Preprocessing, wanted: int, method: str | None = None) -> int:
    """The side of training crops that the backbone can take.

    Args:
        preprocessing: Says what it takes.
        wanted: The side asked for, in pixels; 0, whole images, stays 0.
        method: The method's name, for the message.

    Raises:
        ConfigurationError: It takes only images that are no squares.
    """
    if preprocessing.fixed_size is None:
        side = max(preprocessing.smallest_side, wanted)
        return -(-side // preprocessing.multiple) * preprocessing.multiple if wanted else 0
    height, width = preprocessing.fixed_size
    if height != width:
        subject = f"adapter {method} trains on" if method else "training uses"
        raise ConfigurationError(
            f"{subject} square crops, but this backbone takes only {height}x{width}; take another backbone"
        )
    return height if wanted else 0


class TrainingImages:
    """Decodes with threads, keeps what fits, and cuts batches of random crops.

    Args:
        dataset: Images that can all be read.
        preprocessing: Brings them to the size that crops are cut from.
        workers: Threads that decode.
        budget: Bytes of pixels to keep in memory; images beyond it are decoded again each time.
    """

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing, workers: int, budget: int = MEMORY_BUDGET) -> None:
        self._dataset = dataset
        self._preprocessing = preprocessing
        self._budget = budget
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0
        self._threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="iqakit-train")

    def __enter__(self) -> TrainingImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _pixels(self, index: int) -> Tensor:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        pixels, _ = resize(self._dataset.image(index), self._preprocessing)
        return pixels

    def _keep(self, index: int, pixels: Tensor) -> None:
        size = pixels.numel()
        if index not in self._kept and self._kept_bytes + size <= self._budget:
            self._kept[index] = pixels
            self._kept_bytes += size

    def crops(self, indices: Sequence[int], side: int, flip: bool, generator: Generator) -> Tensor:
        """Independent random crops of some images.

        Args:
            indices: Which images; one may come twice and is then cropped twice.
            side: Height and width of the crops.
            flip: Whether half of them are mirrored left-right.
            generator: The source of randomness; drawn from in the order of ``indices``.

        Returns:
            (N, 3, side, side), float32, normalised.
        """
        images = self._decoded(indices)
        return normalise(
            torch.stack([random_crop(pixels, side, generator, flip=flip) for pixels in images]), self._preprocessing
        )

    def whole(self, indices: Sequence[int], flip: bool, generator: Generator) -> list[Tensor]:
        """Whole images, as they are scored.

        Args:
            indices: Which images.
            flip: Whether half of them are mirrored left-right.
            generator: The source of randomness; drawn from in the order of ``indices``.

        Returns:
            One (3, h, w) an image, float32, normalised.
        """
        mirrored = torch.randint(2, (len(indices),), generator=generator).bool() if flip else torch.zeros(len(indices))
        return [
            normalise(pixels.flip(2) if mirror else pixels, self._preprocessing)
            for pixels, mirror in zip(self._decoded(indices), mirrored, strict=True)
        ]

    def views(self, indices: Sequence[int], side: int, flip: bool, generator: Generator) -> list[Tensor]:
        """Some images as a network gets them: crops in one batch, or whole images, which differ in size, one by one.

        Args:
            indices: Which images.
            side: Height and width of the crops; 0: whole images.
            flip: Whether half of them are mirrored left-right.
            generator: The source of randomness; drawn from in the order of ``indices``.

        Returns:
            Batches (N, 3, H, W), float32, normalised, which hold the images in the order of ``indices``.
        """
        if side:
            return [self.crops(indices, side, flip, generator)]
        return [image[None] for image in self.whole(indices, flip, generator)]

    def _decoded(self, indices: Sequence[int]) -> list[Tensor]:
        images = list(self._threads.map(self._pixels, indices))
        for index, pixels in zip(indices, images, strict=True):
            self._keep(index, pixels)
        return images
