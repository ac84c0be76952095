from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import iqakit
from iqakit.contracts.backbone import Backbone
from iqakit.errors import ConfigurationError, ImageError, UnknownNameError
from iqakit.pipeline.explaining import CELLS, explain, grid_size, tile_starts
from iqakit.pipeline.model import QualityModel

PHOTOS = Path(__file__).resolve().parents[3] / "examples" / "photos"


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> QualityModel:
    return iqakit.load(tiny_model, device="cpu")


def half_blurred(side: int = 160, seed: int = 3, left: bool = True) -> np.ndarray:
    """Squares like those that the tiny model was taught on, blurred on one half."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (side // 6, side // 6, 3), dtype=np.uint8)
    sharp = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
    mixed = sharp.copy()
    box = (0, 0, side // 2, side) if left else (side // 2, 0, side, side)
    mixed.paste(sharp.filter(ImageFilter.GaussianBlur(4)).crop(box), box[:2])
    return np.asarray(mixed)


def halves(values: np.ndarray) -> tuple[float, float]:
    middle = values.shape[1] // 2
    return float(values[:, :middle].mean()), float(values[:, middle:].mean())


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("method", ["cam", "tiles"])
def test_a_blurred_half_is_the_worse_half(tiny: QualityModel, method, left: bool) -> None:
    found = explain(tiny, half_blurred(left=left), method=method)
    first, second = halves(found.values)
    assert (first < second) == left


def test_the_mean_of_cam_is_the_score(tiny: QualityModel) -> None:
    picture = half_blurred()
    found = explain(tiny, picture, method="cam")
    row = tiny.score(picture)
    assert found.score == pytest.approx(row.score, abs=1e-4)
    assert found.values.mean() == pytest.approx(row.score, abs=1e-3)
    assert found.values.shape == (CELLS, CELLS)
    assert (found.unit, found.tile, found.path) == ("points", None, row.path)


def test_one_tile_over_all_is_the_score_everywhere(tiny: QualityModel) -> None:
    picture = half_blurred()
    found = explain(tiny, picture, tile=500)
    assert (found.method, found.tile) == ("tiles", 160)
    assert found.values == pytest.approx(found.score, abs=1e-4)


def test_a_tile_scores_as_a_photo_of_its_own(tiny: QualityModel) -> None:
    """Without overlap in the corners, the corner's value is the score of the corner tile."""
    picture = half_blurred()
    found = explain(tiny, picture, tile=80)
    for rows, columns, corner in ((slice(0, 80), slice(0, 80), (0, 0)), (slice(80, None), slice(80, None), (-1, -1))):
        expected = tiny.score(np.ascontiguousarray(picture[rows, columns])).score
        assert found.values[corner] == pytest.approx(expected, abs=1e-3)


def test_explaining_leaves_the_model_as_it_was(tiny: QualityModel, untouched_global_state) -> None:
    picture = half_blurred()
    before, marks = tiny.score(picture), tiny.backbone.fingerprint()
    explain(tiny, picture, method="cam")
    explain(tiny, picture, method="tiles", tile=80)
    assert tiny.score(picture) == before
    assert tiny.backbone.fingerprint() == marks
    assert not any(parameter.requires_grad for parameter in tiny.backbone.module.parameters())
    untouched_global_state()


def test_it_repeats(tiny: QualityModel) -> None:
    picture = half_blurred()
    assert np.array_equal(explain(tiny, picture).values, explain(tiny, picture).values)


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps = 0

    def start(self, what: str, total: int) -> None:
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps

    def message(self, text: str) -> None:
        self.said.append(text)


class NoMaps:
    """A backbone that offers what every backbone must, and no maps."""

    def __init__(self, real: Backbone) -> None:
        self.id, self.weights, self.input = real.id, real.weights, real.input
        self.embedding_dim, self.stage_dims, self.module = real.embedding_dim, real.stage_dims, real.module
        self.forward, self.norm_tensor_names, self.fingerprint = real.forward, real.norm_tensor_names, real.fingerprint


