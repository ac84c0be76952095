from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqakit.errors import ConfigurationError
from iqakit.functional.preference import (
    fidelity_loss,
    pairs_within_batch,
    preference_probability,
    sample_pairs,
    thurstone_target,
)


def test_probability_is_the_normal_distribution() -> None:
    d = torch.linspace(-6, 6, 101, dtype=torch.float64)
    assert preference_probability(d).numpy() == pytest.approx(stats.norm.cdf(d.numpy()), abs=1e-14)
    assert torch.allclose(preference_probability(d), 0.5 * (1 + torch.erf(d / math.sqrt(2))))
    assert preference_probability(torch.tensor(0.0)).item() == 0.5


@pytest.mark.parametrize("d", [-1e4, -40.0, -3.0, 0.0, 3.0, 40.0, 1e4])
@pytest.mark.parametrize("g", [0.0, 0.3, 1.0])
def test_gradients_are_finite_through_the_whole_chain(d: float, g: float) -> None:
    difference = torch.tensor([d], requires_grad=True)
    fidelity_loss(preference_probability(difference), torch.tensor([g])).backward()
    assert difference.grad is not None
    assert bool(torch.isfinite(difference.grad).all())


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("g", [0.0, 0.5, 1.0])
def test_gradients_are_finite_at_the_ends(p: float, g: float) -> None:
    probability = torch.tensor([p], requires_grad=True)
    fidelity_loss(probability, torch.tensor([g])).backward()
    assert probability.grad is not None
    assert bool(torch.isfinite(probability.grad).all())
    if g != p:
        assert probability.grad.item() * (p - g) > 0  # downhill leads towards the target


def test_fidelity_against_plain_lines() -> None:
    p, g = [0.1, 0.5, 0.9, 0.0], [0.0, 1.0, 0.7, 1.0]
    wanted = sum(
        1 - math.sqrt(a * b + 1e-8) - math.sqrt((1 - a) * (1 - b) + 1e-8) for a, b in zip(p, g, strict=True)
    ) / len(p)
    found = fidelity_loss(torch.tensor(p, dtype=torch.float64), torch.tensor(g, dtype=torch.float64))
    assert found.item() == pytest.approx(wanted, abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_fidelity_is_least_at_the_target(p: float, g: float) -> None:
    a, b = torch.tensor([p], dtype=torch.float64), torch.tensor([g], dtype=torch.float64)
    assert fidelity_loss(a, b).item() >= fidelity_loss(b, b).item() - 3e-4  # the floor inside the root
    assert fidelity_loss(a, b).item() == pytest.approx(fidelity_loss(1 - a, 1 - b).item(), abs=3e-4)
    assert -3e-4 <= fidelity_loss(a, b).item() <= 1


def test_probability_a_rounding_outside_is_taken_in() -> None:
    assert math.isfinite(fidelity_loss(torch.tensor([1.0000002]), torch.tensor([0.0])).item())


def test_fidelity_takes_comparisons_for_a_target() -> None:
    p, x, y = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])
    assert fidelity_loss(p, x > y).item() == fidelity_loss(p, (x > y).float()).item()


def test_fidelity_names_what_it_found() -> None:
    with pytest.raises(ConfigurationError, match=r"found shapes \(3,\) and \(2,\)"):
        fidelity_loss(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ConfigurationError, match="at least one pair"):
        fidelity_loss(torch.zeros(0), torch.zeros(0))


def test_binary_target() -> None:
    found = thurstone_target(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 2.0]))
    assert found.tolist() == [1.0, 0.0, 0.0]
    assert found.dtype == torch.float32


def test_continuous_target() -> None:
    q, r = torch.tensor([60.0, 50.0]).double(), torch.tensor([50.0, 53.0]).double()
    s, t = torch.tensor([6.0, 1.0]).double(), torch.tensor([8.0, 2.0]).double()
    wanted = stats.norm.cdf([10 / 10, -3 / math.sqrt(5)])
    assert thurstone_target(q, r, s, t).numpy() == pytest.approx(wanted, abs=1e-14)


