"""What an adapter was learned from, and the card that tells people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import iqakit
from iqakit.contracts import Adapter, Dataset


def versions() -> dict[str, str]:
    """Versions of what computed the numbers."""
    return {"iqakit": iqakit.__version__, "torch": torch.__version__.split("+")[0], "python": platform.python_version()}


def data_facts(train: Dataset, validation: Dataset, identity: str, seed: int) -> dict[str, Any]:
    """What a task was learned from, as plain JSON: counts, terms, the table's hash and the seed; no path, no time."""
    facts = train.facts
    return {
        "data": facts.title or facts.name,
        "data_sha256": identity,
        "citation": facts.citation,
        "licence": facts.licence,
        "train_images": len(train),
        "validation_images": len(validation),
        "seed": seed,
    }


def card(adapters: Sequence[Adapter], backbone: str, weights: str) -> str:
    """Text of a model's ``CARD.md``: what it was learned from and how well that went on validation images."""
    lines = [
        "# Model card",
        "",
        f"Backbone `{backbone}`, weights `{weights}`. Scores are 0-100, higher is better. One adapter a task, in the order "
        "learned.",
        "",
        "| task | method | images (train / validation) | validation SRCC | data | licence of the data |",
        "|---|---|---|---|---|---|",
    ]
    for adapter in adapters:
        facts: Mapping[str, Any] = adapter.provenance
        figure = facts.get("validation_srcc")
        counts = f"{facts.get('train_images', '?')} / {facts.get('validation_images', '?')}"
        shown = "-" if figure is None else f"{figure:.3f}"
        lines.append(
            f"| {adapter.task} | {adapter.method} | {counts} | {shown} | {facts.get('data', '')} "
            f"| {facts.get('licence', 'not stated')} |"
        )
    lines += [
        "",
        "Validation images were used to choose the best epoch and to calibrate the 0-100 scale, so their SRCC is a little "
        "optimistic; `iqakit eval` measures on the test split.",
        "",
    ]
    return "\n".join(lines)
