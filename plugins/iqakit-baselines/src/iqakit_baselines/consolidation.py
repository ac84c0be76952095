"""EWC, SI and MAS: every weight is pulled back to where earlier tasks left it, as strongly as it was important to them.

All three add ``strength * sum(importance * (weight - old weight)^2)`` to the loss and differ in what importance is. They
keep one running importance over the backbone, summed over tasks, heads left out. The penalty's gradient is written out and
added to the loss's, which costs no backward pass.

Sources: EWC: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 114(13), 2017. SI: Zenke,
Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017. MAS: Aljundi et al., "Memory Aware Synapses:
Learning what (not) to forget", ECCV 2018. Importance from batches instead of single images, and negative path integrals
taken as 0, are own choices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iqakit.adapters.tsn_loss import Batch
from iqakit.functional.heads import head_scores
from iqakit.functional.preference import preference_probability
from iqakit_baselines.extras import Extra

if TYPE_CHECKING:
    from iqakit_baselines.trainer import Training

_IMPORTANCE = "importance/"


def pull(
    parameters: Mapping[str, Tensor], anchor: Mapping[str, Tensor], importance: Mapping[str, Tensor], strength: float
) -> None:
    """Add the gradient of ``strength * sum(importance * (weight - anchor)^2)`` to that of the weights.

    Args:
        parameters: The weights; those without a gradient or an importance are left alone.
        anchor: Where they are pulled to.
        importance: How strongly each is, not negative.
        strength: A factor of all.
    """
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.grad is not None and name in importance:
                parameter.grad.addcmul_(importance[name], parameter - anchor[name], value=2 * strength)


def gradient_importance(
    objectives: Iterable[Tensor], parameters: Mapping[str, Tensor], measure: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """The mean over batches of a measure of a gradient.

    Args:
        objectives: One 0-dim value a batch, computed from ``parameters``; taken one at a time.
        parameters: What the gradient is taken of.
        measure: ``torch.square`` for the Fisher information, ``torch.abs`` for MAS.

    Returns:
        One tensor a parameter, of its shape; 0 where nothing depends on it.
    """
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    for objective in objectives:
        gradients = torch.autograd.grad(objective, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                total[name] += measure(gradient)
        count += 1
    return {name: tensor.detach() / max(1, count) for name, tensor in total.items()}


def path_importance(
    path: Mapping[str, Tensor], now: Mapping[str, Tensor], start: Mapping[str, Tensor], damping: float
) -> dict[str, Tensor]:
    """SI's importance: what a weight's way took off the loss, over the squared length of that way.

    Args:
        path: Sum over steps of minus gradient times step.
        now: The weights after the task.
        start: The weights before it.
        damping: Added to the squared length.
    """
    return {name: way.clamp_min(0) / ((now[name] - start[name]).square() + damping) for name, way in path.items()}


class Consolidation(Extra, ABC):
    """What the three methods have in common.

    Args:
        strength: Weight of the penalty.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.importance: dict[str, Tensor] = {}
        self.anchor: Mapping[str, Tensor] = {}

    def begin(self, training: Training) -> None:
        """Find what earlier tasks left."""
        self.anchor = training.start
        self.importance = {
            name.removeprefix(_IMPORTANCE): tensor.to(training.device)
            for name, tensor in training.context.memory.items()
            if name.startswith(_IMPORTANCE)
        }

    def before_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Pull the weights back."""
        pull(parameters, self.anchor, self.importance, self.strength)

    def memory(self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The running importance with this task's added."""
        found = self.task_importance(training, kept, state)
        return {
            _IMPORTANCE + name: (tensor + self.importance[name] if name in self.importance else tensor).cpu()
            for name, tensor in found.items()
        }

    @abstractmethod
    def task_importance(
        self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """How important each weight was to the task just learned."""


class _FromGradients(Consolidation):
    """Importance from one pass over the training images with the weights kept."""

    measure: Callable[[Tensor], Tensor]

    @abstractmethod
    def objective(self, training: Training, outputs: Tensor, batch: Batch) -> Tensor:
        """The value whose gradient is looked at, 0-dim."""

    def task_importance(
        self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """One pass, batch by batch."""
        parameters = {name: kept[name].clone().requires_grad_(True) for name in training.parameters}
        tensors = {**kept, **parameters}
        epoch = training.config.epochs + 1
        batches = training.batches(epoch, training.generator(epoch, 0))
        progress = training.context.progress

        def objectives() -> Iterable[Tensor]:
            progress.start(f"{training.context.task}: how important each weight is", len(batches))
            for step, (task, batch) in enumerate(batches):
                views = training.views(task, batch.images, training.generator(epoch, step + 1))
                inputs = training.inputs(views, tensors)
                yield self.objective(training, head_scores(inputs, training.best_head, None, "linear"), batch)
                progress.advance()

        return gradient_importance(objectives(), parameters, type(self).measure)


class Ewc(_FromGradients):
    """Importance: the squared gradient of the loss (empirical Fisher information), the mean over batches."""

    measure = staticmethod(torch.square)

    def objective(self, training: Training, outputs: Tensor, batch: Batch) -> Tensor:
        """The training loss."""
        return training.pairs[0].loss(outputs, batch)


class Mas(_FromGradients):
    """Importance: the absolute gradient of the squared pair probability, the mean over batches. Needs no scores."""

    measure = staticmethod(torch.abs)

    def objective(self, training: Training, outputs: Tensor, batch: Batch) -> Tensor:
        """The mean over pairs of the squared probability."""
        first, second = batch.pairs.to(outputs.device).T
        return preference_probability(outputs[first] - outputs[second]).square().mean()


class Si(Consolidation):
    """Importance: what each weight took off the loss along its way.

    The gradient is that of the loss without the penalty.

    Args:
        strength: Weight of the penalty.
        damping: Added to the squared length of the way.
    """

    def __init__(self, strength: float, damping: float) -> None:
        super().__init__(strength)
        self.damping = damping
        self.path: dict[str, Tensor] = {}
        self._gradient: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    def begin(self, training: Training) -> None:
        """Find what earlier tasks left; nobody has gone anywhere yet."""
        super().begin(training)
        self.path = {name: torch.zeros_like(tensor) for name, tensor in training.parameters.items()}

    def before_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Note where the weights are and the gradient without the penalty."""
        moved = {name: parameter for name, parameter in parameters.items() if parameter.grad is not None}
        self._gradient = {name: parameter.grad.clone() for name, parameter in moved.items() if parameter.grad is not None}
        self._before = {name: parameter.detach().clone() for name, parameter in moved.items()}
        super().before_update(parameters)

    def after_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Add the step to the path."""
        with torch.no_grad():
            for name, gradient in self._gradient.items():
                self.path[name].addcmul_(gradient, parameters[name] - self._before[name], value=-1)

    def state(self) -> dict[str, Tensor]:
        """The path so far."""
        return self.path

    def task_importance(
        self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The path up to the weights kept; no pass over the images."""
        return path_importance(state, kept, training.start, self.damping)
