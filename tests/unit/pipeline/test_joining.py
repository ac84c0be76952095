from collections.abc import Callable
from pathlib import Path

import pytest

from iqakit.errors import ConfigurationError, MismatchError
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.joining import join_models


def everything(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_joined_is_what_one_fit_gives_to_the_byte(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_rated_photos(tmp_path / "other", count=24, seed=3)
    options = {"backbone": "tiny", "settings": {"crop": "64"}, "epochs": 1}
    fit_tasks([rated_photos], model=tmp_path / "a", task="one", **options)
    fit_tasks([other], model=tmp_path / "b", task="two", **options)
    assert join_models([tmp_path / "a", tmp_path / "b"], tmp_path / "joined") == ("one", "two")
    fit_tasks([rated_photos], model=tmp_path / "whole", task="one", **options)
    fit_tasks([other], model=tmp_path / "whole", task="two", **options)
    assert everything(tmp_path / "joined") == everything(tmp_path / "whole")


def test_names_and_backbones_must_fit(tiny_model: Path, rated_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has learned a task 'sharpness' already"):
        join_models([tiny_model, tiny_model], tmp_path / "twice")
    fit_tasks([rated_photos], backbone="tiny:groupnorm", adapter="linear", task="more", model=tmp_path / "group")
    with pytest.raises(MismatchError):
        join_models([tiny_model, tmp_path / "group"], tmp_path / "mixed")
