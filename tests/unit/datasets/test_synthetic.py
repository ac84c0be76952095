from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from iqakit.contracts import Dataset
from iqakit.datasets.synthetic import SyntheticTask, check_monotone
from iqakit.errors import ConfigurationError, ImageError, UnknownNameError
from iqakit.imaging.decoding import decode
from iqakit.imaging.degrading import DEGRADATIONS, LEVELS, degrade, find_degradation


def folder_of_photos() -> Path:
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "images"


CHINA, FLOWER = folder_of_photos() / "china.jpg", folder_of_photos() / "flower.jpg"


@pytest.fixture(scope="module")
def crops() -> list[Tensor]:
    """Three places of each photo, with little and with much detail."""
    places = ((20, 40), (120, 240), (260, 440))
    photos = [torch.from_numpy(decode(file).pixels) for file in (CHINA, FLOWER)]
    return [p[:, y : y + 160, x : x + 192].contiguous() for p in photos for y, x in places]


def rmse(a: Tensor, b: Tensor) -> float:
    return (a.float() - b.float()).square().mean().sqrt().item()


def similarity(a: Tensor, b: Tensor) -> float:
    """SSIM of the grey images over 8 x 8 windows (Wang et al. 2004)."""
    a, b = a.float().mean(0)[None, None], b.float().mean(0)[None, None]
    mean_a, mean_b = F.avg_pool2d(a, 8, 2), F.avg_pool2d(b, 8, 2)
    var_a = F.avg_pool2d(a * a, 8, 2) - mean_a**2
    var_b = F.avg_pool2d(b * b, 8, 2) - mean_b**2
    both = F.avg_pool2d(a * b, 8, 2) - mean_a * mean_b
    c1, c2 = 2.55**2, 7.65**2
    map_ = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return map_.mean().item()


