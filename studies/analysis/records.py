"""The results of a scale as a DataFrame, ready for tables and figures."""

import math

import pandas as pd

from studies.arms import DENSITY
from studies.runner import plan
from studies.runner.journal import FINAL
from studies.runner.scale import Scale
from studies.runner.selection import chance

_VALIDATION_ERRORS = ("validation_error", "final_validation_error", "equal_cost_validation_error")
_TEST_ERRORS = ("test_error", "final_test_error", "equal_cost_test_error")
_ORDER = ("role", "arm", "depth", "learning_rate", "seed", "key")
_COSTS = ("flops", "equal_cost_flops")
_BOUNDS = ("validation_bound", "train_bound", "test_bound", "test_importance_weighted_bound")


def frame(records: list[dict], scale: Scale) -> pd.DataFrame:
    """Make the DataFrame that tables and figures are drawn from.

    Failed trials are no results and are left out; so is what the scale does not ask for, since a
    journal keeps the records of an earlier version of the study.

    Args:
        records: Records as `journal.read` gives them.
        scale: The scale they were made for.

    Returns:
        A DataFrame with a row per trial and a column per field and metric. A diverged run has the
        error of chance; or the bound of the mean image, and no active units. Column `chosen` says
        whether the trial's learning rate is the one that was chosen for its arm and depth.

    Raises:
        ValueError: If no record is a result of the scale.
    """
    groups = plan.groups(scale, records)
    wanted = {trial.key for group in groups for trial in group.trials}
    results = [r for r in records if r["key"] in wanted and r["status"] in FINAL]
    # Sums depend on the order of their terms, and a report must not depend on that of the records.
    results.sort(key=lambda r: [r[field] for field in _ORDER])
    if not results:
        raise ValueError(
            "Expected at least one finished trial of the scale. "
            f"Received: {len(records)} records, none of them one"
        )
    numeric = _bounds if scale.task == DENSITY else _errors
    # Copied, columns of one type lie together, and rows are taken at once.
    return numeric(pd.DataFrame(results), scale).assign(chosen=_chosen(results, groups)).copy()


def _bounds(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    for metric in (*_BOUNDS, "active_units"):
        frame[metric] = pd.to_numeric(frame[metric]) if metric in frame else math.nan
    diverged, report = frame["status"] == "diverged", frame["role"] == "report"
    for metric in _BOUNDS:
        rows = diverged & (report if metric != "validation_bound" else True)
        frame.loc[rows, metric] = frame.loc[rows, "baseline_bound"]
    frame.loc[diverged & report, "active_units"] = 0
    return frame.assign(bound_gap=frame["train_bound"] - frame["test_bound"])


def _errors(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    for metric in _VALIDATION_ERRORS + _TEST_ERRORS + _COSTS:
        frame[metric] = pd.to_numeric(frame[metric]) if metric in frame else math.nan
    diverged, report = frame["status"] == "diverged", frame["role"] == "report"
    guessing = chance(scale.classes)
    frame.loc[diverged & (frame["role"] != "pretraining"), list(_VALIDATION_ERRORS)] = guessing
    frame.loc[diverged & report, list(_TEST_ERRORS)] = guessing
    return frame


def _chosen(results: list[dict], groups: list[plan.Group]) -> list[bool]:
    firsts = [group.trials[0] for group in groups]
    rates = {(t.arm, t.depth): t.learning_rate for t in firsts if t.role == "report"}
    return [
        r["role"] != "pretraining" and r["learning_rate"] == rates[r["arm"], r["depth"]]
        for r in results
    ]
