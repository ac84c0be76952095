"""Scores: the same by every door, in any company, with every warning and every failure in its row."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import iqakit
from iqakit.errors import ConfigurationError, ImageError, MismatchError, StorageError, UnknownNameError
from iqakit.functional.calibration import expected_error
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel, bundled_models
from iqakit.pipeline.model_finding import find_model


@pytest.fixture(scope="module")
def two_tasks(rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two") / "model"
    other = make_rated_photos(tmp_path_factory.mktemp("other"), count=30, seed=9)
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", task="first", model=directory)
    fit_tasks([other], adapter="tsn", task="second", model=directory, settings={"crop": "64"}, epochs=1)
    return directory


@pytest.fixture(scope="module")
def photos(rated_photos: Path) -> list[Path]:
    return sorted((rated_photos / "images").iterdir())[:7]


def test_every_door_gives_the_same_score(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    picture = Image.open(photos[0])
    array = np.array(picture)
    doors = [photos[0], str(photos[0]), photos[0].read_bytes(), picture, array, torch.from_numpy(array).permute(2, 0, 1)]
    scores = {model.score(door).score for door in doors}
    assert len(scores) == 1
    assert None not in scores


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_score_depends_on_no_neighbour_and_no_worker(two_tasks: Path, photos: list[Path], workers: int) -> None:
    model = QualityModel.load(two_tasks)
    alone = [model.score(photo).to_json() for photo in photos]
    assert [row.to_json() for row in model.score_many(photos, workers=workers, batch_size=4)] == alone
    assert [row.to_json() for row in model.score_many(photos[::-1], workers=workers)] == alone[::-1]


def test_a_failed_image_is_a_row_and_the_rest_go_on(two_tasks: Path, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    model = QualityModel.load(two_tasks)
    rows = list(model.score_many([photos[0], broken, tmp_path / "absent.png", photos[1]]))
    assert [row.status for row in rows] == ["ok", "error", "error", "ok"]
    assert str(broken) in (rows[1].error or "")
    assert rows[1].to_json()["score"] is None
    assert [row.path for row in rows] == [str(photos[0]), str(broken), str(tmp_path / "absent.png"), str(photos[1])]


def test_on_error_fail_gives_what_came_before_and_stops(two_tasks: Path, photos: list[Path], tmp_path: Path) -> None:
    rows = QualityModel.load(two_tasks).score_many([photos[0], tmp_path / "absent.png", photos[1]], on_error="fail")
    assert next(rows).status == "ok"
    with pytest.raises(ImageError, match=r"absent\.png"):
        next(rows)


def test_weights_sum_to_one_and_raw_is_their_sum(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    for combiner in ("kmeans", "average", "last"):
        for row in model.score_many(photos, combiner=combiner):
            assert sum(row.weights.values()) == pytest.approx(1, abs=1e-6)
            mixed = sum(row.weights[task] * (row.task_scores[task] or 0.0) for task in model.tasks)
            assert row.raw == pytest.approx(mixed, abs=1e-6)
            assert 0 <= row.score <= 100  # type: ignore[operator]
            assert row.std > 0  # type: ignore[operator]
            if combiner == "last":  # one head is known to be enough, so nothing else is run
                assert (row.task_scores["first"], row.novelty) == (None, None)
            else:
                assert None not in row.task_scores.values()
                assert 0 <= row.novelty <= 1  # type: ignore[operator]


def test_score_is_the_weighted_calibration(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    row = model.score(photos[2])
    expected, variance, points = 0.0, 0.0, {}
    for adapter in model.adapters:
        c = adapter.calibration
        assert c is not None
        raw = row.task_scores[adapter.task]
        z = (raw - c.centre) / c.width
        logistic = c.low + (c.high - c.low) / (1 + math.exp(-z))
        points[adapter.task] = (1 - c.tilt) * logistic + c.tilt * 50 * (1 + z / (1 + abs(z)))
        expected += row.weights[adapter.task] * points[adapter.task]
    for adapter in model.adapters:
        assert adapter.calibration is not None
        belief = row.weights[adapter.task] ** 3 / sum(weight**3 for weight in row.weights.values())
        error = expected_error(torch.tensor(points[adapter.task]), adapter.calibration).item()
        variance += belief * (error**2 + (points[adapter.task] - expected) ** 2)
    assert row.score == pytest.approx(expected, abs=1e-3)
    assert row.std == pytest.approx(math.sqrt(variance), abs=1e-3)


def test_task_means_oracle(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    row = model.score(photos[0], task="second")
    assert row.weights == {"first": 0.0, "second": 1.0}
    assert row.raw == row.task_scores["second"]


def test_wrong_names_are_said_before_any_image_is_read(two_tasks: Path) -> None:
    model = QualityModel.load(two_tasks)
    with pytest.raises(UnknownNameError, match="no task of model model is named 'secnd'; did you mean second"):
        model.score_many(["absent.png"], task="secnd")
    with pytest.raises(UnknownNameError, match="no combiner is named 'kmean'; did you mean kmeans"):
        model.score_many(["absent.png"], combiner="kmean")
    with pytest.raises(UnknownNameError, match="temprature"):
        model.score_many(["absent.png"], settings={"temprature": "1"})
    with pytest.raises(ConfigurationError, match="on_error must be skip or fail"):
        model.score_many(["absent.png"], on_error="ignore")


def test_one_path_is_not_taken_for_many(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    for one, shown in ((str(photos[0]), repr(str(photos[0]))), (photos[0], repr(str(photos[0]))), (b"abc", "3 bytes")):
        message = f"score_many takes several images, and was given one: {shown}; give [image], or use score"
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            model.score_many(one)


def test_a_model_says_what_it_is(two_tasks: Path) -> None:
    model = QualityModel.load(two_tasks)
    assert model.version.startswith(f"{model.name}@")
    assert repr(model) == f"<QualityModel {model.version}: tasks {', '.join(model.tasks)}; runtime torch>"
    assert len(model.tasks) == 2


def test_oracle_without_a_task_says_what_to_give(two_tasks: Path, photos: list[Path]) -> None:
    with pytest.raises(ConfigurationError, match="--task"):
        QualityModel.load(two_tasks).score(photos[0], combiner="oracle")


def test_sharper_scores_higher(tiny_model: Path, rated_photos: Path) -> None:
    model = QualityModel.load(tiny_model)
    rows = list(model.score_many(sorted((rated_photos / "images").iterdir())))
    sharp = [row.score for index, row in enumerate(rows) if index % 8 < 2]
    soft = [row.score for index, row in enumerate(rows) if index % 8 > 5]
    assert min(sharp) > max(soft)  # type: ignore[type-var]


def test_an_image_that_resembles_nothing_is_novel(tiny_model: Path, rated_photos: Path) -> None:
    model = QualityModel.load(tiny_model)
    known = [row.novelty for row in model.score_many(sorted((rated_photos / "images").iterdir()))]
    noise = np.random.default_rng(0).integers(0, 256, (72, 72, 3), dtype=np.uint8)
    novel = model.score(Image.fromarray(noise)).novelty
    assert novel is not None
    assert novel > np.median(known)


def test_rows_come_while_images_are_still_being_named(tiny_model: Path, photos: list[Path]) -> None:
    """The input may be endless: rows stream."""

    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield photos[0]

    rows = QualityModel.load(tiny_model).score_many(endless())
    assert [next(rows).status for _ in range(12)] == ["ok"] * 12
    rows.close()  # type: ignore[attr-defined]


def test_version_names_the_model_and_changes_with_its_content(tiny_model: Path, two_tasks: Path) -> None:
    one, other = QualityModel.load(tiny_model), QualityModel.load(two_tasks)
    name, _, digits = one.version.partition("@")
    assert name == "tiny"
    assert len(digits) == 8
    assert digits != other.version.partition("@")[2]


def test_the_backbone_is_bit_identical_after_scoring(two_tasks: Path, photos: list[Path]) -> None:
    model = QualityModel.load(two_tasks)
    before = model.backbone.fingerprint()
    list(model.score_many(photos))
    assert model.backbone.fingerprint() == before


def test_other_weights_are_refused(tiny_model: Path) -> None:
    with pytest.raises(
        MismatchError, match=r"was made on tiny with weights [0-9a-f]{8}, but the weights found are [0-9a-f]{8}"
    ):
        QualityModel.load(tiny_model, weights="random:5")


def test_which_model_is_meant(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IQAKIT_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "default" in bundled_models()
    assert find_model(None) == ("default", bundled_models()["default"])
    monkeypatch.setenv("IQAKIT_MODEL", str(tiny_model))
    assert find_model(None) == ("tiny", tiny_model)
    assert find_model("default")[0] == "default"
    monkeypatch.delenv("IQAKIT_MODEL")
    (tmp_path / "iqakit_model").mkdir()
    (tmp_path / "iqakit_model" / "model.json").write_text("{}")
    assert find_model(None)[0] == "iqakit_model"
    with pytest.raises(StorageError, match="there is no model directory no/such; make one with iqakit fit --model no/such"):
        find_model("no/such")
    with monkeypatch.context() as patch:
        patch.setenv("IQAKIT_MODEL", "not/there")
        with pytest.raises(StorageError, match="there is no model directory not/there; IQAKIT_MODEL names it"):
            find_model(None)
        patch.setenv("IQAKIT_MODEL", "nowhere")
        with pytest.raises(
            UnknownNameError, match=r"no model is named 'nowhere'; there are: .* \(IQAKIT_MODEL names it; a model"
        ):
            find_model(None)
        with pytest.raises(UnknownNameError, match=r"no model is named 'elsewhere'; .* \(a model can also be a directory"):
            find_model("elsewhere")
    with pytest.raises(UnknownNameError, match="no model is named 'defualt'; did you mean default"):
        find_model("defualt")


def test_a_score_without_calibration_is_none(tiny_model: Path, photos: list[Path]) -> None:
    model = QualityModel.load(tiny_model)
    model.adapters = tuple(replace(adapter, calibration=None) for adapter in model.adapters)
    row = model.score(photos[0])
    assert (row.score, row.std) == (None, None)
    assert row.raw is not None


def test_python_surface(tiny_model: Path, photos: list[Path]) -> None:
    model = iqakit.load(tiny_model)
    stream = io.BytesIO()
    Image.open(photos[0]).save(stream, "PNG")
    assert model.score(stream.getvalue()).score == model.score(photos[0]).score
