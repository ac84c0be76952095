"""Any timm network as a backbone: embedding and pooled stages from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from iqakit.backbones.frozen_backbone import MappedBackbone, freeze, weights_label
from iqakit.backbones.timm_weights import build_timm
from iqakit.contracts.backbone import InputSpec
from iqakit.contracts.features import FeatureMaps, Features
from iqakit.errors import ConfigurationError
from iqakit.functional.pooling import spatial_mean_std

FLAT_STAGES = 4
SMALLEST_SIDE = 32
_MARGIN = 5  # what is added to a multiple to get a size that is none
# What timm's networks raise where a size does not suit them: checks of their own, and torch's on shapes.
_WRONG_SIZE = (RuntimeError, AssertionError, ValueError, IndexError, TypeError, ZeroDivisionError)


class TimmBackbone(MappedBackbone):
    """A timm network as a backbone."""


class _FeatureForward:
    """Put in front of a timm network's class, it makes the call give ``Features``.

    The network stays the module itself, not a part of a wrapper, so its tensors keep timm's own names.
    """

    stage_indices: tuple[int, ...]
    runs_channels_last: bool

    def forward(self: Any, images: Tensor, with_maps: bool = False) -> Features | FeatureMaps:
        if self.runs_channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        final, maps = self.forward_intermediates(images, indices=list(self.stage_indices), output_fmt="NCHW")
        pooled = [spatial_mean_std(stage_map) for stage_map in maps]
        last = None
        if with_maps:
            last, final = _leaf_map(self, final, tuple(maps[-1].shape[2:]))
        features = Features(
            embedding=self.forward_head(final, pre_logits=True),
            stages=tuple(mean for mean, _ in pooled),
            deviations=tuple(deviation for _, deviation in pooled),
        )
        return FeatureMaps(features, tuple(maps), last) if with_maps else features


def _leaf_map(network: Any, final: Any, size: tuple[int, ...]) -> tuple[Tensor | None, Any]:
    """A network's last output as a map (N, C, H, W) that asks for a gradient, and the output made of that map again.

    Families give it channels first, channels last, or as tokens with class tokens before them. Where it is no map, it comes
    back as it was, with None.
    """
    if not isinstance(final, Tensor):  # coat gives a list of tokens at several scales
        return None, final
    if final.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":
        last = final.detach().permute(0, 3, 1, 2).requires_grad_()
        return last, last.permute(0, 2, 3, 1)
    if final.ndim == 4:
        last = final.detach().requires_grad_()
        return last, last
    before = getattr(network, "num_prefix_tokens", 0)
    if final.ndim != 3 or final.shape[1] != before + size[0] * size[1]:
        return None, final
    last = final.detach()[:, before:].transpose(1, 2).reshape(len(final), -1, *size).requires_grad_()
    return last, torch.cat([final.detach()[:, :before], last.flatten(2).transpose(1, 2)], dim=1)


def create_timm(name: str, weights: str) -> TimmBackbone:
    """Make a backbone of a timm network.

    Args:
        name: timm's own name: ``resnet50``, ``resnet18.a1_in1k``, ``hf-hub:org/name``.
        weights: ``"pretrained"``, ``"random:SEED"`` or the path of a safetensors file.

    Raises:
        UnknownNameError: timm has no network of that name.
        ConfigurationError: The weights' name makes no sense, they exist only as a pickle, or the network gives no stages.
        OfflineError: The weights would have to be downloaded and cannot be.
        StorageError: A file cannot be read.
        MismatchError: A file holds other tensors.
    """
    network: Any = build_timm(name, weights)
    freeze(network)
    if not hasattr(network, "forward_intermediates"):
        raise ConfigurationError(f"the timm network {name!r} gives no maps of its stages; choose another backbone")
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    probe = _probe(network, name, tuple(config["input_size"][1:]))
    channels_last = probe.hierarchical and _is_convolutional(network)
    network.stage_indices = probe.stage_indices
    network.runs_channels_last = channels_last
    kind = type(network)
    network.__class__ = type(kind.__name__, (_FeatureForward, kind), {})
    freeze(network, channels_last)
    with torch.inference_mode():
        features: Features = network(torch.zeros(1, 3, *probe.size))
    return TimmBackbone(
        id=name,
        weights=weights_label(weights),
        input=InputSpec(
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
            smallest_side=probe.smallest_side,
            multiple=probe.multiple,
            fixed_size=probe.fixed_size,
        ),
        embedding_dim=features.embedding.shape[1],
        stage_dims=tuple(stage.shape[1] for stage in features.stages),
        module=network,
    )


def timm_names(pattern: str | None) -> Sequence[str]:
    """Timm's names that match a glob, those with a tag for their weights among them; None lists all."""
    names: list[str] = timm.list_models(pattern or "*", include_tags=pattern is not None and "." in pattern)
    return names


@dataclass(frozen=True, slots=True)
class _Probe:
    """What was found by running the network.

    Attributes:
        size: A size that it takes.
        smallest_side: The smallest side that it takes.
        multiple: What both sides must be multiples of.
        fixed_size: The only size that it takes, or None.
        stage_indices: Which of its maps are the stages.
        hierarchical: Whether maps get smaller from stage to stage.
    """

    size: tuple[int, int]
    smallest_side: int
    multiple: int
    fixed_size: tuple[int, int] | None
    stage_indices: tuple[int, ...]
    hierarchical: bool


def _probe(network: Any, name: str, native: tuple[int, int]) -> _Probe:
    """Find what sizes a network takes, and its stages, by running it; families say it in too many ways to be read."""
    reduction = max((int(info["reduction"]) for info in network.feature_info), default=32)
    smallest = next((side for side in _sides(reduction, native) if _maps(network, (side, side))), None)
    multiple = 1
    fixed = None
    size = native
    if smallest is None:
        fixed = native
    elif _maps(network, (smallest + _MARGIN, 2 * smallest - _MARGIN)):
        size = (smallest, smallest)
    elif _maps(network, (smallest + reduction, smallest + 2 * reduction)):
        multiple, size = reduction, (smallest, smallest)
    else:
        fixed = native
    maps = _maps(network, fixed or (max(64, 2 * reduction, smallest or 0),) * 2)
    if len(maps) < 2:
        raise ConfigurationError(f"the timm network {name!r} gives fewer than two stages; choose another backbone")
    last_of = {tuple(stage_map.shape[2:]): index for index, stage_map in enumerate(maps)}
    hierarchical = len(last_of) > 1
    indices = (
        sorted(last_of.values())
        if hierarchical
        else sorted({-(-part * len(maps) // FLAT_STAGES) - 1 for part in range(1, FLAT_STAGES + 1)})
    )
    return _Probe(size, smallest or min(native), multiple, fixed, tuple(indices), hierarchical)


def _sides(reduction: int, native: tuple[int, int]) -> list[int]:
    """Sides to try, small first: where the smallest one works, so do larger ones."""
    smallest = reduction * -(-SMALLEST_SIDE // reduction)
    return sorted({smallest, 2 * smallest, 3 * smallest, 4 * smallest, min(native)})


def _maps(network: Any, size: tuple[int, int]) -> list[Tensor]:
    """All maps at one size; empty where the network does not take it."""
    with torch.inference_mode():
        try:
            final, maps = network.forward_intermediates(torch.zeros(1, 3, *size), output_fmt="NCHW")
            network.forward_head(final, pre_logits=True)
        except _WRONG_SIZE:
            return []
    return list(maps)


def _is_convolutional(network: nn.Module) -> bool:
    """Whether convolutions over space do the work, more than a stem of them."""
    kernels = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1]
    return len(kernels) >= 6
