from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iqakit.errors import MismatchError
from iqakit.functional.heads import head_input, head_input_dim, head_scores
from iqakit.functional.local_scores import local_influence, to_grid

KINDS = [("cosine", "all-stages"), ("linear", "all-stages"), ("cosine", "embedding"), ("linear", "embedding")]


class Pooled(NamedTuple):
    embedding: Tensor
    stages: tuple[Tensor, ...]
    deviations: tuple[Tensor, ...]


def weighted(values: Tensor, places: Tensor) -> Tensor:
    return (values * places).sum((2, 3)) / places.sum()


def pooled(stages: list[Tensor], last: Tensor, places: list[Tensor], last_places: Tensor, head: Tensor) -> Pooled:
    """Pooling with a weight a place; all alike gives what backbones do. The embedding is ``head`` times the mean."""
    means = [weighted(stage, p) for stage, p in zip(stages, places, strict=True)]
    squares = [
        weighted((stage - mean[:, :, None, None]).square(), p) for stage, mean, p in zip(stages, means, places, strict=True)
    ]
    return Pooled(weighted(last, last_places) @ head, tuple(means), tuple((s + 1e-12).sqrt() - 1e-6 for s in squares))


def random_case(seed: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    stages = [draw(1, 5, 8, 6).relu() + 0.1, draw(1, 7, 4, 3)]
    return stages, draw(1, 6, 4, 3) + 0.5, draw(6, 4), draw(1, head_input_dim("all-stages", 4, (5, 7)))


@pytest.mark.parametrize(("head_kind", "feature_kind"), KINDS)
def test_influence_is_the_slope_of_the_score_over_the_weights_of_places(head_kind, feature_kind) -> None:
    """Against autograd through a pooling that weighs places: another way to the same numbers."""
    stages, last, head, weight = random_case(0)
    weight = weight[:, : head_input_dim(feature_kind, 4, (5, 7))]
    bias = torch.tensor([0.3], dtype=torch.float64) if head_kind == "linear" else None
    places = [torch.ones(stage.shape[2:], dtype=torch.float64, requires_grad=True) for stage in stages]
    last_places = torch.ones(last.shape[2:], dtype=torch.float64, requires_grad=True)
    score = head_scores(head_input(pooled(stages, last, places, last_places, head), feature_kind), weight, bias, head_kind)[
        0
    ]
    slopes = torch.autograd.grad(score, [*places, last_places], allow_unused=True)

    leaf = last.clone().requires_grad_()
    ones = [torch.ones_like(place) for place in places]
    features = pooled(stages, leaf, ones, torch.ones_like(last_places), head)
    found = local_influence(features, stages, leaf, weight, bias, head_kind, feature_kind)
    torch.testing.assert_close(found.raw, score.detach())
    *of_stages, of_last = found.parts
    torch.testing.assert_close(of_last, slopes[-1] * slopes[-1].numel())
    assert len(of_stages) == (4 if feature_kind == "all-stages" else 0)
    for index in range(len(of_stages) // 2):
        both = of_stages[2 * index] + of_stages[2 * index + 1]
        torch.testing.assert_close(both, slopes[index] * slopes[index].numel())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS))
def test_nothing_is_left_over(seed: int, kind) -> None:
    stages, last, head, weight = random_case(seed)
    weight = weight[:, : head_input_dim(kind[1], 4, (5, 7))]
    leaf = last.clone().requires_grad_()
    features = pooled(stages, leaf, [torch.ones(s.shape[2:]) for s in stages], torch.ones(last.shape[2:]), head)
    found = local_influence(features, stages, leaf, weight, None, *kind)
    for part in found.parts:
        assert abs(float(part.mean())) < 1e-9 * (1 + float(part.abs().max()))


def test_flat_maps_give_no_influence_and_no_nan() -> None:
    stages = [torch.ones(1, 3, 4, 4), torch.zeros(1, 2, 2, 2)]
    features = Pooled(torch.ones(1, 2), (torch.ones(1, 3), torch.zeros(1, 2)), (torch.zeros(1, 3), torch.zeros(1, 2)))
    found = local_influence(features, stages, None, torch.ones(1, 12), None, "cosine", "all-stages")
    assert len(found.parts) == 4
    assert all(torch.equal(part, torch.zeros_like(part)) for part in found.parts)


def test_without_a_last_map_the_embedding_has_no_part() -> None:
    stages, last, head, weight = random_case(1)
    features = pooled(stages, last, [torch.ones(s.shape[2:]) for s in stages], torch.ones(last.shape[2:]), head)
    assert len(local_influence(features, stages, None, weight, None, "cosine", "all-stages").parts) == 4
    assert local_influence(features, stages, None, weight[:, :4], None, "cosine", "embedding").parts == ()


def test_a_head_of_another_width_is_refused() -> None:
    stages, last, head, weight = random_case(2)
    features = pooled(stages, last, [torch.ones(s.shape[2:]) for s in stages], torch.ones(last.shape[2:]), head)
    with pytest.raises(MismatchError, match="as wide as the weight"):
        local_influence(features, stages, None, weight, None, "cosine", "embedding")


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_another_grid_keeps_the_mean(shape: tuple[int, int], size: tuple[int, int]) -> None:
    part = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = to_grid(part, size)
    assert found.shape == size
    torch.testing.assert_close(found.mean(), part.mean())


def test_another_grid_keeps_places_in_place() -> None:
    part = torch.zeros(8, 8)
    part[:, :4] = -1
    for size in ((4, 4), (16, 20), (3, 32)):
        found = to_grid(part, size)
        middle = size[1] // 2
        assert found[:, : middle - 1].max() < found[:, middle + 1 :].min()
