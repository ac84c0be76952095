"""Which heads need not be run, and what that can cost. Loads no torch. Own.

A task's score counts by its weight. Points lie within 0-100, so leaving out tasks that weigh ``w`` together, and scaling
the other weights up to a sum of 1, moves a score by at most ``100 w`` points.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from iqakit.errors import ConfigurationError

DEFAULT_SKIP_BELOW = 0.001
"""Heads that weigh this much together are left out by default: at most 0.1 points."""
POINTS = 100.0


def check_skip_below(value: float | None) -> float | None:
    """Give ``value`` back if it makes sense.

    Raises:
        ConfigurationError: It is not within 0-1.
    """
    if value is not None and not (0 <= value < 1 and math.isfinite(value)):
        raise ConfigurationError(f"skip_below is a weight from 0 to below 1, or none to run every head, not {value}")
    return value


def used_weights(weights: Sequence[float], skip_below: float | None) -> tuple[list[float], float]:
    """Weights with the lightest tasks left out.

    Args:
        weights: A combiner's weights for one image, summing to 1.
        skip_below: Tasks are left out, lightest first, as long as they weigh at most this together; tasks of weight 0
            always. None: no task is left out, whatever it weighs.

    Returns:
        Weights with exact zeros for tasks left out and the others scaled to a sum of 1, and the weight left out.
    """
    kept = list(weights)
    if skip_below is None:
        return kept, 0.0
    skipped = 0.0
    for index in sorted(range(len(kept)), key=lambda index: kept[index])[:-1]:
        if skipped + kept[index] > skip_below:
            break
        skipped += kept[index]
        kept[index] = 0.0
    if skipped == 0:
        return kept, 0.0
    total = math.fsum(kept)
    return [weight / total for weight in kept], skipped


def needs_no_gate(weights: Sequence[float], skip_below: float | None) -> bool:
    """Whether weights that are known beforehand make the bare pass superfluous: one task has them all."""
    return skip_below is not None and max(weights) == 1


@dataclass
class Cost:
    """What was run for the images scored so far.

    Attributes:
        images: Images scored.
        run: Passes of the network that were run.
        skipped: Passes that were not, of those that all heads and the gate would take.
        bound: The most that leaving out heads can have moved any score, in points.
    """

    images: int = 0
    run: int = 0
    skipped: int = 0
    bound: float = 0.0
    _adding: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def add(self, run: int, skipped: int, weight: float) -> None:
        """Count one image; from any thread."""
        with self._adding:
            self.images += 1
            self.run += run
            self.skipped += skipped
            self.bound = max(self.bound, POINTS * weight)

    def lines(self) -> Iterable[str]:
        """The same in words."""
        each = self.run / max(self.images, 1)
        yield f"passes of the network: {self.run} run, {self.skipped} skipped; {each:.2f} an image, {self.images} images"
        yield f"skipped heads moved no score by more than {self.bound:.3f} points"
