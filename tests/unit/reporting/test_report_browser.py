"""The page in headless Chromium: what people see and can do. Skipped where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iqakit.reporting.html_report import write_report

Row = dict[str, Any]
SIZES = [(360, 740), (1440, 900)]
SHOWN = "[...document.querySelectorAll('#rows tbody tr')].map(row => row.querySelector('td').textContent)"
MATCHES = "document.getElementById('matches').textContent"


@pytest.fixture(scope="session")
def page(shots: tuple[Path, list[Row]]) -> Path:
    path = shots[0] / "r.html"
    write_report(shots[1], path, minimum=30, link_from=shots[0])
    return path


@pytest.fixture(scope="session")
def rows(shots: tuple[Path, list[Row]]) -> list[Row]:
    return shots[1]


def names(browser: Any) -> list[str]:
    """File names in the table as it stands."""
    return [re.sub(r"(shots/)?$", "", text) for text in browser.value(SHOWN)]


def scores(browser: Any) -> list[float]:
    return [float(text) for text in browser.value("[...document.querySelectorAll('#rows td b')].map(b => b.textContent)")]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_any_screen_and_complains_of_nothing(browser: Any, page: Path, width: int, height: int, dark: bool) -> None:
    browser.open(page, width=width, height=height, dark=dark)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    outside = browser.value(
        "[...document.querySelectorAll('body *:not(.skip)')]"
        ".filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('thead')).length"
    )
    assert outside == 0
    assert browser.value("document.images.length") > 30
    browser.until("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert len(browser.value(SHOWN)) == 50
    assert browser.complaints() == []


def test_controls_are_large_enough_for_a_thumb(browser: Any, page: Path) -> None:
    browser.open(page, width=360, height=740)
    heights = browser.value(
        "[...document.querySelectorAll('form input, form select, form button, .pages button')].map(one => one.offsetHeight)"
    )
    assert len(heights) == 13
    assert min(heights) >= 40


def test_nothing_in_a_name_runs(browser: Any, page: Path) -> None:
    browser.open(page, "#status=failed")
    assert names(browser) == ["script>.jpgshots/<script>alert(1)</", "gone.png"]
    browser.go("#q=onerror")
    assert names(browser) == ["<img src=x onerror=alert(1)>\"&'.png"]
    assert browser.value("document.querySelectorAll('script').length") == 3
    assert browser.value("[...document.images].every(image => image.src.startsWith('data:'))")
    assert not [event for event in browser.events if event.get("method") == "Page.javascriptDialogOpening"]


def test_a_link_presets_filter_and_sort(browser: Any, page: Path, rows: list[Row]) -> None:
    browser.open(page, "#min=40&max=60&sort=score&order=desc")
    expected = sorted((row["score"] for row in rows if row["score"] is not None and 40 <= row["score"] <= 60), reverse=True)
    assert browser.value(MATCHES) == f"1–{len(expected)} of {len(expected)} that match; 132 in the table"
    assert scores(browser) == expected
    assert browser.value("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"
    assert browser.value("document.querySelector('#filters [name=min]').value") == "40"
    browser.until("document.getElementById('images').getBoundingClientRect().top < 300")


@pytest.mark.parametrize(
    ("fragment", "keep"),
    [
        ("#q=SHOT01", lambda row: "shot01" in row["path"]),
        ("#warning=icc-converted", lambda row: "icc-converted" in row.get("warnings", ())),
        ("#warning=*", lambda row: row.get("warnings")),
        ("#warning=-", lambda row: row.get("warnings") == []),
        ("#task=night&weight=80", lambda row: row.get("weights", {}).get("night", 0) >= 0.8),
        ("#task=day", lambda row: row.get("weights", {}).get("day", 0) >= 0.5),
        ("#novelty=0.9", lambda row: row.get("novelty", 0) >= 0.9),
        ("#status=scored", lambda row: row["status"] == "ok"),
        ("#q=%F0%9F%99%82", lambda row: "🙂" in row["path"]),
        ("#q=nothing-like-it", lambda row: False),
        ("#min=many&sort=unknown&page=many", lambda row: True),
    ],
)
def test_each_filter_keeps_what_it_says(
    browser: Any, page: Path, rows: list[Row], fragment: str, keep: Callable[[Row], Any]
) -> None:
    if browser.value("location.pathname") != page.as_posix() or browser.value("innerWidth") != 1440:
        browser.open(page)
    browser.go(fragment)
    kept = [row["path"] for row in rows if keep(row)]
    found = re.search(r"of (\d+) (that match|images)|No image matches", browser.value(MATCHES))
    assert found
    assert int(found[1] or 0) == len(kept)
    for text, path in zip(browser.value(SHOWN), kept, strict=False):
        assert path.rpartition("/")[2] in text
    assert browser.complaints() == []


def test_sorting_puts_what_has_no_figure_last(browser: Any, page: Path, rows: list[Row]) -> None:
    browser.open(page)
    for order, sign in (("", 1), ("desc", -1)):
        browser.go(f"#sort=std&order={order}&page=3")
        ranked = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: sign * row["std"])
        ranked += [row for row in rows if row["status"] == "error"]
        assert [text.count("png") + text.count("jpg") for text in browser.value(SHOWN)] == [1] * 32
        for text, row in zip(browser.value(SHOWN), ranked[100:], strict=True):
            assert text.startswith(row["path"].rpartition("/")[2])
    browser.go("#sort=weight:night&order=desc")
    assert [int(name[4:7]) % 13 for name in names(browser)[:8]] == [0] * 8
    browser.go("#sort=name")
    assert names(browser)[0] == "gone.png"


def test_typing_filters_and_the_address_remembers(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.value("document.querySelector('#filters [name=q]').focus()")
    for letter in "shot12":
        browser.press(letter, ord(letter.upper()), letter)
    browser.until("location.hash == '#q=shot12'")
    assert names(browser) == [f"shot12{digit}.png" for digit in range(10)]
    browser.value("document.querySelector('#filters [type=reset]').click()")
    browser.until("document.querySelectorAll('#rows tbody tr').length == 50")
    assert browser.value("location.hash") == "#images"


def test_the_keyboard_alone_sorts_and_turns_pages(browser: Any, page: Path, rows: list[Row]) -> None:
    browser.open(page)
    ranked = sorted(row["score"] for row in rows if row["score"] is not None)
    browser.value("document.querySelector('th[data-sort=score] button').focus()")
    browser.press("Enter", 13, "\r")
    assert scores(browser) == ranked[:50]
    browser.press("Enter", 13, "\r")
    assert scores(browser) == ranked[::-1][:50]
    browser.value("document.getElementById('after').focus()")
    browser.press("Enter", 13, "\r")
    assert scores(browser) == ranked[::-1][50:100]
    assert browser.value("location.hash") == "#sort=score&order=desc&page=2"
    assert browser.value("document.getElementById('page').textContent") == "page 2 of 3"
    browser.press("Enter", 13, "\r")
    assert browser.value("document.getElementById('after').disabled")


def test_the_first_tab_offers_to_skip_to_the_table(browser: Any, page: Path) -> None:
    browser.open(page)
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.textContent") == "Skip to the table of images"
    assert browser.value("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter", 13, "\r")
    browser.until("document.activeElement.id == 'images'")


def test_a_bar_and_a_warning_lead_to_their_images(browser: Any, page: Path, rows: list[Row]) -> None:
    browser.open(page)
    browser.value("document.querySelector('.histogram > svg a').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    browser.until("location.hash.startsWith('#min=20')")
    expected = sum(20 <= row["score"] < 22 for row in rows if row["score"] is not None)
    browser.until(f"document.querySelectorAll('#rows tbody tr').length == {expected}")
    browser.value("document.querySelector('#warnings a').click()")
    browser.until("document.querySelectorAll('#rows tbody tr').length == 14")


def test_links_in_the_table_lead_to_the_files(browser: Any, page: Path) -> None:
    browser.open(page)
    for search in ("onerror", "script", "山"):
        browser.go(f"#q={search}")
        link = browser.value("document.querySelector('#rows td a').href")
        root = page.parent.as_uri()
        assert link.startswith(f"{root}/shots/"), link
    target = browser.value("decodeURIComponent(new URL(document.querySelector('#rows td a').href).pathname)")
    assert Path(target).is_file()


def test_the_switch_wins_over_the_system(browser: Any, page: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    light = browser.value(background)
    browser.open(page, dark=True)
    dark = browser.value(background)
    assert light != dark
    browser.value(
        "{ const theme = document.getElementById('theme'); theme.value = 'light';"
        " theme.dispatchEvent(new Event('change')) }"
    )
    assert browser.value(background) == light
    assert browser.value("location.hash") == "#theme=light"
    browser.open(page, "#theme=dark")
    assert browser.value(background) == dark
    browser.media("print")
    assert browser.value("getComputedStyle(document.documentElement).getPropertyValue('--text')") == "#17212b"
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_colours_have_the_contrast_that_wcag_asks_for(browser: Any, page: Path, dark: bool) -> None:
    browser.open(page, dark=dark)
    code = (
        "{ const all = getComputedStyle(document.documentElement); JSON.stringify(Object.fromEntries("
        "['page','surface','raised','control','text','muted','link','bar','half','median','low','bad','bad-text','chip',"
        "'chip-text','focus'].map(name => [name, all.getPropertyValue('--' + name)]))) }"
    )
    colours = json.loads(browser.value(code))

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for text in ("text", "muted", "link"):
        for ground in ("page", "surface", "raised"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast("bad-text", "bad") >= 4.5
    assert contrast("chip-text", "chip") >= 4.5
    for mark in ("bar", "control", "low", "median", "focus"):
        assert contrast(mark, "surface") >= 3, mark
    for mark in ("median", "low", "bar"):
        assert contrast(mark, "half") >= 3, mark


def test_on_a_phone_a_sheet_begins_short_and_opens(browser: Any, page: Path) -> None:
    shown = "[...document.querySelectorAll('#best li')].filter(item => item.offsetHeight).length"
    browser.open(page, width=360, height=740)
    assert browser.value(shown) == 8
    browser.value("document.querySelector('#best .more').click()")
    assert browser.value(shown) == 24
    browser.open(page)
    assert browser.value(shown) == 24


@pytest.mark.slow
def test_a_hundred_thousand_images_stay_usable(browser: Any, tmp_path: Path, row: Callable[..., Row]) -> None:
    path = tmp_path / "many.html"
    write_report(
        (row(f"shots/{index // 1000:03d}/IMG_{index:06d}.jpg", index % 997 / 10) for index in range(100_000)), path, sheet=0
    )
    assert path.stat().st_size < 12_000_000
    browser.open(path, "#q=9999&sort=score&order=desc")
    assert browser.value(MATCHES) == "1–19 of 19 that match; 100,000 in the table"
    assert scores(browser) == sorted(scores(browser), reverse=True)
    assert browser.value("document.querySelectorAll('*').length") < 2000
