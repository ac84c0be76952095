"""How a model is to adapt to the images at hand: what was asked for, checked. Loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from iqakit.contracts import AdapterEntry
from iqakit.errors import ConfigurationError, UnknownNameError
from iqakit.pipeline.adaptation_limits import AUTO_METHOD, AUTO_SETTINGS
from iqakit.plugins.catalog import catalog
from iqakit.plugins.settings import make_config, split_settings

NONE: Final = "none"
AUTO: Final = "auto"
MODES: Final = ("episodic", "online")
ORDERS: Final = ("shuffled", "given")
DEFAULT_BATCH: Final = 8
DEFAULT_RESET: Final = 20
"""Batches after which an online run starts from the source again."""
WINDOW_BATCHES: Final = 16
"""Batches of one window: within it images are mixed, and its rows wait for each other."""


@dataclass(frozen=True, slots=True)
class AdaptationRequest:
    """How to adapt. ``make_adaptation_request`` makes one.

    Attributes:
        name: What was asked for: ``"auto"`` or a method's name.
        method: The method's name.
        config: Its settings, as its entry makes them.
        batch: Images that are adapted to together, at most.
        mode: ``"episodic"``: every batch starts from the source. ``"online"``: from what the batch before it left.
        order: ``"shuffled"``: images are mixed within a window, by ``order_seed``. ``"given"``: taken as they come.
        seed: Seed of what the method draws; the same for every batch, so that a batch depends on no other.
        order_seed: Seed of the mixing.
        reset: Batches after which an online run starts from the source again; 0: never.
    """

    name: str
    method: str
    config: Any
    batch: int = DEFAULT_BATCH
    mode: str = "episodic"
    order: str = "shuffled"
    seed: int = 0
    order_seed: int = 0
    reset: int = DEFAULT_RESET

    @property
    def auto(self) -> bool:
        """Whether each batch decides for itself if it adapts."""
        return self.name == AUTO

    @property
    def window(self) -> int:
        """Images of one window."""
        return self.batch * WINDOW_BATCHES

    @property
    def carries(self) -> bool:
        """Whether a batch's scores depend on the batches before it."""
        return self.mode == "online" or getattr(self.config, "mode", None) == "published"

    def decisive(self) -> dict[str, Any]:
        """What decides the scores, as plain JSON."""
        facts = dataclasses.asdict(self) | {"config": _plain(dataclasses.asdict(self.config))}
        return facts if self.mode == "online" else {key: value for key, value in facts.items() if key != "reset"}


def make_adaptation_request(
    name: str | None,
    settings: Mapping[str, str] | None = None,
    *,
    batch: int = DEFAULT_BATCH,
    mode: str = "episodic",
    order: str = "shuffled",
    seed: int = 0,
    order_seed: int | None = None,
    reset: int = DEFAULT_RESET,
) -> AdaptationRequest | None:
    """See that what was asked for makes sense.

    Args:
        name: ``"none"`` or None, ``"auto"``, or the name of a test-time method.
        settings: The method's settings, as ``--set`` gives them.
        batch: See ``AdaptationRequest``; 1 or more.
        mode: ``"episodic"`` or ``"online"``.
        order: ``"shuffled"`` or ``"given"``.
        seed: Seed of what the method draws.
        order_seed: Seed of the mixing; None: ``seed``.
        reset: See ``AdaptationRequest``.

    Returns:
        The request; None where no adaptation is asked for.

    Raises:
        UnknownNameError: There is no such method or setting.
        ConfigurationError: A value makes no sense, or settings are given for no method.
    """
    if name is None or name == NONE:
        if settings:
            raise ConfigurationError(
                f"settings of test-time adaptation were given ({', '.join(settings)}), but no method; name one with tta"
            )
        return None
    for what, value, choices in (("mode", mode, MODES), ("order", order, ORDERS)):
        if value not in choices:
            raise ConfigurationError(f"the {what} of test-time adaptation is {' or '.join(choices)}, not {value!r}")
    for what, number, least in (
        ("batch", batch, 1),
        ("seed", seed, 0),
        ("order seed", order_seed or 0, 0),
        ("reset", reset, 0),
    ):
        if number < least:
            raise ConfigurationError(f"the {what} of test-time adaptation must be {least} or more, but it is {number}")
    method = AUTO_METHOD if name == AUTO else name
    given = dict(settings or {})
    if name == AUTO and given.get("mode") != "published":
        given = {**AUTO_SETTINGS, **given}
    config = make_config(find_method(method), given)
    return AdaptationRequest(
        name, method, config, batch, mode, order, seed, seed if order_seed is None else order_seed, reset
    )


def method_names() -> tuple[str, ...]:
    """Names of the test-time methods there are."""
    return tuple(name for name, part in catalog().adapters.items() if part.entry.kind == "test-time")


def find_method(name: str) -> AdapterEntry:
    """The entry of a test-time method.

    Raises:
        UnknownNameError: There is none of that name.
    """
    entry = catalog().adapters[name].entry if name in catalog().adapters else None
    if entry is not None and entry.kind == "test-time":
        return entry
    if entry is not None:
        raise ConfigurationError(
            f"{name} learns from scores and cannot adapt to unscored images; test-time methods are: "
            f"{', '.join(method_names()) or 'none'}"
        )
    catalog_error = UnknownNameError.of("test-time method", name, [NONE, AUTO, *method_names()], every=True)
    # A name that two plugins claim, or whose plugin is set aside, has a better story than that it does not exist.
    if any(conflict.kind == "adapter" and conflict.name == name for conflict in catalog().conflicts):
        catalog().adapter(name)
    raise catalog_error


def divide_settings(
    settings: Mapping[str, str], combiner: str, combiners: Iterable[str], adapting: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Tell a combiner's settings from those of a test-time method.

    ``COMBINER.key=value`` is always the combiner's. A plain ``key=value`` is the method's where there is one, else the
    combiner's.

    Args:
        settings: What ``--set`` gave.
        combiner: The combiner that is used.
        combiners: Names of the combiners there are.
        adapting: Whether a test-time method is used.

    Returns:
        The combiner's settings, and the method's.

    Raises:
        UnknownNameError: A setting names a combiner that does not exist.
        ConfigurationError: A setting is for a combiner that is not used.
    """
    plain, by_combiner = split_settings(settings, combiners)
    others = sorted(set(by_combiner) - {combiner})
    if others:
        raise ConfigurationError(
            f"--set {others[0]}.{next(iter(by_combiner[others[0]]))} is for combiner {others[0]}, but {combiner} is used"
        )
    own = by_combiner.get(combiner, {})
    return (own, plain) if adapting else ({**plain, **own}, {})


def _plain(value: Any) -> Any:
    """Settings as JSON holds them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
