"""Which arithmetic a device does fast."""

from __future__ import annotations

import pytest
import torch

from iqakit.runtimes.precision import exact_float32, has_fast_bfloat16


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


def switches() -> tuple[object, ...]:
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return convolutions.allow_tf32, products.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_float32_is_exact_for_a_while(before: str) -> None:
    torch.set_float32_matmul_precision(before)
    try:
        found = switches()
        assert found[0]  # torch's default, which would round convolutions
        with exact_float32():
            assert switches() == (False, False, "highest")
            with torch.backends.cudnn.flags(benchmark=True):  # others may ask and switch within
                pass
        assert switches() == found
        with pytest.raises(KeyError), exact_float32():
            raise KeyError
        assert switches() == found
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="older torch has one way to say it")
def test_what_was_set_the_newer_way_is_left_alone() -> None:
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    conv.fp32_precision = "ieee"
    try:
        with exact_float32():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before
    assert torch.backends.cudnn.allow_tf32
