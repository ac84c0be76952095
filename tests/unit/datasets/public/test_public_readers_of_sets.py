from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from iqakit.contracts.dataset import Dataset
from iqakit.contracts.entries import DatasetEntry
from iqakit.datasets.public import PUBLIC_SETS, SETS, recognise
from iqakit.errors import ConfigurationError, ImageError

NAMES = [
    *("live", "live-md", "csiq", "tid2008", "tid2013", "kadid10k", "pipal", "bid", "clive", "koniq10k", "spaq"),
    *("live-fb", "cid2013", "biq2021", "agiqa3k", "piq23", "uhd-iqa"),
]
ENTRIES = {entry.name: entry for entry in PUBLIC_SETS}
each_set = pytest.mark.parametrize("name", NAMES)


def test_all_seventeen_sets_are_offered_under_their_names() -> None:
    assert sorted(ENTRIES) == sorted(NAMES)
    assert all(isinstance(entry, DatasetEntry) for entry in PUBLIC_SETS)
    assert all(entry.facts.name == name for name, entry in ENTRIES.items())


def test_importing_the_sets_loads_nothing_heavy() -> None:
    heavy = "('torch', 'timm', 'numpy', 'scipy', 'openpyxl', 'PIL')"
    code = f"import sys, iqakit.datasets.public; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each_set
def test_facts_are_complete(name: str) -> None:
    facts = ENTRIES[name].facts
    assert facts.title
    assert facts.citation
    assert facts.homepage.startswith("http")
    assert facts.rated
    assert facts.licence
    assert facts.images is not None
    assert facts.images > 400
    assert facts.direction in ("mos", "dmos")
    assert facts.splits in ("official", "by content", "random")
    assert (facts.low is None) == (facts.high is None)
    if facts.low is not None and facts.high is not None:
        assert facts.low < facts.high
    assert facts.low is not None or name in ("pipal", "piq23")


@each_set
def test_rows_are_read_as_published(name: str, miniatures: dict[str, Any]) -> None:
    mini = miniatures[name]
    whole = ENTRIES[name].open(mini.root, "all", 0)
    samples = [whole.sample(i) for i in range(len(whole))]
    assert isinstance(whole, Dataset)
    assert [sample.name for sample in samples] == list(mini.scores)
    assert [sample.score for sample in samples] == pytest.approx(list(mini.scores.values()), abs=1e-9)
    assert {sample.name: sample.content for sample in samples} == mini.contents
    for sample in samples:
        assert sample.score_std == (None if mini.stds[sample.name] is None else pytest.approx(mini.stds[sample.name]))


@each_set
def test_a_better_image_has_the_higher_score(name: str, miniatures: dict[str, Any]) -> None:
    mini = miniatures[name]
    whole = ENTRIES[name].open(mini.root, "all", 0)
    scores = {whole.sample(i).name: whole.sample(i).score for i in range(len(whole))}
    assert scores[mini.better] > scores[mini.worse]


@each_set
def test_files_are_found_whatever_their_case(name: str, miniatures: dict[str, Any]) -> None:
    whole: Any = ENTRIES[name].open(miniatures[name].root, "all", 0)
    missing = whole.missing()
    assert len(missing) == (0 if name != "live" else len(whole) - sum(whole.path(i).is_file() for i in range(len(whole))))
    assert whole.path(0).is_file()
    assert len(missing) < len(whole)


@each_set
def test_splits_share_no_content_and_cover_everything(name: str, miniatures: dict[str, Any]) -> None:
    mini, entry = miniatures[name], ENTRIES[name]
    parts = {part: entry.open(mini.root, part, 3) for part in ("train", "val", "test")}
    names = {part: [data.sample(i).name for i in range(len(data))] for part, data in parts.items()}
    assert sorted(name for found in names.values() for name in found) == sorted(mini.scores)
    assert all(names.values())
    contents = {part: {mini.contents[n] or n for n in found} for part, found in names.items()}
    assert not contents["train"] & contents["val"]
    assert not contents["train"] & contents["test"]
    assert not contents["val"] & contents["test"]
    assert len(names["train"]) > len(names["test"])
    again = entry.open(mini.root, "train", 3)
    assert [again.sample(i).name for i in range(len(again))] == names["train"]


