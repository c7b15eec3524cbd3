"""Measure the effects that claims are about: results in, intervals out.

Every kind of effect says which values of the seeds it is made of and which interval it has. The
same interval is taken of the results and of simulated studies, whose seeds are drawn from the seeds
of the results with replacement: so the power of a claim is known without any further theory.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, singledispatch

import numpy as np
import pandas as pd

from studies.engine.scale import Place, Scale
from studies.kinds.kind import Metric
from studies.report import claims as said
from studies.report import fairness, statistics
from studies.report.claims import Claim, Condition, Effect, Sample
from studies.report.frame import at_place, failed, reported
from studies.report.statistics import Interval

# A chance has a standard error of at most 1.6 % by this many simulated studies.
_STUDIES = 1_000


@dataclass(frozen=True, eq=False)
class Measured:
    """What the results say of the effect of a condition.

    Args:
        condition: The condition. Where a run failed, its effect is of the median, not of the mean.
        samples: Arrays of shape `(n,)` with a value per seed, of which seeds are drawn together.
        interval: The interval of samples of shape `(..., n)`, with the keyword `confidence`.
        words: What an estimate of the effect says, in words.
        unit: Unit of the effect; a probability, a share or a ratio has none.
        p_value: The p-value of the sign-flip test against the nearest bound, of paired differences.
        edges: Rates at an end of their grid, in words: no verdict rests on them.
    """

    condition: Condition
    samples: tuple[np.ndarray, ...]
    interval: Callable[..., Interval]
    words: Callable[[float], str]
    unit: str = ""
    p_value: float = math.nan
    edges: tuple[str, ...] = ()

    @property
    def pairs(self) -> int:
        """The number of seeds."""
        return len(self.samples[0])

    @property
    def spread(self) -> float:
        """Standard deviation over seeds of a difference; NaN of any other effect.

        With it, `statistics.equivalence_power` says how many pairs a later study needs.
        """
        known = isinstance(self.condition.effect, said.Difference) and self.pairs > 1
        return float(self.samples[0].std(ddof=1)) if known else math.nan

    @cached_property
    def at(self) -> Callable[[float], Interval]:
        """The interval by its confidence."""
        # Cached: Holm's procedure comes back to the same levels.
        return cache(lambda confidence: self.interval(*self.samples, confidence=confidence))

    def simulated(self, pairs: int, confidence: float) -> Interval:
        """The intervals of simulated studies of `pairs` seeds each."""
        seeds = _drawn(self.pairs, pairs)
        return self.interval(*(sample[seeds] for sample in self.samples), confidence=confidence)


def judged_columns(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """The columns that claims are about: rows of curves and arrays are slow to choose from."""
    fields = [field.name for field in dataclasses.fields(scale.kind.trial)]
    metrics = [metric.name for metric in scale.kind.metrics]
    return frame[list(dict.fromkeys([*fields, *metrics, "status"]))].copy()


def measure(claim: Claim, frame: pd.DataFrame, scale: Scale) -> list[Measured] | None:
    """Measure the effects of a claim in results (from `frame.frame`); `None` if runs are missing.

    A claim that leaves the value of an axis open, or names a metric that the kind lacks, raises
    `ValueError`.
    """
    runs = {sample: _runs(sample, frame, scale) for sample in claim.samples}
    if any(each is None for each in runs.values()):
        return None
    edges = {sample: _edges(sample, frame, scale) for sample in claim.samples}
    return [
        replace(
            _measure(c.effect, runs, c, scale),
            edges=tuple(dict.fromkeys(edge for s in c.effect.samples for edge in edges[s])),
        )
        for c in claim.conditions
    ]


def lacking(claim: Claim, frame: pd.DataFrame, scale: Scale) -> tuple[str, ...]:
    """In words, the metrics that keep a claim from being judged: all runs are there, but not these.

    Nothing if runs are missing.
    """
    at = {sample: _finished(sample, frame, scale) for sample in claim.samples}
    if any(runs is None for runs in at.values()):
        return ()
    without = {s: int(runs[_metric(s, scale).name].isna().sum()) for s, runs in at.items()}
    return tuple(f"{n} of {len(at[s])} runs lack {s}" for s, n in without.items() if n)


def place_of(sample: Sample, scale: Scale) -> Place:
    """The place of a sample; an axis that the sample does not name must have a single value."""
    values = dict(sample.place)
    open_axes = [axis for axis in scale.varied if axis not in values]
    unknown = [axis for axis in values if axis not in scale.axes]
    if open_axes or unknown:
        raise ValueError(
            "A claim must name a value of each axis of the scale. "
            f"Expected: {', '.join(scale.axes)}. Received: {sample}"
        )
    return sample.arm, *(values.get(axis, only[0]) for axis, only in scale.axes.items())


@lru_cache(maxsize=64)
def _drawn(seeds: int, pairs: int) -> np.ndarray:
    """The seeds of simulated studies: the same for all effects, which so stay paired by seed."""
    return np.random.default_rng((seeds, pairs)).integers(seeds, size=(_STUDIES, pairs))


def _runs(sample: Sample, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame | None:
    """The report runs of a sample by seed; `None` if not all seeds have its metric."""
    runs = _finished(sample, frame, scale)
    lacks = runs is None or runs[_metric(sample, scale).name].isna().any()
    return None if lacks else runs


def _finished(sample: Sample, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame | None:
    """The report runs of a sample by seed; `None` if not all seeds have been run."""
    place = place_of(sample, scale)
    runs = at_place(reported(frame), place, scale).set_index("seed").sort_index()
    complete = place in scale.places and list(runs.index) == list(scale.seeds(place))
    return runs if complete else None


def _edges(sample: Sample, frame: pd.DataFrame, scale: Scale) -> list[str]:
    where = replace(sample, metric="")
    found = fairness.edges(frame, scale, place_of(sample, scale))
    return [
        f"the {name.replace('_', ' ')} of {where} lies at the edge of its grid" for name in found
    ]


def _metric(sample: Sample, scale: Scale) -> Metric:
    return scale.kind.metric(sample.metric)


def _paired(effect: Effect, runs: dict[Sample, pd.DataFrame], scale: Scale) -> dict:
    """Metrics of the seeds that all samples of an effect have, by sample."""
    columns = [runs[sample][_metric(sample, scale).name] for sample in effect.samples]
    rows = pd.concat(columns, axis=1, join="inner")
    return dict(zip(effect.samples, rows.to_numpy().T, strict=True))


@singledispatch
def _measure(effect: Effect, runs: dict, condition: Condition, scale: Scale) -> Measured:
    raise TypeError(f"Expected an effect of `studies.report.claims`. Received: {effect!r}")


@_measure.register
def _(effect: said.Difference, runs: dict, condition: Condition, scale: Scale):
    metric, paired = _metric(effect.plus[0], scale), _paired(effect, runs, scale)
    if len({(m.factor, m.unit) for m in (_metric(each, scale) for each in effect.samples)}) > 1:
        raise ValueError(f"Expected a difference of metrics of one unit. Received: {effect}")
    if any(_fails(runs[each], each, scale) for each in effect.samples):
        effect = replace(effect, average="median")
    total = sum(paired[each] for each in effect.plus) - sum(paired[each] for each in effect.minus)
    total = metric.factor * total
    means = effect.average == "mean"
    return Measured(
        replace(condition, effect=effect),
        (total,),
        statistics.mean_interval if means else statistics.median_interval,
        lambda estimate: _difference_words(effect, estimate, scale),
        _unit(effect, scale),
        statistics.sign_flip_test(total - _nearest_bound(condition, total.mean())),
    )


@_measure.register
def _(effect: said.Outperforms, runs: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, runs, scale)
    sign = 1 if _metric(effect.arm, scale).lower_is_better else -1
    return Measured(
        condition,
        (sign * paired[effect.arm], sign * paired[effect.control]),
        statistics.outperforming,
        lambda share: (
            f"{effect.arm} is better than {effect.control} in {100 * share:.0f} % of pairs"
        ),
    )


@_measure.register
def _(effect: said.SpreadRatio, runs: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, runs, scale)
    return Measured(
        condition,
        (paired[effect.wide], paired[effect.narrow]),
        _ratios(_metric(effect.wide, scale).resolution(scale)),
        lambda ratio: f"{effect.wide} has {ratio:.2f} times the spread of {effect.narrow}",
    )


@_measure.register
def _(effect: said.Ratio, runs: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, runs, scale)
    if any(_fails(runs[each], each, scale) for each in effect.samples):
        effect = replace(effect, average="median")
    means = effect.average == "mean"
    return Measured(
        replace(condition, effect=effect),
        (np.log(paired[effect.over]) - np.log(paired[effect.under]),),
        _exponential(statistics.mean_interval if means else statistics.median_interval),
        lambda ratio: f"{effect.over} is {ratio:.3g} times {effect.under}",
    )


@_measure.register
def _(effect: said.AtChance, runs: dict, condition: Condition, scale: Scale):
    metric = _metric(effect.of, scale)
    if metric.at_chance is None:
        raise ValueError(f"The metric {metric.name} knows no chance. Received: {effect}")
    return Measured(
        condition,
        (failed(runs[effect.of], metric, scale).to_numpy(),),
        lambda at_chance, confidence: statistics.binomial_interval(
            at_chance.sum(axis=-1), at_chance.shape[-1], confidence
        ),
        lambda share: f"{100 * share:.0f} % of the runs of {effect.of} end at chance",
    )


def _fails(runs: pd.DataFrame, sample: Sample, scale: Scale) -> bool:
    """Whether a run of a sample failed, by the sample's own metric."""
    return bool(failed(runs, _metric(sample, scale), scale).any())


