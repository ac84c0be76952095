"""Registers the baselines of continual learning. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from iqakit.contracts.entries import AdapterEntry
from iqakit.hookspecs import hookimpl
from iqakit_baselines.settings import BaselineConfig, EwcConfig, LwfConfig, MasConfig, ReplayConfig, SiConfig

if TYPE_CHECKING:
    from iqakit.contracts.adapter import FitMethod

__all__ = [
    "BaselineConfig",
    "EwcConfig",
    "LwfConfig",
    "MasConfig",
    "ReplayConfig",
    "SiConfig",
    "iqakit_adapters",
]


def _creator(name: str) -> Callable[[Any], FitMethod]:
    def create(config: Any) -> FitMethod:
        from iqakit_baselines.methods import METHODS

        return METHODS[name](config)

    return create


def _entry(
    name: str,
    summary: str,
    config: type[BaselineConfig] = BaselineConfig,
    *,
    independent: bool = False,
    needs_earlier_data: bool = False,
) -> AdapterEntry:
    return AdapterEntry(
        name,
        "fit",
        summary,
        config,
        _creator(name),
        independent=independent,
        needs_earlier_data=needs_earlier_data,
    )


@hookimpl
def iqakit_adapters() -> Iterable[AdapterEntry]:
    """The baselines, in the order of how much they do against forgetting."""
    return (
        _entry("separate", "A whole network a task, fine-tuned from the pretrained one", independent=True),
        _entry("joint", "One network and head for all tasks, learned together", needs_earlier_data=True),
        _entry("sequential", "One network and one head, fine-tuned from task to task: it forgets"),
        _entry("sequential-heads", "One network, fine-tuned from task to task, and a head a task"),
        _entry("lwf", "Learning without forgetting: old heads keep their predictions on the new images", LwfConfig),
        _entry("ewc", "Elastic weight consolidation: weights with a large Fisher information stay", EwcConfig),
        _entry("si", "Synaptic intelligence: weights that lowered earlier losses stay", SiConfig),
        _entry("mas", "Memory aware synapses: weights that earlier predictions depend on stay", MasConfig),
        _entry("replay", "Experience replay: a few images of earlier tasks are learned again and again", ReplayConfig),
    )
