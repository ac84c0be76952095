"""Adapting one batch of images after the other: which task, from where, and whether what came of it is believed.

Source scores come in; what goes out is the source's or the adapted score of every image, and why. Only the adapted
task's pass is run again. Episodic runs start every batch from the source and draw with the same seed, so that a batch's
scores depend on no other; online runs go on from where the batch before ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Generator, Tensor

from iqakit.contracts import Adapter, TestTimeMethod
from iqakit.errors import IqakitError, PluginError
from iqakit.pipeline.adaptation_evidence import rank_satisfaction
from iqakit.pipeline.adaptation_limits import Evidence, expects_gain
from iqakit.pipeline.adaptation_request import AdaptationRequest, find_method
from iqakit.pipeline.adaptation_safety import correlation_of, refused, shift_of, spread_of, uniform
from iqakit.pipeline.part_checks import failed
from iqakit.pipeline.scored import Scored
from iqakit.pipeline.torch_scoring import TorchParts
from iqakit.plugins.catalog import catalog
from iqakit.runtimes.precision import exact_float32

KEEP: Final = 0.99
"""Share of the adapted tensors that an online run carries on; the rest is the source's."""


@dataclass(frozen=True, slots=True)
class AdaptedBatch:
    """What came of a batch.

    Attributes:
        task: The task that was adapted, or would have been.
        scored: Figures of every image as they are to be given: adapted, or the source's.
        proposed: Figures after adaptation, believed or not; None where it was not tried or failed.
        adapted: Whether ``scored`` are adapted.
        note: Which task was adapted, or why the source's figures are given.
        evidence: What the batch says about itself; None unless asked for.
        adapter: The adapter that ``proposed`` was scored with, on the CPU; None where there is none.
    """

    task: str
    scored: tuple[Scored, ...]
    proposed: tuple[Scored, ...] | None
    adapted: bool
    note: str
    evidence: Evidence | None = None
    adapter: Adapter | None = None


