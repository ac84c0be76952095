from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from iqakit.cli.output import Terminal
from iqakit.cli.result_file import ResultFile
from iqakit.cli.score_file import BestOnly, TextSink
from iqakit.cli.score_rows import JsonLines, JsonList, PeopleTable
from iqakit.cli.score_run import with_bar
from iqakit.pipeline.model import QualityModel

FIELDS = [
    *("path", "status", "score", "raw", "std", "novelty", "task_scores", "weights"),
    *("width", "height", "warnings", "model"),
]
COLUMNS = [
    *("path", "status", "score", "raw", "std", "novelty", "task_scores.blur", "weights.blur"),
    *("width", "height", "warnings", "model", "error"),
]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff and no more")
    return path


def test_rows_of_jsonl(run, pictures: Path, model: Path) -> None:
    done = run("score", pictures, "--model", model, "--format", "jsonl")
    assert done.code == 0
    rows = lines(done.out)
    assert [row["path"] for row in rows] == [str(path) for path in sorted(pictures.glob("*.png"))]
    for row in rows:
        assert list(row) == FIELDS
        assert row["status"] == "ok"
        assert 0 <= row["score"] <= 100
        assert 0 <= row["novelty"] <= 1
        assert row["std"] >= 0
        assert math.isclose(sum(row["weights"].values()), 1, rel_tol=1e-6)
        assert math.isclose(row["raw"], row["task_scores"]["blur"] * row["weights"]["blur"], rel_tol=1e-6)
        assert (row["width"], row["height"]) == (56, 40)
        assert row["model"].startswith("small@")
    assert rows[-1]["score"] > rows[0]["score"]
    assert f"model {rows[0]['model']} in {model}: tiny, tasks blur" in done.err
    assert "24 images scored; score" in done.err


def test_formats_hold_the_same_rows(run, pictures: Path, model: Path, broken: Path) -> None:
    arguments = ["score", pictures / "00.png", broken, pictures / "01.png", "--model", model, "--format"]
    rows = lines(run(*arguments, "jsonl").out)
    assert json.loads(run(*arguments, "json").out) == rows
    cells = list(csv.DictReader(io.StringIO(run(*arguments, "csv").out)))
    assert list(cells[0]) == COLUMNS
    for row, flat in zip(rows, cells, strict=True):
        assert flat["path"] == row["path"]
        assert flat["status"] == row["status"]
        assert flat["error"] == (row.get("error") or "")
        assert flat["score"] == ("" if row["score"] is None else repr(row["score"]))
        assert flat["task_scores.blur"] == ("" if row["score"] is None else repr(row["task_scores"]["blur"]))
    table = run(*arguments, "table").out.splitlines()
    assert table[0].split() == ["score", "±", "image"]
    assert table[1].split()[0] == f"{rows[0]['score']:.1f}"
    assert table[1].endswith(str(pictures / "00.png"))
    assert table[2].startswith("error ")
    assert "damaged JPEG" in table[2]


def test_an_image_that_cannot_be_read_is_a_row_and_exit_code_1(run, pictures: Path, model: Path, broken: Path) -> None:
    done = run("score", "missing.png", pictures / "00.png", broken, "--model", model, "--format", "jsonl")
    assert done.code == 1
    missing, scored, damaged = lines(done.out)
    assert (missing["path"], missing["status"], missing["score"]) == ("missing.png", "error", None)
    assert "missing.png" in missing["error"]
    assert scored["status"] == "ok"
    assert damaged["status"] == "error"
    assert "1 image scored, 2 failed" in done.err


def test_on_error_fail_stops_at_the_first(run, pictures: Path, model: Path, broken: Path) -> None:
    rest = [pictures / f"{index:02d}.png" for index in range(1, 24)]
    done = run(
        "-q", "score", pictures / "00.png", broken, *rest, "--model", model, "--format", "jsonl", "--on-error", "fail"
    )
    assert done.code == 2
    assert [row["path"] for row in lines(done.out)] == [str(pictures / "00.png")]
    assert done.err.count("\n") == 1
    assert "damaged JPEG" in done.err


def test_a_score_does_not_depend_on_neighbours_or_workers(run, pictures: Path, model: Path) -> None:
    together = lines(run("score", pictures, "--model", model, "--format", "jsonl", "--workers", "3").out)
    alone = lines(run("score", pictures / "07.png", "--model", model, "--format", "jsonl", "--workers", "0").out)
    assert alone == [together[7]]
    batched = run("score", pictures, "--model", model, "--format", "jsonl", "--batch-size", "5", "--workers", "0")
    assert lines(batched.out) == together


