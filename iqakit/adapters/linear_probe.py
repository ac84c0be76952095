"""``linear``: a head alone, by ridge regression on the frozen backbone's features.

Source: own; the plain baseline that every method which learns more has to beat.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from torch import Tensor

from iqakit.adapters.settings import LinearConfig
from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Adapter, FitContext, FitResult
from iqakit.errors import TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input
from iqakit.functional.ridge import ridge_path

PENALTIES = tuple(10.0 ** (step / 3) for step in range(-9, 10))
"""The penalties tried: 0.001 to 1000, three a decade. Head inputs are L2-normalised, so their scale is known."""


def ridge_head(
    train: Tensor, targets: Tensor, validation: Tensor, validation_targets: Tensor, penalty: float | None = None
) -> tuple[Tensor, Tensor, float, float]:
    """Fit a ridge head on standardised targets and choose its penalty by validation SRCC.

    Args:
        train: (N, D), head inputs of the training images.
        targets: (N,), their scores.
        validation: (M, D).
        validation_targets: (M,).
        penalty: Use this one; None: choose among ``PENALTIES``.

    Returns:
        Weight (D,) and intercept (), float32, in standard deviations of the training scores; the penalty; the validation
        SRCC (nan where validation scores are all equal).
    """
    spread = targets.double().std(correction=0)
    if not spread > 0:
        raise TrainingError(
            f"nothing can be learned: all {len(targets)} training scores are equal; give images of differing quality"
        )
    standardised = (targets.double() - targets.double().mean()) / spread
    tried = PENALTIES if penalty is None else (penalty,)
    weights, intercepts = ridge_path(train, standardised, tried)
    predictions = weights @ validation.double().T
    figures = [float(srcc(predicted, validation_targets.double())) for predicted in predictions]
    # Where validation cannot tell (all scores equal), the strongest penalty is the safest.
    ranked = [(-math.inf if math.isnan(figure) else figure, size) for figure, size in zip(figures, tried, strict=True)]
    best = ranked.index(max(ranked))
    return weights[best].float(), intercepts[best].float(), tried[best], figures[best]


class LinearProbe:
    """The ``linear`` fit method."""

    def __init__(self, config: LinearConfig) -> None:
        self.config = config

    def fit(self, context: FitContext) -> FitResult:
        """Solve for the head. Takes seconds; uses no randomness and no checkpoint."""
        kind = self.config.features
        weight, bias, penalty, figure = ridge_head(
            head_input(context.train_features, kind),
            human_scores(context.train),
            head_input(context.validation_features, kind),
            human_scores(context.validation),
            self.config.penalty,
        )
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
        return FitResult(adapter, history=[{"epoch": 0, "validation_srcc": figure}])
