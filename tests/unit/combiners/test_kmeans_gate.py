from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from iqakit.combiners.kmeans import KMeansGate, _share_nearer, novelty
from iqakit.combiners.settings import KMeansConfig
from iqakit.errors import ConfigurationError, MismatchError
from iqakit.functional.gating import gate_weights, nearest_distance


def _features(images: int, seed: int = 0, centre: int = 0, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        normalize(torch.eye(width)[centre] + spread * torch.randn(images, width, generator=rng), dim=1) for width in (6, 10)
    )


def _gate(**changes: object) -> KMeansGate:
    return KMeansGate(KMeansConfig(**{"clusters": 8, "repeats": 3, **changes}))  # type: ignore[arg-type]


def test_published_settings_are_the_defaults() -> None:
    config = KMeansConfig()
    assert (config.clusters, config.repeats, config.iterations, config.temperature) == (128, 20, 1000, 8.0)
    assert config.hard is False
    assert config.steadiness == 0.3  # own; only where a method says what weak degradation moves


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("clusters", 0),
        ("stages", 0),
        ("repeats", 0),
        ("iterations", 0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("steadiness", -0.1),
        ("steadiness", math.inf),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"combiner kmeans: {setting} must .* found {value}"):
        KMeansConfig(**{setting: value})  # type: ignore[arg-type]


def test_state_of_a_task() -> None:
    state = _gate().fit_task({}, "lab", _features(50))
    assert sorted(state) == ["lab/distances", "lab/stage1", "lab/stage2"]
    assert state["lab/stage1"].shape == (8, 6)
    assert state["lab/stage2"].shape == (8, 10)
    assert state["lab/distances"].shape == (101,)
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert bool((state["lab/distances"].diff() >= 0).all())


@pytest.mark.parametrize(("stages", "used"), [(1, [4]), (2, [3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])])
def test_the_last_stages_are_clustered_and_the_state_says_which(stages: int, used: list[int]) -> None:
    features = [*_features(30, seed=1), *_features(30, seed=2)]
    state = _gate(stages=stages).fit_task({}, "lab", features)
    state = _gate(stages=stages).fit_task(state, "wild", [*_features(30, seed=3, centre=1), *_features(30, seed=4)])
    assert [int(name[-1]) for name in sorted(state) if name.startswith("lab/stage")] == used
    # Scoring goes by the state, whatever the settings say then.
    distances = torch.stack(
        [
            torch.stack([nearest_distance(features[number - 1], state[f"{task}/stage{number}"]) for number in used])
            for task in ("lab", "wild")
        ],
        dim=2,
    )
    found = _gate(stages=1).weights(state, ["lab", "wild"], features, None)
    assert torch.allclose(found, gate_weights(distances, 8.0))


def test_tasks_clustered_at_other_stages_cannot_be_compared() -> None:
    features = _features(30)
    state = _gate(stages=2).fit_task({}, "lab", features)
    state = _gate(stages=1).fit_task(state, "wild", features)
    with pytest.raises(
        MismatchError, match=r"stages \[2\] of task 'wild' and \[1, 2\] of 'lab'; fit all tasks with the same"
    ):
        _gate().weights(state, ["lab", "wild"], features, None)
    assert len(novelty(state, ["lab", "wild"], features)) == 30  # each task is its own measure there


def test_a_stage_that_the_backbone_lacks_is_named() -> None:
    features = _features(30)
    state = _gate().fit_task({}, "lab", features)
    with pytest.raises(MismatchError, match="knows stage 2 of task 'lab', but the backbone gives 1"):
        _gate().weights(state, ["lab"], features[:1], None)


def test_centroids_are_those_of_scikit_learn() -> None:
    features = _features(60)
    state = _gate(seed=5).fit_task({}, "lab", features)
    for number, stage in enumerate(features, start=1):
        theirs = KMeans(8, n_init=3, max_iter=1000, random_state=5).fit(stage.numpy()).cluster_centers_
        assert state[f"lab/stage{number}"].numpy() == pytest.approx(theirs, abs=1e-6)


