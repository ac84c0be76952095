"""Adapt models of one task to other tasks' images, without their scores, and measure what that is worth.

    python benchmarks/test_time.py --data DIRECTORY [--model default] [--blocks pairs seeds ...] [--work runs/test-time]

DIRECTORY holds ``biq2021-gallery``, ``biq2021-capture``, ``biq2021-unsplash``, ``tid2013-mini`` and ``live-mini``, each
with ``scores.csv``. The model's heads are taken one at a time: a source is one task's adapter alone, a target any other
set. Every figure is taken over all images of a target at once; those that a method gives up on count with the source's
score, unless the row says ``always``. A cut run goes on when started again. Each block writes
``benchmarks/results/test-time-<name>-<block>.json``, from which ``benchmarks/tables.py`` makes the docs' tables.

Block ``later`` takes the package ``plugins/iqakit-significant-subspace`` and, in ``--work``, what its command makes of each
source: ``iqakit subspace-statistics DIRECTORY/TASK --model default --task TASK -o WORK/statistics-TASK.safetensors``.

``--tta auto`` decides by thresholds that were chosen on block ``choosing`` (validation images); the other blocks use test
images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import iqakit
from iqakit.adapters.training_images import human_scores
from iqakit.datasets.score_table import open_score_table
from iqakit.functional.bootstrap import bootstrap_interval, bootstrap_values, percentile_interval
from iqakit.functional.correlation import plcc, srcc
from iqakit.imaging.degrading import degrade
from iqakit.imaging.tensors import prepare
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.test_time_records import Sources, batch_records
from iqakit.storage.atomic import write_text_atomic
from iqakit.storage.results import write_json

SOURCES = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash")
GALLERY, CAPTURE, UNSPLASH = SOURCES
TID, LIVE = "tid2013-mini", "live-mini"
PAIRS = tuple((source, target) for source in SOURCES for target in (*SOURCES, TID, LIVE) if source != target)
FEW_PAIRS = ((GALLERY, UNSPLASH), (UNSPLASH, TID), (CAPTURE, LIVE))
LIMIT = 48
"""Images of a target; every n-th of its test split."""
RESAMPLES = 500
RESULTS = Path(__file__).parent / "results"

Methods = Mapping[str, tuple[str, Mapping[str, Any]]]
BOTH: Methods = {"both": ("group-rank", {})}
CONTROL: Methods = {"statistics only": ("group-rank", {"learning_rate": 0})}
MAIN: Methods = {
    "statistics only": ("group-rank", {"learning_rate": 0}),
    "group": ("group-contrastive", {}),
    "rank": ("relative-rank", {}),
    "both": ("group-rank", {}),
    "both, published": ("group-rank", {"mode": "published"}),
    "alpha-BN": ("batch-statistics", {}),
}


AUTO: Methods = {
    "auto": ("auto", {}),
    "held, statistics only": ("group-rank", {"statistics": "mix", "prior": 128, "learning_rate": 0}),
}
"""``--tta auto``, and what its hardly moving statistics do alone."""
STATISTICS = "statistics-{task}.safetensors"
LATER: Methods = {"subspace alignment": ("significant-subspace", {"statistics": STATISTICS})}
"""A later method, of the plugin package ``plugins/iqakit-significant-subspace``."""
VARIANTS: Methods = {
    **BOTH,
    "both, statistics mixed": ("group-rank", {"statistics": "mix"}),
    "both, statistics held": ("group-rank", {"statistics": "mix", "prior": 128}),
}
"""Running statistics that follow the batch as published, that count the source as 16 images, and as 128."""


@dataclass(frozen=True)
class Cell:
    """One source on one target in one way.

    Attributes:
        source: The task whose adapter is the source.
        target: The set whose images are adapted to.
        methods: By label.
        batch: Images a batch.
        order: ``shuffled`` or ``given``.
        seed: Seed of the projection and of what else methods draw; the mixing stays the same.
        split: Split of the target.
        shift: (kind, level) of a degradation that every image of the target gets.
        note: What this cell shows, in its table.
    """

    source: str
    target: str
    methods: Methods = field(default_factory=lambda: dict(MAIN))
    batch: int = 8
    order: str = "shuffled"
    seed: int = 0
    split: str = "test"
    shift: tuple[str, int] | None = None
    note: str = ""


BLOCKS: dict[str, tuple[Cell, ...]] = {
    "pairs": tuple(Cell(*pair) for pair in PAIRS),
    "auto": tuple(Cell(*pair, AUTO) for pair in PAIRS),
    "later": tuple(Cell(*pair, LATER) for pair in PAIRS),
    # For a second backbone, where time is short.
    "six": tuple(
        Cell(*pair, {**{label: MAIN[label] for label in ("statistics only", "group", "rank", "both")}, **AUTO})
        for pair in (*FEW_PAIRS, (UNSPLASH, GALLERY), (GALLERY, LIVE), (CAPTURE, UNSPLASH))
    ),
    "seeds": tuple(
        Cell(*pair, {"group": MAIN["group"], **BOTH}, seed=seed)
        for pair in FEW_PAIRS[:2]
        for seed in (1, 2, 3, 4)
    ),
    "batch": tuple(
        Cell(GALLERY, UNSPLASH, {**CONTROL, **BOTH}, batch=size, note=str(size)) for size in (1, 2, 4, 8, 16, 32)
    ),
    "order": tuple(
        Cell(GALLERY, UNSPLASH, {**CONTROL, **BOTH}, order=order, note=order) for order in ("shuffled", "given")
    ),
    "iterations": tuple(
        Cell(
            GALLERY,
            UNSPLASH,
            {label: (name, {**given, "iterations": count}) for label, (name, given) in {**CONTROL, **BOTH}.items()},
            note=str(count),
        )
        for count in (1, 3, 10)
    ),
    "shifts": tuple(
        Cell(UNSPLASH, UNSPLASH, {**CONTROL, **BOTH, **AUTO}, shift=shift, note=shift[0] if shift else "none")
        for shift in (None, ("gaussian-blur", 3), ("white-noise", 3), ("jpeg", 3), ("darken", 4))
    ),
    "choosing": tuple(Cell(*pair, VARIANTS, split="val") for pair in PAIRS if pair[1] in SOURCES) + tuple(
        Cell(source, UNSPLASH, VARIANTS, split="val", shift=shift)
        for source, shift in ((GALLERY, ("gaussian-blur", 3)), (UNSPLASH, ("white-noise", 3)), (CAPTURE, ("jpeg", 3)))
    ),
}  # fmt: skip


class Target:
    """Images of a target, prepared when they are asked for, and their human scores."""

    def __init__(self, data: Path, cell: Cell, model: QualityModel) -> None:
        # Sets without the three splits are test images as a whole: no task was learned from them.
        whole = cell.target in (TID, LIVE)
        self._dataset = open_score_table(data / cell.target, "all" if whole else cell.split)
        step = max(1, len(self._dataset) // LIMIT)
        self.indices = list(range(0, len(self._dataset), step))[:LIMIT]
        self.human = human_scores(self._dataset)[self.indices].double()
        self._shift = cell.shift
        self._preprocessing = model.preprocessing

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Tensor:
        pixels = self._dataset.image(self.indices[place])
        if self._shift is not None:
            generator = torch.Generator().manual_seed(place)
            pixels = (degrade(pixels.float() / 255, *self._shift, generator) * 255).round().to(torch.uint8)
        return prepare(pixels, self._preprocessing)[0]


def run_cell(
    model: QualityModel, data: Path, cell: Cell, work: Path, known: dict[tuple[Any, ...], Sources]
) -> dict[str, Any]:
    """All batches of a cell, as plain JSON, with the human scores."""
    methods = {
        label: (name, {key: str(work / STATISTICS) if value == STATISTICS else value for key, value in given.items()})
        for label, (name, given) in cell.methods.items()
    }
    target = Target(data, cell, model)
    sources = known.setdefault((cell.source, cell.target, cell.split, cell.shift), Sources())
    records = batch_records(
        model,
        target,  # type: ignore[arg-type]  # a sequence in all that is used of it
        methods,
        batch=cell.batch,
        order=cell.order,
        seed=cell.seed,
        order_seed=0,
        combiner="oracle",
        task=cell.source,
        sources=sources,
    )
    return {"human": target.human.tolist(), "batches": [record.to_json() for record in records]}


def kept_cell(
    model: QualityModel, data: Path, cell: Cell, work: Path, known: dict[tuple[Any, ...], Sources]
) -> dict[str, Any]:
    """The same, from the last run where it is there."""
    facts = {**{name: getattr(cell, name) for name in Cell.__dataclass_fields__ if name != "note"}, "limit": LIMIT}
    mark = hashlib.sha256(json.dumps([model.version, facts], sort_keys=True, default=list).encode()).hexdigest()[:24]
    path = work / f"{mark}.json"
    if not path.exists():
        write_text_atomic(path, json.dumps(run_cell(model, data, cell, work, known)))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def spread(batches: Sequence[Mapping[str, Any]], count: int, values: Iterable[Sequence[float]]) -> Tensor:
    """Values of batches, back in the order of the images."""
    out = torch.full((count,), float("nan"), dtype=torch.float64)
    for batch, given in zip(batches, values, strict=True):
        out[batch["indices"]] = torch.tensor(given, dtype=torch.float64)
    return out


def ways(cell: Cell, found: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, float, float]]:
    """Each way of scoring a cell's images: its name, raw scores, share of batches that fell back, seconds an image."""
    batches, count = found["batches"], len(found["human"])
    yield "source", spread(batches, count, (b["raws"] for b in batches)), 0.0, sum(b["seconds"] for b in batches) / count
    for label in cell.methods:
        outcomes = [batch["outcomes"][label] for batch in batches]
        seconds = sum(outcome["seconds"] for outcome in outcomes) / count
        fell = sum(not outcome["adapted"] for outcome in outcomes) / len(outcomes)
        yield label, spread(batches, count, (outcome["raws"] for outcome in outcomes)), fell, seconds
        proposed = [o["proposed_raws"] or b["raws"] for o, b in zip(outcomes, batches, strict=True)]
        yield f"{label}, always", spread(batches, count, proposed), 0.0, seconds


