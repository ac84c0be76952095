"""Torch modules to ONNX, and ONNX models cut, joined and given other tensors.

The only place that calls ``torch.onnx.export``. A network is traced once; what its passes do not share, the tensors laid
over it, is then swapped in the traced graph by name.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from iqakit.contracts import Backbone, Features, Preprocessing
from iqakit.runtimes.graph_session import GraphError

OPSET = 18
IR_VERSION = 10
_export: Any = torch.onnx.export  # its types know no buffers, which it writes to all the same
_ODD_SIDES = (71, 93)


class Network(nn.Module):
    """A backbone's network with its ``Features`` as one flat tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Embedding, stages, deviations."""
        features: Features = self.network(images)
        return features.embedding, *features.stages, *features.deviations


def feature_names(stages: int, prefix: str = "") -> list[str]:
    """Names of a network's outputs, in the order in which ``Network`` gives them."""
    numbers = range(stages)
    return [f"{prefix}embedding", *(f"{prefix}stage{n}" for n in numbers), *(f"{prefix}deviation{n}" for n in numbers)]


def probe_size(pre: Preprocessing, turn: int = 0) -> tuple[int, int]:
    """A (height, width) that a network takes and that is as odd as it may be; another one for each ``turn``."""
    if pre.fixed_size is not None:
        return pre.fixed_size
    height, width = (max(side + 14 * turn, pre.smallest_side + turn) for side in _ODD_SIDES)
    return _up(height, pre.multiple), _up(width + pre.multiple, pre.multiple)


def trace_network(backbone: Backbone, pre: Preprocessing, swapped: Collection[str] = ()) -> Any:
    """The bare network as an ONNX model: ``image`` (1, 3, H, W) in, features out. Its tensors keep their names.

    Args:
        backbone: The backbone, on the CPU.
        pre: How its images are prepared; says which sizes there are.
        swapped: Names of tensors that will be swapped in the graph; what they hold in it is meaningless.

    Raises:
        GraphError: The network cannot be traced.
    """
    example = torch.zeros(1, 3, *probe_size(pre))
    sides = () if pre.fixed_size is not None else (2, 3)
    names = feature_names(len(backbone.stage_dims))
    network = Network(_with_distinct(backbone.module, swapped))
    try:
        # Recording one run takes seconds. The newer way reasons about sizes, which for padding that depends on them takes
        # minutes; so it comes second. Whether sizes were understood is checked by running the graph on others.
        model = _record(network, example, names, sides)
    except GraphError:
        dynamic = dict.fromkeys((0, *sides), torch.export.Dim.DYNAMIC)
        model = trace(network, (example,), ["image"], names, (dynamic,), optimize=False)
    return renamed(model, lambda name: name.removeprefix("network."))


