"""Time that a piece of work took, counted over interruptions."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from types import TracebackType

from iqakit.contracts import Progress
from iqakit.storage.atomic import write_text_atomic

_WRITE_EVERY = 5.0
"""Seconds between two notes; a killed run loses at most that much of its time."""
_NOT_WORTH_SAYING = "learned already, skipped"


class Messages:
    """Progress that says each message once: several methods meet the same odd image or scale.

    Args:
        inner: Where to say it.
    """

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._said: set[str] = set()

    def start(self, what: str, total: int) -> None:
        """A stage begins."""
        self._inner.start(what, total)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some steps are done."""
        self._inner.advance(steps, note)

    def message(self, text: str) -> None:
        """One line, unless it was said before."""
        if text not in self._said and not text.endswith(_NOT_WORTH_SAYING):
            self._said.add(text)
            self._inner.message(text)


class Clock:
    """Counts the wall time of a piece of work into a small file beside it; also the work's progress.

    Once ``done`` the time stands still: finding finished work again costs nothing that should count.

    Args:
        path: The file.
        inner: Where progress is shown.
    """

    def __init__(self, path: Path, inner: Progress) -> None:
        self._path = path
        self._inner = inner
        self.seconds, self.done = _read(path)
        self._began = self._noted = time.monotonic()

    def __enter__(self) -> Clock:
        self._began = self._noted = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.done:
            self.seconds += time.monotonic() - self._began
            self.done = kind is None
            self._write(self.seconds)

    def start(self, what: str, total: int) -> None:
        """A stage begins."""
        self._inner.start(what, total)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some steps are done."""
        self._inner.advance(steps, note)
        now = time.monotonic()
        if not self.done and now - self._noted >= _WRITE_EVERY:
            self._noted = now
            self._write(self.seconds + now - self._began)

    def message(self, text: str) -> None:
        """One line worth reading."""
        self._inner.message(text)

    def _write(self, seconds: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(self._path, json.dumps({"seconds": round(seconds, 1), "done": self.done}), "the time taken")


def _read(path: Path) -> tuple[float, bool]:
    """Seconds so far and whether the work was finished; a damaged note counts as none, as it is only a time."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_text(encoding="utf-8"))
        return float(record["seconds"]), bool(record["done"])
    return 0.0, False
