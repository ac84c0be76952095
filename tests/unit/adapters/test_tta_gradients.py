"""Gradients over several passes: those of plain autograd to the bit, with the activations of one pass in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from iqakit.adapters.adaptation_gradients import PassSeries, add_gradients
from iqakit.functional.ranking import relative_rank_loss


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


def batches() -> list[Tensor]:
    generator = Generator().manual_seed(1)
    return [torch.randn(6, 3, 16, 16, generator=generator) for _ in range(3)]


class Embedding:
    """The network in training mode; without ``moving`` its statistics stay. Counts its passes."""

    def __init__(self) -> None:
        self.network, self.passes = network(), 0
        self.unused = torch.ones(3, requires_grad=True)
        self.weights = [*self.network.parameters(), self.unused]

    def __call__(self, images: Tensor, moving: bool) -> Tensor:
        self.passes += 1
        thrown_away = {} if moving else {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        found: Tensor = torch.func.functional_call(self.network, thrown_away, (images,))
        return found


def loss_of(embeddings: list[Tensor]) -> Tensor:
    return relative_rank_loss(*embeddings) + embeddings[0].square().mean()


def test_gradients_and_statistics_are_those_of_one_graph() -> None:
    plain, thrifty = Embedding(), Embedding()
    for step in range(2):  # the second adds to what is there, as published mode does
        loss_of([plain(images, step == 0) for images in batches()]).backward()  # type: ignore[no-untyped-call]
        series = PassSeries(thrifty, [(images, step == 0) for images in batches()])
        add_gradients(thrifty.weights, series.gradients(loss_of(series.embeddings), thrifty.weights))
        for one, other in zip(plain.weights[:-1], thrifty.weights[:-1], strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert torch.equal(one.grad, other.grad)
        assert thrifty.unused.grad is None
        for one, other in zip(plain.network.buffers(), thrifty.network.buffers(), strict=True):
            assert torch.equal(one, other)
    assert (plain.passes, thrifty.passes) == (6, 10)


def test_only_the_last_pass_keeps_its_activations() -> None:
    made = Embedding()
    series = PassSeries(made, [(images, True) for images in batches()])
    assert [embedding.is_leaf for embedding in series.embeddings] == [True, True, False]
    assert made.passes == 3


def test_a_pass_that_the_loss_does_not_use_is_not_made_again() -> None:
    made = Embedding()
    series = PassSeries(made, [(images, True) for images in batches()[:2]])
    found = series.gradients(series.embeddings[1].sum(), made.weights)
    assert made.passes == 2
    assert found[-1] is None
    assert found[0] is not None


def test_without_gradients_every_pass_is_made_once() -> None:
    made = Embedding()
    with torch.no_grad():
        series = PassSeries(made, [(images, True) for images in batches()])
    assert made.passes == 3
    assert not any(embedding.requires_grad for embedding in series.embeddings)


@pytest.mark.parametrize("count", [1, 2])
def test_one_pass_or_two(count: int) -> None:
    plain, thrifty = Embedding(), Embedding()
    torch.stack([plain(images, True) for images in batches()[:count]]).square().sum().backward()  # type: ignore[no-untyped-call]
    series = PassSeries(thrifty, [(images, True) for images in batches()[:count]])
    found = series.gradients(torch.stack(series.embeddings).square().sum(), thrifty.weights)
    for one, other in zip(plain.weights[:-1], found[:-1], strict=True):
        assert one.grad is not None
        assert other is not None
        assert torch.equal(one.grad, other)
    assert thrifty.passes == 2 * count - 1
