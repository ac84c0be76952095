"""README's commands and code do what they say, and its figures are those of the result files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from iqakit.cli.app import main

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
# The default backbone would take minutes here; everything else runs as printed.
QUICK = ["--backbone", "tiny", "--set", "crop=64", "--epochs", "1"]


@pytest.fixture
def desk(make_rated_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that README's examples name."""
    make_rated_photos(tmp_path, count=40)
    (tmp_path / "scores.csv").rename(tmp_path / "my-camera.csv")
    photo = sorted((ROOT / "examples" / "photos").glob("*.jpg"))[0]
    for directory in ("holiday", "originals", "compressed"):
        (tmp_path / directory).mkdir()
    pairs = [f"{directory}/{name}.jpg" for directory in ("originals", "compressed") for name in "ab"]
    for name in ("photo.jpg", "new.jpg", "holiday/a.jpg", "holiday/b.jpg", *pairs):
        shutil.copy(photo, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IQAKIT_MODEL", raising=False)
    return tmp_path


def test_it_opens_with_the_two_commands() -> None:
    head = README.split("## What it does")[0]
    assert re.search(r"^make demo\b", head, re.MULTILINE)
    assert re.search(r"^make test\b", head, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


def test_its_commands_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.removeprefix("$ ").split("#")[0] for line in README.splitlines() if line.startswith("$ iqakit")]
    assert len(commands) >= 6
    for command in commands:
        arguments = shlex.split(command)[1:]
        assert main(arguments + (QUICK if arguments[0] == "fit" else [])) == 0, command
        assert capsys.readouterr().out or "-o" in arguments
    assert len((desk / "scores.jsonl").read_text().splitlines()) == 2


def test_its_python_runs(desk: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = block.replace('"resnet18"', '"tiny"').replace('adapter="tsn"', 'adapter="tsn", epochs=1, settings={"crop": 64}')
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert 0 <= names["row"].score <= 100  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_tables_are_those_of_the_result_files() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
