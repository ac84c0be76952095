"""Test-time adaptation on the command line: score --tta, score --adapter, adapt, eval --tta."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MILD = ["--tta", "batch-statistics", "--set", "alpha=0.05"]
NEW = ["source_score", "adapted", "adaptation"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _torch(_own_directory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptation runs with torch; runs without it must too, to be compared to the last bit."""
    monkeypatch.setenv("IQAKIT_RUNTIME", "torch")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff and no more")
    return path


def test_rows_have_the_new_fields_in_every_format(run, pictures: Path, model: Path, broken: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    paths = [pictures / f"{index:02d}.png" for index in range(0, 24, 2)]
    arguments = ["score", *paths[:5], broken, *paths[5:], "--model", model, *MILD]
    done = run(*arguments, "--format", "jsonl")
    assert done.code == 1
    rows = lines(done.out)
    assert [row["path"] for row in rows] == [str(path) for path in [*paths[:5], broken, *paths[5:]]]
    assert list(rows[0])[2:6] == ["score", *NEW]
    assert rows[5]["status"] == "error"
    assert [rows[5][name] for name in NEW] == [None, False, None]
    plain = lines(run("score", *paths, "--model", model, "--format", "jsonl").out)
    assert not set(NEW) & set(plain[0])
    scored = [row for row in rows if row["status"] == "ok"]
    assert [row["source_score"] for row in scored] == [row["score"] for row in plain]
    assert {row["adaptation"] for row in scored if row["adapted"]} == {"adapted task blur"}
    assert any(row["adapted"] for row in scored)
    assert json.loads(run(*arguments, "--format", "json").out) == rows
    cells = list(csv.DictReader(io.StringIO(run(*arguments, "--format", "csv").out)))
    assert list(cells[0])[2:6] == ["score", *NEW]
    for row, flat in zip(rows, cells, strict=True):
        assert flat["adapted"] == ("true" if row["adapted"] else "false")
        assert flat["source_score"] == ("" if row["source_score"] is None else repr(row["source_score"]))
        assert flat["adaptation"] == (row["adaptation"] or "")
    assert run(*arguments, "-o", "rows.parquet").code == 1
    table = pyarrow.parquet.read_table("rows.parquet")
    assert [str(table.schema.field(name).type) for name in NEW] == ["double", "bool", "string"]
    assert table.column("adapted").to_pylist() == [row["adapted"] for row in rows]
    people = run(*arguments).out
    assert f"[source {scored[0]['source_score']:.1f}]" in people or "[not adapted: " in people


def test_parquet_of_rows_none_of_which_was_adapted(run, broken: Path, model: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("score", broken, "--model", model, *MILD, "-o", "rows.parquet").code == 1
    assert [str(parquet.read_table("rows.parquet").schema.field(name).type) for name in NEW] == ["double", "bool", "string"]


def test_the_report_takes_adapted_rows(run, pictures: Path, model: Path) -> None:
    arguments = ["score", pictures, "--model", model, *MILD, "-o", "rows.csv", "--report", "page.html"]
    assert run(*arguments).code == 0
    first = Path("page.html").read_text()
    with Path("rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    adapted = sum(row["adapted"] == "true" for row in rows)
    assert f"{adapted} of {len(rows)} scored images have adapted scores" in first
    assert all(row["adaptation"] in first for row in rows)
    assert run(*arguments, "--resume").code == 0
    assert Path("page.html").read_text() == first


def test_a_run_goes_on_with_the_scores_of_an_uncut_one(run, pictures: Path, model: Path) -> None:
    arguments = ["score", pictures, "--model", model, *MILD, "--tta-batch", "4", "-o", "rows.jsonl"]
    assert run(*arguments).code == 0
    whole = Path("rows.jsonl").read_bytes()
    rows = whole.splitlines(keepends=True)
    Path("rows.jsonl").write_bytes(b"".join(rows[:5] + rows[9:11]))
    done = run(*arguments, "--resume")
    assert done.code == 0
    assert "7 images are in rows.jsonl already" in done.err
    assert Path("rows.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--tta", "none"], "--tta batch-statistics, but --tta none is asked"),
        (["--tta-batch", "5"], "settings of --tta"),
        (["--tta-seed", "7"], "settings of --tta"),
        (["--tta-order", "given"], "settings of --tta"),
        (["--set", "alpha=0.06"], "settings of --tta"),
    ],
)
def test_other_settings_do_not_go_on(run, pictures: Path, model: Path, changed: list[str], told: str) -> None:
    arguments = ["score", pictures / "00.png", pictures / "09.png", "--model", model, "-o", "rows.jsonl"]
    assert run(*arguments, *MILD).code == 0
    again = run(*arguments, *(changed if "none" in changed else [*MILD, *changed]), "--resume")
    assert again.code == 2
    assert told in again.err
    assert again.err.strip().count("\n") <= 1


def test_what_depends_on_earlier_batches_does_not_go_on(run, pictures: Path, model: Path) -> None:
    online = run("score", pictures, "--model", model, *MILD, "--tta-mode", "online", "-o", "a.jsonl", "--resume")
    assert online.code == 2
    assert "--resume cannot go on with --tta-mode online" in online.err
    published = ["--tta", "group-rank", "--set", "mode=published"]
    assert "with mode=published" in run("score", pictures, "--model", model, *published, "-o", "a.jsonl", "--resume").err


