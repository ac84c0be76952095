"""Continual learning on the tiny backbone: identities, independent recomputation, reuse."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from scipy import stats

import iqakit
from iqakit.errors import ConfigurationError, DataError, UnknownNameError
from iqakit.pipeline.continual import run_continual
from iqakit.pipeline.continual_record import ContinualReport, ContinualRun
from iqakit.pipeline.continual_request import methods_of, orders_of
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.joining import join_models

COMBINERS = ["kmeans", "average", "oracle", "last"]
OPTIONS = {
    "backbone": "tiny",
    "settings": ["tsn:crop=32", "kmeans.clusters=4", "kmeans.repeats=2"],
    "epochs": 1,
    "bootstrap": 60,
}


@dataclass(frozen=True)
class Bench:
    data: list[Path]
    output: Path
    report: ContinualReport

    def run(self, adapter: str, combiner: str, order: str = "given") -> ContinualRun:
        (found,) = (
            run for run in self.report.runs if (run.adapter, run.combiner, run.order_name) == (adapter, combiner, order)
        )
        return found


@pytest.fixture(scope="module")
def bench(make_rated_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("continual")
    data = [make_rated_photos(root / name, count=36, side=40 + 4 * seed, seed=seed) for seed, name in enumerate("abc")]
    report = run_continual(
        data,
        output=root / "out",
        adapters=["linear", "tsn"],
        combiners=COMBINERS,
        orders=["given", "reverse", "b,c,a"],
        **OPTIONS,
    )
    return Bench(data, root / "out", report)


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_every_run_is_there_with_its_shape(bench: Bench) -> None:
    assert len(bench.report.runs) == 2 * 4 * 3
    assert not bench.report.failures
    for run in bench.report.runs:
        for t in range(3):
            assert [value is None for value in run.R[t]] == [s > t for s in range(3)]
            assert [value is None for value in run.P[t]] == [s > t for s in range(3)]
            assert run.P[t][t] == 1.0
    assert [run.order for run in bench.report.runs[:12:4]] == [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")]


@pytest.mark.parametrize("adapter", ["linear", "tsn"])
def test_under_the_oracle_nothing_is_forgotten(bench: Bench, adapter: str) -> None:
    for order in ("given", "reverse"):
        run = bench.run(adapter, "oracle", order)
        assert run.msi == 1.0
        assert all(value == 1.0 for t, row in enumerate(run.P) for value in row[: t + 1])
        assert run.msrcc == pytest.approx(run.mpi, abs=1e-12)


@pytest.mark.parametrize("adapter", ["linear", "tsn"])
@pytest.mark.parametrize("combiner", ["kmeans", "average", "oracle"])
def test_the_end_does_not_depend_on_the_order(bench: Bench, adapter: str, combiner: str) -> None:
    given, reverse = bench.run(adapter, combiner), bench.run(adapter, combiner, "reverse")
    assert reverse.msrcc == pytest.approx(given.msrcc, abs=1e-6)
    assert reverse.msrcc_interval == pytest.approx(given.msrcc_interval, abs=1e-6)
    assert [row[::-1] for row in reverse.gate[::-1]] == [pytest.approx(row, abs=1e-6) for row in given.gate]


def test_weights_are_weights(bench: Bench) -> None:
    for run in bench.report.runs:
        assert [sum(row) for row in run.gate] == pytest.approx([1.0] * 3, abs=1e-6)
    identity = tuple(tuple(float(row == column) for column in range(3)) for row in range(3))
    assert bench.run("linear", "oracle").gate == identity
    assert bench.run("linear", "last").gate == ((0.0, 0.0, 1.0),) * 3


def test_matrices_are_those_of_models_scored_one_image_at_a_time(bench: Bench, tmp_path: Path) -> None:
    (learned,) = {path.parent for path in bench.output.glob("work/learned/tsn-a-*/model.json")}
    parts = [next(bench.output.glob(f"work/learned/tsn-{name}-*/model.json")).parent for name in "abc"]
    assert learned == parts[0]
    run = bench.run("tsn", "average")
    raw: list[list[list[float]]] = []
    human: list[list[float]] = []
    for t in range(3):
        join_models(parts[: t + 1], tmp_path / str(t))
        model = iqakit.load(tmp_path / str(t))
        raw.append([])
        for data in bench.data[: t + 1]:
            rows = [row for row in csv.DictReader((data / "scores.csv").open()) if row["split"] == "test"]
            raw[t].append([score.raw for score in model.score_many([data / r["image"] for r in rows], combiner="average")])
            human.append([float(row["mos"]) for row in rows])
    for t in range(3):
        for s in range(t + 1):
            truth = human[s - 3]
            assert run.R[t][s] == pytest.approx(stats.spearmanr(raw[t][s], truth).statistic, abs=1e-9)
            assert run.P[t][s] == pytest.approx(stats.spearmanr(raw[t][s], raw[s][s]).statistic, abs=1e-9)
    last = [stats.spearmanr(raw[2][s], human[s - 3]).statistic for s in range(3)]
    assert run.msrcc == pytest.approx(sum(last) / 3, abs=1e-9)
    first = [stats.spearmanr(raw[s][s], human[s - 3]).statistic for s in range(3)]
    assert run.mpi == pytest.approx(sum(first) / 3, abs=1e-9)
    kept = [1.0] + [sum(stats.spearmanr(raw[t][s], raw[s][s]).statistic for s in range(t)) / t for t in (1, 2)]  # SI_1 = 1
    assert run.msi == pytest.approx(sum(kept) / 3, abs=1e-9)
    assert run.mpsi == pytest.approx((run.mpi + run.msi) / 2, abs=1e-12)


@pytest.mark.parametrize("on", ["raw", "score"])
def test_the_last_row_is_that_of_eval_on_the_kept_model(bench: Bench, tmp_path: Path, on: str) -> None:
    runs = [bench.run("tsn", combiner) for combiner in COMBINERS]
    if on == "score":
        options = {**OPTIONS, "work": bench.output / "work", "combiners": ["kmeans", "oracle"]}
        runs = list(run_continual(bench.data, output=tmp_path / "out", on=on, **options).runs)
    model = bench.output / bench.run("tsn", "kmeans").model
    records = iqakit.evaluate(model, bench.data, combiners=[run.combiner for run in runs], on=on, bootstrap=60)
    for run in runs:
        mine = [record for record in records if record["combiner"] == run.combiner]
        assert [record["srcc"] for record in mine] == pytest.approx(run.R[-1], abs=1e-12)
        assert [record["plcc"] for record in mine] == pytest.approx(run.plcc, abs=1e-12)
        ends = [(record["srcc_low"], record["srcc_high"]) for record in mine]
        assert [pytest.approx(pair, abs=1e-12) for pair in ends] == list(run.srcc_intervals)
        assert run.msrcc_interval[0] <= run.msrcc <= run.msrcc_interval[1]


def test_the_kept_model_is_what_one_fit_gives_to_the_byte(bench: Bench, tmp_path: Path) -> None:
    settings = {"crop": "32", "kmeans.clusters": "4", "kmeans.repeats": "2"}
    fit_tasks(bench.data[::-1], backbone="tiny", settings=settings, epochs=1, model=tmp_path / "fit")
    assert hashes(bench.output / bench.run("tsn", "kmeans", "reverse").model) == hashes(tmp_path / "fit")


def test_another_gate_needs_no_training_and_no_pass(bench: Bench, tmp_path: Path) -> None:
    def kept() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns
            for part in ("learned", "passes", "features")
            for path in (bench.output / "work" / part).rglob("*.safetensors")
        }

    before = kept()
    options = {**OPTIONS, "settings": ["tsn:crop=32", "kmeans.temperature=0", "kmeans.clusters=3"]}
    report = run_continual(
        bench.data, output=tmp_path / "out", work=bench.output / "work", combiners=["kmeans", "average"], **options
    )
    assert kept() == before
    flat, average = report.runs
    assert flat.R == average.R  # temperature 0 is the plain average
    assert flat.gate == average.gate
    assert flat.bytes.combiner < bench.run("tsn", "kmeans").bytes.combiner


def test_a_second_run_gives_the_same_bytes_and_reads_nothing(bench: Bench) -> None:
    before = (bench.output / "summary.json").read_bytes()

    started: list[str] = []

    class Silent:
        def start(self, what: str, total: int) -> None:
            started.append(what)

        def advance(self, steps: int = 1, note: str = "") -> None:
            pass

        def message(self, text: str) -> None:
            pass

    again = run_continual(
        bench.data,
        output=bench.output,
        adapters=["linear", "tsn"],
        combiners=COMBINERS,
        orders=["given", "reverse", "b,c,a"],
        progress=Silent(),
        **OPTIONS,
    )
    assert (bench.output / "summary.json").read_bytes() == before
    assert again == bench.report
    assert not [what for what in started if "calibrating" in what or "tsn on" in what]


def test_the_file_is_the_report(bench: Bench) -> None:
    found = json.loads((bench.output / "summary.json").read_text())
    assert found == json.loads(json.dumps(bench.report.to_json()))
    promised = {
        "adapter",
        "combiner",
        "order",
        "seed",
        "R",
        "P",
        "msrcc",
        "mpi",
        "msi",
        "mpsi",
        "seconds",
        "bytes_per_task",
    }
    assert promised < set(found["runs"][0])
    run = bench.run("tsn", "kmeans")
    files = sorted((bench.output / run.model / "adapters").iterdir())
    assert run.bytes.adapters == tuple(file.stat().st_size for file in files)
    assert (run.bytes.shared, run.bytes.memory) == (0, 0)
    assert run.bytes_per_task == round(sum(run.bytes.adapters) / 3)
    assert run.seconds == pytest.approx(sum(run.seconds_per_task), abs=0.06)


def test_one_task_has_all_the_weight(bench: Bench, tmp_path: Path) -> None:
    report = run_continual(
        bench.data[:1], output=tmp_path, adapters=["linear"], combiners=COMBINERS, backbone="tiny", bootstrap=0
    )
    for run in report.runs:
        assert run.gate == ((1.0,),)
        assert (run.msi, run.P) == (1.0, ((1.0,),))
        assert run.msrcc == run.mpi == report.runs[0].msrcc
        assert run.msrcc_interval == (None, None)


def test_orders() -> None:
    tasks = ["a", "b", "c", "d"]
    assert [order.tasks for order in orders_of([], tasks)] == [("a", "b", "c", "d")]
    mixed = orders_of(["random:3"], tasks)[0].tasks
    assert sorted(mixed) == tasks
    assert mixed == tuple(tasks[i] for i in torch.randperm(4, generator=torch.Generator().manual_seed(3)))
    named = orders_of(["reverse", "d,c,b,a", "b, a,d,c"], tasks)
    assert [(order.name, order.tasks) for order in named] == [
        ("reverse", ("d", "c", "b", "a")),
        ("b, a,d,c", ("b", "a", "d", "c")),
    ]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("backwards", "order 'backwards' is not known; give given, reverse, random:SEED or all tasks with commas"),
        ("random:x", "random takes a seed, such as random:1"),
        ("random:-1", "random takes a seed"),
        ("a,b", "must name every task once; the tasks are a, b, c"),
        ("a,b,b", "must name every task once"),
        ("a,b,ef", "no task is named 'ef'"),
    ],
)
def test_orders_that_are_none(order: str, words: str) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError), match=words):
        orders_of([order], ["a", "b", "c"])


def test_settings_reach_whom_they_are_for() -> None:
    methods, combiners = methods_of(
        ["tsn", "linear"], ["features=embedding", "tsn:batch-size=8", "linear:penalty=2", "kmeans.clusters=5"], "paper-a"
    )
    tsn, linear = methods
    assert (tsn.config["features"], linear.config["features"]) == ("embedding", "embedding")
    assert (tsn.config["batch_size"], tsn.config["epochs"], tsn.preset) == ("8", "8", "paper-a")
    assert (linear.config["penalty"], linear.preset) == ("2.0", None)
    assert combiners == {"kmeans": {"clusters": "5"}}


@pytest.mark.parametrize(
    ("settings", "preset", "words"),
    [
        (["penaltie=1"], None, "no setting of linear is named 'penaltie'; did you mean penalty"),
        (["tsn:epochs=1"], None, "no adapter of this run is named 'tsn'"),
        (["linear:penalty=x"], None, "penalty=x of linear: a number or none is wanted"),
        (["linear:penalty"], None, "--set takes key=value"),
        (["kmaens.clusters=3"], None, "no combiner is named 'kmaens'"),
        (["kmeans.clusters=0"], None, "clusters must be 1 or more"),
        ([], "paper-a", "no preset of linear is named 'paper-a'"),
    ],
)
def test_settings_that_nobody_takes(settings: list[str], preset: str | None, words: str) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError), match=words):
        methods_of(["linear"], settings, preset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tset"}, "split must be .* or all, but it is 'tset'"),
        ({"on": "points"}, "on must be raw or score, but it is 'points'"),
        ({"bootstrap": -1}, "bootstrap must be 0 or more"),
        ({"epochs": -1}, "epochs must be 0 or more"),
        ({"workers": -1}, "workers must be 0 or more"),
        ({"seeds": []}, "there is no seed"),
        ({"seeds": [-3]}, "seed must be 0 or more, but it is -3"),
        ({"adapters": ["tns"]}, "no fit adapter is named 'tns'"),
        ({"combiners": ["kmaens"]}, "no combiner is named 'kmaens'"),
        (
            {"combiners": ["average"], "settings": ["kmeans.clusters=3"]},
            "settings of combiner 'kmeans', but it is not asked",
        ),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or mps"),
        ({"backbone": "tiny:nothing"}, "nothing"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(
    bench: Bench, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError), match=words):
        run_continual(bench.data, **{"output": tmp_path / "out", "backbone": "tiny", "adapters": ["linear"], **options})
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_learned(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing to learn"):
        run_continual([], output=tmp_path / "out")
    with pytest.raises(ConfigurationError, match="two of the tasks are named 'a'"):
        run_continual([bench.data[0], bench.data[0]], output=tmp_path / "out", backbone="tiny")
    assert not (tmp_path / "out").exists()