def figures(predicted: Tensor, human: Tensor, source: Tensor) -> dict[str, float]:
    """SRCC and PLCC with 95 % intervals, and the SRCC gained over the source with the interval of the difference."""
    found: dict[str, float] = {}
    for name, function in (("srcc", srcc), ("plcc", plcc)):
        low, high = bootstrap_interval(function, predicted, human, repeats=RESAMPLES, generator=_generator())
        found |= {name: float(function(predicted, human)), f"{name}_low": float(low), f"{name}_high": float(high)}
    # The same images are drawn for both, so the differences are paired.
    mine, its = (bootstrap_values(srcc, x, human, generator=_generator(), repeats=RESAMPLES) for x in (predicted, source))
    low, high = percentile_interval(mine - its)
    return {**found, "gain": found["srcc"] - float(srcc(source, human)), "gain_low": float(low), "gain_high": float(high)}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def measure(
    model: QualityModel, block: str, data: Path, work: Path, known: dict[tuple[Any, ...], Sources]
) -> dict[str, Any]:
    """One block's figures."""
    rows = []
    for number, cell in enumerate(BLOCKS[block]):
        print(
            f"{block} {number + 1}/{len(BLOCKS[block])}: {cell.source} to {cell.target} {cell.note}",
            file=sys.stderr,
            flush=True,
        )
        found = kept_cell(model, data, cell, work, known)
        human = torch.tensor(found["human"], dtype=torch.float64)
        source = spread(found["batches"], len(human), (batch["raws"] for batch in found["batches"]))
        for label, predicted, fell, seconds in ways(cell, found):
            rows.append(
                {
                    "source": cell.source,
                    "target": cell.target,
                    "note": cell.note,
                    "seed": cell.seed,
                    "images": len(human),
                    "way": label,
                    "fell_back": round(fell, 4),
                    "seconds_per_image": round(seconds, 3),
                    **{key: round(value, 4) for key, value in figures(predicted, human, source).items()},
                }
            )
    return {"model": model.version, "backbone": model.backbone_id, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--weights", help="where the backbone's weights are, if not where the model was made with")
    parser.add_argument(
        "--blocks", nargs="+", choices=tuple(BLOCKS), default=[name for name in BLOCKS if name not in ("six", "later")]
    )
    parser.add_argument("--work", type=Path, default=Path("runs/test-time"))
    parser.add_argument("--name", default="lite0", help="what the results are called")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = iqakit.load(options.model, runtime="torch", weights=options.weights)
    known: dict[tuple[Any, ...], Sources] = {}
    for block in options.blocks:
        result = measure(model, block, options.data.resolve(), options.work, known)
        write_json(options.results / f"test-time-{options.name}-{block}.json", result)
        for row in result["rows"]:
            where = f"{row['source']:17} {row['target']:17} {row['note']:14} {row['way']:24}"
            print(f"{where} SRCC {row['srcc']:.3f} gain {row['gain']:+.3f}")


if __name__ == "__main__":
    main()
