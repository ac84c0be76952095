"""Experience replay: some images of earlier tasks are kept and learned again, with their task's own head.

Kept is one random crop an image, in 8 bits, with its score. Source: Chaudhry et al., "On Tiny Episodic Memories in
Continual Learning", 2019; images drawn at random and equal shares a task as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from iqakit.adapters.tsn_loss import TrainingPairs
from iqakit.contracts import Dataset, FitContext, Preprocessing, Sample, TaskFacts
from iqakit.errors import ConfigurationError, MismatchError
from iqakit.functional.heads import head_scores
from iqakit.imaging.tensors import normalise, random_crop, resize
from iqakit_baselines.extras import Extra, Pass
from iqakit_baselines.settings import ReplayConfig

if TYPE_CHECKING:
    from iqakit_baselines.trainer import Training


class KeptImages:
    """Images of one earlier task; follows the ``Dataset`` contract.

    Args:
        task: The task's name.
        pixels: uint8 (N, 3, H, W), RGB.
        scores: (N,), higher is better.
        deviations: (N,), standard deviations of the scores, or None where they are not known.
    """

    def __init__(self, task: str, pixels: Tensor, scores: Tensor, deviations: Tensor | None) -> None:
        self.pixels = pixels
        self.scores = scores
        self.deviations = deviations
        self._task = task

    @property
    def facts(self) -> TaskFacts:
        """The task's name; nothing more is kept."""
        return TaskFacts(name=self._task)

    def __len__(self) -> int:
        return len(self.scores)

    def sample(self, index: int) -> Sample:
        """Score of image ``index``."""
        deviation = None if self.deviations is None else float(self.deviations[index])
        return Sample(f"{self._task}/{index}", float(self.scores[index]), deviation)

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB."""
        return self.pixels[index]

    def path(self, index: int) -> Path | None:
        """None: they lie in memory."""
        return None

    def first(self, count: int) -> KeptImages:
        """The first ``count`` images; as they lie in random order, a random choice."""
        deviations = None if self.deviations is None else self.deviations[:count]
        return KeptImages(self._task, self.pixels[:count], self.scores[:count], deviations)

    def tensors(self) -> dict[str, Tensor]:
        """What ``kept_images`` reads back."""
        found = {"pixels": self.pixels.contiguous(), "scores": self.scores.contiguous()}
        if self.deviations is not None:
            found["deviations"] = self.deviations.contiguous()
        return {f"replay/{self._task}/{name}": tensor.clone() for name, tensor in found.items()}


def kept_images(memory: Mapping[str, Tensor], task: str) -> KeptImages:
    """Images of an earlier task as they were kept.

    Raises:
        MismatchError: There are none.
    """
    try:
        pixels, scores = memory[f"replay/{task}/pixels"], memory[f"replay/{task}/scores"]
    except KeyError as error:
        raise MismatchError(
            f"adapter replay kept no image of task {task!r}; fit the tasks again into another --model"
        ) from error
    return KeptImages(task, pixels, scores, memory.get(f"replay/{task}/deviations"))


def choose_images(
    task: str, dataset: Dataset, preprocessing: Preprocessing, count: int, side: int, generator: Generator
) -> KeptImages:
    """Draw images at random and cut one random crop of each.

    Args:
        task: The task's name.
        dataset: Its training images.
        preprocessing: Brings them to the size that crops are cut from.
        count: How many; all, where there are fewer.
        side: Side of the crops.
        generator: Source of randomness.
    """
    chosen = torch.randperm(len(dataset), generator=generator)[:count].tolist()
    samples = [dataset.sample(index) for index in chosen]
    crops = [
        random_crop(resize(dataset.image(index), preprocessing)[0], side, generator, flip=False).contiguous()
        for index in chosen
    ]
    deviations = [sample.score_std for sample in samples]
    known = [deviation for deviation in deviations if deviation is not None]
    return KeptImages(
        task,
        torch.stack(crops),
        torch.tensor([sample.score for sample in samples]),
        torch.tensor(known) if len(known) == len(samples) else None,
    )


class Replay(Extra):
    """The loss on kept images: those of one earlier task a step, scored by that task's frozen head.

    Args:
        config: The settings.
        context: What the fit method was given.

    Raises:
        ConfigurationError: The budget leaves fewer than two images a task, so that there are no pairs.
    """

    def __init__(self, config: ReplayConfig, context: FitContext) -> None:
        self.config = config
        tasks = len(context.earlier) + 1
        self.share = config.budget // tasks if config.budget_of == "all" else config.budget
        if self.share < 2:
            raise ConfigurationError(
                f"a budget of {config.budget} images for {tasks} tasks leaves fewer than two a task, and pairs take two; "
                f"raise it (--set budget={10 * tasks}) or set budget_of=task"
            )
        self.earlier = [(kept_images(context.memory, adapter.task), adapter.head_weight) for adapter in context.earlier]
        self.pairs: list[TrainingPairs] = []

    def begin(self, training: Training) -> None:
        """Make the pairs of earlier tasks ready."""
        self.pairs = [TrainingPairs(images, self.config, training.generator(0, 0)) for images, _ in self.earlier]

    def loss(self, training: Training, done: Pass) -> Tensor | None:
        """The weighted loss on one batch of one earlier task."""
        if not self.earlier:
            return None
        task = int(torch.randint(len(self.earlier), (), generator=done.generator))
        images, head = self.earlier[task]
        batch = self.pairs[task].batches(self.config.replay_batch_size, done.generator)[0]
        preprocessing = training.context.preprocessing
        side = training.side if self.config.crop else int(images.pixels.shape[-1])
        crops = [random_crop(images.image(index), side, done.generator, flip=self.config.flip) for index in batch.images]
        inputs = training.inputs([normalise(torch.stack(crops), preprocessing)], training.overlay)
        outputs = head_scores(inputs, head.to(training.device), None, "linear")
        return self.config.strength * self.pairs[task].loss(outputs, batch)

    def memory(self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Earlier tasks' images, fewer of each where they share a budget, and some of this one's."""
        context = training.context
        side = self.config.replay_side or training.side
        generator = training.generator(training.config.epochs + 1, 0)
        new = choose_images(context.task, context.train, context.preprocessing, self.share, side, generator)
        held = [*(images.first(self.share) for images, _ in self.earlier), new]
        return {name: tensor for images in held for name, tensor in images.tensors().items()}
