from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from iqakit.datasets.public import PUBLIC_SETS
from iqakit.errors import DataError

ENTRIES = {entry.name: entry for entry in PUBLIC_SETS}
each_set = pytest.mark.parametrize("name", sorted(ENTRIES))


def message(name: str, root: Path, split: str = "all") -> str:
    with pytest.raises(DataError) as caught:
        ENTRIES[name].open(root, split, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@each_set
def test_an_empty_directory_names_the_file_expected(name: str, tmp_path: Path) -> None:
    text = message(name, tmp_path)
    assert text.startswith(f"{tmp_path} is not {ENTRIES[name].facts.title} as handed out: there is no ")
    assert text.endswith("; found nothing")


@each_set
def test_another_sets_directory_is_recognised_as_that(name: str, miniatures: dict[str, Any]) -> None:
    other = "spaq" if name == "koniq10k" else "koniq10k"
    text = message(name, miniatures[other].root)
    assert text.endswith(f"; it looks like {other}")


@each_set
def test_the_directory_above_leads_to_the_right_one(name: str, miniatures: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "unpacked").symlink_to(miniatures[name].root, target_is_directory=True)
    text = message(name, tmp_path)
    assert "found notes.txt, unpacked" in text
    assert text.endswith(f"give {tmp_path / 'unpacked'}, which has it")


@each_set
def test_a_file_or_nothing_is_no_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert message(name, tmp_path / "f").endswith(f"a file is at {tmp_path / 'f'}")
    assert message(name, tmp_path / "none").endswith(f"nothing is at {tmp_path / 'none'}")


@each_set
def test_scores_without_any_image_are_refused(name: str, build_miniature: Any) -> None:
    mini = build_miniature(name)
    for path in mini.root.rglob("*"):
        if path.suffix.lower() in (".png", ".jpg", ".bmp"):
            path.unlink()
    text = message(name, mini.root)
    assert f"none of the {len(mini.scores)} images of {name} that {mini.root}" in text
    assert text.endswith("; unpack the images too")


@each_set
def test_a_score_file_of_another_kind_is_refused(name: str, build_miniature: Any) -> None:
    mini = build_miniature(name)
    mini.score_file.write_bytes(b"PK\x03\x04 this is no score file \x00\x01\x02")
    assert str(mini.score_file) in message(name, mini.root)


@each_set
def test_a_score_file_cut_short_is_refused(name: str, build_miniature: Any) -> None:
    mini = build_miniature(name)
    data = mini.score_file.read_bytes()
    if mini.score_file.suffix == ".csv":
        data = data.rstrip().rsplit(b",", 1)[0]
    elif mini.score_file.suffix == ".txt":
        data = data.rstrip().replace(b",", b" ").rsplit(b" ", 1)[0]
    else:
        data = data[: len(data) // 2]
    mini.score_file.write_bytes(data)
    text = message(name, mini.root)
    assert str(mini.score_file) in text or str(mini.root) in text


CSV_COLUMNS = [
    ("kadid10k", "dmos", "no column 'dmos'"),
    ("kadid10k", "var", "no column 'var'"),
    ("koniq10k", "MOS", "no column 'MOS'"),
    ("koniq10k", "set", "no column 'set'"),
    ("live-fb", "name", "no column 'name'"),
    ("biq2021", "Image Name", "no column 'Image Name'"),
    ("agiqa3k", "mos_quality", "no column 'mos_quality'"),
    ("piq23", "JOD STD", "no column 'JOD STD'"),
    ("uhd-iqa", "quality_mos", "no column 'quality_mos'"),
]


@pytest.mark.parametrize(("name", "column", "expected"), CSV_COLUMNS)
def test_a_missing_column_is_named(name: str, column: str, expected: str, build_miniature: Any) -> None:
    mini = build_miniature(name)
    header, _, rest = mini.score_file.read_text().partition("\n")
    changed = ",".join("other" if cell.strip() == column else cell for cell in header.split(","))
    mini.score_file.write_text(changed + "\n" + rest)
    text = message(name, mini.root)
    assert expected in text
    assert "'other'" in text


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("csiq", "dst_lev", "no row that names the columns 'image', 'dst_type', 'dst_lev', 'dmos_std', 'dmos'"),
        ("bid", "std", "no row that names the columns 'Image Number', 'Average Subjective Grade', 'std'"),
        ("spaq", "MOS", "no row that names the columns 'Image name', 'MOS'"),
        ("cid2013", "Realigned MOS", "no row that names the columns 'Source_ID', 'Realigned MOS'"),
    ],
)
def test_a_missing_column_of_a_workbook_is_named(name: str, column: str, expected: str, build_miniature: Any) -> None:
    import openpyxl

    mini = build_miniature(name)
    book = openpyxl.load_workbook(mini.score_file)
    for sheet in book.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.value == column:
                    cell.value = "other"
    book.save(mini.score_file)
    assert expected in message(name, mini.root)


