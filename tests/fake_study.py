"""Does a study have to lie in the package?

No: tests copy this one to where a user's own would lie. Nothing in it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Trial
from studies.kinds.classification import Classification


@dataclass(frozen=True)
class OwnTrial(Trial):
    """A trial with an axis of its own."""

    share: float = 0.5


class OwnKind(Classification):
    """A kind that workers must find in this file."""

    name = "own"
    trial = OwnTrial


def net(input_shape, classes, trial):
    """Never called."""


KIND = OwnKind()
SCALES = {
    "quick": Scale(
        arms=(
            "random",
            Arm("built", control="random", build=f"{__name__}:net"),
            Arm("fixed", rates=False),
        ),
        axes={"share": (0.25, 1)},
        train_size=100,
        validation_size=50,
        test_size=50,
        epochs=3,
        learning_rates=(0.1, 0.3),
        selection_seeds=2,
        report_seeds=3,
    )
}
