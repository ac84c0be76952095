from __future__ import annotations

import copy

import pytest
import torch
from timm import layers
from torch import nn

from iqakit.errors import MismatchError
from iqakit.functional.overlay import is_norm, norm_tensor_names, overlay_call, trainable_overlay


def snapshot(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, bool], dict[str, int]]:
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = {name: part.training for name, part in module.named_modules()}
    places = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    return tensors, modes, places


def assert_untouched(module: nn.Module, before: tuple[dict[str, torch.Tensor], dict[str, bool], dict[str, int]]) -> None:
    tensors, modes, places = snapshot(module)
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(tensors[name], before[0][name]) for name in tensors)
    assert (modes, places) == before[1:]


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 3), nn.GroupNorm(2, 4)
    )
    net[1].running_mean.normal_()
    return net.eval().requires_grad_(False)


IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.BatchNorm2d(4), "weight bias running_mean running_var"),
        (nn.SyncBatchNorm(4), "weight bias running_mean running_var"),
        (nn.BatchNorm2d(4, affine=False), "running_mean running_var"),
        (nn.BatchNorm2d(4, track_running_stats=False), "weight bias"),
        (nn.InstanceNorm2d(4), ""),
        (nn.InstanceNorm2d(4, affine=True, track_running_stats=True), "weight bias running_mean running_var"),
        (nn.LayerNorm(4), "weight bias"),
        (nn.LayerNorm([4, 5]), "weight bias"),
        (nn.GroupNorm(2, 4), "weight bias"),
        (nn.RMSNorm(4), "weight"),
        (layers.LayerNorm2d(4), "weight bias"),
        (layers.BatchNormAct2d(4), "weight bias running_mean running_var"),
        (layers.GroupNormAct(4, num_groups=2), "weight bias"),
        (layers.RmsNorm(4), "weight"),
        (layers.RmsNorm2d(4), "weight"),
        (layers.SimpleNorm(4), "weight"),
        (layers.FrozenBatchNormAct2d(4), "weight bias running_mean running_var"),
        (layers.EvoNorm2dB0(4), "weight bias running_var"),
        (layers.EvoNorm2dS0(4, groups=2), "weight bias"),
        (layers.FilterResponseNormAct2d(4), "weight bias"),
        (layers.FilterResponseNormTlu2d(4), "weight bias"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value.replace(" ", "-"),
)
def test_every_kind_of_norm_is_known(layer, names):
    assert is_norm(layer)
    assert norm_tensor_names(nn.ModuleDict({"n": layer})) == tuple(f"n.{name}" for name in names.split())
    assert norm_tensor_names(layer) == tuple(names.split())


