from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from iqakit.contracts import Calibration
from iqakit.errors import ConfigurationError
from iqakit.functional.calibration import (
    CalibrationFit,
    apply_calibration,
    check_curve,
    expected_error,
    fit_isotonic_calibration,
    fit_logistic_calibration,
)


def _is_sound(fit: CalibrationFit, raw: torch.Tensor) -> None:
    check_curve(fit)
    ordered = torch.unique(raw.double())
    points = apply_calibration(ordered, fit)
    assert bool((points.diff() >= 0).all())
    assert bool(((points >= 0) & (points <= 100)).all())
    near = torch.tensor([fit.centre - fit.width, fit.centre, fit.centre + fit.width], dtype=torch.float64)
    low, middle, high = apply_calibration(near, fit).tolist()
    assert low < middle < high


def test_logistic_against_plain_lines() -> None:
    curve = CalibrationFit(10.0, 90.0, 0.1, 0.5, 5.0)
    raw = torch.tensor([-3.0, 0.1, 0.4, 50.0, -1e30, 1e30])
    found = apply_calibration(raw, curve)
    assert found.dtype == torch.float32
    wanted = [10 + 80 / (1 + math.exp(-(x - 0.1) / 0.5)) for x in raw[:4].tolist()]
    assert found[:4].tolist() == pytest.approx(wanted, rel=1e-6)
    assert found[4:].tolist() == [10.0, 90.0]
    assert apply_calibration(raw.reshape(2, 3), curve).shape == (2, 3)


def test_isotonic_against_numpy_and_the_tilt_against_plain_lines() -> None:
    knots = ((-1.0, 5.0), (0.25, 40.0), (0.5, 41.0), (3.0, 95.0))
    curve = CalibrationFit(5.0, 95.0, 0.5, 0.25, 5.0, "isotonic", knots, tilt=0.25)
    raw = np.linspace(-3, 5, 200)
    z = (raw - 0.5) / 0.25
    wanted = 0.75 * np.interp(raw, *zip(*knots, strict=True)) + 12.5 * (1 + z / (1 + np.abs(z)))
    assert apply_calibration(torch.from_numpy(raw), curve).numpy() == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 40.0]))
def test_no_two_outputs_come_out_equal(seed: int, scale: float) -> None:
    """Ranks of points are exactly the ranks of raw outputs, on flat pieces, beyond the ends and in the logistic's tails."""
    rng = torch.Generator().manual_seed(seed)
    raw = scale * torch.randn(80, generator=rng)
    noise = torch.randn(80, generator=rng)
    target = (50 + 20 * raw / scale + 10 * noise).clamp(0, 100)
    probes = torch.unique(torch.cat([raw, raw.nextafter(torch.tensor(math.inf)), scale * torch.linspace(-40, 40, 500)]))
    spacing = probes.double().diff() > 1e-7 * scale  # the least that a float32 output of this size can differ by, about
    for fit in (fit_logistic_calibration(raw, target), fit_isotonic_calibration(raw, target)):
        assert fit is not None
        points = apply_calibration(probes.double(), fit)
        assert bool((points.diff()[spacing] > 0).all())
        assert bool((points.diff() >= 0).all())
        assert 0 <= points.min().item() < points.max().item() <= 100


def test_the_tilt_moves_no_score_by_more_than_a_hundredth_of_a_point() -> None:
    fit = fit_logistic_calibration(torch.arange(20.0), 5 * torch.arange(20.0))
    assert fit.tilt == 1e-4
    raw = torch.linspace(-500, 500, 1001, dtype=torch.float64)
    moved = (apply_calibration(raw, fit) - apply_calibration(raw, replace(fit, tilt=0.0))).abs()
    assert 0 < moved.max().item() <= 0.01


def test_expected_error() -> None:
    points = torch.tensor([0.0, 5.0, 20.0, 50.0, 80.0, 100.0], dtype=torch.float64)
    constant = CalibrationFit(10.0, 90.0, 0.1, 0.5, 8.0)
    assert expected_error(points, constant).tolist() == [8.0] * 6
    found = expected_error(points, replace(constant, residual_kind="bounded"))
    end = 8 * math.sqrt(5 * 95) / 50
    assert found.tolist() == pytest.approx([end, end, 8 * math.sqrt(20 * 80) / 50, 8.0, 8 * 0.8, end])


def test_fields_are_those_of_the_contract() -> None:
    fit = CalibrationFit(1.0, 2.0, 3.0, 4.0, 5.0)
    fields = CalibrationFit.__dataclass_fields__
    assert list(fields) == list(Calibration.__dataclass_fields__)
    assert all(fields[name].default == field.default for name, field in Calibration.__dataclass_fields__.items())
    assert Calibration(**asdict(fit)) == Calibration(1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 0.3), (500.0, -4000.0)])
