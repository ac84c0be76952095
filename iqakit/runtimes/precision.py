"""Which arithmetic a device does fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

_T = TypeVar("_T")


def has_fast_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 numbers itself, instead of by way of float32.

    Args:
        device: A device as ``resolve_device`` gives it.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    # Torch has no public question for this; where these are gone, the answer is no, which is slow and never wrong.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(question()) for question in asked if question is not None)


@contextmanager
def exact_float32() -> Iterator[None]:
    """While it lasts, float32 means float32 on NVIDIA GPUs as well; afterwards torch is set as before.

    By default torch lets cuDNN round what convolutions multiply to 10 bits (TF32). Scores then lie some thousandths of a
    point from those of the CPU, which gate and calibration were fitted to. A switch that was set through torch's newer
    ``fp32_precision`` is left alone: whoever did that has chosen.
    """
    with (
        _switched(_convolutions, _set_convolutions, False),
        _switched(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    ):
        yield


@contextmanager
def _switched(get: Callable[[], _T], put: Callable[[_T], None], value: _T) -> Iterator[None]:
    try:
        before = get()
    except RuntimeError:  # so torch answers where its two ways of saying it were mixed
        yield
        return
    put(value)
    try:
        yield
    finally:
        put(before)


def _convolutions() -> bool:
    return bool(torch.backends.cudnn.allow_tf32)


def _set_convolutions(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
