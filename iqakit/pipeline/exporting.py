"""A whole model as one ONNX file: gate, adapters, combiner and calibration; what passes share is stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqakit.imaging.preprocessing import preprocessing_to_json
from iqakit.pipeline.graph_building import pass_tensors, swapped_names
from iqakit.pipeline.tail import head_name, pass_prefix, trace_finish, trace_gate, trace_heads
from iqakit.pipeline.torch_scoring import TorchParts
from iqakit.runtimes.choice import check_exporters
from iqakit.runtimes.graph_export import OPSET, join, renamed, trace_network, with_tensors
from iqakit.storage.canonical_json import canonical_json

FORMAT = "iqakit-export"
FORMAT_VERSION = 1
METADATA_KEY = "iqakit"


def export_model(
    parts: TorchParts, version: str, combiner: str, task: str | None = None, settings: Mapping[str, str] | None = None
) -> bytes:
    """A model as one ONNX file.

    Input ``image``: uint8 (1, H, W, 3), RGB, resized as the metadata's ``preprocessing`` says; any H and W that it allows.
    Outputs: ``score`` (1,) points, ``raw`` (1,), ``std`` (1,) points, ``novelty`` (1,) where a gate was fitted, ``weights``
    (1, T), ``task_scores`` (1, T) raw. The metadata's one key, ``iqakit``, holds JSON: model version, tasks, combiner and
    preprocessing. Every head is run, whatever it weighs.

    Args:
        parts: The model.
        version: Its name and version, for the metadata.
        combiner: The combiner's name.
        task: The images' true task, for ``oracle``.
        settings: The combiner's settings.

    Raises:
        GraphError: The model cannot be traced.
        MissingExtraError: A package that it takes is missing.
        ConfigurationError: The combiner needs to be told the task.
    """
    check_exporters("export")
    import onnx

    pre = parts.adapters[0].preprocessing
    gate = trace_gate(parts, combiner, task, settings or {})
    network = trace_network(parts.backbone, pre, swapped_names(parts))
    front = _front(pre.mean, pre.std)
    pieces = [front, *(_pass(parts, network, number) for number in range(len(parts.overlays)))]
    pieces += [_prefixed(trace_heads(parts), "heads/"), _stack(len(parts.tasks))]
    pieces += [_prefixed(gate, "gate/"), _prefixed(trace_finish(parts), "finish/", heads="task_scores")]
    outputs = ["score", "raw", "std", *(held.name for held in gate.graph.output if held.name == "novelty")]
    whole = join(pieces, front.graph.input, [*outputs, "weights", "task_scores"])
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": version,
        "tasks": list(parts.tasks),
        "combiner": combiner,
        "task": task,
        "preprocessing": preprocessing_to_json(pre),
    }
    onnx.helper.set_model_props(whole, {METADATA_KEY: canonical_json(record, "the metadata of the export")})
    data: bytes = whole.SerializeToString()
    return data


def _front(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    """From pixels to the network's input, in the order in which ``iqakit.imaging`` computes it."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    numbers = {"front/scale": 255.0, "front/mean": mean, "front/std": std}
    nodes = [
        helper.make_node("Cast", ["image"], ["front/float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["front/float", "front/scale"], ["front/unit"], name="unit"),
        helper.make_node("Sub", ["front/unit", "front/mean"], ["front/centred"], name="centre"),
        helper.make_node("Div", ["front/centred", "front/std"], ["front/scaled"], name="scale"),
        helper.make_node("Transpose", ["front/scaled"], ["front/prepared"], name="transpose", perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "iqakit",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
        [helper.make_tensor_value_info("front/prepared", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="iqakit")


def _pass(parts: TorchParts, network: Any, number: int) -> Any:
    """One pass whose initializers, but those in which passes differ, keep the names that all passes use."""
    swapped = pass_tensors(parts, number)
    own = with_tensors(network, swapped)
    shared = {held.name for held in own.graph.initializer} - set(swapped)
    prefix = pass_prefix(number)

    def name_of(name: str) -> str:
        if name == "image":
            return "front/prepared"
        return name if name in shared else f"{prefix}{name}"

    return renamed(own, name_of)


def _stack(tasks: int) -> Any:
    """The heads' outputs side by side: (1, T)."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Concat", [head_name(index) for index in range(tasks)], ["stack/flat"], name="flat", axis=0),
        helper.make_node("Unsqueeze", ["stack/flat", "stack/axis"], ["task_scores"], name="row"),
    ]
    graph = helper.make_graph(
        nodes,
        "stack",
        [helper.make_tensor_value_info(head_name(index), TensorProto.FLOAT, [1]) for index in range(tasks)],
        [helper.make_tensor_value_info("task_scores", TensorProto.FLOAT, [1, tasks])],
        [numpy_helper.from_array(np.array([0], np.int64), "stack/axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def _prefixed(model: Any, prefix: str, **other: str) -> Any:
    """A piece whose inner names meet no other piece's; its inputs and outputs keep theirs, or get those given."""
    kept = {held.name for held in (*model.graph.input, *model.graph.output)}
    return renamed(model, lambda name: other.get(name, name) if name in kept else f"{prefix}{name}")
