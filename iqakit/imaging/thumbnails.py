"""Small copies of images for pages and contact sheets, as JPEG files of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image

from iqakit.errors import ConfigurationError
from iqakit.imaging.decoding import ImageSource, decode

_QUALITIES: Final = (85, 75, 60, 45, 30, 15)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        data: A JPEG file.
        width: Its width in pixels.
        height: Its height in pixels.
    """

    data: bytes
    width: int
    height: int


def thumbnail(source: ImageSource, *, side: int = 320, max_bytes: int = 40_000, max_pixels: int | None = None) -> Thumbnail:
    """A small copy of an image as a viewer shows it: turned by EXIF, in sRGB, alpha over white.

    The same image gives the same bytes. An image that is smaller than asked for keeps its size.

    Args:
        source: What to make it from, as for ``decode``.
        side: The longer side, in pixels, at most.
        max_bytes: The size of the file, at most; quality is lowered, and then the side, until it fits. 1,000 or more.
        max_pixels: See ``decode``.

    Raises:
        ImageError: The image cannot be read.
        ConfigurationError: ``side`` or ``max_bytes`` is too small.
    """
    if side < 1 or max_bytes < 1000:
        raise ConfigurationError(f"a thumbnail of side {side} in {max_bytes} bytes cannot be made; at least 1 and 1000")
    # The decoder may halve a JPEG as long as its shorter side keeps twice what any thumbnail of it can have.
    decoded = decode(source, reduce_to=2 * side, max_pixels=max_pixels)
    full = Image.fromarray(decoded.pixels.transpose(1, 2, 0))
    while True:
        small = _reduced(full, side)
        for quality in _QUALITIES:
            data = _encoded(small, quality)
            if len(data) <= max_bytes:
                return Thumbnail(data, small.width, small.height)
        side = max(1, side // 2)  # noise at full size: a smaller picture is kinder than a coarser one


def _reduced(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side brought down to ``side``."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    """A JPEG file; colour is kept at full resolution where quality is, so that edges stay clean."""
    # Not optimize=True: Pillow then fails on noise, whose file is larger than the buffer it makes for it.
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= 75 else 2)
    return stream.getvalue()
