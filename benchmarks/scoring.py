"""How fast scoring is, beside what it could be and what others do.

    python benchmarks/scoring.py [--parts runtimes tasks authors pyiqa latency long] [--backbone NAME] [--images 24]
                                 [--side 512] [--rounds 3] [--long 10000] [--pyiqa-python PYTHON]

Everything runs in turns within one run, so that ratios hold whatever else the machine does. Prints tables and writes
``benchmarks/results/scoring.json``; parts left out keep the figures they had. Images are JPEGs made here; weights do not
matter for speed, so heads and normalization of the tasks are random.

- ``runtimes``: images a second from files through each runtime, one task, beside the bare network on ready arrays.
- ``tasks``: the same for 1, 3 and 6 tasks that each have normalization of their own, default combiner.
- ``authors``: the loop of the authors of task-specific normalization: T + 1 passes one after the other, one image at a
  time, normalization copied into the network before each, centroids read from disk for every image.
- ``pyiqa``: pyiqa's own scoring (``nima``) of the same network with random weights, where pyiqa is installed.
- ``latency``: from the start of ``iqakit score one.jpg`` to its end, graphs in the cache, beside the interpreter alone.
- ``long``: memory and images a second over a long run of small images.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iqakit.combiners.kmeans import KMeansGate
from iqakit.combiners.settings import KMeansConfig
from iqakit.contracts import Adapter, Calibration
from iqakit.functional.pooling import gate_features
from iqakit.imaging.batching import Prepared, prepare_source
from iqakit.imaging.preprocessing import preprocessing_for
from iqakit.pipeline.fitting import DEFAULT_BACKBONE
from iqakit.pipeline.model import QualityModel
from iqakit.plugins.catalog import make_backbone
from iqakit.runtimes.choice import FASTEST_FIRST, installed
from iqakit.storage.model_directory import BackboneFacts, add_task
from iqakit.storage.results import write_json

PARTS = ("runtimes", "tasks", "authors", "pyiqa", "latency", "long")
RESULTS = Path(__file__).parent / "results" / "scoring.json"
WEIGHTS = "random:0"
TASKS = (1, 3, 6)
LONG_SIDE = 96
PYIQA_SIDE = 224
PYIQA_IMAGES = 96
"""Small images are scored fast: a few would measure how long a run takes to begin."""


def make_photos(directory: Path, count: int, side: int) -> list[Path]:
    """JPEGs of smooth noise, which decode about as fast as photos do."""
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        paths.append(directory / f"{index:03d}.jpg")
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(paths[-1], quality=92)
    return paths


def make_model(directory: Path, backbone_name: str, tasks: int, own_norms: bool = True) -> Path:
    """A model whose tasks each have normalization of their own, or none have; nothing of it is learned."""
    backbone = make_backbone(backbone_name, WEIGHTS)
    facts = BackboneFacts(backbone.id, WEIGHTS, backbone.fingerprint())
    own = dict(backbone.module.state_dict())
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for number in range(tasks):
        factor = 1 + 0.01 * (number + 1)
        adapter = Adapter(
            task=f"task{number}",
            method="tsn",
            backbone_id=backbone.id,
            backbone_fingerprint=facts.fingerprint,
            tensors={name: own[name] * factor for name in backbone.norm_tensor_names() if own_norms},
            head_kind="cosine",
            head_weight=torch.randn(1, backbone.embedding_dim, generator=generator),
            head_bias=None,
            features="embedding",
            preprocessing=preprocessing_for(backbone.input),
            calibration=Calibration(0.0, 100.0, 0.0, 0.2, 8.0),
        )
        stages = [torch.rand(150, width, generator=generator) for width in backbone.stage_dims]
        gate = KMeansGate(KMeansConfig(repeats=1, iterations=5))
        state = dict(gate.fit_task(state, adapter.task, gate_features(stages)))
        add_task(directory, facts, adapter, {"kmeans": state}, "For a benchmark; not learned.\n")
    return directory


def rate(run: Callable[[], Any], images: int) -> float:
    """Images a second of one call."""
    began = time.perf_counter()
    run()
    return images / (time.perf_counter() - began)


def in_turns(ways: dict[str, Callable[[], Any]], images: int, rounds: int) -> dict[str, float]:
    """Median images a second of each way, taken in turns; the first turn warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            speed = rate(run, images)
            if turn:
                found[name].append(speed)
    return {name: round(statistics.median(speeds), 3) for name, speeds in found.items()}


def graph_runtimes() -> list[str]:
    return [name for name in FASTEST_FIRST if installed(name)]


def score_all(model: QualityModel, photos: Sequence[Path]) -> Callable[[], Any]:
    def run() -> None:
        rows = list(model.score_many(photos, skip_below=None))
        assert all(row.status == "ok" for row in rows)

    return run


