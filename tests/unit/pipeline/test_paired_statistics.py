from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import ConfigurationError
from iqakit.pipeline.paired_statistics import paired_statistics


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def exact_wilcoxon(differences: list[float]) -> float:
    """Two-sided p by going through all signs; for few differences without ties."""
    order = np.argsort(np.argsort(np.abs(differences))) + 1
    observed = sum(rank for rank, value in zip(order, differences, strict=True) if value > 0)
    total = int(order.sum())
    sums = [sum(rank for bit, rank in enumerate(order) if signs >> bit & 1) for signs in range(2 ** len(differences))]
    extreme = min(observed, total - observed)
    return min(1.0, sum(s <= extreme for s in sums) * 2 / len(sums))


def test_figures_of_a_case_by_hand() -> None:
    a = [50.0, 60.0, 70.0, 80.0, 20.0, 30.0, 40.0]
    b = [51.0, 63.0, 68.0, 86.0, 25.0, 30.0, 47.0]
    found = paired_statistics(a, b, generator=generator())
    differences = [1.0, 3.0, -2.0, 6.0, 5.0, 7.0]
    assert (found.n, found.higher, found.lower, found.equal) == (7, 5, 1, 1)
    assert found.mean == pytest.approx(20 / 7)
    assert found.median == pytest.approx(3.0)
    assert found.mean_a == pytest.approx(50.0)
    assert found.mean_b == pytest.approx(370 / 7)
    assert found.wilcoxon_p == pytest.approx(exact_wilcoxon(differences))
    # Signs: 5 of 6; at most 1 or at least 5 of 6 heads.
    assert found.sign_p == pytest.approx((1 + 6 + 6 + 1) / 64)
    ranks = np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
    assert found.srcc == pytest.approx(ranks)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 20 / 7 < found.high


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=9, unique_by=abs))
def test_wilcoxon_is_the_count_over_all_signs(differences: list[int]) -> None:
    values = [float(value) for value in differences]
    found = paired_statistics([0.0] * len(values), values, generator=generator(), bootstrap=0)
    assert found.wilcoxon_p == pytest.approx(exact_wilcoxon(values))


def test_the_interval_is_near_the_normal_one() -> None:
    drawn = np.random.default_rng(3).normal(2.0, 5.0, 400)
    found = paired_statistics([0.0] * 400, drawn.tolist(), generator=generator(), bootstrap=2000)
    half = 1.96 * drawn.std() / math.sqrt(400)
    assert found.low == pytest.approx(drawn.mean() - half, abs=0.1)
    assert found.high == pytest.approx(drawn.mean() + half, abs=0.1)
    again = paired_statistics([0.0] * 400, drawn.tolist(), generator=generator(), bootstrap=2000)
    assert again == found


def test_what_is_undefined_is_none() -> None:
    empty = paired_statistics([], [], generator=generator())
    assert (empty.n, empty.mean, empty.low, empty.wilcoxon_p, empty.srcc) == (0, None, None, None, None)
    one = paired_statistics([1.0], [2.0], generator=generator())
    assert (one.mean, one.low, one.sign_p, one.srcc) == (1.0, None, 1.0, None)
    same = paired_statistics([1.0, 1.0], [1.0, 1.0], generator=generator())
    assert (same.mean, same.wilcoxon_p, same.sign_p, same.equal, same.srcc) == (0.0, None, None, 2, None)
    assert (same.low, same.high) == (0.0, 0.0)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="found 2 and 1"):
        paired_statistics([1.0, 2.0], [1.0], generator=generator())
    with pytest.raises(ConfigurationError, match="bootstrap must be 0 or more"):
        paired_statistics([1.0], [1.0], generator=generator(), bootstrap=-1)
