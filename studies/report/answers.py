"""The numbers of a scale in words, of which a study's `answer` makes its sentences."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from studies.engine.scale import Scale
from studies.kinds.kind import Metric
from studies.report.claims import Difference, Sample, sample
from studies.report.figures import at
from studies.report.frame import failed, reported
from studies.report.published import Published
from studies.report.statistics import Interval, mean_interval
from studies.report.tables import average, average_interval
from studies.report.verdicts import NOT_RUN, Judgment

# What stands in the place of a number of which runs are missing.
NO_RUNS = "(not run)"
# What stands there if the runs are there, and some lack the metric.
_LACKING = "(missing in some runs)"
_ENDS = ("estimate", "low", "high")


class Numbers:
    """What a scale found, in words: a study's `answer` takes this and returns its sentences.

    A number of which runs are missing is said to be not run, so that an answer can be given at any
    time; a number that some runs lack, to be missing in some runs. In the file of a study:

        def answer(found):
            return (
                f"With three layers, nets end at {found.number('random', depth=3)}. Pretrained "
                f"nets are {found.comparison('denoising', 'random', depth=3)}."
            )

    Args:
        frame: The results, from `frame.frame`.
        scale: The scale.
        judgments: The judgments of the study's claims.

    Attributes:
        scale: The scale.
        judgments: The judgments.
    """

    def __init__(self, frame: pd.DataFrame, scale: Scale, judgments: Sequence[Judgment] = ()):
        self._frame, self.scale, self.judgments = reported(frame), scale, judgments

    def number(self, arm: str, metric: str = "", **place) -> str:
        """The mean of an arm's metric with its 95 % interval: "2.87 % (2.80 to 2.95)".

        Where a run failed, it is the median: "5.4 % (median; 2 of 29 runs failed)".

        Args:
            arm: Name of the arm.
            metric: A metric of the study's kind; by default, the metric that reports are judged by.
            **place: A value of each axis that has several.
        """
        shown, runs = self._metric(metric), self._runs(sample(arm, metric, **place))
        if runs is None:
            return self._lack(sample(arm, metric, **place))
        found = average(runs, shown, self.scale)
        # An interval of Student's may reach beyond what a share can be.
        ends = {n: shown.factor * np.clip(getattr(found, n), *shown.limits) for n in _ENDS}
        found = replace(found, **ends)
        if lost := failed(runs, self.scale.kind.metric(), self.scale).sum():
            middle = _with_unit(found.estimate, shown.unit)
            return f"{middle} (median; {lost} of {len(runs)} runs failed)"
        return _told(found, shown.unit)

    def comparison(self, arm: str, control: str, metric: str = "", **place) -> str:
        """How an arm compares with another, seed by seed: "better by 1.10 points (0.80 to 1.40)".

        The numbers are a mean difference and its 95 % interval; medians where a run failed.

        Args:
            arm: Name of the arm.
            control: Name of the arm that it is compared with.
            metric: A metric, as in `number`.
            **place: A value of each axis that has several.
        """
        shown, gain = self._metric(metric), self.gain(arm, control, metric, **place)
        if gain is None:
            lacks = [self._lack(sample(name, metric, **place)) for name in (arm, control)]
            return f"not compared {NO_RUNS if NO_RUNS in lacks else _LACKING}"
        return _compared(gain, shown.difference or shown.unit)

    def gain(self, arm: str, control: str, metric: str = "", **place) -> Interval | None:
        """By how much an arm is better than another, as `comparison` says; `None` if it is not run.

        Args:
            arm: Name of the arm.
            control: Name of the arm that it is compared with.
            metric: A metric, as in `number`.
            **place: A value of each axis that has several.
        """
        shown = self._metric(metric)
        both = [self._runs(sample(name, metric, **place)) for name in (arm, control)]
        if any(runs is None for runs in both):
            return None
        ours, others = (shown.factor * runs[shown.name] for runs in both)
        gains = (others - ours if shown.lower_is_better else ours - others).dropna()
        judge = self.scale.kind.metric()
        some_failed = any(failed(runs, judge, self.scale).any() for runs in both)
        return average_interval(gains, some_failed)

    def of(self, effect: Difference) -> tuple[str, Interval | None]:
        """A `difference` of an arm and its control, as `comparison` tells it and as a `gain`."""
        (arm,), (control,) = effect.plus, effect.minus
        compared = arm.arm, control.arm, arm.metric
        place = dict(arm.place)
        return self.comparison(*compared, **place), self.gain(*compared, **place)

    def verdict(self, claim: str) -> str:
        """The verdict on a claim of the study, by the claim's name: "holds"."""
        found = {judgment.claim.name: judgment.verdict for judgment in self.judgments}
        return found.get(claim, NOT_RUN)

    def beside(self, published: Published) -> dict[str, str]:
        """A published number beside ours, and where one more run of ours would lie in 95 %.

        The prediction interval is Student's: that of the mean, wider by the root of n + 1.
        """
        metric, runs = self._metric(published.of.metric), self._runs(published.of)
        cells = {"ours": "X", "95 % of single runs": "X"}
        if runs is not None:
            found = mean_interval(metric.factor * runs[metric.name])
            half = (found.high - found.estimate) * math.sqrt(found.n + 1)
            ends = found.estimate - half, found.estimate + half
            cells = dict(
                zip(cells, (f"{found.estimate:.2f}", "{:.2f} to {:.2f}".format(*ends)), strict=True)
            )
        return {
            "runs": self.scale.arm(published.of.arm).label,
            "metric": f"{metric.label}, {metric.unit}",
            "published": f"{published.value:g}",
            **cells,
            "source": published.source,
        }

    def _metric(self, name: str) -> Metric:
        return self.scale.kind.metric(name)

    def _runs(self, of: Sample) -> pd.DataFrame | None:
        """The runs of a sample that have its metric, by seed; `None` if runs are missing."""
        rows = at(self._frame, {"arm": of.arm, **dict(of.place)})
        if rows["seed"].duplicated().any():
            raise ValueError(
                "An answer must name a value of each axis that has several. "
                f"Expected: {', '.join(self.scale.varied)}. Received: {of}"
            )
        runs = rows[rows[self._metric(of.metric).name].notna()].set_index("seed", drop=False)
        if runs.empty:
            return None
        place = (of.arm, *(runs[axis].iloc[0] for axis in self.scale.axes))
        return None if len(runs) < len(self.scale.seeds(place)) else runs

    def _lack(self, of: Sample) -> str:
        """Say whether the runs of a sample are missing, or only its metric."""
        judged = replace(of, metric=self.scale.kind.metric().name)
        return NO_RUNS if self._runs(judged) is None else _LACKING


def _compared(gain: Interval, unit: str) -> str:
    if gain.low > 0:
        return f"better by {_told(gain, unit)}"
    if gain.high < 0:
        loss = replace(gain, estimate=-gain.estimate, low=-gain.high, high=-gain.low)
        return f"worse by {_told(loss, unit)}"
    return f"neither shown to be better nor to be worse: the gain is {_told(gain, unit)}"


def _told(found: Interval, unit: str) -> str:
    """An estimate and its interval, of which two digits can be trusted: "730 updates (647 to 813)".

    There are at most two decimals.
    """
    reach = min(found.estimate - found.low, found.high - found.estimate)
    places = max(0, 1 - math.floor(math.log10(reach))) if reach > 0 else 2
    estimate, low, high = (f"{getattr(found, n):.{min(places, 2)}f}" for n in _ENDS)
    bounds = "" if math.isnan(reach) else f" ({low} to {high})"
    return f"{estimate} {unit}".rstrip() + bounds


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}".rstrip()
