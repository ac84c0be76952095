"""What every combiner in the catalog promises, whoever brings it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from iqakit.contracts import Combiner, CombinerEntry
from iqakit.errors import ConfigurationError, IqakitError, UnknownNameError
from iqakit.plugins.catalog import catalog, describe_settings, make_config
from iqakit.storage.canonical_json import canonical_json

ENTRIES = {name: part.entry for name, part in catalog().combiners.items()}
TASKS = ("lab", "phone", "web")
TRUE = ("lab", "web", "phone") * 3
each_combiner = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


def gate_features(images: int, seed: int, centre: int = 0) -> list[Tensor]:
    """Two stages of unit vectors around a direction of their own."""
    rng = torch.Generator().manual_seed(seed)
    return [normalize(torch.eye(width)[centre] + 0.3 * torch.randn(images, width, generator=rng)) for width in (6, 10)]


NEW = gate_features(9, seed=9, centre=1)


def made(entry: CombinerEntry) -> Combiner:
    combiner = entry.create(entry.config())
    assert isinstance(combiner, Combiner)
    return combiner


def learned(entry: CombinerEntry, tasks: tuple[str, ...] = TASKS) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = {}
    for task in tasks:
        number = TASKS.index(task)
        state = made(entry).fit_task(state, task, gate_features(30, seed=number, centre=number))
    return state


def test_there_are_combiners() -> None:
    assert {"kmeans", "oracle", "average", "last"} <= set(ENTRIES)


@each_combiner
def test_weights_are_shares(entry: CombinerEntry) -> None:
    weights = made(entry).weights(learned(entry), TASKS, NEW, TRUE)
    assert weights.shape == (9, 3)
    assert weights.dtype == torch.float32
    assert bool((weights >= 0).all())
    assert torch.allclose(weights.sum(dim=1), torch.ones(9), atol=1e-6)
    assert torch.equal(made(entry).weights(learned(entry, ("lab",)), ["lab"], NEW, ["lab"] * 9), torch.ones(9, 1))


@each_combiner
def test_state_is_named_by_task_and_what_was_known_stays(
    entry: CombinerEntry, untouched_global_state: Callable[[], None]
) -> None:
    state = learned(entry, TASKS[:2])
    copies = {name: tensor.clone() for name, tensor in state.items()}
    features = gate_features(30, seed=2, centre=2)
    kept = [stage.clone() for stage in features]
    after = made(entry).fit_task(state, "web", features)
    made(entry).weights(after, TASKS, NEW, TRUE)
    assert set(state) == set(copies)
    for name, copy in copies.items():
        assert torch.equal(state[name], copy)
        assert torch.equal(after[name], copy)
    for name in set(after) - set(state):
        assert name.startswith("web/")
        assert after[name].device.type == "cpu"
    assert all(torch.equal(a, b) for a, b in zip(features, kept, strict=True))
    untouched_global_state()


@each_combiner
def test_learning_repeats(entry: CombinerEntry) -> None:
    once, again = learned(entry), learned(entry)
    assert list(once) == list(again)
    assert all(torch.equal(once[name], again[name]) for name in once)


@each_combiner
def test_a_row_depends_on_its_own_image_alone(entry: CombinerEntry) -> None:
    state = learned(entry)
    whole = made(entry).weights(state, TASKS, NEW, TRUE)
    for row in range(9):
        one = [stage[row : row + 1] for stage in NEW]
        assert torch.equal(made(entry).weights(state, TASKS, one, TRUE[row : row + 1]), whole[row : row + 1])
    assert made(entry).weights(state, TASKS, [stage[:0] for stage in NEW], []).shape == (0, 3)


@each_combiner
def test_bad_requests_get_one_line(entry: CombinerEntry) -> None:
    state = learned(entry)
    for tasks, features in (((), NEW), (TASKS, []), (TASKS, [NEW[0], NEW[1][:4]])):
        with pytest.raises(ConfigurationError) as caught:
            made(entry).weights(state, tasks, features, TRUE)
        assert "\n" not in str(caught.value)
    if state:
        with pytest.raises(IqakitError, match="'nobody'"):
            made(entry).weights(state, (*TASKS, "nobody"), NEW, TRUE)


@each_combiner
def test_settings_are_plain_and_refused_where_they_are_wrong(entry: CombinerEntry) -> None:
    canonical_json(asdict(entry.config()))
    assert make_config(entry, {}) == entry.config()
    with pytest.raises(UnknownNameError, match=f"no setting of {entry.name} is named 'no_such_setting'"):
        make_config(entry, {"no_such_setting": "1"})
    for setting in describe_settings(entry):
        if "a text" not in setting.wanted and "a path" not in setting.wanted:
            with pytest.raises(ConfigurationError, match=rf"^{setting.name}=\?! of {entry.name}: .+ is wanted$"):
                make_config(entry, {setting.name: "?!"})
