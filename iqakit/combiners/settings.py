"""Settings of the built-in combiners. Importing them loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from iqakit.errors import ConfigurationError

# The widest seed that scikit-learn takes.
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class KMeansConfig:
    """Settings of the K-means gate; the defaults are the published ones (Zhang et al., IEEE TIP 2024).

    Attributes:
        clusters: Centroids a stage, at most; a task with fewer distinct training images gets one for each.
        repeats: Times the clustering starts anew; the best is kept.
        iterations: Iterations of one clustering, at most.
        temperature: Sharpness of the softmax over tasks; 0 weighs all tasks alike.
        hard: Give all weight to the task of largest weight.
        seed: Seed of the clustering.
        stages: Which stages of the backbone are clustered when a task is learned: the last so many of them.
        steadiness: How much less distances count along what weak degradation moves, where a method says what that is (own);
            0 counts all alike.

    Raises:
        ConfigurationError: A setting is out of range.
    """

    clusters: int = 128
    repeats: int = 20
    iterations: int = 1000
    temperature: float = 8.0
    hard: bool = False
    seed: int = 0
    stages: int = 2
    steadiness: float = 0.3

    def __post_init__(self) -> None:
        for name in ("clusters", "repeats", "iterations", "stages"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigurationError(f"combiner kmeans: {name} must be 1 or more; found {value}")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigurationError(
                f"combiner kmeans: temperature must be finite and 0 or more; found {self.temperature}; "
                "8 is the default, 32 was published"
            )
        if not (self.steadiness >= 0 and math.isfinite(self.steadiness)):
            raise ConfigurationError(f"combiner kmeans: steadiness must be finite and 0 or more; found {self.steadiness}")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ConfigurationError(f"combiner kmeans: seed must lie between 0 and {_LARGEST_SEED}; found {self.seed}")


@dataclass(frozen=True, slots=True)
class OracleConfig:
    """The oracle has no settings."""


@dataclass(frozen=True, slots=True)
class AverageConfig:
    """The average has no settings."""


@dataclass(frozen=True, slots=True)
class LastConfig:
    """The last task's head has no settings."""
