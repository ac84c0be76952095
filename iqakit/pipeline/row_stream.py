"""From decoded images to rows, in order. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from iqakit.errors import ImageError
from iqakit.imaging.batching import Failed, Prepared
from iqakit.imaging.decoding import ImageSource, describe
from iqakit.pipeline.rows import ScoreRow
from iqakit.pipeline.scored import Request, Scorer, row_of
from iqakit.pipeline.side_by_side import side_by_side
from iqakit.runtimes.graph_session import usable_cores

# One thread would leave the network waiting for large photos; many more than the cores that decode would only hold memory.
_FEWEST_WORKERS, _MOST_WORKERS = 2, 8


def decoding_threads(asked: int | None) -> int:
    """How many threads decode: as asked, else about as many as there are cores."""
    return min(max(usable_cores(), _FEWEST_WORKERS), _MOST_WORKERS) if asked is None else asked


@dataclass(frozen=True, slots=True)
class RowStream:
    """Scores decoded images and makes their rows.

    Attributes:
        scorer: Runs the network.
        tasks: Names of the model's tasks.
        version: The model's name and hash, for the rows.
        request: How to score.
        on_error: ``"skip"``: an image that could not be read becomes an error row; ``"fail"``: its error is raised in its
            place.
    """

    scorer: Scorer
    tasks: Sequence[str]
    version: str
    request: Request
    on_error: str

    def side_by_side(self, items: Iterable[Prepared | Failed], threads: int) -> Iterator[ScoreRow]:
        """Rows of images that are passes of their own, several at work at once; the scorer takes calls from any thread.

        Args:
            items: The images.
            threads: How many at once; None of them waits for another.
        """
        return side_by_side(self._row, items, threads)

    def in_batches(self, items: Iterable[Prepared | Failed], size: int) -> Iterator[ScoreRow]:
        """Rows of images that run together, ``size`` at a time, those of one size in one pass."""
        waiting: list[Prepared | Failed] = []
        for item in items:
            if isinstance(item, Failed) and self.on_error == "fail":
                yield from self._finish(waiting)
                raise item.error
            waiting.append(item)
            if len(waiting) >= size:
                yield from self._finish(waiting)
                waiting = []
        yield from self._finish(waiting)

    def _row(self, item: Prepared | Failed) -> ScoreRow:
        """The row of one image."""
        if isinstance(item, Failed):
            if self.on_error == "fail":
                raise item.error
            return self._error_row(item.source, str(item.error))
        return self._group_rows([item])[0]

    def _finish(self, items: Sequence[Prepared | Failed]) -> list[ScoreRow]:
        """Rows of some images, in order; images of one size run together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        rows: dict[int, ScoreRow] = {}
        for index, item in enumerate(items):
            if isinstance(item, Failed):
                rows[index] = self._error_row(item.source, str(item.error))
            else:
                groups.setdefault(tuple(item.image.shape), []).append(index)
        for members in groups.values():
            prepared = [item for item in (items[index] for index in members) if isinstance(item, Prepared)]
            rows |= zip(members, self._group_rows(prepared), strict=True)
        return [rows[index] for index in range(len(items))]

    def _group_rows(self, prepared: Sequence[Prepared]) -> list[ScoreRow]:
        """Rows of images of one size. What is too large for the device, even alone, becomes an error row."""
        try:
            found = self.scorer.score_group([item.image for item in prepared], self.request)
        except ImageError as error:
            if len(prepared) == 1:
                return [self._error_row(prepared[0].source, f"{describe(prepared[0].source)}: {error}")]
            return [row for item in prepared for row in self._group_rows([item])]
        return [row_of(item, figures, self.tasks, self.version) for item, figures in zip(prepared, found, strict=True)]

    def _error_row(self, source: ImageSource, error: str) -> ScoreRow:
        return ScoreRow(describe(source), "error", self.version, error=error)