def _exponential(interval: Callable[..., Interval]) -> Callable[..., Interval]:
    """The interval of a geometric mean or of a median, from logarithms."""

    def of_ratios(logarithms: np.ndarray, confidence: float) -> Interval:
        found = interval(logarithms, confidence=confidence)
        return Interval(*np.exp([found.estimate, found.low, found.high]), found.n)

    return of_ratios


def _nearest_bound(condition: Condition, estimate: float) -> float:
    bounds = [b for b in (condition.above, condition.below) if math.isfinite(b)]
    return min(bounds, key=lambda bound: abs(bound - estimate))


def _unit(effect: said.Difference, scale: Scale) -> str:
    metric = _metric(effect.plus[0], scale)
    return metric.difference or metric.unit


def _difference_words(effect: said.Difference, estimate: float, scale: Scale) -> str:
    """Which of two samples is better, and by how much; "better" is said of what runs are judged by.

    An effect of one sample, or of more than two, is named with its value.
    """
    unit = f" {_unit(effect, scale)}".rstrip()
    if (len(effect.plus), len(effect.minus)) != (1, 1):
        return f"{effect} is {estimate:.{statistics.decimals(estimate)}f}{unit}"
    metric, words = _metric(effect.plus[0], scale), ("lower", "higher")
    pair = effect.plus[0], effect.minus[0]
    if metric == scale.kind.metric():
        pair = tuple(replace(each, metric="") for each in pair)
        words = ("better", "worse") if metric.lower_is_better else ("worse", "better")
    if estimate == 0:
        return f"{pair[0]} is equal to {pair[1]}"
    size = f"{abs(estimate):.{statistics.decimals(estimate)}f}{unit}"
    return f"{pair[0]} is {words[int(estimate > 0)]} than {pair[1]} by {size}"


def _ratios(least: float) -> Callable[..., Interval]:
    """The interval of a ratio of spreads, of which none is taken to be below a least spread."""
    # A resample may hold a single seed, which has no spread, of a metric without a resolution.
    least = max(least, np.finfo(float).tiny)

    def logarithm(wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
        spreads = [statistics.interquartile_range(each) for each in (wide, narrow)]
        return np.log(np.maximum(spreads[0], least) / np.maximum(spreads[1], least))

    def interval(wide: np.ndarray, narrow: np.ndarray, confidence: float) -> Interval:
        if wide.ndim > 1:
            estimates, n = logarithm(wide, narrow), wide.shape[-1]
            found = statistics.alike_intervals(estimates, n, confidence)
        else:
            found = statistics.bootstrap_interval(logarithm, wide, narrow, confidence=confidence)
        return Interval(*np.exp([found.estimate, found.low, found.high]), found.n)

    return interval
