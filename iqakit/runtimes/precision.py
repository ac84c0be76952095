"""Which arithmetic a device does fast."""

from __future__ import annotations

import torch


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
