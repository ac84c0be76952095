"""The scores of several tasks side by side, so that one ridge regression can start a head for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Sample, TaskData, TaskFacts


class PooledTasks:
    """The training images of several tasks, one after the other; follows the ``Dataset`` contract.

    Scores are standardised within their task, as scales of different tasks cannot be compared. Images of different tasks
    share no content.

    Args:
        tasks: The tasks.
    """

    def __init__(self, tasks: Sequence[TaskData]) -> None:
        self._tasks = tasks
        self._places = [(task, index) for task in tasks for index in range(len(task.train))]
        self._scale = {}
        for task in tasks:
            scores = human_scores(task.train).double()
            self._scale[task.task] = float(scores.mean()), float(scores.std(correction=0)) or 1.0

    @property
    def facts(self) -> TaskFacts:
        """The last task's facts, with the standardised scores' own range."""
        return TaskFacts(name=self._tasks[-1].task)

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, index: int) -> Sample:
        """Image ``index``, its score in its task's standard deviations from its task's mean."""
        task, place = self._places[index]
        sample = task.train.sample(place)
        mean, spread = self._scale[task.task]
        content = sample.content if sample.content is not None else sample.name
        return Sample(f"{task.task}/{sample.name}", (sample.score - mean) / spread, None, f"{task.task}/{content}")

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB."""
        task, place = self._places[index]
        return task.train.image(place)

    def path(self, index: int) -> Path | None:
        """The image's file, or None."""
        task, place = self._places[index]
        return task.train.path(place)
