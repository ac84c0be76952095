"""The program: ``python -m iqakit``, and what its script ``iqakit`` calls."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the program and run it; gives its exit code.

    An interruption while modules are still being loaded is one line as well, so nothing may be loaded before the ``try``.
    """
    try:
        from iqakit.cli.app import main as run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
