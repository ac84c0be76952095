from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iqakit.cli.score_report import rows_in_file


def table_of(path: str | Path) -> list[list]:
    """The cells of the page's table."""
    text = Path(path).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture
def album(pictures: Path) -> Path:
    """Twelve pictures and one that is broken, in the current directory."""
    Path("album").mkdir()
    for index in range(12):
        shutil.copy(pictures / f"{2 * index:02d}.png", f"album/{index:02d}.png")
    Path("album/05b.jpg").write_bytes(b"\xff\xd8\xff and no more")
    return Path("album")


def test_the_page_covers_every_image(run, album: Path, model: Path) -> None:
    done = run("score", album, "--model", model, "-o", "rows.jsonl", "--report", "report.html")
    assert done.code == 1  # the broken one
    assert "the report is in report.html" in done.err
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    table = table_of("report.html")
    assert len(table) == len(rows) == 13
    for cells, row in zip(table, rows, strict=True):
        if row["status"] == "error":
            assert row["error"].endswith(cells[2])
        else:
            assert cells[2] == pytest.approx(row["score"], abs=0.001)
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 12
    assert f"<code>{rows[0]['model']}</code>" in page


def test_the_rows_on_standard_output_stay_as_they_are(run, album: Path, model: Path) -> None:
    arguments = ["score", album, "--model", model, "--format", "jsonl"]
    plain = run(*arguments)
    assert run(*arguments, "--report", "report.html").out == plain.out
    assert Path("report.html").is_file()


def test_equal_runs_give_equal_pages(run, album: Path, model: Path) -> None:
    for name in ("a.html", "b.html"):
        run("score", album, "--model", model, "--report", name, "--workers", "0" if name == "a.html" else "2")
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_top_limits_the_rows_and_not_the_page(run, album: Path, model: Path) -> None:
    done = run("score", album, "--model", model, "--format", "jsonl", "--top", "3", "--report", "report.html")
    assert len(done.out.splitlines()) == 3
    assert len(table_of("report.html")) == 13


def test_min_is_marked_and_counted(run, album: Path, model: Path) -> None:
    run("score", album, "--model", model, "-o", "rows.jsonl")
    scores = [row["score"] for row in rows_in_file(Path("rows.jsonl")) if row["status"] == "ok"]
    limit = sorted(scores)[4]
    assert run("score", album, "--model", model, "--min", str(limit), "--report", "report.html").code == 1
    page = Path("report.html").read_text(encoding="utf-8")
    assert re.search(rf"<dt>below {limit:g}</dt><dd><b>4</b>", page)
    assert 'class="minimum"' in page


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_resumed_run_gives_the_page_of_an_uncut_one(run, album: Path, model: Path, form: str) -> None:
    arguments = ["score", album, "--model", model]
    run(*arguments, "-o", f"whole.{form}", "--report", "whole.html")
    rows = Path(f"whole.{form}").read_bytes()
    Path(f"cut.{form}").write_bytes(rows[: int(len(rows) * 0.6)])
    done = run(*arguments, "-o", f"cut.{form}", "--resume", "--report", "cut.html")
    assert done.code == 1
    assert Path("cut.html").read_bytes() == Path("whole.html").read_bytes()
    assert len(table_of("cut.html")) == 13


def test_a_run_that_ends_early_leaves_the_old_page(run, album: Path, model: Path) -> None:
    Path("report.html").write_text("old")
    done = run("score", album, "--model", model, "--on-error", "fail", "--report", "report.html")
    assert done.code == 2
    assert Path("report.html").read_text() == "old"
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["album", "report.html"]


def test_a_page_that_cannot_be_is_said_before_scoring(run, album: Path, model: Path) -> None:
    arguments = ["score", album, "--model", model, "-o", "rows.html", "--format", "jsonl", "--report"]
    for name, message in (
        ("album/00.png", "--report writes a web page; give it a name that ends in .html, not 'album/00.png'"),
        ("-", "--report writes a web page; give it a name that ends in .html, not '-'"),
        ("./rows.html", "--report and -o both name rows.html; give the page a file of its own"),
        (
            "absent/report.html",
            "could not write report absent/report.html: No such file or directory; create the directory",
        ),
    ):
        before = Path("album/00.png").read_bytes()
        done = run(*arguments, name)
        assert done.code == 2
        assert done.out == ""
        assert message in done.err
        assert done.err.count("\n") == 1
        assert not Path("rows.html").exists()
        assert Path("album/00.png").read_bytes() == before


def test_an_odd_name_reaches_the_page(run, pictures: Path, model: Path) -> None:
    name = b"caf\xe9, <b>.png".decode("utf-8", "surrogateescape")
    try:
        shutil.copy(pictures / "00.png", name)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text only")
    for form in ("jsonl", "csv"):
        assert run("score", name, "--model", model, "-o", f"r.{form}", "--report", "a.html").code == 0
        assert run("score", name, "--model", model, "-o", f"r.{form}", "--report", "b.html", "--resume").code == 0
        assert Path("a.html").read_bytes() == Path("b.html").read_bytes()
        assert table_of("a.html")[0][1] == name
        assert "caf\\u{dce9}, &lt;b&gt;.png" in Path("a.html").read_text(encoding="utf-8")


def test_nothing_of_it_is_loaded_unless_asked_for() -> None:
    code = (
        "import sys, iqakit.cli.app; print([name for name in ('jinja2', 'PIL', 'iqakit.reporting') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