class ConvNorm(nn.Conv2d):
    """A convolution by another name."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 1),
        nn.Linear(3, 4),
        ConvNorm(3, 4, 1),
        layers.LayerScale(4),
        layers.LayerScale2d(4),
        nn.Identity(),
        nn.PReLU(4),
        nn.Embedding(3, 4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_what_is_no_norm_is_left_out(layer):
    assert not is_norm(layer)
    assert norm_tensor_names(layer) == ()


def test_names_are_in_the_state_dict_in_module_order():
    net = network()
    names = norm_tensor_names(net)
    assert names == ("1.weight", "1.bias", "1.running_mean", "1.running_var", "5.weight", "5.bias")
    assert set(names) <= net.state_dict().keys()


def test_a_network_with_its_own_tensors_over_it_answers_to_the_bit_the_same():
    net = network()
    before = snapshot(net)
    own = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert torch.equal(overlay_call(net, own, IMAGES), net(IMAGES))
    assert torch.equal(overlay_call(net, {}, IMAGES), net(IMAGES))
    assert_untouched(net, before)


def test_the_overlay_is_what_counts_as_if_it_had_been_loaded():
    net = network()
    before = snapshot(net)
    overlay = {name: net.state_dict()[name] + 0.25 for name in norm_tensor_names(net)}
    other = copy.deepcopy(net)
    other.load_state_dict(overlay, strict=False)
    assert torch.equal(overlay_call(net, overlay, IMAGES), other(IMAGES))
    assert not torch.equal(other(IMAGES), net(IMAGES))
    assert_untouched(net, before)


def test_training_equals_training_a_copy_of_the_network():
    net = network()
    before = snapshot(net)
    overlay = trainable_overlay(net, norm_tensor_names(net))
    other = copy.deepcopy(net)
    other[1].train()
    for norm in (other[1], other[5]):
        norm.requires_grad_(True)
    for _ in range(3):
        out = overlay_call(net, overlay, IMAGES, training_norms=True)
        expected = other(IMAGES)
        assert torch.equal(out, expected)
        out.square().mean().backward()
        expected.square().mean().backward()
    for name, tensor in overlay.items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        if name.endswith(("weight", "bias")):
            assert torch.equal(tensor.grad, other.get_parameter(name).grad), name
        else:
            assert not tensor.requires_grad
    assert overlay["1.num_batches_tracked"] == 3
    assert_untouched(net, before)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_only_norms_train_dropout_stays_off():
    net = network()
    overlay = trainable_overlay(net, norm_tensor_names(net))
    first, second = (overlay_call(net, overlay, IMAGES, training_norms=True) for _ in range(2))
    assert torch.equal(first, second)


def test_a_network_that_is_in_training_mode_needs_private_statistics():
    net = network().train()
    before = snapshot(net)
    affine = {"1.weight": torch.ones(8)}
    with pytest.raises(MismatchError, match=r"1\.running_mean: not in the overlay.*trainable_overlay"):
        overlay_call(net, affine, IMAGES)
    assert_untouched(net, before)
    overlay_call(net, trainable_overlay(net, []), IMAGES)
    assert_untouched(net, before)


@pytest.mark.parametrize("view", [False, True])
def test_statistics_that_share_the_networks_memory_are_refused(view):
    net = network()
    before = snapshot(net)
    shared = {name: tensor.view_as(tensor) if view else tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(MismatchError, match=r"1\.running_mean: the overlay shares the network's own memory"):
        overlay_call(net, shared, IMAGES, training_norms=True)
    assert_untouched(net, before)


class Failing(nn.Module):
    def forward(self, maps):
        raise RuntimeError("on purpose")


def test_an_exception_in_the_middle_leaves_nothing_behind():
    net = nn.Sequential(network(), Failing()).eval()
    net[0][5].train()
    before = snapshot(net)
    overlay = trainable_overlay(net, norm_tensor_names(net))
    with pytest.raises(RuntimeError, match="on purpose"):
        overlay_call(net, overlay, IMAGES, training_norms=True)
    assert_untouched(net, before)
    assert overlay["0.1.num_batches_tracked"] == 1


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"1.wieght": torch.ones(8)}, r"^1 overlay tensor\(s\) .*1\.wieght: the network has no such tensor"),
        ({"1.weight": torch.ones(1)}, r"1\.weight: shape \(1,\), the network has \(8,\)"),
        ({"1.weight": torch.ones(8, dtype=torch.float64)}, r"1\.weight: torch\.float64, the network has torch\.float32"),
        ({"1.weight": torch.ones(8, device="meta")}, r"1\.weight: on meta, the network is on cpu"),
        ({f"x{i}": torch.ones(1) for i in range(9)}, r"^9 overlay .*x4: [^;]*; and 4 more; use tensors made for"),
    ],
    ids=["name", "shape", "dtype", "device", "many"],
)
def test_what_does_not_fit_is_listed(tensors, message):
    net = network()
    before = snapshot(net)
    with pytest.raises(MismatchError, match=message) as caught:
        overlay_call(net, tensors, IMAGES)
    assert "\n" not in str(caught.value)
    assert_untouched(net, before)


def test_a_trainable_overlay_of_unknown_names_is_refused():
    with pytest.raises(MismatchError, match=r"nope: the network has no such tensor"):
        trainable_overlay(network(), ["nope", "1.weight"])


def test_inference_mode_and_no_grad():
    net = network()
    before = snapshot(net)
    with torch.inference_mode():
        overlay = trainable_overlay(net, norm_tensor_names(net))
        first = overlay_call(net, overlay, IMAGES)
        batch = overlay_call(net, overlay, IMAGES, training_norms=True)
    assert first.is_inference()
    assert not torch.equal(first, batch)
    assert_untouched(net, before)
    # What was made under inference mode can still be trained outside of it.
    overlay_call(net, overlay, IMAGES).sum().backward()
    assert overlay["1.weight"].grad is not None
    with torch.no_grad():
        assert not overlay_call(net, overlay, IMAGES).requires_grad


def test_channels_last_networks():
    net = network().to(memory_format=torch.channels_last)
    before = snapshot(net)
    strides = {name: tensor.stride() for name, tensor in net.state_dict().items()}
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    overlay = trainable_overlay(net, net.state_dict())
    assert overlay["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(overlay_call(net, overlay, images), net(images))
    overlay_call(net, overlay, images, training_norms=True).sum().backward()
    assert {name: tensor.stride() for name, tensor in net.state_dict().items()} == strides
    assert_untouched(net, before)


def test_evo_norm_keeps_its_running_variance():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layers.EvoNorm2dB0(4)).eval().requires_grad_(False)
    before = snapshot(net)
    overlay = trainable_overlay(net, norm_tensor_names(net))
    overlay_call(net, overlay, IMAGES, training_norms=True)
    assert not torch.equal(overlay["1.running_var"], before[0]["1.running_var"])
    assert_untouched(net, before)


def test_keyword_arguments_reach_the_module():
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    tokens = torch.randn(1, 3, 4)
    out, weights = overlay_call(attention, {}, tokens, tokens, tokens, need_weights=False)
    assert weights is None
    assert out.shape == tokens.shape
