"""Time, memory and size of the report of many images: ``python benchmarks/report.py [COUNT...]``.

Rows are made up and have no thumbnails: what is measured is what grows with the number of images. Prints one JSON object a
count: processor seconds, the most memory the process ever held above what it began with, and the size of the page.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from iqakit.pipeline.rows import ScoreRow
from iqakit.reporting.html_report import write_report


def made_up(count: int) -> Iterator[ScoreRow]:
    """Rows as a model of three tasks gives them."""
    for index in range(count):
        share = index % 101 / 101
        yield ScoreRow(
            path=f"shots/2024-{index // 2000:04d}/IMG_{index:07d}.jpg",
            status="ok",
            model="made-up@00000000",
            score=index * 7919 % 100_003 / 1000.03,
            raw=share,
            std=8 + share,
            novelty=share,
            weights={"day": share, "night": (1 - share) / 2, "screens": (1 - share) / 2},
            width=4000,
            height=3000,
            warnings=("exif-rotated",) if index % 9 == 0 else (),
        )


def main() -> None:
    """Measure each count."""
    for count in [int(text) for text in sys.argv[1:]] or [1_000, 100_000, 300_000]:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "report.html"
            write_report(made_up(10), path, sheet=0)  # what is loaded once is not counted
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            write_report(made_up(count), path, sheet=0)
            after, ended = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            figures = {
                "images": count,
                "cpu_seconds": round(ended - began, 1),
                "memory_mb": round((after - before) / 1024, 1),
            }
            print(json.dumps(figures | {"page_mb": round(path.stat().st_size / 1e6, 1)}), flush=True)


if __name__ == "__main__":
    main()
