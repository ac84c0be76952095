from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import average_ranks, krcc, plcc, rmse, srcc

FIGURES = (srcc, krcc, plcc, rmse)


def _pair(n: int, decimals: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n).round(decimals)
    return x, (x + rng.normal(size=n)).round(decimals)


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("n", [2, 3, 17, 500])
def test_against_scipy(n: int, decimals: int) -> None:
    x, y = _pair(n, decimals, seed=n)
    if len(set(x)) == 1 or len(set(y)) == 1:
        x[0] += 1
        y[-1] -= 1
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert srcc(a, b).item() == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    assert krcc(a, b).item() == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-12)
    assert plcc(a, b).item() == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
    assert rmse(a, b).item() == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=40))
def test_heavy_ties_against_counting_every_pair(points: list[tuple[int, int]]) -> None:
    x, y = (torch.tensor(column) for column in zip(*points, strict=True))
    n = len(points)
    agree = x_apart = y_apart = 0
    for i in range(n):
        for j in range(i):
            dx, dy = np.sign(points[i][0] - points[j][0]), np.sign(points[i][1] - points[j][1])
            agree, x_apart, y_apart = agree + dx * dy, x_apart + abs(dx), y_apart + abs(dy)
    found = krcc(x, y).item()
    if x_apart == 0 or y_apart == 0:
        assert math.isnan(found)
        assert math.isnan(srcc(x, y).item())
    else:
        assert found == pytest.approx(agree / math.sqrt(x_apart * y_apart), abs=1e-12)
        assert srcc(x, y).item() == pytest.approx(stats.spearmanr(*zip(*points, strict=True))[0], abs=1e-12)


def test_kendall_of_twenty_thousand() -> None:
    x, y = _pair(20_000, 2)
    assert krcc(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(stats.kendalltau(x, y)[0], abs=1e-12)


def test_average_ranks() -> None:
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0, 1.0])
    assert average_ranks(values).tolist() == stats.rankdata(values.numpy()).tolist()


@pytest.mark.parametrize("figure", [srcc, krcc, plcc])
def test_constant_is_nan(figure) -> None:
    # 0.1 thrice: the mean is off by one rounding, so a variance compared with 0 would miss it.
    flat, other = torch.full((3,), 0.1, dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0])
    for pair in ((flat, other), (other, flat), (flat, flat)):
        found = figure(*pair)
        assert found.ndim == 0
        assert math.isnan(found.item())


@pytest.mark.parametrize("figure", FIGURES)
def test_results_are_scalars_and_dtypes_do_not_matter(figure) -> None:
    x, y = torch.tensor([1, 5, 2, 9]), torch.tensor([2, 4, 3, 8])
    found = figure(x, y)
    assert found.shape == ()
    assert found.dtype == torch.float64
    assert figure(x.float(), y.half()).item() == pytest.approx(found.item())


def test_huge_and_tiny_values() -> None:
    x, y = _pair(50, 12)
    wanted = stats.pearsonr(x, y)[0]
    assert plcc(torch.from_numpy(x * 1e300), torch.from_numpy(y * 1e-300)).item() == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 60))
def test_rank_figures_ignore_rising_maps_and_flip_with_sign(seed: int, n: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, generator=rng, dtype=torch.float64), torch.randn(n, generator=rng, dtype=torch.float64)
    for figure in (srcc, krcc):
        found = figure(x, y).item()
        assert -1 <= found <= 1
        assert figure(x.exp(), y**3).item() == pytest.approx(found, abs=1e-12)
        assert figure(-x, y).item() == pytest.approx(-found, abs=1e-12)
        assert figure(y, x).item() == pytest.approx(found, abs=1e-12)


def test_plcc_and_rmse_can_be_learned_from() -> None:
    x, y = torch.randn(8, generator=torch.Generator().manual_seed(0)).double().requires_grad_(), torch.arange(8.0).double()
    assert torch.autograd.gradcheck(lambda v: plcc(v, y), (x,))
    assert torch.autograd.gradcheck(lambda v: rmse(v, y), (x,))


def test_rmse_of_equal_inputs_has_a_finite_gradient() -> None:
    x = torch.arange(4.0, dtype=torch.float64, requires_grad=True)
    error = rmse(x, x.detach())
    error.backward()
    assert error.item() == 0
    assert x.grad is not None
    assert x.grad.tolist() == [0.0] * 4


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=60).filter(lambda values: len(set(values)) > 1))
def test_full_agreement_is_exactly_one(values: list[int]) -> None:
    # Figures of forgetting compare predictions with themselves: what did not change has to be 1, not 1 - 2e-16.
    x = torch.tensor(values) / 7
    for figure in (srcc, krcc, plcc):
        assert figure(x, x).item() == 1.0
        assert figure(x, -x).item() == -1.0


@pytest.mark.parametrize("figure", FIGURES)
def test_bad_input_is_named(figure) -> None:
    good = torch.arange(4.0)
    with pytest.raises(ConfigurationError, match=r"shape \(N,\); found \(4,\) and \(3,\)"):
        figure(good, good[:3])
    with pytest.raises(ConfigurationError, match=r"found \(4, 1\) and \(4, 1\)"):
        figure(good[:, None], good[:, None])
    with pytest.raises(ConfigurationError, match="at least 2 points; found 1"):
        figure(good[:1], good[:1])
    bad = torch.tensor([1.0, float("nan"), float("inf"), 2.0])
    with pytest.raises(ConfigurationError, match="predictions must be finite; found 2 of 4"):
        figure(bad, good)
    with pytest.raises(ConfigurationError, match="targets must be finite; found 2 of 4"):
        figure(good, bad)
