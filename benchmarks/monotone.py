"""Does a model's mean score fall, level by level, for every kind of degradation?

    python benchmarks/monotone.py [--model default] [--photos DIRECTORY] [--limit 12]

Photos are degraded in 25 kinds at 5 levels; the mean score of each level should lie below that of the level before. Without
``--photos`` the two photos that come with scikit-learn are used. Writes ``benchmarks/results/monotone.json``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import iqakit
from iqakit.datasets.practice import photo_files
from iqakit.datasets.synthetic import SyntheticTask, check_monotone
from iqakit.storage.results import write_json

SUFFIXES = (".jpg", ".png", ".webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, default=12)
    options = parser.parse_args()
    photos = list(photo_files())
    if options.photos:
        photos = sorted(path for path in options.photos.rglob("*") if path.suffix in SUFFIXES)[: options.limit]
    model = iqakit.load(options.model)
    results = check_monotone(SyntheticTask(photos), lambda image: model.score(image).score or 0.0)
    rows = [
        {
            "kind": result.kind,
            "means": {str(level): round(mean, 2) for level, mean in result.means.items()},
            "falls": result.falls,
            "first_above_last": result.means[1] > result.means[5],
        }
        for result in results
    ]
    name = f"{options.photos.name} ({len(photos)})" if options.photos else "scikit-learn's two"
    write_json(Path(__file__).parent / "results" / "monotone.json", {"model": model.version, "photos": name, "kinds": rows})
    for row in rows:
        means = " ".join(f"{mean:6.1f}" for mean in row["means"].values())
        print(f"{row['kind']:28} {means}  {'falls' if row['falls'] else 'does not fall at every level'}")
    falls, ends = sum(row["falls"] for row in rows), sum(row["first_above_last"] for row in rows)
    print(f"{falls} of {len(rows)} fall at every level; {ends} end below where they began")


if __name__ == "__main__":
    main()
