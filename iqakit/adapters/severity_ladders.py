"""Severity ladders: good photos beside copies of them, each degraded more than the one before.

Photos that people rated teach a head nothing of faults that none of them has: pixelation, banding, colours that run. But
the order of degraded copies is known without asking anybody. A finished head is changed as little as it takes to follow it.
Source: own; that networks can learn from the ranks of degraded copies is from Liu, van de Weijer, Bagdanov, "RankIQA:
Learning from Rankings for No-Reference Image Quality Assessment", ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Dataset, FitContext
from iqakit.errors import ConfigurationError
from iqakit.functional.ordering import ordered_head
from iqakit.imaging.degrading import DEGRADATIONS, LEVELS, degrade
from iqakit.imaging.tensors import prepare

PENALTY = 0.46
"""Of the change, beside squared outputs on the training images; of the order that ridge heads choose for themselves."""
MARGIN = 0.2
"""By how much each rung should be above the next, in standard deviations of the outputs on the training images."""
IMPORTANCE = 10.0
"""How much all steps count against all training images. All three were chosen on validation images."""


@dataclass(frozen=True)
class OrderedHead:
    """A head that has learned ladders.

    Attributes:
        weight: (D,), float32.
        before: Share of the steps of all ladders, 0-1, that led down before.
        after: The same of ``weight``.
    """

    weight: Tensor
    before: float
    after: float


def photos_for_ladders(data: Dataset, count: int) -> list[int]:
    """Which training images to degrade: evenly spread over the best quarter by human score, the best first.

    A fault can mend a bad photo: brightening a dark one, sharpening a soft one. Only of good photos is the order known.

    Args:
        data: The task's training images.
        count: How many.

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
    return [best[place * len(best) // count] for place in range(count)]


def learn_ladders(
    context: FitContext, weight: Tensor, inputs: Tensor, inputs_of: Callable[[Tensor], Tensor], count: int
) -> OrderedHead:
    """Change a head so that scores fall down the ladders of some training images; no randomness that is not fixed.

    Args:
        context: What the fit method was given.
        weight: The head, (D,).
        inputs: Head inputs of the training images, (N, D).
        inputs_of: Gives the head input (1, D) of a prepared image (1, 3, h, w), on any device.
        count: How many photos have ladders, one of each kind of degradation.

    Raises:
        ConfigurationError: There are not so many good photos.
    """
    photos = photos_for_ladders(context.train, count)
    kinds = list(DEGRADATIONS)
    context.progress.start(f"{context.task}: degraded copies of {count} photos", count * (1 + len(kinds) * len(LEVELS)))

    def passed(pixels: Tensor) -> Tensor:
        image, _ = prepare(pixels, context.preprocessing)
        found = inputs_of(image[None].to(context.device))[0].cpu()
        context.progress.advance()
        return found

    steps = []
    with torch.inference_mode():
        for photo in photos:
            pixels = context.train.image(photo)
            top, values = passed(pixels), pixels.float() / 255
            for number, kind in enumerate(kinds):
                above = top
                for level in LEVELS:
                    generator = Generator().manual_seed(photo * len(kinds) + number)
                    copy = degrade(values, kind, level, generator)
                    rung = passed((copy * 255).round().to(torch.uint8))
                    steps.append(above - rung)
                    above = rung
    ladder_steps = torch.stack(steps)
    own = weight.cpu()
    scale = (inputs.cpu() @ own).std().clamp_min(1e-12)
    changed = ordered_head(
        inputs.cpu(), own / scale, ladder_steps, penalty=PENALTY, margin=MARGIN, importance=IMPORTANCE
    ).float()
    found = OrderedHead(changed * scale, _down(ladder_steps, own), _down(ladder_steps, changed))
    context.progress.message(
        f"{context.task}: {found.before:.1%} of the steps down {count} photos' ladders led down, now {found.after:.1%} do"
    )
    return found


def _down(steps: Tensor, weight: Tensor) -> float:
    return float((steps @ weight > 0).float().mean())