def _with_distinct(module: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy of a network in which the tensors named are all different: the exporter makes one of two that are equal."""
    own = copy.deepcopy(module)
    tensors = {**dict(own.named_parameters()), **dict(own.named_buffers())}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in sorted(names):
            held = tensors[name]
            held.copy_(1 + torch.rand(held.shape, generator=generator))
    return own


def _record(module: nn.Module, example: Tensor, outputs: Sequence[str], sides: Sequence[int]) -> Any:
    """A module of one input, ``image``, as what one run of it does; its tensors keep their names."""
    import onnx

    buffer = io.BytesIO()
    axes = {"image": {side: "nchw"[side] for side in sides}}
    try:
        with _quiet(), torch.no_grad():
            _export(
                module.eval(),
                (example,),
                buffer,
                dynamo=False,
                opset_version=OPSET,
                # Any other mode would fold normalization, and passes differ in just that.
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=["image"],
                output_names=list(outputs),
                dynamic_axes=axes,
            )
        return onnx.load_from_string(buffer.getvalue())
    except Exception as error:  # whatever a network or the exporter does not manage, another way may
        raise _graph_error(error) from error


def trace(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    sizes: tuple[Any, ...] | None = None,
    *,
    optimize: bool = True,
) -> Any:
    """A module as an ONNX model without local functions.

    Args:
        module: Takes and gives tensors.
        examples: What to trace it with.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        sizes: For each input which dimensions may differ, as ``torch.export`` takes it; None: none.
        optimize: Fold constants.

    Raises:
        GraphError: It cannot be traced.
    """
    import onnx

    buffer = io.BytesIO()
    try:
        with _quiet(), torch.no_grad():
            program = _export(
                module.eval(),
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=sizes,
                custom_translation_table=_translations(),
                optimize=optimize,
                verbose=False,
            )
            if program is None:
                raise GraphError("torch gave no graph")
            program.save(buffer)
        model = onnx.load_from_string(buffer.getvalue())
        if model.functions:
            from onnx.inliner import inline_local_functions

            model = inline_local_functions(model)
    except GraphError:
        raise
    except Exception as error:  # whatever a network or the exporter does not manage, torch itself still can
        raise _graph_error(error) from error
    return model


def with_tensors(model: Any, tensors: Mapping[str, Tensor], name_of: Callable[[str], str] = lambda name: name) -> Any:
    """A copy of a model with some of its initializers replaced.

    Args:
        model: A traced network.
        tensors: Replacements by name.
        name_of: New name of a replaced initializer.

    Raises:
        GraphError: The model has no initializer of that name, type and shape.
    """
    from onnx import numpy_helper

    changed = copy.deepcopy(model)
    place = {held.name: index for index, held in enumerate(changed.graph.initializer)}
    for name, tensor in tensors.items():
        if name not in place:
            raise GraphError(f"tensor {name} is not in the graph under that name")
        held = changed.graph.initializer[place[name]]
        fresh = numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name)
        if list(held.dims) != list(fresh.dims) or held.data_type != fresh.data_type:
            raise GraphError(f"tensor {name} is {list(fresh.dims)}, and {list(held.dims)} in the graph")
        held.CopyFrom(fresh)
    return renamed(changed, lambda name: name_of(name) if name in tensors else name)


def renamed(model: Any, rename: Callable[[str], str]) -> Any:
    """A copy of a model with every value renamed."""
    import onnx

    changed = copy.deepcopy(model)

    def visit(graph: Any) -> None:
        del graph.value_info[:]
        for held in (*graph.initializer, *graph.input, *graph.output):
            held.name = rename(held.name)
        for node in graph.node:
            node.input[:] = [rename(name) if name else "" for name in node.input]
            node.output[:] = [rename(name) if name else "" for name in node.output]
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    visit(attribute.g)

    visit(changed.graph)
    return changed


def cut(model: Any, outputs: Sequence[str]) -> Any:
    """The part of a model that some of its outputs need, with the inputs that it needs."""
    changed = copy.deepcopy(model)
    graph = changed.graph
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(name for name in _reads(node) if name)
    kept = {
        "node": nodes[::-1],
        "initializer": [held for held in graph.initializer if held.name in needed],
        "input": [held for held in graph.input if held.name in needed],
        "output": [held for name in outputs for held in graph.output if held.name == name],
    }
    for field, values in kept.items():
        own = [copy.deepcopy(value) for value in values]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(own)
    return changed


def join(models: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[str]) -> Any:
    """Models one after the other, as one; values of one name are one value, and initializers of one name are kept once.

    Args:
        models: In the order in which they run.
        inputs: Descriptions of the joined model's inputs.
        outputs: Names of its outputs.
    """
    whole = copy.deepcopy(models[0])
    graph = whole.graph
    described = {held.name: held for model in models for held in model.graph.output}
    held_names: set[str] = set()
    nodes, initializers = [], []
    for number, model in enumerate(models):
        for node in model.graph.node:
            own = copy.deepcopy(node)
            own.name = f"{number}/{own.name}"
            nodes.append(own)
        for initializer in model.graph.initializer:
            if initializer.name not in held_names:
                held_names.add(initializer.name)
                initializers.append(initializer)
    parts = {
        "node": nodes,
        "initializer": [copy.deepcopy(held) for held in initializers],
        "input": [copy.deepcopy(held) for held in inputs],
        "output": [copy.deepcopy(described[name]) for name in outputs],
    }
    for field, values in parts.items():
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    del graph.value_info[:]
    # Older runtimes refuse what newer packages declare, though operators of this set are all that is in it.
    whole.ir_version = IR_VERSION
    return whole


def fold_norms(model: Any) -> Any:
    """A copy of a model in which batch normalization that follows a convolution is part of that convolution."""
    import numpy as np
    from onnx import numpy_helper

    changed = copy.deepcopy(model)
    graph = changed.graph
    tensors = {held.name: held for held in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = {held.name: 1 for held in graph.output}
    for node in graph.node:
        for name in _reads(node):
            readers[name] = readers.get(name, 0) + 1
    folded: list[Any] = []
    for node in graph.node:
        conv = maker.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or readers[node.input[0]] != 1:
            continue
        if not all(name in tensors for name in (*conv.input[1:], *node.input[1:])):
            continue
        weight = numpy_helper.to_array(tensors[conv.input[1]]).astype(np.float64)
        scale, shift, mean, variance = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in node.input[1:])
        bias = numpy_helper.to_array(tensors[conv.input[2]]) if len(conv.input) > 2 else 0.0
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        names = [f"{conv.input[1]}/folded{len(folded)}", f"{conv.input[1]}/shift{len(folded)}"]
        values = [weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), (bias - mean) * factor + shift]
        for name, value in zip(names, values, strict=True):
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        conv.input[1:] = names
        conv.output[0] = node.output[0]
        folded.append(node)
    for node in folded:
        graph.node.remove(node)
    return cut(changed, [held.name for held in graph.output])


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators that torch has no ONNX form for, in plain ones."""
    from onnxscript import opset18

    op: Any = opset18  # its types know no lists, which it turns into constants

    def cdist(x1: Any, x2: Any, p: float, compute_mode: Any) -> Any:
        apart = op.Sub(op.Unsqueeze(x1, [1]), op.Unsqueeze(x2, [0]))
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), [2], keepdims=0))

    def searchsorted(ordered: Any, values: Any, **_: Any) -> Any:
        below = op.Less(op.Unsqueeze(ordered, [0]), op.Unsqueeze(values, [1]))
        return op.ReduceSum(op.Cast(below, to=7), [1], keepdims=0)  # 7: int64

    aten: Any = torch.ops.aten
    return {aten._cdist_forward.default: cdist, aten.searchsorted.Tensor: searchsorted}


def _reads(node: Any) -> Iterator[str]:
    """Names that a node reads, those of graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _reads(inner)


def _graph_error(error: Exception) -> GraphError:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return GraphError(f"{type(error).__name__}: {first.strip()[:200]}")


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from talking: it warns of what it is about to manage."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
