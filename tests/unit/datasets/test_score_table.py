from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.contracts import Dataset
from iqakit.datasets.score_table import clean_name, open_score_table, split_names, table_name
from iqakit.datasets.splits import split_by_content
from iqakit.datasets.table_rows import read_rows
from iqakit.errors import ConfigurationError, DataError, ImageError

SHARED = Path(__file__).parents[4] / "shared" / "data"
PNG = bytes.fromhex(  # one black pixel, written with zlib and struct
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


def write(folder: Path, text: str | bytes, name: str = "scores.csv", images: str = "abcdefghij") -> Path:
    for letter in images:
        (folder / f"{letter}.png").write_bytes(PNG)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(rows: str, header: str = "image,mos") -> str:
    return header + "\n" + "".join(row + "\n" for row in rows.split())


TEN = table("a.png,1 b.png,2 c.png,3 d.png,4 e.png,5 f.png,6 g.png,7 h.png,8 i.png,9 j.png,10")


def scores(dataset: Dataset) -> dict[str, float]:
    return {dataset.sample(i).name: dataset.sample(i).score for i in range(len(dataset))}


def test_a_table_without_splits_is_split_by_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path, TEN)
    names = [f"{c}.png" for c in "abcdefghij"]
    for seed in (0, 3):
        expected = split_by_content(names, seed)
        for split in ("train", "val", "test"):
            dataset = open_score_table(path, split, seed)
            want = {n: i + 1.0 for i, (n, s) in enumerate(zip(names, expected, strict=True)) if s == split}
            assert scores(dataset) == want
        assert split_names(path, seed) == expected
    assert [len(open_score_table(path, s)) for s in ("train", "val", "test", "all")] == [7, 1, 2, 10]


def test_it_follows_the_contract(tmp_path: Path) -> None:
    dataset = open_score_table(write(tmp_path, TEN), "all")
    assert isinstance(dataset, Dataset)
    assert dataset.path(2) == tmp_path / "c.png"
    assert dataset.facts.name == tmp_path.name.replace("[", "-").replace("]", "")
    assert dataset.facts.images == 10
    assert dataset.facts.direction == "mos"
    assert dataset.facts.low is None
    assert dataset.facts.splits == "by content"
    picked = dataset.subset([4, 1])
    assert list(scores(picked)) == ["e.png", "b.png"]
    assert picked.path(0) == tmp_path / "e.png"


def test_pixels_are_decoded(tmp_path: Path) -> None:
    image = open_score_table(write(tmp_path, TEN), "all").image(0)
    assert tuple(image.shape) == (3, 1, 1)
    assert image.sum() == 0


def test_an_image_that_vanished_after_opening(tmp_path: Path) -> None:
    dataset = open_score_table(write(tmp_path, TEN), "all")
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"image 'a.png' of .* is not there: no file"):
        dataset.image(0)


def test_dmos_is_turned_over_on_its_own_scale(tmp_path: Path) -> None:
    path = write(tmp_path, table("a.png,10 b.png,30 c.png,80", "image,dmos"))
    dataset = open_score_table(path, "all")
    assert scores(dataset) == {"a.png": 80.0, "b.png": 60.0, "c.png": 10.0}
    assert dataset.facts.direction == "dmos"
    assert dataset.facts.turned_at == 90
    assert open_score_table(path, "train").facts.turned_at == 90  # over the table, not over the split
    assert open_score_table(write(tmp_path, table("a.png,10 b.png,30")), "all").facts.turned_at is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8, unique=True))
