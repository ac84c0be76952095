from __future__ import annotations

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file

from iqakit.backbones.timm_backbone import TimmBackbone, create_timm, timm_names
from iqakit.contracts import Backbone, Features
from iqakit.errors import ConfigurationError, FileFormatError, IqakitError, MismatchError, StorageError, UnknownNameError
from iqakit.functional.overlay import overlay_call, trainable_overlay

NETWORKS = (
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_efficientnet",
    "test_efficientnet_evos",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
    "test_mambaout",
    "test_maxvit",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit4",
    "test_vit_relpos",
    "resnet18",
    "mobilenetv3_small_050",
    "regnetx_002",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
)
WITHOUT_NORMS = {"test_nfnet"}
FIXED = {"test_coatnet": (160, 160), "test_maxvit": (160, 160), "test_vit_relpos": (160, 160)}
MULTIPLES = {"test_vit": 16, "test_vit4": 16, "vit_tiny_patch16_224": 16, "swin_tiny_patch4_window7_224": 32}


# What timm 1.0.31 brought, or made work at any size or as maps; iqakit itself takes older ones as well.
RECENT = {"test_coatnet", "test_maxvit", "test_nfnet", "test_vit_relpos", "swin_tiny_patch4_window7_224"}
OLDER_TIMM = tuple(int(part) for part in timm.__version__.split(".")[:3] if part.isdecimal()) < (1, 0, 31)


@pytest.fixture(scope="module", params=NETWORKS)
def backbone(request) -> TimmBackbone:
    if OLDER_TIMM and request.param in RECENT:
        pytest.skip("needs timm 1.0.31")
    return create_timm(request.param, "random:7")


def images_for(backbone: TimmBackbone, count: int = 2) -> torch.Tensor:
    side = backbone.input.fixed_size or (2 * backbone.input.smallest_side,) * 2
    return torch.randn(count, 3, *side, generator=torch.Generator().manual_seed(0))


def same(first: Features, second: Features) -> bool:
    parts = [(f.embedding, *f.stages, *f.deviations) for f in (first, second)]
    return all(torch.equal(one, other) for one, other in zip(*parts, strict=True))


def test_it_keeps_what_its_facts_promise_at_every_size(backbone):
    spec = backbone.input
    assert isinstance(backbone, Backbone)
    assert spec.fixed_size == FIXED.get(backbone.id)
    assert spec.multiple == MULTIPLES.get(backbone.id, 1)
    assert len(backbone.stage_dims) in (4, 5)
    step, low = spec.multiple, spec.smallest_side
    sizes = [spec.fixed_size] if spec.fixed_size else [(low, low), (low + step, low + 2 * step), (low + 3 * step, low)]
    for size in sizes:
        features = backbone.forward(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)))
        assert features.embedding.shape == (2, backbone.embedding_dim)
        assert tuple(stage.shape for stage in features.stages) == tuple((2, dim) for dim in backbone.stage_dims)
        assert tuple(std.shape for std in features.deviations) == tuple((2, dim) for dim in backbone.stage_dims)
        for part in (features.embedding, *features.stages, *features.deviations):
            assert part.dtype == torch.float32
            assert not part.requires_grad
            assert part.isfinite().all()
        assert all((deviation >= 0).all() for deviation in features.deviations)


def test_it_is_frozen_and_answers_alike_every_time(backbone):
    assert not any(part.training for part in backbone.module.modules())
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())
    images = images_for(backbone)
    assert same(backbone.forward(images), backbone.forward(images))


def test_features_are_timms_own(backbone):
    """The embedding and the pooled maps, taken from timm's public parts one at a time."""
    images = images_for(backbone)
    net = backbone.module
    features = backbone.forward(images)
    embedding = net.forward_head(net.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features.embedding, embedding, rtol=1e-4, atol=1e-5)
    maps = net.forward_intermediates(images, intermediates_only=True)
    deepest = maps[-1].double()
    torch.testing.assert_close(features.stages[-1], deepest.mean((2, 3)).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        features.deviations[-1], deepest.flatten(2).std(2, correction=0).float(), rtol=1e-3, atol=1e-4
    )
    assert backbone.embedding_dim == getattr(net, "head_hidden_size", net.num_features)


def test_norm_names_are_timms_and_laid_over_themselves_change_nothing(backbone):
    names = backbone.norm_tensor_names()
    plain = timm.create_model(backbone.id, num_classes=0).state_dict()
    assert set(names) <= plain.keys()
    assert backbone.module.state_dict().keys() == plain.keys()
    assert (names == ()) == (backbone.id in WITHOUT_NORMS)
    images = images_for(backbone)
    own = backbone.module.state_dict()
    overlay = {name: own[name].clone() for name in names}
    expected = backbone.forward(images)
    assert same(overlay_call(backbone.module, overlay, images), expected)
    if names:
        moved = {name: tensor * 1.2 + 0.1 for name, tensor in overlay.items()}
        assert not same(overlay_call(backbone.module, moved, images), expected)


