from __future__ import annotations

import csv
import os
import resource
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from iqakit.cli.app import main
from iqakit.plugins.catalog import catalog

SMALL = ["--backbone", "tiny", "--weights", "random:0", "--adapter", "linear"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def make_pictures(directory: Path, count: int, seed: int) -> None:
    """Pictures from blurred (bad) to sharp (good), and their scores."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        pixels = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        radius = 4 * (1 - index / (count - 1))
        picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))
        picture.save(directory / f"{index:02d}.png")
        rows.append((f"{index:02d}.png", 1 + 4 * index / (count - 1)))
    with (directory / "scores.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "mos"))
        writer.writerows(rows)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pictures") / "blur"
    make_pictures(directory, 24, seed=1)
    return directory


@pytest.fixture(scope="session")
def model(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small"
    assert main(["--quiet", "fit", str(pictures), *SMALL, "--model", str(directory)]) == 0
    return directory


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the program in this process: exit code and both streams."""

    def call(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Within ``with file_size_limit(N)``, no file can grow beyond N bytes, as on a disk that is full."""
    return _file_size_limit


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test in its own directory, with no variable of iqakit's set and a catalog of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("IQAKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IQAKIT_DISABLED_PLUGINS", "*")
    catalog.cache_clear()
    yield
    catalog.cache_clear()


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Put a little distribution with a plugin on the search path of this process."""
    monkeypatch.delenv("IQAKIT_DISABLED_PLUGINS", raising=False)
    modules = []

    def put(name: str, source: str) -> Path:
        module = name.replace("-", "_")
        root = tmp_path / "site" / name
        metadata = root / f"{module}-0.7.dist-info"
        metadata.mkdir(parents=True)
        (root / f"{module}.py").write_text(textwrap.dedent(source))
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.7\n")
        (metadata / "entry_points.txt").write_text(f"[iqakit]\n{module} = {module}\n")
        monkeypatch.syspath_prepend(str(root))
        modules.append(module)
        catalog.cache_clear()
        return root

    yield put
    for module in modules:
        sys.modules.pop(module, None)
