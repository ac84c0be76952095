"""Score heads: what they see, and how they turn it into one raw score an image.

A cosine head on the L2-normalised embedding is the head of task-specific normalization (Zhang, Ma, Zhai, Yang, IEEE TIP
2024); the wider input of all stages is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError, MismatchError, UnknownNameError

__all__ = [
    "FeatureKind",
    "HeadKind",
    "PooledFeatures",
    "head_input",
    "head_input_dim",
    "head_scores",
    "row_sums",
    "unit_length",
]

HeadKind = Literal["linear", "cosine"]
FeatureKind = Literal["embedding", "all-stages"]

# Vectors shorter than this count as zero and stay (nearly) zero. Round-off in the deviations of a flat map is far below
# it, features of a picture are far above it.
SMALLEST_LENGTH = 1e-6
# Columns added up at a time. A single long row (torch: from 32,768 on) is otherwise shared out between threads, which
# rounds differently from the same row in a batch.
_COLUMNS = 4096


class PooledFeatures(Protocol):
    """The parts of ``iqakit.contracts.Features`` that heads look at."""

    @property
    def embedding(self) -> Tensor:
        """(N, D)."""
        ...

    @property
    def stages(self) -> tuple[Tensor, ...]:
        """One (N, D_l) a stage, means."""
        ...

    @property
    def deviations(self) -> tuple[Tensor, ...]:
        """One (N, D_l) a stage, standard deviations."""
        ...


def _check_feature_kind(kind: str) -> None:
    if kind not in get_args(FeatureKind):
        raise UnknownNameError.of("kind of head input", kind, get_args(FeatureKind))


def row_sums(values: Tensor) -> Tensor:
    """Sums over the last dimension; each depends on its own row alone, to the bit."""
    first, *others = (piece.sum(dim=-1) for piece in torch.split(values, _COLUMNS, dim=-1))
    for part in others:
        first = first + part
    return first


def unit_length(vectors: Tensor) -> Tensor:
    """L2-normalise the last dimension; a zero vector stays zero, and its gradient is finite.

    Args:
        vectors: (..., D).

    Returns:
        (..., D), each vector of length 1, or shorter where it was shorter than ``SMALLEST_LENGTH``.

    Example:
        >>> unit_length(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()  # doctest: +ELLIPSIS
        [[0.6..., 0.8...], [0.0, 0.0]]
    """
    # The floor stands inside the root, whose slope at 0 is not finite.
    length = row_sums(vectors.square()).clamp_min(SMALLEST_LENGTH**2).sqrt()
    return vectors / length.unsqueeze(-1)


def head_input_dim(kind: FeatureKind, embedding_dim: int, stage_dims: Sequence[int]) -> int:
    """Width of the head's input.

    Args:
        kind: ``"embedding"`` or ``"all-stages"``.
        embedding_dim: D of the backbone's embedding.
        stage_dims: D_l of each stage.

    Returns:
        D for ``"embedding"``; D plus twice the sum of the D_l for ``"all-stages"``.

    Raises:
        UnknownNameError: There is no such kind.

    Example:
        >>> head_input_dim("embedding", 512, [64, 128]), head_input_dim("all-stages", 512, [64, 128])
        (512, 896)
    """
    _check_feature_kind(kind)
    return embedding_dim if kind == "embedding" else embedding_dim + 2 * sum(stage_dims)


def head_input(features: PooledFeatures, kind: FeatureKind) -> Tensor:
    """What the head sees of N images' features.

    Args:
        features: The backbone's features.
        kind: ``"embedding"``: the L2-normalised embedding. ``"all-stages"``: mean_1, deviation_1, mean_2, deviation_2,
            and so on, then the embedding, each part L2-normalised on its own, one after the other.

    Returns:
        (N, D_in), D_in as ``head_input_dim`` says.

    Raises:
        UnknownNameError: There is no such kind.
        MismatchError: There are not as many deviations as stages.
    """
    _check_feature_kind(kind)
    embedding = unit_length(features.embedding)
    if kind == "embedding":
        return embedding
    if len(features.stages) != len(features.deviations):
        raise MismatchError(
            f"head input of all stages needs one deviation a stage; found {len(features.stages)} stages and "
            f"{len(features.deviations)} deviations; the backbone must give as many of both"
        )
    parts: list[Tensor] = []
    for mean, deviation in zip(features.stages, features.deviations, strict=True):
        parts += [unit_length(mean), unit_length(deviation)]
    return torch.cat([*parts, embedding], dim=-1)


def head_scores(inputs: Tensor, weight: Tensor, bias: Tensor | None, kind: HeadKind) -> Tensor:
    """Raw scores, higher is better.

    Args:
        inputs: (N, D), from ``head_input``.
        weight: (1, D) or (D,).
        bias: (1,) or () for a linear head, or None; None for a cosine head.
        kind: ``"linear"``: w.z + b. ``"cosine"``: w.z / (|w| |z|), in [-1, 1]; 0 where w or z is zero.

    Returns:
        (N,).

    Raises:
        UnknownNameError: There is no such kind.
        MismatchError: The shapes do not fit.
        ConfigurationError: A cosine head was given a bias.
    """
    if kind not in get_args(HeadKind):
        raise UnknownNameError.of("kind of head", kind, get_args(HeadKind))
    if inputs.ndim != 2 or weight.numel() != inputs.shape[-1]:
        raise MismatchError(
            f"a head of weight {tuple(weight.shape)} was given an input of shape {tuple(inputs.shape)}; it needs (N, D) "
            "with D as wide as the weight: use the adapter with the backbone and feature kind that it was made for"
        )
    if bias is not None and bias.numel() != 1:
        raise MismatchError(f"a head has one bias; found {bias.numel()} of shape {tuple(bias.shape)}; give (1,) or None")
    row = weight.reshape(-1)
    # Products summed row by row: a matrix product may round differently for another number of rows, and a score must
    # not depend on how many images it is computed with.
    if kind == "cosine":
        if bias is not None:
            raise ConfigurationError("a cosine head has no bias; found one; give None or make the head linear")
        return row_sums(unit_length(inputs) * unit_length(row))
    scores = row_sums(inputs * row)
    return scores if bias is None else scores + bias.reshape(())
