"""What a backbone makes of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N images, float32.

    Attributes:
        embedding: (N, D), the pooled output of the network, before any classifier.
        stages: One (N, D_l) a stage, the mean over space (or tokens) of the stage's map, shallow to deep.
        deviations: One (N, D_l) a stage, the standard deviation over space (or tokens), population form.
    """

    embedding: Tensor
    stages: tuple[Tensor, ...]
    deviations: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """The maps that features are pooled from: what a quality map of one picture is made of.

    Attributes:
        features: The pooled features, as a plain forward pass gives them.
        stages: One map (N, D_l, H_l, W_l) a stage, shallow to deep; ``features.stages`` and ``features.deviations`` are
            its mean and population standard deviation over space.
        last: The map (N, C, H, W) that the embedding is made of, or None where it is not made of a map. A leaf that
            asks for a gradient, and ``features.embedding`` reaches back to it, so
            ``torch.autograd.grad(..., last)`` tells what each place does to the embedding.
    """

    features: Features
    stages: tuple[Tensor, ...]
    last: Tensor | None
