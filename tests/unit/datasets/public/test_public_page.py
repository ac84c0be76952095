from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from iqakit.datasets.public import PUBLIC_SETS, SETS

SCRIPT = Path(__file__).parents[4] / "docs" / "make_data_sets.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data_sets", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_equals_the_facts(maker: ModuleType) -> None:
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(), "run: python docs/make_data_sets.py"


def test_the_page_has_every_fact_of_every_set(maker: ModuleType) -> None:
    text = maker.page()
    for public in SETS:
        facts = public.facts
        _, _, part = text.partition(f"## {facts.name}\n")
        part = part.partition("\n## ")[0]
        for fact in (facts.title, facts.rated, facts.citation, facts.licence, facts.homepage, public.layout, public.rule):
            assert fact in part
        assert ("higher is worse" in part) == (facts.direction == "dmos")


def test_the_page_tells_where_a_standard_deviation_is_read(maker: ModuleType, miniatures: dict[str, Any]) -> None:
    read = {e.name for e in PUBLIC_SETS if e.open(miniatures[e.name].root, "all", 0).sample(0).score_std is not None}
    assert read == maker._WITH_STD
