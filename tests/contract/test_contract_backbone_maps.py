"""What a backbone that offers its maps promises: the features are what the maps say."""

from __future__ import annotations

import functools
from importlib.metadata import version

import pytest
import torch

from iqakit.contracts.backbone import Backbone, MapBackbone
from iqakit.plugins.catalog import catalog

# One of each way in which timm gives its last output: channels first or last, pooled; then channels first
# with a layer after pooling, and tokens of which one is the embedding.
POOLED = (("tiny", 37), ("tiny:layernorm", 37), ("test_resnet.r160_in1k", 64), ("swin_s3_tiny_224", 224))
LAST_ONLY = (("convnext_atto", 64), ("mobilenetv3_small_050", 64), ("vit_tiny_patch16_224", 224))
ALL = (*POOLED, *LAST_ONLY)


@functools.cache
def made(name: str, side: int) -> tuple[Backbone, torch.Tensor]:
    backbone = catalog().make_backbone(name, "random:0")
    return backbone, torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "side"), ALL)
def test_pooled_maps_are_the_features(name: str, side: int) -> None:
    backbone, images = made(name, side)
    assert isinstance(backbone, MapBackbone)
    plain = backbone.forward(images)
    maps = backbone.maps(images, {})
    torch.testing.assert_close(maps.features.embedding.detach(), plain.embedding)
    for stage, mean, deviation in zip(maps.stages, plain.stages, plain.deviations, strict=True):
        torch.testing.assert_close(stage.mean((2, 3)), mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stage.std((2, 3), correction=0), deviation, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "side"), ALL)
def test_the_embedding_reaches_back_to_the_last_map(name: str, side: int) -> None:
    backbone, images = made(name, side)
    before = backbone.fingerprint()
    maps = backbone.maps(images, {})
    assert maps.last is not None
    assert maps.last.ndim == 4
    (slope,) = torch.autograd.grad(maps.features.embedding[0, :3].sum(), maps.last)
    assert slope.shape == maps.last.shape
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    assert backbone.fingerprint() == before


@pytest.mark.parametrize(("name", "side"), [case for case in POOLED if not case[0].startswith("tiny")])
def test_a_plainly_pooled_embedding_is_the_mean_of_the_last_map(name: str, side: int) -> None:
    backbone, images = made(name, side)
    maps = backbone.maps(images, {})
    assert maps.last is not None
    torch.testing.assert_close(maps.last.mean((2, 3)), maps.features.embedding, atol=1e-5, rtol=1e-4)


def test_an_overlay_moves_the_maps() -> None:
    backbone, images = made("tiny", 37)
    own = backbone.module.state_dict()
    moved = {name: own[name] * 1.5 + 0.1 for name in backbone.norm_tensor_names()}
    assert isinstance(backbone, MapBackbone)
    assert not torch.allclose(backbone.maps(images, moved).stages[0], backbone.maps(images, {}).stages[0])


def test_where_the_last_output_is_no_map_there_is_none() -> None:
    if version("timm") in {f"1.0.{patch}" for patch in range(16, 31)}:
        pytest.skip("needs timm 1.0.31, which gives this network's stages")
    backbone, images = made("coat_tiny", 224)
    assert isinstance(backbone, MapBackbone)
    maps = backbone.maps(images, {})
    assert maps.last is None
    assert len(maps.stages) == len(backbone.stage_dims)
