"""Graphs on disk: made once a model, found again by fingerprint, never half written. Loads no torch.

One directory a model under ``<cache>/graphs``: ONNX files and ``graph.json``, which names each file's SHA-256 and holds
what is needed to use them. A directory is made beside and moved into place in one step; whoever comes second finds it
there and keeps it. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iqakit.errors import FileFormatError, IqakitError, StorageError
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic, write_error
from iqakit.storage.canonical_json import parse_json, readable_json
from iqakit.storage.home import cache_directory

RECORD_NAME = "graph.json"
FORMAT = "iqakit-graphs"
FORMAT_VERSION = 1
_ABANDONED_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """The graphs of one model, as they lie on disk.

    Attributes:
        directory: Where they lie.
        facts: What was written with them, plain JSON.
        sha256: SHA-256 of each file, by name.
    """

    directory: Path
    facts: Mapping[str, Any]
    sha256: Mapping[str, str]

    def read(self, name: str) -> bytes:
        """Content of one graph.

        Raises:
            StorageError: It is missing or cannot be read.
            FileFormatError: It is not what was written.
        """
        path = self.directory / name
        data = read_file_bytes(path, "graph")
        if hashlib.sha256(data).hexdigest() != self.sha256.get(name):
            raise FileFormatError(f"graph {path} has changed since it was written; delete {self.directory}")
        return data


def graphs_directory() -> Path:
    """Where graphs are kept: ``graphs`` in iqakit's cache."""
    return cache_directory() / "graphs"


def graph_key(parts: Mapping[str, Any]) -> str:
    """A name for graphs made of ``parts``, plain JSON: 40 hexadecimal digits."""
    text = json.dumps({**parts, "format": FORMAT_VERSION}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def find_graphs(key: str) -> GraphFiles | None:
    """The graphs of that name, or None where there are none that can be used."""
    directory = graphs_directory() / key
    path = directory / RECORD_NAME
    try:
        record = parse_json(read_file_bytes(path, "record of graphs"), f"record of graphs {path}")
    except IqakitError:
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("key") != key:
        return None
    facts, sha256 = record.get("facts"), record.get("sha256")
    if not isinstance(facts, dict) or not isinstance(sha256, dict) or record.get("checksum") != _checksum(record):
        return None
    return GraphFiles(directory, facts, sha256)


def keep_graphs(key: str, facts: Mapping[str, Any], graphs: Mapping[str, bytes]) -> GraphFiles:
    """Write graphs, unless another process was faster; then its own are given back.

    Args:
        key: Their name.
        facts: What is needed to use them, plain JSON.
        graphs: Serialised models by file name.

    Raises:
        StorageError: They cannot be written.
    """
    place = graphs_directory()
    final = place / key
    temporary = place / f".{key}.{secrets.token_hex(6)}.tmp"
    record: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "facts": dict(facts),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()},
    }
    record["checksum"] = _checksum(record)
    try:
        temporary.mkdir(parents=True)
        _remove_abandoned(place)
        for name, data in graphs.items():
            write_bytes_atomic(temporary / name, data, "graph")
        write_bytes_atomic(temporary / RECORD_NAME, readable_json(record, "record of graphs").encode(), "record of graphs")
        if (found := _move(temporary, final, key)) is not None:
            return found
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise write_error(final, "graphs to", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    raise StorageError(f"could not write graphs to {final}: something else is there; delete {final}")


def remove_graphs(files: GraphFiles) -> None:
    """Remove graphs that are damaged. In one step they are out of the way, so that nobody meets half of them."""
    with contextlib.suppress(OSError):
        _discard(files.directory)


def _move(temporary: Path, final: Path, key: str) -> GraphFiles | None:
    """Move a finished directory into place; what is there already stays if it is whole."""
    for _ in range(3):
        try:
            temporary.rename(final)
        except OSError:
            if (found := find_graphs(key)) is not None:
                return found
            if not final.exists():
                raise
            _discard(final)
        else:
            return find_graphs(key)
    return None


def _discard(directory: Path) -> None:
    aside = directory.with_name(f".{directory.name}.{secrets.token_hex(6)}.tmp")
    directory.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    """Remove what processes that were killed while they wrote have left behind."""
    for path in place.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _checksum(record: Mapping[str, Any]) -> str:
    held = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