def test_continuous_target_without_spread() -> None:
    zero = torch.zeros(3)
    found = thurstone_target(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]), zero, zero)
    assert found.tolist() == [1.0, 0.5, 0.0]


def test_target_names_what_it_found() -> None:
    one = torch.ones(2)
    with pytest.raises(ConfigurationError, match="both images' scores; found those of one"):
        thurstone_target(one, one, one)
    with pytest.raises(ConfigurationError, match="finite and not negative"):
        thurstone_target(one, one, one, -one)
    with pytest.raises(ConfigurationError, match="finite and not negative"):
        thurstone_target(one, one, one * math.nan, one)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 16])
def test_pairs_within_batch(n: int) -> None:
    pairs = pairs_within_batch(n)
    assert pairs.shape == (n * (n - 1) // 2, 2)
    assert [tuple(pair) for pair in pairs.tolist()] == list(itertools.combinations(range(n), 2))


def test_pairs_within_a_negative_batch() -> None:
    with pytest.raises(ConfigurationError, match="found -1"):
        pairs_within_batch(-1)


def _unordered(pairs: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs.tolist()}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000), st.data())
def test_sampled_pairs_are_different_pairs_of_different_images(n: int, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n * (n - 1) // 2))
    pairs = sample_pairs(n, count, torch.Generator().manual_seed(seed))
    assert pairs.shape == (count, 2)
    assert len(_unordered(pairs)) == count
    assert all(len(pair) == 2 for pair in _unordered(pairs))
    assert count == 0 or (pairs.min() >= 0 and pairs.max() < n)


def test_all_pairs_can_be_asked_for() -> None:
    pairs = sample_pairs(30, 435, torch.Generator().manual_seed(0))
    assert _unordered(pairs) == {frozenset(pair) for pair in itertools.combinations(range(30), 2)}


@pytest.mark.parametrize("n", [100_000, 50_000_000])
def test_many_images_take_no_more_memory_than_pairs(n: int) -> None:
    pairs = sample_pairs(n, 5000, torch.Generator().manual_seed(0))
    assert len(_unordered(pairs)) == 5000
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    assert pairs.min() >= 0
    assert pairs.max() < n
    # The mean index of a uniform choice is (n - 1) / 2, with a standard error of n / sqrt(12 * 10,000).
    assert abs(pairs.double().mean().item() / n - 0.5) < 5 / math.sqrt(12 * 10_000)


def test_sampled_pairs_are_uniform_in_pair_and_orientation() -> None:
    rng, counts = torch.Generator().manual_seed(0), torch.zeros(6, 6)
    for _ in range(1500):
        for a, b in sample_pairs(6, 4, rng).tolist():
            counts[a, b] += 1
    seen = counts[~torch.eye(6, dtype=torch.bool)].numpy()
    assert stats.chisquare(seen).pvalue > 1e-3
    assert counts.diagonal().sum() == 0


def test_rejection_and_permutation_are_uniform_over_the_pair_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iqakit.functional.preference._PERMUTED_AT_MOST", 0)
    rng, counts = torch.Generator().manual_seed(0), torch.zeros(8, 8)
    for _ in range(1500):
        for a, b in sample_pairs(8, 6, rng).tolist():
            counts[a, b] += 1
    assert stats.chisquare(counts[~torch.eye(8, dtype=torch.bool)].numpy()).pvalue > 1e-3


def test_sampling_repeats_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first = sample_pairs(5000, 300, torch.Generator().manual_seed(7))
    assert torch.equal(first, sample_pairs(5000, 300, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, sample_pairs(5000, 300, torch.Generator().manual_seed(8)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("n", "count"), [(4, 7), (1, 1), (0, 1), (4, -1), (-3, 1)])
def test_more_pairs_than_there_are(n: int, count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"asked for {count} different pairs; {n} images make"):
        sample_pairs(n, count, torch.Generator())
