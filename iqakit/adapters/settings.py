"""Settings of the built-in adaptation methods. Importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from iqakit.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Settings of ``linear``.

    Attributes:
        features: The head's input: every stage's statistics and the embedding, or the embedding alone.
        penalty: Ridge penalty; None: chosen by cross-validation on the training images.
        ladders: How many good training photos are degraded by each of 25 kinds of fault at five levels, for the finished
            head to learn the known order of these copies, and for the gate to know the faults; 0: none.
    """

    features: Literal["all-stages", "embedding"] = "all-stages"
    penalty: float | None = None
    ladders: int = 0

    def __post_init__(self) -> None:
        _check_ladders(self.ladders)
        if self.penalty is not None and not self.penalty > 0:
            raise ConfigurationError(f"penalty must be above 0, but it is {self.penalty}")


def _check_ladders(count: int) -> None:
    if not count >= 0:
        raise ConfigurationError(f"ladders must be at least 0, but it is {count}")


_PUBLISHED: dict[str, Any] = {
    "features": "embedding",
    "head_start": "shared",
    "pairs": "sampled",
    "loss": "fidelity",
    "schedule": "step",
    "weight_decay": 5e-4,
    "averaging": 0.0,
    "refit": 0.0,
    "batch_size": 32,
    "warmup_batch_size": 128,
    "update_statistics": "first-epoch",
    "precision": "float32",
}
TSN_PRESETS: dict[str, dict[str, Any]] = {
    # The two settings of the released TSN code (Zhang et al., IEEE TIP 33:1898-1910, 2024).
    "paper-a": {**_PUBLISHED, "warmup_epochs": 4, "epochs": 8, "learning_rate": 2e-4, "step_epochs": 4},
    "paper-b": {**_PUBLISHED, "warmup_epochs": 3, "epochs": 6, "learning_rate": 1e-3, "step_epochs": 6},
}
"""Settings of ``tsn`` by name; what they leave out is as ``TsnConfig`` says."""


@dataclass(frozen=True, slots=True)
class TsnConfig:
    """Settings of ``tsn``. The defaults are our own; the published ones are ``TSN_PRESETS``.

    Attributes:
        features: The head's input: every stage's statistics and the embedding, or the embedding alone.
        head_start: Where the head starts: from ridge regression on the bare features, or from the same random
            weights for every task, as published.
        pairs: ``"within-batch"``: all pairs of a batch of images; ``"sampled"``: pairs drawn once, two images a pair.
        pair_count: How many pairs are drawn for ``"sampled"``; None: ten an image.
        target: ``"binary"``: 1 where the first image's score is higher; ``"continuous"``: Thurstone's probability
            from the scores' standard deviations, which the data must have.
        loss: ``"fidelity"`` holds pairs to the human order; ``"plcc"`` and ``"smooth-l1"`` hold the outputs of a batch to
            a line through the human scores; with a plus, both.
        regression_weight: Weight of the second loss where there are two.
        warmup_epochs: Epochs of stage 1, the head alone.
        epochs: Epochs of stage 2, the head with normalization weight and bias.
        learning_rate: Adam's highest learning rate.
        schedule: ``"one-cycle"`` over stage 2, or ``"step"``: x0.1 every ``step_epochs``, counted over both stages.
        step_epochs: Length of a step, in epochs.
        weight_decay: Adam's L2 penalty.
        anchor: Strength of the pull of normalization weight and bias towards the pretrained values: this times half the
            squared distance is added to the loss; 0: none.
        refit: Share in the finished head of ridge regression on the whole training images under the learned
            normalization, against the head learned from pairs, both scaled to outputs of one deviation; 0: none, 1: alone.
        ladders: How many good training photos are degraded by each of 25 kinds of fault at five levels, for the finished
            head to learn the known order of these copies, and for the gate to know the faults; 0: none.
        averaging: Decay a step of the running average of weights that is validated and kept; 0: the last weights.
        batch_size: Stage 2: images a batch (``"within-batch"``) or pairs a batch (``"sampled"``).
        warmup_batch_size: The same for stage 1.
        crop: Side of the random square crops, in pixels; 0: whole images, one pass each.
        flip: Whether crops are mirrored left-right half of the time.
        update_statistics: When batch statistics are used and running ones move: stage 2's first epoch, always or never.
            With whole images a batch is one image, so it must be never.
        precision: Arithmetic of the training passes; ``"auto"``: bfloat16 where the device is fast at it, else float32. The
            adapter says which it was. Validation and scoring are always float32.
    """

    features: Literal["all-stages", "embedding"] = "all-stages"
    head_start: Literal["ridge", "shared"] = "ridge"
    pairs: Literal["within-batch", "sampled"] = "within-batch"
    pair_count: int | None = None
    target: Literal["binary", "continuous"] = "binary"
    loss: Literal["fidelity", "plcc", "smooth-l1", "fidelity+plcc", "fidelity+smooth-l1"] = "fidelity"
    regression_weight: float = 1.0
    warmup_epochs: int = 0
    epochs: int = 5
    learning_rate: float = 3e-4
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    step_epochs: int = 4
    weight_decay: float = 0.0
    anchor: float = 0.0
    refit: float = 0.5
    ladders: int = 0
    averaging: float = 0.95
    batch_size: int = 16
    warmup_batch_size: int = 64
    crop: int = 384
    flip: bool = True
    update_statistics: Literal["first-epoch", "always", "never"] = "never"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        _check_ladders(self.ladders)
        for name, least in (
            ("warmup_epochs", 0),
            ("epochs", 0),
            ("batch_size", 2),
            ("warmup_batch_size", 2),
            ("pair_count", 1),
            ("step_epochs", 1),
            ("weight_decay", 0),
            ("anchor", 0),
            ("regression_weight", 0),
            ("learning_rate", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigurationError(f"{name} must be at least {least}, but it is {value}")
        if self.crop != 0 and not self.crop >= 32:
            raise ConfigurationError(f"crop must be at least 32, or 0 for whole images, but it is {self.crop}")
        if self.crop == 0 and self.update_statistics != "never":
            raise ConfigurationError(
                f"whole images pass one by one, which leaves no batch to take statistics of; with crop=0 set "
                f"update_statistics=never, not {self.update_statistics}"
            )
        if not 0 <= self.averaging < 1:
            raise ConfigurationError(f"averaging must be at least 0 and below 1, but it is {self.averaging}")
        if not 0 <= self.refit <= 1:
            raise ConfigurationError(f"refit must be between 0 and 1, but it is {self.refit}")
