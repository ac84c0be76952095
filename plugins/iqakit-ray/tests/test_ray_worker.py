"""What needs no cluster: registration, what is said before Ray is asked, and a worker by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from iqakit_ray import cluster, iqakit_commands

from iqakit.cli.app import main
from iqakit.errors import ConfigurationError, MissingExtraError


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of nine little pictures, which lie in ``photos``; the current directory is theirs."""
    import numpy as np
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    lines = ["image,mos"]
    for index in range(9):
        pixels = np.random.default_rng(index).integers(0, 40 + 20 * index, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{index}.png")
        lines.append(f"photos/{index}.png,{1 + index / 2}")
    Path("scores.csv").write_text("\n".join(lines) + "\n")
    small = ["--backbone", "tiny", "--weights", "random:0", "--adapter", "linear", "--model", "model"]
    assert main(["-q", "fit", "scores.csv", *small]) == 0
    return tmp_path / "model"


def ray_score(*arguments: str) -> None:
    """The command without the program around it."""
    (entry,) = iqakit_commands()
    typer.main.get_command(entry.load())(list(arguments), standalone_mode=False)


def test_registration_loads_neither_torch_nor_ray() -> None:
    """Listing plugins must stay quick."""
    code = "import sys, iqakit_ray as p; list(p.iqakit_commands()); print({'torch', 'ray'} & set(sys.modules))"
    environ = dict(os.environ, PYTHONPATH=":".join(sys.path))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert found.stdout.strip() == "set()"
    (entry,) = iqakit_commands()
    assert entry.name == "ray-score"


def test_a_worker_gives_the_rows_of_score(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another directory, with paths as they were typed."""
    from iqakit.pipeline.model import QualityModel

    here = Path.cwd()
    paths = ["photos/3.png", "missing.png", "photos/1.png"]
    expected = [row.to_json() for row in QualityModel.load(model).score_many(paths, workers=0)]
    monkeypatch.chdir("/")
    scoring = cluster.Scoring(model=str(model), version=expected[0]["model"], directory=str(here))
    worker = cluster.Worker(scoring)
    (block,) = cluster._tables(iter(paths), 8)
    found = worker(block)
    assert found["index"].to_pylist() == [0, 1, 2]
    assert [json.loads(text) for text in found["row"].to_pylist()] == expected


def test_a_worker_says_what_is_missing_on_its_machine(model: Path) -> None:
    """Before it scores anything."""
    scoring = cluster.Scoring(model=str(model), version="other@1", directory=str(Path.cwd()))
    with pytest.raises(ConfigurationError, match=r" has model model@\w+, not other@1; put the same one on every machine"):
        cluster.Worker(scoring)
    scoring = cluster.Scoring(model=str(model), version="other@1", directory="/no/such/place")
    with pytest.raises(ConfigurationError, match="has no directory /no/such/place; images must lie under the same path"):
        cluster.Worker(scoring)


def test_the_model_is_named_so_that_every_machine_finds_it(model: Path) -> None:
    """By its name if it comes with the package, else by its whole path."""
    assert cluster.same_everywhere("model") == str(model)
    assert cluster.same_everywhere("default") == "default"


def test_without_ray_there_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no file is left behind."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'ray-score needs Ray; install it with: pip install "ray\[data\]"'):
        ray_score("photos", "--model", "model", "-o", "rows.jsonl")
    assert not list(Path().glob("*rows*"))


def test_rows_go_to_a_file() -> None:
    """Said before anything is loaded."""
    for output in ("rows.txt", "-"):
        with pytest.raises(ConfigurationError, match="writes to a file of jsonl, csv, parquet or json; name it with -o"):
            ray_score("photos", "-o", output)


def test_paths_that_are_no_text_travel() -> None:
    """As bytes, with their places."""
    odd = b"caf\xe9.png"
    tables = list(cluster._tables(iter(["a", os.fsdecode(odd), "c"]), 2))
    assert [table["path"].to_pylist() for table in tables] == [[b"a", odd], [b"c"]]
    assert [table["index"].to_pylist() for table in tables] == [[0, 1], [2]]


def test_what_a_worker_said_is_found_in_what_ray_says() -> None:
    """Ray wraps it in tracebacks of its own."""
    told = cluster._cause(
        RuntimeError("actor died\n  File x\niqakit.errors.ConfigurationError: vm has model a, not b; put it")
    )
    assert (type(told), str(told)) == (ConfigurationError, "vm has model a, not b; put it")
    told = cluster._cause(RuntimeError("one\nthe node is gone"))
    assert str(told) == "the cluster could not go on: the node is gone; see its logs, or use fewer --actors"


def test_an_address_at_which_nothing_listens_is_said_at_once() -> None:
    """Ray would try for many minutes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"answers at ray://127.0.0.1:{port}: .*refused; start one with: ray"):
            cluster.check_reachable(f"ray://127.0.0.1:{port}")
        taken.listen()
        cluster.check_reachable(f"127.0.0.1:{port}")
    cluster.check_reachable("auto")
    for wrong in ("here", "host:", ":80", "host:99999"):
        with pytest.raises(ConfigurationError, match="--address is auto, HOST:PORT or ray://HOST:PORT, not"):
            cluster.check_reachable(wrong)
