"""What paired differences say: their mean with an interval, two tests, and how alike two orders are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iqakit.errors import ConfigurationError, MissingExtraError
from iqakit.functional.bootstrap import bootstrap_interval
from iqakit.functional.correlation import srcc

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class PairedStatistics:
    """Figures over n pairs; None where a figure is undefined.

    Attributes:
        n: Pairs.
        mean_a: Mean of the first of each pair.
        mean_b: Mean of the second.
        mean: Mean of second minus first.
        low: Lower end of the 95 % bootstrap interval of the mean; None with fewer than two pairs or no resamples.
        high: Upper end.
        median: Median of the differences.
        higher: Pairs whose second is higher.
        lower: Pairs whose second is lower.
        equal: Pairs without a difference.
        wilcoxon_p: P value of the two-sided Wilcoxon signed-rank test; pairs without a difference are left out.
        sign_p: P value of the two-sided sign test; pairs without a difference are left out.
        srcc: Spearman correlation of first and second over the pairs.
    """

    n: int
    mean_a: float | None
    mean_b: float | None
    mean: float | None
    low: float | None
    high: float | None
    median: float | None
    higher: int
    lower: int
    equal: int
    wilcoxon_p: float | None
    sign_p: float | None
    srcc: float | None


def paired_statistics(
    first: Sequence[float], second: Sequence[float], *, generator: Generator, bootstrap: int = 1000
) -> PairedStatistics:
    """Figures over pairs of numbers.

    The interval is the percentile bootstrap over pairs (Efron 1979). Wilcoxon's signed-rank test (1945) and the sign test
    are scipy's: exact for few pairs, by the normal approximation for many.

    Args:
        first: N finite numbers.
        second: N finite numbers, in the same order.
        generator: Source of randomness of the bootstrap, on the CPU.
        bootstrap: Resamples; 0: no interval.

    Raises:
        ConfigurationError: There are not as many of both, or ``bootstrap`` is negative.
        MissingExtraError: scipy is not installed.
    """
    if len(first) != len(second):
        raise ConfigurationError(f"pairs need as many first as second numbers; found {len(first)} and {len(second)}")
    if bootstrap < 0:
        raise ConfigurationError(f"bootstrap must be 0 or more, but it is {bootstrap}")
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    difference = b - a
    higher, lower = int((difference > 0).sum()), int((difference < 0).sum())
    low = high = None
    if bootstrap and len(a) > 1:
        low, high = map(float, bootstrap_interval(_mean_rise, a, b, generator=generator, repeats=bootstrap, level=LEVEL))
    wilcoxon_p, sign_p = _p_values(difference[difference != 0], higher)
    agreement = float(srcc(a, b)) if len(a) > 1 else None
    return PairedStatistics(
        n=len(a),
        mean_a=_mean(a),
        mean_b=_mean(b),
        mean=_mean(difference),
        low=low,
        high=high,
        median=float(difference.quantile(0.5)) if len(a) else None,
        higher=higher,
        lower=lower,
        equal=len(a) - higher - lower,
        wilcoxon_p=wilcoxon_p,
        sign_p=sign_p,
        srcc=None if agreement is None or agreement != agreement else agreement,
    )


def _mean_rise(first: Tensor, second: Tensor) -> Tensor:
    return (second - first).mean()


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _p_values(changed: Tensor, higher: int) -> tuple[float | None, float | None]:
    """P values of Wilcoxon's test and of the sign test over the pairs that differ; None where there are none."""
    if not len(changed):
        return None, None
    try:
        from scipy.stats import binomtest, wilcoxon
    except ImportError as error:
        raise MissingExtraError(
            'the significance of differences is computed by scipy, which is not installed; pip install "iqakit[sets]"'
        ) from error
    return float(wilcoxon(changed.numpy()).pvalue), float(binomtest(higher, len(changed)).pvalue)
