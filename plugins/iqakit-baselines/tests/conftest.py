"""Small tasks in memory, and what iqakit hands to a fit method, without files."""

# ruff: noqa: D102, D103 - names of tests say what they hold

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# Threads that wait for each other make networks this small many times slower. Must be said before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from iqakit_baselines import iqakit_adapters
from torch import Tensor
from torch.nn.functional import interpolate

from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import Adapter, Backbone, Features, FitContext, FitMethod, FitResult, Sample, TaskData, TaskFacts
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.imaging.tensors import prepare

SIDE = 40


@dataclass
class Pictures:
    """Noise of four coarsenesses; the finer, the better, or the other way round. Counts how often pixels are read."""

    name: str
    count: int
    seed: int
    upside_down: bool = False
    read: set[int] = field(default_factory=set)

    @property
    def facts(self) -> TaskFacts:
        return TaskFacts(self.name)

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int) -> Sample:
        score = -(index % 4) - 0.01 * index
        return Sample(f"{self.name}-{index}", -score if self.upside_down else score, 0.3)

    def image(self, index: int) -> Tensor:
        self.read.add(index)
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        cells = SIDE // (1, 2, 4, 8)[index % 4]
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        return (interpolate(noise, size=(SIDE, SIDE), mode="nearest")[0] * 255).to(torch.uint8)

    def path(self, index: int) -> None:
        return None


class KilledError(Exception):
    """Stands in for a kill."""


class MemoryCheckpoint:
    """A checkpoint in memory that can die right after its n-th save, as a killed process would."""

    def __init__(self, die_after: int = 0) -> None:
        self.kept: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.left = die_after

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        # Copied into plain memory, as a file would hold them.
        self.kept = (
            {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
            {**state},
        )
        self.left -= 1
        if self.left == 0:
            raise KilledError

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return self.kept


class Quiet:
    """Progress that nobody watches; keeps what it was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, what: str, total: int) -> None:
        return

    def advance(self, steps: int = 1, note: str = "") -> None:
        return

    def message(self, text: str) -> None:
        self.messages.append(text)


def bare(backbone: Backbone, data: Pictures, preprocessing: Any) -> Features:
    with torch.inference_mode():
        parts = [backbone.forward(prepare(data.image(index), preprocessing)[0][None]) for index in range(len(data))]
    return Features(
        torch.cat([part.embedding for part in parts]),
        tuple(torch.cat(stage) for stage in zip(*(part.stages for part in parts), strict=True)),
        tuple(torch.cat(stage) for stage in zip(*(part.deviations for part in parts), strict=True)),
    )


@dataclass
class Learned:
    """A model in memory: does with results what iqakit's pipeline does."""

    method: str
    settings: dict[str, Any]
    backbone: Backbone = field(default_factory=lambda: create_tiny("", "random:0"))
    adapters: list[Adapter] = field(default_factory=list)
    shared: dict[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    data: list[TaskData] = field(default_factory=list)
    results: list[FitResult] = field(default_factory=list)

    @property
    def made(self) -> FitMethod:
        (entry,) = [entry for entry in iqakit_adapters() if entry.name == self.method]
        method = entry.create(entry.config(**self.settings))
        assert isinstance(method, FitMethod)
        return method

    def context(self, task: Pictures, checkpoint: MemoryCheckpoint | None = None, seed: int = 0) -> FitContext:
        preprocessing = preprocessing_for(self.backbone.input)
        validation = replace(task, seed=task.seed + 100, read=set())
        return FitContext(
            backbone=self.backbone,
            earlier=tuple(self.adapters),
            shared=self.shared,
            task=task.name,
            train=task,
            validation=validation,
            train_features=bare(self.backbone, task, preprocessing),
            validation_features=bare(self.backbone, validation, preprocessing),
            preprocessing=preprocessing,
            generator=torch.Generator().manual_seed(seed),
            seed=seed,
            device="cpu",
            progress=Quiet(),
            checkpoint=checkpoint or MemoryCheckpoint(),
            workers=1,
            memory=self.memory,
            earlier_data=tuple(self.data) if self.method == "joint" else (),
        )

    def fit(self, task: Pictures, checkpoint: MemoryCheckpoint | None = None, seed: int = 0) -> FitResult:
        context = self.context(task, checkpoint, seed)
        task.read.clear()
        result = self.made.fit(context)
        self.adapters.append(result.adapter)
        self.shared = {**self.shared, **(result.replaced or {})}
        self.memory = self.memory if result.memory is None else result.memory
        self.data.append(TaskData(task.name, context.train, context.validation))
        self.results.append(result)
        return result


@pytest.fixture
def pictures() -> Callable[..., Pictures]:
    """Makes a task: ``pictures(name, count=..., seed=..., upside_down=...)``."""
    return lambda name, count=14, seed=0, upside_down=False: Pictures(name, count, seed, upside_down)


@pytest.fixture
def learn() -> Callable[..., Learned]:
    """Learns tasks: ``learn(method, [task, ...], seed=..., **settings)``; settings are quick unless given."""

    def run(method: str, tasks: Sequence[Pictures], seed: int = 0, **settings: Any) -> Learned:
        quick: dict[str, Any] = {"crop": 32, "epochs": 2, "batch_size": 7, "learning_rate": 1e-3}
        model = Learned(method, quick | settings)
        for task in tasks:
            model.fit(task, seed=seed)
        return model

    return run


@pytest.fixture
def killed() -> type[KilledError]:
    """What a checkpoint that dies raises."""
    return KilledError


@pytest.fixture
def dying() -> Callable[[int], MemoryCheckpoint]:
    """Makes a checkpoint that dies after its n-th save; with 0 it never does."""
    return MemoryCheckpoint
