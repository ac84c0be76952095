"""The kinds of degradation at five levels each: what goes wrong with pictures, made on purpose.

The 25 kinds are KADID-10k's (Lin, Hosu, Saupe 2019); the amounts a level are own, chosen so that each level is visibly
worse than the one before on photos of 160 to 1000 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.functional import degradations as d
from iqakit.imaging import codecs

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
