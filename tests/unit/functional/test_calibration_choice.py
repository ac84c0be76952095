from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.calibration import apply_calibration, expected_error, fit_logistic_calibration
from iqakit.functional.calibration_choice import CalibrationChoice, choose_calibration


def _choose(raw: Tensor, target: Tensor, contents: list[str] | None = None, seed: int = 0) -> CalibrationChoice:
    names = contents or [str(index) for index in range(len(raw))]
    return choose_calibration(raw, target, names, torch.Generator().manual_seed(seed))


def _noise(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_logistic_where_scores_follow_one() -> None:
    raw = _noise(200)
    choice = _choose(raw, (20 + 60 * torch.sigmoid(raw / 0.7) + 5 * _noise(200, 1)).clamp(0, 100))
    assert choice.fit.kind == "logistic"
    assert choice.logistic_error == pytest.approx(5, abs=0.6)
    assert choice.fit.residual == pytest.approx(5, abs=0.8)


def test_isotonic_where_scores_follow_no_logistic() -> None:
    raw = 3 * torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stairs = 20 + 30 * ((raw - raw.frac()) + raw.frac() ** 8)  # two steps with flat ground between them
    choice = _choose(raw, (stairs + 2 * _noise(400)).clamp(0, 100))
    assert choice.fit.kind == "isotonic"
    assert choice.isotonic_error < 0.9 * choice.logistic_error
    assert len(choice.fit.knots) <= 20


def test_what_cannot_be_told_apart_goes_to_the_logistic() -> None:
    raw = torch.linspace(-1, 1, 300, dtype=torch.float64)
    choice = _choose(raw, 50 + 10 * raw + 8 * _noise(300))
    assert abs(choice.isotonic_error / choice.logistic_error - 1) < 0.02
    assert choice.fit.kind == "logistic"


@pytest.mark.parametrize("images", [40, 120])
def test_the_residual_holds_68_per_cent_of_new_images(images: int) -> None:
    held = []
    for seed in range(8):
        raw, new = _noise(images, seed), _noise(1000, 100 + seed)
        target = (50 + 12 * raw + 9 * _noise(images, 200 + seed)).clamp(0, 100)
        fit = _choose(raw, target).fit
        points = apply_calibration(new, fit)
        truth = (50 + 12 * new + 9 * _noise(1000, 300 + seed)).clamp(0, 100)
        held.append(((truth - points).abs() <= expected_error(points, fit)).double().mean().item())
    assert 0.65 < sum(held) / len(held) < 0.74


def test_errors_that_shrink_towards_the_ends_are_seen() -> None:
    raw = _noise(300)
    clean = 100 * torch.sigmoid(1.5 * raw)
    shrinking = _choose(raw, (clean + 0.25 * (clean * (100 - clean)).sqrt() * _noise(300, 1)).clamp(0, 100))
    assert shrinking.fit.residual_kind == "bounded"
    assert shrinking.fit.residual == pytest.approx(12.5, rel=0.25)  # at 50 points
    steady = _choose(raw, (20 + 60 * torch.sigmoid(1.5 * raw) + 6 * _noise(300, 1)).clamp(0, 100))
    assert steady.fit.residual_kind == "constant"


def test_images_of_one_content_are_held_out_together() -> None:
    """Eight near-copies of each of twelve pictures: outputs that know the picture look good only if copies are parted."""
    pictures = torch.arange(96) // 8
    raw = pictures.double() + 0.01 * _noise(96)
    target = (50 + 30 * torch.sin(7.0 * pictures)).double()  # no relation beyond knowing the picture
    known = _choose(raw, target, [f"picture {int(number)}" for number in pictures])
    parted = _choose(raw, target)
    assert known.isotonic_error > 1.05 * parted.isotonic_error


def test_few_images_are_not_held_out() -> None:
    raw, target = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([10.0, 35.0, 30.0, 60.0, 55.0, 80.0])
    choice = _choose(raw, target)
    whole = fit_logistic_calibration(raw, target)
    assert math.isnan(choice.logistic_error)
    assert choice.fit.kind == "logistic"
    assert choice.fit.residual == pytest.approx(whole.residual * math.sqrt(6 / 2))
    four = _choose(_noise(40), 50 + 5 * _noise(40), [str(index % 4) for index in range(40)])
    assert math.isnan(four.logistic_error)
    assert _choose(raw[:3], target[:3]).fit.residual >= fit_logistic_calibration(raw[:3], target[:3]).residual


def test_it_repeats_and_touches_no_global_state() -> None:
    raw, target = _noise(60), (50 + 10 * _noise(60) + 5 * _noise(60, 1)).clamp(0, 100)
    before = torch.get_rng_state()
    assert _choose(raw, target) == _choose(raw, target)
    assert torch.equal(torch.get_rng_state(), before)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match="at least 3 scored images; found 2"):
        _choose(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ConfigurationError, match="0-100; found -1 to 5"):
        _choose(torch.zeros(3), torch.tensor([-1.0, 0.0, 5.0]))
