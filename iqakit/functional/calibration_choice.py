"""Which map from raw outputs to points, and how far it can be trusted: both from images that it was not fitted to. Own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from iqakit.functional.calibration import (
    RESIDUAL_KINDS,
    CalibrationFit,
    ResidualKind,
    apply_calibration,
    checked_points,
    expected_error,
    fit_isotonic_calibration,
    fit_logistic_calibration,
)

FOLDS = 5
REPEATS = 3
# The share of a normal distribution within one standard deviation; what score +- std is to hold.
SHARE = math.erf(math.sqrt(0.5))
# Isotonic must beat the logistic by so much of its held-out error, or it is a tie, and ties go to the logistic.
MARGIN = 0.01
# "bounded" residuals must be likelier than constant ones by so much a held-out image (in nats).
LIKELIER = 0.01

_Fit = Callable[[Tensor, Tensor], CalibrationFit | None]


@dataclass(frozen=True, slots=True)
class CalibrationChoice:
    """The map chosen, and what it was chosen by.

    Attributes:
        fit: The map, fitted to all images, with a residual from held-out ones.
        logistic_error: Root mean squared error of the logistic on held-out images, in points; nan where there were too
            few to hold any out.
        isotonic_error: The same of the isotonic curve; nan where it cannot be fitted.
    """

    fit: CalibrationFit
    logistic_error: float
    isotonic_error: float


def choose_calibration(raw: Tensor, target: Tensor, contents: Sequence[str], generator: Generator) -> CalibrationChoice:
    """Fit the map from raw outputs to points, logistic or isotonic, whichever is better on held-out images.

    Images are dealt into ``FOLDS`` folds by content, ``REPEATS`` times; each fold is predicted by maps fitted to the
    others. The isotonic curve is taken where its root mean squared error is lower by more than ``MARGIN``, else the
    logistic.

    The residual comes from the same held-out errors: their ``SHARE`` quantile, with the correction for a finite sample
    of split conformal prediction (Vovk et al. 2005; Lei et al. 2018), or their root mean square where that is larger: a
    standard deviation must hold its share of images where errors are flat, and be one where a few are large. It is
    ``bounded`` where errors that shrink towards the ends of the scale are likelier by more than ``LIKELIER``, else
    ``constant``.

    With fewer than 10 images, or fewer than ``FOLDS`` contents, nothing is held out: logistic, and the root mean squared
    error on the images themselves, as large as four fitted parameters make it.

    Args:
        raw: Raw outputs, (N,), N at least 3; higher is better.
        target: Human scores in points, 0-100, (N,).
        contents: Names of the N images' contents; images of one content are held out together.
        generator: Deals the folds.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 3, a value is not finite, or a target lies
            outside 0-100.
    """
    x, y = checked_points(raw, target)
    whole = fit_logistic_calibration(x, y)
    names = sorted(set(contents))
    if len(x) < 2 * FOLDS or len(names) < FOLDS:
        inflated = whole.residual * math.sqrt(len(x) / max(len(x) - 4, 1))
        return CalibrationChoice(replace(whole, residual=inflated), math.nan, math.nan)
    number = {name: index for index, name in enumerate(names)}
    content = torch.tensor([number[name] for name in contents])
    parts = [_deal(len(names), generator)[content] for _ in range(REPEATS)]
    logistic = _held_out(x, y, parts, fit_logistic_calibration)
    isotonic = _held_out(x, y, parts, fit_isotonic_calibration)
    logistic_error, isotonic_error = _error(logistic, y), _error(isotonic, y)
    # A comparison with nan is false, so what cannot be fitted is not chosen.
    rising = fit_isotonic_calibration(x, y) if isotonic_error < (1 - MARGIN) * logistic_error else None
    fit, points = (whole, logistic) if rising is None else (rising, isotonic)
    return CalibrationChoice(_with_held_out_residual(fit, points, y), logistic_error, isotonic_error)


def _deal(count: int, generator: Generator) -> Tensor:
    """Folds of so many contents, as even as can be."""
    return torch.randperm(count, generator=generator) % FOLDS


def _held_out(x: Tensor, y: Tensor, parts: Sequence[Tensor], fit: _Fit) -> Tensor:
    """Points (repeats, N) of images that the map was not fitted to; nan where none could be fitted."""
    rows = []
    for part in parts:
        points = torch.full_like(x, math.nan)
        for fold in range(FOLDS):
            inside, outside = part == fold, part != fold
            fitted = fit(x[outside], y[outside]) if int(outside.sum()) >= 3 else None
            if fitted is not None:
                points[inside] = apply_calibration(x[inside], fitted)
        rows.append(points)
    return torch.stack(rows)


def _error(points: Tensor, y: Tensor) -> float:
    return float((points - y).square().mean().sqrt())


def _with_held_out_residual(fit: CalibrationFit, points: Tensor, y: Tensor) -> CalibrationFit:
    known = points.isfinite()
    errors, points = (points - y)[known].abs(), points[known]
    unlikeliness = {kind: _unlikeliness(errors, _shape(fit, kind, points)) for kind in RESIDUAL_KINDS}
    gain = unlikeliness["constant"] - unlikeliness["bounded"]
    kind: ResidualKind = "bounded" if gain > LIKELIER else "constant"
    share = min(math.ceil((len(y) + 1) * SHARE) / len(y), 1.0)
    relative = errors / _shape(fit, kind, points)
    residual = max(float(relative.quantile(share)), float(relative.square().mean().sqrt()))
    return replace(fit, residual=residual, residual_kind=kind)


def _shape(fit: CalibrationFit, kind: ResidualKind, points: Tensor) -> Tensor:
    return expected_error(points, replace(fit, residual=1.0, residual_kind=kind))


def _unlikeliness(errors: Tensor, shape: Tensor) -> float:
    """Mean negative log-likelihood of errors under a normal distribution of that shape, less a constant."""
    scale = (errors / shape).square().mean().sqrt().clamp_min(1e-9)
    return float(scale.log() + shape.log().mean())