@each_set
def test_official_splits_do_not_depend_on_the_seed_and_others_do(name: str, miniatures: dict[str, Any]) -> None:
    mini, entry = miniatures[name], ENTRIES[name]
    tests = [{s.name for s in _samples(entry, mini, "test", seed)} for seed in range(4)]
    if mini.official is None:
        assert entry.facts.splits != "official"
        assert len({frozenset(t) for t in tests}) > 1
        return
    assert entry.facts.splits == "official"
    assert all(test == {n for n, part in mini.official.items() if part == "test"} for test in tests)
    if "val" in mini.official.values():
        assert {s.name for s in _samples(entry, mini, "val", 1)} == {n for n, p in mini.official.items() if p == "val"}
    else:  # val is cut from train alone
        held = {s.name for s in _samples(entry, mini, "val", 1)}
        assert held < {n for n, part in mini.official.items() if part == "train"}
        assert len(held) < len(mini.official) / 4


def _samples(entry: DatasetEntry, mini: Any, split: str, seed: int) -> list[Any]:
    data = entry.open(mini.root, split, seed)
    return [data.sample(i) for i in range(len(data))]


@each_set
def test_pixels_come_as_bytes_of_rgb(name: str, miniatures: dict[str, Any]) -> None:
    pytest.importorskip("iqakit.imaging.decoding")
    whole = ENTRIES[name].open(miniatures[name].root, "all", 0)
    pixels = whole.image(0)
    assert tuple(pixels.shape) == (3, 6, 8)
    assert str(pixels.dtype) == "torch.uint8"


def test_a_missing_image_is_an_error_only_when_it_is_read(miniatures: dict[str, Any]) -> None:
    whole = ENTRIES["live"].open(miniatures["live"].root, "all", 0)
    index = next(i for i in range(len(whole)) if whole.sample(i).name == "jpeg/img9.bmp")
    with pytest.raises(ImageError, match=r"'jpeg/img9\.bmp' of live is not there"):
        whole.image(index)


@each_set
def test_a_directory_is_recognised(name: str, miniatures: dict[str, Any]) -> None:
    expected = {"tid2008": ["tid2008", "tid2013"], "tid2013": ["tid2008", "tid2013"], "agiqa3k": []}
    assert recognise(miniatures[name].root) == expected.get(name, [name])


def test_an_unknown_split_is_refused(miniatures: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no split is named 'dev'; there are: train, val, test, all"):
        ENTRIES["bid"].open(miniatures["bid"].root, "dev", 0)


def test_live_falls_back_on_the_scores_before_realignment(build_miniature: Any) -> None:
    import numpy as np
    from scipy.io import loadmat, savemat

    mini = build_miniature("live")
    found = loadmat(mini.score_file)
    mini.score_file.unlink()
    savemat(mini.root / "dmos.mat", {"dmos": np.full((1, 982), 30.0), "orgs": found["orgs"]})
    whole = ENTRIES["live"].open(mini.root, "all", 0)
    assert {whole.sample(i).score for i in range(len(whole))} == {70.0}
    assert whole.sample(0).score_std is None


def test_piq_scenes_are_compared_by_whole_name(miniatures: dict[str, Any]) -> None:
    tests = {s.content for s in _samples(ENTRIES["piq23"], miniatures["piq23"], "test", 0)}
    assert tests == {"Indoor_Scene_1", "Outdoor_Scene_33"}  # and not Indoor_Scene_12 or 13


def test_biq_prefers_the_pair_of_files_that_fills_the_scale(build_miniature: Any) -> None:
    mini = build_miniature("biq2021")
    for part in ("Train", "Test"):  # as they are handed out, with two empty columns
        header, *rows = (mini.root / f"{part}.csv").read_text().splitlines()
        scaled = [f"{row.rsplit(',', 1)[0]},{float(row.rsplit(',', 1)[1]) / 0.9645:.4f},," for row in rows]
        (mini.root / f"{part} (Images and MOS).csv").write_text("\n".join([f"{header},,", *scaled]))
    whole = ENTRIES["biq2021"].open(mini.root, "all", 0)
    samples = [whole.sample(i) for i in range(len(whole))]
    assert [sample.name for sample in samples] == list(mini.scores)
    assert [sample.score for sample in samples] == pytest.approx([s / 0.9645 for s in mini.scores.values()], abs=1e-4)


def test_every_set_says_what_its_directory_must_hold() -> None:
    assert all(public.layout and public.rule and public.markers for public in SETS)
