"""How fast images are decoded and prepared, and in how much memory.

    python benchmarks/decoding.py --images DIR [--limit N] [--model NAME]

Ways are timed in turns over the same files in one run, so that their ratios hold whatever else the machine does. Writes
``benchmarks/results/decoding.json`` and prints a table.

- ``pillow``: Pillow alone, pixels only. ``torchvision``: its own decoder, pixels only.
- ``pillow + torchvision``: Pillow, then torchvision's antialiased resize and normalisation, as people usually do it.
- ``decode``: iqakit's decoding, pixels only. ``prepare, N workers``: decoding and preparing in a stream of N threads.
- ``prepare, reduced``: the same where JPEG may be decoded smaller, down to a shorter side of REDUCE_TO.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, features
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from iqakit.contracts import Preprocessing
from iqakit.imaging.batching import Prepared, stream
from iqakit.imaging.channel_order import suspect_bgr
from iqakit.imaging.decoding import decode
from iqakit.imaging.preprocessing import resize_pixels, target_size

PRE = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
REDUCE_TO = 768
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
RESULTS = Path(__file__).parent / "results" / "decoding.json"

Way = Callable[[Sequence[Path]], None]


def pillow(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            np.asarray(picture.convert("RGB"))


def torchvision(paths: Sequence[Path]) -> None:
    for path in paths:
        decode_image(str(path), ImageReadMode.RGB)


def pillow_and_torchvision(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            image = v2.functional.pil_to_tensor(picture.convert("RGB"))
        size = target_size(image.shape[1], image.shape[2], PRE)
        image = v2.functional.resize(image, list(size), antialias=True)
        v2.functional.normalize(image.to(torch.float32) / 255, list(PRE.mean), list(PRE.std))


def decode_alone(paths: Sequence[Path]) -> None:
    for path in paths:
        decode(path)


def prepared(workers: int, reduce_to: int | None = None) -> Way:
    def way(paths: Sequence[Path]) -> None:
        done = sum(isinstance(item, Prepared) for item in stream(paths, PRE, workers=workers, reduce_to=reduce_to))
        if done != len(paths):
            raise SystemExit(f"{len(paths) - done} of {len(paths)} images could not be read")

    return way


WAYS: dict[str, Way] = {
    "pillow": pillow,
    "torchvision": torchvision,
    "pillow + torchvision": pillow_and_torchvision,
    "decode": decode_alone,
    "prepare, 0 workers": prepared(0),
    "prepare, 1 worker": prepared(1),
    "prepare, 2 workers": prepared(2),
    "prepare, 2 workers, reduced": prepared(2, REDUCE_TO),
}


def time_ways(paths: Sequence[Path], rounds: int) -> dict[str, dict[str, float]]:
    """Images a second and processor seconds an image of each way; the best round counts, as the others were disturbed."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for round_number in range(rounds + 1):
        for name, way in WAYS.items():
            wall, used = time.perf_counter(), time.process_time()
            way(paths[:4] if round_number == 0 else paths)  # the first round warms up
            if round_number:
                seconds[name].append((time.perf_counter() - wall, time.process_time() - used))
    best = {name: min(taken) for name, taken in seconds.items()}
    base = best["pillow"][0]
    return {
        name: {
            "images_per_second": len(paths) / wall,
            "times_pillow": base / wall,
            "cpu_ms_per_image": 1000 * used / len(paths),
            "cores_busy": used / wall,
        }
        for name, (wall, used) in best.items()
    }


