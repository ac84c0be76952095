"""The plugins under ``plugins/``, installed beside iqakit: listed, learned with, and scored with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugins" / "iqakit-prototype"
BASELINES = ROOT / "plugins" / "iqakit-baselines"

PROGRAM = """
import json, sys
from iqakit.cli.app import main

def run(*arguments):
    code = main(list(arguments))
    assert code == 0, (code, arguments)

sharp, soft, model, image = sys.argv[1:]
run("plugins", "list", "--json")
assert "torch" not in sys.modules
common = ("--backbone", "tiny", "--weights", "random:0", "--adapter", "linear", "--model", model)
run("-q", "fit", sharp, soft, *common)
run("-q", "score", image, "--model", model, "--combiner", "prototype", "--format", "jsonl", "--workers", "0")
run("-q", "score", image, "--model", model, "--combiner", "prototype", "--set", "temperature=0", "--format", "jsonl")
assert main(["-q", "score", image, "--model", model, "--combiner", "prototype", "--set", "temperature=-1"]) == 2
"""


def install(site: Path, plugin: Path = PLUGIN) -> None:
    """What ``pip install`` leaves behind: the package, here by its path, and the distribution's metadata."""
    project = tomllib.loads((plugin / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["iqakit"].items())
    (metadata / "entry_points.txt").write_text(f"[iqakit]\n{points}")


def test_it_works_when_installed(rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path) -> None:
    install(tmp_path / "site")
    other = make_rated_photos(tmp_path / "other", count=30, side=48, seed=5)
    model, image = tmp_path / "model", rated_photos / "images" / "p003.png"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IQAKIT_")}
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(PLUGIN / "src"), str(ROOT)]),
        "IQAKIT_STRICT_PLUGINS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, rated_photos, other, model, image],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "combiner prototype: temperature must be finite and 0 or more; found -1.0; 32 is usual" in done.stderr
    listed, end = json.JSONDecoder().raw_decode(done.stdout)
    (part,) = [part for part in listed["parts"] if part["name"] == "prototype"]
    assert (part["kind"], part["distribution"], part["version"]) == ("combiner", "iqakit-prototype", "0.1.0")
    assert listed["not_loaded"] == []
    *_, gated, flat = [json.loads(line) for line in done.stdout[end:].splitlines() if line.startswith('{"path"')]
    tasks = list(gated["weights"])
    assert len(tasks) == 2
    assert abs(sum(gated["weights"].values()) - 1) < 1e-6
    assert gated["weights"][tasks[0]] > 0.5  # the picture is of the first task
    assert list(flat["weights"].values()) == [0.5, 0.5]
    assert "prototype" in json.loads((model / "model.json").read_text())["combiners"]


BASELINES_PROGRAM = """
import json, sys
from iqakit.cli.app import main

def run(*arguments):
    code = main(list(arguments))
    assert code == 0, (code, arguments)

sharp, soft, model, image = sys.argv[1:]
common = ("--backbone", "tiny", "--weights", "random:0", "--model", model, "--epochs", "1", "--set", "crop=32")
run("-q", "fit", sharp, "--adapter", "ewc", *common)
run("-q", "fit", soft, "--adapter", "ewc", *common)
run("-q", "score", image, "--model", model, "--combiner", "last", "--format", "jsonl", "--workers", "0")
assert main(["-q", "fit", sharp, "--task", "more", "--adapter", "mas", *common]) == 2
"""


def test_the_baselines_work_when_installed(
    rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    """Two commands, so that the network and the importance of its weights come back from files."""
    install(tmp_path / "site", BASELINES)
    other = make_rated_photos(tmp_path / "other", count=30, side=48, seed=5)
    model, image = tmp_path / "model", rated_photos / "images" / "p003.png"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IQAKIT_")}
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(BASELINES / "src"), str(ROOT)]),
        "IQAKIT_STRICT_PLUGINS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", BASELINES_PROGRAM, rated_photos, other, model, image],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "adapter mas trains the network that all tasks share" in done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"path"')]
    assert list(row["weights"].values()) == [0.0, 1.0]
    assert [path.name for path in (model / "memory").iterdir()] == ["ewc-02"]
    assert json.loads((model / "model.json").read_text())["shared"] is not None
