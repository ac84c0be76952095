"""What comes after the network, as modules that can be traced: the same functions that torch scores with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iqakit.contracts import Features
from iqakit.functional.pooling import gate_features
from iqakit.pipeline.torch_scoring import TorchParts
from iqakit.runtimes.graph_export import feature_names, trace

_IMAGES = 1  # an image a run, as on the CPU everywhere


class Heads(nn.Module):
    """Every task's head on the features of its pass."""

    def __init__(self, parts: TorchParts) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Raw output (N,) of each task, from the features of every pass, one pass after the other."""
        stages = len(self.parts.backbone.stage_dims)
        each = 1 + 2 * stages
        found = [
            Features(part[0], tuple(part[1 : 1 + stages]), tuple(part[1 + stages :]))
            for part in (features[start : start + each] for start in range(0, len(features), each))
        ]
        return tuple(self.parts.head(index, found[number]) for index, number in enumerate(self.parts.pass_of_task))


class Gate(nn.Module):
    """A combiner's weights, and novelty where a gate was fitted."""

    def __init__(self, parts: TorchParts, combiner: str, task: str | None, settings: Mapping[str, str]) -> None:
        super().__init__()
        self.parts, self.combiner, self.settings = parts, combiner, settings
        self.same_for_all = parts.same_for_all(combiner, task, settings)

    def forward(self, *stages: Tensor) -> tuple[Tensor, ...]:
        """Weights (N, T) and, if there is one, novelty (N,), from the bare pass's stages."""
        gate = gate_features(stages)
        if self.same_for_all is None:
            weights = self.parts.bare_weights(gate, self.combiner, None, self.settings)
        else:
            weights = torch.tensor([self.same_for_all]).expand(stages[0].shape[0], -1)
        found = self.parts.novelty(gate)
        return (weights,) if found is None else (weights, found)


class Finish(nn.Module):
    """From raw outputs and weights to score, raw and std."""

    def __init__(self, parts: TorchParts) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, heads: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Each (N,), from (N, T) and (N, T)."""
        return self.parts.combine(heads, weights)


def head_name(index: int) -> str:
    """Name of a task's raw output in graphs."""
    return f"head{index}"


def pass_prefix(number: int) -> str:
    """What stands before the names of a pass's features."""
    return f"pass{number}/"


def trace_heads(parts: TorchParts) -> Any:
    """``Heads`` as an ONNX model; inputs are named by pass, outputs by task's number."""
    stages = parts.backbone.stage_dims
    inputs = [name for number in range(len(parts.overlays)) for name in feature_names(len(stages), pass_prefix(number))]
    widths = [parts.backbone.embedding_dim, *stages, *stages] * len(parts.overlays)
    examples = tuple(torch.rand(_IMAGES, width, generator=_generator()) for width in widths)
    outputs = [head_name(index) for index in range(len(parts.tasks))]
    return trace(Heads(parts), examples, inputs, outputs)


def trace_gate(parts: TorchParts, combiner: str, task: str | None, settings: Mapping[str, str]) -> Any:
    """``Gate`` as an ONNX model: the bare pass's stages in, ``weights`` and ``novelty`` out."""
    widths = parts.backbone.stage_dims
    inputs = feature_names(len(widths), pass_prefix(0))[1 : 1 + len(widths)]
    examples = tuple(torch.rand(_IMAGES, width, generator=_generator()) for width in widths)
    module = Gate(parts, combiner, task, settings)
    with torch.no_grad():
        outputs = ["weights", "novelty"][: len(module(*examples))]
    return trace(module, examples, inputs, outputs)


def trace_finish(parts: TorchParts) -> Any:
    """``Finish`` as an ONNX model: ``heads`` and ``weights`` in, ``score``, ``raw`` and ``std`` out."""
    tasks = len(parts.tasks)
    examples = (torch.rand(_IMAGES, tasks, generator=_generator()), torch.full((_IMAGES, tasks), 1 / tasks))
    return trace(Finish(parts), examples, ["heads", "weights"], ["score", "raw", "std"])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
