"""Evaluation against scipy, on the scores that users see."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy import stats

import iqakit
from iqakit.errors import DataError, UnknownNameError


def expected(model: Path, data: Path, split: str) -> tuple[list[float], list[float]]:
    loaded = iqakit.load(model)
    rows = [row for row in csv.DictReader((data / "scores.csv").open()) if row["split"] == split]
    return [loaded.score(data / row["image"]).score for row in rows], [float(row["mos"]) for row in rows]


def test_figures_are_scipys(tiny_model: Path, rated_photos: Path) -> None:
    (record,) = iqakit.evaluate(tiny_model, rated_photos)
    predicted, human = expected(tiny_model, rated_photos, "test")
    assert record["task"] == rated_photos.name
    assert (record["combiner"], record["n"], record["failed"]) == ("kmeans", len(human), 0)
    assert record["srcc"] == pytest.approx(stats.spearmanr(predicted, human).statistic, abs=1e-9)
    assert record["krcc"] == pytest.approx(stats.kendalltau(predicted, human).statistic, abs=1e-9)
    assert record["srcc_low"] <= record["srcc"] <= record["srcc_high"]
    assert record["plcc"] >= stats.pearsonr(predicted, human).statistic - 0.02
    assert record["rmse"] > 0


def test_four_images_are_too_few_for_an_error_in_their_units(tiny_model: Path, rated_photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(rated_photos, few)
    rows = (few / "scores.csv").read_text().splitlines()
    for count, known in ((4, False), (5, True)):
        (few / "scores.csv").write_text("\n".join(rows[: count + 1]) + "\n")
        (record,) = iqakit.evaluate(tiny_model, few, split="all", bootstrap=20)
        assert record["n"] == count
        assert (record["rmse"] is not None) == known
        assert record["plcc"] is not None


def test_several_combiners_share_the_passes_and_oracle_knows_the_task(
    tiny_model: Path, rated_photos: Path, tmp_path: Path
) -> None:
    named = tmp_path / "sharpness"
    shutil.copytree(rated_photos, named)
    records = iqakit.evaluate(tiny_model, named, combiners=["kmeans", "average", "last", "oracle"], bootstrap=0)
    assert [record["combiner"] for record in records] == ["kmeans", "average", "last", "oracle"]
    assert len({record["srcc"] for record in records}) == 1  # one task: every combiner gives it all the weight
    assert records[0]["srcc_low"] is None


def test_oracle_needs_a_task_that_was_learned(tiny_model: Path, rated_photos: Path) -> None:
    with pytest.raises(UnknownNameError, match="sharpness"):
        iqakit.evaluate(tiny_model, rated_photos, combiners=["oracle"])


def test_failed_images_are_counted_and_not_dropped_in_silence(
    tiny_model: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_rated_photos(tmp_path / "data")
    first = next(row for row in csv.DictReader((data / "scores.csv").open()) if row["split"] == "test")
    (data / first["image"]).write_bytes(b"broken")
    (record,) = iqakit.evaluate(tiny_model, data)
    assert record["failed"] == 1


def test_dmos_is_turned_round(tiny_model: Path, rated_photos: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((rated_photos / "scores.csv").open()))
    (tmp_path / "images").symlink_to(rated_photos / "images")
    with (tmp_path / "scores.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "dmos", "split"])
        writer.writerows([row["image"], 10 - float(row["mos"]), row["split"]] for row in rows)
    (straight,), (turned,) = iqakit.evaluate(tiny_model, rated_photos), iqakit.evaluate(tiny_model, tmp_path)
    assert turned["srcc"] == pytest.approx(straight["srcc"], abs=1e-12)


def test_nothing_to_evaluate_on(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="nothing to evaluate on"):
        iqakit.evaluate(tiny_model, [])


def test_test_images_are_those_that_fit_kept_back_whatever_its_seed(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    from iqakit.datasets.score_table import open_score_table
    from iqakit.pipeline.fitting import fit_tasks

    data = make_rated_photos(tmp_path / "own", count=40)
    lines = [",".join(line.split(",")[:2]) for line in (data / "scores.csv").read_text().splitlines()]
    (data / "scores.csv").write_text("\n".join(lines) + "\n")
    fit_tasks([data], backbone="tiny", adapter="linear", model=tmp_path / "model", seed=3)
    kept_back = [sample.name for sample in open_score_table(data, "test", 3).samples]
    assert kept_back != [sample.name for sample in open_score_table(data, "test", 0).samples]
    for name in kept_back:
        (data / name).write_bytes(b"")
    with pytest.raises(DataError, match="0 of 8 images can be read"):
        iqakit.evaluate(tmp_path / "model", data)


def test_images_that_are_not_there_count_as_failed(
    tiny_model: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_rated_photos(tmp_path / "data")
    first = next(row for row in csv.DictReader((data / "scores.csv").open()) if row["split"] == "test")
    (data / first["image"]).unlink()
    (record,) = iqakit.evaluate(tiny_model, data)
    assert record["failed"] == 1