def test_paths_on_standard_input(run, pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{pictures / '03.png'}\n{pictures / '01.png'}\n"))
    done = run("score", "-", "--model", model, "--format", "jsonl")
    assert [Path(row["path"]).name for row in lines(done.out)] == ["03.png", "01.png"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "no image was found in standard input" in run("score", "-", "--model", model).err


def test_the_model_is_found_by_the_rule(run, pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pictures / "00.png"
    shutil.copytree(model, "iqakit_model")
    assert "model iqakit_model@" in run("score", image).err
    monkeypatch.setenv("IQAKIT_MODEL", str(model))
    assert "model small@" in run("score", image).err
    assert "model iqakit_model@" in run("score", image, "--model", "iqakit_model").err


def test_top_gives_the_best_first(run, pictures: Path, model: Path, broken: Path) -> None:
    arguments = ["score", pictures, broken, "--model", model, "--format", "jsonl"]
    scored = [row for row in lines(run(*arguments).out) if row["status"] == "ok"]
    ranked = sorted(scored, key=lambda row: -row["score"])
    three = run(*arguments, "--top", "3")
    assert lines(three.out) == ranked[:3]
    assert three.code == 1  # the broken one is not shown, but it has failed
    assert "1 failed" in three.err
    assert lines(run(*arguments, "--top", "10%").out) == ranked[:3]  # 2.4 of 24, rounded up
    assert lines(run(*arguments, "--top", "100%").out) == ranked
    assert lines(run(*arguments, "--top", "99").out) == ranked


def best(rows: list[dict], count: int | None, share: float | None) -> list[str]:
    """Paths of the best rows, through a sink that writes them to a file."""
    with BestOnly(TextSink(Path("best.jsonl"), JsonLines()), count, share) as sink:
        for row in rows:
            sink.write(row)
    kept = lines(Path("best.jsonl").read_text())
    assert all(row in rows for row in kept)
    return [row["path"] for row in kept]


def test_best_keeps_the_order_of_equal_rows() -> None:
    rows = [
        {"path": name, "status": "ok", "score": score} for name, score in (("a", 1.0), ("b", 5.0), ("c", 5.0), ("d", 0.0))
    ]
    rows.insert(2, {"path": "e", "status": "error", "score": None})
    assert best(rows, 3, None) == ["b", "c", "a"]
    assert best(rows, None, 0.5) == ["b", "c"]
    assert best([], 3, None) == best([], None, 0.5) == []
    thirty = [{"path": str(index), "status": "ok", "score": float(index)} for index in range(30)]
    assert best(thirty, None, 0.1) == ["29", "28", "27"]


def test_the_best_of_a_cut_run_are_written(tmp_path: Path) -> None:
    rows = [{"path": str(index), "status": "ok", "score": float(index % 7)} for index in range(20)]

    def cut(path: Path, count: int | None, share: float | None) -> None:
        with BestOnly(TextSink(path, JsonLines()), count, share) as sink:
            for row in rows:
                sink.write(row)
            raise KeyboardInterrupt

    for count, share in ((2, None), (None, 0.1)):
        path = tmp_path / f"{count}.jsonl"
        with pytest.raises(KeyboardInterrupt):
            cut(path, count, share)
        assert [row["path"] for row in lines(path.read_text())] == ["6", "13"]


def test_min_decides_the_exit_code(run, pictures: Path, model: Path) -> None:
    arguments = ["score", pictures, "--model", model, "--format", "jsonl"]
    scores = sorted(row["score"] for row in lines(run(*arguments).out))
    assert run(*arguments, "--min", "0").code == 0
    limit = (scores[4] + scores[5]) / 2
    done = run(*arguments, "--min", str(limit))
    assert done.code == 1
    assert f"5 images below --min {limit:g}" in done.err
    assert run(*arguments, "--min", str(limit), "--top", "3").code == 1  # those not shown count too


def test_quiet_leaves_results_and_errors_alone(run, pictures: Path, model: Path) -> None:
    done = run("-q", "score", pictures / "00.png", "--model", model, "--format", "jsonl")
    assert done.err == ""
    assert len(lines(done.out)) == 1
    assert run("score", pictures / "00.png", "--model", model, "--format", "jsonl", "--quiet").err == ""


def test_settings_go_to_the_combiner(run, pictures: Path, model: Path) -> None:
    done = run("score", pictures / "00.png", "--model", model, "--set", "nonsense=1")
    assert done.code == 2
    assert "no setting of kmeans is named 'nonsense'" in done.err


def test_unknown_combiner_and_task(run, pictures: Path, model: Path) -> None:
    assert "no combiner is named 'kmean'" in run("score", pictures, "--model", model, "--combiner", "kmean").err
    done = run("score", pictures, "--model", model, "--task", "bluur")
    assert done.code == 2
    assert "'bluur'; did you mean blur?" in done.err


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.62, 0.999, 1.0])
def test_a_cut_run_goes_on_to_the_same_file(
    run, pictures: Path, model: Path, broken: Path, form: str, share: float
) -> None:
    arguments = ["score", pictures, broken, pictures / "00.png", "--model", model]
    assert run(*arguments, "-o", f"whole.{form}").code == 1
    whole = Path(f"whole.{form}").read_bytes()
    Path(f"cut.{form}").write_bytes(whole[: int(len(whole) * share)])
    done = run(*arguments, "-o", f"cut.{form}", "--resume")
    assert done.code == 1  # as the uncut run, whichever part the broken image was in
    assert Path(f"cut.{form}").read_bytes() == whole
    assert "25 images scored, 1 failed" in done.err


def test_resume_without_a_file_begins_one(run, pictures: Path, model: Path) -> None:
    assert run("score", pictures, "--model", model, "-o", "new.csv", "--resume").code == 0
    assert len(Path("new.csv").read_text().splitlines()) == 25


def test_resume_counts_min_over_the_rows_that_are_there(run, pictures: Path, model: Path) -> None:
    arguments = ["score", pictures, "--model", model, "-o", "rows.jsonl"]
    run(*arguments)
    assert run(*arguments, "--resume", "--min", "99.9").code == 1
    assert run(*arguments, "--resume", "--min", "0").code == 0


def test_resume_refuses_rows_of_another_model(run, pictures: Path, model: Path) -> None:
    for form in ("jsonl", "csv"):
        name = f"rows.{form}"
        run("score", pictures, "--model", model, "-o", name)
        text = Path(name).read_text()
        Path(name).write_text(text.replace("small@", "other@"))
        done = run("score", pictures, "--model", model, "-o", name, "--resume")
        assert done.code == 2
        assert f"{name} holds rows of model other@" in done.err


def test_odd_paths_survive_every_format(run, pictures: Path, model: Path) -> None:
    odd = Path('odd, "quoted"\nname é.png')
    shutil.copy(pictures / "00.png", odd)
    for form in ("jsonl", "csv"):
        arguments = ["score", odd, pictures / "01.png", "--model", model, "-o", f"odd.{form}"]
        assert run(*arguments).code == 0
        whole = Path(f"odd.{form}").read_bytes()
        Path(f"odd.{form}").write_bytes(whole[: len(whole) // 2 + 60])
        assert run(*arguments, "--resume").code == 0
        assert Path(f"odd.{form}").read_bytes() == whole
    assert lines(Path("odd.jsonl").read_text())[0]["path"] == str(odd)
    with Path("odd.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["path"] == str(odd)
    assert run("score", odd, "--model", model).out.count("\n") == 2  # heading and one line


def test_a_path_that_is_no_text_is_scored(run, pictures: Path, model: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    try:
        shutil.copy(pictures / "00.png", name)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    for form in ("jsonl", "csv", "table"):
        assert run("score", name, "--model", model, "--format", form).code == 0
        assert run("score", name, "--model", model, "--format", form, "-o", f"rows.{form}").code == 0
    assert lines(Path("rows.jsonl").read_text())[0]["path"] == name
    before = Path("rows.csv").read_bytes()
    assert b"caf\xe9.png" in before
    assert run("score", name, "--model", model, "-o", "rows.csv", "--resume").code == 0
    assert Path("rows.csv").read_bytes() == before


def test_an_existing_file_is_replaced_only_by_a_whole_one(run, pictures: Path, model: Path, broken: Path) -> None:
    Path("rows.jsonl").write_text("what was there\n")
    arguments = ["score", pictures / "00.png", broken, "--model", model, "-o", "rows.jsonl"]
    done = run(*arguments, "--on-error", "fail")
    assert done.code == 2
    assert Path("rows.jsonl").read_text() == "what was there\n"
    assert "the rows so far are in rows.partial.jsonl; rows.jsonl was not touched" in done.err
    assert len(lines(Path("rows.partial.jsonl").read_text())) == 1
    assert run(*arguments).code == 1
    assert len(lines(Path("rows.jsonl").read_text())) == 2
    assert not Path("rows.partial.jsonl").exists()


def test_rows_reach_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with ResultFile(path) as target:
        target.write("a\n")
        assert path.read_text() == "a\n"
        target.write("b\n")
        assert path.read_text() == "a\nb\n"


def test_the_format_follows_the_ending(run, pictures: Path, model: Path) -> None:
    for name in ("r.json", "r.jsonl", "r.csv", "r.txt"):
        assert run("score", pictures / "00.png", "--model", model, "-o", name).code == 0
    assert isinstance(json.loads(Path("r.json").read_text()), list)
    assert lines(Path("r.jsonl").read_text())[0]["status"] == "ok"
    assert Path("r.csv").read_text().startswith("path,status,")
    assert Path("r.txt").read_text().split()[:3] == ["score", "±", "image"]


def test_an_empty_list_is_still_json() -> None:
    form = JsonList()
    assert json.loads(form.begin() + form.end()) == []


def test_the_table_shortens_paths_and_paints_on_request() -> None:
    row = {
        "path": "/a/very/long/directory/that/does/not/fit/name.png",
        "status": "ok",
        "score": 50.0,
        "std": 3.0,
        "warnings": [],
    }
    narrow = PeopleTable(50, colour=False).row(row)
    assert len(narrow.rstrip("\n")) == 50
    assert narrow.endswith("fit/name.png\n")
    assert "…" in narrow
    assert str(row["path"]) in PeopleTable(None, colour=False).row(row)
    assert "\x1b[33m" in PeopleTable(None, colour=True).row(row)
    assert PeopleTable(None, colour=False, unicode=False).row(row).isascii()
    bars = [PeopleTable(None, colour=False).row(row | {"score": float(s)}).count("█") for s in (0, 10, 55, 100)]
    assert bars == [0, 1, 5, 10]


def test_the_table_escapes_what_would_drive_a_terminal() -> None:
    row = {"path": "a\x1b[2J.png", "status": "error", "error": "a\x1b[2J.png does not exist", "warnings": []}
    assert "\x1b" not in PeopleTable(None, colour=False).row(row)


def test_a_row_without_calibration_shows_its_raw_score() -> None:
    row = {"path": "a.png", "status": "ok", "score": None, "raw": 0.1234, "std": None, "warnings": ["flat"]}
    assert PeopleTable(None, colour=False).row(row).split() == ["-", "raw", "0.123", "a.png", "[flat]"]


def test_an_interrupted_run_leaves_its_rows_and_goes_on(
    run, pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["score", pictures, "--model", model]
    run(*arguments, "-o", "whole.jsonl")
    with monkeypatch.context() as patch:
        real = QualityModel.score_many

        def interrupted(self, *args, **options):
            for index, row in enumerate(real(self, *args, **options)):
                if index == 5:
                    raise KeyboardInterrupt
                yield row

        patch.setattr(QualityModel, "score_many", interrupted)
        done = run(*arguments, "-o", "rows.jsonl")
    assert done.code == 130
    assert "the rows so far are in rows.jsonl; the same command with --resume goes on" in done.err
    assert done.err.endswith("error: interrupted\n")
    assert len(lines(Path("rows.jsonl").read_text())) == 5
    resumed = run(*arguments, "-o", "rows.jsonl", "--resume")
    assert resumed.code == 0
    assert "5 images are in rows.jsonl already" in resumed.err
    assert Path("rows.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_the_first_row_comes_before_the_last_image_is_named(
    run, pictures: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def named():
        for index in range(80):
            taken.append(index)
            yield f"{pictures / '00.png'}\n"

    monkeypatch.setattr(sys, "stdin", named())
    first: list[int] = []
    write = ResultFile.write

    def watched(self, text: str) -> None:
        if text.startswith("{") and not first:
            first.append(len(taken))
        write(self, text)

    monkeypatch.setattr(ResultFile, "write", watched)
    assert run("score", "-", "--model", model, "--format", "jsonl").code == 0
    assert len(taken) == 80
    assert first[0] < 40


def test_a_bar_is_drawn_for_rows_that_go_to_a_file(pictures: Path) -> None:
    screen = io.StringIO()
    terminal = Terminal(_console=Console(file=screen, force_terminal=True, width=120))
    rows = iter([{"path": "a"}, {"path": "b"}])

    def slow():
        for row in rows:
            time.sleep(0.15)  # long enough for the count, which runs beside
            yield row

    assert len(list(with_bar(terminal, slow(), [str(pictures)], 3, False))) == 2
    assert "scoring" in screen.getvalue()
    assert "5/24" in screen.getvalue()
