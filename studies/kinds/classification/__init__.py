"""Classification: networks that name the class of an image, judged by their test error."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.kind import NETWORK_FIELDS, Kind, Metric

# The deepest plain network that was ever trained (Xiao et al. 2018).
_DEEPEST = 10_000
# A net that names the same class for every image can be lucky, if that class is frequent: a run is
# at chance unless it beats chance by more than this margin.
CHANCE_MARGIN = 0.05


def chance(classes: int) -> float:
    """Error of guessing."""
    return 1 - 1 / classes


def _guessing(record: Mapping[str, Any], scale: Scale) -> float:
    return chance(scale.shape(record["dataset"])[1])


_error = partial(
    Metric,
    unit="%",
    difference="points",
    factor=100,
    diverged=_guessing,
    at_chance=lambda classes: chance(classes) - CHANCE_MARGIN,
)
_validation_error = partial(_error, roles=("selection", "report"))
_test_error = partial(_error, on_test=True, resolution=lambda scale: 1 / scale.test_size)
_equal_cost = {"roles": ("report",), "only_with": "extra_epochs"}


class Classification(Kind):
    """Supervised training of an MLP, or of the network that an arm builds, pretrained or not."""

    name = "classification"
    arm_fields = NETWORK_FIELDS
    labels = {
        "depth": "depth (hidden layers)",
        "width": "units per layer",
        "sigmoid": "sigmoid units",
        "relu": "rectified linear units",
    }
    judged_by = {
        "pretraining": "validation_ratio",
        "selection": "validation_error",
        "report": "test_error",
    }
    metrics = (
        Metric("validation_ratio", "loss over baseline", roles=("pretraining",)),
        _validation_error("validation_error", "validation error"),
        _validation_error("final_validation_error", "validation error, last epoch"),
        _validation_error(
            "equal_cost_validation_error", "validation error at equal cost", **_equal_cost
        ),
        _test_error("test_error", "test error"),
        _test_error("final_test_error", "test error, last epoch"),
        _test_error("equal_cost_test_error", "test error at equal cost", **_equal_cost),
        Metric("test_nll", "test NLL", "nats", on_test=True),
        Metric("final_test_nll", "test NLL, last epoch", "nats", on_test=True),
        Metric("flops", "cost", "FLOP", roles=("pretraining", "selection", "report")),
        Metric("equal_cost_flops", "cost at equal cost", "FLOP", only_with="extra_epochs"),
    )

    def flops(self, trial: Trial, arm: Arm, scale: Scale) -> int:
        features, classes = scale.shape(trial.dataset)
        if trial.role == "pretraining":
            return pretraining_flops(trial, arm, trial.epochs, features)
        epochs = trial.epochs + trial.extra_epochs
        return finetuning_flops(trial, arm, epochs, features, classes)

    def computed(self, record: Mapping[str, Any]) -> float:
        total = record.get("equal_cost_flops") or record["flops"]
        return total - record.get("pretraining_flops", 0)

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.classification.train import train

        return train(cell, cache, load)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.classification.show import ClassificationShow

        return ClassificationShow(self)

    def check(self, scale: Scale) -> None:
        super().check(scale)
        depths = scale.axes.get("depth", (self.trial.depth,))
        if max(depths) > _DEEPEST:
            raise ValueError(
                f"Expected depths of at most {_DEEPEST} hidden layers. Received: depth={depths}"
            )
        for arm in scale.arms:
            if arm.objective and not (scale.pretraining_epochs and scale.pretraining_rates):
                raise ValueError(
                    f"The arm {arm.name!r} is pretrained. Expected `pretraining_epochs` and "
                    f"`pretraining_rates`. Received: {scale.pretraining_epochs}, "
                    f"{scale.pretraining_rates}"
                )
            if isinstance(arm.objective, tuple) and len(arm.objective) != max(depths):
                raise ValueError(
                    f"The arm {arm.name!r} says how each of {len(arm.objective)} hidden layers is "
                    f"pretrained. Expected a greatest depth of {len(arm.objective)}. "
                    f"Received: {depths}"
                )

    def stack(self, scale: Scale, arm: Arm, trial: Trial) -> Trial | None:
        if not arm.objective:
            return None
        # The deepest stack serves every depth: its layers 1..d are a stack of depth d.
        depth = max(scale.axes.get("depth", (trial.depth,)))
        return replace(trial, role="pretraining", depth=depth, epochs=scale.pretraining_epochs)

    def reported(self, scale: Scale, arm: Arm, trial: Trial) -> Trial:
        if arm.matches_cost_of not in scale.arm_names:
            return trial
        extra = equal_cost_epochs(
            trial,
            arm,
            scale.arm(arm.matches_cost_of),
            scale.pretraining_epochs,
            *scale.shape(trial.dataset),
        )
        return replace(trial, extra_epochs=extra)


# Analytic cost: 2 FLOPs per multiply-add, training 3 times the forward pass.


def layer_flops(trial: Trial, arm: Arm, features: int) -> list[int]:
    """Forward FLOPs per example of each hidden layer's own projection, and of its gate (highway).

    `features` is the size of the flattened input.
    """
    gate = arm.shortcut == "highway"
    fan_in = [features] + [trial.width] * (trial.depth - 1)
    return [2 * n * trial.width * (2 if gate and i else 1) for i, n in enumerate(fan_in)]


def finetuning_flops(trial: Trial, arm: Arm, epochs: int, features: int, classes: int) -> int:
    """FLOPs of `epochs` epochs of supervised training."""
    forward = sum(layer_flops(trial, arm, features)) + 2 * trial.width * classes
    return 3 * forward * examples(trial) * epochs


def pretraining_flops(trial: Trial, arm: Arm, epochs: int, features: int) -> int:
    """FLOPs of pretraining the trial's layers: encoder, decoder and one pass for the codes.

    Every net is charged for its own layers in full, though deeper nets and other rates share the
    stack.
    """
    forward = sum(layer_flops(trial, arm, features))
    codes = forward * trial.train_size
    return 3 * 2 * forward * examples(trial) * epochs + codes


def equal_cost_epochs(
    trial: Trial, arm: Arm, pretrained: Arm, epochs: int, features: int, classes: int
) -> int:
    """Epochs of `trial` that cost as much as `epochs` epochs of pretraining an arm's layers."""
    pretraining = pretraining_flops(trial, pretrained, epochs, features)
    return math.ceil(pretraining / finetuning_flops(trial, arm, 1, features, classes))


def examples(trial: Trial) -> int:
    """Examples per epoch: the last partial batch is dropped."""
    return trial.train_size // trial.batch_size * trial.batch_size


KIND = Classification()
