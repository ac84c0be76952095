"""An adapter as a plain record and tensors by stored name, and back, with every field checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iqakit.contracts.adapter import FEATURE_KINDS, HEAD_KINDS, Adapter, Calibration, Preprocessing
from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

Check = Callable[[Any], bool]


class RecordError(Exception):
    """Why a record or its tensors are no adapter; the caller says which file it was about."""


def record_of(adapter: Adapter) -> dict[str, Any]:
    """Everything but the tensors, as plain JSON; numbers that are floats by contract become floats."""
    shown = adapter.preprocessing
    curve = adapter.calibration
    return {
        "task": adapter.task,
        "method": adapter.method,
        "backbone": {"id": adapter.backbone_id, "fingerprint": adapter.backbone_fingerprint},
        "head": {"kind": adapter.head_kind, "features": adapter.features},
        "preprocessing": {
            "mean": [float(value) for value in shown.mean],
            "std": [float(value) for value in shown.std],
            "interpolation": shown.interpolation,
            "shorter_side": shown.shorter_side,
            "smallest_side": shown.smallest_side,
            "multiple": shown.multiple,
            "fixed_size": None if shown.fixed_size is None else list(shown.fixed_size),
            "max_pixels": shown.max_pixels,
        },
        "calibration": None if curve is None else _curve_record(curve),
        "config": dict(adapter.config),
        "provenance": dict(adapter.provenance),
    }


def _curve_record(curve: Calibration) -> dict[str, Any]:
    numbers = {name: float(getattr(curve, name)) for name in ("low", "high", "centre", "width", "tilt", "residual")}
    knots = [[float(raw), float(points)] for raw, points in curve.knots]
    return {**numbers, "kind": curve.kind, "knots": knots, "residual_kind": curve.residual_kind}


def upgrade_from_1(document: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of format 1 as format 2, which says which kind of calibration it is.

    Pure; scores stay the same to the bit. What is no calibration of format 1 is left for the reader to refuse.
    """
    curve = document.get("calibration")
    if not isinstance(curve, Mapping):
        return document, tensors
    added = {"kind": "logistic", "knots": [], "tilt": 0.0, "residual_kind": "constant"}
    if foreign := sorted(set(curve) & set(added)):
        raise RecordError(f"calibration.{foreign[0]} is unknown in format 1")
    return {**document, "calibration": {**curve, **added}}, tensors


