"""Graphs give what torch gives, are made once, survive damage, and need no torch once they are there."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqakit.errors import ConfigurationError
from iqakit.pipeline import graph_building, graph_path
from iqakit.pipeline import model as pipeline_model
from iqakit.pipeline.graph_scoring import PASS_PREFIX, GraphScorer, model_key
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.scored import make_request
from iqakit.runtimes import graph_optimising
from iqakit.runtimes.choice import installed
from iqakit.runtimes.graph_cache import find_graphs, graphs_directory
from iqakit.runtimes.graph_session import GraphError

pytestmark = pytest.mark.skipif(
    not all(installed(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs iqakit[fast]"
)
PHOTOS = Path(__file__).resolve().parents[3] / "examples" / "photos"
SIZES = ((72, 72), (40, 133), (17, 16), (211, 97), (64, 256))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the tests of this file: making graphs is what takes time."""
    return tmp_path_factory.mktemp("graph-home")


@pytest.fixture(autouse=True)
def own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IQAKIT_HOME", str(home))
    monkeypatch.delenv("IQAKIT_RUNTIME", raising=False)


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def silent(line: str) -> None:
    """Lines about graphs that are made do not matter here."""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("tasks", "calibrated"), [(1, True), (2, True), (4, True), (2, False)])
def test_graphs_give_what_torch_gives(models: Callable[..., Path], runtime: str, tasks: int, calibrated: bool) -> None:
    if not installed(runtime):
        pytest.skip(f"needs {runtime}")
    directory = models(tasks, calibrated)
    torch_model = QualityModel.load(directory, runtime="torch")
    graph_model = QualityModel.load(directory, runtime=runtime, say=silent)
    asked = [("kmeans", None), ("average", None), ("last", None), ("oracle", "task0")]
    for combiner, task in asked if tasks == 2 else asked[:1]:
        for height, width in SIZES:
            picture = image(height, width)
            ours, theirs = (model.score(picture, combiner=combiner, task=task) for model in (graph_model, torch_model))
            assert list(ours.to_json()) == list(theirs.to_json())
            assert ours.model == theirs.model
            assert ours.raw == pytest.approx(theirs.raw, abs=1e-4)
            assert ours.weights == pytest.approx(dict(theirs.weights), abs=1e-4)
            for name, value in theirs.task_scores.items():
                assert ours.task_scores[name] == (None if value is None else pytest.approx(value, abs=1e-4))
            for name in ("score", "std", "novelty"):
                mine, other = getattr(ours, name), getattr(theirs, name)
                assert mine == (None if other is None else pytest.approx(other, abs=0.05))
            assert (ours.score is None) is not calibrated
    assert graph_model.runtime == runtime


def test_settings_of_the_combiner_reach_the_graph(models: Callable[..., Path]) -> None:
    directory = models(2)
    rows = [
        QualityModel.load(directory, runtime=runtime, say=silent).score(image(60, 80), settings={"temperature": "40"})
        for runtime in ("torch", "onnxruntime")
    ]
    assert rows[1].weights == pytest.approx(dict(rows[0].weights), abs=1e-4)
    assert rows[1].weights != pytest.approx(
        dict(QualityModel.load(directory, runtime="onnxruntime").score(image(60, 80)).weights), abs=1e-4
    )


