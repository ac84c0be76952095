"""Arrays as images: what is taken, what is refused, and what looks like BGR."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from iqakit.imaging.channel_order import suspect_bgr
from iqakit.imaging.formats import UnreadableError

if TYPE_CHECKING:
    from torch import Tensor

FORMS: Final = "give a uint8 array (H, W, 3) in RGB order or a tensor (3, H, W)"


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether something is a torch tensor, told without loading torch: where nothing loaded it there are no tensors."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(value, kind)


def from_array(array: NDArray[np.generic]) -> tuple[NDArray[np.uint8], list[str]]:
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
        raise UnreadableError(f"is not an image; {FORMS}")
    if array.dtype != np.uint8:
        raise UnreadableError(_wrong_dtype(array))
    if 0 in shape:
        raise UnreadableError("has no pixels")
    pixels = np.array(array, dtype=np.uint8, order="C").transpose(2, 0, 1)
    return pixels, ["suspected-bgr"] if suspect_bgr(pixels) else []


def _wrong_dtype(array: NDArray[np.generic]) -> str:
    if np.issubdtype(array.dtype, np.floating):
        return "is not uint8; for floats in 0-1 give (array * 255).round().astype(np.uint8) or a float tensor (3, H, W)"
    if array.dtype == np.uint16:
        return "is not uint8; for 16-bit pixels give (array / 257).round().astype(np.uint8)"
    return "is not uint8; convert it to 0-255 uint8 first"
