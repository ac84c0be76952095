"""``lora``: low-rank updates of a few layers and a head, learned from pairs of one task's images.

The head starts from ridge regression, all pairs of a batch are held to the human order by the fidelity loss, and the
epoch with the highest SRCC on the validation images is kept, as ``tsn`` does; normalization stays as it is. The adapter
holds the updated weights, whole: it scores without the method that made it, so factors would be of no use to it.

Sources: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; the pairs and their loss as in Zhang,
Ma, Zhai, Yang, IEEE TIP 33:1898-1910, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import torch
from torch import Generator, Tensor

from iqakit.adapters.epoch_training import BestEpoch, EpochTraining, Step, StepGenerators, json_record
from iqakit.adapters.linear_probe import ridge_head
from iqakit.adapters.training_images import TrainingImages, crop_side, human_scores
from iqakit.adapters.training_passes import head_inputs, validation_srcc
from iqakit.contracts import Adapter, FitContext, FitResult
from iqakit.functional.heads import head_input, head_scores
from iqakit.functional.preference import fidelity_loss, pairs_within_batch, preference_probability, thurstone_target
from iqakit_lora import LoraConfig
from iqakit_lora.updates import chosen_layers, first_factors, updated

_HEAD = "head"


class Lora:
    """The ``lora`` fit method.

    Args:
        config: Its settings.
    """

    def __init__(self, config: LoraConfig) -> None:
        self.config = config

    def fit(self, context: FitContext) -> FitResult:
        """Learn the task; goes on from the context's checkpoint and gives what an uncut run would give.

        Raises:
            MismatchError: No layer of the backbone can be taken.
            ConfigurationError: The backbone takes no square crops.
            TrainingError: The loss stopped being a number, or all scores are equal.
        """
        config = self.config if context.epochs is None else replace(self.config, epochs=context.epochs)
        return _Training(config, context).run()


class _Training:
    """One run. What is learned is the factors and the head."""

    images: TrainingImages

    def __init__(self, config: LoraConfig, context: FitContext) -> None:
        self.config = config
        self.context = context
        self.side = crop_side(context.preprocessing, config.crop, "lora")
        self.module = context.backbone.module
        own = dict(self.module.named_parameters(remove_duplicate=False))
        names = chosen_layers(self.module, config, context.backbone.id)
        self.weights = {name: context.shared.get(name, own[name]).detach().to(context.device) for name in names}
        generators = StepGenerators(context.generator)
        self.learned = first_factors(self.weights, config.rank, generators(0, 0))
        head, _, _ = ridge_head(head_input(context.train_features, config.features), context.train)
        self.learned[_HEAD] = head.to(context.device).requires_grad_(True)
        self.scores = human_scores(context.train)
        self.training = EpochTraining(
            context, self, self.learned, generators, epochs=config.epochs, learning_rate=config.learning_rate
        )

    def run(self) -> FitResult:
        if not self.training.resume():
            self.training.check_start()
        with TrainingImages(self.context.train, self.context.preprocessing, self.context.workers) as self.images:
            best = self.training.run()
        return self._result(best)

    # -- what the loop asks for ----------------------------------------------------------------------------------------

    def batches(self, epoch: int, generator: Generator) -> Sequence[Tensor]:
        order = torch.randperm(len(self.scores), generator=generator)
        # Even parts instead of a small last one: pairs need company.
        return order.tensor_split(max(1, min(round(len(order) / self.config.batch_size), len(order) // 2)))

    def step(self, batch: Tensor, step: Step) -> Tensor:
        crops = self.images.crops(batch.tolist(), self.side, self.config.flip, step.generator).to(self.context.device)
        outputs = head_scores(self._inputs(self.learned, crops), self.learned[_HEAD], None, "linear")
        pairs = pairs_within_batch(len(batch))
        first, second = self.scores[batch[pairs[:, 0]]], self.scores[batch[pairs[:, 1]]]
        chance = preference_probability(outputs[pairs[:, 0]] - outputs[pairs[:, 1]])
        loss = fidelity_loss(chance, thurstone_target(first, second).to(self.context.device))
        step.minimise(loss)
        return loss

    def validate(self, tensors: Mapping[str, Tensor]) -> float:
        def outputs(image: Tensor) -> Tensor:
            return head_scores(self._inputs(tensors, image), tensors[_HEAD], None, "cosine")

        return validation_srcc(self.context, outputs)

    def _inputs(self, learned: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """What the head sees of prepared images of one size."""
        overlay = {**self.context.shared, **updated(self.weights, learned, self.config)}
        return head_inputs(self.module, overlay, images, self.config.features)

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _result(self, best: BestEpoch) -> FitResult:
        with torch.no_grad():
            tensors = updated(self.weights, best.tensors, self.config)
        head = best.tensors[_HEAD]
        adapter = Adapter(
            task=self.context.task,
            method="lora",
            backbone_id=self.context.backbone.id,
            backbone_fingerprint=self.context.backbone.fingerprint(),
            tensors={name: tensor.cpu() for name, tensor in tensors.items()},
            head_kind="cosine",
            head_weight=(head / head.norm()).cpu()[None],
            head_bias=None,
            features=self.config.features,
            preprocessing=self.context.preprocessing,
            config=asdict(self.config),
            provenance=best.provenance(),
        )
        return FitResult(adapter, history=[json_record(record) for record in self.training.history])
