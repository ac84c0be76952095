from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from iqakit.errors import ConfigurationError
from iqakit.functional.correlation import plcc, rmse, srcc
from iqakit.functional.logistic import apply_logistic, fit_logistic, least_squares


def _vqeg(x, low, high, centre, width):
    return low + (high - low) / (1 + np.exp(-(x - centre) / width))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.5), (1e4, -3e4)])
def test_as_good_as_scipy(scale: float, shift: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=300)
    y = _vqeg(x, 15, 85, 0.2, 0.6) + rng.normal(size=300) * 6
    theirs, _ = optimize.curve_fit(_vqeg, x, y, p0=[0, 100, 0, 1])
    ours = fit_logistic(torch.from_numpy(x * scale + shift), torch.from_numpy(y))
    assert ours[:2].numpy() == pytest.approx(theirs[:2], rel=1e-4)
    assert ours[2].item() == pytest.approx(theirs[2] * scale + shift, abs=1e-4 * scale)
    assert ours[3].item() == pytest.approx(theirs[3] * scale, rel=1e-4)
    mapped = apply_logistic(torch.from_numpy(x * scale + shift), ours)
    assert mapped.numpy() == pytest.approx(_vqeg(x, *theirs), abs=1e-3)


@pytest.mark.parametrize("width", [0.05, 0.3, 3.0])
def test_recovers_an_exact_map(width: float) -> None:
    x = torch.linspace(-2, 2, 81, dtype=torch.float64)
    truth = torch.tensor([10.0, 70.0, 0.3, width], dtype=torch.float64)
    y = apply_logistic(x, truth)
    assert torch.allclose(apply_logistic(x, fit_logistic(x, y)), y, atol=1e-3)


def test_falling_data_get_a_falling_map() -> None:
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)
    y = 50 - 30 * torch.tanh(x)
    parameters = fit_logistic(x, y)
    assert parameters[0] > parameters[1]
    assert parameters[3] > 0
    assert plcc(apply_logistic(x, parameters), y).item() > 0.9999


def test_straight_line_data_stay_finite() -> None:
    x = torch.linspace(0, 1, 40, dtype=torch.float64)
    parameters = fit_logistic(x, 100 * x)
    assert bool(torch.isfinite(parameters).all())
    assert rmse(apply_logistic(x, parameters), 100 * x).item() < 0.5


@pytest.mark.parametrize("flat", ["prediction", "target"])
def test_constant_input_gives_the_mean(flat: str) -> None:
    x, y = torch.full((5,), 0.1), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    pair = (x, y) if flat == "prediction" else (y, x)
    mapped = apply_logistic(pair[0], fit_logistic(*pair))
    assert torch.allclose(mapped, pair[1].double().mean().expand(5))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_never_worse_than_the_mean_and_monotone(seed: int, n: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, generator=rng, dtype=torch.float64), torch.randn(n, generator=rng, dtype=torch.float64)
    parameters = fit_logistic(x, y)
    mapped = apply_logistic(x, parameters)
    assert bool(torch.isfinite(mapped).all())
    assert float((mapped - y).square().mean()) <= float((y - y.mean()).square().mean()) + 1e-9
    grid = apply_logistic(torch.linspace(-3, 3, 50, dtype=torch.float64), parameters)
    steps = grid.diff()
    assert bool((steps >= 0).all()) or bool((steps <= 0).all())


def test_mapping_keeps_ranks() -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(100, generator=rng, dtype=torch.float64)
    y = x + torch.randn(100, generator=rng, dtype=torch.float64)
    assert srcc(apply_logistic(x, fit_logistic(x, y)), y).item() == pytest.approx(srcc(x, y).item(), abs=1e-12)


def test_least_squares_against_scipy_on_another_problem() -> None:
    t = np.linspace(0, 4, 30)
    y = 3.0 * np.exp(-0.7 * t) + 0.1 * np.sin(9 * t)

    def residuals(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(t)
        decay = torch.exp(-p[1] * x)
        return p[0] * decay - torch.from_numpy(y), torch.stack([decay, -p[0] * x * decay], dim=1)

    point, cost = least_squares(residuals, torch.tensor([1.0, 0.1], dtype=torch.float64))
    theirs = optimize.least_squares(lambda p: p[0] * np.exp(-p[1] * t) - y, [1.0, 0.1])
    assert point.numpy() == pytest.approx(theirs.x, rel=1e-5)
    assert cost == pytest.approx(2 * theirs.cost, rel=1e-9)


def test_bad_parameters_and_points_are_named() -> None:
    with pytest.raises(ConfigurationError, match="4 finite parameters"):
        apply_logistic(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ConfigurationError, match="width above 0"):
        apply_logistic(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    with pytest.raises(ConfigurationError, match="4 finite parameters"):
        apply_logistic(torch.zeros(3), torch.tensor([0.0, math.nan, 0.0, 1.0]))
    with pytest.raises(ConfigurationError, match="predictions must be finite"):
        fit_logistic(torch.tensor([0.0, math.nan]), torch.zeros(2))
