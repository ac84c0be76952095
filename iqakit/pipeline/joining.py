"""Joining: tasks that were learned apart, on one backbone, become one model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from iqakit.contracts import Adapter
from iqakit.errors import ConfigurationError
from iqakit.pipeline.provenance import card
from iqakit.storage.model_directory import add_task, model_lock, read_model


def join_models(models: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str]) -> tuple[str, ...]:
    """Add the tasks of several models to one, in the order given.

    A task's adapter and what the combiners know of it depend on no other task, so the result is what one ``fit`` in that
    order gives, to the byte. That lets tasks be learned side by side, or by different people. Models whose method replaces
    shared tensors cannot be joined: there every task depends on those before.

    Args:
        models: Directories; all on the same backbone.
        into: The model that the tasks are added to; made if it is missing.

    Returns:
        Names of the tasks added.

    Raises:
        ConfigurationError: A model has replaced shared tensors, or a task's name is taken.
        MismatchError: The backbones differ.
        StorageError: A model cannot be read, or ``into`` cannot be written.
    """
    contents = [(Path(model), read_model(Path(model))) for model in models]
    added: list[str] = []
    for path, (_, _, _, shared) in contents:
        if shared:
            raise ConfigurationError(
                f"model {path} has tensors that replace the backbone's own; such models cannot be joined"
            )
    with model_lock(Path(into)) as directory:
        known = directory / "model.json"
        adapters: list[Adapter] = list(read_model(directory)[1]) if known.exists() else []
        states: dict[str, dict[str, Tensor]] = read_model(directory)[2] if known.exists() else {}
        for _, (manifest, its_adapters, its_states, _) in contents:
            for adapter in its_adapters:
                for combiner, state in its_states.items():
                    states.setdefault(combiner, {}).update(_of_task(state, adapter.task))
                adapters.append(adapter)
                text = card(adapters, manifest.backbone.id, Path(manifest.backbone.weights).name)
                add_task(directory, manifest.backbone, adapter, states, text, locked=True)
                added.append(adapter.task)
    return tuple(added)


def _of_task(state: Mapping[str, Tensor], task: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(f"{task}/")}
