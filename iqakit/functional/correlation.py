"""How well predictions agree with human scores: SRCC, KRCC, PLCC and RMSE.

All compute in float64 on the CPU. PLCC and RMSE are plain; the logistic mapping that is customary before them is in
``iqakit.functional.logistic``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError

__all__ = ["krcc", "plcc", "rmse", "srcc"]


def checked_pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 on the CPU, once they are what a comparison needs.

    Args:
        prediction: (N,), any real dtype.
        target: (N,).

    Returns:
        Both, float64, gradients kept.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), N is below 2, or a value is not finite.
    """
    shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
    if prediction.ndim != 1 or prediction.shape != target.shape:
        raise ConfigurationError(f"predictions and targets must both have the shape (N,); found {shapes}")
    if len(prediction) < 2:
        raise ConfigurationError(f"agreement needs at least 2 points; found {len(prediction)}")
    for name, values in (("predictions", prediction), ("targets", target)):
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise ConfigurationError(f"{name} must be finite; found {bad} of {len(values)} that are not; leave those out")
    return prediction.cpu().double(), target.cpu().double()


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 to N, ties by their average rank.

    Args:
        values: (N,).

    Returns:
        float64 (N,).
    """
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts.double() - 1) / 2
    return ranks[inverse]


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    # Equality of the ends, not a variance of 0: the mean of equal numbers may be off by one rounding.
    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return torch.tensor(float("nan"), dtype=torch.float64)
    a, b = a - a.mean(), b - b.mean()
    a, b = a / a.detach().abs().max(), b / b.detach().abs().max()
    # One root of the product, not a product of two roots: equal inputs give exactly 1.
    return ((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()).clamp(-1.0, 1.0)


def plcc(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson's linear correlation, without any mapping first.

    Args:
        prediction: (N,).
        target: (N,).

    Returns:
        0-dim float64 in [-1, 1]; differentiable; nan where either input is constant.

    Raises:
        ConfigurationError: As in ``checked_pair``.

    Example:
        >>> round(plcc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])).item(), 4)
        1.0
    """
    return _pearson(*checked_pair(prediction, target))


def srcc(prediction: Tensor, target: Tensor) -> Tensor:
    """Spearman's rank correlation, ties by average rank.

    Args:
        prediction: (N,).
        target: (N,).

    Returns:
        0-dim float64 in [-1, 1]; nan where either input is constant.

    Raises:
        ConfigurationError: As in ``checked_pair``.

    Example:
        >>> round(srcc(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 30.0, 20.0])).item(), 4)
        0.5
    """
    prediction, target = checked_pair(prediction, target)
    return _pearson(average_ranks(prediction), average_ranks(target))


def rmse(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error, in the unit of both.

    Args:
        prediction: (N,).
        target: (N,).

    Returns:
        0-dim float64, 0 or more, lower is better; differentiable, with a gradient of 0 where both are equal.

    Raises:
        ConfigurationError: As in ``checked_pair``.

    Example:
        >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0])).item()
        3.0
    """
    prediction, target = checked_pair(prediction, target)
    mean = (prediction - target).square().mean()
    # The root's own gradient at 0 is not finite.
    return torch.where(mean > 0, mean, 1.0).sqrt() * (mean > 0)


def _inversions(values: Tensor) -> int:
    """Pairs i < j with values[i] > values[j], for integers from 0 up, in O(n log^2 n) time and O(n) memory.

    Two numbers differ first at one bit. So, for each bit from the top, count within the groups that share all higher
    bits the pairs with a 1 before a 0, then split the groups, keeping order.
    """
    total = 0
    for bit in reversed(range(int(values.max()).bit_length())):
        ones = (values >> bit) & 1
        before = ones.cumsum(0) - ones
        _, counts = torch.unique_consecutive(values >> (bit + 1), return_counts=True)
        at_start = before[counts.cumsum(0) - counts].repeat_interleave(counts)
        total += int(((before - at_start) * (1 - ones)).sum())
        values = values[torch.argsort(values >> bit, stable=True)]
    return total


def _tied_pairs(groups: Tensor) -> int:
    _, counts = torch.unique(groups, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def krcc(prediction: Tensor, target: Tensor) -> Tensor:
    """Kendall's rank correlation, tau-b.

    Knight's counting of discordant pairs ("A Computer Method for Calculating Kendall's Tau with Ungrouped Data", JASA
    1966), so time is nearly linear in N.

    Args:
        prediction: (N,).
        target: (N,).

    Returns:
        0-dim float64 in [-1, 1]; nan where either input is constant.

    Raises:
        ConfigurationError: As in ``checked_pair``.

    Example:
        >>> round(krcc(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 30.0, 20.0])).item(), 4)
        0.3333
    """
    prediction, target = checked_pair(prediction.detach(), target.detach())
    n = len(prediction)
    _, x = torch.unique(prediction, return_inverse=True)
    _, y = torch.unique(target, return_inverse=True)
    joint = x * n + y
    order = torch.argsort(joint)
    pairs = n * (n - 1) // 2
    x_ties, y_ties = _tied_pairs(x), _tied_pairs(y)
    if x_ties == pairs or y_ties == pairs:
        return torch.tensor(float("nan"), dtype=torch.float64)
    surplus = pairs - x_ties - y_ties + _tied_pairs(joint) - 2 * _inversions(y[order])
    tau = surplus / math.sqrt((pairs - x_ties) * (pairs - y_ties))
    return torch.tensor(tau, dtype=torch.float64).clamp(-1.0, 1.0)
