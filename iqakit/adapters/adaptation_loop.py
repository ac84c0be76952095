"""Training normalization on an unscored batch: the loop of ``group-contrastive``, ``relative-rank`` and ``group-rank``.

Embeddings pass through a random projection, z = sigmoid(W phi + b), that is never trained; Adam moves weight and bias of
every normalization layer; batch norm runs in training mode meanwhile, so its running statistics move at every pass.

Source: Roy, Mitra, Biswas, Soundararajan, "Test Time Adaptation for Blind Image Quality Assessment", ICCV 2023 (arXiv
2307.14735), and for ``published`` its released code. ``corrected`` is own where it differs: each batch starts anew, and
what the source cannot support is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from iqakit.adapters.adaptation_gradients import Pass, PassSeries, add_gradients
from iqakit.adapters.adaptation_passes import (
    all_finite,
    batch_share,
    counted_share,
    crops,
    finished,
    has_running_statistics,
    moved_tensors,
    norm_names,
    on_device,
    score,
    source_scores,
    start_overlay,
    training_pass,
)
from iqakit.adapters.adaptation_settings import (
    AdaptationConfig,
    GroupContrastiveConfig,
    GroupRankConfig,
    RelativeRankConfig,
)
from iqakit.adapters.batch_statistics import TOO_FEW_VALUES, too_few_values
from iqakit.adapters.degraded_copies import Copies, degraded_copies
from iqakit.adapters.quality_groups import FEWEST_IMAGES, SWITCHED_OFF, TOO_FEW, Groups, quality_groups
from iqakit.contracts import Adapter, Backbone, Features
from iqakit.functional.contrastive import group_contrastive_loss
from iqakit.functional.overlay import overlay_call
from iqakit.functional.ranking import relative_rank_loss


@dataclass(frozen=True)
class Projection:
    """z = sigmoid(W phi + b), random and never trained."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def drawn(cls, inputs: int, width: int, generator: Generator, device: torch.device) -> Projection:
        """Uniform within 1 / sqrt(inputs) to either side, the usual start of a linear layer.

        Args:
            inputs: D of the embedding.
            width: E, the width of z.
            generator: Draws them, on the CPU.
            device: Where they are used.
        """
        bound = 1 / math.sqrt(inputs)
        weight = (torch.rand(width, inputs, generator=generator) * 2 - 1) * bound
        bias = (torch.rand(width, generator=generator) * 2 - 1) * bound
        return cls(weight.to(device), bias.to(device))

    def __call__(self, embedding: Tensor) -> Tensor:
        """Z (N, E) of embeddings (N, D)."""
        return torch.sigmoid(embedding @ self.weight.T + self.bias)


@dataclass
class _Memory:
    """What published mode carries from batch to batch, as the released code does."""

    key: tuple[str, str, str]
    overlay: dict[str, Tensor]
    optimiser: torch.optim.Adam | None
    projection: Projection


@dataclass
class _Batch:
    """One batch on its way: what it is adapted by, and what has happened so far."""

    images: Tensor
    groups: Groups | None
    copies: Copies | None
    losses: list[dict[str, float]] = field(default_factory=list)
    forwards: int = 0
    moving: int = 0


