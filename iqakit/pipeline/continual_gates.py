"""Combiners in ``continual``: their state is learned from kept features of the training images, apart from any method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from iqakit.errors import IqakitError
from iqakit.functional.pooling import gate_features
from iqakit.pipeline.continual_learning import Workshop
from iqakit.pipeline.continual_passes import TestSet
from iqakit.pipeline.part_checks import checked_state, checked_weights, failed
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.checkpoint import FileCheckpoint

State = Mapping[str, Tensor]


class Gate:
    """One combiner with its settings.

    What it learns of a task is taken to depend on no other task, as when models are joined.

    Args:
        shop: Tasks, backbone and the directory of kept work.
        name: The combiner's name.
        settings: Its settings, as typed.
    """

    def __init__(self, shop: Workshop, name: str, settings: Mapping[str, str]) -> None:
        self.name = name
        self._shop = shop
        self._part = catalog().combiners[name]
        self._config = make_config(catalog().combiner(name), settings)
        self._known: dict[tuple[str, int], State] = {}

    @property
    def config(self) -> dict[str, str]:
        """All its settings, as plain text."""
        return {name: str(value) for name, value in asdict(self._config).items()}

    def state(self, tasks: Sequence[str], seed: int) -> dict[str, Tensor]:
        """What the combiner knows of some tasks.

        Raises:
            PluginError: A plugin's combiner failed.
        """
        found: dict[str, Tensor] = {}
        for task in tasks:
            if (task, seed) not in self._known:
                self._known[task, seed] = self._learned(task, seed)
            found |= self._known[task, seed]
        return found

    def weights(self, tasks: Sequence[str], images: TestSet) -> Tensor:
        """Weights (N, T) of the tasks for a task's images.

        Raises:
            PluginError: A plugin's combiner failed, or gave what are no weights.
        """
        state, count = self.state(tasks, images.seed), len(images.human)
        try:
            combiner = self._part.entry.create(self._config)
            weights = combiner.weights(state, list(tasks), images.gate, [images.task] * count)
        except IqakitError:
            raise
        except Exception as error:  # a plugin may raise anything, and the user must learn whose fault it is
            raise failed("combiner", self.name, self._part.distribution, error) from error
        return checked_weights(weights, count, len(tasks), self.name)

    def _learned(self, task: str, seed: int) -> State:
        """The state of one task: kept, or learned from the bare features of its training images."""
        record: list[Any] = [
            self.name,
            self._part.distribution,
            self._part.version,
            self.config,
            task,
            self._shop.features_key(task, "train", seed),
        ]
        key = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        cache = FileCheckpoint(self._shop.work / "gates" / f"{self.name}-{task}-{key[:12]}", key)
        kept = cache.load()
        if kept is not None:
            return kept[0]
        _, features = self._shop.features(task, "train", seed)
        try:
            state = self._part.entry.create(self._config).fit_task({}, task, gate_features(features.stages))
        except IqakitError:
            raise
        except Exception as error:  # a plugin may raise anything, and the user must learn whose fault it is
            raise failed("combiner", self.name, self._part.distribution, error) from error
        checked = checked_state(state, {}, self.name)
        if checked:
            cache.save(checked, {})
        return checked