def make_large(folder: Path, sources: Sequence[Path], count: int) -> list[Path]:
    """JPEG files of 12 megapixels with the contents of real images and the noise of a sensor."""
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        with Image.open(sources[index * len(sources) // count]) as picture:
            large = picture.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
        large = large.filter(ImageFilter.UnsharpMask(4, 80, 0))
        noise = generator.normal(0, 3, (3000, 4000, 1)).astype(np.float32)
        pixels = (np.asarray(large, dtype=np.float32) + noise).clip(0, 255).astype(np.uint8)
        path = folder / f"{index:03}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        paths.append(path)
    return paths


MEMORY_CODE = """
import resource, sys, time
from pathlib import Path
from iqakit.contracts import Preprocessing
from iqakit.imaging.batching import prepare_source
def peak():
    # ru_maxrss would start from the parent's peak; VmHWM is this process's own. Linux only.
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before, start = peak(), time.perf_counter()
made = prepare_source(sys.argv[1], Preprocessing((0.5,) * 3, (0.25,) * 3))
print(before, peak(), time.perf_counter() - start, *made.image.shape[1:])
"""


def memory(source: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Peak memory of decoding and preparing one picture of 12,000x9,000, each in a process of its own, MiB."""
    with Image.open(source) as picture:
        large = picture.convert("RGB").resize((12_000, 9_000), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[274] = 6
    files: dict[str, dict[str, Any]] = {
        "jpeg.jpg": {"quality": 90},
        "progressive.jpg": {"quality": 90, "progressive": True},
        "turned.jpg": {"quality": 90, "exif": turned},
        "png.png": {"compress_level": 1},
        "tiff.tif": {},
    }
    found: dict[str, dict[str, Any]] = {}
    for name, options in files.items():
        path = folder / name
        large.save(path, **options)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_CODE, str(path)], capture_output=True, text=True, check=True
        ).stdout.split()
        path.unlink()
        found[name] = {
            "before_mib": int(done[0]),
            "peak_mib": int(done[1]),
            "added_mib": int(done[1]) - int(done[0]),
            "seconds": float(done[2]),
            "prepared": [int(done[3]), int(done[4])],
        }
    return found


def pixels_of_reduced(paths: Sequence[Path]) -> dict[str, float]:
    """How far scaled decoding moves the resized pixels, in levels of 255."""
    mean, worst = [], []
    for path in paths:
        whole, reduced = decode(path), decode(path, reduce_to=REDUCE_TO)
        size = (whole.height, whole.width)
        difference = np.abs(
            resize_pixels(whole.pixels, PRE)[0].astype(np.int16)
            - resize_pixels(reduced.pixels, PRE, full_size=size)[0].astype(np.int16)
        )
        mean.append(float(difference.mean()))
        worst.append(float(difference.max()))
    return {"images": len(paths), "mean_levels": statistics.fmean(mean), "largest_levels": max(worst)}


def scores_of_reduced(paths: Sequence[Path], name: str) -> dict[str, float]:
    """How far scaled decoding moves the scores, in score points: pixels are resized here and given as pictures."""
    import iqakit

    model = iqakit.load(name)
    moved = []
    for path in paths:
        whole, reduced = decode(path), decode(path, reduce_to=REDUCE_TO)
        size = (whole.height, whole.width)
        scores = [
            model.score(Image.fromarray(resize_pixels(one.pixels, PRE, full_size=size)[0].transpose(1, 2, 0))).score
            for one in (whole, reduced)
        ]
        moved.append(abs(scores[0] - scores[1]))
    return {
        "images": len(moved),
        "mean_points": statistics.fmean(moved),
        "largest_points": max(moved),
        "share_within_0.1": sum(value <= 0.1 for value in moved) / len(moved),
    }


def suspected(paths: Sequence[Path]) -> dict[str, float]:
    """How often the guess at swapped channels is wrong on photos, and right on their swapped copies."""
    images = [decode(path).pixels for path in paths]
    return {
        "images": len(images),
        "suspected": sum(suspect_bgr(image) for image in images) / len(images),
        "found_when_swapped": sum(suspect_bgr(image[::-1]) for image in images) / len(images),
    }


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    print(f"{'':30}{'images/s':>10}{'x pillow':>10}{'cpu ms':>10}{'cores':>8}")
    for name, row in table.items():
        print(
            f"{name:30}{row['images_per_second']:10.1f}{row['times_pillow']:10.2f}"
            f"{row['cpu_ms_per_image']:10.1f}{row['cores_busy']:8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of decoding and preparing, and the memory they take.")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--limit", type=int, default=None, help="use only so many of them")
    parser.add_argument("--large", type=int, default=24, help="how many 12-megapixel JPEG files to make")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=None, help="also compare scores with and without scaled decoding")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in SUFFIXES)[: options.limit]
    if not paths:
        raise SystemExit(f"{options.images} holds no images")
    result: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pillow": Image.__version__,
            "libjpeg_turbo": features.version("libjpeg_turbo"),
        },
        "torch_threads": torch.get_num_threads(),
        "images": len(paths),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["gallery"] = time_ways(paths, options.rounds)
        show(f"{len(paths)} images of the folder given", result["gallery"])
        large = make_large(folder, paths, options.large)
        result["large"] = time_ways(large, options.rounds)
        show(f"{len(large)} JPEG files of 12 megapixels", result["large"])
        result["reduced_pixels"] = pixels_of_reduced(large)
        print("\nscaled decoding against full, resized pixels:", result["reduced_pixels"])
        if options.model:
            result["reduced_scores"] = scores_of_reduced(large, options.model)
            print("scaled decoding against full, scores:", result["reduced_scores"])
        result["memory_12000x9000"] = memory(paths[0], folder)
        print("\n12,000x9,000 pixels, one process each")
        for kind, row in result["memory_12000x9000"].items():
            print(f"{kind:18} {row['before_mib']:6} MiB before, {row['added_mib']:5} MiB added, {row['seconds']:5.2f} s")
    result["suspected_bgr"] = suspected(paths)
    print("\nsuspected-bgr:", result["suspected_bgr"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
