"""Running a frozen backbone with torch.

On the CPU every image is one forward pass: what torch computes for an image then cannot depend on its neighbours, so
scores are the same to the bit whatever the batch size. It costs nothing: with channels-last memory one image at a time is
at least as fast as a batch (``benchmarks/batch_size.py`` measures it). On a GPU images of one size are batched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from iqakit.contracts import Backbone, Features
from iqakit.errors import ConfigurationError, ImageError
from iqakit.functional.overlay import overlay_call
from iqakit.runtimes.precision import exact_float32

PRECISIONS = ("float32", "bfloat16", "float16")


def resolve_device(device: str) -> str:
    """Turn ``auto`` into a device that is there.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises:
        ConfigurationError: The device is unknown, or not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", device):
        raise ConfigurationError(f"device must be auto, cpu, cuda or mps, but it is {device!r}")
    kind, _, index = device.partition(":")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= count:
        raise ConfigurationError(
            f"device {device} was asked for, but torch finds {count} of that kind here; use --device cpu or auto"
        )
    return device


class TorchRuntime:
    """Forward passes of one backbone, bare or with adapters' tensors laid over it.

    Args:
        backbone: A frozen backbone; it is moved to ``device``.
        device: A device as ``resolve_device`` gives it.
        precision: ``float32``, without TF32 on any GPU; or there ``bfloat16`` or ``float16`` for what autocast runs in that
            precision.

    Raises:
        ConfigurationError: There is no such precision, or not on that device.
    """

    def __init__(self, backbone: Backbone, device: str = "cpu", precision: str = "float32") -> None:
        if precision not in PRECISIONS:
            raise ConfigurationError(f"precision must be {', '.join(PRECISIONS)}, but it is {precision!r}")
        if precision != "float32" and device == "cpu":
            raise ConfigurationError(f"precision {precision} is for a GPU; leave it out on {device}")
        self.backbone = backbone
        self.device = device
        self.precision = precision
        # The most pixels that one pass has taken without running out of memory; None: as many as there are.
        self._most_pixels: int | None = None
        backbone.module.to(device)

    def passes(self, images: Tensor, overlays: Sequence[Mapping[str, Tensor]]) -> list[Features]:
        """Features of images under several overlays; an empty overlay is the bare backbone.

        On a GPU a batch that is too large for its memory is halved until it fits, and later batches are no larger.

        Args:
            images: (N, 3, H, W), prepared, on the CPU.
            overlays: Tensors by name, on the runtime's device.

        Returns:
            Features of the N images for each overlay, on the CPU.

        Raises:
            ImageError: One image alone is too large for the device's memory.
        """
        if self.device == "cpu":
            with torch.inference_mode():
                done = [[self._forward(part, overlay) for overlay in overlays] for part in torch.split(images, 1)]
            return [_joined([row[index] for row in done]) for index in range(len(overlays))]
        rows: list[list[Features]] = []
        start = 0
        while start < len(images):
            part = images[start : start + self._fitting(images)]
            found = self._on_gpu(part, overlays)
            if found is not None:
                rows.append(found)
                start += len(part)
            elif len(part) == 1:
                height, width = images.shape[2:]
                raise ImageError(f"an image of {width}x{height} is too large for the memory of {self.device}; use the CPU")
            else:
                self._most_pixels = len(part) // 2 * _pixels(images)
        return [_joined([row[index] for row in rows]) for index in range(len(overlays))]

    def _fitting(self, images: Tensor) -> int:
        """How many images of that size go into one pass."""
        return len(images) if self._most_pixels is None else max(1, self._most_pixels // _pixels(images))

    def _on_gpu(self, images: Tensor, overlays: Sequence[Mapping[str, Tensor]]) -> list[Features] | None:
        """Features of one batch, or None where memory did not suffice."""
        kind = self.device.partition(":")[0]
        lower = torch.autocast(kind, getattr(torch, self.precision)) if self.precision != "float32" else nullcontext()
        try:
            with torch.inference_mode(), exact_float32(), lower:
                # Pinned memory lets the transfer run beside the network.
                pinned = images.pin_memory() if kind == "cuda" else images
                moved = pinned.to(self.device, non_blocking=kind == "cuda")
                # One transfer back for all: each waits until the device is done.
                return _to_cpu([self._features(moved, overlay) for overlay in overlays])
        except torch.OutOfMemoryError:
            if kind == "cuda":
                torch.cuda.empty_cache()
            return None

    def _forward(self, images: Tensor, overlay: Mapping[str, Tensor]) -> Features:
        features = self._features(images, overlay)
        return Features(
            features.embedding.float().cpu(),
            tuple(stage.float().cpu() for stage in features.stages),
            tuple(deviation.float().cpu() for deviation in features.deviations),
        )

    def _features(self, images: Tensor, overlay: Mapping[str, Tensor]) -> Features:
        found: Features = overlay_call(self.backbone.module, overlay, images) if overlay else self.backbone.forward(images)
        return found


def _to_cpu(passes: Sequence[Features]) -> list[Features]:
    """Features of several passes in float32 on the CPU, moved as one tensor."""
    parts = [(each.embedding, *each.stages, *each.deviations) for each in passes]
    wide = torch.cat([tensor.float() for row in parts for tensor in row], dim=1).cpu()
    columns = iter(torch.split(wide, [tensor.shape[1] for row in parts for tensor in row], dim=1))
    return [
        Features(
            next(columns).contiguous(),
            tuple(next(columns).contiguous() for _ in each.stages),
            tuple(next(columns).contiguous() for _ in each.deviations),
        )
        for each in passes
    ]


def _pixels(images: Tensor) -> int:
    return int(images.shape[2] * images.shape[3])


def _joined(parts: Sequence[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]
    return join_features(parts)


def join_features(parts: Sequence[Features]) -> Features:
    """Features of several groups of images as one, in order."""
    return Features(
        torch.cat([part.embedding for part in parts]),
        tuple(torch.cat(stage) for stage in zip(*(part.stages for part in parts), strict=True)),
        tuple(torch.cat(stage) for stage in zip(*(part.deviations for part in parts), strict=True)),
    )
