"""Which runtime runs the network. Loads neither torch nor any other runtime."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Final

from iqakit.errors import ConfigurationError, MissingExtraError, UnknownNameError

RUNTIMES: Final = ("auto", "torch", "onnxruntime", "openvino")
FASTEST_FIRST: Final = ("onnxruntime", "openvino")
"""Graph runtimes in the order that ``auto`` tries them; ``benchmarks/scoring.py`` measures them."""
EXPORTERS: Final = ("onnx", "onnxscript")
"""Packages that making a graph takes; running one does not."""
VARIABLE: Final = "IQAKIT_RUNTIME"
_INSTALL: Final = "pip install 'iqakit[fast]'"


def installed(package: str) -> bool:
    """Whether a package is there; it is not loaded."""
    return importlib.util.find_spec(package) is not None


def choose_runtime(runtime: str, device: str) -> str:
    """The runtime to use.

    Args:
        runtime: ``auto``, ``torch``, ``onnxruntime`` or ``openvino``. ``auto``: what ``$IQAKIT_RUNTIME`` says, else the
            fastest one installed on a CPU, torch on a GPU.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Returns:
        ``torch``, ``onnxruntime`` or ``openvino``.

    Raises:
        UnknownNameError: There is no such runtime.
        MissingExtraError: It was asked for by name and is not installed.
        ConfigurationError: It was asked for by name and does not run on that device.
    """
    asked = runtime if runtime != "auto" else os.environ.get(VARIABLE) or "auto"
    if asked not in RUNTIMES:
        raise UnknownNameError.of("runtime", asked, RUNTIMES)
    if asked == "torch":
        return asked
    if asked == "auto":
        if device not in ("auto", "cpu") or (device == "auto" and gpu_in_sight()):
            return "torch"
        return next((name for name in FASTEST_FIRST if installed(name)), "torch")
    if device not in ("auto", "cpu"):
        raise ConfigurationError(f"runtime {asked} runs on the CPU, not on {device}; use --runtime torch or --device cpu")
    if not installed(asked):
        raise MissingExtraError(f"runtime {asked} was asked for, but is not installed; {_INSTALL}, or use --runtime torch")
    return asked


def missing_exporters() -> list[str]:
    """Packages that making a graph takes and that are not there."""
    return [name for name in EXPORTERS if not installed(name)]


def check_exporters(what: str) -> None:
    """See that a graph can be made.

    Raises:
        MissingExtraError: A package is missing.
    """
    if missing := missing_exporters():
        raise MissingExtraError(f"{what} takes {' and '.join(missing)}, not installed here; {_INSTALL}")


def gpu_in_sight() -> bool:
    """Whether a GPU that torch could use may be there. Asking torch itself would mean to load it.

    Only a sign of a driver is looked for; where there is one, torch has the last word.
    """
    if sys.platform == "darwin":
        return platform.machine() == "arm64" and _torch_finds("mps")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    signs = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    driver = sys.platform == "win32" or any(Path(sign).exists() for sign in signs)
    return driver and _torch_finds("cuda")


def _torch_finds(kind: str) -> bool:
    from iqakit.runtimes.torch_runtime import resolve_device

    return resolve_device("auto").startswith(kind)
