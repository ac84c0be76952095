"""What continual learning is reported as: one record a run, plain data, written to ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Matrix = tuple[tuple[float | None, ...], ...]
Interval = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Bytes:
    """What is kept after the last task, in bytes.

    Attributes:
        adapters: The adapter file of each task, in order.
        combiner: What the combiner knows of all tasks together (centroids, for ``kmeans``).
        shared: Tensors that replace the backbone's own; 0 for most methods. They do not grow with the tasks.
        memory: What the method keeps for itself, such as importance of weights or examples; 0 for most.
    """

    adapters: tuple[int, ...]
    combiner: int
    shared: int
    memory: int


@dataclass(frozen=True, slots=True)
class ContinualRun:
    """One stream learned with one method, scored with one combiner.

    Matrices are (T, T), a row for each task learned, a column for each task tested, None above the diagonal and where a
    figure is undefined.

    Attributes:
        adapter: The method.
        combiner: The combiner.
        order: The tasks in the order learned.
        seed: Seed of all randomness.
        R: SRCC with human scores on task s after task t; higher is better.
        P: SRCC between the predictions on s after task t and those after task s; 1: nothing changed.
        msrcc: Mean of the last row of R.
        mpi: Plasticity: mean of the diagonal of R.
        msi: Stability: mean over t of SI_t, SI_1 = 1, SI_t the mean of P[t][s] over s < t.
        mpsi: Mean of ``mpi`` and ``msi``.
        seconds: Wall time of learning all tasks, reading their images included.
        bytes_per_task: Mean size of an adapter file.
        msrcc_interval: 95 % interval of ``msrcc``, over images resampled within their tasks.
        srcc_intervals: 95 % interval of each entry of the last row of R.
        plcc: PLCC after the four-parameter logistic map, for each task after the last.
        mplcc: Their mean.
        gate: Mean weight of each task (column) over the test images of each task (row), after the last task.
        seconds_per_task: ``seconds`` by task.
        bytes: What is kept, by kind.
        order_name: How the order was asked for.
        model: The learned model, relative to the output directory.
    """

    adapter: str
    combiner: str
    order: tuple[str, ...]
    seed: int
    R: Matrix
    P: Matrix
    msrcc: float | None
    mpi: float | None
    msi: float | None
    mpsi: float | None
    seconds: float
    bytes_per_task: int
    msrcc_interval: Interval
    srcc_intervals: tuple[Interval, ...]
    plcc: tuple[float | None, ...]
    mplcc: float | None
    gate: Matrix
    seconds_per_task: tuple[float, ...]
    bytes: Bytes
    order_name: str
    model: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A method or a combiner that could not do its work; what it had done stays.

    Attributes:
        adapter: The method.
        combiner: The combiner that failed; None: the method itself did.
        order: The tasks in the order they were to be learned.
        seed: The seed.
        learned: Tasks that were learned.
        error: Why it stopped, one line.
        R: SRCC for the tasks that were learned, by combiner.
    """

    adapter: str
    combiner: str | None
    order: tuple[str, ...]
    seed: int
    learned: tuple[str, ...]
    error: str
    R: Mapping[str, Matrix] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluatedTask:
    """One task's images for evaluation under one seed.

    Attributes:
        task: The task's name.
        seed: The seed, which decides the split where the data bring none.
        n: Images that were scored.
        failed: Images that could not be read.
    """

    task: str
    seed: int
    n: int
    failed: int


@dataclass(frozen=True, slots=True)
class ContinualReport:
    """All that ``run_continual`` found.

    Attributes:
        directory: Where everything was written.
        runs: One a method, seed, order and combiner.
        failures: What could not be done.
        tasks: How many images the figures stand on.
        facts: What was asked for and with what it was computed, plain JSON.
    """

    directory: Path
    runs: tuple[ContinualRun, ...]
    failures: tuple[Failure, ...]
    tasks: tuple[EvaluatedTask, ...]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON: what ``summary.json`` holds."""
        return {
            "runs": [asdict(run) for run in self.runs],
            "failures": [asdict(failure) for failure in self.failures],
            "tasks": [asdict(task) for task in self.tasks],
            **self.facts,
        }


def above_diagonal_empty(rows: Sequence[Sequence[float | None]], size: int) -> Matrix:
    """Rows of a lower triangle as a square matrix with None above the diagonal.

    Args:
        rows: Row t holds t + 1 figures.
        size: T; rows that are missing come out as None throughout.
    """
    filled = [*rows, *([[]] * (size - len(rows)))]
    return tuple((*row, *([None] * (size - len(row)))) for row in filled)
