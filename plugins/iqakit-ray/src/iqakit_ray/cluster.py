"""The scorer of iqakit, mapped over Ray Data.

Paths are cut into blocks. Each worker, an actor, loads the model once and turns blocks of paths into rows. A block
that was lost with its worker is given to another one by Ray; scoring it again gives the same rows, so nothing shows of it.
Rows come back in the order of the paths.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from iqakit.errors import ConfigurationError, IqakitError, MissingExtraError, StorageError


@dataclass(frozen=True, slots=True)
class Scoring:
    """What every worker does.

    Attributes:
        model: The model's name or directory, the same on every machine.
        version: Its version; a worker that finds another one refuses.
        directory: The directory that paths are relative to.
        combiner: The combiner's name; None: the default.
        task: The images' true task.
        settings: The combiner's settings.
        device: Where the network runs.
        threads: Threads that decode in each worker.
        cpus: Cores that each worker takes.
    """

    model: str
    version: str
    directory: str
    combiner: str | None = None
    task: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    threads: int = 1
    cpus: int = 1


class Worker:
    """Scores blocks of paths; Ray makes one in each of its processes.

    Args:
        scoring: What to do.

    Raises:
        ConfigurationError: The model of this machine is another one, or the directory is not there.
    """

    def __init__(self, scoring: Scoring) -> None:
        from iqakit.pipeline.model import QualityModel

        self._scoring = scoring
        try:
            os.chdir(scoring.directory)
        except OSError as error:
            raise ConfigurationError(
                f"{os.uname().nodename} has no directory {scoring.directory}; images must lie under the same path on every "
                "machine"
            ) from error
        self._model = QualityModel.load(scoring.model, device=scoring.device)
        if self._model.version != scoring.version:
            raise ConfigurationError(
                f"{os.uname().nodename} has model {self._model.version}, not {scoring.version}; "
                "put the same one on every machine"
            )

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows as JSON, for a block of paths.

        Args:
            block: ``index`` and ``path``, the latter as bytes, since a name need not be text.
        """
        paths = [os.fsdecode(path) for path in block["path"].to_pylist()]
        rows = self._model.score_many(
            paths,
            combiner=self._scoring.combiner,
            task=self._scoring.task,
            settings=self._scoring.settings,
            workers=self._scoring.threads,
        )
        texts = [json.dumps(row.to_json()) for row in rows]
        return pa.table({"index": block["index"], "row": pa.array(texts, pa.string())})


def connect(address: str | None, cores: int | None) -> Any:
    """Join a cluster, or make one of this machine.

    Args:
        address: ``"auto"``, or that of a cluster; None: this machine alone.
        cores: Of this machine, where it is alone; None: all.

    Returns:
        The package ray.

    Raises:
        MissingExtraError: ray is not installed.
        ConfigurationError: There is no cluster at that address.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError('ray-score needs Ray; install it with: pip install "ray[data]"') from None
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "ignore_reinit_error": True}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return ray
    if address is not None:
        check_reachable(address)
    try:
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            # Paths and rows are all that is stored, so little is enough.
            ray.init(address="local", num_cpus=cores, include_dashboard=False, object_store_memory=256 * 2**20, **quiet)
    except Exception as error:  # Ray raises that very class where a machine is too busy to start in its 30 seconds
        where = "could be started here" if address is None else f"answers at {address}"
        advice = "try again when the machine is less busy" if address is None else "start one with: ray start --head"
        reason = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"no Ray cluster {where}: {reason}; {advice}") from error
    return ray


def check_reachable(address: str, seconds: float = 10) -> None:
    """See that something listens at an address; Ray itself would go on trying for many minutes.

    Args:
        address: ``host:port``, ``ray://host:port``, or ``auto``, for which Ray looks itself and says so at once.
        seconds: How long to wait.

    Raises:
        ConfigurationError: Nothing does, or it is no such address.
    """
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        raise ConfigurationError(f"--address is auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except OSError as error:
        raise ConfigurationError(
            f"no Ray cluster answers at {address}: {error.strerror or error}; start one with: ray start --head"
        ) from error


def score_on_cluster(
    ray: Any, paths: Iterable[str], scoring: Scoring, *, workers: int, block: int = 32
) -> Iterator[dict[str, Any]]:
    """Score images on the cluster that ray is connected to.

    Ray Data starts a worker anew as often as it dies, and gives its block to another one.

    Args:
        ray: What ``connect`` gave.
        paths: The images. They are listed before the first is scored, and wait in Ray's object store.
        scoring: What workers do.
        workers: How many there are.
        block: Images that a worker gets at a time, and that are scored again if it dies.

    Yields:
        Rows as ``ScoreRow.to_json`` gives them, in the order of ``paths``.

    Raises:
        IqakitError: A worker could not begin, or Ray gave up.
    """
    blocks = [ray.put(table) for table in _tables(iter(paths), block)]
    if not blocks:
        return
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # Rows are small. With Ray's default, a worker is held back until there is room for hundreds of megabytes of them.
    context.target_max_block_size = 2**20
    with ray.data.DataContext.current(context):
        rows = ray.data.from_arrow_refs(blocks).map_batches(
            Worker,
            fn_constructor_args=(scoring,),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(blocks))),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=scoring.cpus,
            num_gpus=1 if scoring.device == "cuda" else None,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(scoring.cpus)}},
        )
    yield from _in_order(ray, rows)


def _in_order(ray: Any, rows: Any) -> Iterator[dict[str, Any]]:
    """The rows, each where it belongs."""
    expected = 0
    try:
        for table in rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            for index, text in zip(table["index"].to_pylist(), table["row"].to_pylist(), strict=True):
                if index != expected:
                    raise StorageError(
                        f"Ray gave row {index} where row {expected} belongs; go on with --resume to keep what is done"
                    )
                expected += 1
                yield json.loads(text)
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


def _cause(error: Exception) -> IqakitError:
    """What a worker said, where it was iqakit that said it, else the last line of what Ray says."""
    last = str(error).strip().splitlines()[-1].strip()
    said = re.search(r"iqakit\.errors\.\w+: (.+)", last)
    if said:
        return ConfigurationError(said.group(1))
    return StorageError(f"the cluster could not go on: {last}; see its logs, or use fewer --actors")


def _tables(paths: Iterator[str], size: int) -> Iterator[pa.Table]:
    """Paths with their places, in blocks."""
    begin = 0
    while block := list(islice(paths, size)):
        places = pa.array(range(begin, begin + len(block)), pa.int64())
        yield pa.table({"index": places, "path": pa.array([os.fsencode(path) for path in block], pa.binary())})
        begin += len(block)


def same_everywhere(model: str | None) -> str:
    """How a worker, in whatever directory, names the model that was meant.

    Args:
        model: What the user gave.
    """
    from iqakit.pipeline.model import bundled_models
    from iqakit.pipeline.model_finding import find_model

    name, directory = find_model(model)
    return name if bundled_models().get(name) == directory else str(Path(directory).resolve())