def test_as_good_as_scipy_within_bounds(scale: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = np.clip(20 + 60 / (1 + np.exp(-(x - 0.3) / 0.7)) + rng.normal(size=400) * 6, 0, 100)
    raw = x * scale + shift
    fit = fit_logistic_calibration(torch.from_numpy(raw), torch.from_numpy(y))
    theirs = optimize.least_squares(
        lambda p: p[0] + (p[1] - p[0]) / (1 + np.exp(-(x - p[2]) / p[3])) - y,
        [10, 90, 0, 1],
        bounds=([0, 0, -9, 1e-3], [100, 100, 9, 99]),
    )
    best = math.sqrt(2 * theirs.cost / 400)
    assert best - 1e-9 <= fit.residual <= best * 1.002  # the weak pull costs next to nothing
    error = apply_calibration(torch.from_numpy(raw), fit) - torch.from_numpy(y)
    assert fit.residual == pytest.approx(error.square().mean().sqrt().item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_no_start_leads_into_a_dead_end(seed: int) -> None:
    """Scores that span nearly the whole scale once began the fit where the ends no longer move."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=200)
    y = np.clip(20 + 60 / (1 + np.exp(-x / 0.7)) + rng.normal(size=200) * 5, 0, 100)
    y[:2] = 2.0, 98.0
    fit = fit_logistic_calibration(torch.from_numpy(x), torch.from_numpy(y))
    theirs = optimize.least_squares(
        lambda p: p[0] + (p[1] - p[0]) / (1 + np.exp(-(x - p[2]) / p[3])) - y,
        [20, 80, 0, 0.7],
        bounds=([0, 0, -9, 1e-3], [100, 100, 9, 99]),
    )
    assert fit.residual <= math.sqrt(2 * theirs.cost / 200) * 1.002


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 100)), min_size=3, max_size=12),
    st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_always_sound_and_rising(points: list[tuple[float, float]], scale: float) -> None:
    raw, target = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    _is_sound(fit_logistic_calibration(scale * raw, target), scale * raw)


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
    fit = fit_logistic_calibration(torch.tensor(raw), torch.tensor(target))
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
    fit = fit_logistic_calibration(x, torch.tensor(target))
    _is_sound(fit, x)
    assert fit.width > 0.02 * x.std(correction=0).item()
    spread = torch.tensor(target).std(correction=0).item()
    assert fit.residual < spread  # better than the mean alone


def test_inputs_are_left_alone() -> None:
    raw, target = torch.randn(20).requires_grad_(), torch.rand(20) * 100
    before = raw.detach().clone(), target.clone()
    with torch.inference_mode():
        fit_logistic_calibration(raw, target)
    assert torch.equal(raw.detach(), before[0])
    assert torch.equal(target, before[1])


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="at least 3 scored images; found 2"):
        fit_logistic_calibration(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ConfigurationError, match="0-100; found -1 to 5"):
        fit_logistic_calibration(torch.zeros(3), torch.tensor([-1.0, 0.0, 5.0]))
    with pytest.raises(ConfigurationError, match="must be finite"):
        fit_logistic_calibration(torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3))
    for bad in ((-1, 50, 0, 1), (50, 50, 0, 1), (0, 101, 0, 1), (0, 100, 0, 0), (0, 100, math.nan, 1)):
        with pytest.raises(ConfigurationError, match="0 <= low < high <= 100 and width > 0"):
            apply_calibration(torch.zeros(1), CalibrationFit(*bad, 1.0))
    good = CalibrationFit(10.0, 90.0, 0.0, 1.0, 5.0, "isotonic", ((0.0, 10.0), (1.0, 90.0)), 1e-4)
    check_curve(good)
    for changes, message in (
        ({"tilt": 1.0}, "needs 0 <= tilt < 1 and residual >= 0; found tilt 1.0, residual 5.0"),
        ({"residual": -1.0}, "found tilt 0.0001, residual -1.0"),
        ({"kind": "spline"}, "is logistic or isotonic and its residual constant or bounded; found 'spline' and 'constant'"),
        ({"residual_kind": "wide"}, "found 'isotonic' and 'wide'"),
        ({"kind": "logistic"}, "a logistic calibration has no knots; found 2"),
        ({"knots": ((0.0, 10.0),)}, "at least 2 knots, rising in both, from low to high; found 1 knots"),
        ({"knots": ((1.0, 10.0), (1.0, 90.0))}, "rising in both"),
        ({"low": 9.0}, "from low to high; found 2 knots, low 9.0, high 90.0"),
        ({"tilt": 0.0}, "needs a tilt above 0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            check_curve(replace(good, **changes))
