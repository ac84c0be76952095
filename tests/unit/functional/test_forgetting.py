from __future__ import annotations

import math

import pytest
import torch

from iqakit.errors import ConfigurationError
from iqakit.functional.forgetting import mean_srcc, plasticity, stability, trade_off

NAN = math.nan
R = torch.tensor([[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.5, 0.6, 0.4]])
P = torch.tensor([[1.0, NAN, NAN], [0.8, 1.0, NAN], [0.6, 0.9, 1.0]])


def test_by_hand() -> None:
    assert mean_srcc(R).item() == pytest.approx((0.5 + 0.6 + 0.4) / 3)
    assert plasticity(R).item() == pytest.approx((0.9 + 0.8 + 0.4) / 3)
    assert stability(P).item() == pytest.approx((1 + 0.8 + (0.6 + 0.9) / 2) / 3)
    assert trade_off(R, P).item() == pytest.approx((0.7 + 0.85) / 2)
    for found in (mean_srcc(R), plasticity(R), stability(P), trade_off(R, P)):
        assert found.shape == ()
        assert found.dtype == torch.float64


def test_what_stands_above_the_diagonal_does_not_count() -> None:
    other = R.nan_to_num(123.0)
    assert mean_srcc(other) == mean_srcc(R)
    assert plasticity(other) == plasticity(R)
    assert stability(P.nan_to_num(-5.0)) == stability(P)


def test_nothing_forgotten() -> None:
    fixed = torch.tensor([0.9, 0.8, 0.4]).expand(3, 3).tril()
    assert mean_srcc(fixed) == plasticity(fixed)
    assert stability(torch.ones(3, 3).tril()).item() == 1.0


def test_one_task() -> None:
    one = torch.tensor([[0.8]])
    assert mean_srcc(one).item() == plasticity(one).item() == pytest.approx(0.8)
    assert stability(torch.tensor([[NAN]])).item() == 1.0


def test_a_figure_that_could_not_be_measured_shows() -> None:
    broken = R.clone()
    broken[2, 1] = NAN
    assert math.isnan(mean_srcc(broken).item())
    assert not math.isnan(plasticity(broken).item())
    assert math.isnan(stability(broken).item())


def test_mistakes_are_named() -> None:
    for figure in (mean_srcc, plasticity, stability):
        for shape in ((2, 3), (3,), (0, 0)):
            with pytest.raises(ConfigurationError, match="square matrix"):
                figure(torch.zeros(shape))
    with pytest.raises(ConfigurationError, match=r"one shape; found \(3, 3\) and \(2, 2\)"):
        trade_off(R, P[:2, :2])
