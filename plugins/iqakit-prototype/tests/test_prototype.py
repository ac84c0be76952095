"""The combiner ``prototype`` against ten plain lines, and what it says to bad requests."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from iqakit_prototype import PrototypeConfig, iqakit_combiners
from torch import Tensor
from torch.nn.functional import normalize

from iqakit.contracts import Combiner, CombinerEntry
from iqakit.errors import ConfigurationError, MismatchError


def features(images: int, seed: int, centre: int = 0) -> list[Tensor]:
    """Two stages of unit vectors around a direction of their own."""
    rng = torch.Generator().manual_seed(seed)
    return [normalize(torch.eye(width)[centre] + 0.3 * torch.randn(images, width, generator=rng)) for width in (6, 10)]


def entry() -> CombinerEntry:
    """The record that the plugin gives."""
    (only,) = iqakit_combiners()
    return only


def made(**settings: float) -> Combiner:
    """The combiner with some settings."""
    combiner: Combiner = entry().create(entry().config(**settings))
    return combiner


def test_registration_loads_no_torch() -> None:
    """Listing plugins must stay quick."""
    code = "import sys, iqakit_prototype as p; list(p.iqakit_combiners()); print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert found.stdout.strip() == "False"
    assert isinstance(made(), Combiner)


def test_weights_are_the_softmin_of_distances_to_the_means() -> None:
    """Written out for one image at a time."""
    combiner = made(temperature=5.0)
    learned = {"lab": features(7, seed=0), "web": features(9, seed=1, centre=1)}
    state: dict[str, Tensor] = {}
    for task, seen in learned.items():
        state = dict(combiner.fit_task(state, task, seen))
    new = features(5, seed=2)
    found = combiner.weights(state, ["lab", "web"], new, None)
    for row in range(5):
        shares = []
        for stage in range(2):
            away = [math.dist(new[stage][row].tolist(), seen[stage].mean(0).tolist()) for seen in learned.values()]
            powers = [math.exp(-5.0 * distance) for distance in away]
            shares.append([power / sum(powers) for power in powers])
        expected = [(a + b) / 2 for a, b in zip(*shares, strict=True)]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)


def test_state_is_one_mean_a_stage() -> None:
    """A few hundred numbers a task on a real backbone, here 6 + 10."""
    state = made().fit_task({}, "lab", features(50, seed=0))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"lab/mean1": (6,), "lab/mean2": (10,)}


def test_each_task_wins_on_its_own_images_and_temperature_0_is_the_average() -> None:
    """What the setting does."""
    state = made().fit_task(made().fit_task({}, "lab", features(30, 0)), "web", features(30, 1, centre=1))
    for centre in (0, 1):
        weights = made().weights(state, ["lab", "web"], features(20, seed=3, centre=centre), None)
        assert bool((weights.argmax(1) == centre).all())
    flat = made(temperature=0).weights(state, ["lab", "web"], features(20, seed=3), None)
    assert torch.allclose(flat, torch.full((20, 2), 0.5))


def test_bad_requests_get_one_line() -> None:
    """What was asked, what was found, what to do."""
    combiner, seen = made(), features(4, seed=0)
    state = combiner.fit_task({}, "lab", seen)
    with pytest.raises(ConfigurationError, match="from 0 images; give it at least one"):
        combiner.fit_task({}, "lab", [stage[:0] for stage in seen])
    with pytest.raises(ConfigurationError, match="stage 2 are not all finite"):
        combiner.fit_task({}, "lab", [seen[0], seen[1] / 0])
    with pytest.raises(ConfigurationError, match=r"knows nothing of task 'web' \(web/mean1 is missing\)"):
        combiner.weights(state, ["lab", "web"], seen, None)
    with pytest.raises(ConfigurationError, match="there is none; learn a task first"):
        combiner.weights(state, [], seen, None)
    with pytest.raises(ConfigurationError, match=r"all of the same N; found shapes \[\(4, 6\), \(2, 10\)\]"):
        combiner.weights(state, ["lab"], [seen[0], seen[1][:2]], None)
    with pytest.raises(MismatchError, match="score with the backbone that the task was learned on"):
        combiner.weights(state, ["lab"], seen[::-1], None)
    for temperature in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match="temperature must be finite and 0 or more"):
            PrototypeConfig(temperature)