class NormalizationTraining:
    """A method that trains normalization on a batch, by one loss or two.

    In corrected mode it holds nothing: a batch's result depends on that batch and the generator alone. In published mode
    gradients (never cleared), Adam's moments, the projection, and whether the group loss has been switched off live on
    from batch to batch; one object is then one run of the released code.
    """

    def __init__(
        self,
        name: str,
        config: AdaptationConfig,
        groups: GroupContrastiveConfig | GroupRankConfig | None,
        ranks: RelativeRankConfig | None,
    ) -> None:
        self.name = name
        self.config = config
        self._groups = groups
        self._ranks = ranks
        self._memory: _Memory | None = None
        self._groups_off = False

    def adapt(self, backbone: Backbone, start: Adapter, images: Sequence[Tensor], generator: Generator) -> Adapter:
        """Adapt to a batch. Where nothing can be learned, or what was learned is no number, the start's tensors come back.

        ``provenance["adaptation"]`` of the result says what happened, and ``reason`` why nothing did.

        Raises:
            MismatchError: The backbone has no normalization tensors.
            ConfigurationError: There are no images, or one is not (3, H, W).
        """
        names = norm_names(backbone, self.name)
        with torch.inference_mode(mode=False), torch.enable_grad():
            return self._adapt(backbone, start, images, generator, names)

    # -- one batch -----------------------------------------------------------------------------------------------------

    def _adapt(
        self, backbone: Backbone, start: Adapter, images: Sequence[Tensor], generator: Generator, names: Sequence[str]
    ) -> Adapter:
        config = self.config
        cut = crops(backbone, start, images, config.crop, generator)
        record: dict[str, Any] = {
            "mode": config.mode,
            "images": len(cut),
            "crop": [int(cut.shape[2]), int(cut.shape[3])],
            "iterations": 0,
            "training_forwards": 0,
            "losses": [],
            "statistics": {"rule": self._rule(len(cut), names), "batch_weight": 0.0},
            "reason": None,
        }

        def unchanged(reason: str) -> Adapter:
            return finished(start, self.name, config, {**record, "reason": reason}, None)

        if config.iterations == 0:
            return unchanged("iterations is 0")
        memory = self._begin(backbone, start, names, generator)
        batch, reasons = self._plan(backbone, start, images, cut, generator, record)
        if batch.groups is None and batch.copies is None:
            return unchanged("; ".join(reasons))
        if config.learning_rate == 0 and not has_running_statistics(names):
            return unchanged(f"learning_rate is 0, and backbone {backbone.id} keeps no running statistics")
        record["projection"] = [backbone.embedding_dim, config.projection]
        stopped = self._train(backbone, memory, batch)
        record |= {"iterations": len(batch.losses), "training_forwards": batch.forwards, "losses": batch.losses}
        if stopped is None:
            moved = moved_tensors(memory.overlay, names)
            record["statistics"]["batch_weight"] = self._limit_statistics(backbone, start, moved, batch, record)
            stopped = None if all_finite(moved) else "the adapted tensors are not finite"
        if stopped is not None:
            self._memory = None  # gradients and moments that hold no numbers would spoil every later batch
            return unchanged(stopped)
        return finished(start, self.name, config, record, moved)

    def _begin(self, backbone: Backbone, start: Adapter, names: Sequence[str], generator: Generator) -> _Memory:
        """Weights as the start has them, and an optimiser: a new one, or in published mode the one there was."""
        fresh = start_overlay(backbone, start, names)
        device = next(iter(fresh.values())).device
        key = (backbone.id, start.backbone_fingerprint, str(device))
        kept = self._memory
        if kept is not None and kept.key == key:
            with torch.no_grad():
                for name, tensor in fresh.items():
                    if name in kept.overlay:
                        kept.overlay[name].copy_(tensor)
                    else:
                        kept.overlay[name] = tensor
            return kept
        projection = Projection.drawn(backbone.embedding_dim, self.config.projection, generator, device)
        trained = [tensor for tensor in fresh.values() if tensor.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=self.config.learning_rate) if trained else None
        memory = _Memory(key, fresh, optimiser, projection)
        self._memory = memory if self.config.mode == "published" else None
        return memory

    def _plan(
        self,
        backbone: Backbone,
        start: Adapter,
        images: Sequence[Tensor],
        cut: Tensor,
        generator: Generator,
        record: dict[str, Any],
    ) -> tuple[_Batch, list[str]]:
        """Which losses the batch gets, and why it does not get the others."""
        batch, reasons = _Batch(cut, None, None), []
        if self._groups is not None:
            found = self._find_groups(backbone, start, images)
            if isinstance(found, Groups):
                batch.groups = found
                record["group_loss"] = {"used": True, "size": len(found.low), "reason": None}
            else:
                record["group_loss"] = {"used": False, "size": 0, "reason": found}
                reasons.append(f"no group loss: {found}")
        if self._ranks is not None:
            overlay = on_device(backbone, start)

            def source(crops: Tensor) -> Tensor:
                with torch.no_grad():
                    features: Features = overlay_call(backbone.module, overlay, crops)
                    return score(start, features)

            copies = degraded_copies(cut, start.preprocessing, self._ranks, source, generator)
            used = bool(copies.kept.any())
            reason = None if used else "the source orders no pair of degraded copies, weak above strong"
            record["rank_loss"] = {"used": used, **copies.record(), "reason": reason}
            if used:
                batch.copies = copies
            else:
                reasons.append(f"no rank loss: {reason}")
        return batch, reasons

    def _find_groups(self, backbone: Backbone, start: Adapter, images: Sequence[Tensor]) -> Groups | str:
        assert self._groups is not None
        published = self.config.mode == "published"
        if published and self._groups_off:
            return SWITCHED_OFF
        if len(images) < FEWEST_IMAGES:
            self._groups_off = published
            return TOO_FEW
        return quality_groups(source_scores(backbone, start, images), self._groups, start.calibration)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _train(self, backbone: Backbone, memory: _Memory, batch: _Batch) -> str | None:
        """All iterations; gives why it stopped early, or None."""
        learns = self.config.learning_rate > 0 and memory.optimiser is not None
        for number in range(1, self.config.iterations + 1):
            if memory.optimiser is not None and self.config.mode == "corrected":
                memory.optimiser.zero_grad(set_to_none=True)
            try:
                with torch.set_grad_enabled(learns):
                    passes = self._passes(backbone, memory, batch)
                    terms = self._losses(batch, passes.embeddings)
            except ValueError as error:
                if not too_few_values(error):
                    raise
                return TOO_FEW_VALUES
            total = torch.stack(list(terms.values())).sum()
            if not math.isfinite(total.item()):
                return f"the loss is {total.item()} in iteration {number}"
            if learns and memory.optimiser is not None:
                trained = [tensor for tensor in memory.overlay.values() if tensor.requires_grad]
                add_gradients(trained, passes.gradients(total, trained))
                memory.optimiser.step()
            batch.losses.append({name: float(loss.detach()) for name, loss in terms.items()})
        return None

    def _passes(self, backbone: Backbone, memory: _Memory, batch: _Batch) -> PassSeries:
        """The passes of one iteration. Both losses share that over the images, but in published mode each has its own."""

        def embedded(images: Tensor, moving: bool) -> Tensor:
            overlay = memory.overlay
            if not moving:  # statistics of copies, or of a pass that is made again, thrown away after the pass
                overlay = {name: tensor if tensor.requires_grad else tensor.clone() for name, tensor in overlay.items()}
            features = training_pass(backbone.module, overlay, images)
            return memory.projection(features.embedding.float())

        passes: list[Pass] = []
        if batch.copies is not None and self._ranks is not None:
            moving = self._ranks.copy_statistics
            passes = [(batch.images, True), (batch.copies.weak, moving), (batch.copies.strong, moving)]
        if batch.groups is not None and (not passes or self.config.mode == "published"):
            passes.append((batch.images, True))
        made = PassSeries(embedded, passes)
        batch.forwards += len(passes)
        batch.moving += sum(moving for _, moving in passes)
        return made

    def _losses(self, batch: _Batch, embeddings: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of one iteration, of what its passes gave."""
        terms: dict[str, Tensor] = {}
        if batch.copies is not None and self._ranks is not None:
            kept = batch.copies.kept.to(batch.images.device)
            origin, weak, strong = (embedding[kept] for embedding in embeddings[:3])
            terms["rank"] = relative_rank_loss(origin, weak, strong)
        if batch.groups is not None and self._groups is not None:
            origin = embeddings[-1 if self.config.mode == "published" else 0]
            terms["group"] = group_contrastive_loss(
                origin[batch.groups.low.to(origin.device)],
                origin[batch.groups.high.to(origin.device)],
                self._groups.temperature,
                self._groups.reduction,
            )
        return terms

    # -- running statistics --------------------------------------------------------------------------------------------

    def _rule(self, images: int, names: Sequence[str]) -> str:
        if not has_running_statistics(names):
            return "none"
        if self.config.statistics != "auto":
            return self.config.statistics
        return "mix" if self.config.mode == "corrected" and images < FEWEST_IMAGES else "momentum"

    def _limit_statistics(
        self, backbone: Backbone, start: Adapter, moved: dict[str, Tensor], batch: _Batch, record: dict[str, Any]
    ) -> float:
        """Pull running statistics back to the share that so few images deserve; gives the share that they have."""
        rule, share = record["statistics"]["rule"], batch_share(batch.moving)
        if rule == "none":
            return 0.0
        most = counted_share(len(batch.images), self.config.prior)
        if rule == "momentum" or share <= most:
            return share
        before = start_overlay(backbone, start, list(moved))
        for name, tensor in moved.items():
            if not before[name].requires_grad:
                source = before[name].cpu()
                moved[name] = torch.lerp(source, tensor, most / share)
        return most
