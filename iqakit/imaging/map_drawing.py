"""A map of numbers drawn over a photo: colour ramp, legend, score in the corner; as a PNG file of bounded size."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from iqakit.errors import ConfigurationError

SMALLEST_SIDE: Final = 256
"""The shortest longer side that a drawing can have: below it the legend cannot be read."""
_ENLARGED_TO: Final = 640
_STEPS: Final = 256
# Lightness, chroma and hue (degrees) in OKLCh along the ramp, from bad to good: violet, blue, teal, green, yellow.
# Lightness rises all the way, so the order survives every kind of colour blindness and a grey printer.
_ANCHORS: Final = (
    (0.30, 0.12, 300.0),
    (0.45, 0.11, 255.0),
    (0.60, 0.09, 205.0),
    (0.75, 0.13, 150.0),
    (0.93, 0.17, 108.0),
)
_COLOUR_SHARE: Final = 0.62
_PHOTO_LIGHT: Final = 0.85
_INK: Final = (28, 28, 30)
_PAPER: Final = (250, 250, 250)

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Legend:
    """What the colours mean.

    Attributes:
        low: The value at the left end; lower ones look alike.
        high: The value at the right end.
        ticks: Values with their labels.
        title: What is shown, in a few words.
        corner: What stands in the photo's corner, such as the score.
        mark: A value to point at, such as the score; None: none.
    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str
    corner: str
    mark: float | None = None


def draw_map(photo: NDArray[np.uint8], values: NDArray[np.float32], legend: Legend, *, side: int = 1600) -> bytes:
    """Draw a map over its photo, which is shown in grey below.

    Args:
        photo: uint8 (H, W, 3), RGB.
        values: float32 (h, w), on a grid that covers the photo evenly.
        legend: What the colours mean.
        side: The drawn photo's longer side, in pixels, at most. Small photos are enlarged so that the legend can be read.

    Returns:
        A PNG file. The same input gives the same bytes with the same Pillow.

    Raises:
        ConfigurationError: ``side`` is below ``SMALLEST_SIDE``, or the legend's ends are not in order.
    """
    if side < SMALLEST_SIDE:
        raise ConfigurationError(f"a map is at least {SMALLEST_SIDE} pixels wide or high; found {side}; 1600 is usual")
    if not legend.low < legend.high:
        raise ConfigurationError(f"a legend's low end must be below its high end; found {legend.low:g} and {legend.high:g}")
    size = _drawn_size(photo.shape[1], photo.shape[0], side)
    coloured = _coloured(photo, values, legend, size)
    font = _font(round(max(13.0, min(max(size) / 42, 40.0))))
    width = max(size[0], 16 * int(_height(font)))
    strip = _strip(width, legend, font)
    canvas = Image.new("RGB", (width, size[1] + strip.height), _PAPER)
    canvas.paste(coloured, ((width - size[0]) // 2, 0))
    canvas.paste(strip, (0, size[1]))
    _write_corner(canvas, legend.corner, font)
    stream = BytesIO()
    canvas.save(stream, "PNG", optimize=False)
    return stream.getvalue()


@functools.cache
def colour_ramp() -> NDArray[np.uint8]:
    """(256, 3) sRGB colours from bad to good, at even distances in OKLab (Ottosson 2020), lightness rising."""
    anchors = np.array(_ANCHORS)
    at = np.linspace(0, 1, 2048)
    places = np.linspace(0, 1, len(anchors))
    lightness, chroma, hue = (np.interp(at, places, anchors[:, column]) for column in range(3))
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1)
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0, walked[-1], _STEPS)
    ramp = np.stack([np.interp(even, walked, lab[:, column]) for column in range(3)], axis=1)
    return (_srgb(ramp) * 255).round().astype(np.uint8)


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab to sRGB in 0-1; the matrices are those of the colour space's definition."""
    to_cone = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cone.T) ** 3 @ to_linear.T, 0, 1)
    found: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return found


def _drawn_size(width: int, height: int, side: int) -> tuple[int, int]:
    longer = max(width, height)
    scale = min(max(longer, _ENLARGED_TO), side) / longer
    return max(1, round(width * scale)), max(1, round(height * scale))


def _coloured(photo: NDArray[np.uint8], values: NDArray[np.float32], legend: Legend, size: tuple[int, int]) -> Image.Image:
    """The photo in dimmed grey, with the map's colours laid over it."""
    picture = Image.fromarray(photo).reduce(max(1, photo.shape[1] // (2 * size[0])))
    grey = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).convert("L"), dtype=np.float32) * _PHOTO_LIGHT
    fine = np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, Image.Resampling.BICUBIC))
    shares = np.clip((fine - legend.low) / (legend.high - legend.low), 0, 1)
    colours = colour_ramp()[(shares * (_STEPS - 1)).round().astype(np.intp)]
    mixed = _COLOUR_SHARE * colours.astype(np.float32) + (1 - _COLOUR_SHARE) * grey[:, :, None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _strip(width: int, legend: Legend, font: _Font) -> Image.Image:
    """The legend: title, bar, ticks."""
    line = _height(font)
    margin, bar = line, round(0.9 * line)
    title = _wrapped(legend.title, font, width - 2 * margin)
    top = round(0.5 * line + len(title) * 1.3 * line + 0.6 * line)
    strip = Image.new("RGB", (width, round(top + bar + 2.1 * line)), _PAPER)
    draw = ImageDraw.Draw(strip)
    for number, text in enumerate(title):
        draw.text((margin, round((0.4 + 1.3 * number) * line)), text, fill=_INK, font=font)
    length = width - 2 * margin
    ramp = Image.fromarray(colour_ramp()[None]).resize((length, bar), Image.Resampling.BILINEAR)
    strip.paste(ramp, (margin, top))

    def across(value: float) -> float:
        share = (value - legend.low) / (legend.high - legend.low)
        return margin + min(max(share, 0.0), 1.0) * (length - 1)

    for value, label in legend.ticks:
        x = across(value)
        draw.line([(x, top + bar), (x, top + bar + 0.25 * line)], fill=_INK, width=max(1, line // 12))
        half = font.getlength(label) / 2
        left = min(max(x - half, 2.0), width - 2 * half - 2)
        draw.text((left, top + bar + 0.4 * line), label, fill=_INK, font=font)
    if legend.mark is not None:
        x, reach = across(legend.mark), 0.42 * line
        draw.polygon([(x, top), (x - reach, top - 1.2 * reach), (x + reach, top - 1.2 * reach)], fill=_INK)
    return strip


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    """A text broken into lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write_corner(canvas: Image.Image, text: str, font: _Font) -> None:
    draw = ImageDraw.Draw(canvas)
    line = _height(font)
    gap = round(0.5 * line)
    box = (gap, gap, gap + round(font.getlength(text)) + 2 * gap, gap + round(1.9 * line))
    draw.rounded_rectangle(box, radius=gap, fill=_INK)
    draw.text((box[0] + gap, box[1] + round(0.3 * line)), text, fill=_PAPER, font=font)


def _font(size: int) -> _Font:
    """Pillow's own font; where Pillow was built without scalable fonts, its bitmap font."""
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def _height(font: _Font) -> int:
    """Height of a line."""
    _, top, _, bottom = font.getbbox("Ag")
    return max(1, round(bottom - top))
