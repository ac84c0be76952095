"""From pixels to a backbone's input: sizes, resizing, normalising.

All of it follows one ``Preprocessing`` record, which an adapter carries with it. Everything here gives the same bits
whatever the number of threads and whatever an image's layout in memory.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from iqakit.contracts import InputSpec, Preprocessing
from iqakit.errors import ConfigurationError, FileFormatError

_INTERPOLATIONS = ("bilinear", "bicubic")


def preprocessing_for(spec: InputSpec, **overrides: Any) -> Preprocessing:
    """The preprocessing that suits a backbone.

    Args:
        spec: What the backbone wants.
        **overrides: Fields of ``Preprocessing`` to set otherwise.

    Raises:
        ConfigurationError: An override is no such field, or the result makes no sense.
    """
    known = {field.name for field in dataclasses.fields(Preprocessing)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise ConfigurationError(f"preprocessing has no setting {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    settings: dict[str, Any] = {
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "smallest_side": spec.smallest_side,
        "multiple": spec.multiple,
        "fixed_size": spec.fixed_size,
    }
    pre = Preprocessing(**(settings | overrides))
    check_preprocessing(pre)
    return pre


def check_preprocessing(pre: Preprocessing) -> None:
    """See that a record makes sense.

    Raises:
        ConfigurationError: It does not; the message names the field.
    """
    for name in ("mean", "std"):
        values = getattr(pre, name)
        good = isinstance(values, tuple) and len(values) == 3 and all(_is_number(value) for value in values)
        if not good or (name == "std" and min(values) <= 0):
            kind = "positive numbers" if name == "std" else "numbers"
            raise ConfigurationError(f"preprocessing: {name} must be three {kind}, not {values!r}")
    if pre.interpolation not in _INTERPOLATIONS:
        raise ConfigurationError(f"preprocessing: interpolation must be bilinear or bicubic, not {pre.interpolation!r}")
    for name in ("smallest_side", "multiple", "max_pixels"):
        if not _is_count(getattr(pre, name)):
            raise ConfigurationError(f"preprocessing: {name} must be a whole number from 1, not {getattr(pre, name)!r}")
    if pre.shorter_side is not None and not _is_count(pre.shorter_side):
        raise ConfigurationError(f"preprocessing: shorter_side must be a whole number or none, not {pre.shorter_side!r}")
    fixed = pre.fixed_size
    if fixed is not None:
        if not (isinstance(fixed, tuple) and len(fixed) == 2 and all(_is_count(side) for side in fixed)):
            raise ConfigurationError(f"preprocessing: fixed_size must be height and width, or none, not {fixed!r}")
        if fixed[0] * fixed[1] > pre.max_pixels:
            raise ConfigurationError(f"preprocessing: fixed_size {fixed[0]}x{fixed[1]} exceeds max_pixels {pre.max_pixels}")
        if fixed[0] % pre.multiple or fixed[1] % pre.multiple or min(fixed) < pre.smallest_side:
            raise ConfigurationError(
                f"preprocessing: fixed_size {fixed[0]}x{fixed[1]} does not fit multiple {pre.multiple} and "
                f"smallest_side {pre.smallest_side}"
            )
        return
    smallest = _up(pre.smallest_side, pre.multiple)
    if smallest * smallest > pre.max_pixels:
        raise ConfigurationError(
            f"preprocessing: max_pixels {pre.max_pixels} leaves no room for {smallest}x{smallest}, the smallest image"
        )
    if pre.shorter_side is not None and pre.shorter_side < pre.smallest_side:
        raise ConfigurationError(
            f"preprocessing: shorter_side {pre.shorter_side} is below smallest_side {pre.smallest_side}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def target_size(height: int, width: int, pre: Preprocessing) -> tuple[int, int]:
    """The (height, width) that an image is resized to.

    In this order: ``fixed_size`` if there is one. Else the shorter side is brought down to ``shorter_side``, if both sides
    are at least that; or up to ``smallest_side``, if it is below. Then the image is brought down to ``max_pixels``, with
    the same aspect ratio as far as ``smallest_side`` allows. Then each side goes to the nearest multiple that keeps
    both bounds.
    """
    if pre.fixed_size is not None:
        return pre.fixed_size
    short, long = min(height, width), max(height, width)
    scale = _ordinary_scale(short, pre)
    new_short, new_long = _scaled(short, scale), _scaled(long, scale)
    smallest = _up(pre.smallest_side, pre.multiple)
    if new_short * new_long > pre.max_pixels:
        scale = math.sqrt(pre.max_pixels / (short * long))
        new_short = max(math.floor(short * scale), smallest)
        new_long = min(math.floor(long * scale), pre.max_pixels // new_short)
    new_short = max(smallest, _nearest(new_short, pre.multiple))
    new_long = max(smallest, _nearest(new_long, pre.multiple))
    if new_short * new_long > pre.max_pixels:
        # Rounding to multiples went over the bound. The longer side gives way; it changes least.
        new_long = max(smallest, pre.max_pixels // new_short // pre.multiple * pre.multiple)
    if new_short * new_long > pre.max_pixels:
        new_short = pre.max_pixels // new_long // pre.multiple * pre.multiple
    return (new_short, new_long) if height <= width else (new_long, new_short)


def _ordinary_scale(short: int, pre: Preprocessing) -> float:
    """What an image is scaled by before ``max_pixels`` and multiples have their say."""
    if pre.shorter_side is not None and short >= pre.shorter_side:
        return pre.shorter_side / short
    return max(1.0, pre.smallest_side / short)


def _scaled(side: int, scale: float) -> int:
    return max(1, math.floor(side * scale + 0.5))


def _nearest(side: int, multiple: int) -> int:
    return max(1, (side + multiple // 2) // multiple) * multiple


def resize(
    pixels: Tensor, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Resize an image as ``pre`` says, antialiased.

    Args:
        pixels: uint8 (3, H, W).
        pre: How.
        full_size: (height, width) of the whole image where ``pixels`` were decoded smaller; decides the target size.

    Returns:
        uint8 (3, h, w), channels last in memory, and the names of what was done beyond the ordinary: ``upscaled``,
        ``downscaled``, ``aspect-changed``.
    """
    height, width = full_size or (int(pixels.shape[1]), int(pixels.shape[2]))
    target = target_size(height, width, pre)
    warnings = _resize_warnings(height, width, target, pre)
    return resize_to(pixels, target, pre.interpolation), warnings


