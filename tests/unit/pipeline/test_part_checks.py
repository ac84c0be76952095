"""A plugin's mistake ends in one line that names it, never in a wrong score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iqakit.adapters.linear_probe import LinearProbe
from iqakit.adapters.settings import LinearConfig
from iqakit.backbones.tiny_backbone import create_tiny
from iqakit.contracts import AdapterEntry, BackboneEntry, CombinerEntry
from iqakit.errors import MismatchError, PluginError
from iqakit.pipeline.fitting import fit_tasks
from iqakit.pipeline.model import QualityModel
from iqakit.pipeline.torch_scoring import TorchParts
from iqakit.plugins import catalog as catalog_module
from iqakit.plugins.catalog import Catalog
from iqakit.plugins.manager import PluginRecord, load_plugins
from iqakit.storage.model_directory import read_model


@dataclass(frozen=True)
class Nothing:
    """No settings."""


class Combiner:
    def __init__(self, weights: Callable[[int, int], Any], state: Callable[[dict[str, Any], str], Any]) -> None:
        self._weights, self._state = weights, state

    def fit_task(self, state: Any, task: str, gate_features: Any) -> Any:
        return self._state(dict(state), task)

    def weights(self, state: Any, tasks: Any, gate_features: Any, oracle_names: Any) -> Any:
        return self._weights(len(gate_features[0]), len(tasks))


class Replacing(LinearProbe):
    """A method that trains the shared tensors: here it turns the first convolution round."""

    def fit(self, context: Any) -> Any:
        result = super().fit(context)
        return replace(result, replaced={self.name: -context.backbone.module.state_dict()["stages.0.0.weight"]})

    name = "stages.0.0.weight"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Adds entries to the process's catalog, as a plugin of the distribution ``other`` would."""
    catalog_module.catalog.cache_clear()

    def add(*entries: Any) -> None:
        record = PluginRecord("other", "iqakit-other", "1.0", False, "loaded", entries=tuple(entries))
        built = Catalog((*load_plugins().records, record))
        for place in ("fitting", "fit_request", "model", "torch_scoring", "graph_path", "evaluating", "part_checks"):
            monkeypatch.setattr(f"iqakit.pipeline.{place}.catalog", lambda: built)

    yield add
    catalog_module.catalog.cache_clear()


def combiner(
    weights: Callable[[int, int], Any], state: Callable[[dict[str, Any], str], Any] = lambda s, t: s
) -> CombinerEntry:
    return CombinerEntry("odd", "an odd one", Nothing, lambda config: Combiner(weights, state))


def crash(*_: Any) -> Any:
    return 1 / 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda n, t: torch.full((n, t), 2.0), "gave weights that are no weights: from 2 to 2, rows sum to 2 to 2"),
        (lambda n, t: torch.full((n, t), torch.nan), "gave weights that are no weights"),
        (lambda n, t: torch.ones(n, t + 1), r"gave \(1, 2\) for 1 images and 1 tasks"),
        (lambda n, t: [[1.0]], "gave list for 1 images and 1 tasks"),
        (crash, "combiner odd of iqakit-other failed: ZeroDivisionError: division by zero"),
    ],
)
def test_weights_that_are_none(
    install: Callable[..., None], tiny_model: Path, rated_photos: Path, weights: Callable[[int, int], Any], message: str
) -> None:
    install(combiner(weights))
    with pytest.raises(PluginError, match=message):
        QualityModel.load(tiny_model).score(rated_photos / "images" / "p000.png", combiner="odd")


@pytest.mark.parametrize(
    "state",
    [
        crash,
        lambda s, t: {"t/x": 3},
        lambda s, t: {f"{t}/x": torch.tensor([1.0, torch.nan])},
        lambda s, t: "state",
        lambda s, t: (_ for _ in ()).throw(MismatchError("no")),
    ],
)
def test_a_combiner_that_fails_to_learn_does_not_cost_the_training(
    install: Callable[..., None], rated_photos: Path, tmp_path: Path, state: Callable[[dict[str, Any], str], Any]
) -> None:
    install(combiner(lambda n, t: torch.ones(n, t) / t, state))
    fit_tasks([rated_photos], backbone="tiny", adapter="linear", model=tmp_path / "m")
    assert QualityModel.load(tmp_path / "m").score(rated_photos / "images" / "p000.png").status == "ok"


def test_a_combiner_that_forgets_is_left_out(
    install: Callable[..., None], rated_photos: Path, make_rated_photos: Callable[..., Path], tmp_path: Path
) -> None:
    install(combiner(lambda n, t: torch.ones(n, t) / t, lambda s, t: {f"{t}/x": torch.ones(1)}))
    other = make_rated_photos(tmp_path / "other", count=24, seed=2)
    fit_tasks([rated_photos, other], backbone="tiny", adapter="linear", model=tmp_path / "m")
    assert len(QualityModel.load(tmp_path / "m").tasks) == 2