@pytest.mark.parametrize(
    ("name", "variable"), [("live", "dmos_new"), ("live-md", "DMOSscores"), ("clive", "AllMOS_release")]
)
def test_a_missing_variable_is_named(name: str, variable: str, build_miniature: Any) -> None:
    from scipy.io import savemat

    mini = build_miniature(name)
    savemat(mini.score_file, {"other": [1.0]})
    assert message(name, mini.root) == f"{mini.score_file} has no variable {variable}; it has other" or name == "live"
    if name == "live":
        assert message(name, mini.root).endswith("has no variable dmos_new, orgs, dmos_std; it has other")


def test_lists_of_unequal_length_do_not_belong_together(build_miniature: Any) -> None:
    import numpy as np
    from scipy.io import savemat

    mini = build_miniature("clive")
    savemat(mini.score_file, {"AllMOS_release": np.ones((1, 20))})
    assert "do not belong together: AllImages has 37, AllMOS has 20, AllStdDev has 37 entries" in message(
        "clive", mini.root
    )
    tid = build_miniature("tid2013")
    spreads = tid.root / "mos_std.txt"
    spreads.write_text("".join(spreads.read_text().splitlines(keepends=True)[:9]))
    assert "mos_with_names.txt has 150, mos_std.txt has 9 entries" in message("tid2013", tid.root)


def test_tid_2008_and_2013_are_told_apart(miniatures: dict[str, Any]) -> None:
    assert message("tid2008", miniatures["tid2013"].root).endswith(
        "it has 5 levels of distortion, not 4; it looks like tid2013"
    )
    assert message("tid2013", miniatures["tid2008"].root).endswith(
        "it has 4 levels of distortion, not 5; it looks like tid2008"
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("koniq10k", ",test", ",tests", "'tests' under 'set'; it must be one of training, validation, test"),
        ("uhd-iqa", ",validation,", ",valid,", "'valid' under 'set'; it must be one of training, validation, test"),
        ("tid2013", "i02_01_1.bmp", "swan.bmp", "names 'swan.bmp'; names must be like i01_01_1.bmp"),
        ("kadid10k", "I01_01_02.png", "I01_01_01.png", "has the image 'I01_01_01.png' twice; each image must have one row"),
        ("kadid10k", "4.25", "good", "row 2 has 'good' under 'dmos', which is not a number"),
        ("kadid10k", "I01_01_01.png", "../../secret.png", "is not a path inside the set's directory"),
        ("piq23", "Overall\\0_", "/etc/0_", "is not a path inside the set's directory"),
        ("pipal", "A0001_00_00.bmp,", "A0001_00_00.bmp;", "line 1 has 1 fields instead of 2"),
    ],
)
def test_odd_values_are_named(name: str, old: str, new: str, expected: str, build_miniature: Any) -> None:
    mini = build_miniature(name)
    text = mini.score_file.read_text()
    assert old in text
    mini.score_file.write_text(text.replace(old, new))
    assert expected in message(name, mini.root)


def test_marks_of_validation_must_be_true_or_false(build_miniature: Any) -> None:
    mini = build_miniature("live-fb")
    padded = mini.root / "labels=640_padded.csv"
    padded.write_text(padded.read_text().replace("True", "perhaps"))
    assert "'perhaps' under 'is_valid'; it must be True or False" in message("live-fb", mini.root)


def test_live_fb_needs_the_files_of_its_official_split(build_miniature: Any) -> None:
    mini = build_miniature("live-fb")
    (mini.root / "labels640.csv").unlink()
    assert "there is no labels>640.csv or database/labels>640.csv or labels640.csv" in message("live-fb", mini.root)


def test_koniq_without_the_official_split_says_where_it_is(build_miniature: Any) -> None:
    mini = build_miniature("koniq10k")
    mini.score_file.rename(mini.root / "koniq10k_scores_and_distributions.csv")
    assert "there is no koniq10k_distributions_sets.csv" in message("koniq10k", mini.root)


def test_a_split_that_would_be_empty_is_an_error(build_miniature: Any) -> None:
    mini = build_miniature("kadid10k")
    lines = mini.score_file.read_text().splitlines()
    mini.score_file.write_text("\n".join(lines[:6]))
    assert message("kadid10k", mini.root, "test").startswith("split 'test' of kadid10k has no images")


def test_a_set_may_be_moved_to_another_place(miniatures: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(miniatures["csiq"].root, tmp_path / "with blank")
    moved = ENTRIES["csiq"].open(tmp_path / "with blank", "test", 5)
    same = ENTRIES["csiq"].open(miniatures["csiq"].root, "test", 5)
    assert [moved.sample(i) for i in range(len(moved))] == [same.sample(i) for i in range(len(same))]