def test_a_backbone_without_maps_is_explained_from_tiles(tiny: QualityModel, tiny_model: Path) -> None:
    other = iqakit.load(tiny_model, device="cpu")
    other.parts.backbone = NoMaps(tiny.backbone)
    listener = Listener()
    found = explain(other, half_blurred(), progress=listener)
    assert found.method == "tiles"
    assert listener.said == ["the backbone tiny offers no maps of its stages; the map is made from tiles"]
    assert listener.steps == listener.total == len(tile_starts(160, 128)) ** 2


def test_features_without_places_are_explained_from_tiles(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head on an embedding that is made of no map, such as a class token."""
    model = iqakit.load(tiny_model, device="cpu")
    adapter = model.adapters[0]
    weight = torch.ones(1, model.backbone.embedding_dim)
    model.adapters = (dataclasses.replace(adapter, features="embedding", head_weight=weight, calibration=None),)
    real = model.backbone.maps
    monkeypatch.setattr(model.backbone, "maps", lambda *given: dataclasses.replace(real(*given), last=None))
    listener = Listener()
    found = explain(model, half_blurred(), combiner="average", progress=listener)
    assert found.method == "tiles"
    assert found.unit == "raw"
    assert "sees nothing of tiny that has a place" in listener.said[0]


def test_an_embedding_alone_has_a_map_too(tiny_model: Path) -> None:
    model = iqakit.load(tiny_model, device="cpu")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, model.backbone.embedding_dim, generator=generator)
    head = dataclasses.replace(
        model.adapters[0],
        features="embedding",
        head_kind="cosine",
        head_weight=weight,
        head_bias=None,
        calibration=None,
    )
    model.adapters = (head,)
    found = explain(model, half_blurred(), combiner="average")
    assert (found.method, found.unit) == ("cam", "raw")
    assert found.values.std() > 1e-4
    assert found.values.mean() == pytest.approx(model.score(half_blurred(), combiner="average").raw, abs=1e-5)


def test_what_makes_no_sense_is_refused(tiny: QualityModel, tmp_path: Path) -> None:
    picture = half_blurred()
    with pytest.raises(ConfigurationError, match="a tile is at least 16 pixels wide; found 3"):
        explain(tiny, picture, tile=3)
    with pytest.raises(ConfigurationError, match="a tile has no meaning for the method cam"):
        explain(tiny, picture, tile=64, method="cam")
    with pytest.raises(UnknownNameError, match="no method of explain is named 'tile'; did you mean tiles"):
        explain(tiny, picture, method="tile")
    with pytest.raises(UnknownNameError, match=r"no task of model .* is named 'sharpnes'"):
        explain(tiny, picture, task="sharpnes")
    with pytest.raises(ImageError, match=r"does not exist|no such file"):
        explain(tiny, tmp_path / "none.png")


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 600), (43, 64)), ((3000, 4000), (48, 64)), ((20, 30), (20, 30)), ((1, 900), (1, 64))]
)
def test_cells_are_about_square(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert grid_size(*size) == expected


@pytest.mark.parametrize(("length", "side"), [(640, 128), (129, 128), (128, 128), (50, 128), (1000, 999), (427, 106)])
def test_tiles_cover_a_side_and_overlap_by_half(length: int, side: int) -> None:
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - side)
    assert all(0 < later - earlier <= side / 2 + 1 for earlier, later in pairwise(starts))


def test_a_small_or_thin_picture_is_explained(tiny: QualityModel) -> None:
    for shape in ((5, 7, 3), (12, 400, 3)):
        picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        for method in ("cam", "tiles"):
            found = explain(tiny, picture, method=method)
            assert found.values.shape == grid_size(*shape[:2])
            assert np.isfinite(found.values).all()


def test_the_blurred_half_of_the_bundled_photos_is_found_by_the_default_model() -> None:
    model = iqakit.load("default", device="cpu")
    for path in sorted(PHOTOS.glob("*-as-it-is.jpg")):
        photo = Image.open(path).convert("RGB")
        middle = photo.width // 2
        for box in ((0, 0, middle, photo.height), (middle, 0, photo.width, photo.height)):
            mixed = photo.copy()
            mixed.paste(photo.filter(ImageFilter.GaussianBlur(3)).crop(box), box[:2])
            first, second = halves(iqakit.explain(model, mixed).values)
            assert (first < second) == (box[0] == 0), (path.name, box)
