"""Fitting: what it writes, what it leaves alone, how it goes on, and what it says of bad input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import iqakit
from iqakit.errors import ConfigurationError, DataError, ImageError, MismatchError, StorageError, UnknownNameError
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel

QUICK = {"crop": "64", "batch_size": "8"}


class Listener:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, what: str, total: int) -> None:
        assert total >= 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        assert steps >= 0

    def message(self, text: str) -> None:
        self.messages.append(text)


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_model_is_a_few_small_plain_files(tiny_model: Path) -> None:
    assert sorted(hashes(tiny_model)) == [
        "CARD.md",
        "adapters/00-sharpness.safetensors",
        "combiner.safetensors",
        "model.json",
    ]
    assert json.loads((tiny_model / "model.json").read_text())["format_version"] == 1
    assert (tiny_model / "adapters" / "00-sharpness.safetensors").stat().st_size < 10_000


def test_equal_work_gives_equal_bytes(rated_photos: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit_tasks([rated_photos], backbone="tiny", model=tmp_path / name, task="t", settings=QUICK, epochs=1)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_a_new_task_leaves_earlier_adapters_to_the_byte(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", task="one", model=model)
    before = (model / "adapters" / "00-one.safetensors").read_bytes()
    scores = QualityModel.load(model).score(rated_photos / "images" / "p000.png", task="one")
    other = make_rated_photos(tmp_path / "other", count=24, seed=4)
    report = fit_tasks([other], adapter="tsn", task="two", model=model, settings=QUICK, epochs=1)
    assert (model / "adapters" / "00-one.safetensors").read_bytes() == before
    assert report.tasks[0].file == "adapters/01-two.safetensors"
    loaded = QualityModel.load(model)
    assert loaded.tasks == ("one", "two")
    assert loaded.score(rated_photos / "images" / "p000.png", task="one").raw == scores.raw


def test_learning_a_task_does_not_depend_on_the_tasks_before(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_rated_photos(tmp_path / "other", count=24, seed=4)
    options = {"backbone": "tiny", "settings": QUICK, "epochs": 1}
    fit_tasks([rated_photos], model=tmp_path / "alone", task="one", **options)
    fit_tasks([other], model=tmp_path / "after", task="two", **options)
    fit_tasks([rated_photos], model=tmp_path / "after", task="one", **options)
    alone = (tmp_path / "alone" / "adapters" / "00-one.safetensors").read_bytes()
    assert (tmp_path / "after" / "adapters" / "01-one.safetensors").read_bytes() == alone


def test_several_tasks_in_one_run_and_resume_skips_what_is_learned(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_rated_photos(tmp_path / "other", count=24, seed=4)
    model, say = tmp_path / "model", Listener()
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", model=model)
    with pytest.raises(
        ConfigurationError, match=r"has learned a task .* already; choose another --task or --model, or give --res"
    ):
        fit_tasks([rated_photos, other], adapter="linear", model=model)
    report = fit_tasks([rated_photos, other], adapter="linear", model=model, resume=True, progress=say)
    assert [task.task for task in report.tasks] == ["other"]
    assert any("learned already, skipped" in message for message in say.messages)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_process_goes_on_to_the_same_bytes(rated_photos: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": "40", "averaging": "0.5"}
    script = (
        "import sys\n"
        "from iqakit.pipeline.fitting import fit_tasks\n"
        f"fit_tasks([sys.argv[1]], backbone='tiny', task='t', model=sys.argv[2], settings={settings!r})\n"
    )
    command = [sys.executable, "-c", script, str(rated_photos)]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = subprocess.Popen([*command, str(cut)])
    kept = cut / ".fit" / "t" / "training" / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not kept.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert kept.exists(), "the run ended before it could be cut"
    assert not (cut / "model.json").exists()
    say = Listener()
    fit_tasks([rated_photos], backbone="tiny", task="t", model=cut, settings=settings, progress=say)
    assert any("going on after epoch" in message for message in say.messages)
    fit_tasks([rated_photos], backbone="tiny", task="t", model=whole, settings=settings)
    assert hashes(cut) == hashes(whole)


def test_other_settings_do_not_go_on_from_a_cut_run(
    rated_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iqakit.adapters import tsn

    class CutError(Exception):
        pass

    def cut(*_: object) -> None:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(tsn._Training, "_result", cut)
        with pytest.raises(CutError):
            fit_tasks([rated_photos], backbone="tiny", task="t", model=tmp_path / "m", settings=QUICK, epochs=1)
    say = Listener()
    fit_tasks([rated_photos], backbone="tiny", task="t", model=tmp_path / "m", settings=QUICK, epochs=2, progress=say)
    assert any("belongs to other settings or data; starting from the beginning" in message for message in say.messages)
    fit_tasks([rated_photos], backbone="tiny", task="t", model=tmp_path / "n", settings=QUICK, epochs=2)
    assert hashes(tmp_path / "m") == hashes(tmp_path / "n")


def test_unreadable_images_are_left_out_and_named(make_rated_photos: Callable[..., Path], tmp_path: Path) -> None:
    data = make_rated_photos(tmp_path / "data", count=30)
    (data / "images" / "p000.png").write_bytes(b"")
    whole = (data / "images" / "p003.png").read_bytes()
    (data / "images" / "p003.png").write_bytes(whole[: len(whole) // 2])
    say = Listener()
    report = fit_tasks([data], backbone="tiny", adapter="linear", model=tmp_path / "model", progress=say)
    left_out = [message for message in say.messages if message.startswith("left out")]
    assert len(left_out) == 2
    assert "p000.png" in left_out[0] or "p000.png" in left_out[1]
    assert report.tasks[0].train + report.tasks[0].validation == 30 - 2 - 5


def test_all_images_unreadable(make_rated_photos: Callable[..., Path], tmp_path: Path) -> None:
    data = make_rated_photos(tmp_path / "data", count=30)
    for path in (data / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"none of the .* images can be read; the first: .*empty"):
        fit_tasks([data], backbone="tiny", adapter="linear", model=tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()


def test_another_backbone_for_one_model_is_refused(tiny_model: Path, rated_photos: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    before = hashes(model)
    with pytest.raises(MismatchError, match="stands on backbone 'tiny'"):
        fit_tasks([rated_photos], backbone="tiny:groupnorm", adapter="linear", task="more", model=model)
    assert hashes(model) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"adapter": "tsm"}, UnknownNameError, "adapter is named 'tsm'; did you mean tsn"),
        ({"backbone": "resnet5O"}, UnknownNameError, "resnet50"),
        ({"adapter": "tsn", "settings": {"epoch": "3"}}, UnknownNameError, "did you mean epochs"),
        ({"adapter": "tsn", "settings": {"epochs": "many"}}, ConfigurationError, "epochs.*many"),
        ({"epochs": -1}, ConfigurationError, "epochs must be 0 or more, but it is -1"),
        ({"task": "../up"}, ConfigurationError, "'../up' cannot name a task"),
        ({"device": "gpu"}, ConfigurationError, "device must be auto, cpu, cuda or mps, but it is 'gpu'"),
        ({"weights": "random:x"}, ConfigurationError, "random"),
        ({"weights": "absent.safetensors"}, StorageError, "absent.safetensors"),
    ],
)
def test_bad_names_are_said_in_one_line(
    options: dict[str, object], error: type[Exception], message: str, rated_photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        fit_tasks([rated_photos], model=tmp_path / "model", **{"backbone": "tiny", "adapter": "linear", **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model" / "model.json").exists()


def test_one_name_for_two_tables(rated_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--task names one task, but 2 were given"):
        fit_tasks([rated_photos, rated_photos], backbone="tiny", task="t", model=tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"two of the tasks are named '.*'; rename a table or its directory, or fit"
    ):
        fit_tasks([rated_photos, rated_photos], backbone="tiny", model=tmp_path)


def table(directory: Path, rows: list[str], photos: Path) -> Path:
    (directory / "images").symlink_to(photos / "images")
    path = directory / "t.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["image,mos", "images/p000.png,1"], "one row|1 row"),
        (["image,mos", *(f"images/p{i:03d}.png,3" for i in range(20))], "are 3; there is no order to learn"),
        (["image,mos", *(f"images/p{i:03d}.png,{i}" for i in range(19)), "images/p019.png,nan"], "nan"),
        (["picture,rating", "images/p000.png,1"], "column"),
        (["image,mos", *(f"images/p{i % 3:03d}.png,{i}" for i in range(20))], "twice|duplicate"),
        (["image,mos", *(f"absent{i}.png,{i}" for i in range(20))], "absent0.png"),
    ],
)
def test_bad_tables_are_said_in_one_line(rows: list[str], message: str, rated_photos: Path, tmp_path: Path) -> None:
    path = table(tmp_path, rows, rated_photos)
    with pytest.raises(DataError, match=message) as caught:
        fit_tasks([path], backbone="tiny", adapter="linear", model=tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_without_a_split_column_a_test_part_is_kept_back(rated_photos: Path, tmp_path: Path) -> None:
    lines = (rated_photos / "scores.csv").read_text().splitlines()
    path = table(tmp_path, [",".join(line.split(",")[:2]) for line in lines], rated_photos)
    report = fit_tasks([path], backbone="tiny", adapter="linear", model=tmp_path / "model")
    assert report.tasks[0].train + report.tasks[0].validation < 36
    rows = iqakit.evaluate(tmp_path / "model", path)
    assert rows[0]["n"] == 36 - report.tasks[0].train - report.tasks[0].validation


def test_practice_task_needs_no_data(tmp_path: Path) -> None:
    report = fit_tasks(backbone="tiny", adapter="linear", model=tmp_path / "model")
    assert report.tasks[0].task == "practice"
    assert report.tasks[0].srcc_validation > 0.2  # type: ignore[operator]


def test_two_fits_into_one_model_at_once_are_refused(rated_photos: Path, tmp_path: Path) -> None:
    from iqakit.storage.model_directory import model_lock

    with model_lock(tmp_path / "model"), pytest.raises(StorageError, match="another iqakit is adding to"):
        fit_tasks([rated_photos], backbone="tiny", adapter="linear", model=tmp_path / "model")


def test_provenance_tells_what_it_was_learned_from_and_no_path(tiny_model: Path, rated_photos: Path) -> None:
    text = (tiny_model / "adapters" / "00-sharpness.safetensors").read_bytes().decode("latin-1")
    text += (tiny_model / "model.json").read_text() + (tiny_model / "CARD.md").read_text()
    assert str(rated_photos.parent) not in text
    facts = QualityModel.load(tiny_model).adapters[0].provenance
    assert facts["train_images"] > 0
    assert facts["seed"] == 0
    assert facts["data_sha256"] == hashlib.sha256((rated_photos / "scores.csv").read_bytes()).hexdigest()


def test_local_weights_are_found_again_from_anywhere(
    rated_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from iqakit.backbones.tiny_backbone import create_tiny

    tensors = {name: tensor.contiguous() for name, tensor in create_tiny("", "random:7").module.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    fit_tasks([rated_photos], backbone="tiny", weights="w.safetensors", adapter="linear", model=tmp_path / "model")
    monkeypatch.chdir("/")
    assert QualityModel.load(tmp_path / "model").backbone.fingerprint() == create_tiny("", "random:7").fingerprint()


def test_global_random_state_is_left_alone(
    rated_photos: Path, tmp_path: Path, untouched_global_state: Callable[[], None]
) -> None:
    fit_tasks([rated_photos], backbone="tiny", model=tmp_path / "m", settings=QUICK, epochs=1)
    untouched_global_state()
    assert not torch.is_inference_mode_enabled()
