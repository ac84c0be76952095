"""Checks of a data set: is every image there and readable, is every score in range, is anything there twice.

Images are read one at a time; of each only its size and two hashes are kept.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from iqakit.contracts.adapter import Progress
from iqakit.contracts.dataset import Dataset, Sample
from iqakit.errors import ImageError

NEAR_BITS = 8
"""Two difference hashes of 128 bits that differ in at most this many are called near duplicates."""

MOST_SHOWN = 50
"""How many near duplicates a report lists; all are counted."""

_FLAT = 2.0  # grey levels; below this spread of its 72 means an image has no structure that a hash could compare


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What a check found.

    Attributes:
        task: The task's name.
        images: How many rows were checked, with those whose image is missing.
        readable: How many images could be decoded.
        contents: How many distinct contents there are; an image without one counts as its own.
        missing: Names of images that are not there.
        unreadable: ``name: reason`` of images that cannot be decoded.
        out_of_range: ``name: score`` of scores outside the scale that the set declares.
        duplicates: Groups of names whose files are the same to the byte.
        near_duplicates: Pairs of names that look alike though their contents differ, the most alike first; at most
            ``MOST_SHOWN``. A hint, not a fault.
        near_duplicate_count: How many such pairs there are.
        shared_contents: ``content: splits`` of contents in more than one split.
        duplicates_across_splits: Groups of ``duplicates`` that are in more than one split, whatever their contents.
        scores: ``min``, ``mean``, ``max`` and ``std`` of the scores, oriented so that higher is better.
        sizes: ``smallest``, ``median`` and ``largest`` size by number of pixels, as ``widthxheight``.
        splits: How many images each split has; empty where no splits were handed in.
        warnings: What the set itself had to say.
    """

    task: str
    images: int
    readable: int
    contents: int
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    out_of_range: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]
    near_duplicate_count: int
    shared_contents: tuple[str, ...]
    duplicates_across_splits: tuple[tuple[str, ...], ...]
    scores: Mapping[str, float]
    sizes: Mapping[str, str]
    splits: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing is missing, unreadable, out of range, there twice, or shared between splits."""
        return not (self.missing or self.unreadable or self.out_of_range or self.duplicates or self.shared_contents)

    def to_json(self) -> dict[str, object]:
        """The same as plain values: numbers, strings, lists and objects of them."""
        return {
            "task": self.task,
            "ok": self.ok,
            "images": self.images,
            "readable": self.readable,
            "contents": self.contents,
            "near_duplicate_count": self.near_duplicate_count,
            "scores": dict(self.scores),
            "sizes": dict(self.sizes),
            "splits": dict(self.splits),
            "missing": list(self.missing),
            "unreadable": list(self.unreadable),
            "out_of_range": list(self.out_of_range),
            "duplicates": [list(group) for group in self.duplicates],
            "duplicates_across_splits": [list(group) for group in self.duplicates_across_splits],
            "near_duplicates": [list(pair) for pair in self.near_duplicates],
            "shared_contents": list(self.shared_contents),
            "warnings": list(self.warnings),
        }


def check_dataset(
    dataset: Dataset, progress: Progress | None = None, splits: Mapping[str, Dataset] | None = None
) -> DatasetReport:
    """Read every image of a set and look for faults. Nothing is raised for a fault: it is in the report.

    Args:
        dataset: The whole set (split ``"all"``).
        progress: Told of every image.
        splits: Its splits, such as ``TaskSource.open_splits`` gives them, to look for what they share.

    Returns:
        The report.
    """
    samples = [dataset.sample(i) for i in range(len(dataset))]
    left_out: tuple[str, ...] = tuple(getattr(dataset, "left_out", ()))
    missing, unreadable = list(left_out), []
    exact: dict[str, list[int]] = defaultdict(list)
    sizes: list[tuple[int, int]] = []
    hashes: dict[int, tuple[int, int]] = {}
    if progress is not None:
        progress.start(f"checking {dataset.facts.name}", len(samples))
    for index, sample in enumerate(samples):
        path = dataset.path(index)
        try:
            if path is not None and not path.is_file():
                missing.append(sample.name)
            else:
                pixels = dataset.image(index)
                exact[_bytes_hash(path, pixels)].append(index)
                sizes.append((pixels.shape[2], pixels.shape[1]))
                look = difference_hash(pixels)
                if look is not None:
                    hashes[index] = look
        except (ImageError, OSError) as error:
            unreadable.append(f"{sample.name}: {error}")
        if progress is not None:
            progress.advance()
    groups = [group for group in exact.values() if len(group) > 1]
    near = _near_pairs(hashes, samples, {i: number for number, group in enumerate(groups) for i in group})
    side = _sides(splits or {})
    return DatasetReport(
        task=dataset.facts.name,
        images=len(samples) + len(left_out),
        readable=len(sizes),
        contents=len({_content(sample) for sample in samples}),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        out_of_range=tuple(_out_of_range(dataset, samples)),
        duplicates=tuple(tuple(samples[i].name for i in group) for group in groups),
        near_duplicates=tuple((samples[a].name, samples[b].name) for _, a, b in near[:MOST_SHOWN]),
        near_duplicate_count=len(near),
        shared_contents=tuple(_shared(splits or {})),
        duplicates_across_splits=tuple(
            tuple(samples[i].name for i in group)
            for group in groups
            if len(set().union(*(side[samples[i].name] for i in group))) > 1
        ),
        scores=_score_figures(samples),
        sizes=_size_figures(sizes),
        splits={name: len(part) for name, part in (splits or {}).items()},
        warnings=tuple(getattr(dataset, "warnings", ())),
    )


def difference_hash(pixels: Tensor) -> tuple[int, int] | None:
    """Two 64-bit difference hashes of an image.

    The image's grey is brought to 8 x 9 means, each of which is or is not darker than its right neighbour; and to 9 x 8,
    compared downwards. The bits hardly change with size, compression, blur and brightness. One direction alone takes
    every picture of a plain sky for the same. Idea: Krawetz, "Kind of like that", 2013.

    Args:
        pixels: uint8 (3, H, W).

    Returns:
        The hash of rows and that of columns, or None for an image so flat that they would be chance.
    """
    grey = pixels.float().mean(dim=0)[None, None]
    across, down = F.adaptive_avg_pool2d(grey, (8, 9))[0, 0], F.adaptive_avg_pool2d(grey, (9, 8))[0, 0]
    if across.max() - across.min() < _FLAT:
        return None
    return _packed(across[:, :-1] < across[:, 1:]), _packed(down[:-1] < down[1:])


def _packed(bits: Tensor) -> int:
    return int.from_bytes(np.packbits(bits.flatten().numpy()).tobytes(), "big")


def _bytes_hash(path: Path | None, pixels: Tensor) -> str:
    if path is None:
        return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.contiguous().numpy().tobytes()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _content(sample: Sample) -> str:
    return sample.content if sample.content is not None else sample.name


def _near_pairs(
    hashes: Mapping[int, tuple[int, int]], samples: Sequence[Sample], group_of: Mapping[int, int]
) -> list[tuple[int, int, int]]:
    """(bits, index, index) of images that look alike, have different contents and are not the same file."""
    indices = list(hashes)
    values = np.array([hashes[i] for i in indices], dtype=np.uint64).reshape(-1, 2)
    pairs = []
    for at, index in enumerate(indices):
        bits = _count_bits(values[at + 1 :] ^ values[at]).sum(axis=1)
        for other in np.flatnonzero(bits <= NEAR_BITS):
            second = indices[at + 1 + int(other)]
            same_file = index in group_of and group_of[index] == group_of.get(second)
            if not same_file and _content(samples[index]) != _content(samples[second]):
                pairs.append((int(bits[other]), index, second))
    return sorted(pairs)


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bits set in each value, added up in pairs, fours and eights (numpy's own function came with numpy 2)."""
    pairs, fours, eights = (np.uint64(m) for m in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    counts = values - ((values >> np.uint64(1)) & pairs)
    counts = (counts & fours) + ((counts >> np.uint64(2)) & fours)
    counts = (counts + (counts >> np.uint64(4))) & eights
    total: NDArray[np.uint64] = (counts * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return total


def _out_of_range(dataset: Dataset, samples: Sequence[Sample]) -> Iterator[str]:
    low = -math.inf if dataset.facts.low is None else dataset.facts.low
    high = math.inf if dataset.facts.high is None else dataset.facts.high
    slack = 1e-6 * (high - low) if math.isfinite(high - low) else 1e-6
    for sample in samples:
        if not low - slack <= sample.score <= high + slack:
            yield f"{sample.name}: {sample.score:g} is not in {low:g} to {high:g}"


def _sides(splits: Mapping[str, Dataset]) -> defaultdict[str, set[str]]:
    side: defaultdict[str, set[str]] = defaultdict(set)
    for split, part in splits.items():
        for i in range(len(part)):
            side[part.sample(i).name].add(split)
    return side


def _shared(splits: Mapping[str, Dataset]) -> Iterator[str]:
    side: dict[str, list[str]] = {}
    for split, part in splits.items():
        for content in sorted({_content(part.sample(i)) for i in range(len(part))}):
            side.setdefault(content, []).append(split)
    for content, found in side.items():
        if len(found) > 1:
            yield f"{content}: {', '.join(found)}"


def _score_figures(samples: Sequence[Sample]) -> dict[str, float]:
    if not samples:
        return {}
    scores = np.array([sample.score for sample in samples], dtype=np.float64)
    return {
        "min": float(scores.min()),
        "mean": float(scores.mean()),
        "max": float(scores.max()),
        "std": float(scores.std()),
    }


def _size_figures(sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    if not sizes:
        return {}
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    chosen = {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}
    return {name: f"{width}x{height}" for name, (width, height) in chosen.items()}
