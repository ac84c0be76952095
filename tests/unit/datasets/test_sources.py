from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from iqakit.contracts import Dataset, DatasetEntry, Sample, TaskFacts
from iqakit.datasets.image_table import ImageTable
from iqakit.datasets.sources import open_source, practice_source
from iqakit.errors import DataError, UnknownNameError

PIXEL = b"not decoded here"


def lookup(name: str) -> DatasetEntry:
    """A catalog of one set, whose directory holds a file ``list.txt`` with a name and a score a line."""
    if name != "koniq10k":
        raise UnknownNameError.of("data set", name, ["koniq10k"])

    def read(root: Path, split: str, seed: int) -> Dataset:
        rows = [line.split() for line in (root / "list.txt").read_text().splitlines()]
        kept = rows if split == "all" else rows[seed : seed + 1]
        facts = TaskFacts("koniq10k", title="KonIQ-10k")
        return ImageTable(facts, root, tuple(Sample(n, float(s)) for n, s in kept), tuple(n for n, _ in kept))  # type: ignore[return-value, unused-ignore]

    return DatasetEntry("koniq10k", TaskFacts("koniq10k", title="KonIQ-10k"), read)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "my set").mkdir()
    for name in "abcd":
        (tmp_path / "my set" / f"{name}.png").write_bytes(PIXEL)
    path = tmp_path / "my set" / "scores.csv"
    path.write_text("image,mos\na.png,1\nb.png,2\nc.png,3\nd.png,4\n")
    return path


@pytest.fixture
def koniq(tmp_path: Path) -> Path:
    root = tmp_path / "koniq"
    root.mkdir()
    (root / "list.txt").write_text("x.png 1\ny.png 2\n")
    return root


def test_a_table_and_its_directory_are_the_same_task(table: Path) -> None:
    for text in (str(table), str(table.parent)):
        source = open_source(text, lookup)
        assert source.name == "my-set"
        assert source.path == table
        assert str(table) in source.description
        assert len(source.open("all")) == 4
        assert len(source.open("train", 3)) == 2
        assert source.identity() == hashlib.sha256(table.read_bytes()).hexdigest()


def test_the_identity_follows_the_table(table: Path) -> None:
    source = open_source(str(table), lookup)
    before = source.identity()
    table.write_text(table.read_text().replace("d.png,4", "d.png,5"))
    assert source.identity() != before


def test_a_public_set(koniq: Path) -> None:
    source = open_source(f"koniq10k:{koniq}", lookup)
    assert source.name == "koniq10k"
    assert source.path == koniq
    assert source.description == f"KonIQ-10k in {koniq}"
    assert source.open("train", 1).sample(0).name == "y.png"
    before = source.identity()
    (koniq / "list.txt").write_text("x.png 1\ny.png 2.5\n")
    assert source.identity() != before


def test_an_existing_path_with_a_colon_wins(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    Path("koniq10k:data.csv").write_bytes(table.read_bytes())
    source = open_source("koniq10k:data.csv", lookup)
    assert source.name == "koniq10k-data"
    assert len(source.open("all")) == 4


@pytest.mark.parametrize("text", ["C:\\data\\scores.csv", "C:/data/scores.csv"])
def test_windows_drives_are_paths(text: str) -> None:
    with pytest.raises(DataError, match="there is no table of scores"):
        open_source(text, lookup)


def test_a_path_with_a_colon_deeper_in_is_a_path() -> None:
    with pytest.raises(DataError, match=r"there is no table of scores .*odd:name.csv"):
        open_source("some/odd:name.csv", lookup)


def test_the_home_directory_is_understood(table: Path, koniq: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(koniq.parent))
    assert open_source("koniq10k:~/koniq", lookup).path == koniq
    assert open_source("~/my set/scores.csv", lookup).path == table


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("koniq:/data", UnknownNameError, r"no data set is named 'koniq'; did you mean koniq10k\?"),
        ("koniq10k:", DataError, r"koniq10k: the directory is missing; give koniq10k:PATH"),
        ("koniq10k:/no/where", DataError, r"koniq10k: there is no directory .*where; give the one"),
        ("koniq10k", DataError, r"koniq10k is a public set, but its directory is missing; give koniq10k:PATH"),
        ("none.csv", DataError, r"there is no table of scores none.csv"),
        ("x" * 5000, DataError, r"cannot be read"),
        ("~nobody-of-this-name/scores.csv", DataError, r"there is no table of scores ~nobody"),
        (" ", DataError, r"the data argument is empty"),
    ],
)
def test_what_cannot_be_opened(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(text, lookup)


def test_practice_is_a_source_unless_there_is_such_a_path(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_source("practice", lookup).name == practice_source().name == "practice"
    assert practice_source().path is None
    monkeypatch.chdir(table.parent.parent)
    table.parent.rename("practice")
    assert open_source("practice", lookup).path == Path("practice/scores.csv")
