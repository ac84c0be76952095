"""Scoring with graphs from the cache. Loads no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqakit import __version__
from iqakit.errors import IqakitError
from iqakit.imaging.preprocessing import Planes
from iqakit.pipeline.scored import Request, Scored
from iqakit.pipeline.skipping import needs_no_gate, used_weights
from iqakit.runtimes.graph_cache import GraphFiles, graph_key
from iqakit.runtimes.graph_session import GraphError, GraphSession, open_session, usable_cores

FINISH_NAME = "finish.onnx"
GATE_NAME = "gate.onnx"
_PACKAGE = Path(__file__).resolve().parent.parent
_TRACED = ("functional", "combiners", "backbones", "runtimes/graph_export.py", "pipeline/combining.py", "pipeline/tail.py",
           "pipeline/torch_scoring.py", "pipeline/graph_building.py", "pipeline/graph_scoring.py")  # fmt: skip
"""Where the code lies that graphs are made of: what changes there makes new graphs."""


PASS_PREFIX = "pass"


def pass_name(number: int) -> str:
    """File of one pass."""
    return f"{PASS_PREFIX}{number}.onnx"


def model_key(directory: Path) -> str:
    """Name of a model's graphs: it changes with all that they depend on.

    Raises:
        OSError: The directory holds no model.
    """
    # model.json names the SHA-256 of every file of the model and the fingerprint of the backbone's tensors.
    manifest = hashlib.sha256((directory / "model.json").read_bytes()).hexdigest()
    try:
        timm = importlib.metadata.version("timm")
    except importlib.metadata.PackageNotFoundError:
        timm = ""
    return graph_key({"model": manifest, "iqakit": __version__, "timm": timm, "code": _code_fingerprint()})


def gate_key(model: str, combiner: str, settings: Mapping[str, str]) -> str:
    """Name of the graph of one combiner with its settings, for the model of that key."""
    return graph_key({"model": model, "combiner": combiner, "settings": dict(settings)})


def _code_fingerprint() -> str:
    digest = hashlib.sha256()
    for name in _TRACED:
        place = _PACKAGE / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            if path.exists():
                digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class GraphScorer:
    """Scores images with a model's graphs, each opened when it is first needed; from any thread.

    Args:
        files: The model's graphs.
        gate_of: Gives the graphs of a combiner with its settings.
        runtime: ``onnxruntime`` or ``openvino``.
        optimised: The passes' graphs, arranged for this machine; None: there are none.
    """

    def __init__(
        self,
        files: GraphFiles,
        gate_of: Callable[[str, Mapping[str, str]], GraphFiles],
        runtime: str,
        optimised: GraphFiles | None = None,
    ) -> None:
        self._files = files
        self._optimised = optimised
        self._gate_of = gate_of
        self._runtime = runtime
        self._tasks: list[str] = list(files.facts["tasks"])
        self._pass_of_task: list[int] = list(files.facts["pass_of_task"])
        self._passes = max(self._pass_of_task, default=0) + 1
        self._open: dict[tuple[Path, str], GraphSession] = {}
        self._opening: dict[tuple[Path, str], threading.Lock] = {}
        self._gates: dict[tuple[str, tuple[tuple[str, str], ...]], GraphFiles] = {}

    def score_group(self, images: Sequence[Planes], request: Request) -> list[Scored]:
        """Score images of one size, float32 (3, h, w), in order.

        Raises:
            GraphError: A graph cannot be opened or run.
        """
        return [self._score(image[None], request) for image in images]

    def _score(self, image: NDArray[np.float32], request: Request) -> Scored:
        image = np.ascontiguousarray(image)
        gate = self._gate(request)
        known = _known_weights(gate.facts, request.task)
        found: dict[int, dict[str, NDArray[Any]]] = {}
        novelty = None
        row = known
        alone = known is not None and needs_no_gate(known, request.skip_below)
        if known is None or not alone or 0 in self._passes_for(known):
            found[0] = self._run(self._files, pass_name(0), {"image": image})
            if GATE_NAME in gate.sha256:
                answer = self._run(gate, GATE_NAME, found[0])
                novelty = float(answer["novelty"][0]) if "novelty" in answer else None
                row = row if known is not None else answer["weights"][0].tolist()
        if row is None:
            raise GraphError("the gate's graph gives no weights")
        used, skipped = used_weights(row, request.skip_below)
        wanted = set(range(self._passes)) if request.skip_below is None else self._passes_for(used)
        self._open_passes(wanted - set(found))
        for number in sorted(wanted - set(found)):
            found[number] = self._run(self._files, pass_name(number), {"image": image})
        request.cost.add(len(found), self._passes - len(found), skipped)
        heads = [
            float(found[number][f"head{index}"][0]) if number in found else None
            for index, number in enumerate(self._pass_of_task)
        ]
        given = {
            "heads": np.array([[0.0 if head is None else head for head in heads]], np.float32),
            "weights": np.array([used], np.float32),
        }
        end = self._run(self._files, FINISH_NAME, given)
        score, raw, std = (float(end[name][0]) for name in ("score", "raw", "std"))
        return Scored(score, raw, std, novelty, tuple(heads), tuple(used))

    def _passes_for(self, weights: Sequence[float]) -> set[int]:
        return {self._pass_of_task[index] for index, weight in enumerate(weights) if weight > 0}

    def _gate(self, request: Request) -> GraphFiles:
        key = (request.combiner, tuple(sorted(request.settings.items())))
        if key not in self._gates:
            self._gates[key] = self._gate_of(request.combiner, request.settings)
        return self._gates[key]

    def _run(self, files: GraphFiles, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._session(files, name).run(inputs)

    def _session(self, files: GraphFiles, name: str) -> GraphSession:
        key = (files.directory, name)
        if key not in self._open:
            with self._opening.setdefault(key, threading.Lock()):
                if key not in self._open:
                    self._open[key] = self._opened(files, name)
        return self._open[key]

    def _opened(self, files: GraphFiles, name: str) -> GraphSession:
        arranged = self._optimised if files is self._files and name.startswith(PASS_PREFIX) else None
        try:
            data = (arranged or files).read(name)
        except IqakitError as error:
            raise GraphError(str(error)) from error
        # The small ones take no time; threads for them would only have to be woken.
        threads = None if name.startswith(PASS_PREFIX) else 1
        return open_session(data, self._runtime, threads, optimised=arranged is not None)

    def _open_passes(self, numbers: set[int]) -> None:
        """Open some passes side by side: opening is most of what a first score takes, and keeps one core busy each."""
        closed = [number for number in sorted(numbers) if (self._files.directory, pass_name(number)) not in self._open]
        if len(closed) > 1:
            with ThreadPoolExecutor(usable_cores()) as pool:
                list(pool.map(lambda number: self._session(self._files, pass_name(number)), closed))


def _known_weights(facts: Mapping[str, Any], task: str | None) -> list[float] | None:
    """Weights that depend on no image."""
    rows = facts.get("rows") or {}
    return rows.get(task or "")
