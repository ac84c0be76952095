"""Ladders: which photos, which copies, what the head learns of them and what it keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iqakit.adapters import severity_ladders
from iqakit.adapters.linear_probe import LinearProbe, ridge_head
from iqakit.adapters.settings import LinearConfig, TsnConfig
from iqakit.adapters.severity_ladders import Ladders, learn_ladders, photos_for_ladders, quarters
from iqakit.adapters.tsn import TaskSpecificNormalization
from iqakit.contracts import Adapter, Dataset, FitContext
from iqakit.datasets.synthetic import SyntheticTask
from iqakit.errors import ConfigurationError
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.ordering import ordered_head
from iqakit.functional.overlay import overlay_call
from iqakit.functional.pooling import gate_features
from iqakit.imaging.degrading import DEGRADATIONS, LEVELS
from iqakit.imaging.tensors import prepare
from iqakit.testing import make_backbone, make_fit_context

QUICK = TsnConfig(crop=64, epochs=2, batch_size=8, precision="float32", head_start="shared", learning_rate=0.01)


@pytest.fixture(scope="module")
def backbone() -> Any:
    return make_backbone()


@pytest.fixture
def context(backbone: Any) -> FitContext:
    return make_fit_context(backbone)


class Scored:
    """Scores alone, with numbers for images."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def __len__(self) -> int:
        return len(self.scores)

    def sample(self, index: int) -> Any:
        return type("Sample", (), {"score": self.scores[index]})