def test_repeats_to_the_byte_and_leaves_global_state() -> None:
    features = _features(200)
    random_state, threads, pools = np.random.get_state(), torch.get_num_threads(), threadpool_info()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    first, again = (_gate().fit_task({}, "lab", features) for _ in range(2))
    assert all(first[name].numpy().tobytes() == again[name].numpy().tobytes() for name in first)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(random_state, after, strict=True))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    used = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert all(used[pool["filepath"]] == pool["num_threads"] for pool in pools)
    other = _gate(seed=1).fit_task({}, "lab", features)
    assert not torch.equal(other["lab/stage1"], first["lab/stage1"])


def test_the_number_of_threads_does_not_matter() -> None:
    points = [torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))]
    states = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            states.append(_gate(clusters=32, repeats=1).fit_task({}, "lab", points))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(("images", "distinct"), [(1, 1), (5, 5), (40, 3), (40, 12)])
def test_few_or_repeated_images_and_no_warning(images: int, distinct: int) -> None:
    features = [stage[torch.arange(images) % distinct] for stage in _features(distinct)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = _gate().fit_task({}, "lab", features)
    assert len(state["lab/stage1"]) == min(8, distinct)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    if distinct <= 8:
        assert nearest_distance(features[0], state["lab/stage1"]).tolist() == [0.0] * images


def test_nearly_coinciding_images_leak_no_warning() -> None:
    rng = torch.Generator().manual_seed(0)
    base = _features(2)
    features = [stage[torch.arange(60) % 2] + 1e-8 * torch.randn(60, stage.shape[1], generator=rng) for stage in base]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = _gate().fit_task({}, "lab", features)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def _three_tasks(gate: KMeansGate) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for number, task in enumerate(("a", "b", "c")):
        state = dict(gate.fit_task(state, task, _features(60, seed=number, centre=number)))
    return state


def test_weights_against_their_definition() -> None:
    gate = _gate(temperature=5.0)
    state, new = _three_tasks(gate), _features(7, seed=9)
    d = torch.stack(
        [
            torch.stack([nearest_distance(new[stage], state[f"{task}/stage{stage + 1}"]) for task in "abc"], dim=1)
            for stage in range(2)
        ]
    )
    assert torch.equal(gate.weights(state, "abc", new, None), gate_weights(d, 5.0))


@pytest.mark.parametrize("centre", [0, 1, 2])
def test_images_go_to_the_task_they_look_like(centre: int) -> None:
    gate = _gate()
    weights = gate.weights(_three_tasks(gate), "abc", _features(50, seed=20, centre=centre, spread=0.1), None)
    assert weights.mean(dim=0).argmax().item() == centre
    assert weights[:, centre].mean().item() > 0.9


def test_hard_gives_all_to_the_largest_weight() -> None:
    state, new = _three_tasks(_gate()), _features(30, seed=9, spread=0.8)
    soft = _gate().weights(state, "abc", new, None)
    hard = _gate(hard=True).weights(state, "abc", new, None)
    assert torch.equal(hard.argmax(dim=1), soft.argmax(dim=1))
    assert sorted(hard.unique().tolist()) == [0.0, 1.0]
    assert hard.sum(dim=1).tolist() == [1.0] * 30


def test_temperature_zero_is_the_average() -> None:
    gate = _gate(temperature=0.0)
    assert torch.equal(gate.weights(_three_tasks(gate), "abc", _features(5), None), torch.full((5, 3), 1 / 3))


def test_learning_a_task_again_replaces_its_own_state_only() -> None:
    state = _three_tasks(_gate())
    again = _gate().fit_task(state, "b", _features(5, seed=3))
    assert sorted(again) == sorted(state)
    for name, tensor in again.items():
        assert torch.equal(tensor, state[name]) is (not name.startswith("b/"))


def test_novelty_of_familiar_and_strange_images() -> None:
    gate = _gate()
    state = gate.fit_task({}, "a", _features(300))
    fresh = novelty(state, ["a"], _features(300, seed=5))
    assert fresh.shape == (300,)
    assert 0.35 < fresh.mean().item() < 0.7  # from the same source: spread about evenly
    assert novelty(state, ["a"], _features(50, seed=6, centre=3, spread=0.1)).tolist() == [1.0] * 50
    both = gate.fit_task(state, "b", _features(300, seed=7, centre=3))
    new = _features(200, seed=8, centre=3)
    least = torch.minimum(novelty(both, ["a"], new), novelty(both, ["b"], new))
    assert torch.equal(novelty(both, ["a", "b"], new), least)


@pytest.mark.parametrize("images", [12, 60, 128, 200])
def test_novelty_means_the_same_on_small_tasks(images: int) -> None:
    # With a centroid an image, plain training distances are 0 and every new image would be wholly novel.
    state = KMeansGate(KMeansConfig(repeats=2)).fit_task({}, "a", _features(images))
    fresh = novelty(state, ["a"], _features(400, seed=5))
    assert 0.3 < fresh.mean().item() < 0.75
    assert novelty(state, ["a"], _features(20, seed=6, centre=3, spread=0.05)).mean().item() > 0.9


def test_left_out_distances_against_leaving_out() -> None:
    # Two far heaps, two centroids: leaving a point out changes nothing but its own heap's mean.
    rng = torch.Generator().manual_seed(0)
    points = torch.cat([torch.randn(6, 3, generator=rng), 100 + torch.randn(9, 3, generator=rng)])
    state = _gate(clusters=2).fit_task({}, "a", [points])
    heaps = (points[:6], points[6:])
    wanted = [
        math.dist(heap[i].tolist(), torch.cat([heap[:i], heap[i + 1 :]]).mean(dim=0).tolist())
        for heap in heaps
        for i in range(len(heap))
    ]
    assert state["a/distances"].numpy() == pytest.approx(np.percentile(wanted, range(101)), rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.1, 0.5, 0.7, 2.0]), min_size=1, max_size=30), st.floats(-1, 3))
