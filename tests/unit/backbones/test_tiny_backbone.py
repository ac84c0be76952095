from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from iqakit.backbones.tiny_backbone import NAMES, create_tiny, tiny_names
from iqakit.contracts import Backbone
from iqakit.errors import ConfigurationError, MismatchError, UnknownNameError
from iqakit.functional.overlay import overlay_call, trainable_overlay

NORM_TENSORS = {"tiny": 20, "tiny:groupnorm": 10, "tiny:layernorm": 10, "tiny:none": 0}
IMAGES = torch.randn(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (37, 51)])
def test_it_keeps_its_promises(name, size):
    backbone = create_tiny(name, "random:1")
    features = backbone.forward(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)))
    assert isinstance(backbone, Backbone)
    assert backbone.id == name
    assert features.embedding.shape == (2, backbone.embedding_dim)
    assert [tuple(stage.shape) for stage in features.stages] == [(2, dim) for dim in backbone.stage_dims]
    assert [tuple(std.shape) for std in features.deviations] == [(2, dim) for dim in backbone.stage_dims]
    assert len(backbone.norm_tensor_names()) == NORM_TENSORS[name]
    assert not features.embedding.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_overlays_change_it_and_training_leaves_it(name):
    backbone = create_tiny(name, "random:1")
    before = backbone.fingerprint()
    overlay = trainable_overlay(backbone.module, backbone.norm_tensor_names())
    expected = backbone.forward(IMAGES).embedding
    assert torch.equal(overlay_call(backbone.module, overlay, IMAGES).embedding, expected)
    if overlay:
        moved = {key: tensor.detach() * 1.5 + 1 for key, tensor in overlay.items() if tensor.is_floating_point()}
        assert not torch.equal(overlay_call(backbone.module, moved, IMAGES).embedding, expected)
        overlay_call(backbone.module, overlay, IMAGES, training_norms=True).embedding.square().sum().backward()
        assert all(overlay[key].grad is not None for key in overlay if overlay[key].requires_grad)
    assert backbone.fingerprint() == before


@pytest.mark.parametrize("name", NAMES)
def test_it_sees_blur(name):
    """Its response is not degenerate: few dead channels, and blur moves the embedding, not by a rounding error."""
    backbone = create_tiny(name, "pretrained")
    features = backbone.forward(IMAGES)
    blurred = backbone.forward(torch.nn.functional.avg_pool2d(IMAGES, 5, stride=1, padding=2))
    assert (features.embedding.std(0) > 1e-6).float().mean() > 0.6
    assert (blurred.embedding - features.embedding).norm() > 0.1 * features.embedding.norm()
    if name in ("tiny", "tiny:none"):  # the others divide an image's own contrast out
        assert blurred.deviations[0].mean() < 0.8 * features.deviations[0].mean()


def test_seeds_and_pretrained():
    state = torch.get_rng_state()
    prints = {weights: create_tiny("tiny", weights).fingerprint() for weights in ("pretrained", "random:0", "random:1")}
    assert prints["pretrained"] == prints["random:0"] != prints["random:1"]
    assert torch.equal(torch.get_rng_state(), state)


def test_names_with_and_without_the_family():
    assert create_tiny("", "random:0").id == create_tiny("batchnorm", "random:0").id == "tiny"
    assert create_tiny("layernorm", "random:0").id == "tiny:layernorm"
    assert list(tiny_names("tiny:*")) == ["tiny:groupnorm", "tiny:layernorm", "tiny:none"]
    assert tuple(tiny_names(None)) == NAMES


def test_a_file_comes_back_to_the_bit_and_another_is_refused(tmp_path):
    first = create_tiny("tiny", "random:5")
    file = tmp_path / "t.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in first.module.state_dict().items()}, file)
    again = create_tiny("tiny", str(file))
    assert again.fingerprint() == first.fingerprint()
    assert again.weights == "t.safetensors"
    with pytest.raises(
        MismatchError, match=r"does not fit the backbone tiny:groupnorm: .*; give a file made for it"
    ) as caught:
        create_tiny("tiny:groupnorm", str(file))
    assert "\n" not in str(caught.value)


def test_unknown_variants_and_seeds():
    with pytest.raises(UnknownNameError, match=r"no tiny backbone is named 'layernrom'; did you mean tiny:layernorm"):
        create_tiny("layernrom", "random:0")
    with pytest.raises(ConfigurationError, match="name no seed"):
        create_tiny("tiny", "random:")
