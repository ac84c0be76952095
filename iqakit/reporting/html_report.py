"""One self-contained web page about many scored images.

``write_report`` makes it from rows. ``ReportWriter`` takes rows one by one while they are scored. The page needs no network
and may run no script but its own (a content security policy with hashes says so). Equal rows in equal places give equal
bytes: no date is written unless it is given.
"""

from __future__ import annotations

import base64
import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from iqakit import __version__
from iqakit.errors import ConfigurationError, ImageError
from iqakit.imaging.thumbnails import thumbnail
from iqakit.pipeline.rows import ScoreRow
from iqakit.reporting.distribution import distribution
from iqakit.reporting.row_collection import (
    FAILED_LIMIT,
    NOTES_LIMIT,
    NOVEL_FROM,
    TABLE_LIMIT,
    Entry,
    RowCollection,
    safe_json,
)
from iqakit.storage.atomic import atomic_file, write_error

__all__ = ["ReportWriter", "write_report"]

THUMBNAIL_SIDE: Final = 320
THUMBNAIL_BYTES: Final = 40_000
_WHAT: Final = "report"
_BIDIRECTIONAL: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class ReportWriter:
    """A page in the making. Use it in a ``with`` block: ``add`` rows, then ``finish``; without that nothing is written.

    Rows lie on disk, beside the page to be, until the block ends. Memory holds eight bytes an image and the contact sheets.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        title: str = "Image quality report",
        date: str | None = None,
        minimum: float | None = None,
        sheet: int = 24,
        link_from: Path | str | None = None,
    ) -> None:
        """Say what the page is to be; nothing is opened yet.

        Args:
            path: The page, ``.html`` or ``.htm``.
            title: Its heading.
            date: A date to show, as text; None: none, so that equal runs give equal pages.
            minimum: A score to mark: the page counts the images below it.
            sheet: Thumbnails in each contact sheet, at most; 0: no sheets.
            link_from: The directory that relative paths of images start from; None: the current one.

        Raises:
            ConfigurationError: An argument makes no sense.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise ConfigurationError(f"a report is a web page: give it a name that ends in .html, not {str(path)!r}")
        if sheet < 0:
            raise ConfigurationError(f"sheet is {sheet}; a contact sheet holds 0 or more thumbnails")
        self._title = title
        self._date = date
        self._minimum = minimum
        self._sheet = sheet
        self._base = Path.cwd() if link_from is None else Path(link_from).absolute()
        self._rows = RowCollection(self.path.absolute().parent, sheet=sheet)

    def __enter__(self) -> Self:
        """Begin; what would keep the page from being written shows now, not after hours of scoring.

        Raises:
            StorageError: The directory is missing or cannot be written to, or the path is a directory.
        """
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, "Is a directory", str(self.path))
            self._rows.__enter__()
        except OSError as error:
            raise write_error(self.path, _WHAT, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drop what was gathered."""
        self._rows.__exit__(kind, error, trace)

    def add(self, row: ScoreRow | Mapping[str, Any]) -> None:
        """Take one row: a ``ScoreRow``, or what its ``to_json`` gives.

        Raises:
            DataError: It is no row of scores.
            StorageError: It could not be kept on disk.
        """
        try:
            self._rows.add(row)
        except OSError as error:
            raise write_error(self.path, _WHAT, error) from error

    def finish(self) -> None:
        """Make the thumbnails and write the page, whole or not at all.

        Raises:
            StorageError: It could not be written; what was there before still is.
        """
        environment = Environment(
            loader=PackageLoader("iqakit.reporting"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"count": _grouped, "visible": visible}
        page = environment.get_template("report.html.j2").generate(self._content())
        with atomic_file(self.path, _WHAT) as stream:
            for piece in page:
                stream.write(piece.encode("utf-8"))

    def _content(self) -> dict[str, Any]:
        """All that the template shows."""
        rows = self._rows
        values = rows.values
        figures = distribution(values, calibrated=rows.calibrated)
        style, script = _part("report.css"), _part("report.js")
        meta = {
            "calibrated": rows.calibrated,
            "tasks": list(rows.tasks),
            "warnings": list(rows.warnings),
            "base": _base(self._base, self.path.absolute().parent),
        }
        if rows.adaptations.count:
            meta["notes"] = [visible(note) for note in rows.adaptations.notes]
        return {
            "title": self._title,
            "date": self._date,
            "version": __version__,
            "rows": rows,
            "figures": figures,
            "peak": max((bar.count for bar in figures.bars), default=0) if figures else 0,
            "digits": 1 if rows.calibrated else 3,
            "minimum": self._minimum if rows.calibrated else None,
            "below": sum(value < self._minimum for value in values) if self._minimum is not None else 0,
            "sheets": self._sheets(len(values)),
            "novel_from": NOVEL_FROM,
            "failed_limit": FAILED_LIMIT,
            "notes_limit": NOTES_LIMIT,
            "table_limit": TABLE_LIMIT,
            "style": Markup(style),
            "style_hash": _hash(style),
            "script": Markup(script),
            "script_hash": _hash(script),
            "meta": Markup(safe_json(meta)),
            "table": (Markup(piece) for piece in rows.table()),
        }

    def _sheets(self, count: int) -> dict[str, tuple[int, Iterator[dict[str, Any]]]]:
        """The contact sheets that have an image: how many, and their pictures. No image is among best and worst both."""
        found = {
            "best": self._rows.sheet("best", (count + 1) // 2),
            "worst": self._rows.sheet("worst", count // 2),
            "novel": self._rows.sheet("novel"),
        }
        return {name: (len(entries), self._pictures(entries)) for name, entries in found.items() if entries}

    def _pictures(self, entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
        """Entries of a contact sheet with their thumbnails, made one by one as the page is written."""
        for entry in entries:
            shown = visible(entry.path)
            yield {
                "entry": entry,
                "shown": shown,
                "name": visible(entry.path.replace("\\", "/").rpartition("/")[2]) or shown,
                "link": self._link(entry.path),
                "thumbnail": self._thumbnail(entry.path),
            }

    def _thumbnail(self, path: str) -> dict[str, Any] | None:
        """A thumbnail as a data address; None where the image is no longer there, or is no file."""
        try:
            small = thumbnail(self._base / path, side=THUMBNAIL_SIDE, max_bytes=THUMBNAIL_BYTES)
        except (ImageError, OSError, ValueError):  # ValueError: a path that no system takes
            return None
        data = base64.b64encode(small.data).decode("ascii")
        return {"src": f"data:image/jpeg;base64,{data}", "width": small.width, "height": small.height}

    def _link(self, path: str) -> str | None:
        """Where the image lies, seen from the page; None where there is no way from here to there."""
        try:
            target = os.path.relpath(self._base / path, self.path.absolute().parent)
        except ValueError:  # another drive
            return None
        return "./" + quote(os.fsencode(target.replace(os.sep, "/")))


def write_report(
    rows: Iterable[ScoreRow | Mapping[str, Any]],
    path: Path | str,
    *,
    title: str = "Image quality report",
    date: str | None = None,
    minimum: float | None = None,
    sheet: int = 24,
    link_from: Path | str | None = None,
) -> None:
    """Write one self-contained web page about scored images.

    Args:
        rows: What ``score_many`` gives, or rows read back from JSON; consumed as a stream.
        path: The page, ``.html`` or ``.htm``; replaced if it is there, and only by a whole page.
        title: Its heading.
        date: A date to show, as text; None: none, so that equal runs give equal pages.
        minimum: A score to mark: the page counts the images below it.
        sheet: Thumbnails in each contact sheet (best, worst, novel), at most; 0: no sheets.
        link_from: The directory that relative paths of images start from; None: the current one.

    Raises:
        ConfigurationError: An argument makes no sense.
        DataError: Something among ``rows`` is no row of scores.
        StorageError: The page could not be written; what was there before still is.
    """
    with ReportWriter(path, title=title, date=date, minimum=minimum, sheet=sheet, link_from=link_from) as writer:
        for row in rows:
            writer.add(row)
        writer.finish()


def visible(text: str) -> str:
    """A text in which nothing is hidden: control characters, bytes that are no text and direction marks are shown."""
    return "".join(f"\\u{{{ord(mark):x}}}" if _is_hidden(mark) else mark for mark in text)


def _is_hidden(mark: str) -> bool:
    return mark in _BIDIRECTIONAL or unicodedata.category(mark) in ("Cc", "Cs", "Zl", "Zp")


def _grouped(number: int) -> str:
    """A count with its thousands apart."""
    return f"{number:,}"


def _part(name: str) -> str:
    """The page's style or script."""
    return resources.files("iqakit.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash by which a content security policy knows an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _base(start: Path, directory: Path) -> str | None:
    """The way from the page's directory to where relative paths start; None where there is none."""
    try:
        way = os.path.relpath(start, directory)
    except ValueError:  # another drive
        return None
    return "./" + quote(os.fsencode(way.replace(os.sep, "/")))
