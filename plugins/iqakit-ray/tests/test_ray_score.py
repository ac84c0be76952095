"""``iqakit ray-score`` on a local cluster of two workers: the rows of ``iqakit score``, also when a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that scores here and in workers are the same to the bit
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

from iqakit_ray import cluster  # noqa: E402

from iqakit.cli.app import main  # noqa: E402
from iqakit.errors import ConfigurationError  # noqa: E402
from iqakit.plugins.catalog import catalog  # noqa: E402

IMAGES = 24


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with pictures, one of them broken, and a small model of them; the current directory while tests run."""
    import numpy as np
    from PIL import Image, ImageFilter

    directory = tmp_path_factory.mktemp("ray")
    (directory / "photos").mkdir()
    generator = np.random.default_rng(0)
    lines = ["image,mos"]
    for index in range(IMAGES):
        pixels = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(4 * (1 - index / IMAGES)))
        picture.save(directory / "photos" / f"{index:02d}.png")
        lines.append(f"photos/{index:02d}.png,{1 + 4 * index / IMAGES}")
    (directory / "scores.csv").write_text("\n".join(lines) + "\n")
    (directory / "photos" / "07b.png").write_bytes(b"no picture")
    before = Path.cwd()
    os.chdir(directory)
    catalog.cache_clear()
    small = ["--backbone", "tiny", "--weights", "random:0", "--adapter", "linear", "--model", "model"]
    assert main(["-q", "fit", "scores.csv", *small]) == 0
    assert main(["-q", "score", "photos", "missing.png", "--model", "model", "-o", "score.jsonl"]) == 1
    yield directory
    os.chdir(before)


@pytest.fixture(scope="module")
def local_cluster(here: Path) -> Iterator[Any]:
    """A cluster of two cores; made once, as that takes seconds."""
    paths = [str(Path(__file__).resolve().parents[1] / "src"), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for workers, where the plugin is not installed
    for attempt in range(4):
        try:
            connected = cluster.connect(None, 2)
            break
        except ConfigurationError:  # Ray gives its own processes no more than some seconds, which a busy machine may need
            ray.shutdown()
            if attempt == 3:
                raise
    yield connected
    connected.shutdown()


def score_on_ray(*more: str) -> int:
    """Run the command as a user would, in this process; the cluster is there."""
    from iqakit_ray.command import app

    return run(app, ["photos", "missing.png", "--model", "model", "--block", "3", *more])


def run(app: Any, arguments: list[str]) -> int:
    """A plugin's command without the program around it."""
    import typer

    try:
        result = typer.main.get_command(app)(arguments, standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    return int(result or 0)


def test_rows_are_those_of_score(here: Path, local_cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """To the byte, with an image that is broken and one that is missing among them."""
    assert score_on_ray("-o", "ray.jsonl") == 1
    assert Path("ray.jsonl").read_bytes() == Path("score.jsonl").read_bytes()
    assert f"{IMAGES} images scored, 2 failed" in capsys.readouterr().err


def test_a_worker_that_is_killed_in_the_middle_leaves_no_trace(
    here: Path, local_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real SIGKILL, while a worker holds a block; Ray starts another one and gives it that block."""
    kill = str(here / "killed")
    real = cluster.Worker

    class Mortal(real):  # type: ignore[misc, valid-type]
        """A worker that dies by a signal from outside in its second block, the first time."""

        blocks = 0

        def __call__(self, block: Any) -> Any:
            self.blocks += 1
            if self.blocks == 2:
                try:
                    descriptor = os.open(kill, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                except FileExistsError:
                    return super().__call__(block)
                os.write(descriptor, str(os.getpid()).encode())
                os.close(descriptor)
                time.sleep(60)  # it is killed here
            return super().__call__(block)

    monkeypatch.setattr(cluster, "Worker", Mortal)
    dead: list[int] = []
    watcher = threading.Thread(target=kill_who_is_named_in, args=(Path(kill), dead.append), daemon=True)
    watcher.start()
    assert score_on_ray("-o", "killed.jsonl") == 1
    watcher.join(timeout=5)
    assert len(dead) == 1
    assert not Path(f"/proc/{dead[0]}").exists() or sys.platform != "linux"
    assert Path("killed.jsonl").read_bytes() == Path("score.jsonl").read_bytes()


def kill_who_is_named_in(path: Path, tell: Callable[[int], None]) -> None:
    """Wait for a process's number in a file, and kill that process."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()):
            os.kill(int(text), signal.SIGKILL)
            tell(int(text))
            return
        time.sleep(0.02)


def test_a_cut_run_of_score_is_gone_on_with(here: Path, local_cluster: Any) -> None:
    """And the other way round: they write the same file and the same record."""
    whole = Path("score.jsonl").read_bytes()
    Path("cut.jsonl").write_bytes(whole[: len(whole) // 2])
    assert score_on_ray("-o", "cut.jsonl", "--resume") == 1
    assert Path("cut.jsonl").read_bytes() == whole
    assert main(["-q", "score", "photos", "missing.png", "--model", "model", "-o", "cut.jsonl", "--resume"]) == 1
    assert Path("cut.jsonl").read_bytes() == whole


def test_what_a_worker_cannot_do_is_one_line(here: Path, local_cluster: Any) -> None:
    """Its own words, and no traceback of Ray's."""
    scoring = cluster.Scoring(model=str(here / "model"), version="other@1", directory=str(here))
    with pytest.raises(ConfigurationError, match=r"has model model@\w+, not other@1; put the same one on every machine$"):
        list(cluster.score_on_cluster(local_cluster, ["photos/00.png"], scoring, workers=1))
