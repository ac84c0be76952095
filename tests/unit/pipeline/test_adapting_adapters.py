"""Adapters made from unscored images: written, read back, and refused by any other model."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import iqakit
from iqakit.errors import ConfigurationError, FileFormatError, MismatchError, StorageError, UnknownNameError
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel
from iqakit.storage.adapter_file import read_adapter, write_adapter
from iqakit.storage.model_directory import read_manifest

MILD = {"alpha": 0.05}


@pytest.fixture(scope="module")
def model(adaptable: Path) -> QualityModel:
    return QualityModel.load(adaptable)


@pytest.fixture(scope="module")
def photos(rated_photos: Path) -> list[Path]:
    return sorted((rated_photos / "images").iterdir())


@pytest.fixture(scope="module")
def made(model: QualityModel, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "adapted.safetensors"
    iqakit.adapt(model, photos[:8], "batch-statistics", output=path, task="first", settings=MILD, order="given")
    return path


def test_one_batch_gives_what_score_adapts_to(model: QualityModel, adaptable: Path, made: Path, photos: list[Path]) -> None:
    options = {"tta": "batch-statistics", "tta_settings": MILD, "tta_order": "given", "task": "first"}
    expected = list(model.score_many(photos[:8], **options))  # type: ignore[arg-type]
    assert all(row.adapted for row in expected)
    loaded = iqakit.load(adaptable, adapter=made)
    rows = list(loaded.score_many(photos[:8], task="first"))
    assert [(row.score, row.raw, row.std) for row in rows] == [(row.score, row.raw, row.std) for row in expected]
    assert [row.adapted for row in rows] == [None] * 8
    assert loaded.version == f"{model.version}+{hashlib.sha256(made.read_bytes()).hexdigest()[:8]}"
    assert {row.model for row in rows} == {loaded.version}
    # The other task, the gate and its weights are the model's own.
    mixed, plain = next(iter(loaded.score_many(photos[:1]))), next(iter(model.score_many(photos[:1])))
    assert mixed.weights == plain.weights
    assert mixed.task_scores["second"] == plain.task_scores["second"]
    assert mixed.task_scores["first"] != plain.task_scores["first"]


def test_what_the_file_says(model: QualityModel, adaptable: Path, made: Path) -> None:
    adapter, own = read_adapter(made, model.backbone), model.adapters[0]
    task = read_manifest(adaptable).tasks[0]
    assert adapter.provenance["parent_sha256"] == task.sha256
    assert adapter.provenance["seed"] == own.provenance["seed"]
    facts = adapter.provenance["adaptation"]
    assert (facts["method"], facts["images"], facts["batches"], facts["refused"]) == ("batch-statistics", 8, 1, 0)
    assert (adapter.task, adapter.method, adapter.config["alpha"]) == ("first", "batch-statistics", 0.05)
    assert torch.equal(adapter.head_weight, own.head_weight)
    assert adapter.calibration == own.calibration


def test_the_same_images_give_the_same_bytes(model: QualityModel, photos: list[Path], made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    report = iqakit.adapt(model, photos[:8], "batch-statistics", output=again, task="first", settings=MILD, order="given")
    assert again.read_bytes() == made.read_bytes()
    assert report.sha256 == hashlib.sha256(made.read_bytes()).hexdigest()
    assert report.source_mean is not None
    assert report.adapted_mean is not None
    assert report.source_mean != report.adapted_mean


def test_many_images_go_on_from_batch_to_batch(
    model: QualityModel, photos: list[Path], trick: None, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    report = iqakit.adapt(
        model, iter([*photos[:12], broken]), "trick", task="second", settings={"by": 0.01}, batch=5, order="given"
    )
    assert (report.images, report.batches, report.refused, report.sha256) == (12, 3, {}, None)
    assert len(report.failed) == 1
    own = dict(model.backbone.module.named_parameters())["top.1.bias"]
    moved = report.adapter.tensors["top.1.bias"] - own
    expected = ((0.01 * 0.99) + 0.01) * 0.99 + 0.01
    assert torch.allclose(moved, torch.full_like(moved, expected), atol=1e-6)
    assert report.to_json()["failed"] == list(report.failed)


def test_the_task_is_the_one_that_the_images_belong_to(model: QualityModel, photos: list[Path], trick: None) -> None:
    rows = list(model.score_many(photos[:8], skip_below=None))
    totals = {task: sum(row.weights[task] for row in rows) for task in model.tasks}
    report = iqakit.adapt(model, photos[:8], "trick")
    assert report.task == max(totals, key=lambda task: totals[task])


def test_nothing_is_written_where_nothing_is_believed(
    model: QualityModel, photos: list[Path], trick: None, tmp_path: Path
) -> None:
    path = tmp_path / "none.safetensors"
    with pytest.raises(ConfigurationError, match=r"was not adapted to the only batch: too few images; nothing was written"):
        iqakit.adapt(model, photos[:2], "trick", output=path, settings={"do": "skip"}, task="first")
    with pytest.raises(ConfigurationError, match=r"none of the 1 images can be scored; the first: .*absent\.png"):
        iqakit.adapt(model, [tmp_path / "absent.png"], "trick", output=path, task="first")
    for one, shown in (("photos", "'photos'"), (photos[0], repr(str(photos[0]))), (b"abc", "3 bytes")):
        message = f"adapt takes several images, and was given one: {shown}; give a list of images"
        with pytest.raises(ConfigurationError, match=re.escape(message) + "$"):
            iqakit.adapt(model, one, "trick", output=path)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there is nothing to adapt to"):
        iqakit.adapt(model, [], "trick", output=path)
    with pytest.raises(ConfigurationError, match="adapt needs the name of a test-time method, not 'auto'"):
        iqakit.adapt(model, photos, "auto", output=path)
    with pytest.raises(UnknownNameError, match="no task of model model is named 'frst'; did you mean first"):
        iqakit.adapt(model, photos, "trick", output=path, task="frst")
    assert not path.exists()


def test_an_adapted_model_is_not_adapted_again(adaptable: Path, made: Path, photos: list[Path]) -> None:
    with pytest.raises(ConfigurationError, match="has an adapted adapter in place already; adapt the model itself"):
        iqakit.adapt(iqakit.load(adaptable, adapter=made), photos, "batch-statistics")


def test_other_models_refuse_it(
    adaptable: Path, made: Path, rated_photos: Path, model: QualityModel, tmp_path: Path
) -> None:
    def build(name: str, backbone: str, task: str) -> Path:
        fit_tasks([rated_photos], backbone=backbone, adapter="linear", task=task, model=tmp_path / name)
        return tmp_path / name

    with pytest.raises(MismatchError, match=r"belongs on backbone 'tiny' .* but model groups stands on 'tiny:groupnorm'"):
        iqakit.load(build("groups", "tiny:groupnorm", "first"), adapter=made)
    with pytest.raises(MismatchError, match=r"is of task 'first', which model named does not have \(it has others\)"):
        iqakit.load(build("named", "tiny", "others"), adapter=made)
    with pytest.raises(MismatchError, match=r"was adapted from [0-9a-f]{8}, but task 'first' of model linear is"):
        iqakit.load(build("linear", "tiny", "first"), adapter=made)
    orphan = tmp_path / "orphan.safetensors"
    adapter = read_adapter(made)
    write_adapter(replace(adapter, provenance={}), orphan)
    with pytest.raises(MismatchError, match="names no adapter that it was adapted from"):
        iqakit.load(adaptable, adapter=orphan)
    resized = tmp_path / "resized.safetensors"
    write_adapter(replace(adapter, preprocessing=replace(adapter.preprocessing, shorter_side=64)), resized)
    with pytest.raises(MismatchError, match="prepares images in another way than the model"):
        iqakit.load(adaptable, adapter=resized)
    with pytest.raises(StorageError, match=r"absent\.safetensors"):
        iqakit.load(adaptable, adapter=tmp_path / "absent.safetensors")
    with pytest.raises(FileFormatError):
        iqakit.load(adaptable, adapter=adaptable / "model.json")


def test_the_models_own_file_may_stand_in(adaptable: Path, model: QualityModel, photos: list[Path], tmp_path: Path) -> None:
    own = shutil.copy(adaptable / read_manifest(adaptable).tasks[0].file, tmp_path / "own.safetensors")
    loaded = iqakit.load(adaptable, adapter=own)
    assert loaded.score(photos[0]).score == model.score(photos[0]).score
