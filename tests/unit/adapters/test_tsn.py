"""What the method promises: what moves, what does not, what it is repeatable under, and where it stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iqakit.adapters import iqakit_adapters
from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.settings import TSN_PRESETS, TsnConfig
from iqakit.adapters.training_images import human_scores
from iqakit.adapters.tsn import SHARED_HEAD_SEED, TaskSpecificNormalization
from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import Adapter, Backbone, FitContext, FitResult
from iqakit.datasets.score_table import open_score_table
from iqakit.errors import ConfigurationError, MismatchError, TrainingError
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.overlay import overlay_call
from iqakit.functional.preference import fidelity_loss
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.imaging.tensors import prepare
from iqakit.pipeline.fitting import SilentProgress
from iqakit.pipeline.reading import bare_features
from iqakit.runtimes.torch_runtime import TorchRuntime
from iqakit.storage.checkpoint import FileCheckpoint

QUICK = TsnConfig(crop=64, epochs=2, batch_size=8, precision="float32", refit=0.0)
PUBLISHED = TsnConfig(**(TSN_PRESETS["paper-b"] | {"crop": 64, "epochs": 2, "batch_size": 8}))


class KilledError(Exception):
    """Stands in for a kill."""


class KillingCheckpoint(FileCheckpoint):
    """Dies right after the n-th save, as a killed process would."""

    def __init__(self, directory: Path, key: str, after: int) -> None:
        super().__init__(directory, key)
        self.left = after

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        super().save(tensors, state)
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.fixture
def context(rated_photos: Path, tmp_path: Path) -> Callable[..., FitContext]:
    def make(backbone: Backbone | None = None, checkpoint: FileCheckpoint | None = None, seed: int = 0) -> FitContext:
        made = backbone or create_tiny("", "random:0")
        preprocessing = preprocessing_for(made.input)
        runtime, parts = TorchRuntime(made), []
        for name in ("train", "val"):
            dataset = open_score_table(rated_photos, name, 0)
            cache = FileCheckpoint(tmp_path / name / made.id.replace(":", "-"), "key")
            parts.append(
                bare_features(runtime, dataset, preprocessing, what="", progress=SilentProgress(), workers=0, cache=cache)
            )
        (train, train_features), (validation, validation_features) = parts
        return FitContext(
            backbone=made,
            earlier=(),
            shared={},
            task="sharpness",
            train=train,
            validation=validation,
            train_features=train_features,
            validation_features=validation_features,
            preprocessing=preprocessing,
            generator=torch.Generator().manual_seed(seed),
            seed=seed,
            device="cpu",
            progress=SilentProgress(),
            checkpoint=checkpoint or FileCheckpoint(tmp_path / "checkpoint", "key"),
            workers=1,
        )

    return make


def fit(config: TsnConfig, context: FitContext) -> FitResult:
    return TaskSpecificNormalization(config).fit(context)


def same(one: Adapter, other: Adapter) -> bool:
    return (
        one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
        and torch.equal(one.head_weight, other.head_weight)
    )


def test_only_normalization_moves_and_the_backbone_stays(
    context: Callable[..., FitContext], untouched_global_state: Callable[[], None]
) -> None:
    made = context()
    before, modes = made.backbone.fingerprint(), [module.training for module in made.backbone.module.modules()]
    adapter = fit(replace(QUICK, head_start="shared", update_statistics="first-epoch"), made).adapter
    assert made.backbone.fingerprint() == before
    assert [module.training for module in made.backbone.module.modules()] == modes
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in made.backbone.module.parameters())
    assert tuple(adapter.tensors) == made.backbone.norm_tensor_names()
    own = made.backbone.module.state_dict()
    moved = {name for name, tensor in adapter.tensors.items() if not torch.equal(tensor, own[name])}
    assert {name.rpartition(".")[2] for name in moved} == {"weight", "bias", "running_mean", "running_var"}
    untouched_global_state()


def test_finished_head_is_a_unit_cosine_without_bias(context: Callable[..., FitContext]) -> None:
    adapter = fit(QUICK, context()).adapter
    assert (adapter.head_kind, adapter.head_bias) == ("cosine", None)
    assert adapter.head_weight.norm().item() == pytest.approx(1, abs=1e-6)


def test_repeats_under_one_seed_and_differs_under_another(context: Callable[..., FitContext], tmp_path: Path) -> None:
    config = replace(QUICK, head_start="shared")
    runs = [
        fit(config, context(checkpoint=FileCheckpoint(tmp_path / f"c{index}", "key"), seed=seed)).adapter
        for index, seed in enumerate((3, 3, 4))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize(
    "config", [replace(QUICK, averaging=0.9), replace(PUBLISHED, warmup_epochs=1), replace(QUICK, refit=0.5, ladders=1)]
)
def test_a_killed_run_goes_on_to_what_an_uncut_run_gives(
    context: Callable[..., FitContext], tmp_path: Path, config: TsnConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqakit.adapters.epoch_training.SAVE_EVERY", 2)  # so that the cut falls inside an epoch
    config = replace(config, pair_count=24, warmup_batch_size=8)
    whole = fit(config, context(checkpoint=FileCheckpoint(tmp_path / "whole", "key")))
    for after in (1, 1, 2):
        with pytest.raises(KilledError):
            fit(config, context(checkpoint=KillingCheckpoint(tmp_path / "cut", "key", after)))
    resumed = fit(config, context(checkpoint=FileCheckpoint(tmp_path / "cut", "key")))
    assert same(whole.adapter, resumed.adapter)
    assert whole.history == resumed.history


def test_best_epoch_is_kept_whole(context: Callable[..., FitContext]) -> None:
    """The adapter's own validation SRCC is the best of its history: weights, statistics and head are of one epoch."""
    made = context()
    result = fit(replace(QUICK, epochs=3, learning_rate=0.05), made)
    best = max(record["validation_srcc"] for record in result.history)
    outputs = []
    for index in range(len(made.validation)):
        image, _ = prepare(made.validation.image(index), made.preprocessing)
        features = overlay_call(made.backbone.module, result.adapter.tensors, image[None])
        outputs.append(head_scores(head_input(features, "all-stages"), result.adapter.head_weight, None, "cosine"))
    assert float(srcc(torch.cat(outputs), human_scores(made.validation))) == pytest.approx(best, abs=1e-6)
    assert result.adapter.provenance["validation_srcc"] == best


