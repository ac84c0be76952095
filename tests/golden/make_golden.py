"""Makes the golden files of format 2 beside this script. Run it only when a new format is added; old ones never change.

The content is written out in plain numbers, so that it depends on no random generator and no other part of iqakit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from iqakit.contracts import Adapter, Calibration, Preprocessing
from iqakit.storage.adapter_file import write_adapter
from iqakit.storage.model_directory import BackboneFacts, add_task

HERE = Path(__file__).parent / "format-2"
FINGERPRINT = "0123456789abcdef" * 4


def ramp(*shape: int, start: float = 0.0) -> torch.Tensor:
    """Numbers that rise by a quarter; exact in binary."""
    return start + 0.25 * torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def linear_adapter() -> Adapter:
    return Adapter(
        task="gallery",
        method="tsn",
        backbone_id="tiny",
        backbone_fingerprint=FINGERPRINT,
        tensors={"bn.weight": ramp(3, start=1), "bn.bias": ramp(3), "bn.running_var": ramp(3, start=0.5)},
        head_kind="linear",
        head_weight=ramp(1, 5, start=-0.5),
        head_bias=torch.tensor([0.1]),
        features="embedding",
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        calibration=Calibration(low=2.5, high=97.5, centre=0.125, width=0.75, residual=8.25),
        config={"epochs": 3, "learning_rate": 0.001, "stages": [1, 2], "augment": True},
        provenance={"data": {"images": 12, "name": "Größe"}, "seed": 7, "note": None},
    )


def cosine_adapter() -> Adapter:
    return Adapter(
        task="my-camera_2.1",
        method="linear",
        backbone_id="tiny",
        backbone_fingerprint=FINGERPRINT,
        tensors={},
        head_kind="cosine",
        head_weight=ramp(1, 9, start=-1),
        head_bias=None,
        features="all-stages",
        preprocessing=Preprocessing(
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            interpolation="bicubic",
            shorter_side=None,
            smallest_side=64,
            multiple=32,
            fixed_size=(224, 192),
            max_pixels=1_000_000,
        ),
    )


def isotonic_adapter() -> Adapter:
    """What format 1 could not say: an isotonic calibration, a tilt, and a residual that depends on the score."""
    knots = ((-0.5, 12.5), (0.0, 30.0), (0.1, 62.5), (0.75, 87.5))
    curve = Calibration(12.5, 87.5, 0.125, 0.75, 8.25, "isotonic", knots, 0.0001, "bounded")
    return replace(linear_adapter(), task="isotonic", calibration=curve)


def write_all(place: Path) -> None:
    """Write every golden file of format 2 below ``place``."""
    place.mkdir(parents=True, exist_ok=True)
    write_adapter(linear_adapter(), place / "linear.safetensors")
    write_adapter(cosine_adapter(), place / "cosine-all-stages.safetensors")
    write_adapter(isotonic_adapter(), place / "isotonic.safetensors")
    facts = BackboneFacts("tiny", "random:0", FINGERPRINT)
    first = {"gallery/stage0": ramp(2, 3), "gallery/stage1": ramp(2, 4)}
    second = {**first, "my-camera_2.1/stage0": ramp(2, 3, start=5), "my-camera_2.1/stage1": ramp(2, 4, start=6)}
    shared = {"conv.weight": ramp(2, 1, 2, 2), "counts": torch.tensor([3, 4])}
    model = place / "model"
    add_task(model, facts, linear_adapter(), {"kmeans": first, "average": {}}, "# A model of one task\n")
    add_task(model, facts, cosine_adapter(), {"kmeans": second, "average": {}}, "# A model of two tasks\n", shared)


if __name__ == "__main__":
    write_all(HERE)
