"""The metrics that follow from what is watched while nets train: results in, columns out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from studies.engine.scale import Scale
from studies.kinds.trainability import GOAL, half_of_guessing

Curves = Mapping[str, Any]


def derive(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Add the metrics of reported runs to the results of a scale."""
    report = frame[frame["role"] == "report"]
    found = [_derived(row, scale) for row in report.to_dict("records")]
    ranges = usable_rates(frame, scale)
    places = report[["arm", *scale.axes]].itertuples(index=False, name=None)
    found = pd.DataFrame(found, index=report.index).assign(
        usable_rates=[ranges.get(place, math.nan) for place in places]
    )
    return frame.assign(**{name: found[name].reindex(frame.index) for name in found})


def usable_rates(frame: pd.DataFrame, scale: Scale) -> dict[tuple, float]:
    """For each place, its highest usable rate over its lowest; 1 if it has at most one."""
    selection = frame[frame["role"] == "selection"]
    errors = selection.groupby(["arm", *scale.axes, "learning_rate"])["validation_error"].mean()
    found: dict[tuple, list[float]] = {}
    for (*place, rate), error in errors.items():
        found.setdefault(tuple(place), []).extend([rate] if error <= GOAL else [])
    return {place: max(rates) / min(rates) if rates else 1.0 for place, rates in found.items()}


def _derived(row: dict[str, Any], scale: Scale) -> dict[str, float]:
    """The metrics of a run. A run that diverged has the NLL of guessing, and reaches no goal."""
    curves = row["curves"] if isinstance(row.get("curves"), dict) else {}
    updates = row["train_size"] // row["batch_size"]
    losses = curves.get("train_nll", [None])
    guessing = 2 * half_of_guessing(scale.chance(row["dataset"]))
    return {
        "final_train_nll": guessing if row["status"] == "diverged" else losses[-1],
        "updates": updates * epochs_to(GOAL, curves.get("validation_error", []), row["epochs"]),
        "drift": drift(curves.get("hidden_input", [])),
        "lesion": _last(curves, "middle_third_error") - _last(curves, "intact_error"),
        **_variances(curves),
    }


def epochs_to(goal: float, errors: list[float | None], epochs: int) -> int:
    """The first epoch whose error is at most the goal; all epochs if there is none."""
    reached = (i for i, error in enumerate(errors, 1) if error is not None and error <= goal)
    return next(reached, epochs)


def drift(percentiles: list[list[float | None]]) -> float:
    """The way of percentiles from epoch to epoch, in mean distances of the outer percentiles.

    Args:
        percentiles: A row for each epoch, the lowest percentile first.

    Returns:
        The mean way of the percentiles; NaN if they are not finite or always the same number.
    """
    rows = np.array(percentiles or [[math.nan]], dtype="float64")
    if not np.isfinite(rows).all():
        return math.nan
    width = (rows[:, -1] - rows[:, 0]).mean()
    return np.abs(np.diff(rows, axis=0)).sum(axis=0).mean() / width if width else math.nan


def _variances(curves: Curves) -> dict[str, float]:
    """The least and the greatest variance of a layer's inputs, and their mean ratio."""
    found = np.array(curves.get("start_variances", [[math.nan]])[0], dtype="float64")
    ratio = (found[-1] / found[0]) ** (1 / (len(found) - 1)) if len(found) > 1 else math.nan
    return {
        "lowest_variance": found.min(),
        "highest_variance": found.max(),
        "variance_ratio": ratio,
    }


def _last(curves: Curves, name: str) -> float:
    value = curves.get(name, [None])[-1]
    return math.nan if value is None else value
