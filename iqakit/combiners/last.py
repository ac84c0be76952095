"""The score of the task learned last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from iqakit.combiners.request import Stateless, empty_weights
from iqakit.combiners.settings import LastConfig


class Last(Stateless):
    """Gives all weight to the task learned last.

    Args:
        config: Its settings; there are none.
    """

    def __init__(self, config: LastConfig) -> None:
        self.config = config

    def weights(
        self,
        state: Mapping[str, Tensor],
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T): 1 for the last of ``tasks``, 0 for the others."""
        weights = empty_weights(tasks, gate_features)
        weights[:, -1] = 1.0
        return weights
