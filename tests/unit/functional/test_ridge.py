import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from iqakit.functional.ridge import ridge_path

PENALTIES = (0.01, 1.0, 100.0)


@pytest.mark.parametrize(("count", "width"), [(40, 7), (12, 30), (20, 20)])
def test_equals_scikit_learn(count: int, width: int) -> None:
    generator = np.random.default_rng(count)
    inputs, targets = generator.normal(size=(count, width)), generator.normal(3, 2, count)
    weights, intercepts = ridge_path(torch.from_numpy(inputs), torch.from_numpy(targets), PENALTIES)
    for index, penalty in enumerate(PENALTIES):
        reference = Ridge(alpha=penalty).fit(inputs, targets)
        np.testing.assert_allclose(weights[index], reference.coef_, atol=1e-8)
        np.testing.assert_allclose(intercepts[index], reference.intercept_, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-100, 100), scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_follows_shift_and_scale_of_the_targets(shift: float, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(15, 4, generator=generator), torch.randn(15, generator=generator)
    weights, intercepts = ridge_path(inputs, targets, PENALTIES)
    moved, moved_intercepts = ridge_path(inputs, targets.double() * scale + shift, PENALTIES)
    assert torch.allclose(moved, weights * scale, rtol=1e-6, atol=1e-9)
    assert torch.allclose(moved_intercepts, intercepts * scale + shift, rtol=1e-6, atol=1e-6)


def test_more_penalty_gives_smaller_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, _ = ridge_path(torch.randn(30, 10, generator=generator), torch.randn(30, generator=generator), PENALTIES)
    sizes = weights.norm(dim=1)
    assert sizes[0] > sizes[1] > sizes[2]
