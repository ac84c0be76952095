from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_a_map_is_drawn_and_summed_up(run, pictures: Path, model: Path) -> None:
    ran = run("explain", pictures / "05.png", "--model", model, "-o", "map.png", "-o", "map.npy")
    assert ran.code == 0
    facts = dict(line.split(maxsplit=1) for line in ran.out.replace(" part", "-part").splitlines())
    assert set(facts) == {"image", "score", "worst-part", "best-part", "method", "map"}
    assert facts["method"] == "cam"
    assert facts["map"] == "map.png, map.npy"
    assert Image.open("map.png").width == 640
    assert np.load("map.npy", allow_pickle=False).shape == (40, 56)


def test_numbers_for_programs(run, pictures: Path, model: Path) -> None:
    ran = run("explain", pictures / "05.png", "--model", model, "--json", "--method", "tiles", "--tile", 20)
    assert ran.code == 0
    found = json.loads(ran.out)
    assert (found["method"], found["tile"], found["width"], found["height"]) == ("tiles", 20, 56, 40)
    assert np.array(found["values"]).shape == (40, 56)
    scored = json.loads(run("score", pictures / "05.png", "--model", model, "--format", "jsonl").out)
    assert found["score"] == pytest.approx(scored["score"], abs=1e-3)
    assert found["model"] == scored["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "explain draws a map: name its file with -o map.png"),
        (("-o", "map.gif"), "the ending of map.gif is none of them"),
        (("-o", "map.png", "--scale", "5:1"), "--scale is LOW:HIGH"),
        (("-o", "map.png", "--tile", "2"), "a tile is at least 16 pixels wide; found 2"),
        (("-o", "map.png", "--method", "cam", "--tile", "32"), "a tile has no meaning for the method cam"),
        (("-o", "map.png", "--size", "10"), "a map is at least 256 pixels wide or high"),
        (("-o", "no/map.png"), "create the directory first"),
    ],
)
def test_mistakes_get_one_line(run, pictures: Path, model: Path, arguments: tuple[str, ...], message: str) -> None:
    ran = run("-q", "explain", pictures / "05.png", "--model", model, *arguments)
    assert ran.code == 2
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_directory_and_a_missing_image(run, pictures: Path, model: Path) -> None:
    assert "explain takes one image" in run("-q", "explain", pictures, "--model", model, "-o", "m.png").err
    ran = run("-q", "explain", "none.png", "--model", model, "-o", "m.png")
    assert ran.code == 2
    assert "none.png" in ran.err
    assert not Path("m.png").exists()
