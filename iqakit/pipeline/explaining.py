"""``explain``: which parts of a picture look good or bad to a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqakit.contracts import Progress
from iqakit.contracts.backbone import MapBackbone
from iqakit.errors import ConfigurationError, ImageError, UnknownNameError
from iqakit.functional.local_scores import local_influence, to_grid
from iqakit.imaging.decoding import ImageSource, decode, describe
from iqakit.imaging.preprocessing import prepare_pixels
from iqakit.pipeline.combining import task_points
from iqakit.pipeline.model import DEFAULT_COMBINER, QualityModel
from iqakit.pipeline.skipping import DEFAULT_SKIP_BELOW, used_weights
from iqakit.runtimes.precision import exact_float32

Method = Literal["cam", "tiles"]
METHODS: tuple[Method, ...] = ("cam", "tiles")
DEFAULT_METHOD: Method = "cam"
CELLS = 64
"""Cells along the longer side of a map."""
SMALLEST_TILE = 16
_TILES_ACROSS = 4
_DEFAULT_SMALLEST = 128
# Weight of a tile at its very edge, beside 1 in its middle: every place has one, also at the picture's border.
_EDGE = 1e-3


@dataclass(frozen=True, eq=False)
class QualityMap:
    """Local quality of one picture.

    Attributes:
        path: The picture's path as it was given, or what it is where it is no file.
        model: Name and version of the model.
        method: ``"tiles"``: each value is the score of the picture's parts around that place, seen alone. ``"cam"``: each
            value is the picture's score plus what that place pulls it up or down; their mean is the score.
        unit: ``"points"``, or ``"raw"`` where a task that counts has no calibration.
        score: The picture's own score, in ``unit``, as ``score`` gives it.
        values: float32 (h, w), higher is better, in ``unit``; the grid covers the whole picture evenly.
        width: Width of the picture in pixels, as a viewer shows it.
        height: Its height.
        tile: Side of a tile in the picture's pixels; None for ``"cam"``.
        warnings: What was done to the picture, or is doubtful about it.
        photo: The picture, uint8 (height, width, 3), RGB.
    """

    path: str
    model: str
    method: Method
    unit: Literal["points", "raw"]
    score: float
    values: NDArray[np.float32]
    width: int
    height: int
    tile: int | None
    warnings: tuple[str, ...]
    photo: NDArray[np.uint8] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """All but the photo as plain JSON; ``values`` is a list of rows, top to bottom."""
        return {
            "path": self.path,
            "model": self.model,
            "method": self.method,
            "unit": self.unit,
            "score": self.score,
            "width": self.width,
            "height": self.height,
            "tile": self.tile,
            "warnings": list(self.warnings),
            "values": [[float(value) for value in row] for row in self.values],
        }


def explain(
    model: QualityModel,
    image: ImageSource,
    *,
    combiner: str | None = None,
    task: str | None = None,
    settings: Mapping[str, str] | None = None,
    method: Method | None = None,
    tile: int | None = None,
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> QualityMap:
    """A map of local quality.

    Args:
        model: The model.
        image: A path, bytes, a PIL image, a uint8 array (H, W, 3) RGB or a tensor (3, H, W).
        combiner: The combiner's name, as for ``score``; its weights are those of the whole picture, everywhere.
        task: The picture's true task.
        settings: The combiner's settings.
        method: ``"cam"`` or ``"tiles"``; None: cam, or tiles where a tile is given. A backbone that offers no maps, or
            whose maps say nothing of places, is explained from tiles.
        tile: Side of a tile in the picture's own pixels, for tiles; None: a quarter of the shorter side, but at least 128.
        max_pixels: Decoding limit; None: the default.
        progress: Where to say how far it is.

    Raises:
        ImageError: The picture cannot be read, or the network gives no finite number for it.
        ConfigurationError: The method or the tile makes no sense.
        UnknownNameError: The combiner or the task is unknown.
    """
    if method is not None and method not in METHODS:
        raise UnknownNameError.of("method of explain", method, METHODS)
    if tile is not None and tile < SMALLEST_TILE:
        raise ConfigurationError(
            f"a tile is at least {SMALLEST_TILE} pixels wide; found {tile}; leave it out for a fitting one"
        )
    if tile is not None and method == "cam":
        raise ConfigurationError("a tile has no meaning for the method cam; give one of both")
    if task is not None and task not in model.tasks:
        raise UnknownNameError.of(f"task of model {model.name}", task, model.tasks)
    chosen: Method = method or ("tiles" if tile is not None else DEFAULT_METHOD)
    say = progress.message if progress is not None else _nothing
    if chosen == "cam" and not isinstance(model.backbone, MapBackbone):
        say(f"the backbone {model.backbone_id} offers no maps of its stages; the map is made from tiles")
        chosen = "tiles"
    decoded = decode(image, max_pixels=max_pixels)
    prepared, more = prepare_pixels(decoded.pixels, model.preprocessing)
    whole = _Whole(model, torch.from_numpy(prepared), combiner or ("oracle" if task else DEFAULT_COMBINER), task, settings)
    if not math.isfinite(whole.score):
        raise ImageError(f"{describe(image)}: the network gave a number that is not finite for this image")
    size = grid_size(decoded.height, decoded.width)
    values = _influence_map(whole, size) if chosen == "cam" else None
    if values is not None and float(values.max() - values.min()) == 0:
        say(f"the head of {model.name} sees nothing of {model.backbone_id} that has a place; the map is made from tiles")
        values = None
    side = None
    if values is None:
        chosen = "tiles"
        side = min(tile or _fitting_tile(decoded.height, decoded.width), max(decoded.height, decoded.width))
        values = _tile_map(whole, decoded.pixels, side, size, progress)
    if not torch.isfinite(values).all():
        raise ImageError(f"{describe(image)}: the network gave a number that is not finite for a part of this image")
    return QualityMap(
        path=describe(image),
        model=model.version,
        method=chosen,
        unit=whole.unit,
        score=whole.score,
        values=values.numpy().astype(np.float32),
        width=decoded.width,
        height=decoded.height,
        tile=side,
        warnings=tuple(dict.fromkeys(decoded.warnings + more)),
        photo=np.ascontiguousarray(decoded.pixels.transpose(1, 2, 0)),
    )


def _nothing(text: str) -> None:
    """Nobody listens."""


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the map of a picture: ``CELLS`` along the longer side, cells about square, none below a pixel."""
    cell = max(1.0, max(height, width) / CELLS)
    return max(1, round(height / cell)), max(1, round(width / cell))


