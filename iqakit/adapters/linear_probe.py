"""``linear``: a head alone, by ridge regression on the frozen backbone's features.

Source: own; the plain baseline that every method which learns more has to beat.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from iqakit.adapters.settings import LinearConfig
from iqakit.adapters.severity_ladders import learn_ladders
from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Adapter, Dataset, FitContext, FitResult
from iqakit.errors import TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input
from iqakit.functional.ridge import ridge_path

PENALTIES: tuple[float, ...] = tuple(10.0 ** (step / 3) for step in range(-9, 10))
"""The penalties tried: 0.001 to 1000, three a decade. Head inputs are L2-normalised, so their scale is known."""


FOLDS = 10
"""Parts for cross-validation, by content."""


def ridge_head(inputs: Tensor, dataset: Dataset, penalty: float | None = None) -> tuple[Tensor, Tensor, float]:
    """Fit a ridge head on standardised scores; its penalty is chosen by cross-validation on the same images.

    Ten parts that share no content, dealt in the order of the contents' names, so there is nothing random. Every training
    image helps to choose, which a small validation split cannot offer; validation images stay out of it altogether.

    Args:
        inputs: (N, D), head inputs of the images.
        dataset: The images' scores and contents.
        penalty: Use this one; None: the one of ``PENALTIES`` with the highest SRCC over the left-out parts.

    Returns:
        Weight (D,) and intercept (), float32, in standard deviations of the scores; and the penalty.

    Raises:
        TrainingError: All scores are equal.
    """
    scores = human_scores(dataset).double()
    spread = scores.std(correction=0)
    if not spread > 0:
        raise TrainingError(
            f"nothing can be learned: all {len(scores)} training scores are equal; give images of differing quality"
        )
    targets = (scores - scores.mean()) / spread
    chosen = penalty if penalty is not None else _best_penalty(inputs, targets, _folds(dataset))
    weights, intercepts = ridge_path(inputs, targets, (chosen,))
    return weights[0].float(), intercepts[0].float(), chosen


def _folds(dataset: Dataset) -> Tensor:
    """The part of each image, (N,)."""
    samples = [dataset.sample(index) for index in range(len(dataset))]
    contents = [sample.content if sample.content is not None else sample.name for sample in samples]
    part = {content: rank % FOLDS for rank, content in enumerate(sorted(set(contents)))}
    return torch.tensor([part[content] for content in contents])


def _best_penalty(inputs: Tensor, targets: Tensor, folds: Tensor) -> float:
    predicted = torch.zeros(len(PENALTIES), len(targets), dtype=torch.float64)
    for fold in range(int(folds.max()) + 1):
        left_out = folds == fold
        if bool(left_out.all()):
            return PENALTIES[-1]  # one content: nothing can be left out, and the strongest penalty is the safest
        weights, intercepts = ridge_path(inputs[~left_out], targets[~left_out], PENALTIES)
        predicted[:, left_out] = weights @ inputs[left_out].double().T + intercepts[:, None]
    figures = [float(srcc(row, targets)) for row in predicted]
    ranked = [(-math.inf if math.isnan(figure) else figure, size) for figure, size in zip(figures, PENALTIES, strict=True)]
    return PENALTIES[ranked.index(max(ranked))]


class LinearProbe:
    """The ``linear`` fit method."""

    def __init__(self, config: LinearConfig) -> None:
        self.config = config

    def fit(self, context: FitContext) -> FitResult:
        """Solve for the head. Takes seconds, with ladders minutes; uses no randomness and no checkpoint."""
        kind, ladders = self.config.features, self.config.ladders
        inputs = head_input(context.train_features, kind)
        weight, bias, penalty = ridge_head(inputs, context.train, self.config.penalty)
        history = [self._record(context, weight)]
        copies = shifts = None
        if ladders:
            found = learn_ladders(context, weight, inputs, {}, kind, ladders)
            copies, shifts = found.copies, found.shifts
            # The mean output on the training images stays.
            bias = bias + inputs.mean(0) @ (weight - found.weight)
            weight = found.weight
            history.append({**self._record(context, weight), "ladders": ladders, "steps_down": found.after})
        adapter = Adapter(
            task=context.task,
            method="linear",
            backbone_id=context.backbone.id,
            backbone_fingerprint=context.backbone.fingerprint(),
            tensors={},
            head_kind="linear",
            head_weight=weight[None],
            head_bias=bias[None],
            features=kind,
            preprocessing=context.preprocessing,
            config=asdict(replace(self.config, penalty=penalty)),
        )
        return FitResult(adapter, history=history, copies=copies, shifts=shifts)

    def _record(self, context: FitContext, weight: Tensor) -> dict[str, Any]:
        checked = head_input(context.validation_features, self.config.features).double() @ weight.double()
        return {"epoch": 0, "validation_srcc": float(srcc(checked, human_scores(context.validation).double()))}
