from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from iqakit.contracts import Dataset
from iqakit.datasets import practice
from iqakit.datasets.practice import open_practice, practice_identity
from iqakit.datasets.sources import practice_source
from iqakit.errors import ConfigurationError, DataError


def test_splits_share_no_crop_and_cover_the_task() -> None:
    parts = {s: open_practice(s, seed=3) for s in ("train", "val", "test")}
    names = {s: {d.sample(i).name for i in range(len(d))} for s, d in parts.items()}
    contents = {s: {d.sample(i).content for i in range(len(d))} for s, d in parts.items()}
    assert {s: len(c) for s, c in contents.items()} == {"train": 11, "val": 2, "test": 3}
    assert len(set.union(*contents.values())) == 16
    assert set.union(*names.values()) == {open_practice("all").sample(i).name for i in range(208)}
    assert len(open_practice("all")) == 208 == sum(len(d) for d in parts.values())


@pytest.mark.parametrize("seed", range(10))
def test_both_photos_are_in_train_and_every_score_everywhere(seed: int) -> None:
    for split in ("train", "val", "test"):
        task = open_practice(split, seed)
        samples = [task.sample(i) for i in range(len(task))]
        assert {s.score for s in samples} == {1.0, 3.0, 5.0, 6.0}
        if split == "train":
            assert {(s.content or "").split("-")[0] for s in samples} == {"china", "flower"}


def test_images_are_made_once_and_stay_the_same() -> None:
    task = open_practice("val")
    assert isinstance(task, Dataset)
    assert task.facts.name == "practice"
    first = task.image(1)
    assert first.shape == (3, 160, 160)
    assert first.dtype == torch.uint8
    name = task.sample(1).name
    whole = open_practice("all", seed=9)
    (index,) = [i for i in range(len(whole)) if whole.sample(i).name == name]
    assert torch.equal(whole.image(index), first)


def test_crops_share_no_pixel() -> None:
    whole = open_practice("all")
    originals = {whole.sample(i).content: whole.image(i) for i in range(208) if whole.recipe(i)[2] == 0}
    from iqakit.imaging.decoding import decode

    china = torch.from_numpy(decode(practice.photo_files()[0]).pixels)
    rebuilt = torch.cat([torch.cat([originals[f"china-{r}-{c}"] for c in range(4)], dim=2) for r in range(2)], dim=1)
    assert torch.equal(rebuilt, china[:, :320, :640])


def test_a_simple_measure_orders_the_degradations_of_a_crop() -> None:
    """Severity is there to be seen: the error against the original rises with 6 - score."""
    task = open_practice("test")
    originals = {task.sample(i).content: task.image(i).float() for i in range(len(task)) if task.sample(i).score == 6}
    errors: dict[float, float] = {}
    for i in range(len(task)):
        sample = task.sample(i)
        difference = (task.image(i).float() - originals[sample.content]).square().mean().sqrt().item()
        errors[sample.score] = errors.get(sample.score, 0.0) + difference
    assert errors[6.0] == 0
    assert errors[5.0] < errors[3.0] < errors[1.0]


def test_the_source_opens_it() -> None:
    source = practice_source()
    assert len(source.open("train", 1)) == 143
    assert source.identity() == practice_identity()
    assert len(practice_identity()) == 64
    with pytest.raises(ConfigurationError, match="there is no split 'dev'"):
        source.open("dev")


def test_the_identity_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = practice_identity()
    monkeypatch.setattr(practice, "TASK_LEVELS", (0, 1))
    assert practice_identity() != before


def test_scikit_learn_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name.split(".")[0] != "sklearn"
        return real(name, *args, **kwargs)

    practice._whole_task.cache_clear()
    monkeypatch.setattr(builtins, "__import__", guarded)
    assert open_practice("all").image(0).shape == (3, 160, 160)


def test_missing_photos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    spec = importlib.machinery.ModuleSpec("sklearn", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match=r"needs scikit-learn's photo .*china.jpg, and it is not there; reinstall it"):
        open_practice("train")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs scikit-learn's photos, and it is not installed"):
        practice_identity()