def test_learns_from_nothing_but_pairs(context: Callable[..., FitContext]) -> None:
    """From the shared random head, training on crops ends far better than it began."""
    made = context()
    config = replace(QUICK, head_start="shared", epochs=8, learning_rate=0.02)
    result = fit(config, made)
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.7 * losses[0]
    assert max(record["validation_srcc"] for record in result.history) > 0.8


def test_all_tasks_start_from_the_same_head(context: Callable[..., FitContext]) -> None:
    config = replace(QUICK, head_start="shared", epochs=0)
    first = fit(config, context(seed=1)).adapter
    second = fit(config, context(seed=2)).adapter
    assert torch.equal(first.head_weight, second.head_weight)
    width = first.head_weight.numel()
    uniform = torch.rand(width, generator=torch.Generator().manual_seed(SHARED_HEAD_SEED)) * 2 - 1
    assert torch.allclose(first.head_weight[0], uniform / uniform.norm(), atol=1e-6)


def test_first_loss_is_the_textbook_one(context: Callable[..., FitContext]) -> None:
    """With learning rate 0 and statistics fixed, the loss is that of the start, computed here in plain steps."""
    made = context()
    config = replace(PUBLISHED, epochs=1, warmup_epochs=0, learning_rate=0.0, pair_count=40, batch_size=40)
    result = fit(replace(config, update_statistics="never", flip=False, crop=96), made)
    # Crops of 96 are larger than the pictures of 72, so each is the whole picture enlarged: nothing is random.
    from iqakit.functional.preference import sample_pairs
    from iqakit.imaging.tensors import normalise, random_crop

    generator = torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(0)))
    pairs = sample_pairs(len(made.train), 40, torch.Generator().manual_seed(seed % 2**63))
    width = made.backbone.embedding_dim
    head = (torch.rand(width, generator=torch.Generator().manual_seed(SHARED_HEAD_SEED)) * 2 - 1) / math.sqrt(width)
    quality = []
    for index in range(len(made.train)):
        crop = random_crop(made.train.image(index), 96, generator, flip=False)
        with torch.no_grad():
            z = made.backbone.forward(normalise(crop, made.preprocessing)[None]).embedding[0]
        quality.append(float((z / z.norm()) @ head))
    human = human_scores(made.train).tolist()
    total = 0.0
    for x, y in pairs.tolist():
        p = 0.5 * (1 + math.erf((quality[x] - quality[y]) / math.sqrt(2)))
        g = 1.0 if human[x] > human[y] else 0.0
        total += 1 - math.sqrt(p * g + 1e-8) - math.sqrt((1 - p) * (1 - g) + 1e-8)
    assert result.history[0]["loss"] == pytest.approx(total / len(pairs), abs=1e-5)
    assert fidelity_loss(torch.tensor([0.5]), torch.tensor([1.0])).item() == pytest.approx(1 - math.sqrt(0.5), abs=1e-4)


