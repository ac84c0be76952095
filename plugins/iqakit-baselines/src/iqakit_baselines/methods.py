"""The nine methods: each is the trainer with a start, a head and what it adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Generic, TypeVar

from torch import Tensor

from iqakit.contracts import Adapter, FitContext, FitMethod, FitResult, TaskData
from iqakit.errors import ConfigurationError
from iqakit_baselines.consolidation import Ewc, Mas, Si
from iqakit_baselines.distillation import KeptPredictions
from iqakit_baselines.extras import Extra
from iqakit_baselines.rehearsal import Replay
from iqakit_baselines.settings import BaselineConfig, EwcConfig, LwfConfig, MasConfig, ReplayConfig, SiConfig
from iqakit_baselines.trainer import Training

C = TypeVar("C", bound=BaselineConfig)


class SequentialHeads(Generic[C]):
    """One network, fine-tuned from task to task, and a head a task.

    Args:
        config: The settings.
    """

    name = "sequential-heads"

    def __init__(self, config: C) -> None:
        self.config = config

    def fit(self, context: FitContext) -> FitResult:
        """Learn the task; goes on from the context's checkpoint and gives what an uncut run would give.

        Raises:
            ConfigurationError: The model holds tasks of another method, or heads of another input.
            TrainingError: The loss stopped being a number.
        """
        config = self.config if context.epochs is None else replace(self.config, epochs=context.epochs)
        self.check(config, context)
        training = Training(
            config, context, self.tasks(context), self.start(context), self.head(context), self.extra(config, context)
        )
        training.run()
        return self.result(training)

    def check(self, config: C, context: FitContext) -> None:
        """See that the model so far is this method's own: it trains tensors that all its tasks share."""
        for adapter in context.earlier:
            if adapter.method != self.name:
                raise ConfigurationError(
                    f"adapter {self.name} trains the network that all tasks share, which would spoil task "
                    f"{adapter.task!r}, learned by {adapter.method}; fit into another --model"
                )
            if adapter.features != config.features:
                raise ConfigurationError(
                    f"task {adapter.task!r} was learned with features={adapter.features}, and {self.name} goes on from its "
                    f"head; give --set features={adapter.features}, or fit into another --model"
                )

    def tasks(self, context: FitContext) -> Sequence[TaskData]:
        """The tasks to learn from."""
        return [TaskData(context.task, context.train, context.validation)]

    def start(self, context: FitContext) -> Mapping[str, Tensor]:
        """The tensors to start from instead of the backbone's own."""
        return context.shared

    def head(self, context: FitContext) -> Tensor | None:
        """The head to start from; None: a new one."""
        return None

    def extra(self, config: C, context: FitContext) -> Extra:
        """What is added to fine-tuning."""
        return Extra()

    def result(self, training: Training) -> FitResult:
        """The network goes to the shared tensors, the head to the adapter."""
        adapter = self.adapter(training, {})
        return FitResult(adapter, training.kept(all_tensors=False), training.history, training.memory)

    def adapter(self, training: Training, tensors: Mapping[str, Tensor]) -> Adapter:
        """The task's adapter. The head keeps its length, which matters to methods that go on from it."""
        context = training.context
        return Adapter(
            task=context.task,
            method=self.name,
            backbone_id=context.backbone.id,
            backbone_fingerprint=context.backbone.fingerprint(),
            tensors=tensors,
            head_kind="cosine",
            head_weight=training.best_head.cpu()[None],
            head_bias=None,
            features=training.config.features,
            preprocessing=context.preprocessing,
            config=asdict(training.config),
            provenance=training.best.provenance(),
        )


class Separate(SequentialHeads[BaselineConfig]):
    """A whole network a task, from the pretrained one; the adapter carries all of it."""

    name = "separate"

    def check(self, config: BaselineConfig, context: FitContext) -> None:
        """Any model will do: nothing is shared."""

    def start(self, context: FitContext) -> Mapping[str, Tensor]:
        """The pretrained network."""
        return {}

    def result(self, training: Training) -> FitResult:
        """All tensors go to the adapter."""
        return FitResult(self.adapter(training, training.kept(all_tensors=True)), history=training.history)


class Joint(SequentialHeads[BaselineConfig]):
    """All tasks so far at once, from the pretrained network, with one head. Score with the combiner ``last``."""

    name = "joint"

    def tasks(self, context: FitContext) -> Sequence[TaskData]:
        """All of them."""
        return [*context.earlier_data, *super().tasks(context)]

    def start(self, context: FitContext) -> Mapping[str, Tensor]:
        """The pretrained network, each time."""
        return {}


class Sequential(SequentialHeads[BaselineConfig]):
    """One network and one head, fine-tuned from task to task. Score with the combiner ``last``."""

    name = "sequential"

    def head(self, context: FitContext) -> Tensor | None:
        """The last task's head."""
        return context.earlier[-1].head_weight if context.earlier else None


class Lwf(SequentialHeads[LwfConfig]):
    """Old heads keep their predictions."""

    name = "lwf"

    def extra(self, config: LwfConfig, context: FitContext) -> Extra:
        """The loss of ``iqakit_baselines.distillation``."""
        return KeptPredictions(config.strength, [adapter.head_weight for adapter in context.earlier])


class EwcMethod(SequentialHeads[EwcConfig]):
    """Weights with a large Fisher information stay."""

    name = "ewc"

    def extra(self, config: EwcConfig, context: FitContext) -> Extra:
        """The penalty of ``iqakit_baselines.consolidation``."""
        return Ewc(config.strength)


class SiMethod(SequentialHeads[SiConfig]):
    """Weights that lowered earlier losses stay."""

    name = "si"

    def extra(self, config: SiConfig, context: FitContext) -> Extra:
        """The penalty of ``iqakit_baselines.consolidation``."""
        return Si(config.strength, config.damping)


class MasMethod(SequentialHeads[MasConfig]):
    """Weights that earlier predictions depend on stay."""

    name = "mas"

    def extra(self, config: MasConfig, context: FitContext) -> Extra:
        """The penalty of ``iqakit_baselines.consolidation``."""
        return Mas(config.strength)


class ReplayMethod(SequentialHeads[ReplayConfig]):
    """A few images of earlier tasks are learned again."""

    name = "replay"

    def extra(self, config: ReplayConfig, context: FitContext) -> Extra:
        """The loss of ``iqakit_baselines.rehearsal``."""
        return Replay(config, context)


METHODS: dict[str, Callable[[Any], FitMethod]] = {
    "separate": Separate,
    "joint": Joint,
    "sequential": Sequential,
    "sequential-heads": SequentialHeads,
    "lwf": Lwf,
    "ewc": EwcMethod,
    "si": SiMethod,
    "mas": MasMethod,
    "replay": ReplayMethod,
}
