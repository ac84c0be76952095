"""Learning the streams of ``continual``: every state of every model is kept, so nothing is learned twice.

A method whose tasks are independent learns each task once, in a model of its own, for all orders. Any other method learns
along an order; the model after each task is kept under the tasks learned so far, so orders that begin alike share their
beginning.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from iqakit.contracts import Adapter, Backbone, Dataset, Features, Progress
from iqakit.datasets.sources import TaskSource
from iqakit.errors import ConfigurationError
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.pipeline.continual_clock import Clock
from iqakit.pipeline.continual_request import Method
from iqakit.pipeline.feature_cache import features_key, images_key, kept_features
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.method_memory import MEMORY_DIRECTORY
from iqakit.pipeline.provenance import versions
from iqakit.runtimes.torch_runtime import TorchRuntime
from iqakit.storage.adapter_file import adapter_bytes
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.model_directory import SHARED_NAME, BackboneFacts, holds_model, read_manifest, read_model


@dataclass(frozen=True)
class Step:
    """A model after some tasks.

    Attributes:
        adapters: The tasks' adapters, in order.
        shared: Tensors in place of the backbone's own.
        seconds: Wall time of learning each task.
        adapter_bytes: Size of each adapter file.
        shared_bytes: Size of the shared tensors' file.
        memory_bytes: Size of what the method remembers.
        facts: The backbone as the model names it.
    """

    adapters: tuple[Adapter, ...]
    shared: Mapping[str, Tensor]
    seconds: tuple[float, ...]
    adapter_bytes: tuple[int, ...]
    shared_bytes: int
    memory_bytes: int
    facts: BackboneFacts


class Workshop:
    """What all methods have in common: the tasks, the backbone, and where work is kept.

    Args:
        sources: The tasks as given.
        data: What the user typed for each.
        backbone: The frozen backbone.
        weights: Its weights, as typed.
        work: The directory of kept work.
        device: As ``resolve_device`` gives it.
        workers: Threads that decode.
        say: Where progress is shown.
    """

    def __init__(
        self,
        sources: Sequence[TaskSource],
        data: Sequence[str],
        backbone: Backbone,
        weights: str,
        work: Path,
        device: str,
        workers: int,
        say: Progress,
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self.data = dict(zip(self.sources, data, strict=True))
        self.identities = {name: source.identity() for name, source in self.sources.items()}
        self.backbone = backbone
        self.weights = weights
        self.fingerprint = backbone.fingerprint()
        self.preprocessing = preprocessing_for(backbone.input)
        self.work = work
        self.device = device
        self.workers = workers
        self.say = say
        self.runtime = TorchRuntime(backbone, device)
        self._opened: dict[tuple[str, str, int], Dataset] = {}

    def open(self, task: str, split: str, seed: int) -> Dataset:
        """One split of a task."""
        key = (task, split, seed)
        if key not in self._opened:
            self._opened[key] = self.sources[task].open(split, seed)
        return self._opened[key]

    def features_key(self, task: str, split: str, seed: int) -> str:
        """What the bare features of a split belong to."""
        dataset = self.open(task, split, seed)
        return features_key(dataset, self.identities[task], self.fingerprint, self.preprocessing)

    def features(self, task: str, split: str, seed: int) -> tuple[Dataset, Features]:
        """Images of a split that can be read, and their bare features; read once, then kept."""
        dataset = self.open(task, split, seed)
        place = self._features_place(task, split, seed)
        with Clock(place / "seconds.json", self.say) as clock:
            return kept_features(
                self.runtime,
                dataset,
                self.preprocessing,
                identity=self.identities[task],
                fingerprint=self.fingerprint,
                kept=place.parent,
                place=place,
                what=f"{task}: reading {len(dataset)} {split} images",
                progress=clock,
                workers=self.workers,
            )

    def reading_seconds(self, task: str, split: str, seed: int) -> float:
        """How long reading the bare features of a split took."""
        return Clock(self._features_place(task, split, seed) / "seconds.json", self.say).seconds

    def _features_place(self, task: str, split: str, seed: int) -> Path:
        return self.work / "features" / self.features_key(task, split, seed)[:16]


class Learner:
    """Learns with one method under one seed.

    Args:
        shop: What all methods have in common.
        method: The method.
        epochs: How long to train; None: as the method says.
        seed: Seed of all randomness.
    """

    def __init__(self, shop: Workshop, method: Method, epochs: int | None, seed: int) -> None:
        self.shop = shop
        self.method = method
        self.epochs = epochs
        self.seed = seed

    def after(self, tasks: Sequence[str]) -> Step:
        """The model after these tasks, learned in this order; what was learned before is found again.

        Raises:
            IqakitError: The method refuses, or training diverged.
        """
        if not self.method.independent:
            return self._step(tuple(tasks))
        steps = [self._step((task,)) for task in tasks]
        return Step(
            adapters=tuple(step.adapters[0] for step in steps),
            shared={},
            seconds=tuple(step.seconds[0] for step in steps),
            adapter_bytes=tuple(step.adapter_bytes[0] for step in steps),
            shared_bytes=0,
            memory_bytes=sum(step.memory_bytes for step in steps),
            facts=steps[0].facts,
        )

    def _step(self, tasks: tuple[str, ...]) -> Step:
        seconds = []
        for count in range(1, len(tasks) + 1):
            known = tasks[:count]
            place = self.place(known)
            if not _learned(place, known):
                # Read apart from the fit, so that the reading is timed once and counted for every method alike.
                for split in ("train", "val"):
                    self.shop.features(known[-1], split, self.seed)
            with Clock(place.with_name(f"{place.name}.seconds.json"), self.shop.say) as clock:
                if not _learned(place, known):
                    self._learn(place, known, clock)
            reading = sum(self.shop.reading_seconds(known[-1], split, self.seed) for split in ("train", "val"))
            seconds.append(round(clock.seconds + reading, 1))
        place = self.place(tasks)
        manifest, adapters, _, shared = read_model(place)
        if self.method.independent and shared:
            raise ConfigurationError(
                f"adapter {self.method.name} says that its tasks are independent and replaces shared tensors; "
                "report it to its authors"
            )
        other = [adapter.task for adapter in adapters if adapter.preprocessing != self.shop.preprocessing]
        if other:
            raise ConfigurationError(
                f"adapter {self.method.name} prepares the images of task {other[0]!r} in a way of its own; continual "
                "compares methods on equal input only"
            )
        return Step(
            adapters=tuple(adapters),
            shared=shared or {},
            seconds=tuple(seconds),
            adapter_bytes=tuple(len(adapter_bytes(adapter)) for adapter in adapters),
            shared_bytes=(place / SHARED_NAME).stat().st_size if shared else 0,
            memory_bytes=sum(path.stat().st_size for path in (place / MEMORY_DIRECTORY).rglob("*") if path.is_file()),
            facts=manifest.backbone,
        )

    def _learn(self, place: Path, tasks: tuple[str, ...], clock: Clock) -> None:
        """Learn the last of the tasks on top of the model of those before."""
        if len(tasks) > 1 and not place.exists():
            _copy(self.place(tasks[:-1]), place)
        given = tasks if self.method.entry.needs_earlier_data else tasks[-1:]
        fit_tasks(
            [self.shop.data[task] for task in given],
            backbone=self.shop.backbone.id,
            weights=self.shop.weights,
            adapter=self.method.name,
            model=place,
            settings=self.method.settings,
            preset=self.method.preset,
            epochs=self.epochs,
            seed=self.seed,
            device=self.shop.device,
            resume=True,
            workers=self.shop.workers,
            features=self.shop.work / "features",
            progress=clock,
        )

    def place(self, tasks: Sequence[str]) -> Path:
        """Where the model after these tasks lies."""
        shop = self.shop
        record: dict[str, Any] = {
            "adapter": self.method.name,
            "version": self.method.version,
            "config": dict(self.method.config),
            "epochs": self.epochs,
            "seed": self.seed,
            "backbone": shop.fingerprint,
            "device": shop.device,
            "versions": versions(),
            "tasks": [
                [
                    task,
                    shop.identities[task],
                    *(images_key(shop.open(task, split, self.seed)) for split in ("train", "val")),
                ]
                for task in tasks
            ],
        }
        key = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        return shop.work / "learned" / f"{self.method.name}-{'+'.join(tasks)[:80]}-{key[:12]}"


def _learned(place: Path, tasks: Sequence[str]) -> bool:
    return holds_model(place) and [task.name for task in read_manifest(place).tasks] == list(tasks)


def _copy(model: Path, place: Path) -> None:
    """A copy of a model that is there whole or not at all."""
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(model, part, ignore=shutil.ignore_patterns(".fit", ".iqakit.lock"))
    part.rename(place)
