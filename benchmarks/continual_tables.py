"""Tables of docs/continual.md from ``benchmarks/results/continual-*.json``, for ``benchmarks/tables.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
SHORT = {"biq2021-gallery": "gallery", "biq2021-capture": "capture", "biq2021-unsplash": "unsplash", "tid2013-mini": "tid"}
_FIGURES = ("msrcc", "mpi", "msi", "mpsi")
_HEAD = ("mSRCC [95 %]", "mPI", "mSI", "mPSI")
# One head for all tasks makes sense only with the head learned last, a head a task with any combiner.
_ONE_HEAD = ("sequential", "joint")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def runs(backbone: str, *blocks: str) -> list[dict[str, Any]]:
    """All runs of some blocks that there are results of."""
    found: list[dict[str, Any]] = []
    for block in blocks:
        path = RESULTS / f"continual-{backbone}-{block}.json"
        if path.exists():
            found += json.loads(path.read_text())["runs"]
    return found


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _with_interval(run: dict[str, Any]) -> str:
    low, high = run["msrcc_interval"]
    return f"{_figure(run['msrcc'])} [{_figure(low)}, {_figure(high)}]"


def _sensible(run: dict[str, Any]) -> bool:
    return (run["adapter"] in _ONE_HEAD) == (run["combiner"] == "last")


def streams(backbone: str, order: str) -> Callable[[], str]:
    """Every method and combiner along one order, seed 0; the best of each column in bold."""

    def made() -> str:
        blocks = ("own", "short", "fine-tuned", "separate", "given" if order == "given" else "reverse", "given")
        seen: dict[tuple[str, str], dict[str, Any]] = {}
        for run in runs(backbone, *dict.fromkeys(blocks)):
            # Joint learning sees all tasks at once, so it is learned along one order only.
            if _sensible(run) and run["seed"] == 0 and (run["order_name"] == order or run["adapter"] == "joint"):
                seen.setdefault((run["adapter"], run["combiner"]), run)
        rows = sorted(seen.values(), key=lambda run: -(run["msrcc"] or 0))
        # Joint learning and the oracle see more than the others, so they are no competitors.
        open_to = [run for run in rows if run["combiner"] != "oracle" and run["adapter"] != "joint"]
        best = {name: max((run[name] for run in open_to if run[name] is not None), default=None) for name in _FIGURES}

        def cell(run: dict[str, Any], name: str) -> str:
            text = _with_interval(run) if name == "msrcc" else _figure(run[name])
            return f"**{text}**" if run in open_to and run[name] == best[name] else text

        return table(
            ("method", "combiner", *_HEAD, "mPLCC", "seconds", "kB a task"),
            (
                (
                    f"`{run['adapter']}`",
                    f"`{run['combiner']}`",
                    *(cell(run, name) for name in _FIGURES),
                    _figure(run["mplcc"]),
                    f"{run['seconds']:.0f}",
                    f"{_kilobytes(run):.0f}",
                )
                for run in rows
            ),
        )

    return made


def _kilobytes(run: dict[str, Any]) -> float:
    """What a task adds, its share of shared tensors and of memory included."""
    parts = run["bytes"]
    return (sum(parts["adapters"]) + parts["shared"] + parts["memory"]) / len(parts["adapters"]) / 1000


def last_rows(backbone: str, order: str) -> Callable[[], str]:
    """SRCC on each task's test images after the last task, best combiner of each method that nobody has to be told."""

    def made() -> str:
        best: dict[str, dict[str, Any]] = {}
        for run in runs(backbone, "own", "separate", "given", "reverse"):
            fits = run["order_name"] == order and run["seed"] == 0 and _sensible(run) and run["combiner"] != "oracle"
            if fits and (run["msrcc"] or 0) > (best.get(run["adapter"], {}).get("msrcc") or -1):
                best[run["adapter"]] = run
        rows = sorted(best.values(), key=lambda run: -(run["msrcc"] or 0))
        tasks = list(SHORT)
        return table(
            ("method", "combiner", *SHORT.values()),
            (
                (
                    f"`{run['adapter']}`",
                    f"`{run['combiner']}`",
                    *(_figure(run["R"][-1][run["order"].index(task)]) for task in tasks),
                )
                for run in rows
            ),
        )

    return made