@pytest.mark.parametrize(
    ("scores", "count", "best"),
    [
        ([3, 9, 1, 8, 2, 7, 4, 6], 2, [1, 3]),  # the best quarter
        ([3, 9, 1, 8, 2, 7, 4, 6], 1, [1, 3]),
        ([float(index) for index in range(40)], 5, list(range(30, 40))),
        ([float(index) for index in range(400)], 3, list(range(300, 400))),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2, [0, 1]),  # of equal ones the first
        ([5.0], 1, [0]),
        ([5.0], 0, []),
    ],
)
def test_photos_are_spread_over_the_best_quarter(scores: list[float], count: int, best: list[int]) -> None:
    found = photos_for_ladders(Scored(scores), count)  # type: ignore[arg-type]
    assert len(found) == len(DEGRADATIONS)
    for photos in found:
        assert len(set(photos)) == len(photos) == count
        places = [sorted(best, key=lambda index: -scores[index]).index(photo) for photo in photos]
        if places:
            gaps = np.diff([*places, places[0] + len(best)])
            assert gaps.min() >= len(best) // count  # evenly spread, the best first
            assert gaps.max() <= -(-len(best) // count)
    used = {photo for photos in found for photo in photos}
    assert len(used) == min(len(best), count * len(DEGRADATIONS))  # other photos for other kinds, as far as they reach


def inputs_under(context: FitContext, tensors: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda image: head_input(overlay_call(context.backbone.module, tensors, image), "all-stages")


def four_corners(data: Dataset) -> list[Tensor]:
    found = []
    for index in range(len(data)):
        image = data.image(index)
        high, wide = image.shape[1] // 2, image.shape[2] // 2
        top, bottom = image[:, :high], image[:, image.shape[1] - high :]
        found += [part[:, :, side] for part in (top, bottom) for side in (slice(wide), slice(image.shape[2] - wide, None))]
    return found


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 13), (2, 3), (1, 1), (1, 6)])
def test_quarters_are_of_one_size_and_cover_all_but_a_middle_line(height: int, width: int) -> None:
    image = torch.arange(3 * height * width, dtype=torch.int32).reshape(3, height, width)
    parts = quarters(image)
    size = (3, max(1, height // 2), max(1, width // 2))
    assert [tuple(part.shape) for part in parts] == [size] * 4
    corners = [int(parts[0][0, 0, 0]), int(parts[1][0, 0, -1]), int(parts[2][0, -1, 0]), int(parts[3][0, -1, -1])]
    assert corners == [int(image[0, y, x]) for y in (0, -1) for x in (0, -1)]
    if height > 1 and width > 1:
        assert len(torch.cat([part.flatten() for part in parts]).unique()) == 3 * (height // 2 * 2) * (width // 2 * 2)


@pytest.mark.parametrize("tensors", ["bare", "other"])
def test_the_steps_are_those_of_a_synthetic_task(backbone: Any, tensors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind meets its photos, head inputs are of the copies under the adapter, shares are counted on all steps."""
    context = make_fit_context(backbone)
    inputs = head_input(context.train_features, "all-stages")
    weight = ridge_head(inputs, context.train)[0]
    name = context.backbone.norm_tensor_names()[0]
    overlay = {} if tensors == "bare" else {name: context.backbone.module.state_dict()[name] * 1.5}
    climbed: list[Ladders] = []
    monkeypatch.setattr(severity_ladders, "Ladders", lambda *given: climbed.append(Ladders(*given)) or climbed[-1])
    found = learn_ladders(context, weight, inputs, overlay, "all-stages", 1)
    plans = sorted((photos[0], kind) for kind, photos in enumerate(photos_for_ladders(context.train, 1)))
    steps = torch.stack(climbed[0].steps).reshape(len(plans), 5, -1)
    under, names = inputs_under(context, overlay), list(DEGRADATIONS)
    looked_at = 0
    for (photo, kind), seen in zip(plans, steps, strict=True):
        if is_random(names[kind]):
            continue
        looked_at += 1
        task = SyntheticTask([context.train.image(photo)], [names[kind]], (0, *LEVELS))
        prepared = [prepare(task.image(index), context.preprocessing)[0] for index in range(6)]
        rungs = torch.cat([under(image[None]) for image in prepared])
        assert torch.allclose(seen, rungs[:-1] - rungs[1:], atol=1e-6), names[kind]
        for level in (3, 4, 5):  # one photo a kind: the mean is that of its copy
            row = kind * 3 + level - 3
            bare = context.backbone.module(prepared[level][None]).stages
            for stage, copies in zip(gate_features(bare), found.copies, strict=True):
                assert torch.allclose(copies[row], stage[0], atol=1e-6), (names[kind], level)
    assert looked_at > 12
    assert {copies.shape[0] for copies in found.copies} == {75}
    for share, head in ((found.before, weight), (found.after, found.weight)):
        assert share == pytest.approx(float((steps @ head > 0).float().mean()))
    repeated = torch.cat([steps[:, step] for step, count in enumerate((4, 4, 2, 1, 1)) for _ in range(count)])
    scale = (inputs @ weight).std()
    views = torch.cat([under(prepare(view, context.preprocessing)[0][None]) for view in four_corners(context.train)])
    least = ordered_head(
        inputs,
        weight / scale,
        repeated,
        penalty=0.46,
        margin=0.1,
        importance=80 * 12 / 5,
        views=views,
        view_importance=2,
    )
    assert torch.allclose(found.weight.double(), least * scale, rtol=1e-3, atol=1e-5 * float(weight.abs().max()))


def test_copies_are_means_over_photos(context: FitContext) -> None:
    ladders = Ladders(context, {}, "all-stages")
    kind = list(DEGRADATIONS).index("pixelate")
    for photo in (0, 1, 2):
        ladders.climb(photo, [kind])
    rows = []
    for photo in (0, 1, 2):
        task = SyntheticTask([context.train.image(photo)], ["pixelate"], [4])
        image, _ = prepare(task.image(0), context.preprocessing)
        rows.append(gate_features(context.backbone.module(image[None]).stages))
    for stage, copies in enumerate(ladders.copies()):
        mean = np.mean([row[stage][0].numpy() for row in rows], axis=0)
        np.testing.assert_allclose(copies[1].numpy(), mean / np.linalg.norm(mean), atol=1e-6)


def test_shifts_are_copies_less_their_photos(context: FitContext) -> None:
    ladders = Ladders(context, {}, "all-stages")
    kinds = [list(DEGRADATIONS).index(name) for name in ("brighten", "pixelate")]
    for photo in (0, 1):
        ladders.climb(photo, kinds)
    rows = []
    for photo in (0, 1):
        for kind in ("brighten", "pixelate"):
            task = SyntheticTask([context.train.image(photo)], [kind], [0, 2])
            images = [prepare(task.image(index), context.preprocessing)[0][None] for index in (0, 1)]
            rows.append([gate_features(context.backbone.module(image).stages) for image in images])
    for stage, shifts in enumerate(ladders.shifts()):
        wanted = torch.cat([copy[stage] - whole[stage] for whole, copy in rows])
        assert torch.allclose(shifts, wanted, atol=1e-6)
        assert float(wanted.abs().max()) > 1e-3


def is_random(kind: str) -> bool:
    if kind not in DEGRADATIONS:
        return False
    image, amount = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)), DEGRADATIONS[kind].amounts[-1]
    made = [DEGRADATIONS[kind].apply(image, amount, torch.Generator().manual_seed(seed)) for seed in range(8)]
    return any(not torch.equal(made[0], other) for other in made[1:])


def share_down(adapter: Adapter, context: FitContext, data: Dataset) -> float:
    """Of photos that were not learned from: the share of steps down their ladders that lead down."""
    task = SyntheticTask([data.image(index) for index in range(3)], levels=(0, *LEVELS))
    score = outputs(adapter, context, task)
    right = [
        score[index] < (score[index - 1] if task.recipe(index)[2] > 1 else score[index - index % 126])
        for index in range(len(task))
        if task.recipe(index)[2]
    ]
    return float(np.mean(right))


def outputs(adapter: Adapter, context: FitContext, data: Any) -> np.ndarray:
    found = []
    for index in range(len(data)):
        image, _ = prepare(data.image(index), context.preprocessing)
        inputs = inputs_under(context, dict(adapter.tensors))(image[None])
        bias = adapter.head_bias
        found.append(float(head_scores(inputs, adapter.head_weight, bias, adapter.head_kind)))
    return np.array(found)


@pytest.mark.parametrize("method", ["linear", "tsn"])
def test_faults_that_no_image_has_are_learned_and_the_images_kept(backbone: Any, method: str) -> None:
    adapters, histories = [], []
    for ladders in (0, 4):
        context = make_fit_context(backbone, epochs=None)
        made: Any = (
            LinearProbe(LinearConfig(ladders=ladders))
            if method == "linear"
            else TaskSpecificNormalization(replace(QUICK, ladders=ladders))
        )
        result = made.fit(context)
        adapters.append(result.adapter)
        histories.append(result.history)
        assert (result.copies is None) == (result.shifts is None) == (ladders == 0)
    before, after = (share_down(adapter, context, context.validation) for adapter in adapters)
    assert after > before + 0.03  # a tiny network of random weights sees little of most faults
    assert histories[1][-1]["steps_down"] > 0.7
    kept = [outputs(adapter, context, context.train) for adapter in adapters]
    assert np.corrcoef(kept[0], kept[1])[0, 1] > 0.95
    assert all(torch.equal(adapters[0].tensors[name], adapters[1].tensors[name]) for name in adapters[0].tensors)
    if method == "linear":
        assert kept[1].mean() == pytest.approx(kept[0].mean(), abs=1e-4)
    assert [record for record in histories[1] if "ladders" not in record] == histories[0]
    assert histories[1][-1]["ladders"] == 4
    assert adapters[1].config["ladders"] == 4


def test_nothing_is_random(backbone: Any) -> None:
    one, two = (LinearProbe(LinearConfig(ladders=1)).fit(make_fit_context(backbone, seed=seed)).adapter for seed in (1, 2))
    assert torch.equal(one.head_weight, two.head_weight)


@pytest.mark.parametrize(
    "method", [LinearProbe(LinearConfig(ladders=500)), TaskSpecificNormalization(TsnConfig(ladders=500))]
)
def test_more_ladders_than_good_photos_are_refused_before_any_work(
    context: FitContext, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqakit.adapters.epoch_training.EpochTraining.run", None)
    message = (
        rf"ladders=500 asks for more photos than the best quarter of {len(context.train)} training images has; take at most"
    )
    with pytest.raises(ConfigurationError, match=message):
        method.fit(context)


@pytest.mark.parametrize("config", [TsnConfig, LinearConfig])
def test_fewer_than_none_are_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="ladders must be at least 0, but it is -1"):
        config(ladders=-1)
