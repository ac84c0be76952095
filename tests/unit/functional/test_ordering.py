"""The smallest change of a head that follows known orders: against scipy's minimiser, and where reason tells it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.ordering import ordered_head


def problem(seed: int, n: int = 20, width: int = 6, k: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64) + 3
    w = torch.randn(width, generator=generator, dtype=torch.float64)
    return x, w, 0.3 * torch.randn(k, width, generator=generator, dtype=torch.float64)


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.1, 1.0, 10.0]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([0.3, 3.0, 30.0]),
    st.booleans(),
    st.sampled_from([None, 0.0, 0.5, 4.0]),
)
def test_is_the_minimum_that_scipy_finds(
    seed: int, penalty: float, margin: float, importance: float, counted: bool, viewed: float | None
) -> None:
    x, w, d = (part.numpy() for part in problem(seed))
    views = np.random.default_rng(seed).normal(-2, 1, (33, len(w)))
    counts = 5 * np.random.default_rng(seed).random(len(d)) if counted else np.ones(len(d))

    def objective(change: np.ndarray) -> float:
        moved = (x - x.mean(0)) @ change
        hinge = np.maximum(0, margin - d @ (w + change))
        kept = 0 if viewed is None else viewed * len(x) * (((views - views.mean(0)) @ change) ** 2).mean()
        wrong = importance * len(x) * (counts * hinge**2).mean()
        return float((moved**2).sum() + penalty * (change**2).sum() + wrong + kept)

    given = torch.from_numpy(counts) if counted else None
    more: dict[str, Any] = {} if viewed is None else {"views": torch.from_numpy(views), "view_importance": viewed}
    changed = ordered_head(*problem(seed), penalty=penalty, margin=margin, importance=importance, counts=given, **more)
    found = changed.numpy() - w
    best = minimize(objective, np.zeros(len(w)), method="BFGS", options={"gtol": 1e-8})
    assert objective(found) <= best.fun * (1 + 1e-7) + 1e-12
    assert found == pytest.approx(best.x, abs=1e-3)


def test_to_count_a_step_twice_is_to_have_it_twice_and_none_to_leave_it_out() -> None:
    x, w, d = problem(3)
    counts = torch.arange(len(d)) % 3
    found = ordered_head(x, w, d, penalty=0.5, margin=0.3, importance=10.0, counts=counts)
    rows = d.repeat_interleave(counts, dim=0)
    other = ordered_head(x, w, rows, penalty=0.5, margin=0.3, importance=10.0 * len(rows) / len(d))
    assert found.numpy() == pytest.approx(other.numpy(), abs=1e-9)
    assert not torch.allclose(found, ordered_head(x, w, d, penalty=0.5, margin=0.3, importance=10.0))


def test_nothing_changes_where_nothing_is_wrong_or_steps_do_not_count() -> None:
    x, w, d = problem(1)
    kept = d * (d @ w).sign()[:, None] * 10
    assert torch.equal(ordered_head(x, w, kept, penalty=1.0, margin=0.0, importance=100.0, views=x + 1), w)
    assert torch.equal(ordered_head(x, w, d, penalty=1.0, margin=1.0, importance=0.0), w)


def test_steps_across_the_images_are_followed_at_no_cost_to_their_outputs() -> None:
    """The images never leave a plane, the steps go straight out of it: all can be followed, and all outputs kept."""
    generator = torch.Generator().manual_seed(5)
    x = torch.cat([torch.randn(30, 4, generator=generator), torch.zeros(30, 2)], dim=1).double()
    w = torch.tensor([1.0, -2.0, 0.5, 0.0, -1.0, -1.0]).double()
    d = torch.cat([torch.zeros(9, 4), 0.5 + torch.rand(9, 2, generator=generator)], dim=1).double()
    found = ordered_head(x, w, d, penalty=1e-6, margin=0.1, importance=1.0)
    assert (d @ w < 0).all()
    assert (d @ found > 0.099).all()
    assert (x @ found).numpy() == pytest.approx((x @ w).numpy(), abs=1e-4)


def test_a_constant_of_the_outputs_is_free() -> None:
    """Adding one vector to every input moves all outputs alike, and changes nothing of the head."""
    x, w, d = problem(7)
    one = ordered_head(x, w, d, penalty=0.5, margin=0.3, importance=10.0)
    other = ordered_head(x + 5, w, d, penalty=0.5, margin=0.3, importance=10.0)
    assert one.numpy() == pytest.approx(other.numpy(), abs=1e-9)


def test_outputs_on_views_are_kept_where_views_count_for_much() -> None:
    x, w, d = problem(9)
    views = torch.randn(40, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.arange(6)

    def moved(**more: Any) -> float:
        found = ordered_head(x, w, d, penalty=0.5, margin=0.5, importance=10.0, **more)
        return float((views @ (found - w)).std())

    assert moved(views=views, view_importance=100.0) < 0.2 * moved(views=views) < 0.2 * moved()
    assert moved(views=views, view_importance=0.0) == pytest.approx(moved())


def test_wide_features_give_what_the_full_width_gives() -> None:
    x, w, d = problem(2, n=8, width=10, k=5)
    narrow = ordered_head(x, w, d, penalty=0.5, margin=0.5, importance=5.0)
    views = problem(3, n=6, width=10)[0]
    wide = [torch.cat([part, torch.zeros(*part.shape[:-1], 40, dtype=part.dtype)], dim=-1) for part in (x, w, d, views)]
    found = ordered_head(*wide[:3], penalty=0.5, margin=0.5, importance=5.0)
    assert found[:10].numpy() == pytest.approx(narrow.numpy(), abs=1e-9)
    assert found[10:].abs().max() < 1e-9
    narrow = ordered_head(x, w, d, penalty=0.5, margin=0.5, importance=5.0, views=views, view_importance=3.0)
    found = ordered_head(*wide[:3], penalty=0.5, margin=0.5, importance=5.0, views=wide[3], view_importance=3.0)
    assert found[:10].numpy() == pytest.approx(narrow.numpy(), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"steps": torch.zeros(0, 6)},
            r"as wide as the head \(6\), with at least one step, but they are \(20, 6\) and \(0, 6\)",
        ),
        ({"steps": torch.zeros(3, 5)}, r"\(20, 6\) and \(3, 5\)"),
        ({"inputs": torch.zeros(20, 7)}, r"\(20, 7\) and \(15, 6\)"),
        ({"penalty": 0.0}, "penalty must be above 0"),
        ({"margin": -1.0}, "margin and both importances at least 0"),
        ({"view_importance": float("nan")}, "margin and both importances at least 0"),
        ({"views": torch.zeros(0, 6)}, r"views must be as wide as the head \(6\), at least one, but they are \(0, 6\)"),
        ({"views": torch.zeros(4, 5)}, r"at least one, but they are \(4, 5\)"),
        ({"importance": float("nan")}, "margin and both importances at least 0"),
        ({"counts": torch.ones(3)}, r"one number for each of 15 steps, but their shape is \(3,\)"),
        ({"counts": torch.full((15,), -1.0)}, "at least 0, but they go from -1.0 to -1.0"),
        ({"counts": torch.full((15,), float("inf"))}, "finite and at least 0, but they go from inf to inf"),
    ],
)
def test_bad_input_is_one_line(change: dict[str, object], message: str) -> None:
    x, w, d = problem(4)
    arguments = {"inputs": x, "weight": w, "steps": d, "penalty": 1.0, "margin": 0.1, "importance": 1.0} | change
    with pytest.raises(ConfigurationError, match=message):
        ordered_head(**arguments)  # type: ignore[arg-type]
