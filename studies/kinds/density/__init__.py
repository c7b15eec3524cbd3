"""Density: generative models of the inputs, judged by the bound on log p(x)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import examples, layer_flops
from studies.kinds.kind import Kind, Metric

# Samples of the importance-weighted bound, as in Burda et al. (2016).
IMPORTANCE_SAMPLES = 50
# A latent variable is active if the variance of its posterior mean over images is above this, the
# threshold of Burda et al. (2016).
ACTIVE = 0.01


@dataclass(frozen=True)
class DensityTrial(Trial):
    """A trial of a model with `latent` latent variables."""

    latent: int = 20


def _of_the_mean_image(record: Mapping[str, Any], scale: Scale) -> float | None:
    return record.get("baseline_bound")


_bound = partial(Metric, unit="nats", lower_is_better=False, diverged=_of_the_mean_image)


class Density(Kind):
    """Training of a variational autoencoder."""

    name = "density"
    trial = DensityTrial
    arm_fields = ("activation", "initializer", "normalization", "objective", "optimizer")
    labels = {"latent": "latent variables"}
    judged_by = {"selection": "validation_bound", "report": "test_bound"}
    metrics = (
        _bound("validation_bound", "validation bound", roles=("selection", "report")),
        _bound("test_bound", "test", on_test=True),
        _bound("train_bound", "training"),
        _bound("bound_gap", "gap", lower_is_better=True),
        _bound("test_importance_weighted_bound", "importance-weighted", on_test=True),
        Metric("active_units", "active", difference="variables", diverged=lambda *_: 0),
    )

    def flops(self, trial: DensityTrial, arm: Arm, scale: Scale) -> int:
        return flops(trial, arm, scale.shape(trial.dataset)[0])

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.density.train import train

        return train(cell, load)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.density.show import DensityShow

        return DensityShow(self)

    def check(self, scale: Scale) -> None:
        super().check(scale)
        depths = scale.axes.get("depth", (self.trial.depth,))
        if depths != (1,):
            raise ValueError(
                "A model of the density has one hidden layer in its encoder: expected depth 1. "
                f"Received: {depths}"
            )
        if lacking := [arm.name for arm in scale.arms if not isinstance(arm.objective, dict)]:
            raise ValueError(
                "A model of the density is trained on one objective, which its arm names. "
                f"Received: {', '.join(lacking)} without `objective`"
            )

    def derive(self, frame: Any, scale: Scale) -> Any:
        return frame.assign(bound_gap=frame["train_bound"] - frame["test_bound"])


def flops(trial: DensityTrial, arm: Arm, features: int) -> int:
    """FLOPs of training a variational autoencoder: encoder, heads, and the mirrored decoder."""
    heads, hidden = 2 * trial.width * 2 * trial.latent, 2 * trial.latent * trial.width
    forward = 2 * sum(layer_flops(trial, arm, features)) + heads + hidden
    return 3 * forward * examples(trial) * trial.epochs


KIND = Density()
