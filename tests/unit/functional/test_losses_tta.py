from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.functional.contrastive import group_contrastive_loss
from iqakit.functional.ranking import relative_rank_loss


def _plain(low: torch.Tensor, high: torch.Tensor, t: float, reduction: str) -> float:
    groups = [[(v / v.norm()).tolist() for v in group.double()] for group in (low, high)]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    shares = []
    for own, other in (groups, groups[::-1]):
        for i, anchor in enumerate(own):
            alike = [dot(anchor, v) for j, v in enumerate(own) if j != i]
            s = math.exp(sum(alike) / len(alike) / t)
            shares.append(s / (s + sum(math.exp(dot(anchor, v) / t) for v in other)))
    if reduction == "log-mean":
        return -math.log(sum(shares) / len(shares))
    return -sum(math.log(r) for r in shares) / len(shares)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 9), st.sampled_from([0.1, 0.5, 2.0]))
def test_contrastive_against_plain_lines(seed: int, k: int, e: int, t: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    low, high = torch.randn(k, e, generator=rng).double(), torch.randn(k, e, generator=rng).double()
    for reduction in ("log-mean", "mean-log"):
        found = group_contrastive_loss(low, high, t, reduction).item()
        assert found == pytest.approx(_plain(low, high, t, reduction), rel=1e-9)
        assert group_contrastive_loss(high, low, t, reduction).item() == pytest.approx(found, rel=1e-12)
        assert group_contrastive_loss(3 * low, 0.2 * high, t, reduction).item() == pytest.approx(found, rel=1e-9)
    assert group_contrastive_loss(low, high, t).item() <= group_contrastive_loss(low, high, t, "mean-log").item() + 1e-12


@pytest.mark.parametrize("k", [2, 3, 8])
@pytest.mark.parametrize("reduction", ["log-mean", "mean-log"])
def test_contrastive_where_all_coincide(k: int, reduction: str) -> None:
    same = torch.ones(k, 5)
    assert group_contrastive_loss(same, same, 0.1, reduction).item() == pytest.approx(math.log(1 + k), rel=1e-6)


def test_contrastive_is_stable_at_tiny_temperatures_and_zero_vectors() -> None:
    rng = torch.Generator().manual_seed(0)
    low = torch.randn(4, 6, generator=rng).requires_grad_()
    loss = group_contrastive_loss(low, torch.randn(4, 6, generator=rng), 1e-4)
    loss.backward()
    assert math.isfinite(loss.item())
    assert low.grad is not None
    assert bool(torch.isfinite(low.grad).all())
    zero = torch.zeros(3, 5, requires_grad=True)
    loss = group_contrastive_loss(zero, torch.zeros(3, 5))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
    assert zero.grad is not None
    assert bool(torch.isfinite(zero.grad).all())


def test_contrastive_gradient_and_that_it_parts_the_groups() -> None:
    rng = torch.Generator().manual_seed(0)
    low, high = (torch.randn(3, 4, generator=rng).double().requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: group_contrastive_loss(a, b), (low, high))
    together, apart = torch.eye(4)[[0, 0, 0]], torch.eye(4)[[1, 1, 1]]
    assert group_contrastive_loss(together, apart) < 1e-3


def test_contrastive_names_what_it_found() -> None:
    two = torch.ones(2, 3)
    with pytest.raises(ConfigurationError, match=r"at least 2 images each; found \(1, 3\) and \(1, 3\)"):
        group_contrastive_loss(two[:1], two[:1])
    with pytest.raises(ConfigurationError, match=r"found \(2, 3\) and \(3, 3\)"):
        group_contrastive_loss(two, torch.ones(3, 3))
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigurationError, match="temperature above 0; found"):
            group_contrastive_loss(two, two, temperature)
    with pytest.raises(UnknownNameError, match="did you mean log-mean"):
        group_contrastive_loss(two, two, 0.1, "logmean")  # type: ignore[arg-type]


def test_rank_loss_against_plain_lines() -> None:
    rng = torch.Generator().manual_seed(0)
    o, w, s = (torch.randn(5, 7, generator=rng).double() for _ in range(3))
    wanted = 0.0
    for i in range(5):
        gap = math.dist(s[i].tolist(), o[i].tolist()) - math.dist(w[i].tolist(), o[i].tolist())
        wanted += math.log(1 + math.exp(-gap)) / 5
    assert relative_rank_loss(o, w, s).item() == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(relative_rank_loss, tuple(v.requires_grad_() for v in (o, w, s)))


def test_rank_loss_identities() -> None:
    rng = torch.Generator().manual_seed(1)
    o, w, s = (torch.randn(4, 3, generator=rng) for _ in range(3))
    assert relative_rank_loss(o, w, w).item() == pytest.approx(math.log(2), rel=1e-6)
    assert relative_rank_loss(o, o + 1e-3, o + 5) < relative_rank_loss(o, w, s)
    assert math.isfinite(relative_rank_loss(o, o + 1e6, o).item())


def test_rank_loss_gradient_at_no_distance() -> None:
    o, w, s = (torch.ones(2, 3, requires_grad=True) for _ in range(3))
    relative_rank_loss(o, w, s).backward()
    for tensor in (o, w, s):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())


def test_rank_loss_names_what_it_found() -> None:
    with pytest.raises(ConfigurationError, match=r"found \(2, 3\), \(2, 3\) and \(1, 3\)"):
        relative_rank_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ConfigurationError, match="at least one image"):
        relative_rank_loss(*(torch.zeros(0, 3),) * 3)
