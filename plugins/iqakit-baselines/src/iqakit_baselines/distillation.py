"""LwF: old heads keep their predictions on the new task's pairs.

Source: Li and Hoiem, "Learning without Forgetting", TPAMI 40(12), 2018; for blind image quality with the fidelity loss:
Zhang et al., "Continual Learning for Blind Image Quality Assessment", TPAMI 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iqakit.functional.heads import head_scores
from iqakit.functional.preference import fidelity_loss, preference_probability
from iqakit_baselines.extras import Extra, Pass

if TYPE_CHECKING:
    from iqakit_baselines.trainer import Training


def kept_predictions_loss(new: Tensor, old: Tensor, heads: Sequence[Tensor], pairs: Tensor) -> Tensor:
    """Fidelity between old and new pair probabilities, summed over the old heads.

    Args:
        new: Head inputs under the weights in training, (B, D).
        old: Head inputs of the same views under the weights before, (B, D).
        heads: The old heads, each (D,), frozen; at least one.
        pairs: (P, 2), indices of the B images.

    Returns:
        0-dim, about 0 where nothing has changed.
    """

    def chances(inputs: Tensor, head: Tensor) -> Tensor:
        outputs = head_scores(inputs, head, None, "linear")
        return preference_probability(outputs[pairs[:, 0]] - outputs[pairs[:, 1]])

    return torch.stack([fidelity_loss(chances(new, head), chances(old, head)) for head in heads]).sum()


class KeptPredictions(Extra):
    """The loss of LwF. The old predictions cost one more forward pass a step.

    Args:
        strength: Weight of the loss.
        heads: The old heads, each (1, D) or (D,); with none, nothing is added.
    """

    def __init__(self, strength: float, heads: Sequence[Tensor]) -> None:
        self.strength = strength
        self.heads = [head.reshape(-1) for head in heads]
        self._before: Mapping[str, Tensor] = {}

    def begin(self, training: Training) -> None:
        """Keep the network as it was before."""
        self._before = training.start
        self.heads = [head.to(training.device) for head in self.heads]

    def loss(self, training: Training, done: Pass) -> Tensor | None:
        """The weighted loss on the step's own pairs."""
        if not self.heads:
            return None
        with torch.no_grad():
            old = training.inputs(done.views, self._before)
        return self.strength * kept_predictions_loss(done.inputs, old, self.heads, done.batch.pairs.to(old.device))
