"""The score of the image's true task, for those who know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from iqakit.combiners.request import Stateless, empty_weights
from iqakit.combiners.settings import OracleConfig
from iqakit.errors import ConfigurationError, UnknownNameError


class Oracle(Stateless):
    """Gives all weight to the task that the image is said to come from.

    Args:
        config: Its settings; there are none.
    """

    def __init__(self, config: OracleConfig) -> None:
        self.config = config

    def weights(
        self,
        state: Mapping[str, Tensor],
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T): 1 for the image's own task, 0 for the others.

        Raises:
            ConfigurationError: The images' tasks were not told, or not one for each image.
            UnknownNameError: A task that was told is not among ``tasks``.
        """
        weights = empty_weights(tasks, gate_features)
        if oracle_names is None:
            raise ConfigurationError("combiner oracle needs to be told the task of each image; give --task")
        if len(oracle_names) != len(weights):
            raise ConfigurationError(
                f"combiner oracle needs one task name an image; found {len(oracle_names)} names for {len(weights)} images"
            )
        column = {task: index for index, task in enumerate(tasks)}
        for row, name in enumerate(oracle_names):
            if name not in column:
                raise UnknownNameError.of("task", name, column)
            weights[row, column[name]] = 1.0
        return weights
