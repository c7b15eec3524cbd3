"""Trajectories: where classifiers lie in the space of functions while they are trained."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.engine.plan import Group
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import Classification, ClassificationTrial
from studies.kinds.kind import Metric

# Test images whose outputs tell which function a net is. An image more is 400 numbers of a run.
WATCHED = 200


@dataclass(frozen=True)
class TrajectoryTrial(ClassificationTrial):
    """A trial of a classifier whose outputs on `watched` test images are kept after each epoch."""

    watched: int = 0


_of_outputs = partial(Metric, on_test=True)
_silhouette = partial(_of_outputs, lower_is_better=False)
_told = partial(_silhouette, unit="%", difference="points", factor=100, limits=(0, 1))
_distance = partial(_of_outputs, unit="%", difference="points", factor=100)


class Trajectories(Classification):
    """Classification, with the outputs of every reported net on some test images at each epoch.

    A net is a point: its probabilities of all classes on all of these images. The nets of an arm
    are a group, which is compared with the group of the arm's control. The metrics of a net depend
    on all nets of both groups.
    """

    name = "trajectories"
    trial = TrajectoryTrial
    metrics = (
        *Classification.metrics,
        _silhouette("silhouette", "silhouette"),
        _silhouette("flat_silhouette", "silhouette in two dimensions"),
        _silhouette("equal_silhouette", "silhouette at equal training NLL"),
        _silhouette("split_silhouette", "silhouette of halves of a group"),
        _told("told", "nets whose start a linear probe tells"),
        _told("equal_told", "nets whose start a linear probe tells at equal training NLL"),
        _told("split_told", "nets whose half of a group a linear probe tells"),
        _distance("distance", "distance to the nets of the group"),
        _distance("equal_distance", "distance to the nets of the group at equal training NLL"),
    )

    def groups(self, scale: Scale, final: dict[str, dict]) -> Iterator[Group]:
        for group in super().groups(scale, final):
            yield replace(group, trials=tuple(map(_watched, group.trials)))

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.trajectories.train import train

        return train(cell, cache, load)

    def derive(self, frame: Any, scale: Scale) -> Any:
        from studies.kinds.trajectories.regions import metrics

        frame = super().derive(frame, scale)
        alike = list(dict.fromkeys(("dataset", *scale.axes)))
        controls = {arm.name: arm.control for arm in scale.arms if arm.control}
        return frame.assign(**metrics(frame, alike, controls))

    @cached_property
    def show(self) -> Any:
        from studies.kinds.trajectories.show import TrajectoriesShow

        return TrajectoriesShow(self)


def _watched(trial: TrajectoryTrial) -> TrajectoryTrial:
    """Watch a reported trial. Other trials see no test image: other studies share these trials."""
    return replace(trial, watched=WATCHED) if trial.role == "report" else trial


KIND = Trajectories()
