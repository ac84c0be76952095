"""What the page says of test-time adaptation, as a file and in headless Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqakit.reporting.html_report import write_report

Row = dict[str, Any]
CELLS = "[...document.querySelectorAll('#rows tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
MATCHES = "document.getElementById('matches').textContent"


def text_of(element: Any) -> str:
    return " ".join(element.text.split())


def test_the_summary_and_the_section_count_what_was_adapted(
    adapted_rows: list[Row], page_of: Callable[[Path], Any]
) -> None:
    write_report(adapted_rows, "r.html")
    page = page_of(Path("r.html"))
    scored = [row for row in adapted_rows if row["status"] == "ok"]
    adapted = [row for row in scored if row["adapted"]]
    moves = [row["score"] - row["source_score"] for row in adapted]
    facts = {next(fact.all("dt")).text: text_of(next(fact.all("dd"))) for fact in page.id("summary").all("div")}
    share = f"{100 * len(adapted) / len(scored):.1f} %"
    assert facts["adapted"] == f"{len(adapted)} {share}; {len(scored) - len(adapted)} keep the source's score"
    section = text_of(page.id("adaptation"))
    assert f"{len(adapted)} of {len(scored)} scored images have adapted scores" in section
    assert f"moved by {sum(moves) / len(moves):+.1f} on average, {min(moves):+.1f} to {max(moves):+.1f}." in section
    uniform = sum(row["adaptation"] == "uniform batch" for row in scored)
    others = len(scored) - len(adapted) - uniform
    listed = {text_of(item) for item in page.id("adaptation").all("li")}
    assert listed == {
        f"uniform batch {uniform} images",
        f"the mean moved by … deviations; at most … is believed {others} images",
    }
    assert [link.attributes["href"] for link in page.id("adaptation").all("a")] == ["#adapted=no"]


def test_a_reason_that_never_differs_keeps_its_figures(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    few = "no group loss: fewer than 4 images"
    rows = [row(f"{n}.png", 50.0 + n, source_score=50.0 + n, adapted=False, adaptation=few) for n in range(2)]
    write_report(rows, tmp_path / "r.html")
    section = text_of(page_of(tmp_path / "r.html").id("adaptation"))
    assert f"{few} 2 images" in section
    assert "0 of 2 scored images have adapted scores; 2 keep the source's score." in section
    one = row("a.png", 52.0, source_score=50.0, adapted=True, adaptation="adapted task day")
    write_report([one], tmp_path / "one.html")
    section = text_of(page_of(tmp_path / "one.html").id("adaptation"))
    assert "1 of 1 scored image has an adapted score; against the source's it moved by +2.0. 0 keep" in section


def test_sheets_and_table_hold_the_sources_score(adapted_rows: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(adapted_rows, "r.html", sheet=10)
    page = page_of(Path("r.html"))
    notes = json.loads(page.id("meta").text)["notes"]
    for cells, row in zip(json.loads(page.id("data").text), adapted_rows, strict=True):
        if row["status"] == "error":
            assert len(cells) == 3
            continue
        assert (cells[9], cells[11]) == (None, int(row["adapted"]))
        assert cells[10] == pytest.approx(row["source_score"], abs=0.001)
        assert notes[cells[12]] == row["adaptation"]
    best = sorted((row for row in adapted_rows if row["status"] == "ok"), key=lambda row: -row["score"])[:10]
    for item, row in zip(page.id("best").all("li"), best, strict=True):
        said = re.findall(r"source (\S+)", text_of(item))
        assert said == ([f"{row['source_score']:.1f}"] if row["adapted"] else [])


def test_pages_without_adaptation_say_nothing_of_it(album: list[Row]) -> None:
    write_report(album, "r.html")
    visible = Path("r.html").read_text(encoding="utf-8").partition('<script type="application/json"')[0]
    assert "adapt" not in re.sub(r"<style>.*?</style>", "", visible, flags=re.DOTALL)


def test_a_note_is_text_and_never_markup(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    bad = "<script>alert(1)</script> \u202efailed"
    write_report([row("a.png", 1.0, source_score=1.0, adapted=False, adaptation=bad)], tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    assert len([*page.all("script")]) == 3
    assert "<script>alert(1)</script> \\u{202e}failed 1 image" in text_of(page.id("adaptation"))


def test_without_calibration_the_sources_score_is_unknown(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    rows = [
        row(f"{n}.png", None, raw=0.1 * n, source_score=None, adapted=True, adaptation="adapted task day") for n in (1, 2)
    ]
    write_report(rows, tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    assert [cells[9:12] for cells in json.loads(page.id("data").text)] == [[0.1, None, 1], [0.2, None, 1]]
    assert "2 of 2 scored images have adapted scores; 0 keep" in text_of(page.id("adaptation"))


@pytest.mark.parametrize(("width", "height", "dark"), [(360, 740, False), (360, 740, True), (1440, 900, False)])
def test_it_fits_any_screen(browser: Any, adapted_rows: list[Row], width: int, height: int, dark: bool) -> None:
    write_report(adapted_rows, "r.html")
    browser.open(Path("r.html"), width=width, height=height, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    outside = browser.value(
        "[...document.querySelectorAll('body *:not(.skip)')]"
        ".filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('thead')).length"
    )
    assert outside == 0
    assert browser.complaints() == []


def test_the_table_tells_filters_and_sorts(browser: Any, adapted_rows: list[Row]) -> None:
    write_report(adapted_rows, "r.html")
    browser.open(Path("r.html"), "#adapted=no")
    kept = [row for row in adapted_rows if row["status"] == "ok" and not row["adapted"]]
    assert browser.value(MATCHES) == f"1–{min(50, len(kept))} of {len(kept)} that match; 132 in the table"
    for cells, row in zip(browser.value(CELLS), kept, strict=False):
        assert cells[2] == f"{row['source_score']:.1f}"
        assert cells[-2] == f"not adapted {row['adaptation']}"
    browser.go("#adapted=yes&sort=move&order=desc")
    adapted = [row for row in adapted_rows if row["adapted"]]
    largest = max(row["score"] - row["source_score"] for row in adapted)
    first = browser.value(CELLS)[0]
    assert first[2].endswith(f" +{largest:.1f}")
    assert first[-2] == "adapted task day"
    browser.go("#sort=source")
    lowest = min(row["source_score"] for row in adapted_rows if row["status"] == "ok")
    assert browser.value(CELLS)[0][2].startswith(f"{lowest:.1f}")
    browser.go("#status=failed")
    assert [cells[1].startswith("failed") for cells in browser.value(CELLS)] == [True, True]
    columns = browser.value("document.querySelectorAll('#rows thead th').length")
    spans = browser.value("[...document.querySelectorAll('#rows .reason')].map(cell => cell.colSpan + 1)")
    assert spans == [columns, columns]
