"""The 4-parameter logistic map, customary before PLCC and RMSE, and the least-squares solver behind it.

Source of the map: Video Quality Experts Group, "Final report ... on the validation of objective models of video quality
assessment" (VQEG, 2003). Source of the solver: Levenberg (1944) and Marquardt (1963).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import checked_pair, plcc

Residuals = Callable[[Tensor], tuple[Tensor, Tensor]]


def least_squares(
    residuals: Residuals, start: Tensor, iterations: int = 150, tolerance: float = 1e-10
) -> tuple[Tensor, float]:
    """Least squares by Levenberg-Marquardt, for a handful of parameters.

    Args:
        residuals: Gives, for parameters (P,), the residuals (N,) and their Jacobian (N, P).
        start: Where to start, float64 (P,).
        iterations: Steps tried at most.
        tolerance: Stop once a step lowers the cost by less than this share of it.

    Returns:
        Parameters (P,) and the sum of squares there, never above the one at the start.
    """
    point, damping = start.clone(), 1e-3
    residual, jacobian = residuals(point)
    cost = float(residual.square().sum())
    for _ in range(iterations):
        normal, slope = jacobian.T @ jacobian, jacobian.T @ residual
        scale = normal.diagonal().clamp_min(1e-12 * float(normal.diagonal().max()) + 1e-300)
        step, failed = torch.linalg.solve_ex(normal + damping * torch.diag(scale), -slope)
        trial = point + step
        usable = int(failed) == 0 and bool(torch.isfinite(trial).all())
        trial_residual, trial_jacobian = residuals(trial) if usable else (residual, jacobian)
        trial_cost = float(trial_residual.square().sum())
        if usable and math.isfinite(trial_cost) and trial_cost < cost:
            gain = cost - trial_cost
            point, residual, jacobian, cost = trial, trial_residual, trial_jacobian, trial_cost
            damping = max(damping / 5, 1e-12)
            if gain <= tolerance * cost:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return point, cost


def logistic(
    values: Tensor, low: float | Tensor, high: float | Tensor, centre: float | Tensor, width: float | Tensor
) -> Tensor:
    """``low + (high - low) / (1 + exp(-(values - centre) / width))``.

    Args:
        values: Any shape.
        low: Approached where values fall (for ``width > 0``).
        high: Approached where values rise.
        centre: Value half-way between both.
        width: Width of the slope, not 0.

    Returns:
        Same shape as ``values``.
    """
    return low + (high - low) * torch.sigmoid((values - centre) / width)


def logistic_slopes(values: Tensor, low: Tensor, high: Tensor, centre: Tensor, width: Tensor) -> tuple[Tensor, ...]:
    """Derivatives of ``logistic`` by low, high, centre and log(width).

    Args:
        values: (N,).
        low: 0-dim, as are the other three.
        high: As in ``logistic``.
        centre: As in ``logistic``.
        width: As in ``logistic``, above 0.

    Returns:
        Four tensors (N,).
    """
    inner = (values - centre) / width
    share = torch.sigmoid(inner)
    steepness = (high - low) * share * torch.sigmoid(-inner)
    return 1 - share, share, -steepness / width, -steepness * inner


def apply_logistic(prediction: Tensor, parameters: Tensor) -> Tensor:
    """Map predictions with fitted parameters.

    Args:
        prediction: Any shape.
        parameters: (4,): low, high, centre, width, from ``fit_logistic``.

    Returns:
        float64 on the CPU, same shape, in the unit of the targets.

    Raises:
        ConfigurationError: There are not four finite parameters with a width above 0.
    """
    if parameters.shape != (4,) or not bool(torch.isfinite(parameters).all()) or float(parameters[3]) <= 0:
        raise ConfigurationError(
            f"the logistic map needs 4 finite parameters (low, high, centre, width), width above 0; found "
            f"{parameters.flatten().tolist()}"
        )
    low, high, centre, width = parameters.cpu().double()
    return logistic(prediction.cpu().double(), low, high, centre, width)


def fit_logistic(prediction: Tensor, target: Tensor) -> Tensor:
    """Fit the monotone 4-parameter logistic of predictions to targets by least squares.

    Args:
        prediction: (N,), N at least 2.
        target: (N,).

    Returns:
        float64 (4,): low, high, centre, width; width is above 0, and low lies above high where the best map falls.
        Constant predictions, or a constant target, give the flat map at the target's mean.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 2, or a value is not finite.
    """
    x, y = checked_pair(prediction.detach(), target.detach())
    direction = float(plcc(x, y))
    if math.isnan(direction):
        return torch.stack([y.mean(), y.mean(), x.mean(), torch.ones((), dtype=torch.float64)])
    # Both are brought to mean 0 and deviation 1, so one set of starts and tolerances fits all scales.
    shift, scale = x.mean(), x.std(correction=0)
    offset, unit = y.mean(), y.std(correction=0)
    xs, ys = (x - shift) / scale, (y - offset) / unit
    widest = math.log(100.0)

    def residuals(p: Tensor) -> tuple[Tensor, Tensor]:
        # A bounded width: on straight-line data the optimum is at infinity, with ends that run away as well.
        bounded = widest * torch.tanh(p[3] / widest)
        width = bounded.exp()
        by_low, by_high, by_centre, by_log_width = logistic_slopes(xs, p[0], p[1], p[2], width)
        chain = 1 - (bounded / widest).square()
        return logistic(xs, p[0], p[1], p[2], width) - ys, torch.stack(
            [by_low, by_high, by_centre, by_log_width * chain], dim=1
        )

    ends = (float(ys.min()), float(ys.max()))
    low, high = ends if direction >= 0 else ends[::-1]
    best: tuple[Tensor, float] | None = None
    for width in (0.1, 0.5, 2.0):
        start = torch.tensor([low, high, float(xs.median()), math.log(width)], dtype=torch.float64)
        found = least_squares(residuals, start)
        if best is None or found[1] < best[1]:
            best = found
    assert best is not None  # the loop ran three times
    p = best[0]
    width_out = (widest * torch.tanh(p[3] / widest)).exp() * scale
    return torch.stack([p[0] * unit + offset, p[1] * unit + offset, p[2] * scale + shift, width_out])
