"""Scoring on an NVIDIA GPU: near the CPU's figures, whatever the batch. Run by ``make test-gpu``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import iqakit
from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.functional.overlay import trainable_overlay
from iqakit.pipeline.zoo_probes import probe_directory
from iqakit.runtimes.precision import has_fast_bfloat16
from iqakit.runtimes.torch_runtime import TorchRuntime, resolve_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and make test-gpu")

PHOTOS = sorted(probe_directory().glob("*.jpg"))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 48, 64, generator=torch.Generator().manual_seed(seed))


def test_a_pass_is_the_cpus_in_float32() -> None:
    """Far nearer than TF32 would be, though torch allows that by default."""
    assert torch.backends.cudnn.allow_tf32
    on_cpu, on_gpu = (TorchRuntime(create_tiny("", "random:0"), device) for device in ("cpu", "cuda"))
    overlay = {
        name: tensor.detach() * 1.3
        for name, tensor in trainable_overlay(on_cpu.backbone.module, on_cpu.backbone.norm_tensor_names()).items()
        if tensor.is_floating_point()
    }
    moved = {name: tensor.cuda() for name, tensor in overlay.items()}
    for wanted, found in zip(on_cpu.passes(images(3), [{}, overlay]), on_gpu.passes(images(3), [{}, moved]), strict=True):
        parts = zip((wanted.embedding, *wanted.stages), (found.embedding, *found.stages), strict=True)
        for one, other in parts:
            assert other.device.type == "cpu"
            assert torch.allclose(one, other, rtol=1e-5, atol=2e-6 * float(one.abs().max()))
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_stays_near(precision: str) -> None:
    exact = TorchRuntime(create_tiny("", "random:0"), "cuda").passes(images(3), [{}])[0]
    near = TorchRuntime(create_tiny("", "random:0"), "cuda", precision).passes(images(3), [{}])[0]
    assert near.embedding.dtype == torch.float32
    assert torch.allclose(exact.embedding, near.embedding, rtol=0.05, atol=0.05)
    assert not torch.equal(exact.embedding, near.embedding)


def test_auto_takes_the_gpu() -> None:
    assert resolve_device("auto") == "cuda"
    assert resolve_device(f"cuda:{torch.cuda.device_count() - 1}").startswith("cuda:")
    assert isinstance(has_fast_bfloat16("cuda"), bool)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[iqakit.ScoreRow]]:
    """The bundled photos under the default model, on both devices."""
    return {device: list(iqakit.load(device=device, runtime="torch").score_many(PHOTOS)) for device in ("cpu", "cuda")}


def test_the_default_model_scores_as_on_the_cpu(rows: dict[str, list[iqakit.ScoreRow]]) -> None:
    for wanted, found in zip(rows["cpu"], rows["cuda"], strict=True):
        assert (found.path, found.status, found.warnings) == (wanted.path, "ok", wanted.warnings)
        assert found.score == pytest.approx(wanted.score, abs=0.01)
        assert found.std == pytest.approx(wanted.std, abs=0.01)
        assert found.novelty == pytest.approx(wanted.novelty, abs=1e-3)
        assert list(found.weights.values()) == pytest.approx(list(wanted.weights.values()), abs=1e-4)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 2), (64, 4)])
def test_the_batch_hardly_matters(rows: dict[str, list[iqakit.ScoreRow]], batch_size: int, workers: int) -> None:
    model = iqakit.load(device="cuda")
    found = list(model.score_many(PHOTOS * 2, batch_size=batch_size, workers=workers))
    assert [row.path for row in found] == [row.path for row in rows["cuda"] * 2]
    for row, wanted in zip(found, rows["cuda"] * 2, strict=True):
        assert row.score == pytest.approx(wanted.score, abs=0.01)


def test_pictures_of_many_sizes_and_broken_ones_keep_their_order(tmp_path: Path) -> None:
    model, rng = iqakit.load(device="cuda"), np.random.default_rng(0)
    pictures = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (40, 90), (64, 64), (1, 7), (300, 20))
    ]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    found = list(model.score_many([*pictures, broken, *pictures]))
    assert [row.status for row in found] == ["ok"] * 5 + ["error"] + ["ok"] * 5
    for first, second, picture in zip(found[:5], found[6:], pictures, strict=True):
        assert (first.height, first.width) == picture.shape[:2]
        assert first.score == pytest.approx(second.score, abs=0.01)
        assert first.score == pytest.approx(model.score(picture).score, abs=0.01)


@pytest.mark.parametrize(("precision", "slack"), [("bfloat16", 6), ("float16", 1)])
def test_scores_in_lower_precision_stay_near(rows: dict[str, list[iqakit.ScoreRow]], precision: str, slack: float) -> None:
    found = list(iqakit.load(device="cuda", precision=precision).score_many(PHOTOS))
    for row, wanted in zip(found, rows["cuda"], strict=True):
        assert row.score == pytest.approx(wanted.score, abs=slack)


def test_too_little_memory_halves_the_batch_and_names_what_never_fits() -> None:
    """On real memory: what the process may take is limited to little more than it holds."""
    model = iqakit.load(device="cuda")
    small = [np.full((256, 256, 3), value, dtype=np.uint8) for value in range(0, 250, 4)]
    wanted = [row.score for row in model.score_many(small, batch_size=4)]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300 * 2**20) / total)
        rows = list(model.score_many([*small, np.zeros((2000, 2000, 3), np.uint8)], batch_size=64))
        assert [row.score for row in rows[:-1]] == pytest.approx(wanted, abs=0.01)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 4 * 2**20) / total)
        last = next(iter(model.score_many([np.zeros((2000, 2000, 3), np.uint8)])))
        assert last.status == "error"
        assert "is too large for the memory of cuda; use the CPU" in str(last.error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_map_is_the_cpus() -> None:
    found = {device: iqakit.explain(iqakit.load(device=device, runtime="torch"), PHOTOS[0]) for device in ("cpu", "cuda")}
    assert found["cuda"].score == pytest.approx(found["cpu"].score, abs=0.01)
    spread = float(found["cpu"].values.std())
    assert spread > 0.1
    np.testing.assert_allclose(found["cuda"].values, found["cpu"].values, atol=0.02 * spread + 0.02)


def test_the_command_line_takes_the_gpu(tmp_path: Path, rows: dict[str, list[iqakit.ScoreRow]]) -> None:
    given = [sys.executable, "-m", "iqakit", "score", *map(str, PHOTOS), "--device", "cuda", "--format", "jsonl"]
    done = subprocess.run([*given, "-o", "rows.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["score"] for row in found] == pytest.approx([row.score for row in rows["cpu"]], abs=0.01)
    told = subprocess.run([sys.executable, "-m", "iqakit", "doctor"], capture_output=True, text=True, check=False)
    assert "cuda" in told.stdout.lower() + told.stderr.lower()
