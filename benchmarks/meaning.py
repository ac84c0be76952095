"""What std and novelty of a model are worth: how often people's score lies within one std, and what comes out as novel.

    python benchmarks/meaning.py --data DIRECTORY [--model default] [--recalibrate] [--limit N] [--pictures N]

DIRECTORY holds the three BIQ2021 tasks (validation and test splits), ``live-mini`` and ``tid2013-mini``. Nothing is chosen
on a test split here. ``--recalibrate`` fits the calibrations anew on the validation splits, for this measurement only.
``--limit`` takes the first N images of each split. Pictures of other worlds are made by program (``benchmarks/worlds.py``).
Prints, and writes ``benchmarks/results/meaning.json``.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from worlds import WORLDS, underwater

from iqakit.contracts import Adapter, Calibration
from iqakit.datasets.sources import open_source
from iqakit.functional.calibration_choice import choose_calibration
from iqakit.imaging.tensors import prepare
from iqakit.pipeline.combining import BELIEF_POWER
from iqakit.pipeline.evaluating import Passes, run_passes
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.reading import Subset
from iqakit.plugins.catalog import catalog
from iqakit.storage.results import write_json

TASKS = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash")
UNSEEN = ("live-mini", "tid2013-mini")
COMBINERS = ("oracle", "kmeans")
POWERS = (1, 2, 3, 4, 6)
NOVEL = 0.95


class Lines:
    """Progress as plain lines on stderr."""

    def start(self, what: str, total: int) -> None:
        print(f"> {what}", file=sys.stderr, flush=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Lines only."""

    def message(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def passes_of(model: QualityModel, path: Path, split: str, limit: int | None) -> tuple[Passes, list[str]]:
    """What the network gives for a split, and the names of its images' contents."""
    source = open_source(str(path), catalog().dataset)
    dataset = source.open(split, 0)
    part = Subset(dataset, tuple(range(len(dataset)))[:limit])
    samples = [part.sample(index) for index in range(len(part))]
    return run_passes(model, source, part, 2, Lines()), [sample.content or sample.name for sample in samples]


def points_of(adapter: Adapter, human: Tensor) -> Tensor:
    """Human scores as points on the scale that the task was calibrated on."""
    scale = adapter.provenance["scale"]
    return ((human.double() - scale["low"]) / (scale["high"] - scale["low"]) * 100).clamp(0, 100)


def calibrated(adapter: Adapter, raw: Tensor, points: Tensor, contents: list[str]) -> tuple[Calibration, dict[str, Any]]:
    """The calibration that would be chosen on validation images, and what it is chosen by."""
    choice = choose_calibration(raw, points, contents, torch.Generator().manual_seed(0))
    both = {"logistic_error": choice.logistic_error, "isotonic_error": choice.isotonic_error}
    # nan: too few images to hold any out, or no rising curve in them.
    errors = {name: None if math.isnan(error) else error for name, error in both.items()}
    return Calibration(**asdict(choice.fit)), {"task": adapter.task, "n": len(raw), **errors}


def covered(model: QualityModel, passes: Passes, points: Tensor, combiner: str) -> Tensor:
    """(3, N): whether people's score lies within one std, the std, and the error, all in points."""
    score, _, std = model.combine(passes.outputs, model.weights(passes.outputs, combiner, passes.task))
    error = (score.double() - points).abs()
    return torch.stack([(error <= std).double(), std.double(), error])


def coverage_record(task: str, combiner: str, split: str, found: Tensor) -> dict[str, Any]:
    """A record with the share covered and its 95 % Wilson interval."""
    share, n = float(found[0].mean()), found.shape[1]
    z = 1.96
    middle, reach = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return {
        "task": task,
        "combiner": combiner,
        "split": split,
        "n": n,
        "covered": share,
        "low": (middle - reach) / (1 + z * z / n),
        "high": (middle + reach) / (1 + z * z / n),
        "mean_std": float(found[1].mean()),
        "rmse": float(found[2].square().mean().sqrt()),
    }


def likelihoods(weights: list[Tensor]) -> list[dict[str, float]]:
    """How likely powers of the gate's weights make the true task of validation images (mean of -log, lower is better)."""
    rows = []
    for power in POWERS:
        losses = []
        for task, given in enumerate(weights):
            beliefs = given.double() ** power
            losses.append(-(beliefs[:, task] / beliefs.sum(1)).log())
        rows.append({"power": power, "log_loss": float(torch.cat(losses).mean())})
    return rows


def novelty_record(images: str, kind: str, novelty: Tensor) -> dict[str, Any]:
    return {
        "images": images,
        "kind": kind,
        "n": len(novelty),
        "mean": float(novelty.mean()),
        "novel": float((novelty > NOVEL).double().mean()),
    }


def novelty_of(model: QualityModel, pictures: list[np.ndarray]) -> Tensor:
    """Novelty of pictures, (N,)."""
    found = []
    for picture in pictures:
        image, _ = prepare(torch.from_numpy(picture.copy()).permute(2, 0, 1), model.preprocessing)
        novelty = model.novelty(model.outputs(image[None]))
        assert novelty is not None, "the model has no gate, so nothing is known of novelty"
        found.append(novelty)
    return torch.cat(found)


def worlds(model: QualityModel, data: Path, count: int) -> list[dict[str, Any]]:
    """Novelty of pictures of other worlds; photos under water are test photos of the tasks learned."""
    rng = np.random.default_rng(0)
    rows = [
        novelty_record(name, "world", novelty_of(model, [make(rng) for _ in range(count)])) for name, make in WORLDS.items()
    ]
    photos = []
    for index in range(count):
        dataset = open_source(str(data / TASKS[index % len(TASKS)]), catalog().dataset).open("test", 0)
        photos.append(underwater(dataset.image(index).permute(1, 2, 0).numpy(), rng))
    return [*rows, novelty_record("underwater", "world", novelty_of(model, photos))]


def measure(data: Path, name: str, recalibrate: bool, limit: int | None, pictures: int) -> dict[str, Any]:
    model = QualityModel.load(name, runtime="torch")
    splits = {(task, split): passes_of(model, data / task, split, limit) for split in ("val", "test") for task in TASKS}
    adapters = {adapter.task: adapter for adapter in model.adapters}
    calibrations = []
    for index, (task, adapter) in enumerate(adapters.items()):
        passes, contents = splits[task, "val"]
        curve, record = calibrated(adapter, passes.outputs.raw[:, index], points_of(adapter, passes.human), contents)
        adapters[task] = replace(adapter, calibration=curve) if recalibrate else adapter
        used = adapters[task].calibration
        assert used is not None, f"task {task} has no calibration"
        facts = {
            "kind": used.kind,
            "knots": len(used.knots),
            "residual": used.residual,
            "residual_kind": used.residual_kind,
        }
        calibrations.append(record | facts)
    if recalibrate:
        model.adapters = tuple(adapters.values())
    coverage = []
    for split in ("val", "test"):
        for combiner in COMBINERS:
            found = []
            for task in TASKS:
                passes = splits[task, split][0]
                found.append(covered(model, passes, points_of(adapters[task], passes.human), combiner))
                coverage.append(coverage_record(task, combiner, split, found[-1]))
            coverage.append(coverage_record("all", combiner, split, torch.cat(found, 1)))
    known = [(task, splits[task, "test"][0]) for task in TASKS]
    unseen = [(task, passes_of(model, data / task, "test", limit)[0]) for task in UNSEEN]
    novelty = []
    for kind, sets in (("learned", known), ("unseen", unseen)):
        for task, passes in sets:
            found_novelty = model.novelty(passes.outputs)
            assert found_novelty is not None, "the model has no gate, so nothing is known of novelty"
            novelty.append(novelty_record(task, kind, found_novelty))
    weights = [model.weights(splits[task, "val"][0].outputs, "kmeans") for task in model.tasks]
    return {
        "model": model.version,
        "recalibrated": recalibrate,
        "limit": limit,
        "belief_power": BELIEF_POWER,
        "beliefs": likelihoods(weights),
        "calibrations": calibrations,
        "coverage": coverage,
        "novelty": [*novelty, *worlds(model, data, pictures)],
        "novel_above": NOVEL,
    }


def error_text(error: float | None) -> str:
    return "none" if error is None else f"{error:.2f}"


def show(result: dict[str, Any]) -> None:
    for row in result["calibrations"]:
        print(
            f"{row['task']:18} {row['kind']:9} residual {row['residual']:5.2f} {row['residual_kind']:9} held-out error: "
            f"logistic {error_text(row['logistic_error'])}, isotonic {error_text(row['isotonic_error'])}"
        )
    for row in result["beliefs"]:
        print(f"weights to the power of {row['power']}: log loss of the true task {row['log_loss']:.3f}")
    for row in result["coverage"]:
        print(
            f"{row['split']:5} {row['combiner']:7} {row['task']:18} covered {row['covered']:.3f} "
            f"[{row['low']:.3f}, {row['high']:.3f}]  std {row['mean_std']:5.2f}  rmse {row['rmse']:5.2f}"
        )
    for row in result["novelty"]:
        print(f"{row['kind']:8} {row['images']:18} novelty {row['mean']:.3f}  above {NOVEL}: {row['novel']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--recalibrate", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--pictures", type=int, default=24, help="pictures of each other world")
    options = parser.parse_args()
    result = measure(options.data, options.model, options.recalibrate, options.limit, options.pictures)
    write_json(Path(__file__).parent / "results" / "meaning.json", result)
    show(result)


if __name__ == "__main__":
    main()
