"""From a head's raw output to score points (0-100). Own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import checked_pair, plcc
from iqakit.functional.isotonic import Knots, interpolate, isotonic_knots
from iqakit.functional.logistic import least_squares, logistic, logistic_slopes

CalibrationKind = Literal["logistic", "isotonic"]
ResidualKind = Literal["constant", "bounded"]
CALIBRATION_KINDS: tuple[CalibrationKind, ...] = ("logistic", "isotonic")
RESIDUAL_KINDS: tuple[ResidualKind, ...] = ("constant", "bounded")

# The map rises by at least this many points from end to end.
SMALLEST_RISE = 1.0
# Share of the 100 points that a slope without end takes: it moves no score by more than 0.01 points, and no two raw outputs
# come out equal where the curve itself is flat.
TILT = 1e-4
# "bounded" residuals stop shrinking this near to the ends of the scale, where there is hardly an image to learn from.
NEAREST_END = 5.0
# How far a map that follows no evidence reaches to either side of the mean score.
_GENTLE_REACH = 5.0
# A weak pull towards a gentle map: one prior row a parameter, as if measured with a noise of so many points.
_PRIOR_NOISE = 3.0
_PRIOR_SPREAD = (2.0, 2.0, 1.5, 1.0)
# Logits beyond this change the map by less than 0.001 points.
_LOGIT_LIMIT = 12.0


class Curve(Protocol):
    """What a map from raw outputs to points says of itself: a ``CalibrationFit`` or ``iqakit.contracts.Calibration``."""

    @property
    def kind(self) -> CalibrationKind: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def centre(self) -> float: ...  # noqa: D102
    @property
    def width(self) -> float: ...  # noqa: D102
    @property
    def knots(self) -> Knots: ...  # noqa: D102
    @property
    def tilt(self) -> float: ...  # noqa: D102
    @property
    def residual(self) -> float: ...  # noqa: D102
    @property
    def residual_kind(self) -> ResidualKind: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class CalibrationFit:
    """A fitted map; fields as in ``iqakit.contracts.Calibration``."""

    low: float
    high: float
    centre: float
    width: float
    residual: float
    kind: CalibrationKind = "logistic"
    knots: Knots = ()
    tilt: float = 0.0
    residual_kind: ResidualKind = "constant"


def apply_calibration(raw: Tensor, curve: Curve) -> Tensor:
    """Score points of raw outputs, strictly rising; higher is better.

    ``(1 - tilt) * f(raw) + tilt * 50 * (1 + z / (1 + |z|))`` with ``z = (raw - centre) / width``, where f is
    ``low + (high - low) / (1 + exp(-z))`` (``logistic``), or straight lines between the knots and flat beyond them
    (``isotonic``). Never branches on a value of ``raw``.

    Args:
        raw: Raw outputs, any shape. In float64 no two float32 outputs that lie within 100 widths of the centre, and apart
            by 1e-7 widths, come out equal if the tilt is ``TILT``.
        curve: The map.

    Returns:
        Same shape, dtype and device as ``raw``, 0-100.

    Raises:
        ConfigurationError: The numbers make no rising map within 0-100.
    """
    check_curve(curve)
    points = (
        logistic(raw, curve.low, curve.high, curve.centre, curve.width)
        if curve.kind == "logistic"
        else interpolate(raw, curve.knots)
    )
    if curve.tilt == 0:
        return points
    z = (raw - curve.centre) / curve.width
    return (1 - curve.tilt) * points + curve.tilt * 50 * (1 + z / (1 + z.abs()))


def expected_error(points: Tensor, curve: Curve) -> Tensor:
    """How far people's score lies from the calibrated one: half the width of the interval that holds 68 % of them.

    Args:
        points: Calibrated outputs, any shape.
        curve: The map that they came from.

    Returns:
        Same shape, in points. ``constant``: the residual everywhere. ``bounded``: the residual at 50 points, and less
        towards the ends of the scale, ``residual * sqrt(p (100 - p)) / 50``, as for any quantity that cannot leave its
        bounds.
    """
    if curve.residual_kind == "constant":
        return torch.full_like(points, curve.residual)
    inside = points.clamp(NEAREST_END, 100 - NEAREST_END)
    return curve.residual * (inside * (100 - inside)).sqrt() / 50


def check_curve(curve: Curve) -> None:
    """Check that the numbers make a rising map.

    Raises:
        ConfigurationError: They do not; the message says what is wrong.
    """
    numbers = (curve.low, curve.high, curve.centre, curve.width, curve.tilt, curve.residual)
    finite = all(math.isfinite(value) for value in (*numbers, *(value for knot in curve.knots for value in knot)))
    if not (finite and 0 <= curve.low < curve.high <= 100 and curve.width > 0):
        raise ConfigurationError(
            "a calibration needs 0 <= low < high <= 100 and width > 0, all finite; found "
            f"low {curve.low}, high {curve.high}, centre {curve.centre}, width {curve.width}"
        )
    if not (0 <= curve.tilt < 1 and curve.residual >= 0):
        raise ConfigurationError(
            f"a calibration needs 0 <= tilt < 1 and residual >= 0; found tilt {curve.tilt}, residual {curve.residual}"
        )
    if curve.kind not in CALIBRATION_KINDS or curve.residual_kind not in RESIDUAL_KINDS:
        raise ConfigurationError(
            f"a calibration is {' or '.join(CALIBRATION_KINDS)} and its residual {' or '.join(RESIDUAL_KINDS)}; found "
            f"{curve.kind!r} and {curve.residual_kind!r}"
        )
    if curve.kind == "logistic":
        if curve.knots:
            raise ConfigurationError(f"a logistic calibration has no knots; found {len(curve.knots)}")
        return
    pairs = list(pairwise(curve.knots))
    rising = all(left[0] < right[0] and left[1] < right[1] for left, right in pairs)
    if not (pairs and rising and curve.knots[0][1] == curve.low and curve.knots[-1][1] == curve.high):
        raise ConfigurationError(
            "an isotonic calibration needs at least 2 knots, rising in both, from low to high; found "
            f"{len(curve.knots)} knots, low {curve.low}, high {curve.high}"
        )
    if curve.tilt == 0:
        raise ConfigurationError("an isotonic calibration needs a tilt above 0, as it is flat at both ends; found 0")


def _finished(x: Tensor, y: Tensor, low: float, high: float, centre: float, width: float) -> CalibrationFit:
    return _with_residual(CalibrationFit(low, high, centre, width, 0.0, tilt=TILT), x, y)


def _with_residual(fit: CalibrationFit, x: Tensor, y: Tensor) -> CalibrationFit:
    """The fit with its root mean squared error on the points that it was fitted to."""
    return replace(fit, residual=float((apply_calibration(x, fit) - y).square().mean().sqrt()))


def _gentle(x: Tensor, y: Tensor) -> CalibrationFit:
    """A map for raw outputs that say nothing of the scores: around the mean score, slowly rising."""
    middle = min(max(float(y.mean()), _GENTLE_REACH), 100.0 - _GENTLE_REACH)
    centre = float(x.mean())
    width = max(float(x.std(correction=0)), 0.1 * max(abs(centre), 0.1))
    return _finished(x, y, middle - _GENTLE_REACH, middle + _GENTLE_REACH, centre, width)


def _logit(share: float) -> float:
    # Nearer to 0 or 1 the slope of the sigmoid all but vanishes, and a fit that starts there stays there.
    share = min(max(share, 0.02), 0.98)
    return math.log(share / (1 - share))


def _ends(p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Low and high from two logits, and the derivatives low by a, high by a, high by b."""
    free = 100.0 - SMALLEST_RISE
    a, b = torch.sigmoid(p[0].clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)), torch.sigmoid(p[1].clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT))
    low = free * a
    high = low + SMALLEST_RISE + (free - low) * b
    low_by_a = free * a * (1 - a)
    return low, high, low_by_a, low_by_a * (1 - b), (free - low) * b * (1 - b)


