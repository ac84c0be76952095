"""Bootstrap confidence intervals of agreement (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import checked_pair, plcc, rmse, srcc

__all__ = ["Statistic", "bootstrap_interval", "bootstrap_values", "percentile_interval"]

Statistic = Callable[[Tensor, Tensor], Tensor]

# Numbers held at a time by the vectorised forms.
_AT_ONCE = 1_000_000


def _resampled_ranks(values: Tensor, times: Tensor) -> Tensor:
    """Average rank of each original point within each resample, (B, N); ``times`` says how often each was drawn."""
    _, group = torch.unique(values, return_inverse=True)
    sizes = torch.zeros(len(times), int(group.max()) + 1, dtype=torch.float64)
    sizes.index_add_(1, group, times)
    return (sizes.cumsum(dim=1) - (sizes - 1) / 2)[:, group]


def _weighted_pearson(a: Tensor, b: Tensor, times: Tensor) -> Tensor:
    """Pearson's correlation of each resample, (B,); nan where a or b is constant in it."""
    constant = torch.zeros(len(times), dtype=torch.bool)
    for values in (a, b):
        rows = values.expand_as(times)
        lowest = rows.masked_fill(times == 0, float("inf")).amin(dim=1)
        highest = rows.masked_fill(times == 0, float("-inf")).amax(dim=1)
        constant |= lowest == highest
    count = times.sum(dim=1, keepdim=True)
    a = a - (a * times).sum(dim=1, keepdim=True) / count
    b = b - (b * times).sum(dim=1, keepdim=True) / count
    joint = (a * b * times).sum(dim=1)
    # One root, as in ``correlation``: full agreement is exactly 1 here too, so that the interval holds the estimate.
    scale = ((a.square() * times).sum(dim=1) * (b.square() * times).sum(dim=1)).sqrt()
    return (joint / scale).clamp(-1.0, 1.0).masked_fill(constant, float("nan"))


def _all_at_once(statistic: Statistic, x: Tensor, y: Tensor, drawn: Tensor) -> Tensor | None:
    """The statistic of each resample (B,), by counting how often each point was drawn; None: no such form."""
    if statistic not in (srcc, plcc, rmse):
        return None
    times = torch.zeros(drawn.shape, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(times))
    if statistic is rmse:
        return ((x - y).square() * times).mean(dim=1).sqrt()
    if statistic is srcc:
        return _weighted_pearson(_resampled_ranks(x, times), _resampled_ranks(y, times), times)
    return _weighted_pearson(x / x.abs().max(), y / y.abs().max(), times)


def bootstrap_values(
    statistic: Statistic, prediction: Tensor, target: Tensor, *, generator: Generator, repeats: int = 1000
) -> Tensor:
    """A statistic of each of many resamples of the images.

    Images are drawn with replacement, as many as there are. SRCC, PLCC and RMSE are computed for many resamples at once,
    others one by one.

    Args:
        statistic: Function of (prediction, target), e.g. ``correlation.srcc``.
        prediction: (N,), N at least 2.
        target: (N,).
        generator: Source of randomness, on the CPU.
        repeats: B, number of resamples, at least 1.

    Returns:
        (B,), float64; nan where the statistic is undefined (one input constant).

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), a value is not finite, or ``repeats`` is below 1.
    """
    x, y = checked_pair(prediction.detach(), target.detach())
    if repeats < 1:
        raise ConfigurationError(f"a bootstrap needs at least 1 resample; found {repeats}; 1000 is usual")
    n = len(x)
    found: list[Tensor] = []
    done = 0
    while done < repeats:
        rows = min(repeats - done, max(1, _AT_ONCE // n))
        drawn = torch.randint(n, (rows, n), generator=generator)
        values = _all_at_once(statistic, x, y, drawn)
        if values is None:
            values = torch.stack([statistic(x[index], y[index]).cpu().double() for index in drawn])
        found.append(values)
        done += rows
    return torch.cat(found)


def percentile_interval(values: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """The interval that holds the middle share of resampled values.

    Args:
        values: (B,); those that are nan are skipped.
        level: Share of the distribution that the interval covers, between 0 and 1.

    Returns:
        Lower and upper end, 0-dim float64; both nan where every value was skipped.

    Raises:
        ConfigurationError: ``level`` is out of range.

    Example:
        >>> low, high = percentile_interval(torch.arange(101.0), level=0.9)
        >>> round(low.item(), 4), round(high.item(), 4)
        (5.0, 95.0)
    """
    if not 0 < level < 1:
        raise ConfigurationError(f"the interval's level must lie between 0 and 1; found {level}; 0.95 is usual")
    values = values[~values.isnan()].double()
    if len(values) == 0:
        nan = torch.tensor(float("nan"), dtype=torch.float64)
        return nan, nan.clone()
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(values, ends)
    return low, high


def bootstrap_interval(
    statistic: Statistic,
    prediction: Tensor,
    target: Tensor,
    *,
    generator: Generator,
    repeats: int = 1000,
    level: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Percentile interval of a statistic over resampled images.

    Resamples for which the statistic is nan (one input constant) are skipped. The percentile form keeps within the
    statistic's range and needs no further assumption; with few images it is somewhat too narrow.

    Args:
        statistic: Function of (prediction, target), e.g. ``correlation.srcc``.
        prediction: (N,), N at least 2.
        target: (N,).
        generator: Source of randomness, on the CPU.
        repeats: Number of resamples, at least 1.
        level: Share of the distribution that the interval covers, between 0 and 1.

    Returns:
        Lower and upper end, 0-dim float64; both nan where every resample was skipped.

    Raises:
        ConfigurationError: The shapes are not (N,) and (N,), a value is not finite, or a setting is out of range.

    Example:
        >>> scores = torch.arange(20.0)
        >>> low, high = bootstrap_interval(srcc, scores, scores, generator=torch.Generator().manual_seed(0), repeats=50)
        >>> round(low.item(), 4), round(high.item(), 4)
        (1.0, 1.0)
    """
    percentile_interval(torch.empty(0), level)  # what is wrong with the level is said before the work
    values = bootstrap_values(statistic, prediction, target, generator=generator, repeats=repeats)
    return percentile_interval(values, level)
