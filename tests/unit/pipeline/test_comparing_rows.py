from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqakit.errors import ConfigurationError
from iqakit.pipeline.comparing import compare_rows, names_below
from iqakit.pipeline.rows import ScoreRow


def row(
    path: str, score: float | None = 50.0, *, error: str | None = None, model: str = "m@1", raw: float = 0.1
) -> ScoreRow:
    if error:
        return ScoreRow(path, "error", model, error=error)
    return ScoreRow(path, "ok", model, score=score, raw=raw)


def test_pairs_by_name_then_by_name_without_ending() -> None:
    found = compare_rows(
        [row("a/x/1.png", 40), row("a/2.png", 50), row("a/3.png", 60), row("a/4.png"), row("a/4.bmp")],
        [row("b/x/1.png", 45), row("b/2.jpg", 53), row("b/3.png", 61), row("b/4.jpg")],
    )
    assert [(p.name, p.status, p.difference) for p in found.pairs] == [
        ("x/1.png", "ok", 5),
        ("2.png", "ok", 3),
        ("3.png", "ok", 1),
        ("4.png", "unpaired", None),
        ("4.bmp", "unpaired", None),
        ("4.jpg", "unpaired", None),
    ]
    assert found.pairs[1].path_b == "b/2.jpg"
    assert found.statistics.mean == pytest.approx(3.0)
    assert len(found.unpaired) == 3


def test_failed_images_are_listed_and_not_counted() -> None:
    found = compare_rows(
        [row("a/1.png", 40), row("a/2.png", error="a/2.png is a truncated PNG")],
        [row("b/1.png", 45), row("b/2.png", 70)],
    )
    (failed,) = found.failed
    assert (failed.name, failed.error, failed.b, failed.difference) == ("2.png", "a/2.png is a truncated PNG", 70, None)
    assert found.statistics.n == 1


def test_the_same_paths_on_both_sides_are_the_names() -> None:
    found = compare_rows([row("p/1.png"), row("q/1.png")], [row("q/1.png"), row("p/1.png")])
    assert [p.name for p in found.pairs] == ["p/1.png", "q/1.png"]
    assert not found.unpaired


def test_a_name_that_is_there_twice_is_nobodys_partner() -> None:
    found = compare_rows([row("a/1.png"), row("a/1.png"), row("a/2.png")], [row("b/1.png"), row("b/2.png")])
    assert [p.status for p in found.pairs] == ["unpaired", "unpaired", "ok", "unpaired"]


def rows_of(values: list[float], directory: str, model: str = "m@1") -> list[ScoreRow]:
    return [row(f"{directory}/{index:03d}.png", value, model=model) for index, value in enumerate(values)]


def test_the_verdict_in_words() -> None:
    low = [50.0 + index % 7 for index in range(40)]
    high = [value + 3 + (index % 3) for index, value in enumerate(low)]
    better = compare_rows(rows_of(low, "a"), rows_of(high, "b"), label_a="old", label_b="new")
    assert better.verdict.startswith("new is better than old by 4.0 points (95 % 3.")
    assert better.verdict.endswith("in 40 of 40 images")
    worse = compare_rows(rows_of(high, "a"), rows_of(low, "b"), label_a="old", label_b="new")
    assert worse.verdict.startswith("old is better than new by 4.0 points (95 % 3.")
    assert worse.worse_by_more_than(3.0)
    assert not worse.worse_by_more_than(3.9)
    assert not better.worse_by_more_than(0.0)
    models = compare_rows(rows_of(low, "a"), rows_of(high, "a", "other@2"), label_a="m", label_b="other")
    assert models.verdict.startswith("other scores higher than m by 4.0 points")
    mixed = [value + (2 if index % 2 else -2) for index, value in enumerate(low)]
    unclear = compare_rows(rows_of(low, "a"), rows_of(mixed, "b"))
    assert unclear.verdict.startswith("no clear difference: B is +0 points from A on average (95 % -0.")
    assert compare_rows([row("a/1.png", 1)], [row("b/1.png", 9)]).verdict == (
        "no clear difference: B is +8.0 points from A on average, 1 image"
    )
    nothing = compare_rows([row("a/1.png")], [row("b/1.png", error="bad")])
    assert nothing.verdict == "A and B cannot be compared: no picture was scored on both sides"


def test_what_changed_most() -> None:
    found = compare_rows(rows_of([50, 50, 50, 50, 50], "a"), rows_of([40, 51, 50, 70, 45], "b"))
    fell, rose = found.most_changed(2)
    assert [p.difference for p in fell] == [-10, -5]
    assert [p.difference for p in rose] == [20, 1]
    assert found.most_changed(0) == ((), ())
    fell, rose = found.most_changed(50)
    assert (len(fell), len(rose)) == (2, 2)


def test_raw_outputs_where_a_score_is_missing() -> None:
    a, b = [row("a/1.png", None, raw=0.5)], [row("b/1.png", 60, raw=0.75)]
    found = compare_rows(a, b)
    assert (found.on, found.statistics.mean) == ("raw", 0.25)
    with pytest.raises(ConfigurationError, match=r"a/1.png has no calibrated score; compare raw outputs with --on raw"):
        compare_rows(a, b, on="score")


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is nothing to compare: B holds no image"):
        compare_rows([row("a/1.png")], [])


def test_json_holds_figures_and_rows() -> None:
    found = compare_rows(rows_of([1, 2, 3], "a"), [*rows_of([2, 3, 5], "b"), row("b/more.png")]).to_json()
    assert found["summary"]["verdict"].startswith("B is better than A by 1.3 points")
    assert (found["summary"]["n"], found["summary"]["unpaired"], found["summary"]["failed"]) == (3, 1, 0)
    assert [r["difference"] for r in found["rows"]] == [1, 1, 2, None]


def test_names_are_below_what_paths_have_in_common() -> None:
    assert names_below(["s/a/1.png", "s/b/1.png"]) == ["a/1.png", "b/1.png"]
    assert names_below(["1.png", "b/2.png"]) == ["1.png", "b/2.png"]
    assert names_below(["/s/a/1.png"]) == ["1.png"]
    assert names_below(["/s/1.png", "t/1.png"]) == ["/s/1.png", "t/1.png"]
    assert names_below(["./s/a/1.png"], "s") == ["a/1.png"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_a_side_changes_nothing_but_the_order(values: list[float], random) -> None:
    first, second = rows_of(values, "a"), rows_of(values[::-1], "b")
    shuffled = list(second)
    random.shuffle(shuffled)
    found, again = (compare_rows(first, side, bootstrap=0) for side in (second, shuffled))
    assert found.pairs == again.pairs
    swapped = compare_rows(second, first, bootstrap=0).statistics
    assert swapped.mean == pytest.approx(-(found.statistics.mean or 0.0), abs=1e-9)
    assert swapped.wilcoxon_p == found.statistics.wilcoxon_p
