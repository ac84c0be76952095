"""Fixtures that several test rooms use."""

from __future__ import annotations

import contextlib
import csv
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# One thread a process, those that tests start included: the networks here are tiny, and threads that wait for each other on
# a busy machine make the suite many times slower. Must be said before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The suite holds figures to the bit, which only the CPU keeps; what runs on a GPU is in tests/gpu, for `make test-gpu`.
if os.environ.get("IQAKIT_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Graphs are made once a model, which takes seconds, and tests make many models; those of graphs say otherwise.
os.environ["IQAKIT_RUNTIME"] = "torch"

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def write_rated_photos(directory: Path, count: int = 36, side: int = 72, seed: int = 0) -> Path:
    """A directory with ``scores.csv``: textured pictures, blurred in eight degrees; the sharper, the higher the score."""
    generator = np.random.default_rng(seed)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        degree = index % 8
        coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)
        picture = picture.filter(ImageFilter.GaussianBlur(degree * 0.7))
        name = f"images/p{index:03d}.png"
        picture.save(directory / name)
        split = ("train", "train", "train", "val", "test", "train")[(index // 8 + index) % 6]
        rows.append(
            {"image": name, "mos": f"{5 - degree * 0.5 + generator.normal(0, 0.1):.4f}", "std": "0.4", "split": split}
        )
    with (directory / "scores.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return directory


@pytest.fixture(scope="session")
def rated_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One task: a directory with ``scores.csv`` of 36 small pictures."""
    return write_rated_photos(tmp_path_factory.mktemp("sharpness"))


@pytest.fixture(scope="session")
def make_rated_photos() -> Callable[..., Path]:
    """Makes more tasks: ``make_rated_photos(directory, count=..., seed=...)``."""
    return write_rated_photos


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real rated images; tests that need them are skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real rated images are not on this machine")
    return SHARED_DATA


@pytest.fixture
def untouched_global_state() -> Callable[[], None]:
    """Call it after the work: torch's and numpy's global random state are what they were."""
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002

    def check() -> None:
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002

    return check


@pytest.fixture(scope="session")
def tiny_model(rated_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one task, ``sharpness``, on the tiny backbone; read it, do not write to it."""
    from iqakit.pipeline.fitting import fit_tasks

    directory = tmp_path_factory.mktemp("models") / "tiny"
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", task="sharpness", model=directory)
    return directory


class ZooServer:
    """A web server on loopback that serves a directory, and misbehaves for the paths it is told to.

    Attributes:
        root: What it serves.
        modes: By the end of a path, how it answers: ``cut``, ``stall``, ``drip``, ``long``, ``short``, ``more``, ``wrong``,
            ``no-range``, ``other-range``, ``packed``, ``status N`` or ``redirect URL``; a list is used up one by one.
        asked: (path, Range header) of each request.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modes: dict[str, str | list[str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def mode(self, path: str) -> str:
        for end, mode in self.modes.items():
            if path.endswith(end):
                return mode if isinstance(mode, str) else (mode.pop(0) if mode else "")
        return ""

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for path, _ in self.asked)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append((request.path, asked))
        mode = self.mode(request.path)
        file = self.root / request.path.lstrip("/")
        if mode.startswith("redirect "):
            request.send_response(302)
            request.send_header("Location", mode.removeprefix("redirect "))
            request.end_headers()
            return
        if mode.startswith("status ") or not file.is_file():
            request.send_response(int(mode.removeprefix("status ")) if mode.startswith("status ") else 404)
            request.end_headers()
            return
        data = file.read_bytes()
        if mode == "wrong":
            data = bytes(255 - byte for byte in data)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and mode != "no-range" else 0
        body = data[start:] + (b"more" * 1000 if mode == "more" else b"")
        if start:
            request.send_response(206)
            shown = start - 1 if mode == "other-range" else start
            request.send_header("Content-Range", f"bytes {shown}-{len(data) - 1}/{len(data)}")
        else:
            request.send_response(200)
        length = len(body) + {"long": 10, "short": -10}.get(mode, 0)
        if mode != "more":
            request.send_header("Content-Length", str(length))
        if mode == "packed":
            request.send_header("Content-Encoding", "gzip")
        request.end_headers()
        if mode == "drip":
            for index in range(len(body)):
                request.wfile.write(body[index : index + 1])
                request.wfile.flush()
                if self.stopped.wait(0.02):
                    return
        elif mode in ("cut", "stall"):
            request.wfile.write(body[: len(body) // 2])
            request.wfile.flush()
            if mode == "stall":
                self.stopped.wait(20)
        else:
            request.wfile.write(body)


@pytest.fixture
def zoo_server(tmp_path: Path) -> Iterator[ZooServer]:
    """A web server of ``tmp_path / "site"`` that can misbehave."""
    (tmp_path / "site").mkdir()
    server = ZooServer(tmp_path / "site")
    yield server
    server.close()
