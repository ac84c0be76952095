"""Learn streams of four tasks with every method, in several orders, and measure what is learned and what is kept.

    python benchmarks/continual.py --data DIRECTORY [--blocks own given ...] [--work DIRECTORY] [--backbone resnet18]

DIRECTORY holds ``biq2021-gallery``, ``biq2021-capture``, ``biq2021-unsplash`` and ``tid2013-mini``, each with
``scores.csv``, and ``weights/resnet18.safetensors`` for ``--backbone resnet18``. The baselines are the plugin package
``plugins/iqakit-baselines``. A cut run goes on when started again. Each block writes
``benchmarks/results/continual-<backbone>-<block>.json``, from which ``benchmarks/tables.py`` makes the docs' tables.

All methods see the same images equally often: 2 epochs of crops of 160 pixels in batches of 16, all pairs of a batch. That
is far less than the default settings of ``tsn`` (``benchmarks/biq2021.py`` measures those); it is what two cores can do
for every method and order.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqakit.pipeline.continual import run_continual
from iqakit.storage.results import write_json

TASKS = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash", "tid2013-mini")
GALLERY, CAPTURE, UNSPLASH, TID = TASKS
ORDERS = ("given", "reverse", f"{CAPTURE},{TID},{GALLERY},{UNSPLASH}", f"{UNSPLASH},{GALLERY},{TID},{CAPTURE}")
COMBINERS = ("kmeans", "oracle", "average", "last")
EPOCHS = 2
COMMON = ("crop=160", "batch_size=16")
RESULTS = Path(__file__).parent / "results"
STREAMED = ("sequential", "sequential-heads", "lwf", "ewc", "si", "mas", "replay")


@dataclass(frozen=True)
class Block:
    """One call of ``run_continual``.

    Attributes:
        adapters: Methods.
        orders: Orders of the tasks.
        seeds: Seeds.
        settings: Beside ``COMMON``.
        preset: Preset of ``tsn``.
        combiners: Combiners.
    """

    adapters: tuple[str, ...] = ("tsn",)
    orders: tuple[str, ...] = ("given",)
    seeds: tuple[int, ...] = (0,)
    settings: tuple[str, ...] = ()
    preset: str | None = None
    combiners: tuple[str, ...] = COMBINERS


# Sampled pairs cost two passes each; half as many pairs as images give as many passes as an epoch within batches.
_AS_MANY_PASSES = ("pair_count=315", "batch_size=8", "warmup_epochs=0")
BLOCKS: dict[str, Block] = {
    "own": Block(("tsn", "linear"), ORDERS, (0, 1, 2)),
    "separate": Block(("separate",), ORDERS),
    "given": Block((*STREAMED, "joint")),
    "given-seed-1": Block(("lwf", "sequential-heads", "replay"), seeds=(1,)),
    "reverse": Block(("sequential-heads", "lwf", "replay"), ("reverse",)),
    # For a second backbone, where time is short.
    "short": Block(("tsn", "linear"), ORDERS),
    "fine-tuned": Block(("sequential-heads", "replay")),
    **{f"k-{count}": Block(settings=(f"kmeans.clusters={count}",), combiners=("kmeans",)) for count in (8, 32, 128)},
    **{f"temperature-{t}": Block(settings=(f"kmeans.temperature={t}",), combiners=("kmeans",)) for t in (0, 2, 8, 32, 128)},
    "hard": Block(settings=("kmeans.hard=true",), combiners=("kmeans",)),
    **{f"stages-{count}": Block(settings=(f"kmeans.stages={count}",), combiners=("kmeans",)) for count in (1, 2, 5)},
    **{f"refit-{share}": Block(settings=(f"refit={share}",)) for share in ("0", "1")},
    "head-embedding": Block(settings=("features=embedding",)),
    "head-shared": Block(settings=("head_start=shared",)),
    "pairs-sampled": Block(settings=("pairs=sampled", *_AS_MANY_PASSES)),
    "loss-plcc": Block(settings=("loss=plcc",)),
    "loss-fidelity-plcc": Block(settings=("loss=fidelity+plcc",)),
    "loss-fidelity-smooth-l1": Block(settings=("loss=fidelity+smooth-l1",)),
    "statistics-first-epoch": Block(settings=("update_statistics=first-epoch",)),
    "statistics-always": Block(settings=("update_statistics=always",)),
    "paper-a": Block(settings=_AS_MANY_PASSES, preset="paper-a"),
    "paper-b": Block(settings=_AS_MANY_PASSES, preset="paper-b"),
}


class Lines:
    """Progress as plain lines on stderr."""

    def start(self, what: str, total: int) -> None:
        """Lines only."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Lines only."""

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def measure(name: str, data: Path, work: Path, backbone: str, split: str) -> dict[str, Any]:
    """One block's figures."""
    block = BLOCKS[name]
    # A later setting of a key goes over an earlier one.
    settings = list(dict([text.split("=", 1) for text in (*COMMON, *block.settings)]).items())
    report = run_continual(
        [str(data / task) for task in TASKS],
        output=work / f"{backbone}-{name}-{split}",
        work=work / backbone,
        adapters=block.adapters,
        orders=block.orders,
        seeds=block.seeds,
        combiners=block.combiners,
        preset=block.preset,
        settings=[f"{key}={value}" for key, value in settings],
        epochs=EPOCHS,
        split=split,
        backbone=None if backbone == "lite0" else backbone,
        weights=str(data / "weights" / "resnet18.safetensors") if backbone == "resnet18" else None,
        device="cpu",
        workers=1,
        progress=Lines(),
    )
    return report.to_json()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--blocks", nargs="+", choices=tuple(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--work", type=Path, default=Path("runs/continual"))
    parser.add_argument("--backbone", choices=("lite0", "resnet18"), default="lite0")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for name in arguments.blocks:
        figures = measure(name, arguments.data.resolve(), arguments.work, arguments.backbone, arguments.split)
        suffix = "" if arguments.split == "test" else f"-{arguments.split}"
        write_json(arguments.results / f"continual-{arguments.backbone}-{name}{suffix}.json", figures)


if __name__ == "__main__":
    main()
