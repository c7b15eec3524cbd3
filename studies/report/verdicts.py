"""Judge the claims of a study: results in, verdicts out.

A claim *holds* if the interval of each of its effects lies within the bounds of that effect,
*fails* if an interval lies wholly outside, and is *undecided* if neither is the case. The levels of
the intervals are adjusted by Holm's procedure over all claims of the study, judged or not. Within a
claim, all effects must be inside for the claim to hold, which needs no adjustment. One effect
outside is enough for the claim to fail, so that the level is then divided by the number of effects.

An effect of a place whose rate lies at the edge of its grid decides nothing.

The *power* of a claim is the chance of the verdict that its estimates point to: that it holds if
all estimates lie within their bounds, that it fails if not. Studies are simulated by drawing seeds
from those of the records with replacement, and judged as the records are. So power takes the
estimates of the records for true; it does not say whether they are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from studies.engine.scale import Scale
from studies.report import statistics
from studies.report.claims import Claim, Condition
from studies.report.effects import Measured, judged_columns, lacking, measure, place_of
from studies.report.statistics import Interval
from studies.report.tables import MISSING

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "fails", "undecided", "not run"
LEDGER = ("statement", "source", "check", "effect", "pairs", "verdict", "finding")
MAX_CLAIMS = 20
_ALPHA = 0.05
# A number of pairs is enough if it decides a claim in at least this share of studies.
_POWER = 0.8
# Numbers of pairs to choose from; more would take another design of the study.
_PAIRS = (6, 8, 10, 15, 21, 29, 41, 61, 101, 151, 201, 301)
# Half an interval without width, of runs that are all alike.
_NO_WIDTH = 1e-12


@dataclass(frozen=True)
class Finding:
    """The effect that was found for a condition of a claim.

    The interval is at the claim's level; `None` if the claim was not run. The p-value is of the
    sign-flip test against the nearest bound, for paired differences only, and not adjusted: a
    second opinion, free of the normal distribution. A probability, a share or a ratio has no unit.
    `words` say the estimate with its direction, and `edges` which rates lie at the edge of their
    grid. `spread` is the standard deviation of paired differences.
    """

    condition: Condition
    interval: Interval | None = None
    p_value: float = math.nan
    unit: str = ""
    words: str = ""
    edges: tuple[str, ...] = ()
    spread: float = math.nan

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

    `level` is the level of the intervals after Holm's adjustment. `power` is the chance of the
    verdict that the estimates point to. `pairs_needed` is the least number of pairs that would
    decide an undecided claim with a power of 0.8; it is infinite if no number up to 301 would. Each
    is NaN where it does not apply: all if the claim was not run, the last two if only an edge
    keeps the claim undecided. `lacking` says which metrics some of the runs lack, because of which
    the claim is undecided.
    """

    claim: Claim
    verdict: str
    level: float
    findings: tuple[Finding, ...]
    power: float = math.nan
    pairs_needed: float = math.nan
    lacking: tuple[str, ...] = ()

    @property
    def decisive(self) -> Finding:
        """The finding that decides the verdict, or keeps the claim from being decided.

        It is the finding with the least room within its bounds, in half widths of its interval: the
        tightest if the claim holds, and the farthest outside if the claim fails.
        """
        found = [f for f in self.findings if f.interval]
        firm = [f for f in found if not f.edges] if self.verdict == FAILS else found
        return min(firm, key=lambda f: _room(f.interval, f.condition), default=self.findings[0])

    @property
    def finding(self) -> str:
        """What was found, in words, to stand beside the verdict."""
        edges = list(dict.fromkeys(edge for f in self.findings for edge in f.edges))
        if self.verdict == NOT_RUN:
            return MISSING
        if self.verdict != UNDECIDED:
            return f"{self.decisive.words}; power {self.power:.2f}"
        if edges or self.lacking:
            return "; ".join((*edges, *self.lacking))
        if math.isinf(self.pairs_needed):
            return f"even {_PAIRS[-1]} pairs would not decide it"
        return f"{self.pairs_needed:.0f} pairs would decide it"


def judge(claims: tuple[Claim, ...], frame: pd.DataFrame, scale: Scale) -> list[Judgment]:
    """Judge all claims of a study on the results (from `frame.frame`) of a scale.

    A claim of which runs are missing is not run; a claim on fewer than six seeds, or on a metric
    that some runs lack, is undecided. More than 20 claims, or a claim that leaves the value of an
    axis open, raise `ValueError`.
    """
    check(claims)
    lean = judged_columns(frame, scale)
    measured = [measure(claim, lean, scale) for claim in claims]
    decides = [
        lambda level, m=m: m is not None and _verdict(m, level) in (HOLDS, FAILS) for m in measured
    ]
    levels = statistics.holm(decides, _ALPHA)
    return [
        _judgment(claim, found, level) if found else _unjudged(claim, lean, scale)
        for claim, found, level in zip(claims, measured, levels, strict=True)
    ]


