"""``QualityModel``: a model as users hold it, whichever runtime runs it. Loads no torch until it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqakit.contracts import Preprocessing
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.imaging.batching import stream
from iqakit.imaging.decoding import ImageSource
from iqakit.imaging.preprocessing import preprocessing_from_json
from iqakit.pipeline.adaptation_request import (
    DEFAULT_BATCH,
    DEFAULT_RESET,
    NONE,
    AdaptationRequest,
    make_adaptation_request,
)
from iqakit.pipeline.graph_path import GraphPath, Say
from iqakit.pipeline.model_finding import find_model
from iqakit.pipeline.row_stream import RowStream, decoding_threads
from iqakit.pipeline.rows import ScoreRow
from iqakit.pipeline.scored import Request
from iqakit.pipeline.skipping import DEFAULT_SKIP_BELOW, Cost, check_skip_below
from iqakit.pipeline.zoo_local import bundled_models as bundled_models  # offered here too
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config
from iqakit.runtimes.choice import choose_runtime
from iqakit.runtimes.graph_session import usable_cores
from iqakit.storage.model_directory import check_files, model_version, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from iqakit.contracts import Adapter, Backbone
    from iqakit.pipeline.adapter_choice import Replacing
    from iqakit.pipeline.test_time_batches import Window
    from iqakit.pipeline.torch_scoring import Outputs, TorchParts

DEFAULT_COMBINER = "kmeans"
_GPU_BATCH = 16


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model without its tensors.

    Attributes:
        tasks: Names of the tasks, in the order learned.
        backbone_id: Name of the backbone.
        preprocessing: How images are prepared; the same for all tasks.
    """

    tasks: tuple[str, ...]
    backbone_id: str
    preprocessing: Preprocessing


def check_several(images: object, taker: str, hint: str) -> None:
    """See that images are several; a text is also a sequence of letters, each of which could be a path.

    Raises:
        ConfigurationError: They are one path, or the bytes of one image.
    """
    if isinstance(images, str | bytes | os.PathLike):
        shown = f"{len(images)} bytes" if isinstance(images, bytes) else repr(os.fspath(images))
        raise ConfigurationError(f"{taker} takes several images, and was given one: {shown}; give {hint}")


