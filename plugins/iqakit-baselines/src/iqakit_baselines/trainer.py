"""The trainer that all baselines share: full fine-tuning of a network with a head, from pairs.

It works on copies of the network's tensors, laid over the frozen network for each call, so the network itself stays as it
is. The epoch with the highest SRCC on the validation images is kept, as ``tsn`` does. Source: own; the losses are those of
Zhang, Ma, Zhai, Yang, IEEE TIP 33:1898-1910, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Generator, Tensor

from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.settings import TsnConfig
from iqakit.adapters.training_images import MEMORY_BUDGET, TrainingImages, human_scores
from iqakit.adapters.tsn import SHARED_HEAD_SEED
from iqakit.adapters.tsn_loss import Batch, TrainingPairs
from iqakit.contracts import Features, FitContext, Preprocessing, TaskData
from iqakit.errors import ConfigurationError, TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input, head_input_dim, head_scores
from iqakit.functional.overlay import overlay_call, trainable_overlay
from iqakit.imaging.tensors import prepare
from iqakit_baselines.extras import Extra, Step
from iqakit_baselines.pooled import PooledTasks
from iqakit_baselines.resuming import adam_tensors, number_or_none, part, restore_adam
from iqakit_baselines.settings import BaselineConfig

_HEAD = "head"
_SAVE_EVERY = 200
"""Steps between two saves inside an epoch."""


class Training:
    """One run. Its state is the weights, the head, Adam's moments, the best so far and where in which epoch it is.

    Args:
        config: The settings.
        context: What the fit method was given.
        tasks: The tasks whose images the head learns from; pairs are made only within a task.
        start: Tensors to start from instead of the backbone's own.
        head: The head (D,) to start from; None: as ``config.head_start`` says.
        extra: What the method adds.

    Attributes:
        parameters: The weights that are trained, by name in the backbone's module.
        start: Copies of all tensors as they were before training.
        best: The tensors kept, after ``run``; the head is ``best_head``.
        memory: What the method wants to find again at the next task, after ``run``.
    """

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
        # One number fixes every later draw; each step has a generator of its own, so a cut run goes on exactly.
        self.seed = int(torch.randint(2**62, (), generator=context.generator))
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
        self.pair_settings = _pair_settings(config)
        self.pairs = [TrainingPairs(task.train, self.pair_settings, self.generator(0, n)) for n, task in enumerate(tasks)]
        self.images: list[TrainingImages] = []
        self.optimiser = torch.optim.Adam([*self.parameters.values(), self.head], lr=0.0, weight_decay=config.weight_decay)
        self.memory: dict[str, Tensor] | None = None
        self.average: dict[str, Tensor] | None = None
        self.best: dict[str, Tensor] = {}
        self.best_state: dict[str, Tensor] = {}
        self.best_figure = -math.inf
        self.best_epoch = 0
        self.epoch = 0
        self.step = 0
        self.loss_sum = 0.0
        self.history: list[dict[str, Any]] = []

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
            if not self._restore():
                self._set_head()
                if self.given_head is not None or self.config.head_start == "ridge" or self.config.epochs == 0:
                    self._consider(0, None)
                self._save()
            for epoch in range(self.epoch + 1, self.config.epochs + 1):
                self._run_epoch(epoch)
            kept = {name: tensor for name, tensor in self.best.items() if name != _HEAD}
            self.memory = self.extra.memory(self, kept, self.best_state)

    @property
    def best_head(self) -> Tensor:
        """The head kept, (D,). Its length matters in training alone: it scores as a cosine."""
        return self.best[_HEAD]

    def kept(self, all_tensors: bool) -> dict[str, Tensor]:
        """The tensors kept, on the CPU: the weights trained and the running statistics.

        Args:
            all_tensors: Whether statistics that did not move are wanted too.
        """
        return {
            name: tensor.cpu()
            for name, tensor in self.best.items()
            if name != _HEAD and (all_tensors or name in self.parameters or not torch.equal(tensor, self.start[name]))
        }

    # -- what is learned from ------------------------------------------------------------------------------------------

    def generator(self, epoch: int, step: int) -> Generator:
        """The source of randomness of one step; step 0 is the epoch's order."""
        return Generator().manual_seed((self.seed + 1_000_003 * epoch + step) % 2**63)

    def batches(self, epoch: int) -> list[tuple[int, Batch]]:
        """One epoch's batches, each with the number of its task; those of several tasks are mixed."""
        generator = self.generator(epoch, 0)
        found = [
            (number, batch)
            for number, pairs in enumerate(self.pairs)
            for batch in pairs.batches(self.config.batch_size, generator)
        ]
        if len(self.pairs) == 1:
            return found
        return [found[index] for index in torch.randperm(len(found), generator=generator).tolist()]

    def views(self, task: int, images: Sequence[int], generator: Generator) -> list[Tensor]:
        """Images as the network gets them: crops in one batch, or whole images, which differ in size, one by one."""
        if self.config.crop:
            return [self.images[task].crops(images, self.side, self.config.flip, generator)]
        return [image[None] for image in self.images[task].whole(images, self.config.flip, generator)]

    def inputs(self, views: Sequence[Tensor], tensors: Mapping[str, Tensor], statistics: bool = False) -> Tensor:
        """The head's inputs of some views under some weights, (N, D), float32.

        Args:
            views: From ``views``.
            tensors: The weights.
            statistics: Whether batch norm uses the batch's statistics.
        """
        device = torch.device(self.device).type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            parts = [overlay_call(self.module, tensors, view.to(self.device), training_norms=statistics) for view in views]
        return torch.cat([head_input(_float32(features), self.config.features) for features in parts])

    def _set_head(self) -> None:
        if self.given_head is not None:
            head = self.given_head.reshape(-1)
        elif self.config.head_start == "shared":
            bound = 1 / math.sqrt(self.head.numel())
            draws = torch.rand(self.head.numel(), generator=Generator().manual_seed(SHARED_HEAD_SEED))
            head = (draws * 2 - 1) * bound
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

    # -- one epoch -----------------------------------------------------------------------------------------------------

    def _rate(self, done: float) -> float:
        # One cycle: 30 % up from a 25th, then down to almost nothing, both along a cosine.
        if done < 0.3:
            return self.config.learning_rate * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2)
        return self.config.learning_rate * (1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2)

    def _run_epoch(self, epoch: int) -> None:
        batches = self.batches(epoch)
        self.context.progress.start(f"{self.context.task}: epoch {epoch} of {self.config.epochs}", len(batches))
        self.context.progress.advance(self.step)
        for step in range(self.step, len(batches)):
            done = (epoch - 1 + step / len(batches)) / self.config.epochs
            loss = self._step(*batches[step], epoch, step, self._rate(done))
            self.loss_sum += loss
            self.step = step + 1
            self.context.progress.advance(note=f"loss {loss:.4f}")
            if self.step % _SAVE_EVERY == 0 and self.step < len(batches):
                self._save()
        self._consider(epoch, self.loss_sum / max(1, len(batches)))
        self.epoch, self.step, self.loss_sum = epoch, 0, 0.0
        self._save()

    def _step(self, task: int, batch: Batch, epoch: int, step: int, rate: float) -> float:
        generator = self.generator(epoch, step + 1)
        statistics = self.config.update_statistics == "always" or (
            self.config.update_statistics == "first-epoch" and epoch == 1
        )
        views = self.views(task, batch.images, generator)
        inputs = self.inputs(views, self.overlay, statistics)
        loss = self.pairs[task].loss(head_scores(inputs, self.head, None, "linear"), batch)
        extra = self.extra.loss(self, Step(views, inputs, batch, generator))
        total = loss if extra is None else loss + extra
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.extra.before_update(self.parameters)
        self.optimiser.step()
        self.extra.after_update(self.parameters)
        if not (math.isfinite(total.item()) and bool(torch.isfinite(self.head).all())):
            raise TrainingError(
                f"training {self.context.task!r} diverged: the loss is {total.item():g} in epoch {epoch}, step {step + 1}; "
                f"lower the learning rate (--set learning_rate={self.config.learning_rate / 10:g})"
            )
        self._update_average()
        return float(loss.detach())

    def _live(self) -> dict[str, Tensor]:
        """What training moves and what a model holds: weights, floating-point statistics, head."""
        live = {name: tensor.detach() for name, tensor in self.overlay.items() if tensor.is_floating_point()}
        live[_HEAD] = self.head.detach()
        return live

    def _update_average(self) -> None:
        if not self.config.averaging:
            return
        if self.average is None:
            self.average = _copies(self._live())
            return
        for name, tensor in self._live().items():
            self.average[name].lerp_(tensor, 1 - self.config.averaging)

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        """SRCC on whole validation images, the mean over the tasks that are learned."""
        tensors = {name: tensor for name, tensor in weights.items() if name != _HEAD}
        figures = []
        for task in self.tasks:
            data = task.validation if len(task.validation) >= 2 else task.train
            outputs = []
            self.context.progress.start(f"{self.context.task}: checking on {len(data)} images of {task.task}", len(data))
            with torch.inference_mode():
                for index in range(len(data)):
                    image, _ = prepare(data.image(index), self.context.preprocessing)
                    features = overlay_call(self.module, tensors, image[None].to(self.device))
                    inputs = head_input(features, self.config.features)
                    outputs.append(head_scores(inputs, weights[_HEAD], None, "cosine").cpu())
                    self.context.progress.advance()
            figures.append(float(srcc(torch.cat(outputs), human_scores(data))))
        return sum(figures) / len(figures)

    def _consider(self, epoch: int, loss: float | None) -> None:
        """Validate what there is now and keep it if it is the best so far."""
        weights = self.average if self.average is not None else self._live()
        figure = self._validate(weights)
        if not self.best or figure > self.best_figure or (math.isnan(self.best_figure) and not math.isnan(figure)):
            self.best, self.best_state = _copies(weights), self.extra.state()
            self.best_figure, self.best_epoch = figure, epoch
        record: dict[str, Any] = {"epoch": epoch, "validation_srcc": figure}
        if loss is not None:
            record["loss"] = loss
        self.history.append(record)
        shown = f", loss {loss:.4f}" if loss is not None else ""
        self.context.progress.message(f"{self.context.task}: epoch {epoch}{shown}, validation SRCC {figure:.4f}")

    # -- resuming ------------------------------------------------------------------------------------------------------

    def _trained(self) -> dict[str, Tensor]:
        return {**self.parameters, _HEAD: self.head}

    def _save(self) -> None:
        tensors = {f"overlay/{name}": tensor.detach() for name, tensor in self.overlay.items()}
        tensors[_HEAD] = self.head.detach()
        tensors |= adam_tensors(self.optimiser, self._trained())
        groups = {
            "best": self.best,
            "best-state": self.best_state,
            "average": self.average or {},
            "state": self.extra.state(),
        }
        tensors |= {f"{group}/{name}": tensor for group, held in groups.items() for name, tensor in held.items()}
        record = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "best_figure": number_or_none(self.best_figure),
            "best_epoch": self.best_epoch,
            "history": [{key: number_or_none(value) for key, value in record.items()} for record in self.history],
        }
        self.context.checkpoint.save(tensors, record)

    def _restore(self) -> bool:
        kept = self.context.checkpoint.load()
        if kept is None:
            return False
        tensors, state = kept
        with torch.no_grad():
            for name, tensor in self.overlay.items():
                tensor.copy_(tensors[f"overlay/{name}"])
            self.head.copy_(tensors[_HEAD])
        restore_adam(self.optimiser, self._trained(), tensors)
        self.best = part(tensors, self.overlay, self.device, "best/")
        self.best_state = part(tensors, self.overlay, self.device, "best-state/")
        self.average = part(tensors, self.overlay, self.device, "average/") or None
        self.extra.restore(part(tensors, self.overlay, self.device, "state/"))
        self.epoch, self.step, self.loss_sum = state["epoch"], state["step"], state["loss_sum"]
        # JSON has neither: nothing was validated yet, or the figure is undefined.
        missing = math.nan if self.best else -math.inf
        self.best_figure = missing if state["best_figure"] is None else state["best_figure"]
        self.best_epoch = state["best_epoch"]
        self.history = [
            {key: math.nan if value is None else value for key, value in record.items()} for record in state["history"]
        ]
        self.context.progress.message(f"{self.context.task}: going on after epoch {self.epoch}, step {self.step}")
        return True


def crop_side(preprocessing: Preprocessing, wanted: int) -> int:
    """The side of training crops that the backbone can take.

    Raises:
        ConfigurationError: It takes only images that are no squares.
    """
    if preprocessing.fixed_size is None:
        side = max(preprocessing.smallest_side, wanted)
        return -(-side // preprocessing.multiple) * preprocessing.multiple
    height, width = preprocessing.fixed_size
    if height != width:
        raise ConfigurationError(
            f"training uses square crops, but this backbone takes only {height}x{width}; take another backbone"
        )
    return height


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _float32(features: Features) -> Features:
    """Features in float32, whatever arithmetic made them."""
    return Features(
        features.embedding.float(),
        tuple(stage.float() for stage in features.stages),
        tuple(deviation.float() for deviation in features.deviations),
    )


def _pair_settings(config: BaselineConfig) -> TsnConfig:
    """What ``TrainingPairs`` reads, in the form that it reads it."""
    return TsnConfig(
        pairs=config.pairs,
        pair_count=config.pair_count,
        target=config.target,
        loss=config.loss,
        regression_weight=config.regression_weight,
    )
