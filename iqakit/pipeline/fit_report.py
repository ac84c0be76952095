"""What is said of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task that was learned.

    Attributes:
        task: Its name.
        adapter: The method's name.
        train: Training images used.
        validation: Validation images used.
        srcc_validation: SRCC of the finished adapter on them; None where it is undefined.
        seconds: Time taken, this run.
        bytes: Size of the adapter file.
        file: The adapter file.
        history: One record an epoch.
    """

    task: str
    adapter: str
    train: int
    validation: int
    srcc_validation: float | None
    seconds: float
    bytes: int
    file: str
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit did.

    Attributes:
        model: The model's directory.
        backbone: Name of the backbone.
        tasks: The tasks learned in this run, in order.
    """

    model: Path
    backbone: str
    tasks: tuple[TaskReport, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"model": str(self.model), "backbone": self.backbone, "tasks": [asdict(task) for task in self.tasks]}
