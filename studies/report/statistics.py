"""Intervals and tests for the scores of seeds.

Every interval is over seeds: it says how far a score would move with other initial weights, batch
orders and splits, but not with another test set, which is what `sampling_error` says. Beside each
interval stands how often it covers the truth, measured by simulation in
`tests/studies/test_statistics.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# scipy.stats takes two seconds to import.
from scipy.special import bdtrc, betaincinv, chdtri, ndtr, ndtri, stdtrit

# With fewer pairs, no two-sided sign or rank test can reach 5 %.
MIN_PAIRS = 6
# The interval of two values is wider than anything that can be read from it.
MIN_VALUES = 3
# An end of a bootstrap interval is a quantile, which needs as many draws beyond it as a mean needs
# values. Far ends would need millions of resamples, so that the number is bounded.
_BEYOND = 50
_RESAMPLES = (5_000, 100_000)
# Of the middle values of a resample, pairs of less probability are left out.
_NEGLIGIBLE = 1e-12
# Up to this many pairs, signs are flipped in all 2^n ways; with more pairs, at random.
_EXACT_PAIRS = 14
_FLIPS = 20_000


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds of its interval over `n` values or pairs.

    The estimate is NaN if there are no values; bounds are NaN if there are too few values for them.
    The intervals of many samples, of shape `(..., n)`, are one `Interval` that holds arrays.
    """

    estimate: float
    low: float
    high: float
    n: int

    def text(self, pattern: str) -> str:
        """A pattern with the numbers in it: `"{estimate} ({low} to {high})"`."""
        ends = {"estimate": self.estimate, "low": self.low, "high": self.high}
        places = decimals(*ends.values())
        return pattern.format(**{name: f"{end:.{places}f}" for name, end in ends.items()})


