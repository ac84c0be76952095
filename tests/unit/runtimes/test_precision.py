"""Which arithmetic a device does fast."""

from __future__ import annotations

import pytest
import torch

from iqakit.runtimes.precision import has_fast_bfloat16


@pytest.mark.parametrize(("avx512", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)])
def test_processor_is_asked(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert has_fast_bfloat16("cpu") is expected


def test_a_torch_that_cannot_be_asked_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_fast_bfloat16("cpu") is False
    assert has_fast_bfloat16("mps") is False
