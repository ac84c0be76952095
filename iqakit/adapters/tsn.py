"""``tsn``: task-specific normalization, learned from pairs.

Convolutions stay frozen; a task gets its own normalization weight, bias and running statistics, and a head. The head's
output is Thurstone's quality scale: the probability that x is better than y is Phi(f(x) - f(y)), held to the human order
by the fidelity loss. The head is free in training and a cosine when scoring, so heads of different tasks can be mixed.

Source: Zhang, Ma, Zhai, Yang, "Task-Specific Normalization for Continual Learning of Blind Image Quality Models", IEEE
TIP 33:1898-1910, 2024 (the presets ``paper-a`` and ``paper-b``). The defaults (statistics of every stage as head input,
ridge start, all pairs of a batch, one cycle of the learning rate) are own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Generator, Tensor

from iqakit.adapters.epoch_training import BestEpoch, EpochTraining, Step, StepGenerators, one_cycle
from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.settings import TsnConfig
from iqakit.adapters.severity_ladders import learn_ladders, photos_for_ladders
from iqakit.adapters.training_images import TrainingImages, crop_side
from iqakit.adapters.training_passes import head_inputs, over_whole_images, validation_srcc
from iqakit.adapters.tsn_loss import Batch, TrainingPairs
from iqakit.contracts import Adapter, FitContext, FitResult
from iqakit.errors import MismatchError
from iqakit.functional.heads import head_input, head_input_dim, head_scores
from iqakit.functional.overlay import trainable_overlay
from iqakit.runtimes.precision import has_fast_bfloat16

SHARED_HEAD_SEED = 0
"""All heads that start from ``shared`` start from the weights that this seed gives, whatever the run's seed."""
_HEAD = "head"


def shared_head(width: int) -> Tensor:
    """The head (D,) that every task starts from under ``head_start="shared"``.

    Args:
        width: D, the width of the head's input.
    """
    bound = 1 / math.sqrt(width)
    return (torch.rand(width, generator=Generator().manual_seed(SHARED_HEAD_SEED)) * 2 - 1) * bound


class TaskSpecificNormalization:
    """The ``tsn`` fit method."""

    def __init__(self, config: TsnConfig) -> None:
        self.config = config

    def fit(self, context: FitContext) -> FitResult:
        """Learn the task; goes on from the context's checkpoint and gives what an uncut run would give.

        Raises:
            MismatchError: The backbone has no normalization tensors.
            TrainingError: The loss stopped being a number.
        """
        config = self.config if context.epochs is None else replace(self.config, epochs=context.epochs)
        if config.precision == "auto":
            config = replace(config, precision="bfloat16" if has_fast_bfloat16(context.device) else "float32")
        return _Training(config, context).run()


