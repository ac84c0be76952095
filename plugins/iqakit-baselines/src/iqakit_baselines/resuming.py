"""A training's tensors to and from a checkpoint, so that a run that was cut goes on to the same bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def adam_tensors(optimiser: torch.optim.Adam, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adam's moments and step counts, under ``adam/<what>/<name>``.

    Args:
        optimiser: Whose.
        trained: What it trains, by name.
    """
    return {
        f"adam/{what}/{name}": value
        for name, parameter in trained.items()
        for what, value in optimiser.state.get(parameter, {}).items()
    }


def restore_adam(optimiser: torch.optim.Adam, trained: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Give Adam back what ``adam_tensors`` gave; what had not moved yet has no moments."""
    for name, parameter in trained.items():
        if f"adam/step/{name}" in tensors:
            optimiser.state[parameter] = {
                "step": tensors[f"adam/step/{name}"].clone(),  # Adam keeps its step count on the CPU
                "exp_avg": _laid_out_as(parameter, tensors[f"adam/exp_avg/{name}"]),
                "exp_avg_sq": _laid_out_as(parameter, tensors[f"adam/exp_avg_sq/{name}"]),
            }


def part(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor], device: str, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it.

    Args:
        tensors: All there are.
        like: Tensors whose device and layout in memory those of the same name get.
        device: Where the others go.
        prefix: Which.
    """
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: _laid_out_as(like[name], tensor) if name in like else tensor.to(device) for name, tensor in found.items()}


def number_or_none(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A copy with the device and memory layout of another: sums over another layout may round differently."""
    return torch.empty_like(like, requires_grad=False).copy_(tensor)
