"""``python -m iqakit``: the program, where its own script is not on the path."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from iqakit.cli.app import main

        code = main()
    except KeyboardInterrupt:  # while the program itself was still being loaded
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)