def test_turning_dmos_over_reverses_order_and_keeps_the_range(values: list[float]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = "image,dmos\n" + "".join(f"{i}.png,{v!r}\n" for i, v in enumerate(values))
        got = [row.sample.score for row in read_rows(write(Path(folder), text, images=""))]
    assert sorted(range(len(values)), key=lambda i: -values[i]) == sorted(range(len(values)), key=lambda i: got[i]) or (
        len(set(got)) < len(got)  # neighbours closer than rounding
    )
    assert min(got) == pytest.approx(min(values), abs=1e-9)
    assert max(got) == pytest.approx(max(values), abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimage,mos,std,content\r\na.png,1.5,0.1,x\r\nb.png,2.5,,y\r\n",
        "Image ; MOS;Std ;CONTENT\na.png;1,5;0,1;x\n\nb.png;2,5;;y\n",
        "extra\timage\tmos\tstd\tcontent\n7\ta.png\t1.5\t0.1\tx\n8\tb.png\t2.5\t\ty\n",
        '"image","mos","std","content"\n"a.png","1.5","0.1","x"\n"b.png","2.5","","y"\n',
        "image,mos,std,content,,\n./a.png, 1.5 ,0.1,x,,\nb.png,2.5,,y,,\n",
    ],
    ids=["bom", "semicolon", "tab", "quoted", "trailing"],
)
def test_dialects(tmp_path: Path, text: str | bytes) -> None:
    dataset = open_score_table(write(tmp_path, text), "all")
    samples = [dataset.sample(i) for i in range(2)]
    assert [s.score for s in samples] == [1.5, 2.5]
    assert [s.score_std for s in samples] == [0.1, None]
    assert [s.content for s in samples] == ["x", "y"]
    assert dataset.path(0) == tmp_path / "a.png"


def test_names_with_commas_blanks_and_foreign_letters(tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    for name in ("sub dir/a, b.png", "ü 图.png"):
        (tmp_path / name).write_bytes(PNG)
    path = write(tmp_path, 'image,mos\n"sub dir\\a, b.png",1\nü 图.png,2\n', images="")
    dataset = open_score_table(path, "all")
    assert [dataset.path(i).name for i in range(2)] == ["a, b.png", "ü 图.png"]
    assert not dataset.warnings


def test_absolute_paths_are_the_users_own_choice(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    image = tmp_path / "elsewhere" / "x.png"
    image.write_bytes(PNG)
    (tmp_path / "t").mkdir()
    dataset = open_score_table(write(tmp_path / "t", table(f"{image},1 a.png,2")), "all")
    assert dataset.path(0) == image


def test_one_file_by_two_names_is_still_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, table(f"a.png,1 {tmp_path / 'a.png'},2"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"line 3: image .*a.png' comes twice, first in line 2"):
        open_score_table(Path("scores.csv"), "all")


def test_a_name_too_long_for_the_system_is_missing(tmp_path: Path) -> None:
    dataset = open_score_table(write(tmp_path, table(f"a.png,1 {'x' * 400}.png,2")), "all")
    assert len(dataset) == 1
    assert dataset.left_out == ("x" * 400 + ".png",)


def test_a_split_column_with_synonyms(tmp_path: Path) -> None:
    rows = "a.png,1,Training b.png,2,train c.png,3,VALIDATION d.png,4,dev e.png,5,test f.png,6,testing"
    path = write(tmp_path, table(rows, "image,mos,split"))
    got = {s: list(scores(open_score_table(path, s, seed=9))) for s in ("train", "val", "test")}
    assert got == {"train": ["a.png", "b.png"], "val": ["c.png", "d.png"], "test": ["e.png", "f.png"]}
    assert open_score_table(path, "test").facts.splits == "official"


def test_val_is_taken_from_train_by_content_and_test_stays(tmp_path: Path) -> None:
    rows = [f"{i}.png,{i},c{i // 4},{'test' if i >= 64 else 'train'}" for i in range(80)]
    for i in range(80):
        (tmp_path / f"{i}.png").write_bytes(PNG)
    path = write(tmp_path, "image,mos,content,split\n" + "\n".join(rows), images="")
    parts = {s: open_score_table(path, s, seed=1) for s in ("train", "val", "test")}
    assert {s: len(d) for s, d in parts.items()} == {"train": 56, "val": 8, "test": 16}
    assert all(d.sample(i).score >= 64 for d in [parts["test"]] for i in range(len(d)))
    content = {s: {d.sample(i).content for i in range(len(d))} for s, d in parts.items()}
    assert not content["train"] & content["val"]
    other = open_score_table(path, "val", seed=2)
    assert scores(other) != scores(parts["val"])


def test_one_content_gives_val_by_image_and_says_so(tmp_path: Path) -> None:
    rows = " ".join(f"{c}.png,{i},one,train" for i, c in enumerate("abcdefgh")) + " i.png,9,two,test"
    path = write(tmp_path, table(rows, "image,mos,content,split"))
    val = open_score_table(path, "val")
    assert len(val) == 1
    assert len(open_score_table(path, "train")) == 7
    (warning,) = val.warnings
    assert warning.endswith(": all train images have the content 'one'; val is taken from them by image, so it flatters")


def test_contents_on_two_sides_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path, table("a.png,1,x,train b.png,2,x,test c.png,3,y,val", "image,mos,content,split"))
    (warning,) = open_score_table(path, "test").warnings
    assert warning == f"{path}: contents in more than one split: 1, first x; figures on such a split flatter"


def test_missing_images_are_left_out_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path, TEN, images="abcdefgh")
    dataset = open_score_table(path, "all")
    assert len(dataset) == 8
    (warning,) = dataset.warnings
    assert dataset.left_out == ("i.png", "j.png")
    assert warning.endswith("2 of 10 images (all) are not there and are left out, first i.png, j.png")
    whole = {s: set(scores(open_score_table(write(tmp_path, TEN), s))) for s in ("train", "val", "test")}
    for letter in "ij":
        (tmp_path / f"{letter}.png").unlink()
    for split, names in whole.items():
        left = names - {"i.png", "j.png"}
        if left:
            assert set(scores(open_score_table(path, split))) == left


