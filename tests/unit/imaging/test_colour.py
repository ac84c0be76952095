"""Colour profiles, made here byte by byte, against the formulas."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from iqakit.imaging.decoding import decode

# Primaries under D50: columns are the red, green and blue colorants.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """An ICC version 2 profile."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02100000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))


def gamma(power: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(power * 256), 0)


def rgb_profile(matrix: np.ndarray, power: float) -> bytes:
    tags = {b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249]))}
    tags |= {name + b"XYZ": xyz(matrix[:, index]) for index, name in enumerate((b"r", b"g", b"b"))}
    tags |= {name + b"TRC": gamma(power) for name in (b"r", b"g", b"b")}
    return profile(b"RGB ", tags)


def grey_profile(power: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249])), b"kTRC": gamma(power)})


def cmyk_profile() -> bytes:
    """Lightness falls with every ink, linearly, to 0; no hue."""
    identity = bytes(range(256))
    corners = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)])
    light = np.where(corners[:, 3] == 1, 0, 255 - 60 * corners[:, :3].sum(axis=1)).astype(np.uint8)
    lab = np.stack([light, np.full(16, 128, np.uint8), np.full(16, 128, np.uint8)], axis=1)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut += identity * 4 + lab.tobytes() + identity * 3
    return profile(b"CMYK", {b"wtpt": xyz(np.array([0.9642, 1.0, 0.8249])), b"A2B0": lut}, b"prtr", b"Lab ")


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def saved(picture: Image.Image, container: str, icc: bytes) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, container, icc_profile=icc)
    return buffer.getvalue()


def array_of(data: bytes) -> np.ndarray:
    return decode(data).pixels.transpose(1, 2, 0)


@pytest.mark.parametrize("container", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_display_p3_to_srgb(container: str) -> None:
    pixels = np.random.default_rng(0).integers(60, 200, (12, 9, 3), dtype=np.uint8)
    if container in {"WEBP", "AVIF"}:
        pixels[:] = pixels[0, 0]  # these lose detail; a flat colour stays
    data = saved(Image.fromarray(pixels), container, rgb_profile(P3, 2.2))
    with Image.open(io.BytesIO(data)) as stored:
        linear = (np.asarray(stored.convert("RGB")) / 255) ** 2.2
    expected = encode_srgb(linear @ P3.T @ np.linalg.inv(SRGB).T)
    decoded = decode(data)
    assert decoded.warnings == ("icc-converted",)
    assert np.abs(decoded.pixels.transpose(1, 2, 0) - expected).max() <= 2


def test_srgb_needs_no_conversion() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(Image.fromarray(pixels), "PNG", icc)
    np.testing.assert_array_equal(array_of(data), pixels)
    assert decode(data).warnings == ()


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profile(mode: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(levels)
    if mode == "LA":
        picture.putalpha(255)
    data = saved(picture, "PNG", grey_profile(1.0))
    assert decode(data).warnings == ("icc-converted",)
    assert np.abs(array_of(data)[..., 1] - encode_srgb(levels / 255)).max() <= 2


def test_rgb_profile_on_a_grey_image_is_used() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = saved(Image.fromarray(levels), "TIFF", rgb_profile(SRGB, 1.0))
    assert decode(data).warnings == ("icc-converted",)
    assert np.abs(array_of(data)[..., 1] - encode_srgb(levels / 255)).max() <= 2


def test_alpha_is_laid_over_white_after_conversion() -> None:
    picture = Image.new("RGBA", (4, 4), (90, 90, 90, 0))
    decoded = decode(saved(picture, "PNG", rgb_profile(SRGB, 1.0)))
    assert decoded.warnings == ("icc-converted", "alpha-flattened")
    assert bool((decoded.pixels == 255).all())


@pytest.mark.parametrize("icc", [b"not a profile", rgb_profile(P3, 2.2)[:200], grey_profile(1.0), cmyk_profile()])
def test_a_profile_that_is_broken_or_of_another_kind_is_ignored(icc: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    data = saved(Image.fromarray(pixels), "PNG", icc)
    np.testing.assert_array_equal(array_of(data), pixels)
    assert decode(data).warnings == ("icc-ignored",)


@pytest.mark.parametrize("container", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile(container: str) -> None:
    pixels = np.zeros((16, 48, 4), np.uint8)
    pixels[:, 16:32, 3] = 255
    pixels[:, 32:, 0] = 255
    decoded = decode(saved(Image.fromarray(pixels, "CMYK"), container, cmyk_profile()))
    assert decoded.warnings == ("icc-converted", "cmyk-converted")
    made = decoded.pixels.transpose(1, 2, 0).astype(int)
    assert made[8, 4].min() >= 250
    assert made[8, 22].max() <= 6
    light = 195 / 255 * 100  # CIE lightness of one full ink
    grey = encode_srgb(np.array(((light + 16) / 116) ** 3))
    assert np.abs(made[8, 40] - grey).max() <= 3


@pytest.mark.parametrize("container", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(container: str) -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(buffer, container)
    decoded = decode(buffer.getvalue())
    assert decoded.warnings == ("cmyk-converted",)
    red, green, blue = decoded.pixels[:, 8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15
