"""Importance, penalties and losses against plain lines."""

# ruff: noqa: D103 - names of tests say what they hold

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from iqakit_baselines.consolidation import Si, gradient_importance, path_importance, pull
from iqakit_baselines.distillation import KeptPredictions, kept_predictions_loss
from numpy.typing import NDArray
from torch import Tensor

from iqakit.contracts import Features
from iqakit.functional.heads import head_input
from iqakit.functional.preference import fidelity_loss, pairs_within_batch, preference_probability
from iqakit.imaging.tensors import prepare


def batches(count: int = 3, images: int = 5, width: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Inputs and scores of a linear model's images."""
    rng = torch.Generator().manual_seed(0)
    return [
        (torch.randn(images, width, generator=rng, dtype=torch.float64), torch.randn(images, generator=rng))
        for _ in range(count)
    ]


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def chance(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def reference(slope: Callable[[float, bool], float], measure: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """The mean over batches of a measure of the mean over pairs of slope(d) times (x_i - x_j), for y = w.x."""
    weight, total = np.array([0.3, -0.2, 0.5, 0.1]), np.zeros(4)
    data = batches()
    for inputs, scores in data:
        x, q = inputs.numpy(), scores.numpy()
        pairs = [(i, j) for i in range(len(q)) for j in range(i + 1, len(q))]
        gradient = sum(slope(float((x[i] - x[j]) @ weight), bool(q[i] > q[j])) * (x[i] - x[j]) for i, j in pairs)
        total += measure(gradient / len(pairs))
    return total / len(data)


def measured(objective: Callable[[Tensor, Tensor], Tensor], measure: Callable[[Tensor], Tensor]) -> NDArray[Any]:
    """The same with the package's function."""
    weight = torch.tensor([0.3, -0.2, 0.5, 0.1], dtype=torch.float64, requires_grad=True)

    def objectives() -> Any:
        first, second = pairs_within_batch(5).T
        for inputs, scores in batches():
            outputs = inputs @ weight
            target = (scores[first] > scores[second]).double()
            yield objective(preference_probability(outputs[first] - outputs[second]), target)

    found: NDArray[Any] = gradient_importance(objectives(), {"w": weight}, measure)["w"].numpy()
    return found


def test_importance_of_ewc_is_the_squared_gradient_of_the_fidelity_loss() -> None:
    def slope(d: float, first_is_better: bool) -> float:
        if first_is_better:
            return -0.5 * density(d) / math.sqrt(chance(d) + 1e-8)
        return 0.5 * density(d) / math.sqrt(1 - chance(d) + 1e-8)

    assert measured(fidelity_loss, torch.square) == pytest.approx(reference(slope, np.square), rel=1e-6)


def test_importance_of_mas_is_the_absolute_gradient_of_the_squared_probability() -> None:
    found = measured(lambda probability, target: probability.square().mean(), torch.abs)
    assert found == pytest.approx(reference(lambda d, _: 2 * chance(d) * density(d), np.abs), rel=1e-6)


def test_importance_of_ewc_end_to_end(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    """Whole images in one batch of all pairs: the importance kept is the gradient of one plain forward pass, squared."""
    task = pictures("a", count=8)
    model = learn("ewc", [task], crop=0, flip=False, batch_size=8, head_start="shared")
    network = copy.deepcopy(model.backbone.module)
    network.load_state_dict(model.shared, strict=False)
    network.requires_grad_(True)
    images = [prepare(task.image(index), model.adapters[0].preprocessing)[0][None] for index in range(8)]
    found: list[Features] = [network(image) for image in images]
    outputs = torch.cat([head_input(features, "all-stages") for features in found]) @ model.adapters[0].head_weight[0]
    scores = torch.tensor([task.sample(index).score for index in range(8)])
    first, second = pairs_within_batch(8).T
    loss = fidelity_loss(preference_probability(outputs[first] - outputs[second]), (scores[first] > scores[second]).float())
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        kept = model.memory[f"importance/{name}"]
        assert torch.allclose(kept, parameter.grad.square(), rtol=1e-2, atol=1e-9 + 1e-4 * float(kept.max())), name
    assert not any("head" in name for name in model.memory)


@pytest.mark.parametrize("name", ["ewc", "mas", "si"])
def test_importance_is_summed_over_tasks(name: str, learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    """With a strength of 0 the second task is learned as without memory, so what is added is its own."""
    settings = {"head_start": "shared", "strength": 0.0, "averaging": 0.0}
    model = learn(name, [pictures("a")], **settings)
    first = dict(model.memory)
    again = copy.deepcopy(model)
    again.memory = {}
    both, alone = (held.fit(pictures("b", seed=1)).memory for held in (model, again))
    assert both.keys() == first.keys() == alone.keys()
    assert all(torch.equal(both[key], alone[key] + first[key]) for key in both)
    assert all(bool((tensor >= 0).all()) for tensor in both.values())
    assert any(bool((tensor > 0).any()) for tensor in first.values())


def test_the_pull_is_the_gradient_of_the_penalty() -> None:
    rng = torch.Generator().manual_seed(0)
    weight, anchor, other = (torch.randn(5, generator=rng) for _ in range(3))
    importance = torch.rand(5, generator=rng)
    weight.requires_grad_(True)
    penalty = 7.0 * (importance * (weight - anchor).square()).sum()
    loss = (weight * other).sum()
    (expected,) = torch.autograd.grad(loss + penalty, weight, retain_graph=True)
    loss.backward()  # type: ignore[no-untyped-call]
    pull({"w": weight}, {"w": anchor}, {"w": importance}, 7.0)
    assert weight.grad is not None
    assert torch.allclose(weight.grad, expected, atol=1e-6)


def test_the_path_of_si_against_a_plain_loop() -> None:
    """A quadratic bowl, descended with momentum, under a penalty that the path must not see."""
    curvature, anchor, old = np.array([1.0, 4.0, 0.2]), np.array([0.5, -1.0, 2.0]), np.array([0.3, 0.0, 1.0])
    weight = torch.tensor(anchor, requires_grad=True)
    method = Si(strength=2.0, damping=0.1)
    memory = {"importance/w": torch.tensor(old)}
    start = {"w": torch.tensor(anchor)}
    training: Any = SimpleNamespace(
        start=start, parameters={"w": weight}, device="cpu", context=SimpleNamespace(memory=memory)
    )
    method.begin(training)
    optimiser = torch.optim.SGD([weight], lr=0.05, momentum=0.5)
    w, velocity, path = anchor.copy(), np.zeros(3), np.zeros(3)
    for _ in range(20):
        optimiser.zero_grad()
        (0.5 * torch.tensor(curvature) * weight.square()).sum().backward()  # type: ignore[no-untyped-call]
        method.before_update({"w": weight})
        optimiser.step()
        method.after_update({"w": weight})
        gradient = curvature * w
        velocity = 0.5 * velocity + gradient + 2 * 2.0 * old * (w - anchor)
        path -= gradient * (-0.05 * velocity)
        w = w - 0.05 * velocity
    assert weight.detach().numpy() == pytest.approx(w)
    state = method.state()
    assert state["w"].numpy() == pytest.approx(path)
    expected = old + np.maximum(path, 0) / ((w - anchor) ** 2 + 0.1)
    kept = method.memory(training, {"w": weight.detach()}, state)
    assert kept["importance/w"].numpy() == pytest.approx(expected)
    assert (path > 0).all()


def test_a_path_uphill_counts_as_nothing() -> None:
    found = path_importance({"w": torch.tensor([-1.0, 1.0])}, {"w": torch.ones(2)}, {"w": torch.zeros(2)}, 1.0)
    assert found["w"].tolist() == [0.0, 0.5]


def test_the_loss_of_lwf_is_nothing_at_the_start_and_grows(
    learn: Callable[..., Any], pictures: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Watched(KeptPredictions):
        def loss(self, *arguments: Any) -> Tensor | None:
            found = super().loss(*arguments)
            seen.append(math.nan if found is None else float(found.detach()))
            return found

    monkeypatch.setattr("iqakit_baselines.methods.KeptPredictions", Watched)
    model = learn("lwf", [pictures("a")], learning_rate=0.01)
    assert all(math.isnan(value) for value in seen)  # nothing is old yet
    seen.clear()
    model.fit(pictures("b", seed=1, upside_down=True))
    assert abs(seen[0]) < 1e-5
    assert max(seen[1:]) > 1e-4


def test_the_loss_of_lwf_is_summed_over_old_heads() -> None:
    rng = torch.Generator().manual_seed(0)
    new, old = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng)
    heads = [torch.randn(3, generator=rng) for _ in range(2)]
    expected = 0.0
    for head in heads:
        terms = []
        for i in range(4):
            for j in range(i + 1, 4):
                p, g = (chance(float((x[i] - x[j]) @ head)) for x in (new, old))
                terms.append(1 - math.sqrt(p * g + 1e-8) - math.sqrt((1 - p) * (1 - g) + 1e-8))
        expected += sum(terms) / len(terms)
    found = kept_predictions_loss(new, old, heads, pairs_within_batch(4))
    assert float(found) == pytest.approx(expected, abs=1e-5)
