"""Distances that count less along what weak degradation moves. Source: own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iqakit.errors import MismatchError
from iqakit.functional.gating import less_along


@dataclass(frozen=True)
class Steadied:
    """Where distances of one stage are measured, for all tasks alike, as theirs are compared.

    Attributes:
        directions: (R, D), as ``less_along`` takes them.
        factor: 0-dim; stretches all distances, so that centroids are spread as before and a temperature keeps its meaning.
    """

    directions: Tensor
    factor: Tensor

    @classmethod
    def of(cls, centroids: Sequence[Tensor], directions: Sequence[Tensor]) -> Steadied:
        """From what tasks have learned; each task that has learned directions counts alike.

        Args:
            centroids: (K, D) of each task.
            directions: (R, D) of each task that has some, at least one, as ``shift_directions`` gives them.

        Raises:
            MismatchError: The widths differ.
        """
        shapes = [tuple(tensor.shape) for tensor in (*centroids, *directions)]
        if any(len(shape) != 2 or shape[1] != shapes[0][-1] for shape in shapes):  # a file may hold anything
            found = ", ".join(map(str, shapes))
            raise MismatchError(
                f"centroids and shifts of a stage must be of one width, but are {found}; fit the tasks again"
            )
        together = torch.cat(list(directions)) / len(directions) ** 0.5
        bare, every = cls(together, torch.tensor(1.0)), torch.cat(list(centroids))
        left = _scatter(bare.of_centroids(every)).clamp_min(torch.finfo(every.dtype).tiny)
        return cls(together, (_scatter(every) / left).sqrt())

    def of_images(self, points: Tensor) -> Tensor:
        """Points (N, D) of images; each depends on itself alone, to the bit."""
        return less_along(points, self.directions.to(points.device)) * self.factor.to(points.device)

    def of_centroids(self, points: Tensor) -> Tensor:
        """The same, faster for many points that never change."""
        return (points - (points @ self.directions.T) @ self.directions) * self.factor


def _scatter(points: Tensor) -> Tensor:
    return (points - points.mean(0)).square().sum()