def test_share_nearer_is_a_share_and_rises(values: list[float], probe: float) -> None:
    percentiles = torch.quantile(torch.tensor(values), torch.linspace(0, 1, 101))
    share = _share_nearer(torch.tensor([-1.0, probe, 3.0]), percentiles)
    assert share[0].item() == 0.0
    assert share[2].item() == 1.0
    assert 0 <= share[1].item() <= 1
    if len(values) > 1:
        nearer = sum(value < np.float32(probe) for value in values) / len(values)
        assert abs(share[1].item() - nearer) <= 1 / (len(values) - 1) + 0.011


def test_a_task_the_state_lacks_is_named() -> None:
    gate = _gate()
    state = dict(gate.fit_task({}, "lab", _features(10)))
    wanted = "knows nothing of task 'web' .*fit the task again with that combiner installed"
    with pytest.raises(ConfigurationError, match=wanted):
        gate.weights(state, ["lab", "web"], _features(2), None)
    with pytest.raises(ConfigurationError, match=wanted):
        novelty(state, ["lab", "web"], _features(2))
    del state["lab/distances"]
    with pytest.raises(ConfigurationError, match=r"'lab' .lab/distances is missing"):
        novelty(state, ["lab"], _features(2))


def test_other_mistakes_are_named() -> None:
    gate = _gate()
    state = gate.fit_task({}, "lab", _features(10))
    with pytest.raises(MismatchError, match=r"'lab', stage 1, have the shape \(8, 6\) and the images' features \(2, 7\)"):
        gate.weights(state, ["lab"], [torch.zeros(2, 7), torch.zeros(2, 10)], None)
    with pytest.raises(ConfigurationError, match="cannot learn task 'web' from 0 images"):
        gate.fit_task(state, "web", [torch.zeros(0, 6), torch.zeros(0, 10)])
    with pytest.raises(ConfigurationError, match="'web': gate features of stage 2 are not all finite"):
        gate.fit_task(state, "web", [torch.zeros(2, 6), torch.full((2, 10), math.nan)])
    with pytest.raises(ConfigurationError, match="there is none; learn a task first"):
        novelty(state, [], _features(2))


