"""What parts give back is checked before it is believed: a plugin's mistake must not become a wrong score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from iqakit.contracts import Backbone, FitResult
from iqakit.errors import IqakitError, PluginError
from iqakit.plugins.catalog import catalog

_SLACK = 1e-4
"""How far a row of weights may be from summing to 1: float32 sums of many tasks are not exact."""


def checked_weights(weights: Any, images: int, tasks: int, combiner: str) -> Tensor:
    """A combiner's weights, if they are weights.

    Raises:
        PluginError: They are not (N, T), not finite, negative, or a row does not sum to 1.
    """
    if not isinstance(weights, Tensor) or tuple(weights.shape) != (images, tasks):
        shape = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise PluginError(
            f"combiner {combiner} gave {shape} for {images} images and {tasks} tasks; report it to its authors"
        )
    rows = weights.sum(1)
    low, high = float(weights.min()), float(weights.max())
    if not bool(torch.isfinite(weights).all()) or low < 0 or float((rows - 1).abs().max()) > _SLACK:
        raise PluginError(
            f"combiner {combiner} gave weights that are no weights: from {low:g} to {high:g}, "
            f"rows sum to {float(rows.min()):g} to {float(rows.max()):g}; report it to its authors"
        )
    return weights


def checked_state(state: Any, earlier: Mapping[str, Tensor], combiner: str) -> dict[str, Tensor]:
    """A combiner's state, if it can be kept.

    Raises:
        PluginError: It is no map of tensors by name, has values that are not finite, or what it knew of earlier tasks is
            gone or changed.
    """
    if not isinstance(state, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise PluginError(
            f"combiner {combiner} gave a state that is no map from names to tensors; report it to its authors"
        )
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PluginError(f"combiner {combiner} gave values that are not finite in {name!r}; report it to its authors")
    for name, tensor in earlier.items():
        if name not in state or not torch.equal(state[name], tensor):
            raise PluginError(f"combiner {combiner} forgot or changed what it knew as {name!r}; report it to its authors")
    return dict(state)


def check_result(result: FitResult, task: str, backbone: Backbone, method: str) -> None:
    """See that a fit method's result is of the task and the backbone that it was asked for.

    Raises:
        PluginError: It is not.
    """
    adapter = result.adapter
    if adapter.task != task:
        raise PluginError(
            f"adapter {method} was asked for task {task!r} and gave {adapter.task!r}; report it to its authors"
        )
    if adapter.backbone_id != backbone.id:
        raise PluginError(
            f"adapter {method} was given backbone {backbone.id!r} and names {adapter.backbone_id!r}; "
            "report it to its authors"
        )
    for what, rows in (("copies", result.copies), ("shifts", result.shifts)):
        if rows is not None and not _are_gate_features(rows, backbone):
            raise PluginError(
                f"adapter {method} gave {what} that are no gate features: they must be finite tensors of as many rows "
                f"each, at least one, {', '.join(map(str, backbone.stage_dims))} wide; report it to its authors"
            )


def _are_gate_features(stages: Any, backbone: Backbone) -> bool:
    """Whether these are rows for every stage of a backbone."""
    if not isinstance(stages, Sequence) or not all(isinstance(rows, Tensor) and rows.ndim == 2 for rows in stages):
        return False
    count = len(stages[0]) if stages else 0
    wanted = [(count, width) for width in backbone.stage_dims]
    return (
        count > 0
        and [tuple(rows.shape) for rows in stages] == wanted
        and all(bool(rows.isfinite().all()) for rows in stages)
    )


def check_backbone_name(asked: str, backbone: Backbone) -> None:
    """See that a backbone's id finds its family again, as loading a model needs it.

    Raises:
        PluginError: It does not.
    """
    family = catalog().split_backbone_name(asked)[0]
    try:
        found = catalog().split_backbone_name(backbone.id)[0]
    except IqakitError:
        found = "none"
    if found != family:
        raise PluginError(
            f"backbone {asked!r} of family {family!r} calls itself {backbone.id!r}, which would be looked for in family "
            f"{found!r}; its id must be '{family}:{backbone.id}'; report it to its authors"
        )


def failed(kind: str, name: str, distribution: str, error: Exception) -> PluginError:
    """The error that names whose part failed."""
    return PluginError(f"{kind} {name} of {distribution} failed: {type(error).__name__}: {error}; report it to its authors")
