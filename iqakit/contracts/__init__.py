"""Protocols and frozen dataclasses: what crosses each door."""

from __future__ import annotations

from iqakit.contracts.adapter import (
    FEATURE_KINDS,
    HEAD_KINDS,
    Adapter,
    Calibration,
    Checkpoint,
    FeatureKind,
    FitContext,
    FitMethod,
    FitResult,
    HeadKind,
    Preprocessing,
    Progress,
    TaskData,
    TestTimeMethod,
)
from iqakit.contracts.backbone import Backbone, InputSpec, MapBackbone
from iqakit.contracts.combiner import Combiner, FaultCombiner, ShiftCombiner
from iqakit.contracts.dataset import Dataset, Sample, TaskFacts
from iqakit.contracts.entries import (
    AdapterEntry,
    BackboneEntry,
    CombinerEntry,
    CommandEntry,
    DatasetEntry,
    Entry,
    ModelEntry,
)
from iqakit.contracts.features import FeatureMaps, Features

__all__ = [
    "FEATURE_KINDS",
    "HEAD_KINDS",
    "Adapter",
    "AdapterEntry",
    "Backbone",
    "BackboneEntry",
    "Calibration",
    "Checkpoint",
    "Combiner",
    "CombinerEntry",
    "CommandEntry",
    "Dataset",
    "DatasetEntry",
    "Entry",
    "FaultCombiner",
    "FeatureKind",
    "FeatureMaps",
    "Features",
    "FitContext",
    "FitMethod",
    "FitResult",
    "HeadKind",
    "InputSpec",
    "MapBackbone",
    "ModelEntry",
    "Preprocessing",
    "Progress",
    "Sample",
    "ShiftCombiner",
    "TaskData",
    "TaskFacts",
    "TestTimeMethod",
]
