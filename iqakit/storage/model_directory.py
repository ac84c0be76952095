"""Model directories: read strictly, and added to so that no crash can spoil what was there.

``model.json`` is written last and names the SHA-256 of every file that scores depend on. A new adapter is a new file. The
two files that change with every task, ``combiner.safetensors`` and ``shared.safetensors``, are first kept beside under
another name; whoever reads takes the one whose SHA-256 is the one in ``model.json``. So after a crash at any point the
directory is the earlier model or the new one, whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iqakit.contracts.adapter import Adapter
from iqakit.errors import (
    ConfigurationError,
    FileFormatError,
    IqakitError,
    MismatchError,
    StorageError,
    TrainingError,
)
from iqakit.storage.adapter_file import adapter_bytes, check_task_name, names_not_finite, parse_adapter
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic, write_error
from iqakit.storage.directory_lock import locked_directory
from iqakit.storage.model_manifest import (
    BackboneFacts,
    FileRecord,
    ModelManifest,
    TaskRecord,
    manifest_bytes,
    parse_manifest,
)
from iqakit.storage.tensor_bytes import decode_tensors, encode_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BackboneFacts",
    "FileRecord",
    "ModelContent",
    "ModelManifest",
    "TaskRecord",
    "add_task",
    "check_files",
    "holds_model",
    "model_lock",
    "model_version",
    "read_manifest",
    "read_model",
]

MANIFEST_NAME = "model.json"
COMBINER_NAME = "combiner.safetensors"
SHARED_NAME = "shared.safetensors"
CARD_NAME = "CARD.md"

model_lock = locked_directory
"""Hold this around a whole fit, and say so to ``add_task`` with ``locked=True``."""

ModelContent = tuple[ModelManifest, list[Adapter], "dict[str, dict[str, Tensor]]", "dict[str, Tensor] | None"]


def holds_model(directory: Path | str) -> bool:
    """Whether there is a ``model.json``, sound or not."""
    return (Path(directory) / MANIFEST_NAME).exists()


def read_manifest(directory: Path | str) -> ModelManifest:
    """Read ``model.json`` alone; no other file is looked at.

    Raises:
        StorageError: There is no such directory, or it holds no model.
        FileFormatError: ``model.json`` is empty, truncated or edited.
        NewerFormatError: A newer iqakit wrote it.
    """
    place = Path(directory)
    path = place / MANIFEST_NAME
    if not place.exists():
        raise StorageError(f"there is no model at {place}; check the path, or make one with `iqakit fit`")
    if not place.is_dir():
        raise StorageError(f"{place} is a file, and a model is a directory; give the directory that holds model.json")
    if not path.exists():
        if any((place / "adapters").glob("*.safetensors")):
            raise StorageError(f"{place} holds adapters but no model.json: fitting was cut off; run `iqakit fit` again")
        raise StorageError(f"{place} is not an iqakit model: it holds no model.json; check the path, or run `iqakit fit`")
    return parse_manifest(read_file_bytes(path, "model file"), f"model file {path}")


def read_model(directory: Path | str) -> ModelContent:
    """Read a model; every file is checked against its SHA-256 before anything in it is believed.

    Returns:
        The manifest; the adapters in the order learned; each fitted combiner's state by combiner; and the tensors that
        replace the backbone's own, or None.

    Raises:
        StorageError: There is no model, or a file of it is missing or leads out of the directory.
        FileFormatError: A file is damaged or was changed, or has values that are not finite.
        NewerFormatError: A newer iqakit wrote it.
    """
    place = Path(directory)
    manifest = read_manifest(place)
    while True:
        try:
            return _read_files(place, manifest)
        except StorageError:
            # Somebody may have added a task between the two readings; then the files are of the newer model.
            latest = read_manifest(place)
            if latest.version == manifest.version:
                raise
            manifest = latest


def check_files(directory: Path | str) -> None:
    """See that every file that ``model.json`` names is there and unchanged; nothing is parsed.

    Raises:
        StorageError: There is no model, or a file of it is missing or leads out of the directory.
        FileFormatError: A file was changed.
    """
    place = Path(directory)
    manifest = read_manifest(place)
    for task in manifest.tasks:
        _recorded_bytes(place, FileRecord(task.file, task.sha256), "adapter file")
    for record, what in ((manifest.combiner, "combiner file"), (manifest.shared, "shared file")):
        if record is not None:
            _recorded_bytes(place, record, what)


def model_version(model: Path | str | ModelManifest) -> str:
    """First 8 hexadecimal digits of the SHA-256 of ``model.json``.

    Raises:
        StorageError: There is no model.
    """
    if isinstance(model, ModelManifest):
        return model.version or hashlib.sha256(manifest_bytes(model)).hexdigest()[:8]
    return read_manifest(model).version


def add_task(
    directory: Path | str,
    backbone: BackboneFacts,
    adapter: Adapter,
    combiner_states: Mapping[str, Mapping[str, Tensor]],
    card: str,
    shared: Mapping[str, Tensor] | None = None,
    *,
    locked: bool = False,
) -> ModelManifest:
    """Make a model of one task, or add the next task to one. Earlier adapter files are not touched.

    Args:
        directory: The model; made if it is missing.
        backbone: The backbone that ``adapter`` belongs on.
        adapter: The new task's adapter.
        combiner_states: State of each combiner after the new task. A combiner that is not named keeps what it has.
        card: Text of ``CARD.md``, which describes the model to people.
        shared: Tensors that replace the backbone's own from now on; those not named stay as they are.
        locked: The caller holds ``model_lock`` already.

    Returns:
        The new manifest.

    Raises:
        ConfigurationError: The model has a task of that name, or a combiner changed what it knew of an earlier task.
        MismatchError: The model stands on another backbone, or the adapter does.
        TrainingError: A tensor has values that are not finite.
        StorageError: It could not be written; the model is still what it was.
        FileFormatError: The model that is there is damaged.
    """
    with contextlib.nullcontext(Path(directory)) if locked else locked_directory(directory) as place:
        return _add_task(place, backbone, adapter, combiner_states, card, shared)


def _add_task(
    place: Path,
    backbone: BackboneFacts,
    adapter: Adapter,
    combiner_states: Mapping[str, Mapping[str, Tensor]],
    card: str,
    shared: Mapping[str, Tensor] | None,
) -> ModelManifest:
    check_task_name(adapter.task)
    _check_same_backbone(
        f"the adapter of task {adapter.task!r}", adapter.backbone_id, adapter.backbone_fingerprint, backbone
    )
    earlier: ModelManifest | None = None
    states: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] | None = None
    if holds_model(place):
        earlier, _, states, replaced = read_model(place)
        _check_addable(place, earlier, backbone, adapter.task)
    else:
        _check_startable(place)
    known = () if earlier is None else earlier.tasks
    for name, state in combiner_states.items():
        check_task_name(name)
        _check_kept(name, states.get(name, {}), state, [task.name for task in known])
        states[name] = dict(state)
    if shared is not None:
        replaced = {**(replaced or {}), **shared}
    # All bytes are made before the first file is touched, so that bad content changes nothing.
    data = adapter_bytes(adapter)
    flat = {f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()}
    for what, tensors in (("the combiners' state", flat), ("the shared tensors", replaced or {})):
        if bad := names_not_finite(tensors):
            raise TrainingError(f"{what}: values are not finite in {bad}; nothing was written")
    combiner_data = encode_tensors(flat, None, "the combiners' state") if flat else None
    shared_data = encode_tensors(replaced, None, "the shared tensors") if replaced else None
    task = TaskRecord(
        adapter.task, f"adapters/{len(known):02d}-{adapter.task}.safetensors", hashlib.sha256(data).hexdigest()
    )

    _make_directory(_inside(place, "adapters"))
    write_bytes_atomic(_inside(place, task.file), data, "adapter file")
    manifest = ModelManifest(
        backbone=backbone if earlier is None else earlier.backbone,
        tasks=(*known, task),
        combiners=tuple(sorted(states)),
        combiner=_replace_file(place, COMBINER_NAME, combiner_data, earlier.combiner if earlier else None),
        shared=_replace_file(place, SHARED_NAME, shared_data, earlier.shared if earlier else None),
    )
    write_bytes_atomic(_inside(place, CARD_NAME), card.encode("utf-8", errors="replace"), "model card")
    manifest_data = manifest_bytes(manifest)
    write_bytes_atomic(place / MANIFEST_NAME, manifest_data, "model file")
    for name in (COMBINER_NAME, SHARED_NAME):
        _remove(_previous(place / name))
    if earlier is not None:
        _remove_leftovers(place, manifest)
    return dataclasses.replace(manifest, version=hashlib.sha256(manifest_data).hexdigest()[:8])


def _replace_file(place: Path, name: str, data: bytes | None, record: FileRecord | None) -> FileRecord | None:
    """Write ``data`` where ``model.json`` will look for it, and keep what ``model.json`` looks for until then."""
    if data is None:
        if record is None:
            return None
        data = _recorded_bytes(place, record, name)
    sha256 = hashlib.sha256(data).hexdigest()
    if record is not None and record.sha256 != sha256:
        write_bytes_atomic(
            _previous(_inside(place, record.file)), _recorded_bytes(place, record, name), "copy of the model's state"
        )
    write_bytes_atomic(_inside(place, name), data, "model's state")
    return FileRecord(name, sha256)


def _read_files(place: Path, manifest: ModelManifest) -> ModelContent:
    adapters = []
    for task in manifest.tasks:
        what = f"adapter file {place / task.file}"
        adapter = parse_adapter(_recorded_bytes(place, FileRecord(task.file, task.sha256), "adapter file"), what)
        if adapter.task != task.name:
            raise FileFormatError(
                f"{what} is of task {adapter.task!r}, but model.json lists {task.name!r}; fetch or fit it again"
            )
        try:
            _check_same_backbone(what, adapter.backbone_id, adapter.backbone_fingerprint, manifest.backbone)
        except MismatchError as error:
            raise FileFormatError(f"model.json of {place} contradicts its adapters: {error}") from error
        adapters.append(adapter)
    states: dict[str, dict[str, Tensor]] = {name: {} for name in manifest.combiners}
    if manifest.combiner is not None:
        what = f"combiner file {place / manifest.combiner.file}"
        flat = _finite_tensors(_recorded_bytes(place, manifest.combiner, "combiner file"), what)
        for name, tensor in flat.items():
            combiner, _, key = name.partition("/")
            if combiner not in states or not key:
                raise FileFormatError(
                    f"{what} has a tensor {name[:80]!r} of no combiner in model.json; fetch or fit it again"
                )
            states[combiner][key] = tensor
    shared = None
    if manifest.shared is not None:
        what = f"shared file {place / manifest.shared.file}"
        shared = _finite_tensors(_recorded_bytes(place, manifest.shared, "shared file"), what)
    return manifest, adapters, states, shared


def _finite_tensors(data: bytes, what: str) -> dict[str, Tensor]:
    tensors, _ = decode_tensors(data, what)
    if bad := names_not_finite(tensors):
        raise FileFormatError(f"{what} has values that are not finite in {bad}; fetch or fit it again")
    return tensors


def _recorded_bytes(place: Path, record: FileRecord, what: str) -> bytes:
    """Content of the file, or of the copy kept beside it while a task is added, whichever has the recorded SHA-256."""
    path = _inside(place, record.file)
    problem: IqakitError | None = None
    found = ""
    for candidate in (path, _previous(path)):
        try:
            data = read_file_bytes(candidate, what)
        except StorageError as error:
            problem = problem or error
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest == record.sha256:
            return data
        found = found or digest
    if found:
        raise FileFormatError(
            f"{what} {path} has changed since it was written: its SHA-256 is {found[:8]}..., model.json says "
            f"{record.sha256[:8]}...; restore that file, or fetch or fit the model again"
        )
    if not path.exists():
        raise StorageError(
            f"{what} {path} is missing, though model.json lists it; fetch or fit the model again"
        ) from problem
    raise problem or StorageError(f"{what} {path} could not be read; check its permissions")


def _inside(place: Path, name: str) -> Path:
    path = place / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place)):
        raise StorageError(f"{path} leads out of the model's directory; a model must hold its own files, remove the link")
    return path


def _previous(path: Path) -> Path:
    return path.with_name(f".{path.name}.previous")


def _check_same_backbone(what: str, backbone_id: str, fingerprint: str, expected: BackboneFacts) -> None:
    if fingerprint != expected.fingerprint:
        raise MismatchError(
            f"{what} belongs on backbone {backbone_id!r} ({fingerprint[:8]}), not on {expected.id!r} "
            f"({expected.fingerprint[:8]}); use one backbone for all tasks of a model"
        )


def _check_addable(place: Path, earlier: ModelManifest, backbone: BackboneFacts, task: str) -> None:
    if any(known.name == task for known in earlier.tasks):
        raise ConfigurationError(f"model {place} has learned a task {task!r} already; choose another --task or --model")
    taken = f"adapters/{len(earlier.tasks):02d}-{task}.safetensors"
    if any(known.file == taken for known in earlier.tasks):
        raise ConfigurationError(f"model {place} has a file {taken!r} of another task; choose another --task or --model")
    own = earlier.backbone
    if own.fingerprint != backbone.fingerprint:
        raise MismatchError(
            f"model {place} stands on backbone {own.id!r} with weights {own.weights!r} ({own.fingerprint[:8]}), but was "
            f"given {backbone.id!r} with {backbone.weights!r} ({backbone.fingerprint[:8]}); use that one or another --model"
        )


def _check_startable(place: Path) -> None:
    """A first fit that was cut off leaves at most one adapter; more of them are a model that lost its model.json."""
    later = [path for path in _adapter_files(place) if not path.name.startswith("00-")]
    if later:
        raise StorageError(
            f"{place} holds adapters of several tasks but no model.json; restore that file or choose another --model"
        )


def _remove_leftovers(place: Path, manifest: ModelManifest) -> None:
    """Remove what an addition that was cut off left under the number of the task that has now been added."""
    listed = {place / task.file for task in manifest.tasks}
    for path in list(_adapter_files(place)):
        if path.name.startswith(f"{len(manifest.tasks) - 1:02d}-") and path not in listed:
            _remove(path)


def _adapter_files(place: Path) -> Iterator[Path]:
    return (path for path in (place / "adapters").glob("*.safetensors") if re.match(r"\d+-", path.name))


def _check_kept(combiner: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor], tasks: list[str]) -> None:
    import torch

    for name, tensor in before.items():
        if name.split("/")[0] in tasks and (name not in after or not torch.equal(after[name].cpu(), tensor)):
            raise ConfigurationError(
                f"combiner {combiner!r} changed what it knew of an earlier task ({name!r}); that is a fault in the "
                "combiner, leave it out"
            )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(path, "model directory", error) from error


def _remove(path: Path) -> None:
    # A copy that stays is only in the way of tidiness: its SHA-256 is not the one that is looked for.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
