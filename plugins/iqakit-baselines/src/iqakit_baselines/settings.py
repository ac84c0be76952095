"""Settings of the baselines. Importing them loads no torch.

All methods share one trainer, so they share its settings; what a method adds stands in a config of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from iqakit.errors import ConfigurationError


def at_least(config: Any, **least: float) -> None:
    """Refuse settings below their least value, or not finite.

    Raises:
        ConfigurationError: The message names the setting, its least value and what was found.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not (value >= bound and math.isfinite(value)):
            raise ConfigurationError(f"{name} must be a finite number of at least {bound:g}, but it is {value}")


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """Settings of the trainer: full fine-tuning of a network with a head, from pairs of one task's images.

    Attributes:
        features: The head's input: every stage's statistics and the embedding, or the embedding alone.
        head_start: Where a new head starts: from ridge regression, or from the same random weights for every task.
            Ridge regression sees the bare features of whole images while the network is the pretrained one, and after
            that the features of one crop an image under the weights that training starts from.
        pairs: ``"within-batch"``: all pairs of a batch of images; ``"sampled"``: pairs drawn once, two images a pair.
        pair_count: How many pairs are drawn for ``"sampled"``; None: ten an image.
        target: ``"binary"``: 1 where the first image's score is higher; ``"continuous"``: Thurstone's probability from
            the scores' standard deviations, which the data must have.
        loss: ``"fidelity"`` holds pairs to the human order; ``"plcc"`` and ``"smooth-l1"`` hold the outputs of a batch
            to a line through the human scores; with a plus, both.
        regression_weight: Weight of the second loss where there are two.
        epochs: How many times every image is seen.
        learning_rate: Adam's highest learning rate, reached after 30 % of a one-cycle schedule.
        weight_decay: Adam's L2 penalty.
        averaging: Decay a step of the running average of weights that is validated and kept; 0: the last weights.
        batch_size: Images a batch (``"within-batch"``) or pairs a batch (``"sampled"``).
        crop: Side of the random square crops, in pixels; 0: whole images, one pass each.
        flip: Whether images are mirrored left-right half of the time.
        update_statistics: When batch norm uses the batch's statistics and moves the running ones: in the first epoch,
            always or never. With whole images a batch is one image, so it must be never.
        precision: Arithmetic of the training passes; validation and scoring are always float32.
    """

    features: Literal["all-stages", "embedding"] = "all-stages"
    head_start: Literal["ridge", "shared"] = "ridge"
    pairs: Literal["within-batch", "sampled"] = "within-batch"
    pair_count: int | None = None
    target: Literal["binary", "continuous"] = "binary"
    loss: Literal["fidelity", "plcc", "smooth-l1", "fidelity+plcc", "fidelity+smooth-l1"] = "fidelity"
    regression_weight: float = 1.0
    epochs: int = 5
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    averaging: float = 0.95
    batch_size: int = 16
    crop: int = 384
    flip: bool = True
    update_statistics: Literal["first-epoch", "always", "never"] = "never"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        at_least(self, epochs=0, learning_rate=0, weight_decay=0, regression_weight=0, batch_size=2, pair_count=1)
        if self.crop != 0 and not self.crop >= 32:
            raise ConfigurationError(f"crop must be at least 32, or 0 for whole images, but it is {self.crop}")
        if self.crop == 0 and self.update_statistics != "never":
            raise ConfigurationError(
                f"whole images pass one by one, which leaves no batch to take statistics of; with crop=0 set "
                f"update_statistics=never, not {self.update_statistics}"
            )
        if not 0 <= self.averaging < 1:
            raise ConfigurationError(f"averaging must be at least 0 and below 1, but it is {self.averaging}")


@dataclass(frozen=True, slots=True)
class LwfConfig(BaselineConfig):
    """Settings of ``lwf``: the trainer's, and one more.

    Attributes:
        strength: Weight of the fidelity between old and new predictions, summed over the old heads.
    """

    strength: float = 10.0

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        at_least(self, strength=0)


@dataclass(frozen=True, slots=True)
class EwcConfig(BaselineConfig):
    """Settings of ``ewc``: the trainer's, and one more.

    Attributes:
        strength: Weight of the penalty, the sum of importance times squared distance.
    """

    strength: float = 10_000.0

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        at_least(self, strength=0)


@dataclass(frozen=True, slots=True)
class SiConfig(BaselineConfig):
    """Settings of ``si``: the trainer's, and two more.

    Attributes:
        strength: Weight of the penalty, the sum of importance times squared distance.
        damping: Added to the squared distance that a weight went, which the path integral is divided by.
    """

    strength: float = 1000.0
    damping: float = 0.1

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        at_least(self, strength=0)
        if not (self.damping > 0 and math.isfinite(self.damping)):
            raise ConfigurationError(f"damping must be a finite number above 0, but it is {self.damping}")


@dataclass(frozen=True, slots=True)
class MasConfig(BaselineConfig):
    """Settings of ``mas``: the trainer's, and one more.

    Attributes:
        strength: Weight of the penalty, the sum of importance times squared distance.
    """

    strength: float = 10.0

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        at_least(self, strength=0)


@dataclass(frozen=True, slots=True)
class ReplayConfig(BaselineConfig):
    """Settings of ``replay``: the trainer's, and those of the memory.

    Attributes:
        strength: Weight of the loss on kept images.
        budget: How many images are kept.
        budget_of: Whether ``budget`` is for ``"all"`` tasks together, in equal shares, or for each ``"task"``.
        replay_batch_size: Kept images a step, all of one earlier task, which is drawn anew each step.
        replay_side: Side of the crops kept, in pixels; 0: as the training crops. Where it is larger, crops are cut from
            them anew each time.
    """

    strength: float = 1.0
    budget: int = 200
    budget_of: Literal["all", "task"] = "all"
    replay_batch_size: int = 16
    replay_side: int = 0

    def __post_init__(self) -> None:
        BaselineConfig.__post_init__(self)
        at_least(self, strength=0, budget=2, replay_batch_size=2)
        if self.replay_side == 0 and self.crop == 0:
            raise ConfigurationError(
                "kept images must be of one size; with crop=0 set replay_side, such as replay_side=224"
            )
        if self.replay_side != 0 and self.replay_side < max(32, self.crop):
            raise ConfigurationError(
                f"replay_side must be 0 or at least {max(32, self.crop)}, the side of the training crops, "
                f"but it is {self.replay_side}"
            )