def test_the_kinds_are_kadids() -> None:
    assert [kind.code for kind in DEGRADATIONS.values()] == [f"{i:02}" for i in range(1, 26)]
    assert find_degradation("10") is find_degradation("jpeg")
    with pytest.raises(UnknownNameError, match=r"no degradation is named 'jpg'; did you mean jpeg"):
        find_degradation("jpg")


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_every_level_is_worse_than_the_one_before(kind: str, crops: list[Tensor]) -> None:
    """Mean error rises and mean structural similarity falls, strictly, from the photo itself to level 5."""
    task = SyntheticTask(crops, [kind], (0, *LEVELS), seed=1)
    photos = {task.sample(i).content: task.image(i) for i in range(len(task)) if task.recipe(i)[2] == 0}
    errors: dict[int, list[float]] = {}
    likeness: dict[int, list[float]] = {}
    for i in range(len(task)):
        photo, _, level = task.recipe(i)
        errors.setdefault(level, []).append(rmse(task.image(i), photos[photo]))
        likeness.setdefault(level, []).append(similarity(task.image(i), photos[photo]))
    mean_error = [sum(errors[level]) / len(crops) for level in (0, *LEVELS)]
    mean_likeness = [sum(likeness[level]) / len(crops) for level in (0, *LEVELS)]
    assert mean_error[0] == 0
    assert all(b > 1.05 * a for a, b in pairwise(mean_error)), mean_error
    assert all(b < a for a, b in pairwise(mean_likeness)), mean_likeness
    assert mean_error[1] > 2  # visible at all


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degrade_keeps_the_promises_of_every_kind(kind: str, crops: list[Tensor]) -> None:
    image = crops[1].float() / 255
    before, state = image.clone(), torch.get_rng_state()
    assert torch.equal(degrade(image, kind, 0, Generator().manual_seed(1)), image)
    first, again = (degrade(image, kind, 3, Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == image.shape
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(image, before)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ConfigurationError, match="must be 0 to 5, but it is 6"):
        degrade(image, kind, 6, Generator())


def test_it_follows_the_contract(crops: list[Tensor]) -> None:
    task = SyntheticTask([CHINA, crops[3]], ["jpeg", "11"], (0, 1, 5), seed=2)
    assert isinstance(task, Dataset)
    names = [task.sample(i).name for i in range(len(task))]
    assert names == [
        f"{photo}/{what}"
        for photo in ("000-china", "001")
        for what in ("original", "10-jpeg-1", "10-jpeg-5", "11-white-noise-1", "11-white-noise-5")
    ]
    assert [task.sample(i).score for i in range(5)] == [6, 5, 1, 5, 1]
    assert {task.sample(i).content for i in range(len(task))} == {"000-china", "001"}
    assert task.path(0) is None
    assert torch.equal(task.image(0), torch.from_numpy(decode(CHINA).pixels))
    image = task.image(7)
    assert image.dtype == torch.uint8
    assert image.shape == crops[3].shape
    assert not torch.equal(image, crops[3])


def test_pixels_depend_on_seed_photo_and_kind_alone(crops: list[Tensor]) -> None:
    whole = SyntheticTask(crops[:3], ["jitter", "white-noise"], seed=4, names=["a", "b", "c"])
    alone = SyntheticTask([crops[1]], ["white-noise"], (2,), seed=4, names=["b"])
    (index,) = [i for i in range(len(whole)) if whole.sample(i).name == alone.sample(0).name]
    assert torch.equal(whole.image(index), alone.image(0))
    other = SyntheticTask([crops[1]], ["white-noise"], (2,), seed=5, names=["b"])
    assert not torch.equal(other.image(0), alone.image(0))
    twin = SyntheticTask([crops[1], crops[1]], ["white-noise"], (2,), seed=4)
    assert not torch.equal(twin.image(0), twin.image(1))


def test_kept_images_are_the_same_and_safe(crops: list[Tensor]) -> None:
    plain, kept = (SyntheticTask(crops[:1], ["jitter"], seed=4, keep=keep) for keep in (False, True))
    kept.image(2).zero_()
    kept.subset([2]).image(0).zero_()
    assert torch.equal(kept.image(2), plain.image(2))
    original = SyntheticTask(crops[:1], ["jitter"], (0,))
    before = crops[0].clone()
    original.image(0).zero_()
    assert torch.equal(crops[0], before)


def test_subsets_keep_names_and_pixels(crops: list[Tensor]) -> None:
    task = SyntheticTask(crops[:2], ["jpeg", "pixelate"])
    part = task.subset([13, 2])
    assert [part.sample(i) for i in range(2)] == [task.sample(13), task.sample(2)]
    assert torch.equal(part.image(0), task.image(13))
    assert len(part) == 2


def test_senseless_tasks(crops: list[Tensor], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="got 0 photos"):
        SyntheticTask([])
    with pytest.raises(ConfigurationError, match=r"levels \[0, 7\]"):
        SyntheticTask(crops, levels=(7, 0))
    with pytest.raises(ConfigurationError, match=r"each of the 2 photos needs a name of its own, .* \['a', 'a'\]"):
        SyntheticTask(crops[:2], names=["a", "a"])
    with pytest.raises(UnknownNameError, match="no degradation is named 'rain'"):
        SyntheticTask(crops, ["rain"])
    with pytest.raises(ImageError):
        SyntheticTask([tmp_path / "none.jpg"], ["jpeg"]).image(0)


def test_monotone_scores_pass_and_others_fail(crops: list[Tensor]) -> None:
    task = SyntheticTask(crops[:2], ["gaussian-blur", "white-noise"], (0, 1, 3, 5))

    def detail(image: Tensor) -> float:  # falls with blur, rises with noise
        return image.float().diff(dim=-1).abs().mean().item()

    blur, noise = check_monotone(task, detail)
    assert (blur.kind, blur.falls) == ("gaussian-blur", True)
    assert (noise.kind, noise.falls) == ("white-noise", False)
    assert list(blur.means) == [0, 1, 3, 5]
    expected = sum(detail(crop) for crop in crops[:2]) / 2
    assert blur.means[0] == noise.means[0] == pytest.approx(expected)
    assert not any(result.falls for result in check_monotone(task, lambda image: 1.0))
    without_originals = check_monotone(SyntheticTask(crops[:1], ["jpeg"], (1, 5)), detail)
    assert list(without_originals[0].means) == [1, 5]
