from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from iqakit.errors import ConfigurationError
from iqakit.functional.calibration import fit_isotonic_calibration
from iqakit.functional.isotonic import interpolate, isotonic_knots, pool_adjacent_violators

PAIRS = st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_pooling_against_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    theirs = IsotonicRegression().fit(np.arange(len(values)), values, weights).predict(np.arange(len(values)))
    found = pool_adjacent_violators(torch.from_numpy(values), torch.from_numpy(weights))
    assert found.numpy() == pytest.approx(theirs, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_knots_rise_and_are_few(images: int, seed: int, ties: bool) -> None:
    rng = torch.Generator().manual_seed(seed)
    raw = torch.randn(images, generator=rng, dtype=torch.float64)
    raw = raw.round(decimals=1) if ties else raw
    target = 100 * torch.rand(images, generator=rng, dtype=torch.float64)
    knots = isotonic_knots(raw, target)
    assert 1 <= len(knots) <= 20
    assert all(left[0] < right[0] and left[1] < right[1] for left, right in pairwise(knots))
    assert float(raw.min()) - 1e-9 <= knots[0][0] <= knots[-1][0] <= float(raw.max()) + 1e-9
    order = torch.randperm(images, generator=rng)
    shuffled = isotonic_knots(raw[order], target[order])
    if not ties:
        assert np.array(shuffled) == pytest.approx(np.array(knots), rel=1e-9)
    probes = torch.linspace(-5, 5, 101, dtype=torch.float64)
    assert interpolate(probes, knots).numpy() == pytest.approx(np.interp(probes, *zip(*knots, strict=True)), abs=1e-9)


def test_knots_against_plain_lines() -> None:
    raw = torch.tensor([*range(5), *range(10, 15), *range(20, 25), *range(30, 37)], dtype=torch.float64)
    target = torch.tensor([10.0] * 5 + [40.0] * 5 + [30.0] * 5 + [80.0] * 7)
    # Groups of five and a last one of seven; the second and third fall, so they are pooled at their common centre.
    assert isotonic_knots(raw, target) == ((2.0, 10.0), (17.0, 35.0), (33.0, 80.0))


def test_equal_outputs_are_never_parted() -> None:
    raw = torch.tensor([1.0] * 8 + [2.0] * 2 + [3.0] * 5)
    assert isotonic_knots(raw, torch.arange(15.0)) == ((1.0, 3.5), (2.0, 8.5), (3.0, 12.0))
    assert isotonic_knots(torch.ones(30), torch.arange(30.0)) == ((1.0, 14.5),)


def test_a_curve_that_nothing_supports_is_no_calibration() -> None:
    raw = torch.arange(40.0)
    assert fit_isotonic_calibration(raw, 90 - raw) is None  # falls
    assert fit_isotonic_calibration(torch.ones(40), raw) is None
    assert fit_isotonic_calibration(raw, 50 + 0.01 * raw) is None  # rises by less than a point
    assert fit_isotonic_calibration(raw[:5], 10 * raw[:5]) is None  # one group
    assert fit_isotonic_calibration(raw, 2 * raw) is not None


def test_no_images() -> None:
    with pytest.raises(ConfigurationError, match="at least 2 points; found 0"):
        isotonic_knots(torch.zeros(0), torch.zeros(0))
