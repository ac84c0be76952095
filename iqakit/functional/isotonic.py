"""Isotonic regression as a short list of knots.

Source of pooling: Ayer, Brunk, Ewing, Reid, Silverman, "An empirical distribution function for sampling with incomplete
information" (1955). Source of the knots: Oron and Flournoy, "Centered isotonic regression" (2017), which puts each
pooled block's mean at its centre and joins centres by straight lines, so that the curve has no steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from iqakit.functional.correlation import checked_pair

# At most so many groups of raw outputs, each of at least so many images: bounds the list, and keeps single images, at the
# ends above all, from bending the curve.
GROUPS = 20
GROUP_IMAGES = 5

Knots = tuple[tuple[float, float], ...]


def pool_adjacent_violators(values: Tensor, weights: Tensor) -> Tensor:
    """The rising sequence that lies nearest to a sequence, in weighted least squares.

    Args:
        values: (N,), in the order that the result must rise in.
        weights: (N,), above 0.

    Returns:
        (N,), float64, never falling; neighbours that were pooled are equal.
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.double().tolist(), weights.double().tolist(), strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] >= mean:
            before, other, more = blocks.pop()
            mean = (before * other + mean * total) / (other + total)
            total, count = total + other, count + more
        blocks.append((mean, total, count))
    means = torch.tensor([mean for mean, _, _ in blocks], dtype=torch.float64)
    return means.repeat_interleave(torch.tensor([count for _, _, count in blocks], dtype=torch.int64))


def isotonic_knots(raw: Tensor, target: Tensor) -> Knots:
    """Fit a rising curve of straight pieces.

    Images are sorted by raw output and put into groups of neighbours (equal outputs always together); neighbouring groups
    whose mean target does not rise are pooled; each that is left gives a knot at its mean raw output and mean target.

    Args:
        raw: (N,), N at least 2.
        target: (N,).

    Returns:
        At most ``GROUPS`` pairs (raw, target), both strictly rising.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 2, or a value is not finite.
    """
    x, y = checked_pair(raw.detach(), target.detach())
    order = torch.argsort(x, stable=True)
    x, y = x[order], y[order]
    size = max(GROUP_IMAGES, -(-len(x) // GROUPS))
    # The last group takes what is left over, so that none is smaller than the others.
    group = (torch.arange(len(x)) // size).clamp_max(max(len(x) // size - 1, 0))
    distinct, place = torch.unique_consecutive(x, return_inverse=True)
    first = torch.full((len(distinct),), len(x)).scatter_reduce_(0, place, group, "amin")
    _, group = torch.unique_consecutive(first[place], return_inverse=True)
    count, centre, height = _means(group, torch.ones_like(x), x, y)
    rising = pool_adjacent_violators(height, count)
    heights, block = torch.unique_consecutive(rising, return_inverse=True)
    _, centre = _means(block, count, centre)
    return tuple(zip(centre.tolist(), heights.tolist(), strict=True))


def interpolate(raw: Tensor, knots: Sequence[tuple[float, float]]) -> Tensor:
    """The curve through knots: straight between them, flat beyond the first and the last.

    A sum of clamped slopes, so that it needs no search and can be traced into a graph.

    Args:
        raw: Any shape.
        knots: (raw, points), raw strictly rising; at least one.

    Returns:
        Same shape and dtype as ``raw``.
    """
    total = torch.full_like(raw, knots[0][1])
    for (left, below), (right, above) in pairwise(knots):
        total = total + (above - below) * ((raw - left) / (right - left)).clamp(0.0, 1.0)
    return total


def _means(group: Tensor, weights: Tensor, *columns: Tensor) -> list[Tensor]:
    """The weight of each group 0, 1, ..., and the weighted means of the columns in it."""
    zero = torch.zeros(int(group[-1]) + 1, dtype=torch.float64)
    total = zero.index_add(0, group, weights)
    return [total, *(zero.index_add(0, group, weights * column) / total for column in columns)]
