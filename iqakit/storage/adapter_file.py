"""Adapter files, format 2: everything one task adds, in one safetensors file.

Tensors are named ``backbone/<name>``, ``head/weight`` and ``head/bias``. One metadata key, ``iqakit``, holds canonical
JSON: format, format_version, task, method, backbone, head, preprocessing, calibration, config, provenance, and a checksum
over all of it and the tensors, so that a single flipped bit is noticed. No time stamps: equal content, equal bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqakit.contracts.adapter import Adapter
from iqakit.errors import ConfigurationError, FileFormatError, MismatchError, NewerFormatError, TrainingError
from iqakit.storage.adapter_record import RecordError, adapter_from_record, record_of, upgrade_from_1
from iqakit.storage.atomic import read_file_bytes, write_bytes_atomic
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.fingerprints import fingerprint_tensors
from iqakit.storage.tensor_bytes import decode_tensors, encode_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from iqakit.contracts.backbone import Backbone

FORMAT = "iqakit-adapter"
FORMAT_VERSION = 2

Upgrade = Callable[[dict[str, Any], dict[str, "Tensor"]], tuple[dict[str, Any], dict[str, "Tensor"]]]
UPGRADES: dict[int, Upgrade] = {1: upgrade_from_1}
"""Pure functions; number v takes the record and the tensors of format v to format v + 1. Format 1 is the first."""

_TASK_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_SHOWN = 5


def check_task_name(name: str) -> str:
    """Give ``name`` back if it can name a task, and with it a file.

    Args:
        name: Letters, digits, dot, dash and underscore (all ASCII); 1 to 64 of them; no dot in front.

    Raises:
        ConfigurationError: It cannot.
    """
    if not isinstance(name, str) or not _TASK_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{str(name)[:80]!r} cannot name a task; use 1 to 64 letters, digits, dots, dashes and underscores, and no dot "
            "in front"
        )
    return name


def adapter_bytes(adapter: Adapter) -> bytes:
    """The file's content.

    Counters (``num_batches_tracked``) are left out: they change no score. Tuples in config and provenance become lists.

    Raises:
        ConfigurationError: The adapter has a name, a value or a tensor that the format does not hold.
        TrainingError: A tensor has values that are not finite.
    """
    check_task_name(adapter.task)
    what = f"the adapter of task {adapter.task!r}"
    tensors = {f"backbone/{name}": tensor for name, tensor in adapter.tensors.items() if not _is_counter(name)}
    tensors["head/weight"] = adapter.head_weight
    if adapter.head_bias is not None:
        tensors["head/bias"] = adapter.head_bias
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **record_of(adapter)}
    try:
        # What is written must be readable: the reader's own checks run first.
        adapter_from_record(document, tensors)
    except RecordError as error:
        raise ConfigurationError(f"{what} cannot be stored: {error}") from error
    if bad := names_not_finite(tensors):
        raise TrainingError(
            f"{what} has values that are not finite in {bad}; nothing was written, fit with a lower learning rate"
        )
    document["checksum"] = _checksum(document, tensors, what)
    return encode_tensors(tensors, document, what)


def write_adapter(adapter: Adapter, path: Path | str) -> str:
    """Write an adapter file in one step.

    Args:
        adapter: What to write.
        path: The file, usually ``<task>.safetensors``; replaced if it is there.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        ConfigurationError: The adapter has a name, a value or a tensor that the format does not hold.
        TrainingError: A tensor has values that are not finite.
        StorageError: The file could not be written; what was there before still is.
    """
    data = adapter_bytes(adapter)
    write_bytes_atomic(path, data, "adapter file")
    return hashlib.sha256(data).hexdigest()


def read_adapter(path: Path | str, backbone: Backbone | None = None) -> Adapter:
    """Read an adapter file, strictly.

    Args:
        path: The file.
        backbone: The backbone it is meant for; every tensor is then checked against it.

    Raises:
        StorageError: The file is missing or cannot be read.
        FileFormatError: It is empty, truncated, foreign, damaged or edited.
        NewerFormatError: A newer iqakit wrote it.
        MismatchError: It belongs on another backbone.
    """
    return parse_adapter(read_file_bytes(path, "adapter file"), f"adapter file {path}", backbone)


def parse_adapter(data: bytes, what: str, backbone: Backbone | None = None) -> Adapter:
    """The adapter in an adapter file's content; ``what`` names it in errors. Raises what ``read_adapter`` does."""
    tensors, document = decode_tensors(data, what)
    if document is None or document.get("format") != FORMAT:
        raise FileFormatError(
            f"{what} is a safetensors file, but not an iqakit adapter; give one made by `iqakit fit` or `iqakit adapt`"
        )
    version = document.get("format_version")
    if type(version) is not int or version < 0:
        raise FileFormatError(
            f"{what} has the format version {str(version)[:40]!r}, which is no number; make or fetch it again"
        )
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{what} is in format {version}, and this iqakit reads up to format {FORMAT_VERSION}; upgrade iqakit to use it"
        )
    if document.get("checksum") != _checksum(document, tensors, what):
        raise FileFormatError(f"{what} has changed since it was written: its checksum is wrong; make or fetch it again")
    if missing := [step for step in range(version, FORMAT_VERSION) if step not in UPGRADES]:
        raise FileFormatError(f"{what} is in format {missing[0]}, which this iqakit cannot upgrade; make or fetch it again")
    document = {key: value for key, value in document.items() if key != "checksum"}
    try:
        for step in range(version, FORMAT_VERSION):
            document, tensors = UPGRADES[step](document, tensors)
            document = {**document, "format_version": step + 1}
        adapter = adapter_from_record(document, tensors)
        check_task_name(adapter.task)
    except (RecordError, ConfigurationError) as error:
        raise FileFormatError(f"{what} is not a valid iqakit adapter: {error}; make or fetch it again") from error
    if bad := names_not_finite(tensors):
        raise FileFormatError(f"{what} has values that are not finite in {bad}; make or fetch it again")
    if backbone is not None:
        check_fits(adapter, backbone, what)
    return adapter


