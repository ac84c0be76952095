"""What an earlier run left in a file of rows, which of it holds still, and the order in which rows belong."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from iqakit.cli.result_file import row_bytes
from iqakit.errors import FileFormatError, MismatchError
from iqakit.storage.atomic import atomic_file, write_error
from iqakit.storage.run_record import KnownRows, RunRecord, digest, image_facts, unchanged_since

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_UNKNOWN = 2**64 - 1
_FAILED = math.inf
"""Stands where a score would, for an image that could not be scored; nan: it was, but has no calibrated score."""


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that need not be made again.

    Attributes:
        score: Its score, if it has one.
        failed: The image could not be scored.
    """

    score: float | None
    failed: bool


class KeptRows:
    """The rows of a file, some of them from an earlier run, in some 60 bytes each.

    Rows are found by a digest of their path. A row holds as long as the image is what it was when it was scored; else
    the image is scored again and the new row takes its place.

    Attributes:
        begin: Where the first row begins; before it stand the headings of CSV.
        changed: Images, so far, that were named, have a row, and are no longer what they were.
    """

    def __init__(self) -> None:
        self.begin = 0
        self.changed = 0
        self._ends = array("Q")
        self._facts = array("Q")
        self._paths = array("Q")
        self._scores = array("d")
        self._order: array[int] = array("q")
        self._kept = 0
        # Only a run that goes on needs it; listing commands should not wait for its import.
        import numpy as np

        self._sorted: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: NDArray[np.int64] = np.empty(0, np.int64)
        self._named = bytearray()
        self._taken = bytearray()

    @property
    def rows(self) -> int:
        """How many rows of an earlier run there are."""
        return self._kept

    @property
    def unnamed(self) -> int:
        """How many of them are of images that were not named so far."""
        return self._kept - sum(self._named)

    def add(self, end: int, path: str, facts: int, score: float | None, failed: bool) -> None:
        """A row that was found in the file.

        Args:
            end: Where it ends.
            path: The image's path.
            facts: What the image was, as ``image_facts`` gives it.
            score: Its score.
            failed: The image could not be scored.
        """
        self._ends.append(end)
        self._facts.append(facts)
        self._paths.append(digest(row_bytes(path)))
        self._scores.append(_FAILED if failed else math.nan if score is None else score)

    def all_found(self) -> None:
        """The file is read; from now on rows can be taken."""
        import numpy as np

        self._kept = len(self._ends)
        paths = np.frombuffer(self._paths, np.uint64) if self._kept else np.empty(0, np.uint64)
        self._places = np.argsort(paths, kind="stable")
        self._sorted = paths[self._places]
        self._paths = array("Q")
        self._named, self._taken = bytearray(self._kept), bytearray(self._kept)

    def take(self, path: str, facts: int) -> KeptRow | None:
        """The row of an image that was named, if it holds still; each row serves one naming.

        Args:
            path: The image's path.
            facts: What the image is now.
        """
        wanted = self._sorted.dtype.type(digest(row_bytes(path)))
        found, stale = None, False
        place = int(self._sorted.searchsorted(wanted))
        while place < self._kept and self._sorted[place] == wanted:
            index = int(self._places[place])
            self._named[index] = True
            place += 1
            if found is None and not self._taken[index]:
                if self._facts[index] == facts:
                    found = index
                else:
                    stale = True
        if found is None:
            self.changed += stale
            self._order.append(len(self._facts))
            self._facts.append(facts)
            return None
        self._taken[found] = True
        self._order.append(found)
        score = self._scores[found]
        return KeptRow(score if math.isfinite(score) else None, score == _FAILED)

    def wrote(self, end: int) -> None:
        """A new row was added to the file, for the next image that had none; it ends here."""
        self._ends.append(end)

    def summary(self, path: Path | None) -> list[str]:
        """Lines on what was not as simple as going on.

        Args:
            path: The file.
        """
        lines = []
        if self.changed:
            are = "1 image had" if self.changed == 1 else f"{self.changed} images had"
            lines.append(f"{are} changed since {path} was written; scored again")
        if self.unnamed:
            rows = "1 row" if self.unnamed == 1 else f"{self.unnamed} rows"
            lines.append(f"{rows} in {path} of images that were not named this time; kept, before the others")
        return lines

    def settle(self, path: Path) -> bool:
        """Once every image has its row: put rows in the order in which images were named, and drop those outdated.

        Rows of images that were not named come first, in the order they have. The file is made anew and takes the old
        one's place in one step; where all is in order already, nothing is done.

        Args:
            path: The file of rows.

        Returns:
            Whether anything was moved.

        Raises:
            StorageError: The file could not be written; the old one is still there, with all rows.
        """
        rows = len(self._ends)
        order = array("q", (index for index in range(self._kept) if not self._named[index]))
        order.extend(self._order)
        if len(order) == rows and all(index == place for place, index in enumerate(order)):
            return False
        with path.open("rb") as source, atomic_file(path, "rows to") as target:
            target.write(source.read(self.begin))
            for index in order:
                target.write(self._read(source, index))
        return True

    def _read(self, source: IO[bytes], index: int) -> bytes:
        start = self._ends[index - 1] if index else self.begin
        source.seek(start)
        return source.read(self._ends[index] - start)


