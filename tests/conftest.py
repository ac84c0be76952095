"""Fixtures that several test rooms use."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

# One thread a process, those that tests start included: the networks here are tiny, and threads that wait for each other on
# a busy machine make the suite many times slower. Must be said before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Graphs are made once a model, which takes seconds, and tests make many models; those of graphs say otherwise.
os.environ["IQAKIT_RUNTIME"] = "torch"

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def write_rated_photos(directory: Path, count: int = 36, side: int = 72, seed: int = 0) -> Path:
    """A directory with ``scores.csv``: textured pictures, blurred in eight degrees; the sharper, the higher the score."""
    generator = np.random.default_rng(seed)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        degree = index % 8
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
        picture = picture.filter(ImageFilter.GaussianBlur(degree * 0.7))
        name = f"images/p{index:03d}.png"
        picture.save(directory / name)
        split = ("train", "train", "train", "val", "test", "train")[(index // 8 + index) % 6]
        rows.append(
            {"image": name, "mos": f"{5 - degree * 0.5 + generator.normal(0, 0.1):.4f}", "std": "0.4", "split": split}
        )
    with (directory / "scores.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return directory


@pytest.fixture(scope="session")
def rated_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task: a directory with ``scores.csv`` of 36 small pictures."""
    return write_rated_photos(tmp_path_factory.mktemp("sharpness"))


@pytest.fixture(scope="session")
def make_rated_photos() -> Callable[..., Path]:
    """Makes more tasks: ``make_rated_photos(directory, count=..., seed=...)``."""
    return write_rated_photos


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real rated images; tests that need them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real rated images are not on this machine")
    return SHARED_DATA


@pytest.fixture
def untouched_global_state() -> Callable[[], None]:
    """Call it after the work: torch's and numpy's global random state are what they were."""
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002

    def check() -> None:
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002

    return check


@pytest.fixture(scope="session")
def tiny_model(rated_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one task, ``sharpness``, on the tiny backbone; read it, do not write to it."""
    from iqakit.pipeline.fitting import fit_tasks

    directory = tmp_path_factory.mktemp("models") / "tiny"
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", task="sharpness", model=directory)
    return directory
