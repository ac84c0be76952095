from __future__ import annotations

import glob
import io
import os
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from iqakit.cli import images
from iqakit.cli.images import IMAGE_SUFFIXES, SORTED_ENTRIES, expand_images, is_countable


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        ".hidden.jpg",
        "sub/c.webp",
        "sub/deep/d.heic",
        "sub/deep/e.md",
        ".git/f.png",
        "z/g.tif",
        "z/odd[1].png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_directory_is_walked_in_order_without_hidden_and_other_files(tree: Path) -> None:
    found = list(expand_images([str(tree)]))
    names = ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.heic", "z/g.tif", "z/odd[1].png"]
    assert found == [str(tree / name) for name in names]


def test_paths_stay_as_they_were_typed(tree: Path) -> None:
    assert list(expand_images(["./sub", "nowhere.jpg", "notes.txt"])) == [
        "./sub/c.webp",
        "./sub/deep/d.heic",
        "nowhere.jpg",  # that it is missing shows in its row
        "notes.txt",  # named by hand, so it is taken
    ]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.heic", "z/g.tif", "z/odd[1].png"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        ("**/*.heic", ["sub/deep/d.heic"]),
        ("**", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.heic", "z/g.tif", "z/odd[1].png"]),
        ("s*/deep", ["sub/deep/d.heic"]),
        ("**/deep", ["sub/deep/d.heic"]),
        ("*/*.txt", []),
        ("*.txt", ["notes.txt"]),
        (".h*", [".hidden.jpg"]),
        ("z/odd[1].png", ["z/odd[1].png"]),  # a file of that very name is no pattern
        ("sub/*/../c.webp", ["sub/deep/../c.webp"]),
        ("nowhere/*.png", []),
    ],
)
def test_patterns_that_the_shell_left(tree: Path, pattern: str, names: list[str]) -> None:
    assert list(expand_images([pattern])) == names


@pytest.mark.parametrize("pattern", ["*.jpg", "**/*.png", "*/*.tif", "sub/**/*.heic", "z/*", "?.jpg"])
def test_patterns_agree_with_pythons_own(tree: Path, pattern: str) -> None:
    every = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the independent reference
    expected = [path for path in every if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    assert sorted(expand_images([pattern])) == sorted(expected)
    absolute = [str(tree / path) for path in expected]
    assert sorted(expand_images([str(tree / pattern)])) == sorted(absolute)


def test_standard_input_is_one_path_a_line(tree: Path) -> None:
    lines = io.StringIO("b.jpg\r\n\nwith space.png\nsub\nlast.jpg")
    expected = ["b.jpg", "with space.png", "sub/c.webp", "sub/deep/d.heic", "last.jpg"]
    assert list(expand_images(["-"], lines)) == expected
    assert not is_countable(["-", "a.jpg"])
    assert is_countable(["a.jpg"])


def test_names_on_standard_input_need_not_be_text() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"caf\xe9.jpg\n"), encoding="utf-8")
    assert [os.fsencode(path) for path in expand_images(["-"], stream)] == [b"caf\xe9.jpg"]


def test_standard_input_is_not_read_ahead() -> None:
    def endless():
        number = 0
        while True:
            yield f"{number}.jpg\n"
            number += 1

    assert list(islice(expand_images(["-"], endless()), 3)) == ["0.jpg", "1.jpg", "2.jpg"]  # type: ignore[arg-type]


def test_a_link_that_leads_back_up_is_not_followed_for_ever(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "linked").symlink_to(tree / "z", target_is_directory=True)
    found = list(expand_images([str(tree)]))
    assert str(tree / "linked" / "g.tif") in found
    assert len([path for path in found if path.endswith("b.jpg")]) == 1
    assert list(expand_images(["**/b.jpg"])) == ["b.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_directory_that_cannot_be_read_is_not_passed_over_in_silence(tree: Path) -> None:
    (tree / "z").chmod(0)
    try:
        assert str(tree / "z") in list(expand_images([str(tree)]))
    finally:
        (tree / "z").chmod(0o755)


def test_a_directory_that_vanishes_is_given_as_a_path(tree: Path) -> None:
    walk = expand_images([str(tree)])
    assert next(walk) == str(tree / "a.PNG")
    for name in ("g.tif", "odd[1].png"):
        (tree / "z" / name).unlink()
    (tree / "z").rmdir()
    assert list(walk)[-1] == str(tree / "z")


def test_a_link_to_itself_does_not_hide_its_directory(tree: Path) -> None:
    (tree / "aa.jpg").symlink_to("aa.jpg")
    assert list(expand_images([str(tree)]))[:3] == [str(tree / name) for name in ("a.PNG", "aa.jpg", "b.jpg")]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of 50,000 empty files."""
    directory = tmp_path_factory.mktemp("crowd")
    for index in range(50_000):
        os.close(os.open(directory / f"{index * 7919 % 50_000:05d}.jpg", os.O_CREAT | os.O_WRONLY))
    return directory


@pytest.mark.parametrize("pattern", [False, True])
def test_a_directory_of_very_many_files_is_listed_as_it_is_walked(
    crowd: Path, pattern: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = 0
    real = os.scandir

    class Watched:
        """The listing, counting the entries that were asked for."""

        def __init__(self, directory: str) -> None:
            self._entries = real(directory)

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *error: object) -> None:
            self._entries.close()

        def __iter__(self) -> Watched:
            return self

        def __next__(self) -> os.DirEntry[str]:
            nonlocal listed
            listed += 1
            return next(self._entries)

    monkeypatch.setattr(images.os, "scandir", Watched)
    walk = expand_images([str(crowd / "*.jpg") if pattern else str(crowd)])
    next(walk)
    assert listed == SORTED_ENTRIES + 1  # and 30,000 entries are still to come
    assert sum(1 for _ in walk) == 49_999


def test_very_many_files_come_in_the_order_of_the_listing_and_in_little_memory(crowd: Path) -> None:
    expected = [entry.path for entry in os.scandir(crowd)]
    assert list(expand_images([str(crowd)])) == expected == list(expand_images([str(crowd)]))
    del expected
    tracemalloc.start()
    try:
        count = sum(1 for _ in expand_images([str(crowd)]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < SORTED_ENTRIES * 250  # a list of all would take more than twice that


def test_as_many_files_as_can_be_sorted_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index * 37 % 100:02d}.jpg" for index in range(100)]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(images, "SORTED_ENTRIES", 100)
    assert list(expand_images([str(tmp_path)])) == [str(tmp_path / name) for name in sorted(names)]
    monkeypatch.setattr(images, "SORTED_ENTRIES", 99)
    assert sorted(expand_images([str(tmp_path)])) == [str(tmp_path / name) for name in sorted(names)]


def test_a_listing_that_breaks_off_is_not_passed_over_in_silence(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    class Breaking:
        """A listing of a disk that goes away after the first entry."""

        def __init__(self, directory: str) -> None:
            self._entries = real(directory)
            self._left = 1

        def __enter__(self) -> Breaking:
            return self

        def __exit__(self, *error: object) -> None:
            self._entries.close()

        def __iter__(self) -> Breaking:
            return self

        def __next__(self) -> os.DirEntry[str]:
            if not self._left:
                raise OSError(5, "Input/output error")
            self._left -= 1
            return next(self._entries)

    monkeypatch.setattr(images.os, "scandir", Breaking)
    monkeypatch.setattr(images, "SORTED_ENTRIES", 0)
    assert list(expand_images([str(tree / "z")]))[-1] == str(tree / "z")