def read_kept(
    path: Path, form: str, columns: Sequence[str], model: str, record: RunRecord, known: KnownRows | None
) -> KeptRows:
    """Read what a cut run left, and drop its half-written last line.

    Args:
        path: The file; it need not be there.
        form: ``"jsonl"`` or ``"csv"``.
        columns: Headings that the CSV must have.
        model: The model that scores now; rows of another must not stand beside its own.
        record: The record of the run, open.
        known: What the record says of rows. A row of which it says nothing holds if its image was not modified after the
            file was.

    Raises:
        FileFormatError: The file is no such table.
        MismatchError: Its rows were scored by another model, or it has other columns.
    """
    kept = KeptRows()
    if path.is_file():
        good, size = _read_rows(kept, path, form, columns, model, record, known)
        if good < size:
            try:
                os.truncate(path, good)
            except OSError as error:
                raise write_error(path, "rows to", error) from error
    kept.all_found()
    return kept


def _read_rows(
    kept: KeptRows,
    path: Path,
    form: str,
    columns: Sequence[str],
    model: str,
    record: RunRecord,
    known: KnownRows | None,
) -> tuple[int, int]:
    """Read the rows; up to which byte they are whole, and the file's size."""
    parse = _parse_line if form == "jsonl" else _csv_parser(kept, columns, path)
    good = 0
    with path.open("rb") as stream:
        facts_of_file = os.fstat(stream.fileno())
        for number, (end, data, whole) in enumerate(_records(stream, form), start=1):
            text = data.decode("utf-8", "surrogateescape")
            if not whole:
                if number == 1 and not _may_begin(text, form, columns):
                    raise FileFormatError(f"{path} holds no {form} scores: it begins with {text[:40]!r}; give another -o")
                break
            try:
                row = parse(text)
            except MismatchError:
                raise
            except ValueError as error:
                raise FileFormatError(
                    f"{path}, row {number}, is no row of {form} scores: {error}; repair it or give another -o"
                ) from None
            good = end
            if row is None:
                kept.begin = end
                continue
            if row.get("model") != model:
                raise MismatchError(
                    f"{path} holds rows of model {row.get('model')}, but {model} scores now; give another -o"
                )
            failed, score = row.get("status") != "ok", row.get("score")
            facts = None if known is None else known.facts(data)
            if facts is None:
                facts = _presumed_facts(str(row["path"]), failed, facts_of_file.st_mtime_ns)
                record.note(data, facts)
            kept.add(end, str(row["path"]), facts, float(score) if score not in (None, "") else None, failed)
    return good, facts_of_file.st_size


def _presumed_facts(path: str, failed: bool, moment: int) -> int:
    """What an image was when it was scored, for a row that came without a record."""
    facts = image_facts(path)
    if unchanged_since(path, moment) or (failed and not facts):
        return facts
    return _UNKNOWN


def _records(stream: IO[bytes], form: str) -> Iterator[tuple[int, bytes, bool]]:
    """Records of a file: where each ends, its bytes, and whether it is whole.

    A record of CSV may hold line breaks inside quotes.
    """
    offset, pending = 0, b""
    for line in stream:
        offset += len(line)
        pending += line
        if line.endswith(b"\n") and (form != "csv" or pending.count(b'"') % 2 == 0):
            yield offset, pending, True
            pending = b""
    if pending:
        yield offset, pending, False


def _may_begin(text: str, form: str, columns: Sequence[str]) -> bool:
    """Whether a cut first line can be the beginning of a file of rows, and not of somebody else's file."""
    start = '{"path": "' if form == "jsonl" else ",".join(columns) + "\n"
    return start.startswith(text[: len(start)])


def _parse_line(text: str) -> dict[str, Any]:
    """One row of JSON lines; ValueError where it is none."""
    row = json.loads(text)
    if not isinstance(row, dict) or "path" not in row or "status" not in row:
        raise ValueError("it has no path and status")
    return row


def _csv_parser(kept: KeptRows, columns: Sequence[str], path: Path) -> Callable[[str], dict[str, Any] | None]:
    """A parser of CSV records; the first must be the headings, for which it gives None."""

    def parse(text: str) -> dict[str, Any] | None:
        cells = next(csv.reader(io.StringIO(text, newline="")), [])
        if not kept.begin:
            if cells != list(columns):
                raise MismatchError(
                    f"{path} has the columns {', '.join(cells)}, but this model's rows have {', '.join(columns)}; "
                    "give another -o"
                )
            return None
        if len(cells) != len(columns):
            raise ValueError(f"it has {len(cells)} cells, not {len(columns)}")
        return dict(zip(columns, cells, strict=True))

    return parse
