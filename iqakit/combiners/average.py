"""The plain average of all tasks' scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from iqakit.combiners.request import Stateless, empty_weights
from iqakit.combiners.settings import AverageConfig


class Average(Stateless):
    """Weighs all tasks alike, 1/T each.

    Args:
        config: Its settings; there are none.
    """

    def __init__(self, config: AverageConfig) -> None:
        self.config = config

    def weights(
        self,
        state: Mapping[str, Tensor],
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T), each 1/T."""
        return empty_weights(tasks, gate_features).fill_(1.0 / len(tasks))
