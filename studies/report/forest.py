"""The forest plot: what each arm adds to its control, a row per combination of axis values."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.report.claims import MARGIN
from studies.report.figures import at, combination_label, figure, looks
from studies.report.frame import failed, reported
from studies.report.statistics import Interval
from studies.report.tables import average_interval

# By whether the control is trained for longer, to the cost of the arm.
_LOOKS = {
    False: {"label": "minus the control at equal epochs"},
    True: {"label": "minus the control at equal cost", "markerfacecolor": "white"},
}


def compared(scale: Scale) -> list[Arm]:
    """The arms of a scale that have a control there; if any is pretrained, the pretrained ones."""
    arms = [arm for arm in scale.arms if list(_controls(arm, scale))]
    return [arm for arm in arms if arm.pretrained] or arms


@figure(
    "Difference from the control",
    "A row is a combination of settings. A marker is the mean difference over seeds, arm minus "
    "control, with its 95 % t interval; where a run failed, it is the median and its interval. An "
    "open marker is the difference from a control that is trained for longer, to the same cost. On "
    "the line at 0 there is no difference. In the gray band, a difference in points lies within "
    "the margin of equivalence.",
    needs=lambda scale: bool(compared(scale)),
)
def forest(frame: pd.DataFrame, scale: Scale) -> Drawing:
    arms = compared(scale)
    rows = sum(1 + sum(place[0] == arm.name for place in scale.places) for arm in arms)
    drawing = Drawing(figsize=(7.5, 1.6 + 0.22 * rows), layout="constrained")
    ax = drawing.subplots()
    metric, labels = scale.kind.metric(), []
    for arm in arms:
        labels += [arm.label, *_rows(ax, arm, frame, scale, first=len(labels) + 1)]
    _scenery(ax, labels, [arm.label for arm in arms])
    if metric.difference == "points":
        ax.axvspan(-MARGIN, MARGIN, color="gray", alpha=0.2, linewidth=0)
    better = "left" if metric.lower_is_better else "right"
    unit = metric.difference or metric.unit
    ax.set_xlabel(f"{metric.label}: arm minus control ({unit})\nbetter to the {better}")
    shown = {longer for arm in arms for _, longer in _controls(arm, scale)}
    gray = {"color": "gray", "marker": "o", "linewidth": 1}
    handles = [Line2D([], [], **gray | look) for longer, look in _LOOKS.items() if longer in shown]
    drawing.legend(handles=handles, loc="outside lower center", ncols=2)
    return drawing


def _rows(ax: Axes, arm: Arm, frame: pd.DataFrame, scale: Scale, first: int) -> Iterator[str]:
    """Draw the differences of an arm from its controls; return the labels of the rows."""
    look = {name: looks(scale)[arm.name][name] for name in ("color", "marker")}
    places = (place for place in scale.places if place[0] == arm.name)
    for i, values in enumerate(map(scale.values, places)):
        for control, longer in _controls(arm, scale):
            found = difference(frame, scale, arm.name, control, values)
            y = first + i + (0.15 if longer else -0.15)
            ax.plot([found.low, found.high], [y, y], color=look["color"], linewidth=1)
            ax.plot(found.estimate, y, **look | _LOOKS[longer])
        yield combination_label(values, scale) or "all"


def difference(frame: pd.DataFrame, scale: Scale, arm: str, control: str, values: dict) -> Interval:
    """The mean difference between an arm and another at axis values, as it is shown.

    It is the median where a run failed, of which a mean says little.
    """
    metric, runs = scale.kind.metric(), at(reported(frame), values)
    runs = runs[runs["arm"].isin((arm, control))]
    ours, others = (
        metric.factor * runs[runs["arm"] == name].set_index("seed")[metric.name]
        for name in (arm, control)
    )
    pairs = pd.concat([ours, others], axis=1, join="inner").dropna().to_numpy()
    return average_interval(pairs[:, 0] - pairs[:, 1], failed(runs, metric, scale).any())


def _controls(arm: Arm, scale: Scale) -> Iterator[tuple[str, bool]]:
    """The controls of an arm in a scale, and whether each is trained for as long as the arm costs.

    A longer control differs from the control itself in its epochs only.
    """
    if arm.total_cost_of:
        return
    if arm.control in scale.arm_names:
        yield arm.control, False
    if arm.pretrained:
        longer = (a.name for a in scale.arms if a.total_cost_of and a.control == arm.control)
        yield from ((name, True) for name in longer)


def _scenery(ax: Axes, labels: list[str], headings: list[str]) -> None:
    """A line at 0, and a label for each row; the name of an arm stands above the arm's rows."""
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(labels)), labels)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    for tick in ax.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() in headings else "normal")
