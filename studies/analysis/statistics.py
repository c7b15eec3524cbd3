"""Intervals for means and paired differences.

Every interval is over seeds: it says how far the mean would move with other initial weights, batch
orders and splits, not with another test set.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes two seconds to import


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its interval.

    Args:
        mean: The mean, NaN if there are no values.
        low: Lower bound, NaN if there are fewer than two values.
        high: Upper bound, NaN if there are fewer than two values.
        n: Number of values, or of pairs.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values.

    Args:
        values: Array-like of shape `(n,)`, finite.
        confidence: Probability, between 0 and 1, that the interval covers the mean of a normal
            population.

    Returns:
        An `Interval`.

    Raises:
        ValueError: If `values` are not finite numbers of shape `(n,)`, or `confidence` is not
            between 0 and 1.
    """
    values = _finite(values)
    if not 0 < confidence < 1:
        raise ValueError(
            f"`confidence` must be between 0 and 1, both excluded. Received: {confidence=}"
        )
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else math.nan, math.nan, math.nan, n)
    mean = float(values.mean())
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_interval(values, controls, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean difference of pairs, `values - controls`.

    Args:
        values: Array-like of shape `(n,)`, finite.
        controls: Array-like of shape `(n,)`, finite: the other half of each pair.
        confidence: As in `mean_interval`.

    Returns:
        An `Interval` whose `n` is the number of pairs.

    Raises:
        ValueError: If the two are not finite numbers of one shape `(n,)`.
    """
    values, controls = _finite(values), _finite(controls)
    if len(values) != len(controls):
        raise ValueError(
            "`values` and `controls` must have one length, since they are pairs. "
            f"Received: {len(values)} values and {len(controls)} controls"
        )
    return mean_interval(values - controls, confidence)


def _finite(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(
            "Expected finite numbers of shape `(n,)` (a diverged run counts as chance error, not "
            f"as NaN). Received: {values!r}"
        )
    return values
