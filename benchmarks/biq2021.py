"""Fit methods on the three BIQ2021 tasks in order and measure them on the fixed test splits.

    python benchmarks/biq2021.py --data DIRECTORY [--methods linear linear-embedding tsn tsn-ladders] [--runs runs]

DIRECTORY holds ``biq2021-gallery``, ``biq2021-capture`` and ``biq2021-unsplash``, each with ``scores.csv``;
``tid2013-mini`` and ``live-mini`` beside them are scored as sets that no task has seen. Models go to ``--runs`` (a cut run
goes on when started again), figures to ``benchmarks/results/biq2021-<method>.json``, from which ``benchmarks/tables.py``
makes the docs' tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from iqakit.datasets.sources import open_source
from iqakit.functional.correlation import srcc
from iqakit.pipeline.evaluating import Passes, predictions, record, run_passes
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.joining import join_models
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.provenance import versions
from iqakit.plugins.catalog import catalog
from iqakit.storage.results import write_json

COMBINERS = ("oracle", "kmeans", "average", "last")
TASKS = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash")
UNSEEN = ("tid2013-mini", "live-mini")
METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "linear": ("linear", {}),
    "linear-embedding": ("linear", {"features": "embedding"}),
    "tsn": ("tsn", {"precision": "bfloat16"}),
    "tsn-ladders": ("tsn", {"precision": "bfloat16", "ladders": "64"}),
}
"""The last is how ``model_zoo/default`` is trained."""
RESULTS = Path(__file__).parent / "results"


class Lines:
    """Progress as plain lines on stderr."""

    def start(self, what: str, total: int) -> None:
        print(f"> {what}", file=sys.stderr, flush=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Lines only."""

    def message(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def measure(name: str, data: Path, runs: Path, seed: int) -> dict[str, Any]:
    """Fit one method on the three tasks and evaluate it."""
    adapter, settings = METHODS[name]
    directory = runs / name / "model"
    # Tasks do not depend on each other, so each is fitted on its own: several processes can share the work.
    apart = [runs / name / task for task in TASKS]
    for task, place in zip(TASKS, apart, strict=True):
        fit_tasks(
            [data / task],
            adapter=adapter,
            settings=settings,
            model=place,
            seed=seed,
            resume=True,
            progress=Lines(),
        )
    if not directory.exists():
        join_models(apart, directory)
    model = QualityModel.load(directory)
    seen = {task: passes_of(model, data / task, "test") for task in TASKS}
    unseen = {task: passes_of(model, data / task, "all") for task in UNSEEN}
    return {
        "method": name,
        "adapter": adapter,
        "settings": settings,
        "seed": seed,
        "model": model.version.partition("@")[2],
        "validation": {adapter.task: adapter.provenance["validation_srcc"] for adapter in model.adapters},
        "bytes_per_task": sum(path.stat().st_size for path in (directory / "adapters").iterdir()) // len(TASKS),
        "test": records(model, seen, COMBINERS, "score"),
        "test_raw": records(model, seen, COMBINERS, "raw"),
        "pooled": pooled(model, seen),
        "unseen": records(model, unseen, ("kmeans", "average"), "score"),
        "versions": versions(),
    }


def passes_of(model: QualityModel, path: Path, split: str) -> Passes:
    """One pass over a task's images; every figure is made of it."""
    source = open_source(str(path), catalog().dataset)
    return run_passes(model, source, source.open(split, 0), 2, Lines())


def records(model: QualityModel, tasks: dict[str, Passes], combiners: Sequence[str], on: str) -> list[dict[str, Any]]:
    """The records of ``iqakit eval``."""
    return [record(model, passes, combiner, on, 1000, 0) for passes in tasks.values() for combiner in combiners]


def pooled(model: QualityModel, tasks: dict[str, Passes]) -> dict[str, dict[str, float]]:
    """SRCC over the test images of all tasks together, as one mixed folder; their human scores are on one scale."""
    human = torch.cat([passes.human for passes in tasks.values()])
    return {
        combiner: {
            on: float(srcc(torch.cat([predictions(model, passes, combiner, on) for passes in tasks.values()]), human))
            for on in ("score", "raw")
        }
        for combiner in COMBINERS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.methods:
        result = measure(name, options.data, options.runs, options.seed)
        write_json(RESULTS / f"biq2021-{name}.json", result)
        for row in [*result["test"], *result["unseen"]]:
            print(f"{name:18} {row['task']:18} {row['combiner']:8} n {row['n']:4} SRCC {row['srcc']:.3f}")


if __name__ == "__main__":
    main()
