from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from iqakit.contracts.dataset import Dataset, Sample, TaskFacts
from iqakit.datasets.image_table import ImageTable, inside
from iqakit.errors import DataError, ImageError

FACTS = TaskFacts(name="shelf", low=0.0, high=10.0)


def table(root: Path, files: tuple[str, ...]) -> ImageTable:
    return ImageTable(FACTS, root, tuple(Sample(name, float(i)) for i, name in enumerate(files)), files)


def test_follows_the_contract_and_survives_pickling_to_workers(tmp_path: Path) -> None:
    shelf = table(tmp_path, ("a.png", "b.png"))
    assert isinstance(shelf, Dataset)
    assert pickle.loads(pickle.dumps(shelf)) == shelf
    assert shelf.sample(1) == Sample("b.png", 1.0)
    assert shelf.path(1) == tmp_path / "b.png"


def test_subset_keeps_the_order_asked_for(tmp_path: Path) -> None:
    part = table(tmp_path, ("a.png", "b.png", "c.png")).subset([2, 0])
    assert [s.name for s in part.samples] == ["c.png", "a.png"]
    assert part.files == ("c.png", "a.png")


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "/etc/passwd", "C:\\x.png", "..\\x.png", "", " ", "a\0.png", "."]
)
def test_names_never_leave_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="is not a path inside the set's directory"):
        table(tmp_path, (name,))


@pytest.mark.parametrize(
    ("name", "path"), [("a.png", "a.png"), ("./d//a.png", "d/a.png"), ("d\\a.png", "d/a.png"), ("a..b.png", "a..b.png")]
)
def test_harmless_names_are_normalized(name: str, path: str) -> None:
    assert inside(name) == path


def test_missing_images_are_counted_and_raise_only_when_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    shelf = table(tmp_path, ("a.png", "b.png"))
    assert shelf.missing() == (1,)
    with pytest.raises(ImageError, match=r"'b\.png' of shelf is not there"):
        shelf.image(1)


def test_files_and_samples_must_match(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 samples and 2 files"):
        ImageTable(FACTS, tmp_path, (Sample("a", 0.0),), ("a", "b"))
