"""``evaluate``: how well a model agrees with people on a task's test images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Dataset, Progress
from iqakit.datasets.sources import TaskSource, open_source
from iqakit.errors import ConfigurationError, DataError, ImageError, UnknownNameError
from iqakit.functional.bootstrap import bootstrap_interval
from iqakit.functional.correlation import krcc, plcc, rmse, srcc
from iqakit.functional.logistic import apply_logistic, fit_logistic
from iqakit.pipeline.fitting import SilentProgress
from iqakit.pipeline.model import DEFAULT_COMBINER, QualityModel
from iqakit.pipeline.reading import prepared_images
from iqakit.pipeline.torch_scoring import Outputs
from iqakit.plugins.catalog import catalog


def evaluate_sources(
    model: QualityModel,
    data: Sequence[str | os.PathLike[str]],
    *,
    combiners: Sequence[str] = (DEFAULT_COMBINER,),
    split: str = "test",
    on: str = "score",
    bootstrap: int = 1000,
    workers: int = 2,
    seed: int | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a model on tasks, one record a task and combiner.

    The prediction is the score in points, which is what users see, or the weighted sum of raw head outputs, which is what
    the literature on continual learning measures. PLCC and RMSE are taken after the customary monotone four-parameter
    logistic map from predictions to human scores (VQEG); RMSE is in the units of the human scores.

    Args:
        model: The model.
        data: CSVs, directories, or ``NAME:PATH`` of public sets.
        combiners: Names; ``oracle`` needs the task to be one the model has learned, by name.
        split: ``train``, ``val``, ``test`` or ``all``.
        on: ``score`` or ``raw``.
        bootstrap: Resamples for the 95 % interval of SRCC; 0: no interval.
        workers: Threads that decode.
        seed: Seed of the splits, where the data bring none of their own, and of the resampling. None: the seed that the
            task was learned with, so that no training image is tested on; 0 for a task that the model has not learned.
        progress: Where to say how far it is.

    Returns:
        ``task, combiner, n, failed, srcc, srcc_low, srcc_high, krcc, plcc, rmse``, as plain JSON; a figure that is
        undefined is None.

    Raises:
        DataError: A table is not what it must be, or fewer than two of its images can be read.
        UnknownNameError: A combiner is unknown.
    """
    say = progress or SilentProgress()
    records: list[dict[str, Any]] = []
    for source, dataset, number in opened_sources(model, data, combiners, split, on, bootstrap, seed, say):
        passes = run_passes(model, source, dataset, workers, say)
        records += [record(model, passes, combiner, on, bootstrap, number) for combiner in combiners]
    return records


def opened_sources(
    model: QualityModel,
    data: Sequence[str | os.PathLike[str]],
    combiners: Sequence[str],
    split: str,
    on: str,
    bootstrap: int,
    seed: int | None,
    say: Progress,
) -> Iterator[tuple[TaskSource, Dataset, int]]:
    """Check what was asked for and open the data; all of it before the first is given out.

    Yields:
        A task, its images, and the seed of its splits.

    Raises:
        DataError: There is no data, or a table is not what it must be.
        ConfigurationError: A value makes no sense.
        UnknownNameError: A combiner is unknown, or oracle does not know a task.
    """
    if not data:
        raise DataError("there is nothing to evaluate on; give a CSV, a directory holding scores.csv, or NAME:PATH")
    if bootstrap < 0:
        raise ConfigurationError(f"bootstrap must be 0 or more, but it is {bootstrap}")
    if on not in ("score", "raw"):
        raise ConfigurationError(f"on must be score or raw, but it is {on!r}")
    for name in combiners:
        catalog().combiner(name)
    sources = [open_source(os.fspath(text), catalog().dataset) for text in data]
    for source in sources:
        if "oracle" in combiners and source.name not in model.tasks:
            raise UnknownNameError.of(f"task of model {model.name}", source.name, model.tasks, "Combiner oracle needs it.")
    seeds = [_seed(model, source.name, seed, say) for source in sources]
    opened = [source.open(split, number) for source, number in zip(sources, seeds, strict=True)]
    for source, dataset, number in zip(sources, opened, seeds, strict=True):
        for warning in getattr(dataset, "warnings", ()):
            say.message(f"{source.name}: {warning}")
        yield source, dataset, number


