"""When an adapted batch is believed, and when a gain is expected: pure functions of scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.pipeline.adaptation_limits import Evidence, expects_gain
from iqakit.pipeline.adaptation_request import make_adaptation_request
from iqakit.pipeline.adaptation_safety import correlation_of, refused, shift_of, spread_of, uniform

SOURCE = torch.tensor([20.0, 35.0, 50.0, 55.0, 80.0], dtype=torch.float64)
FEW = SOURCE[:2]


def test_a_small_move_is_believed() -> None:
    assert refused(SOURCE, SOURCE + 3, None) is None
    assert refused(SOURCE, SOURCE * 0.9, None) is None


def test_what_is_not_finite_is_not_believed() -> None:
    adapted = SOURCE.clone()
    adapted[2] = torch.nan
    assert refused(SOURCE, adapted, None) == "adaptation gave scores that are not finite"


def test_a_mean_shift_above_one_deviation_is_not_believed() -> None:
    deviation = float(np.std(SOURCE.numpy(), ddof=1))
    assert refused(SOURCE, SOURCE + 0.99 * deviation, None) is None
    assert "the mean moved by 1.01 deviations" in str(refused(SOURCE, SOURCE + 1.01 * deviation, None))
    assert "the mean moved by 1.01 deviations" in str(refused(SOURCE, SOURCE - 1.01 * deviation, None))


def test_scores_that_hardly_correlate_are_not_believed() -> None:
    assert "correlate by -1" in str(refused(SOURCE, 96 - SOURCE, None))
    assert "correlate by nothing" in str(refused(SOURCE, torch.full_like(SOURCE, 48), None))


def test_few_images_are_held_to_the_models_own_uncertainty() -> None:
    errors = torch.tensor([4.0, 6.0], dtype=torch.float64)
    assert refused(FEW, FEW + 4.9, errors) is None
    assert "batch of 2 images: the mean moved by -5.1" in str(refused(FEW, FEW - 5.1, errors))
    near = torch.tensor([13.6, 13.6], dtype=torch.float64)
    assert "the mean moved by +14.4, more than the source's uncertainty of 13.6" in str(refused(FEW, FEW + 14.4, near))
    assert "batch of 1 image: too few" in str(refused(FEW[:1], FEW[:1], None))
    assert "no uncertainty is known" in str(refused(FEW, FEW, torch.tensor([4.0, torch.nan])))


def test_a_uniform_batch_is_told() -> None:
    alike = torch.tensor([50.0, 50.5, 49.5, 50.0], dtype=torch.float64)
    assert "uniform batch: source scores spread by 0.41 points" in str(uniform(alike, calibrated=True))
    assert uniform(alike * 1.0, calibrated=False) is None  # raw outputs have no points: these differ by a hundredth
    assert "uniform batch" in str(uniform(torch.full((4,), 0.2, dtype=torch.float64), calibrated=False))
    assert uniform(alike[:3], calibrated=True) is None
    assert uniform(SOURCE, calibrated=True) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=4, max_size=9),
    st.floats(-80, 80),
    st.floats(0.05, 3),
)
def test_what_is_believed_is_within_the_bounds(values: list[float], move: float, factor: float) -> None:
    source = torch.tensor(values, dtype=torch.float64)
    adapted = source * factor + move
    if refused(source, adapted, None) is None:
        deviation = np.std(values, ddof=1)
        assert abs(float(adapted.mean() - source.mean())) <= deviation
        assert np.corrcoef(source, adapted)[0, 1] >= 0.3


def test_measures_are_numpys() -> None:
    adapted = torch.tensor([30.0, 28.0, 61.0, 50.0, 77.0], dtype=torch.float64)
    assert spread_of(SOURCE) == pytest.approx(np.std(SOURCE.numpy(), ddof=1))
    assert correlation_of(SOURCE, adapted) == pytest.approx(np.corrcoef(SOURCE, adapted)[0, 1])
    assert shift_of(SOURCE, adapted) == pytest.approx((49.2 - 48) / np.std(SOURCE.numpy(), ddof=1))
    assert spread_of(SOURCE[:1]) is None
    assert correlation_of(SOURCE, torch.full_like(SOURCE, 3)) is None
    assert shift_of(torch.ones(4), torch.ones(4)) is None


GOOD = Evidence(images=8, spread=15, rank_satisfaction=0.9, novelty=0.8, correlation=0.95, shift=0.1)


def test_a_gain_is_expected_of_good_evidence() -> None:
    assert expects_gain(GOOD) == (True, "a gain is expected")
    assert expects_gain(replace(GOOD, rank_satisfaction=None, novelty=None))[0]


def test_auto_holds_statistics_unless_told_otherwise() -> None:
    held = make_adaptation_request("auto")
    assert held is not None
    assert (held.method, held.config.statistics, held.config.prior) == ("group-rank", "mix", 128)
    told = make_adaptation_request("auto", {"prior": "16"})
    assert told is not None
    assert (told.config.statistics, told.config.prior) == ("mix", 16)
    published = make_adaptation_request("auto", {"mode": "published"})
    assert published is not None
    assert published.config == make_adaptation_request("group-rank", {"mode": "published"}).config  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"images": 3}, "images 3 below"),
        ({"spread": 0.1}, "spread of source scores 0.1 below"),
        ({"spread": None}, "spread of source scores unknown"),
        ({"rank_satisfaction": 0.1}, "rank satisfaction 0.1 below"),
        ({"correlation": 0.0}, "correlation with the source 0 below"),
        ({"correlation": None}, "correlation with the source unknown"),
        ({"shift": -0.99}, "shift of the mean 0.99 above"),
    ],
)
def test_each_kind_of_evidence_counts(changed: dict[str, float | None], why: str) -> None:
    worth, text = expects_gain(replace(GOOD, **changed))
    assert not worth
    assert text.startswith(f"no gain expected: {why}")
