"""The loop of epochs that fit methods share: a method brings its batches, its step and its check, the loop does the rest.

The rest is: a generator for each step, Adam and its learning rate, progress, the best epoch by validation SRCC, the running
average of weights, records for the history, and state that is kept so that a cut run goes on to the same bits. Source: own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Generator, Tensor

from iqakit.adapters.training_state import adam_groups, copies, flat, group, like, restore_adam, same_shapes
from iqakit.contracts import FitContext
from iqakit.errors import TrainingError

__all__ = [
    "SAVE_EVERY",
    "BestEpoch",
    "EpochTraining",
    "Learner",
    "Step",
    "StepGenerators",
    "json_record",
    "one_cycle",
]

SAVE_EVERY = 200
"""Steps between two saves inside an epoch, so that a kill loses minutes and not an epoch of a large set."""
_FORM = 1
"""Rises when the state kept changes its form: older state is then begun anew instead of misread."""
B = TypeVar("B")


def one_cycle(top: float, done: float) -> float:
    """The learning rate of one cycle: 30 % up from a 25th, then down to almost nothing, both along a cosine.

    Args:
        top: The highest rate.
        done: Share of all steps that is done, from 0 to 1.
    """
    if done < 0.3:
        return top * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / 0.3)) / 2)
    return top * (1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) / 2)


def json_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a record for JSON, which has neither NaN nor infinity: they become None."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()}


class StepGenerators:
    """A generator for each step of each epoch, all from one draw, so that a cut run goes on with the same draws.

    Args:
        generator: The fit method's source of randomness, drawn from once.
    """

    def __init__(self, generator: Generator) -> None:
        self._seed = int(torch.randint(2**62, (), generator=generator))

    def __call__(self, epoch: int, step: int) -> Generator:
        """A fresh generator, on the CPU.

        Args:
            epoch: From 1; 0 is for what is drawn before training.
            step: From 1; 0 is for the epoch's order.
        """
        return Generator().manual_seed((self._seed + 1_000_003 * epoch + step) % 2**63)


@dataclass(frozen=True)
class BestEpoch:
    """What is kept of a training: all tensors of one epoch.

    Attributes:
        epoch: Its number; 0 is the start.
        figure: SRCC on the validation images; NaN where it is undefined.
        tensors: Copies of what was trained, averaged if there is averaging, by the names that ``EpochTraining`` was given.
        beside: Copies of the method's own tensors beside them, as they stood then.
    """

    epoch: int
    figure: float
    tensors: Mapping[str, Tensor]
    beside: Mapping[str, Tensor] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        """What an adapter says of where it comes from: ``best_epoch`` and ``validation_srcc``."""
        return json_record({"best_epoch": self.epoch, "validation_srcc": self.figure})


@dataclass(frozen=True)
class Step:
    """One step: where it stands, its randomness, and its move.

    Attributes:
        training: The training that it is a step of.
        epoch: From 1.
        number: From 0, within the epoch.
        count: Steps of the epoch.
        generator: The step's own source of randomness.
    """

    training: EpochTraining[Any]
    epoch: int
    number: int
    count: int
    generator: Generator

    @property
    def done(self) -> float:
        """Share of all steps that is done, where all epochs have as many."""
        return ((self.epoch - 1) * self.count + self.number) / (self.training.epochs * self.count)

    def minimise(self, loss: Tensor, rate: float | None = None, before_update: Callable[[], None] | None = None) -> None:
        """Move the tensors one step of Adam down a loss.

        Args:
            loss: 0-dim, with a gradient.
            rate: The learning rate; None: one cycle over all epochs.
            before_update: Called when the gradients are there; it may add to them in place.

        Raises:
            TrainingError: The loss is no number.
        """
        if not math.isfinite(loss.item()):
            raise self.diverged(loss)
        optimiser = self.training.optimiser
        for parameters in optimiser.param_groups:
            parameters["lr"] = one_cycle(self.training.learning_rate, self.done) if rate is None else rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if before_update is not None:
            before_update()
        optimiser.step()

    def diverged(self, loss: Tensor) -> TrainingError:
        """The error to raise when training has gone astray in this step."""
        return TrainingError(
            f"training {self.training.context.task!r} diverged: the loss is {loss.item():g} in epoch {self.epoch}, "
            f"step {self.number + 1}; lower the learning rate (--set learning_rate={self.training.learning_rate / 10:g})"
        )


class Learner(Protocol[B]):
    """What a method brings. A batch is whatever its ``step`` understands."""

    def batches(self, epoch: int, generator: Generator) -> Sequence[B]:
        """One epoch's batches, at least one; the same for the same generator.

        Args:
            epoch: From 1.
            generator: Draws the order.
        """
        ...

    def step(self, batch: B, step: Step) -> Tensor:
        """Learn from one batch: compute a loss and hand it, with what is added to it, to ``step.minimise``.

        Args:
            batch: One of ``batches``.
            step: Where it stands; its generator is the only source of randomness.

        Returns:
            The loss that is shown and averaged over the epoch, 0-dim.
        """
        ...

    def validate(self, tensors: Mapping[str, Tensor]) -> float:
        """SRCC on the validation images under some tensors; ``training_passes.validation_srcc`` computes it.

        Args:
            tensors: Named as those that are trained, without a gradient; not to be changed.
        """
        ...


class EpochTraining(Generic[B]):
    """One training: first ``resume()``; where that gives False, ``check_start()`` if the start counts; then ``run()``.

    Args:
        context: What the fit method was given: task, validation images, progress, checkpoint.
        learner: The method.
        tensors: All that steps move, by name, in place; most often ``trainable_overlay`` and a head. Those that ask for a
            gradient are trained with Adam.
        generators: The sources of randomness.
        epochs: How many; 0 leaves the start.
        learning_rate: Adam's highest.
        weight_decay: Adam's L2 penalty.
        averaging: Decay a step of the running average of floating-point tensors that is validated and kept; 0: the last
            ones are.
        beside: Own tensors that steps move in place and that are neither trained nor averaged, such as sums over steps.

    Attributes:
        optimiser: Adam.
        best: The best epoch so far, or None.
        history: One record an epoch, for ``FitResult.history``: ``epoch``, ``validation_srcc`` and ``loss`` (none at 0).
    """

    def __init__(
        self,
        context: FitContext,
        learner: Learner[B],
        tensors: Mapping[str, Tensor],
        generators: StepGenerators,
        *,
        epochs: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        averaging: float = 0.0,
        beside: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.context = context
        self.epochs = epochs
        self.learning_rate = learning_rate
        self._learner = learner
        self._tensors = tensors
        self._generators = generators
        self._averaging = averaging
        self._beside = beside or {}
        self._trained = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
        self.optimiser = torch.optim.Adam(self._trained.values(), lr=0.0, weight_decay=weight_decay)
        self.best: BestEpoch | None = None
        self.history: list[dict[str, Any]] = []
        self._average: dict[str, Tensor] = {}
        self._epoch = 0  # the last one that is finished
        self._step = 0  # how many steps are done of the next
        self._loss_sum = 0.0

    # -- the run -------------------------------------------------------------------------------------------------------

    def check_start(self) -> None:
        """Let the tensors as they are before the first step count as epoch 0."""
        self._check(0, None)

    def run(self) -> BestEpoch:
        """Train to the end.

        Returns:
            The epoch with the highest validation SRCC, the first of equal ones; one without a figure only where none has.

        Raises:
            TrainingError: The loss stopped being a number.
        """
        for epoch in range(self._epoch + 1, self.epochs + 1):
            self._run_epoch(epoch)
        return self.best or self._check(0, None)

    def _run_epoch(self, epoch: int) -> None:
        batches = self._learner.batches(epoch, self._generators(epoch, 0))
        progress = self.context.progress
        progress.start(f"{self.context.task}: epoch {epoch} of {self.epochs}", len(batches))
        progress.advance(self._step)
        for number in range(self._step, len(batches)):
            step = Step(self, epoch, number, len(batches), self._generators(epoch, number + 1))
            loss = float(self._learner.step(batches[number], step).detach())
            self._update_average()
            self._loss_sum += loss
            self._step = number + 1
            progress.advance(note=f"loss {loss:.4f}")
            if self._step % SAVE_EVERY == 0 and self._step < len(batches):
                self.save()
        self._check(epoch, self._loss_sum / max(1, len(batches)))
        self._epoch, self._step, self._loss_sum = epoch, 0, 0.0
        self.save()

    def _update_average(self) -> None:
        if not self._averaging:
            return
        floating = {name: tensor.detach() for name, tensor in self._tensors.items() if tensor.is_floating_point()}
        if not self._average:
            self._average = copies(floating)
            return
        for name, tensor in floating.items():
            self._average[name].lerp_(tensor, 1 - self._averaging)

    def _check(self, epoch: int, loss: float | None) -> BestEpoch:
        """Validate what there is now and keep it if it is the best so far."""
        tensors = {name: tensor.detach() for name, tensor in self._tensors.items()} | self._average
        figure = self._learner.validate(tensors)
        best = self.best
        if best is None or figure > best.figure or (math.isnan(best.figure) and not math.isnan(figure)):
            best = BestEpoch(epoch, figure, copies(tensors), copies(self._beside))
        self.best = best
        record: dict[str, Any] = {"epoch": epoch, "validation_srcc": figure}
        shown = ""
        if loss is not None:
            record["loss"] = loss
            shown = f", loss {loss:.4f}"
        self.history.append(record)
        self.context.progress.message(f"{self.context.task}: epoch {epoch}{shown}, validation SRCC {figure:.4f}")
        return best

    # -- going on after a cut ------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep the state in the context's checkpoint. ``run`` does so within and after each epoch."""
        best = self.best
        groups: dict[str, Mapping[str, Tensor]] = {
            "now": self._tensors,
            "beside": self._beside,
            "average": self._average,
            "best": best.tensors if best else {},
            "best-beside": best.beside if best else {},
            **adam_groups(self.optimiser, self._trained),
        }
        state = {
            "form": _FORM,
            "epoch": self._epoch,
            "step": self._step,
            "loss_sum": self._loss_sum,
            "best": json_record({"epoch": best.epoch, "figure": best.figure}) if best else None,
            "history": [json_record(record) for record in self.history],
        }
        self.context.checkpoint.save(flat(groups), state)

    def resume(self) -> bool:
        """Go on from the context's checkpoint.

        Returns:
            Whether there is one; one that another version of this training left is none, and a message says so.
        """
        kept = self.context.checkpoint.load()
        if kept is None:
            return False
        tensors, state = kept
        mine = {"now": self._tensors, "beside": self._beside}
        if state.get("form") != _FORM or not all(same_shapes(held, group(tensors, of)) for of, held in mine.items()):
            self.context.progress.message(
                f"{self.context.task}: what is kept of the training was left by another version of it; "
                "starting from the beginning"
            )
            return False
        with torch.no_grad():
            for of, held in mine.items():
                for name, tensor in held.items():
                    tensor.copy_(tensors[f"{of}/{name}"])
        restore_adam(self.optimiser, self._trained, tensors)
        self._average = like(self._tensors, group(tensors, "average"))
        if state["best"] is not None:
            epoch, figure = state["best"]["epoch"], state["best"]["figure"]
            best = like(self._tensors, group(tensors, "best"))
            beside = like(self._beside, group(tensors, "best-beside"))
            self.best = BestEpoch(epoch, _or_nan(figure), best, beside)
        self._epoch, self._step, self._loss_sum = state["epoch"], state["step"], state["loss_sum"]
        self.history = [{key: _or_nan(value) for key, value in record.items()} for record in state["history"]]
        self.context.progress.message(f"{self.context.task}: going on after epoch {self._epoch}, step {self._step}")
        return True


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value
