"""From what the user named to image paths, one after the other, without listing everything first."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from iqakit.errors import ConfigurationError

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".tga", ".qoi"),
        *(".jp2", ".j2k", ".j2c", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".hif", ".avif"),
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
        *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    }
)
"""Suffixes, in lower case, of the files that are taken from a directory."""

SORTED_ENTRIES = 20_000
"""Up to so many entries a directory is given in the order of its names, which needs all of them first: 20,000 take some
30 ms and 3 MB. A larger one is given as the system lists it: the first image comes at once, and a million cost no more
memory than this many."""

STDIN = "-"
_MAGIC = frozenset("*?[")


def expand_images(arguments: Sequence[str], stdin: TextIO | None = None) -> Iterator[str]:
    """Paths of images, in the order of the arguments; within a directory, in the order of their names.

    A directory of more than ``SORTED_ENTRIES`` entries is not sorted: it is given as the system lists it, which is the same
    each time as long as nothing in the directory changes.

    A directory is walked with everything below it; hidden files and files that are no image by their suffix are left
    out. A pattern is expanded where the shell has not done it. ``-`` reads one path a line. Anything else is a file,
    there or not: whether it can be read shows when it is read.

    Args:
        arguments: What the user named.
        stdin: Where ``-`` reads; None is standard input.

    Raises:
        ConfigurationError: An argument is empty, which as a path would be the whole directory at hand.
    """
    if not all(arguments):
        raise ConfigurationError(
            f"an image is named '' (argument {[*arguments].index('') + 1}); is a variable not set? "
            "Name a file, a directory (. is the one at hand) or a pattern"
        )
    return _expanded(arguments, stdin)


def _expanded(arguments: Sequence[str], stdin: TextIO | None) -> Iterator[str]:
    """One path after the other."""
    for argument in arguments:
        if argument == STDIN:
            for line in _lines(stdin):
                yield from _from_path(line)
        elif _is_pattern(argument) and not os.path.lexists(argument):
            yield from _from_pattern(argument)
        else:
            yield from _from_path(argument)


def is_countable(arguments: Sequence[str]) -> bool:
    """Whether the images can be counted beforehand: standard input can be read only once."""
    return STDIN not in arguments


def _lines(stdin: TextIO | None) -> Iterator[str]:
    """Paths on standard input, one a line; a name need not be valid text."""
    stream = sys.stdin if stdin is None else stdin
    buffer = getattr(stream, "buffer", None)
    for raw in stream if buffer is None else buffer:
        line = raw if isinstance(raw, str) else os.fsdecode(raw)
        path = line.rstrip("\r\n")
        if path:
            yield path


def _from_path(path: str) -> Iterator[str]:
    """The path itself, or the images below it if it is a directory."""
    if Path(path).is_dir():
        yield from _walk(path, frozenset())
    else:
        yield path


def _walk(directory: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Images below a directory; a link that leads back up is not followed twice.

    A directory that cannot be read is given as if it were an image, so that it ends in an error row and not in silence.
    """
    try:
        facts = Path(directory).stat()
    except OSError:
        yield directory
        return
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    try:
        for name, is_directory in _listing(directory):
            if name.startswith("."):
                continue
            path = os.path.join(directory, name)  # noqa: PTH118 - as typed: Path would drop a leading "./"
            if is_directory:
                yield from _walk(path, above | {here})
            elif _is_image(name):
                yield path
    except OSError:
        yield directory


def _is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path a name costs seconds a million


def _is_pattern(text: str) -> bool:
    """Whether a text holds a wildcard."""
    return not _MAGIC.isdisjoint(text)


def _from_pattern(pattern: str) -> Iterator[str]:
    """What matches a pattern; ``**`` stands for any number of directories. Matching directories are walked."""
    drive, root, rest = _split_root(pattern)
    parts = [part for part in rest.replace(os.altsep or "/", "/").split("/") if part]
    # `*.jpg` says which files it means; for `*`, the suffix decides.
    suffix = Path(parts[-1]).suffix if parts else ""
    explicit = bool(suffix) and not _is_pattern(suffix)
    for path, is_directory in _match(drive + root, parts, frozenset()):
        if is_directory:
            yield from _walk(path, frozenset())
        elif explicit or _is_image(path):
            yield path


def _split_root(pattern: str) -> tuple[str, str, str]:
    """Drive, leading separator and the rest of a path."""
    drive, rest = os.path.splitdrive(pattern)
    stripped = rest.lstrip("/" + os.sep)
    return drive, rest[: len(rest) - len(stripped)][:1], stripped


def _match(base: str, parts: Sequence[str], above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """Paths under ``base`` that match the parts of a pattern, sorted, with whether each is a directory."""
    part, rest = parts[0], parts[1:]
    if not _is_pattern(part):
        path = os.path.join(base, part)  # noqa: PTH118
        if rest and Path(path).is_dir():
            yield from _match(path, rest, above)
        elif not rest and os.path.lexists(path):
            yield path, Path(path).is_dir()
        return
    if part == "**":
        yield from _match_any_depth(base, rest or ["*"], above)
        return
    for name, is_directory in _readable_listing(base):
        if name.startswith(".") and not part.startswith("."):
            continue
        if fnmatch.fnmatchcase(name, part):
            path = os.path.join(base, name)  # noqa: PTH118
            if not rest:
                yield path, is_directory
            elif is_directory:
                yield from _match(path, rest, above)


def _match_any_depth(base: str, rest: Sequence[str], above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """The rest of a pattern after ``**``: in this directory and in every one below."""
    try:
        facts = Path(base or ".").stat()
    except OSError:
        return
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    named = not _is_pattern(rest[-1])
    for path, is_directory in _match(base, rest, above):
        # With a wildcard last, directories that match are met again on the way down.
        if named or not is_directory:
            yield path, is_directory
    for name, is_directory in _readable_listing(base):
        if is_directory and not name.startswith("."):
            yield from _match_any_depth(os.path.join(base, name), rest, above | {here})  # noqa: PTH118


def _listing(directory: str) -> Iterator[tuple[str, bool]]:
    """Names in a directory with whether each is a directory: sorted, or as the system lists them if they are very many.

    Raises:
        OSError: The directory cannot be read, or no further.
    """
    with os.scandir(directory or ".") as entries:
        first = [(entry.name, _is_directory(entry)) for entry in islice(entries, SORTED_ENTRIES + 1)]
        if len(first) <= SORTED_ENTRIES:
            first.sort()
        yield from first
        first.clear()
        for entry in entries:
            yield entry.name, _is_directory(entry)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory or a link to one; a link that leads nowhere, or to itself, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _readable_listing(directory: str) -> Iterator[tuple[str, bool]]:
    """The same, but as far as the directory can be read, which may be nowhere."""
    with contextlib.suppress(OSError):
        yield from _listing(directory)
