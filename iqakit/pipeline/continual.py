"""``continual``: learn streams of tasks, and measure after every task what was learned and what was kept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from iqakit.contracts import Progress
from iqakit.datasets.splits import SPLITS
from iqakit.errors import ConfigurationError, DataError, IqakitError, StorageError
from iqakit.pipeline.continual_clock import Messages
from iqakit.pipeline.continual_figures import Evaluated, agreement, figures
from iqakit.pipeline.continual_gates import Gate
from iqakit.pipeline.continual_learning import Learner, Step, Workshop
from iqakit.pipeline.continual_passes import Head, Passes, TestSet
from iqakit.pipeline.continual_record import Bytes, ContinualReport, ContinualRun, EvaluatedTask, Failure, Matrix
from iqakit.pipeline.continual_request import Method, Order, methods_of, orders_of
from iqakit.pipeline.fit_request import check_amount, named_sources
from iqakit.pipeline.fitting import DEFAULT_BACKBONE, SilentProgress
from iqakit.pipeline.model import DEFAULT_COMBINER
from iqakit.pipeline.part_checks import check_backbone_name, failed
from iqakit.pipeline.provenance import card, versions
from iqakit.plugins.catalog import catalog
from iqakit.runtimes.torch_runtime import resolve_device
from iqakit.storage.atomic import write_error, write_text_atomic
from iqakit.storage.canonical_json import readable_json
from iqakit.storage.directory_lock import locked_directory
from iqakit.storage.model_directory import add_task

SUMMARY_NAME = "summary.json"


def run_continual(
    data: Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    orders: Sequence[str] = ("given",),
    adapters: Sequence[str] = ("tsn",),
    combiners: Sequence[str] = (DEFAULT_COMBINER,),
    backbone: str | None = None,
    weights: str | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    epochs: int | None = None,
    seeds: Sequence[int] = (0,),
    split: str = "test",
    on: str = "raw",
    bootstrap: int = 1000,
    device: str = "auto",
    workers: int = 2,
    work: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ContinualReport:
    """Learn a stream of tasks with one method or several, and evaluate every task so far after each.

    Nothing is done twice: adapters serve all combiners and, where a method's tasks are independent, all orders; passes over
    an evaluation set are kept. A run that was cut off goes on where it stopped when the same call is made again, and ends
    in the same ``summary.json``. A method that fails does not stop the others.

    Args:
        data: CSVs, directories holding ``scores.csv``, or ``NAME:PATH`` of public sets; one a task.
        output: The directory for ``summary.json`` and the learned models.
        orders: ``given``, ``reverse``, ``random:SEED``, or the tasks' names with commas between.
        adapters: Names of fit methods.
        combiners: Names of combiners.
        backbone: Name of the backbone; None: the default.
        weights: ``pretrained``, ``random:SEED`` or a safetensors file; None: ``pretrained``.
        preset: A preset, for every method that has it.
        settings: ``key=value`` for every method that has the setting, ``ADAPTER:key=value`` for one,
            ``COMBINER.key=value`` for a combiner.
        epochs: How long to train; None: as each method says.
        seeds: Seeds of all randomness, splits included where the data bring none; everything is done for each.
        split: The images evaluated: ``test``, ``val``, ``train`` or ``all``.
        on: What is compared with human scores: ``raw``, the weighted sum of raw head outputs, as in the literature, or
            ``score``, in points.
        bootstrap: Resamples for the 95 % intervals; 0: none.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Threads that decode.
        work: Where learned models and passes are kept; None: ``output/work``. Several outputs may share one.
        progress: Where to say how far it is.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ConfigurationError: A name or a setting makes no sense.
        DataError: A table is not what it must be.
        StorageError: ``output`` cannot be written.
    """
    _check_numbers(epochs, bootstrap, workers, seeds)
    if split not in (*SPLITS, "all"):
        raise ConfigurationError(f"split must be {', '.join(SPLITS)} or all, but it is {split!r}")
    if on not in ("raw", "score"):
        raise ConfigurationError(f"on must be raw or score, but it is {on!r}")
    if not data:
        raise DataError(
            "there is nothing to learn; give two tasks or more: CSVs, directories holding scores.csv, NAME:PATH"
        )
    methods, combiner_settings = methods_of(adapters, settings, preset)
    for name in combiners:
        catalog().combiner(name)
    if unused := [name for name in combiner_settings if name not in combiners]:
        raise ConfigurationError(f"there are settings of combiner {unused[0]!r}, but it is not asked for; add --combiner")
    sources = named_sources(data, None)
    asked_orders = orders_of(orders, [source.name for source in sources])
    chosen = resolve_device(device)
    say = Messages(progress or SilentProgress())
    for seed in seeds:
        for source in sources:
            for part in dict.fromkeys(("train", "val", split)):
                opened = source.open(part, seed)
                for warning in getattr(opened, "warnings", ()):
                    say.message(f"{source.name}: {warning}")
                if part == "train":
                    check_amount(source, opened)
    asked_weights = _lasting(weights or "pretrained")
    name = backbone or DEFAULT_BACKBONE
    made = catalog().make_backbone(name, asked_weights)
    check_backbone_name(name, made)
    place = Path(output)
    kept = place / "work" if work is None else Path(work)
    with _locked(kept):
        _make(place)
        texts = [os.fspath(text) for text in data]
        shop = Workshop(sources, texts, made, asked_weights, kept, chosen, workers, say)
        gates = [Gate(shop, combiner, combiner_settings.get(combiner, {})) for combiner in catalog().combiners]
        asked = [gate for wanted in dict.fromkeys(combiners) for gate in gates if gate.name == wanted]
        facts: dict[str, Any] = {
            "adapters": [
                {
                    "adapter": method.name,
                    "version": method.version,
                    "preset": method.preset,
                    "settings": dict(method.config),
                }
                for method in methods
            ],
            "combiners": [{"combiner": gate.name, "settings": gate.config} for gate in asked],
            "backbone": made.id,
            "weights": made.weights,
            "weights_sha256": shop.fingerprint,
            "epochs": epochs,
            "split": split,
            "on": on,
            "bootstrap": bootstrap,
            "device": chosen.partition(":")[0],
            "versions": versions(),
        }
        return _Bench(shop, Passes(shop, split), asked, gates, place, facts).measure(methods, asked_orders, seeds, epochs)


class _Bench:
    """Measures all methods, seeds, orders and combiners into one report, which is written as it grows."""

    def __init__(
        self,
        shop: Workshop,
        passes: Passes,
        gates: Sequence[Gate],
        all_gates: Sequence[Gate],
        place: Path,
        facts: Mapping[str, Any],
    ) -> None:
        self.shop = shop
        self.passes = passes
        self.gates = gates
        self.all_gates = all_gates
        self.place = place
        self.facts = facts
        self.runs: list[ContinualRun] = []
        self.failures: list[Failure] = []
        self.tasks: dict[tuple[int, str], EvaluatedTask] = {}

    def measure(
        self, methods: Sequence[Method], orders: Sequence[Order], seeds: Sequence[int], epochs: int | None
    ) -> ContinualReport:
        """Everything asked for."""
        for seed in dict.fromkeys(seeds):
            for task in self.shop.sources:
                images = self.passes.test_set(task, seed)
                self.tasks[seed, task] = EvaluatedTask(task, seed, len(images.human), images.failed)
            for method in methods:
                learner = Learner(self.shop, method, epochs, seed)
                for order in orders:
                    self._stream(learner, order)
                    self._write()
        return self._write()

    def _stream(self, learner: Learner, order: Order) -> None:
        """One method along one order."""
        images = [self.passes.test_set(task, learner.seed) for task in order.tasks]
        steps: list[Step] = []
        evaluated: list[Evaluated] = []
        try:
            for count in range(1, len(order.tasks) + 1):
                steps.append(learner.after(order.tasks[:count]))
                if not learner.method.independent:
                    evaluated.append(self._evaluated(steps[-1], images[:count]))
            if learner.method.independent:
                evaluated = self._of_independent(steps[-1], images)
            model = self._keep_model(learner, order, steps[-1])
        except (OSError, MemoryError):
            raise  # the disk or the machine, not the method: the others would fare no better
        except Exception as error:  # a plugin's method may fail in any way, and must not cost the others their results
            self._failed(learner, order, steps, evaluated, images, None, error)
            return
        for gate in self.gates:
            try:
                run = self._run(learner, order, steps[-1], evaluated, images, gate, model)
            except IqakitError as error:
                self._failed(learner, order, steps, [], images, gate, error)
            else:
                self.runs.append(run)

    def _evaluated(self, step: Step, images: Sequence[TestSet]) -> Evaluated:
        """Passes of all heads over the images of all tasks so far."""
        heads = [Head.of(adapter, step.shared) for adapter in step.adapters]
        return Evaluated(step.adapters, tuple(self.passes.raw(data, heads) for data in images))

    def _of_independent(self, step: Step, images: Sequence[TestSet]) -> list[Evaluated]:
        """The same after each task, where a head's outputs do not depend on the tasks that came before or after."""
        whole = self._evaluated(step, images)
        return [
            Evaluated(step.adapters[:count], tuple(raw[:, :count] for raw in whole.raw[:count]))
            for count in range(1, len(images) + 1)
        ]

    def _run(
        self,
        learner: Learner,
        order: Order,
        step: Step,
        evaluated: Sequence[Evaluated],
        images: Sequence[TestSet],
        gate: Gate,
        model: str,
    ) -> ContinualRun:
        found = figures(evaluated, images, gate, on=self.facts["on"], bootstrap=self.facts["bootstrap"], seed=learner.seed)
        state = gate.state(order.tasks, learner.seed)
        return ContinualRun(
            adapter=learner.method.name,
            combiner=gate.name,
            order=order.tasks,
            seed=learner.seed,
            R=found.R,
            P=found.P,
            msrcc=found.msrcc,
            mpi=found.mpi,
            msi=found.msi,
            mpsi=found.mpsi,
            seconds=round(sum(step.seconds), 1),
            bytes_per_task=round(sum(step.adapter_bytes) / len(step.adapter_bytes)),
            msrcc_interval=found.msrcc_interval,
            srcc_intervals=found.srcc_intervals,
            plcc=found.plcc,
            mplcc=found.mplcc,
            gate=found.gate,
            seconds_per_task=step.seconds,
            bytes=Bytes(
                adapters=step.adapter_bytes,
                combiner=sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
                shared=step.shared_bytes,
                memory=step.memory_bytes,
            ),
            order_name=order.name,
            model=model,
        )

    def _failed(
        self,
        learner: Learner,
        order: Order,
        steps: Sequence[Step],
        evaluated: Sequence[Evaluated],
        images: Sequence[TestSet],
        gate: Gate | None,
        error: Exception,
    ) -> None:
        """Write down a failure with what there is of R."""
        part = catalog().adapters[learner.method.name]
        told = error if isinstance(error, IqakitError) else failed("adapter", part.entry.name, part.distribution, error)
        partial: dict[str, Matrix] = {}
        if evaluated:
            for each in self.gates:
                with contextlib.suppress(IqakitError):  # its own failure would be the second about one stream
                    partial[each.name] = agreement(evaluated, images, each, self.facts["on"])
        learned = tuple(adapter.task for adapter in steps[-1].adapters) if steps else ()
        combiner = None if gate is None else gate.name
        text = " ".join(str(told).split())
        self.failures.append(Failure(learner.method.name, combiner, order.tasks, learner.seed, learned, text, partial))
        who = learner.method.name if combiner is None else f"{learner.method.name} with {combiner}"
        self.shop.say.message(f"{who}, order {order.name}, seed {learner.seed}: failed: {text}")

    def _keep_model(self, learner: Learner, order: Order, step: Step) -> str:
        """Write the learned model as one ``fit`` in that order would have, for ``score`` and ``eval``."""
        label = re.sub(r"[^A-Za-z0-9._-]+", "-", order.name)[:80]
        name = f"models/{learner.method.name}-{label}-seed{learner.seed}"
        states: dict[str, Mapping[str, Tensor]] = {}
        part = self.place / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        _make(part)
        for count, adapter in enumerate(step.adapters, 1):
            tasks = [known.task for known in step.adapters[:count]]
            for gate in self.all_gates:
                with contextlib.suppress(IqakitError):  # said where the combiner is used
                    if state := gate.state(tasks, learner.seed):
                        states[gate.name] = state
            text = card(step.adapters[:count], step.facts.id, Path(step.facts.weights).name)
            shared = dict(step.shared) if step.shared and count == len(step.adapters) else None
            add_task(part, step.facts, adapter, states, text, shared, locked=True)
        shutil.rmtree(self.place / name, ignore_errors=True)
        part.rename(self.place / name)
        return name

    def _write(self) -> ContinualReport:
        """The report so far, and its file."""
        report = ContinualReport(self.place, tuple(self.runs), tuple(self.failures), tuple(self.tasks.values()), self.facts)
        write_text_atomic(self.place / SUMMARY_NAME, readable_json(report.to_json(), SUMMARY_NAME), "the summary")
        return report


def _check_numbers(epochs: int | None, bootstrap: int, workers: int, seeds: Sequence[int]) -> None:
    numbers = {"epochs": epochs or 0, "bootstrap": bootstrap, "workers": workers}
    for what, value in (*numbers.items(), *(("seed", seed) for seed in seeds)):
        if value < 0:
            raise ConfigurationError(f"{what} must be 0 or more, but it is {value}")
    if not seeds:
        raise ConfigurationError("there is no seed; give one or more, such as 0")


def _lasting(weights: str) -> str:
    """Weights as they can be found again from any directory."""
    path = Path(weights).expanduser()
    return str(path.resolve()) if path.is_file() else weights


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(place, "to directory", error) from error


@contextlib.contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Keep a second run out of the same directory."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked_directory(work))
        except StorageError as error:
            if isinstance(error.__cause__, BlockingIOError):
                raise StorageError(f"another run is using {work}; wait until it is done or choose another -o") from error
            if isinstance(error.__cause__, FileExistsError):
                raise StorageError(f"{work} is a file, and a directory is wanted; choose another -o") from error
            raise
        yield
