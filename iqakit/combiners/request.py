"""What combiners have in common: how many images and tasks they are asked about, and learning nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError


def image_count(gate_features: Sequence[Tensor]) -> int:
    """Number N of images behind some gate features.

    Args:
        gate_features: One (N, D_l) a stage, at least one stage.

    Returns:
        N.

    Raises:
        ConfigurationError: There is no stage, or the shapes are not (N, D_l) with one N.
    """
    shapes = [tuple(stage.shape) for stage in gate_features]
    if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ConfigurationError(
            f"a combiner needs gate features (N, D), one tensor a stage, all of the same N; found shapes {shapes}"
        )
    return int(shapes[0][0])


def empty_weights(tasks: Sequence[str], gate_features: Sequence[Tensor]) -> Tensor:
    """Weights (N, T) of zeros, float32, beside the features, to be filled in.

    Args:
        tasks: Names of the T tasks.
        gate_features: One (N, D_l) a stage.

    Returns:
        float32 (N, T).

    Raises:
        ConfigurationError: There is no task, or the features are not what ``image_count`` asks.
    """
    count = image_count(gate_features)
    if not tasks:
        raise ConfigurationError("a combiner weighs tasks, and there is none; learn a task first")
    return torch.zeros(count, len(tasks), dtype=torch.float32, device=gate_features[0].device)


class Stateless:
    """A combiner that learns nothing from a task and whose weights depend on no image.

    Attributes:
        looks_at_images: Says so. Scoring may then leave out passes of the network before it runs any.
    """

    looks_at_images: ClassVar[bool] = False

    def fit_task(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Nothing to learn; what ``state`` holds comes back."""
        return dict(state)
