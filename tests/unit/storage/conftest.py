"""Adapters and backbones for the storage tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from iqakit.contracts import Adapter, Calibration, Preprocessing

FINGERPRINT = "ab" * 32


def build_adapter(task: str = "gallery", seed: int = 0, **changes: Any) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    fields: dict[str, Any] = {
        "task": task,
        "method": "tsn",
        "backbone_id": "tiny",
        "backbone_fingerprint": FINGERPRINT,
        "tensors": {f"bn.{name}": torch.randn(4, generator=generator) for name in ("weight", "bias", "running_mean")},
        "head_kind": "linear",
        "head_weight": torch.randn(1, 6, generator=generator),
        "head_bias": torch.randn(1, generator=generator),
        "features": "embedding",
        "preprocessing": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), fixed_size=(64, 48)),
        "calibration": Calibration(low=0.0, high=100.0, centre=0.25, width=0.5, residual=7.5),
        "config": {"epochs": 3, "rate": 1e-3, "names": ["a", "ü"]},
        "provenance": {"images": 12, "seed": 0},
    }
    return Adapter(**{**fields, **changes})


def build_content(adapter: Adapter) -> tuple[Any, ...]:
    """All of an adapter in a form that == compares exactly, to the bit."""
    tensors = {**adapter.tensors, "head weight": adapter.head_weight}
    if adapter.head_bias is not None:
        tensors["head bias"] = adapter.head_bias
    exact = {name: (str(t.dtype), tuple(t.shape), t.contiguous().numpy().tobytes()) for name, t in tensors.items()}
    rest = (adapter.task, adapter.method, adapter.backbone_id, adapter.backbone_fingerprint, adapter.head_kind)
    return exact, rest, adapter.features, adapter.preprocessing, adapter.calibration, adapter.config, adapter.provenance


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., Adapter]:
    return build_adapter


@pytest.fixture(scope="session")
def content() -> Callable[[Adapter], tuple[Any, ...]]:
    return build_content
