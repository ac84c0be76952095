from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Generator

from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import Adapter, Backbone, FitContext
from iqakit.datasets.score_table import open_score_table
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.pipeline.fitting import SilentProgress
from iqakit.pipeline.reading import bare_features
from iqakit.runtimes.torch_runtime import TorchRuntime
from iqakit.storage.checkpoint import FileCheckpoint

MakeContext = Callable[..., FitContext]


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return create_tiny("tiny", "random:0")


@pytest.fixture
def fit_context(rated_photos: Path, tmp_path: Path, tiny: Backbone) -> MakeContext:
    """What a fit method sees of 24 small pictures on the tiny backbone, one epoch asked for."""
    preprocessing, runtime = preprocessing_for(tiny.input), TorchRuntime(tiny)
    parts = {}
    for split in ("train", "val"):
        parts[split] = bare_features(
            runtime,
            open_score_table(rated_photos, split),
            preprocessing,
            what=split,
            progress=SilentProgress(),
            workers=0,
            cache=FileCheckpoint(tmp_path / "features" / split, "key"),
        )

    def make(seed: int = 0, earlier: tuple[Adapter, ...] = (), place: str = "training") -> FitContext:
        return FitContext(
            backbone=tiny,
            earlier=earlier,
            shared={},
            task="sharpness",
            train=parts["train"][0],
            validation=parts["val"][0],
            train_features=parts["train"][1],
            validation_features=parts["val"][1],
            preprocessing=preprocessing,
            generator=Generator().manual_seed(seed),
            seed=seed,
            device="cpu",
            progress=SilentProgress(),
            checkpoint=FileCheckpoint(tmp_path / place, "key"),
            workers=1,
            epochs=1,
        )

    return make
