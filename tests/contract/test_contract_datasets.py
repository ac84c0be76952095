"""What every public set in the catalog promises, whoever brings it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqakit.contracts import DatasetEntry
from iqakit.errors import DataError
from iqakit.plugins.catalog import catalog
from iqakit.storage.adapter_file import check_task_name

ENTRIES = {name: part.entry for name, part in catalog().datasets.items()}
each_set = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


def test_there_are_sets() -> None:
    assert {"koniq10k", "spaq", "live", "kadid10k"} <= set(ENTRIES)


@each_set
def test_its_facts_are_complete(entry: DatasetEntry) -> None:
    facts = entry.facts
    assert facts.name == entry.name == check_task_name(entry.name)
    for text in (facts.title, facts.rated, facts.citation, facts.licence):
        assert text.strip()
        assert "\n" not in text
    assert facts.homepage.startswith(("https://", "http://"))
    assert facts.direction in ("mos", "dmos")
    assert facts.splits in ("official", "by content", "random")
    assert facts.images is None or facts.images > 0
    if facts.low is not None and facts.high is not None:
        assert facts.low < facts.high


@each_set
@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_a_directory_that_is_not_the_set_gets_one_line_that_names_the_set(
    entry: DatasetEntry, split: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_bytes(b"")
    for root in (tmp_path / "empty", tmp_path / "other", tmp_path / "missing"):
        with pytest.raises(DataError) as caught:
            entry.open(root, split, 0)
        message = str(caught.value)
        assert "\n" not in message
        assert entry.name in message or entry.facts.title in message
        assert str(root) in message
