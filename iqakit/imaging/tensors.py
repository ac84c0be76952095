"""The image path for torch's users: tensors in, tensors out.

Thin shells over ``iqakit.imaging.preprocessing``, which works on arrays: the same bits, and no copy where memory can be
shared. Nothing on the way from a file to prepared arrays imports this module, so that scoring can do without torch.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from iqakit.contracts import Preprocessing
from iqakit.imaging.arrays import FORMS
from iqakit.imaging.channel_order import suspect_bgr
from iqakit.imaging.formats import UnreadableError
from iqakit.imaging.preprocessing import Pixels, prepare_pixels, resample, resize_pixels, scaled_side


def prepare(
    pixels: Tensor, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Resize and normalise: float32 (3, h, w), channels last in memory, and warnings. See ``resize``."""
    image, warnings = prepare_pixels(pixels.numpy(), pre, full_size=full_size)
    return torch.from_numpy(image), warnings


def resize(
    pixels: Tensor, pre: Preprocessing, *, full_size: tuple[int, int] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Resize an image as ``pre`` says, antialiased.

    Args:
        pixels: uint8 (3, H, W), on the CPU.
        pre: How.
        full_size: (height, width) of the whole image where ``pixels`` were decoded smaller; decides the target size.

    Returns:
        uint8 (3, h, w), channels last in memory, and the names of what was done beyond the ordinary: ``upscaled``,
        ``downscaled``, ``aspect-changed``.
    """
    resized, warnings = resize_pixels(pixels.numpy(), pre, full_size=full_size)
    return torch.from_numpy(resized), warnings


def resize_to(pixels: Tensor, size: tuple[int, int], interpolation: str = "bilinear") -> Tensor:
    """Resize to exactly (height, width), antialiased, in 8 bits.

    Args:
        pixels: uint8 (3, H, W), on the CPU.
        size: Height and width.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        uint8 (3, h, w), channels last in memory. The same bits whatever the layout of ``pixels``.
    """
    return torch.from_numpy(resample(pixels.numpy(), size, interpolation))


def channels_last(pixels: Tensor) -> Tensor:
    """The same (3, H, W), laid out as (H, W, 3) in memory.

    Torch picks its kernels by layout, and they round differently, so there must be one layout.
    """
    channels, _, width = pixels.shape
    if pixels.stride() == (1, width * channels, channels):
        return pixels
    return pixels.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)


def normalise(pixels: Tensor, pre: Preprocessing) -> Tensor:
    """(pixels / 255 - mean) / std.

    Args:
        pixels: uint8 (..., 3, H, W).
        pre: Holds mean and std.

    Returns:
        float32, same shape and layout.
    """
    mean = torch.tensor(pre.mean, dtype=torch.float32, device=pixels.device)
    std = torch.tensor(pre.std, dtype=torch.float32, device=pixels.device)
    width = int(pixels.shape[-1])
    if pixels.ndim == 3 and pixels.stride() == (1, width * 3, 3):
        # The same sums as below, on whole rows: five times as fast as steps of three channels.
        rows = pixels.permute(1, 2, 0).reshape(-1, width * 3).to(torch.float32)
        rows.div_(255).sub_(mean.repeat(width)).div_(std.repeat(width))
        return rows.view(-1, width, 3).permute(2, 0, 1)
    return pixels.to(torch.float32).div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def random_crop(pixels: Tensor, size: int | tuple[int, int], generator: Generator, *, flip: bool = True) -> Tensor:
    """A crop at a random place, for training.

    An image smaller than the crop is first enlarged, aspect kept, until the crop just fits: reflected borders would
    show the network edges that no image has.

    Args:
        pixels: uint8 (3, H, W).
        size: Height and width of the crop, or one number for both.
        generator: Where to draw from, on the CPU.
        flip: Mirror left to right, half of the time.

    Returns:
        uint8 (3, h, w); a view of ``pixels`` where nothing had to be changed.
    """
    high, wide = (size, size) if isinstance(size, int) else size
    height, width = int(pixels.shape[1]), int(pixels.shape[2])
    scale = max(high / height, wide / width)
    if scale > 1:
        pixels = resize_to(pixels, (max(high, scaled_side(height, scale)), max(wide, scaled_side(width, scale))))
        height, width = int(pixels.shape[1]), int(pixels.shape[2])
    top = int(torch.randint(height - high + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    crop = pixels[:, top : top + high, left : left + wide]
    if flip and bool(torch.randint(2, (), generator=generator)):
        crop = crop.flip(2)
    return crop


def from_tensor(tensor: Tensor) -> tuple[Pixels, list[str]]:
    """Pixels, uint8 (3, H, W), channels last in memory, and warnings, of a tensor (3, H, W), uint8 or float in 0-1.

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
        raise UnreadableError(f"is not an image; {FORMS}")
    if 0 in shape:
        raise UnreadableError("has no pixels")
    values = tensor.detach().to("cpu")
    if values.is_floating_point():
        values = _from_floats(values)
    elif values.dtype != torch.uint8:
        raise UnreadableError("is neither uint8 nor float; convert it to 0-255 uint8 or to float in 0-1 first")
    rows: Pixels = values.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).numpy()
    pixels = rows.transpose(2, 0, 1)
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
