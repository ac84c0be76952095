"""How often a quality map calls the degraded part of a photo the worse one.

A half or a quarter of a photo is blurred, made noisy, compressed or darkened. The map is right where its mean is lower on
that part than on the rest. Photos: the two originals that come with the repository, and the best-rated ones of the
validation splits of data sets.

    python benchmarks/localisation.py [--data DIR ...] [--photos N] [--methods cam tiles] [--model NAME|DIR]
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

import iqakit
from iqakit.pipeline.explaining import METHODS, explain

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "photos"
BOXES = {
    "left half": (0, 0, 0.5, 1),
    "right half": (0.5, 0, 1, 1),
    "lower half": (0, 0.5, 1, 1),
    "quarter": (0.5, 0.5, 1, 1),
}
KINDS = ("blurred", "noisy", "compressed", "darkened")


def degraded(photo: Image.Image, kind: str) -> Image.Image:
    if kind == "blurred":
        return photo.filter(ImageFilter.GaussianBlur(3))
    if kind == "noisy":
        pixels = np.asarray(photo, dtype=np.float64)
        noise = np.random.default_rng(0).normal(0, 25, pixels.shape)
        return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    if kind == "compressed":
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=8)
        return Image.open(stream).convert("RGB")
    return ImageEnhance.Brightness(photo).enhance(0.3)


def with_a_bad_part(photo: Image.Image, kind: str, box: tuple[float, float, float, float]) -> Image.Image:
    width, height = photo.size
    pixels = (round(box[0] * width), round(box[1] * height), round(box[2] * width), round(box[3] * height))
    mixed = photo.copy()
    mixed.paste(degraded(photo, kind).crop(pixels), pixels[:2])
    return mixed


def calls_it_worse(values: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    rows, columns = values.shape
    inside = np.zeros(values.shape, dtype=bool)
    inside[round(box[1] * rows) : round(box[3] * rows), round(box[0] * columns) : round(box[2] * columns)] = True
    return bool(values[inside].mean() < values[~inside].mean())


def photos_of(directory: Path, count: int) -> list[Path]:
    """The best-rated photos of the validation split, best first."""
    with (directory / "scores.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "val"]
    return [directory / row["image"] for row in sorted(rows, key=lambda row: -float(row["mos"]))[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--photos", type=int, default=10, help="photos of each data set")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--boxes", nargs="+", choices=list(BOXES), default=list(BOXES))
    parser.add_argument("--model", default="default")
    asked = parser.parse_args()
    model = iqakit.load(asked.model)
    paths = sorted(EXAMPLES.glob("*-as-it-is.jpg"))
    paths += [path for directory in asked.data for path in photos_of(directory, asked.photos)]
    right: Counter[tuple[str, str, str]] = Counter()
    for number, path in enumerate(paths, start=1):
        photo = Image.open(path).convert("RGB")
        for kind in asked.kinds:
            for place in asked.boxes:
                mixed = np.asarray(with_a_bad_part(photo, kind, BOXES[place]))
                for method in asked.methods:
                    found = explain(model, mixed, method=method)
                    right[kind, place, method] += calls_it_worse(found.values, BOXES[place])
        print(f"{number} of {len(paths)}", dict(right), file=sys.stderr)
    print(f"{model.version}, {len(paths)} photos; how often the degraded part comes out as the worse one\n")
    print("| | " + " | ".join(f"{place}, {method}" for place in asked.boxes for method in asked.methods) + " |")
    print("|---" * (1 + len(asked.boxes) * len(asked.methods)) + "|")
    for kind in asked.kinds:
        cells = [f"{right[kind, place, method]}" for place in asked.boxes for method in asked.methods]
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
