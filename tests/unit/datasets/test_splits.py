from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iqakit.datasets.splits import (
    PROTOCOLS,
    SPLITS,
    protocol,
    read_splits,
    repeated_splits,
    split_by_content,
    write_splits,
)
from iqakit.errors import ConfigurationError, DataError, StorageError, UnknownNameError


def contents_in(contents: list[str], splits: list[str]) -> dict[str, set[str]]:
    return {part: {c for c, s in zip(contents, splits, strict=True) if s == part} for part in SPLITS}


many = st.lists(st.integers(0, 40).map(str), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(many, st.integers(0, 1000))
def test_no_content_is_shared_and_no_split_is_empty(contents: list[str], seed: int) -> None:
    parts = contents_in(contents, split_by_content(contents, seed))
    n = len(set(contents))
    assert sum(len(p) for p in parts.values()) == n
    if n >= 3:
        assert all(parts.values())
    assert parts["train"]


@settings(max_examples=60, deadline=None)
@given(many, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_and_number_of_rows_do_not_matter(contents: list[str], seed: int, random) -> None:  # type: ignore[no-untyped-def]
    split_of = dict(zip(contents, split_by_content(contents, seed), strict=True))
    shuffled = contents + contents[: len(contents) // 2]
    random.shuffle(shuffled)
    assert split_by_content(shuffled, seed) == [split_of[c] for c in shuffled]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 60),
    st.tuples(st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0.05, 1)),
)
@example(5, (1.0, 0.5, 0.125))
def test_sizes_are_the_nearest_whole_numbers(count: int, ratios: tuple[float, float, float]) -> None:
    contents = [str(i) for i in range(count)]
    got = Counter(split_by_content(contents, 0, ratios))
    exact = [r / sum(ratios) * count for r in ratios]
    best = min(
        sum((s - e) ** 2 for s, e in zip((a, b, count - a - b), exact, strict=True))
        for a in range(1, count - 1)
        for b in range(1, count - a)
    )
    assert sum((got[s] - e) ** 2 for s, e in zip(SPLITS, exact, strict=True)) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 1, 2)), (30, (21, 3, 6))],
)
def test_sizes_of_small_tables(count: int, expected: tuple[int, int, int]) -> None:
    got = Counter(split_by_content([str(i) for i in range(count)], 3))
    assert tuple(got[s] for s in SPLITS) == expected


def test_a_ratio_of_zero_gives_an_empty_split() -> None:
    got = Counter(split_by_content([str(i) for i in range(10)], 0, (0.8, 0.0, 0.2)))
    assert got == {"train": 8, "test": 2}


def test_the_same_seed_gives_the_same_split_in_another_process() -> None:
    code = (
        "from iqakit.datasets.splits import split_by_content as s; print(''.join(x[1] for x in s(list('abcdefghijkl'), 5)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert runs == {"".join(x[1] for x in split_by_content(list("abcdefghijkl"), 5))}


def test_the_shuffle_is_numpys_over_sorted_contents() -> None:
    contents = [f"c{i:02}" for i in range(10)]
    order = np.random.default_rng(7).permutation(10)
    expected = {contents[order[i]] for i in range(7)}
    assert contents_in(contents, split_by_content(contents, 7))["train"] == expected


def test_seeds_differ() -> None:
    contents = [str(i) for i in range(30)]
    assert len({tuple(s) for s in repeated_splits(contents, 10)}) == 10
    assert repeated_splits(contents, 3, seed=4)[2] == split_by_content(contents, 6)


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global state is what is tested
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    split_by_content(["a", "b", "c"], 1)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("ratios", [(0, 0.5, 0.5), (-0.1, 0.5, 0.6), (float("nan"), 0.1, 0.2), (0.8, 0.2)])
def test_senseless_ratios(ratios: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"^split ratios must be three shares"):
        split_by_content(["a"], 0, ratios)  # type: ignore[arg-type]


def test_senseless_seed_and_repeats() -> None:
    with pytest.raises(ConfigurationError, match="must not be negative, but it is -1"):
        split_by_content(["a"], -1)
    with pytest.raises(ConfigurationError, match="at least 1, but it is 0"):
        repeated_splits(["a"], 0)


def test_a_file_of_splits_comes_back(tmp_path: Path) -> None:
    names = ["a, b.png", 'q"uote.png', "ü.png", "d.png"]
    contents = ["x", "x", "y", "z"]
    splits = repeated_splits(contents, 3, seed=1)
    path = tmp_path / "splits.csv"
    write_splits(path, names, contents, splits)
    table = read_splits(path)
    assert list(table.names) == names
    assert list(table.contents) == contents
    assert [list(s) for s in table.splits] == splits
    with path.open(encoding="utf-8", newline="") as file:  # what others read it with
        rows = list(csv.DictReader(file))
    assert [row["split_2"] for row in rows] == splits[2]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "splits.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns image, content, split_0, split_1, ..., but it has nothing"),
        ("image,split_0\na,train\n", "but it has image, split_0"),
        ("image,content\na,a\n", "but it has image, content$"),
        ("image,content,split_0\na,a\n", "row 2: there must be 3 cells, but there are 2"),
        ("image,content,split_0\na,a,dev\n", "split_0 of 'a' must be train, val or test, but it is 'dev'"),
        ("image,content,split_0\na,a,train\na,a,train\n", "image 'a' comes twice"),
        ("image,content,split_0\na,x,train\nb,x,test\n", "content 'x' is in both train and test of split_0"),
    ],
)
def test_broken_files_of_splits(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_splits(written(tmp_path, text))


def test_a_missing_or_binary_file_of_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file of splits"):
        read_splits(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="cannot be read as a file of splits"):
        read_splits(tmp_path / "b.csv")


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="2 images, 1 contents"):
        write_splits(tmp_path / "s.csv", ["a", "b"], ["a"], [["train", "test"]])
    with pytest.raises(DataError, match="content 'x' is in both"):
        write_splits(tmp_path / "s.csv", ["a", "b"], ["x", "x"], [["train", "test"]])


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"could not write file of splits .*: No such file or directory; create the"):
        write_splits(tmp_path / "none" / "s.csv", ["a"], ["a"], [["train"]])


def test_the_protocol_of_six_tasks() -> None:
    six = protocol("tsn-six")
    assert six.tasks == ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k")
    assert six.ratios == (0.7, 0.1, 0.2)
    assert protocol("tsn-six-reverse").tasks == tuple(reversed(six.tasks))
    assert set(PROTOCOLS) == {"tsn-six", "tsn-six-reverse"}
    with pytest.raises(UnknownNameError, match="no protocol is named 'tsn-sx'; did you mean tsn-six"):
        protocol("tsn-sx")
