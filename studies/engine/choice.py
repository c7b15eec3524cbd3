"""How rates are chosen: pure functions of the records, for the plan and for the reports alike."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from studies.engine.scale import Scale

Record = Mapping[str, Any]


def choose_rate(records: Iterable[Record], scale: Scale) -> float:
    """Choose the learning rate of the best mean score.

    Args:
        records: Finished trials of one role, arm and combination of axis values, as they stand in a
            journal, or as rows of a DataFrame of them (`frame.to_dict("records")`).
        scale: Their scale, whose kind says what trials of this role are judged by.

    Returns:
        The rate; the smaller one of a tie.

    Raises:
        ValueError: If there is no record.
    """
    means = mean_by_rate(records, scale)
    if not means:
        raise ValueError("Expected at least one finished trial to choose a rate by. Received: none")
    return min(means, key=lambda rate: (means[rate], rate))


def mean_by_rate(records: Iterable[Record], scale: Scale) -> dict[float, float]:
    """Return the mean score at each learning rate; lower is better."""
    scores = defaultdict(list)
    for record in records:
        scores[record["learning_rate"]].append(_score(record, scale))
    return {rate: fmean(values) for rate, values in scores.items()}


def _score(record: Record, scale: Scale) -> float:
    """Return what a finished trial is judged by; lower is better.

    A trial that diverged is a result: it counts as what its metric says.
    """
    metric = scale.kind.judge(record["role"])
    value = record.get(metric.name) if record["status"] == "done" else None
    if value is None or not math.isfinite(value):
        value = metric.diverged(record, scale)
    if value is None:
        return math.inf
    return value if metric.lower_is_better else -value
