"""A model as one file: small, whole, and scored without iqakit to the same figure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from iqakit.cli.app import main
from iqakit.pipeline.model import QualityModel
from iqakit.runtimes.choice import installed

pytestmark = pytest.mark.skipif(
    not all(installed(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs iqakit[fast]"
)
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "score_with_onnxruntime.py"


def test_an_exported_model_scores_alike_with_neither_iqakit_nor_torch(
    tiny_model: Path, rated_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    file = tmp_path / "model.onnx"
    assert main(["export", "--model", str(tiny_model), "-o", str(file)]) == 0
    assert "MB in" in capsys.readouterr().err
    model = QualityModel.load(tiny_model)
    record = json.loads(next(held.value for held in onnx.load(file).metadata_props if held.key == "iqakit"))
    assert (record["model"], record["tasks"], record["combiner"]) == (model.version, ["sharpness"], "kmeans")
    large = tmp_path / "large.jpg"
    Image.open(rated_photos / "images" / "p001.png").resize((1100, 830)).save(large, quality=95)
    for photo in (rated_photos / "images" / "p000.png", large):
        alone = ["-c", f"import sys, runpy; sys.argv = [{str(EXAMPLE)!r}, {str(file)!r}, {str(photo)!r}];"
                       f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__');"
                       "assert not {'torch', 'iqakit'} & set(sys.modules)"]  # fmt: skip
        done = subprocess.run([sys.executable, *alone], capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == pytest.approx(model.score(photo).score, abs=0.05)


def test_export_says_what_it_wants(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path / "model.bin")]) == 2
    assert "does not end in .onnx; name a file such as model.onnx" in capsys.readouterr().err
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path / "m.onnx"), "--combiner", "oracle"]) == 2
    assert "needs to be told the task" in capsys.readouterr().err
