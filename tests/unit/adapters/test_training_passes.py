"""What training methods share over images: crops, head inputs in two precisions, and the check on whole images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Generator

from iqakit.adapters.training_images import TrainingImages, crop_side, human_scores
from iqakit.adapters.training_passes import head_inputs, over_whole_images, validation_srcc
from iqakit.contracts import FitContext, Preprocessing
from iqakit.errors import ConfigurationError
from iqakit.functional.heads import head_input
from iqakit.functional.overlay import trainable_overlay
from iqakit.testing import make_backbone, make_fit_context

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def context() -> FitContext:
    return make_fit_context(make_backbone())


@pytest.mark.parametrize(
    ("preprocessing", "wanted", "side"),
    [
        (PLAIN, 100, 100),
        (replace(PLAIN, smallest_side=128), 100, 128),
        (replace(PLAIN, multiple=32), 100, 128),
        (replace(PLAIN, multiple=32, smallest_side=130), 100, 160),
        (replace(PLAIN, fixed_size=(224, 224)), 100, 224),
        (PLAIN, 0, 0),
        (replace(PLAIN, fixed_size=(224, 224)), 0, 0),
    ],
)
def test_crops_are_as_large_as_the_backbone_takes_them(preprocessing: Preprocessing, wanted: int, side: int) -> None:
    assert crop_side(preprocessing, wanted) == side


@pytest.mark.parametrize(
    ("method", "message"),
    [("tsn", "adapter tsn trains on square crops, but"), (None, "training uses square crops, but")],
)
def test_a_backbone_that_takes_no_squares_is_one_line(method: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        crop_side(replace(PLAIN, fixed_size=(64, 96)), 64, method)
    assert str(caught.value) == f"{message} this backbone takes only 64x96; take another backbone"


def test_views_are_crops_in_one_batch_or_whole_images(context: FitContext) -> None:
    with TrainingImages(context.train, context.preprocessing, 1) as images:
        (crops,) = images.views([3, 0], 32, True, Generator().manual_seed(1))
        assert torch.equal(crops, images.crops([3, 0], 32, True, Generator().manual_seed(1)))
        whole = images.views([3, 0, 1], 0, False, Generator())
    assert [tuple(view.shape) for view in whole] == [(1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 80)]


def test_head_inputs_are_float32_in_either_precision(context: FitContext) -> None:
    backbone = context.backbone
    overlay = trainable_overlay(backbone.module, backbone.norm_tensor_names())
    with TrainingImages(context.train, context.preprocessing, 1) as images:
        crops = images.crops([0, 1, 2], 48, False, Generator().manual_seed(0))
    exact = head_inputs(backbone.module, overlay, crops, "all-stages")
    assert torch.equal(exact, head_input(backbone.forward(crops), "all-stages"))
    assert exact.requires_grad
    short = head_inputs(backbone.module, overlay, crops, "all-stages", precision="bfloat16")
    assert short.dtype == torch.float32
    assert not torch.equal(short, exact)
    assert torch.allclose(short, exact, atol=0.05)
    before = {name: tensor.clone() for name, tensor in overlay.items() if "running" in name}
    head_inputs(backbone.module, overlay, crops, "all-stages", batch_statistics=True)
    assert all(not torch.equal(tensor, overlay[name]) for name, tensor in before.items())


def test_rows_of_whole_images_come_in_order_and_without_a_gradient(context: FitContext) -> None:
    backbone = context.backbone
    overlay = trainable_overlay(backbone.module, backbone.norm_tensor_names())
    found = over_whole_images(
        context, context.train, "looking", lambda image: head_inputs(backbone.module, overlay, image, "embedding")
    )
    assert not found.requires_grad
    assert torch.allclose(found, head_input(context.train_features, "embedding"), atol=1e-6)


def test_the_figure_is_spearmans(context: FitContext) -> None:
    def brightness(image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(1, 2, 3))

    for data, figure in (
        (context.validation, validation_srcc(context, brightness)),
        (context.train, validation_srcc(context, brightness, context.train, "it")),
    ):
        rows = over_whole_images(context, data, "", brightness)
        assert figure == pytest.approx(spearmanr(rows.numpy(), human_scores(data).numpy()).statistic, abs=1e-9)
