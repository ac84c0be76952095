from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageFilter


@pytest.fixture(scope="module")
def sides(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sharper half of the pictures, and blurred copies of them in another format."""
    root = tmp_path_factory.mktemp("sides")
    before, after = root / "before", root / "after"
    for directory in (before, after):
        directory.mkdir()
    for path in sorted(pictures.glob("*.png"))[12:]:
        shutil.copy(path, before)
        Image.open(path).filter(ImageFilter.GaussianBlur(2)).save(after / f"{path.stem}.bmp")
    return before, after


def test_two_folders(run, sides: tuple[Path, Path], model: Path) -> None:
    ran = run("compare", *sides, "--model", model, "--show", 2)
    assert ran.code == 0
    verdict, *lines = ran.out.splitlines()
    assert verdict.startswith("before is better than after by ")
    assert verdict.endswith("in 12 of 12 images")
    assert "higher, lower, equal  0, 12, 0 of 12" in lines
    assert any(line.startswith("Wilcoxon signed-rank  p = 0.0005") for line in lines)
    assert "most lower in after" in lines
    assert "most higher in after" not in lines
    assert sum(line.endswith(".png") for line in lines) == 2


def test_what_is_left_out_is_listed_and_ends_with_1(run, sides: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    before, after = (shutil.copytree(side, tmp_path / side.name) for side in sides)
    (before / "more.png").write_bytes((before / "12.png").read_bytes())
    (after / "13.bmp").write_bytes(b"BM no picture")
    ran = run("compare", before, after, "--model", model)
    assert ran.code == 1
    assert "could not be scored\n  13.png  " in ran.out
    assert "without a partner\n  more.png  after has no image of that name" in ran.out
    assert ran.out.splitlines()[0].endswith("in 11 of 11 images")
    assert "1 image without a partner: listed, and not in the figures" in ran.err


def test_json_jsonl_and_csv_say_the_same(run, sides: tuple[Path, Path], model: Path) -> None:
    whole = json.loads(run("compare", *sides, "--model", model, "--format", "json").out)
    assert whole["summary"]["verdict"].startswith("before is better than after")
    assert whole["summary"]["n"] == len(whole["rows"]) == 12
    lines = run("compare", *sides, "--model", model, "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == whole["rows"]
    ran = run("compare", *sides, "--model", model, "-o", "c.csv")
    assert ran.out == ""
    assert "before is better than after" in ran.err
    with Path("c.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [float(row["difference"]) for row in cells] == [row["difference"] for row in whole["rows"]]
    assert list(cells[0]) == list(whole["rows"][0])


def test_two_files_of_scores_give_what_two_folders_give(run, sides: tuple[Path, Path], model: Path) -> None:
    for side, name in zip(sides, ("before.jsonl", "after.csv"), strict=True):
        assert run("score", side, "--model", model, "-o", name).code == 0
    files = json.loads(run("compare", "before.jsonl", "after.csv", "--format", "json").out)
    folders = json.loads(run("compare", *sides, "--model", model, "--format", "json").out)
    figures = ("n", "mean", "low", "high", "wilcoxon_p", "sign_p", "srcc", "model_a", "model_b")
    assert {name: files["summary"][name] for name in figures} == {name: folders["summary"][name] for name in figures}


def test_two_models_on_the_same_images(run, pictures: Path, model: Path, tiny_model: Path) -> None:
    ran = run("compare", "--model", model, "--model", tiny_model, pictures, "--format", "json")
    assert ran.code == 0
    found = json.loads(ran.out)["summary"]
    assert (found["n"], found["a"], found["b"]) == (24, "small", "tiny")
    assert found["model_a"] != found["model_b"]
    assert found["srcc"] is not None
    same = run("compare", "--model", model, "--model", model, pictures / "03.png", "--format", "json")
    assert json.loads(same.out)["summary"]["mean"] == 0


def test_two_images(run, pictures: Path, model: Path) -> None:
    ran = run("compare", pictures / "00.png", pictures / "23.png", "--model", model)
    assert ran.code == 0
    assert ran.out.startswith("no clear difference: 23.png is +")
    assert "1 image" in ran.out.splitlines()[0]


def test_a_gate_for_continuous_integration(run, sides: tuple[Path, Path], model: Path) -> None:
    before, after = sides
    missed = run("compare", before, after, "--model", model, "--fail-below", 0)
    assert missed.code == 1
    assert "after is lower than before by more than --fail-below 0" in missed.err
    assert run("compare", before, after, "--model", model, "--fail-below", 99).code == 0
    assert run("compare", after, before, "--model", model, "--fail-below", 0).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a",), "compare takes two sides, A and B, but 1 were given"),
        (("a", "b", "c"), "but 3 were given; to compare two models on the same images, give --model twice"),
        (("a.jsonl", "a"), "are of two kinds; give two directories or two score files"),
        (("a", "b", "--model", "x", "--model", "y", "--model", "z"), "--model can be given once or twice, not 3 times"),
        (("a", "b", "--fail-below", "-1"), "--fail-below is a loss in points, 0 or more, not -1"),
        (("a", "b", "--fail-below", "1", "--bootstrap", "0"), "--fail-below needs the interval"),
        (("a.jsonl", "b.jsonl"), "a.jsonl does not exist"),
    ],
)
def test_mistakes_get_one_line(run, arguments: tuple[str, ...], message: str) -> None:
    ran = run("-q", "compare", *arguments)
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_an_empty_directory(run, model: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    assert "no image was found in 'x'" in run("-q", "compare", "x", "y", "--model", model).err
