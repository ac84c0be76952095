"""Write the tables of README.md and of the pages under docs/ from ``benchmarks/results/*.json``.

    python benchmarks/tables.py [--check]

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. With ``--check`` nothing is written, and a page that
differs from its figures ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from continual_tables import TABLES as CONTINUAL
from test_time_tables import TEST_TIME

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md",
    "docs/results.md",
    "docs/continual.md",
    "docs/test-time.md",
    "docs/how-to/speed-and-runtimes.md",
    "docs/concepts/what-the-score-means.md",
)
TASKS = ("biq2021-gallery", "biq2021-capture", "biq2021-unsplash")
UNSEEN = ("tid2013-mini", "live-mini")
_DECODING = (("images_per_second", 0), ("times_pillow", 2))
NAMES = {
    "linear-embedding": "`linear`, last embedding alone",
    "linear": "`linear`",
    "tsn": "`tsn`",
    "tsn-ladders": "`tsn`, ladders",
}
COMBINED = ("linear", "tsn", "tsn-ladders")
"""Those that are shown with every combiner; the last is the default model."""
# Ridge regression of scikit-learn on the pretrained default backbone, and BRISQUE (package brisque 0.2.0), measured before
# iqakit was written; the first two are what `linear` has to meet.
FLOORS = (
    ("floor: ridge, last embedding", (0.929, 0.397, 0.653)),
    ("floor: ridge, all stages", (0.948, 0.454, 0.713)),
    ("floor: BRISQUE", (0.618, 0.267, 0.345)),
)


def _results(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _cell(row: dict[str, Any], interval: bool = True) -> str:
    text = f"{row['srcc']:.3f}"
    return f"{text} [{row['srcc_low']:.3f}, {row['srcc_high']:.3f}]" if interval else text


def _row(result: dict[str, Any], part: str, tasks: Iterable[str], combiner: str, interval: bool = True) -> list[str]:
    found = {row["task"]: row for row in result[part] if row["combiner"] == combiner}
    return [_cell(found[task], interval) for task in tasks]


def _short(tasks: Iterable[str]) -> list[str]:
    return [task.removeprefix("biq2021-") for task in tasks]


def tasks_table() -> str:
    """Own head of each task (oracle), beside the floors."""
    rows = [[label, *(f"{value:.3f}" for value in values)] for label, values in FLOORS]
    for name, label in NAMES.items():
        if result := _results(f"biq2021-{name}"):
            rows.append([label, *_row(result, "test", TASKS, "oracle")])
    return _table(["", *_short(TASKS)], rows)


def readme_table() -> str:
    """The default model as people use it: nobody says which task an image is from."""
    rows = []
    for name in COMBINED:
        if result := _results(f"biq2021-{name}"):
            rows.append([f"{NAMES[name]}, K-means gate", *_row(result, "test", TASKS, "kmeans")])
            rows.append([f"{NAMES[name]}, task told", *_row(result, "test", TASKS, "oracle")])
    return _table(["", *_short(TASKS)], rows)


def combiners_table() -> str:
    """All combiners on the tasks learned, on the score and on the raw sum, and on all test images as one folder."""
    rows = []
    for name in COMBINED:
        if result := _results(f"biq2021-{name}"):
            for combiner in ("oracle", "kmeans", "average", "last"):
                for what, part in (("score", "test"), ("raw", "test_raw")):
                    mixed = result["pooled"].get(combiner, {}).get(what)
                    cells = _row(result, part, TASKS, combiner, interval=False)
                    rows.append([NAMES[name], f"`{combiner}`", what, *cells, "" if mixed is None else f"{mixed:.3f}"])
    return _table(["adapter", "combiner", "on", *_short(TASKS), "all three as one folder"], rows)


def unseen_table() -> str:
    """Sets that no task was learned from: other distortions, other people."""
    rows = []
    for name in COMBINED:
        if result := _results(f"biq2021-{name}"):
            rows += [
                [NAMES[name], f"`{combiner}`", *_row(result, "unseen", UNSEEN, combiner)]
                for combiner in ("kmeans", "average")
            ]
    return _table(["adapter", "combiner", *UNSEEN], rows)


def validation_table() -> str:
    """What chose the epoch, beside what came out."""
    rows = []
    for name, label in NAMES.items():
        if result := _results(f"biq2021-{name}"):
            test = dict(zip(TASKS, _row(result, "test", TASKS, "oracle", interval=False), strict=True))
            rows.append([label, *(f"{result['validation'][task]:.3f} / {test[task]}" for task in TASKS)])
    return _table(["validation / test SRCC", *_short(TASKS)], rows)


def batch_table() -> str:
    """One image a pass against batches."""
    result = _results("batch-size") or {}
    rows = [
        [size, f"{value:.0f}", f"{result['ratio_to_one_at_a_time'][size]:.2f}", "yes" if same else "no"]
        for (size, value), same in zip(
            result["milliseconds_an_image"].items(), result["same_bits_as_one_at_a_time"].values(), strict=True
        )
    ]
    return _table(["images a pass", "ms an image", "times one a pass", "same bits as one a pass"], rows)


def decoding_table() -> str:
    """Decoding and preparing, beside Pillow and torchvision alone."""
    result = _results("decoding") or {}
    rows = [
        [name, *(f"{result[part][name][key]:.{digits}f}" for part in ("gallery", "large") for key, digits in _DECODING)]
        for name in result["gallery"]
    ]
    head = ["", "images/s, photos of 512x512", "times Pillow", "images/s, 12 megapixels", "times Pillow"]
    return _table(head, rows)


def clean_above_table() -> str:
    """How often a sharp photo scores above its own strongly damaged copies."""
    result = _results("behaviour") or {}
    kinds = list(next(iter(result["models"].values()))["above"])
    rows = [
        [f"`{name}`", *(f"{found['above'][kind]:.0%}" for kind in kinds), f"{_mean(found['above'].values()):.1%}"]
        for name, found in result["models"].items()
    ]
    return _table(["model", *kinds, "all"], rows)


def monotone_table() -> str:
    """Whether scores fall with the severity of what was done to a photo."""
    models = (_results("behaviour") or {})["models"]
    rows = []
    for name, found in models.items():
        for kind in found["kinds"]:
            means = (f"{mean:.1f}" for mean in kind["means"].values())
            rows.append([f"`{name}`", kind["kind"], *means, "yes" if kind["falls"] else "no"])
    return _table(["model", "kind", "photo", "level 1", "2", "3", "4", "5", "falls at every level"], rows)


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


def pairs_table() -> str:
    """All pairs of a batch against sampled pairs, for as many forward passes."""
    result = _results("pairs") or {}
    rows = [
        [f"`{way['pairs']}`", str(way["forward_passes"]), f"{way['validation_srcc']:.3f}", _cell(way["test"])]
        for way in result["ways"]
    ]
    return _table(["pairs", "training crops", "validation SRCC", "test SRCC"], rows)


def calibration_table() -> str:
    """Which map each task has, by what it was chosen, and how far people's scores lie from it."""
    result = _results("meaning") or {}
    rows = [
        [
            f"`{row['task']}`",
            row["kind"],
            *("" if row[name] is None else f"{row[name]:.2f}" for name in ("logistic_error", "isotonic_error")),
            f"{row['residual']:.1f}" + (" at 50 points" if row["residual_kind"] == "bounded" else ""),
        ]
        for row in result.get("calibrations", [])
    ]
    return _table(["task", "map", "held-out error: logistic", "isotonic", "residual"], rows)