def asked(claims: tuple[Claim, ...], scale: Scale) -> tuple[Claim, ...]:
    """The claims that a scale can judge: those about arms and axis values that the scale has."""
    return tuple(
        claim
        for claim in claims
        if all(place_of(sample, scale) in scale.places for sample in claim.samples)
    )


def over_all(verdicts: list[str]) -> str:
    """The verdict on a claim that was judged on several data sets: it holds if it holds on all."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else UNDECIDED


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
        "spread": finding.spread,
        "sign_flip_p": finding.p_value,
        "at_edge": "; ".join(finding.edges),
        "power": judgment.power,
        "pairs_needed": judgment.pairs_needed,
        "finding": judgment.finding,
        "reason": condition.reason,
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
            *(j.verdict, j.finding),
        )
        for j in judgments
    ]
    return pd.DataFrame(rows, columns=LEDGER)


def effect_text(finding: Finding) -> str:
    """An effect in words, with its bounds, estimate and interval."""
    interval = finding.interval
    if interval is None:
        return MISSING
    return f"{finding.text}: {interval.text('{estimate} [{low}, {high}]')}"


def _unjudged(claim: Claim, frame: pd.DataFrame, scale: Scale) -> Judgment:
    (judgment,) = not_run((claim,))
    lacks = lacking(claim, frame, scale)
    return replace(judgment, verdict=UNDECIDED, lacking=lacks) if lacks else judgment


def _judgment(claim: Claim, measured: list[Measured], level: float) -> Judgment:
    verdict = _verdict(measured, level)
    own = level / len(measured) if verdict == FAILS else level
    findings = tuple(_finding(each, 1 - own) for each in measured)
    if verdict == UNDECIDED and any(each.edges for each in measured):
        return Judgment(claim, verdict, own, findings)
    needed = _pairs_needed(measured, level) if verdict == UNDECIDED else math.nan
    return Judgment(claim, verdict, own, findings, _power(measured, level), needed)


def _finding(each: Measured, confidence: float) -> Finding:
    interval = each.at(confidence)
    words = each.words(interval.estimate)
    known = each.p_value, each.unit, words, each.edges, each.spread
    return Finding(each.condition, interval, *known)


def _verdict(measured: list[Measured], level: float) -> str:
    holds, fails = _outcome(measured, level, lambda each, confidence: each.at(confidence))
    return HOLDS if holds else FAILS if fails else UNDECIDED


def _outcome(
    measured: list[Measured], level: float, interval: Callable[[Measured, float], Interval]
) -> tuple:
    """Whether a claim holds and whether it fails; arrays, if the intervals are of many studies."""
    holds, fails, enough = True, False, True
    for each in measured:
        loose, strict = interval(each, 1 - level), interval(each, 1 - level / len(measured))
        enough = enough & (loose.n >= statistics.MIN_PAIRS)
        holds = holds & _is_inside(loose, each.condition) & (not each.edges)
        fails = fails | _is_outside(strict, each.condition) & (not each.edges)
    return holds & enough, fails & enough


def _is_inside(interval: Interval, condition: Condition):
    return (condition.above < interval.low) & (interval.high < condition.below)


def _is_outside(interval: Interval, condition: Condition):
    return (interval.high <= condition.above) | (condition.below <= interval.low)


def _room(interval: Interval, condition: Condition) -> float:
    """Distance of an estimate from its nearest bound, in half widths: below -1, it is outside."""
    sides = ((condition.above, interval.low, 1), (condition.below, interval.high, -1))
    return min(
        sign * (interval.estimate - bound) / max(abs(interval.estimate - end), _NO_WIDTH)
        for bound, end, sign in sides
        if math.isfinite(bound)
    )


def _power(measured: list[Measured], level: float, pairs: int = 0) -> float:
    """Chance of the verdict that the estimates point to, with at least so many pairs of each."""
    if any(max(pairs, each.pairs) < statistics.MIN_PAIRS for each in measured):
        return 0.0
    points = [(each.at(1 - level).estimate, each.condition) for each in measured]
    holds, fails = _outcome(
        measured, level, lambda each, confidence: each.simulated(max(pairs, each.pairs), confidence)
    )
    inside = all(c.above < estimate < c.below for estimate, c in points)
    return float(np.mean(holds if inside else fails))


def _pairs_needed(measured: list[Measured], level: float) -> float:
    """The least number of pairs of all conditions that is likely to decide a claim."""
    more = (pairs for pairs in _PAIRS if pairs > min(each.pairs for each in measured))
    return next((p for p in more if _power(measured, level, p) >= _POWER), math.inf)
