"""Judge the claims of a study: results in, verdicts out.

A claim *holds* if the interval of each of its effects lies within the bounds of that effect,
*fails* if an interval lies wholly outside, and is *undecided* if neither is the case. The levels of
the intervals are adjusted by Holm's procedure over all claims of the study, judged or not. Within a
claim, all effects must be inside for the claim to hold, which needs no adjustment. One effect
outside is enough for the claim to fail, so that the level is then divided by the number of effects.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, singledispatch

import numpy as np
import pandas as pd

from studies.engine.scale import Place, Scale
from studies.kinds.kind import Metric
from studies.report import claims as said
from studies.report import statistics
from studies.report.claims import Claim, Condition, Effect, Sample
from studies.report.frame import reported
from studies.report.statistics import Interval
from studies.report.tables import MISSING

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
LEDGER = ("statement", "source", "check", "effect", "pairs", "verdict")
MAX_CLAIMS = 20
_ALPHA = 0.05

Measurement = Callable[[float], Interval]


@dataclass(frozen=True)
class Finding:
    """The effect that was found for a condition of a claim.

    The interval is at the claim's level; `None` if the claim was not run. The p-value is of the
    sign-flip test against the nearest bound, for paired differences only, and not adjusted: a
    second opinion, free of the normal distribution. A probability, a share or a ratio has no unit.
    """

    condition: Condition
    interval: Interval | None = None
    p_value: float = math.nan
    unit: str = ""

    @property
    def effect(self) -> str:
        """The effect in words, with its unit."""
        return f"{self.condition.effect}, {self.unit}" if self.unit else str(self.condition.effect)

    @property
    def text(self) -> str:
        """The effect in words, with its unit and bounds."""
        return self.condition.text(self.effect)


@dataclass(frozen=True)
class Judgment:
    """The verdict on a claim, with a finding per condition.

    `level` is the level of the intervals after Holm's adjustment; NaN if the claim was not run.
    """

    claim: Claim
    verdict: str
    level: float
    findings: tuple[Finding, ...]

    @property
    def decisive(self) -> Finding:
        """The finding that decides the verdict.

        If the claim fails, it is the first finding outside its bounds. If no finding is outside, it
        is the first finding across a bound; if no finding is across a bound either, it is the first
        of all.
        """
        found = [f for f in self.findings if f.interval]
        outside = [f for f in found if _is_outside(f.interval, f.condition)]
        across = [f for f in found if not _is_inside(f.interval, f.condition)]
        return [*(outside if self.verdict == FAILS else ()), *across, *self.findings][0]


def judge(claims: tuple[Claim, ...], frame: pd.DataFrame, scale: Scale) -> list[Judgment]:
    """Judge all claims of a study on the results (from `frame.frame`) of a scale.

    A claim of which runs are missing is not run; a claim on fewer than six seeds is undecided. More
    than 20 claims, or a claim that leaves the value of an axis open, raise `ValueError`.
    """
    check(claims)
    measured = [_measure_all(claim, frame, scale) for claim in claims]
    decides = [lambda level, m=m: _verdict(m, level) in (HOLDS, FAILS) for m in measured]
    levels = statistics.holm(decides, _ALPHA)
    return [
        _judgment(claim, found, level)
        for claim, found, level in zip(claims, measured, levels, strict=True)
    ]


def not_run(claims: tuple[Claim, ...]) -> list[Judgment]:
    """The judgments of a study that was not run, or not to its end."""
    check(claims)
    return [Judgment(c, NOT_RUN, math.nan, tuple(map(Finding, c.conditions))) for c in claims]


def check(claims: tuple[Claim, ...]) -> None:
    """Refuse more claims than intervals can be adjusted for, and two claims of one name."""
    names = [claim.name for claim in claims]
    if len(names) > MAX_CLAIMS or len(set(names)) < len(names):
        raise ValueError(
            f"Expected at most {MAX_CLAIMS} claims, each of another name: every claim widens the "
            f"intervals of all claims. Received: {len(names)} claims, {', '.join(names)}"
        )


def to_frame(judgments: list[Judgment]) -> pd.DataFrame:
    """A row per condition, with the numbers of its effect."""
    return pd.DataFrame([_row(j, f) for j in judgments for f in j.findings])


def _row(judgment: Judgment, finding: Finding) -> dict:
    claim, condition = judgment.claim, finding.condition
    interval = finding.interval or Interval(math.nan, math.nan, math.nan, 0)
    return {
        "claim": claim.name,
        "verdict": judgment.verdict,
        "effect": finding.effect,
        "above": condition.above if math.isfinite(condition.above) else math.nan,
        "below": condition.below if math.isfinite(condition.below) else math.nan,
        "estimate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "confidence": 1 - judgment.level,
        "pairs": interval.n,
        "sign_flip_p": finding.p_value,
        "statement": claim.statement,
        "source": claim.source,
        "check": claim.check,
    }


def ledger(judgments: list[Judgment]) -> pd.DataFrame:
    """A row per claim, as text, with the effect that decides the verdict."""
    rows = [
        (
            *(j.claim.statement, j.claim.source, j.claim.check, effect_text(j.decisive)),
            str(j.decisive.interval.n) if j.decisive.interval else MISSING,
            j.verdict,
        )
        for j in judgments
    ]
    return pd.DataFrame(rows, columns=LEDGER)


def effect_text(finding: Finding) -> str:
    """An effect in words, with its bounds, estimate and interval."""
    interval = finding.interval
    if interval is None:
        return MISSING
    return f"{finding.text}: {interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _measure_all(
    claim: Claim, frame: pd.DataFrame, scale: Scale
) -> list[tuple[Condition, Measurement, float, str]] | None:
    """Condition, interval by confidence, p-value and unit of each; `None` if runs are missing."""
    values = {sample: _values(sample, frame, scale) for sample in claim.samples}
    if any(series is None for series in values.values()):
        return None
    return [(c, *_measure(c.effect, values, c, scale)) for c in claim.conditions]


def _verdict(measured: list | None, level: float) -> str:
    if measured is None:
        return NOT_RUN
    found = [(measurement(1 - level), condition) for condition, measurement, *_ in measured]
    if any(interval.n < statistics.MIN_PAIRS for interval, _ in found):
        return UNDECIDED
    if all(_is_inside(*pair) for pair in found):
        return HOLDS
    strict = [(m(1 - level / len(measured)), condition) for condition, m, *_ in measured]
    return FAILS if any(_is_outside(*pair) for pair in strict) else UNDECIDED


def _is_inside(interval: Interval, condition: Condition) -> bool:
    return condition.above < interval.low and interval.high < condition.below


def _is_outside(interval: Interval, condition: Condition) -> bool:
    return interval.high <= condition.above or condition.below <= interval.low


def _judgment(claim: Claim, measured: list | None, level: float) -> Judgment:
    if measured is None:
        return not_run((claim,))[0]
    verdict = _verdict(measured, level)
    own = level / len(measured) if verdict == FAILS else level
    findings = tuple(Finding(condition, m(1 - own), p, unit) for condition, m, p, unit in measured)
    return Judgment(claim, verdict, own, findings)


def _values(sample: Sample, frame: pd.DataFrame, scale: Scale) -> pd.Series | None:
    """The metric by seed; `None` if not all seeds are there."""
    place, rows = _place(sample, scale), reported(frame)
    for name, value in zip(("arm", *scale.axes), place, strict=True):
        rows = rows[rows[name] == value]
    values = rows.set_index("seed")[_metric(sample, scale).name].sort_index().dropna()
    complete = place in scale.places and list(values.index) == list(scale.seeds(place))
    return values if complete else None


def _place(sample: Sample, scale: Scale) -> Place:
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


def _metric(sample: Sample, scale: Scale) -> Metric:
    return scale.kind.metric(sample.metric)


def _paired(effect: Effect, values: dict[Sample, pd.Series]) -> dict[Sample, np.ndarray]:
    """Metrics of the seeds that all samples of an effect have."""
    rows = pd.concat([values[sample] for sample in effect.samples], axis=1, join="inner")
    return dict(zip(effect.samples, rows.to_numpy().T, strict=True))


@singledispatch
def _measure(
    effect: Effect, values: dict, condition: Condition, scale: Scale
) -> tuple[Measurement, float, str]:
    """Interval by confidence, the p-value of paired differences, and the unit."""
    raise TypeError(f"Expected an effect of `studies.report.claims`. Received: {effect!r}")


@_measure.register
def _(effect: said.Difference, values: dict, condition: Condition, scale: Scale):
    paired, metric = _paired(effect, values), _metric(effect.plus[0], scale)
    if len({(m.factor, m.unit) for m in (_metric(each, scale) for each in effect.samples)}) > 1:
        raise ValueError(f"Expected a difference of metrics of one unit. Received: {effect}")
    total = sum(paired[each] for each in effect.plus) - sum(paired[each] for each in effect.minus)
    total = metric.factor * total
    nearest = min(
        (b for b in (condition.above, condition.below) if math.isfinite(b)),
        key=lambda bound: abs(bound - total.mean()),
    )
    p_value, unit = statistics.sign_flip_test(total - nearest), metric.difference or metric.unit
    if effect.average == "mean":
        return (lambda confidence: statistics.mean_interval(total, confidence)), p_value, unit
    return _bootstrap(statistics.median, total), p_value, unit


@_measure.register
def _(effect: said.Outperforms, values: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, values)
    sign = 1 if _metric(effect.arm, scale).lower_is_better else -1
    pair = sign * paired[effect.arm], sign * paired[effect.control]
    return (lambda c: statistics.outperforming(*pair, c)), math.nan, ""


@_measure.register
def _(effect: said.SpreadRatio, values: dict, condition: Condition, scale: Scale):
    least = _metric(effect.wide, scale).resolution(scale)

    def ratio(wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
        spreads = [statistics.interquartile_range(each) for each in (wide, narrow)]
        return np.maximum(spreads[0], least) / np.maximum(spreads[1], least)

    paired = _paired(effect, values)
    return _bootstrap(ratio, paired[effect.wide], paired[effect.narrow]), math.nan, ""


@_measure.register
def _(effect: said.AtChance, values: dict, condition: Condition, scale: Scale):
    metric, found = _metric(effect.of, scale), values[effect.of]
    if metric.at_chance is None:
        raise ValueError(f"The metric {metric.name} knows no chance. Received: {effect}")
    place = dict(zip(scale.axes, _place(effect.of, scale)[1:], strict=True))
    dataset = place.get("dataset", scale.dataset)
    failed = int((found > metric.at_chance(scale.shape(dataset)[1])).sum())
    return (lambda c: statistics.binomial_interval(failed, len(found), c)), math.nan, ""


def _bootstrap(statistic: Callable, *samples: np.ndarray) -> Measurement:
    # Cached: Holm's procedure comes back to the same levels.
    return cache(lambda c: statistics.bootstrap_interval(statistic, *samples, confidence=c))