@pytest.mark.parametrize(("when", "moves"), [("first-epoch", True), ("always", True), ("never", False)])
def test_update_statistics_is_a_switch(context: Callable[..., FitContext], when: Any, moves: bool) -> None:
    made = context()
    adapter = fit(replace(QUICK, update_statistics=when, head_start="shared", epochs=1), made).adapter
    own = made.backbone.module.state_dict()
    statistics = [name for name in adapter.tensors if "running" in name]
    assert statistics
    assert any(not torch.equal(adapter.tensors[name], own[name]) for name in statistics) is moves


def test_a_strong_anchor_holds_the_pretrained_values(context: Callable[..., FitContext], tmp_path: Path) -> None:
    far = []
    for anchor in (0.0, 1000.0):
        made = context(checkpoint=FileCheckpoint(tmp_path / f"anchor{anchor}", "key"))
        adapter = fit(replace(QUICK, anchor=anchor, head_start="shared", update_statistics="never"), made).adapter
        own = made.backbone.module.state_dict()
        far.append(sum(float((adapter.tensors[name] - own[name]).square().sum()) for name in adapter.tensors))
    assert far[1] < 0.2 * far[0]


@pytest.mark.parametrize("loss", ["plcc", "smooth-l1", "fidelity+plcc", "fidelity+smooth-l1"])
def test_regression_losses_learn_too(context: Callable[..., FitContext], loss: Any) -> None:
    config = replace(QUICK, head_start="shared", epochs=8, learning_rate=0.02, loss=loss)
    result = fit(config, context())
    losses = [record["loss"] for record in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert max(record["validation_srcc"] for record in result.history) > 0.7


def test_whole_images_are_learned_from_as_they_are_scored(context: Callable[..., FitContext]) -> None:
    """With learning rate 0 the loss on whole, unmirrored images is that of the bare features of the whole images."""
    made = context()
    config = replace(QUICK, crop=0, flip=False, epochs=1, learning_rate=0.0, loss="plcc", batch_size=len(made.train))
    result = fit(config, made)
    ridge, _, _ = ridge_head(head_input(made.train_features, "all-stages"), made.train)
    outputs = (head_input(made.train_features, "all-stages") @ ridge).numpy()
    expected = (1 - np.corrcoef(outputs, human_scores(made.train).numpy())[0, 1]) / 2
    assert result.history[1]["loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["groupnorm", "layernorm"])
def test_works_without_running_statistics(context: Callable[..., FitContext], name: str) -> None:
    adapter = fit(replace(QUICK, epochs=1), context(create_tiny(name, "random:0"))).adapter
    assert {tensor.rpartition(".")[2] for tensor in adapter.tensors} == {"weight", "bias"}


def test_refuses_a_backbone_without_normalization(context: Callable[..., FitContext]) -> None:
    with pytest.raises(MismatchError, match="tiny:none has none; take another backbone, or --adapter linear"):
        fit(QUICK, context(create_tiny("none", "random:0")))


def test_divergence_stops_with_a_clear_line(context: Callable[..., FitContext]) -> None:
    with pytest.raises(TrainingError, match=r"diverged: the loss is .* in epoch \d+, step \d+; lower the learning rate"):
        fit(replace(QUICK, learning_rate=1e30, schedule="step", epochs=3), context())


def test_continuous_target_uses_the_deviations(context: Callable[..., FitContext], tmp_path: Path) -> None:
    binary = fit(replace(QUICK, epochs=1), context(checkpoint=FileCheckpoint(tmp_path / "b", "key")))
    soft = fit(replace(QUICK, epochs=1, target="continuous"), context(checkpoint=FileCheckpoint(tmp_path / "s", "key")))
    assert binary.history[1]["loss"] != soft.history[1]["loss"]


def test_continuous_target_needs_deviations(context: Callable[..., FitContext], rated_photos: Path, tmp_path: Path) -> None:
    made = context()
    lines = (rated_photos / "scores.csv").read_text().splitlines()
    bare = rated_photos / "bare.csv"
    bare.write_text("\n".join(",".join(line.split(",")[index] for index in (0, 1, 3)) for line in lines))
    with pytest.raises(ConfigurationError, match="images have none; add a 'std' column, or use target=binary"):
        fit(replace(QUICK, target="continuous"), replace(made, train=open_score_table(bare, "train", 0)))


def test_refitted_head_is_the_mean_of_two_in_plain_steps(context: Callable[..., FitContext], tmp_path: Path) -> None:
    heads = {}
    for share in (0.0, 0.25, 1.0):
        made = context(checkpoint=FileCheckpoint(tmp_path / str(share), "key"))
        result = fit(replace(QUICK, refit=share), made)
        heads[share] = result.adapter.head_weight[0].double().numpy()
        inputs = []
        for index in range(len(made.train)):
            image, _ = prepare(made.train.image(index), made.preprocessing)
            features = overlay_call(made.backbone.module, result.adapter.tensors, image[None])
            inputs.append(head_input(features, "all-stages")[0])
        x = torch.stack(inputs)
    ridge = ridge_head(x, made.train)[0].double().numpy()
    x = x.double().numpy()
    assert heads[1.0] == pytest.approx(ridge / np.linalg.norm(ridge), abs=1e-5)
    mean = 0.75 * heads[0.0] / (x @ heads[0.0]).std() + 0.25 * ridge / (x @ ridge).std()
    assert heads[0.25] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert result.history[-1]["refit"] == 1.0
    assert result.history[-1]["validation_srcc"] == result.adapter.provenance["validation_srcc"]


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_arithmetic_follows_the_device_and_is_written_down(
    context: Callable[..., FitContext], monkeypatch: pytest.MonkeyPatch, fast: bool, expected: str
) -> None:
    monkeypatch.setattr("iqakit.adapters.tsn.has_fast_bfloat16", lambda device: fast)
    assert fit(replace(QUICK, epochs=0, precision="auto"), context()).adapter.config["precision"] == expected


def test_bfloat16_training_ends_near_float32(context: Callable[..., FitContext], tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        made = context(checkpoint=FileCheckpoint(tmp_path / precision, "key"))
        losses.append([record["loss"] for record in fit(replace(QUICK, precision=precision), made).history[1:]])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_both_methods_are_registered() -> None:
    entries = [entry for entry in iqakit_adapters() if entry.kind == "fit"]
    assert [entry.name for entry in entries] == ["linear", "tsn"]
    assert all(entry.independent and not entry.needs_earlier_data for entry in entries)
