from __future__ import annotations

import json
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import ConfigurationError, FileFormatError
from iqakit.storage.canonical_json import canonical_json, parse_json, readable_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_round_trip_is_exact(value: Any) -> None:
    text = canonical_json(value)
    assert text.isascii()
    back = parse_json(text, "x")
    assert repr(back) == repr(json.loads(json.dumps(value, sort_keys=True)))
    assert canonical_json(back) == text
    assert parse_json(readable_json(value), "x") == value


def test_one_spelling() -> None:
    assert canonical_json({"b": (1, 2.0, -0.0), "a": {"ü": None}}) == '{"a":{"\\u00fc":null},"b":[1,2.0,-0.0]}'
    assert canonical_json(types.MappingProxyType({"b": 1, "a": 2})) == canonical_json({"a": 2, "b": 1})


def looped() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": float("nan")}, r"^config\['a'\] cannot be written as JSON: nan is not a finite number$"),
        ([1.0, float("-inf")], r"config\[1\] cannot be written as JSON: -inf is not a finite number"),
        ({1: "a"}, "the key 1 is not text"),
        ({"a": {1}}, r"config\['a'\] cannot be written as JSON: it is a set; use text, numbers, lists and mappings"),
        (looped(), "nested too deeply"),
        pytest.param(10**5000, "nested too deeply or too large a number", id="huge"),
    ],
)
def test_refuses_to_write(value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        canonical_json(value, "config")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1,"a":2}', r"^model.json is not valid JSON \(the key 'a' stands twice\); it is damaged or was edited"),
        ('{"a":NaN}', "NaN is not a finite number"),
        ("[-Infinity]", "-Infinity is not a finite number"),
        ("[1e999]", "1e999 is not a finite number"),
        ('{"a":', "model.json is not valid JSON"),
        ("", "model.json is not valid JSON"),
        (b"\xff\xfe", "model.json is not valid JSON"),
        pytest.param("[" * 200_000, "model.json is not valid JSON", id="deep"),
        pytest.param("9" * 5000, "model.json is not valid JSON", id="huge"),
    ],
)
def test_refuses_to_read(text: str | bytes, message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        parse_json(text, "model.json")
    assert "\n" not in str(caught.value)
