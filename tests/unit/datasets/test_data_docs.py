"""``docs/reference/data.md`` says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from iqakit.datasets.checking import DatasetReport
from iqakit.datasets.practice import open_practice
from iqakit.datasets.splits import PROTOCOLS, read_splits
from iqakit.datasets.table_rows import read_rows
from iqakit.imaging.degrading import DEGRADATIONS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_table_of_degradations() -> None:
    rows = re.findall(r"^\| (\d\d) \| `([\w-]+)` \| (.+?) \| (.+?) \|$", PAGE, flags=re.MULTILINE)
    assert rows == [(k.code, k.name, k.unit, ", ".join(f"{a:g}" for a in k.amounts)) for k in DEGRADATIONS.values()]


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = blocks("python")
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "data.md", "exec"), {})
    assert len(read_splits(tmp_path / "splits.csv").splits) == 10
    said = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert said["gaussian-blur"] == "True"
    assert said["white-noise"] == "False"


def test_the_example_of_a_table_is_one(tmp_path: Path) -> None:
    (table,) = blocks("csv")
    (tmp_path / "scores.csv").write_text(table, encoding="utf-8")
    assert [row.split for row in read_rows(tmp_path / "scores.csv")] == ["train", "train", "test"]


def test_the_report_and_the_protocols_are_described() -> None:
    for key in DatasetReport.__slots__:
        assert f"`{key}`" in PAGE or key in ("task", "warnings")
    for name, protocol in PROTOCOLS.items():
        assert f'"{name}"' in PAGE or f"`{name}`" in PAGE
        assert all(task in PAGE for task in protocol.tasks)
    assert f"{len(open_practice('all'))} images" in PAGE
    assert json.dumps(list(open_practice("all").image(0).shape)) == "[3, 160, 160]"
