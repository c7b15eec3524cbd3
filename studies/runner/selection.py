"""How rates are chosen: pure functions of the records, for the plan and for the reports alike.

A learning rate is chosen per arm and depth, on labels or, for a density, on the bound; a
pretraining rate without labels, per arm. What diverged is a result: it has the error of chance, or
is infinitely bad.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean

from studies.arms import ARMS, DENSITY
from studies.runner.journal import FINAL

Record = Mapping[str, object]

_ERRORS = {
    "pretraining": "validation_ratio",
    "selection": "validation_error",
    "report": "test_error",
}
_BOUNDS = {"selection": "validation_bound", "report": "test_bound"}


def metric(arm: str, role: str) -> str:
    """Name of the metric that the trials of an arm and role are judged by."""
    return (_BOUNDS if ARMS[arm].task == DENSITY else _ERRORS)[role]


def choose_rate(records: Iterable[Record], arm: str, depth: int, classes: int) -> float:
    """Choose the learning rate of the best mean validation score over the selection seeds.

    Args:
        records: Records as they stand in a journal, or the rows of a DataFrame of them
            (`frame.to_dict("records")`). Only finished selection trials count.
        arm: Name of the arm.
        depth: Number of hidden layers.
        classes: Number of classes; a diverged run has the error of chance.

    Returns:
        The rate; the smaller one of a tie.

    Raises:
        ValueError: If there is no finished selection trial of the arm and depth.
    """
    chosen = [r for r in records if _is(r, "selection", arm) and r["depth"] == depth]
    _check(chosen, f"selection trial of arm {arm!r} at depth {depth}")
    return lowest(mean_by_rate(chosen, lambda r: score(r, classes)))


def choose_pretraining_rate(records: Iterable[Record], arm: str) -> float:
    """Choose the pretraining rate whose worst stage reconstructs its input best, without labels.

    The score is the highest, over stages, of the loss on the validation set over its trivial
    baseline. A mean would reward a stage that learns nothing, whose constant codes the next one
    reconstructs at once. A rate at which any stage diverges or dies is infinitely bad.

    Args:
        records: As for `choose_rate`. Only finished pretraining trials of the arm count, so leave
            out those of report seeds.
        arm: Name of the arm.

    Returns:
        The rate; the smaller one of a tie.

    Raises:
        ValueError: If there is no finished pretraining trial of the arm.
    """
    chosen = [r for r in records if _is(r, "pretraining", arm)]
    _check(chosen, f"pretraining trial of arm {arm!r}")
    return lowest(mean_by_rate(chosen, score))


def score(record: Record, classes: int | None = None) -> float:
    """Return what a finished trial is judged by; lower is better.

    Args:
        record: The record.
        classes: Number of classes, if it is judged by its error.

    Returns:
        The error, the ratio, or the bound with its sign changed. A diverged run has the error of
        chance, or else infinity.
    """
    name = metric(record["arm"], record["role"])
    value = record[name] if record["status"] == "done" else None
    if value is None or not math.isfinite(value):
        return chance(classes) if name.endswith("_error") else math.inf
    return -value if name.endswith("_bound") else value


def chance(classes: int) -> float:
    """Error of guessing."""
    return 1 - 1 / classes


def mean_by_rate(records: Iterable[Record], score: Callable[[Record], float]) -> dict[float, float]:
    """Return the mean score at each learning rate."""
    scores = defaultdict(list)
    for record in records:
        scores[record["learning_rate"]].append(score(record))
    return {rate: fmean(values) for rate, values in scores.items()}


def lowest(means: dict[float, float]) -> float:
    """Return the rate of the lowest mean, the smaller one of a tie."""
    return min(means, key=lambda rate: (means[rate], rate))


def _is(record: Record, role: str, arm: str) -> bool:
    return record["status"] in FINAL and record["role"] == role and record["arm"] == arm


def _check(chosen: list[Record], expected: str) -> None:
    if not chosen:
        raise ValueError(f"Expected at least one finished {expected}. Received: none")
