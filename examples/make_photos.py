"""Make the photos that `make demo` scores: two photos that come with scikit-learn, as they are and degraded.

Run it as ``python examples/make_photos.py``; it writes ``examples/photos`` anew, the same to the byte with the same Pillow.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from iqakit.datasets.practice import photo_files
from iqakit.imaging.decoding import decode
from iqakit.imaging.degrading import degrade

KINDS = (("as-it-is", None, 0), ("blurred", "gaussian-blur", 4), ("noisy", "white-noise", 4), ("blocky", "jpeg", 4))


def main() -> None:
    directory = Path(__file__).parent / "photos"
    for photo in photo_files():
        pixels = torch.from_numpy(decode(photo).pixels).float() / 255
        for label, kind, level in KINDS:
            image = pixels if kind is None else degrade(pixels, kind, level, torch.Generator().manual_seed(0))
            array = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(array).save(directory / f"{photo.stem}-{label}.jpg", quality=90, optimize=True)


if __name__ == "__main__":
    main()
