"""What every fit method promises: nothing it was given changes, it repeats, and a killed run goes on to the same bits."""

# ruff: noqa: D103 - names of tests say what they hold

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from iqakit_baselines import iqakit_adapters
from torch import Tensor

from iqakit.contracts import FitMethod, FitResult

NAMES = [entry.name for entry in iqakit_adapters()]
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def tensors(result: FitResult) -> dict[str, Tensor]:
    """Everything that is stored."""
    groups = {"adapter": result.adapter.tensors, "shared": result.replaced or {}, "memory": result.memory or {}}
    found = {f"{group} {name}": tensor for group, held in groups.items() for name, tensor in held.items()}
    return {**found, "head": result.adapter.head_weight}


def same(one: FitResult, other: FitResult) -> bool:
    """The same names and bits."""
    first, second = tensors(one), tensors(other)
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and one.history == other.history
    )


def test_registration_loads_no_torch() -> None:
    code = "import sys, iqakit_baselines as b; [e.config() for e in b.iqakit_adapters()]; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert found.stdout.strip() == "False"


def test_nine_methods_of_which_one_is_independent_and_one_sees_everything() -> None:
    entries = {entry.name: entry for entry in iqakit_adapters()}
    assert list(entries) == ["separate", "joint", "sequential", "sequential-heads", "lwf", "ewc", "si", "mas", "replay"]
    assert [name for name, entry in entries.items() if entry.independent] == ["separate"]
    assert [name for name, entry in entries.items() if entry.needs_earlier_data] == ["joint"]
    assert all(isinstance(entry.create(entry.config()), FitMethod) for entry in entries.values())


def test_hyper_parameters_are_those_of_the_comparison() -> None:
    defaults = {entry.name: entry.config() for entry in iqakit_adapters()}
    found = {name: defaults[name].strength for name in ("lwf", "ewc", "si", "mas")}
    assert found == {"lwf": 10, "ewc": 10_000, "si": 1000, "mas": 10}
    assert defaults["si"].damping == 0.1


def test_every_setting_is_documented() -> None:
    for entry in iqakit_adapters():
        documented: set[str] = set()
        for kind in entry.config.__mro__[:-1]:
            documented |= set(re.findall(r"^        (\w+): ", kind.__doc__ or "", flags=re.MULTILINE))
        names = {field.name for field in dataclasses.fields(entry.config)}
        assert names <= documented
        assert all(f"`{name}" in README for name in names - {"replay_side"}), names
        assert f"| `{entry.name}` |" in README


@pytest.mark.parametrize("name", NAMES)
def test_nothing_that_was_given_changes(name: str, learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    random_state = torch.get_rng_state().clone()
    model = learn(name, [pictures("a")])
    module = model.backbone.module
    before, modes = model.backbone.fingerprint(), [layer.training for layer in module.modules()]
    given = {key: tensor.clone() for key, tensor in {**model.shared, **model.memory}.items()}
    held = {**model.shared, **model.memory}
    model.fit(pictures("b", seed=1))
    assert model.backbone.fingerprint() == before
    assert [layer.training for layer in module.modules()] == modes
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(given[key], held[key]) for key in given)
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_repeats_under_one_seed_and_differs_under_another(
    name: str, learn: Callable[..., Any], pictures: Callable[..., Any]
) -> None:
    one, two, other = (
        learn(name, [pictures("a"), pictures("b", seed=1)], seed=seed, head_start="shared") for seed in (3, 3, 4)
    )
    assert all(same(*pair) for pair in zip(one.results, two.results, strict=True))
    assert not same(one.results[1], other.results[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_to_what_an_uncut_run_gives(
    name: str,
    learn: Callable[..., Any],
    pictures: Callable[..., Any],
    dying: Callable[..., Any],
    killed: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("iqakit.adapters.epoch_training.SAVE_EVERY", 1)  # so that cuts fall inside an epoch
    settings = {"update_statistics": "first-epoch"}
    whole = learn(name, [pictures("a"), pictures("b", seed=1)], **settings)
    cut = learn(name, [pictures("a")], **settings)
    checkpoint = dying(0)
    for after in (1, 2):
        checkpoint.left = after
        with pytest.raises(killed):
            cut.fit(pictures("b", seed=1), checkpoint)
    checkpoint.left = 0
    assert same(whole.results[1], cut.fit(pictures("b", seed=1), checkpoint))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_belongs_to_the_network(name: str, learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn(name, [pictures("a")], head_start="shared", averaging=0.0)
    (result,), own = model.results, model.backbone.module.state_dict()
    stored = result.adapter.tensors if name == "separate" else result.replaced
    assert (result.replaced is None) == (name == "separate")
    assert bool(result.adapter.tensors) == (name == "separate")
    assert {key for key, tensor in own.items() if tensor.is_floating_point() and "running" not in key} <= set(stored)
    assert all(stored[key].shape == own[key].shape and stored[key].dtype == own[key].dtype for key in stored)
    assert any(not torch.equal(stored[key], own[key]) for key in stored)
    assert not any(tensor.requires_grad for tensor in tensors(result).values())
    # Statistics stay where batch norm does not use the batch's; only the adapter that must be whole repeats them.
    assert any("running" in key for key in stored) == (name == "separate")


def test_statistics_that_moved_are_stored(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn("sequential-heads", [pictures("a")], head_start="shared", update_statistics="always")
    assert {key.rpartition(".")[2] for key in model.shared} == {"weight", "bias", "running_mean", "running_var"}


def test_the_best_epoch_is_kept_whole(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    """The figure in the record is that of the weights and head handed back, on the validation images."""
    from iqakit.adapters.training_images import human_scores
    from iqakit.functional.correlation import srcc
    from iqakit.functional.heads import head_input, head_scores
    from iqakit.functional.overlay import overlay_call
    from iqakit.imaging.tensors import prepare

    model = learn("separate", [pictures("a", count=20)], epochs=3, learning_rate=0.02, averaging=0.0)
    (result,), adapter = model.results, model.adapters[0]
    data = model.data[0].validation
    outputs = []
    for index in range(len(data)):
        image, _ = prepare(data.image(index), adapter.preprocessing)
        features = overlay_call(model.backbone.module, adapter.tensors, image[None])
        outputs.append(head_scores(head_input(features, adapter.features), adapter.head_weight, None, "cosine"))
    figure = float(srcc(torch.cat(outputs), human_scores(data)))
    assert len(result.history) == 4  # the start and three epochs
    assert figure == max(record["validation_srcc"] for record in result.history)
    assert figure == adapter.provenance["validation_srcc"]
