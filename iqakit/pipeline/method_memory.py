"""What fit methods keep from task to task, beside the model: importance of weights, examples to rehearse.

It is written before ``model.json`` names the task, under the number of tasks that it belongs to. So after a crash at any
point what is found for the tasks that the model has is what its method left.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from iqakit.errors import StorageError
from iqakit.storage.canonical_json import canonical_json
from iqakit.storage.checkpoint import FileCheckpoint

MEMORY_DIRECTORY = "memory"


class MethodMemory:
    """The memory of one fit method in one model's directory.

    Args:
        directory: The model's.
        method: The method's name.
    """

    def __init__(self, directory: Path, method: str) -> None:
        self._place = directory / MEMORY_DIRECTORY
        self._method = method

    def load(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """What was kept after these tasks; empty where the method kept nothing.

        Raises:
            StorageError: It is damaged; going on without it would quietly learn something else.
        """
        kept = self._file(tasks)
        found = kept.load()
        if kept.problem:
            raise StorageError(
                f"what {self._method} remembers of earlier tasks cannot be used ({kept.problem.partition(';')[0]}); "
                "fit the tasks again into another --model"
            )
        return {} if found is None else found[0]

    def save(self, tasks: Sequence[str], memory: Mapping[str, Tensor]) -> None:
        """Keep what belongs to these tasks; what belongs to fewer stays until ``tidy``."""
        if memory:
            self._file(tasks).save({name: tensor.detach().cpu() for name, tensor in memory.items()}, {})

    def tidy(self, tasks: Sequence[str]) -> None:
        """Remove what belonged to fewer tasks."""
        current = self._file(tasks).path.parent
        for path in self._place.glob(f"{self._method}-*"):
            if path != current and path.name.removeprefix(f"{self._method}-").isdecimal():
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._place.rmdir()

    def _file(self, tasks: Sequence[str]) -> FileCheckpoint:
        return FileCheckpoint(self._place / f"{self._method}-{len(tasks):02d}", canonical_json(list(tasks)))