def decimals(*values: float) -> int:
    """How many decimals show two digits of the largest of some numbers; at least 2, at most 6."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest >= 0.1 or not largest else min(6, 1 - math.floor(math.log10(largest)))


def mean_interval(values, confidence: float = 0.95) -> Interval:
    """Student's t interval for the mean of independent values, finite, of shape `(..., n)`.

    Coverage at 95 %, by simulation: 95 % of 3, 10 and 29 normal values; 90 % and 93 % of 10 and 29
    exponential values, which are as skewed as errors of runs that train ever are. If 7 % of the
    runs stay at chance, coverage is 52 % and 88 %: such runs have a `median_interval`. Fewer than
    three values have no bounds.
    """
    values = _finite(values)
    n = values.shape[-1]
    if n < MIN_VALUES:
        return _unbounded(np.mean, values)
    mean = values.mean(axis=-1)
    half = stdtrit(n - 1, (1 + confidence) / 2) * values.std(axis=-1, ddof=1) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def median_interval(values, confidence: float = 0.95) -> Interval:
    """Expanded percentile bootstrap interval for the median of values of shape `(..., n)`.

    The interval is that of `bootstrap_interval` with infinitely many resamples, since the
    distribution of the median of a resample is known (Efron 1982, chapter 10). Coverage at 95 %, by
    simulation of 10 and 29 normal and exponential values: 94 % to 97 %. Fewer than three values
    have no bounds.
    """
    values = np.sort(_finite(values), axis=-1)
    n = values.shape[-1]
    if n < MIN_VALUES:
        return _unbounded(median, values)
    (lower, upper), shares = _middles(n)
    medians = (values[..., lower] + values[..., upper]) / 2
    order, tail = medians.argsort(axis=-1), _tail(n, confidence)
    # From below and from above: the first median that leaves at least the tail behind.
    low, high = (
        _first(medians, each, shares[each].cumsum(axis=-1) >= tail)
        for each in (order, order[..., ::-1])
    )
    return Interval(median(values), low, high, n)


def bootstrap_interval(
    statistic: Callable[..., np.ndarray], *samples, confidence: float = 0.95
) -> Interval:
    """Expanded percentile bootstrap interval, for interquartile means and spreads.

    The percentiles of Hesterberg (2015) are moved outwards as Student's t is from the normal
    distribution: plain percentile and BCa intervals of ten values cover 2 to 4 points less than
    they claim. The seed of the resampling is fixed, so that the interval is always the same. There
    are as many resamples as put 50 of them beyond each end, from 5,000 to 100,000.

    `statistic` reduces the last axis of arrays of shape `(..., n)`, one for each sample. Seeds are
    resampled, so that the values of one seed stay together.

    Coverage at 95 %, by simulation of 10 and 29 normal and exponential values: of the
    interquartile mean 94 % to 97 %; of a ratio of interquartile ranges 98 % or more. Fewer than
    three values have no bounds.
    """
    arrays = [_finite(sample) for sample in samples]
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(
            "Expected at least one sample, and a value per seed in each. "
            f"Received: samples of {[len(array) for array in arrays]} values"
        )
    n = len(arrays[0])
    if n < MIN_VALUES:
        return _unbounded(statistic, *arrays)
    tail = _tail(n, confidence)
    drawn = _drawn(n, int(np.clip(_BEYOND / tail, *_RESAMPLES)))
    resampled = statistic(*(array[drawn] for array in arrays))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(statistic(*arrays)), float(low), float(high), n)


def alike_intervals(estimates: np.ndarray, n: int, confidence: float = 0.95) -> Interval:
    """Intervals of many simulated studies of `n` values each, by the estimates of these studies.

    A bootstrap of every study would take too long. Instead, every study has the normal
    distribution that the estimates have, expanded as in `bootstrap_interval`.
    """
    half = -ndtri(_tail(n, confidence)) * estimates.std(ddof=1)
    return Interval(estimates, estimates - half, estimates + half, n)


def binomial_interval(successes, n, confidence: float = 0.95) -> Interval:
    """Exact interval for a probability (Clopper and Pearson 1934).

    Coverage at 95 %, summed over the binomial distribution: never less than 95 %, and up to 100 %
    for probabilities near 0 and 1.
    """
    successes, n = np.asarray(successes), np.asarray(n)
    if ((successes < 0) | (successes > n)).any():
        raise ValueError(
            f"Expected between 0 and `n` successes. Received: successes={successes}, n={n}"
        )
    tail = (1 - confidence) / 2
    low = np.where(successes > 0, betaincinv(successes, n - successes + 1, tail), 0.0)
    high = np.where(successes < n, betaincinv(successes + 1, n - successes, 1 - tail), 1.0)
    estimate = np.where(n > 0, successes / np.maximum(n, 1), math.nan)
    return Interval(estimate[()], low[()], high[()], n[()])


def outperforming(values, controls, confidence: float = 0.95) -> Interval:
    """Probability that a value is lower than its control, over the pairs that are no ties."""
    differences = np.subtract(*_pairs(values, controls))
    wins, losses = (differences < 0).sum(axis=-1), (differences > 0).sum(axis=-1)
    return binomial_interval(wins, wins + losses, confidence)


def sampling_error(error: float, test_size: int) -> float:
    """Standard error of a test error that comes from the test set being a sample.

    All seeds share a test set, so that this error is never mixed with the interval over seeds. In
    95 % of cases, the error on the population lies within 1.96 standard errors, by simulation, down
    to errors of 1 % on 10,000 images.
    """
    return math.sqrt(error * (1 - error) / test_size)


def difference_sampling_error(right, control_right) -> float:
    """Standard error of a difference of two test errors that comes from the test set.

    Both nets are tested on the same images, of which most are right or wrong for both: the error of
    the difference is smaller than that of either test error. Beside it stands the interval over
    seeds, which does not count the test set.

    Args:
        right: Which test images are right, as booleans of shape `(seeds, images)`.
        control_right: The same of the control; the number of seeds may be another.

    Returns:
        The standard error of the difference, a fraction, of the mean over the seeds.
    """
    by_image = np.mean(control_right, axis=0) - np.mean(right, axis=0)
    return float(by_image.std(ddof=1) / math.sqrt(len(by_image)))


def equivalence_power(
    spreads: Sequence[float], margin: float, pairs: int, level: float = 0.05
) -> float:
    """Chance that differences are found equivalent, if there is no difference: to plan a claim.

    A claim that two arms differ by less than a margin holds if the t interval of every difference
    lies within the margin. With too few pairs, the interval is wider than the margin, and the claim
    cannot hold even if it is true.

    Args:
        spreads: Standard deviation of the paired differences of each condition, in the unit of the
            margin. Conditions are taken as independent.
        margin: The margin, above 0.
        pairs: Number of pairs of seeds, at least 2.
        level: Level of the intervals: with m claims, Holm's first level is 0.05 / m.

    Returns:
        The chance, from 0 to 1. The reported spreads of ten pairs are themselves 24 % off.
    """
    # The quantiles of the sample's spread, by the distribution of the sum of squares.
    shares = (np.arange(10_000) + 0.5) / 10_000
    sampled = np.sqrt(chdtri(pairs - 1, shares) / (pairs - 1))
    half = stdtrit(pairs - 1, 1 - level / 2) * sampled
    room = margin * math.sqrt(pairs) / np.asarray(spreads)[:, None] - half
    return float(np.prod(np.maximum(2 * ndtr(room) - 1, 0).mean(axis=1)))


def _unbounded(statistic: Callable[..., np.ndarray], *samples: np.ndarray) -> Interval:
    """What is known of too few values: their statistic, if there are any."""
    n = samples[0].shape[-1]
    estimate = statistic(*samples) if n else math.nan
    return Interval(float(estimate), math.nan, math.nan, n)


def _tail(n: int, confidence: float) -> float:
    """The share of a bootstrap's draws beyond each end of its expanded interval."""
    return float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - confidence) / 2)))


