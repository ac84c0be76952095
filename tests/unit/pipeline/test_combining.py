from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iqakit.contracts import Calibration
from iqakit.functional.calibration import apply_calibration, expected_error
from iqakit.pipeline.combining import beliefs, combine_tasks, task_points

LOGISTIC = Calibration(5.0, 95.0, 0.1, 0.4, 6.0, tilt=1e-4)
BOUNDED = Calibration(20.0, 80.0, -0.2, 0.2, 9.0, tilt=1e-4, residual_kind="bounded")
ISOTONIC = Calibration(10.0, 90.0, 0.0, 0.5, 12.0, "isotonic", ((-0.5, 10.0), (0.0, 60.0), (0.6, 90.0)), 1e-4)
MAPS = (LOGISTIC, BOUNDED, ISOTONIC)


def _given(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    raw = torch.randn(images, 3, generator=rng).double()
    return raw, torch.randn(images, 3, generator=rng).double().softmax(1)


def test_against_plain_lines() -> None:
    raw, weights = _given(7)
    score, mixed, std = combine_tasks(raw, weights, MAPS)
    for n in range(7):
        points = [float(apply_calibration(raw[n, t], curve)) for t, curve in enumerate(MAPS)]
        errors = [float(expected_error(torch.tensor(points[t]).double(), curve)) for t, curve in enumerate(MAPS)]
        expected = sum(float(weights[n, t]) * points[t] for t in range(3))
        cubes = [float(weights[n, t]) ** 3 for t in range(3)]
        variance = sum(cubes[t] / sum(cubes) * (errors[t] ** 2 + (points[t] - expected) ** 2) for t in range(3))
        assert float(score[n]) == pytest.approx(expected)
        assert float(mixed[n]) == pytest.approx(float((weights[n] * raw[n]).sum()))
        assert float(std[n]) == pytest.approx(variance**0.5)


def test_beliefs_are_sharper_than_weights_and_agree_where_those_are_sure() -> None:
    sure = torch.tensor([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    assert beliefs(sure).numpy() == pytest.approx(sure.numpy())
    assert beliefs(torch.tensor([[0.6, 0.3, 0.1]]))[0].tolist() == pytest.approx([216 / 244, 27 / 244, 1 / 244])


def test_a_head_without_weight_does_not_count() -> None:
    raw, weights = _given(5)
    weights[:, 2] = 0
    weights = weights / weights.sum(1, keepdim=True)
    other = raw.clone()
    other[:, 2] = 7.0
    score, mixed, std = combine_tasks(raw, weights, MAPS)
    found = combine_tasks(other, weights, MAPS)
    assert torch.equal(found[0], score)
    assert torch.equal(found[1], mixed)
    assert torch.equal(found[2], std)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_ranks_within_a_task_are_those_of_raw(task: int, seed: int) -> None:
    raw = _given(200, seed)[0].float().double()
    weights = torch.zeros_like(raw)
    weights[:, task] = 1.0
    score, mixed, _ = combine_tasks(raw, weights, MAPS)
    assert torch.equal(mixed, raw[:, task])
    assert len(torch.unique(raw[:, task])) == len(torch.unique(score))
    assert torch.equal(raw[:, task].argsort(stable=True), score.argsort(stable=True))


def test_std_covers_the_scores_of_a_mixture() -> None:
    """People's scores drawn as the model believes they come about: 68 % lie within one std."""
    rng = torch.Generator().manual_seed(9)
    raw, weights = _given(20_000)
    raw = 0.3 * raw[:, :1] + 0.1 * raw  # heads of one photo mostly agree; far apart, two heaps make no normal distribution
    score, _, std = combine_tasks(raw, weights, MAPS)
    points = task_points(raw, MAPS)
    errors = torch.stack([expected_error(points[:, t], curve) for t, curve in enumerate(MAPS)], 1)
    kind = torch.multinomial(beliefs(weights), 1, generator=rng)
    human = (points + errors * torch.randn(raw.shape, generator=rng)).gather(1, kind)[:, 0]
    assert ((human - score).square().mean() / std.square().mean()).item() == pytest.approx(1, abs=0.04)
    assert 0.62 < ((human - score).abs() <= std).double().mean().item() < 0.74


def test_a_task_without_calibration() -> None:
    raw, weights = _given(4)
    score, mixed, std = combine_tasks(raw, weights, (LOGISTIC, None, ISOTONIC))
    assert bool(score.isnan().all() & std.isnan().all() & mixed.isfinite().all())
    without = weights.clone()
    without[:, 1] = 0
    score, _, std = combine_tasks(raw, without, (LOGISTIC, None, ISOTONIC))
    assert bool((score.isfinite() & std.isfinite()).all())


def test_it_can_be_traced_and_keeps_the_type() -> None:
    raw, weights = (tensor.float() for tensor in _given(5))

    class Combine(torch.nn.Module):
        def forward(self, raw: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return combine_tasks(raw, weights, MAPS)

    program = torch.export.export(Combine(), (raw, weights), dynamic_shapes=[{0: torch.export.Dim("images")}] * 2)
    other = tuple(tensor.float() for tensor in _given(11, seed=1))
    for found, wanted in zip(program.module()(*other), Combine()(*other), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)