def adapter_from_record(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter that a record of the current format and its tensors describe.

    Args:
        document: ``record_of`` an adapter, with ``format`` and ``format_version``.
        tensors: By stored name, ``backbone/<name>``, ``head/weight``, ``head/bias``.

    Raises:
        RecordError: A field is missing, unknown or of the wrong kind, or the tensors do not fit the record.
    """
    _check(document, "", {**_TOP, "format": _any, "format_version": _any})
    _check(document["backbone"], "backbone.", _BACKBONE)
    _check(document["head"], "head.", _HEAD)
    shown = document["preprocessing"]
    _check(shown, "preprocessing.", _PREPROCESSING)
    curve = document["calibration"]
    calibration = None
    if curve is not None:
        _check(curve, "calibration.", _CALIBRATION)
        if not 0 <= curve["low"] < curve["high"] <= 100:
            raise RecordError(f"calibration runs from {curve['low']} to {curve['high']}, which is not rising within 0-100")
        calibration = _checked_curve(curve)
    kind = document["head"]["kind"]
    overlay = _check_tensors(tensors, kind)
    size = shown["fixed_size"]
    return Adapter(
        task=document["task"],
        method=document["method"],
        backbone_id=document["backbone"]["id"],
        backbone_fingerprint=document["backbone"]["fingerprint"],
        tensors=overlay,
        head_kind=kind,
        head_weight=tensors["head/weight"],
        head_bias=tensors.get("head/bias"),
        features=document["head"]["features"],
        preprocessing=Preprocessing(
            mean=(float(shown["mean"][0]), float(shown["mean"][1]), float(shown["mean"][2])),
            std=(float(shown["std"][0]), float(shown["std"][1]), float(shown["std"][2])),
            interpolation=shown["interpolation"],
            shorter_side=shown["shorter_side"],
            smallest_side=shown["smallest_side"],
            multiple=shown["multiple"],
            fixed_size=None if size is None else (size[0], size[1]),
            max_pixels=shown["max_pixels"],
        ),
        calibration=calibration,
        config=document["config"],
        provenance=document["provenance"],
    )


def _checked_curve(curve: Mapping[str, Any]) -> Calibration:
    from iqakit.functional.calibration import check_curve

    calibration = Calibration(
        low=float(curve["low"]),
        high=float(curve["high"]),
        centre=float(curve["centre"]),
        width=float(curve["width"]),
        residual=float(curve["residual"]),
        kind=curve["kind"],
        knots=tuple((float(raw), float(points)) for raw, points in curve["knots"]),
        tilt=float(curve["tilt"]),
        residual_kind=curve["residual_kind"],
    )
    try:
        check_curve(calibration)
    except ConfigurationError as error:
        raise RecordError(str(error)) from error
    return calibration


def _check_tensors(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Check names, shapes and types against each other; returns the overlay by its names in the backbone."""
    import torch

    overlay = {}
    for name in sorted(tensors):
        tensor = tensors[name]
        inner = name.removeprefix("backbone/")
        whole = not tensor.is_floating_point() and tensor.dtype not in (torch.bool,) and not tensor.is_complex()
        if name.startswith("backbone/") and inner:
            if inner.rsplit(".", 1)[-1] == "num_batches_tracked":
                raise RecordError(f"tensor {name!r} is a counter, which is not stored")
            if tensor.dtype != torch.float32 and not whole:
                raise RecordError(f"tensor {name!r} is {tensor.dtype}; it must be float32")
            overlay[inner] = tensor
        elif name not in ("head/weight", "head/bias"):
            raise RecordError(f"tensor {name[:80]!r} is unknown")
        elif tensor.dtype != torch.float32:
            raise RecordError(f"tensor {name!r} is {tensor.dtype}; it must be float32")
    if "head/weight" not in tensors:
        raise RecordError("tensor 'head/weight' is missing")
    weight = tensors["head/weight"]
    if weight.ndim != 2 or weight.shape[0] != 1 or weight.shape[1] < 1:
        raise RecordError(f"tensor 'head/weight' is {tuple(weight.shape)}; it must be (1, D)")
    if kind == "cosine" and "head/bias" in tensors:
        raise RecordError("tensor 'head/bias' is there, but a cosine head has none")
    if kind == "linear" and "head/bias" not in tensors:
        raise RecordError("tensor 'head/bias' is missing, and a linear head has one")
    if kind == "linear" and tuple(tensors["head/bias"].shape) != (1,):
        raise RecordError(f"tensor 'head/bias' is {tuple(tensors['head/bias'].shape)}; it must be (1,)")
    return overlay


def _check(found: Mapping[str, Any], prefix: str, fields: Mapping[str, Check]) -> None:
    if missing := sorted(set(fields) - set(found)):
        raise RecordError(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(set(found) - set(fields)):
        raise RecordError(f"{prefix}{unknown[0][:80]} is unknown")
    for name in sorted(fields):
        if not fields[name](found[name]):
            raise RecordError(f"{prefix}{name} is {str(found[name])[:60]!r}, which it cannot be")


def _any(value: Any) -> bool:
    return True


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 400


def _object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _number(value: Any) -> bool:
    # A whole number too large for a float is no number here.
    return type(value) in (int, float) and abs(value) <= 1e300 and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _one_of(names: Iterable[str]) -> Check:
    allowed = tuple(names)
    return lambda value: isinstance(value, str) and value in allowed


def _list_of(check: Check, length: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) == length and all(check(item) for item in value)


def _all(check: Check, most: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= most and all(check(item) for item in value)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_TOP: dict[str, Check] = {
    "task": _text,
    "method": _text,
    "backbone": _object,
    "head": _object,
    "preprocessing": _object,
    "calibration": _or_none(_object),
    "config": _object,
    "provenance": _object,
}
_BACKBONE: dict[str, Check] = {"id": _text, "fingerprint": _text}
_HEAD: dict[str, Check] = {"kind": _one_of(HEAD_KINDS), "features": _one_of(FEATURE_KINDS)}
_PREPROCESSING: dict[str, Check] = {
    "mean": _list_of(_number, 3),
    "std": _list_of(_positive, 3),
    "interpolation": _one_of(("bilinear", "bicubic")),
    "shorter_side": _or_none(_count),
    "smallest_side": _count,
    "multiple": _count,
    "fixed_size": _or_none(_list_of(_count, 2)),
    "max_pixels": _count,
}
_CALIBRATION: dict[str, Check] = {
    "low": _number,
    "high": _number,
    "centre": _number,
    "width": _positive,
    "residual": lambda value: _number(value) and value >= 0,
    "kind": _one_of(("logistic", "isotonic")),
    "knots": _all(_list_of(_number, 2), 1000),
    "tilt": lambda value: _number(value) and 0 <= value < 1,
    "residual_kind": _one_of(("constant", "bounded")),
}