def coverage_table() -> str:
    """How often people's score of a test image lies within one std of the score."""
    result = _results("meaning") or {}
    rows = []
    for row in result.get("coverage", []):
        if row["split"] == "test":
            covered = f"{row['covered']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            task = row["task"] if row["task"] == "all" else f"`{row['task']}`"
            rows.append(
                [f"`{row['combiner']}`", task, str(row["n"]), covered, f"{row['mean_std']:.1f}", f"{row['rmse']:.1f}"]
            )
    return _table(["combiner", "task", "images", "within one std", "mean std", "error (root mean square)"], rows)


def beliefs_table() -> str:
    """How likely powers of the gate's weights make the true task of validation images."""
    result = _results("meaning") or {}
    head = ["power of the weights", *(str(row["power"]) for row in result.get("beliefs", []))]
    return _table(head, [["log loss of the true task", *(f"{row['log_loss']:.3f}" for row in result.get("beliefs", []))]])


def novelty_table() -> str:
    """Novelty of photos of the tasks learned, of other sets, and of other worlds."""
    result = _results("meaning") or {}
    kinds = {"learned": "test photos of a task learned", "unseen": "a set not learned from", "world": "made by program"}
    rows = [
        [row["images"], kinds[row["kind"]], str(row["n"]), f"{row['mean']:.2f}", f"{row['novel']:.2f}"]
        for row in result.get("novelty", [])
    ]
    return _table(["images", "what", "n", "mean novelty", f"share above {result.get('novel_above', 0.95)}"], rows)


