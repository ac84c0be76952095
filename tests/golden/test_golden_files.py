"""Files that earlier versions of iqakit wrote are read as they were meant, and format 2 is still written the same."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from iqakit.contracts import Adapter
from iqakit.functional.calibration import apply_calibration, expected_error
from iqakit.storage.adapter_file import read_adapter
from iqakit.storage.fingerprints import file_sha256
from iqakit.storage.model_directory import read_model

HERE = Path(__file__).parent
FORMATS = ("format-1", "format-2")
FIRST = {
    "cosine-all-stages.safetensors": "ef3bfd570d25eb0de220a61fb69a7edfe9704d6a4d0ee11b87cc511231db23e9",
    "linear.safetensors": "161027ad08e55ee6485d78824eebedcf6d103d5b4ac15aede259b94fcbc9a236",
    "model/CARD.md": "06bca077e330d3ec430515821e8f3920641c5de2a928e387443d9feef3c26f03",
    "model/adapters/00-gallery.safetensors": "161027ad08e55ee6485d78824eebedcf6d103d5b4ac15aede259b94fcbc9a236",
    "model/adapters/01-my-camera_2.1.safetensors": "ef3bfd570d25eb0de220a61fb69a7edfe9704d6a4d0ee11b87cc511231db23e9",
    "model/combiner.safetensors": "440fc5d08d08aeed51ed14dc826254022e781012fd9406fdb50acd28f287a5ea",
    "model/model.json": "2a5ddf1658194f086857fb8e27a6058e5df21b244ff4a9c2fa927d31d44ce84b",
    "model/shared.safetensors": "93b536faa11bad644eeb182ca2790efbc537b378dab36461b2d3b4580fa064fa",
}

SECOND = {
    "cosine-all-stages.safetensors": "d385483577f6a431de49d262dba4222ef6b2797de74da5d2724ce661f6a46756",
    "isotonic.safetensors": "66cda2c542b10b291c14d0e9bc413f3dfb413e10d68ea8ab606a9b334363b209",
    "linear.safetensors": "25f14ecdd47e88102c21f86c7449860f77cda3224bbe61d4c7e0273981ddf7da",
    "model/CARD.md": "06bca077e330d3ec430515821e8f3920641c5de2a928e387443d9feef3c26f03",
    "model/adapters/00-gallery.safetensors": "25f14ecdd47e88102c21f86c7449860f77cda3224bbe61d4c7e0273981ddf7da",
    "model/adapters/01-my-camera_2.1.safetensors": "d385483577f6a431de49d262dba4222ef6b2797de74da5d2724ce661f6a46756",
    "model/combiner.safetensors": "440fc5d08d08aeed51ed14dc826254022e781012fd9406fdb50acd28f287a5ea",
    "model/model.json": "d0c7a0fa1532645397bee86704c2352cca77ceb5c48ba8dfc164316a2e4bb81a",
    "model/shared.safetensors": "93b536faa11bad644eeb182ca2790efbc537b378dab36461b2d3b4580fa064fa",
}
SHA256 = {"format-1": FIRST, "format-2": SECOND}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(HERE / "make_golden.py"))


def assert_same(found: Adapter, expected: Adapter) -> None:
    assert set(found.tensors) == set(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert torch.equal(found.head_weight, expected.head_weight)
    assert (found.head_bias is None) == (expected.head_bias is None)
    if expected.head_bias is not None and found.head_bias is not None:
        assert torch.equal(found.head_bias, expected.head_bias)
    plain = ("task", "method", "backbone_id", "backbone_fingerprint", "head_kind", "features", "preprocessing",
             "calibration", "config", "provenance")  # fmt: skip
    for name in plain:
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("version", FORMATS)
def test_nobody_changed_the_golden_files(version: str) -> None:
    place = HERE / version
    found = {str(path.relative_to(place).as_posix()): file_sha256(path) for path in place.rglob("*") if path.is_file()}
    assert found == SHA256[version]


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize(("name", "maker"), [("linear", "linear_adapter"), ("cosine-all-stages", "cosine_adapter")])
def test_adapters_of_every_format(made: dict[str, Any], version: str, name: str, maker: str) -> None:
    assert_same(read_adapter(HERE / version / f"{name}.safetensors"), made[maker]())


def test_a_calibration_of_format_1_gives_the_same_points_as_ever() -> None:
    curve = read_adapter(HERE / "format-1" / "linear.safetensors").calibration
    assert curve is not None
    raw = [-2.0, 0.125, 0.5, 3.0]
    wanted = [2.5 + 95.0 / (1 + math.exp(-(value - 0.125) / 0.75)) for value in raw]
    found = apply_calibration(torch.tensor(raw, dtype=torch.float64), curve)
    assert found.tolist() == pytest.approx(wanted, rel=1e-15)
    assert expected_error(found, curve).tolist() == [8.25] * 4


def test_the_calibration_that_format_2_added(made: dict[str, Any]) -> None:
    found = read_adapter(HERE / "format-2" / "isotonic.safetensors")
    assert_same(found, made["isotonic_adapter"]())
    assert found.calibration is not None
    assert found.calibration.kind == "isotonic"
    assert found.calibration.knots[1] == (0.0, 30.0)


@pytest.mark.parametrize("version", FORMATS)
def test_the_model_of_every_format(made: dict[str, Any], version: str) -> None:
    manifest, adapters, states, shared = read_model(HERE / version / "model")
    assert manifest.backbone.weights == "random:0"
    assert [task.name for task in manifest.tasks] == ["gallery", "my-camera_2.1"]
    for found, maker in zip(adapters, ("linear_adapter", "cosine_adapter"), strict=True):
        assert_same(found, made[maker]())
    ramp = made["ramp"]
    assert sorted(states) == ["average", "kmeans"]
    assert states["average"] == {}
    assert sorted(states["kmeans"]) == [f"{task}/stage{stage}" for task in ("gallery", "my-camera_2.1") for stage in (0, 1)]
    assert torch.equal(states["kmeans"]["gallery/stage1"], ramp(2, 4))
    assert torch.equal(states["kmeans"]["my-camera_2.1/stage0"], ramp(2, 3, start=5))
    assert shared is not None
    assert torch.equal(shared["conv.weight"], ramp(2, 1, 2, 2))
    assert shared["counts"].tolist() == [3, 4]


def test_writing_the_same_content_gives_the_same_bytes(made: dict[str, Any], tmp_path: Path) -> None:
    made["write_all"](tmp_path)
    found = {
        str(path.relative_to(tmp_path).as_posix()): file_sha256(path) for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == SECOND
