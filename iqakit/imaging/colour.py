"""From whatever a picture's pixels are to 8-bit sRGB, block by block, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iqakit.imaging.formats import UnreadableError

if TYPE_CHECKING:
    from PIL import ImageCms

Pixels = NDArray[np.uint8]
"""(H, W, 3) or (H, W), 8 bit."""

Transform = Callable[[Image.Image], Image.Image]
"""Brings a block to sRGB, mode RGB."""

_BLOCK: Final = 1 << 18  # pixels; a block and its copies stay in the processor's cache
_WITH_ALPHA: Final = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_SIXTEEN: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_SAME: Final = 2
"""Largest difference, in levels, up to which a profile counts as sRGB."""


def to_srgb(picture: Image.Image, out: Pixels, warnings: list[str]) -> None:
    """Write a loaded picture's pixels, as 8-bit sRGB over white, into ``out``.

    Args:
        picture: Loaded; any mode that Pillow knows.
        out: (H, W, 3), of the picture's own height and width; may be a turned view.
        warnings: Names of what was done are added.

    Raises:
        UnreadableError: The pixels have no meaning as an image, such as floats that are not finite.
    """
    icc = picture.info.get("icc_profile")
    transform = _transform(picture, icc, warnings) if isinstance(icc, bytes) and icc else None
    if picture.mode == "CMYK":
        warnings.append("cmyk-converted")
    if picture.mode in _SIXTEEN or picture.mode == "I" or picture.mode == "F":
        _scaled(picture, out, transform, warnings)
        return
    transparent = picture.mode in _WITH_ALPHA or "transparency" in picture.info or _palette_has_alpha(picture)
    seen_through = False
    for box, rows, columns in _blocks(picture):
        block = picture if box is None else picture.crop(box)
        if transparent:
            if block.mode == "La":  # Pillow knows one way out of it
                block = block.convert("LA")
            block = block.convert("RGBA")
            alpha = np.asarray(block.getchannel("A"))
            block = block.convert("RGB")
            pixels = _as_rgb(block, transform)
            if alpha.min() < 255:
                seen_through = True
                pixels = _over_white(pixels, alpha)
        else:
            pixels = _as_rgb(block, transform)
        out[rows, columns] = pixels
    if seen_through:
        warnings.append("alpha-flattened")


def is_srgb(picture: Image.Image, warnings: list[str]) -> bool:
    """Whether a loaded picture's pixels are 8-bit sRGB as they stand; what is found on the way is added to the warnings."""
    if picture.mode != "RGB" or "transparency" in picture.info:
        return False
    icc = picture.info.get("icc_profile")
    return not (isinstance(icc, bytes) and icc and _transform(picture, icc, warnings) is not None)


def _blocks(picture: Image.Image) -> Iterator[tuple[tuple[int, int, int, int] | None, slice, slice]]:
    width, height = picture.size
    if width * height <= _BLOCK:
        yield None, slice(0, height), slice(0, width)
        return
    across = min(width, _BLOCK)
    down = max(1, _BLOCK // across)
    for top in range(0, height, down):
        bottom = min(height, top + down)
        for left in range(0, width, across):
            right = min(width, left + across)
            yield (left, top, right, bottom), slice(top, bottom), slice(left, right)


def _palette_has_alpha(picture: Image.Image) -> bool:
    return picture.palette is not None and picture.palette.mode == "RGBA"


def _over_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """round(alpha * pixel + (1 - alpha) * 255), exactly."""
    cover = alpha[..., None].astype(np.uint32)
    return ((pixels * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)


def _as_rgb(block: Image.Image, transform: Transform | None) -> Pixels:
    if transform is not None:
        block = transform(block)
    if block.mode != "RGB":
        block = block.convert("RGB")
    return np.asarray(block)


def _scaled(picture: Image.Image, out: Pixels, transform: Transform | None, warnings: list[str]) -> None:
    """Pictures of one channel with more than 8 bits."""
    low, high = np.inf, -np.inf
    for box, _, _ in _blocks(picture):
        values = np.asarray(picture if box is None else picture.crop(box))
        if picture.mode == "F" and not np.isfinite(values).all():
            raise UnreadableError("holds floats that are not finite (NaN or infinity); replace them first")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if low < 0 or high > 65535:
        kind = "float" if picture.mode == "F" else "32-bit"
        raise UnreadableError(
            f"holds {kind} values from {low:g} to {high:g}, and which of them is white is not known; "
            "bring them to 0-1 (float), 0-255 or 0-65535 first"
        )
    if picture.mode == "F":
        warnings.append("float-scaled")
        white = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    else:
        warnings.append("sixteen-bit")
        white = 65535.0
    for box, rows, columns in _blocks(picture):
        values = np.asarray(picture if box is None else picture.crop(box))
        grey = np.rint(values.astype(np.float64) * (255.0 / white)).astype(np.uint8)
        out[rows, columns] = _as_rgb(Image.fromarray(grey), transform)


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _transform(picture: Image.Image, icc: bytes, warnings: list[str]) -> Transform | None:
    """What brings a block of the picture to sRGB; None where its profile is sRGB or cannot be used."""
    colours = {"CMYK": "CMYK", "LAB": None, "HSV": None, "YCbCr": None}.get(picture.mode, "RGB")
    single = picture.mode in {"L", "1", "LA", "La", "F", "I"} or picture.mode in _SIXTEEN
    built = _build(icc, colours, single)
    if built == "ignored":
        warnings.append("icc-ignored")
    if isinstance(built, str):
        return None
    warnings.append("icc-converted")
    return built


@lru_cache(maxsize=32)
def _build(icc: bytes, colours: str | None, single: bool) -> str | Transform:
    """What brings a block to sRGB, or ``"same"`` (it is sRGB) or ``"ignored"`` (broken, or of other channels).

    Relative colorimetric with black point compensation, as browsers and photo editors do it.
    """
    from PIL import ImageCms  # most pictures have no profile

    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(profile.profile.xcolor_space.strip())
        if mode is None or not (mode == colours or (mode == "L" and single)):
            return "ignored"
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        if mode == "L":
            flags |= ImageCms.Flags.NOOPTIMIZE  # else dark greys are interpolated from a coarse grid
        transform = ImageCms.buildTransform(
            profile, _srgb(), mode, "RGB", renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=flags
        )
        if mode == "CMYK":
            return partial(_apply, transform, mode)
        probe = Image.fromarray(_probe() if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
        before = np.asarray(probe.convert("RGB"), dtype=np.int16)
        after = np.asarray(transform.apply(probe))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return "ignored"
    if np.abs(after.astype(np.int16) - before).max() <= _SAME:
        return "same"
    return partial(_look_up, after[0]) if mode == "L" else partial(_apply, transform, mode)


def _apply(transform: ImageCms.ImageCmsTransform, mode: str, block: Image.Image) -> Image.Image:
    return transform.apply(block if block.mode == mode else block.convert(mode))


def _look_up(table: Pixels, block: Image.Image) -> Image.Image:
    return Image.fromarray(table[np.asarray(block if block.mode == "L" else block.convert("L"))])


def _probe() -> Pixels:
    """Colours on a 17-level grid, (17, 289, 3)."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return np.ascontiguousarray(grid.reshape(17, 289, 3))
