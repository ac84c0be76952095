from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqakit.errors import FileFormatError, StorageError
from iqakit.pipeline.score_files import is_score_file, read_score_file

OK = {"path": "a.png", "status": "ok", "score": 61.25, "raw": 0.125, "std": 4.0, "novelty": None, "model": "m@1"}
BAD = {"path": "b.png", "status": "error", "error": "b.png does not exist", "score": None, "model": "m@1"}


def test_the_three_forms_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(OK) + "\n\n" + json.dumps(BAD) + "\n")
    (tmp_path / "r.json").write_text(json.dumps([OK, BAD]))
    (tmp_path / "r.csv").write_text(
        "path,status,score,raw,std,novelty,model,error\n"
        "a.png,ok,61.25,0.125,4.0,,m@1,\nb.png,error,,,,,m@1,b.png does not exist\n"
    )
    read = [read_score_file(tmp_path / name) for name in ("r.jsonl", "r.json", "r.csv")]
    assert read[0] == read[1] == read[2]
    good, bad = read[0]
    assert (good.path, good.score, good.raw, good.std, good.novelty, good.model) == (
        "a.png",
        61.25,
        0.125,
        4.0,
        None,
        "m@1",
    )
    assert (bad.status, bad.error, bad.score) == ("error", "b.png does not exist", None)


def test_endings() -> None:
    assert is_score_file("x/Scores.JSONL")
    assert not is_score_file("a.png")
    assert not is_score_file("folder")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.jsonl", '{"path": "a"', "line 1 of .*r.jsonl is not valid JSON"),
        ("r.jsonl", '{"path": "a", "status": "ok"}\n{"score": 3}\n', "line 2 of .* is no row of scores"),
        ("r.jsonl", '{"path": "a", "status": "fine"}', "line 1 of .* has the status 'fine'; it must be ok or error"),
        (
            "r.jsonl",
            '{"path": "a", "status": "ok", "score": "high"}',
            "line 1 of .*: score must be a number, but it is 'high'",
        ),
        ("r.json", '{"path": "a"}', "is no list of rows"),
        ("r.csv", "name,value\na,1\n", "row 1 of .* is no row of scores"),
        ("r.csv", "path,status,score\na.png,ok,nan\n", "row 1 of .*: score must be a number, but it is 'nan'"),
        ("r.csv", "", "is empty"),
    ],
)
def test_what_is_no_file_of_scores_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_score_file(tmp_path / name)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        read_score_file(tmp_path / "no.csv")
