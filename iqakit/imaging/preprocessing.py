"""From pixels to a backbone's input: sizes, resizing, normalising.

All of it follows one ``Preprocessing`` record, which an adapter carries with it. Everything here gives the same bits
whatever the number of threads and whatever an image's layout in memory. It works on arrays and never loads torch;
``iqakit.imaging.tensors`` is the same for tensors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqakit.contracts import InputSpec, Preprocessing
from iqakit.errors import ConfigurationError, FileFormatError

Pixels = NDArray[np.uint8]
"""(3, H, W), 8 bits, RGB."""
Planes = NDArray[np.float32]
"""(3, H, W), what a network takes."""
Raster = Pixels | Image.Image
"""Pixels, or a loaded picture of mode RGB: a large one that is only resized need not become an array first."""

_FILTERS: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_INTERPOLATIONS: Final = tuple(_FILTERS)


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
    new_short, new_long = scaled_side(short, scale), scaled_side(long, scale)
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


def scaled_side(side: int, scale: float) -> int:
    """The whole number nearest to ``side * scale``, at least 1."""
    return max(1, math.floor(side * scale + 0.5))


def _nearest(side: int, multiple: int) -> int:
    return max(1, (side + multiple // 2) // multiple) * multiple


def resize_pixels(
    pixels: Raster, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Resize an image as ``pre`` says, antialiased.

    Args:
        pixels: uint8 (3, H, W), or a picture.
        pre: How.
        full_size: (height, width) of the whole image where ``pixels`` were decoded smaller; decides the target size.

    Returns:
        uint8 (3, h, w), channels last in memory, and the names of what was done beyond the ordinary: ``upscaled``,
        ``downscaled``, ``aspect-changed``.
    """
    height, width = full_size or ((pixels.height, pixels.width) if isinstance(pixels, Image.Image) else pixels.shape[1:])
    target = target_size(height, width, pre)
    return resample(pixels, target, pre.interpolation), _resize_warnings(height, width, target, pre)


def _resize_warnings(height: int, width: int, target: tuple[int, int], pre: Preprocessing) -> tuple[str, ...]:
    down, across = target[0] / height, target[1] / width
    short = min(height, width)
    warnings: list[str] = []
    if max(down, across) > 1 and (pre.fixed_size is not None or short < pre.smallest_side):
        warnings.append("upscaled")
    scale = _ordinary_scale(short, pre)
    if pre.fixed_size is None and scaled_side(height, scale) * scaled_side(width, scale) > pre.max_pixels:
        warnings.append("downscaled")
    # Rounding to whole pixels and to multiples moves a side by less than this; it is not worth a word.
    slack = 1 + max(1, pre.multiple) / min(target)
    if max(down, across) / min(down, across) > slack:
        warnings.append("aspect-changed")
    return tuple(warnings)


def resample(pixels: Raster, size: tuple[int, int], interpolation: str = "bilinear") -> Pixels:
    """Resize to exactly (height, width), antialiased, in 8 bits.

    Args:
        pixels: uint8 (3, H, W), or a picture.
        size: Height and width.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        uint8 (3, h, w), channels last in memory; ``pixels`` or a view of them where they are of that size and layout.
        The same bits whatever the layout of ``pixels``.
    """
    if isinstance(pixels, Image.Image):
        picture = pixels
    else:
        rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        if rows.shape[:2] == size:
            return rows.transpose(2, 0, 1)
        picture = Image.fromarray(rows)
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], _FILTERS[interpolation])
    return np.array(picture).transpose(2, 0, 1)


def normalise_pixels(pixels: Pixels, pre: Preprocessing) -> Planes:
    """(pixels / 255 - mean) / std, in float32.

    Args:
        pixels: uint8 (3, H, W).
        pre: Holds mean and std.

    Returns:
        float32 (3, H, W), channels last in memory.
    """
    _, height, width = pixels.shape
    # On whole rows: several times as fast as steps of three channels.
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).reshape(height, width * 3).astype(np.float32)
    rows /= np.float32(255)
    rows -= np.tile(np.array(pre.mean, dtype=np.float32), width)
    rows /= np.tile(np.array(pre.std, dtype=np.float32), width)
    return rows.reshape(height, width, 3).transpose(2, 0, 1)


def prepare_pixels(
    pixels: Raster, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Planes, tuple[str, ...]]:
    """Resize and normalise: float32 (3, h, w), channels last in memory, and warnings. See ``resize_pixels``."""
    resized, warnings = resize_pixels(pixels, pre, full_size=full_size)
    return normalise_pixels(resized, pre), warnings


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
