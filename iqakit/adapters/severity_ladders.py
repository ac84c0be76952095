"""Severity ladders: good photos beside copies of them, each degraded more than the one before.

Photos that people rated teach a head nothing of faults that none of them has: pixelation, banding, colours that run. But
the order of degraded copies is known without asking anybody. A finished head is changed as little as it takes to follow it.
Source: own; that networks can learn from the ranks of degraded copies is from Liu, van de Weijer, Bagdanov, "RankIQA:
Learning from Rankings for No-Reference Image Quality Assessment", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Dataset, FeatureKind, Features, FitContext
from iqakit.errors import ConfigurationError
from iqakit.functional.heads import head_input
from iqakit.functional.ordering import ordered_head
from iqakit.functional.overlay import overlay_call
from iqakit.functional.pooling import gate_features
from iqakit.imaging.degrading import DEGRADATIONS, LEVELS, degrade
from iqakit.imaging.tensors import prepare

PENALTY = 0.46
"""Of the change, beside squared outputs on the training images; of the order that ridge heads choose for themselves."""
MARGIN = 0.1
"""By how much each rung should be above the next, in standard deviations of the outputs on the training images."""
IMPORTANCE = 80.0
"""How much all steps count against all training images."""
QUARTERS = 2.0
"""How much the quarters of all training images, on which outputs are to stay as well, count against the images."""
COUNTS = (4.0, 4.0, 2.0, 1.0, 1.0)
"""How much each step of a ladder counts, the first from the photo to level 1: where least of a fault is seen, heads err
most. All five were chosen on validation images."""
STRONG = (3, 4, 5)
"""Levels whose copies combiners are told of: there a gate sees more of the fault than of the photo."""
WEAK = 2
"""The level whose shifts combiners are told of: there a gate still sees the photo."""


@dataclass(frozen=True)
class OrderedHead:
    """A head that has learned ladders.

    Attributes:
        weight: (D,), float32.
        before: Share of the steps of all ladders, 0-1, that led down before.
        after: The same of ``weight``.
        copies: For combiners, as ``FitResult.copies``: one row a kind and level of ``STRONG``.
        shifts: For combiners, as ``FitResult.shifts``: one row a ladder, of level ``WEAK``.
    """

    weight: Tensor
    before: float
    after: float
    copies: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]


def photos_for_ladders(data: Dataset, count: int) -> list[list[int]]:
    """Which training images to degrade by each kind.

    A fault can mend a bad photo: brightening a dark one, sharpening a soft one. Only of good photos is the order known.
    Kinds take different photos, as far as there are enough: what a head learns of few photos, it learns of their scenes.

    Args:
        data: The task's training images.
        count: How many a kind.

    Returns:
        For each kind ``count`` different images, evenly spread over the best quarter by human score, the best first.

    Raises:
        ConfigurationError: The best quarter has fewer.
    """
    scores = human_scores(data)
    best = scores.argsort(descending=True, stable=True)[: -(-len(scores) // 4)].tolist()
    if count > len(best):
        raise ConfigurationError(
            f"ladders={count} asks for more photos than the best quarter of {len(scores)} training images has; "
            f"take at most {len(best)}"
        )
    kinds = len(DEGRADATIONS)
    return [
        [best[(place * kinds + kind) * len(best) // (count * kinds)] for place in range(count)] for kind in range(kinds)
    ]


def learn_ladders(
    context: FitContext,
    weight: Tensor,
    inputs: Tensor,
    tensors: Mapping[str, Tensor],
    kind: FeatureKind,
    count: int,
) -> OrderedHead:
    """Change a head so that scores fall down the ladders of some training images; no randomness that is not fixed.

    Args:
        context: What the fit method was given.
        weight: The head, (D,).
        inputs: Head inputs of the training images, (N, D).
        tensors: The adapter's, laid over the backbone; may be empty.
        kind: What of the features the head sees.
        count: How many photos are degraded by each kind.

    Raises:
        ConfigurationError: There are not so many good photos.
    """
    kinds_of: dict[int, list[int]] = {}
    for number, photos in enumerate(photos_for_ladders(context.train, count)):
        for photo in photos:
            kinds_of.setdefault(photo, []).append(number)
    ladders = Ladders(context, tensors, kind)
    views = _inputs_of_quarters(context, tensors, kind)
    passes = len(kinds_of) + count * len(DEGRADATIONS) * len(LEVELS)
    context.progress.start(f"{context.task}: degraded copies of {len(kinds_of)} photos", passes)
    with torch.inference_mode():
        for photo in sorted(kinds_of):
            ladders.climb(photo, kinds_of[photo])
    steps = torch.stack(ladders.steps)
    own = weight.cpu()
    scale = (inputs.cpu() @ own).std().clamp_min(1e-12)
    counts = torch.tensor(COUNTS).repeat(len(steps) // len(LEVELS))
    changed = ordered_head(
        inputs.cpu(),
        own / scale,
        steps,
        penalty=PENALTY,
        margin=MARGIN,
        importance=IMPORTANCE,
        counts=counts,
        views=views,
        view_importance=QUARTERS,
    ).float()
    found = OrderedHead(changed * scale, _down(steps, own), _down(steps, changed), ladders.copies(), ladders.shifts())
    context.progress.message(
        f"{context.task}: {found.before:.1%} of the steps down {len(ladders.steps) // len(LEVELS)} ladders led down, "
        f"now {found.after:.1%} do"
    )
    return found


def quarters(pixels: Tensor) -> tuple[Tensor, ...]:
    """The four corners of an image (3, H, W), cut in half both ways: views, all of one size."""
    height, width = max(1, pixels.shape[1] // 2), max(1, pixels.shape[2] // 2)
    return tuple(part[:, :, side] for part in (pixels[:, :height], pixels[:, -height:]) for side in _halves(width))


class Ladders:
    """Goes down ladders and keeps what is seen on the way.

    Attributes:
        steps: Head input (D,) of the better image less that of the worse one, a step, ladder after ladder.
    """

    def __init__(self, context: FitContext, tensors: Mapping[str, Tensor], kind: FeatureKind) -> None:
        self.steps: list[Tensor] = []
        self._context = context
        self._tensors = tensors
        self._kind = kind
        self._strong: dict[tuple[int, int], list[tuple[Tensor, ...]]] = {}
        self._shifts: list[tuple[Tensor, ...]] = []

    def climb(self, photo: int, kinds: Sequence[int]) -> None:
        """Degrade one training image by some kinds, each at all levels."""
        names = list(DEGRADATIONS)
        pixels = self._context.train.image(photo)
        (top, photo_gate), values = self._seen(pixels, gate=True), pixels.float() / 255
        for number in kinds:
            above = top
            for level in LEVELS:
                generator = Generator().manual_seed(photo * len(names) + number)
                copy = degrade(values, names[number], level, generator)
                rung, gate = self._seen((copy * 255).round().to(torch.uint8), gate=level in (WEAK, *STRONG))
                self.steps.append(above - rung)
                above = rung
                if level in STRONG:
                    self._strong.setdefault((number, level), []).append(gate)
                if level == WEAK:
                    self._shifts.append(tuple(now - then for now, then in zip(gate, photo_gate, strict=True)))

    def copies(self) -> tuple[Tensor, ...]:
        """Gate features of the strong levels, each the mean over photos: one (M, D_l) a stage, rows of length 1."""
        means = [
            [torch.stack(stage).mean(0) for stage in zip(*self._strong[key], strict=True)] for key in sorted(self._strong)
        ]
        return gate_features([torch.stack(stage) for stage in zip(*means, strict=True)])

    def shifts(self) -> tuple[Tensor, ...]:
        """How copies of level ``WEAK`` lie to their photos: gate features less the photo's, (M, D_l) a stage."""
        return tuple(torch.stack(stage) for stage in zip(*self._shifts, strict=True))

    def _seen(self, pixels: Tensor, *, gate: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Head input (D,), and where asked for gate features (D_l,) a stage, else none."""
        image, _ = prepare(pixels, self._context.preprocessing)
        image = image[None].to(self._context.device)
        module = self._context.backbone.module
        features: Features = overlay_call(module, self._tensors, image)
        self._context.progress.advance()
        found = head_input(features, self._kind)[0].cpu()
        if not gate:
            return found, ()
        bare: Features = module(image) if self._tensors else features
        return found, tuple(stage[0].cpu() for stage in gate_features(bare.stages))


def _inputs_of_quarters(context: FitContext, tensors: Mapping[str, Tensor], kind: FeatureKind) -> Tensor:
    """Head inputs of the quarters of all training images, (4 N, D), on the CPU."""
    rows, count = [], len(context.train)
    context.progress.start(f"{context.task}: quarters of {count} images", count)
    with torch.inference_mode():
        for index in range(count):
            views = torch.stack([prepare(view, context.preprocessing)[0] for view in quarters(context.train.image(index))])
            features: Features = overlay_call(context.backbone.module, tensors, views.to(context.device))
            rows.append(head_input(features, kind).cpu())
            context.progress.advance()
    return torch.cat(rows)


def _halves(width: int) -> tuple[slice, slice]:
    return slice(None, width), slice(-width, None)


def _down(steps: Tensor, weight: Tensor) -> float:
    return float((steps @ weight > 0).float().mean())
