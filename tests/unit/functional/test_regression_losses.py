"""Regression losses against plain references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from iqakit.errors import ConfigurationError
from iqakit.functional.regression import centred_smooth_l1_loss, plcc_loss


@given(st.integers(0, 2**31), st.integers(3, 20), st.floats(0.1, 50), st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_plcc_loss_is_pearson_whatever_scale_and_offset(seed: int, count: int, scale: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=count), rng.normal(size=count)
    ours = float(plcc_loss(torch.from_numpy(a * scale + offset), torch.from_numpy(b)))
    assert ours == pytest.approx((1 - pearsonr(a, b).statistic) / 2, abs=1e-9)


def test_ends_of_the_plcc_loss() -> None:
    x = torch.arange(5.0)
    assert float(plcc_loss(2 * x + 1, x)) == pytest.approx(0, abs=1e-6)
    assert float(plcc_loss(-x, x)) == pytest.approx(1, abs=1e-6)


def test_a_constant_side_has_loss_half_and_finite_gradients() -> None:
    constant = torch.ones(4, requires_grad=True)
    loss = plcc_loss(constant, torch.arange(4.0))
    loss.backward()
    assert float(loss.detach()) == 0.5
    assert constant.grad is not None
    assert bool(torch.isfinite(constant.grad).all())


def test_centred_smooth_l1_in_plain_lines() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9) * 3, rng.normal(size=9)
    gap = np.abs((a - a.mean()) - (b - b.mean()))
    expected = np.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean()
    assert float(centred_smooth_l1_loss(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected)
    assert float(centred_smooth_l1_loss(torch.from_numpy(b + 7), torch.from_numpy(b))) == pytest.approx(0, abs=1e-12)


def test_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, generator=rng).double().requires_grad_(), torch.randn(6, generator=rng).double()
    assert torch.autograd.gradcheck(lambda x: plcc_loss(x, y), (x,))
    assert torch.autograd.gradcheck(lambda x: centred_smooth_l1_loss(x, y), (x,))


@pytest.mark.parametrize("loss", [plcc_loss, centred_smooth_l1_loss])
@pytest.mark.parametrize(("a", "b"), [((3,), (4,)), ((1,), (1,)), ((2, 2), (2, 2))])
def test_shapes_that_do_not_fit_are_named(loss: object, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="at least two images; found shapes"):
        loss(torch.zeros(a), torch.zeros(b))  # type: ignore[operator]
