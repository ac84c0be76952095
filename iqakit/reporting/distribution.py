"""The distribution of scores in figures: quantiles, and a histogram whose bars know where they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

BINS: Final = 50
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram.

    Attributes:
        low: Where it begins, included.
        high: Where it ends, not included but for the last bar.
        count: Values in it.
    """

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values in figures.

    Attributes:
        low: Left end of the histogram.
        high: Right end.
        mean: Their mean.
        smallest: The smallest value.
        largest: The largest.
        quantiles: The 5, 25, 50, 75 and 95 % quantiles, linear between values.
        bars: The histogram, left to right.
    """

    low: float
    high: float
    mean: float
    smallest: float
    largest: float
    quantiles: tuple[float, ...]
    bars: tuple[Bar, ...]

    def share(self, value: float) -> float:
        """Where a value stands between both ends of the histogram, 0-1."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def distribution(values: Sequence[float], *, calibrated: bool) -> Distribution | None:
    """Figures of some values; None where there are none.

    Args:
        values: The values.
        calibrated: They are scores, and the histogram spans 0-100; else it spans what there is.
    """
    if not values:
        return None
    found = np.asarray(values, dtype=np.float64)
    smallest, largest = float(found.min()), float(found.max())
    low, high = (0.0, 100.0) if calibrated else _span(smallest, largest)
    counts, edges = np.histogram(found, bins=BINS, range=(low, high))
    bars = tuple(
        Bar(float(edges[index]), float(edges[index + 1]), int(count)) for index, count in enumerate(counts.tolist())
    )
    quantiles = tuple(float(value) for value in np.quantile(found, _QUANTILES))
    return Distribution(low, high, math.fsum(found.tolist()) / len(found), smallest, largest, quantiles, bars)


def _span(smallest: float, largest: float) -> tuple[float, float]:
    """Ends of a histogram of numbers without a scale; never one point."""
    if largest > smallest:
        return smallest, largest
    margin = max(abs(largest), 1.0) * 0.5
    return smallest - margin, largest + margin
