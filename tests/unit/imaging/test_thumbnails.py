from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqakit.errors import ConfigurationError, ImageError
from iqakit.imaging.thumbnails import thumbnail


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 500), (320, 160)), ((500, 1000), (160, 320)), ((90, 40), (90, 40)), ((4000, 2), (320, 1))],
)
def test_the_longer_side_is_brought_down_and_never_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    made = thumbnail(Image.new("RGB", size, (10, 200, 30)))
    picture = opened(made.data)
    assert picture.size == expected == (made.width, made.height)
    assert picture.format == "JPEG"
    assert np.abs(np.asarray(picture).astype(int) - (10, 200, 30)).max() <= 3


def test_it_is_bounded_in_bytes_whatever_the_image() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    assert len(thumbnail(noise).data) <= 40_000
    small = thumbnail(noise, max_bytes=1000)
    assert len(small.data) <= 1000
    assert small.width < 320
    assert len(thumbnail(noise, max_bytes=1_000_000).data) > 40_000


def test_it_looks_like_the_image(tmp_path: Path) -> None:
    steps = np.kron(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((160, 160, 1), np.uint8))
    Image.fromarray(steps).save(tmp_path / "a.jpg", quality=95)
    shown = np.asarray(opened(thumbnail(tmp_path / "a.jpg").data)).astype(float)
    centres = shown[20::40, 20::40]
    assert np.abs(centres - steps[80::160, 80::160]).max() <= 8


def test_it_is_turned_as_a_viewer_shows_it(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste("white", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left edge goes to the top
    picture.save(tmp_path / "turned.jpg", exif=exif)
    shown = opened(thumbnail(tmp_path / "turned.jpg").data)
    assert shown.size == (100, 200)
    assert shown.getpixel((50, 20))[0] > 240  # type: ignore[index]
    assert shown.getpixel((50, 180))[0] < 15  # type: ignore[index]


def test_the_same_image_gives_the_same_bytes() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    assert thumbnail(picture).data == thumbnail(picture.copy()).data


def test_what_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="absent"):
        thumbnail(tmp_path / "absent.png")
    with pytest.raises(
        ConfigurationError, match="a thumbnail of side 0 in 40000 bytes cannot be made; at least 1 and 1000"
    ):
        thumbnail(np.zeros((4, 4, 3), np.uint8), side=0)
    with pytest.raises(ConfigurationError, match="at least 1 and 1000"):
        thumbnail(np.zeros((4, 4, 3), np.uint8), max_bytes=10)
