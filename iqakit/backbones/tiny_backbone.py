"""A small convolutional network with seeded weights: for tests and demos, no download, about a millisecond an image."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iqakit.backbones.frozen_backbone import PRETRAINED, MappedBackbone, freeze, random_seed, seeded, weights_label
from iqakit.contracts.backbone import InputSpec
from iqakit.contracts.features import FeatureMaps, Features
from iqakit.errors import MismatchError, UnknownNameError
from iqakit.functional.pooling import spatial_mean_std
from iqakit.storage.tensor_file import read_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

STAGE_DIMS = (8, 16, 24, 32)
EMBEDDING_DIM = 48
NAMES = ("tiny", "tiny:groupnorm", "tiny:layernorm", "tiny:none")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class TinyBackbone(MappedBackbone):
    """The tiny network as a backbone."""


class _ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (N, C, H, W)."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _norm(kind: str, channels: int) -> nn.Module:
    match kind:
        case "batchnorm":
            return nn.BatchNorm2d(channels)
        case "layernorm":
            return _ChannelLayerNorm(channels)
        case "groupnorm":
            return nn.GroupNorm(4, channels)
        case _:
            return nn.Identity()


class _TinyNetwork(nn.Module):
    """Four strided convolutions, each normalised and rectified, then a pointwise one before the pooling."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        widths = (3, *STAGE_DIMS)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=kind == "none"), _norm(kind, wide), nn.ReLU()
            )
            for narrow, wide in zip(widths, STAGE_DIMS, strict=False)
        )
        self.top = nn.Sequential(
            nn.Conv2d(STAGE_DIMS[-1], EMBEDDING_DIM, 1, bias=kind == "none"), _norm(kind, EMBEDDING_DIM), nn.ReLU()
        )

    def forward(self, images: Tensor, with_maps: bool = False) -> Features | FeatureMaps:
        maps = images.contiguous(memory_format=torch.channels_last)
        pooled, kept = [], []
        for stage in self.stages:
            maps = stage(maps)
            pooled.append(spatial_mean_std(maps))
            kept.append(maps)
        last = maps.detach().requires_grad_() if with_maps else maps
        features = Features(
            embedding=self.top(last).mean(dim=(2, 3)),
            stages=tuple(mean for mean, _ in pooled),
            deviations=tuple(deviation for _, deviation in pooled),
        )
        return FeatureMaps(features, tuple(kept), last) if with_maps else features


def create_tiny(name: str, weights: str) -> TinyBackbone:
    """Make a tiny backbone.

    Args:
        name: ``"tiny"`` (batch norm), ``"tiny:layernorm"``, ``"tiny:groupnorm"`` or ``"tiny:none"``; the family's name
            may be left out.
        weights: ``"random:SEED"``, a safetensors file, or ``"pretrained"``, which is ``random:0``: there is no training
            behind it.

    Raises:
        UnknownNameError: No tiny backbone has that name.
        ConfigurationError: ``random:`` without a seed.
        StorageError: The file cannot be read.
        MismatchError: The file holds other tensors.
    """
    kind = name.removeprefix("tiny").removeprefix(":") or "batchnorm"
    full_name = "tiny" if kind == "batchnorm" else f"tiny:{kind}"
    if full_name not in NAMES:
        raise UnknownNameError.of("tiny backbone", name, NAMES)
    seed = 0 if weights == PRETRAINED else random_seed(weights)
    with seeded(seed or 0):
        network = _TinyNetwork(kind)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    if seed is None:
        try:
            network.load_state_dict(read_tensors(weights))
        except RuntimeError as error:
            detail = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise MismatchError(
                f"{weights} does not fit the backbone {full_name}: {detail}; give a file made for it"
            ) from error
    return TinyBackbone(
        id=full_name,
        weights=weights_label(weights),
        input=InputSpec(mean=_IMAGENET_MEAN, std=_IMAGENET_STD, interpolation="bilinear", smallest_side=16),
        embedding_dim=EMBEDDING_DIM,
        stage_dims=STAGE_DIMS,
        module=freeze(network, channels_last=True),
    )


def tiny_names(pattern: str | None) -> Sequence[str]:
    """Names of the tiny backbones that match a glob; None lists all."""
    return [name for name in NAMES if pattern is None or fnmatchcase(name, pattern)]