class _Training:
    """One run. What is learned is the overlay's normalization and the head."""

    images: TrainingImages

    def __init__(self, config: TsnConfig, context: FitContext) -> None:
        self.config = config
        self.context = context
        self.module = context.backbone.module
        self.names = context.backbone.norm_tensor_names()
        if not self.names:
            raise MismatchError(
                f"adapter tsn learns normalization layers, but backbone {context.backbone.id} has none; "
                "take another backbone, or --adapter linear"
            )
        self.side = crop_side(context.preprocessing, config.crop, "tsn")
        photos_for_ladders(context.train, config.ladders)  # too many are refused now, not after the training
        generators = StepGenerators(context.generator)
        self.overlay = trainable_overlay(self.module, self.names)
        self.head = self._first_head().to(context.device).requires_grad_(True)
        self.copies: tuple[Tensor, ...] | None = None
        self.shifts: tuple[Tensor, ...] | None = None
        self.learned = {name: tensor for name, tensor in self.overlay.items() if tensor.requires_grad}
        self.start = {name: tensor.detach().clone() for name, tensor in self.learned.items()} if config.anchor else {}
        self.pairs = TrainingPairs(context.train, config, generators(0, 0))
        self.training = EpochTraining(
            context,
            self,
            {**self.overlay, _HEAD: self.head},
            generators,
            epochs=config.warmup_epochs + config.epochs,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            averaging=config.averaging,
        )

    def run(self) -> FitResult:
        if not self.training.resume() and self.config.head_start == "ridge":
            self.training.check_start()
        with TrainingImages(self.context.train, self.context.preprocessing, self.context.workers) as self.images:
            best = self.training.run()
        if self.config.refit or self.config.ladders:
            best = self._finished(best)
        return self._result(best)

    def _first_head(self) -> Tensor:
        kind, backbone = self.config.features, self.context.backbone
        if self.config.head_start == "ridge":
            weight, _, _ = ridge_head(head_input(self.context.train_features, kind), self.context.train)
            return weight
        return shared_head(head_input_dim(kind, backbone.embedding_dim, backbone.stage_dims))

    # -- what the loop asks for ----------------------------------------------------------------------------------------

    def batches(self, epoch: int, generator: Generator) -> Sequence[Batch]:
        warmup = epoch <= self.config.warmup_epochs
        return self.pairs.batches(self.config.warmup_batch_size if warmup else self.config.batch_size, generator)

    def step(self, batch: Batch, step: Step) -> Tensor:
        """Stage 1, the warm-up, moves the head alone; stage 2 normalization as well."""
        config = self.config
        stage2 = step.epoch > config.warmup_epochs
        first = stage2 and step.epoch == config.warmup_epochs + 1
        if first and step.number == 0 and config.warmup_epochs and self.training.best:
            # Stage 2 goes on from the best head of stage 1, not from its last.
            with torch.no_grad():
                self.head.copy_(self.training.best.tensors[_HEAD])
        for tensor in self.learned.values():
            tensor.requires_grad_(stage2)
        moving = config.update_statistics == "always" or (config.update_statistics == "first-epoch" and first)
        views = self.images.views(batch.images, self.side, config.flip, step.generator)
        outputs = torch.cat([self._outputs(view.to(self.context.device), stage2 and moving) for view in views])
        loss = self.pairs.loss(outputs, batch)
        total = loss
        if self.start and stage2:
            pull = torch.stack([(tensor - self.start[name]).square().sum() for name, tensor in self.learned.items()]).sum()
            total = loss + config.anchor / 2 * pull
        step.minimise(total, self._rate(step))
        return loss

    def validate(self, tensors: Mapping[str, Tensor]) -> float:
        def outputs(image: Tensor) -> Tensor:
            return head_scores(self._bare_inputs(image, tensors), tensors[_HEAD], None, "cosine")

        return validation_srcc(self.context, outputs)

    def _outputs(self, images: Tensor, batch_statistics: bool) -> Tensor:
        inputs = head_inputs(
            self.module,
            self.overlay,
            images,
            self.config.features,
            precision=self.config.precision,
            batch_statistics=batch_statistics,
        )
        return head_scores(inputs, self.head, None, "linear")

    def _bare_inputs(self, image: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """The head's input as the finished adapter will see it."""
        return head_inputs(self.module, {name: tensors[name] for name in self.names}, image, self.config.features)

    def _rate(self, step: Step) -> float:
        top = self.config.learning_rate
        if self.config.schedule == "step":
            return top * 0.1 ** ((step.epoch - 1) // self.config.step_epochs)
        first = self.config.warmup_epochs + 1
        if step.epoch < first:
            return top
        done = (step.epoch - first) * step.count + step.number
        return one_cycle(top, done / max(1, self.config.epochs * step.count))

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _finished(self, best: BestEpoch) -> BestEpoch:
        """What the head learns once normalization stays as it is, from whole images."""
        data = self.context.train
        what = f"fitting the head to {len(data)} images"
        inputs = over_whole_images(self.context, data, what, lambda image: self._bare_inputs(image, best.tensors))
        if self.config.refit:
            best = self._refitted(best, inputs)
        return self._with_ladders(best, inputs) if self.config.ladders else best

    def _refitted(self, best: BestEpoch, inputs: Tensor) -> BestEpoch:
        """Let ridge regression on the finished features have its share in the head.

        The two heads err in different ways: one was held to the order of pairs of crops, the other to the scores of whole
        images, with a penalty chosen by cross-validation.
        """
        share = self.config.refit
        learned, ridge = best.tensors[_HEAD].cpu(), ridge_head(inputs, self.context.train)[0]
        scales = [(inputs @ head).std().clamp_min(1e-12) for head in (learned, ridge)]
        head = (1 - share) * learned / scales[0] + share * ridge / scales[1]
        return self._with_head(best, head, "head refitted", {"refit": share})

    def _with_ladders(self, best: BestEpoch, inputs: Tensor) -> BestEpoch:
        """Let the head learn the order of degraded copies."""
        count, tensors = self.config.ladders, {name: best.tensors[name] for name in self.names}
        found = learn_ladders(self.context, best.tensors[_HEAD], inputs, tensors, self.config.features, count)
        self.copies, self.shifts = found.copies, found.shifts
        return self._with_head(best, found.weight, "ladders learned", {"ladders": count, "steps_down": found.after})

    def _with_head(self, best: BestEpoch, head: Tensor, said: str, record: Mapping[str, float]) -> BestEpoch:
        tensors = {**best.tensors, _HEAD: head.to(self.context.device)}
        figure = self.validate(tensors)
        self.training.history.append({"epoch": best.epoch, **record, "validation_srcc": figure})
        self.context.progress.message(f"{self.context.task}: {said}, validation SRCC {figure:.4f}")
        return replace(best, tensors=tensors, figure=figure)

    def _result(self, best: BestEpoch) -> FitResult:
        head = best.tensors[_HEAD]
        adapter = Adapter(
            task=self.context.task,
            method="tsn",
            backbone_id=self.context.backbone.id,
            backbone_fingerprint=self.context.backbone.fingerprint(),
            tensors={name: best.tensors[name].cpu() for name in self.names},
            head_kind="cosine",
            head_weight=(head / head.norm()).cpu()[None],
            head_bias=None,
            features=self.config.features,
            preprocessing=self.context.preprocessing,
            config=asdict(self.config),
            provenance=best.provenance(),
        )
        return FitResult(adapter, history=self.training.history, copies=self.copies, shifts=self.shifts)
