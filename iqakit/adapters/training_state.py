"""Tensors of a training to and from a checkpoint, so that a run that was cut goes on to the same bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam knows of a parameter; nothing of one that has not moved yet."""


def flat(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Groups of tensors in one map, each tensor as ``group/name``."""
    return {f"{of}/{name}": tensor.detach() for of, held in groups.items() for name, tensor in held.items()}


def group(tensors: Mapping[str, Tensor], of: str) -> dict[str, Tensor]:
    """One group out of what ``flat`` gave, by name."""
    return {name.removeprefix(f"{of}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{of}/")}


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies without a gradient."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def like(live: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors kept, each with the device and memory layout of the live one of its name."""
    return {name: _laid_out_as(live[name], tensor) for name, tensor in kept.items()}


def same_shapes(live: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> bool:
    """Whether both hold tensors of the same names and shapes."""
    return {name: tensor.shape for name, tensor in live.items()} == {name: tensor.shape for name, tensor in kept.items()}


def adam_groups(optimiser: torch.optim.Adam, trained: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Adam's step counts and moments, as groups for ``flat``.

    Args:
        optimiser: Whose.
        trained: What it trains, by name.
    """
    moved = {name: optimiser.state[parameter] for name, parameter in trained.items() if parameter in optimiser.state}
    return {f"adam/{what}": {name: moments[what] for name, moments in moved.items()} for what in _MOMENTS}


def restore_adam(optimiser: torch.optim.Adam, trained: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Give Adam back what ``adam_groups`` gave."""
    for what in _MOMENTS:
        for name, tensor in group(tensors, f"adam/{what}").items():
            parameter = trained[name]
            # Adam keeps its step count on the CPU.
            moment = tensor.clone() if what == "step" else _laid_out_as(parameter, tensor)
            optimiser.state.setdefault(parameter, {})[what] = moment


def _laid_out_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A copy with the device and memory layout of another: sums over another layout may round differently."""
    return torch.empty_like(like, requires_grad=False).copy_(tensor)
