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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Generator, Tensor

from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.settings import TsnConfig
from iqakit.adapters.training_images import TrainingImages, human_scores
from iqakit.adapters.tsn_loss import Batch, TrainingPairs
from iqakit.contracts import Adapter, Features, FitContext, FitResult, Preprocessing
from iqakit.errors import ConfigurationError, MismatchError, TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input, head_input_dim, head_scores
from iqakit.functional.overlay import overlay_call, trainable_overlay
from iqakit.imaging.tensors import prepare
from iqakit.runtimes.precision import has_fast_bfloat16

SHARED_HEAD_SEED = 0
"""All heads that start from ``shared`` start from the weights that this seed gives, whatever the run's seed."""
_HEAD = "head"
_SAVE_EVERY = 200
"""Steps between two saves inside an epoch, so that a kill loses minutes and not an epoch of a large set."""


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
    """One run: its state is the overlay, the head, Adam's moments, the best so far and where in which epoch it is."""

    def __init__(self, config: TsnConfig, context: FitContext) -> None:
        self.config = config
        self.context = context
        self.backbone = context.backbone
        self.names = self.backbone.norm_tensor_names()
        if not self.names:
            raise MismatchError(
                f"adapter tsn learns normalization layers, but backbone {self.backbone.id} has none; "
                "take another backbone, or --adapter linear"
            )
        self.side = _crop_side(context.preprocessing, config.crop)
        # One number fixes every later draw; each step has a generator of its own, so a cut run goes on exactly.
        self.seed = int(torch.randint(2**62, (), generator=context.generator))
        self.overlay = trainable_overlay(self.backbone.module, self.names)
        self.head = self._first_head().to(context.device).requires_grad_(True)
        self.trained = {name: tensor for name, tensor in self.overlay.items() if tensor.requires_grad}
        self.start = {name: tensor.detach().clone() for name, tensor in self.trained.items()} if config.anchor else {}
        self.pairs = TrainingPairs(context.train, config, self._generator(0, 0))
        self.optimiser = torch.optim.Adam([*self.trained.values(), self.head], lr=0.0, weight_decay=config.weight_decay)
        self.average: dict[str, Tensor] | None = None
        self.best: dict[str, Tensor] = {}
        self.best_figure = -math.inf
        self.best_epoch = 0
        self.epoch = 0
        self.step = 0
        self.loss_sum = 0.0
        self.history: list[dict[str, Any]] = []

    # -- what is learned from ------------------------------------------------------------------------------------------

    def _first_head(self) -> Tensor:
        kind = self.config.features
        if self.config.head_start == "ridge":
            weight, _, _ = ridge_head(head_input(self.context.train_features, kind), self.context.train)
            return weight
        width = head_input_dim(kind, self.backbone.embedding_dim, self.backbone.stage_dims)
        bound = 1 / math.sqrt(width)
        return (torch.rand(width, generator=Generator().manual_seed(SHARED_HEAD_SEED)) * 2 - 1) * bound

    def _generator(self, epoch: int, step: int) -> Generator:
        return Generator().manual_seed((self.seed + 1_000_003 * epoch + step) % 2**63)

    def _batches(self, epoch: int) -> list[Batch]:
        warmup = epoch <= self.config.warmup_epochs
        size = self.config.warmup_batch_size if warmup else self.config.batch_size
        return self.pairs.batches(size, self._generator(epoch, 0))

    # -- one epoch -----------------------------------------------------------------------------------------------------

    def _rate(self, epoch: int, step: int, steps: int) -> float:
        top = self.config.learning_rate
        if self.config.schedule == "step":
            return top * 0.1 ** ((epoch - 1) // self.config.step_epochs)
        first = self.config.warmup_epochs + 1
        if epoch < first:
            return top
        # One cycle: 30 % up from a 25th, then down to almost nothing, both along a cosine.
        done = ((epoch - first) * steps + step) / max(1, self.config.epochs * steps)
        if done < 0.3:
            return top * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2)
        return top * (1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2)

    def _forward(self, images: Tensor, batch_statistics: bool) -> Tensor:
        precision = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
        device = torch.device(self.context.device).type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            features: Features = overlay_call(self.backbone.module, self.overlay, images, training_norms=batch_statistics)
        return head_scores(head_input(_float32(features), self.config.features), self.head, None, "linear")

    def _outputs(self, images: TrainingImages, batch: Batch, generator: Generator, statistics: bool) -> Tensor:
        """The head's outputs on a batch: crops in one pass, whole images, which differ in size, one by one."""
        if self.config.crop:
            crops = images.crops(batch.images, self.side, self.config.flip, generator)
            return self._forward(crops.to(self.context.device), statistics)
        whole = images.whole(batch.images, self.config.flip, generator)
        return torch.cat([self._forward(image[None].to(self.context.device), statistics) for image in whole])

    def _step(self, images: TrainingImages, batch: Batch, epoch: int, step: int, steps: int) -> float:
        warmup_epochs = self.config.warmup_epochs
        warmup = epoch <= warmup_epochs
        generator = self._generator(epoch, step + 1)
        statistics = not warmup and (
            self.config.update_statistics == "always"
            or (self.config.update_statistics == "first-epoch" and epoch == warmup_epochs + 1)
        )
        for tensor in self.trained.values():
            tensor.requires_grad_(not warmup)
        outputs = self._outputs(images, batch, generator, statistics)
        loss = self.pairs.loss(outputs, batch)
        total = loss
        if self.start and not warmup:
            pull = torch.stack([(tensor - self.start[name]).square().sum() for name, tensor in self.trained.items()]).sum()
            total = loss + self.config.anchor / 2 * pull
        if not math.isfinite(total.item()):
            raise TrainingError(
                f"training {self.context.task!r} diverged: the loss is {total.item()} in epoch {epoch}, step {step + 1}; "
                f"lower the learning rate (--set learning_rate={self.config.learning_rate / 10:g})"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(epoch, step, steps)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self._update_average()
        return float(loss.detach())

    def _update_average(self) -> None:
        if not self.config.averaging:
            return
        now = self._weights()
        if self.average is None:
            self.average = now
            return
        for name, tensor in now.items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - self.config.averaging)

    def _weights(self) -> dict[str, Tensor]:
        """Copies of what a finished adapter would hold."""
        held = {name: self.overlay[name].detach().clone() for name in self.names}
        held[_HEAD] = self.head.detach().clone()
        return held

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        tensors = {name: weights[name] for name in self.names}
        outputs = []
        data = self.context.validation
        self.context.progress.start(f"{self.context.task}: checking on {len(data)} images", len(data))
        with torch.inference_mode():
            for index in range(len(data)):
                image, _ = prepare(data.image(index), self.context.preprocessing)
                features = overlay_call(self.backbone.module, tensors, image[None].to(self.context.device))
                inputs = head_input(features, self.config.features)
                outputs.append(head_scores(inputs, weights[_HEAD], None, "cosine").cpu())
                self.context.progress.advance()
        return float(srcc(torch.cat(outputs), human_scores(data)))

    def _consider(self, epoch: int, loss: float | None) -> None:
        """Validate what there is now and keep it if it is the best so far."""
        weights = self.average if self.average is not None else self._weights()
        figure = self._validate(weights)
        if not self.best or figure > self.best_figure or (math.isnan(self.best_figure) and not math.isnan(figure)):
            self.best = {name: tensor.clone() for name, tensor in weights.items()}
            self.best_figure, self.best_epoch = figure, epoch
        record: dict[str, Any] = {"epoch": epoch, "validation_srcc": figure}
        if loss is not None:
            record["loss"] = loss
        self.history.append(record)
        shown = f", loss {loss:.4f}" if loss is not None else ""
        self.context.progress.message(f"{self.context.task}: epoch {epoch}{shown}, validation SRCC {figure:.4f}")

    def _refit(self) -> None:
        """Let ridge regression on the finished features have its share in the head.

        The two heads err in different ways: one was held to the order of pairs of crops, the other to the scores of whole
        images, with a penalty chosen by cross-validation.
        """
        data, kind = self.context.train, self.config.features
        tensors = {name: self.best[name] for name in self.names}
        parts = []
        self.context.progress.start(f"{self.context.task}: fitting the head to {len(data)} images", len(data))
        with torch.inference_mode():
            for index in range(len(data)):
                image, _ = prepare(data.image(index), self.context.preprocessing)
                features = overlay_call(self.backbone.module, tensors, image[None].to(self.context.device))
                parts.append(head_input(features, kind).cpu())
                self.context.progress.advance()
        inputs = torch.cat(parts)
        learned, ridge = self.best[_HEAD].cpu(), ridge_head(inputs, data)[0]
        share = self.config.refit
        scales = [(inputs @ head).std().clamp_min(1e-12) for head in (learned, ridge)]
        head = (1 - share) * learned / scales[0] + share * ridge / scales[1]
        self.best[_HEAD] = head.to(self.context.device)
        self.best_figure = self._validate(self.best)
        self.history.append({"epoch": self.best_epoch, "refit": share, "validation_srcc": self.best_figure})
        self.context.progress.message(f"{self.context.task}: head refitted, validation SRCC {self.best_figure:.4f}")

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> FitResult:
        self._restore()
        epochs = self.config.warmup_epochs + self.config.epochs
        if not self.history and self.config.head_start == "ridge":
            self._consider(0, None)
        with TrainingImages(self.context.train, self.context.preprocessing, self.context.workers) as images:
            for epoch in range(self.epoch + 1, epochs + 1):
                self._run_epoch(images, epoch, epochs)
        if not self.best:
            self._consider(0, None)
        if self.config.refit:
            self._refit()
        return self._result()

    def _run_epoch(self, images: TrainingImages, epoch: int, epochs: int) -> None:
        if epoch == self.config.warmup_epochs + 1 and self.step == 0 and self.config.warmup_epochs and self.best:
            # Stage 2 goes on from the best head of stage 1, not from its last.
            with torch.no_grad():
                self.head.copy_(self.best[_HEAD])
        batches = self._batches(epoch)
        self.context.progress.start(f"{self.context.task}: epoch {epoch} of {epochs}", len(batches))
        self.context.progress.advance(self.step)
        for step in range(self.step, len(batches)):
            loss = self._step(images, batches[step], epoch, step, len(batches))
            self.loss_sum += loss
            self.step = step + 1
            self.context.progress.advance(note=f"loss {loss:.4f}")
            if self.step % _SAVE_EVERY == 0 and self.step < len(batches):
                self._save()
        self._consider(epoch, self.loss_sum / max(1, len(batches)))
        self.epoch, self.step, self.loss_sum = epoch, 0, 0.0
        self._save()

    def _result(self) -> FitResult:
        kind = self.config.features
        head = self.best[_HEAD]
        adapter = Adapter(
            task=self.context.task,
            method="tsn",
            backbone_id=self.backbone.id,
            backbone_fingerprint=self.backbone.fingerprint(),
            tensors={name: self.best[name].cpu() for name in self.names},
            head_kind="cosine",
            head_weight=(head / head.norm()).cpu()[None],
            head_bias=None,
            features=kind,
            preprocessing=self.context.preprocessing,
            config=asdict(self.config),
            provenance={"best_epoch": self.best_epoch, "validation_srcc": _or_none(self.best_figure)},
        )
        return FitResult(adapter, history=self.history)

    # -- resuming ------------------------------------------------------------------------------------------------------

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.trained.items()
        yield _HEAD, self.head

    def _save(self) -> None:
        tensors = {f"overlay/{name}": tensor.detach() for name, tensor in self.overlay.items()}
        tensors["head"] = self.head.detach()
        for name, parameter in self._parameters():
            for what, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adam/{what}/{name}"] = value
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in (self.average or {}).items()}
        self.context.checkpoint.save(
            tensors,
            {
                "epoch": self.epoch,
                "step": self.step,
                "loss_sum": self.loss_sum,
                "best_figure": _or_none(self.best_figure),
                "best_epoch": self.best_epoch,
                "history": [{key: _or_none(value) for key, value in record.items()} for record in self.history],
            },
        )

    def _restore(self) -> None:
        kept = self.context.checkpoint.load()
        if kept is None:
            return
        tensors, state = kept
        device = self.context.device
        with torch.no_grad():
            for name, tensor in self.overlay.items():
                tensor.copy_(tensors[f"overlay/{name}"])
            self.head.copy_(tensors["head"])
        for name, parameter in self._parameters():
            moments = {what: tensors.get(f"adam/{what}/{name}") for what in ("step", "exp_avg", "exp_avg_sq")}
            self.optimiser.state[parameter] = {
                # Adam keeps its step count on the CPU.
                what: value.clone() if what == "step" else value.to(device)
                for what, value in moments.items()
                if value is not None
            }
        self.best = _part(tensors, "best/", device)
        self.average = _part(tensors, "average/", device) or None
        self.epoch, self.step, self.loss_sum = state["epoch"], state["step"], state["loss_sum"]
        self.best_figure = math.nan if state["best_figure"] is None else state["best_figure"]
        self.best_epoch = state["best_epoch"]
        self.history = [
            {key: math.nan if value is None else value for key, value in record.items()} for record in state["history"]
        ]
        self.context.progress.message(f"{self.context.task}: going on after epoch {self.epoch}, step {self.step}")


def _part(tensors: Mapping[str, Tensor], prefix: str, device: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.to(device) for name, tensor in tensors.items() if name.startswith(prefix)}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _float32(features: Features) -> Features:
    """Features in float32, whatever arithmetic made them."""
    return Features(
        features.embedding.float(),
        tuple(stage.float() for stage in features.stages),
        tuple(deviation.float() for deviation in features.deviations),
    )


def _crop_side(preprocessing: Preprocessing, wanted: int) -> int:
    """The side of training crops that the backbone can take."""
    if preprocessing.fixed_size is None:
        side = max(preprocessing.smallest_side, wanted)
        return -(-side // preprocessing.multiple) * preprocessing.multiple
    height, width = preprocessing.fixed_size
    if height != width:
        raise ConfigurationError(
            f"adapter tsn trains on square crops, but this backbone takes only {height}x{width}; take another backbone"
        )
    return height
