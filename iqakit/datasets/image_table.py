"""A data set whose images are files below one directory: rows of facts read once, pixels decoded when asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqakit.errors import DataError, ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from iqakit.contracts.dataset import Sample, TaskFacts


def inside(name: str) -> str:
    """Give a file name of a score table as a relative path with forward slashes, or refuse it.

    Tables come from elsewhere, so a name in one must not reach files outside the set's own directory. The check looks at
    the name alone: a symbolic link that the directory's owner made is the owner's choice.

    Args:
        name: The name as the table spells it; Windows separators are understood.

    Raises:
        DataError: The name is empty, absolute, climbs with ``..`` or holds a NUL.
    """
    path = name.strip().replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or "\0" in path or ":" in parts[0]:
        raise DataError(f"image name {name!r} is not a path inside the set's directory; use a relative name without '..'")
    return "/".join(parts)


def is_there(path: Path) -> bool:
    """Whether a file is there and may be looked at."""
    try:
        return path.is_file()
    except OSError:  # a name too long for the system, or a directory that may not be entered
        return False


def pixels_of(path: Path, name: str, task: str) -> Tensor:
    """Pixels of a data set's image: uint8 (3, H, W), RGB.

    Args:
        path: Its file.
        name: What the set's table calls it.
        task: The set.

    Raises:
        ImageError: The image is missing or cannot be decoded.
    """
    if not is_there(path):
        raise ImageError(f"image {name!r} of {task} is not there: no file {path}")
    import torch  # torch and Pillow load only when pixels are wanted

    from iqakit.imaging.decoding import decode

    return torch.from_numpy(decode(path).pixels)


@dataclass(frozen=True, slots=True)
class ImageTable:
    """Images of one task, or of one split of it, in a fixed order; follows the ``Dataset`` contract.

    Attributes:
        facts: What is known of the scores and their terms.
        root: The directory that every file lies in.
        samples: One an image; scores are oriented so that higher is better.
        files: One an image: its path below ``root``, with forward slashes.
    """

    facts: TaskFacts
    root: Path
    samples: tuple[Sample, ...]
    files: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that rows and files belong together and that no name leaves the directory.

        Raises:
            DataError: A name leaves the directory.
            ValueError: There are not as many files as samples.
        """
        samples, files = tuple(self.samples), tuple(inside(name) for name in self.files)
        if len(samples) != len(files):
            raise ValueError(f"{len(samples)} samples and {len(files)} files; there must be one file a sample")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "files", files)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        """Name, score and content of image ``index``; reads no pixel."""
        return self.samples[index]

    def path(self, index: int) -> Path:
        """The file of image ``index``, whether or not it is there."""
        return self.root / self.files[index]

    def image(self, index: int) -> Tensor:
        """Pixels of image ``index``: uint8 (3, H, W), RGB.

        Raises:
            ImageError: The image is missing or cannot be decoded.
        """
        return pixels_of(self.path(index), self.samples[index].name, self.facts.name)

    def missing(self) -> tuple[int, ...]:
        """Indices of the images whose file is not there."""
        return tuple(index for index in range(len(self)) if not is_there(self.path(index)))

    def subset(self, indices: Iterable[int]) -> ImageTable:
        """The same set with only the images ``indices``, in that order."""
        chosen = list(indices)
        return ImageTable(
            facts=self.facts,
            root=self.root,
            samples=tuple(self.samples[index] for index in chosen),
            files=tuple(self.files[index] for index in chosen),
        )
