"""The pretrained networks see what is in a picture, so weights, names, mean, deviation and padding are right."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from timm.data import ImageNetInfo

from iqakit.backbones.lite0_weights import lite0_file, read_lite0
from iqakit.backbones.timm_backbone import create_timm
from iqakit.storage.tensor_file import read_tensors

RESNET18 = Path(__file__).parents[3] / "shared" / "data" / "weights" / "resnet18.safetensors"
SENSIBLE = {
    "china.jpg": {"palace", "monastery", "bell cote", "stupa"},
    "flower.jpg": {"daisy", "bee", "vase", "pot"},
}


def labels(index: int) -> set[str]:
    return {name.strip() for name in ImageNetInfo().index_to_description(index).split(",")}


def pixels(name: str, side: int = 224) -> torch.Tensor:
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = image[..., top : top + edge, left : left + edge]
    return F.interpolate(square, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def probabilities(backbone, weight, bias, image, mean=None, std=None):
    mean = torch.tensor(mean or backbone.input.mean).reshape(1, 3, 1, 1)
    std = torch.tensor(std or backbone.input.std).reshape(1, 3, 1, 1)
    return F.linear(backbone.forward((image - mean) / std).embedding, weight.float(), bias.float()).softmax(1)[0]


def lite0():
    tensors = read_lite0(lite0_file())
    return create_timm("tf_efficientnet_lite0", "pretrained"), tensors["classifier.weight"], tensors["classifier.bias"]


def resnet18():
    if not RESNET18.is_file():
        pytest.skip("needs the shared ResNet-18")
    tensors = read_tensors(RESNET18)
    return create_timm("resnet18", str(RESNET18)), tensors["fc.weight"], tensors["fc.bias"]


# No class of ImageNet is a dahlia, which flower.jpg shows: a ResNet-18 takes its pattern for a honeycomb.
@pytest.mark.parametrize(("network", "name"), [(lite0, "china.jpg"), (lite0, "flower.jpg"), (resnet18, "china.jpg")])
def test_top_five_hold_a_sensible_class(network, name):
    chances = probabilities(*network(), pixels(name))
    top = [labels(int(index)) for index in chances.topk(5).indices]
    assert any(found & SENSIBLE[name] for found in top), top


@pytest.mark.parametrize("network", [lite0, resnet18])
def test_wrong_mean_and_deviation_change_the_answer(network):
    backbone, weight, bias = network()
    right = probabilities(backbone, weight, bias, pixels("china.jpg"))
    wrong = probabilities(backbone, weight, bias, pixels("china.jpg"), mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    assert (right - wrong).abs().sum() > 0.5
    best = int(right.argmax())
    assert wrong[best] < 0.5 * right[best]


def test_the_padding_of_tensorflow_is_used():
    """The same tensors in timm's network with torch's symmetric padding give another answer."""
    backbone, weight, bias = lite0()
    symmetric = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    symmetric.load_state_dict(backbone.module.state_dict())
    image = (pixels("china.jpg") - 0.5) / 0.5
    with torch.no_grad():
        embedding = symmetric(image)
    right = backbone.forward(image).embedding
    assert (embedding - right).norm() > 0.05 * right.norm()
    assert weight.shape == (1000, right.shape[1])
    assert bias.shape == (1000,)
