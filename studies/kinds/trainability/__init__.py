"""Trainability: whether a classifier learns at all, how fast, at which rates, and what goes on.

Beside what classification measures, this kind looks at the training itself: its loss, the updates
that it takes, the signals that a net starts with, the inputs of a hidden unit as they change, and
what a trained net does without some of its layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import Classification, ClassificationTrial
from studies.kinds.kind import Metric

# A net is fast if it is soon at this validation error, and a rate is usable if it leads there.
GOAL = 0.1
# The inputs of a hidden unit are watched at these percentiles (Ioffe and Szegedy 2015, figure 1).
PERCENTILES = (15, 50, 85)


def half_of_guessing(chance: float) -> float:
    """Half the NLL of a net that takes all classes for equally likely, from its error of chance."""
    return -0.5 * math.log(1 - chance)


@dataclass(frozen=True)
class TrainabilityTrial(ClassificationTrial):
    """A trial of a classifier whose training is watched.

    Args:
        input_values: `"gray"` leaves the inputs as they are; `"binary"` makes 1 of an input above
            one half, and 0 of all others.
    """

    input_values: str = "gray"


# What a metric that a derivation makes counts a diverged run as, the derivation says.
_measured = partial(Metric, roles=("report",))


class Trainability(Classification):
    """Supervised training, watched from the first update to the last."""

    name = "trainability"
    trial = TrainabilityTrial
    choices = Classification.choices | {"input_values": ("gray", "binary")}
    labels = Classification.labels | {"tanh": "tanh units"}
    metrics = (
        *(each for each in Classification.metrics if each.name != "final_train_nll"),
        _measured(
            "final_train_nll", "training NLL, last epoch", "nats", at_chance=half_of_guessing
        ),
        _measured("updates", f"updates to {100 - 100 * GOAL:g} % accuracy"),
        _measured("usable_rates", "highest usable rate over lowest", lower_is_better=False),
        _measured("lowest_variance", "least variance of a layer's input at the start"),
        _measured("highest_variance", "greatest variance of a layer's input at the start"),
        _measured("variance_ratio", "variance from layer to layer at the start"),
        _measured("drift", "way of a hidden unit's inputs, in widths of their distribution"),
        _measured("lesion", "training error without the middle third, added", "%", "points", 100),
    )

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.trainability.train import train

        return train(cell, cache, load)

    def derive(self, frame: Any, scale: Scale) -> Any:
        from studies.kinds.trainability.derive import derive

        return derive(super().derive(frame, scale), scale)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.trainability.show import TrainabilityShow

        return TrainabilityShow(self)


KIND = Trainability()
