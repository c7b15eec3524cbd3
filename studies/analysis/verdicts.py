"""Judge the claims of a study: results in, verdicts out.

A claim *holds* if the interval of each of its effects lies within its bounds, and *fails* if one
lies wholly outside; else it is *undecided*. The levels of the intervals are adjusted by Holm's
procedure over all claims that the study fixes, judged or not. Within a claim, all effects must be
inside for it to hold, which needs no adjustment; for it to fail one of them is enough, so that the
level is divided by their number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, singledispatch

import numpy as np
import pandas as pd

from studies.analysis import statistics
from studies.analysis.claims import (
    AtChance,
    Claim,
    Condition,
    Difference,
    Effect,
    Outperforms,
    Runs,
    SpreadRatio,
)
from studies.analysis.statistics import Interval
from studies.analysis.tables import CHANCE_MARGIN, MISSING
from studies.runner.scale import Scale
from studies.runner.selection import chance

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
MAX_CLAIMS = 20
_ALPHA = 0.05

Measurement = Callable[[float], Interval]


@dataclass(frozen=True)
class Finding:
    """What was found of one condition of a claim.

    Args:
        condition: The condition.
        interval: The effect at the claim's level; `None` if the claim was not run.
        p_value: Of the sign-flip test that a paired difference equals the bound nearest to it, not
            adjusted: a second opinion, free of the normal distribution; NaN for other effects.
    """

    condition: Condition
    interval: Interval | None = None
    p_value: float = math.nan


@dataclass(frozen=True)
class Judgment:
    """The verdict on a claim.

    Args:
        claim: The claim.
        verdict: `"holds"`, `"fails"`, `"undecided"` or `"not run"`.
        level: The level that its intervals have after Holm's adjustment, NaN if it was not run.
        findings: What was found, a finding per condition.
    """

    claim: Claim
    verdict: str
    level: float
    findings: tuple[Finding, ...]

    @property
    def decisive(self) -> Finding:
        """The finding that decides: the first outside its bounds, else across one, else of all."""
        found = [f for f in self.findings if f.interval]
        outside = [f for f in found if _is_outside(f.interval, f.condition)]
        across = [f for f in found if not _is_inside(f.interval, f.condition)]
        return [*(outside if self.verdict == FAILS else ()), *across, *self.findings][0]


def judge(claims: tuple[Claim, ...], frame: pd.DataFrame, scale: Scale) -> list[Judgment]:
    """Judge the claims of a study on the results of a scale.

    Args:
        claims: All claims that the study fixes.
        frame: Results, from `records.frame`.
        scale: The scale they belong to.

    Returns:
        A judgment for each claim. A claim whose runs are not all there is not run; one with fewer
        than six seeds is undecided.

    Raises:
        ValueError: If there are more than 20 claims.
    """
    check(claims)
    measured = [_measure_all(claim, frame, scale) for claim in claims]
    levels = statistics.holm([_decides(found) for found in measured], _ALPHA)
    return [
        _judgment(claim, found, level)
        for claim, found, level in zip(claims, measured, levels, strict=True)
    ]


def not_run(claims: tuple[Claim, ...]) -> list[Judgment]:
    """The judgments of a study that has not been run, or not to the end."""
    check(claims)
    return [Judgment(c, NOT_RUN, math.nan, tuple(map(Finding, c.conditions))) for c in claims]


def check(claims: tuple[Claim, ...]) -> None:
    """Refuse more claims than intervals can be adjusted for.

    Raises:
        ValueError: If there are more than 20 claims, or two have one name.
    """
    names = [claim.name for claim in claims]
    if len(names) > MAX_CLAIMS or len(set(names)) < len(names):
        raise ValueError(
            f"Expected at most {MAX_CLAIMS} claims, each of another name: every one widens the "
            f"intervals of all. Received: {len(names)} claims, {', '.join(names)}"
        )


def to_frame(judgments: list[Judgment]) -> pd.DataFrame:
    """A row per condition, with the numbers of its effect.

    Args:
        judgments: From `judge` or `not_run`.

    Returns:
        A DataFrame with columns `claim`, `verdict`, `effect`, `above`, `below`, `estimate`, `low`,
        `high`, `confidence` of that interval, `pairs`, `sign_flip_p`, `statement`, `source`,
        `check`.
    """
    return pd.DataFrame([_row(j, f) for j in judgments for f in j.findings])


def _row(judgment: Judgment, finding: Finding) -> dict:
    claim, condition = judgment.claim, finding.condition
    interval = finding.interval or Interval(math.nan, math.nan, math.nan, 0)
    return {
        "claim": claim.name,
        "verdict": judgment.verdict,
        "effect": str(condition.effect),
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
    """A row per claim, as text.

    Args:
        judgments: From `judge` or `not_run`.

    Returns:
        A DataFrame with columns `statement`, `source`, `check`, `effect` (the one that decides,
        with its interval), `pairs`, `verdict`.
    """
    return pd.DataFrame(
        {
            "statement": j.claim.statement,
            "source": j.claim.source,
            "check": j.claim.check,
            "effect": effect_text(j.decisive),
            "pairs": str(j.decisive.interval.n) if j.decisive.interval else MISSING,
            "verdict": j.verdict,
        }
        for j in judgments
    )


def effect_text(finding: Finding) -> str:
    """An effect with its interval, and the bounds it is held against."""
    interval = finding.interval
    if interval is None:
        return MISSING
    found = f"{interval.estimate:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{finding.condition}: {found}"


# Verdicts


def _measure_all(
    claim: Claim, frame: pd.DataFrame, scale: Scale
) -> list[tuple[Condition, Measurement, float]] | None:
    """Condition, interval by confidence and p-value of each; `None` if runs are missing."""
    values = {runs: _values(runs, frame, scale) for runs in claim.runs}
    if any(series is None for series in values.values()):
        return None
    return [(c, *_measure(c.effect, values, c, scale)) for c in claim.conditions]


def _decides(measured: list | None) -> Callable[[float], bool]:
    return lambda level: _verdict(measured, level) in (HOLDS, FAILS)


def _verdict(measured: list | None, level: float) -> str:
    if measured is None:
        return NOT_RUN
    found = [(measurement(1 - level), condition) for condition, measurement, _ in measured]
    if any(interval.n < statistics.MIN_PAIRS for interval, _ in found):
        return UNDECIDED
    if all(_is_inside(*pair) for pair in found):
        return HOLDS
    strict = [(m(1 - level / len(measured)), condition) for condition, m, _ in measured]
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
    findings = tuple(Finding(condition, m(1 - own), p) for condition, m, p in measured)
    return Judgment(claim, verdict, own, findings)


# Effects


def _values(runs: Runs, frame: pd.DataFrame, scale: Scale) -> pd.Series | None:
    """The metric by seed; `None` if not all are there."""
    column = f"equal_cost_{runs.metric}" if runs.equal_cost else runs.metric
    rows = frame[
        (frame["role"] == "report") & (frame["arm"] == runs.arm) & (frame["depth"] == runs.depth)
    ]
    if runs.equal_cost:
        rows = rows[rows["extra_epochs"] > 0]
    values = rows.set_index("seed")[column].sort_index().dropna()
    wanted = runs.arm in scale.arms and runs.depth in scale.depths
    complete = wanted and list(values.index) == list(scale.seeds(runs.arm, runs.depth))
    return values if complete else None


def _paired(effect: Effect, errors: dict[Runs, pd.Series]) -> dict[Runs, np.ndarray]:
    """Metrics of the seeds that all runs of an effect have."""
    rows = pd.concat([errors[runs] for runs in effect.runs], axis=1, join="inner").to_numpy()
    return dict(zip(effect.runs, rows.T, strict=True))


@singledispatch
def _measure(
    effect: Effect, errors: dict, condition: Condition, scale: Scale
) -> tuple[Measurement, float]:
    """Interval by confidence, and the p-value of paired differences."""
    raise TypeError(f"Expected an effect of `studies.analysis.claims`. Received: {effect!r}")


@_measure.register
def _(effect: Difference, errors: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, errors)
    # Errors are fractions.
    factor = 100 if effect.plus[0].metric == "test_error" else 1
    values = factor * (sum(paired[r] for r in effect.plus) - sum(paired[r] for r in effect.minus))
    nearest = min(
        (b for b in (condition.above, condition.below) if math.isfinite(b)),
        key=lambda bound: abs(bound - values.mean()),
    )
    p_value = statistics.sign_flip_test(values - nearest)
    if effect.average == "mean":
        return (lambda confidence: statistics.mean_interval(values, confidence)), p_value
    return _bootstrap(statistics.median, values), p_value


@_measure.register
def _(effect: Outperforms, errors: dict, condition: Condition, scale: Scale):
    paired = _paired(effect, errors)
    pair = paired[effect.arm], paired[effect.control]
    return (lambda c: statistics.outperforming(*pair, c).interval), math.nan


@_measure.register
def _(effect: SpreadRatio, errors: dict, condition: Condition, scale: Scale):
    # No two errors differ by less than one test image.
    least = 1 / scale.test_size

    def ratio(wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
        spreads = [statistics.interquartile_range(values) for values in (wide, narrow)]
        return np.maximum(spreads[0], least) / np.maximum(spreads[1], least)

    paired = _paired(effect, errors)
    return _bootstrap(ratio, paired[effect.wide], paired[effect.narrow]), math.nan


@_measure.register
def _(effect: AtChance, errors: dict, condition: Condition, scale: Scale):
    values = errors[effect.of]
    failed = int((values > chance(scale.classes) - CHANCE_MARGIN).sum())
    return (lambda c: statistics.binomial_interval(failed, len(values), c)), math.nan


def _bootstrap(statistic: Callable, *samples: np.ndarray) -> Measurement:
    # Holm's procedure comes back to the same levels.
    return cache(lambda c: statistics.bootstrap_interval(statistic, *samples, confidence=c))