def orders(backbone: str) -> Callable[[], str]:
    """Methods whose tasks are independent: mean over orders and seeds, and how far they spread."""

    def made() -> str:
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for run in runs(backbone, "own", "separate"):
            groups.setdefault((run["adapter"], run["combiner"]), []).append(run)
        rows = []
        for (adapter, combiner), group in groups.items():
            seeds = sorted({run["seed"] for run in group})
            of_seed = [_mean([run["msrcc"] for run in group if run["seed"] == seed]) for seed in seeds]
            of_order = [
                _mean([run["msrcc"] for run in group if run["order_name"] == name])
                for name in dict.fromkeys(run["order_name"] for run in group)
            ]
            rows.append(
                (
                    f"`{adapter}`",
                    f"`{combiner}`",
                    *(f"{_mean([run[name] for run in group]):.3f}" for name in _FIGURES),
                    f"{max(of_order) - min(of_order):.3f} ({len(of_order)})",
                    f"{max(of_seed) - min(of_seed):.3f} ({len(seeds)})",
                )
            )
        rows.sort(key=lambda row: -float(row[2]))
        head = ("mSRCC", "mPI", "mSI", "mPSI", "spread of mSRCC over orders (how many)", "over seeds (how many)")
        return table(("method", "combiner", *head), rows)

    return made


def seeds(backbone: str) -> Callable[[], str]:
    """Figures of every seed along the given order, under the gate, of methods with more than one."""

    def made() -> str:
        found: dict[str, dict[int, float]] = {}
        for run in runs(backbone, "own", "given", "given-seed-1", "separate"):
            if run["combiner"] == "kmeans" and run["order_name"] == "given" and run["msrcc"] is not None:
                found.setdefault(run["adapter"], {}).setdefault(run["seed"], run["msrcc"])
        several = {name: figures for name, figures in found.items() if len(figures) > 1}
        rows = sorted(several.items(), key=lambda item: -_mean(list(item[1].values())))
        return table(
            ("method", "mSRCC under the gate, by seed", "mean"),
            (
                (
                    f"`{name}`",
                    ", ".join(_figure(figures[seed]) for seed in sorted(figures)),
                    _figure(_mean(list(figures.values()))),
                )
                for name, figures in rows
            ),
        )

    return made


def ablations(groups: Sequence[tuple[str, str]]) -> Callable[[], str]:
    """``tsn`` with one setting changed: test figures under the gate and under the oracle, order given, seed 0."""

    def made() -> str:
        rows = []
        for block, label in groups:
            found = {run["combiner"]: run for run in runs("lite0", block) if run["adapter"] == "tsn"}
            if block == "own":
                chosen = [r for r in runs("lite0", "own") if r["adapter"] == "tsn" and r["seed"] == 0]
                found = {run["combiner"]: run for run in chosen if run["order_name"] == "given"}
            if not found:
                continue
            gate, oracle = found.get("kmeans"), found.get("oracle")
            rows.append(
                (
                    label,
                    *((_figure(gate[name]) for name in ("msrcc", "msi")) if gate else ("-", "-")),
                    _figure(oracle["msrcc"]) if oracle else "",
                    *(_figure(oracle["R"][-1][oracle["order"].index(task)]) if oracle else "" for task in SHORT),
                )
            )
        return table(("", "gate: mSRCC", "gate: mSI", "oracle: mSRCC", *SHORT.values()), rows)

    return made


GATE_ABLATIONS = (
    ("own", "as it is: K 128, temperature 8, last 2 stages"),
    *((f"k-{count}", f"K {count}") for count in (8, 32)),
    *((f"temperature-{t}", f"temperature {t}" + (" (published)" if t == 32 else "")) for t in (0, 2, 32, 128)),
    ("hard", "hard gate"),
    *((f"stages-{count}", f"last {count} stages" if count > 1 else "last stage alone") for count in (1, 5)),
)
LEARNING_ABLATIONS = (
    ("own", "as it is"),
    ("refit-0", "`refit=0`: the head learned from pairs alone"),
    ("refit-1", "`refit=1`: the head of ridge regression alone"),
    ("head-embedding", "`features=embedding`"),
    ("head-shared", "`head_start=shared`"),
    ("pairs-sampled", "`pairs=sampled`, as many passes"),
    ("loss-plcc", "`loss=plcc`"),
    ("loss-fidelity-plcc", "`loss=fidelity+plcc`"),
    ("loss-fidelity-smooth-l1", "`loss=fidelity+smooth-l1`"),
    ("statistics-first-epoch", "`update_statistics=first-epoch`"),
    ("statistics-always", "`update_statistics=always`"),
    ("paper-a", "`--preset paper-a`, as many passes, no warm-up"),
    ("paper-b", "`--preset paper-b`, as many passes, no warm-up"),
)
TABLES: dict[str, Callable[[], str]] = {
    "continual-given": streams("lite0", "given"),
    "continual-reverse": streams("lite0", "reverse"),
    "continual-last": last_rows("lite0", "given"),
    "continual-orders": orders("lite0"),
    "continual-seeds": seeds("lite0"),
    "continual-resnet": streams("resnet18", "given"),
    "continual-gate": ablations(GATE_ABLATIONS),
    "continual-learning": ablations(LEARNING_ABLATIONS),
}
