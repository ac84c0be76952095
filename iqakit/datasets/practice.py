"""The built-in practice task: learning can be tried without data and without a download.

Two photos come with scikit-learn (``china.jpg`` and ``flower.jpg``, 640 x 427). Each is cut into eight crops that share
no pixel, and every crop is degraded in four ways at three levels: 208 images of 160 x 160. The score is how little was
done to a crop, so a model learned here has never seen a human opinion; it shows that things work, and no more.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from pathlib import Path

import torch
from torch import Tensor

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.sources import PRACTICE_NAME
from iqakit.datasets.splits import DEFAULT_RATIOS, SPLITS, split_by_content
from iqakit.datasets.synthetic import SyntheticTask
from iqakit.errors import ConfigurationError, DataError
from iqakit.imaging.decoding import decode
from iqakit.imaging.degrading import find_degradation

PHOTOS = ("china.jpg", "flower.jpg")
CROP = 160
KINDS = ("gaussian-blur", "jpeg", "white-noise", "pixelate")
TASK_LEVELS = (0, 1, 3, 5)

FACTS = TaskFacts(
    name=PRACTICE_NAME,
    title="Built-in practice task",
    low=1.0,
    high=6.0,
    rated="not rated: the score is 6 minus the level of the degradation",
    citation="photos by danielbuechele and vultilion on Flickr, as they come with scikit-learn; degradations own",
    licence="CC BY 2.0 (photos, as scikit-learn states)",
    homepage="https://scikit-learn.org",
    images=208,
)


def photo_files() -> tuple[Path, ...]:
    """The two photos that come with scikit-learn, found without importing it.

    Raises:
        DataError: They are not there.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("the practice task needs scikit-learn's photos, and it is not installed; install it, or give data")
    files = tuple(Path(spec.origin).parent / "datasets" / "images" / name for name in PHOTOS)
    for file in files:
        if not file.is_file():
            raise DataError(
                f"the practice task needs scikit-learn's photo {file}, and it is not there; reinstall it, or give data"
            )
    return files


def open_practice(split: str, seed: int = 0) -> SyntheticTask:
    """One split of the practice task; crops are its contents, split 70/10/20 by the seed.

    Args:
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        seed: Seed of the split. The images do not depend on it.

    Raises:
        ConfigurationError: There is no such split.
        DataError: The photos are not there.
    """
    if split not in (*SPLITS, "all"):
        raise ConfigurationError(f"there is no split {split!r}; there are train, val, test and all")
    task = _whole_task(photo_files())
    parts = split_by_content([task.sample(i).content or "" for i in range(len(task))], seed, DEFAULT_RATIOS)
    return task.subset(i for i, part in enumerate(parts) if split in ("all", part))


def practice_identity() -> str:
    """SHA-256, in hexadecimal, of what the task is made of: the photos' bytes and every setting.

    Raises:
        DataError: The photos are not there.
    """
    digest = hashlib.sha256()
    for file in photo_files():
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    kinds = [(kind.name, kind.amounts) for kind in map(find_degradation, KINDS)]
    digest.update(json.dumps([CROP, TASK_LEVELS, kinds]).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)  # splits of one task share the crops and the images made so far
def _whole_task(files: tuple[Path, ...]) -> SyntheticTask:
    crops: dict[str, Tensor] = {}
    for file in files:
        pixels = torch.from_numpy(decode(file).pixels)
        for row in range(pixels.shape[1] // CROP):
            for column in range(pixels.shape[2] // CROP):
                top, left = row * CROP, column * CROP
                crops[f"{file.stem}-{row}-{column}"] = pixels[:, top : top + CROP, left : left + CROP].contiguous()
    return SyntheticTask(list(crops.values()), KINDS, TASK_LEVELS, 0, list(crops), keep=True, facts=FACTS)
