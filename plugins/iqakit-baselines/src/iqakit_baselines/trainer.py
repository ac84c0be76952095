"""The trainer that all baselines share: full fine-tuning of a network with a head, from pairs.

It works on copies of the network's tensors, laid over the frozen network for each call, so the network itself stays as it
is. The epoch with the highest SRCC on the validation images is kept, as ``tsn`` does. Source: own; the losses are those of
Zhang, Ma, Zhai, Yang, IEEE TIP 33:1898-1910, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Generator, Tensor

from iqakit.adapters.epoch_training import BestEpoch, EpochTraining, Step, StepGenerators, one_cycle
from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.training_images import MEMORY_BUDGET, TrainingImages, crop_side
from iqakit.adapters.training_passes import head_inputs, validation_srcc
from iqakit.adapters.tsn import shared_head
from iqakit.adapters.tsn_loss import Batch, TrainingPairs
from iqakit.contracts import FitContext, TaskData
from iqakit.functional.heads import head_input, head_input_dim, head_scores
from iqakit.functional.overlay import trainable_overlay
from iqakit_baselines.extras import Extra, Pass
from iqakit_baselines.pooled import PooledTasks
from iqakit_baselines.settings import BaselineConfig

_HEAD = "head"


class Training:
    """One run: what is learned is all weights and the head.

    Args:
        config: The settings.
        context: What the fit method was given.
        tasks: The tasks whose images the head learns from; pairs are made only within a task.
        start: Tensors to start from instead of the backbone's own.
        head: The head (D,) to start from; None: as ``config.head_start`` says.
        extra: What the method adds.

    Attributes:
        generator: The source of randomness of each epoch and step.
        parameters: The weights that are trained, by name in the backbone's module.
        start: Copies of all tensors as they were before training.
        best: The epoch kept, after ``run``.
        history: One record an epoch, after ``run``.
        memory: What the method wants to find again at the next task, after ``run``.
    """

    best: BestEpoch

    def __init__(
        self,
        config: BaselineConfig,
        context: FitContext,
        tasks: Sequence[TaskData],
        start: Mapping[str, Tensor],
        head: Tensor | None,
        extra: Extra,
    ) -> None:
        self.config = config
        self.context = context
        self.tasks = tasks
        self.extra = extra
        self.device = context.device
        self.module = context.backbone.module
        self.side = crop_side(context.preprocessing, config.crop)
        self.generator = StepGenerators(context.generator)
        self.overlay = trainable_overlay(self.module, [name for name, _ in self.module.named_parameters()])
        with torch.no_grad():
            for name, tensor in start.items():
                self.overlay[name].copy_(tensor)
        self.pretrained = not start
        self.parameters = {name: tensor for name, tensor in self.overlay.items() if tensor.requires_grad}
        self.start = {name: tensor.detach().clone() for name, tensor in self.overlay.items()}
        self.given_head = head
        width = head_input_dim(config.features, context.backbone.embedding_dim, context.backbone.stage_dims)
        self.head = torch.zeros(width, device=self.device, requires_grad=True)
        self.pairs = [TrainingPairs(task.train, config, self.generator(0, n)) for n, task in enumerate(tasks)]
        self.images: list[TrainingImages] = []
        self.history: list[dict[str, Any]] = []
        self.memory: dict[str, Tensor] | None = None

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train, or go on from the context's checkpoint, and leave what is kept in ``best``.

        Raises:
            TrainingError: The loss stopped being a number, or there is nothing to learn.
        """
        with ExitStack() as stack:
            budget = MEMORY_BUDGET // len(self.tasks)
            self.images = [
                stack.enter_context(TrainingImages(task.train, self.context.preprocessing, self.context.workers, budget))
                for task in self.tasks
            ]
            self.extra.begin(self)
            training = EpochTraining(
                self.context,
                self,
                {**self.overlay, _HEAD: self.head},
                self.generator,
                epochs=self.config.epochs,
                learning_rate=self.config.learning_rate,
                weight_decay=self.config.weight_decay,
                averaging=self.config.averaging,
                beside=self.extra.state(),
            )
            if not training.resume():
                self._set_head()
                if self.given_head is not None or self.config.head_start == "ridge" or self.config.epochs == 0:
                    training.check_start()
                training.save()
            self.best, self.history = training.run(), training.history
            self.memory = self.extra.memory(self, self._network(self.best.tensors), self.best.beside)

    @property
    def best_head(self) -> Tensor:
        """The head kept, (D,). Its length matters in training alone: it scores as a cosine."""
        return self.best.tensors[_HEAD]

    def kept(self, all_tensors: bool) -> dict[str, Tensor]:
        """The tensors kept, on the CPU: the weights trained and the running statistics.

        Args:
            all_tensors: Whether statistics that did not move are wanted too.
        """
        return {
            name: tensor.cpu()
            for name, tensor in self._network(self.best.tensors).items()
            if all_tensors or name in self.parameters or not torch.equal(tensor, self.start[name])
        }

    @staticmethod
    def _network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a model holds of the network: weights and floating-point statistics."""
        return {name: tensor for name, tensor in tensors.items() if name != _HEAD and tensor.is_floating_point()}

    # -- where the head starts -----------------------------------------------------------------------------------------

    def _set_head(self) -> None:
        if self.given_head is not None:
            head = self.given_head.reshape(-1)
        elif self.config.head_start == "shared":
            head = shared_head(self.head.numel())
        elif self.pretrained and len(self.tasks) == 1:
            head, _, _ = ridge_head(head_input(self.context.train_features, self.config.features), self.tasks[0].train)
        else:
            head, _, _ = ridge_head(self._current_inputs(), PooledTasks(self.tasks))
        with torch.no_grad():
            self.head.copy_(head)

    def _current_inputs(self) -> Tensor:
        """Head inputs of one view an image of every task, under the weights that training starts from."""
        parts = []
        generator = self.generator(0, len(self.tasks))
        self.context.progress.start(f"{self.context.task}: reading features", sum(len(task.train) for task in self.tasks))
        with torch.no_grad():
            for number, task in enumerate(self.tasks):
                for first in range(0, len(task.train), self.config.batch_size):
                    some = range(first, min(first + self.config.batch_size, len(task.train)))
                    parts.append(self.inputs(self.views(number, some, generator), self.overlay).cpu())
                    self.context.progress.advance(len(some))
        return torch.cat(parts)

    # -- what the loop asks for ----------------------------------------------------------------------------------------

    def batches(self, epoch: int, generator: Generator) -> list[tuple[int, Batch]]:
        """One epoch's batches, each with the number of its task; those of several tasks are mixed."""
        found = [
            (number, batch)
            for number, pairs in enumerate(self.pairs)
            for batch in pairs.batches(self.config.batch_size, generator)
        ]
        if len(self.pairs) == 1:
            return found
        return [found[index] for index in torch.randperm(len(found), generator=generator).tolist()]

    def step(self, batch: tuple[int, Batch], step: Step) -> Tensor:
        """The loss on one batch of one task, with what the method adds."""
        task, chosen = batch
        statistics = self.config.update_statistics == "always" or (
            self.config.update_statistics == "first-epoch" and step.epoch == 1
        )
        views = self.views(task, chosen.images, step.generator)
        inputs = self.inputs(views, self.overlay, statistics)
        loss = self.pairs[task].loss(head_scores(inputs, self.head, None, "linear"), chosen)
        extra = self.extra.loss(self, Pass(views, inputs, chosen, step.generator))
        total = loss if extra is None else loss + extra
        # Not ``step.done``: the same share, rounded otherwise, and a training gives the same bits as it always did.
        done = (step.epoch - 1 + step.number / step.count) / self.config.epochs
        step.minimise(total, one_cycle(self.config.learning_rate, done), lambda: self.extra.before_update(self.parameters))
        self.extra.after_update(self.parameters)
        if not bool(torch.isfinite(self.head).all()):
            raise step.diverged(total)
        return loss

    def validate(self, tensors: Mapping[str, Tensor]) -> float:
        """SRCC on whole validation images, the mean over the tasks that are learned."""
        network = self._network(tensors)

        def outputs(image: Tensor) -> Tensor:
            inputs = head_inputs(self.module, network, image, self.config.features)
            return head_scores(inputs, tensors[_HEAD], None, "cosine")

        figures = [
            validation_srcc(self.context, outputs, task.validation if len(task.validation) >= 2 else task.train, task.task)
            for task in self.tasks
        ]
        return sum(figures) / len(figures)

    # -- what methods ask for ------------------------------------------------------------------------------------------

    def views(self, task: int, images: Sequence[int], generator: Generator) -> list[Tensor]:
        """Images as the network gets them: crops in one batch, or whole images, which differ in size, one by one."""
        return self.images[task].views(images, self.side, self.config.flip, generator)

    def inputs(self, views: Sequence[Tensor], tensors: Mapping[str, Tensor], statistics: bool = False) -> Tensor:
        """The head's inputs of some views under some weights, (N, D), float32.

        Args:
            views: From ``views``.
            tensors: The weights.
            statistics: Whether batch norm uses the batch's statistics.
        """
        return torch.cat(
            [
                head_inputs(
                    self.module,
                    tensors,
                    view.to(self.device),
                    self.config.features,
                    precision=self.config.precision,
                    batch_statistics=statistics,
                )
                for view in views
            ]
        )
