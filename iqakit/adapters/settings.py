"""Settings of the built-in adaptation methods. Importing them loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from iqakit.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """Settings of ``linear``.

    Attributes:
        features: The head's input: every stage's statistics and the embedding, or the embedding alone.
        penalty: Ridge penalty; None: chosen by cross-validation on the training images.
    """

    features: Literal["all-stages", "embedding"] = "all-stages"
    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.penalty is not None and not self.penalty > 0:
            raise ConfigurationError(f"penalty must be above 0, but it is {self.penalty}")


_RECIPES: dict[str, dict[str, Any]] = {
    # Own: ridge start, all pairs of a batch, one cycle of the learning rate.
    "default": {
        "features": "all-stages",
        "head_start": "ridge",
        "pairs": "within-batch",
        "warmup_epochs": 0,
        "epochs": 5,
        "learning_rate": 3e-4,
        "schedule": "one-cycle",
        "step_epochs": 4,
        "weight_decay": 0.0,
        "averaging": 0.95,
        "batch_size": 16,
        "warmup_batch_size": 64,
        "update_statistics": "never",
    },
    # The two settings of the released TSN code (Zhang et al., IEEE TIP 33:1898-1910, 2024).
    "published-a": {
        "features": "embedding",
        "head_start": "shared",
        "pairs": "sampled",
        "warmup_epochs": 4,
        "epochs": 8,
        "learning_rate": 2e-4,
        "schedule": "step",
        "step_epochs": 4,
        "weight_decay": 5e-4,
        "averaging": 0.0,
        "batch_size": 32,
        "warmup_batch_size": 128,
        "update_statistics": "first-epoch",
    },
    "published-b": {
        "features": "embedding",
        "head_start": "shared",
        "pairs": "sampled",
        "warmup_epochs": 3,
        "epochs": 6,
        "learning_rate": 1e-3,
        "schedule": "step",
        "step_epochs": 6,
        "weight_decay": 5e-4,
        "averaging": 0.0,
        "batch_size": 32,
        "warmup_batch_size": 128,
        "update_statistics": "first-epoch",
    },
}


@dataclass(frozen=True, slots=True)
class TsnConfig:
    """Settings of ``tsn``. What is None is as the recipe says.

    Attributes:
        recipe: ``"default"`` (own), or one of the two published settings.
        features: The head's input: every stage's statistics and the embedding, or the embedding alone.
        head_start: Where the head starts: from ridge regression on the bare features, or from the same random
            weights for every task, as published.
        pairs: ``"within-batch"``: all pairs of a batch of images; ``"sampled"``: pairs drawn once, two images a pair.
        pair_count: How many pairs are drawn for ``"sampled"``; None: ten an image.
        target: ``"binary"``: 1 where the first image's score is higher; ``"continuous"``: Thurstone's probability
            from the scores' standard deviations, which the data must have.
        warmup_epochs: Epochs of stage 1, the head alone.
        epochs: Epochs of stage 2, the head with normalization weight and bias.
        learning_rate: Adam's highest learning rate.
        schedule: ``"one-cycle"`` over stage 2, or ``"step"``: x0.1 every ``step_epochs``, counted over both stages.
        step_epochs: Length of a step, in epochs.
        weight_decay: Adam's L2 penalty.
        anchor: Strength of the pull of normalization weight and bias towards the pretrained values: this times half the
            squared distance is added to the loss; 0: none.
        averaging: Decay a step of the running average of weights that is validated and kept; 0: the last weights.
        batch_size: Stage 2: images a batch (``"within-batch"``) or pairs a batch (``"sampled"``).
        warmup_batch_size: The same for stage 1.
        crop: Side of the random square crops, in pixels.
        flip: Whether crops are mirrored left-right half of the time.
        update_statistics: When batch statistics are used and running ones move: stage 2's first epoch, always or never.
        precision: Arithmetic of the training passes; validation and scoring are always float32.
    """

    recipe: Literal["default", "published-a", "published-b"] = "default"
    features: Literal["all-stages", "embedding"] | None = None
    head_start: Literal["ridge", "shared"] | None = None
    pairs: Literal["within-batch", "sampled"] | None = None
    pair_count: int | None = None
    target: Literal["binary", "continuous"] = "binary"
    warmup_epochs: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    schedule: Literal["one-cycle", "step"] | None = None
    step_epochs: int | None = None
    weight_decay: float | None = None
    anchor: float = 0.0
    averaging: float | None = None
    batch_size: int | None = None
    warmup_batch_size: int | None = None
    crop: int = 384
    flip: bool = True
    update_statistics: Literal["first-epoch", "always", "never"] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.recipe not in _RECIPES:
            raise ConfigurationError(f"recipe must be one of {', '.join(_RECIPES)}, but it is {self.recipe!r}")
        for name, least in (
            ("warmup_epochs", 0),
            ("epochs", 0),
            ("batch_size", 2),
            ("warmup_batch_size", 2),
            ("pair_count", 1),
            ("step_epochs", 1),
            ("crop", 32),
            ("weight_decay", 0),
            ("anchor", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ConfigurationError(f"{name} must be at least {least}, but it is {value}")
        if self.learning_rate is not None and not self.learning_rate >= 0:
            raise ConfigurationError(f"learning_rate must be at least 0, but it is {self.learning_rate}")
        if self.averaging is not None and not 0 <= self.averaging < 1:
            raise ConfigurationError(f"averaging must be at least 0 and below 1, but it is {self.averaging}")

    def resolved(self) -> TsnConfig:
        """The same settings with everything that the recipe decides filled in."""
        recipe = _RECIPES[self.recipe]
        missing = {f.name: recipe[f.name] for f in fields(self) if f.name in recipe and getattr(self, f.name) is None}
        return replace(self, **missing)
