"""From raw outputs of T tasks and a combiner's weights to score, raw and std. Own.

Pure functions of tensors. They never branch on a tensor's value, so that they can be traced into a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iqakit.contracts import Calibration
from iqakit.functional.calibration import apply_calibration, expected_error

# The power of the default gate's weights that gives validation images of the default model's three tasks to their own task
# with the highest likelihood; benchmarks/meaning.py prints it for others.
BELIEF_POWER = 3


def combine_tasks(
    raw: Tensor, weights: Tensor, calibrations: Sequence[Calibration | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the tasks of N images.

    ``score = sum(weight * points)`` and ``std = sqrt(sum(belief * (error^2 + (points - score)^2)))``: with the
    probability of that task's kind of image (``beliefs``), people's score lies around that task's points, with that task's
    error. It is the law of total variance, taken around the score that is given.

    Args:
        raw: (N, T), each task's head output; higher is better. Give float64 to keep apart what float32 would round
            together.
        weights: (N, T), the combiner's, not negative, rows summing to 1.
        calibrations: The T tasks' maps to points; None where a task has none.

    Returns:
        Score (N,) in points, 0-100, higher is better; raw (N,), the weighted sum of head outputs; std (N,) in points, half
        the width of the interval around the score that holds about 68 % of human scores. Score and std are nan where a task
        that counts has no calibration.
    """
    points = task_points(raw, calibrations)
    errors = torch.stack([_errors(calibration, points[:, index]) for index, calibration in enumerate(calibrations)], 1)
    likely = beliefs(weights)
    score = torch.where(weights > 0, weights * points, 0.0).sum(1)
    variance = torch.where(likely > 0, likely * (errors.square() + (points - score[:, None]).square()), 0.0).sum(1)
    return score, (weights * raw).sum(1), variance.sqrt()


def beliefs(weights: Tensor) -> Tensor:
    """How probable it is that an image is of each task's kind.

    Weights are softer than that on purpose: mixing in the tasks of a likely mistake ranks images better than trusting the
    gate. Taken for probabilities they would count on heads that hardly matter, and ``std`` would come out too wide where
    heads disagree. Weights of 0 and 1, and equal weights, stay what they are.

    Args:
        weights: (N, T), not negative, rows summing to 1.

    Returns:
        (N, T), rows summing to 1; 0 where the weight is.
    """
    powers = weights**BELIEF_POWER
    return powers / powers.sum(1, keepdim=True)


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
