"""Building a timm network with its weights: from a package, a seed, a file or the hub. Never from a pickle."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import is_model
from torch import Tensor, nn

from iqakit.backbones.frozen_backbone import PRETRAINED, random_seed, seeded
from iqakit.backbones.lite0_weights import lite0_file, read_lite0
from iqakit.errors import MismatchError, UnknownNameError
from iqakit.storage.tensor_file import read_tensors

LITE0 = ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")


def build_timm(name: str, weights: str) -> nn.Module:
    """A timm network without classifier."""
    seed = random_seed(weights)
    if not is_model(name):
        raise UnknownNameError.of("timm network", name, timm.list_models())
    if weights == PRETRAINED and name in LITE0:
        network = _bare(name, 0)
        _load(network, read_lite0(lite0_file()), name)
        return network
    network = _bare(name, seed or 0)
    if seed is None:
        _load(network, read_tensors(weights), weights)
    return network


def _bare(name: str, seed: int) -> nn.Module:
    with seeded(seed):
        tries: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
        for options in tries:
            try:
                network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
            except TypeError:
                continue
            return network
        return timm.create_model(name, pretrained=False, num_classes=0)


def _load(network: Any, tensors: dict[str, Tensor], source: str) -> None:
    own = network.state_dict()
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {k: v for k, v in tensors.items() if not k.startswith(tuple(f"{head}." for head in heads))}
    missing = [k for k in own if k not in kept and not k.endswith("num_batches_tracked")]
    extra = [k for k in kept if k not in own]
    if missing or extra:
        raise MismatchError(f"{source}: missing {missing[:5]}, extra {extra[:5]}")
    network.load_state_dict(kept, strict=False)
