from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.contracts import CombinerEntry
from iqakit.errors import ConfigurationError, PluginError, UnknownNameError
from iqakit.plugins.settings import describe_settings, make_config, parse_assignments


@dataclass(frozen=True)
class Config:
    count: int = 3
    rate: float = 0.5
    flip: bool = True
    name: str = "x"
    mode: Literal["fast", "slow"] = "fast"
    level: Literal[1, 2] = 1
    limit: int | None = None
    warm: float | None = 0.1
    spread: tuple[float, float] = (0.0, 1.0)
    steps: tuple[int, ...] = (1, 2)
    either: int | str = 1
    where: Path = Path()

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ConfigurationError(f"count must not be negative, but it is {self.count}")
        if self.rate > 10:
            raise ValueError("rate is too high")


ENTRY = CombinerEntry("mixer", "s", Config, lambda config: config)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "12", 12),
        ("count", " 12 ", 12),
        ("rate", "1e-3", 0.001),
        ("flip", "false", False),
        ("flip", "No", False),
        ("flip", "0", False),
        ("flip", "yes", True),
        ("flip", "TRUE", True),
        ("name", "3", "3"),
        ("mode", "slow", "slow"),
        ("level", "2", 2),
        ("limit", "none", None),
        ("limit", "5", 5),
        ("warm", "None", None),
        ("spread", "0.2,0.8", (0.2, 0.8)),
        ("spread", "(1, 2)", (1.0, 2.0)),
        ("steps", "4,5,6", (4, 5, 6)),
        ("steps", "4", (4,)),
        ("steps", "", ()),
        ("either", "7", 7),
        ("either", "seven", "seven"),
        ("where", "a/b", Path("a/b")),
    ],
)
def test_values_are_parsed_to_the_type_of_the_field(key: str, text: str, value: Any) -> None:
    found = getattr(make_config(ENTRY, {key: text}), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("count", "1.5", "a whole number"),
        ("count", "", "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", "nan", "a number"),
        ("rate", "inf", "a number"),
        ("flip", "maybe", "true or false"),
        ("flip", "2", "true or false"),
        ("mode", "medium", "one of fast, slow"),
        ("level", "3", "one of 1, 2"),
        ("limit", "many", "a whole number or none"),
        ("spread", "1", "2 values with commas between"),
        ("spread", "1,x", "2 values with commas between"),
        ("steps", "1,b", "a whole number or several, with commas between"),
    ],
)
def test_a_bad_value_is_named_with_what_is_wanted(key: str, text: str, wanted: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_config(ENTRY, {key: text})
    assert str(caught.value).startswith(f"{key}={text} of mixer: ")
    assert wanted in str(caught.value)


def test_unknown_setting_comes_with_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="no setting of mixer is named 'coutn'; did you mean count"):
        make_config(ENTRY, {"coutn": "1"})


def test_nothing_said_keeps_the_defaults() -> None:
    assert make_config(ENTRY, {}) == Config()


def test_a_config_checks_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"^count must not be negative, but it is -1$"):
        make_config(ENTRY, {"count": "-1"})
    with pytest.raises(ConfigurationError, match=r"^mixer does not take rate=11: rate is too high$"):
        make_config(ENTRY, {"rate": "11"})


def test_types_that_cannot_be_resolved_are_the_plugins_fault() -> None:
    @dataclass(frozen=True)
    class Odd:
        a: NotThere = 1  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(PluginError, match="the types of odd's settings cannot be read"):
        make_config(CombinerEntry("odd", "s", Odd, print), {})


def test_settings_are_described_in_order() -> None:
    described = {setting.name: (setting.wanted, setting.default) for setting in describe_settings(ENTRY)}
    assert list(described)[:3] == ["count", "rate", "flip"]
    assert described["limit"] == ("a whole number or none", None)
    assert described["mode"] == ("one of fast, slow", "fast")


def test_assignments() -> None:
    assert parse_assignments(["a=1", "learning-rate = 2 ", "b=x=y", "a=3"]) == {
        "a": "3",
        "learning_rate": "2",
        "b": "x=y",
    }
    for text in ("a", "=1", " =1"):
        with pytest.raises(ConfigurationError, match="--set takes key=value, not"):
            parse_assignments([text])


@given(
    count=st.integers(0, 10**12),
    rate=st.floats(-1e9, 10, allow_nan=False),
    flip=st.booleans(),
    steps=st.lists(st.integers(-99, 99), min_size=1, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_text_of_a_value_gives_the_value_back(count: int, rate: float, flip: bool, steps: list[int]) -> None:
    texts = {"count": str(count), "rate": repr(rate), "flip": str(flip), "steps": str(tuple(steps))}
    assert make_config(ENTRY, texts) == Config(count=count, rate=rate, flip=flip, steps=tuple(steps))
