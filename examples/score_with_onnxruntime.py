"""Score a photo with an exported model, without iqakit and torch: ``score_with_onnxruntime.py model.onnx photo.jpg``."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["iqakit"])["preprocessing"]
photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
short, side = min(photo.size), about["shorter_side"]
scale = side / short if side and short >= side else max(1, about["smallest_side"] / short)
if scale != 1:
    size = [max(1, int(length * scale + 0.5)) for length in photo.size]
    photo = photo.resize(size, Image.Resampling[about["interpolation"].upper()])
(score,) = session.run(["score"], {"image": np.asarray(photo)[None]})[0]
print(f"{score:.2f}")
