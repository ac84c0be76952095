"""Options that several commands have in common, and the values they take."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from iqakit.errors import ConfigurationError

if TYPE_CHECKING:
    from iqakit.cli.output import Terminal


class Device(StrEnum):
    """Where the network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


MODEL_HELP = (
    "A model's name or directory; else the one in IQAKIT_MODEL, else ./iqakit_model if it is there, else the default model."
)
DEVICE_HELP = "Where the network runs."
SET_HELP = "A setting, key=value; may be given again."
WORKERS_HELP = "Threads that decode images."
SCORING_WORKERS_HELP = "Threads that decode images; one a core, from 2 to 8, if not given."
JSON_HELP = "JSON on standard output instead of a table."


def terminal_of(context: typer.Context) -> Terminal:
    """The terminal of this run."""
    from iqakit.cli.output import Terminal

    return context.ensure_object(Terminal)


def parse_batch_size(text: str) -> int | None:
    """``auto`` (None) or a whole number above 0.

    Raises:
        ConfigurationError: It is neither.
    """
    if text == "auto":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigurationError(f"--batch-size is auto or a whole number above 0, not {text!r}")


def parse_skip_below(text: str) -> float | None:
    """``never`` (None) or a weight from 0 to below 1.

    Raises:
        ConfigurationError: It is neither.
    """
    if text == "never":
        return None
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < 1:
        raise ConfigurationError(f"--skip-below is never or a weight from 0 to below 1, not {text!r}")
    return weight


def parse_scale(text: str) -> tuple[float, float]:
    """``LOW:HIGH``: two numbers, the first below the second.

    Raises:
        ConfigurationError: It is not.
    """
    low, colon, high = text.partition(":")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (math.nan, math.nan)
    if not (colon and -math.inf < ends[0] < ends[1] < math.inf):
        raise ConfigurationError(f"--scale is LOW:HIGH, two numbers, the first below the second, such as 1:5; not {text!r}")
    return ends


def parse_top(text: str | None) -> tuple[int | None, float | None]:
    """``N`` images or ``P%`` of them: a count or a share in 0-1; two None where nothing was asked.

    Raises:
        ConfigurationError: It is neither.
    """
    if text is None:
        return None, None
    wrong = ConfigurationError(f"--top is a number of images above 0 or a share up to 100%, such as 10 or 5%, not {text!r}")
    if text.endswith("%"):
        try:
            share = float(text[:-1]) / 100
        except ValueError:
            raise wrong from None
        if not (math.isfinite(share) and 0 < share <= 1):
            raise wrong
        return None, share
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise wrong
    return int(text), None


def parse_ratios(text: str) -> tuple[float, float, float]:
    """Three shares with slashes between them, such as ``70/10/20``.

    Raises:
        ConfigurationError: They are not three numbers, one is negative, or the first is 0.
    """
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not all(math.isfinite(share) and share >= 0 for share in shares) or shares[0] <= 0:
        raise ConfigurationError(f"--ratios takes three shares, train/val/test, such as 70/10/20, not {text!r}")
    total = sum(shares)
    return shares[0] / total, shares[1] / total, shares[2] / total
