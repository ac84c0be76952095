from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.contracts import FEATURE_KINDS, HEAD_KINDS, Features
from iqakit.errors import ConfigurationError, MismatchError, UnknownNameError
from iqakit.functional import heads
from iqakit.functional.heads import head_input, head_input_dim, head_scores, unit_length


def _features(n: int = 4, seed: int = 0) -> Features:
    rng = torch.Generator().manual_seed(seed)
    stages = tuple(torch.randn(n, d, generator=rng) for d in (3, 5))
    deviations = tuple(torch.rand(n, d, generator=rng) for d in (3, 5))
    return Features(torch.randn(n, 7, generator=rng), stages, deviations)


def test_kinds_are_those_of_the_contract() -> None:
    assert get_args(heads.HeadKind) == HEAD_KINDS
    assert get_args(heads.FeatureKind) == FEATURE_KINDS


def test_input_of_the_embedding() -> None:
    features = _features()
    found = head_input(features, "embedding")
    assert torch.allclose(found, features.embedding / features.embedding.norm(dim=1, keepdim=True))
    assert found.shape[1] == head_input_dim("embedding", 7, (3, 5))


def test_input_of_all_stages_comes_in_order() -> None:
    features = _features()
    found = head_input(features, "all-stages")
    parts = [features.stages[0], features.deviations[0], features.stages[1], features.deviations[1], features.embedding]
    assert torch.allclose(found, torch.cat([part / part.norm(dim=1, keepdim=True) for part in parts], dim=1))
    assert found.shape[1] == head_input_dim("all-stages", 7, (3, 5)) == 23


def test_linear_and_cosine_against_plain_lines() -> None:
    rng = torch.Generator().manual_seed(0)
    z, w, b = torch.randn(6, 9, generator=rng), torch.randn(1, 9, generator=rng), torch.tensor([0.3])
    for row, linear, plain, cosine in zip(
        z, head_scores(z, w, b, "linear"), head_scores(z, w, None, "linear"), head_scores(z, w, None, "cosine"), strict=True
    ):
        dot = sum(x * y for x, y in zip(row.tolist(), w[0].tolist(), strict=True))
        assert linear.item() == pytest.approx(dot + 0.3, abs=1e-5)
        assert plain.item() == pytest.approx(dot, abs=1e-5)
        assert cosine.item() == pytest.approx(dot / (row.norm().item() * w.norm().item()), abs=1e-5)
    assert torch.equal(head_scores(z, w[0], b[0], "linear"), head_scores(z, w, b, "linear"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(0.01, 100))
def test_cosine_ignores_lengths_and_stays_in_range(seed: int, a: float, b: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    z, w = torch.randn(5, 8, generator=rng), torch.randn(1, 8, generator=rng)
    found = head_scores(z, w, None, "cosine")
    assert bool((found.abs() <= 1 + 1e-6).all())
    assert torch.allclose(head_scores(a * z, b * w, None, "cosine"), found, atol=1e-5)


def test_zero_vectors_give_zero_and_finite_gradients() -> None:
    z, w = torch.zeros(3, 4, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    scores = head_scores(z, w, None, "cosine")
    assert scores.tolist() == [0.0, 0.0, 0.0]
    scores.sum().backward()
    for tensor in (z, w):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())
    flat = Features(torch.zeros(2, 7), (torch.zeros(2, 3),), (torch.zeros(2, 3),))
    assert torch.equal(head_input(flat, "all-stages"), torch.zeros(2, 13))


def test_round_off_of_a_flat_map_does_not_become_a_feature() -> None:
    assert unit_length(torch.full((1, 64), 1e-9)).norm().item() < 0.01
    assert unit_length(torch.full((1, 64), 1e-4)).norm().item() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("width", [512, 3072, 40_000])
def test_a_score_does_not_depend_on_the_other_images(kind: str, width: int) -> None:
    rng = torch.Generator().manual_seed(0)
    z, w = torch.randn(17, width, generator=rng), torch.randn(1, width, generator=rng)
    assert head_scores(z, w, None, "linear").double().numpy() == pytest.approx(
        (z.double() @ w[0].double()).numpy(), abs=1e-2
    )
    whole = head_scores(z, w, None, kind)
    for batch in (1, 2, 5):
        parts = torch.cat([head_scores(rows, w, None, kind) for rows in torch.split(z, batch)])
        assert torch.equal(parts, whole)


def test_mistakes_are_named() -> None:
    z, w = torch.zeros(2, 4), torch.zeros(1, 4)
    with pytest.raises(UnknownNameError, match="no kind of head is named 'cosin'; did you mean cosine"):
        head_scores(z, w, None, "cosin")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no kind of head input is named 'all'"):
        head_input(_features(), "all")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no kind of head input"):
        head_input_dim("all", 7, (3, 5))  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match=r"weight \(1, 5\) was given an input of shape \(2, 4\)"):
        head_scores(z, torch.zeros(1, 5), None, "linear")
    with pytest.raises(MismatchError, match="one bias; found 2"):
        head_scores(z, w, torch.zeros(2), "linear")
    with pytest.raises(ConfigurationError, match="cosine head has no bias"):
        head_scores(z, w, torch.zeros(1), "cosine")
    with pytest.raises(MismatchError, match="found 2 stages and 1 deviations"):
        head_input(Features(torch.zeros(1, 2), (torch.zeros(1, 2),) * 2, (torch.zeros(1, 2),)), "all-stages")
