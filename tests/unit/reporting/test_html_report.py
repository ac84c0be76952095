"""The page as a file: what it holds, that it is safe, whole and repeatable."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iqakit.errors import ConfigurationError, DataError, StorageError
from iqakit.pipeline.rows import ScoreRow
from iqakit.reporting import html_report, row_collection
from iqakit.reporting.html_report import ReportWriter, visible, write_report

Row = dict[str, Any]
NASTY = "<img src=x onerror=alert(1)>\"&'.png"


def table_of(page: Any) -> list[Row]:
    """The table's rows, read as the script reads them."""
    meta = json.loads(page.id("meta").text)
    before, found = "", []
    for cells in json.loads(page.id("data").text):
        before = before.encode("utf-16-le", "surrogatepass")[: 2 * cells[0]].decode("utf-16-le", "surrogatepass") + cells[1]
        if len(cells) == 3:
            found.append({"path": before, "error": cells[2]})
            continue
        names = ("score", "std", "novelty", "width", "height")
        found.append({"path": before, **dict(zip(names, cells[2:7], strict=True))})
        found[-1]["warnings"] = [meta["warnings"][number] for number in cells[7]]
        found[-1]["weights"] = dict(zip(meta["tasks"], cells[8], strict=False))
    return found


def facts_of(page: Any) -> dict[str, str]:
    return {
        next(fact.all("dt")).text: " ".join(next(fact.all("dd")).text.split()) for fact in page.id("summary").all("div")
    }