def test_replaced_tensors_are_calibrated_as_they_are_scored(
    install: Callable[..., None], rated_photos: Path, tmp_path: Path
) -> None:
    install(AdapterEntry("turning", "fit", "turns a layer", LinearConfig, Replacing))
    report = fit_tasks([rated_photos], backbone="tiny", adapter="turning", task="t", model=tmp_path / "m")
    (record,) = __import__("iqakit").evaluate(tmp_path / "m", rated_photos, split="val", on="raw", combiners=["last"])
    assert report.tasks[0].srcc_validation == pytest.approx(record["srcc"], abs=1e-9)


def test_replaced_tensors_that_the_backbone_lacks_are_refused(
    install: Callable[..., None], rated_photos: Path, tmp_path: Path
) -> None:
    class Wrong(Replacing):
        name = "no.such.tensor"

    install(AdapterEntry("wrong", "fit", "names a wrong layer", LinearConfig, Wrong))
    with pytest.raises(MismatchError, match=r"no\.such\.tensor"):
        fit_tasks([rated_photos], backbone="tiny", adapter="wrong", model=tmp_path / "m")
    assert not (tmp_path / "m" / "model.json").exists()


def test_an_adapter_of_another_task_is_refused(install: Callable[..., None], rated_photos: Path, tmp_path: Path) -> None:
    class Other(LinearProbe):
        def fit(self, context: Any) -> Any:
            result = super().fit(context)
            return replace(result, adapter=replace(result.adapter, task="else"))

    install(AdapterEntry("other", "fit", "names another task", LinearConfig, Other))
    with pytest.raises(PluginError, match="was asked for task 't' and gave 'else'"):
        fit_tasks([rated_photos], backbone="tiny", adapter="other", task="t", model=tmp_path / "m")


@pytest.mark.parametrize("what", ["copies", "shifts"])
@pytest.mark.parametrize("given", [[torch.zeros(2, 5)], [], 3, [[1.0]], "not finite", "no row", "uneven"])
def test_copies_and_shifts_that_are_no_gate_features_are_refused(
    install: Callable[..., None], rated_photos: Path, tmp_path: Path, what: str, given: Any
) -> None:
    class Odd(LinearProbe):
        def fit(self, context: Any) -> Any:
            widths = context.backbone.stage_dims
            made = {
                "not finite": [torch.full((1, width), torch.nan) for width in widths],
                "no row": [torch.zeros(0, width) for width in widths],
                "uneven": [torch.zeros(1 + number, width) for number, width in enumerate(widths)],
            }
            return replace(super().fit(context), **{what: made[given] if isinstance(given, str) else given})

    install(AdapterEntry("odd", "fit", "gives odd rows", LinearConfig, Odd))
    with pytest.raises(PluginError, match=f"adapter odd gave {what} that are no gate features: they must be finite"):
        fit_tasks([rated_photos], backbone="tiny", adapter="odd", model=tmp_path / "m")
    assert not (tmp_path / "m" / "model.json").exists()


def test_what_ladders_saw_reaches_the_gate(rated_photos: Path, tmp_path: Path) -> None:
    for name, ladders in (("plain", 0), ("taught", 1)):
        fit_tasks(
            [rated_photos], backbone="tiny", adapter="linear", settings={"ladders": str(ladders)}, model=tmp_path / name
        )
    plain, taught = (read_model(tmp_path / name)[2]["kmeans"] for name in ("plain", "taught"))
    added = sorted(name.rpartition("/")[2] for name in set(taught) - set(plain))
    stages = [name[-1] for name in sorted(plain) if "/stage" in name]
    assert added == [*(f"copies{stage}" for stage in stages), *(f"shifts{stage}" for stage in stages)]
    assert all(torch.equal(taught[name], tensor) for name, tensor in plain.items())
    assert {len(tensor) for name, tensor in taught.items() if "/copies" in name} == {25 * 3}
    assert all(0 < float(tensor.norm(dim=1)[0]) < 1 for name, tensor in taught.items() if "/shifts" in name)


def test_a_backbone_whose_id_leads_elsewhere_is_refused(
    install: Callable[..., None], rated_photos: Path, tmp_path: Path
) -> None:
    def create(name: str, weights: str) -> Any:
        made = create_tiny("", "random:0")
        made.id = "small"
        return made

    install(BackboneEntry("fam", "a family", create, lambda pattern: ["small"]))
    with pytest.raises(PluginError, match="its id must be 'fam:small'"):
        fit_tasks([rated_photos], backbone="fam:small", adapter="linear", model=tmp_path / "m")


def test_one_preprocessing_a_model(tiny_model: Path) -> None:
    model = QualityModel.load(tiny_model)
    (adapter,) = model.adapters
    other = replace(adapter, task="other", preprocessing=replace(adapter.preprocessing, shorter_side=64))
    with pytest.raises(MismatchError, match="task 'other' prepares images in another way than 'sharpness'"):
        TorchParts(tiny_model, model.backbone, [adapter, other], {})
