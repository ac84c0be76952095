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
