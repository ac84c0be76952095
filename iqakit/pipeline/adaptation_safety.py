"""When the source score is given although a batch was adapted to. Own; the rules are those of every method alike."""

from __future__ import annotations

import torch
from torch import Tensor

from iqakit.functional.correlation import plcc
from iqakit.pipeline.adaptation_limits import FEW, LEAST_CORRELATION, MOST_SHIFT, UNIFORM_POINTS, UNIFORM_SHARE


def spread_of(scores: Tensor) -> float | None:
    """Standard deviation of scores (N,), with N - 1; None for fewer than two."""
    return float(scores.std()) if len(scores) > 1 else None


def correlation_of(source: Tensor, adapted: Tensor) -> float | None:
    """Pearson's correlation of scores (N,) and (N,); None where it is undefined."""
    if len(source) < 2 or not bool(torch.isfinite(adapted).all()):
        return None
    found = float(plcc(adapted, source))
    return found if found == found else None


def shift_of(source: Tensor, adapted: Tensor) -> float | None:
    """How far the mean of scores moved, in standard deviations of ``source``; None where that is undefined."""
    spread = spread_of(source)
    return float(adapted.mean() - source.mean()) / spread if spread else None


def uniform(source: Tensor, calibrated: bool) -> str | None:
    """Why a batch is not to be adapted to, whatever came of it; None: it may be.

    Args:
        source: Source scores (N,).
        calibrated: They are points; else raw outputs.
    """
    spread = spread_of(source)
    if len(source) < FEW or spread is None:
        return None
    limit = UNIFORM_POINTS if calibrated else UNIFORM_SHARE * float(source.abs().max())
    if spread > limit:
        return None
    unit = " points" if calibrated else ""
    return f"uniform batch: source scores spread by {spread:.2g}{unit}, at least {limit:.2g} needed"


def refused(source: Tensor, adapted: Tensor, errors: Tensor | None) -> str | None:
    """Why adapted scores are not believed; None: they are.

    Batches of 4 or more: not finite; a mean shift above one standard deviation of the source scores; a correlation
    with them below 0.3. In smaller batches neither can be told from so few, so the mean may move by no more than what
    the model says of its own error.

    Args:
        source: Source scores (N,).
        adapted: Adapted scores (N,).
        errors: The model's uncertainty of each source score, (N,) in the same units; None where it has none.
    """
    count = len(source)
    if not bool(torch.isfinite(adapted).all()):
        return "adaptation gave scores that are not finite"
    moved = float(adapted.mean() - source.mean())
    if count < FEW:
        images = "1 image" if count == 1 else f"{count} images"
        if errors is None or not bool(torch.isfinite(errors).all()):
            return f"batch of {images}: too few to compare adapted with source scores, and no uncertainty is known"
        allowed = MOST_SHIFT * float(errors.mean())
        if abs(moved) > allowed:
            return f"batch of {images}: the mean moved by {moved:+.3g}, more than the source's uncertainty of {allowed:.3g}"
        return None
    spread = spread_of(source)
    if not spread or abs(moved) > MOST_SHIFT * spread:
        deviations = abs(moved) / spread if spread else float("inf")
        return f"the mean moved by {deviations:.2f} deviations of the source scores; at most {MOST_SHIFT:g} is believed"
    found = correlation_of(source, adapted)
    if found is None or found < LEAST_CORRELATION:
        shown = "nothing" if found is None else f"{found:.2g}"
        return f"adapted and source scores correlate by {shown}, at least {LEAST_CORRELATION:g} is needed"
    return None
