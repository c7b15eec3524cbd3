"""Figures of a study: DataFrame in, matplotlib figure out.

They are drawn in the caller's style; `rendering` draws them in the project's.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from studies.analysis.statistics import bootstrap_interval, expected_best, median
from studies.arms import ARMS
from studies.runner.scale import Scale
from studies.runner.selection import chance

# Ten colors that color-blind readers can tell apart, and as many markers: an arm keeps its own in
# every figure of every study.
_COLORS = (
    *("#d55e00", "#e69f00", "#56b4e9", "#0072b2", "#009e73"),
    *("#cc6677", "#882255", "#999933", "#117733", "#000000"),
)
_MARKERS = "osD^vPX<>p"
_FAMILIES = {"sigmoid": "sigmoid units", "relu": "rectified linear units"}
# From the roundest: `_percent_ticks` takes those that there is space for.
_PERCENTS = (
    *(90, 1, 2, 5, 10, 20, 50, 0.1, 0.2, 0.5, 3, 4, 7, 30, 6, 8, 9, 15, 70),
    *(1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 12, 14, 16, 18, 25, 40, 60, 80),
)


def error_against_depth(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Median test error with its interval, and every seed, against depth: the headline.

    The median, since a few runs at chance move a mean anywhere.
    """
    families = _families(scale)
    figure = Figure(figsize=(4.6 * len(families), 4.4), layout="constrained")
    axes = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for ax, family in zip(axes, families, strict=True):
        for arm, shift in _dodged(_members(scale, family), 0.07 * _step(scale)):
            _depth_line(ax, frame, arm, shift)
        _chance_line(ax, frame, scale)
        ax.set(title=_FAMILIES.get(family, family), xlabel="depth (hidden layers)")
        ax.set_xticks(scale.depths)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    axes[0].set_ylabel("test error (%)")
    _percent_axis(axes[0], _reported(frame)["test_error"])
    figure.suptitle(title_of("Test error against depth", scale, _report_seeds(scale)))
    return figure