def _seed(model: QualityModel, task: str, asked: int | None, say: Progress) -> int:
    """The seed of a task's splits: the one it was learned with, if not asked for otherwise."""
    learned = next((adapter.provenance.get("seed") for adapter in model.adapters if adapter.task == task), None)
    if asked is None:
        return learned if isinstance(learned, int) else 0
    if learned is not None and learned != asked:
        say.message(
            f"{task}: was learned with seed {learned}; with seed {asked}, unless the data bring their own splits, "
            "training images may be among those tested"
        )
    return asked


@dataclass(frozen=True, slots=True)
class Passes:
    """What the network gave for a task's images; every figure follows from it without another pass.

    Attributes:
        task: The task's name.
        outputs: Head outputs and gate features of the images that could be scored.
        human: Their human scores, (N,).
        failed: How many images could not be scored.
    """

    task: str
    outputs: Outputs
    human: Tensor
    failed: int


def run_passes(model: QualityModel, source: TaskSource, dataset: Dataset, workers: int, progress: Progress) -> Passes:
    """Run the network once over a task's images.

    Raises:
        DataError: Fewer than two of them can be scored.
    """
    parts: list[Outputs] = []
    used: list[int] = []
    progress.start(f"{source.name}: {len(dataset)} images", len(dataset))
    for index, image in prepared_images(dataset, model.preprocessing, workers):
        if isinstance(image, ImageError):
            progress.message(f"failed: {image}")
        else:
            outputs = model.outputs(image[None])
            if torch.isfinite(outputs.raw).all():
                parts.append(outputs)
                used.append(index)
            else:
                progress.message(f"failed: {dataset.sample(index).name}: the network gave a number that is not finite")
        progress.advance()
    # Images that a table names and that are not there were left out on opening; they failed all the same.
    failed = len(dataset) - len(used) + len(getattr(dataset, "left_out", ()))
    if len(used) < 2:
        raise DataError(f"{source.description}: {len(used)} of {len(dataset)} images can be read; at least 2 are needed")
    gate = tuple(torch.cat(stage) for stage in zip(*(part.gate for part in parts), strict=True))
    return Passes(source.name, Outputs(torch.cat([part.raw for part in parts]), gate), human_scores(dataset)[used], failed)


def predictions(model: QualityModel, passes: Passes, combiner: str, on: str = "score") -> Tensor:
    """What a combiner makes of them: (N,), points or the raw sum; raw too where a task has no calibration."""
    score, raw, _ = model.combine(passes.outputs, model.weights(passes.outputs, combiner, passes.task))
    return score if on == "score" and torch.isfinite(score).all() else raw


def record(model: QualityModel, passes: Passes, combiner: str, on: str, bootstrap: int, seed: int) -> dict[str, Any]:
    """One record of ``evaluate_sources``."""
    facts = {"task": passes.task, "combiner": combiner, "n": len(passes.human), "failed": passes.failed}
    return facts | figures_of(predictions(model, passes, combiner, on), passes.human, bootstrap, seed)


def figures_of(
    predicted: Tensor, human: Tensor, bootstrap: int, seed: int, *, plcc_interval: bool = False
) -> dict[str, Any]:
    """Agreement of predictions (N,) with human scores (N,), as plain JSON; what is undefined is None.

    Args:
        predicted: Points or raw outputs.
        human: Human scores.
        bootstrap: Resamples for the intervals; 0: none.
        seed: Seed of the resampling.
        plcc_interval: Give the interval of PLCC too, the logistic map held as it is.
    """
    predicted, human = predicted.double(), human.double()
    # Four points or fewer are no fit of four parameters; without one, an error would be of points against other units.
    enough = len(human) > 4
    mapped = apply_logistic(predicted, fit_logistic(predicted, human)) if enough else predicted
    low = high = None
    if bootstrap:
        interval = bootstrap_interval(srcc, predicted, human, repeats=bootstrap, generator=Generator().manual_seed(seed))
        low, high = float(interval[0]), float(interval[1])
    figures = {
        "srcc": float(srcc(predicted, human)),
        "srcc_low": low,
        "srcc_high": high,
        "krcc": float(krcc(predicted, human)),
        "plcc": float(plcc(mapped, human)),
        "rmse": float(rmse(mapped, human)) if enough else None,
    }
    if plcc_interval:
        ends: Sequence[float | None] = (None, None)
        if bootstrap:
            drawn = bootstrap_interval(plcc, mapped, human, repeats=bootstrap, generator=Generator().manual_seed(seed))
            ends = [float(end) for end in drawn]
        figures |= {"plcc_low": ends[0], "plcc_high": ends[1]}
    return {name: None if value is None or value != value else value for name, value in figures.items()}
