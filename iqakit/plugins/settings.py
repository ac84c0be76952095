"""Settings typed as ``key=value`` become a part's config."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from iqakit.contracts import AdapterEntry, CombinerEntry
from iqakit.errors import ConfigurationError, PluginError, UnknownNameError

_TRUE = frozenset(("true", "yes", "1", "on"))
_FALSE = frozenset(("false", "no", "0", "off"))


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a part, for people to read.

    Attributes:
        name: Its key.
        wanted: What values it takes, in words.
        default: Its value where nothing is said.
    """

    name: str
    wanted: str
    default: Any


def parse_assignments(texts: Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` texts; the last one of a key counts.

    Raises:
        ConfigurationError: A text has no ``=`` or no key.
    """
    settings: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"--set takes key=value, not {text!r}")
        part, dot, name = key.strip().rpartition(".")
        settings[f"{part}{dot}{name.replace('-', '_')}"] = value.strip()
    return settings


def make_config(entry: AdapterEntry | CombinerEntry, settings: Mapping[str, str], preset: str | None = None) -> Any:
    """Make a part's config, parsing each value to the type of its field.

    Args:
        entry: The part.
        settings: Values as typed, by name of the field; what is left out is as in the preset, else the default.
        preset: Name of one of the adapter's presets.

    Raises:
        UnknownNameError: The part has no such setting or preset; the message holds near matches.
        ConfigurationError: A value is not of the type, or not one of the choices; the message names key, value and
            what is wanted.
        PluginError: The part's config cannot be used at all.
    """
    known = _field_types(entry)
    values: dict[str, Any] = {} if preset is None else _preset(entry, preset)
    for key, text in settings.items():
        if key not in known:
            raise UnknownNameError.of(f"setting of {entry.name}", key, known)
        try:
            values[key] = _parse(text, known[key])
        except ValueError as error:
            raise ConfigurationError(f"{key}={text} of {entry.name}: {_wanted(known[key])} is wanted") from error
    try:
        return entry.config(**values)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={text}" for key, text in settings.items()) or "the defaults"
        raise ConfigurationError(f"{entry.name} does not take {given}: {error}") from error


def split_settings(
    settings: Mapping[str, str], combiners: Iterable[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Tell a method's settings from those of combiners, which are written ``COMBINER.key=value``.

    Args:
        settings: Values as typed.
        combiners: Names of the combiners there are.

    Returns:
        The method's settings, and each combiner's by its name.

    Raises:
        UnknownNameError: A setting names a combiner that does not exist.
    """
    known = list(combiners)
    own: dict[str, str] = {}
    theirs: dict[str, dict[str, str]] = {}
    for key, text in settings.items():
        name, dot, inner = key.partition(".")
        if not dot:
            own[key] = text
        elif name in known:
            theirs.setdefault(name, {})[inner] = text
        else:
            raise UnknownNameError.of("combiner", name, known, f"--set {key} is for a combiner.")
    return own, theirs


def _preset(entry: AdapterEntry | CombinerEntry, name: str) -> dict[str, Any]:
    """The settings of a preset."""
    presets = entry.presets if isinstance(entry, AdapterEntry) else {}
    if not presets:
        raise ConfigurationError(f"{entry.name} has no presets, but {name!r} was asked for; leave --preset out")
    if name not in presets:
        raise UnknownNameError.of(f"preset of {entry.name}", name, presets)
    return dict(presets[name])


def describe_settings(entry: AdapterEntry | CombinerEntry) -> list[Setting]:
    """A part's settings with what they take and their defaults, in the order of its config.

    Raises:
        PluginError: The part's config cannot be used at all.
    """
    known = _field_types(entry)
    config = make_config(entry, {})
    return [Setting(name, _wanted(kind), getattr(config, name)) for name, kind in known.items()]


def _field_types(entry: AdapterEntry | CombinerEntry) -> dict[str, Any]:
    """Name and type of each field that can be set."""
    try:
        hints = typing.get_type_hints(entry.config)
    except (NameError, TypeError) as error:
        raise PluginError(f"the types of {entry.name}'s settings cannot be read: {error}") from error
    return {field.name: hints[field.name] for field in dataclasses.fields(entry.config) if field.init}


def _parse(text: str, kind: Any) -> Any:
    """A value of one type from its text; ValueError where it is none."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is str:
        return text
    if kind is bool:
        return _parse_bool(text)
    if kind is int:
        return int(text)
    if kind is float:
        return _parse_float(text)
    if kind is Path:
        return Path(text)
    if kind is type(None):
        if text.lower() in ("none", ""):
            return None
        raise ValueError(text)
    if origin is Literal:
        for choice in arguments:
            if text == str(choice):
                return choice
        raise ValueError(text)
    if origin in (Union, types.UnionType):
        return _parse_union(text, arguments)
    if origin is tuple:
        return _parse_tuple(text, arguments)
    raise ValueError(f"settings of type {kind} cannot be typed")


def _parse_bool(text: str) -> bool:
    """True or false in words; ``bool("false")`` would be true."""
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(text)


def _parse_float(text: str) -> float:
    """A finite number: neither infinity nor not-a-number is a sensible setting."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _parse_union(text: str, members: tuple[Any, ...]) -> Any:
    """The first member that takes the text; None first and text last, as that takes everything."""
    order = sorted(members, key=lambda member: 0 if member is type(None) else 2 if member is str else 1)
    for member in order:
        try:
            return _parse(text, member)
        except ValueError:
            continue
    raise ValueError(text)


def _parse_tuple(text: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values with commas between them, brackets allowed."""
    inner = text.strip().removeprefix("(").removesuffix(")").strip().removesuffix(",")
    pieces = [piece.strip() for piece in inner.split(",")] if inner else []
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_parse(piece, arguments[0]) for piece in pieces)
    if len(pieces) != len(arguments):
        raise ValueError(text)
    return tuple(_parse(piece, kind) for piece, kind in zip(pieces, arguments, strict=True))


def _wanted(kind: Any) -> str:
    """What a type takes, in words."""
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        Path: "a path",
        type(None): "none",
        Any: "a text",
    }
    if kind in names:
        return names[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_wanted(member) for member in sorted(arguments, key=lambda member: member is type(None)))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"{_wanted(arguments[0])} or several, with commas between"
        return f"{len(arguments)} values with commas between ({', '.join(_wanted(member) for member in arguments)})"
    return f"a {getattr(kind, '__name__', kind)} (which cannot be typed)"