class _Whole:
    """The whole picture under a model: its weights and its score, and the score of a part under the same weights."""

    def __init__(
        self, model: QualityModel, image: Tensor, combiner: str, task: str | None, settings: Mapping[str, str] | None
    ) -> None:
        self.model, self.image = model, image
        outputs = model.outputs(image[None])
        weights = model.weights(outputs, combiner, task, settings)
        # Heads that weigh next to nothing are left out, as in score.
        used, _ = used_weights(weights[0].tolist(), DEFAULT_SKIP_BELOW)
        self.weights = torch.tensor([used])
        self.raw = outputs.raw
        score, raw, _ = model.combine(outputs, self.weights)
        calibrated = not bool(torch.isnan(score).any()) or not bool(torch.isfinite(raw).all())
        self.unit: Literal["points", "raw"] = "points" if calibrated else "raw"
        self.score = float(score if calibrated else raw)

    def part(self, image: Tensor) -> float:
        """The score of a prepared part."""
        score, raw, _ = self.model.combine(self.model.outputs(image[None]), self.weights)
        return float(score if self.unit == "points" else raw)

    def worth(self, task: int, spread: float) -> float:
        """What one raw unit of a task is worth in the score, around the picture's own and over a map's usual spread.

        A secant and no slope: a calibration may have steps, on which the slope is 0.
        """
        share = float(self.weights[0, task])
        if self.unit == "raw" or spread == 0 or share == 0:
            return share
        near = self.raw[:, task : task + 1] + torch.tensor([[-spread], [spread]])
        low, high = task_points(near, [self.model.adapters[task].calibration])[:, 0].tolist()
        return share * float(high - low) / (2 * spread)


def _influence_map(whole: _Whole, size: tuple[int, int]) -> Tensor:
    """Score plus influence of each place, (h, w)."""
    backbone = whole.model.backbone
    assert isinstance(backbone, MapBackbone)
    device = next(backbone.module.parameters()).device if isinstance(backbone.module, torch.nn.Module) else "cpu"
    total = torch.zeros(size)
    for index, adapter in enumerate(whole.model.adapters):
        if float(whole.weights[0, index]) == 0:
            continue
        tensors = {name: tensor.to(device) for name, tensor in adapter.tensors.items()}
        with torch.enable_grad(), exact_float32():
            maps = backbone.maps(whole.image[None].to(device), tensors)
        bias = None if adapter.head_bias is None else adapter.head_bias.to(device)
        head = (adapter.head_weight.to(device), bias, adapter.head_kind, adapter.features)
        found = local_influence(maps.features, maps.stages, maps.last, *head)
        influence = torch.stack([to_grid(part, size) for part in found.parts]).sum(0).cpu() if found.parts else total * 0
        total += influence * whole.worth(index, float(influence.std(correction=0)))
    return total + whole.score


def _tile_map(
    whole: _Whole, pixels: NDArray[np.uint8], side: int, size: tuple[int, int], progress: Progress | None
) -> Tensor:
    """Scores of overlapping tiles, blended, (h, w)."""
    height, width = pixels.shape[1:]
    places = [(top, left) for top in tile_starts(height, side) for left in tile_starts(width, side)]
    if progress is not None:
        progress.start("tiles", len(places))
    rows = (torch.arange(size[0]) + 0.5) * height / size[0]
    columns = (torch.arange(size[1]) + 0.5) * width / size[1]
    scores, shares = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for top, left in places:
        part, _ = prepare_pixels(pixels[:, top : top + side, left : left + side], whole.model.preprocessing)
        share = torch.outer(_window(rows - top, min(side, height)), _window(columns - left, min(side, width)))
        scores += whole.part(torch.from_numpy(part)) * share
        shares += share
        if progress is not None:
            progress.advance()
    return (scores / shares).float()


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one side of a picture: evenly, overlapping by half or a little more, up to both borders."""
    if length <= side:
        return [0]
    count = math.ceil(2 * (length - side) / side) + 1
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _fitting_tile(height: int, width: int) -> int:
    return max(_DEFAULT_SMALLEST, min(height, width) // _TILES_ACROSS)


def _window(offsets: Tensor, side: int) -> Tensor:
    """A tile's weight along one axis: a raised cosine, and 0 outside."""
    inside = (offsets >= 0) & (offsets <= side)
    return torch.where(inside, (torch.sin(torch.pi * offsets / side).square() + _EDGE), 0.0).double()
