"""What every combiner promises, held against the four built-in ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from iqakit.combiners import iqakit_combiners
from iqakit.contracts import Combiner, CombinerEntry
from iqakit.errors import ConfigurationError

ENTRIES = {entry.name: entry for entry in iqakit_combiners()}
TASKS = ("lab", "phone", "web")


def gate_features(images: int, seed: int, centre: int = 0) -> tuple[Tensor, Tensor]:
    """Two stages of unit vectors around a direction of their own."""
    rng = torch.Generator().manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        normalize(torch.eye(width)[centre] + 0.3 * torch.randn(images, width, generator=rng), dim=1) for width in (6, 10)
    )


def small(entry: CombinerEntry) -> Combiner:
    settings = {"clusters": 8, "repeats": 2} if entry.name == "kmeans" else {}
    return entry.create(entry.config(**settings))


def learned(combiner: Combiner, tasks: tuple[str, ...] = TASKS) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = {}
    for task in tasks:
        number = TASKS.index(task)
        state = combiner.fit_task(state, task, gate_features(30, seed=number, centre=number))
    return state


@pytest.fixture(params=sorted(ENTRIES))
def combiner(request: pytest.FixtureRequest) -> Combiner:
    return small(ENTRIES[request.param])


NEW = gate_features(9, seed=9, centre=1)
TRUE = ("lab", "web", "phone") * 3


def test_the_four_are_registered() -> None:
    assert sorted(ENTRIES) == ["average", "kmeans", "last", "oracle"]
    for entry in ENTRIES.values():
        assert isinstance(entry.create(entry.config()), Combiner)
        assert entry.summary
        assert dataclasses.is_dataclass(entry.config)
        assert all(isinstance(f.default, bool | int | float | str) for f in dataclasses.fields(entry.config))
        if dataclasses.fields(entry.config):
            with pytest.raises(dataclasses.FrozenInstanceError):
                entry.config().seed = 1


def test_registration_loads_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, iqakit.combiners as c; e = list(c.iqakit_combiners()); [x.config() for x in e]; "
        "bad = {'torch', 'timm', 'sklearn', 'numpy'} & set(sys.modules); assert len(e) == 4 and not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_rows_sum_to_one_and_are_not_negative(combiner: Combiner) -> None:
    weights = combiner.weights(learned(combiner), TASKS, NEW, TRUE)
    assert weights.shape == (9, 3)
    assert weights.dtype == torch.float32
    assert bool((weights >= 0).all())
    assert torch.allclose(weights.sum(dim=1), torch.ones(9), atol=1e-6)


def test_earlier_tasks_stay_and_the_given_state_is_not_touched(combiner: Combiner) -> None:
    state = learned(combiner, TASKS[:2])
    names, copies = list(state), {name: tensor.clone() for name, tensor in state.items()}
    features = gate_features(30, seed=2, centre=2)
    kept = [stage.clone() for stage in features]
    after = combiner.fit_task(state, "web", features)
    assert after is not state
    assert list(state) == names
    for name, copy in copies.items():
        assert torch.equal(state[name], copy)
        assert torch.equal(after[name], copy)
    assert all(name.startswith("web/") for name in set(after) - set(names))
    assert all(torch.equal(a, b) for a, b in zip(features, kept, strict=True))


def test_weighing_touches_nothing(combiner: Combiner) -> None:
    state = learned(combiner)
    copies = {name: tensor.clone() for name, tensor in state.items()}
    combiner.weights(state, TASKS, NEW, TRUE)
    assert list(state) == list(copies)
    assert all(torch.equal(state[name], copy) for name, copy in copies.items())


def test_a_permutation_of_tasks_permutes_the_columns(combiner: Combiner, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["combiner"] == "last":
        pytest.skip("the last task is a matter of order")
    state, order = learned(combiner), [2, 0, 1]
    weights = combiner.weights(state, TASKS, NEW, TRUE)
    permuted = combiner.weights(state, [TASKS[i] for i in order], NEW, TRUE)
    assert torch.allclose(permuted, weights[:, order], atol=1e-6)


def test_weights_do_not_depend_on_the_order_of_learning(combiner: Combiner) -> None:
    there, back = learned(combiner), learned(combiner, TASKS[::-1])
    assert torch.equal(combiner.weights(there, TASKS, NEW, TRUE), combiner.weights(back, TASKS, NEW, TRUE))


def test_a_row_does_not_depend_on_the_other_images(combiner: Combiner) -> None:
    state = learned(combiner)
    whole = combiner.weights(state, TASKS, NEW, TRUE)
    for row in range(9):
        alone = combiner.weights(state, TASKS, [stage[row : row + 1] for stage in NEW], TRUE[row : row + 1])
        assert torch.equal(alone, whole[row : row + 1])


def test_a_single_task_has_all_the_weight(combiner: Combiner) -> None:
    state = learned(combiner, ("lab",))
    assert torch.equal(combiner.weights(state, ["lab"], NEW, ["lab"] * 9), torch.ones(9, 1))


def test_no_image_is_no_row(combiner: Combiner) -> None:
    assert combiner.weights(learned(combiner), TASKS, [stage[:0] for stage in NEW], []).shape == (0, 3)


def test_bad_requests_are_named(combiner: Combiner) -> None:
    state = learned(combiner)
    with pytest.raises(ConfigurationError, match="there is none; learn a task first"):
        combiner.weights(state, [], NEW, [])
    with pytest.raises(ConfigurationError, match=r"all of the same N; found shapes \[\]"):
        combiner.weights(state, TASKS, [], TRUE)
    with pytest.raises(ConfigurationError, match=r"found shapes \[\(9, 6\), \(4, 10\)\]"):
        combiner.weights(state, TASKS, [NEW[0], NEW[1][:4]], TRUE)
