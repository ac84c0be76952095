"""Arrays and tensors as images: what is taken, what is refused, and what looks like BGR."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqakit.imaging.channel_order import suspect_bgr
from iqakit.imaging.formats import UnreadableError

_FORMS = "give a uint8 array (H, W, 3) in RGB order or a tensor (3, H, W)"


def from_array(array: NDArray[np.generic]) -> tuple[Tensor, list[str]]:
    """Pixels uint8 (3, H, W), channels last in memory, and warnings, of a uint8 array (H, W, 3).

    Raises:
        UnreadableError: Another shape or type; the message says what to do.
    """
    shape = array.shape
    if array.ndim == 2:
        raise UnreadableError("has no colour channels; for a grey image give np.stack([array] * 3, axis=-1)")
    if array.ndim == 4:
        raise UnreadableError("is a batch; give one image at a time")
    if array.ndim != 3 or shape[2] != 3:
        if array.ndim == 3 and shape[0] == 3:
            raise UnreadableError("has its channels first; arrays are (H, W, 3): give array.transpose(1, 2, 0)")
        if array.ndim == 3 and shape[2] == 4:
            raise UnreadableError("has 4 channels; give Image.fromarray(array), which handles alpha, or array[..., :3]")
        if array.ndim == 3 and shape[2] == 1:
            raise UnreadableError("has one channel; for a grey image give np.repeat(array, 3, axis=-1)")
        raise UnreadableError(f"is not an image; {_FORMS}")
    if array.dtype != np.uint8:
        raise UnreadableError(_wrong_dtype(array))
    if 0 in shape:
        raise UnreadableError("has no pixels")
    own = torch.from_numpy(np.array(array, dtype=np.uint8, order="C"))
    pixels = own.permute(2, 0, 1)
    return pixels, ["suspected-bgr"] if suspect_bgr(pixels) else []


def _wrong_dtype(array: NDArray[np.generic]) -> str:
    if np.issubdtype(array.dtype, np.floating):
        return "is not uint8; for floats in 0-1 give (array * 255).round().astype(np.uint8) or a float tensor (3, H, W)"
    if array.dtype == np.uint16:
        return "is not uint8; for 16-bit pixels give (array / 257).round().astype(np.uint8)"
    return "is not uint8; convert it to 0-255 uint8 first"


def from_tensor(tensor: Tensor) -> tuple[Tensor, list[str]]:
    """Pixels uint8 (3, H, W), channels last in memory, and warnings, of a tensor (3, H, W), uint8 or float in 0-1.

    Raises:
        UnreadableError: Another shape, type or range; the message says what to do.
    """
    shape = tuple(tensor.shape)
    if tensor.ndim == 4:
        hint = "give one image at a time, such as batch[0]" if shape[0] != 1 else "give tensor[0]"
        raise UnreadableError(f"is a batch; {hint}")
    if tensor.ndim == 2:
        raise UnreadableError("has no colour channels; for a grey image give tensor.expand(3, -1, -1)")
    if tensor.ndim != 3 or shape[0] != 3:
        if tensor.ndim == 3 and shape[2] == 3:
            raise UnreadableError("has its channels last; tensors are (3, H, W): give tensor.permute(2, 0, 1)")
        if tensor.ndim == 3 and shape[0] == 1:
            raise UnreadableError("has one channel; for a grey image give tensor.expand(3, -1, -1)")
        if tensor.ndim == 3 and shape[0] == 4:
            raise UnreadableError("has 4 channels; give tensor[:3] if alpha does not matter")
        raise UnreadableError(f"is not an image; {_FORMS}")
    if 0 in shape:
        raise UnreadableError("has no pixels")
    values = tensor.detach().to("cpu")
    if values.is_floating_point():
        values = _from_floats(values)
    elif values.dtype != torch.uint8:
        raise UnreadableError("is neither uint8 nor float; convert it to 0-255 uint8 or to float in 0-1 first")
    pixels = values.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)
    return pixels, ["suspected-bgr"] if suspect_bgr(pixels) else []


def _from_floats(values: Tensor) -> Tensor:
    values = values.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise UnreadableError("holds floats that are not finite (NaN or infinity); replace them first")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        hint = "divide by 255" if low >= 0 and high <= 255 else "if it is normalised, give the pixels before that"
        raise UnreadableError(f"holds floats from {low:g} to {high:g}, and they must lie in 0-1; {hint}")
    return values.mul(255).round_().to(torch.uint8)
