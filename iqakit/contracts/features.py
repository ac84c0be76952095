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