def test_the_summary_counts_and_sums_up(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html", minimum=30)
    facts = facts_of(page_of(Path("r.html")))
    scores = np.array([row["score"] for row in album if row["status"] == "ok"])
    low, first, median, third, high = np.quantile(scores, (0.05, 0.25, 0.5, 0.75, 0.95))
    assert facts == {
        "images": "132 2 failed",
        "mean score": f"{scores.mean():.1f} {scores.min():.1f} to {scores.max():.1f}",
        "median": f"{median:.1f} half are between {first:.1f} and {third:.1f}",
        "worst 5 % are below": f"{low:.1f} best 5 % above {high:.1f}",
        "below 30": f"{(scores < 30).sum()} {100 * (scores < 30).mean():.1f} %",
        "novel": f"4 {400 / 130:.1f} %; 5 % are usual",
        "with warnings": "14 2 kinds",
    }


def test_the_histogram_holds_every_scored_image_once(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    figure = page_of(Path("r.html")).id("distribution")
    cells = [[cell.text for cell in line.all("td")] for line in figure.all("tr")][1:]
    scores = [row["score"] for row in album if row["status"] == "ok"]
    for low, high, count in cells:
        assert int(count) == sum(float(low) <= score < float(high) for score in scores)
    assert sum(int(count) for *_, count in cells) == 130
    assert "Histogram of 130 images from 0 to 100" in figure.id("histogram-text").text


def test_the_contact_sheets_hold_the_right_images_in_order(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html", sheet=10)
    page = page_of(Path("r.html"))
    scored = sorted((row for row in album if row["status"] == "ok"), key=lambda row: row["score"])
    for name, expected in (("best", scored[::-1][:10]), ("worst", scored[:10])):
        found = [" ".join(item.text.split()) for item in page.id(name).all("li")]
        for text, row in zip(found, expected, strict=True):
            assert text.startswith(f"{row['score']:.1f} ± {row['std']:.1f}")
            assert row["path"].removeprefix("shots/") in text
    novel = [bdi.text for bdi in page.id("novel").all("bdi")]
    assert novel == ["shot003.png", "shot043.png", "shot083.png", "shot123.png"]


def test_thumbnails_are_small_pictures_of_the_images(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    write_report([row(str(tmp_path / "noise.png"), 50.0), row("absent.png", 40.0)], tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    (picture,) = page.id("best").all("img")
    head, _, data = str(picture.attributes["src"]).partition(",")
    assert head == "data:image/jpeg;base64"
    assert len(base64.b64decode(data)) <= html_report.THUMBNAIL_BYTES
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (str(shown.width), str(shown.height)) == (picture.attributes["width"], picture.attributes["height"])
    assert max(shown.size) <= html_report.THUMBNAIL_SIDE
    assert picture.attributes["alt"] == "noise.png"
    assert "no preview" in page.id("worst").text


def test_links_lead_to_the_images_from_where_the_page_is(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    Path("out").mkdir()
    write_report(album, "out/r.html", sheet=200)
    page = page_of(Path("out/r.html"))
    links = [str(link.attributes["href"]) for name in ("best", "worst") for link in page.id(name).all("a")]
    assert len(links) == 130
    assert "./../shots/shot001.png" in links
    assert "./../shots/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%22%26%27.png" in links
    assert all(re.fullmatch(r"[\w./%~-]+", link) for link in links)


def test_names_are_text_and_never_markup(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html", title="<b>Tom & Ann</b>", date="<i>today</i>", sheet=200)
    page = page_of(Path("r.html"))
    assert [heading.text for heading in page.all("h1")] == ["<b>Tom & Ann</b>"]
    assert "<i>today</i>" in page.text
    assert not next(iter(page.all("b"))).text.startswith("Tom")
    assert len([*page.all("script")]) == 3
    assert not [*page.all("i")]
    assert not [image for image in page.all("img") if not str(image.attributes["src"]).startswith("data:")]
    handlers = [name for element in page.everything() for name in element.attributes if name.startswith("on")]
    assert handlers == []
    assert NASTY in [bdi.text for bdi in page.all("bdi")]
    assert "shots/<script>alert(1)</script>.jpg" in page.id("failed").text
    assert b"<script>alert" not in Path("r.html").read_bytes()


def test_failed_images_come_with_their_reasons(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    failed = [" ".join(item.text.split()) for item in page_of(Path("r.html")).id("failed").all("li")]
    assert failed == [
        "shots/<script>alert(1)</script>.jpg failed is a truncated JPEG: copy it again",
        "gone.png failed does not exist",
    ]


def test_many_failures_are_cut_and_say_where_the_rest_is(
    tmp_path: Path, page_of: Callable[[Path], Any], failure: Any
) -> None:
    write_report((failure(f"{index}.png", "is gone") for index in range(250)), tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    assert len([*page.id("failed").all("li")]) == row_collection.FAILED_LIMIT
    assert "250 images have no score. The first 100; all of them are in the table." in page.id("failed").text
    assert [link.attributes["href"] for link in page.id("failed").all("a")] == ["#status=failed"]
    assert len(table_of(page)) == 250
    assert not any(element.attributes.get("id") == "best" for element in page.everything())


def test_warnings_are_counted(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    listed = page_of(Path("r.html")).id("warnings")
    assert [" ".join(item.text.split()) for item in listed.all("li")] == ["exif-rotated 14", "icc-converted 1"]
    assert [link.attributes["href"] for link in listed.all("a")] == ["#warning=exif-rotated", "#warning=icc-converted"]


def test_the_table_holds_every_row_in_order(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    for found, row in zip(table_of(page_of(Path("r.html"))), album, strict=True):
        assert found["path"] == row["path"]
        if row["status"] == "error":
            assert row["error"] == f"{row['path']} {found['error']}"
            continue
        for name in ("score", "std", "novelty"):
            assert found[name] == pytest.approx(row[name], abs=0.005)
        assert (found["width"], found["height"], found["warnings"]) == (64, 48, row["warnings"])
        assert found["weights"] == pytest.approx(row["weights"], abs=0.0005)


def test_a_path_that_is_no_text_stays_what_it_is(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    odd = b"caf\xe9\n.png".decode("utf-8", "surrogateescape")
    write_report([row("caf" + odd[3], 1.0), row(odd, 2.0), row("\u202egpj.exe", 3.0)], tmp_path / "r.html")
    page = page_of(tmp_path / "r.html")
    assert [found["path"] for found in table_of(page)] == ["caf\udce9", "caf\udce9\n.png", "\u202egpj.exe"]
    assert "caf\\u{dce9}\\u{a}.png" in page.id("best").text
    assert visible("\u202egpj.exe") == "\\u{202e}gpj.exe"


def test_equal_rows_give_equal_bytes(album: list[Row]) -> None:
    write_report(album, "a.html")
    write_report(iter(album), "b.html")
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_rows_as_objects_give_the_same_page(album: list[Row]) -> None:
    names = set(ScoreRow.__dataclass_fields__)
    objects = [ScoreRow(**{key: value for key, value in row.items() if key in names}) for row in album]
    write_report(album, "a.html")
    write_report(objects, "b.html")
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_nothing_is_loaded_from_anywhere(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    text = Path("r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:", text)
    assert "@import" not in text
    page = page_of(Path("r.html"))
    for element in page.everything():
        source = element.attributes.get("src")
        assert source is None or source.startswith("data:")
        assert "style" not in element.attributes  # the policy would block it
    policy = next(str(meta.attributes["content"]) for meta in page.all("meta") if "http-equiv" in meta.attributes)
    assert "default-src 'none'" in policy
    script, style = [*page.all("script")][-1].text, next(page.all("style")).text
    for kind, part in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy


def test_every_control_has_a_name_and_every_id_is_one_of_a_kind(album: list[Row], page_of: Callable[[Path], Any]) -> None:
    write_report(album, "r.html")
    page = page_of(Path("r.html"))
    identities = [element.attributes["id"] for element in page.everything() if "id" in element.attributes]
    assert len(identities) == len(set(identities))
    labelled = {id(control) for label in page.all("label") for kind in ("input", "select") for control in label.all(kind)}
    controls = [control for kind in ("input", "select") for control in page.all(kind)]
    assert len(controls) == 11
    assert all(id(control) in labelled for control in controls)
    for element in page.everything():
        for name in ("aria-labelledby", "href"):
            value = str(element.attributes.get(name) or "")
            if name == "href" and (not value.startswith("#") or "=" in value):
                continue
            if value:
                assert value.removeprefix("#") in identities


def test_a_model_without_calibration_is_shown_by_its_raw_output(
    tmp_path: Path, page_of: Callable[[Path], Any], row: Any
) -> None:
    rows = [row(f"{index}.png", None, raw=0.01 * index, std=None, novelty=None) for index in range(20)]
    write_report(rows, tmp_path / "r.html", minimum=30)
    page = page_of(tmp_path / "r.html")
    assert facts_of(page)["mean raw output"] == "0.095 0.000 to 0.190"
    assert "below 30" not in facts_of(page)
    assert "0.190" in page.id("best").text
    assert "This model has no calibration" in page.id("meaning").text
    assert json.loads(page.id("data").text)[19][9] == 0.19


def test_one_image_and_no_image(tmp_path: Path, page_of: Callable[[Path], Any], row: Any) -> None:
    write_report([row("a.png", 50.0)], tmp_path / "one.html")
    one = page_of(tmp_path / "one.html")
    assert facts_of(one)["images"] == "1 all scored"
    assert len([*one.id("best").all("li")]) == 1
    assert not any(element.attributes.get("id") == "worst" for element in one.everything())
    write_report([], tmp_path / "none.html")
    none = page_of(tmp_path / "none.html")
    assert facts_of(none) == {"images": "0", "with warnings": "0"}
    assert table_of(none) == []


def test_the_table_ends_at_its_limit_and_says_so(
    tmp_path: Path, page_of: Callable[[Path], Any], row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_collection, "TABLE_LIMIT", 30)
    monkeypatch.setattr(html_report, "TABLE_LIMIT", 30)
    write_report((row(f"{index}.png", index) for index in range(50)), tmp_path / "r.html", sheet=1)
    page = page_of(tmp_path / "r.html")
    assert len(table_of(page)) == 30
    assert "The table holds the first 30 of 50 images" in page.id("images").text
    assert facts_of(page)["images"] == "50 all scored"
    assert "49.png" in page.id("best").text


def test_an_old_page_stays_until_the_new_one_is_whole(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    with ReportWriter(path) as writer:
        writer.add(row("a.png", 1.0))
    assert path.read_text() == "old"
    with pytest.raises(DataError, match="row 2 for the report has no path and status; give rows as iqakit score writes"):
        write_report([row("a.png", 1.0), {"score": 3}], path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["r.html"]


def test_a_place_that_cannot_be_written_is_said_before_any_row(tmp_path: Path) -> None:
    def rows() -> Any:
        raise AssertionError("asked for a row")
        yield

    with pytest.raises(StorageError, match=r"could not write report .*r\.html: No such file.*; create the directory first"):
        write_report(rows(), tmp_path / "absent" / "r.html")
    (tmp_path / "d.html").mkdir()
    with pytest.raises(StorageError, match="Is a directory; choose a file name, not a directory"):
        write_report(rows(), tmp_path / "d.html")


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"give it a name that ends in \.html, not 'r\.pdf'"):
        write_report([], "r.pdf")
    with pytest.raises(ConfigurationError, match="sheet is -1; a contact sheet holds 0 or more"):
        write_report([], tmp_path / "r.html", sheet=-1)
