"""``fit``: learn tasks one after the other and write a model."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from iqakit.contracts import (
    Adapter,
    AdapterEntry,
    Backbone,
    Dataset,
    FaultCombiner,
    Features,
    FitContext,
    FitMethod,
    FitResult,
    Progress,
    ShiftCombiner,
    TaskData,
)
from iqakit.datasets.sources import TaskSource
from iqakit.errors import ConfigurationError, TrainingError
from iqakit.functional.pooling import gate_features
from iqakit.imaging.preprocessing import preprocessing_for, preprocessing_to_json
from iqakit.pipeline.calibrating import Scale, calibrate, scale_of
from iqakit.pipeline.feature_cache import kept_features
from iqakit.pipeline.fit_report import FitReport, TaskReport
from iqakit.pipeline.fit_request import Learned, check_amount, named_sources, waiting_sources
from iqakit.pipeline.method_memory import MethodMemory
from iqakit.pipeline.part_checks import check_backbone_name, check_result, checked_state
from iqakit.pipeline.provenance import card, data_facts, versions
from iqakit.pipeline.reading import readable
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config, split_settings
from iqakit.runtimes.precision import exact_float32
from iqakit.runtimes.torch_runtime import TorchRuntime, resolve_device
from iqakit.storage.adapter_file import adapter_bytes
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.checkpoint import FileCheckpoint
from iqakit.storage.model_directory import BackboneFacts, add_task, holds_model, model_lock, read_model

DEFAULT_BACKBONE = "tf_efficientnet_lite0"


class SilentProgress:
    """Progress that nobody watches."""

    def start(self, what: str, total: int) -> None:
        """Nothing to show."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nothing to show."""

    def message(self, text: str) -> None:
        """Nothing to show."""


