from __future__ import annotations

import dataclasses
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iqakit.errors import ConfigurationError, StorageError
from iqakit.pipeline.explaining import QualityMap
from iqakit.reporting import quality_map
from iqakit.reporting.quality_map import map_png, place_in_words, write_map


def a_map(values: np.ndarray, method="tiles", unit="points", score: float = 60.0) -> QualityMap:
    return QualityMap(
        path="a.jpg",
        model="m@1",
        method=method,
        unit=unit,
        score=score,
        values=values.astype(np.float32),
        width=120,
        height=90,
        tile=64 if method == "tiles" else None,
        warnings=(),
        photo=np.full((90, 120, 3), 90, dtype=np.uint8),
    )


RISING = np.linspace(41, 78, 12).reshape(3, 4)


def test_each_ending_gives_its_form(tmp_path: Path) -> None:
    found = a_map(RISING)
    for name in ("m.png", "m.npy", "m.json"):
        write_map(found, tmp_path / name)
    assert Image.open(tmp_path / "m.png").size[0] == 640
    read = np.load(tmp_path / "m.npy", allow_pickle=False)
    assert read.dtype == np.float32
    assert np.array_equal(read, found.values)
    record = json.loads((tmp_path / "m.json").read_text())
    assert np.allclose(record["values"], found.values)
    assert (record["score"], record["method"], record["tile"], record["unit"]) == (60.0, "tiles", 64, "points")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.npy", "m.png"]


def test_other_endings_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a map is written as .png, .npy, .json; the ending of .*m.tiff is none"):
        write_map(a_map(RISING), tmp_path / "m.tiff")
    with pytest.raises(StorageError, match="create the directory first"):
        write_map(a_map(RISING), tmp_path / "no" / "m.png")


@pytest.fixture
def legends(monkeypatch: pytest.MonkeyPatch) -> list:
    kept = []
    real = quality_map.draw_map

    def spy(photo, values, legend, **options):
        kept.append((values, legend))
        return real(photo, values, legend, **options)

    monkeypatch.setattr(quality_map, "draw_map", spy)
    return kept


def test_the_legend_of_tiles_spans_the_map_in_round_points(legends: list) -> None:
    map_png(a_map(RISING))
    ((values, legend),) = legends
    assert (legend.low, legend.high) == (40.0, 80.0)
    assert [label for _, label in legend.ticks] == ["40", "50", "60", "70", "80"]
    assert legend.mark == 60.0
    assert legend.corner == "score 60.0"
    assert "tiles of 64 px" in legend.title
    assert np.array_equal(values, RISING.astype(np.float32))


@pytest.mark.parametrize(("value", "ends"), [(50.0, (40, 60)), (99.0, (80, 100)), (1.0, (0, 20))])
def test_a_map_without_contrast_is_not_blown_up(legends: list, value: float, ends: tuple[int, int]) -> None:
    map_png(a_map(np.full((3, 4), value)))
    ((_, legend),) = legends
    assert legend.high - legend.low >= 20
    assert legend.low <= value <= legend.high
    assert legend.low >= 0
    assert legend.high <= 100
    assert (legend.low, legend.high) == pytest.approx(ends, abs=5)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 100), st.floats(0, 100))
def test_the_ticks_of_points_are_round_and_hold_the_map(first: float, second: float) -> None:
    for method in ("tiles", "cam"):
        found = a_map(np.array([[first, second]]), method=method)
        shown = found.values - (found.score if method == "cam" else 0)
        low, high = quality_map._span(found, float(shown.min()), float(shown.max()))
        assert low <= shown.min()
        assert shown.max() <= high
        assert high - low >= 20
        assert all(tick % 5 == 0 for tick in np.linspace(low, high, 5))
        assert method == "cam" or (low >= 0 and high <= 100)


def test_the_legend_of_cam_shows_pull(legends: list) -> None:
    map_png(a_map(60 + np.linspace(-12, 18, 12).reshape(3, 4), method="cam"))
    ((values, legend),) = legends
    assert (legend.low, legend.high) == (-20.0, 20.0)
    assert [label for _, label in legend.ticks] == ["-20", "-10", "0", "+10", "+20"]
    assert values.min() == pytest.approx(-12)
    assert legend.mark is None


def test_raw_units_and_an_own_scale(legends: list) -> None:
    map_png(a_map(np.array([[0.1, 0.2]]), unit="raw", score=0.15))
    map_png(a_map(RISING), scale=(0.0, 100.0))
    (_, raw), (_, own) = legends
    assert raw.corner == "raw 0.150"
    assert raw.low <= 0.1
    assert raw.high >= 0.2
    assert "raw output" in raw.title
    assert (own.low, own.high) == (0.0, 100.0)
    with pytest.raises(ConfigurationError, match="the lower one first; found 9 and 3"):
        map_png(a_map(RISING), scale=(9.0, 3.0))


def test_a_12_megapixel_photo_gives_a_bounded_picture() -> None:
    found = dataclasses.replace(a_map(RISING), photo=np.zeros((3000, 4000, 3), dtype=np.uint8))
    assert Image.open(BytesIO(map_png(found))).size[0] == 1600
    assert Image.open(BytesIO(map_png(found, side=800))).size[0] == 800


@pytest.mark.parametrize(
    ("index", "words"), [((0, 0), "upper left"), ((1, 4), "centre"), ((2, 8), "lower right"), ((1, 0), "middle left")]
)
def test_places_in_words(index: tuple[int, int], words: str) -> None:
    values = np.full((3, 9), 50.0)
    values[index] = 20
    assert place_in_words(a_map(values), worst=True) == (words, 20.0)
    assert place_in_words(a_map(100 - values), worst=False) == (words, 80.0)
