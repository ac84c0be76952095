"""Learning, adapting, evaluating on an NVIDIA GPU. Run by ``make test-gpu``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import iqakit
from iqakit.pipeline.fitting import fit_tasks
from iqakit.storage.model_directory import read_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and make test-gpu")

TSN = {"crop": "64", "batch_size": "8", "learning_rate": "0.01", "head_start": "shared"}


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory, make_rated_photos: Callable[..., Path]) -> list[Path]:
    place = tmp_path_factory.mktemp("tasks")
    return [make_rated_photos(place / name, seed=seed) for seed, name in enumerate(("first", "second"))]


def fitted(tasks: list[Path], model: Path, device: str, adapter: str, **settings: str) -> Path:
    fit_tasks(tasks, backbone="tiny", adapter=adapter, model=model, device=device, epochs=2, settings=settings)
    return model


@pytest.mark.parametrize("ladders", ["0", "1"])
def test_linear_learns_what_it_learns_on_the_cpu(two_tasks: list[Path], tmp_path: Path, ladders: str) -> None:
    made = {
        device: read_model(fitted(two_tasks[:1], tmp_path / device, device, "linear", ladders=ladders))
        for device in ("cpu", "cuda")
    }
    wanted, found = (made[device][1][0] for device in ("cpu", "cuda"))
    assert torch.allclose(
        found.head_weight, wanted.head_weight, rtol=1e-2, atol=1e-3 * float(wanted.head_weight.abs().max())
    )
    states = [made[device][2]["kmeans"] for device in ("cpu", "cuda")]
    assert set(states[0]) == set(states[1])
    assert any("/shifts" in name for name in states[1]) == (ladders == "1")
    for name, tensor in states[0].items():
        if "/stage" not in name:  # clusters may come in another order
            assert torch.allclose(tensor, states[1][name], atol=1e-3), name


@pytest.mark.parametrize("settings", [{}, {"precision": "float32", "ladders": "1"}, {"precision": "bfloat16"}])
def test_tsn_learns_and_leaves_a_model_for_any_device(
    two_tasks: list[Path], tmp_path: Path, settings: dict[str, str]
) -> None:
    place = fitted(two_tasks, tmp_path / "model", "cuda", "tsn", **TSN, **settings)
    for adapter in read_model(place)[1]:
        assert all(tensor.device.type == "cpu" for tensor in (*adapter.tensors.values(), adapter.head_weight))
        assert adapter.provenance["validation_srcc"] > 0.5
    rows = {
        device: list(
            iqakit.load(place, device=device, runtime="torch").score_many(sorted(two_tasks[1].glob("images/*.png")))
        )
        for device in ("cpu", "cuda")
    }
    for wanted, found in zip(rows["cpu"], rows["cuda"], strict=True):
        assert found.score == pytest.approx(wanted.score, abs=0.02)


def test_a_run_that_was_cut_goes_on(two_tasks: list[Path], tmp_path: Path) -> None:
    class CutError(Exception):
        pass

    class CutsAtTheSecondEpoch:
        def start(self, what: str, total: int) -> None:
            if "epoch 2" in what:
                raise CutError

        def advance(self, steps: int = 1, note: str = "") -> None:
            pass

        def message(self, text: str) -> None:
            pass

    asked = {"backbone": "tiny", "adapter": "tsn", "device": "cuda", "epochs": 2, "settings": TSN}
    whole = tmp_path / "whole"
    fit_tasks(two_tasks[:1], model=whole, **asked)  # type: ignore[arg-type]
    with pytest.raises(CutError):
        fit_tasks(two_tasks[:1], model=tmp_path / "cut", progress=CutsAtTheSecondEpoch(), resume=True, **asked)  # type: ignore[arg-type]
    fit_tasks(two_tasks[:1], model=tmp_path / "cut", resume=True, **asked)  # type: ignore[arg-type]
    one, other = (read_model(place)[1][0] for place in (whole, tmp_path / "cut"))
    for name, tensor in one.tensors.items():
        assert torch.allclose(tensor, other.tensors[name], rtol=1e-2, atol=1e-3), name


@pytest.fixture(scope="module")
def learned(two_tasks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(two_tasks, tmp_path_factory.mktemp("models") / "two", "cuda", "tsn", **TSN)


@pytest.mark.parametrize("method", ["group-contrastive", "relative-rank", "group-rank", "batch-statistics", "auto"])
def test_test_time_methods_run_and_leave_the_network_as_it_was(learned: Path, two_tasks: list[Path], method: str) -> None:
    model = iqakit.load(learned, device="cuda")
    before = model.backbone.fingerprint()
    photos = sorted(two_tasks[0].glob("images/*.png"))[:12]
    rows = list(model.score_many(photos, tta=method, tta_batch=6))
    assert [row.status for row in rows] == ["ok"] * 12
    assert all(row.adaptation and "diverged" not in row.adaptation for row in rows)
    if method == "batch-statistics":
        assert any(row.adapted for row in rows)
    assert model.backbone.fingerprint() == before


def test_an_adapter_made_on_the_gpu_is_used_on_the_cpu(learned: Path, two_tasks: list[Path], tmp_path: Path) -> None:
    photos = sorted(two_tasks[0].glob("images/*.png"))[:12]
    model = iqakit.load(learned, device="cuda")
    report = iqakit.adapt(model, photos, "batch-statistics", output=tmp_path / "a.safetensors", task="first", batch=6)
    assert all(tensor.device.type == "cpu" for tensor in report.adapter.tensors.values())
    scores = [
        [row.score for row in iqakit.load(learned, device=device, adapter=tmp_path / "a.safetensors").score_many(photos)]
        for device in ("cpu", "cuda")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def test_evaluation_agrees(learned: Path, two_tasks: list[Path]) -> None:
    found = {
        device: iqakit.evaluate(iqakit.load(learned, device=device, runtime="torch"), two_tasks[0], bootstrap=50)
        for device in ("cpu", "cuda")
    }
    for wanted, record in zip(found["cpu"], found["cuda"], strict=True):
        assert record["srcc"] == pytest.approx(wanted["srcc"], abs=0.05)
        assert record["rmse"] == pytest.approx(wanted["rmse"], rel=0.05)


def test_continual_runs(two_tasks: list[Path], tmp_path: Path) -> None:
    report = iqakit.continual(
        two_tasks,
        output=tmp_path / "out",
        adapters=("linear", "tsn"),
        backbone="tiny",
        device="cuda",
        epochs=1,
        settings=[f"{key}={value}" for key, value in TSN.items()],
        bootstrap=20,
    )
    assert not report.failures
    assert {run["adapter"] for run in json.loads((tmp_path / "out/summary.json").read_text())["runs"]} == {"linear", "tsn"}


@pytest.mark.parametrize("adapter", ["ewc", "joint", "lora", "lwf", "mas", "replay", "si"])
def test_plugins_methods_learn_on_the_gpu(two_tasks: list[Path], tmp_path: Path, adapter: str) -> None:
    """Where the packages under ``plugins/`` are installed."""
    from iqakit.plugins.catalog import catalog

    if adapter not in catalog().adapters:
        pytest.skip(f"no plugin brings {adapter}")
    adapters = read_model(fitted(two_tasks, tmp_path / "model", "cuda", adapter))[1]
    assert len(adapters) == 2
    assert all(found.head_weight.device.type == "cpu" and found.head_weight.isfinite().all() for found in adapters)
