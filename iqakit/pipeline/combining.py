"""From raw outputs of T tasks and a combiner's weights to score, raw and std. Own.

Pure functions of tensors. They never branch on a tensor's value, so that they can be traced into a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iqakit.contracts import Calibration
from iqakit.functional.calibration import apply_calibration, expected_error


def combine_tasks(
    raw: Tensor, weights: Tensor, calibrations: Sequence[Calibration | None], beliefs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the tasks of N images.

    ``score = sum(weight * points)`` and ``std = sqrt(sum(belief * (error^2 + (points - score)^2)))``: with the probability
    that the combiner believes in, people's score is that of a task's own people, around that task's points with that task's
    error. It is the law of total variance, taken around the score that is given rather than the mean of the beliefs.

    Args:
        raw: (N, T), each task's head output; higher is better. Give float64 to keep apart what float32 would round
            together.
        weights: (N, T), the combiner's, not negative, rows summing to 1.
        calibrations: The T tasks' maps to points; None where a task has none.
        beliefs: (N, T), how probable it is that an image is of a task's kind, rows summing to 1; None: the weights.

    Returns:
        Score (N,) in points, 0-100, higher is better; raw (N,), the weighted sum of head outputs; std (N,) in points, half
        the width of the interval around the score that holds about 68 % of human scores. Score and std are nan where a task
        that counts has no calibration.
    """
    points = task_points(raw, calibrations)
    errors = torch.stack([_errors(calibration, points[:, index]) for index, calibration in enumerate(calibrations)], 1)
    likely = weights if beliefs is None else beliefs
    score = torch.where(weights > 0, weights * points, 0.0).sum(1)
    variance = torch.where(likely > 0, likely * (errors.square() + (points - score[:, None]).square()), 0.0).sum(1)
    return score, (weights * raw).sum(1), variance.sqrt()


def task_points(raw: Tensor, calibrations: Sequence[Calibration | None]) -> Tensor:
    """Each task's output in points.

    Args:
        raw: (N, T), head outputs.
        calibrations: The T tasks' maps; None where a task has none.

    Returns:
        (N, T), 0-100; nan for a task without a map.
    """
    columns = [_points(calibration, raw[:, index]) for index, calibration in enumerate(calibrations)]
    return torch.stack(columns, 1)


def _points(calibration: Calibration | None, raw: Tensor) -> Tensor:
    return torch.full_like(raw, torch.nan) if calibration is None else apply_calibration(raw, calibration)


def _errors(calibration: Calibration | None, points: Tensor) -> Tensor:
    return torch.full_like(points, torch.nan) if calibration is None else expected_error(points, calibration)
