"""A task made on purpose: photos degraded by known kinds at known levels, the severity being the score.

People were not asked: scores order the levels of one kind on one photo, and do not compare kinds.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from iqakit.contracts.dataset import Sample, TaskFacts
from iqakit.errors import ConfigurationError
from iqakit.imaging.decoding import decode
from iqakit.imaging.degrading import DEGRADATIONS as DEGRADATIONS
from iqakit.imaging.degrading import LEVELS as LEVELS
from iqakit.imaging.degrading import Degradation, find_degradation
from iqakit.imaging.degrading import degrade as degrade


class SyntheticTask:
    """Photos degraded on purpose, as a data set; follows the ``Dataset`` contract.

    Images come photo by photo, kind by kind, level by level. An image's content is its photo, its score is
    ``6 - level``: 5 is barely touched, 1 is worst; level 0 gives the photo itself once, with a score of 6. Pixels are
    made when they are asked for, and depend on the seed, the photo's name and the kind alone.

    Args:
        photos: Files, or uint8 tensors (3, H, W), RGB. They should be good pictures: scores say that they are.
        kinds: Names or codes of degradations; None takes all 25.
        levels: The levels to make, from 0-5.
        seed: Seed of noise, places and directions.
        names: A distinct name a photo; None takes files' stems with a number before them, or numbers.
        keep: Keep every image made in memory. Suits small sets that are read again and again.
        facts: The task's facts; None describes a task named ``synthetic``.

    Raises:
        ConfigurationError: There is no photo or no level, a level is not in 0-5, or names are not distinct.
        UnknownNameError: A kind is unknown.
    """

    def __init__(
        self,
        photos: Sequence[Path | Tensor],
        kinds: Iterable[str] | None = None,
        levels: Iterable[int] = LEVELS,
        seed: int = 0,
        names: Sequence[str] | None = None,
        keep: bool = False,
        facts: TaskFacts | None = None,
    ) -> None:
        chosen = list(DEGRADATIONS.values()) if kinds is None else [find_degradation(kind) for kind in kinds]
        wanted = sorted(set(levels))
        if not photos or not wanted or not set(wanted) <= {0, *LEVELS}:
            raise ConfigurationError(
                f"a synthetic task needs photos, and levels from 0 to 5, but got {len(photos)} photos and levels {wanted}"
            )
        if names is None:
            names = [f"{i:03}-{p.stem}" if isinstance(p, Path) else f"{i:03}" for i, p in enumerate(photos)]
        if len(names) != len(photos) or len(set(names)) != len(names):
            raise ConfigurationError(f"each of the {len(photos)} photos needs a name of its own, but the names are {names}")
        self.facts = facts or TaskFacts(
            name="synthetic",
            title="Photos degraded on purpose",
            low=1.0,
            high=6.0,
            rated="not rated: the score is 6 minus the level of the degradation",
            citation="kinds of degradation: Lin, Hosu, Saupe, KADID-10k, QoMEX 2019; amounts own",
        )
        self._photos = dict(zip(names, photos, strict=True))
        self._seed = seed
        self._recipes: list[tuple[str, Degradation | None, int]] = []
        for name in names:
            if 0 in wanted:
                self._recipes.append((name, None, 0))
            self._recipes.extend((name, kind, level) for kind in chosen for level in wanted if level > 0)
        self._kept: dict[tuple[str, str, int], Tensor] | None = {} if keep else None

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._recipes)

    def sample(self, index: int) -> Sample:
        """Name (``photo/code-kind-level``), score and content of image ``index``; makes no pixel."""
        photo, kind, level = self._recipes[index]
        name = f"{photo}/original" if kind is None else f"{photo}/{kind.code}-{kind.name}-{level}"
        return Sample(name, 6.0 - level, None, photo)

    def recipe(self, index: int) -> tuple[str, str | None, int]:
        """Photo, kind and level of image ``index``; the kind is None for the photo itself."""
        photo, kind, level = self._recipes[index]
        return photo, None if kind is None else kind.name, level

    def path(self, index: int) -> None:
        """None: images are made in memory."""

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB.

        Raises:
            ImageError: The photo is missing or cannot be decoded.
        """
        photo, kind, level = self._recipes[index]
        key = (photo, "" if kind is None else kind.name, level)
        if self._kept is not None and key in self._kept:
            return self._kept[key].clone()
        source = self._photos[photo]
        pixels: Tensor = (
            source.clone() if isinstance(source, Tensor) else torch.from_numpy(decode(source).pixels).contiguous()
        )
        if kind is not None:
            generator = Generator().manual_seed(_seed_of(self._seed, photo, kind.code))
            pixels = (degrade(pixels.float() / 255, kind.name, level, generator) * 255).round().to(torch.uint8)
        if self._kept is not None:
            self._kept[key] = pixels.clone()
        return pixels

    def subset(self, indices: Iterable[int]) -> SyntheticTask:
        """The same task with only the images ``indices``, in that order; kept images are shared."""
        part = object.__new__(SyntheticTask)
        part.facts, part._photos, part._seed, part._kept = self.facts, self._photos, self._seed, self._kept
        part._recipes = [self._recipes[i] for i in indices]
        return part


def _seed_of(seed: int, photo: str, code: str) -> int:
    """A seed that depends neither on the order of photos and kinds nor on the level."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{photo}\0{code}".encode()).digest()[:7], "big")


@dataclass(frozen=True, slots=True)
class KindResult:
    """How scores follow one kind of degradation.

    Attributes:
        kind: The degradation's name.
        means: Mean score a level, by level.
        falls: Whether every level's mean is below the one before.
    """

    kind: str
    means: dict[int, float]
    falls: bool


def check_monotone(task: SyntheticTask, score: Callable[[Tensor], float]) -> tuple[KindResult, ...]:
    """Check that scores fall as images get worse: the mean over photos, for every kind, from each level to the next.

    Args:
        task: What to score. Where it has originals, they are level 0 of every kind.
        score: ``score(image)`` of a uint8 image (3, H, W); higher is better.

    Returns:
        One result a kind, in the task's order.
    """
    originals: list[float] = []
    found: dict[str, dict[int, list[float]]] = {}
    for index in range(len(task)):
        _, kind, level = task.recipe(index)
        value = float(score(task.image(index)))
        if kind is None:
            originals.append(value)
        else:
            found.setdefault(kind, {}).setdefault(level, []).append(value)
    results = []
    for kind, by_level in found.items():
        levels = {0: originals, **by_level} if originals else by_level
        means = {level: math.fsum(values) / len(values) for level, values in sorted(levels.items())}
        ordered = list(means.values())
        results.append(KindResult(kind, means, all(b < a for a, b in itertools.pairwise(ordered))))
    return tuple(results)
