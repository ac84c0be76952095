"""``iqakit continual`` as a user runs it: methods of a plugin, failures, kills, pictures."""

from __future__ import annotations

import builtins
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

import iqakit

SMALL = ["--backbone", "tiny", "--bootstrap", "20", "--set", "kmeans.repeats=1"]

METHODS = """
from dataclasses import dataclass, replace

from iqakit.contracts import AdapterEntry
from iqakit.errors import TrainingError
from iqakit.hookspecs import hookimpl

LEARNED = []


@dataclass(frozen=True)
class Config:
    pass


class Method:
    def __init__(self, name):
        self.name = name

    def fit(self, context):
        import torch
        from iqakit.adapters.linear_probe import LinearProbe
        from iqakit.adapters.settings import LinearConfig

        earlier = [adapter.task for adapter in context.earlier]
        LEARNED.append((self.name, *earlier, context.task))
        if self.name == "stumbling" and earlier:
            raise TrainingError("the loss is not finite; train more gently")
        if self.name == "crashing":
            raise KeyError("no such thing")
        assert [data.task for data in context.earlier_data] == (earlier if self.name == "together" else [])
        result = LinearProbe(LinearConfig(penalty=1.0)).fit(context)
        adapter = replace(result.adapter, method=self.name)
        if self.name == "counted":
            return replace(result, adapter=adapter)
        assert (int(context.memory["tasks"]) if context.memory else 0) == len(earlier)
        name = next(n for n in context.backbone.norm_tensor_names() if n.endswith("weight"))
        before = context.shared.get(name, context.backbone.module.state_dict()[name])
        moved = before + torch.randn(before.shape, generator=context.generator) * 0.7
        return replace(result, adapter=adapter, replaced={name: moved}, memory={"tasks": torch.tensor(len(earlier) + 1)})


@hookimpl
def iqakit_adapters():
    return [
        AdapterEntry(
            name, "fit", "A test.", Config, lambda config, name=name: Method(name),
            independent=name == "counted", needs_earlier_data=name == "together",
        )
        for name in ("counted", "walking", "together", "stumbling", "crashing")
    ]
"""


@pytest.fixture(scope="session")
def tasks(make_rated_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("tasks")
    return [make_rated_photos(root / name, count=36, side=40, seed=seed) for seed, name in enumerate(("a", "b", "c"))]


def summary(directory: str) -> dict[str, Any]:
    return json.loads(Path(directory, "summary.json").read_text())


def forget_seconds(found: dict[str, Any]) -> dict[str, Any]:
    for run in found["runs"]:
        del run["seconds"], run["seconds_per_task"]
    return found


def test_what_is_learned_and_how_often(run, distribution, tasks: list[Path]) -> None:
    distribution("iqakit-methods", METHODS)
    asked = ["--adapter", "counted", "--adapter", "walking", "--adapter", "together", "--no-pictures"]
    gates = ["--combiner", "oracle", "--combiner", "average"]
    orders = ["--order", "given", "--order", "a,c,b"]
    done = run("continual", *tasks, *SMALL, "--combiner", "kmeans", *asked, *gates, *orders, "-o", "out")
    assert (done.code, done.err.splitlines()[-1]) == (0, "figures in out/summary.json")
    learned = sys.modules["iqakit_methods"].LEARNED
    assert [event for event in learned if event[0] == "counted"] == [("counted", name) for name in "abc"]
    # Both orders begin with a; what comes after it is learned along each.
    along = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "c"), ("a", "c", "b")]
    for name in ("walking", "together"):
        assert [event[1:] for event in learned if event[0] == name] == along
    count = len(learned)
    again = run(
        "continual", *tasks, *SMALL, "--combiner", "kmeans", *asked, *gates, "--order", "given", "-o", "out", "--json"
    )
    assert len(learned) == count
    runs = {(one["adapter"], one["combiner"]): one for one in json.loads(again.out)["runs"]}

    walking = runs["walking", "average"]
    assert walking["bytes"]["shared"] > 0
    assert walking["bytes"]["memory"] > 0
    assert runs["walking", "oracle"]["msi"] < 1  # the shared tensors moved, so even the oracle forgets
    assert runs["counted", "oracle"]["msi"] == 1
    _recompute(walking, tasks)
    records = iqakit.evaluate(Path("out") / walking["model"], tasks, combiners=["average"], on="raw", bootstrap=20)
    assert [record["srcc"] for record in records] == pytest.approx(walking["R"][-1], abs=1e-12)


def _recompute(found: dict[str, Any], tasks: list[Path]) -> None:
    """R and P from the kept models, one image at a time, with scipy."""
    raw: dict[tuple[int, int], list[float]] = {}
    for t, name in enumerate(("a", "a+b", "a+b+c")):
        (place,) = {path.parent for path in Path("out/work/learned").glob(f"walking-{name}-*/model.json")}
        model = iqakit.load(place)
        for s, data in enumerate(tasks[: t + 1]):
            rows = [row for row in csv.DictReader((data / "scores.csv").open()) if row["split"] == "test"]
            raw[t, s] = [score.raw for score in model.score_many([data / r["image"] for r in rows], combiner="average")]
            human = [float(row["mos"]) for row in rows]
            assert found["R"][t][s] == pytest.approx(stats.spearmanr(raw[t, s], human).statistic, abs=1e-9)
            assert found["P"][t][s] == pytest.approx(stats.spearmanr(raw[t, s], raw[s, s]).statistic, abs=1e-9)