def test_graphs_are_made_once_and_then_torch_is_not_loaded(models: Callable[..., Path], tmp_path: Path, home: Path) -> None:
    directory = models(2)
    QualityModel.load(directory, runtime="onnxruntime", say=silent).score(image(50, 50))
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(image(90, 70)).save(photo)
    program = (
        "import sys\n"
        "from iqakit.cli.app import main\n"
        f"code = main(['score', {str(photo)!r}, '--model', {str(directory)!r}, '--format', 'json'])\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules, 'torch was loaded'\n"
        "sys.exit(code)\n"
    )
    environment = {**os.environ, "IQAKIT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    expected = QualityModel.load(directory, runtime="torch").score(photo)
    assert row["score"] == pytest.approx(expected.score, abs=0.05)
    assert row["model"] == expected.model


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def places(directory: Path) -> tuple[Path, Path]:
    """Where the graphs of a model of two tasks lie, and those arranged for this machine."""
    QualityModel.load(directory, runtime="onnxruntime", say=silent).score(image(50, 70))
    files = find_graphs(model_key(directory))
    assert files is not None
    return files.directory, graphs_directory() / graph_optimising.optimised_key(files, PASS_PREFIX)


@pytest.mark.parametrize("damaged", ["plain", "arranged", "record"])
def test_damaged_graphs_are_made_anew(models: Callable[..., Path], damaged: str) -> None:
    directory = models(2)
    expected = QualityModel.load(directory, runtime="onnxruntime", say=silent).score(image(50, 70))
    plain, arranged = places(directory)
    if damaged == "plain":
        # While those arranged for the machine are whole, nobody reads the others.
        shutil.rmtree(arranged)
    damage({"plain": plain / "pass1.onnx", "arranged": arranged / "pass1.onnx", "record": plain / "graph.json"}[damaged])
    lines: list[str] = []
    again = QualityModel.load(directory, runtime="onnxruntime", say=lines.append)
    assert again.score(image(50, 70)).to_json() == expected.to_json()
    assert again.runtime == "onnxruntime"
    assert len(lines) == 1
    assert "making its graph for onnxruntime, once" in lines[0]


def test_graphs_are_arranged_for_the_machine_once(models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = models(2)
    plain, arranged = places(directory)
    assert sorted(path.name for path in arranged.glob("pass*")) == sorted(path.name for path in plain.glob("pass*"))
    expected = QualityModel.load(directory, runtime="onnxruntime").score(image(64, 80))

    def refused(graph: bytes) -> bytes:
        raise GraphError("this version cannot save graphs")

    monkeypatch.setattr(graph_optimising, "optimise", refused)
    assert QualityModel.load(directory, runtime="onnxruntime").score(image(64, 80)) == expected, "they are found again"
    monkeypatch.setattr(graph_optimising, "machine_fingerprint", lambda: "another machine")
    lines: list[str] = []
    elsewhere = QualityModel.load(directory, runtime="onnxruntime", say=lines.append)
    row = elsewhere.score(image(64, 80))
    assert elsewhere.runtime == "onnxruntime", "the plain graphs do as well"
    assert row.score == pytest.approx(expected.score, abs=0.05)
    assert not lines
    assert arranged.exists()


def test_the_machine_is_told_by_what_its_processor_can_do() -> None:
    assert graph_optimising.machine_fingerprint() == graph_optimising.machine_fingerprint()
    assert len(graph_optimising.machine_fingerprint()) == 16


def test_a_graph_that_differs_is_left_for_torch_with_one_line(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IQAKIT_HOME", str(tmp_path))
    directory = models(1)

    def wrong(*_: object, **__: object) -> None:
        raise GraphError("the graph differs from torch by 0.5 raw and 3 points")

    monkeypatch.setattr(graph_building, "build_graphs", wrong)
    lines: list[str] = []
    model = QualityModel.load(directory, runtime="onnxruntime", say=lines.append)
    expected = QualityModel.load(directory, runtime="torch").score(image(50, 70))
    assert model.score(image(50, 70)).to_json() == expected.to_json()
    assert model.runtime == "torch"
    assert "torch is used, as onnxruntime cannot be: the graph differs from torch by 0.5 raw" in lines[-1]
    later: list[str] = []
    QualityModel.load(directory, runtime="onnxruntime", say=later.append).score(image(50, 70))
    assert len(later) == 1, "what failed once is not tried again by the next run"
    assert "torch is used" in later[0]


def test_the_check_finds_a_wrong_graph(models: Callable[..., Path]) -> None:
    directory = models(2)
    model = QualityModel.load(directory, runtime="onnxruntime", say=silent)
    model.score(image(50, 50))
    model.score(image(50, 50), combiner="last")
    other = QualityModel.load(models(4), runtime="torch").parts
    scorer = model._graphs._over_graphs(make_request("kmeans"))  # type: ignore[union-attr]
    other.adapters, other.pass_of_task = model.adapters, model.parts.pass_of_task
    with pytest.raises(GraphError, match="the graph differs from torch by"):
        graph_building.check_graphs(scorer, other, "last", {})


def test_without_the_exporters_torch_is_used(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IQAKIT_HOME", str(tmp_path))
    from iqakit.runtimes import choice

    monkeypatch.setattr(choice, "installed", lambda package: package != "onnxscript")
    lines: list[str] = []
    model = QualityModel.load(models(1), runtime="onnxruntime", say=lines.append)
    assert model.score(image(50, 50)).status == "ok"
    assert "making a graph takes onnxscript, not installed here; pip install 'iqakit[fast]'" in lines[-1]


def test_oracle_must_be_told_by_every_runtime(models: Callable[..., Path]) -> None:
    for runtime in ("torch", "onnxruntime"):
        with pytest.raises(ConfigurationError, match="--task"):
            QualityModel.load(models(2), runtime=runtime, say=silent).score(image(50, 50), combiner="oracle")


def test_two_models_at_once_make_one_set_of_graphs(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The slower of two processes finds the other's graphs in place and keeps them."""
    monkeypatch.setenv("IQAKIT_HOME", str(tmp_path))
    from iqakit.runtimes.graph_cache import keep_graphs

    first = keep_graphs("k" * 40, {"who": "first"}, {"a.onnx": b"one"})
    second = keep_graphs("k" * 40, {"who": "second"}, {"a.onnx": b"two"})
    assert first == second == find_graphs("k" * 40)
    assert second.read("a.onnx") == b"one"
    assert [path.name for path in graphs_directory().iterdir()] == ["k" * 40]
    assert graph_path.find_graphs("absent") is None


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_images_side_by_side_get_the_scores_they_get_alone(
    models: Callable[..., Path], runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed(runtime):
        pytest.skip(f"needs {runtime}")
    monkeypatch.setattr(pipeline_model, "usable_cores", lambda: 4)
    images = [image(height, width) for height, width in SIZES] * 6
    model = QualityModel.load(models(4), runtime=runtime, say=silent)
    alone = [row.to_json() for row in model.score_many(images, workers=0)]
    together = [row.to_json() for row in model.score_many(images, workers=2)]
    assert together == alone
    assert model.cost.images == 2 * len(images)
    assert model.runtime == runtime


def test_graphs_that_fail_under_many_threads_are_left_once(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that stops working in the middle: the graphs are made anew once, then torch scores, with one line."""
    monkeypatch.setattr(pipeline_model, "usable_cores", lambda: 4)
    said: list[str] = []
    model = QualityModel.load(models(2), runtime="onnxruntime", say=said.append)
    images = [image(height, width) for height, width in SIZES] * 4
    expected = [row.score for row in QualityModel.load(models(2), runtime="torch").score_many(images)]
    right, calls = GraphScorer.score_group, itertools.count()

    def failing(self: GraphScorer, *given: Any) -> Any:
        if next(calls) > 5:
            raise GraphError("out of order")
        return right(self, *given)

    monkeypatch.setattr(GraphScorer, "score_group", failing)
    found = [row.score for row in model.score_many(images)]
    assert found == pytest.approx(expected, abs=0.05)
    assert model.runtime == "torch"
    assert len([line for line in said if "torch is used" in line]) == 1
