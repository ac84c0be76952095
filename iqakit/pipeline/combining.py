"""From raw outputs of T tasks and a combiner's weights to score, raw and std. Own.

Pure functions of tensors. They never branch on a tensor's value, so that they can be traced into a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iqakit.contracts import Calibration
from iqakit.functional.calibration import apply_calibration


def combine_tasks(
    raw: Tensor, weights: Tensor, calibrations: Sequence[Calibration | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the tasks of N images.

    Args:
        raw: (N, T), each task's head output; higher is better.
        weights: (N, T), the combiner's, not negative, rows summing to 1.
        calibrations: The T tasks' maps to points; None where a task has none.

    Returns:
        Score (N,) in points, 0-100, higher is better; raw (N,), the weighted sum of head outputs; std (N,) in points.
        Score and std are nan where a task that counts has no calibration.
    """
    points = task_points(raw, calibrations)
    residuals = torch.tensor([_residual(calibration) for calibration in calibrations], dtype=raw.dtype, device=raw.device)
    counted = weights > 0
    score = torch.where(counted, weights * points, 0.0).sum(1)
    # Law of total variance: each head's own error, and how far the heads disagree.
    spread = torch.where(counted, weights * (residuals.square() + (points - score[:, None]).square()), 0.0)
    return score, (weights * raw).sum(1), spread.sum(1).sqrt()


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


def _residual(calibration: Calibration | None) -> float:
    """The residual of a map, nan where there is none."""
    return calibration.residual if calibration else torch.nan


def _points(calibration: Calibration | None, raw: Tensor) -> Tensor:
    if calibration is None:
        return torch.full_like(raw, torch.nan)
    return apply_calibration(raw, calibration.low, calibration.high, calibration.centre, calibration.width)
