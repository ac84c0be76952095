"""Ridge regression in closed form, for heads on frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ridge_path(inputs: Tensor, targets: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Solve ridge regression for several penalties from one decomposition.

    Minimises ``|targets - inputs w - b|^2 + penalty |w|^2``; the intercept b is not penalised. Works on the smaller of
    the two Gram matrices, so that neither many images nor wide features are costly.

    Args:
        inputs: (N, D), float.
        targets: (N,), float.
        penalties: P positive numbers.

    Returns:
        Weights (P, D) and intercepts (P,), float64.
    """
    x = inputs.double()
    y = targets.double()
    x_mean = x.mean(0)
    y_mean = y.mean()
    x = x - x_mean
    y = y - y_mean
    wide = x.shape[1] > x.shape[0]
    gram = x @ x.T if wide else x.T @ x
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp_min(0)
    projected = vectors.T @ (y if wide else x.T @ y)
    shrunk = torch.stack([projected / (values + penalty) for penalty in penalties])
    solved = shrunk @ vectors.T
    weights = solved @ x if wide else solved
    return weights, y_mean - weights @ x_mean
