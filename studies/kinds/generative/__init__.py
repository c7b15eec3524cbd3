"""Generative models of images, judged by their samples in the features of a classifier."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import examples
from studies.kinds.kind import Kind, Metric

# How a model makes images; `"real"` returns training images, which no model can be better than.
MODELS = ("real", "autoencoder", "vae", "vae_mixture", "gan", "wgan_gp", "diffusion")
# All models have the cost of this model with the scale's number of epochs.
_BUDGET_OF = "vae"
# A class is covered if at least this share of the samples is of the class: a fifth of its share.
COVERED = 0.02
# Units of the embedding of the time, in a diffusion model.
TIME = 16


@dataclass(frozen=True)
class GenerativeTrial(Trial):
    """A trial of a model with `latent` latent variables."""

    latent: int = 20


@dataclass(frozen=True)
class Generator(Arm):
    """A generative model: one of `MODELS`."""

    model: str = ""


_on_test = partial(Metric, on_test=True)


class Generative(Kind):
    """Training of generative models of equal size and cost."""

    name = "generative"
    trial = GenerativeTrial
    arm_fields = ("model", "optimizer")
    labels = {"latent": "latent variables"}
    judged_by = {"selection": "validation_frechet", "report": "frechet"}
    metrics = (
        Metric("validation_frechet", "Frechet distance, validation", roles=("selection", "report")),
        _on_test("frechet", "Frechet distance"),
        _on_test("precision", "precision", "%", "points", 100, lower_is_better=False),
        _on_test("recall", "recall", "%", "points", 100, lower_is_better=False),
        Metric("classes_covered", "classes covered", difference="classes", lower_is_better=False),
        _on_test("novelty", "distance to training images, over that of test images"),
    )

    def flops(self, trial: GenerativeTrial, arm: Generator, scale: Scale) -> int:
        features, _ = scale.shape(trial.dataset)
        return flops(trial, arm.model, features)

    def base(self, scale: Scale, arm: Generator, values: dict[str, Any]) -> Trial:
        trial = super().base(scale, arm, values)
        if arm.model == "real":
            return replace(trial, epochs=1)
        features, _ = scale.shape(trial.dataset)
        budget, own = (flops(trial, model, features) for model in (_BUDGET_OF, arm.model))
        return replace(trial, epochs=math.ceil(trial.epochs * budget / own))

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.generative.train import train

        return train(cell, load)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.generative.show import GenerativeShow

        return GenerativeShow(self)

    def check(self, scale: Scale) -> None:
        super().check(scale)
        for arm in scale.arms:
            if getattr(arm, "model", None) not in MODELS:
                raise ValueError(
                    f"Expected an arm that is a `Generator`, with a model of {', '.join(MODELS)}. "
                    f"Received: {arm.name}"
                )


def sizes(trial: GenerativeTrial, model: str, features: int) -> dict[str, list[int]]:
    """Units of the layers of a model's networks, from the input to the output, by name."""
    wide = [trial.width] * 2
    decoder = [trial.latent, *wide, features]
    if model == "diffusion":
        # As many weights as the two networks of other models.
        return {"denoiser": [features + TIME, *wide, features]}
    if model in ("gan", "wgan_gp"):
        return {"generator": decoder, "discriminator": [features, *wide, 1]}
    codes = 2 * trial.latent if model in ("vae", "vae_mixture") else trial.latent
    return {"encoder": [features, *wide, codes], "decoder": decoder}


# How often a step of training runs each network forward. A critic also sees mixed images, and the
# gradient of its output there costs as much as running it.
_PASSES = {
    "gan": {"generator": 1, "discriminator": 3},
    "wgan_gp": {"generator": 1, "discriminator": 5},
}


def flops(trial: GenerativeTrial, model: str, features: int) -> int:
    """FLOPs of training a model; a step counts as three times its forward passes."""
    if model == "real":
        return features * trial.test_size
    passes = _PASSES.get(model, {})
    forward = sum(
        passes.get(name, 1) * sum(2 * n * m for n, m in zip(units[:-1], units[1:], strict=True))
        for name, units in sizes(trial, model, features).items()
    )
    return 3 * forward * examples(trial) * trial.epochs


KIND = Generative()
