"""The ridge head against scikit-learn, and how its penalty is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict

from iqakit.adapters.linear_probe import FOLDS, PENALTIES, ridge_head
from iqakit.contracts import Sample, TaskFacts
from iqakit.errors import TrainingError
from iqakit.pipeline.model import QualityModel


@dataclass
class Rated:
    scores: list[float]
    contents: list[str] | None = None
    facts: TaskFacts = TaskFacts("t")  # noqa: RUF009 - frozen

    def __len__(self) -> int:
        return len(self.scores)

    def sample(self, index: int) -> Sample:
        return Sample(f"{index:04d}", self.scores[index], None, self.contents[index] if self.contents else None)


def task(count: int = 80, width: int = 12, noise: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, list[float]]:
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(count, width))
    scores = inputs @ generator.normal(size=width) + generator.normal(0, noise, count)
    return torch.from_numpy(inputs), (3 + 0.5 * scores).tolist()


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_equals_scikit_learn_on_standardised_scores(penalty: float) -> None:
    inputs, scores = task()
    weight, bias, used = ridge_head(inputs, Rated(scores), penalty)
    standardised = (np.float32(scores) - np.mean(np.float32(scores))) / np.std(np.float32(scores))
    reference = Ridge(alpha=penalty).fit(inputs.numpy(), standardised)
    assert used == penalty
    np.testing.assert_allclose(weight, reference.coef_, atol=1e-5)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-5)


@pytest.mark.parametrize(("noise", "seed"), [(0.1, 0), (4.0, 1), (20.0, 2)])
def test_the_penalty_is_the_one_that_cross_validation_prefers(noise: float, seed: int) -> None:
    inputs, scores = task(noise=noise, seed=seed)
    _, _, used = ridge_head(inputs, Rated(scores))
    # The same ten parts, by scikit-learn: names in order, dealt round.
    parts = np.arange(len(scores)) % FOLDS
    splits = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(FOLDS)]
    figures = {
        penalty: spearmanr(cross_val_predict(Ridge(alpha=penalty), inputs.numpy(), scores, cv=splits), scores).statistic
        for penalty in PENALTIES
    }
    assert figures[used] >= max(figures.values()) - 0.01


def test_parts_share_no_content() -> None:
    """Five copies of every picture: were copies on both sides, the weakest penalty would look best."""
    generator = np.random.default_rng(0)
    pictures = generator.normal(size=(30, 60))
    inputs = torch.from_numpy(np.repeat(pictures, 5, axis=0) + generator.normal(0, 1e-3, (150, 60)))
    scores = np.repeat(pictures[:, 0] + generator.normal(0, 2, 30), 5).tolist()
    contents = [f"c{index // 5:02d}" for index in range(150)]
    _, _, blind = ridge_head(inputs, Rated(scores))
    _, _, careful = ridge_head(inputs, Rated(scores, contents))
    assert careful > 10 * blind
    groups = GroupKFold(n_splits=FOLDS)
    assert len(list(groups.split(inputs, scores, contents))) == FOLDS


def test_one_content_takes_the_strongest_penalty() -> None:
    inputs, scores = task(count=12)
    assert ridge_head(inputs, Rated(scores, ["same"] * 12))[2] == PENALTIES[-1]


def test_equal_scores_teach_nothing() -> None:
    with pytest.raises(TrainingError, match="nothing can be learned: all 8 training scores are equal"):
        ridge_head(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), Rated([2.0] * 8))


def test_a_linear_adapter_holds_a_head_and_nothing_else(tiny_model) -> None:  # type: ignore[no-untyped-def]
    (adapter,) = QualityModel.load(tiny_model).adapters
    assert dict(adapter.tensors) == {}
    assert (adapter.method, adapter.head_kind, tuple(adapter.head_bias.shape)) == ("linear", "linear", (1,))  # type: ignore[union-attr]
    assert adapter.config["penalty"] in PENALTIES