def bare_network(model: QualityModel, runtime: str, photos: Sequence[Path]) -> Callable[[], Any]:
    """The bare network on ready arrays: the limit of that runtime."""
    items = [prepare_source(photo, model.preprocessing) for photo in photos]
    ready = [np.ascontiguousarray(item.image[None]) for item in items if isinstance(item, Prepared)]
    if runtime == "torch":
        backbone = model.backbone
        tensors = [torch.from_numpy(array).contiguous(memory_format=torch.channels_last) for array in ready]

        def run() -> None:
            with torch.inference_mode():
                for tensor in tensors:
                    backbone.forward(tensor)

        return run
    from iqakit.runtimes.graph_export import fold_norms, trace_network
    from iqakit.runtimes.graph_session import open_session

    graph = fold_norms(trace_network(model.backbone, model.preprocessing)).SerializeToString()
    session = open_session(graph, runtime)

    def run_graph() -> None:
        for array in ready:
            session.run({"image": array})

    return run_graph


def authors_loop(model: QualityModel, photos: Sequence[Path], place: Path) -> Callable[[], Any]:
    """The published loop's shape: all of it once an image, centroids from disk."""
    parts = model.parts
    state = parts.states["kmeans"]
    for name, tensor in state.items():
        np.save(place / f"{name.replace('/', '-')}.npy", tensor.numpy())
    network = parts.backbone.module
    own = dict(network.state_dict())
    original = {name: own[name].clone() for name in parts.backbone.norm_tensor_names()}

    def run() -> None:
        for photo in photos:
            item = prepare_source(photo, model.preprocessing)
            assert isinstance(item, Prepared)
            tensor = torch.from_numpy(item.image)[None]
            with torch.no_grad():
                heads = []
                for adapter in parts.adapters:
                    for name, value in adapter.tensors.items():
                        own[name].copy_(value)
                    embedding = network(tensor).embedding
                    heads.append(torch.nn.functional.cosine_similarity(embedding, adapter.head_weight))
                for name, value in original.items():
                    own[name].copy_(value)
                gate = gate_features(network(tensor).stages)
                distances = []
                for task in parts.tasks:
                    stages = [place / f"{task}-stage{number}.npy" for number in range(1, len(gate) + 1)]
                    centroids = [
                        (torch.from_numpy(np.load(path)), gate[n]) for n, path in enumerate(stages) if path.exists()
                    ]
                    distances.append(torch.stack([torch.cdist(seen, known).amin(1) for known, seen in centroids]))
                weights = torch.softmax(-32 * torch.stack(distances, 2), 2).mean(0)
                float((weights * torch.stack(heads, 1)).sum())

    return run


