"""Train ``model_zoo/default`` from scratch: three authentic tasks, ``tsn`` with severity ladders, one seed.

    python model_zoo/train_default.py --data DIRECTORY [--output model_zoo/default] [--seed 0] [--against MODEL] [--plain]

DIRECTORY holds ``biq2021-gallery``, ``biq2021-capture`` and ``biq2021-unsplash``, each with ``scores.csv`` (image, mos,
split). The test splits are not opened. Half an hour a task on one core, most of it for the ladders; a cut run goes on when
started again. ``--plain`` leaves the ladders out: ``tsn`` with its default settings, as test-time adaptation was measured
on. The passes are in bfloat16, as in the model that is shipped, on any machine. One seed gives one model, to the byte, on
one machine with one torch; elsewhere outputs differ a little: ``--against`` says by how much the adapters do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from iqakit.contracts import Adapter
from iqakit.pipeline.fitting import fit_tasks
from iqakit.storage.model_directory import read_model

TASKS = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash")
LADDERS = {"ladders": "64"}


class Lines:
    """Progress as plain lines on stderr."""

    def start(self, what: str, total: int) -> None:
        print(f"> {what}", file=sys.stderr, flush=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Lines only."""

    def message(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def difference(mine: Adapter, other: Adapter) -> str:
    """How far two adapters of one task are apart, as shares of the largest value of each tensor."""
    pairs = [(mine.tensors[name], other.tensors[name]) for name in mine.tensors] + [(mine.head_weight, other.head_weight)]
    shares = [float((one - two).abs().max() / two.abs().max().clamp(min=1e-12)) for one, two in pairs]
    figures = [f"{adapter.provenance['validation_srcc']:.4f}" for adapter in (mine, other)]
    return (
        f"{mine.task}: normalization differs by at most {max(shares[:-1]):.2g} of a tensor's largest value, "
        f"the head by {shares[-1]:.2g}; validation SRCC {figures[0]} against {figures[1]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, help="another model of the same tasks, to compare with")
    parser.add_argument("--plain", action="store_true", help="no ladders: the default settings of tsn")
    options = parser.parse_args()
    report = fit_tasks(
        [options.data / task for task in TASKS],
        adapter="tsn",
        settings={"precision": "bfloat16"} | ({} if options.plain else LADDERS),
        model=options.output,
        seed=options.seed,
        resume=True,
        progress=Lines(),
    )
    for task in report.tasks:
        print(task)
    if options.against:
        for mine, other in zip(read_model(options.output)[1], read_model(options.against)[1], strict=True):
            print(difference(mine, other))


if __name__ == "__main__":
    main()
