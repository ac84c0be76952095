"""The way over graphs: found or made, checked, rebuilt where damaged, and left where it leads nowhere.

Loads no torch unless a graph has to be made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqakit.errors import MissingExtraError, StorageError
from iqakit.imaging.preprocessing import Planes
from iqakit.pipeline.graph_scoring import PASS_PREFIX, GraphScorer, gate_key, model_key
from iqakit.pipeline.scored import Request, Scored
from iqakit.plugins.catalog import catalog
from iqakit.runtimes.graph_cache import GraphFiles, find_graphs, keep_graphs, remove_graphs
from iqakit.runtimes.graph_optimising import optimised_graphs, optimised_key
from iqakit.runtimes.graph_session import GraphError

if TYPE_CHECKING:
    from iqakit.pipeline.torch_scoring import TorchParts

Say = Callable[[str], None]


class GraphPath:
    """Scores with graphs as long as that gives what torch gives, else with torch.

    Args:
        directory: The model.
        label: The model's name and version.
        runtime: ``onnxruntime`` or ``openvino``.
        parts: Gives the model's parts in torch; called only where they are needed.
        say: Takes a line about a graph that is made, or why torch is used.
    """

    def __init__(self, directory: Path, label: str, runtime: str, parts: Callable[[], TorchParts], say: Say) -> None:
        self.runtime = runtime
        self._label = label
        self._parts = parts
        self._say = say
        self._key = model_key(directory)
        self._scorer: GraphScorer | None = None
        self._ready: set[str] = set()
        self._rebuilt = False
        self.left = False
        self._changing = threading.RLock()
        self._changes = 0

    def facts(self) -> Mapping[str, Any] | None:
        """What the cache knows of the model; None where it has no graphs that can be used."""
        found = find_graphs(self._key)
        return None if found is None or "failed" in found.facts else found.facts

    def score_group(self, images: Sequence[Planes], request: Request) -> list[Scored]:
        """Score images of one size, in order; with torch where graphs cannot do what is asked. From any thread."""
        if self.left or not catalog().combiners[request.combiner].builtin:
            with self._changing:
                return self._parts().score_group(images, request)
        before = self._changes
        try:
            with self._changing:
                scorer = self._over_graphs(request)
            return scorer.score_group(images, request)
        except (MissingExtraError, GraphError) as error:
            with self._changing:
                # Where another thread met the same and has seen to it, there is nothing left to do but to try again.
                if self._changes == before:
                    self._changes += 1
                    if self._rebuilt or isinstance(error, MissingExtraError):
                        self._leave(str(error))
                    else:
                        self._rebuild(request)
        return self.score_group(images, request)

    def _over_graphs(self, request: Request) -> GraphScorer:
        """The graphs' scorer, with the graph of the combiner that is asked for."""
        name = gate_key(self._key, request.combiner, request.settings)
        if self._scorer is None or name not in self._ready:
            files, gate = find_graphs(self._key), find_graphs(name)
            if files is not None and "failed" in files.facts:
                raise GraphError(str(files.facts["failed"]))
            made = files is None or gate is None
            if made:
                files, gate = self._make(files, gate, request)
            if self._scorer is None or made:
                assert files is not None
                arranged = optimised_graphs(files, PASS_PREFIX) if self.runtime == "onnxruntime" else None
                self._scorer = GraphScorer(files, self._gate_of, self.runtime, arranged)
            if made:
                from iqakit.pipeline.graph_building import check_graphs

                check_graphs(self._scorer, self._parts(), request.combiner, request.settings)
            self._ready.add(name)
        return self._scorer

    def _make(self, files: GraphFiles | None, gate: GraphFiles | None, request: Request) -> tuple[GraphFiles, GraphFiles]:
        from iqakit.pipeline.graph_building import build_gate, build_graphs

        what = "its graph" if files is None else f"the graph of combiner {request.combiner}"
        self._say(f"{self._label}: making {what} for {self.runtime}, once")
        return (
            build_graphs(self._parts(), self._key) if files is None else files,
            build_gate(self._parts(), self._key, request.combiner, request.settings) if gate is None else gate,
        )

    def _gate_of(self, combiner: str, settings: Mapping[str, str]) -> GraphFiles:
        found = find_graphs(gate_key(self._key, combiner, settings))
        if found is None:
            raise GraphError(f"the graph of combiner {combiner} is gone")
        return found

    def _rebuild(self, request: Request) -> None:
        """Graphs that are damaged, or made in a way that does not work here, are made anew, once."""
        self._rebuilt = True
        self._scorer = None
        self._ready.clear()
        files = find_graphs(self._key)
        arranged = [] if files is None else [optimised_key(files, PASS_PREFIX)] if self.runtime == "onnxruntime" else []
        for key in (self._key, gate_key(self._key, request.combiner, request.settings), *arranged):
            found = find_graphs(key)
            if found is not None and "failed" not in found.facts:
                remove_graphs(found)

    def _leave(self, reason: str) -> None:
        """Go on with torch, and say why."""
        self.left = True
        self._say(f"{self._label}: torch is used, as {self.runtime} cannot be: {reason}")
        found = find_graphs(self._key)
        if found is not None and "failed" not in found.facts and self._rebuilt:
            remove_graphs(found)
        try:
            if self._rebuilt:
                # Remembered, so that the next run does not spend its time on the same.
                keep_graphs(self._key, {"failed": reason}, {})
        except StorageError:
            return
