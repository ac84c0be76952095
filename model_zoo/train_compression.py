"""Train ``model_zoo/compression``: 25 kinds of degradation made on purpose, the severity being the score.

    python model_zoo/train_compression.py --data DIRECTORY [--work runs/compression] [--output DIRECTORY] [--seed 0]

DIRECTORY holds ``biq2021-unsplash`` with ``scores.csv`` (image, mos, split). Its photos that people scored highest are
degraded: those of the training split to learn from, those of the validation split to choose and calibrate by. The test
split is not opened; ``benchmarks/behaviour.py`` looks at the model on its photos. The best third of the photos stands
undegraded beside the copies. Forty minutes on one core, half of them for the ladders; a cut run goes on when started again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import torch
from PIL import Image

from iqakit.datasets.score_table import open_score_table
from iqakit.datasets.synthetic import SyntheticTask
from iqakit.imaging.degrading import DEGRADATIONS, LEVELS
from iqakit.pipeline.fitting import fit_tasks
from iqakit.storage.atomic import write_bytes_atomic, write_text_atomic

TASK = "compression"
PHOTOS = {"train": 48, "val": 12}
"""How many photos of a split are degraded."""
ORIGINALS = {"train": 240, "val": 60}
"""How many photos of a split stand undegraded beside them: about as many as there are copies of each level."""
LEVELS_EACH = {"train": 1, "val": 2}
"""At how many levels each photo meets each kind, drawn from the seed."""
SETTINGS = {"precision": "bfloat16", "crop": "256", "ladders": "64"}
"""Of ``tsn``. The scores of the copies say how bad they are on the whole; ladders hold each kind's levels in order."""


class Lines:
    """Progress as plain lines on stderr."""

    def start(self, what: str, total: int) -> None:
        print(f"> {what}", file=sys.stderr, flush=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Lines only."""

    def message(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def best_photos(table: Path, split: str, count: int) -> list[Path]:
    """The photos of a split that people scored highest, best first."""
    dataset = open_score_table(table, split)
    ranked = sorted(range(len(dataset)), key=lambda index: -dataset.sample(index).score)[:count]
    return [path for path in (dataset.path(index) for index in ranked) if path is not None]


def chosen(task: SyntheticTask, degraded: set[str], each: int, seed: int) -> list[int]:
    """Indices of every original and, for each photo to degrade and each kind, of ``each`` levels drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    kept: list[int] = []
    levels_of: dict[tuple[str, str], set[int]] = {}
    for index in range(len(task)):
        photo, kind, level = task.recipe(index)
        if kind is None:
            kept.append(index)
        elif photo in degraded:
            if (photo, kind) not in levels_of:
                order = torch.randperm(len(LEVELS), generator=generator).tolist()
                levels_of[photo, kind] = {LEVELS[place] for place in order[:each]}
            if level in levels_of[photo, kind]:
                kept.append(index)
    return kept


def write_images(data: Path, work: Path, seed: int) -> Path:
    """Write the degraded photos and their table; what is there already stays."""
    table = work / "scores.csv"
    if table.exists():
        return table
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("image", "mos", "content", "split"))
    for split, count in PHOTOS.items():
        photos = best_photos(data / "biq2021-unsplash", split, ORIGINALS[split])
        names = [path.stem for path in photos]
        task = SyntheticTask(photos, DEGRADATIONS, (0, *LEVELS), seed, names)
        for index in chosen(task, set(names[:count]), LEVELS_EACH[split], seed):
            sample = task.sample(index)
            name = f"{split}-{sample.name.replace('/', '-')}.png"
            if not (work / name).exists():
                encoded = io.BytesIO()
                Image.fromarray(task.image(index).permute(1, 2, 0).numpy()).save(encoded, "PNG", compress_level=1)
                write_bytes_atomic(work / name, encoded.getvalue())
            writer.writerow((name, sample.score, f"{split}-{sample.content}", split))
    write_text_atomic(table, rows.getvalue())
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/compression"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "compression")
    parser.add_argument("--adapter", default="tsn")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    report = fit_tasks(
        [write_images(options.data, options.work, options.seed)],
        adapter=options.adapter,
        settings=SETTINGS if options.adapter == "tsn" else {},
        task=TASK,
        model=options.output,
        scale=(1.0, 6.0),
        seed=options.seed,
        resume=True,
        progress=Lines(),
    )
    for task in report.tasks:
        print(task)


if __name__ == "__main__":
    main()
