"""What a combiner promises: weights for the tasks' scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    CombinerState = Mapping[str, Tensor]
    """Named tensors; those of one task are named ``<task>/<what>``."""


@runtime_checkable
class Combiner(Protocol):
    """Turns T task scores into one: weights (N, T), rows summing to 1, times scores (N, T).

    Gate features are the stages of the bare backbone, each pooled over space and L2-normalised, shallow first: one
    tensor (N, D_l) a stage. They depend on no adapter. Which stages count is the combiner's choice; its state says it.
    """

    def fit_task(self, state: CombinerState, task: str, gate_features: Sequence[Tensor]) -> CombinerState:
        """Learn one more task from its training images' gate features.

        What ``state`` holds of earlier tasks comes back unchanged; ``state`` itself is not touched.
        """
        ...

    def weights(
        self,
        state: CombinerState,
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T), non-negative, rows summing to 1.

        Args:
            state: What ``fit_task`` gave for the last task.
            tasks: Names of the T tasks, in the order learned.
            gate_features: Gate features of the N images.
            oracle_names: The true task of each image, for combiners that need to be told; else None.

        Raises:
            ConfigurationError: The state lacks a task, or the true tasks are needed and missing.
        """
        ...


@runtime_checkable
class FaultCombiner(Combiner, Protocol):
    """A combiner that also learns what a task's images look like when they are badly degraded. Optional.

    Faults move an image away from the photos of every task; without this, which task is the nearest then says little.
    """

    def fit_copies(self, state: CombinerState, task: str, gate_features: Sequence[Tensor]) -> CombinerState:
        """Learn the faults of a task that was learned just before.

        Args:
            state: What ``fit_task`` gave; comes back with more tensors of the task, is not touched.
            task: The task's name.
            gate_features: One (M, D_l) a stage: for each of M faults the mean over degraded copies of the task's images.
        """
        ...


@runtime_checkable
class ShiftCombiner(Combiner, Protocol):
    """A combiner that also learns how weak degradation moves a task's images. Optional.

    A slightly damaged photo is still a photo of its task; without this, the damage may move weight between tasks.
    """

    def fit_shifts(self, state: CombinerState, task: str, shifts: Sequence[Tensor]) -> CombinerState:
        """Learn what to overlook, of a task that was learned just before.

        Args:
            state: What ``fit_task`` gave; comes back with more tensors of the task, is not touched.
            task: The task's name.
            shifts: One (M, D_l) a stage: gate features of M weakly degraded copies less those of their images.
        """
        ...
