"""Colour spaces: sRGB to CIE Lab and back, sRGB to YCbCr and back.

Sources: IEC 61966-2-1 (sRGB), CIE 15 (Lab, white D65), ITU-R BT.601 (YCbCr, full range, as JPEG uses it).
"""

from __future__ import annotations

import torch
from torch import Tensor

_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_YCC_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_EDGE = 6 / 29


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("rc,...chw->...rhw", matrix, images)


def _matrix(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, device=like.device)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Lab of sRGB images.

    Args:
        images: (..., 3, H, W), float, 0-1.

    Returns:
        (..., 3, H, W): L in 0-100, then a and b, about -110 to 110.
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    matrix = _matrix(_XYZ_FROM_RGB, images)
    matrix = matrix / matrix.sum(dim=1, keepdim=True)  # divided by the white, which is RGB (1, 1, 1)
    ratio = _mixed(linear, matrix.to(images.dtype)).clamp(min=0)
    f = torch.where(ratio > _EDGE**3, ratio.clamp(min=_EDGE**3) ** (1 / 3), ratio / (3 * _EDGE**2) + 4 / 29)
    x, y, z = f.unbind(dim=-3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def lab_to_rgb(images: Tensor) -> Tensor:
    """SRGB of Lab images; colours outside the sRGB cube are cut to it.

    Args:
        images: (..., 3, H, W): L in 0-100, a, b.

    Returns:
        (..., 3, H, W), 0-1.
    """
    lightness, a, b = images.unbind(dim=-3)
    y = (lightness + 16) / 116
    f = torch.stack((y + a / 500, y, y - b / 200), dim=-3)
    ratio = torch.where(f > _EDGE, f**3, 3 * _EDGE**2 * (f - 4 / 29))
    matrix = _matrix(_XYZ_FROM_RGB, images)
    inverse = torch.linalg.inv(matrix / matrix.sum(dim=1, keepdim=True))
    linear = _mixed(ratio, inverse.to(images.dtype)).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).clamp(0, 1)


def rgb_to_ycbcr(images: Tensor) -> Tensor:
    """YCbCr of sRGB images: (..., 3, H, W), 0-1 each to Y in 0-1, Cb and Cr in -0.5 to 0.5."""
    return _mixed(images, _matrix(_YCC_FROM_RGB, images).to(images.dtype))


def ycbcr_to_rgb(images: Tensor) -> Tensor:
    """SRGB of YCbCr images, the inverse of ``rgb_to_ycbcr``; not cut to 0-1."""
    return _mixed(images, torch.linalg.inv(_matrix(_YCC_FROM_RGB, images)).to(images.dtype))
