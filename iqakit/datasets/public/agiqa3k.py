"""AGIQA-3K, pictures made by generative models."""

from __future__ import annotations

from pathlib import Path

from iqakit.contracts.dataset import TaskFacts
from iqakit.datasets.public.layout import PublicSet, Row, Tree
from iqakit.datasets.readers import read_csv


def _read(tree: Tree) -> tuple[Path, list[Row]]:
    source = tree.root / str(tree.find("data.csv"))
    table = read_csv(source, ["name", "prompt", "mos_quality", "std_quality", "mos_align"])
    folder = tree.first("images", "AGIQA-3K", "AGIQA-3k")
    prefix = f"{folder}/" if folder else ""
    columns = (table.text("name"), table.floats("mos_quality"), table.floats("std_quality"), table.text("prompt"))
    # Several generators were given one prompt, and their pictures show the same thing: a prompt is one content.
    return source, [
        Row(name, prefix + name, score, spread, " ".join(prompt.casefold().split()))
        for name, score, spread, prompt in zip(*columns, strict=True)
    ]


AGIQA3K = PublicSet(
    facts=TaskFacts(
        name="agiqa3k",
        title="AGIQA-3K",
        # The table's lowest quality scores lie between 0 and 1, so the scale is not one of 1 to 5.
        low=0.0,
        high=5.0,
        direction="mos",
        rated="Pictures made from prompts by six generative models, rated in the laboratory; "
        "the perceptual quality is read, not how well the picture fits its prompt",
        citation="C. Li, Z. Zhang, H. Wu, W. Sun, X. Min, X. Liu, G. Zhai, W. Lin: AGIQA-3K: an open database for "
        "AI-generated image quality assessment. IEEE Transactions on Circuits and Systems for Video Technology, 2024",
        licence="MIT (the licence file of its repository)",
        homepage="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        images=2982,
        splits="by content",
    ),
    layout="data.csv (name, prompt, mos_quality, std_quality, mos_align, ...), the images beside it or in images/",
    markers=(("data.csv",),),
    rule="70/10/20 by prompt; there is no official split",
    read=_read,
    telling=False,
)
