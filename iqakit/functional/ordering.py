"""Teaching a finished head orders that are known, without unlearning what it says of its images."""

from __future__ import annotations

import torch
from torch import Tensor

from iqakit.errors import ConfigurationError

_MOST_ROUNDS = 50
"""Newton's method on this kind of problem ends after a handful of rounds; more would mean that it goes in circles."""


def ordered_head(
    inputs: Tensor,
    weight: Tensor,
    steps: Tensor,
    *,
    penalty: float,
    margin: float,
    importance: float,
    counts: Tensor | None = None,
    views: Tensor | None = None,
    view_importance: float = 1.0,
) -> Tensor:
    """The smallest change to a linear head that makes known steps lead up.

    With X the centred inputs, minimises over the change c

        |X c|^2 + penalty |c|^2 + importance N mean(counts max(0, margin - steps (weight + c))^2)

    and, with V the centred views, view_importance N mean((V c)^2). The first term keeps the head's outputs on its own
    images, up to a constant, the last one those on the views. Convex and piecewise quadratic, so
    Newton's method, with a shorter step where a whole one does not help, ends at the minimum. Works in the span of the
    rows where they are fewer than the columns.

    Args:
        inputs: Head inputs of N images, (N, D), float.
        weight: The head, (D,).
        steps: (K, D), K at least 1: head input of the image that is surely better, less that of the other.
        penalty: Positive.
        margin: By how much the better image should be ahead, in units of the head's outputs; not negative.
        importance: How much all steps together count against all images together; not negative.
        counts: How much each step counts beside the others, (K,), not negative; None: each 1.
        views: Further rows on which outputs should stay, such as parts of the images, (M, D), M at least 1; None: none.
        view_importance: How much all views together count against all images together; not negative.

    Returns:
        The changed weight, (D,), float64.

    Raises:
        ConfigurationError: Widths differ, there is no step or no view, counts are not one a step, or a number is out of
            range.
    """
    width = int(weight.numel())
    if inputs.dim() != 2 or steps.dim() != 2 or not len(steps) or not inputs.shape[1] == steps.shape[1] == width:
        raise ConfigurationError(
            f"inputs and steps must be as wide as the head ({width}), with at least one step, but they are "
            f"{tuple(inputs.shape)} and {tuple(steps.shape)}"
        )
    if views is not None and (views.dim() != 2 or not len(views) or views.shape[1] != width):
        raise ConfigurationError(
            f"views must be as wide as the head ({width}), at least one, but they are {tuple(views.shape)}"
        )
    if not penalty > 0 or not all(value >= 0 for value in (margin, importance, view_importance)):
        raise ConfigurationError(
            "the penalty must be above 0, margin and both importances at least 0, but they are "
            f"{penalty}, {margin}, {importance}, {view_importance}"
        )
    counted = torch.ones(len(steps)) if counts is None else counts
    if counted.shape != (len(steps),):
        raise ConfigurationError(
            f"counts must be one number for each of {len(steps)} steps, but their shape is {tuple(counted.shape)}"
        )
    if not bool((counted >= 0).all() & counted.isfinite().all()):
        raise ConfigurationError(
            f"counts must be finite and at least 0, but they go from {float(counted.min())} to {float(counted.max())}"
        )
    x, d, start = inputs.double(), steps.double(), weight.double()
    images, x = len(x), x - x.mean(0)
    if views is not None:
        v = views.double()
        x = torch.cat([x, (v - v.mean(0)) * (view_importance * images / len(v)) ** 0.5])
    wanted = margin - d @ start  # how much the change has to add to each step
    basis = None
    if width > len(x) + len(d):
        basis = torch.linalg.qr(torch.cat([x, d]).T).Q
        x, d = x @ basis, d @ basis
    shares = importance * images / len(d) * counted.to(d)
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def objective(change: Tensor) -> float:
        return float(change @ gram @ change + shares @ (wanted - d @ change).clamp_min(0).square())

    change = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device)
    before = objective(change)
    for _ in range(_MOST_ROUNDS):
        short = d @ change < wanted
        rows, lacking = d[short], wanted[short]
        scaled = rows.T * shares[short]
        target = torch.linalg.solve(gram + scaled @ rows, scaled @ lacking)
        length, after = 1.0, objective(target)
        while after >= before and length > 1e-6:
            length /= 2
            after = objective(change + length * (target - change))
        if not after < before * (1 - 1e-12):
            break
        change, before = change + length * (target - change), after
    return start + (change if basis is None else basis @ change)
