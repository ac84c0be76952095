"""From a head's raw output to score points (0-100). Own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import checked_pair, plcc
from iqakit.functional.logistic import least_squares, logistic, logistic_slopes

# The map rises by at least this many points from end to end.
SMALLEST_RISE = 1.0
# How far a map that follows no evidence reaches to either side of the mean score.
_GENTLE_REACH = 5.0
# A weak pull towards a gentle map: one prior row a parameter, as if measured with a noise of so many points.
_PRIOR_NOISE = 3.0
_PRIOR_SPREAD = (2.0, 2.0, 1.5, 1.0)
# Logits beyond this change the map by less than 0.001 points.
_LOGIT_LIMIT = 12.0


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """A fitted map; fields as in ``iqakit.contracts.Calibration``.

    Attributes:
        low: Score approached from above as raw falls.
        high: Score approached from below as raw rises.
        centre: Raw output half-way between both.
        width: Width of the slope, in raw units.
        residual: Root mean squared error, in score points, on the points it was fitted to.
    """

    low: float
    high: float
    centre: float
    width: float
    residual: float


def apply_calibration(raw: Tensor, low: float, high: float, centre: float, width: float) -> Tensor:
    """``low + (high - low) / (1 + exp(-(raw - centre) / width))``: score points, higher is better.

    Args:
        raw: Raw outputs, any shape.
        low: Lower end, 0 or more.
        high: Upper end, above ``low``, 100 at most.
        centre: Raw output half-way between both.
        width: Width of the slope, above 0.

    Returns:
        Same shape, dtype and device as ``raw`` (float64 inside).

    Raises:
        ConfigurationError: The numbers make no rising map within 0-100.
    """
    finite = all(math.isfinite(value) for value in (low, high, centre, width))
    if not (finite and 0 <= low < high <= 100 and width > 0):
        raise ConfigurationError(
            "a calibration needs 0 <= low < high <= 100 and width > 0, all finite; found "
            f"low {low}, high {high}, centre {centre}, width {width}"
        )
    points = logistic(raw.cpu().double(), low, high, centre, width)
    return points.to(raw.dtype).to(raw.device)


def _finished(x: Tensor, y: Tensor, low: float, high: float, centre: float, width: float) -> CalibrationFit:
    error = logistic(x, low, high, centre, width) - y
    return CalibrationFit(low, high, centre, width, float(error.square().mean().sqrt()))


def _gentle(x: Tensor, y: Tensor) -> CalibrationFit:
    """A map for raw outputs that say nothing of the scores: around the mean score, slowly rising."""
    middle = min(max(float(y.mean()), _GENTLE_REACH), 100.0 - _GENTLE_REACH)
    centre = float(x.mean())
    width = max(float(x.std(correction=0)), 0.1 * max(abs(centre), 0.1))
    return _finished(x, y, middle - _GENTLE_REACH, middle + _GENTLE_REACH, centre, width)


def _logit(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))


def _ends(p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Low and high from two logits, and the derivatives low by a, high by a, high by b."""
    free = 100.0 - SMALLEST_RISE
    a, b = torch.sigmoid(p[0].clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)), torch.sigmoid(p[1].clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT))
    low = free * a
    high = low + SMALLEST_RISE + (free - low) * b
    low_by_a = free * a * (1 - a)
    return low, high, low_by_a, low_by_a * (1 - b), (free - low) * b * (1 - b)


def fit_calibration(raw: Tensor, target: Tensor) -> CalibrationFit:
    """Fit the rising logistic from raw outputs to score points by least squares.

    Bounds hold by construction: the ends come from logits, the width from its logarithm. A weak pull towards a gentle
    map, worth a few points of data, keeps few points from making it a step. Raw outputs that are nearly constant, or that
    do not rise with the scores, get a gentle map around the mean score, which still rises.

    Args:
        raw: Raw outputs of the head, (N,), N at least 3; higher is better.
        target: Human scores in points, 0-100, (N,).

    Returns:
        The map, always finite, 0 <= low < high <= 100, width > 0.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 3, a value is not finite, or a target lies
            outside 0-100.
    """
    x, y = checked_pair(raw.detach(), target.detach())
    if len(x) < 3:
        raise ConfigurationError(f"calibration needs at least 3 scored images; found {len(x)}; give it more")
    if float(y.min()) < 0 or float(y.max()) > 100:
        raise ConfigurationError(
            f"calibration needs human scores in points, 0-100; found {float(y.min()):g} to {float(y.max()):g}; "
            "bring them to that range first"
        )
    shift, scale = x.mean(), x.std(correction=0)
    correlation = float(plcc(x, y))
    if float(scale) <= 1e-6 * max(abs(float(shift)), 1e-3) or not correlation > 0:
        return _gentle(x, y)
    xs = (x - shift) / scale
    reach = 0.5 * float(y.max() - y.min())
    low, high = max(float(y.min()) - reach, 0.0), min(float(y.max()) + reach, 100.0)
    free = 100.0 - SMALLEST_RISE
    prior = torch.tensor(
        [_logit(low / free), _logit((high - low - SMALLEST_RISE) / max(free - low, 1e-6)), 0.0, 0.0], dtype=torch.float64
    )
    pull = torch.tensor([_PRIOR_NOISE / spread for spread in _PRIOR_SPREAD], dtype=torch.float64)

    def residuals(p: Tensor) -> tuple[Tensor, Tensor]:
        low, high, low_by_a, high_by_a, high_by_b = _ends(p)
        width = p[3].exp()
        by_low, by_high, by_centre, by_log_width = logistic_slopes(xs, low, high, p[2], width)
        data = torch.stack([by_low * low_by_a + by_high * high_by_a, by_high * high_by_b, by_centre, by_log_width], dim=1)
        error = logistic(xs, low, high, p[2], width) - y
        return torch.cat([error, pull * (p - prior)]), torch.cat([data, torch.diag(pull)])

    # Broad and narrow starts: the cost may have more than one hollow where the points make a step.
    starts = (prior + torch.tensor([0.0, 0.0, 0.0, slope], dtype=torch.float64) for slope in (0.0, -1.5))
    best, _ = min((least_squares(residuals, start) for start in starts), key=lambda found: found[1])
    fitted_low, fitted_high, *_ = _ends(best)
    return _finished(
        x,
        y,
        float(fitted_low),
        float(fitted_high),
        float(best[2] * scale + shift),
        float(best[3].exp() * scale),
    )
