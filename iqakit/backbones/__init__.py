"""Built-in backbones: timm's networks, and a tiny one. Importing this loads neither torch nor timm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from iqakit.contracts.entries import BackboneEntry
from iqakit.hookspecs import hookimpl

if TYPE_CHECKING:
    from iqakit.contracts.backbone import Backbone


def _create_timm(name: str, weights: str) -> Backbone:
    from iqakit.backbones.timm_backbone import create_timm

    return create_timm(name, weights)


def _timm_names(pattern: str | None) -> Sequence[str]:
    from iqakit.backbones.timm_backbone import timm_names

    return timm_names(pattern)


def _create_tiny(name: str, weights: str) -> Backbone:
    from iqakit.backbones.tiny_backbone import create_tiny

    return create_tiny(name, weights)


def _tiny_names(pattern: str | None) -> Sequence[str]:
    from iqakit.backbones.tiny_backbone import tiny_names

    return tiny_names(pattern)


@hookimpl
def iqakit_backbones() -> Iterable[BackboneEntry]:
    """The built-in families of backbones."""
    return [
        BackboneEntry("timm", "Any network of timm, by timm's own name", _create_timm, _timm_names),
        BackboneEntry("tiny", "A tiny seeded network for tests and demos; no download", _create_tiny, _tiny_names),
    ]
