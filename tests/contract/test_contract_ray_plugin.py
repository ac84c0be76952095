"""The plugin ``iqakit-ray``, installed beside iqakit: its command is listed without Ray, and errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugins" / "iqakit-ray"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, with the plugin found in ``site``."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("IQAKIT_")}
    environ |= {
        "PYTHONPATH": os.pathsep.join([str(site), str(PLUGIN / "src"), str(ROOT)]),
        "IQAKIT_STRICT_PLUGINS": "1",
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-m", "iqakit.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=site, timeout=300)


def test_its_command_is_there(tmp_path: Path) -> None:
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = tmp_path / f"iqakit_ray-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: iqakit-ray\nVersion: {project['version']}\n")
    points = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["iqakit"].items())
    (metadata / "entry_points.txt").write_text(f"[iqakit]\n{points}")
    listed = json.loads(run(tmp_path, "plugins", "list", "--json").stdout)
    assert listed["not_loaded"] == []
    (part,) = [part for part in listed["parts"] if part["name"] == "ray-score"]
    assert (part["kind"], part["distribution"], part["version"]) == ("command", "iqakit-ray", "0.1.0")
    done = run(tmp_path, "ray-score", "nowhere.jpg", "-o", "rows.txt")
    assert done.returncode == 2
    assert done.stderr == ("error: ray-score writes to a file of jsonl, csv, parquet or json; name it with -o FILE\n")
    assert "--actors" in run(tmp_path, "ray-score", "--help").stdout
