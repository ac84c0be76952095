from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqakit.functional.correlation import srcc
from iqakit.plugins.catalog import catalog

SMALL = ["--backbone", "tiny", "--weights", "random:0", "--adapter", "linear"]


def test_fit_writes_a_model_and_says_so(run, pictures: Path) -> None:
    done = run("fit", pictures, *SMALL, "--model", "m", "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert report["model"] == "m"
    (task,) = report["tasks"]
    assert (task["task"], task["adapter"]) == ("blur", "linear")
    assert Path("m", task["file"]).stat().st_size == task["bytes"]
    assert "score with: iqakit score IMAGE... --model m" in done.err
    assert run("score", pictures / "00.png", "--model", "m").code == 0


def test_fit_prints_a_table_for_people(run, pictures: Path) -> None:
    done = run("fit", pictures, *SMALL, "--model", "m", "--task", "sharpness")
    assert done.code == 0
    heading, _, row = done.out.splitlines()
    assert heading.split() == ["task", "adapter", "train", "validation", "SRCC", "seconds", "kB", "file"]
    assert row.split()[:2] == ["sharpness", "linear"]


def test_fit_adds_tasks_and_leaves_the_earlier_as_they_are(run, pictures: Path, model: Path) -> None:
    shutil.copytree(model, "m")
    before = {path: path.read_bytes() for path in Path("m/adapters").iterdir()}
    assert run("fit", pictures, "--adapter", "linear", "--task", "again", "--model", "m", "--set", "penalty=0.5").code in (
        0,
        2,
    )
    assert run("fit", pictures, "--adapter", "linear", "--task", "twice", "--model", "m").code == 0
    for path, content in before.items():
        assert path.read_bytes() == content
    row = json.loads(run("score", pictures / "00.png", "--model", "m", "--format", "jsonl").out)
    assert {"blur", "twice"} <= set(row["task_scores"])


def test_settings_go_to_the_method(run, pictures: Path) -> None:
    for name, settings in (("a", []), ("b", ["--set", "features=embedding", "--set", "penalty=0.5"])):
        assert run("-q", "fit", pictures, *SMALL, "--model", name, *settings).code == 0
    assert Path("b/adapters/00-blur.safetensors").stat().st_size < Path("a/adapters/00-blur.safetensors").stat().st_size
    refused = run("fit", pictures, *SMALL, "--model", "c", "--set", "penalty=-1")
    assert refused.code == 2
    assert "penalty must be above 0, but it is -1" in refused.err
    assert not Path("c").exists()


def test_fit_refuses_a_task_that_is_learned_unless_it_resumes(run, pictures: Path, model: Path) -> None:
    shutil.copytree(model, "m")
    refused = run("fit", pictures, "--adapter", "linear", "--model", "m")
    assert refused.code == 2
    assert "has learned a task 'blur' already" in refused.err
    resumed = run("fit", pictures, "--adapter", "linear", "--model", "m", "--resume", "--json")
    assert resumed.code == 0
    assert json.loads(resumed.out)["tasks"] == []


def test_fit_takes_the_default_directory(run, pictures: Path) -> None:
    assert run("-q", "fit", pictures, *SMALL).code == 0
    assert Path("iqakit_model/model.json").exists()
    assert "model iqakit_model@" in run("score", pictures / "00.png").err


def test_fit_repeats_under_one_seed(run, pictures: Path) -> None:
    for name in ("a", "b"):
        assert run("-q", "fit", pictures, *SMALL, "--model", name, "--seed", "3").code == 0
    files = [sorted(path.read_bytes() for path in Path(name, "adapters").iterdir()) for name in ("a", "b")]
    assert files[0] == files[1]


def test_eval_gives_the_figures_of_the_rows(run, pictures: Path, model: Path) -> None:
    done = run("eval", pictures, "--model", model, "--combiner", "kmeans", "--combiner", "last", "--split", "all", "--json")
    assert done.code == 0
    rows = json.loads(done.out)
    assert [row["combiner"] for row in rows] == ["kmeans", "last"]
    names = ["task", "combiner", "n", "failed", "srcc", "srcc_low", "srcc_high", "krcc", "plcc", "rmse"]
    assert [list(row) for row in rows] == [names, names]
    scored = run("score", pictures, "--model", model, "--format", "json").out
    scores = np.array([row["score"] for row in json.loads(scored)], dtype=np.float32)
    import torch

    expected = float(srcc(torch.from_numpy(scores), torch.arange(24.0)))
    assert rows[0]["srcc"] == pytest.approx(expected, abs=1e-6)
    assert rows[0]["srcc_low"] <= rows[0]["srcc"] <= rows[0]["srcc_high"]
    assert rows[0]["n"] == 24


def test_eval_prints_a_table_and_counts_what_failed(run, pictures: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    (copy / "05.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    done = run("eval", copy, "--model", model, "--split", "all", "--bootstrap", "0")
    assert done.code == 1
    assert "1 images could not be scored" in done.err
    heading, _, row = done.out.splitlines()
    assert heading.split()[:4] == ["task", "combiner", "n", "failed"]
    assert row.split()[:4] == ["copy", "kmeans", "23", "1"]
    assert "- to -" in row


def test_eval_wants_a_split_that_there_is(run, pictures: Path, model: Path) -> None:
    done = run("eval", pictures, "--model", model, "--split", "tset")
    assert done.code == 2
    assert "tset" in done.err


def test_plugins_list_and_show(run) -> None:
    listed = json.loads(run("plugins", "list", "--json").out)
    kinds = {(part["kind"], part["name"]) for part in listed["parts"]}
    assert {("adapter", "tsn"), ("combiner", "kmeans"), ("backbone", "tiny"), ("dataset", "koniq10k")} <= kinds
    assert {part["distribution"] for part in listed["parts"]} == {"iqakit"}
    table = run("plugins", "list").out
    for part in listed["parts"]:
        assert part["name"] in table
    shown = json.loads(run("plugins", "show", "tsn", "--json").out)
    described = {setting["name"]: setting["default"] for setting in shown["parts"][0]["settings"]}
    config = catalog().adapters["tsn"].entry.config()
    assert described["crop"] == config.crop
    assert list(described) == [field.name for field in fields(config)]
    assert "crop" in run("plugins", "show", "tsn").out


MIXER = """
from dataclasses import dataclass
from iqakit.contracts import CombinerEntry
from iqakit.hookspecs import hookimpl

@dataclass(frozen=True)
class Config:
    sharpness: float = 2.0

@hookimpl
def iqakit_combiners():
    return [CombinerEntry("mixer", "Mixes", Config, print)]
"""


def test_plugins_list_shows_plugins_conflicts_and_reasons(run, distribution) -> None:
    distribution("iqakit-mixer", MIXER)
    listed = json.loads(run("plugins", "list", "--json").out)
    assert {
        "kind": "combiner",
        "name": "mixer",
        "distribution": "iqakit-mixer",
        "version": "0.7",
        "summary": "Mixes",
    } in listed["parts"]
    distribution("iqakit-blender", MIXER)
    distribution("iqakit-broken", "import not_there")
    listed = json.loads(run("plugins", "list", "--json").out)
    assert listed["conflicts"][0]["distributions"] == ["iqakit-blender", "iqakit-mixer"]
    assert listed["not_loaded"][0]["name"] == "iqakit_broken"
    assert "ModuleNotFoundError" in listed["not_loaded"][0]["reason"]
    table = run("plugins", "list").out
    assert "conflict: combiner 'mixer' is offered by iqakit-blender 0.7 and by iqakit-mixer 0.7" in table
    assert "set aside: iqakit_broken of iqakit-broken 0.7: loading 'iqakit_broken' failed: ModuleNotFoundError" in table
    assert "conflict" in run("plugins", "show", "mixer").out
    shown = run("plugins", "show", "iqakit-broken").out
    assert "set aside" in shown
    assert "No module named 'not_there'" in shown


def test_a_contested_combiner_is_an_error_that_names_both(run, distribution, pictures: Path, model: Path) -> None:
    distribution("iqakit-mixer", MIXER)
    distribution("iqakit-blender", MIXER)
    done = run("score", pictures / "00.png", "--model", model, "--combiner", "mixer")
    assert done.code == 2
    assert "iqakit-blender 0.7 and by iqakit-mixer 0.7" in done.err
    assert run("score", pictures / "00.png", "--model", model, "--combiner", "average").code == 0


def test_datasets_list_and_show(run) -> None:
    listed = json.loads(run("datasets", "list", "--json").out)
    assert {entry["name"] for entry in listed} == set(catalog().datasets)
    shown = json.loads(run("datasets", "show", "koniq10k", "--json").out)
    assert shown["images"] == 10073
    assert shown["licence"]
    text = run("datasets", "show", "koniq10k").out
    assert "iqakit fit koniq10k:PATH" in text
    assert "higher is better" in text
    assert "higher is worse" in run("datasets", "show", "live").out
    table = run("datasets", "list").out
    for name in catalog().datasets:
        assert name in table


def test_datasets_check(run, pictures: Path, tmp_path: Path) -> None:
    good = run("datasets", "check", pictures, "--json")
    assert good.code == 0
    assert json.loads(good.out)["readable"] == 24
    copy = tmp_path / "copy"
    shutil.copytree(pictures, copy)
    (copy / "05.png").write_bytes(b"no image")
    shutil.copy(copy / "06.png", copy / "07.png")
    bad = run("datasets", "check", copy)
    assert bad.code == 1
    assert "unreadable:" in bad.out
    assert "05.png" in bad.out
    assert "06.png = 07.png" in bad.out


def test_datasets_split(run, pictures: Path) -> None:
    done = run("datasets", "split", pictures, "--repeats", "3", "--ratios", "50/25/25", "-o", "splits.csv", "--json")
    assert done.code == 0
    record = json.loads(done.out)
    assert record["splits"] == [{"train": 12, "val": 6, "test": 6}] * 3
    text = Path("splits.csv").read_text()
    assert text.splitlines()[0] == "image,content,split_0,split_1,split_2"
    assert run("datasets", "split", pictures, "--repeats", "3", "--ratios", "50/25/25").out == text
    other = run("datasets", "split", pictures, "--repeats", "3", "--ratios", "50/25/25", "--seed", "5").out
    assert other != text


def test_datasets_split_keeps_contents_together(run, tmp_path: Path) -> None:
    directory = tmp_path / "shots"
    directory.mkdir()
    table = ["image,mos,content"]
    for index in range(30):
        Image.new("RGB", (32, 32), (index, 0, 0)).save(directory / f"{index}.png")
        table.append(f"{index}.png,{index % 5},scene{index // 3}")
    (directory / "scores.csv").write_text("\n".join(table) + "\n")
    rows = [line.split(",") for line in run("datasets", "split", directory, "--repeats", "1").out.splitlines()[1:]]
    sides: dict[str, set[str]] = {}
    for _, content, side in rows:
        sides.setdefault(content, set()).add(side)
    assert len(sides) == 10
    assert all(len(side) == 1 for side in sides.values())
    assert {side for _, _, side in rows} == {"train", "val", "test"}