def measure_runtimes(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    photos = make_photos(work, options.images, options.side)
    directory = make_model(work / "one", options.backbone, 1)
    ways: dict[str, Callable[[], Any]] = {}
    # One task with normalization of its own takes two passes an image: the gate's and the head's.
    for runtime in ("torch", *graph_runtimes()):
        model = QualityModel.load(directory, runtime=runtime)
        ways[f"{runtime}, scored"] = score_all(model, photos)
        ways[f"{runtime}, bare network"] = bare_network(model, runtime, photos)
    speeds = in_turns(ways, options.images, options.rounds)
    runtimes = ["torch", *graph_runtimes()]
    return {
        "images_per_second": speeds,
        "passes_an_image": 2,
        "times_the_limit": {
            name: round(speeds[f"{name}, bare network"] / (2 * speeds[f"{name}, scored"]), 3) for name in runtimes
        },
    }


def measure_tasks(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    photos = make_photos(work, max(4, options.images // 3), options.side)
    found: dict[str, Any] = {}
    for tasks in TASKS:
        directory = make_model(work / f"tasks{tasks}", options.backbone, tasks)
        models = {name: QualityModel.load(directory, runtime=name) for name in ("torch", *graph_runtimes())}
        ways = {name: score_all(model, photos) for name, model in models.items()}
        found[str(tasks)] = in_turns(ways, len(photos), options.rounds)
    return found


def measure_authors(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    photos = make_photos(work, max(4, options.images // 3), options.side)
    directory = make_model(work / "three", options.backbone, 3)
    slow = QualityModel.load(directory, runtime="torch")
    ways = {"authors' loop": authors_loop(slow, photos, work)}
    for name in ("torch", *graph_runtimes()):
        ways[name] = score_all(QualityModel.load(directory, runtime=name), photos)
    speeds = in_turns(ways, len(photos), options.rounds)
    return {"tasks": 3, "images_per_second": speeds, "times_the_loop": _times(speeds, "authors' loop")}


_PYIQA = """
import sys
import timm, torch
whole = timm.create_model
timm.create_model = lambda *given, **named: whole(*given, **{**named, "pretrained": False})
import pyiqa
backbone, photos = sys.argv[1], sys.argv[2:]
metric = pyiqa.create_metric("nima", device="cpu", base_model_name=backbone, pretrained=False)
for _ in sys.stdin:
    for photo in photos:
        with torch.no_grad():
            float(metric(photo))
    print("done", flush=True)
"""


def measure_pyiqa(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Its metric ``nima`` takes any timm network and 224x224 pixels; iqakit takes the same, with one linear task.

    Both take turns, as the speed of a machine changes from one minute to the next: pyiqa waits in a process of its own.
    """
    python = options.pyiqa_python or sys.executable
    photos = make_photos(work, PYIQA_IMAGES, PYIQA_SIDE)
    directory = make_model(work / "linear", options.backbone, 1, own_norms=False)
    ways = {name: score_all(QualityModel.load(directory, runtime=name), photos) for name in ("torch", *graph_runtimes())}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            [python, "-c", _PYIQA, options.backbone, *map(str, photos)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as theirs,
    ):
        assert theirs.stdin is not None
        assert theirs.stdout is not None
        asked, answers = theirs.stdin, theirs.stdout

        def one_turn() -> None:
            asked.write("\n")
            asked.flush()
            if not answers.readline():
                raise BrokenPipeError

        try:
            speeds = in_turns({**ways, "pyiqa": one_turn}, len(photos), options.rounds)
        except BrokenPipeError:
            said.seek(0)
            return {"left_out": f"pyiqa could not be run: {(said.read().strip().splitlines() or ['no word'])[-1][:200]}"}
        asked.close()
    return {"side": PYIQA_SIDE, "images_per_second": speeds, "times_pyiqa": _times(speeds, "pyiqa")}


def measure_latency(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    (photo,) = make_photos(work, 1, options.side)
    program = "import sys; from iqakit.cli.app import main; sys.exit(main(sys.argv[1:]))"
    found: dict[str, Any] = {}
    for name in ("auto", "torch", *graph_runtimes()):
        command = [sys.executable, "-c", program, "score", str(photo), "--runtime", name, "--format", "json"]
        subprocess.run(command, check=True, capture_output=True)  # makes the graph where there is none
        found[name] = _seconds(command, options.rounds)
    found["python alone"] = _seconds([sys.executable, "-c", "pass"], options.rounds)
    return {"model": "default", "seconds": found}


def _seconds(command: Sequence[str], rounds: int) -> float:
    taken = []
    # Installed packages are compiled to bytecode once; a development setting that forbids it would be timed otherwise.
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=surroundings)
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=surroundings)
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken), 3)


def measure_long(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Memory is read in steps of a hundredth of the run; the first twentieth warms up."""
    photos = make_photos(work, 64, LONG_SIDE)
    directory = make_model(work / "long", options.backbone, 1)
    model = QualityModel.load(directory, runtime="auto")

    def endless() -> Iterator[Path]:
        return islice(cycle(photos), options.long)

    step = max(1, options.long // 100)
    memory, marks = [], [time.perf_counter()]
    for index, row in enumerate(model.score_many(endless()), start=1):
        assert row.status == "ok"
        if index % step == 0:
            memory.append(resident())
            marks.append(time.perf_counter())
    speeds = [step / (later - earlier) for earlier, later in pairwise(marks)]
    fifth, warm = max(1, len(speeds) // 5), len(speeds) // 20
    start, end = statistics.median(speeds[warm : warm + fifth]), statistics.median(speeds[-fifth:])
    return {
        "runtime": model.runtime,
        "images": options.long,
        "images_per_second_at_the_start": round(start, 2),
        "images_per_second_at_the_end": round(end, 2),
        "end_to_start": round(end / start, 3),
        "megabytes_after_warming_up": round(memory[warm], 1),
        "megabytes_at_the_end": round(memory[-1], 1),
        "megabytes_at_most": round(max(memory), 1),
    }


def resident() -> float:
    """Megabytes that this process holds."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _times(speeds: dict[str, float], base: str) -> dict[str, float]:
    return {name: round(speed / speeds[base], 2) for name, speed in speeds.items() if name != base}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--pyiqa-python", help="an interpreter that has pyiqa; else this one")
    options = parser.parse_args()
    measures = {
        "runtimes": measure_runtimes,
        "tasks": measure_tasks,
        "authors": measure_authors,
        "pyiqa": measure_pyiqa,
        "latency": measure_latency,
        "long": measure_long,
    }
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    result["setup"] = {
        "backbone": options.backbone,
        "side": options.side,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads_of_torch": torch.get_num_threads(),
    }
    for part in options.parts:
        with tempfile.TemporaryDirectory(prefix="iqakit-scoring-") as place:
            # Graphs of models that are thrown away must not fill the user's cache.
            os.environ["IQAKIT_HOME"] = str(Path(place) / "home")
            began = time.perf_counter()
            result[part] = measures[part](options, Path(place))
            result[part]["seconds_taken"] = round(time.perf_counter() - began, 1)
        print(f"{part}: {json.dumps(result[part], indent=1)}", flush=True)
        write_json(RESULTS, result)


if __name__ == "__main__":
    main()
