"""The way from a file to prepared arrays loads no torch, and gives what torch's users get."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqakit.contracts import Preprocessing
from iqakit.imaging import decoding, tensors
from iqakit.imaging.batching import Prepared, prepare_source
from iqakit.imaging.decoding import decode
from iqakit.imaging.preprocessing import normalise_pixels, prepare_pixels, resample, resize_pixels

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
PRE = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8).transpose(2, 0, 1)


def test_streaming_photos_loads_no_torch(tmp_path: Path) -> None:
    """Neither for photos, nor for an array, a PIL image, a turned one, one with alpha, and one that is broken."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(900, 800).transpose(1, 2, 0)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("LA", (50, 60), (90, 100)).save(tmp_path / "alpha.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    code = (
        "import sys, numpy\n"
        "from PIL import Image\n"
        "from iqakit.contracts import Preprocessing\n"
        "from iqakit.imaging.batching import stream\n"
        "array = numpy.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype='uint8')\n"
        "sources = [*sys.argv[1:], array, Image.fromarray(array), 3]\n"
        "pre = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))\n"
        "for item in stream(sources, pre, workers=2):\n"
        "    print(type(item).__name__, *getattr(getattr(item, 'image', None), 'shape', ()))\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'torchvision', 'timm')])\n"
    )
    files = [PHOTOS / "china-as-it-is.jpg", PHOTOS / "flower-noisy.jpg", *sorted(tmp_path.glob("*"))]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    width, height = Image.open(files[0]).size
    assert done == [
        f"Prepared 3 {height} {width}",
        f"Prepared 3 {height} {width}",
        "Prepared 3 60 50",
        "Failed",
        "Prepared 3 768 864",
        "Prepared 3 70 80",
        "Prepared 3 70 80",
        "Failed",
        "[]",
    ]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1000, 900), (60, 71), (20, 9)])
def test_tensors_get_the_same_bits(size: tuple[int, int], interpolation: str) -> None:
    pre = Preprocessing(PRE.mean, PRE.std, interpolation=interpolation)
    pixels = noise(*size)
    tensor = torch.from_numpy(pixels)
    image, warnings = prepare_pixels(pixels, pre)
    for given in (tensor, tensor.contiguous()):
        made, said = tensors.prepare(given, pre)
        np.testing.assert_array_equal(made.numpy(), image)
        assert said == warnings
    resized, warnings = resize_pixels(pixels, pre)
    also, said = tensors.resize(tensor, pre)
    np.testing.assert_array_equal(also.numpy(), resized)
    assert said == warnings
    np.testing.assert_array_equal(tensors.normalise(also, pre).numpy(), image)
    np.testing.assert_array_equal(tensors.normalise(also[None], pre)[0].numpy(), image)
    np.testing.assert_array_equal(tensors.resize_to(tensor, (33, 44)).numpy(), resample(pixels, (33, 44)))
    item = prepare_source(tensor, pre)
    assert isinstance(item, Prepared)
    np.testing.assert_array_equal(item.image, image)


def test_no_copy_where_memory_can_be_shared() -> None:
    pixels = noise(40, 50)
    tensor = torch.from_numpy(pixels)
    same, _ = tensors.resize(tensor, PRE)
    assert same.data_ptr() == tensor.data_ptr()
    assert resample(pixels, (40, 50)).ctypes.data == pixels.ctypes.data
    image, _ = prepare_pixels(pixels, PRE)
    assert torch.from_numpy(image).stride() == (1, 150, 3)
    assert torch.from_numpy(image).data_ptr() == image.ctypes.data


def test_every_value_is_writable_and_of_its_type() -> None:
    """Tensors share this memory, and torch has no read-only ones."""
    for made in (resample(noise(40, 50), (20, 30)), decode(noise(9, 8).transpose(1, 2, 0)).pixels):
        assert made.dtype == np.uint8
        assert made.flags.writeable
        assert made.strides == (1, 3 * made.shape[2], 3)
    made = normalise_pixels(np.ascontiguousarray(noise(9, 8)), PRE)
    assert made.dtype == np.float32
    assert made.flags.writeable
    assert made.strides == (4, 96, 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("whole", [0, 1 << 25])
def test_a_picture_that_never_becomes_an_array_gives_the_same_bits(
    orientation: int, mode: str, whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_TURNED_WHOLE", whole)
    picture = Image.fromarray(noise(110, 90).transpose(1, 2, 0)).convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    for pre in (PRE, Preprocessing(PRE.mean, PRE.std, shorter_side=40, interpolation="bicubic")):
        item = prepare_source(tmp_path / "a.png", pre)
        assert isinstance(item, Prepared)
        decoded = decode(tmp_path / "a.png")
        expected, warnings = prepare_pixels(decoded.pixels, pre)
        np.testing.assert_array_equal(item.image, expected)
        assert item.warnings == decoded.warnings + warnings
        assert item.image.strides[0] == 4


def test_a_picture_given_stays_open_and_as_it_was() -> None:
    picture = Image.fromarray(noise(80, 60).transpose(1, 2, 0))
    before = picture.tobytes()
    first = prepare_source(picture, Preprocessing(PRE.mean, PRE.std, shorter_side=40))
    assert isinstance(first, Prepared)
    assert picture.tobytes() == before
    assert decode(picture).pixels.shape == (3, 80, 60)


def test_resizing_is_pillows() -> None:
    pixels = noise(90, 81)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    for name, filter_ in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        for size in ((30, 41), (200, 91), (90, 81), (90, 10)):
            expected = np.asarray(picture.resize(size[::-1], filter_))
            np.testing.assert_array_equal(resample(pixels, size, name).transpose(1, 2, 0), expected)