def _resize_warnings(height: int, width: int, target: tuple[int, int], pre: Preprocessing) -> tuple[str, ...]:
    down, across = target[0] / height, target[1] / width
    short = min(height, width)
    warnings: list[str] = []
    if max(down, across) > 1 and (pre.fixed_size is not None or short < pre.smallest_side):
        warnings.append("upscaled")
    scale = _ordinary_scale(short, pre)
    if pre.fixed_size is None and _scaled(height, scale) * _scaled(width, scale) > pre.max_pixels:
        warnings.append("downscaled")
    # Rounding to whole pixels and to multiples moves a side by less than this; it is not worth a word.
    slack = 1 + max(1, pre.multiple) / min(target)
    if max(down, across) / min(down, across) > slack:
        warnings.append("aspect-changed")
    return tuple(warnings)


def resize_to(pixels: Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Resize to exactly (height, width), antialiased, in 8 bits.

    Args:
        pixels: uint8 (3, H, W).
        size: Height and width.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        uint8 (3, h, w), channels last in memory. The same bits whatever the layout of ``pixels``.
    """
    image = channels_last(pixels)
    if tuple(image.shape[1:]) == size:
        return image
    resized = F.interpolate(image[None], size, mode=interpolation, antialias=True, align_corners=False)
    return channels_last(resized[0])


def channels_last(pixels: Tensor) -> Tensor:
    """The same (3, H, W), laid out as (H, W, 3) in memory.

    Torch picks its kernels by layout, and they round differently, so there must be one layout.
    """
    channels, _, width = pixels.shape
    if pixels.stride() == (1, width * channels, channels):
        return pixels
    return pixels.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)


def normalise(pixels: Tensor, pre: Preprocessing) -> Tensor:
    """(pixels / 255 - mean) / std.

    Args:
        pixels: uint8 (..., 3, H, W).
        pre: Holds mean and std.

    Returns:
        float32, same shape and layout.
    """
    mean = torch.tensor(pre.mean, dtype=torch.float32, device=pixels.device)
    std = torch.tensor(pre.std, dtype=torch.float32, device=pixels.device)
    width = int(pixels.shape[-1])
    if pixels.ndim == 3 and pixels.stride() == (1, width * 3, 3):
        # The same sums as below, on whole rows: five times as fast as steps of three channels.
        rows = pixels.permute(1, 2, 0).reshape(-1, width * 3).to(torch.float32)
        rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
        return rows.view(-1, width, 3).permute(2, 0, 1)
    return pixels.to(torch.float32).div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def prepare(
    pixels: Tensor, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Resize and normalise: float32 (3, h, w), channels last in memory, and warnings. See ``resize``."""
    resized, warnings = resize(pixels, pre, full_size=full_size)
    return normalise(resized, pre), warnings


def random_crop(pixels: Tensor, size: int | tuple[int, int], generator: Generator, *, flip: bool = True) -> Tensor:
    """A crop at a random place, for training.

    An image smaller than the crop is first enlarged, aspect kept, until the crop just fits: reflected borders would
    show the network edges that no image has.

    Args:
        pixels: uint8 (3, H, W).
        size: Height and width of the crop, or one number for both.
        generator: Where to draw from, on the CPU.
        flip: Mirror left to right, half of the time.

    Returns:
        uint8 (3, h, w); a view of ``pixels`` where nothing had to be changed.
    """
    high, wide = (size, size) if isinstance(size, int) else size
    height, width = int(pixels.shape[1]), int(pixels.shape[2])
    scale = max(high / height, wide / width)
    if scale > 1:
        pixels = resize_to(pixels, (max(high, _scaled(height, scale)), max(wide, _scaled(width, scale))))
        height, width = int(pixels.shape[1]), int(pixels.shape[2])
    top = int(torch.randint(height - high + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    crop = pixels[:, top : top + high, left : left + wide]
    if flip and bool(torch.randint(2, (), generator=generator)):
        crop = crop.flip(2)
    return crop


def preprocessing_to_json(pre: Preprocessing) -> dict[str, Any]:
    """The record as plain JSON, every field."""
    return {
        "mean": list(pre.mean),
        "std": list(pre.std),
        "interpolation": pre.interpolation,
        "shorter_side": pre.shorter_side,
        "smallest_side": pre.smallest_side,
        "multiple": pre.multiple,
        "fixed_size": None if pre.fixed_size is None else list(pre.fixed_size),
        "max_pixels": pre.max_pixels,
    }


def preprocessing_from_json(data: object) -> Preprocessing:
    """The record from plain JSON.

    Raises:
        FileFormatError: A key is missing, unknown or of the wrong type, or the values make no sense.
    """
    if not isinstance(data, Mapping):
        raise FileFormatError(f"preprocessing must be a JSON object, not {type(data).__name__}")
    known = [field.name for field in dataclasses.fields(Preprocessing)]
    for key in known:
        if key not in data:
            raise FileFormatError(f"preprocessing lacks {key!r}")
    for key in data:
        if key not in known:
            raise FileFormatError(f"preprocessing has an unknown key {key!r}; was it written by a newer iqakit?")
    settings = dict(data)
    for key in ("mean", "std", "fixed_size"):
        if isinstance(settings[key], list):
            settings[key] = tuple(settings[key])
    for key in ("mean", "std"):
        if isinstance(settings[key], tuple) and all(_is_number(value) for value in settings[key]):
            settings[key] = tuple(float(value) for value in settings[key])
    pre = Preprocessing(**settings)
    try:
        check_preprocessing(pre)
    except ConfigurationError as error:
        raise FileFormatError(str(error)) from None
    return pre
