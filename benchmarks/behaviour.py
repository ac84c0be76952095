"""Does a model of the zoo behave: are clean photos above their own damaged copies, and do scores fall with the damage?

    python benchmarks/behaviour.py --data DIRECTORY [--models default compression] [--limit 45] [--split test]

Takes the test photos of ``biq2021-unsplash`` that people scored highest, the best quarter of the split, and the two photos
that come with scikit-learn: sharp photos that no model has learned from. ``--limit 12`` is what was looked at before.
``--split val`` looks at validation photos instead and writes nothing, for choosing how to train. First: how often a photo
scores above its own strong blur, noise, JPEG and downscaling (to a quarter and back up). Then: mean score at each of five
levels of 25 kinds of degradation. Writes ``benchmarks/results/behaviour.json``, from which ``benchmarks/tables.py`` makes
the docs' tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import iqakit
from iqakit.datasets.practice import photo_files
from iqakit.datasets.score_table import open_score_table
from iqakit.datasets.synthetic import SyntheticTask, check_monotone
from iqakit.functional import degradations
from iqakit.imaging import codecs
from iqakit.imaging.decoding import decode
from iqakit.imaging.degrading import LEVELS
from iqakit.imaging.tensors import resize_to
from iqakit.storage.results import write_json

RESULTS = Path(__file__).parent / "results"


def _downscaled(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    small = resize_to((image * 255).round().to(torch.uint8), (height // 4, width // 4))
    return resize_to(small, (height, width)).float() / 255


STRONG: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "blur, sigma 3": lambda image, _: degradations.gaussian_blur(image, 3.0),
    "noise, sigma 0.1": lambda image, generator: degradations.gaussian_noise(image, 0.1, generator),
    "JPEG, quality 10": lambda image, _: codecs.jpeg(image, 10),
    "to a quarter and back": lambda image, _: _downscaled(image),
}


def photos_of(data: Path, split: str, limit: int) -> list[Path]:
    """Sharp photos: the best of a split, and beside test photos scikit-learn's two."""
    dataset = open_score_table(data / "biq2021-unsplash", split)
    ranked = sorted(range(len(dataset)), key=lambda index: -dataset.sample(index).score)[:limit]
    best = [path for path in map(dataset.path, ranked) if path is not None]
    return best + list(photo_files()) if split == "test" else best


def clean_above(score: Callable[[Tensor], float], photos: Sequence[Path]) -> dict[str, list[float]]:
    """For each strong degradation the differences, photo minus copy, in points."""
    found: dict[str, list[float]] = {name: [] for name in STRONG}
    for number, path in enumerate(photos):
        pixels = torch.from_numpy(decode(path).pixels)
        clean = score(pixels)
        for name, damage in STRONG.items():
            damaged = damage(pixels.float() / 255, torch.Generator().manual_seed(number))
            found[name].append(round(clean - score((damaged * 255).round().to(torch.uint8)), 2))
    return found


def measure(name: str, photos: Sequence[Path]) -> dict[str, Any]:
    """One model's behaviour."""
    model = iqakit.load(name)

    def score(image: Tensor) -> float:
        points = model.score(image).score
        if points is None:
            raise SystemExit(f"model {name} has no calibration for an image; nothing to compare")
        return points

    pairs = clean_above(score, photos)
    kinds = check_monotone(SyntheticTask(list(photos), levels=(0, *LEVELS)), score)
    return {
        "model": model.version,
        "pairs": pairs,
        "above": {kind: sum(gap > 0 for gap in gaps) / len(gaps) for kind, gaps in pairs.items()},
        "kinds": [
            {
                "kind": result.kind,
                "means": {str(level): round(mean, 2) for level, mean in result.means.items()},
                "falls": result.falls,
            }
            for result in kinds
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["default", "compression"])
    parser.add_argument("--limit", type=int, default=45)
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    photos = photos_of(options.data, options.split, options.limit)
    models = {Path(name).name: measure(name, photos) for name in options.models}
    if options.split == "test":
        write_json(options.results / "behaviour.json", {"photos": len(photos), "models": models})
    for name, found in models.items():
        for kind, share in found["above"].items():
            print(f"{name}: photo above its copy ({kind}): {share:.0%} of {len(photos)}")
        for row in found["kinds"]:
            means = " ".join(f"{mean:6.1f}" for mean in row["means"].values())
            print(f"{row['kind']:28} {means}  {'falls' if row['falls'] else 'does not fall at every level'}")
        print(f"{name}: {sum(row['falls'] for row in found['kinds'])} of {len(found['kinds'])} kinds fall at every level")


if __name__ == "__main__":
    main()
