"""All pairs of a batch against pairs drawn once, for the same number of forward passes.

    python benchmarks/pairs.py --data DIRECTORY [--task biq2021-unsplash] [--runs runs]

Both train the default recipe for as many crops: five epochs of N images with all pairs of each batch of 16, or one epoch
over 5N/2 sampled pairs in batches of 8 pairs. Writes ``benchmarks/results/pairs.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from biq2021 import RESULTS, Lines, passes_of

from iqakit.datasets.score_table import open_score_table
from iqakit.pipeline.evaluating import record
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel
from iqakit.storage.results import write_json

EPOCHS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="biq2021-unsplash")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    images = len(open_score_table(options.data / options.task, "train"))
    ways = {
        "within-batch": {"pairs": "within-batch", "epochs": str(EPOCHS)},
        "sampled": {"pairs": "sampled", "epochs": "1", "pair_count": str(EPOCHS * images // 2), "batch_size": "8"},
    }
    results = []
    for way, settings in ways.items():
        directory = options.runs / f"pairs-{way}"
        fit_tasks(
            [options.data / options.task],
            model=directory,
            settings={"precision": "bfloat16", **settings},
            resume=True,
            progress=Lines(),
        )
        model = QualityModel.load(directory)
        figures = record(model, passes_of(model, options.data / options.task, "test"), "last", "score", 1000, 0)
        validation = model.adapters[0].provenance["validation_srcc"]
        results.append({"pairs": way, "forward_passes": EPOCHS * images, "validation_srcc": validation, "test": figures})
        low, high = figures["srcc_low"], figures["srcc_high"]
        print(f"{way:14} validation SRCC {validation:.3f}, test SRCC {figures['srcc']:.3f} [{low:.3f}, {high:.3f}]")
    write_json(RESULTS / "pairs.json", {"task": options.task, "seed": 0, "ways": results})


if __name__ == "__main__":
    main()