BROKEN = [
    ("", r"is empty; a table of scores has a header"),
    ("image,mos\n", r"has a header and no rows"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", r"is not a table of scores: it is binary"),
    ("image,mos\nä.png,1\n".encode("latin-1"), r"is not UTF-8 text \(byte 10\); save the table as CSV UTF-8"),
    (table("a.png,1 b.png,2", "file,mos"), r"has no column image; found 'file', 'mos'$"),
    (table("a.png,1 b.png,2", "images,mos"), r"has no column image; found 'images', 'mos'; is it 'images'\? rename it"),
    (table("a.png,1 b.png,2", "image,score"), r"has no column mos or dmos; found 'image', 'score'$"),
    (table("a.png,1,2 b.png,2,3", "image,mos,dmos"), r"has both mos and dmos; keep one"),
    (table("a.png,1,2 b.png,2,3", "image,mos,MOS"), r"has two columns named 'mos'; keep one"),
    (table("a.png,1 b.png,nan c.png,x d.png,inf"), r"line 3: mos must be a finite number, but it is 'nan'; 3 such rows"),
    (table("a.png,1 b.png,"), r"line 3: mos must be a finite number, but it is ''$"),
    (table("a.png,1 b.png,1_0"), r"line 3: mos must be a finite number, but it is '1_0'$"),
    ("image,mos\na.png,1\n".encode("utf-16"), r"is UTF-16 text, which Excel calls Unicode; save the table as CSV UTF-8"),
    (table("a.png,1 b.png"), r"line 3: mos must be a finite number, but it is ''$"),
    (table("a.png,1,0.1 b.png,2,-1", "image,mos,std"), r"line 3: std must be a number of 0 or more.* it is '-1'$"),
    (table("a.png,1,x b.png,2,y", "image,mos,std"), r"line 2: std must be .* it is 'x'; 2 such rows in all$"),
    (table("a.png,1"), r"has one row of scores; a task needs at least two"),
    (table("a.png,3 b.png,3 c.png,3"), r"all 3 scores of .* are 3; there is no order"),
    (table("a.png,1 b.png,2 ./a.png,3"), r"line 4: image './a.png' comes twice, first in line 2; keep one row"),
    (table("a.png,1,train b.png,2,tarin", "image,mos,split"), r"line 3: split must be train, val or test, .* 'tarin'$"),
    (table("a.png,1 ../b.png,2"), r"line 3: image '../b.png' is not a path below the table's directory; use a relative"),
    (table("a.png,1 sub/../../b.png,2"), r"line 3: image 'sub/../../b.png' is not a path below"),
    (table("a.png,1 ,2"), r"line 3: the cell under image is empty; write the image's name there"),
    ('image,mos\na.png,1\n" ",2\n', r"line 3: the cell under image is empty"),
    (table("a.png,1 .,2"), r"line 3: image '.' is not a path below"),
    (table("a,b.png,1 c.png,2"), r"line 2: 3 cells under 2 columns; put names with ',' in quotes"),
    ('image,mos\n"' + "a" * 200_000 + '",1\n', r"line \d+: not a row of a CSV: field larger"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[m[:24] for _, m in BROKEN])
def test_broken_tables_get_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        open_score_table(path, "all")
    assert "\n" not in str(caught.value)
    assert "scores.csv" in str(caught.value)


def test_all_images_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 10 images of .* are there, first .*a\.png, .*; names count from"):
        open_score_table(write(tmp_path, TEN, images=""), "all")
    path = write(tmp_path, table("a.png,1,train b.png,2,test c.png,3,val", "image,mos,split"), images="a")
    with pytest.raises(DataError, match=r"none of the 1 images of split 'test' of"):
        open_score_table(path, "test")


def test_no_such_table_and_directories_without_one(tmp_path: Path) -> None:
    write(tmp_path, TEN, "ratings.csv")
    with pytest.raises(DataError, match=r"there is no table of scores .*rating.csv; did you mean .*ratings.csv\?"):
        open_score_table(tmp_path / "rating.csv", "all")
    with pytest.raises(DataError, match=r"holds no scores.csv; give one of its tables: ratings.csv"):
        open_score_table(tmp_path, "all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no scores.csv; write one with columns image and mos"):
        open_score_table(tmp_path / "empty", "all")
    with pytest.raises(DataError, match="cannot be read"):
        open_score_table(tmp_path / ("x" * 5000), "all")


def test_an_empty_or_unknown_split(tmp_path: Path) -> None:
    path = write(tmp_path, table("a.png,1,test b.png,2,test", "image,mos,split"))
    with pytest.raises(DataError, match=r"has no images in split 'train', it has 0 train, 0 val, 2 test; use another"):
        open_score_table(path, "train")
    with pytest.raises(ConfigurationError, match="there is no split 'dev'; there are train, val, test and all"):
        open_score_table(path, "dev")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my-camera", "my-camera"),
        ("a b/c:d", "a-b-c-d"),
        ("Küche", "Kuche"),
        ("照片", "task"),
        ("..hidden", "hidden"),
        ("x" * 80, "x" * 64),
        ("", "task"),
    ],
)
def test_clean_names(text: str, name: str) -> None:
    assert clean_name(text) == name


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
def test_clean_names_are_safe_as_file_names(text: str) -> None:
    import re

    name = clean_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name)
    assert clean_name(name) == name


def test_names_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my set").mkdir()
    path = write(tmp_path / "my set", TEN)
    assert table_name(path) == "my-set"
    assert table_name(tmp_path / "my set") == "my-set"
    assert table_name(write(tmp_path, TEN, "kon.iq.csv")) == "kon.iq"
    monkeypatch.chdir(tmp_path / "my set")
    assert table_name(Path("scores.csv")) == "my-set"
    assert table_name(Path()) == "my-set"
    assert open_score_table(Path(), "all", name="other").facts.name == "other"


def real_tables() -> Iterator[Path]:
    yield from sorted(SHARED.glob("*/scores.csv"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_real_tables() -> None:
    counts = {}
    for path in real_tables():
        counts[path.parent.name] = tuple(Counter(split_names(path))[s] for s in ("train", "val", "test"))
        dataset = open_score_table(path.parent, "test")
        assert len(dataset) == counts[path.parent.name][2]
        assert not [w for w in dataset.warnings if "not there" in w]
    assert counts["biq2021-gallery"] == (630, 90, 180)
    assert counts["tid2013-mini"] == (102, 14, 50)
    assert counts["live-mini"] == (0, 0, 50)
