"""One file: every output is what torch gives, and weights that passes share are stored once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iqakit.pipeline.model import QualityModel
from iqakit.runtimes.choice import installed

pytestmark = pytest.mark.skipif(
    not all(installed(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs iqakit[fast]"
)


@pytest.mark.parametrize(("tasks", "combiner", "task"), [(4, "kmeans", None), (2, "oracle", "task1")])
def test_outputs_are_torchs(models: Callable[..., Path], tasks: int, combiner: str, task: str | None) -> None:
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    from iqakit.pipeline.exporting import export_model

    model = QualityModel.load(models(tasks), runtime="torch")
    data = export_model(model.parts, model.version, combiner, task)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    for height, width in ((70, 90), (33, 121)):
        picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = dict(zip(names, session.run(None, {"image": picture[None]}), strict=True))
        row = model.score(picture, combiner=combiner, task=task, skip_below=None)
        assert float(found["score"][0]) == pytest.approx(row.score, abs=0.05)
        assert float(found["std"][0]) == pytest.approx(row.std, abs=0.05)
        assert float(found["raw"][0]) == pytest.approx(row.raw, abs=1e-4)
        assert float(found["novelty"][0]) == pytest.approx(row.novelty, abs=1e-3)
        assert found["weights"][0] == pytest.approx(list(row.weights.values()), abs=1e-4)
        assert found["task_scores"][0] == pytest.approx(list(row.task_scores.values()), abs=1e-4)
    convolutions = {name: held for name, held in model.backbone.module.state_dict().items() if held.ndim == 4}
    stored = [numpy_helper.to_array(held) for held in onnx.load_from_string(data).graph.initializer]
    for held in convolutions.values():
        same = [array for array in stored if array.shape == tuple(held.shape) and np.array_equal(array, held.numpy())]
        assert len(same) == 1