def test_settings_reach_method_and_combiner(run, pictures: Path, model: Path) -> None:
    arguments = ["score", pictures, "--model", model, "--format", "jsonl"]
    rows = lines(run(*arguments, "--tta", "group-rank", "--set", "iterations=0", "--set", "kmeans.temperature=4").out)
    assert [row["score"] for row in rows] == [row["source_score"] for row in rows]
    assert {row["adaptation"] for row in rows} == {"iterations is 0"}
    plain = run(*arguments, "--set", "kmeans.temperature=4").out
    assert plain == run(*arguments, "--set", "temperature=4").out
    assert [row["score"] for row in lines(plain)] == [row["score"] for row in rows]
    assert (
        "no setting of group-rank is named 'temprature'"
        in run(*arguments, "--tta", "group-rank", "--set", "temprature=4").err
    )
    assert "but kmeans is used" in run(*arguments, "--set", "oracle.a=1").err


def test_wrong_methods_are_one_line(run, pictures: Path, model: Path) -> None:
    for name, told in (("grouprank", "did you mean group-rank"), ("tsn", "learns from scores")):
        done = run("-q", "score", pictures, "--model", model, "--tta", name)
        assert done.code == 2
        assert told in done.err
        assert done.err.count("\n") == 1


def test_a_graph_is_not_used(run, pictures: Path, model: Path) -> None:
    done = run("score", pictures / "00.png", "--model", model, *MILD, "--runtime", "onnxruntime")
    assert done.code == 0
    assert "--tta runs with torch; --runtime onnxruntime is not used" in done.err


def test_adapt_and_score_with_the_adapter(run, pictures: Path, model: Path) -> None:
    done = run("adapt", pictures, "--model", model, *MILD, "-o", "blur.safetensors", "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert (report["adapter"], report["task"], report["images"]) == ("blur.safetensors", "blur", 24)
    rows = lines(run("score", pictures, "--model", model, "--adapter", "blur.safetensors", "--format", "jsonl").out)
    assert {row["model"] for row in rows} == {f"{row['model'].partition('+')[0]}+{report['sha256'][:8]}" for row in rows}
    assert not set(NEW) & set(rows[0])
    plain = lines(run("score", pictures, "--model", model, "--format", "jsonl").out)
    assert [row["score"] for row in plain] != [row["score"] for row in rows]
    assert [row["weights"] for row in plain] == [row["weights"] for row in rows]
    shown = run("adapt", pictures, "--model", model, *MILD, "-o", "blur.safetensors").out
    assert "mean score" in shown
    done = run("score", pictures, "--model", model, "-o", "rows.jsonl")
    again = run("score", pictures, "--model", model, "--adapter", "blur.safetensors", "-o", "rows.jsonl", "--resume")
    assert again.code == 2
    assert "was scored with model" in again.err


def test_what_adapt_refuses(run, pictures: Path, model: Path, broken: Path) -> None:
    done = run("adapt", pictures, "--model", model, *MILD, "-o", pictures / "00.png")
    assert done.code == 2
    assert "-o needs a name that ends in .safetensors" in done.err
    few = run("adapt", pictures / "00.png", "--model", model, "--tta", "group-contrastive", "-o", "few.safetensors")
    assert few.code == 2
    assert "no group loss: fewer than 4 images; nothing was written" in few.err
    assert not Path("few.safetensors").exists()
    partly = run("adapt", *sorted(pictures.glob("*.png"))[::3], broken, "--model", model, *MILD, "-o", "most.safetensors")
    assert partly.code == 1
    assert "1 image could not be scored; nothing was learned from it" in partly.err
    assert Path("most.safetensors").is_file()


def test_eval_compares_the_source_with_methods(run, pictures: Path, model: Path) -> None:
    arguments = ["eval", pictures, "--model", model, "--split", "all", "--bootstrap", "50"]
    rows = json.loads(
        run(*arguments, *MILD, "--tta", "group-rank", "--set", "crop=32", "--set", "iterations=1", "--json").out
    )
    names = ["none", "batch-statistics", "group-rank", "group-rank/statistics-only"]
    assert [row["tta"] for row in rows] == names
    (plain,) = json.loads(run(*arguments, "--json").out)
    assert "tta" not in plain
    assert rows[0]["srcc"] == pytest.approx(plain["srcc"])
    assert all(row["plcc_low"] <= row["plcc"] <= row["plcc_high"] for row in rows)
    table = run(*arguments, *MILD).out
    assert "fell back" in table
    assert "source" in table
    told = json.loads(run(*arguments, *MILD, "--evidence", "--json").out)
    assert {"images", "task", "adapted", "note", "evidence"} == set(told[1]["batches"][0])
    assert run(*arguments, "--set", "alpha=1").code == 2


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom iqakit.cli.app import main\n"
        "for command in ('score', 'adapt', 'eval'):\n    assert main([command, '--help']) == 0\n"
        "assert not {'torch', 'timm', 'numpy', 'sklearn'} & set(sys.modules), 'heavy'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "source_score" in done.stdout
    plain = " ".join(done.stdout.replace("│", " ").split())
    assert "one scene or of one distortion has its quality normalised away" in plain
