"""Lossy codecs as degradations: an image through JPEG or JPEG 2000 and back, in memory."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from iqakit.errors import ConfigurationError, MissingExtraError


def jpeg(images: Tensor, quality: int) -> Tensor:
    """What JPEG of this quality leaves of images, chroma at half size (4:2:0) as cameras and the web write it.

    Args:
        images: (3, H, W) or (N, 3, H, W), float, RGB, 0-1; rounded to 8 bits first.
        quality: 1 (worst) to 95, on libjpeg's scale. Above 95 a file grows and gains nothing.

    Returns:
        The same shape, type and device, 0-1.

    Raises:
        ConfigurationError: The quality or the images are not like that.
    """
    if not 1 <= quality <= 95:
        raise ConfigurationError(f"the JPEG quality must be in 1-95, but it is {quality}")
    return _through(images, lambda picture, stream: picture.save(stream, "JPEG", quality=quality, subsampling=2))


def jpeg2000(images: Tensor, ratio: float) -> Tensor:
    """What JPEG 2000 at this compression ratio leaves of images (irreversible 9-7 wavelet).

    Args:
        images: (3, H, W) or (N, 3, H, W), float, RGB, 0-1; rounded to 8 bits first.
        ratio: Size of the raw 8-bit image over size of the file, at least 1; higher is worse.

    Returns:
        The same shape, type and device, 0-1.

    Raises:
        ConfigurationError: The ratio or the images are not like that.
        MissingExtraError: This build of Pillow has no JPEG 2000.
    """
    if not ratio >= 1:
        raise ConfigurationError(f"the JPEG 2000 ratio must be at least 1, but it is {ratio}")
    if not features.check("jpg_2000"):
        raise MissingExtraError("JPEG 2000 was asked for, but this Pillow was built without it; install Pillow's own wheel")

    def save(picture: Image.Image, stream: BytesIO) -> None:
        picture.save(stream, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True, no_jp2=True)

    return _through(images, save)


def _through(images: Tensor, save: Callable[[Image.Image, BytesIO], Any]) -> Tensor:
    if images.dim() not in (3, 4) or images.shape[-3] != 3 or not images.is_floating_point():
        raise ConfigurationError(
            f"a codec needs float images (3, H, W) or (N, 3, H, W), but got {images.dtype} {tuple(images.shape)}"
        )
    batch = images.detach().reshape(-1, *images.shape[-3:])
    pixels = (batch.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    out = np.empty_like(pixels)
    for number, array in enumerate(pixels):
        stream = BytesIO()
        save(Image.fromarray(np.ascontiguousarray(array)), stream)
        stream.seek(0)
        with Image.open(stream) as picture:
            out[number] = np.asarray(picture.convert("RGB"))
    back = torch.from_numpy(out).permute(0, 3, 1, 2).to(device=images.device, dtype=images.dtype) / 255
    return back.reshape(images.shape).contiguous()