def error_over_seeds(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Test error of every seed: a panel per arm, a strip per depth, a bar at the median."""
    families = _families(scale)
    columns = max(len(_members(scale, family)) for family in families)
    figure = Figure(figsize=(1.9 * columns + 0.8, 2.6 * len(families)), layout="constrained")
    axes = figure.subplots(len(families), columns, sharex=True, sharey=True, squeeze=False)
    for row, family in zip(axes, families, strict=True):
        members = _members(scale, family)
        for ax, arm in zip(row, members, strict=False):
            _strips(ax, frame, scale, arm)
        for ax in row[len(members) :]:
            ax.set_visible(False)
        row[0].set_ylabel(f"{_FAMILIES.get(family, family)}\ntest error (%)")
    figure.supxlabel("depth (hidden layers)", fontsize="medium")
    _percent_axis(axes[0, 0], _reported(frame)["test_error"])
    figure.suptitle(title_of("Test error of every seed", scale, _report_seeds(scale)))
    return figure


def nll_trajectories(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Validation NLL against training NLL, epoch by epoch: optimizer or regularizer?

    At one training NLL, the lower curve generalizes better (Erhan et al. 2010, figure 7).
    """
    figure, panels = _grid(scale, "training NLL (nats)", "validation NLL (nats)")
    for ax, arm, runs in _cells(_reported(frame), scale, panels):
        _trajectory(ax, arm, runs, scale.epochs)
    ax = _any(panels)
    ax.set(xscale="log", yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(LogLocator(base=100))
    figure.suptitle(title_of("Validation NLL against training NLL", scale, _report_seeds(scale)))
    return figure


def error_over_epochs(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Validation error of every seed and its mean, epoch by epoch; the reported epoch marked."""
    figure, panels = _grid(scale, "epoch", "validation error (%)")
    for ax, arm, runs in _cells(_reported(frame), scale, panels):
        _learning_curves(ax, arm, runs[runs["status"] == "done"], scale.epochs)
    _any(panels).xaxis.set_major_locator(MaxNLocator(integer=True))
    shown = [line.get_ydata() for ax in panels.values() for line in ax.lines]
    _percent_axis(_any(panels), pd.Series(np.concatenate([*shown, []])))
    figure.suptitle(title_of("Validation error against epoch", scale, _report_seeds(scale)))
    return figure


def error_against_cost(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Test error against the FLOPs of a run; a control's point at equal cost is joined to it."""
    figure, panels = _grid(scale, "cost of a run (TFLOP)", "test error (%)", linestyle="")
    for ax, arm, runs in _cells(_reported(frame), scale, panels):
        _cost_point(ax, arm, runs)
    _flops_axis(_any(panels))
    _percent_axis(_any(panels), _reported(frame)["test_error"])
    figure.suptitle(title_of("Test error against cost", scale, _report_seeds(scale)))
    return figure


def rate_sensitivity(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Validation error against learning rate over the selection seeds; the chosen one ringed."""
    figure, panels = _grid(scale, "learning rate", "validation error (%)")
    selection = frame[frame["role"] == "selection"]
    for ax, arm, runs in _cells(selection, scale, panels):
        _rate_line(ax, arm, runs)
    ax = _any(panels)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(scale.learning_rates))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    for ax in panels.values():
        ax.tick_params(axis="x", rotation=45 if len(scale.learning_rates) > 4 else 0)
    _percent_axis(ax, selection["validation_error"])
    figure.suptitle(selection_title_of("Validation error against learning rate", scale))
    return figure


def tuning_budget(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Expected validation error of the best of n rates, against what trying n rates costs.

    The n are drawn from the grid without replacement (Dodge et al. 2019). The cost is that of the
    selection runs at n rates, each with its pretraining in full.
    """
    figure, panels = _grid(scale, "tuning budget (TFLOP)", "expected validation error (%)")
    selection = frame[frame["role"] == "selection"]
    for ax, arm, runs in _cells(selection, scale, panels):
        _budget_line(ax, arm, runs)
    _flops_axis(_any(panels))
    _percent_axis(_any(panels), selection["validation_error"])
    title = "Expected validation error against tuning budget"
    figure.suptitle(selection_title_of(title, scale))
    return figure


def title_of(text: str, scale: Scale, seeds: list[int]) -> str:
    """The title of a figure of report runs, with what it stands on."""
    return _title(text, scale, seeds, scale.train_size)


def selection_title_of(text: str, scale: Scale) -> str:
    """The title of a figure of selection runs, with what it stands on."""
    images = scale.selection_train_size or scale.train_size
    return _title(text, scale, [scale.selection_seeds], images)


def _title(text: str, scale: Scale, seeds: list[int], images: int) -> str:
    kind = "demonstration: " if scale.demonstration else f"{scale.dataset}, "
    plural = "s" if max(seeds) > 1 else ""
    count = " or ".join(map(str, seeds))
    return f"{text}\n{kind}{count} seed{plural}, {images:,} training images"


def _report_seeds(scale: Scale) -> list[int]:
    """How many seeds a point may stand for: the headline has more."""
    return sorted({len(scale.seeds(arm, d)) for arm in scale.arms for d in scale.depths})


def look_of(arm: str) -> dict:
    """Color, marker and line of an arm: pretrained ones are solid, others dashed."""
    i = list(ARMS).index(arm)
    return {
        "color": _COLORS[i % len(_COLORS)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": "-" if ARMS[arm].pretrained else "--",
        "label": arm,
    }


def _families(scale: Scale) -> list[str]:
    return list(dict.fromkeys(ARMS[arm].family for arm in scale.arms))


def _members(scale: Scale, family: str) -> list[str]:
    return [arm for arm in scale.arms if ARMS[arm].family == family]


def _dodged(arms: list[str], step: float) -> Iterator[tuple[str, float]]:
    """Arms with a sidewards shift each, so that their intervals do not overlap."""
    return ((arm, step * (i - (len(arms) - 1) / 2)) for i, arm in enumerate(arms))


def _step(scale: Scale) -> float:
    return min(np.diff(sorted(scale.depths)), default=1)


def _reported(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["role"] == "report"]


def _grid(
    scale: Scale, xlabel: str, ylabel: str, **look
) -> tuple[Figure, dict[tuple[str, int], Axes]]:
    """A panel per family (rows) and depth (columns), with the family's legend to the right."""
    families, columns = _families(scale), len(scale.depths)
    width = max(1.75, 7.5 / columns) * columns + 2
    figure = Figure(figsize=(width, 2.5 * len(families) + 0.6), layout="constrained")
    axes = figure.subplots(len(families), columns, sharex=True, sharey=True, squeeze=False)
    for row, family in zip(axes, families, strict=True):
        handles = [Line2D([], [], **look_of(arm) | look) for arm in _members(scale, family)]
        row[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5))
        row[0].set_ylabel(f"{_FAMILIES.get(family, family)}\n{ylabel}")
    for ax, depth in zip(axes[0], scale.depths, strict=True):
        ax.set_title(f"depth {depth}")
    figure.supxlabel(xlabel, fontsize="medium")
    places = [(family, depth) for family in families for depth in scale.depths]
    return figure, dict(zip(places, axes.ravel(), strict=True))


def _cells(
    rows: pd.DataFrame, scale: Scale, panels: dict[tuple[str, int], Axes]
) -> Iterator[tuple[Axes, str, pd.DataFrame]]:
    """The panel, arm and rows of every arm and depth that has any."""
    cells = dict(list(rows.groupby(["arm", "depth"])))
    for arm in scale.arms:
        for depth in scale.depths:
            if (arm, depth) in cells:
                yield panels[ARMS[arm].family, depth], arm, cells[arm, depth]


def _any(panels: dict[tuple[str, int], Axes]) -> Axes:
    """Any panel of a grid: what is set on the axis of one is set on all, which share it."""
    return next(iter(panels.values()))


def _percent_axis(ax: Axes, errors: pd.Series) -> None:
    """Show errors, fractions, in percent on an axis that holds them all.

    It is even in 1 / sqrt(error): nets that train differ by tenths of percents while others stay
    at 90 %, which neither an even nor a logarithmic axis can show together.
    """
    if errors.empty:
        return
    low, high = _stretched(np.array([max(errors.min(), 1e-4), errors.max()]))
    margin = max(0.05 * (high - low), 0.02 * abs(low))
    limits = _unstretched(np.array([low - margin, min(high + margin, -0.1)]))
    ax.set_yscale("function", functions=(_stretched, _unstretched))
    ax.set_ylim(*limits)
    ax.yaxis.set_major_locator(FixedLocator(_percent_ticks(*limits)))
    ax.yaxis.set_major_formatter(lambda error, _: f"{100 * error:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def _stretched(errors: np.ndarray) -> np.ndarray:
    return -1 / np.sqrt(np.maximum(errors, 1e-9))


def _unstretched(values: np.ndarray) -> np.ndarray:
    return 1 / np.square(np.minimum(values, -1e-3))


def _percent_ticks(low: float, high: float) -> list[float]:
    """Return the roundest percentages between two errors that have space beside each other."""
    gap = 0.065 * (_stretched(high) - _stretched(low))
    ticks: list[float] = []
    for tick in (percent / 100 for percent in _PERCENTS):
        place = _stretched(tick)
        if low <= tick <= high and all(abs(place - _stretched(other)) > gap for other in ticks):
            ticks.append(tick)
    # Between errors that hardly differ, round ones are rare.
    return ticks if len(ticks) > 2 else list(MaxNLocator(4).tick_values(low, high)[1:-1])


def _chance_line(ax: Axes, frame: pd.DataFrame, scale: Scale) -> None:
    if _reported(frame)["test_error"].max() > chance(scale.classes) / 2:
        ax.axhline(chance(scale.classes), color="gray", linestyle=":", linewidth=1, label="chance")


def _depth_line(ax: Axes, frame: pd.DataFrame, arm: str, shift: float) -> None:
    runs = _reported(frame)
    errors = runs[runs["arm"] == arm].groupby("depth")["test_error"]
    medians = [bootstrap_interval(median, values) for _, values in errors]
    depths = np.array([depth for depth, _ in errors]) + shift
    middle = np.array([m.estimate for m in medians])
    reach = [[m.estimate - m.low for m in medians], [m.high - m.estimate for m in medians]]
    look = look_of(arm)
    ax.errorbar(depths, middle, yerr=np.nan_to_num(reach), elinewidth=1, zorder=3, **look)
    x = np.repeat(depths, errors.size())
    seeds = np.concatenate([[], *(values for _, values in errors)])
    ax.plot(x, seeds, ".", color=look["color"], alpha=0.35, markersize=4)


def _strips(ax: Axes, frame: pd.DataFrame, scale: Scale, arm: str) -> None:
    # Takes two seconds to import.
    from seaborn import stripplot

    look, rows = look_of(arm), _reported(frame)
    runs = rows[rows["arm"] == arm]
    points = {"color": look["color"], "marker": look["marker"], "size": 4, "alpha": 0.6}
    places = {"x": "depth", "y": "test_error", "order": scale.depths}
    with _same_jitter():
        stripplot(runs, **places, **points, jitter=0.25, ax=ax)
    medians = runs.groupby("depth")["test_error"].median()
    place = np.array([scale.depths.index(depth) for depth in medians.index])
    ax.hlines(medians, place - 0.35, place + 0.35, color="black", linewidth=1, zorder=3)
    ax.set(title=arm, xlabel="", ylabel="")


@contextmanager
def _same_jitter() -> Iterator[None]:
    """Makes seaborn's jitter, drawn from NumPy's global state, the same in every drawing."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _trajectory(ax: Axes, arm: str, runs: pd.DataFrame, epochs: int) -> None:
    """Mean curve with a marker at `epochs`; what a control trains on for goes on thinly."""
    curves = runs[runs["status"] == "done"]["curves"]
    if curves.empty:
        return
    names = ("train_nll", "validation_nll")
    x, y = (np.mean([_values(c[name]) for c in curves], 0) for name in names)
    look = look_of(arm)
    ax.plot(x[:epochs], y[:epochs], markevery=[epochs - 1], **look)
    ax.plot(x[epochs - 1 :], y[epochs - 1 :], ":", color=look["color"], linewidth=1)


def _learning_curves(ax: Axes, arm: str, runs: pd.DataFrame, epochs: int) -> None:
    look = look_of(arm)
    curves = [_values(c["validation_error"])[:epochs] for c in runs["curves"]]
    x = np.arange(1, epochs + 1)
    for curve, best in zip(curves, runs["best_epoch"].astype(int), strict=True):
        ax.plot(x, curve, color=look["color"], linewidth=0.7, alpha=0.5)
        ax.plot(best, curve[best - 1], look["marker"], color=look["color"])
    if curves:
        ax.plot(x, np.mean(curves, 0), color=look["color"], linestyle=look["linestyle"])


def _values(curve: list) -> np.ndarray:
    return np.array(curve, dtype=float)


def _cost_point(ax: Axes, arm: str, runs: pd.DataFrame) -> None:
    look = look_of(arm)
    flops, error = runs["flops"].mean(), runs["test_error"].mean()
    ax.plot(flops, error, **look)
    longer = runs[runs["extra_epochs"] > 0]
    if len(longer):
        x = [flops, longer["equal_cost_flops"].mean()]
        y = [error, longer["equal_cost_test_error"].mean()]
        ax.plot(x, y, ":", color=look["color"], linewidth=1)
        ax.plot(x[1], y[1], look["marker"], color=look["color"], markerfacecolor="white")


def _flops_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda flops, _: f"{flops / 1e12:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def _budget_line(ax: Axes, arm: str, runs: pd.DataFrame) -> None:
    errors = expected_best(runs.groupby("learning_rate")["validation_error"].mean())
    # Of a run that diverged at once, the cost may be unknown; all of a cell cost the same.
    flops = runs["flops"].mean() * runs["seed"].nunique()
    ax.plot(flops * np.arange(1, len(errors) + 1), errors, **look_of(arm))


def _rate_line(ax: Axes, arm: str, runs: pd.DataFrame) -> None:
    look = look_of(arm)
    errors = runs.groupby("learning_rate")["validation_error"].mean()
    ax.plot(errors.index, errors, **look)
    chosen = runs[runs["chosen"]].groupby("learning_rate")["validation_error"].mean()
    ax.plot(chosen.index, chosen, "o", color=look["color"], markersize=11, markerfacecolor="none")
