from __future__ import annotations

import json
from pathlib import Path

import pytest

from iqakit.errors import ConfigurationError, StorageError
from iqakit.storage.results import write_json


def test_json_for_people(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_json(path, {"b": [1, 0.5], "a": "x"})
    assert path.read_text() == '{\n "a": "x",\n "b": [\n  1,\n  0.5\n ]\n}\n'
    with pytest.raises(ConfigurationError, match=r"the content of .*r.json\['a'\] cannot be written as JSON: nan"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text())["a"] == "x"


def test_a_bad_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory; create the directory first"):
        write_json(tmp_path / "a" / "b.json", {})
