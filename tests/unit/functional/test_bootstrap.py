from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from iqakit.errors import ConfigurationError
from iqakit.functional.bootstrap import bootstrap_interval
from iqakit.functional.correlation import krcc, plcc, rmse, srcc


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pair(n: int, decimals: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = _rng(seed)
    x = torch.randn(n, generator=rng).round(decimals=decimals)
    return x, (x + torch.randn(n, generator=rng)).round(decimals=decimals)


@pytest.mark.parametrize("statistic", [srcc, plcc, rmse])
@pytest.mark.parametrize("n", [3, 60])
def test_many_at_once_equals_one_by_one(statistic, n: int) -> None:
    x, y = _pair(n, decimals=0)
    at_once = bootstrap_interval(statistic, x, y, generator=_rng(), repeats=200)
    one_by_one = bootstrap_interval(lambda p, t: statistic(p, t), x, y, generator=_rng(), repeats=200)
    assert [v.item() for v in at_once] == pytest.approx([v.item() for v in one_by_one], abs=1e-9)


@pytest.mark.parametrize("statistic", [srcc, plcc, krcc, rmse])
def test_holds_the_estimate_and_widens_with_the_level(statistic) -> None:
    x, y = _pair(150)
    low, high = bootstrap_interval(statistic, x, y, generator=_rng(), repeats=300)
    low_wide, high_wide = bootstrap_interval(statistic, x, y, generator=_rng(), repeats=300, level=0.99)
    assert low < statistic(x, y) < high
    assert low_wide <= low < high <= high_wide


@pytest.mark.parametrize("n", [2, 5, 17])
def test_an_interval_holds_full_agreement_to_the_last_digit(n: int) -> None:
    x = torch.arange(float(n)) / 7
    for statistic in (srcc, plcc, krcc):
        assert [end.item() for end in bootstrap_interval(statistic, x, x, generator=_rng(), repeats=50)] == [1.0, 1.0]
        assert [end.item() for end in bootstrap_interval(statistic, x, -x, generator=_rng(), repeats=50)] == [-1.0, -1.0]


def test_against_scipy() -> None:
    x, y = _pair(200, decimals=6)
    low, high = bootstrap_interval(plcc, x, y, generator=_rng(), repeats=4000)
    theirs = stats.bootstrap(
        (x.double().numpy(), y.double().numpy()),
        lambda a, b: stats.pearsonr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        random_state=0,
    ).confidence_interval
    assert low.item() == pytest.approx(theirs.low, abs=0.01)
    assert high.item() == pytest.approx(theirs.high, abs=0.01)


def test_covers_about_as_often_as_it_says() -> None:
    truth, hits = 6 / math.pi * math.asin(math.sqrt(0.5) / 2), 0  # Spearman's rho of a normal pair with r = sqrt(1/2)
    for seed in range(100):
        x, y = _pair(80, decimals=6, seed=seed)
        low, high = bootstrap_interval(srcc, x, y, generator=_rng(seed), repeats=200, level=0.9)
        hits += int(low.item() <= truth <= high.item())
    assert 80 <= hits <= 98


def test_constant_resamples_are_skipped() -> None:
    # With three points, one resample in nine repeats one point thrice.
    low, high = bootstrap_interval(srcc, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]), generator=_rng())
    assert low.item() == -1.0
    assert high.item() == 1.0


def test_all_skipped_is_nan() -> None:
    for statistic in (srcc, krcc, plcc):
        ends = bootstrap_interval(statistic, torch.full((4,), 0.1), torch.arange(4.0), generator=_rng(), repeats=20)
        assert all(math.isnan(end.item()) for end in ends)


def test_repeats_under_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = _pair(50)
    state = torch.get_rng_state()
    first = bootstrap_interval(srcc, x, y, generator=_rng(3), repeats=100)
    monkeypatch.setattr("iqakit.functional.bootstrap._AT_ONCE", 500)  # in ten helpings
    assert bootstrap_interval(srcc, x, y, generator=_rng(3), repeats=100) == first
    assert bootstrap_interval(srcc, x, y, generator=_rng(4), repeats=100) != first
    assert torch.equal(state, torch.get_rng_state())


def test_mistakes_are_named() -> None:
    x, y = _pair(5)
    with pytest.raises(ConfigurationError, match="at least 1 resample; found 0"):
        bootstrap_interval(srcc, x, y, generator=_rng(), repeats=0)
    for level in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(ConfigurationError, match="between 0 and 1; found"):
            bootstrap_interval(srcc, x, y, generator=_rng(), level=level)
    with pytest.raises(ConfigurationError, match="at least 2 points"):
        bootstrap_interval(srcc, x[:1], y[:1], generator=_rng())