def fit_logistic_calibration(raw: Tensor, target: Tensor) -> CalibrationFit:
    """Fit the rising logistic from raw outputs to score points by least squares.

    Bounds hold by construction: the ends come from logits, the width from its logarithm. A weak pull towards a gentle
    map, worth a few points of data, keeps few points from making it a step. Raw outputs that are nearly constant, or that
    do not rise with the scores, get a gentle map around the mean score, which still rises.

    Args:
        raw: Raw outputs of the head, (N,), N at least 3; higher is better.
        target: Human scores in points, 0-100, (N,).

    Returns:
        The map, always finite, 0 <= low < high <= 100, width > 0. Its residual is the root mean squared error on the
        same images.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 3, a value is not finite, or a target lies
            outside 0-100.
    """
    x, y = checked_points(raw, target)
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


def fit_isotonic_calibration(raw: Tensor, target: Tensor) -> CalibrationFit | None:
    """Fit a rising curve of straight pieces from raw outputs to score points (``iqakit.functional.isotonic``).

    Args:
        raw: Raw outputs of the head, (N,), N at least 3; higher is better.
        target: Human scores in points, 0-100, (N,).

    Returns:
        The map, or None where the images make fewer than two knots or rise by less than ``SMALLEST_RISE``. Its residual is
        the root mean squared error on the same images.

    Raises:
        ConfigurationError: As ``fit_logistic_calibration``.
    """
    x, y = checked_points(raw, target)
    knots = isotonic_knots(x, y)
    width = float(x.std(correction=0))
    if len(knots) < 2 or knots[-1][1] - knots[0][1] < SMALLEST_RISE or width == 0:
        return None
    fit = CalibrationFit(knots[0][1], knots[-1][1], float(x.mean()), width, 0.0, "isotonic", knots, TILT)
    return _with_residual(fit, x, y)


def checked_points(raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Raw outputs and human scores in points, both (N,), as float64 on the CPU.

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
    return x, y
