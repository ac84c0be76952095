"""A task made on purpose: photos degraded by known kinds at known levels, the severity being the score.

The 25 kinds are KADID-10k's (Lin, Hosu, Saupe 2019); the amounts a level are own, chosen so that each level is visibly
worse than the one before on photos of 160 to 1000 pixels. People were not asked: scores order the levels of one kind on
one photo, and do not compare kinds.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from iqakit.contracts.dataset import Sample, TaskFacts
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.functional import degradations as d
from iqakit.imaging import codecs
from iqakit.imaging.decoding import decode

LEVELS = (1, 2, 3, 4, 5)
"""The levels every kind has; 0 is the photo itself."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """One kind of degradation.

    Attributes:
        code: KADID-10k's number, two digits.
        name: What users type.
        unit: What the amounts are.
        amounts: The amount at levels 1 to 5.
        apply: ``apply(image, amount, generator)`` on a float image (3, H, W), 0-1.
    """

    code: str
    name: str
    unit: str
    amounts: tuple[float, float, float, float, float]
    apply: Callable[[Tensor, float, Generator], Tensor]


def _angle(generator: Generator) -> float:
    return 2 * math.pi * torch.rand((), generator=generator, device=generator.device).item()


def _signed_shift(image: Tensor, amount: float, generator: Generator) -> Tensor:
    sign = 1 if torch.rand((), generator=generator, device=generator.device).item() < 0.5 else -1
    return d.mean_shift(image, sign * amount)


_KINDS = (
    Degradation("01", "gaussian-blur", "sigma, pixels", (0.7, 1.2, 2, 3.2, 5), lambda x, a, g: d.gaussian_blur(x, a)),
    Degradation("02", "lens-blur", "radius, pixels", (1, 1.8, 3, 5, 8), lambda x, a, g: d.lens_blur(x, a)),
    Degradation("03", "motion-blur", "length, pixels", (3, 6, 10, 16, 26), lambda x, a, g: d.motion_blur(x, a, _angle(g))),
    Degradation("04", "color-diffusion", "sigma, pixels", (2, 4, 8, 14, 24), lambda x, a, g: d.colour_diffusion(x, a)),
    Degradation("05", "color-shift", "distance, pixels", (1, 2, 4, 7, 12), lambda x, a, g: d.colour_shift(x, a, _angle(g))),
    Degradation(
        "06", "color-quantization", "levels a channel", (12, 8, 5, 3, 2), lambda x, a, g: d.colour_quantization(x, int(a))
    ),
    Degradation(
        "07", "color-saturation-1", "HSV factor", (0.7, 0.5, 0.3, 0.15, 0), lambda x, a, g: d.colour_saturation(x, a)
    ),
    Degradation("08", "color-saturation-2", "Lab factor", (1.4, 1.9, 2.6, 3.8, 6), lambda x, a, g: d.lab_saturation(x, a)),
    Degradation("09", "jpeg2000", "compression ratio", (20, 45, 80, 140, 260), lambda x, a, g: codecs.jpeg2000(x, a)),
    Degradation("10", "jpeg", "quality", (45, 25, 14, 8, 4), lambda x, a, g: codecs.jpeg(x, int(a))),
    Degradation("11", "white-noise", "sigma, of 1", (0.03, 0.06, 0.1, 0.16, 0.26), d.gaussian_noise),
    Degradation("12", "white-noise-color", "sigma, of 1", (0.03, 0.06, 0.1, 0.16, 0.26), d.chroma_noise),
    Degradation("13", "impulse-noise", "share of values", (0.005, 0.015, 0.04, 0.09, 0.2), d.impulse_noise),
    Degradation("14", "multiplicative-noise", "sigma, of the value", (0.08, 0.15, 0.25, 0.4, 0.6), d.multiplicative_noise),
    Degradation("15", "denoise", "sigma, of 1", (0.05, 0.09, 0.14, 0.21, 0.32), d.denoised),
    Degradation("16", "brighten", "gamma", (1.25, 1.6, 2.1, 2.9, 4.5), lambda x, a, g: d.brightened(x, a)),
    Degradation("17", "darken", "gamma", (1.25, 1.6, 2.1, 2.9, 4.5), lambda x, a, g: d.darkened(x, a)),
    Degradation("18", "mean-shift", "shift, of 1, up or down", (0.07, 0.13, 0.2, 0.28, 0.38), _signed_shift),
    Degradation("19", "jitter", "distance, pixels", (0.7, 1.2, 2, 3.2, 5), d.jitter),
    Degradation(
        "20", "non-eccentricity-patch", "patches", (8, 20, 45, 90, 160), lambda x, a, g: d.misplaced_patches(x, int(a), g)
    ),
    Degradation("21", "pixelate", "size, pixels", (2, 3, 5, 8, 13), lambda x, a, g: d.pixelated(x, int(a))),
    Degradation("22", "quantization", "levels", (14, 9, 6, 4, 2), lambda x, a, g: d.quantized(x, int(a))),
    Degradation("23", "color-block", "blocks", (3, 7, 14, 26, 48), lambda x, a, g: d.colour_blocks(x, int(a), g)),
    Degradation("24", "high-sharpen", "amount", (0.8, 1.6, 3, 5.5, 11), lambda x, a, g: d.sharpened(x, a)),
    Degradation(
        "25", "contrast-change", "factor", (0.75, 0.57, 0.42, 0.28, 0.15), lambda x, a, g: d.contrast_changed(x, a)
    ),
)

DEGRADATIONS = MappingProxyType({kind.name: kind for kind in _KINDS})
"""The 25 kinds by name, in KADID-10k's order."""


def find_degradation(name: str) -> Degradation:
    """The kind of this name or two-digit code.

    Raises:
        UnknownNameError: There is none.
    """
    for kind in _KINDS:
        if name in (kind.name, kind.code):
            return kind
    raise UnknownNameError.of("degradation", name, DEGRADATIONS)


def degrade(image: Tensor, name: str, level: int, generator: Generator) -> Tensor:
    """Degrade one image, or a batch, by a kind at a level.

    Args:
        image: (3, H, W) or (N, 3, H, W), float, RGB, 0-1.
        name: A kind's name or code.
        level: 0 (unchanged) to 5.
        generator: Where noise, places and directions come from. With the same state, higher levels have the same noise,
            places and direction, only stronger.

    Returns:
        A new tensor of the same shape, 0-1.

    Raises:
        UnknownNameError: There is no such kind.
        ConfigurationError: The level is not in 0-5.
    """
    kind = find_degradation(name)
    if level not in (0, *LEVELS):
        raise ConfigurationError(f"the level of {kind.name} must be 0 to 5, but it is {level}")
    return image.clone() if level == 0 else kind.apply(image, kind.amounts[level - 1], generator)


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
        chosen = list(_KINDS) if kinds is None else [find_degradation(kind) for kind in kinds]
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
