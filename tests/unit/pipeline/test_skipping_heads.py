"""Heads that hardly count are left out, and what that can cost is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import ConfigurationError
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.skipping import Cost, used_weights


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=7).filter(lambda values: sum(values) > 0.01),
    st.floats(0, 0.5),
    st.integers(0, 2**31),
)
def test_the_bound_holds_for_any_points(raw: list[float], skip_below: float, seed: int) -> None:
    weights = [value / sum(raw) for value in raw]
    used, skipped = used_weights(weights, skip_below)
    points = np.random.default_rng(seed).uniform(0, 100, len(weights))
    whole, part = float(np.dot(weights, points)), float(np.dot(used, points))
    assert abs(whole - part) <= 100 * skipped + 1e-9
    assert skipped <= skip_below
    assert sum(used) == pytest.approx(1)
    assert all(weight == 0 for weight, before in zip(used, weights, strict=True) if before == 0)


def test_the_lightest_go_first_and_the_heaviest_always_stays() -> None:
    used, skipped = used_weights([0.0004, 0.9, 0.0005, 0.0991], 0.001)
    assert [weight == 0 for weight in used] == [True, False, True, False]
    assert skipped == pytest.approx(0.0009)
    assert used_weights([0.0004, 0.9, 0.0005, 0.0991], None) == ([0.0004, 0.9, 0.0005, 0.0991], 0.0)
    assert used_weights([1.0], 0.999) == ([1.0], 0.0)
    assert used_weights([0.4, 0.6, 0.0], 0.0) == ([0.4, 0.6, 0.0], 0.0)


def test_the_cost_in_words() -> None:
    cost = Cost()
    cost.add(2, 2, 0.0004)
    cost.add(4, 0, 0.0)
    assert list(cost.lines()) == [
        "passes of the network: 6 run, 2 skipped; 3.00 an image, 2 images",
        "skipped heads moved no score by more than 0.040 points",
    ]


def test_equal_tensors_are_one_pass(tiny_model: Path) -> None:
    from dataclasses import replace

    from iqakit.pipeline.torch_scoring import plan_passes

    (adapter,) = QualityModel.load(tiny_model).adapters
    layer = {"stages.0.1.weight": torch.ones(8)}
    adapters = [
        adapter,
        replace(adapter, task="b", tensors=layer),
        replace(adapter, task="c", tensors={name: value.clone() for name, value in layer.items()}),
        replace(adapter, task="d", tensors={"stages.0.1.weight": torch.full((8,), 2.0)}),
    ]
    overlays, numbers = plan_passes(adapters)
    assert numbers == (0, 1, 1, 2)
    assert [len(overlay) for overlay in overlays] == [0, 1, 1]


def test_a_threshold_that_makes_no_sense(tiny_model: Path) -> None:
    for value in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="skip_below is a weight from 0 to below 1, or none to run every head"):
            QualityModel.load(tiny_model).score_many([], skip_below=value)