def _first(values: np.ndarray, order: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """The first of ordered values for which something holds, along the last axis."""
    where = np.take_along_axis(order, holds.argmax(axis=-1, keepdims=True), axis=-1)
    return np.take_along_axis(values, where, axis=-1)[..., 0][()]


@lru_cache(maxsize=2)
def _drawn(n: int, resamples: int) -> np.ndarray:
    """The bootstrap's resamples of n seeds: always the same."""
    return np.random.default_rng(n).integers(0, n, (resamples, n), dtype=np.int16)


@lru_cache(maxsize=64)
def _middles(n: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Ranks of the two middle values of a resample of n values, and the shares of resamples.

    Of an odd number of values, the two middle values are one.
    """
    steps, half = np.arange(n + 1) / n, n // 2
    joint = np.diag(np.diff(bdtrc((n - 1) // 2, n, steps)))
    if n % 2 == 0:
        outer = np.diff(steps**half)
        apart = math.comb(n, half) * np.triu(np.outer(outer, outer[::-1]), 1)
        joint += apart - np.diag(apart.sum(axis=1))
    kept = np.nonzero(joint > _NEGLIGIBLE)
    return kept, joint[kept]


def median(values: np.ndarray) -> np.ndarray:
    # Three times as fast as NumPy's on the many short rows of a bootstrap.
    values = np.sort(values, axis=-1)
    n = values.shape[-1]
    return (values[..., (n - 1) // 2] + values[..., n // 2]) / 2


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean without the lowest and the highest quarter (Agarwal et al. 2021)."""
    n = np.shape(values)[-1]
    return np.sort(values, axis=-1)[..., n // 4 : n - n // 4].mean(axis=-1)


def interquartile_range(values: np.ndarray) -> np.ndarray:
    # Faster than NumPy's on the many short rows of a bootstrap.
    values = np.sort(values, axis=-1)
    low, high = (_interpolated(values, share) for share in (0.25, 0.75))
    return high - low


def _interpolated(ordered: np.ndarray, share: float) -> np.ndarray:
    """A quantile of ordered values along the last axis, as NumPy has it."""
    part, below = math.modf(share * (ordered.shape[-1] - 1))
    nearest = ordered[..., int(below)], ordered[..., math.ceil(below + part)]
    return (1 - part) * nearest[0] + part * nearest[1]


def sign_flip_test(differences) -> float:
    """P-value of the two-sided sign-flip test that differences are symmetric about 0.

    It is the share of flips whose mean is at least as far from 0 as the observed mean. Up to 14
    pairs, all 2^n flips are taken; with more pairs, 20,000 random flips of a fixed seed, with the
    observed signs among them. The test rejects at most 5 % of true hypotheses at 5 %.
    """
    differences = _finite(differences)
    n = len(differences)
    if n <= _EXACT_PAIRS:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.default_rng(n).choice([-1, 1], (_FLIPS, n))
        signs[0] = 1
    flipped = np.abs(signs @ differences)
    # Sums in another order differ in their last digits.
    return float(np.mean(flipped >= abs(differences.sum()) * (1 - 1e-9)))


def holm(rejects: Sequence[Callable[[float], bool]], alpha: float = 0.05) -> list[float]:
    """Holm's step-down procedure (1979): levels at which to test hypotheses together.

    All hypotheses are tested at `alpha` over their number. As long as some are rejected, the others
    are tested again, at `alpha` over the number of hypotheses that are left. The probability of any
    false rejection is at most `alpha`. Each of `rejects` says whether a test rejects its hypothesis
    at a level. The result is the level at which each was rejected, or at which it last was not.
    """
    levels = [math.nan] * len(rejects)
    left = list(range(len(rejects)))
    while left:
        level = alpha / len(left)
        levels = [level if i in left else old for i, old in enumerate(levels)]
        kept = [i for i in left if not rejects[i](level)]
        if kept == left:
            break
        left = kept
    return levels


def expected_best(scores) -> np.ndarray:
    """Expected lowest of n scores that are drawn without replacement (Dodge et al. 2019).

    The lowest of n is the i-th lowest of all B (from 0) in C(B - 1 - i, n - 1) of C(B, n) draws.
    Drawn with replacement, as by Dodge et al., the estimate is biased as n nears B (Tang et al.
    2020). The result has shape `(B,)`, for n from 1 to B.
    """
    scores = np.sort(_finite(scores))
    b = len(scores)
    draws = [[math.comb(b - 1 - i, n - 1) for i in range(b)] for n in range(1, b + 1)]
    return np.array([np.dot(row, scores) / sum(row) for row in draws])


def _finite(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if not values.ndim or not np.isfinite(values).all():
        raise ValueError(
            "Expected finite numbers of shape `(..., n)`: a diverged run counts as chance error, "
            f"not as NaN. Received: {values!r}"
        )
    return values


def _pairs(values, controls) -> tuple[np.ndarray, np.ndarray]:
    values, controls = _finite(values), _finite(controls)
    if values.shape != controls.shape:
        raise ValueError(
            "`values` and `controls` must have one length, since they are pairs. "
            f"Received: {values.shape[-1]} values and {controls.shape[-1]} controls"
        )
    return values, controls
