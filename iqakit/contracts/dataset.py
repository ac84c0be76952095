"""What a data set promises: one task's images with human scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of a task's scores and terms.

    Attributes:
        name: The task's name.
        title: What people call it.
        low: Lowest score the published scale has; None where unknown.
        high: Highest score the published scale has; None where unknown.
        direction: ``"mos"`` (published scores: higher is better) or ``"dmos"`` (published scores: higher is worse).
            Scores inside iqakit are always oriented so that higher is better.
        rated: What was rated and how, a sentence.
        citation: Where it was published.
        licence: Terms of use, as stated; ``"not stated"`` where they are not.
        homepage: Where to ask for it.
        images: How many images the full set has; None where unknown.
        splits: How its standard splits are made: ``"official"``, ``"by content"`` or ``"random"``.
        turned_at: The point that the DMOS of a user's own table were turned at: score = ``turned_at`` - DMOS. None where
            nothing was turned, and where a public set was turned on its published scale, whose ends stay the same.
    """

    name: str
    title: str = ""
    low: float | None = None
    high: float | None = None
    direction: str = "mos"
    rated: str = ""
    citation: str = ""
    licence: str = "not stated"
    homepage: str = ""
    images: int | None = None
    splits: str = "by content"
    turned_at: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One rated image.

    Attributes:
        name: The image's name, as the set's own table spells it; unique in the set.
        score: Human score, oriented so that higher is better.
        score_std: Standard deviation of that score over observers, where published.
        content: Id of the reference picture or scene; splits never share one. None: the image is its own content.
    """

    name: str
    score: float
    score_std: float | None = None
    content: str | None = None


@runtime_checkable
class Dataset(Protocol):
    """Images of one task, or of one split of it, in a fixed order."""

    @property
    def facts(self) -> TaskFacts:
        """What is known of the task's scores and terms."""
        ...

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def sample(self, index: int) -> Sample:
        """Name, score and content of image ``index``; reads no pixel."""
        ...

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB.

        Raises:
            ImageError: The image is missing or cannot be decoded.
        """
        ...

    def path(self, index: int) -> Path | None:
        """The image's file, or None where there is none (made in memory)."""
        ...
