from __future__ import annotations

import glob
import io
import os
from itertools import islice
from pathlib import Path

import pytest

from iqakit.cli.images import IMAGE_SUFFIXES, expand_images, is_countable


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
