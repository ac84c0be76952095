"""``CARD.md``: everything that is known of a model, made from its files, its facts and its figures, so that they agree.

Loads no torch: whoever asks for a card has read the adapters already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from iqakit.contracts import Adapter
from iqakit.pipeline.zoo_facts import CardFacts, Figures
from iqakit.storage.zoo_index import ZooFile

_UNKNOWN = "not stated"


def model_card(
    adapters: Sequence[Adapter],
    backbone: str,
    weights: str,
    *,
    name: str = "",
    version: str = "",
    facts: CardFacts | None = None,
    figures: Figures | None = None,
    files: Iterable[ZooFile] = (),
) -> str:
    """The text of a card.

    Args:
        adapters: One a task, in the order learned.
        backbone: The backbone's name.
        weights: Where its weights come from, without any path.
        name: The model's name; empty while it has none.
        version: First 8 digits of the SHA-256 of ``model.json``; empty while it is not written.
        facts: What only people know.
        figures: What was measured of this version.
        files: The model's files; the card itself is left out.
    """
    known = facts or CardFacts()
    sections = [
        _head(adapters, backbone, weights, name, version, known),
        _data(adapters, known),
        _figures(figures),
        _calibration(adapters, figures),
        _behaviour(figures),
        _speed(adapters, figures),
        _limits(known),
        _citation(adapters, known),
        _files(files),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)]


def _head(adapters: Sequence[Adapter], backbone: str, weights: str, name: str, version: str, facts: CardFacts) -> list[str]:
    methods = sorted({adapter.method for adapter in adapters})
    seeds = sorted({str(adapter.provenance["seed"]) for adapter in adapters if "seed" in adapter.provenance})
    rows = [
        ["version", f"`{name}@{version}`" if version else ""],
        ["tasks", ", ".join(f"`{adapter.task}`" for adapter in adapters)],
        ["backbone", f"`{backbone}`, weights `{weights}`, frozen"],
        ["method", ", ".join(f"`{method}`" for method in methods)],
        ["seed", ", ".join(seeds) or _UNKNOWN],
        ["trained with", _versions(adapters)],
        ["trained again by", f"`{facts.training}`" if facts.training else ""],
        ["licence of the adapters", facts.licence_code],
        ["licence of the data", facts.licence_data or _data_licence(adapters)],
    ]
    return [
        f"# Model card: `{name}`" if name else "# Model card",
        "",
        *([facts.summary, ""] if facts.summary else []),
        "Scores are 0-100, higher is better. One adapter a task, in the order learned, on one frozen backbone.",
        "",
        *table(["", ""], [row for row in rows if row[1]]),
    ]


def _data(adapters: Sequence[Adapter], facts: CardFacts) -> list[str]:
    rows = []
    for adapter in adapters:
        told = adapter.provenance
        figure = told.get("validation_srcc")
        rows.append(
            [
                f"`{adapter.task}`",
                facts.tasks.get(adapter.task) or told.get("data", ""),
                adapter.method,
                f"{told.get('train_images', '?')} / {told.get('validation_images', '?')}",
                "-" if figure is None else f"{figure:.3f}",
                told.get("best_epoch", "-"),
                told.get("seed", "-"),
                told.get("licence") or _UNKNOWN,
                f"`{str(told.get('data_sha256', ''))[:12]}`" if told.get("data_sha256") else "-",
            ]
        )
    head = [
        "task",
        "data",
        "method",
        "images (train / validation)",
        "validation SRCC",
        "epoch kept",
        "seed",
        "licence of the data",
        "SHA-256 of the table",
    ]
    lines = ["## Data and terms", ""]
    for paragraph in facts.data:
        lines += [paragraph, ""]
    lines += table(head, rows)
    split = facts.split or "As the data's own table says, else drawn by content with the seed."
    lines += [
        "",
        f"Split: {split} Validation images were used to calibrate the 0-100 scale and, where not the last epoch is kept, "
        "to choose the best, so their SRCC is a little optimistic.",
    ]
    return lines


def _figures(figures: Figures | None) -> list[str]:
    lines = ["## Figures on the test split", ""]
    if figures is None or not figures.evaluation:
        return [*lines, "None are known; `iqakit eval` measures them."]
    lines += [
        "SRCC with human scores, with 95 % bootstrap intervals; PLCC after the customary four-parameter logistic map. "
        "`oracle` is told the task, the others are not.",
        "",
        *_records(figures.evaluation),
    ]
    if figures.pooled:
        rows = []
        for combiner, value in figures.pooled.items():
            rows.append([f"`{combiner}`", *(_number(value.get(on)) for on in ("score", "raw"))])
        told = (
            "Across tasks: SRCC over the test images of all tasks together, as one mixed folder, on the score in points "
            "and on the raw sum:"
        )
        lines += ["", told, "", *table(["combiner", "score", "raw"], rows)]
    if figures.unseen:
        lines += ["", "On sets that no task was learned from:", "", *_records(figures.unseen)]
    return lines


def _records(records: Iterable[Mapping[str, Any]]) -> list[str]:
    rows = []
    for row in records:
        srcc = _number(row["srcc"])
        if row.get("srcc_low") is not None and row.get("srcc_high") is not None:
            srcc += f" [{row['srcc_low']:.3f}, {row['srcc_high']:.3f}]"
        rows.append([f"`{row['task']}`", f"`{row['combiner']}`", row["n"], srcc, _number(row["plcc"])])
    return table(["task", "combiner", "images", "SRCC", "PLCC"], rows)


def _calibration(adapters: Sequence[Adapter], figures: Figures | None) -> list[str]:
    rows = []
    for adapter in adapters:
        curve = adapter.calibration
        if curve is None:
            rows.append([f"`{adapter.task}`", "none: scores of this task are raw", "-", "-"])
        else:
            residual = f"{curve.residual:.1f}" + (" at 50 points" if curve.residual_kind == "bounded" else "")
            rows.append([f"`{adapter.task}`", curve.kind, f"{curve.low:.0f}-{curve.high:.0f}", residual])
    lines = [
        "## Calibration",
        "",
        "Each task has a map from raw outputs to points. Its residual is half the width of the interval, in points, that "
        "holds 68 % of the human scores of images that the map was not fitted to.",
        "",
        *table(["task", "map", "ends", "residual"], rows),
    ]
    covered = [row for row in (figures.coverage if figures else ()) if row.get("split") == "test"]
    if covered:
        cells = []
        for row in covered:
            interval = f"{row['covered']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            cells.append([f"`{row['combiner']}`", row["task"], row["n"], interval, f"{row['mean_std']:.1f}"])
        told = "How often people's score of a test image lies within one `std` of the score (0.68 is what it means):"
        lines += ["", told, "", *table(["combiner", "task", "images", "within one std", "mean std"], cells)]
    return lines


def _behaviour(figures: Figures | None) -> list[str]:
    found = figures.behaviour if figures else {}
    if not found:
        return []
    lines = ["## Behaviour", ""]
    if above := found.get("above"):
        told = f"How often a sharp photo scores above its own damaged copy ({found.get('photos', '?')} photos):"
        lines += [told, "", *table(["damage", "above"], [[kind, f"{share:.0%}"] for kind, share in above.items()]), ""]
    if kinds := found.get("kinds"):
        falls = sum(bool(row["falls"]) for row in kinds)
        lines += [f"The mean score falls at every level of {falls} of {len(kinds)} kinds of degradation."]
        stubborn = [row["kind"] for row in kinds if not row["falls"]]
        if stubborn:
            lines += [f"It does not for: {', '.join(stubborn)}."]
    return lines


def _speed(adapters: Sequence[Adapter], figures: Figures | None) -> list[str]:
    passes = len({id(adapter) for adapter in adapters if adapter.tensors}) + 1
    lines = [
        "## Speed",
        "",
        f"At most {passes} pass{'es' if passes > 1 else ''} of the backbone an image: one bare, for the gate, and one for "
        "each task that brings its own normalization. Heads that hardly count are skipped.",
    ]
    found = figures.speed if figures else {}
    if speeds := found.get("images_per_second"):
        where = found.get("setup", {})
        told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in where.items())
        rows = [[what, f"{value:.1f}"] for what, value in speeds.items()]
        lines += ["", f"Measured on one machine ({told}):", "", *table(["", "images/s"], rows)]
    return lines


def _limits(facts: CardFacts) -> list[str]:
    limits = facts.limits or (
        "Nobody has stated limits. Take photos unlike those it was learned from as foreign to it, and look at `novelty`.",
    )
    return ["## What to know before using it", "", *(f"- {limit}" for limit in limits)]


def _citation(adapters: Sequence[Adapter], facts: CardFacts) -> list[str]:
    told = [str(adapter.provenance["citation"]) for adapter in adapters if adapter.provenance.get("citation")]
    wanted = list(dict.fromkeys([*facts.citation, *told]))
    if not wanted:
        wanted = ["The data's authors, and iqakit with the version above."]
    return ["## How to cite", "", *(f"- {one}" for one in wanted)]


def _files(files: Iterable[ZooFile]) -> list[str]:
    rows = [[f"`{file.path}`", f"{file.size:,}", f"`{file.sha256}`"] for file in files if file.path != "CARD.md"]
    return ["## Files", "", *table(["file", "bytes", "SHA-256"], rows)] if rows else []


def _versions(adapters: Sequence[Adapter]) -> str:
    told = [adapter.provenance.get("versions", {}) for adapter in adapters]
    shown = {", ".join(f"{key} {value}" for key, value in sorted(versions.items())) for versions in told if versions}
    return "; ".join(sorted(shown))


def _data_licence(adapters: Sequence[Adapter]) -> str:
    return "; ".join(dict.fromkeys(str(adapter.provenance.get("licence") or _UNKNOWN) for adapter in adapters))


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
