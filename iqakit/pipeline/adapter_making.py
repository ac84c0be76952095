"""``iqakit adapt``: one adapter for many images, to be used later by ``score --adapter``."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from torch import Generator

from iqakit.contracts import Adapter, Progress
from iqakit.errors import ConfigurationError, ImageError, UnknownNameError
from iqakit.imaging.batching import Failed, Prepared, stream
from iqakit.imaging.decoding import ImageSource, describe
from iqakit.pipeline.adaptation_request import AUTO, DEFAULT_BATCH, AdaptationRequest, make_adaptation_request
from iqakit.pipeline.adapter_choice import PARENT
from iqakit.pipeline.adapting import KEEP, BatchAdapter, belongs_to
from iqakit.pipeline.fitting import SilentProgress
from iqakit.pipeline.model import DEFAULT_COMBINER, QualityModel, check_several
from iqakit.pipeline.provenance import versions
from iqakit.pipeline.scored import Scored, make_request
from iqakit.pipeline.test_time_batches import Window, batches_of, source_figures, windows_of
from iqakit.storage.adapter_file import write_adapter
from iqakit.storage.model_directory import read_manifest


@dataclass(frozen=True, slots=True)
class AdaptationReport:
    """What became of ``adapt``.

    Attributes:
        task: The task whose adapter was adapted.
        adapter: The adapter, on the CPU.
        sha256: SHA-256 of the file; None where none was written.
        images: Images that were adapted to.
        failed: Why others could not be scored.
        batches: How many batches there were.
        refused: Why batches left the tensors as they were, and how often.
        source_mean: Mean source score of the images in points; None where a task has no calibration.
        adapted_mean: Their mean when their batch had been adapted to.
    """

    task: str
    adapter: Adapter
    sha256: str | None
    images: int
    failed: tuple[str, ...]
    batches: int
    refused: Mapping[str, int]
    source_mean: float | None
    adapted_mean: float | None

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON, without the tensors."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "adapter"}
        return facts | {"failed": list(self.failed), "refused": dict(self.refused)}


GATE_SAMPLE: Final = 32
"""Images of the first window that say which task all of them belong to."""


def adapt(
    model: QualityModel,
    images: Iterable[ImageSource],
    tta: str,
    *,
    output: str | os.PathLike[str] | None = None,
    task: str | None = None,
    settings: Mapping[str, Any] | None = None,
    batch: int = DEFAULT_BATCH,
    order: str = "shuffled",
    seed: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> AdaptationReport:
    """Make one adapter from unscored images.

    Images are taken in batches, as ``score`` takes them. Each batch goes on from where the one before it ended, pulled
    back to the source by a hundredth; a batch whose result is not believed leaves the tensors as they were. Head and
    calibration stay the task's. One batch gives what ``score`` would adapt to for it.

    Args:
        model: The model; not changed.
        images: The images, consumed lazily; those that cannot be read are left out and told.
        tta: A test-time method.
        output: Where the adapter file goes; None: it is only given back.
        task: The task whose adapter is adapted; None: the one that the first images belong to, as the default gate says.
        settings: The method's settings.
        batch: Images of a batch, at most.
        order: ``"shuffled"`` or ``"given"``.
        seed: Seed of the mixing and of what the method draws.
        workers: Threads that decode.
        progress: Where to say how far it is.

    Returns:
        The adapter and what became of the images.

    Raises:
        UnknownNameError: The method, a setting or the task is unknown.
        ConfigurationError: One image was given, not several, none could be scored, no batch could be adapted to, or a
            value makes no sense.
        StorageError: The file could not be written.
    """
    check_several(images, "adapt", "a list of images")
    named = {name: str(value) for name, value in (settings or {}).items()}
    request = make_adaptation_request(tta, named, batch=batch, mode="online", order=order, seed=seed, reset=0)
    if request is None or tta == AUTO:
        raise ConfigurationError(f"adapt needs the name of a test-time method, not {tta!r}")
    if task is not None and task not in model.tasks:
        raise UnknownNameError.of(f"task of model {model.name}", task, model.tasks)
    if model.replaced:
        raise ConfigurationError(f"model {model.version} has an adapted adapter in place already; adapt the model itself")
    windows = windows_of(images, request.window)
    first = next(windows, None)
    if first is None:
        raise ConfigurationError("there is nothing to adapt to; name at least one image")
    run = _Run(model, request, task or _task_of(model, first, workers), workers, progress or SilentProgress())
    for window in chain([first], windows):
        run.take(window)
    return run.finish(output)


class _Run:
    """One run over all images, and what is counted on the way."""

    def __init__(
        self, model: QualityModel, request: AdaptationRequest, task: str, workers: int, progress: Progress
    ) -> None:
        self._model = model
        self._request = request
        self._task = task
        self._workers = workers
        self._say = progress
        self._adapter = BatchAdapter(model.parts, request)
        self._how = make_request("oracle", task)
        self._mixing = Generator().manual_seed(request.order_seed)
        self._failed: list[str] = []
        self._refused: Counter[str] = Counter()
        self._batches = 0
        self._source: list[float] = []
        self._adapted: list[float] = []
        progress.start(f"adapting task {task}", 0)

    def take(self, window: Window) -> None:
        """Adapt to the images of one window."""
        batches = batches_of(len(window.sources), self._request, self._mixing)
        sources = (window.sources[place] for members in batches for place in members)
        items = stream(sources, self._model.preprocessing, workers=self._workers)
        for members in batches:
            self._adapt([next(items) for _ in members])
            self._say.advance(len(members))

    def _adapt(self, items: Sequence[Prepared | Failed]) -> None:
        for item in items:
            if isinstance(item, Failed):
                self._fail(str(item.error))
        prepared = [item for item in items if isinstance(item, Prepared)]
        pictures, figures = [], []
        images = [torch.from_numpy(item.image) for item in prepared]
        for item, image, found in zip(prepared, images, source_figures(self._model.parts, images, self._how), strict=True):
            if isinstance(found, ImageError):
                self._fail(f"{describe(item.source)}: {found}")
            else:
                pictures.append(image)
                figures.append(found)
        if not figures:
            return
        result = self._adapter(pictures, figures, self._task)
        self._batches += 1
        self._source += [item.score for item in figures]
        self._adapted += [item.score for item in result.scored]
        if not result.adapted:
            self._refused[result.note] += 1

    def _fail(self, text: str) -> None:
        self._failed.append(text)
        self._say.message(f"left out: {text}")

    def finish(self, output: str | os.PathLike[str] | None) -> AdaptationReport:
        """The adapter, written if it has a place."""
        if not self._batches:
            raise ConfigurationError(f"none of the {len(self._failed)} images can be scored; the first: {self._failed[0]}")
        if self._refused.total() == self._batches:
            reason = self._refused.most_common(1)[0][0]
            batches = "the only batch" if self._batches == 1 else f"any of the {self._batches} batches"
            raise ConfigurationError(f"task {self._task} was not adapted to {batches}: {reason}; nothing was written")
        adapter = self._made()
        return AdaptationReport(
            task=self._task,
            adapter=adapter,
            sha256=None if output is None else write_adapter(adapter, Path(output)),
            images=len(self._source),
            failed=tuple(self._failed),
            batches=self._batches,
            refused=dict(self._refused),
            source_mean=_mean(self._source),
            adapted_mean=_mean(self._adapted),
        )

    def _made(self) -> Adapter:
        model, request = self._model, self._request
        index = model.tasks.index(self._task)
        own = model.adapters[index]
        parent = next(task.sha256 for task in read_manifest(model.directory).tasks if task.name == self._task)
        record = {
            "method": request.method,
            "from": own.method,
            "images": len(self._source),
            "batches": self._batches,
            "refused": self._refused.total(),
            "batch": request.batch,
            "order": request.order,
            "seed": request.seed,
            "pull": 1 - KEEP,
            "versions": versions(),
        }
        return replace(
            own,
            method=request.method,
            tensors={name: tensor.clone() for name, tensor in self._adapter.carried(index).items()},
            config=request.decisive()["config"],
            provenance={**own.provenance, PARENT: parent, "adaptation": record},
        )


def _task_of(model: QualityModel, window: Window, workers: int) -> str:
    """The task that some images spread over a window belong to, as the default gate says."""
    if len(model.tasks) == 1:
        return model.tasks[0]
    how = make_request(DEFAULT_COMBINER)
    step = max(1, len(window.sources) // GATE_SAMPLE)
    scored: list[Scored] = []
    for item in stream(window.sources[::step], model.preprocessing, workers=workers):
        if isinstance(item, Prepared):
            found = source_figures(model.parts, [torch.from_numpy(item.image)], how)[0]
            scored += [found] if isinstance(found, Scored) else []
    # Without one that can be read the run will say so itself.
    return model.tasks[belongs_to(scored)] if scored else model.tasks[0]


def _mean(values: Sequence[float]) -> float | None:
    mean = sum(values) / len(values)
    return mean if math.isfinite(mean) else None