def test_faults_are_further_centroids() -> None:
    """Distances are to the nearest of both, in plain numpy; what was learned before and novelty stay as they were."""
    gate, tasks = _gate(stages=1), ["lab", "wild"]
    state: dict[str, Tensor] = {}
    for number, task in enumerate(tasks):
        state = dict(gate.fit_task(state, task, _features(30, seed=number, centre=number)))
    faults = {task: _features(5, seed=10 + number, centre=4) for number, task in enumerate(tasks)}
    learned = state
    for task, rows in faults.items():
        learned = dict(gate.fit_copies(learned, task, rows))
    assert sorted(set(learned) - set(state)) == ["lab/copies2", "wild/copies2"]
    assert all(torch.equal(learned[name], tensor) for name, tensor in state.items())
    images = _features(20, seed=3, centre=4)
    found = gate.weights(learned, tasks, images, None).double().numpy()
    seen = images[1].double().numpy()
    nearest = []
    for task in tasks:
        centroids = np.concatenate([state[f"{task}/stage2"].numpy(), faults[task][1].numpy()]).astype(float)
        nearest.append(np.linalg.norm(seen[:, None] - centroids[None], axis=2).min(axis=1))
    shares = np.exp(-8 * np.stack(nearest, axis=1))
    np.testing.assert_allclose(found, shares / shares.sum(axis=1, keepdims=True), atol=1e-5)
    assert torch.equal(novelty(learned, tasks, images), novelty(state, tasks, images))


def test_an_image_with_a_fault_that_all_tasks_know_belongs_to_none() -> None:
    gate, state = _gate(), {}
    for number, task in enumerate(["lab", "wild"]):
        state = gate.fit_task(state, task, _features(40, seed=number, centre=number, spread=0.1))
    ruined = tuple(normalize((0.6 * torch.eye(width)[0] + torch.eye(width)[4])[None], dim=1) for width in (6, 10))
    before = gate.weights(state, ["lab", "wild"], ruined, None)[0]
    for task in ("lab", "wild"):
        state = gate.fit_copies(state, task, ruined)
    after = gate.weights(state, ["lab", "wild"], ruined, None)[0]
    assert before[0] > 0.8
    assert after.tolist() == pytest.approx([0.5, 0.5])
    photo = _features(1, seed=9, centre=0, spread=0.1)
    assert float(gate.weights(state, ["lab", "wild"], photo, None)[0, 0]) > 0.9


def test_a_task_learned_again_forgets_its_faults() -> None:
    gate = _gate()
    state = gate.fit_copies(gate.fit_task({}, "lab", _features(10)), "lab", _features(3, centre=4))
    again = gate.fit_task(state, "lab", _features(10))
    assert sorted(again) == ["lab/distances", "lab/stage1", "lab/stage2"]