def check_fits(adapter: Adapter, backbone: Backbone, what: str = "the adapter") -> None:
    """Check that an adapter belongs on a backbone: fingerprint, then every name, shape and type, then the head's width.

    Raises:
        MismatchError: It does not; lists at most five tensors that differ.
    """
    from iqakit.functional.heads import head_input_dim

    found = backbone.fingerprint()
    if found != adapter.backbone_fingerprint:
        raise MismatchError(
            f"{what} belongs on backbone {adapter.backbone_id!r} ({adapter.backbone_fingerprint[:8]}), but was given "
            f"{backbone.id!r} ({found[:8]}); use the backbone and weights that it was made with"
        )
    own: dict[str, Tensor] = dict(backbone.module.named_parameters(remove_duplicate=False))
    own.update(backbone.module.named_buffers(remove_duplicate=False))
    wrong = []
    for name, tensor in sorted(adapter.tensors.items()):
        if name not in own:
            wrong.append(f"{name} is not in the backbone")
        elif tensor.shape != own[name].shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, the backbone's {tuple(own[name].shape)}")
        elif tensor.dtype != own[name].dtype:
            wrong.append(f"{name} is {tensor.dtype}, the backbone's {own[name].dtype}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise MismatchError(
            f"{what} does not fit backbone {backbone.id!r}: {'; '.join(wrong[:_SHOWN])}{more}; fit it again"
        )
    width = head_input_dim(adapter.features, backbone.embedding_dim, backbone.stage_dims)
    if adapter.head_weight.shape[1] != width:
        raise MismatchError(
            f"{what} has a head for {adapter.head_weight.shape[1]} features, but {adapter.features!r} of backbone "
            f"{backbone.id!r} gives {width}; fit it again"
        )


def _checksum(document: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> str:
    """SHA-256 over the record, less the checksum itself, and over the tensors' names, shapes and bytes."""
    record = canonical_json({key: value for key, value in document.items() if key != "checksum"}, what)
    return hashlib.sha256(f"{record}\n{fingerprint_tensors(tensors)}".encode()).hexdigest()


def _is_counter(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "num_batches_tracked"


def names_not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which tensors have values that are not finite, the first few by name; empty where none has."""
    import torch

    names = [name for name in sorted(tensors) if not torch.isfinite(tensors[name]).all()]
    shown = [name if len(name) <= 80 and name.isprintable() else repr(name[:80]) for name in names[:_SHOWN]]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown) + more
