"""What a study is to judge: claims of the literature, as plain data.

A claim is fixed in the study's file before the run. `studies.report.verdicts` judges it. This
module imports nothing heavy, since every run imports the studies.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

# Effects within this margin, in points of percent, are "worth as much" or "add nothing".
MARGIN = 0.25
MARGIN_REASON = (
    "A test error of 3 % on 10,000 images has a standard error of 0.17 points, so that a paper "
    "that reports one net would hardly see a difference of a quarter of a point."
)


@dataclass(frozen=True)
class Sample:
    """The report seeds at a place, and a metric of theirs; `sample` makes one."""

    arm: str
    place: tuple[tuple[str, Any], ...] = ()
    metric: str = ""

    def __str__(self) -> str:
        values = [f"{axis} {value}" for axis, value in self.place]
        text = f"{self.arm}({', '.join(values)})" if values else self.arm
        return f"{self.metric.replace('_', ' ')} of {text}" if self.metric else text


def sample(arm: str, metric: str = "", **place: Any) -> Sample:
    """Name the report seeds of an arm at axis values: `sample("denoising", depth=3)`.

    Args:
        arm: Name of the arm.
        metric: A metric of the study's kind; by default, the metric that reported trials are judged
            by.
        **place: A value of each axis, by the name of the axis.
    """
    return Sample(arm, tuple(place.items()), metric)


class Effect:
    """What a condition is about: a number of one sample or of several, seed by seed."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples in all fields, in order."""
        values = (value if isinstance(value, tuple) else (value,) for value in vars(self).values())
        return tuple(each for value in values for each in value if isinstance(each, Sample))


@dataclass(frozen=True)
class Difference(Effect):
    """The metrics of some samples minus the metrics of others, seed by seed.

    An arm's error minus its control's is a paired difference. A difference at one depth minus the
    difference at another depth says how the difference grows. With nothing to subtract, the effect
    is the metric itself.

    Args:
        plus: The samples that are added.
        minus: The samples that are subtracted.
        average: `"mean"`, with Student's t interval, or `"median"`, with a bootstrap interval.
            Where some runs may stay at chance, a mean only says how many runs do.
    """

    plus: tuple[Sample, ...]
    minus: tuple[Sample, ...]
    average: Literal["mean", "median"] = "mean"

    def __str__(self) -> str:
        text = " + ".join(map(str, self.plus)) + "".join(f" - {each}" for each in self.minus)
        return f"{self.average} of {text}"


@dataclass(frozen=True)
class Outperforms(Effect):
    """Probability that an arm is better than its control, seed by seed; its interval is exact."""

    arm: Sample
    control: Sample

    def __str__(self) -> str:
        return f"probability that {self.arm} is better than {self.control}"


@dataclass(frozen=True)
class SpreadRatio(Effect):
    """Ratio of the interquartile ranges of two samples, with a bootstrap interval."""

    wide: Sample
    narrow: Sample

    def __str__(self) -> str:
        return f"IQR of {self.wide} / IQR of {self.narrow}"


@dataclass(frozen=True)
class Ratio(Effect):
    """A metric of one sample over a metric of another, seed by seed; the metrics are above 0.

    Args:
        over: The sample whose metric is divided.
        under: The sample whose metric divides.
        average: `"mean"`, the geometric mean, with the t interval of the logarithms; or
            `"median"`, with a bootstrap interval.
    """

    over: Sample
    under: Sample
    average: Literal["mean", "median"] = "mean"

    def __str__(self) -> str:
        average = "geometric mean" if self.average == "mean" else "median"
        return f"{average} of {self.over} / {self.under}"


@dataclass(frozen=True)
class AtChance(Effect):
    """Share of runs that end at chance, with its exact interval."""

    of: Sample

    def __str__(self) -> str:
        return f"share of {self.of} at chance"


@dataclass(frozen=True)
class Condition:
    """What a claim says of an effect: `above < effect < below`.

    Args:
        effect: The effect.
        above: Bound that the effect exceeds.
        below: Bound that the effect stays under. Both bounds together make an equivalence.
        reason: Why the bounds are where they are, in a sentence; a bound of 0 needs no reason.
    """

    effect: Effect
    above: float = -math.inf
    below: float = math.inf
    reason: str = ""

    def text(self, effect: str) -> str:
        """An effect in words, with its bounds."""
        if math.isfinite(self.above) and math.isfinite(self.below):
            return f"{effect}, between {self.above:g} and {self.below:g}"
        sign, bound = (">", self.above) if math.isfinite(self.above) else ("<", self.below)
        return f"{effect} {sign} {bound:g}"


@dataclass(frozen=True)
class Claim:
    """A sentence of the literature and what must be true of the records for it to hold.

    Args:
        name: Unique name within the study.
        statement: The sentence.
        source: The paper that has the sentence, with its figure or table.
        check: The conditions in words, with the reason for their bounds.
        conditions: The conditions, all of which must be met.
    """

    name: str
    statement: str
    source: str
    check: str
    conditions: tuple[Condition, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples that the claim is judged on."""
        return tuple(dict.fromkeys(r for c in self.conditions for r in c.effect.samples))


@dataclass(frozen=True)
class InShort:
    """Whether pretraining pays, in a sentence of the front page and in rows of its figure.

    Args:
        sentence: The sentence in Markdown, with `{}` where an arm is compared with its control: the
            front page says there "better by 1.10 points (0.80 to 1.40)", or the like.
        gains: What is compared, in order, each by the words of its row: a `difference` of an arm
            and its control.
    """

    sentence: str
    gains: dict[str, Difference]


def difference(
    arm: str, control: str, average: str = "mean", metric: str = "", **place: Any
) -> Difference:
    """A metric of an arm minus the metric of its control, at the same axis values.

    Args:
        arm: Name of the arm.
        control: Name of its control.
        average: `"mean"` or `"median"`.
        metric: The metric, as in `sample`.
        **place: A value of each axis.
    """
    return Difference((sample(arm, metric, **place),), (sample(control, metric, **place),), average)


def growth(
    arm: str,
    axis: str,
    first: Any,
    last: Any,
    average: str = "mean",
    metric: str = "",
    **place: Any,
) -> Difference:
    """A metric of an arm at the last value of an axis minus the metric at the first value."""
    plus, minus = (sample(arm, metric, **place, **{axis: value}) for value in (last, first))
    return Difference((plus,), (minus,), average)


def growth_of_gain(
    arm: str, control: str, axis: str, first: Any, last: Any, average: str = "mean", **place: Any
) -> Difference:
    """An arm's gain on its control at the last value of an axis minus the gain at the first."""
    (arm_last, arm_first), (control_last, control_first) = (
        [sample(name, **place, **{axis: value}) for value in (last, first)]
        for name in (arm, control)
    )
    return Difference((control_last, arm_first), (arm_last, control_first), average)


def equivalent(
    effect: Difference, margin: float = MARGIN, reason: str = MARGIN_REASON
) -> Condition:
    """The effect lies within a margin of equivalence (two one-sided tests).

    Args:
        effect: The effect.
        margin: The margin, in the unit of the effect. `statistics.equivalence_power` says how many
            pairs a claim with this margin needs.
        reason: Why the margin is what it is, in a sentence.
    """
    return Condition(effect, above=-margin, below=margin, reason=reason)