def fit_tasks(
    data: Sequence[str | os.PathLike[str]] = (),
    *,
    backbone: str | None = None,
    weights: str | None = None,
    adapter: str = "tsn",
    task: str | None = None,
    model: str | os.PathLike[str] = "iqakit_model",
    settings: Mapping[str, str] | None = None,
    preset: str | None = None,
    epochs: int | None = None,
    scale: tuple[float, float] | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    workers: int = 2,
    features: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> FitReport:
    """Learn tasks in the order given and write or extend a model directory.

    Everything that can be wrong with names, settings and tables is found before the first image is read. A run that was cut
    off goes on where it stopped when the same command is given again; the result is that of an uncut run.

    Args:
        data: CSVs, directories holding ``scores.csv``, or ``NAME:PATH`` of public sets; none: the practice task.
        backbone: Name of the backbone; None: the model's own if it exists, else the default.
        weights: ``pretrained``, ``random:SEED`` or a safetensors file; None: the model's own, else ``pretrained``.
        adapter: Name of a fit method.
        task: The task's name, where there is one; None: from ``data``.
        model: The model's directory.
        settings: The method's settings, as text; ``COMBINER.key`` reaches what a combiner learns of the tasks, such as
            ``kmeans.clusters``.
        preset: One of the method's named settings, such as ``paper-a`` of ``tsn``; ``settings`` go over it.
        epochs: How long to train; None: as the method says.
        scale: Ends of the scale that people rated on, (lower, higher), which become 0 and 100 points, for a table of DMOS
            100 and 0; None: as published, else the first customary scale that holds the scores
            (``iqakit.pipeline.calibrating``).
        seed: Seed of all randomness, splits included.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        resume: Skip tasks that the model has learned already, instead of refusing them.
        workers: Threads that decode.
        features: A directory that keeps bare features for other fits; None: they go when the task is learned.
        progress: Where to say how far it is.

    Returns:
        What was done.

    Raises:
        ConfigurationError: Names or settings make no sense.
        DataError: A table is not what it must be.
        StorageError: The model cannot be read or written.
        TrainingError: Training diverged.
    """
    say = progress or SilentProgress()
    if epochs is not None and epochs < 0:
        raise ConfigurationError(f"epochs must be 0 or more, but it is {epochs}")
    if workers < 0:
        raise ConfigurationError(f"workers must be 0 or more, but it is {workers}")
    entry = catalog().adapter(adapter, "fit")
    own, theirs = split_settings(settings or {}, catalog().combiners)
    config = make_config(entry, own, preset)
    combiners = {name: make_config(part.entry, theirs.get(name, {})) for name, part in catalog().combiners.items()}
    method = entry.create(config)
    if not isinstance(method, FitMethod):
        raise ConfigurationError(f"adapter {adapter} cannot learn from scores; take another, such as tsn")
    sources = named_sources(data, task)
    chosen = resolve_device(device)
    directory = Path(model)
    learned = Learned.read(directory)
    waiting = waiting_sources(sources, learned, directory, resume, say)
    if not waiting:
        return FitReport(directory, learned.backbone or DEFAULT_BACKBONE, ())
    splits = [(source.open("train", seed), source.open("val", seed)) for source in waiting]
    scales = [scale_of(train, scale) for train, _ in splits]
    for source, parts, known in zip(waiting, splits, scales, strict=True):
        train = parts[0]
        outside = known.outside(parts) if known.source == "given" else None
        for warning in (*getattr(train, "warnings", ()), *([outside] if outside else ())):
            say.message(f"{source.name}: {warning}")
        check_amount(source, train)
    earlier = _earlier_data(entry, sources, waiting, learned, seed)
    asked = _lasting(weights or learned.weights or "pretrained")
    name = backbone or learned.backbone or DEFAULT_BACKBONE
    made = catalog().make_backbone(name, asked)
    check_backbone_name(name, made)
    learned.check(made, directory)
    reports = []
    with model_lock(directory):
        runner = _Fit(made, asked, entry, config, combiners, method, directory, seed, chosen, workers, epochs, say)
        runner.kept_features = None if features is None else Path(features)
        for source, (train, validation), known in zip(waiting, splits, scales, strict=True):
            reports.append(runner.learn(source, train, validation, known, earlier))
            if entry.needs_earlier_data:
                earlier.append(TaskData(source.name, train, validation))
    return FitReport(directory, made.id, tuple(reports))


def _earlier_data(
    entry: AdapterEntry, sources: Sequence[TaskSource], waiting: Sequence[TaskSource], learned: Learned, seed: int
) -> list[TaskData]:
    """Images of the tasks that the model has learned, for methods that see them again."""
    if not entry.needs_earlier_data:
        return []
    given = {source.name: source for source in sources if source not in waiting}
    if absent := [task for task in learned.tasks if task not in given]:
        raise ConfigurationError(
            f"adapter {entry.name} sees the images of earlier tasks again, but those of {absent[0]!r} were not given; "
            "give all tasks in one command, with --resume for those learned already"
        )
    return [TaskData(task, given[task].open("train", seed), given[task].open("val", seed)) for task in learned.tasks]


class _Fit:
    """Learns tasks on one backbone into one directory."""

    def __init__(
        self,
        backbone: Backbone,
        weights: str,
        entry: AdapterEntry,
        config: Any,
        combiners: Mapping[str, Any],
        method: FitMethod,
        directory: Path,
        seed: int,
        device: str,
        workers: int,
        epochs: int | None,
        say: Progress,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.adapter = entry.name
        self.config = config
        self.combiners = combiners
        self.method = method
        self.directory = directory
        self.seed = seed
        self.workers = workers
        self.epochs = epochs
        self.say = say
        self.runtime = TorchRuntime(backbone, device)
        self.fingerprint = backbone.fingerprint()
        self.kept_features: Path | None = None
        self.preprocessing = preprocessing_for(backbone.input)

    def learn(
        self, source: TaskSource, train: Dataset, validation: Dataset, scale: Scale, earlier_data: Sequence[TaskData]
    ) -> TaskReport:
        """Learn one task and add it to the model."""
        began = time.monotonic()
        identity = source.identity()
        adapters, states, shared = _content(self.directory)
        if adapters:
            # One preprocessing a model: an image is prepared once for all tasks.
            self.preprocessing = adapters[0].preprocessing
        place = self.directory / ".fit" / source.name
        usable_train, train_features = self._features(place, "train", source, train, identity)
        usable_validation, validation_features = self._features(place, "validation", source, validation, identity)
        check_amount(source, usable_train)
        if len(usable_validation) < 2:
            self.say.message(f"{source.name}: too few validation images to choose by; training images are used as well")
            usable_validation, validation_features = usable_train, train_features
        tasks = [known.task for known in adapters]
        kept = MethodMemory(self.directory, self.adapter)
        memory = kept.load(tasks)
        # What came before decides nothing for the built-in methods, but may for a plugin's, so it is part of the key.
        key = self._key(source, identity, tasks)
        context = FitContext(
            backbone=self.backbone,
            earlier=tuple(adapters),
            shared=shared,
            task=source.name,
            train=usable_train,
            validation=usable_validation,
            train_features=train_features,
            validation_features=validation_features,
            preprocessing=self.preprocessing,
            generator=Generator().manual_seed(self.seed),
            seed=self.seed,
            device=self.runtime.device,
            progress=self.say,
            checkpoint=self._checkpoint(place, key),
            workers=self.workers,
            epochs=self.epochs,
            memory=memory,
            earlier_data=tuple(_readable(data, self.say) for data in earlier_data),
        )
        with exact_float32():
            result = self.method.fit(context)
        check_result(result, source.name, self.backbone, self.adapter)
        if self.backbone.fingerprint() != self.fingerprint:
            raise TrainingError(
                f"adapter {self.adapter} changed the frozen backbone; nothing was saved; report it to its authors"
            )
        shared = {**shared, **(result.replaced or {})}
        finished, figure = self._finish(result.adapter, shared, usable_train, usable_validation, identity, scale)
        adapters.append(finished)
        kept.save([*tasks, source.name], memory if result.memory is None else result.memory)
        manifest = add_task(
            self.directory,
            BackboneFacts(id=self.backbone.id, weights=self.weights, fingerprint=self.fingerprint),
            finished,
            self._combiner_states(states, source.name, gate_features(train_features.stages), result),
            card(adapters, self.backbone.id, Path(self.weights).name),
            dict(result.replaced) if result.replaced else None,
            locked=True,
        )
        kept.tidy([*tasks, source.name])
        shutil.rmtree(place, ignore_errors=True)
        _remove_if_empty(place.parent)
        return TaskReport(
            task=source.name,
            adapter=self.adapter,
            train=len(usable_train),
            validation=len(usable_validation),
            srcc_validation=figure,
            seconds=round(time.monotonic() - began, 1),
            bytes=len(adapter_bytes(finished)),
            file=manifest.tasks[-1].file,
            history=tuple(_plain(record) for record in result.history),
        )

    def _key(self, source: TaskSource, identity: str, earlier: Sequence[str]) -> str:
        """What a checkpoint belongs to; anything that changes what is computed changes it."""
        record: dict[str, Any] = {
            "what": "fit",
            "task": source.name,
            "data": identity,
            "seed": self.seed,
            "backbone": self.fingerprint,
            "preprocessing": preprocessing_to_json(self.preprocessing),
            "versions": versions(),
            "adapter": self.adapter,
            "config": {name: str(value) for name, value in asdict(self.config).items()},
            "epochs": self.epochs,
            "earlier": list(earlier),
        }
        return hashlib.sha256(canonical_json(record).encode()).hexdigest()

    def _checkpoint(self, place: Path, key: str) -> FileCheckpoint:
        checkpoint = FileCheckpoint(place / "training", key)
        checkpoint.load()
        if checkpoint.problem:
            self.say.message(checkpoint.problem)
        return checkpoint

    def _features(
        self, place: Path, part: str, source: TaskSource, dataset: Dataset, identity: str
    ) -> tuple[Dataset, Features]:
        return kept_features(
            self.runtime,
            dataset,
            self.preprocessing,
            identity=identity,
            fingerprint=self.fingerprint,
            kept=self.kept_features,
            place=place / part,
            what=f"{source.name}: reading {len(dataset)} {part} images",
            progress=self.say,
            workers=self.workers,
        )

    def _finish(
        self,
        adapter: Adapter,
        shared: Mapping[str, Tensor],
        train: Dataset,
        validation: Dataset,
        identity: str,
        scale: Scale,
    ) -> tuple[Adapter, float | None]:
        """Calibrate on held-out images, and write down what it was learned from; the scale in turned numbers."""
        if scale.source in ("customary", "observed"):
            self.say.message(
                f"{adapter.task}: human scores are taken to be on the scale {scale} ({scale.source}); "
                "--scale LOW:HIGH says otherwise"
            )
        calibration, figure = calibrate(self.runtime, adapter, shared, train, validation, scale, self.say)
        provenance = {
            **adapter.provenance,
            **data_facts(train, validation, identity, self.seed),
            "scale": {"low": scale.low, "high": scale.high, "source": scale.source},
            "validation_srcc": figure if figure == figure else None,
            "versions": versions(),
        }
        return replace(adapter, calibration=calibration, provenance=provenance), provenance["validation_srcc"]

    def _combiner_states(
        self,
        earlier: Mapping[str, Mapping[str, Tensor]],
        task: str,
        gate: Sequence[Tensor],
        result: FitResult,
    ) -> dict[str, Mapping[str, Tensor]]:
        """State of every combiner there is, with this task learned, so that any of them can be chosen when scoring."""
        states: dict[str, Mapping[str, Tensor]] = {}
        for name, part in catalog().combiners.items():
            known = earlier.get(name, {})
            try:
                combiner = part.entry.create(self.combiners[name])
                state = combiner.fit_task(known, task, gate)
                if result.copies is not None and isinstance(combiner, FaultCombiner):
                    state = combiner.fit_copies(state, task, result.copies)
                if result.shifts is not None and isinstance(combiner, ShiftCombiner):
                    state = combiner.fit_shifts(state, task, result.shifts)
                checked = checked_state(state, known, name)
            except (Exception, SystemExit) as error:  # a plugin may fail in any way; that must not cost a finished training
                if part.builtin:
                    raise
                self.say.message(f"combiner {name} of {part.distribution} failed and is left out: {error}")
                continue
            if checked:
                states[name] = checked
        return states


def _content(
    directory: Path,
) -> tuple[list[Adapter], Mapping[str, Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """Adapters, combiners' states and shared tensors of the model so far."""
    if not holds_model(directory):
        return [], {}, {}
    _, adapters, states, shared = read_model(directory)
    return list(adapters), states, shared or {}


def _readable(data: TaskData, say: Progress) -> TaskData:
    """A task's images without those that cannot be read."""
    return replace(data, train=readable(data.train, say), validation=readable(data.validation, say))


def _lasting(weights: str) -> str:
    """Weights as they can be found again from any directory."""
    path = Path(weights).expanduser()
    return str(path.resolve()) if path.is_file() else weights


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and value != value else value for key, value in record.items()}


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
