"""Write docs/reference/data-sets.md from the facts in iqakit.datasets.public: ``python docs/make_data_sets.py``."""

from __future__ import annotations

from pathlib import Path

from iqakit.datasets.public import SETS, PublicSet

PAGE = Path(__file__).parent / "reference" / "data-sets.md"

_HEAD = """\
# Public data sets

<!-- Made by docs/make_data_sets.py from iqakit/datasets/public; a test compares. Do not edit by hand. -->

iqakit brings no images. Ask the authors for a set, unpack it, and give its directory:

```
iqakit fit koniq10k:/data/koniq10k
iqakit datasets check clive:/data/ChallengeDB_release
iqakit eval kadid10k:/data/kadid10k --split test
```

A directory is read as its authors hand it out; nothing has to be renamed or converted. Upper and lower case in file
names do not matter. Score files in `.mat` and `.xlsx` need two more packages: `pip install "iqakit[sets]"`.

- **Direction.** Inside iqakit a higher score is always better. A DMOS (higher is worse) is mirrored: lowest + highest
  of its scale, minus the score.
- **Splits.** Official where the authors publish one. Else 70 % train, 10 % val, 20 % test, drawn by `--seed`, and
  pictures of one content (copies of one reference, shots of one scene, answers to one prompt) stay together.
- **Spread.** "std" tells whether the standard deviation of a score over its observers is published and read.
- **Missing images.** A set opens if its score file is right and at least one of its images is there.
  `iqakit datasets check` lists those missing.
- **Terms.** What is not known is said to be "not stated": ask the authors.
"""

_WITH_STD = frozenset({"live", "csiq", "tid2008", "tid2013", "kadid10k", "bid", "clive", "koniq10k", "agiqa3k", "piq23"})
"""Sets whose rows carry a standard deviation; the test of this page opens miniatures and compares."""


def scale(public: PublicSet) -> str:
    """Range and direction of the published scores."""
    facts = public.facts
    sign = "higher is better" if facts.direction == "mos" else "higher is worse"
    return f"no ends; {sign}" if facts.low is None else f"{facts.low:g} to {facts.high:g}; {sign}"


def section(public: PublicSet) -> str:
    """All that is known of one set."""
    facts = public.facts
    lines = [
        f"## {facts.name}",
        f"{facts.title}.",
        f"- **Rated:** {facts.rated}.",
        f"- **Published scores:** {scale(public)}; std: {'yes' if facts.name in _WITH_STD else 'no'}.",
        f"- **Directory:** {public.layout}" + ("" if public.layout.endswith(".") else "."),
        f"- **Splits:** {public.rule}.",
        f"- **Citation:** {facts.citation}.",
        f"- **Terms:** {facts.licence}.",
        f"- **Where to ask:** <{facts.homepage}>",
    ]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n"


def page() -> str:
    """The whole page."""
    rows = [
        f"| [{s.facts.name}](#{s.facts.name}) | {s.facts.images:,} | {scale(s)} | {s.facts.splits} | {s.facts.licence} |"
        for s in SETS
    ]
    table = "\n".join(["| name | images | published scores | splits | terms |", "| --- | ---: | --- | --- | --- |", *rows])
    return "\n".join([_HEAD, table, "", *map(section, SETS)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