def test_a_method_that_fails_does_not_stop_the_others(run, distribution, tasks: list[Path]) -> None:
    distribution("iqakit-methods", METHODS)
    asked = ["--adapter", "stumbling", "--adapter", "crashing", "--adapter", "counted", "--no-pictures"]
    done = run("continual", *tasks[:2], *SMALL, *asked, "-o", "out")
    assert done.code == 1
    assert "stumbling, order given, seed 0: failed: the loss is not finite; train more gently\n" in done.err
    assert "crashing, order given, seed 0: failed: adapter crashing of iqakit-methods failed: KeyError" in done.err
    heading, _, row = done.out.splitlines()
    assert heading.split()[:3] == ["method", "combiner", "order"]
    assert row.split()[:3] == ["counted", "kmeans", "given"]
    first, second = summary("out")["failures"]
    assert (first["adapter"], first["learned"]) == ("stumbling", ["a"])
    assert first["R"]["kmeans"][0][0] is not None
    assert first["R"]["kmeans"][1] == [None, None]
    assert (second["learned"], second["R"]) == ([], {})


def test_images_that_cannot_be_read_are_counted(run, tasks: list[Path]) -> None:
    shutil.copytree(tasks[0], "a")
    rows = csv.DictReader(Path("a/scores.csv").read_text().splitlines())
    bad = next(row for row in rows if row["split"] == "test")
    Path("a", bad["image"]).write_bytes(b"broken")
    done = run("continual", "a", tasks[1], *SMALL, "--adapter", "linear", "--no-pictures", "-o", "out")
    assert done.code == 1
    assert "1 images could not be read; they are not in the figures" in done.err
    counts = {record["task"]: (record["n"], record["failed"]) for record in summary("out")["tasks"]}
    assert counts == {"a": (5, 1), "b": (6, 0)}


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_ends_in_what_an_uncut_one_gives(tasks: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "iqakit.cli.app", "-q", "continual", *map(str, tasks[:2]), *SMALL, "--no-pictures"]
    command += ["--order", "given", "--order", "reverse", "--adapter", "tsn", "--set", "crop=32", "--set", "epochs=12"]
    # Killed in the middle of learning the first task, then while the second is learned.
    for wanted in ("tsn-a-*/.fit/a/training/checkpoint.safetensors", "tsn-b-*"):
        process = subprocess.Popen([*command, "-o", "cut"])
        deadline = time.monotonic() + 120
        while not any(Path("cut/work/learned").glob(wanted)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Path("cut/summary.json").exists()
    for output in ("cut", "whole"):
        subprocess.run([*command, "-o", output], check=True, capture_output=True)
    assert forget_seconds(summary("cut")) == forget_seconds(summary("whole"))
    for model in sorted(Path("whole/models").iterdir()):
        for file in (path for path in model.rglob("*") if path.is_file()):
            assert Path("cut", *file.parts[1:]).read_bytes() == file.read_bytes()


def test_pictures_are_drawn_and_repeat(run, tasks: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    command = ["continual", *tasks[:2], *SMALL, "--adapter", "linear", "--combiner", "kmeans", "--combiner", "oracle"]
    assert run(*command, "-o", "out").code == 0
    drawn = {path.name: path.read_bytes() for path in Path("out").iterdir() if path.suffix in (".svg", ".png")}
    stems = ["matrix-linear-kmeans-given-seed0", "matrix-linear-oracle-given-seed0", "gate-kmeans-seed0"]
    stems += ["over-time-kmeans-given-seed0", "over-time-oracle-given-seed0"]
    assert set(drawn) == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    assert all(content.startswith(b"\x89PNG") or b"<svg" in content[:600] for content in drawn.values())
    assert run(*command, "-o", "out").code == 0
    assert {path.name: path.read_bytes() for path in Path("out").iterdir() if path.name in drawn} == drawn


def test_without_matplotlib_the_figures_come_all_the_same(run, tasks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    done = run("continual", *tasks[:2], *SMALL, "--adapter", "linear", "-o", "out")
    assert done.code == 0
    assert "pictures are left out, as matplotlib is missing: pip install 'iqakit[plots]'" in done.err
    assert "linear" in done.out
    assert summary("out")["runs"]
    assert not list(Path("out").glob("*.svg"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--order", "backwards"], "order 'backwards' is not known"),
        (["--adapter", "tns"], "no fit adapter is named 'tns'"),
        (["--combiner", "kmaens"], "no combiner is named 'kmaens'"),
        (["--backbone", "resnet5000"], "resnet5000"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--preset", "paper-z"], "no preset of tsn is named 'paper-z'; did you mean paper-"),
        (["--set", "epochs"], "--set takes key=value, not 'epochs'"),
        (["--set", "epochs=many"], "epochs=many of tsn: a whole number is wanted"),
        (["--epochs", "-1"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--split", "tset"], "split must be"),
        (["--on", "points"], "on must be raw or score"),
        (["--bootstrap", "-1"], "--bootstrap"),
        (["--device", "tpu"], "--device"),
        (["--workers", "-1"], "--workers"),
        (["--work", "file"], "file is a file, and a directory is wanted"),
    ],
)
def test_bad_input_gets_one_line(run, tasks: list[Path], arguments: list[str], words: str) -> None:
    Path("file").write_text("")
    tiny = [] if arguments[0] in ("--backbone", "--weights") else ["--backbone", "tiny"]
    tiny = ["--backbone", "tiny"] if arguments[0] == "--weights" else tiny
    done = run("continual", *tasks[:2], *tiny, *arguments, "-o", "out")
    assert done.code == 2
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert words in line
    assert not Path("out").exists()


def test_an_output_is_needed(run, tasks: list[Path]) -> None:
    done = run("continual", *tasks[:2])
    assert done.code == 2
    assert "-o" in done.err
