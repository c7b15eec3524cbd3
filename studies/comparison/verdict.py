"""What a comparison found, in a sentence: does it pay?"""

import math

from studies.comparison.kind import contenders, rivals
from studies.report.answers import Numbers
from studies.report.statistics import MIN_PAIRS, Interval
from studies.report.verdicts import FAILS, HOLDS, Judgment

# Points of error. A gain that is surely smaller is not worth the trouble, even if there is a gain.
WORTH = 0.5
ENDS = WORTH_IT, NOT_WORTH_IT, CANNOT_TELL = "worth it", "not worth it", "cannot tell"


def answer(found: Numbers) -> str:
    """A sentence for each way to start that was compared, with its verdict."""
    judged = {judgment.claim.name: judgment for judgment in found.judgments}
    arms = contenders(found.scale)
    return " ".join(_sentence(found, arm, judged[f"{arm.name}-pays"]) for arm in arms)


def verdict(judgment: Judgment) -> str:
    """Whether an arm pays: it is better than all of its rivals, which cost as much.

    It does not pay if it is worse than any of them, or if it surely gains less than `WORTH` points
    on any of them.
    """
    if judgment.verdict == HOLDS:
        return WORTH_IT
    gains = [_gain(finding.interval) for finding in judgment.findings if finding.interval]
    is_small = any(gain.n >= MIN_PAIRS and gain.high < WORTH for gain in gains)
    edges = any(finding.edges for finding in judgment.findings)
    return NOT_WORTH_IT if judgment.verdict == FAILS or is_small and not edges else CANNOT_TELL


def _gain(difference: Interval) -> Interval:
    """By how much an arm is better, of the difference of errors."""
    return Interval(-difference.estimate, -difference.high, -difference.low, difference.n)


def _sentence(found: Numbers, arm, judgment: Judgment) -> str:
    gain, end = found.gain(arm.name, arm.control), verdict(judgment)
    if gain is None or not all(finding.interval for finding in judgment.findings):
        return f"{_capital(arm.label)}: the comparison has not been run to its end."
    clauses = [f"{_capital(arm.label)} {_moves(gain)} ({_bounds(gain, 0.05)}{gain.n} pairs)"]
    for other, finding in zip(rivals(arm, found.scale), judgment.findings, strict=True):
        if other.name != arm.control:
            own = _gain(finding.interval)
            noisy = "has noisy inputs and " if other.noise != "none" else ""
            clauses.append(
                f"compared with a net without it that {noisy}trains as long, it {_moves(own)}"
                f"{_in_brackets(_bounds(own, judgment.level))}"
            )
    reason = f" ({judgment.finding})" if end == CANNOT_TELL else ""
    return f"{'; '.join(clauses)}: {end}{reason}."


def _moves(gain: Interval) -> str:
    verb = "lowers" if gain.estimate >= 0 else "raises"
    return f"{verb} the test error by {abs(gain.estimate):.2f} points"


def _bounds(gain: Interval, level: float) -> str:
    """The interval of a change of the error that `_moves` names; nothing below three pairs."""
    if math.isnan(gain.low):
        return ""
    low, high = sorted((gain.low, gain.high), key=lambda end: end if gain.estimate >= 0 else -end)
    sign = 1 if gain.estimate >= 0 else -1
    share = f"{100 * (1 - level):.3g} % interval"
    return f"{share} {sign * low:.2f} to {sign * high:.2f}, "


def _in_brackets(bounds: str) -> str:
    return f" ({bounds.removesuffix(', ')})" if bounds else ""


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