def test_training_an_overlay_leaves_the_network_bit_identical(backbone):
    names = backbone.norm_tensor_names()
    before = backbone.fingerprint()
    overlay = trainable_overlay(backbone.module, names)
    features = overlay_call(backbone.module, overlay, images_for(backbone), training_norms=True)
    if names:
        # A plain sum would do nothing: the mean of a normalised map is its bias.
        (features.embedding.square().sum() + sum(std.sum() for std in features.deviations)).backward()
        learned = [name for name in names if overlay[name].requires_grad]
        assert sum(overlay[name].grad is not None for name in learned) > 0.8 * len(learned)
        assert all(overlay[name].grad.isfinite().all() for name in learned if overlay[name].grad is not None)
    assert backbone.fingerprint() == before
    assert not any(part.training for part in backbone.module.modules())


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "test_vit3"])
def test_networks_made_flexible_answer_as_the_rigid_ones_at_their_own_size(name):
    flexible = create_timm(name, "random:0")
    rigid = timm.create_model(name, num_classes=0).eval()
    rigid.load_state_dict(flexible.module.state_dict())
    images = torch.randn(1, 3, *rigid.pretrained_cfg["input_size"][1:], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(flexible.forward(images).embedding, rigid(images), rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_same_tensors_and_leaves_random_state_alone():
    state = torch.get_rng_state()
    first, again, other = (create_timm("test_resnet", f"random:{seed}").fingerprint() for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert create_timm("test_resnet", "random:3").fingerprint() == first


def test_input_facts_are_those_that_timm_states():
    lite = create_timm("tf_efficientnet_lite0", "random:0")
    assert lite.input.mean == lite.input.std == (0.5, 0.5, 0.5)
    assert lite.input.interpolation == "bicubic"
    stem = lite.module.conv_stem
    assert type(stem).__name__ == "Conv2dSame"
    resnet = create_timm("test_resnet", "random:0")
    assert resnet.input.interpolation == "bilinear"


def test_convolutions_run_channels_last_and_transformers_do_not():
    assert create_timm("test_resnet", "random:0").module.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not create_timm("test_vit", "random:0").module.runs_channels_last


def test_it_can_be_copied():
    backbone = create_timm("test_resnet", "random:0")
    images = images_for(backbone)
    assert same(copy.deepcopy(backbone.module)(images), backbone.forward(images))


@pytest.fixture
def saved(tmp_path):
    whole = timm.create_model("test_resnet", num_classes=10)
    file = tmp_path / "mine.safetensors"

    def save(change=lambda tensors: None):
        tensors = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
        change(tensors)
        save_file(tensors, file)
        return str(file)

    return whole, save


def test_a_file_is_loaded_without_its_classifier_and_half_precision_widened(saved):
    whole, save = saved
    file = save(lambda tensors: tensors.update({k: t.half() for k, t in tensors.items() if t.is_floating_point()}))
    backbone = create_timm("test_resnet", file)
    assert backbone.weights == "mine.safetensors"
    loaded = backbone.module.state_dict()
    assert not any(name.startswith("fc.") for name in loaded)
    for name, tensor in loaded.items():
        assert tensor.dtype == whole.state_dict()[name].dtype
        assert torch.equal(tensor, whole.state_dict()[name].half().to(tensor.dtype)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bn1.weight"), r"do not fit 'test_resnet': bn1\.weight is missing"),
        (lambda t: t.update({"extra.weight": torch.ones(1)}), r"extra\.weight is unknown"),
        (lambda t: t.update({"bn1.weight": torch.ones(5)}), r"bn1\.weight is \(5,\), not \(32,\)"),
        (lambda t: t.update({"bn1.weight": torch.ones(32, dtype=torch.int8)}), r"bn1\.weight is torch\.int8"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("layer")], r"is missing; and \d+ more; give a file saved"),
    ],
    ids=["missing", "extra", "shape", "integers", "many"],
)
def test_a_file_for_another_network_is_refused(saved, change, message):
    with pytest.raises(MismatchError, match=message) as caught:
        create_timm("test_resnet", saved[1](change))
    assert "\n" not in str(caught.value)


def test_counters_and_classifier_may_be_missing(saved):
    whole, save = saved
    file = save(lambda t: [t.pop(k) for k in list(t) if k.startswith("fc.") or k.endswith("num_batches_tracked")])
    assert torch.equal(create_timm("test_resnet", file).module.bn1.weight, whole.bn1.weight)


@pytest.mark.parametrize(
    ("name", "weights", "error", "message"),
    [
        ("resnt50", "random:0", UnknownNameError, r"no timm network is named 'resnt50'; did you mean resnet50"),
        ("resnet50.nonsense", "random:0", UnknownNameError, r"'resnet50\.nonsense'.*resnet50\..*names its weights"),
        ("local-dir:x", "pretrained", ConfigurationError, r"pickles in it are never opened; name the network"),
        ("test_resnet", "random", ConfigurationError, r"name no seed; write random:SEED"),
        ("test_resnet", "random:-1", ConfigurationError, r"name no seed"),
        ("test_resnet", "random:x", ConfigurationError, r"name no seed"),
        ("test_resnet", "nothing.safetensors", StorageError, r"no tensor file at nothing\.safetensors"),
        ("test_resnet", "weights.pth", FileFormatError, r"convert it to safetensors; pickles are never opened"),
    ],
)
def test_what_cannot_be_made_says_why_in_one_line(name, weights, error, message):
    with pytest.raises(error, match=message) as caught:
        create_timm(name, weights)
    assert isinstance(caught.value, IqakitError)
    assert "\n" not in str(caught.value)


def test_names_match_a_glob():
    assert "resnet50" in timm_names(None)
    assert set(timm_names("test_vit*")) == {name for name in timm_names(None) if name.startswith("test_vit")}
    assert "resnet18.a1_in1k" in timm_names("resnet18.*")
    assert timm_names("no_such_network*") == []
