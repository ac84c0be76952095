"""The gate over tasks: distances to centroids, and weights from them (Zhang, Ma, Zhai, Yang, IEEE TIP 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError

__all__ = ["DEFAULT_TEMPERATURE", "gate_weights", "nearest_distance"]

DEFAULT_TEMPERATURE = 32.0
# Rows worked on at a time, which bounds the memory of the (rows, K) distances.
_ROWS = 8192


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
