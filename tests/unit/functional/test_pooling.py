from __future__ import annotations

import numpy as np
import pytest
import torch

from iqakit.errors import ConfigurationError
from iqakit.functional.pooling import gate_features, spatial_mean_std, token_mean_std


def test_spatial_against_numpy() -> None:
    x = torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    for mean, deviation in (spatial_mean_std(x), spatial_mean_std(x.permute(0, 2, 3, 1), channels_last=True)):
        assert mean.numpy() == pytest.approx(x.numpy().mean(axis=(2, 3)), abs=1e-6)
        assert deviation.numpy() == pytest.approx(np.std(x.numpy(), axis=(2, 3)), abs=3e-6)


def test_tokens_against_numpy() -> None:
    x = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    mean, deviation = token_mean_std(x)
    assert mean.numpy() == pytest.approx(x.numpy().mean(axis=1), abs=1e-6)
    assert deviation.numpy() == pytest.approx(np.std(x.numpy(), axis=1), abs=3e-6)


def test_a_large_mean_does_not_swallow_the_deviation() -> None:
    x = 1000 + torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    assert spatial_mean_std(x)[1].numpy() == pytest.approx(np.std(x.double().numpy(), axis=(2, 3)), rel=1e-3)


@pytest.mark.parametrize("size", [1, 8])
def test_flat_maps_have_no_deviation_and_finite_gradients(size: int) -> None:
    x = torch.full((2, 3, size, size), 0.7, requires_grad=True)
    _, deviation = spatial_mean_std(x)
    assert deviation.abs().max().item() < 1e-7
    deviation.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_gradients() -> None:
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(spatial_mean_std, (x,))


def test_gate_features_are_all_stages_at_length_one() -> None:
    rng = torch.Generator().manual_seed(0)
    stages = [torch.randn(4, d, generator=rng) for d in (2, 3, 5)]
    found = gate_features(stages)
    for ours, stage in zip(found, stages, strict=True):
        assert torch.allclose(ours, stage / stage.norm(dim=1, keepdim=True))
    assert torch.equal(gate_features([torch.zeros(1, 2)] * 2)[0], torch.zeros(1, 2))


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"\(N, C, H, W\) of at least one pixel; found shape \(2, 3, 4\)"):
        spatial_mean_std(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigurationError, match=r"\(N, H, W, C\) of at least one pixel; found shape \(2, 0, 4, 3\)"):
        spatial_mean_std(torch.zeros(2, 0, 4, 3), channels_last=True)
    with pytest.raises(ConfigurationError, match=r"at least one token; found shape \(2, 0, 3\)"):
        token_mean_std(torch.zeros(2, 0, 3))
    with pytest.raises(ConfigurationError, match="at least one stage of the backbone; found 0"):
        gate_features([])
