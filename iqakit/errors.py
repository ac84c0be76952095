"""The tree of errors.

Each error also derives from the builtin that fits, so code that knows nothing of iqakit can still catch it sensibly.
A message is one line: what was asked, what was found, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigurationError",
    "DataError",
    "FileFormatError",
    "ImageError",
    "IqakitError",
    "MismatchError",
    "MissingExtraError",
    "NewerFormatError",
    "OfflineError",
    "PluginError",
    "StorageError",
    "TrainingError",
    "UnknownNameError",
]


class IqakitError(Exception):
    """Base of every error that iqakit raises on purpose."""


class ConfigurationError(IqakitError, ValueError):
    """A setting, an option or a combination of them makes no sense."""


class UnknownNameError(IqakitError, LookupError):
    """A part, task, set or model was asked for by a name that nobody offers."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], hint: str = "", *, every: bool = False) -> UnknownNameError:
        """Build the error with near matches.

        Args:
            kind: What was looked for, e.g. ``"adapter"``.
            name: The name asked for.
            known: The names there are.
            hint: What else to do, a sentence.
            every: List the names there are also where some are near.
        """
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        if near:
            found = f"did you mean {', '.join(near)}?" + (f" there are: {shown}" if every else "")
        elif names:
            found = f"there are: {shown}"
        else:
            found = "there are none"
        return cls(f"no {kind} is named {name!r}; {found}{' ' + hint if hint else ''}")


class PluginError(IqakitError, RuntimeError):
    """A plugin could not be used, or two of them are in each other's way."""


class ImageError(IqakitError, ValueError):
    """One image could not be read or is not usable. It never stops the others."""


class DataError(IqakitError, ValueError):
    """A table of scores, or a public set's directory, is not what it must be."""


class StorageError(IqakitError, OSError):
    """A file of iqakit's could not be read or written."""


class FileFormatError(StorageError, ValueError):
    """A file is not in the format that it must be in: foreign, truncated or tampered with."""


class NewerFormatError(FileFormatError):
    """A file was written by a newer iqakit, in a format that this one does not know."""


class MismatchError(IqakitError, ValueError):
    """Two things that must fit do not, such as an adapter and a backbone."""


class OfflineError(IqakitError, ConnectionError):
    """Something would have to be downloaded and cannot be."""


class MissingExtraError(IqakitError, ImportError):
    """An optional package is needed and not installed."""


class TrainingError(IqakitError, ArithmeticError):
    """Training diverged or cannot start."""
