"""Draw docs/pictures/report.png, the report of examples/photos: ``python docs/make_report_picture.py``. Needs Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "report.png"


def main() -> int:
    """Score the bundled photos, open their report and keep what is seen."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print(
            "Chromium is needed and was not found; install it, for example with: apt-get install chromium", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        page, shot = Path(scratch) / "report.html", Path(scratch) / "shot.png"
        command = [sys.executable, "-m", "iqakit.cli.app", "-q", "score", "examples/photos", "--report", str(page)]
        subprocess.run([*command, "-o", str(Path(scratch) / "rows.csv")], cwd=ROOT, check=True)
        look = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        place = [f"--user-data-dir={scratch}/profile", f"--screenshot={shot}", "--window-size=1280,1500"]
        subprocess.run([program, *look, *place, page.as_uri() + "#theme=light"], check=True, stderr=subprocess.DEVNULL)
        PICTURE.parent.mkdir(exist_ok=True)
        picture = Image.open(shot).convert("RGB").resize((960, 1125), Image.Resampling.LANCZOS)
        picture.quantize(192, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