def test_faults_that_make_no_sense_are_named() -> None:
    gate = _gate()
    state = gate.fit_task({}, "lab", _features(10))
    with pytest.raises(ConfigurationError, match="knows nothing of task 'web'"):
        gate.fit_copies(state, "web", _features(2))
    with pytest.raises(ConfigurationError, match="cannot learn copies of task 'lab' from 0 rows"):
        gate.fit_copies(state, "lab", _features(0))
    with pytest.raises(ConfigurationError, match="copies of task 'lab': those of stage 2 are not all finite"):
        gate.fit_copies(state, "lab", [torch.zeros(2, 6), torch.full((2, 10), math.nan)])
    with pytest.raises(MismatchError, match=r"'lab', stage 1, have the shape \(8, 6\) and the images' features \(2, 7\)"):
        gate.fit_copies(state, "lab", [torch.zeros(2, 7), torch.zeros(2, 10)])
    learned = dict(gate.fit_copies(state, "lab", _features(2)))
    for wrong in (torch.zeros(3, 11), torch.zeros(10)):  # as a file from elsewhere may hold
        with pytest.raises(MismatchError, match="centroids of task 'lab', stage 2, have the shape"):
            gate.weights({**learned, "lab/copies2": wrong}, ["lab"], _features(2), None)