def runtimes_table() -> str:
    """Each runtime from files, beside the bare network on ready arrays."""
    result = (_results("scoring") or {}).get("runtimes", {})
    rows = []
    for name, limit in result.get("times_the_limit", {}).items():
        speeds = result["images_per_second"]
        bare, scored = speeds[f"{name}, bare network"], speeds[f"{name}, scored"]
        seconds = (_results("scoring") or {}).get("latency", {}).get("seconds", {}).get(name)
        rows.append(
            [f"`{name}`", f"{scored:.1f}", f"{bare:.1f}", f"{limit:.2f}", "" if seconds is None else f"{seconds:.1f}"]
        )
    head = ["", "images/s scored, two passes each", "passes/s, bare network on ready arrays", "time over the bare passes'"]
    return _table([*head, "seconds to the first score, graphs in the cache"], rows)


def scoring_table() -> str:
    """Against the number of tasks, the authors' loop and pyiqa."""
    found = _results("scoring") or {}
    counts = {key: value for key, value in found.get("tasks", {}).items() if key.isdigit()}
    rows = [
        [f"{count} task{'s' if count != '1' else ''}", name, f"{value:.1f}", ""]
        for count, by_runtime in counts.items()
        for name, value in by_runtime.items()
    ]
    for part, label, ratio in (("authors", "three tasks", "times_the_loop"), ("pyiqa", "one network", "times_pyiqa")):
        for name, value in found.get(part, {}).get("images_per_second", {}).items():
            times = found[part].get(ratio, {}).get(name)
            rows.append([label, name, f"{value:.1f}", "" if times is None else f"{times:.1f}"])
    return _table(["", "", "images/s", "times the other"], rows)


def long_table() -> str:
    """A long run: speed and memory at its start and its end."""
    found = (_results("scoring") or {}).get("long", {})
    return _table(["", ""], [[key.replace("_", " "), str(value)] for key, value in found.items() if key != "seconds_taken"])


def task_time_table() -> str:
    """When learning one task has reached what ridge regression gives, and when it is done."""
    found = _results("task-time") or {}
    rows = []
    for name, method in found.get("methods", {}).items():
        floor = next((row for row in method["epochs"] if row["epoch"] == 0), None)
        reached = f"{floor['seconds']:.0f} s, {floor['validation_srcc']:.3f}" if floor else ""
        rows.append([f"`{name}`", reached, f"{method['seconds']:.0f} s", f"{method['validation_srcc']:.3f}"])
    return _table(["method", "at the ridge floor after, validation SRCC", "done after", "validation SRCC"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "tasks": tasks_table,
    "readme": readme_table,
    "combiners": combiners_table,
    "unseen": unseen_table,
    "validation": validation_table,
    "task-time": task_time_table,
    "batch": batch_table,
    "monotone": monotone_table,
    "clean-above": clean_above_table,
    "pairs": pairs_table,
    "decoding": decoding_table,
    "runtimes": runtimes_table,
    "scoring": scoring_table,
    "scoring-long": long_table,
    **CONTINUAL,
    **TEST_TIME,
    "calibration": calibration_table,
    "coverage": coverage_table,
    "beliefs": beliefs_table,
    "novelty": novelty_table,
}


def filled(text: str) -> str:
    """The page with every table in it made anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([a-z-]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    differing = []
    for name in PAGES:
        page = ROOT / name
        text = page.read_text()
        new = filled(text)
        if new != text:
            differing.append(name)
            if not options.check:
                page.write_text(new)
    if options.check and differing:
        sys.exit(f"differ from benchmarks/results: {', '.join(differing)}; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
