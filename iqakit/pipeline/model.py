"""``QualityModel``: a backbone, the adapters in the order learned, and the combiners' state."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iqakit.combiners.kmeans import novelty
from iqakit.contracts import Adapter, Backbone, Preprocessing
from iqakit.errors import ConfigurationError, IqakitError, MismatchError, StorageError, UnknownNameError
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.pooling import gate_features
from iqakit.imaging.batching import Failed, Prepared, stream
from iqakit.imaging.decoding import ImageSource, describe
from iqakit.pipeline.combining import combine_tasks
from iqakit.pipeline.part_checks import checked_weights, failed
from iqakit.pipeline.rows import ScoreRow
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config
from iqakit.runtimes.torch_runtime import TorchRuntime, resolve_device
from iqakit.storage.model_directory import model_version, read_model

DEFAULT_COMBINER = "kmeans"
DEFAULT_MODEL = "default"
LOCAL_MODEL = Path("iqakit_model")
_GPU_BATCH = 16


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the passes over N images give, before tasks are combined.

    Attributes:
        raw: (N, T), each task's head output.
        gate: Gate features of the bare backbone: two tensors (N, D_l).
    """

    raw: Tensor
    gate: tuple[Tensor, ...]


class QualityModel:
    """Scores images. ``QualityModel.load`` makes one.

    Attributes:
        name: The model's name.
        version: ``name@hash``; the hash changes with anything that could change a score.
        directory: Where it lies.
        backbone: The frozen backbone.
        adapters: One a task, in the order learned.
    """

    def __init__(
        self,
        name: str,
        version: str,
        directory: Path,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        states: Mapping[str, Mapping[str, Tensor]],
        device: str = "cpu",
    ) -> None:
        others = [adapter.task for adapter in adapters if adapter.preprocessing != adapters[0].preprocessing]
        if others:
            raise MismatchError(
                f"model {directory}: task {others[0]!r} prepares images in another way than {adapters[0].task!r}; "
                "keep them in models of their own"
            )
        self.name = name
        self.version = version
        self.directory = directory
        self.backbone = backbone
        self.adapters = tuple(adapters)
        self._states = states
        self._runtime = TorchRuntime(backbone, device)
        self._overlays = [{key: value.to(device) for key, value in adapter.tensors.items()} for adapter in adapters]

    @classmethod
    def load(
        cls, model: str | os.PathLike[str] | None = None, *, device: str = "auto", weights: str | None = None
    ) -> QualityModel:
        """Load a model.

        Args:
            model: A directory, or the name of a model that comes with the package. None: ``$IQAKIT_MODEL``, else
                ``./iqakit_model`` if it is there, else the default model.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            weights: Where the backbone's weights are, if not where the model was made with; checked by fingerprint.

        Raises:
            UnknownNameError: There is neither a directory nor a model of that name.
            StorageError: The directory holds no whole model.
            MismatchError: The weights are not the ones that the model was made on.
        """
        name, directory = find_model(model)
        chosen = resolve_device(device)
        manifest, adapters, states, shared = read_model(directory)
        backbone = catalog().make_backbone(manifest.backbone.id, weights or manifest.backbone.weights)
        _check_backbone(backbone, manifest.backbone.fingerprint, directory)
        if shared:
            # Methods that train the shared tensors: every adapter is then laid over those.
            adapters = [_over(adapter, shared) for adapter in adapters]
        return cls(name, f"{name}@{model_version(directory)}", directory, backbone, adapters, states, chosen)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order learned."""
        return tuple(adapter.task for adapter in self.adapters)

    @property
    def backbone_id(self) -> str:
        """Name of the backbone."""
        return self.backbone.id

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared; the same for all tasks."""
        return self.adapters[0].preprocessing

    def outputs(self, images: Tensor) -> Outputs:
        """Run the bare backbone and every adapter.

        Args:
            images: (N, 3, H, W), prepared with ``preprocessing``.
        """
        bare, *adapted = self._runtime.passes(images, [{}, *(overlay for overlay in self._overlays if overlay)])
        of_overlay = iter(adapted)
        columns = []
        for adapter, overlay in zip(self.adapters, self._overlays, strict=True):
            features = next(of_overlay) if overlay else bare
            inputs = head_input(features, adapter.features)
            columns.append(head_scores(inputs, adapter.head_weight, adapter.head_bias, adapter.head_kind))
        return Outputs(torch.stack(columns, 1), tuple(gate_features(bare.stages)))

    def weights(
        self, outputs: Outputs, combiner: str, task: str | None = None, settings: Mapping[str, str] | None = None
    ) -> Tensor:
        """The combiner's weights (N, T).

        Args:
            outputs: What ``outputs`` gave.
            combiner: The combiner's name.
            task: The images' true task, for ``oracle``.
            settings: The combiner's settings, as ``--set`` gives them.
        """
        entry = catalog().combiner(combiner)
        oracle = None if task is None else [task] * len(outputs.raw)
        config = make_config(entry, settings or {})
        try:
            weights = entry.create(config).weights(self._states.get(combiner, {}), self.tasks, outputs.gate, oracle)
        except IqakitError:
            raise
        except Exception as error:  # a plugin may raise anything, and the user must learn whose fault it is
            raise failed("combiner", combiner, catalog().combiners[combiner].distribution, error) from error
        return checked_weights(weights, len(outputs.raw), len(self.tasks), combiner)

    def combine(self, outputs: Outputs, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Combine the tasks.

        Returns:
            Score (N,) in points, raw (N,), std (N,) in points; score and std are nan where a task that counts has no
            calibration.
        """
        return combine_tasks(outputs.raw, weights, [adapter.calibration for adapter in self.adapters])

    def novelty(self, outputs: Outputs) -> Tensor | None:
        """Share of training images nearer to what was learned, (N,) in 0-1; None where no gate was fitted."""
        state = self._states.get(DEFAULT_COMBINER, {})
        known = all(f"{task}/distances" in state for task in self.tasks)
        return novelty(state, self.tasks, outputs.gate) if known else None

    def score(
        self,
        image: ImageSource,
        *,
        combiner: str | None = None,
        task: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> ScoreRow:
        """Score one image: a path, bytes, a PIL image, a uint8 array (H, W, 3) RGB or a tensor (3, H, W).

        Raises:
            ImageError: The image cannot be read.
        """
        rows = self.score_many([image], combiner=combiner, task=task, settings=settings, workers=0, on_error="fail")
        return next(iter(rows))

    def score_many(
        self,
        images: Iterable[ImageSource],
        *,
        combiner: str | None = None,
        task: str | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int = 2,
        batch_size: int | None = None,
        on_error: str = "skip",
        max_pixels: int | None = None,
    ) -> Iterator[ScoreRow]:
        """Score many images: rows stream in input order, and memory stays bounded.

        Args:
            images: Images as for ``score``; consumed lazily.
            combiner: The combiner's name; None: ``oracle`` where ``task`` is given, else ``kmeans``.
            task: The images' true task.
            settings: The combiner's settings.
            workers: Threads that decode; 0: decode in between.
            batch_size: Images of one size run together on a GPU. On the CPU each runs alone. It never changes a score
                on the CPU.
            on_error: ``"skip"``: an image that cannot be read gives an error row; ``"fail"``: it raises.
            max_pixels: Decoding limit; None: the default.

        Raises:
            ImageError: With ``on_error="fail"``.
            UnknownNameError: The combiner or the task is unknown.
        """
        if on_error not in ("skip", "fail"):
            raise ConfigurationError(f"on_error must be skip or fail, but it is {on_error!r}")
        chosen = combiner or ("oracle" if task else DEFAULT_COMBINER)
        if task is not None and task not in self.tasks:
            raise UnknownNameError.of(f"task of model {self.name}", task, self.tasks)
        entry = catalog().combiner(chosen)
        make_config(entry, settings or {})  # wrong settings are said before the first image is read
        size = 1 if self._runtime.device == "cpu" else batch_size or _GPU_BATCH
        return self._rows(images, chosen, task, settings, workers, size, on_error, max_pixels)

    def _rows(
        self,
        images: Iterable[ImageSource],
        combiner: str,
        task: str | None,
        settings: Mapping[str, str] | None,
        workers: int,
        size: int,
        on_error: str,
        max_pixels: int | None,
    ) -> Iterator[ScoreRow]:
        limit = {} if max_pixels is None else {"max_pixels": max_pixels}
        waiting: list[Prepared | Failed] = []
        for item in stream(images, self.preprocessing, workers=workers, **limit):
            if isinstance(item, Failed) and on_error == "fail":
                yield from self._finish(waiting, combiner, task, settings)
                raise item.error
            waiting.append(item)
            if len(waiting) >= size:
                yield from self._finish(waiting, combiner, task, settings)
                waiting = []
        yield from self._finish(waiting, combiner, task, settings)

    def _finish(
        self, items: Sequence[Prepared | Failed], combiner: str, task: str | None, settings: Mapping[str, str] | None
    ) -> list[ScoreRow]:
        """Rows of some images, in order; images of one size run together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        rows: dict[int, ScoreRow] = {}
        for index, item in enumerate(items):
            if isinstance(item, Failed):
                rows[index] = ScoreRow(describe(item.source), "error", self.version, error=str(item.error))
            else:
                groups.setdefault(tuple(item.image.shape), []).append(index)
        for members in groups.values():
            prepared = [item for item in (items[index] for index in members) if isinstance(item, Prepared)]
            outputs = self.outputs(torch.stack([torch.from_numpy(item.image) for item in prepared]))
            weights = self.weights(outputs, combiner, task, settings)
            rows |= zip(members, self._score_rows(prepared, outputs, weights), strict=True)
        return [rows[index] for index in range(len(items))]

    def _score_rows(self, prepared: Sequence[Prepared], outputs: Outputs, weights: Tensor) -> Iterator[ScoreRow]:
        score, raw, std = self.combine(outputs, weights)
        novel = self.novelty(outputs)
        for index, item in enumerate(prepared):
            if not torch.isfinite(outputs.raw[index]).all():
                error = f"{describe(item.source)}: the network gave a number that is not finite for this image"
                yield ScoreRow(describe(item.source), "error", self.version, error=error)
                continue
            yield ScoreRow(
                path=describe(item.source),
                status="ok",
                model=self.version,
                score=_finite(score[index]),
                raw=float(raw[index]),
                std=_finite(std[index]),
                novelty=None if novel is None else _finite(novel[index]),
                task_scores={task: float(value) for task, value in zip(self.tasks, outputs.raw[index], strict=True)},
                weights={task: float(value) for task, value in zip(self.tasks, weights[index], strict=True)},
                width=item.width,
                height=item.height,
                warnings=tuple(item.warnings),
            )


def find_model(model: str | os.PathLike[str] | None) -> tuple[str, Path]:
    """Which model is meant: its name and directory.

    A directory wins over a bundled name. None: ``$IQAKIT_MODEL``, else ``./iqakit_model``, else the default model.
    """
    asked: str | os.PathLike[str] | None = model or os.environ.get("IQAKIT_MODEL") or None
    if asked is None:
        asked = LOCAL_MODEL if (LOCAL_MODEL / "model.json").exists() else DEFAULT_MODEL
    text = os.fspath(asked)
    path = Path(text).expanduser()
    bundled = bundled_models()
    if text in bundled and not path.is_dir():
        return text, bundled[text]
    if path.exists():
        return path.resolve().name or "model", path
    if any(mark in text for mark in ("/", "\\")):
        raise StorageError(f"there is no model directory {text}; make one with iqakit fit --model {text}")
    raise UnknownNameError.of("model", text, bundled, hint="A model can also be a directory that iqakit fit made.")


def bundled_models() -> dict[str, Path]:
    """Models that come with the package, by name."""
    package = Path(__file__).resolve().parent.parent
    # An installed package carries them inside; a source checkout has them beside.
    for zoo in (package / "model_zoo", package.parent / "model_zoo"):
        found = {path.parent.name: path.parent for path in sorted(zoo.glob("*/model.json"))}
        if found:
            return found
    return {}


def _check_backbone(backbone: Backbone, fingerprint: str, directory: Path) -> None:
    found = backbone.fingerprint()
    if found != fingerprint:
        raise MismatchError(
            f"model {directory} was made on {backbone.id} with weights {fingerprint[:8]}, but the weights found are "
            f"{found[:8]}; give the weights that it was made with"
        )


def _over(adapter: Adapter, shared: Mapping[str, Tensor]) -> Adapter:
    return replace(adapter, tensors={**shared, **adapter.tensors})


def _finite(value: Tensor) -> float | None:
    number: Any = float(value)
    return number if torch.isfinite(value) else None
