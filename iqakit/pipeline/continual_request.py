"""What ``continual`` is asked for, checked before anything is learned: orders, and each method's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator

from iqakit.contracts import AdapterEntry
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config, parse_assignments, split_settings


@dataclass(frozen=True, slots=True)
class Order:
    """One order of the tasks.

    Attributes:
        name: As it was asked for.
        tasks: The tasks, first learned first.
    """

    name: str
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """One method with its settings.

    Attributes:
        entry: Its entry in the catalog.
        settings: Its settings as typed.
        preset: Name of its preset, or None.
        config: All its settings, as plain text by name.
        version: The version of the distribution that brings it.
    """

    entry: AdapterEntry
    settings: Mapping[str, str]
    preset: str | None
    config: Mapping[str, str]
    version: str

    @property
    def name(self) -> str:
        """What users type."""
        return self.entry.name

    @property
    def independent(self) -> bool:
        """Whether a task can be learned apart from the others."""
        return self.entry.independent and not self.entry.needs_earlier_data


def orders_of(asked: Sequence[str], tasks: Sequence[str]) -> list[Order]:
    """The orders asked for, each once.

    Args:
        asked: ``given``, ``reverse``, ``random:SEED`` or the tasks' names with commas between; none: ``given``.
        tasks: The tasks' names as given.

    Raises:
        ConfigurationError: An order is none of these, or does not name every task once.
    """
    orders: dict[tuple[str, ...], Order] = {}
    for text in asked or ["given"]:
        order = Order(text, _order(text, tuple(tasks)))
        orders.setdefault(order.tasks, order)
    return list(orders.values())


def _order(text: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
    if text == "given":
        return tasks
    if text == "reverse":
        return tasks[::-1]
    kind, colon, number = text.partition(":")
    if kind == "random" and colon:
        if not (number.isascii() and number.isdigit() and int(number) < 2**63):
            raise ConfigurationError(f"order {text!r}: random takes a seed, such as random:1")
        mixed = torch.randperm(len(tasks), generator=Generator().manual_seed(int(number)))
        return tuple(tasks[index] for index in mixed.tolist())
    named = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in named if name not in tasks]:
        if len(named) == 1:
            raise ConfigurationError(
                f"order {text!r} is not known; give given, reverse, random:SEED or all tasks with commas between: "
                f"{','.join(tasks)}"
            )
        raise UnknownNameError.of("task", unknown[0], tasks, f"The order was {text!r}.")
    if sorted(named) != sorted(tasks):
        raise ConfigurationError(f"order {text!r} must name every task once; the tasks are {', '.join(tasks)}")
    return named


def methods_of(
    names: Sequence[str], assignments: Sequence[str], preset: str | None
) -> tuple[list[Method], dict[str, dict[str, str]]]:
    """The methods asked for with their settings, and the combiners' settings.

    Args:
        names: Names of fit methods.
        assignments: ``key=value`` for every method that has such a setting, ``ADAPTER:key=value`` for one method,
            ``COMBINER.key=value`` for a combiner.
        preset: A preset, for every method that has it.

    Returns:
        The methods in the order given, each once; each combiner's settings by its name.

    Raises:
        ConfigurationError: A value is not of its type, or nobody has the setting or the preset.
        UnknownNameError: There is no such method or combiner.
    """
    entries = [catalog().adapter(name, "fit") for name in dict.fromkeys(names)]
    own: dict[str, list[str]] = {entry.name: [] for entry in entries}
    plain: list[str] = []
    for text in assignments:
        key, _, value = text.partition("=")
        adapter, colon, rest = key.partition(":")
        if not colon:
            plain.append(text)
        elif adapter.strip() in own:
            own[adapter.strip()].append(f"{rest}={value}" if "=" in text else rest)
        else:
            raise UnknownNameError.of("adapter of this run", adapter.strip(), own, f"--set {key} is for that adapter.")
    shared, theirs = split_settings(parse_assignments(plain), catalog().combiners)
    for key in shared:
        if not any(key in _fields(entry) for entry in entries):
            known = {name for entry in entries for name in _fields(entry)}
            raise UnknownNameError.of(f"setting of {' or '.join(own)}", key, known)
    if preset is not None and not any(preset in entry.presets for entry in entries):
        known = {name for entry in entries for name in entry.presets}
        raise UnknownNameError.of(f"preset of {' or '.join(own)}", preset, known)
    methods = []
    for entry in entries:
        settings = {key: text for key, text in shared.items() if key in _fields(entry)}
        settings |= parse_assignments(own[entry.name])
        its_preset = preset if preset is not None and preset in entry.presets else None
        config = make_config(entry, settings, its_preset)
        plain_config = {name: str(value) for name, value in asdict(config).items()}
        part = catalog().adapters[entry.name]
        methods.append(Method(entry, settings, its_preset, plain_config, f"{part.distribution} {part.version}"))
    for name, settings in theirs.items():
        make_config(catalog().combiner(name), settings)
    return methods, theirs


def _fields(entry: AdapterEntry) -> set[str]:
    """Names of a method's settings."""
    fields: Mapping[str, Any] = getattr(entry.config, "__dataclass_fields__", {})
    return set(fields)
