"""What all built-in backbones share: a frozen module with its facts, and the meaning of ``weights``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from iqakit.errors import ConfigurationError
from iqakit.functional.overlay import norm_tensor_names, overlay_call
from iqakit.storage.fingerprints import fingerprint_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iqakit.contracts.backbone import InputSpec
    from iqakit.contracts.features import FeatureMaps, Features

PRETRAINED = "pretrained"


@dataclass(eq=False)
class FrozenBackbone:
    """A network in eval mode whose parameters ask for no gradient, and its facts.

    Attributes:
        id: The name by which it was made.
        weights: Where its tensors came from.
        input: What its images must be.
        embedding_dim: D of the embedding.
        stage_dims: D_l of each stage, shallow to deep.
        module: The network; images (N, 3, H, W) to ``Features``.
    """

    id: str
    weights: str
    input: InputSpec
    embedding_dim: int
    stage_dims: tuple[int, ...]
    module: nn.Module

    def forward(self, images: Tensor) -> Features:
        """Features of prepared images (N, 3, H, W), float32, RGB, normalised as ``input`` says."""
        features: Features = self.module(images)
        return features

    def norm_tensor_names(self) -> tuple[str, ...]:
        """Names, in ``module``, of every normalization weight, bias and running statistic."""
        return norm_tensor_names(self.module)

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of the tensors; computed anew at each call."""
        return fingerprint_tensors(self.module.state_dict())


@dataclass(eq=False)
class MappedBackbone(FrozenBackbone):
    """A frozen backbone whose module takes ``with_maps=True`` and then gives ``FeatureMaps``."""

    def maps(self, images: Tensor, tensors: Mapping[str, Tensor]) -> FeatureMaps:
        """The maps that features are pooled from; see ``iqakit.contracts.MapBackbone``."""
        found: FeatureMaps = overlay_call(self.module, tensors, images, with_maps=True)
        return found


def freeze(module: nn.Module, channels_last: bool = False) -> nn.Module:
    """Put a module into eval mode and ask for no gradients.

    Args:
        module: The network; changed in place.
        channels_last: Lay its 4-d tensors out channels last, which runs convolutions about twice as fast on a CPU.
    """
    module.eval().requires_grad_(False)
    return module.to(memory_format=torch.channels_last) if channels_last else module


def random_seed(weights: str) -> int | None:
    """The seed in ``random:SEED``, or None where ``weights`` says something else.

    Raises:
        ConfigurationError: It begins with ``random`` but no whole number from 0 follows.
    """
    if weights != "random" and not weights.startswith("random:"):
        return None
    if not re.fullmatch(r"random:\d{1,18}", weights, re.ASCII):
        raise ConfigurationError(
            f"weights {weights!r} name no seed; write random:SEED with a whole number from 0, e.g. random:0"
        )
    return int(weights.removeprefix("random:"))


def weights_label(weights: str) -> str:
    """How ``weights`` is shown to people: a file by its name alone, so no directory of this machine is written down."""
    return weights if weights == PRETRAINED or random_seed(weights) is not None else Path(weights).name


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from the CPU's global generator as if newly seeded, and leave it as it was.

    Layers draw their first values from that generator and cannot be handed another one. ``torch.manual_seed`` would
    seed every accelerator as well.
    """
    generator = torch.default_generator
    state = generator.get_state()
    try:
        generator.manual_seed(seed)
        yield
    finally:
        generator.set_state(state)
