"""Running a frozen backbone with torch.

On the CPU every image is one forward pass: what torch computes for an image then cannot depend on its neighbours, so
scores are the same to the bit whatever the batch size. It costs nothing: with channels-last memory one image at a time is
at least as fast as a batch (``benchmarks/batch_size.py`` measures it). On a GPU images of one size are batched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iqakit.contracts import Backbone, Features
from iqakit.errors import ConfigurationError
from iqakit.functional.overlay import overlay_call


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
    """

    def __init__(self, backbone: Backbone, device: str = "cpu") -> None:
        self.backbone = backbone
        self.device = device
        backbone.module.to(device)

    def passes(self, images: Tensor, overlays: Sequence[Mapping[str, Tensor]]) -> list[Features]:
        """Features of images under several overlays; an empty overlay is the bare backbone.

        Args:
            images: (N, 3, H, W), prepared.
            overlays: Tensors by name, on the runtime's device.

        Returns:
            Features of the N images for each overlay, on the CPU.
        """
        parts = torch.split(images, 1) if self.device == "cpu" else (images,)
        with torch.inference_mode():
            done = [[self._forward(part, overlay) for overlay in overlays] for part in parts]
        return [_joined([row[index] for row in done]) for index in range(len(overlays))]

    def _forward(self, images: Tensor, overlay: Mapping[str, Tensor]) -> Features:
        images = images.to(self.device)
        features = overlay_call(self.backbone.module, overlay, images) if overlay else self.backbone.forward(images)
        return Features(
            features.embedding.float().cpu(),
            tuple(stage.float().cpu() for stage in features.stages),
            tuple(deviation.float().cpu() for deviation in features.deviations),
        )


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
