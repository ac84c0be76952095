"""Registers the combiner ``prototype``. Importing this loads no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqakit.contracts import CombinerEntry
from iqakit.errors import ConfigurationError
from iqakit.hookspecs import hookimpl

if TYPE_CHECKING:
    from iqakit.contracts import Combiner


@dataclass(frozen=True, slots=True)
class PrototypeConfig:
    """Settings of the prototype gate.

    Attributes:
        temperature: Sharpness of the softmin over tasks; 0 weighs all tasks alike.

    Raises:
        ConfigurationError: A setting is out of range.
    """

    temperature: float = 32.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigurationError(
                f"combiner prototype: temperature must be finite and 0 or more; found {self.temperature}; 32 is usual"
            )


def _create(config: PrototypeConfig) -> Combiner:
    from iqakit_prototype.gate import PrototypeGate

    return PrototypeGate(config)


@hookimpl
def iqakit_combiners() -> Iterable[CombinerEntry]:
    """The one combiner of this plugin."""
    return [
        CombinerEntry(
            "prototype", "Weigh each task by how near the image lies to the task's mean image", PrototypeConfig, _create
        )
    ]
