"""Making a model's graphs, and seeing that they give what torch gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from iqakit.errors import StorageError
from iqakit.imaging.preprocessing import preprocessing_to_json
from iqakit.pipeline.graph_scoring import FINISH_NAME, GATE_NAME, GraphScorer, gate_key, pass_name
from iqakit.pipeline.scored import make_request
from iqakit.pipeline.tail import head_name, pass_prefix, trace_finish, trace_gate, trace_heads
from iqakit.pipeline.torch_scoring import TorchParts
from iqakit.runtimes.choice import check_exporters
from iqakit.runtimes.graph_cache import GraphFiles, find_graphs, keep_graphs
from iqakit.runtimes.graph_export import (
    cut,
    feature_names,
    fold_norms,
    join,
    probe_size,
    renamed,
    trace_network,
    with_tensors,
)
from iqakit.runtimes.graph_session import GraphError

RAW_TOLERANCE = 1e-4
POINTS_TOLERANCE = 0.05
PROBES = 2


def build_graphs(parts: TorchParts, key: str) -> GraphFiles:
    """Make and keep a model's graphs: one a pass, and one for what comes after the heads.

    Raises:
        GraphError: The network cannot be traced, or the graphs cannot be kept.
        MissingExtraError: A package that it takes is missing.
    """
    check_exporters("making a graph")
    pre = parts.adapters[0].preprocessing
    network = trace_network(parts.backbone, pre, swapped_names(parts))
    heads = trace_heads(parts)
    graphs = {FINISH_NAME: trace_finish(parts).SerializeToString()}
    for number in range(len(parts.overlays)):
        graphs[pass_name(number)] = fold_norms(pass_graph(parts, network, heads, number)).SerializeToString()
    facts = {
        "tasks": list(parts.tasks),
        "backbone": parts.backbone.id,
        "pass_of_task": list(parts.pass_of_task),
        "preprocessing": preprocessing_to_json(pre),
    }
    return _kept(key, facts, graphs)


def swapped_names(parts: TorchParts) -> set[str]:
    """Names of the tensors in which passes differ."""
    return {name for overlay in parts.overlays for name in overlay}


def pass_tensors(parts: TorchParts, number: int) -> dict[str, torch.Tensor]:
    """What a pass has in place of each tensor in which passes differ."""
    module = parts.backbone.module
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    overlay = parts.overlays[number]
    return {name: overlay.get(name, own[name]) for name in sorted(swapped_names(parts))}


def pass_graph(parts: TorchParts, network: Any, heads: Any, number: int) -> Any:
    """One pass with the heads that look at it; the bare pass gives the stages, for the gate, too."""
    names = feature_names(len(parts.backbone.stage_dims))
    prefix = pass_prefix(number)
    own = with_tensors(network, pass_tensors(parts, number))
    shown = renamed(own, lambda name: f"{prefix}{name}" if name in names else name)
    tasks = [head_name(index) for index, found in enumerate(parts.pass_of_task) if found == number]
    stages = [f"{prefix}{name}" for name in names if name.startswith("stage")] if number == 0 else []
    tail = [cut(heads, tasks)] if tasks else []
    # Names of values inside the two must not meet.
    tail = [renamed(model, lambda name: name if name.startswith(("pass", "head")) else f"tail/{name}") for model in tail]
    joined = join([shown, *tail], shown.graph.input, [*tasks, *stages])
    return cut(joined, [*tasks, *stages])


def build_gate(parts: TorchParts, key: str, combiner: str, settings: Mapping[str, str]) -> GraphFiles:
    """Make and keep the graph of one combiner with its settings; ``key`` is the model's.

    Raises:
        GraphError: The combiner cannot be traced, or the graph cannot be kept.
        MissingExtraError: A package that it takes is missing.
    """
    check_exporters("making a graph")
    told = parts.tasks if combiner == "oracle" else ("",)
    rows = {task: parts.same_for_all(combiner, task or None, settings) for task in told}
    if all(row is not None for row in rows.values()):
        facts: dict[str, Any] = {"rows": rows}
    else:
        facts = {"rows": None}
    graph = trace_gate(parts, combiner, told[0] or None, settings)
    graphs = {GATE_NAME: graph.SerializeToString()}
    return _kept(gate_key(key, combiner, settings), facts, graphs)


def ready_gate(parts: Callable[[], TorchParts], key: str, combiner: str, settings: Mapping[str, str]) -> GraphFiles:
    """The graph of a combiner, from the cache if it is there."""
    found = find_graphs(gate_key(key, combiner, settings))
    return build_gate(parts(), key, combiner, settings) if found is None else found


def check_graphs(scorer: GraphScorer, parts: TorchParts, combiner: str, settings: Mapping[str, str]) -> None:
    """See that graphs give what torch gives, on probe images of different sizes.

    Raises:
        GraphError: They do not; the message says by how much.
    """
    pre = parts.adapters[0].preprocessing
    generator = torch.Generator().manual_seed(0)
    task = parts.tasks[-1] if combiner == "oracle" else None
    request = make_request(combiner, task, settings, skip_below=None)
    for turn in range(PROBES):
        probe = torch.randn(3, *probe_size(pre, turn), generator=generator).numpy()
        (ours,), (theirs,) = scorer.score_group([probe], request), parts.score_group([probe], request)
        pairs = [
            *zip(ours.heads, theirs.heads, strict=True),
            (ours.raw, theirs.raw),
            *zip(ours.weights, theirs.weights, strict=True),
        ]
        apart = max(abs((mine or 0.0) - (other or 0.0)) for mine, other in pairs)
        points = max(_apart(ours.score, theirs.score), _apart(ours.std, theirs.std))
        novel = _apart(ours.novelty, theirs.novelty)
        # Written so that nan fails too.
        if not (apart <= RAW_TOLERANCE and points <= POINTS_TOLERANCE and novel <= POINTS_TOLERANCE):
            raise GraphError(f"the graph differs from torch by {apart:.2g} raw and {points:.2g} points")


def _apart(one: float | None, other: float | None) -> float:
    """How far two figures are apart; 0 where both are missing."""
    if one is None or other is None:
        return 0.0 if one is other else float("inf")
    return 0.0 if one != one and other != other else abs(one - other)


def _kept(key: str, facts: Mapping[str, Any], graphs: Mapping[str, bytes]) -> GraphFiles:
    try:
        return keep_graphs(key, facts, graphs)
    except StorageError as error:
        raise GraphError(str(error)) from error
