"""The prototype gate: tasks weighed by how near an image lies to the mean of their training images.

Source: own. It is the softmin gate of iqakit's ``kmeans`` with a single centroid a stage; a class remembered by its mean
is the prototype of Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError, MismatchError
from iqakit_prototype import PrototypeConfig


class PrototypeGate:
    """Softmin over tasks of the distance to the task's mean, averaged over stages.

    State of a task: ``<task>/mean1``, ``<task>/mean2``, ...: one mean (D_l,), float32, a stage of the gate features.

    Args:
        config: Its settings.
    """

    def __init__(self, config: PrototypeConfig) -> None:
        self.config = config

    def fit_task(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Remember one task by its training images' mean.

        Args:
            state: State of the tasks learned so far; comes back unchanged, is not touched.
            task: The new task's name.
            gate_features: One (N, D_l) a stage, rows of length 1, N at least 1.

        Returns:
            The state with the new task's means.

        Raises:
            ConfigurationError: There is no image, the shapes do not fit, or a feature is not finite.
        """
        if _count(gate_features) == 0:
            raise ConfigurationError(f"combiner prototype cannot learn task {task!r} from 0 images; give it at least one")
        fitted = dict(state)
        for number, stage in enumerate(gate_features, start=1):
            mean = stage.detach().double().mean(dim=0).float().cpu()
            if not bool(torch.isfinite(mean).all()):
                raise ConfigurationError(
                    f"combiner prototype cannot learn task {task!r}: gate features of stage {number} are not all finite; "
                    "check the images and the backbone"
                )
            fitted[f"{task}/mean{number}"] = mean
        return fitted

    def weights(
        self,
        state: Mapping[str, Tensor],
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T), float32, non-negative, rows summing to 1.

        Args:
            state: What ``fit_task`` gave.
            tasks: Names of the T tasks, at least one.
            gate_features: One (N, D_l) a stage.
            oracle_names: Not looked at.

        Raises:
            ConfigurationError: There is no task, the shapes do not fit, or the state lacks a task.
            MismatchError: The means are of another width than the features.
        """
        _count(gate_features)
        if not tasks:
            raise ConfigurationError("combiner prototype weighs tasks, and there is none; learn a task first")
        stages = [
            torch.stack([_distance(state, task, number, stage) for task in tasks], dim=1)
            for number, stage in enumerate(gate_features, start=1)
        ]
        return torch.softmax(-self.config.temperature * torch.stack(stages), dim=2).mean(dim=0)


def _count(gate_features: Sequence[Tensor]) -> int:
    """Number N of images behind some gate features."""
    shapes = [tuple(stage.shape) for stage in gate_features]
    if not shapes or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ConfigurationError(
            f"combiner prototype needs gate features (N, D), one tensor a stage, all of the same N; found shapes {shapes}"
        )
    return int(shapes[0][0])


def _distance(state: Mapping[str, Tensor], task: str, number: int, stage: Tensor) -> Tensor:
    """Euclidean distance (N,) of each image to one task's mean at one stage."""
    mean = state.get(f"{task}/mean{number}")
    if mean is None:
        raise ConfigurationError(
            f"combiner prototype knows nothing of task {task!r} ({task}/mean{number} is missing); fit the task again with "
            "iqakit-prototype installed, or choose another combiner"
        )
    if mean.shape != stage.shape[1:]:
        raise MismatchError(
            f"the mean of task {task!r}, stage {number}, has the shape {tuple(mean.shape)} and the images' features "
            f"{tuple(stage.shape)}; score with the backbone that the task was learned on"
        )
    distance: Tensor = torch.linalg.vector_norm(stage.float() - mean.to(stage.device), dim=1)
    return distance
