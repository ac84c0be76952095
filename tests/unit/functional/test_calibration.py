from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from iqakit.contracts import Calibration
from iqakit.errors import ConfigurationError
from iqakit.functional.calibration import CalibrationFit, apply_calibration, fit_calibration


def _map(fit: CalibrationFit) -> tuple[float, float, float, float]:
    return fit.low, fit.high, fit.centre, fit.width


def _is_sound(fit: CalibrationFit, raw: torch.Tensor) -> None:
    assert all(math.isfinite(value) for value in (*_map(fit), fit.residual))
    assert 0 <= fit.low < fit.high <= 100
    assert fit.width > 0
    ordered = torch.unique(raw.double())
    points = apply_calibration(ordered, *_map(fit))
    assert bool((points.diff() >= 0).all())
    near = torch.tensor([fit.centre - fit.width, fit.centre, fit.centre + fit.width], dtype=torch.float64)
    low, middle, high = apply_calibration(near, *_map(fit)).tolist()
    assert low < middle < high


def test_application_against_plain_lines() -> None:
    raw = torch.tensor([-3.0, 0.1, 0.4, 50.0, -1e30, 1e30])
    found = apply_calibration(raw, 10.0, 90.0, 0.1, 0.5)
    assert found.dtype == torch.float32
    wanted = [10 + 80 / (1 + math.exp(-(x - 0.1) / 0.5)) for x in raw[:4].tolist()]
    assert found[:4].tolist() == pytest.approx(wanted, rel=1e-6)
    assert found[4:].tolist() == [10.0, 90.0]
    assert apply_calibration(raw.reshape(2, 3), 10.0, 90.0, 0.1, 0.5).shape == (2, 3)


def test_fields_are_those_of_the_contract() -> None:
    fit = CalibrationFit(1.0, 2.0, 3.0, 4.0, 5.0)
    assert list(CalibrationFit.__dataclass_fields__) == list(Calibration.__dataclass_fields__)
    assert Calibration(fit.low, fit.high, fit.centre, fit.width, fit.residual).high == 2.0


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 0.3), (500.0, -4000.0)])
def test_as_good_as_scipy_within_bounds(scale: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = np.clip(20 + 60 / (1 + np.exp(-(x - 0.3) / 0.7)) + rng.normal(size=400) * 6, 0, 100)
    raw = x * scale + shift
    fit = fit_calibration(torch.from_numpy(raw), torch.from_numpy(y))
    theirs = optimize.least_squares(
        lambda p: p[0] + (p[1] - p[0]) / (1 + np.exp(-(x - p[2]) / p[3])) - y,
        [10, 90, 0, 1],
        bounds=([0, 0, -9, 1e-3], [100, 100, 9, 99]),
    )
    best = math.sqrt(2 * theirs.cost / 400)
    assert best - 1e-9 <= fit.residual <= best * 1.002  # the weak pull costs next to nothing
    error = apply_calibration(torch.from_numpy(raw), *_map(fit)) - torch.from_numpy(y)
    assert fit.residual == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 100)), min_size=3, max_size=12),
    st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_always_sound_and_rising(points: list[tuple[float, float]], scale: float) -> None:
    raw, target = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    _is_sound(fit_calibration(scale * raw, target), scale * raw)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        ([0.0, 1.0, 2.0, 3.0], [90.0, 60.0, 30.0, 10.0]),  # falls
        ([0.5, 0.5, 0.5, 0.5], [90.0, 60.0, 30.0, 10.0]),  # constant raw
        ([0.5, 0.5 + 1e-12, 0.5, 0.5], [10.0, 60.0, 30.0, 10.0]),  # nearly constant raw
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, 1.0, 2.0], [100.0, 100.0, 100.0]),  # constant target
        ([0.0, 1.0, 2.0], [50.0, 50.0, 50.0]),
    ],
)
def test_without_evidence_the_map_is_gentle_and_near_the_mean(raw: list[float], target: list[float]) -> None:
    fit = fit_calibration(torch.tensor(raw), torch.tensor(target))
    _is_sound(fit, torch.tensor(raw))
    assert fit.high - fit.low <= 10 + 1e-9
    mean = sum(target) / len(target)
    assert fit.low - 1e-9 <= mean <= fit.high + 1e-9


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        ([0.0, 1.0, 2.0], [20.0, 50.0, 80.0]),
        ([0.0, 1.0, 2.0], [0.0, 0.0, 100.0]),
        ([0.0, 0.001, 5.0], [10.0, 90.0, 91.0]),
        ([-1.0, 0.0, 1.0, 2.0], [0.0, 33.0, 66.0, 100.0]),
    ],
)
def test_few_points_make_no_step(raw: list[float], target: list[float]) -> None:
    x = torch.tensor(raw, dtype=torch.float64)
    fit = fit_calibration(x, torch.tensor(target))
    _is_sound(fit, x)
    assert fit.width > 0.02 * x.std(correction=0).item()
    spread = torch.tensor(target).std(correction=0).item()
    assert fit.residual < spread  # better than the mean alone


def test_inputs_are_left_alone() -> None:
    raw, target = torch.randn(20).requires_grad_(), torch.rand(20) * 100
    before = raw.detach().clone(), target.clone()
    with torch.inference_mode():
        fit_calibration(raw, target)
    assert torch.equal(raw.detach(), before[0])
    assert torch.equal(target, before[1])


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="at least 3 scored images; found 2"):
        fit_calibration(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ConfigurationError, match="0-100; found -1 to 5"):
        fit_calibration(torch.zeros(3), torch.tensor([-1.0, 0.0, 5.0]))
    with pytest.raises(ConfigurationError, match="must be finite"):
        fit_calibration(torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3))
    for bad in ((-1, 50, 0, 1), (50, 50, 0, 1), (0, 101, 0, 1), (0, 100, 0, 0), (0, 100, math.nan, 1)):
        with pytest.raises(ConfigurationError, match="0 <= low < high <= 100 and width > 0"):
            apply_calibration(torch.zeros(1), *bad)
