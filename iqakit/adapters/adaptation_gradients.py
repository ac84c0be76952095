"""Gradients of a loss that is made of several passes, without keeping what all of them need for it at once.

The loss depends on a pass only through its embeddings, so the gradient can be had in two steps: first of the loss by each
pass's embeddings, then of one pass after the other by the weights, with that pass made again (Gao, Zhang, Han, Callan:
Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021). In training mode embeddings depend
on the batch and not on running statistics, so a pass that is made again gives the same to the bit, and the parts are added
in the order in which autograd adds them. The last pass is not made again: its activations lie in memory still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Pass = tuple[Tensor, bool]
"""A batch of images, and whether running statistics move by it."""


class PassSeries:
    """Passes over several batches of images, and the gradient of a loss on what they gave.

    Attributes:
        embeddings: What each pass gave, to make a loss of.
    """

    def __init__(self, embed: Callable[[Tensor, bool], Tensor], passes: Sequence[Pass]) -> None:
        """Make the passes.

        Args:
            embed: Makes one pass; with False running statistics stay.
            passes: At least one.
        """
        self._embed = embed
        self._again = passes[:-1] if torch.is_grad_enabled() else ()
        self._leaves: list[Tensor] = []
        for images, moving in self._again:
            with torch.no_grad():
                found = embed(images, moving)
            self._leaves.append(found.requires_grad_())
        self.embeddings = [*self._leaves, *(embed(images, moving) for images, moving in passes[len(self._again) :])]

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """The loss's gradient by each weight; None for one that it does not depend on."""
        found = torch.autograd.grad(loss, [*self._leaves, *weights], allow_unused=True)
        by_embedding = found[: len(self._leaves)]
        total: list[Tensor | None] = list(found[len(self._leaves) :])
        # Autograd runs through the newest pass first.
        for (images, _), gradient in reversed(list(zip(self._again, by_embedding, strict=True))):
            if gradient is not None:
                parts = torch.autograd.grad(self._embed(images, False), weights, gradient, allow_unused=True)
                total = [_sum(one, other) for one, other in zip(total, parts, strict=True)]
        return total


def add_gradients(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to what weights have, as ``backward`` does."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = _sum(weight.grad, gradient)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if other is None else other if one is None else one + other
