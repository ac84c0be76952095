"""Built-in combiners. This module registers them and loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from iqakit.combiners.settings import AverageConfig, KMeansConfig, LastConfig, OracleConfig
from iqakit.contracts.entries import CombinerEntry
from iqakit.hookspecs import hookimpl

if TYPE_CHECKING:
    from iqakit.contracts.combiner import Combiner


def _kmeans(config: KMeansConfig) -> Combiner:
    from iqakit.combiners.kmeans import KMeansGate

    return KMeansGate(config)


def _oracle(config: OracleConfig) -> Combiner:
    from iqakit.combiners.oracle import Oracle

    return Oracle(config)


def _average(config: AverageConfig) -> Combiner:
    from iqakit.combiners.average import Average

    return Average(config)


def _last(config: LastConfig) -> Combiner:
    from iqakit.combiners.last import Last

    return Last(config)


@hookimpl
def iqakit_combiners() -> Iterable[CombinerEntry]:
    """The built-in combiners."""
    return (
        CombinerEntry("kmeans", "Weigh each task by how near the image lies to its training images", KMeansConfig, _kmeans),
        CombinerEntry("oracle", "Use the head of the image's true task, which must be told", OracleConfig, _oracle),
        CombinerEntry("average", "Weigh all tasks alike", AverageConfig, _average),
        CombinerEntry("last", "Use the head of the task learned last", LastConfig, _last),
    )
