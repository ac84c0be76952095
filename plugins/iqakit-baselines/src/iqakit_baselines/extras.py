"""What a method adds to plain fine-tuning: the points of a training step where it has a say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Generator, Tensor

from iqakit.adapters.tsn_loss import Batch

if TYPE_CHECKING:
    from iqakit_baselines.trainer import Training


@dataclass(frozen=True, slots=True)
class Pass:
    """What a training step has computed before its gradient is taken.

    Attributes:
        views: The step's images as the network saw them: one batch of crops, or one whole image each.
        inputs: The head's inputs of those images, (B, D), with a gradient.
        batch: Which images and which pairs.
        generator: The step's own source of randomness.
    """

    views: Sequence[Tensor]
    inputs: Tensor
    batch: Batch
    generator: Generator


class Extra:
    """Adds nothing: plain fine-tuning. Methods override what they need."""

    def begin(self, training: Training) -> None:
        """Training is set up; nothing has moved yet."""

    def loss(self, training: Training, done: Pass) -> Tensor | None:
        """A loss to add, 0-dim, or None."""
        return None

    def before_update(self, parameters: Mapping[str, Tensor]) -> None:
        """Gradients of the whole loss are there; they may be added to in place."""

    def after_update(self, parameters: Mapping[str, Tensor]) -> None:
        """The optimiser has moved the weights."""

    def state(self) -> dict[str, Tensor]:
        """Own tensors, moved in place by the methods above; asked for once, after ``begin``.

        They survive a kill, and come back to ``memory`` as they stood when the weights kept were found.
        """
        return {}

    def memory(
        self, training: Training, kept: Mapping[str, Tensor], state: Mapping[str, Tensor]
    ) -> dict[str, Tensor] | None:
        """What to find again at the next task; None: what there was stays.

        Args:
            training: The finished training.
            kept: The weights kept, by name.
            state: The tensors of ``state`` as they stood when those were the weights.
        """
        return None
