"""What a study is to judge: claims of the literature, as plain data.

A claim is fixed in the study's file before the run. `studies.report.verdicts` judges it. This
module imports nothing heavy, since a run imports the studies.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

# "Worth as much" and "adds nothing" mean: within this, in points of percent.
MARGIN = 0.25


@dataclass(frozen=True)
class Sample:
    """What the report seeds at a place are judged by: `sample("denoising", depth=3)`.

    Args:
        arm: Name of the arm.
        place: Names and values of the axes.
        metric: A metric of the study's kind; empty for the one that reported trials are judged by.
    """

    arm: str
    place: tuple[tuple[str, Any], ...] = ()
    metric: str = ""

    def __str__(self) -> str:
        values = [f"{axis} {value}" for axis, value in self.place]
        text = f"{self.arm}({', '.join(values)})" if values else self.arm
        return f"{self.metric.replace('_', ' ')} of {text}" if self.metric else text


def sample(arm: str, metric: str = "", **place: Any) -> Sample:
    """The report seeds of an arm at axis values, by the names of the axes.

    Args:
        arm: Name of the arm.
        metric: A metric of the study's kind; by default the one that reported trials are judged by.
        **place: A value of each axis.

    Returns:
        The sample.
    """
    return Sample(arm, tuple(place.items()), metric)


@dataclass(frozen=True)
class Difference:
    """A sum of metrics minus another, seed by seed, in the unit of the metric's differences.

    One error minus another is a paired difference; a difference minus one at another depth says how
    it grows. With nothing to subtract, it is the metric itself.

    Args:
        plus: What is added.
        minus: What is subtracted.
        average: `"mean"`, with Student's t interval; `"median"`, with a bootstrap interval: where
            some runs may stay at chance, a mean says how many do and nothing more.
    """

    plus: tuple[Sample, ...]
    minus: tuple[Sample, ...]
    average: Literal["mean", "median"] = "mean"

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.plus + self.minus

    def __str__(self) -> str:
        text = " + ".join(map(str, self.plus)) + "".join(f" - {each}" for each in self.minus)
        return f"{self.average} of {text}"


@dataclass(frozen=True)
class Outperforms:
    """Probability that an arm is better than its control, seed by seed, with its exact interval."""

    arm: Sample
    control: Sample

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.arm, self.control)

    def __str__(self) -> str:
        return f"probability that {self.arm} is better than {self.control}"


@dataclass(frozen=True)
class SpreadRatio:
    """Ratio of the interquartile ranges of two samples, with a bootstrap interval."""

    wide: Sample
    narrow: Sample

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.wide, self.narrow)

    def __str__(self) -> str:
        return f"IQR of {self.wide} / IQR of {self.narrow}"


@dataclass(frozen=True)
class AtChance:
    """Share of runs that end at chance, with its exact interval."""

    of: Sample

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.of,)

    def __str__(self) -> str:
        return f"share of {self.of} at chance"


Effect = Difference | Outperforms | SpreadRatio | AtChance


@dataclass(frozen=True)
class Condition:
    """What a claim says of an effect: `above < effect < below`.

    Args:
        effect: The effect.
        above: Bound that it exceeds.
        below: Bound that it stays under; both bounds make an equivalence.
    """

    effect: Effect
    above: float = -math.inf
    below: float = math.inf

    def text(self, effect: str) -> str:
        """An effect, in words, with the bounds that it is held against."""
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
        source: Where it stands.
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
        """All that must be there for the claim to be judged."""
        return tuple(dict.fromkeys(r for c in self.conditions for r in c.effect.samples))


def difference(
    arm: str,
    control: str,
    average: str = "mean",
    metric: str = "",
    control_metric: str | None = None,
    **place: Any,
) -> Difference:
    """A metric of an arm minus that of its control at the same axis values.

    Args:
        arm: Name of the arm.
        control: Name of its control.
        average: `"mean"` or `"median"`.
        metric: The metric, as in `sample`.
        control_metric: Another metric for the control, such as its error at equal cost.
        **place: A value of each axis.

    Returns:
        The effect.
    """
    other = metric if control_metric is None else control_metric
    return Difference((sample(arm, metric, **place),), (sample(control, other, **place),), average)


def growth(
    arm: str,
    axis: str,
    first: Any,
    last: Any,
    average: str = "mean",
    metric: str = "",
    **place: Any,
) -> Difference:
    """A metric of an arm at one value of an axis minus that at an earlier one."""
    plus, minus = (sample(arm, metric, **place, **{axis: value}) for value in (last, first))
    return Difference((plus,), (minus,), average)


def growth_of_gain(
    arm: str, control: str, axis: str, first: Any, last: Any, average: str = "mean", **place: Any
) -> Difference:
    """What an arm gains on its control at one value of an axis minus what it gains at another."""
    (arm_last, arm_first), (control_last, control_first) = (
        [sample(name, **place, **{axis: value}) for value in (last, first)]
        for name in (arm, control)
    )
    return Difference((control_last, arm_first), (arm_last, control_first), average)


def equivalent(effect: Difference) -> Condition:
    """The effect lies within the margin of equivalence (two one-sided tests)."""
    return Condition(effect, above=-MARGIN, below=MARGIN)
