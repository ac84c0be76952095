"""The gate over tasks: distances to centroids, and weights from them (Zhang, Ma, Zhai, Yang, IEEE TIP 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError
from iqakit.functional.heads import row_sums

__all__ = ["DEFAULT_TEMPERATURE", "gate_weights", "less_along", "nearest_distance", "shift_directions"]

DEFAULT_TEMPERATURE = 32.0
# Rows worked on at a time, which bounds the memory of the (rows, K) distances.
_ROWS = 8192
# Products kept at a time, likewise.
_VALUES = 1 << 22


def nearest_distance(features: Tensor, centroids: Tensor) -> Tensor:
    """Euclidean distance of each feature vector to the nearest centroid.

    Args:
        features: (N, D), any real dtype.
        centroids: (K, D), K at least 1, any real dtype.

    Returns:
        (N,), 0 or more, of the wider dtype of both and float32. A row's distance does not depend on the other rows.

    Raises:
        ConfigurationError: The shapes do not fit, or there is no centroid.

    Example:
        >>> nearest_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 3.0]])).tolist()
        [1.0]
    """
    if features.ndim != 2 or centroids.ndim != 2 or features.shape[1] != centroids.shape[1] or len(centroids) == 0:
        raise ConfigurationError(
            "distances need features (N, D) and at least one centroid (K, D) of the same width; found "
            f"{tuple(features.shape)} and {tuple(centroids.shape)}"
        )
    # Half precision has no cdist on a CPU, and its squares overflow soon.
    dtype = torch.promote_types(torch.promote_types(features.dtype, centroids.dtype), torch.float32)
    features, centroids = features.to(dtype), centroids.to(dtype)
    # Not |x|^2 + |c|^2 - 2 x.c, which cancels where points lie close: two unit vectors 1e-4 apart come out 0 in float32.
    nearest = [
        torch.cdist(rows, centroids, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        for rows in torch.split(features, _ROWS)
    ]
    return torch.cat(nearest)


def shift_directions(shifts: Tensor, steadiness: float, count: int) -> Tensor:
    """The directions along which rows mostly lie, each as long as it should count less.

    With e the share of a principal direction in the mean square of the shifts, in units of the mean share of all D: points
    that are taken through ``less_along`` lie 1 / sqrt(1 + steadiness e) times as far apart along it. Source: own; it is the
    whitening of linear discriminant analysis, with an image and its copies for a class, held back.

    Args:
        shifts: (M, D), M at least 1, any real dtype, finite.
        steadiness: 0 or more; 0 leaves distances as they are.
        count: How many directions are looked at, the strongest first, at least 1.

    Returns:
        (R, D), float32 on the CPU, rows orthogonal and shorter than 1, the longest first; R is ``count``, or D if fewer.

    Raises:
        ConfigurationError: There is no row, or a number is out of range.

    Example:
        >>> shift_directions(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), 1.5, 1).tolist()  # e is 2: half as far apart
        [[0.7071067690849304, 0.0]]
    """
    if shifts.ndim != 2 or 0 in shifts.shape or not steadiness >= 0 or not math.isfinite(steadiness) or count < 1:
        raise ConfigurationError(
            "shift directions need shifts (M, D), M and D at least 1, a finite steadiness of 0 or more and a count of at "
            f"least 1; found {tuple(shifts.shape)}, {steadiness} and {count}"
        )
    rows = shifts.detach().cpu().double()
    square = rows.T @ rows
    square = square / (square.trace() / len(square)).clamp_min(torch.finfo(torch.float64).tiny)
    shares, directions = torch.linalg.eigh(square)
    shares, directions = shares.flip(0)[:count].clamp_min(0), directions.flip(1)[:, :count]
    # A direction and its opposite are the same; the choice must not be the library's.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    less = 1 - (1 + steadiness * shares).rsqrt()
    found: Tensor = (less.sqrt() * largest.sign() * directions).T.float().contiguous()
    return found


def less_along(points: Tensor, directions: Tensor) -> Tensor:
    """Points with some of what lies along given directions taken away: p - sum over rows d of (p . d) d.

    Args:
        points: (N, D), float.
        directions: (R, D), as ``shift_directions`` gives them, of one set of shifts or, divided by the root of how many
            there are, of several below one another.

    Returns:
        (N, D). A row depends on its own point alone, to the bit.
    """
    parts = []
    for rows in torch.split(points, max(1, _VALUES // max(1, directions.numel()))):
        along = row_sums(rows.unsqueeze(1) * directions)
        parts.append(rows - row_sums(along.unsqueeze(1) * directions.T))
    return torch.cat(parts)


def gate_weights(distances: Tensor, temperature: float = DEFAULT_TEMPERATURE) -> Tensor:
    """Weights of the tasks: at each stage a softmax over tasks of -temperature * distance, then the mean over stages.

    Args:
        distances: (L, N, T), any real dtype: distance of image n to the nearest centroid of task t at stage l.
        temperature: Sharpness, 0 or more; 0 gives 1/T throughout.

    Returns:
        (N, T), non-negative, rows summing to 1.

    Raises:
        ConfigurationError: The shape is not (L, N, T) with L and T of at least 1, or the temperature is negative or not
            finite.

    Example:
        >>> distances = torch.tensor([[[0.1, 0.1, 9.0]]])  # one stage, one image, three tasks
        >>> gate_weights(distances).tolist()
        [[0.5, 0.5, 0.0]]
    """
    if distances.ndim != 3 or distances.shape[0] == 0 or distances.shape[2] == 0:
        raise ConfigurationError(
            "gate weights need distances (stages, images, tasks), at least one stage and one task; found shape "
            f"{tuple(distances.shape)}"
        )
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ConfigurationError(f"the gate's temperature must be finite and 0 or more; found {temperature}; 32 is usual")
    if not distances.is_floating_point():
        distances = distances.to(torch.get_default_dtype())
    return torch.softmax(-temperature * distances, dim=2).mean(dim=0)