class BatchAdapter:
    """Adapts a model to batches of images.

    Args:
        parts: The model.
        request: How to adapt.
        evidence: Look at what each batch says about itself also where the request does not need it.
        pull: Share of the source in what an online run carries on.
    """

    def __init__(
        self, parts: TorchParts, request: AdaptationRequest, *, evidence: bool = False, pull: float = 1 - KEEP
    ) -> None:
        self._parts = parts
        self._request = request
        self._asked_for_evidence = evidence
        self._wants_evidence = evidence or request.auto
        self._pull = pull
        self._entry = find_method(request.method)
        self._methods: dict[int, TestTimeMethod] = {}
        self._carried: dict[int, Mapping[str, Tensor]] = {}
        self._batches: dict[int, int] = {}

    def __call__(
        self,
        images: Sequence[Tensor],
        scored: Sequence[Scored],
        task: str | None = None,
        satisfaction: float | None = None,
    ) -> AdaptedBatch:
        """Adapt to a batch.

        Args:
            images: Prepared images, each (3, h, w), on the CPU.
            scored: The source's figures of each, all heads finite.
            task: The task to adapt; None: the one that the batch belongs to.
            satisfaction: The batch's rank satisfaction, where it is known already.

        Raises:
            PluginError: The method failed.
            ConfigurationError: The method cannot be used with this backbone or these settings.
        """
        index = self._parts.tasks.index(task) if task is not None else belongs_to(scored)
        result = self._adapted(index, images, tuple(scored), satisfaction)
        if self._request.mode == "online":
            self._carry(index, result)
        return result

    def carried(self, index: int) -> Mapping[str, Tensor]:
        """A task's tensors as its last batch left them; its own where there was none."""
        return self._carried.get(index, self._parts.adapters[index].tensors)

    def _adapted(
        self, index: int, images: Sequence[Tensor], scored: tuple[Scored, ...], satisfaction: float | None
    ) -> AdaptedBatch:
        task = self._parts.tasks[index]
        source, calibrated = scores_of(scored)
        reason = uniform(source, calibrated)
        if reason is not None and not self._wants_evidence:
            return AdaptedBatch(task, scored, None, False, reason)
        before = self._evidence(index, images, scored, satisfaction) if self._wants_evidence else None
        if self._request.auto and before is not None and not self._asked_for_evidence:
            # What is known beforehand can already speak against it; then nothing need be adapted.
            worth, why = expects_gain(replace(before, correlation=1.0, shift=0.0))
            if not worth:
                return AdaptedBatch(task, scored, None, False, reason or why, before)
        start = replace(self._parts.adapters[index], tensors=self._moved(self._begin(index)))
        made, trouble = self._made(index, start, images)
        if made is None:
            reason = reason or trouble
        elif self._unchanged(index, made):
            reason = reason or trouble or "nothing was changed"
        proposed = None if made is None else self._rescored(index, made, images, scored)
        evidence = None
        if proposed is not None:
            adapted = scores_of(proposed, calibrated)[0]
            errors = torch.tensor([item.std for item in scored], dtype=torch.float64) if calibrated else None
            reason = reason or trouble or refused(source, adapted, errors)
            if before is not None:
                evidence = replace(before, correlation=correlation_of(source, adapted), shift=shift_of(source, adapted))
        if self._request.auto and reason is None and evidence is not None:
            worth, why = expects_gain(evidence)
            reason = None if worth else why
        if reason is not None or proposed is None:
            return AdaptedBatch(task, scored, proposed, False, reason or "nothing was changed", evidence, made)
        return AdaptedBatch(task, proposed, proposed, True, f"adapted task {task}", evidence, made)

    def _made(self, index: int, start: Adapter, images: Sequence[Tensor]) -> tuple[Adapter | None, str | None]:
        """The adapter that the method makes, on the CPU, or why it made none; or what it says against its own result."""
        name, device = self._request.method, self._parts.device
        generator = Generator().manual_seed(self._request.seed)
        try:
            # A caller may stand in inference mode, in which nothing can be trained.
            with torch.inference_mode(False), torch.enable_grad(), exact_float32():
                if index not in self._methods:
                    self._methods[index] = self._entry.create(self._request.config)  # type: ignore[assignment]
                moved = [image.to(device) if device != "cpu" else image for image in images]
                made = self._methods[index].adapt(self._parts.backbone, start, moved, generator)
        except ArithmeticError as error:
            return None, f"adaptation diverged: {_one_line(error)}"
        except torch.OutOfMemoryError:
            return None, f"not enough memory on {device} to adapt to {len(images)} images at once"
        except IqakitError:
            raise
        except Exception as error:  # a plugin may raise anything, and the user must learn whose fault it is
            raise failed("test-time method", name, catalog().adapters[name].distribution, error) from error
        if not isinstance(made, Adapter) or made.task != start.task:
            raise PluginError(
                f"test-time method {name} was given the adapter of task {start.task!r} and gave no adapter of it; "
                "report it to its authors"
            )
        tensors = {key: value.detach().cpu() for key, value in made.tensors.items()}
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            return None, "adaptation gave tensors that are not finite"
        return replace(made, tensors=tensors), skipped_because(made)

    def _begin(self, index: int) -> Mapping[str, Tensor]:
        """What a batch starts from: the source, or what the batch before it left, pulled back to the source."""
        tensors = self.carried(index)
        if index not in self._carried:
            return tensors
        source = self.source_tensors(index, tensors)
        return {name: pulled(tensor, source[name], self._pull) for name, tensor in tensors.items()}

    def _moved(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device = self._parts.device
        return {key: value.to(device) for key, value in tensors.items()}

    def _unchanged(self, index: int, made: Adapter) -> bool:
        """Whether an adapter's tensors are the source's, to the bit."""
        source = self.source_tensors(index, made.tensors)
        return all(torch.equal(tensor, source[name]) for name, tensor in made.tensors.items() if name in source) and set(
            self._parts.adapters[index].tensors
        ) <= set(made.tensors)

    def source_tensors(self, index: int, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A task's own tensors of these names, on the CPU: its adapter's, else the backbone's; others are left out."""
        module = self._parts.backbone.module
        own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
        own |= dict(self._parts.adapters[index].tensors)
        return {name: own[name].detach().cpu() for name in names if name in own}

    def _rescored(
        self, index: int, made: Adapter, images: Sequence[Tensor], scored: tuple[Scored, ...]
    ) -> tuple[Scored, ...]:
        """The figures with one task's head output replaced by what it is under the adapter."""
        if self._unchanged(index, made):
            return scored
        counts = [place for place, item in enumerate(scored) if item.weights[index] > 0 and item.heads[index] is not None]
        if not counts:
            return scored
        found = self._parts.raw_under(index, made.tensors, [images[place] for place in counts])
        results = list(scored)
        for place, value in zip(counts, found.tolist(), strict=True):
            heads = list(scored[place].heads)
            heads[index] = value
            results[place] = self._parts.recombined(scored[place], heads)
        return tuple(results)

    def _evidence(
        self, index: int, images: Sequence[Tensor], scored: Sequence[Scored], satisfaction: float | None
    ) -> Evidence:
        """What a batch says about itself before anything is adapted."""
        novelties = [item.novelty for item in scored if item.novelty is not None]
        if satisfaction is None:
            satisfaction = rank_satisfaction(self._parts, index, images, self._request.order_seed)
        return Evidence(
            images=len(scored),
            spread=spread_of(scores_of(scored)[0]),
            rank_satisfaction=satisfaction,
            novelty=sum(novelties) / len(novelties) if novelties else None,
            correlation=None,
            shift=None,
        )

    def _carry(self, index: int, result: AdaptedBatch) -> None:
        """Keep what the next batch goes on from; every now and then the source itself."""
        if result.adapted and result.adapter is not None:
            self._carried[index] = result.adapter.tensors
        self._batches[index] = self._batches.get(index, 0) + 1
        if self._request.reset and self._batches[index] % self._request.reset == 0:
            self._carried.pop(index, None)


def belongs_to(scored: Sequence[Scored]) -> int:
    """Number of the task that a batch belongs to: the largest mean weight, of equal ones the first."""
    means = torch.tensor([item.weights for item in scored], dtype=torch.float64).mean(0)
    return int(means.argmax())


def scores_of(scored: Sequence[Scored], calibrated: bool | None = None) -> tuple[Tensor, bool]:
    """Scores (N,) in points, or raw outputs where a task has no calibration; and whether they are points."""
    points = torch.tensor([item.score for item in scored], dtype=torch.float64)
    known = bool(torch.isfinite(points).all()) if calibrated is None else calibrated
    return (points if known else torch.tensor([item.raw for item in scored], dtype=torch.float64)), known


def pulled(tensor: Tensor, source: Tensor, share: float) -> Tensor:
    """A tensor with a share of the source in it; what is no float stays."""
    return torch.lerp(tensor, source, share) if tensor.is_floating_point() else tensor


def skipped_because(made: Adapter) -> str | None:
    """Why a method left its start as it was: ``reason`` in ``provenance["adaptation"]`` where ``adapted`` is false."""
    facts = made.provenance.get("adaptation")
    if not isinstance(facts, Mapping) or facts.get("adapted", True):
        return None
    said: Any = facts.get("reason")
    return " ".join(str(said).split()) if said else "the method left everything as it was"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
