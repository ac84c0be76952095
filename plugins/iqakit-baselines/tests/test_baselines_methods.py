"""What tells the methods apart, and what they say to bad requests."""

# ruff: noqa: D103 - names of tests say what they hold

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from iqakit_baselines import BaselineConfig, ReplayConfig, SiConfig, iqakit_adapters
from iqakit_baselines.extras import Extra
from iqakit_baselines.trainer import Training

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Adapter
from iqakit.errors import ConfigurationError, MismatchError, TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.overlay import overlay_call
from iqakit.imaging.tensors import prepare


def figure(model: Any, adapter: Adapter, task: int) -> float:
    """SRCC of one head on one task's validation images, under the model's tensors."""
    data, outputs = model.data[task].validation, []
    for index in range(len(data)):
        image, _ = prepare(data.image(index), adapter.preprocessing)
        features = overlay_call(model.backbone.module, {**model.shared, **adapter.tensors}, image[None])
        outputs.append(head_scores(head_input(features, adapter.features), adapter.head_weight, None, "cosine"))
    return float(srcc(torch.cat(outputs), human_scores(data)))


def test_sequential_forgets_and_separate_does_not(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    """The second task is the first with its scores turned round."""
    tasks = [pictures("a", count=24), pictures("b", count=24, seed=1, upside_down=True)]
    settings = {"epochs": 12, "learning_rate": 0.02, "averaging": 0.0}
    forgetful = learn("sequential", tasks, **settings)
    assert forgetful.results[0].adapter.provenance["validation_srcc"] > 0.8
    assert figure(forgetful, forgetful.adapters[-1], 1) > 0.5
    assert figure(forgetful, forgetful.adapters[-1], 0) < -0.5
    kept = learn("separate", tasks, **settings)
    assert figure(kept, kept.adapters[0], 0) == kept.adapters[0].provenance["validation_srcc"]
    assert figure(kept, kept.adapters[0], 0) > 0.8
    assert figure(kept, kept.adapters[1], 1) > 0.8


def test_separate_does_not_depend_on_what_came_before(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    alone = learn("separate", [pictures("b", seed=1)])
    after = learn("separate", [pictures("a"), pictures("b", seed=1)])
    one, other = alone.adapters[0], after.adapters[1]
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
    assert torch.equal(one.head_weight, other.head_weight)


def test_joint_learns_from_all_tasks_and_compares_only_within_them(
    learn: Callable[..., Any], pictures: Callable[..., Any]
) -> None:
    first, second = pictures("a", count=9), pictures("b", count=12, seed=1)
    model = learn("joint", [first], head_start="shared")
    first.read.clear()
    model.fit(second)
    assert first.read == set(range(9))
    assert second.read == set(range(12))
    context = model.context(pictures("c", count=10, seed=2))
    tasks = model.made.tasks(context)
    assert [task.task for task in tasks] == ["a", "b", "c"]
    training = Training(BaselineConfig(crop=32, batch_size=4), context, tasks, {}, None, Extra())
    found = training.batches(1, training.generator(1, 0))
    for number, count in enumerate((9, 12, 10)):
        seen = [image for task, batch in found if task == number for image in batch.images]
        assert sorted(seen) == list(range(count))  # a batch is of one task, and so are its pairs
    assert [task for task, _ in found] != sorted(task for task, _ in found)


def test_joint_starts_again_from_the_pretrained_network(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn("joint", [pictures("a"), pictures("b", seed=1)], epochs=0)
    own = model.backbone.module.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.shared.items())
    assert figure(model, model.adapters[1], 0) > 0.5  # one head for both, from ridge regression on both
    assert figure(model, model.adapters[1], 1) > 0.5


def test_sequential_goes_on_from_the_last_head_and_network(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn("sequential", [pictures("a")])
    head, shared = model.adapters[0].head_weight, dict(model.shared)
    model.settings["epochs"] = 0
    model.fit(pictures("b", seed=1))
    assert torch.equal(model.adapters[1].head_weight, head)
    assert all(torch.equal(shared[name], model.shared[name]) for name in shared)


@pytest.mark.parametrize("name", ["lwf", "ewc", "si", "mas", "replay"])
def test_without_strength_it_is_sequential_heads_to_the_bit(
    name: str, learn: Callable[..., Any], pictures: Callable[..., Any]
) -> None:
    tasks = [pictures("a"), pictures("b", seed=1)]
    plain, other = learn("sequential-heads", tasks), learn(name, tasks, strength=0.0)
    assert torch.equal(plain.adapters[1].head_weight, other.adapters[1].head_weight)
    assert plain.shared.keys() == other.shared.keys()
    assert all(torch.equal(plain.shared[key], other.shared[key]) for key in plain.shared)


@pytest.mark.parametrize("name", ["ewc", "si", "mas"])
def test_with_all_strength_important_weights_stay(
    name: str, learn: Callable[..., Any], pictures: Callable[..., Any]
) -> None:
    """The weight that mattered most goes less far than without the penalty."""
    tasks = [pictures("a"), pictures("b", seed=1, upside_down=True)]

    def way(strength: float) -> float:
        model = learn(name, tasks[:1], strength=strength, head_start="shared", learning_rate=0.01, averaging=0.0)
        before, importance = dict(model.shared), dict(model.memory)
        model.fit(tasks[1])
        return sum(
            float((importance[f"importance/{key}"] * (model.shared[key] - before[key]).square()).sum())
            for key in before
            if f"importance/{key}" in importance
        )

    assert way(1e7) < 0.5 * way(0.0)


def test_replay_keeps_bytes_within_its_budget(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    tasks = [pictures(name, count=count, seed=seed) for seed, (name, count) in enumerate((("a", 14), ("b", 14), ("c", 3)))]
    model = learn("replay", tasks[:1], budget=12)
    first = model.memory["replay/a/pixels"]
    assert (first.dtype, tuple(first.shape)) == (torch.uint8, (12, 3, 32, 32))
    for task in tasks[1:]:
        model.fit(task)
    pixels = {key: tensor for key, tensor in model.memory.items() if key.endswith("pixels")}
    assert {key: len(tensor) for key, tensor in pixels.items()} == {
        "replay/a/pixels": 4,
        "replay/b/pixels": 4,
        "replay/c/pixels": 3,
    }
    assert all(tensor.dtype == torch.uint8 for tensor in pixels.values())
    assert torch.equal(model.memory["replay/a/pixels"], first[:4])
    for task in tasks:
        scores = {round(task.sample(index).score, 4) for index in range(len(task))}
        assert {round(float(score), 4) for score in model.memory[f"replay/{task.name}/scores"]} <= scores
    apart = learn("replay", tasks[:2], budget=5, budget_of="task", replay_side=36)
    assert tuple(apart.memory["replay/a/pixels"].shape) == tuple(apart.memory["replay/b/pixels"].shape) == (5, 3, 36, 36)


def test_replay_learns_from_what_it_kept(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    """Whatever lies in its memory decides what it learns."""
    model, other = (learn("replay", [pictures("a")]) for _ in range(2))
    other.memory = {key: -tensor if key.endswith("scores") else tensor for key, tensor in other.memory.items()}
    one, two = (held.fit(pictures("b", seed=1)) for held in (model, other))
    assert one.history[1]["loss"] != two.history[1]["loss"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["fidelity", "fidelity+plcc"])
def test_training_learns(precision: str, loss: str, learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn(
        "separate",
        [pictures("a", count=24)],
        head_start="shared",
        features="embedding",
        epochs=6,
        learning_rate=0.02,
        precision=precision,
        loss=loss,
        target="continuous",
        pairs="sampled",
        pair_count=60,
    )
    losses = [record["loss"] for record in model.results[0].history]
    assert losses[-1] < 0.7 * losses[0]
    assert model.adapters[0].provenance["validation_srcc"] > 0.8


def test_models_of_other_methods_are_refused(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    for name in (entry.name for entry in iqakit_adapters()):
        model = learn("separate", [pictures("a")], epochs=0)
        model.method = name
        if name == "separate":
            model.fit(pictures("b"))
            continue
        with pytest.raises(
            ConfigurationError, match=r"would spoil task 'a', learned by separate; fit into another --model"
        ):
            model.fit(pictures("b"))


def test_another_head_input_is_refused(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn("sequential", [pictures("a")], epochs=0)
    model.settings["features"] = "embedding"
    with pytest.raises(
        ConfigurationError, match=r"task 'a' was learned with features=all-stages.*--set features=all-stages"
    ):
        model.fit(pictures("b"))


def test_divergence_is_one_line(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match=r"training 'a' diverged: .*\(--set learning_rate=1e\+29\)$"):
        learn("sequential", [pictures("a")], learning_rate=1e30)


def test_equal_scores_are_one_line(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    task = pictures("a", count=1)
    with pytest.raises(TrainingError, match="all 1 training scores are equal"):
        learn("separate", [task])


def test_lost_memory_is_one_line(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    model = learn("replay", [pictures("a")], epochs=0)
    model.memory = {}
    with pytest.raises(MismatchError, match=r"kept no image of task 'a'; fit the tasks again into another --model"):
        model.fit(pictures("b"))


def test_a_budget_too_small_for_pairs_is_one_line(learn: Callable[..., Any], pictures: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"a budget of 3 images for 2 tasks .* \(--set budget=20\)"):
        learn("replay", [pictures("a"), pictures("b")], epochs=0, budget=3)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (BaselineConfig, {"epochs": -1}, "epochs must be a finite number of at least 0, but it is -1"),
        (BaselineConfig, {"batch_size": 1}, "batch_size must be a finite number of at least 2, but it is 1"),
        (BaselineConfig, {"learning_rate": float("nan")}, "learning_rate must be a finite number of at least 0"),
        (BaselineConfig, {"crop": 16}, "crop must be at least 32, or 0 for whole images, but it is 16"),
        (BaselineConfig, {"crop": 0, "update_statistics": "always"}, "with crop=0 set update_statistics=never, not always"),
        (BaselineConfig, {"averaging": 1.0}, "averaging must be at least 0 and below 1, but it is 1.0"),
        (SiConfig, {"damping": 0.0}, "damping must be a finite number above 0, but it is 0.0"),
        (SiConfig, {"strength": -1.0}, "strength must be a finite number of at least 0, but it is -1.0"),
        (ReplayConfig, {"budget": 1}, "budget must be a finite number of at least 2, but it is 1"),
        (ReplayConfig, {"crop": 0}, "with crop=0 set replay_side, such as replay_side=224"),
        (ReplayConfig, {"replay_side": 64}, "replay_side must be 0 or at least 384"),
    ],
)
def test_bad_settings_are_one_line(config: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        config(**settings)
    assert "\n" not in str(caught.value)
