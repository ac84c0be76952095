from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqakit.imaging.channel_order import suspect_bgr, swap_evidence
from iqakit.imaging.decoding import decode

DATA = Path(__file__).parents[4] / "shared" / "data"


def telling() -> np.ndarray:
    """A mosaic of colours, RGB, that is much likelier among photos than its swapped copy."""
    for seed in range(2000):
        mosaic = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
        pixels = np.repeat(np.repeat(mosaic, 20, axis=0), 30, axis=1)
        if swap_evidence(pixels.transpose(2, 0, 1)) < -4:
            return pixels
    raise AssertionError("no mosaic tells anything")


def test_swapping_changes_the_sign() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 90), dtype=np.uint8)
    assert swap_evidence(pixels[::-1]) == pytest.approx(-swap_evidence(pixels))
    grey = np.full((3, 80, 80), 100, dtype=np.uint8)
    assert swap_evidence(grey) == 0


def test_arrays_and_tensors_are_looked_at_and_files_are_not() -> None:
    rgb = telling()
    bgr = rgb[..., ::-1]
    assert decode(rgb).warnings == ()
    assert decode(bgr).warnings == ("suspected-bgr",)
    assert decode(torch.from_numpy(bgr.copy()).permute(2, 0, 1)).warnings == ("suspected-bgr",)
    assert decode(Image.fromarray(bgr.copy())).warnings == ()
    assert decode(bgr[:63]).warnings == ()  # too small to tell


def test_few_photos_are_suspected() -> None:
    files = [
        path for name in ("gallery", "capture", "unsplash") for path in sorted((DATA / f"biq2021-{name}/images").glob("*"))
    ]
    if not files:
        pytest.skip("no real images here")
    some = [decode(path).pixels for path in files[::18]]
    assert sum(suspect_bgr(pixels) for pixels in some) <= len(some) // 100
    assert sum(suspect_bgr(pixels[::-1]) for pixels in some) >= len(some) * 2 // 100
