"""What a study is to judge: claims of the literature, as plain data.

A claim is fixed in the study's file before the run. `studies.analysis.verdicts` judges it. This
module imports nothing heavy, since a run imports the studies.
"""

import math
from dataclasses import dataclass
from typing import Literal

# "Worth as much" and "adds nothing" mean: within this, in points of percent.
MARGIN = 0.25


# Units of the metrics that claims are about.
UNITS = {
    "test_error": "points",
    "test_bound": "nats",
    "bound_gap": "nats",
    "active_units": "variables",
}


@dataclass(frozen=True)
class Runs:
    """What an arm's report seeds at a depth are judged by.

    Args:
        arm: Name of the arm.
        depth: Number of hidden layers.
        equal_cost: Whether a control is trained on to the cost of its pretrained neighbor.
        metric: A metric of `UNITS`: the `"test_error"`; of a density, the `"test_bound"` on log
            p(x), the `"bound_gap"` from the training bound down to it, or the number of
            `"active_units"` among the latent variables.
    """

    arm: str
    depth: int
    equal_cost: bool = False
    metric: str = "test_error"

    def __str__(self) -> str:
        if self.metric != "test_error":
            return f"{self.metric}({self.arm})"
        return f"{self.arm}({self.depth})" + (" at equal cost" if self.equal_cost else "")


@dataclass(frozen=True)
class Difference:
    """A sum of metrics minus another, seed by seed; of test errors, in points of percent.

    One error minus another is a paired difference; a difference minus one at another depth says how
    it grows. With nothing to subtract, it is the metric itself.

    Args:
        plus: What is added.
        minus: What is subtracted.
        average: `"mean"`, with Student's t interval; `"median"`, with a bootstrap interval: where
            some runs may stay at chance, a mean says how many do and nothing else.
    """

    plus: tuple[Runs, ...]
    minus: tuple[Runs, ...]
    average: Literal["mean", "median"] = "mean"

    @property
    def runs(self) -> tuple[Runs, ...]:
        return self.plus + self.minus

    def __str__(self) -> str:
        text = " + ".join(map(str, self.plus)) + "".join(f" - {runs}" for runs in self.minus)
        return f"{self.average} of {text}, {UNITS[self.plus[0].metric]}"


@dataclass(frozen=True)
class Outperforms:
    """Probability that one arm's error is the lower one of a pair, with its exact interval."""

    arm: Runs
    control: Runs

    @property
    def runs(self) -> tuple[Runs, ...]:
        return (self.arm, self.control)

    def __str__(self) -> str:
        return f"probability that {self.arm} < {self.control}"


@dataclass(frozen=True)
class SpreadRatio:
    """Interquartile range of one arm's errors over that of another's, with a bootstrap interval."""

    wide: Runs
    narrow: Runs

    @property
    def runs(self) -> tuple[Runs, ...]:
        return (self.wide, self.narrow)

    def __str__(self) -> str:
        return f"IQR of {self.wide} / IQR of {self.narrow}"


@dataclass(frozen=True)
class AtChance:
    """Share of runs that end at chance, with its exact interval."""

    of: Runs

    @property
    def runs(self) -> tuple[Runs, ...]:
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

    def __str__(self) -> str:
        if math.isfinite(self.above) and math.isfinite(self.below):
            return f"{self.effect}, between {self.above:g} and {self.below:g}"
        sign, bound = (">", self.above) if math.isfinite(self.above) else ("<", self.below)
        return f"{self.effect} {sign} {bound:g}"


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
    def runs(self) -> tuple[Runs, ...]:
        """All that must be there for the claim to be judged."""
        return tuple(dict.fromkeys(r for c in self.conditions for r in c.effect.runs))


def difference(
    arm: str, control: str, depth: int, average: str = "mean", equal_cost: bool = False
) -> Difference:
    """Error of an arm minus that of its control, which is trained on at equal cost."""
    return Difference((Runs(arm, depth),), (Runs(control, depth, equal_cost),), average)


def growth(arm: str, shallow: int, deep: int, average: str = "mean") -> Difference:
    """Error of an arm at one depth minus its error at a lesser one."""
    return Difference((Runs(arm, deep),), (Runs(arm, shallow),), average)


def growth_of_gain(
    arm: str, control: str, shallow: int, deep: int, average: str = "mean"
) -> Difference:
    """What an arm gains on its control at one depth minus what it gains at a lesser one."""
    plus = (Runs(control, deep), Runs(arm, shallow))
    return Difference(plus, (Runs(arm, deep), Runs(control, shallow)), average)


def equivalent(effect: Difference) -> Condition:
    """The effect lies within the margin of equivalence (two one-sided tests)."""
    return Condition(effect, above=-MARGIN, below=MARGIN)
