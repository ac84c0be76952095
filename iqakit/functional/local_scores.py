"""What each place of a picture does to a head's score: the class-activation form of a quality map. Own.

A head sees pooled features: for each stage the mean and the standard deviation of its map over space, and the embedding.
Give the places of the picture weights that sum to 1, all alike at first. How the score changes as one place's weight
grows, at the cost of all the others, is the influence of that place:

    mean m of a map M:          dm/dx = M(x) - m
    deviation d, d^2 = var M:   dd/dx = ((M(x) - m)^2 - d^2) / (2 d)
    embedding e of a map L:     de/dx = HW * (de/dL(x)) (L(x) - mean L), exact where e is linear in L

each times the slope of the score with respect to it, lengths of normalised parts included. Influences of all places sum
to 0, so score plus influence has the score as its mean: nothing is left over. A head's weights times the map, the usual
form (Zhou et al., "Learning deep features for discriminative localization", CVPR 2016), leaves out that the parts have
unit length, and so takes places without activation for neutral.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iqakit.functional.heads import FeatureKind, HeadKind, PooledFeatures, head_input, head_scores
from iqakit.functional.pooling import VARIANCE_FLOOR


class LocalInfluence(NamedTuple):
    """A head's score of one picture, and what each place does to it.

    Attributes:
        raw: The head's output, 0-dim.
        parts: One map (H, W) a part of the head's input, each with mean 0, in the head's units. Empty deviations and an
            embedding without a map have none.
    """

    raw: Tensor
    parts: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Pooled features that slopes are taken with respect to."""

    embedding: Tensor
    stages: tuple[Tensor, ...]
    deviations: tuple[Tensor, ...]


def local_influence(
    features: PooledFeatures,
    stages: Sequence[Tensor],
    last: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    head_kind: HeadKind,
    feature_kind: FeatureKind,
) -> LocalInfluence:
    """What each place of one picture does to a head's score.

    Args:
        features: Pooled features of the one picture, from its maps.
        stages: One map (1, D_l, H_l, W_l) a stage.
        last: The map (1, C, H, W) that the embedding was computed from, in its graph; None: there is none.
        weight: The head's weight, (1, D) or (D,).
        bias: The head's bias, or None.
        head_kind: ``"linear"`` or ``"cosine"``.
        feature_kind: ``"embedding"`` or ``"all-stages"``.

    Raises:
        MismatchError: The head is of another width than the features.
    """
    with torch.enable_grad():
        leaves = _Leaves(
            _leaf(features.embedding),
            tuple(_leaf(mean) for mean in features.stages),
            tuple(_leaf(deviation) for deviation in features.deviations),
        )
        raw = head_scores(head_input(leaves, feature_kind), weight, bias, head_kind)[0]
        pooled = [leaves.embedding, *leaves.stages, *leaves.deviations]
        slopes = torch.autograd.grad(raw, pooled, allow_unused=True, materialize_grads=True)
    count = len(leaves.stages)
    parts = []
    if feature_kind == "all-stages":
        for stage, of_mean, of_deviation in zip(stages, slopes[1 : 1 + count], slopes[1 + count :], strict=True):
            parts += _stage_parts(stage.detach()[0], of_mean[0], of_deviation[0])
    if last is not None and features.embedding.requires_grad:
        (reach,) = torch.autograd.grad(features.embedding, last, slopes[0], retain_graph=True)
        values = last.detach()[0]
        shifted = values - values.mean((1, 2), keepdim=True)
        part = (reach[0] * shifted).sum(0) * shifted[0].numel()
        parts.append(part - part.mean())
    return LocalInfluence(raw.detach(), tuple(parts))


def _leaf(values: Tensor) -> Tensor:
    return values.detach().clone().requires_grad_()


def _stage_parts(stage: Tensor, of_mean: Tensor, of_deviation: Tensor) -> list[Tensor]:
    """Influence by way of a stage's mean and of its deviation."""
    shifted = stage - stage.mean((1, 2), keepdim=True)
    variance = shifted.square().mean((1, 2))
    by_mean = torch.einsum("c,chw->hw", of_mean, shifted)
    # The slope of the root as it is pooled, with the same floor: a flat channel has none of its own.
    root = of_deviation / (2 * (variance + VARIANCE_FLOOR).sqrt())
    by_deviation = torch.einsum("c,chw->hw", root, shifted.square()) - (root * variance).sum()
    return [by_mean, by_deviation]


def to_grid(part: Tensor, size: tuple[int, int]) -> Tensor:
    """A map on another grid, its mean kept: averaged where it gets coarser, interpolated where finer.

    Args:
        part: (H, W).
        size: Height and width of the grid.
    """
    height, width = min(size[0], part.shape[0]), min(size[1], part.shape[1])
    coarse = F.adaptive_avg_pool2d(part[None, None], (height, width))
    fine = F.interpolate(coarse, size, mode="bilinear", align_corners=False)[0, 0]
    # Cells of unequal size, and the borders of an interpolation, move the mean a little.
    return fine - fine.mean() + part.mean()
