"""Preferences between two images: probability, target, loss, and which pairs to compare.

Follows the learning-to-rank recipe of UNIQUE and its successors (Zhang et al., "Uncertainty-Aware Blind Image Quality
Assessment in the Laboratory and Wild", IEEE TIP 2021; "Task-Specific Normalization ...", IEEE TIP 2024).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from iqakit.errors import ConfigurationError

__all__ = [
    "fidelity_loss",
    "pairs_within_batch",
    "preference_probability",
    "sample_pairs",
    "thurstone_target",
]

FIDELITY_FLOOR = 1e-8
# Up to so many pairs in all, one permutation of them is cheaper than drawing again and again.
_PERMUTED_AT_MOST = 1_000_000


def preference_probability(difference: Tensor) -> Tensor:
    """Probability that the first of two images is the better one: Phi(d) = (1 + erf(d / sqrt 2)) / 2.

    The textbook Thurstone Case V with unit variances would be Phi(d / sqrt 2); the published method uses Phi(d).

    Args:
        difference: d = f(x) - f(y), any shape.

    Returns:
        Probabilities in [0, 1], same shape.

    Example:
        >>> preference_probability(torch.tensor([0.0, 1.0])).tolist()  # doctest: +ELLIPSIS
        [0.5, 0.841344...]
    """
    probability: Tensor = torch.special.ndtr(difference)
    return probability


def fidelity_loss(probability: Tensor, target: Tensor) -> Tensor:
    """Fidelity loss: mean of 1 - sqrt(p g + 1e-8) - sqrt((1 - p)(1 - g) + 1e-8).

    Args:
        probability: Predicted p in [0, 1], any shape; values outside (round-off) are brought to the nearer end.
        target: Target g in [0, 1], same shape; true and false count as 1 and 0.

    Returns:
        0-dim loss; about 0 where p = g, about 1 where they are opposite. Gradients are finite at p = 0 and p = 1.

    Raises:
        ConfigurationError: The shapes differ, or there is no pair.

    Example:
        >>> target = torch.tensor([1.0, 0.0])
        >>> round(fidelity_loss(torch.tensor([0.0, 1.0]), target).item(), 3)
        1.0
    """
    if probability.shape != target.shape or probability.numel() == 0:
        raise ConfigurationError(
            f"the fidelity loss needs probabilities and targets of one shape, at least one pair; found shapes "
            f"{tuple(probability.shape)} and {tuple(target.shape)}"
        )
    # Values are brought into range and gradients let through: clamp alone has none at the very ends.
    p = probability + (probability.clamp(0.0, 1.0) - probability).detach()
    target = target.to(p.dtype) if target.dtype is torch.bool else target
    agree = (p * target + FIDELITY_FLOOR).sqrt()
    differ = ((1 - p) * (1 - target) + FIDELITY_FLOOR).sqrt()
    return (1 - agree - differ).mean()


def thurstone_target(
    quality_x: Tensor, quality_y: Tensor, std_x: Tensor | None = None, std_y: Tensor | None = None
) -> Tensor:
    """Target of the preference probability, from human scores.

    Args:
        quality_x: Scores of the first images, higher is better, (P,).
        quality_y: Scores of the second images, (P,).
        std_x: Standard deviations of the first scores, (P,), or None.
        std_y: Standard deviations of the second scores, (P,), or None.

    Returns:
        (P,) in [0, 1]. Without deviations the binary target 1[q_x > q_y] (a tie gives 0). With both the continuous
        target Phi((q_x - q_y) / sqrt(s_x^2 + s_y^2)); where both deviations are 0 that is 0, 1/2 or 1.

    Raises:
        ConfigurationError: Only one deviation was given, or one is negative or not finite.

    Example:
        >>> x, y = torch.tensor([70.0, 40.0]), torch.tensor([60.0, 60.0])
        >>> thurstone_target(x, y).tolist()
        [1.0, 0.0]
        >>> thurstone_target(x, y, torch.tensor([6.0, 6.0]), torch.tensor([8.0, 8.0])).tolist()  # doctest: +ELLIPSIS
        [0.841344..., 0.02275...]
    """
    dtype = torch.promote_types(quality_x.dtype, torch.get_default_dtype())
    if std_x is None and std_y is None:
        return (quality_x > quality_y).to(dtype)
    if std_x is None or std_y is None:
        raise ConfigurationError("a continuous target needs the deviations of both images' scores; found those of one")
    for std in (std_x, std_y):
        if not bool(torch.isfinite(std).all()) or bool((std < 0).any()):
            raise ConfigurationError(
                "deviations of scores must be finite and not negative; found others; use the binary target instead"
            )
    spread = torch.hypot(std_x.to(dtype), std_y.to(dtype))
    difference = quality_x.to(dtype) - quality_y.to(dtype)
    return preference_probability(difference / spread.clamp_min(torch.finfo(dtype).tiny))


def pairs_within_batch(count: int) -> Tensor:
    """All unordered pairs of a batch.

    Args:
        count: Number of images B in the batch; with fewer than two there is no pair.

    Returns:
        int64 (B (B - 1) / 2, 2), the smaller index first, in lexicographic order.

    Raises:
        ConfigurationError: ``count`` is negative.

    Example:
        >>> pairs_within_batch(3).tolist()
        [[0, 1], [0, 2], [1, 2]]
    """
    if count < 0:
        raise ConfigurationError(f"pairs within a batch need a batch of 0 or more images; found {count}")
    return torch.triu_indices(count, count, offset=1).T.contiguous()


def sample_pairs(images: int, count: int, generator: Generator) -> Tensor:
    """Pairs drawn uniformly without replacement from all unordered pairs, each in random orientation.

    Memory grows with ``count``, not with the number of all pairs, where there are many of them.

    Args:
        images: Number of images n.
        count: Number of pairs to draw, at most n (n - 1) / 2.
        generator: Source of randomness, on the CPU.

    Returns:
        int64 (count, 2), indices of images; no pair twice in either orientation, none of an image with itself.

    Raises:
        ConfigurationError: There are fewer pairs than asked for, or a number is negative.

    Example:
        >>> tuple(sample_pairs(100, 10, torch.Generator().manual_seed(0)).shape)
        (10, 2)
    """
    total = images * (images - 1) // 2
    if images < 0 or not 0 <= count <= total:
        raise ConfigurationError(
            f"asked for {count} different pairs; {images} images make {max(total, 0)}; ask for no more than that"
        )
    if total <= _PERMUTED_AT_MOST or count > total // 2:
        index = torch.randperm(total, generator=generator)[:count]
    else:
        # Every set of `count` pairs is as likely as any other, as nothing here looks at which pair an index is.
        found = torch.empty(0, dtype=torch.int64)
        while len(found) < count:
            more = torch.randint(total, (count - len(found) + 64,), generator=generator)
            found = torch.unique(torch.cat([found, more]))
        index = found[torch.randperm(len(found), generator=generator)[:count]]
    # Pair k is (i, j), i < j, where j (j - 1) / 2 <= k < j (j + 1) / 2; the root may be off by one in float64.
    larger = ((1 + (1 + 8 * index.double()).sqrt()) / 2).long()
    larger = torch.where(larger * (larger - 1) // 2 > index, larger - 1, larger)
    larger = torch.where(larger * (larger + 1) // 2 <= index, larger + 1, larger)
    smaller = index - larger * (larger - 1) // 2
    flip = torch.randint(2, (count,), generator=generator).bool()
    return torch.stack([torch.where(flip, larger, smaller), torch.where(flip, smaller, larger)], dim=1)
