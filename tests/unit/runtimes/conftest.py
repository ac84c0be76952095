"""Models made without training: what graphs must reproduce is any tensors, not good ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.combiners.kmeans import KMeansGate
from iqakit.combiners.settings import KMeansConfig
from iqakit.contracts import Adapter, Calibration
from iqakit.functional.heads import head_input_dim
from iqakit.functional.pooling import gate_features
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.storage.model_directory import BackboneFacts, add_task


def write_model(directory: Path, tasks: int, *, calibrated: bool = True, kind: str = "tiny") -> Path:
    """A model of some tasks: the first is a linear head on the bare backbone, the others lay tensors over it."""
    backbone = create_tiny(kind, "random:3")
    generator = torch.Generator().manual_seed(tasks)
    state: dict[str, torch.Tensor] = {}
    for number in range(tasks):
        names = backbone.norm_tensor_names() if number else ()
        own = dict(backbone.module.state_dict())
        tensors = {name: own[name] * (1 + 0.3 * torch.rand(own[name].shape, generator=generator)) for name in names}
        all_stages = number % 2 == 0
        width = head_input_dim("all-stages" if all_stages else "embedding", backbone.embedding_dim, backbone.stage_dims)
        adapter = Adapter(
            task=f"task{number}",
            method="tsn" if number else "linear",
            backbone_id=backbone.id,
            backbone_fingerprint=backbone.fingerprint(),
            tensors=tensors,
            head_kind="linear" if all_stages else "cosine",
            head_weight=torch.randn(1, width, generator=generator),
            head_bias=torch.tensor([0.2]) if all_stages else None,
            features="all-stages" if all_stages else "embedding",
            preprocessing=preprocessing_for(backbone.input),
            calibration=Calibration(5.0 + number, 90.0, 0.1 * number, 0.8, 6.0 + number) if calibrated else None,
        )
        stages = [torch.rand(20, dim, generator=generator) for dim in backbone.stage_dims]
        gate = KMeansGate(KMeansConfig(clusters=4, repeats=1))
        state = dict(gate.fit_task(state, adapter.task, gate_features(stages)))
        if number != 1:  # what ladders tell of, as not every task has them
            faults = [torch.rand(5, dim, generator=generator) for dim in backbone.stage_dims]
            state = dict(gate.fit_copies(state, adapter.task, gate_features(faults)))
            shifts = [0.1 * torch.randn(9, dim, generator=generator) for dim in backbone.stage_dims]
            state = dict(gate.fit_shifts(state, adapter.task, shifts))
        facts = BackboneFacts(backbone.id, "random:3", backbone.fingerprint())
        add_task(directory, facts, replace(adapter), {"kmeans": state}, "A model for tests.\n")
    return directory


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives a model directory of so many tasks; made when first asked for."""
    place = tmp_path_factory.mktemp("graph-models")
    made: dict[str, Path] = {}

    def model(tasks: int, calibrated: bool = True) -> Path:
        name = f"model{tasks}{'' if calibrated else '-raw'}"
        if name not in made:
            made[name] = write_model(place / name, tasks, calibrated=calibrated)
        return made[name]

    return model
