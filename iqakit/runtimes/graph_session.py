"""An open graph: arrays in, arrays out. Loads no torch."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from iqakit.errors import UnknownNameError
from iqakit.runtimes.choice import FASTEST_FIRST

Arrays = Mapping[str, NDArray[Any]]


class GraphError(Exception):
    """A graph cannot be made, opened or run; whoever meets it goes to torch instead."""


class GraphSession(Protocol):
    """A graph that can be run, from several threads at once."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name.

        Args:
            inputs: Arrays by name; names that the graph does not ask for are left out.

        Raises:
            GraphError: The runtime failed.
        """
        ...


def open_session(graph: bytes, runtime: str, threads: int | None = None, *, optimised: bool = False) -> GraphSession:
    """Open a graph.

    Args:
        graph: An ONNX model, serialised; or what ``optimise`` made of one, for ``onnxruntime``.
        runtime: ``onnxruntime`` or ``openvino``.
        threads: Threads that do the work, on one image together or, where several are run at once, side by side; None: one
            a core that this process may use. OpenVINO gives each image one of them.
        optimised: Whether ``optimise`` made the graph, so that it is taken as it is.

    Raises:
        GraphError: The runtime does not take it.
        UnknownNameError: There is no such runtime.
    """
    count = threads or usable_cores()
    if runtime == "onnxruntime":
        return _OnnxRuntimeSession(graph, count, optimised)
    if runtime == "openvino":
        return _OpenVinoSession(graph, count)
    raise UnknownNameError.of("graph runtime", runtime, FASTEST_FIRST)


def optimise(graph: bytes) -> bytes:
    """A graph as ONNX Runtime arranges it for this machine, in its own format.

    Raises:
        GraphError: The runtime does not take it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory(prefix="iqakit-graph-") as place:
        path = Path(place) / "graph.ort"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            return path.read_bytes()
        except Exception as error:  # the library's errors have no common base
            raise GraphError(_one_line(error)) from error


def usable_cores() -> int:
    """Cores that this process may use; ``OMP_NUM_THREADS`` bounds them, as it does for torch."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    bound = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(bound)) if bound.isdigit() and int(bound) > 0 else cores


class _OnnxRuntimeSession:
    """A session of ONNX Runtime on the CPU."""

    def __init__(self, graph: bytes, threads: int, optimised: bool) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.load_model_format", "ORT")
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait for the next image would take the cores from those that decode it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Memory of the largest image so far would be kept for ever; sizes differ, so give back what a run took.
        options.enable_mem_pattern = False
        if _shared_memory():
            options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's errors have no common base
            raise GraphError(_one_line(error)) from error
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        given = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        try:
            found = self._session.run(self._outputs, given)
        except Exception as error:  # the library's errors have no common base
            raise GraphError(_one_line(error)) from error
        return dict(zip(self._outputs, found, strict=True))


@functools.cache
def _shared_memory() -> bool:
    """Let all sessions of this process share their working memory.

    With memory of its own, every pass of a model would first ask the system for it: more memory, and a slow first run.
    """
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    try:
        onnxruntime.create_and_register_allocator(place, None)
    except Exception:  # the library's errors have no common base; sessions do as well with memory of their own
        return False
    return True


class _OpenVinoSession:
    """A compiled model of OpenVINO on the CPU."""

    def __init__(self, graph: bytes, threads: int) -> None:
        import openvino

        core = openvino.Core()
        # The default precision on some processors is bfloat16, which is too coarse for a score.
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        try:
            model = core.read_model(graph)
            self._compiled = core.compile_model(model, "CPU", config)
            self._idle: list[Any] = [self._compiled.create_infer_request()]
        except Exception as error:  # the library's errors have no common base
            raise GraphError(_one_line(error)) from error
        # A port may have taken over the names of what was optimised away beside it.
        self._inputs = [sorted(port.get_names()) for port in self._compiled.inputs]
        self._outputs = [sorted(port.get_names()) for port in self._compiled.outputs]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        chosen = [next(name for name in names if name in inputs) for names in self._inputs]
        # A request is for one thread at a time; taking from a list and putting back are atomic.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            request.infer({place: np.ascontiguousarray(inputs[name]) for place, name in enumerate(chosen)})
        except Exception as error:  # the library's errors have no common base
            raise GraphError(_one_line(error)) from error
        # Copies: the next image is written into the same memory.
        found = [np.array(request.get_output_tensor(place).data) for place in range(len(self._outputs))]
        self._idle.append(request)
        return {name: array for names, array in zip(self._outputs, found, strict=True) for name in names}


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
