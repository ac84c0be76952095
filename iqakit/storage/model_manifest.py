"""``model.json``: what a model directory holds, with the SHA-256 of every file that scores depend on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from iqakit.errors import FileFormatError, IqakitError, NewerFormatError
from iqakit.storage.adapter_file import check_task_name
from iqakit.storage.canonical_json import parse_json, readable_json

FORMAT = "iqakit-model"
FORMAT_VERSION = 1

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Pure functions; number v takes the JSON of format v to format v + 1. Format 1 is the first."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """Which backbone a model stands on.

    Attributes:
        id: Its name.
        weights: Where its tensors came from, for people and for making it again.
        fingerprint: SHA-256 over its tensors; this decides.
    """

    id: str
    weights: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a model.

    Attributes:
        file: Its path within the directory, with forward slashes.
        sha256: SHA-256 of its bytes, in hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task of a model.

    Attributes:
        name: The task's name.
        file: Its adapter file's path within the directory, with forward slashes.
        sha256: SHA-256 of that file, in hexadecimal.
    """

    name: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What ``model.json`` says.

    Attributes:
        backbone: Which backbone the model stands on.
        tasks: The tasks, in the order learned.
        combiners: Names of the combiners that have learned the tasks, sorted.
        combiner: File of their tensors; None where they have none.
        shared: File of the tensors that replace the backbone's own; None where none are replaced.
        version: First 8 hexadecimal digits of the SHA-256 of ``model.json``; empty until it is written.
    """

    backbone: BackboneFacts
    tasks: tuple[TaskRecord, ...]
    combiners: tuple[str, ...] = ()
    combiner: FileRecord | None = None
    shared: FileRecord | None = None
    version: str = field(default="", compare=False)


def manifest_bytes(manifest: ModelManifest) -> bytes:
    """The bytes of ``model.json``; equal content, equal bytes."""
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "backbone": {
            "id": manifest.backbone.id,
            "weights": manifest.backbone.weights,
            "fingerprint": manifest.backbone.fingerprint,
        },
        "tasks": [{"name": task.name, "file": task.file, "sha256": task.sha256} for task in manifest.tasks],
        "combiners": list(manifest.combiners),
        "combiner": _file_json(manifest.combiner),
        "shared": _file_json(manifest.shared),
    }
    return readable_json(document, "model.json").encode("ascii")


def parse_manifest(data: bytes, what: str) -> ModelManifest:
    """Read ``model.json`` strictly.

    Args:
        data: Its bytes.
        what: What it is, for the error.

    Raises:
        FileFormatError: It is not JSON, is another program's, or a field is missing, unknown or wrong.
        NewerFormatError: A newer iqakit wrote it.
    """
    document = parse_json(data, what)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(f"{what} is not of an iqakit model; choose another --model")
    version = document.get("format_version")
    if type(version) is not int or version < 0:
        raise FileFormatError(
            f"{what} has the format version {str(version)[:40]!r}, which is no number; fetch or fit it again"
        )
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{what} is in format {version}, and this iqakit reads up to format {FORMAT_VERSION}; upgrade iqakit to use it"
        )
    for step in range(version, FORMAT_VERSION):
        if step not in UPGRADES:
            raise FileFormatError(f"{what} is in format {version}, which this iqakit cannot upgrade; fetch or fit it again")
        document = {**UPGRADES[step](document), "format_version": step + 1}
    try:
        return _manifest(document, hashlib.sha256(data).hexdigest()[:8])
    except (_BadManifestError, IqakitError) as error:
        raise FileFormatError(f"{what} is damaged or was edited: {error}; fetch or fit it again") from error


class _BadManifestError(Exception):
    """Why it cannot be a manifest."""


def _manifest(document: dict[str, Any], version: str) -> ModelManifest:
    _keys(document, "", {"format", "format_version", "backbone", "tasks", "combiners", "combiner", "shared"})
    backbone = _keys(document["backbone"], "backbone.", {"id", "weights", "fingerprint"})
    if not isinstance(document["tasks"], list) or not document["tasks"]:
        raise _BadManifestError("it lists no task")
    tasks = []
    for index, entry in enumerate(document["tasks"]):
        found = _keys(entry, f"tasks[{index}].", {"name", "file", "sha256"})
        name = check_task_name(_text(found["name"], f"tasks[{index}].name"))
        tasks.append(TaskRecord(name, _inner_path(found["file"]), _sha256(found["sha256"])))
    combiners = document["combiners"]
    if not isinstance(combiners, list):
        raise _BadManifestError("combiners is not a list")
    names = tuple(check_task_name(_text(name, "combiners")) for name in combiners)
    combiner, shared = _file_record(document["combiner"], "combiner."), _file_record(document["shared"], "shared.")
    files = [task.file for task in tasks] + [record.file for record in (combiner, shared) if record is not None]
    for kind, listed in (("task", [task.name for task in tasks]), ("combiner", list(names)), ("file", files)):
        if len(set(listed)) != len(listed):
            raise _BadManifestError(f"it names a {kind} twice")
    return ModelManifest(
        backbone=BackboneFacts(**{key: _text(value, f"backbone.{key}") for key, value in backbone.items()}),
        tasks=tuple(tasks),
        combiners=names,
        combiner=combiner,
        shared=shared,
        version=version,
    )


def _file_json(record: FileRecord | None) -> dict[str, str] | None:
    return None if record is None else {"file": record.file, "sha256": record.sha256}


def _file_record(found: Any, prefix: str) -> FileRecord | None:
    if found is None:
        return None
    entry = _keys(found, prefix, {"file", "sha256"})
    return FileRecord(_inner_path(entry["file"]), _sha256(entry["sha256"]))


def _keys(found: Any, prefix: str, expected: set[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _BadManifestError(f"{prefix.rstrip('.')} is not an object")
    if missing := sorted(expected - set(found)):
        raise _BadManifestError(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(set(found) - expected):
        raise _BadManifestError(f"{prefix}{unknown[0][:80]} is unknown")
    return found


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise _BadManifestError(f"{where} is {str(value)[:60]!r}, which it cannot be")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _BadManifestError(f"{str(value)[:80]!r} is not a SHA-256")
    return value


def _inner_path(value: Any) -> str:
    """A path that stays inside the directory on every system; links are looked at when the file is opened."""
    text = _text(value, "file")
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts or not parts or any(sign in text for sign in ("\\", ":", "\0")):
        raise _BadManifestError(f"the file name {text[:80]!r} leads out of the directory")
    return text
