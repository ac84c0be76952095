"""The K-means gate: tasks weighed by how near an image lies to their training images, and its novelty.

Source of the gate: Zhang, Ma, Zhai, Yang, "Task-Specific Normalization for Continual Learning of Blind Image Quality
Models", IEEE TIP 2024. Novelty is our own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from iqakit.combiners.request import empty_weights, image_count
from iqakit.combiners.settings import KMeansConfig
from iqakit.combiners.steadied import Steadied
from iqakit.errors import ConfigurationError, MismatchError
from iqakit.functional.gating import gate_weights, nearest_distance, shift_directions

# Distances of the training images are kept as their 0th, 1st, ..., 100th percentile.
QUANTILES = 101
# Directions kept of what weak degradation moves; more change nothing that can be seen.
_DIRECTIONS = 16


class KMeansGate:
    """Softmax over tasks of the distance to the nearest centroid, averaged over stages.

    State of a task: ``<task>/stage4``, ``<task>/stage5``, ...: centroids (K, D_l), float32, one tensor for each stage that
    counts, numbered from 1; ``<task>/distances``: (101,), float32, percentiles of the training images' own distances, for
    ``novelty``. Where copies were learned, ``<task>/copies4``, ...: (M, D_l), float32, further centroids, those of faults;
    ``novelty`` does not look at them, as it tells how far an image is from those that people rated. Where shifts were
    learned, ``<task>/shifts4``, ...: (R, D_l), float32, directions along which distances count less, for the weights of all
    tasks alike; not for ``novelty``.

    Args:
        config: Its settings.
    """

    def __init__(self, config: KMeansConfig) -> None:
        self.config = config
        self._kept: tuple[Mapping[str, Tensor], tuple[str, ...], list[_Stage]] | None = None

    def fit_task(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Cluster one task's training images, once a stage.

        Repeats to the byte under one seed, whatever the number of threads. Global random state is untouched.

        Args:
            state: State of the tasks learned so far; comes back unchanged, is not touched.
            task: The new task's name; what the state holds of a task of that name is replaced.
            gate_features: One (N, D_l) a stage, of the task's training images.

        Returns:
            The state with the new task's tensors.

        Raises:
            ConfigurationError: There is no image, the shapes do not fit, or a feature is not finite.
        """
        if image_count(gate_features) == 0:
            raise ConfigurationError(f"combiner kmeans cannot learn task {task!r} from 0 images; give it at least one")
        fitted = {name: tensor for name, tensor in state.items() if name.rpartition("/")[0] != task}
        own: list[Tensor] = []
        first = max(0, len(gate_features) - self.config.stages)
        for number, stage in enumerate(gate_features[first:], start=first + 1):
            if not bool(torch.isfinite(stage).all()):
                raise ConfigurationError(
                    f"combiner kmeans cannot learn task {task!r}: gate features of stage {number} are not all finite; "
                    "check the images and the backbone"
                )
            points = stage.detach().cpu().float().contiguous()
            centroids, labels = _cluster(points.numpy(), self.config)
            fitted[f"{task}/stage{number}"] = centroids
            own.append(_left_out_distances(points, centroids, labels))
        shares = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
        fitted[f"{task}/distances"] = torch.quantile(torch.stack(own).mean(dim=0).double(), shares).float()
        return fitted

    def fit_copies(self, state: Mapping[str, Tensor], task: str, gate_features: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Add the faults of a task that has been clustered to what its images may be near to.

        Where an image is as badly damaged as they are, it is about as near to every task that knows the fault, and tasks
        weigh about alike.

        Args:
            state: What ``fit_task`` gave; comes back unchanged, with the copies' tensors beside it.
            task: The task.
            gate_features: One (M, D_l) a stage, a row a fault, of length 1.

        Returns:
            The state with the copies' tensors.

        Raises:
            ConfigurationError: The state lacks the task, the shapes do not fit, or a feature is not finite.
        """
        rows = _rows_of_copies(state, task, gate_features, "copies")
        return {**state, **{f"{task}/copies{number}": stage.detach().cpu().float() for number, stage in rows.items()}}

    def fit_shifts(self, state: Mapping[str, Tensor], task: str, shifts: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """Add what weak degradation moves of a task that has been clustered.

        Distances then count less along it, so that a little damage moves less weight from one task to another.

        Args:
            state: What ``fit_task`` gave; comes back unchanged, with the shifts' tensors beside it.
            task: The task.
            shifts: One (M, D_l) a stage: gate features of a copy less those of its photo.

        Returns:
            The state with the shifts' tensors; without any where ``steadiness`` is 0.

        Raises:
            ConfigurationError: The state lacks the task, the shapes do not fit, or a number is not finite.
        """
        rows = _rows_of_copies(state, task, shifts, "shifts")
        if not self.config.steadiness:
            return dict(state)
        found = {number: shift_directions(stage, self.config.steadiness, _DIRECTIONS) for number, stage in rows.items()}
        return {**state, **{f"{task}/shifts{number}": directions for number, directions in found.items()}}

    def weights(
        self,
        state: Mapping[str, Tensor],
        tasks: Sequence[str],
        gate_features: Sequence[Tensor],
        oracle_names: Sequence[str] | None,
    ) -> Tensor:
        """Weights (N, T), non-negative, rows summing to 1; one-hot where ``hard``.

        Args:
            state: What ``fit_task`` gave.
            tasks: Names of the T tasks.
            gate_features: One (N, D_l) a stage.
            oracle_names: Not looked at.

        Raises:
            ConfigurationError: The state lacks a task.
            MismatchError: The tasks were clustered at different stages, or the centroids do not fit the features.
        """
        weights = empty_weights(tasks, gate_features)
        stages = []
        for number, steadied, centroids in self._learned(state, tasks):
            for task in tasks:
                stage = _stage_of(gate_features, number, _of_task(state, task, f"stage{number}"), task)
            points = stage.float() if steadied is None else steadied.of_images(stage.float())
            stages.append(torch.stack([nearest_distance(points, known.to(points.device)) for known in centroids], dim=1))
        soft = gate_weights(torch.stack(stages), self.config.temperature)
        if not self.config.hard:
            return soft
        return weights.scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)

    def _learned(self, state: Mapping[str, Tensor], tasks: Sequence[str]) -> list[_Stage]:
        """What to measure at each stage; kept for the next call, which mostly asks for the same."""
        if self._kept is not None and self._kept[0] is state and self._kept[1] == tuple(tasks):
            return self._kept[2]
        found = [_learned_of(state, tasks, number) for number in _stages_used(state, tasks)]
        if not torch.compiler.is_compiling():  # what is made there belongs to a graph
            self._kept = (state, tuple(tasks), found)
        return found


def novelty(state: Mapping[str, Tensor], tasks: Sequence[str], gate_features: Sequence[Tensor]) -> Tensor:
    """The share of training images that lie nearer to what was learned than each image does.

    For each task: the distance to the nearest centroid, averaged over stages, placed among the same distances of that
    task's training images (each measured as if it had been left out); then the least over tasks.

    Args:
        state: What ``KMeansGate.fit_task`` gave.
        tasks: Names of the T tasks.
        gate_features: One (N, D_l) a stage.

    Returns:
        (N,), float32, 0 (well known) to 1 (further away than every training image of every task).

    Raises:
        ConfigurationError: There is no task, or the state lacks one.
        MismatchError: The centroids are of another width than the features.
    """
    empty_weights(tasks, gate_features)
    shares = []
    for task in tasks:
        stages = []
        for number in _stages_used(state, [task]):
            centroids = _of_task(state, task, f"stage{number}")
            stage = _stage_of(gate_features, number, centroids, task).float()
            stages.append(nearest_distance(stage, centroids.to(stage.device)))
        distances = torch.stack(stages).mean(dim=0)
        shares.append(_share_nearer(distances, _of_task(state, task, "distances").to(distances.device)))
    return torch.stack(shares).amin(dim=0)


def _of_task(state: Mapping[str, Tensor], task: str, what: str) -> Tensor:
    tensor = state.get(f"{task}/{what}")
    if tensor is None:
        raise ConfigurationError(
            f"combiner kmeans knows nothing of task {task!r} ({task}/{what} is missing); fit the task again with that "
            "combiner installed, or choose another combiner"
        )
    return tensor


def _rows_of_copies(state: Mapping[str, Tensor], task: str, stages: Sequence[Tensor], what: str) -> dict[int, Tensor]:
    """What a method tells of degraded copies, by number of the stages that were clustered, if it makes sense."""
    if image_count(stages) == 0:
        raise ConfigurationError(f"combiner kmeans cannot learn {what} of task {task!r} from 0 rows; give it at least one")
    found = {}
    for number in _stages_used(state, [task]):
        stage = _stage_of(stages, number, _of_task(state, task, f"stage{number}"), task)
        if not bool(torch.isfinite(stage).all()):
            raise ConfigurationError(
                f"combiner kmeans cannot learn {what} of task {task!r}: those of stage {number} are not all finite; "
                "check the images and the backbone"
            )
        found[number] = stage.contiguous()
    return found


def _stages_used(state: Mapping[str, Tensor], tasks: Sequence[str]) -> list[int]:
    """Numbers of the stages that were clustered, from 1; the same for all tasks, as distances are compared."""
    found = {}
    for task in tasks:
        names = (name.removeprefix(f"{task}/stage") for name in state if name.startswith(f"{task}/stage"))
        found[task] = sorted(int(name) for name in names if name.isdecimal())
        if not found[task]:
            _of_task(state, task, "stage1")
    for task, stages in found.items():
        if stages != found[tasks[0]]:
            raise MismatchError(
                f"combiner kmeans clustered stages {stages} of task {task!r} and {found[tasks[0]]} of {tasks[0]!r}; "
                "fit all tasks with the same --set kmeans.stages"
            )
    return found[tasks[0]]


_Stage = tuple[int, Steadied | None, list[Tensor]]
"""Number of a stage, where its distances are measured, and there each task's centroids with those of faults."""


def _learned_of(state: Mapping[str, Tensor], tasks: Sequence[str], number: int) -> _Stage:
    centroids = [_of_task(state, task, f"stage{number}") for task in tasks]
    shifts = [state[name] for task in tasks if (name := f"{task}/shifts{number}") in state]
    steadied = Steadied.of(centroids, shifts) if shifts else None
    every = []
    for task, own in zip(tasks, centroids, strict=True):
        faults = state.get(f"{task}/copies{number}")
        if faults is not None and not (faults.ndim == own.ndim == 2 and faults.shape[1] == own.shape[1]):
            raise MismatchError(  # a file may hold anything
                f"centroids of task {task!r}, stage {number}, have the shape {tuple(own.shape)} and those of its faults "
                f"{tuple(faults.shape)}; fit the task again"
            )
        known = own if faults is None else torch.cat([own, faults])
        every.append(known if steadied is None else steadied.of_centroids(known))
    return number, steadied, every


def _stage_of(gate_features: Sequence[Tensor], number: int, centroids: Tensor, task: str) -> Tensor:
    """Gate features of one stage, if centroids of a task fit them."""
    if number > len(gate_features):
        raise MismatchError(
            f"combiner kmeans knows stage {number} of task {task!r}, but the backbone gives {len(gate_features)}; "
            "score with the backbone that the task was learned on"
        )
    stage = gate_features[number - 1]
    if centroids.ndim != 2 or centroids.shape[1] != stage.shape[1]:
        raise MismatchError(
            f"centroids of task {task!r}, stage {number}, have the shape {tuple(centroids.shape)} and the images' "
            f"features {tuple(stage.shape)}; score with the backbone that the task was learned on"
        )
    return stage


def _cluster(points: np.ndarray, config: KMeansConfig) -> tuple[Tensor, Tensor]:
    """Centroids (K, D), float32, and each point's centroid (N,)."""
    # Imported only where a task is learned: scoring needs no scikit-learn, whose import costs about a second.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    distinct, labels = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) <= config.clusters:
        return torch.from_numpy(distinct), torch.from_numpy(labels.reshape(-1))
    clustering = KMeans(config.clusters, n_init=config.repeats, max_iter=config.iterations, random_state=config.seed)
    # One thread: each number of threads adds up in another order, so the last bits would depend on the machine's cores.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Points that nearly coincide may leave centroids that do; such centroids do no harm to a nearest distance.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clustering.fit(points)
    return torch.from_numpy(clustering.cluster_centers_).float(), torch.from_numpy(clustering.labels_).long()


def _left_out_distances(points: Tensor, centroids: Tensor, labels: Tensor) -> Tensor:
    """Each training point's distance to the nearest centroid, had the point itself not been clustered, (N,).

    Plain distances would be 0 for every point that makes a cluster of its own, which on a small task is most of them,
    and every new image would then count as entirely novel. Taking a point out of a cluster of n moves its centroid
    away, to n / (n - 1) times the distance; a cluster of one vanishes, and the next centroid counts.
    """
    sizes = torch.bincount(labels, minlength=len(centroids))[labels].float()
    if len(centroids) == 1 and len(points) == 1:
        return torch.zeros(1)
    to_all = torch.cdist(points, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    own = to_all.gather(1, labels[:, None])[:, 0]
    moved = torch.where(sizes > 1, own * sizes / (sizes - 1).clamp_min(1), torch.inf)
    return torch.minimum(to_all.scatter(1, labels[:, None], torch.inf).amin(dim=1), moved)


def _share_nearer(distances: Tensor, percentiles: Tensor) -> Tensor:
    """Where distances (N,) lie among a distribution given by its percentiles, 0-1, float32."""
    above = torch.searchsorted(percentiles, distances)
    last = len(percentiles) - 1
    right = above.clamp(1, last)
    lower, upper = percentiles[right - 1], percentiles[right]
    within = ((distances - lower) / (upper - lower).clamp_min(torch.finfo(torch.float32).tiny)).clamp(0, 1)
    share = (right - 1 + within) / last
    return torch.where(above == 0, 0.0, torch.where(above > last, 1.0, share)).float()
