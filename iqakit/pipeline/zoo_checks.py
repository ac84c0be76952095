"""What a model must be before anybody may use it: whole, what its index says, and fitting its backbone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import iqakit
from iqakit.errors import FileFormatError, MismatchError, NewerFormatError, OfflineError
from iqakit.storage.zoo_index import MANIFEST_NAME, ZooEntry

if TYPE_CHECKING:
    from iqakit.contracts import Adapter
    from iqakit.storage.model_manifest import ModelManifest


def check_minimum(entry: ZooEntry) -> None:
    """See that this iqakit is new enough for a model.

    Raises:
        NewerFormatError: It is not.
    """
    if _release(iqakit.__version__) < _release(entry.minimum_iqakit):
        raise NewerFormatError(
            f"model {entry.name!r} needs iqakit {entry.minimum_iqakit} or newer, and this is {iqakit.__version__}; upgrade"
        )


def check_content(directory: Path, entry: ZooEntry, say: Callable[[str], None] = lambda _: None) -> None:
    """Read a whole model and see that it can be trusted to be what its index says.

    Every file is parsed as what it claims to be; nothing is unpickled. The backbone is made as the model asks, and its
    fingerprint and every shape are compared.

    Args:
        directory: The model.
        entry: What its index says.
        say: Takes a line where something could not be looked at.

    Raises:
        FileFormatError: A file is damaged, holds values that are not finite, or contradicts the index.
        MismatchError: The backbone has another fingerprint, or a shape does not fit it.
        UnknownNameError: Nobody here offers the backbone.
    """
    from iqakit.storage.model_directory import read_model

    manifest, adapters, _, shared = read_model(directory)  # refuses what is not finite
    what = f"model {entry.name!r}"
    _check_index(manifest, entry, what)
    if shared:
        adapters = [replace(adapter, tensors={**shared, **adapter.tensors}) for adapter in adapters]
    _check_backbone(adapters, entry, what, say)


def _check_index(manifest: ModelManifest, entry: ZooEntry, what: str) -> None:
    """The index and ``model.json`` must say the same."""
    told = (entry.backbone.id, entry.backbone.weights, entry.backbone.fingerprint)
    found = (manifest.backbone.id, manifest.backbone.weights, manifest.backbone.fingerprint)
    names = ("backbone.id", "backbone.weights", "backbone.fingerprint")
    for name, one, other in zip(names, told, found, strict=True):
        if one != other:
            raise MismatchError(
                f"{what}: {name} is {one[:80]!r} in the index, but {other[:80]!r} in {MANIFEST_NAME}; refused"
            )
    if (tasks := tuple(task.name for task in manifest.tasks)) != entry.tasks:
        raise FileFormatError(
            f"{what}: its tasks are {', '.join(tasks)}, but the index lists {', '.join(entry.tasks)}; refused"
        )
    listed = {file.path: file.sha256 for file in entry.files}
    used = [(task.file, task.sha256) for task in manifest.tasks]
    used += [(record.file, record.sha256) for record in (manifest.combiner, manifest.shared) if record is not None]
    for path, sha256 in used:
        if listed.get(path) != sha256:
            raise FileFormatError(f"{what}: {MANIFEST_NAME} needs {path[:80]!r}, which the index does not list so; refused")


def _check_backbone(adapters: list[Adapter], entry: ZooEntry, what: str, say: Callable[[str], None]) -> None:
    """Make the backbone and lay every adapter on it; where its weights cannot be had, its shapes still can."""
    from iqakit.plugins.catalog import make_backbone
    from iqakit.storage.adapter_file import check_fits

    try:
        backbone = make_backbone(entry.backbone.id, entry.backbone.weights)
    except OfflineError as error:
        say(f"{what}: the backbone's weights are not here, so their fingerprint is compared later ({error})")
        backbone = make_backbone(entry.backbone.id, "random:0")
        own = backbone.fingerprint()
        adapters = [replace(adapter, backbone_fingerprint=own) for adapter in adapters]
    for adapter in adapters:
        check_fits(adapter, backbone, f"{what}: the adapter of task {adapter.task!r}")


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a release; those of a development version are those of the release to come."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(number) for number in found[0].split(".")] if found else [0]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
