"""Passes that training methods share: over a batch to learn from, and over whole images to check by."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from iqakit.adapters.training_images import human_scores
from iqakit.contracts import Dataset, FeatureKind, Features, FitContext
from iqakit.functional.correlation import srcc
from iqakit.functional.heads import head_input
from iqakit.functional.overlay import overlay_call
from iqakit.imaging.tensors import prepare

__all__ = ["head_inputs", "over_whole_images", "validation_srcc"]


def head_inputs(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    images: Tensor,
    kind: FeatureKind,
    *,
    precision: str = "float32",
    batch_statistics: bool = False,
) -> Tensor:
    """What a head sees of images under some tensors.

    Args:
        module: The backbone's module; not touched.
        tensors: Laid over it for this call.
        images: Prepared images, (N, 3, H, W).
        kind: ``"embedding"`` or ``"all-stages"``.
        precision: ``"bfloat16"``: the network computes in it where torch thinks it safe; else ``"float32"``.
        batch_statistics: Whether batch norm uses the batch's statistics and moves the running ones in ``tensors``.

    Returns:
        (N, D), float32 whatever the precision, on the module's device.
    """
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        features: Features = overlay_call(module, tensors, images, training_norms=batch_statistics)
    return head_input(_float32(features), kind)


def over_whole_images(context: FitContext, data: Dataset, what: str, function: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of every image of a data set, one pass an image, as images are scored: whole and without a gradient.

    Args:
        context: Says preprocessing, device, and where progress goes.
        data: The images.
        what: What is done, for the progress line.
        function: Takes a prepared image, (1, 3, h, w) on the context's device, and gives a tensor of one row.

    Returns:
        The rows one below the other, on the CPU.
    """
    rows = []
    context.progress.start(f"{context.task}: {what}", len(data))
    with torch.inference_mode():
        for index in range(len(data)):
            image, _ = prepare(data.image(index), context.preprocessing)
            rows.append(function(image[None].to(context.device)).cpu())
            context.progress.advance()
    return torch.cat(rows)


def validation_srcc(
    context: FitContext, outputs: Callable[[Tensor], Tensor], data: Dataset | None = None, of: str = ""
) -> float:
    """SRCC of outputs with the human scores.

    Args:
        context: What the fit method was given.
        outputs: Takes a prepared image, (1, 3, h, w), and gives its score, (1,), higher is better.
        data: Whole images to check on; None: the context's validation images.
        of: A task's name for the progress line, where several tasks are checked.

    Returns:
        From -1 to 1; NaN where all scores or all outputs are equal.
    """
    data = context.validation if data is None else data
    what = f"checking on {len(data)} images" + (f" of {of}" if of else "")
    return float(srcc(over_whole_images(context, data, what, outputs), human_scores(data)))


def _float32(features: Features) -> Features:
    """Features in float32, whatever arithmetic made them."""
    return Features(
        features.embedding.float(),
        tuple(stage.float() for stage in features.stages),
        tuple(deviation.float() for deviation in features.deviations),
    )