def _shifts(copies: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weak damage: mostly along one direction, a little along the others."""
    rng = torch.Generator().manual_seed(seed)
    return tuple(  # type: ignore[return-value]
        0.3 * torch.randn(copies, 1, generator=rng) * torch.eye(width)[5] + 0.02 * torch.randn(copies, width, generator=rng)
        for width in (6, 10)
    )


def test_distances_count_less_along_shifts() -> None:
    """Weights are those of distances between whitened points, in plain numpy; novelty and earlier state stay."""
    gate, tasks = _gate(stages=1, steadiness=2.0), ["lab", "wild", "web"]
    state: dict[str, Tensor] = {}
    for number, task in enumerate(tasks):
        state = dict(gate.fit_task(state, task, _features(30, seed=number, centre=number)))
    learned = state
    shifts = {"lab": _shifts(40, 1), "web": _shifts(60, 2)}  # one task brings none
    for task, rows in shifts.items():
        learned = dict(gate.fit_shifts(learned, task, rows))
    assert sorted(set(learned) - set(state)) == ["lab/shifts2", "web/shifts2"]
    assert all(torch.equal(learned[name], tensor) for name, tensor in state.items())
    metric = np.zeros((10, 10))
    for rows in shifts.values():
        square = rows[1].double().numpy().T @ rows[1].double().numpy()
        shares, axes = np.linalg.eigh(square / np.trace(square) * 10)
        metric += axes @ np.diag(1 / np.sqrt(1 + 2 * shares)) @ axes.T / 2
    every = np.concatenate([state[f"{task}/stage2"].numpy() for task in tasks]).astype(float)
    metric *= np.sqrt(every.var(axis=0).sum() / (every @ metric).var(axis=0).sum())
    learned = dict(gate.fit_copies(learned, "wild", _features(4, seed=5, centre=3)))
    images = _features(20, seed=3, centre=4)
    nearest = []
    for task in tasks:
        parts = [learned[name].numpy() for name in (f"{task}/stage2", f"{task}/copies2") if name in learned]
        centroids = np.concatenate(parts).astype(float)
        seen = images[1].double().numpy()
        nearest.append(np.linalg.norm((seen[:, None] - centroids[None]) @ metric, axis=2).min(axis=1))
    shares = np.exp(-8 * np.stack(nearest, axis=1))
    found = gate.weights(learned, tasks, images, None).double().numpy()
    np.testing.assert_allclose(found, shares / shares.sum(axis=1, keepdims=True), atol=1e-5)
    assert torch.equal(novelty(learned, tasks, images), novelty(state, tasks, images))


def test_weak_damage_moves_less_weight_where_shifts_are_known() -> None:
    state: dict[str, Tensor] = {}
    for number, task in enumerate(["lab", "wild"]):
        state = dict(_gate().fit_task(state, task, _features(40, seed=number, centre=number)))
    photos = _features(50, seed=7, centre=2)
    damaged = [photo + shift for photo, shift in zip(photos, _shifts(50, 3), strict=True)]

    def moved(steadiness: float) -> tuple[float, float]:
        gate, known = _gate(steadiness=steadiness), state
        for task in ("lab", "wild"):
            known = dict(gate.fit_shifts(known, task, _shifts(80, 4)))
        before, after = (gate.weights(known, ["lab", "wild"], images, None)[:, 0] for images in (photos, damaged))
        return float((after - before).abs().mean()), float(before.std())

    (plain, spread), (steady, still_spread) = moved(0.0), moved(5.0)
    assert steady < 0.6 * plain
    assert still_spread > 0.8 * spread  # photos are told apart as before


def test_no_shifts_are_kept_where_all_directions_count_alike() -> None:
    gate = _gate(steadiness=0.0)
    state = gate.fit_task({}, "lab", _features(10))
    assert gate.fit_shifts(state, "lab", _shifts(5, 0)) == state


def test_a_task_learned_again_forgets_its_shifts() -> None:
    gate = _gate()
    state = gate.fit_shifts(gate.fit_task({}, "lab", _features(10)), "lab", _shifts(5, 0))
    assert sorted(gate.fit_task(state, "lab", _features(10))) == ["lab/distances", "lab/stage1", "lab/stage2"]


def test_shifts_that_make_no_sense_are_named() -> None:
    gate = _gate()
    state = gate.fit_task({}, "lab", _features(10))
    with pytest.raises(ConfigurationError, match="knows nothing of task 'web'"):
        gate.fit_shifts(state, "web", _shifts(2, 0))
    with pytest.raises(ConfigurationError, match="cannot learn shifts of task 'lab' from 0 rows"):
        gate.fit_shifts(state, "lab", _shifts(0, 0))
    with pytest.raises(ConfigurationError, match="shifts of task 'lab': those of stage 2 are not all finite"):
        gate.fit_shifts(state, "lab", [torch.zeros(2, 6), torch.full((2, 10), math.inf)])
    with pytest.raises(MismatchError, match=r"'lab', stage 1, have the shape \(8, 6\) and the images' features \(2, 7\)"):
        gate.fit_shifts(state, "lab", [torch.zeros(2, 7), torch.zeros(2, 10)])
    learned = dict(gate.fit_shifts(state, "lab", _shifts(4, 0)))
    for wrong in (torch.zeros(3, 11), torch.zeros(10)):  # as a file from elsewhere may hold
        with pytest.raises(MismatchError, match="centroids and shifts of a stage must be of one width, but are"):
            gate.weights({**learned, "lab/shifts2": wrong}, ["lab"], _features(2), None)


def test_one_gate_serves_many_states() -> None:
    """What is kept from a call is never taken for another state, nor for other tasks."""
    states = []
    for seed in (1, 2):
        state = _gate().fit_task({}, "lab", _features(30, seed=seed))
        state = _gate().fit_task(state, "wild", _features(30, seed=seed + 5, centre=1))
        states.append(_gate().fit_shifts(state, "lab", _shifts(40, seed)))
    gate, images = _gate(), _features(9, seed=4, centre=2)
    for state in (*states, *states):
        for tasks in (["lab", "wild"], ["wild", "lab"], ["wild"]):
            assert torch.equal(gate.weights(state, tasks, images, None), _gate().weights(state, tasks, images, None))
    assert not torch.equal(*(gate.weights(state, ["lab", "wild"], images, None) for state in states))


@pytest.mark.parametrize("more", ["nothing", "copies", "shifts"])
def test_centroids_that_are_no_table_are_named(more: str) -> None:
    """As a file from elsewhere may hold."""
    gate = _gate()
    state = dict(gate.fit_task({}, "lab", _features(10)))
    if more == "copies":
        state = dict(gate.fit_copies(state, "lab", _features(2)))
    if more == "shifts":
        state = dict(gate.fit_shifts(state, "lab", _shifts(4, 0)))
    for wrong in (torch.tensor(1.0), torch.zeros(10)):
        with pytest.raises(MismatchError, match="centroids"):
            gate.weights({**state, "lab/stage2": wrong}, ["lab"], _features(2), None)
