"""What a fit is asked for, checked before any image is read: the tasks, and the model that is there already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iqakit.contracts import Backbone, Dataset, Progress
from iqakit.datasets.sources import TaskSource, open_source, practice_source
from iqakit.errors import ConfigurationError, DataError, MismatchError
from iqakit.plugins.catalog import catalog
from iqakit.storage.adapter_file import check_task_name
from iqakit.storage.model_directory import holds_model, read_manifest

LEAST_TRAIN = 4
"""Fewest training images: below this nothing can be ranked, let alone validated."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What the model directory holds before the fit."""

    tasks: tuple[str, ...] = ()
    backbone: str | None = None
    weights: str | None = None
    fingerprint: str | None = None

    def check(self, backbone: Backbone, directory: Path) -> None:
        """Refuse another backbone before any image is read."""
        if self.fingerprint is not None and backbone.fingerprint() != self.fingerprint:
            raise MismatchError(
                f"model {directory} stands on backbone {self.backbone!r} with weights {self.weights!r}, but was given "
                f"{backbone.id!r} with {backbone.weights!r}; leave --backbone and --weights out, or choose another --model"
            )

    @classmethod
    def read(cls, directory: Path) -> Learned:
        """What the directory holds; empty where there is no model yet."""
        if not holds_model(directory):
            return cls()
        manifest = read_manifest(directory)
        backbone = manifest.backbone
        return cls(tuple(task.name for task in manifest.tasks), backbone.id, backbone.weights, backbone.fingerprint)


def named_sources(data: Sequence[str | os.PathLike[str]], task: str | None) -> list[TaskSource]:
    """What the user named as tasks to learn, each under its name."""
    sources = [open_source(os.fspath(text), catalog().dataset) for text in data] or [practice_source()]
    if task is not None:
        if len(sources) > 1:
            raise ConfigurationError(f"--task names one task, but {len(sources)} were given; fit them one by one")
        sources = [replace(sources[0], name=check_task_name(task))]
    names = [check_task_name(source.name) for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"two of the tasks are named {twice[0]!r}; rename a table or its directory, or fit them one by one with --task"
        )
    return sources


def waiting_sources(
    sources: Sequence[TaskSource], learned: Learned, directory: Path, resume: bool, say: Progress
) -> list[TaskSource]:
    """The tasks that are still to be learned; those learned already are skipped, or refused where not asked to."""
    known = [source for source in sources if source.name in learned.tasks]
    if known and not resume:
        raise ConfigurationError(
            f"model {directory} has learned a task {known[0].name!r} already; choose another --task or --model, "
            "or give --resume to skip what is learned"
        )
    for source in known:
        say.message(f"{source.name}: learned already, skipped")
    return [source for source in sources if source.name not in learned.tasks]


def check_amount(source: TaskSource, train: Dataset) -> None:
    """Refuse a task of too few training images."""
    if len(train) < LEAST_TRAIN:
        raise DataError(
            f"{source.description}: {len(train)} training images are too few; at least {LEAST_TRAIN} are needed, "
            "hundreds are better"
        )
