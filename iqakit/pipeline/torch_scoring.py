"""A model's parts in torch, and scoring with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iqakit.combiners.kmeans import novelty
from iqakit.contracts import Adapter, Backbone, Combiner, Features
from iqakit.errors import IqakitError, MismatchError
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.pooling import gate_features
from iqakit.imaging.preprocessing import Planes
from iqakit.pipeline.combining import combine_tasks
from iqakit.pipeline.part_checks import checked_weights, failed
from iqakit.pipeline.scored import Request, Scored
from iqakit.pipeline.skipping import needs_no_gate, used_weights
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config
from iqakit.runtimes.torch_runtime import TorchRuntime
from iqakit.storage.fingerprints import fingerprint_tensors
from iqakit.storage.model_directory import read_model

if TYPE_CHECKING:
    from iqakit.pipeline.adapter_choice import Replacing

GATE = "kmeans"
"""The combiner whose state novelty is read from."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the passes over N images give, before tasks are combined.

    Attributes:
        raw: (N, T), each task's head output.
        gate: Gate features of the bare backbone: one tensor (N, D_l) a stage.
    """

    raw: Tensor
    gate: tuple[Tensor, ...]


class TorchParts:
    """Backbone, adapters and combiners' state of a model, and what they give for images.

    Attributes:
        backbone: The frozen backbone.
        adapters: One a task, in the order learned.
        states: State of each fitted combiner, by combiner.
        overlays: Tensors of each pass: first the bare backbone's, which are none, then each that differs from it.
        pass_of_task: Which pass each task's head looks at.
    """

    def __init__(
        self,
        directory: Path,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        states: Mapping[str, Mapping[str, Tensor]],
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        others = [adapter.task for adapter in adapters if adapter.preprocessing != adapters[0].preprocessing]
        if others:
            raise MismatchError(
                f"model {directory}: task {others[0]!r} prepares images in another way than {adapters[0].task!r}; "
                "keep them in models of their own"
            )
        self.backbone = backbone
        self.adapters = tuple(adapters)
        self.states = states
        self.overlays, self.pass_of_task = plan_passes(adapters)
        self._runtime = TorchRuntime(backbone, device, precision)
        # Kept from call to call: a combiner may have made something of the state that it was shown.
        self._combiners: dict[tuple[Any, ...], Combiner] = {}
        self._on_device = [{key: value.to(device) for key, value in overlay.items()} for overlay in self.overlays]

    @classmethod
    def read(
        cls,
        directory: Path,
        device: str,
        weights: str | None,
        precision: str = "float32",
        replacing: Replacing | None = None,
    ) -> TorchParts:
        """Read a model directory and make its backbone; raises what ``QualityModel.load`` does."""
        manifest, adapters, states, shared = read_model(directory)
        backbone = catalog().make_backbone(manifest.backbone.id, weights or manifest.backbone.weights)
        _check_backbone(backbone, manifest.backbone.fingerprint, directory)
        if shared:
            # Methods that train the shared tensors: every adapter is then laid over those.
            adapters = [replace(adapter, tensors={**shared, **adapter.tensors}) for adapter in adapters]
        if replacing is not None:
            adapters = replacing.in_place_of(adapters, backbone, shared or {})
        return cls(directory, backbone, adapters, states, device, precision)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order learned."""
        return tuple(adapter.task for adapter in self.adapters)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._runtime.device

    def outputs(self, images: Tensor) -> Outputs:
        """Run the bare backbone and every adapter; passes with equal tensors are run once.

        Args:
            images: (N, 3, H, W), prepared.
        """
        found = self._runtime.passes(images, self._on_device)
        heads = [self.head(index, found[number]) for index, number in enumerate(self.pass_of_task)]
        return Outputs(torch.stack(heads, 1), tuple(gate_features(found[0].stages)))

    def head(self, index: int, features: Features) -> Tensor:
        """One task's raw outputs, (N,), from the features of its pass."""
        adapter = self.adapters[index]
        inputs = head_input(features, adapter.features)
        return head_scores(inputs, adapter.head_weight, adapter.head_bias, adapter.head_kind)

    def weights(
        self, gate: Sequence[Tensor], combiner: str, task: str | None = None, settings: Mapping[str, str] | None = None
    ) -> Tensor:
        """The combiner's weights (N, T).

        Args:
            gate: Gate features, one (N, D_l) a stage.
            combiner: The combiner's name.
            task: The images' true task, for ``oracle``.
            settings: The combiner's settings, as ``--set`` gives them.
        """
        weights = self.bare_weights(gate, combiner, task, settings or {})
        return checked_weights(weights, len(gate[0]), len(self.tasks), combiner)

    def bare_weights(self, gate: Sequence[Tensor], combiner: str, task: str | None, settings: Mapping[str, str]) -> Tensor:
        """As ``weights``, but what the combiner gives is not looked at, so that it can be traced into a graph."""
        oracle = None if task is None else [task] * len(gate[0])
        key = (combiner, *sorted(settings.items()))
        try:
            if key not in self._combiners:
                entry = catalog().combiner(combiner)
                self._combiners[key] = entry.create(make_config(entry, settings))
            return self._combiners[key].weights(self.states.get(combiner, {}), self.tasks, gate, oracle)
        except IqakitError:
            raise
        except Exception as error:  # a plugin may raise anything, and the user must learn whose fault it is
            raise failed("combiner", combiner, catalog().combiners[combiner].distribution, error) from error

    def same_for_all(self, combiner: str, task: str | None, settings: Mapping[str, str]) -> list[float] | None:
        """The weights, where the combiner gives every image the same without looking at it; else None."""
        entry = catalog().combiner(combiner)
        if getattr(entry.create(make_config(entry, settings)), "looks_at_images", True):
            return None
        blank = [torch.zeros(1, width) for width in self.backbone.stage_dims]
        row: list[float] = self.weights(blank, combiner, task, settings)[0].tolist()
        return row

    def combine(self, raw: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score, raw and std of N images, each (N,) and float64, which keeps apart what differs; see ``combine_tasks``."""
        return combine_tasks(raw.double(), weights.double(), [adapter.calibration for adapter in self.adapters])

    def novelty(self, gate: Sequence[Tensor]) -> Tensor | None:
        """Share of training images nearer to what was learned, (N,) in 0-1; None where no gate was fitted."""
        state = self.states.get(GATE, {})
        known = all(f"{task}/distances" in state for task in self.tasks)
        return novelty(state, self.tasks, gate) if known else None

    def score_group(self, images: Sequence[Planes], request: Request) -> list[Scored]:
        """Score images of one size: the bare pass first, then for each image the passes whose heads count."""
        batch = torch.stack([torch.from_numpy(image) for image in images])
        with torch.inference_mode():
            known = self.same_for_all(request.combiner, request.task, request.settings)
            alone = known is not None and needs_no_gate(known, request.skip_below)
            bare = None if alone and 0 not in self._passes_for(known or ()) else self._run(batch, 0)
            gate = () if bare is None else tuple(gate_features(bare.stages))
            found = None if bare is None else self.novelty(gate)
            if known is not None:
                rows = [known] * len(images)
            else:
                rows = self.weights(gate, request.combiner, request.task, request.settings).tolist()
            used = [used_weights(row, request.skip_below) for row in rows]
            wanted = [self._passes_for(row) for row, _ in used]
            if bare is not None:
                # What the bare pass gives costs no further pass, whatever it weighs.
                wanted = [passes | {0} for passes in wanted]
            if request.skip_below is None:
                wanted = [set(range(len(self.overlays))) for _ in wanted]
            raw = torch.zeros(len(images), len(self.tasks))
            for number in range(len(self.overlays)):
                members = [index for index, passes in enumerate(wanted) if number in passes]
                if not members:
                    continue
                features = bare if number == 0 and bare is not None else self._run(batch[members], number)
                for index in self._tasks_of(number):
                    raw[members, index] = self.head(index, features)
            score, mixed, std = self.combine(raw, torch.tensor([row for row, _ in used]))
        results = []
        for place, (row, skipped) in enumerate(used):
            run = wanted[place]
            request.cost.add(len(run), len(self.overlays) - len(run), skipped)
            heads = tuple(
                float(raw[place, index]) if self.pass_of_task[index] in run else None for index in range(len(row))
            )
            novel = None if found is None else float(found[place])
            results.append(Scored(float(score[place]), float(mixed[place]), float(std[place]), novel, heads, tuple(row)))
        return results

    def raw_under(self, index: int, tensors: Mapping[str, Tensor], images: Sequence[Tensor]) -> Tensor:
        """One task's raw outputs (N,) with other tensors in place of its own, in eval mode; its head stays.

        Args:
            index: The task's number.
            tensors: Tensors by name; empty is the bare backbone.
            images: Prepared images, each (3, h, w), of any sizes, on the CPU.
        """
        overlay = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        found = torch.zeros(len(images))
        with torch.inference_mode():
            for places in self.side_by_side([image.shape for image in images]):
                batch = torch.stack([images[place] for place in places])
                found[places] = self.head(index, self._runtime.passes(batch, [overlay])[0])
        return found

    def side_by_side(self, shapes: Sequence[Sequence[int]]) -> list[list[int]]:
        """Which images go into one pass: on a GPU those of one size; on the CPU each alone, as neighbours change bits."""
        if self.device == "cpu":
            return [[place] for place in range(len(shapes))]
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, shape in enumerate(shapes):
            groups.setdefault(tuple(shape), []).append(place)
        return list(groups.values())

    def recombined(self, scored: Scored, heads: Sequence[float | None]) -> Scored:
        """The figures of an image with other head outputs; its weights and its novelty stay."""
        raw = torch.tensor([[0.0 if head is None else head for head in heads]])
        score, mixed, std = self.combine(raw, torch.tensor([scored.weights]))
        return replace(scored, score=float(score[0]), raw=float(mixed[0]), std=float(std[0]), heads=tuple(heads))

    def _run(self, batch: Tensor, number: int) -> Features:
        return self._runtime.passes(batch, [self._on_device[number]])[0]

    def _passes_for(self, weights: Sequence[float]) -> set[int]:
        """Passes that heads of any weight look at."""
        return {self.pass_of_task[index] for index, weight in enumerate(weights) if weight > 0}

    def _tasks_of(self, number: int) -> list[int]:
        return [index for index, pass_number in enumerate(self.pass_of_task) if pass_number == number]


def plan_passes(adapters: Sequence[Adapter]) -> tuple[list[Mapping[str, Tensor]], tuple[int, ...]]:
    """Which passes a model takes: equal tensors, one pass.

    Returns:
        The tensors of each pass, the bare backbone's (none) first, and for each adapter the number of its pass.
    """
    overlays: list[Mapping[str, Tensor]] = [{}]
    number_of = {fingerprint_tensors({}): 0}
    numbers = []
    for adapter in adapters:
        mark = fingerprint_tensors(adapter.tensors)
        if mark not in number_of:
            number_of[mark] = len(overlays)
            overlays.append(adapter.tensors)
        numbers.append(number_of[mark])
    return overlays, tuple(numbers)


def _check_backbone(backbone: Backbone, fingerprint: str, directory: Path) -> None:
    found = backbone.fingerprint()
    if found != fingerprint:
        raise MismatchError(
            f"model {directory} was made on {backbone.id} with weights {fingerprint[:8]}, but the weights found are "
            f"{found[:8]}; give the weights that it was made with"
        )
