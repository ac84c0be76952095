"""Scores under test-time adaptation: rows in order, batches apart, and the source where nothing is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Generator

from iqakit.errors import ConfigurationError, ImageError, PluginError, UnknownNameError
from iqakit.imaging.tensors import prepare
from iqakit.pipeline.adaptation_request import divide_settings, make_adaptation_request
from iqakit.pipeline.adapting import BatchAdapter
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.rows import ScoreRow
from iqakit.pipeline.scored import make_request
from iqakit.pipeline.test_time_batches import batches_of, source_figures, windows_of
from iqakit.storage.fingerprints import fingerprint_tensors

MILD = {"alpha": 0.05}


@pytest.fixture(scope="module")
def model(adaptable: Path) -> QualityModel:
    return QualityModel.load(adaptable)


@pytest.fixture(scope="module")
def photos(rated_photos: Path) -> list[Path]:
    return sorted((rated_photos / "images").iterdir())


def mild(model: QualityModel, images: list[Path], **options: object) -> list[ScoreRow]:
    return list(model.score_many(images, tta="batch-statistics", tta_settings=MILD, **options))  # type: ignore[arg-type]


def tricked(model: QualityModel, images: list[Path], do: str, **options: object) -> list[ScoreRow]:
    return list(model.score_many(images, tta="trick", tta_settings={"do": do}, **options))  # type: ignore[arg-type]


def test_rows_come_in_input_order_with_the_source_beside_them(model: QualityModel, photos: list[Path]) -> None:
    plain = list(model.score_many(photos))
    before = fingerprint_tensors(dict(model.backbone.module.state_dict()))
    rows = mild(model, photos, workers=3)
    assert [row.path for row in rows] == [str(photo) for photo in photos]
    assert [row.source_score for row in rows] == [row.score for row in plain]
    assert sum(bool(row.adapted) for row in rows) >= len(rows) // 2
    for row, was in zip(rows, plain, strict=True):
        assert row.adapted == (row.score != was.score)
        assert row.weights == was.weights
        assert row.novelty == was.novelty
        assert row.adaptation is not None
        assert list(row.to_json())[:6] == ["path", "status", "score", "source_score", "adapted", "adaptation"]
        changed = {task for task, head in row.task_scores.items() if head != was.task_scores[task]}
        assert changed == ({row.adaptation.removeprefix("adapted task ")} if row.adapted else set())
    assert fingerprint_tensors(dict(model.backbone.module.state_dict())) == before


def test_an_image_that_cannot_be_read_leaves_its_batch(model: QualityModel, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    rows = mild(model, [*photos[:3], broken, *photos[3:7]], tta_order="given")
    assert [row.status for row in rows] == ["ok"] * 3 + ["error"] + ["ok"] * 4
    assert (rows[3].adapted, rows[3].source_score, rows[3].score) == (False, None, None)
    assert "broken.png" in str(rows[3].error)
    without = mild(model, photos[:7], tta_order="given")
    assert [row for row in rows if row.status == "ok"] == without
    with pytest.raises(ImageError, match="broken"):
        mild(model, [*photos[:3], broken], on_error="fail")


@pytest.mark.parametrize("method", ["group-rank", "batch-statistics"])
def test_a_batch_depends_on_no_other(model: QualityModel, photos: list[Path], method: str) -> None:
    def scores(images: list[Path]) -> dict[str, float | None]:
        rows = model.score_many(images, tta=method, tta_batch=4, tta_order="given", tta_settings=settings)
        return {row.path: row.score for row in rows}

    settings = MILD if method == "batch-statistics" else {"iterations": 1, "crop": 32}
    first, second = photos[:4], photos[4:8]
    assert scores([*first, *second]) == scores([*second, *first]) == scores(first) | scores(second)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("group-rank", {"iterations": 0}), ("batch-statistics", {"alpha": 0}), ("trick", {"do": "nothing"})],
)
def test_nothing_to_do_gives_the_source_to_the_bit(
    model: QualityModel, photos: list[Path], method: str, settings: dict[str, object], trick: None
) -> None:
    plain = list(model.score_many(photos[:6]))
    rows = list(model.score_many(photos[:6], tta=method, tta_settings=settings))
    assert [replace(row, source_score=None, adapted=None, adaptation=None) for row in rows] == plain
    assert not any(row.adapted for row in rows)


def test_online_goes_on_and_starts_again(model: QualityModel, photos: list[Path]) -> None:
    images = photos[:16]

    def scores(**options: object) -> list[float | None]:
        return [row.score for row in mild(model, images, tta_batch=4, tta_order="given", **options)]

    episodic, online = scores(), scores(tta_mode="online")
    assert online[:4] == episodic[:4]
    assert online[4:8] != episodic[4:8]
    assert scores(tta_mode="online", tta_reset=1) == episodic
    again = scores(tta_mode="online", tta_reset=2)
    assert again[4:8] == online[4:8]
    assert again[8:12] == episodic[8:12]
    assert again[12:] != episodic[12:]


def test_what_is_carried_on_is_pulled_back_to_the_source(model: QualityModel, photos: list[Path], trick: None) -> None:
    """By hand: a nudge of .01 a batch, of which .99 is left when the next begins."""
    request = make_adaptation_request("trick", {"by": "0.01"}, mode="online", reset=0)
    assert request is not None
    adapter = BatchAdapter(model.parts, request)
    pixels = [torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1) for photo in photos[:8]]
    images = [prepare(one, model.preprocessing)[0] for one in pixels]
    figures = source_figures(model.parts, images, make_request("oracle", "second"))
    own = dict(model.backbone.module.named_parameters())["top.1.bias"]
    expected = 0.0
    for _ in range(3):
        assert adapter(images, figures, "second").adapted  # type: ignore[arg-type]
        expected = 0.99 * expected + 0.01
        moved = adapter.carried(1)["top.1.bias"] - own
        assert torch.allclose(moved, torch.full_like(moved, expected), atol=1e-6)


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("skip", "too few images"),
        ("diverge", "adaptation diverged: the loss is not finite"),
        ("nan", "adaptation gave tensors that are not finite"),
        ("nothing", "nothing was changed"),
    ],
)
def test_a_method_that_fails_leaves_the_source(
    model: QualityModel, photos: list[Path], trick: None, do: str, why: str
) -> None:
    rows = tricked(model, photos[:6], do)
    assert {row.adaptation for row in rows} == {why}
    assert (
        [row.score for row in rows]
        == [row.source_score for row in rows]
        == [row.score for row in model.score_many(photos[:6])]
    )
    assert not any(row.adapted for row in rows)


def test_safety_is_in_the_rows(model: QualityModel, photos: list[Path], trick: None) -> None:
    far = list(model.score_many(photos[:8], tta="batch-statistics", tta_settings={"alpha": 1}, task="first"))
    assert all(
        str(row.adaptation).startswith(("the mean moved by", "adapted and source scores correlate by")) for row in far
    )
    few = list(model.score_many(photos[:2], tta="group-contrastive"))
    assert {row.adaptation for row in few} == {"no group loss: fewer than 4 images"}
    alike = list(model.score_many([photos[0]] * 5, tta="trick"))
    assert all(str(row.adaptation).startswith("uniform batch") for row in alike)
    assert not any(row.adapted for row in [*few, *alike])
    auto = list(model.score_many(photos[:8], tta="auto", tta_settings={"iterations": 1, "crop": 32}))
    assert all(row.adapted or row.score == row.source_score for row in auto)


def test_a_plugins_mistake_names_the_plugin(model: QualityModel, photos: list[Path], trick: None) -> None:
    with pytest.raises(PluginError, match="test-time method trick of iqakit-other failed: KeyError"):
        tricked(model, photos[:4], "raise")
    with pytest.raises(PluginError, match="gave no adapter of it"):
        tricked(model, photos[:4], "foreign")


def test_the_task_that_is_adapted(model: QualityModel, photos: list[Path], trick: None) -> None:
    plain = list(model.score_many(photos[:8]))
    totals = {task: sum(row.weights[task] for row in plain) for task in model.tasks}
    (note,) = {row.adaptation for row in tricked(model, photos[:8], "nudge")}
    assert note == f"adapted task {max(totals, key=lambda task: totals[task])}"
    (tie,) = {row.adaptation for row in tricked(model, photos[:8], "nudge", combiner="average")}
    assert tie == "adapted task first"
    for task in model.tasks:
        rows = tricked(model, photos[:8], "nudge", task=task)
        assert {row.adaptation for row in rows} == {f"adapted task {task}"}
        assert all(row.score != row.source_score for row in rows)


def test_works_in_inference_mode(model: QualityModel, photos: list[Path], trick: None) -> None:
    outside = tricked(model, photos[:5], "nudge")
    with torch.inference_mode():
        assert tricked(model, photos[:5], "nudge") == outside


def test_images_are_taken_a_window_at_a_time(model: QualityModel, photos: list[Path], trick: None) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield photos[taken % 8]

    rows = model.score_many(endless(), tta="trick", tta_batch=1, tta_settings={"do": "skip"}, workers=0)
    next(rows)
    assert taken <= 2 * 16


def test_wrong_requests_are_told(model: QualityModel, photos: list[Path]) -> None:
    def asked(tta: str = "group-rank", **options: object) -> None:
        model.score_many(photos, tta=tta, **options)  # type: ignore[arg-type]

    with pytest.raises(
        UnknownNameError, match=r"no test-time method is named 'grouprank'; did you mean group-rank.*\? there are: auto, "
    ):
        asked("grouprank")
    with pytest.raises(ConfigurationError, match="tsn learns from scores and cannot adapt to unscored images"):
        asked("tsn")
    with pytest.raises(UnknownNameError, match="no setting of group-rank is named 'iteration'"):
        asked(tta_settings={"iteration": 1})
    with pytest.raises(ConfigurationError, match="the mode of test-time adaptation is episodic or online, not 'on'"):
        asked(tta_mode="on")
    with pytest.raises(ConfigurationError, match="the order of test-time adaptation is shuffled or given, not 'file'"):
        asked(tta_order="file")
    with pytest.raises(ConfigurationError, match="the batch of test-time adaptation must be 1 or more, but it is 0"):
        asked(tta_batch=0)
    with pytest.raises(ConfigurationError, match=r"settings .* were given \(iterations\), but no method"):
        asked("none", tta_settings={"iterations": 1})


def test_settings_find_their_part() -> None:
    combiners = ["kmeans", "oracle"]
    given = {"temperature": "8", "kmeans.temperature": "4"}
    assert divide_settings(given, "kmeans", combiners, adapting=True) == ({"temperature": "4"}, {"temperature": "8"})
    assert divide_settings(given, "kmeans", combiners, adapting=False) == ({"temperature": "4"}, {})
    assert divide_settings({"a": "1"}, "kmeans", combiners, adapting=False) == ({"a": "1"}, {})
    with pytest.raises(ConfigurationError, match="is for combiner kmeans, but oracle is used"):
        divide_settings(given, "oracle", combiners, adapting=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70), st.integers(1, 12), st.sampled_from(["shuffled", "given"]), st.integers(0, 3))
def test_batches_are_a_partition(count: int, batch: int, order: str, seed: int) -> None:
    request = make_adaptation_request("batch-statistics", batch=batch, order=order)
    assert request is not None
    cut = batches_of(count, request, Generator().manual_seed(seed))
    assert sorted(place for members in cut for place in members) == list(range(count))
    sizes = [len(members) for members in cut]
    assert all(1 <= size <= batch for size in sizes)
    assert len(sizes) == -(-count // batch)
    if order == "given":
        assert [place for members in cut for place in members] == list(range(count))
    elif sizes:
        assert max(sizes) - min(sizes) <= 1


def test_windows_hold_a_bounded_number_of_images_and_bytes() -> None:
    assert [len(window.sources) for window in windows_of(["a"] * 70, 32)] == [32, 32, 6]
    big = np.zeros((4000, 5000, 3), np.uint8)  # 60 MB, nine of which fill a window
    assert [len(window.sources) for window in windows_of([big] * 10, 32)] == [9, 1]