class QualityModel:
    """Scores images. ``QualityModel.load`` makes one.

    Attributes:
        name: The model's name.
        version: ``name@hash``; the hash changes with anything that could change a score.
        directory: Where it lies.
        tasks: Names of the tasks, in the order learned.
        backbone_id: Name of the backbone.
        preprocessing: How images are prepared; the same for all tasks.
        cost: What was run for the images scored so far.
        replaced: An adapter file stands in for that of its task.
    """

    def __init__(
        self,
        name: str,
        version: str,
        directory: Path,
        facts: ModelFacts,
        parts: Callable[[], TorchParts],
        graphs: GraphPath | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.directory = directory
        self.tasks = facts.tasks
        self.backbone_id = facts.backbone_id
        self.preprocessing = facts.preprocessing
        self.cost = Cost()
        self.replaced = False
        self._parts = parts
        self._graphs = graphs

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "auto",
        weights: str | None = None,
        runtime: str = "auto",
        precision: str = "float32",
        adapter: str | os.PathLike[str] | None = None,
        say: Say | None = None,
    ) -> QualityModel:
        """Load a model.

        Args:
            model: A directory, or the name of a model: one that is here, else one of the zoo, which is pulled. None:
                ``$IQAKIT_MODEL``, else ``./iqakit_model`` if it is there, else the default model.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            weights: Where the backbone's weights are, if not where the model was made with; checked by fingerprint.
            runtime: ``auto``, ``torch``, ``onnxruntime`` or ``openvino``. ``auto``: the fastest one installed on a CPU,
                torch on a GPU; ``$IQAKIT_RUNTIME`` says otherwise.
            precision: ``float32``; on a GPU also ``bfloat16`` or ``float16``, faster and less exact.
            adapter: An adapter file that ``iqakit adapt`` made from this model, used in place of its task's; torch then
                runs the network.
            say: Takes a line about a model that is pulled, a graph that is made, or why torch is used; None: the log
                ``iqakit``.

        Raises:
            UnknownNameError: There is neither a directory nor a model of that name, or no such runtime.
            StorageError: The directory holds no whole model.
            OfflineError: The model would have to be pulled and cannot be.
            MismatchError: The weights are not the ones that the model was made on, or the adapter was not made from it.
            MissingExtraError: The runtime is not installed.
        """
        name, directory = find_model(model, say)
        chosen = choose_runtime("torch" if precision != "float32" or adapter is not None else runtime, device)
        version = f"{name}@{model_version(directory)}"
        replacing = None
        if adapter is not None:
            from iqakit.pipeline.adapter_choice import read_replacing

            replacing = read_replacing(adapter, name, directory)
            version += f"+{replacing.sha256[:8]}"
        parts = _Once(directory, device if chosen == "torch" else "cpu", weights, precision, replacing)
        graphs = None
        if chosen != "torch":
            graphs = GraphPath(directory, version, chosen, parts, say or logging.getLogger("iqakit").warning)
            known = graphs.facts() if weights is None else None
            if known is not None:
                check_files(directory)
                preprocessing = preprocessing_from_json(known["preprocessing"])
                facts = ModelFacts(tuple(known["tasks"]), read_manifest(directory).backbone.id, preprocessing)
                return cls(name, version, directory, facts, parts, graphs)
        held = parts()
        facts = ModelFacts(held.tasks, held.backbone.id, held.adapters[0].preprocessing)
        made = cls(name, version, directory, facts, parts, graphs)
        made.replaced = replacing is not None
        return made

    def __repr__(self) -> str:
        return f"<QualityModel {self.version}: tasks {', '.join(self.tasks)}; runtime {self.runtime}>"

    @property
    def runtime(self) -> str:
        """What runs the network: ``torch``, ``onnxruntime`` or ``openvino``."""
        return "torch" if self._graphs is None or self._graphs.left else self._graphs.runtime

    @property
    def parts(self) -> TorchParts:
        """Backbone, adapters and combiners' state, in torch; read when first asked for."""
        return self._parts()

    @property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return self.parts.backbone

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """One a task, in the order learned."""
        return self.parts.adapters

    @adapters.setter
    def adapters(self, adapters: Sequence[Adapter]) -> None:
        """Other adapters of the same tasks and tensors, for this object only; from then on torch runs the network."""
        self.parts.adapters = tuple(adapters)
        self._graphs = None

    def outputs(self, images: Tensor) -> Outputs:
        """Run the bare backbone and every adapter, with torch.

        Args:
            images: (N, 3, H, W), prepared with ``preprocessing``.
        """
        return self.parts.outputs(images)

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
        return self.parts.weights(outputs.gate, combiner, task, settings)

    def combine(self, outputs: Outputs, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Combine the tasks.

        Returns:
            Score (N,) in points, raw (N,), std (N,) in points; score and std are nan where a task that counts has no
            calibration.
        """
        return self.parts.combine(outputs.raw, weights)

    def novelty(self, outputs: Outputs) -> Tensor | None:
        """Share of training images nearer to what was learned, (N,) in 0-1; None where no gate was fitted."""
        return self.parts.novelty(outputs.gate)

    def score(
        self,
        image: ImageSource,
        *,
        combiner: str | None = None,
        task: str | None = None,
        settings: Mapping[str, str] | None = None,
        skip_below: float | None = DEFAULT_SKIP_BELOW,
    ) -> ScoreRow:
        """Score one image: a path, bytes, a PIL image, a uint8 array (H, W, 3) RGB or a tensor (3, H, W).

        Raises:
            ImageError: The image cannot be read.
        """
        rows = self.score_many(
            [image], combiner=combiner, task=task, settings=settings, workers=0, on_error="fail", skip_below=skip_below
        )
        return next(iter(rows))

    def score_many(
        self,
        images: Iterable[ImageSource],
        *,
        combiner: str | None = None,
        task: str | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
        on_error: str = "skip",
        max_pixels: int | None = None,
        skip_below: float | None = DEFAULT_SKIP_BELOW,
        tta: str = NONE,
        tta_settings: Mapping[str, Any] | None = None,
        tta_batch: int = DEFAULT_BATCH,
        tta_mode: str = "episodic",
        tta_order: str = "shuffled",
        tta_seed: int = 0,
        tta_reset: int = DEFAULT_RESET,
    ) -> Iterator[ScoreRow]:
        """Score many images: rows stream in input order, and memory stays bounded.

        Args:
            images: Images as for ``score``; consumed lazily.
            combiner: The combiner's name; None: ``oracle`` where ``task`` is given, else ``kmeans``.
            task: The images' true task.
            settings: The combiner's settings.
            workers: Threads that decode; None: one a core, from 2 to 8; 0: everything in the caller's thread, one image
                after the other.
            batch_size: Images of one size run together on a GPU. On the CPU each is a pass of its own, with graphs one
                a core side by side. It never changes a score on the CPU.
            on_error: ``"skip"``: an image that cannot be read gives an error row; ``"fail"``: it raises.
            max_pixels: Decoding limit; None: the default.
            skip_below: Heads that weigh at most this together are not run for an image; that moves its score by at most
                100 times as many points, 0.1 by default. 0: only heads of weight 0. None: every head is run.
            tta: ``"none"``, ``"auto"`` or the name of a test-time method: images are mixed, cut into batches, and the
                model adapts to each batch before it scores it. Torch then runs the network.
            tta_settings: The method's settings.
            tta_batch: Images that are adapted to together, at most.
            tta_mode: ``"episodic"``: every batch starts from the source. ``"online"``: from what the batch before it
                left, so that scores depend on the order of the images.
            tta_order: ``"shuffled"``: images are mixed before they are cut into batches; rows keep their order.
                ``"given"``: batches as they come.
            tta_seed: Seed of the mixing and of what the method draws.
            tta_reset: Batches after which an online run starts from the source again; 0: never.

        Raises:
            ImageError: With ``on_error="fail"``.
            UnknownNameError: The combiner, the task, the method or a setting is unknown.
            ConfigurationError: One image was given, not several.
        """
        check_several(images, "score_many", "[image], or use score")
        named = {name: str(value) for name, value in (tta_settings or {}).items()}
        adaptation = make_adaptation_request(
            tta, named, batch=tta_batch, mode=tta_mode, order=tta_order, seed=tta_seed, reset=tta_reset
        )
        if adaptation is not None:
            from iqakit.pipeline.test_time_batches import windows_of

            return self.score_windows(
                windows_of(images, adaptation.window),
                adaptation,
                combiner=combiner,
                task=task,
                settings=settings,
                workers=workers,
                on_error=on_error,
                max_pixels=max_pixels,
                skip_below=skip_below,
            )
        request = self._request(combiner, task, settings, on_error, skip_below)
        size = 1
        if self._graphs is None and self.parts.device != "cpu":
            size = batch_size or _GPU_BATCH
        return self._rows(images, request, decoding_threads(workers), size, on_error, max_pixels)

    def score_windows(
        self,
        windows: Iterable[Window],
        adaptation: AdaptationRequest,
        *,
        combiner: str | None = None,
        task: str | None = None,
        settings: Mapping[str, str] | None = None,
        workers: int | None = None,
        on_error: str = "skip",
        max_pixels: int | None = None,
        skip_below: float | None = DEFAULT_SKIP_BELOW,
    ) -> Iterator[ScoreRow]:
        """Score images with test-time adaptation, already cut into the windows within which they are mixed.

        Args:
            windows: The images, and whose rows are wanted; consumed lazily.
            adaptation: How to adapt, as ``make_adaptation_request`` gives it.
            combiner: As for ``score_many``, and so are the others.
            task: As for ``score_many``; it is also the task that is adapted.
            settings: The combiner's settings.
            workers: Threads that decode; None: one a core, from 2 to 8.
            on_error: ``"skip"`` or ``"fail"``.
            max_pixels: Decoding limit.
            skip_below: Heads that weigh at most this together are not run.
        """
        request = self._request(combiner, task, settings, on_error, skip_below)
        from iqakit.pipeline.test_time_scoring import adapted_rows

        threads = decoding_threads(workers)
        return adapted_rows(self, windows, adaptation, request, workers=threads, on_error=on_error, max_pixels=max_pixels)

    def _request(
        self,
        combiner: str | None,
        task: str | None,
        settings: Mapping[str, str] | None,
        on_error: str,
        skip_below: float | None,
    ) -> Request:
        """How images are to be scored; wrong names are said before the first image is read."""
        if on_error not in ("skip", "fail"):
            raise ConfigurationError(f"on_error must be skip or fail, but it is {on_error!r}")
        chosen = combiner or ("oracle" if task else DEFAULT_COMBINER)
        self.check_request(chosen, task, settings or {})
        return Request(chosen, task, dict(settings or {}), check_skip_below(skip_below), self.cost)

    def check_request(self, combiner: str, task: str | None, settings: Mapping[str, str]) -> None:
        """See that there are a combiner, a task and settings of these names.

        Raises:
            UnknownNameError: The combiner, the task or a setting is unknown.
            ConfigurationError: A setting makes no sense, or the combiner needs to be told the task.
        """
        if task is not None and task not in self.tasks:
            raise UnknownNameError.of(f"task of model {self.name}", task, self.tasks)
        make_config(catalog().combiner(combiner), settings)
        if combiner == "oracle" and task is None:
            raise ConfigurationError("combiner oracle needs to be told the task of each image; give --task")

    def _rows(
        self,
        images: Iterable[ImageSource],
        request: Request,
        workers: int,
        size: int,
        on_error: str,
        max_pixels: int | None,
    ) -> Iterator[ScoreRow]:
        limit = {} if max_pixels is None else {"max_pixels": max_pixels}
        items = stream(images, self.preprocessing, workers=workers, **limit)
        if self._graphs is None:
            return RowStream(self.parts, self.tasks, self.version, request, on_error).in_batches(items, size)
        # Cores that each work on an image of their own get more done than cores that share one.
        threads = usable_cores() if workers and not self._graphs.left else 1
        return RowStream(self._graphs, self.tasks, self.version, request, on_error).side_by_side(items, threads)


class _Once:
    """Reads a model's parts when they are first asked for."""

    def __init__(
        self, directory: Path, device: str, weights: str | None, precision: str, replacing: Replacing | None
    ) -> None:
        self._arguments = (directory, device, weights, precision, replacing)
        self._parts: TorchParts | None = None

    def __call__(self) -> TorchParts:
        if self._parts is None:
            from iqakit.pipeline.torch_scoring import TorchParts
            from iqakit.runtimes.torch_runtime import resolve_device

            directory, device, weights, precision, replacing = self._arguments
            self._parts = TorchParts.read(directory, resolve_device(device), weights, precision, replacing)
        return self._parts
