"""From raw outputs after every task to the figures of a run: matrices, plasticity, stability, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Generator, Tensor

from iqakit.contracts import Adapter
from iqakit.functional.bootstrap import bootstrap_interval, bootstrap_values, percentile_interval
from iqakit.functional.correlation import plcc, srcc
from iqakit.functional.forgetting import mean_srcc, plasticity, stability, trade_off
from iqakit.functional.logistic import apply_logistic, fit_logistic
from iqakit.pipeline.combining import combine_tasks
from iqakit.pipeline.continual_gates import Gate
from iqakit.pipeline.continual_passes import TestSet
from iqakit.pipeline.continual_record import Interval, Matrix, above_diagonal_empty

_LEAST_FOR_LOGISTIC = 5
"""Fewer points than this do not determine the four parameters of the logistic map."""


@dataclass(frozen=True)
class Evaluated:
    """The outputs of the heads known after one task, on the images of every task so far.

    Attributes:
        adapters: The adapters of the tasks learned, in order.
        raw: For each of those tasks, the heads' outputs (N_s, T) on its images.
    """

    adapters: tuple[Adapter, ...]
    raw: tuple[Tensor, ...]


@dataclass(frozen=True)
class Figures:
    """The figures of one run; see ``ContinualRun``."""

    R: Matrix
    P: Matrix
    msrcc: float | None
    mpi: float | None
    msi: float | None
    mpsi: float | None
    msrcc_interval: Interval
    srcc_intervals: tuple[Interval, ...]
    plcc: tuple[float | None, ...]
    mplcc: float | None
    gate: Matrix


def predictions(step: Evaluated, index: int, weights: Tensor, on: str) -> Tensor:
    """What a combiner makes of the outputs on one task's images: (N,), the raw sum or points.

    Args:
        step: The outputs.
        index: Which of its tasks.
        weights: (N, T), the combiner's.
        on: ``raw`` or ``score``; raw too where a task has no calibration, as in ``evaluate_sources``.
    """
    # In double precision, as a model combines its tasks, so that figures are those of ``evaluate`` to the last digit.
    outputs, shares = step.raw[index].double(), weights.double()
    score, raw, _ = combine_tasks(outputs, shares, [adapter.calibration for adapter in step.adapters])
    return score if on == "score" and bool(torch.isfinite(score).all()) else raw


def agreement(steps: Sequence[Evaluated], images: Sequence[TestSet], gate: Gate, on: str) -> Matrix:
    """R as far as a stream was learned; rows of tasks that were not are None throughout."""
    found = _srcc_rows(_all_predictions(steps, images, gate, on), images)
    return above_diagonal_empty([[_finite(value) for value in row] for row in found], len(images))


def figures(
    steps: Sequence[Evaluated], images: Sequence[TestSet], gate: Gate, *, on: str, bootstrap: int, seed: int
) -> Figures:
    """The figures of a stream learned to its end, with one combiner.

    Args:
        steps: What the heads gave after each task.
        images: The tasks' images, in the order learned.
        gate: The combiner.
        on: ``raw`` or ``score``.
        bootstrap: Resamples for the intervals; 0: none.
        seed: Seed of the resampling.
    """
    rows = _all_predictions(steps, images, gate, on)
    last = rows[-1]
    found = _srcc_rows(rows, images)
    kept = [[_same_order(rows[t][s], rows[s][s]) for s in range(t + 1)] for t in range(len(rows))]
    scores, stable = _tensor(found), _tensor(kept)
    human = [data.human.double() for data in images]
    tasks = [adapter.task for adapter in steps[-1].adapters]
    mapped = [_after_logistic(prediction, target) for prediction, target in zip(last, human, strict=True)]
    linear = [float(plcc(prediction, target)) for prediction, target in zip(mapped, human, strict=True)]
    weights = [gate.weights(tasks, data).double().mean(0).tolist() for data in images]
    return Figures(
        R=above_diagonal_empty([[_finite(value) for value in row] for row in found], len(images)),
        P=above_diagonal_empty([[_finite(value) for value in row] for row in kept], len(images)),
        msrcc=_finite(float(mean_srcc(scores))),
        mpi=_finite(float(plasticity(scores))),
        msi=_finite(float(stability(stable))),
        mpsi=_finite(float(trade_off(scores, stable))),
        msrcc_interval=_mean_interval(tasks, last, human, bootstrap, seed),
        srcc_intervals=tuple(
            _interval(prediction, target, bootstrap, seed) for prediction, target in zip(last, human, strict=True)
        ),
        plcc=tuple(_finite(value) for value in linear),
        mplcc=_finite(sum(linear) / len(linear)),
        gate=tuple(tuple(row) for row in weights),
    )


def _all_predictions(steps: Sequence[Evaluated], images: Sequence[TestSet], gate: Gate, on: str) -> list[list[Tensor]]:
    """Predictions on every task so far after every task."""
    rows: list[list[Tensor]] = []
    for step in steps:
        tasks = [adapter.task for adapter in step.adapters]
        rows.append(
            [
                predictions(step, index, gate.weights(tasks, data), on).double()
                for index, data in enumerate(images[: len(tasks)])
            ]
        )
    return rows


def _srcc_rows(rows: Sequence[Sequence[Tensor]], images: Sequence[TestSet]) -> list[list[float]]:
    return [
        [float(srcc(prediction, data.human.double())) for prediction, data in zip(row, images, strict=False)]
        for row in rows
    ]


def _same_order(later: Tensor, earlier: Tensor) -> float:
    """SRCC between two predictions on the same images; exactly 1 where nothing changed."""
    return 1.0 if torch.equal(later, earlier) else float(srcc(later, earlier))


def _tensor(rows: Sequence[Sequence[float]]) -> Tensor:
    matrix = torch.full((len(rows), len(rows)), torch.nan, dtype=torch.float64)
    for t, row in enumerate(rows):
        matrix[t, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return matrix


def _after_logistic(prediction: Tensor, human: Tensor) -> Tensor:
    if len(human) < _LEAST_FOR_LOGISTIC:
        return prediction
    return apply_logistic(prediction, fit_logistic(prediction, human))


def _interval(prediction: Tensor, human: Tensor, repeats: int, seed: int) -> Interval:
    """The 95 % interval of one task's SRCC, the same as ``evaluate_sources`` gives under this seed."""
    if not repeats:
        return None, None
    ends = bootstrap_interval(srcc, prediction, human, repeats=repeats, generator=Generator().manual_seed(seed))
    return _finite(float(ends[0])), _finite(float(ends[1]))


def _mean_interval(
    tasks: Sequence[str], predicted: Sequence[Tensor], human: Sequence[Tensor], repeats: int, seed: int
) -> Interval:
    """The 95 % interval of the mean SRCC over tasks: images are resampled within each task, independently."""
    if not repeats:
        return None, None
    generator = Generator().manual_seed(seed)
    # In the order of names, so that the interval does not depend on the order of learning.
    pairs = [pair for _, *pair in sorted(zip(tasks, predicted, human, strict=True), key=itemgetter(0))]
    values = [bootstrap_values(srcc, *pair, repeats=repeats, generator=generator) for pair in pairs]
    low, high = percentile_interval(torch.stack(values).mean(0))
    return _finite(float(low)), _finite(float(high))


def _finite(value: float) -> float | None:
    return value if value == value else None
