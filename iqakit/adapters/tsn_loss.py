"""What ``tsn`` learns from: which images form a batch, which of them are compared, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Dataset
from iqakit.errors import ConfigurationError
from iqakit.functional.preference import (
    fidelity_loss,
    pairs_within_batch,
    preference_probability,
    sample_pairs,
    thurstone_target,
)
from iqakit.functional.regression import centred_smooth_l1_loss, plcc_loss


class PairSettings(Protocol):
    """The settings that ``TrainingPairs`` reads; ``TsnConfig`` says what each means."""

    @property
    def pairs(self) -> str:
        """``"within-batch"`` or ``"sampled"``."""
        ...

    @property
    def pair_count(self) -> int | None:
        """How many pairs are drawn for ``"sampled"``."""
        ...

    @property
    def target(self) -> str:
        """``"binary"`` or ``"continuous"``."""
        ...

    @property
    def loss(self) -> str:
        """``"fidelity"``, ``"plcc"``, ``"smooth-l1"``, or two with a plus."""
        ...

    @property
    def regression_weight(self) -> float:
        """Weight of the second loss."""
        ...


@dataclass(slots=True)
class Batch:
    """One step's images and pairs: ``images`` index the training set, ``pairs`` (P, 2) index ``images``."""

    images: list[int]
    pairs: Tensor


class TrainingPairs:
    """Batches of one task's images, and the loss of the outputs on them.

    Args:
        dataset: The task's training images.
        settings: Say which pairs, which target, which loss.
        generator: Draws the fixed pairs of ``pairs="sampled"``.
    """

    def __init__(self, dataset: Dataset, settings: PairSettings, generator: Generator) -> None:
        self._settings = settings
        self._scores = human_scores(dataset)
        self._deviations = _score_deviations(dataset) if settings.target == "continuous" else None
        self._standardised = _standardised(self._scores)
        self._pairs: Tensor | None = None
        if settings.pairs == "sampled":
            count = len(self._scores)
            wanted = settings.pair_count or 10 * count
            self._pairs = sample_pairs(count, min(wanted, count * (count - 1) // 2), generator)

    def batches(self, size: int, generator: Generator) -> list[Batch]:
        """One epoch's batches.

        Args:
            size: Images or pairs a batch, as ``pairs`` says.
            generator: Draws the order.
        """
        if self._pairs is not None:
            order = self._pairs[torch.randperm(len(self._pairs), generator=generator)]
            chunks = torch.split(order, size)
            return [Batch(chunk.T.flatten().tolist(), torch.arange(2 * len(chunk)).view(2, -1).T) for chunk in chunks]
        order = torch.randperm(len(self._scores), generator=generator)
        # Even parts instead of a small last one: batch statistics and pairs need company.
        count = min(round(len(order) / size), len(order) // 2)
        chunks = order.tensor_split(max(1, count))
        return [Batch(chunk.tolist(), pairs_within_batch(len(chunk))) for chunk in chunks]

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: The head's outputs on ``batch.images``, (B,).
            batch: The batch.

        Returns:
            0-dim.
        """
        first, _, second = self._settings.loss.partition("+")
        loss = self._named(first, outputs, batch)
        return loss + self._settings.regression_weight * self._named(second, outputs, batch) if second else loss

    def _named(self, name: str, outputs: Tensor, batch: Batch) -> Tensor:
        if name == "fidelity":
            pairs = batch.pairs.to(outputs.device)
            chance = preference_probability(outputs[pairs[:, 0]] - outputs[pairs[:, 1]])
            return fidelity_loss(chance, self._target(batch).to(outputs.device))
        scores = self._standardised[torch.tensor(batch.images)].to(outputs.device)
        return plcc_loss(outputs, scores) if name == "plcc" else centred_smooth_l1_loss(outputs, scores)

    def _target(self, batch: Batch) -> Tensor:
        index = torch.tensor(batch.images)[batch.pairs]
        scores = self._scores[index]
        if self._deviations is None:
            return thurstone_target(scores[:, 0], scores[:, 1])
        deviations = self._deviations[index]
        return thurstone_target(scores[:, 0], scores[:, 1], deviations[:, 0], deviations[:, 1])


def _standardised(scores: Tensor) -> Tensor:
    spread = scores.std(correction=0)
    return (scores - scores.mean()) / (spread if float(spread) > 0 else 1.0)


def _score_deviations(dataset: Dataset) -> Tensor:
    values = [dataset.sample(index).score_std for index in range(len(dataset))]
    missing = sum(value is None for value in values)
    if missing:
        raise ConfigurationError(
            f"target=continuous needs a standard deviation for every score, but {missing} of {len(values)} images have "
            "none; add a 'std' column, or use target=binary"
        )
    return torch.tensor([float(value or 0.0) for value in values])
