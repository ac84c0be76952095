"""What is known of one image before it becomes a row, whichever runtime found it. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from iqakit.imaging.batching import Prepared
from iqakit.imaging.decoding import describe
from iqakit.pipeline.rows import ScoreRow
from iqakit.pipeline.skipping import DEFAULT_SKIP_BELOW, Cost

if TYPE_CHECKING:
    from iqakit.imaging.preprocessing import Planes


@dataclass(frozen=True, slots=True)
class Scored:
    """The figures of one image.

    Attributes:
        score: Points, 0-100; nan where a task that counts has no calibration.
        raw: Weighted sum of head outputs.
        std: Points; nan as ``score``.
        novelty: 0-1, or None where no gate was fitted or the bare pass was not run.
        heads: Each task's raw output; None for a head that was left out.
        weights: Each task's weight; they sum to 1.
    """

    score: float
    raw: float
    std: float
    novelty: float | None
    heads: tuple[float | None, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Request:
    """How images are to be scored.

    Attributes:
        combiner: The combiner's name.
        task: The images' true task.
        settings: The combiner's settings.
        skip_below: See ``used_weights``.
        cost: Where passes are counted.
    """

    combiner: str
    task: str | None
    settings: Mapping[str, str]
    skip_below: float | None
    cost: Cost


class Scorer(Protocol):
    """Scores prepared images."""

    def score_group(self, images: Sequence[Planes], request: Request) -> list[Scored]:
        """Score images of one size, float32 (3, h, w), in order."""
        ...


def make_request(
    combiner: str,
    task: str | None = None,
    settings: Mapping[str, str] | None = None,
    skip_below: float | None = DEFAULT_SKIP_BELOW,
    cost: Cost | None = None,
) -> Request:
    """A request with what was left out filled in."""
    return Request(combiner, task, dict(settings or {}), skip_below, Cost() if cost is None else cost)


def row_of(item: Prepared, found: Scored, tasks: Sequence[str], version: str) -> ScoreRow:
    """The row of one image."""
    if not all(head is None or math.isfinite(head) for head in found.heads):
        error = f"{describe(item.source)}: the network gave a number that is not finite for this image"
        return ScoreRow(describe(item.source), "error", version, error=error)
    return ScoreRow(
        path=describe(item.source),
        status="ok",
        model=version,
        score=_finite(found.score),
        raw=found.raw,
        std=_finite(found.std),
        novelty=None if found.novelty is None else _finite(found.novelty),
        task_scores=dict(zip(tasks, found.heads, strict=True)),
        weights=dict(zip(tasks, found.weights, strict=True)),
        width=item.width,
        height=item.height,
        warnings=tuple(item.warnings),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
