"""Figures of classification: DataFrame in, matplotlib figure out.

The figures have the caller's style; `studies.report.figures.render` gives them the project's style.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from studies.engine.scale import Scale
from studies.kinds.classification.layers import CONVOLUTIONAL
from studies.report import figures as common
from studies.report.figures import figure
from studies.report.frame import by_place, reported
from studies.report.statistics import expected_best, median_interval


@figure(
    "Test error against {axis}",
    "Medians with their 95 % bootstrap intervals over seeds; the dots are seeds. Pretrained arms "
    "have solid lines and filled markers, other arms dashed lines and open markers. Arms stand "
    "side by side, so that none hides another. Here and below, the error axis is logarithmic. "
    "Above a gray band, the axis is compressed.",
    name="error_against_{axis}",
    column="median",
    metric="test_error",
)
def error_against_axis(frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
    drawing, ax = against_axis(frame, scale, axis, "test_error", "test error (%)", scale.chance)
    _percent_axis(ax, reported(frame)["test_error"])
    return drawing


@figure(
    "Test error of every seed",
    "A dot is a seed, and the bar is the median.",
    column="median",
    metric="test_error",
)
def error_over_seeds(frame: pd.DataFrame, scale: Scale) -> Drawing:
    lines = [
        (family, names[first : first + _PANELS])
        for family, names in common.families(scale.arms).items()
        for first in range(0, len(names), _PANELS)
    ]
    columns = max(len(names) for _, names in lines)
    wide, high = max(1.9, 0.17 * len(scale.combinations)), 3.4 if _stand(scale) else 2.6
    drawing = Drawing((wide * columns + 0.8, high * len(lines)), layout="constrained")
    axes = drawing.subplots(len(lines), columns, sharex=True, sharey=True, squeeze=False)
    for row, (family, names) in zip(axes, lines, strict=True):
        for ax, arm in zip(row, names, strict=False):
            _strips(ax, frame, scale, arm)
        for ax in row[len(names) :]:
            ax.set_visible(False)
        row[0].set_ylabel(f"{scale.kind.label(family)}\ntest error (%)")
    drawing.supxlabel(", ".join(map(scale.kind.label, scale.varied)), fontsize="medium")
    _percent_axis(axes[0, 0], reported(frame)["test_error"])
    return drawing


@figure(
    "Validation NLL against training NLL",
    "Median validation NLL against median training NLL over seeds, from the first epoch (upper "
    "right) to the last epoch (marker), as the arrow points. The dotted line is the "
    "further way of a control that is trained on to the cost of the pretrained arm. Of two arms at "
    "one training NLL, the lower arm generalizes better (Erhan et al. 2010, figure 7). The axis "
    "ends at twice the NLL of guessing.",
)
def nll_trajectories(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "training NLL (nats)", "validation NLL (nats)")
    styles = common.looks(scale)
    for place, runs in common.filled(reported(frame), scale):
        _trajectory(panels[place], styles[place[0]], runs)
    ax = common.shared(panels)
    ax.set(xscale="log", yscale="log")
    low, high = ax.get_xlim()
    common.ticks(ax.xaxis, LogLocator(base=100) if high > 100 * low else LogLocator(subs=(1, 2, 5)))
    common.ticks(ax.yaxis, LogLocator(subs=(1, 2, 5)))
    # The first epochs at a high rate would squeeze all others.
    if (classes := scale.shape(scale.dataset)[1]) > 1:
        ax.set_ylim(top=min(ax.get_ylim()[1], 2 * math.log(classes)))
    return drawing


@figure(
    "Validation error against epoch",
    "A thin line is a seed, and the thick line is the median of all seeds. A marker stands at the "
    "epoch of a seed's lowest validation error, where its test error is read. A dotted line is a "
    "number that a paper publishes.",
    metric="validation_error",
)
def error_over_epochs(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "epoch", "validation error (%)")
    styles = common.looks(scale)
    for place, runs in common.filled(reported(frame), scale):
        _learning_curves(panels[place], styles[place[0]], runs[runs["status"] == "done"])
    common.shared(panels).xaxis.set_major_locator(MaxNLocator(integer=True))
    shown = [line.get_ydata() for ax in set(panels.values()) for line in ax.lines]
    _percent_axis(common.shared(panels), pd.Series(np.concatenate([*shown, []])))
    return drawing


@figure(
    "Test error against cost",
    "Medians over seeds. The cost of a run is that of its training and, in full, of its "
    "pretraining. Arms of one cost stand side by side.",
    column="median",
    metric="test_error",
)
def error_against_cost(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "cost of a run (TFLOP)", "test error (%)", linestyle="")
    styles, shifts = common.looks(scale), common.dodges(panels)
    for place, runs in common.filled(reported(frame), scale):
        flops, error = runs["flops"].mean(), runs["test_error"].median()
        panels[place].plot(flops * 1.15 ** shifts[place], error, **styles[place[0]])
    _flops_axis(common.shared(panels))
    _percent_axis(common.shared(panels), reported(frame)["test_error"])
    return drawing


@figure(
    "Validation error against learning rate",
    "Means over the selection seeds; a vertical line reaches from the best seed to the worst. A "
    "ring marks the chosen rate, which the reported runs have.",
    needs="learning_rates",
    role="selection",
)
def rate_sensitivity(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "learning rate", "validation error (%)")
    common.draw_rates(panels, frame, scale)
    _percent_axis(common.shared(panels), frame[frame["role"] == "selection"]["validation_error"])
    return drawing


@figure(
    "Expected validation error against tuning budget",
    "The expected error of the best of n learning rates, drawn from the grid without replacement "
    "(Dodge et al. 2019), against the cost of the selection runs at n rates, with the pretraining "
    "of each run in full. The number n goes from 1 to the size of the grid. Where the pretraining "
    "rate was chosen by such runs at other rates, a line begins behind the cost of these runs.",
    needs="learning_rates",
    role="selection",
)
def tuning_budget(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "tuning budget (TFLOP)", "expected validation error (%)")
    selection, styles = frame[frame["role"] == "selection"], common.looks(scale)
    searched = frame[frame["role"] == "search"].drop_duplicates("key").groupby("arm")["flops"].sum()
    for place, runs in common.filled(selection, scale):
        _budget_line(panels[place], styles[place[0]], runs, searched.get(place[0], 0))
    _flops_axis(common.shared(panels))
    _percent_axis(common.shared(panels), selection["validation_error"])
    return drawing


@figure(
    "Filters of the first convolution",
    "The filters after training, of the first seed. Gray is 0, black and white are the least and "
    "the greatest of a filter's weights of either sign. A place is empty where no convolutional "
    "net was trained.",
    needs=lambda scale: CONVOLUTIONAL in scale.axes.get("network", ()),
    seeds=1,
)
def filters(frame: pd.DataFrame, scale: Scale) -> Drawing:
    names, combinations = scale.arm_names, scale.combinations
    shape = len(names), 1 + len(combinations)
    drawing = Drawing(figsize=(1.7 * shape[1], 0.9 * shape[0] + 0.6), layout="constrained")
    # Labels have a column: beside images, whose aspect is fixed, a layout leaves no room for them.
    labels, *columns = drawing.subplots(*shape, squeeze=False).T
    panels = np.transpose(columns)
    found = _filters(frame, scale)
    for row, name, beside in zip(panels, names, labels, strict=True):
        beside.set_axis_off()
        beside.text(1, 0.5, fill(scale.arm(name).label, 20), ha="right", va="center")
        for ax, values in zip(row, combinations, strict=True):
            ax.spines[:].set_visible(False)
            ax.set(xticks=[], yticks=[])
            for kept in found.get((name, *values.values()), [])[:1]:
                common.mosaic(ax, _framed(kept))
    for ax, values in zip(panels[0], combinations, strict=True):
        ax.set_title(common.combination_label(values, scale))
    return drawing


def _filters(frame: pd.DataFrame, scale: Scale) -> dict[tuple, list[np.ndarray]]:
    """The filters that are kept, by place."""
    return {
        place: [each["filters"] for each in runs["arrays"] if each and "filters" in each]
        for place, runs in common.filled(reported(frame), scale)
        if "arrays" in runs
    }


def _framed(filters: np.ndarray) -> np.ndarray:
    """Filters of shape `(n, height, width, channels)` as two rows of gray images with a margin."""
    means = filters.astype("float64").mean(axis=-1)
    greatest = np.abs(means).max(axis=(1, 2), keepdims=True)
    gray = 127.5 * (1 - means / np.where(greatest > 0, greatest, 1))
    padded = np.pad(gray, [(0, len(gray) % 2), (1, 1), (1, 1)], constant_values=np.nan)
    return padded.reshape(2, -1, *padded.shape[1:])


def against_axis(
    frame: pd.DataFrame,
    scale: Scale,
    axis: str,
    metric: str,
    label: str,
    guessing: Callable[[str], float],
) -> tuple[Drawing, Axes]:
    """Draw medians of a metric against an axis, a panel per family; return a panel, too.

    `guessing` returns the metric of a net that guesses, by the name of the dataset.
    """
    families = common.families(scale.arms)
    longest = max(map(len, families.values()))
    drawing, stacked = common.stack(frame, scale, axis, len(families), 4.6, longest)
    for panels, rows, values in stacked:
        for ax, names in zip(panels, families.values(), strict=True):
            _axis_panel(ax, rows, scale, axis, names, metric)
            chance = guessing(values.get("dataset", scale.dataset))
            if reported(frame)[metric].max() > chance / 2:
                ax.axhline(chance, color="gray", linestyle=":", linewidth=1, label="chance")
        where = common.combination_label(values, scale)
        panels[0].set_ylabel("\n".join(filter(None, [where, label])))
    for ax, family in zip(stacked[0][0], families, strict=True):
        ax.set_title(scale.kind.label(family))
    if len(panels) == 1:
        drawing.legend(*ax.get_legend_handles_labels(), loc="outside lower center")
    else:
        for ax in panels:
            ax.legend(**common.BELOW)
    return drawing, ax


def _axis_panel(
    ax: Axes, rows: pd.DataFrame, scale: Scale, axis: str, names: list[str], metric: str
) -> None:
    """Medians of the arms of a family, each shifted sidewards so that no interval is hidden."""
    for i, name in enumerate(names):
        values = rows[rows["arm"] == name].set_index(axis)[metric]
        look, shift = common.looks(scale)[name], (i + 0.5) / len(names) - 0.5
        common.draw_line(ax, scale, axis, values, look, median_interval, shift)


# Ticks of a logarithmic axis.
_DIGITS = (1, 1.5, 2, 3, 5, 7)


def _percent_axis(ax: Axes, errors: pd.Series) -> None:
    """Show errors, fractions, in percent; on a logarithmic axis if they span a factor of 3.

    An error of 0, which has no place on a logarithmic axis, makes the axis linear. High
    errors that squeeze all others together stand above a break, where the axis is compressed.
    """
    errors = errors.dropna()
    if errors.empty:
        return
    low, high = errors.min(), errors.max()
    wide = low > 0 and high > 3 * low
    if wide and (ends := _gap(errors)):
        _broken_axis(ax, 0.93 * low, *ends, 1.07 * high)
        return
    ax.set_yscale("log" if wide else "linear")
    ax.set_ylim(0.93 * low if low > 0 else -0.03 * high, 1.07 * high or 1)
    locator = LogLocator(subs=_DIGITS) if wide else MaxNLocator(5)
    common.ticks(ax.yaxis, locator, lambda error, _: f"{100 * error:g}")


# A break needs neighboring errors that differ by this factor.
_GAP = 1.2
# A break is made for errors that take less than this share of a logarithmic axis, if they are most.
_SQUEEZED, _MOST = 0.4, 0.75
# Where the break of an axis lies, as shares of its height.
_BREAK = (0.76, 0.8)


def _gap(errors: pd.Series) -> tuple[float, float] | None:
    """The errors on both sides of the widest gap above squeezed errors; `None` if it is narrow."""
    found = np.sort(errors.to_numpy(float))
    ratios, span = found[1:] / found[:-1], np.log(found[-1] / found[0])
    ratios[np.log(found[:-1] / found[0]) > _SQUEEZED * span] = 0
    ratios[: int(_MOST * len(ratios))] = 0
    at = int(ratios.argmax())
    return (1.07 * found[at], 0.93 * found[at + 1]) if ratios[at] > _GAP else None


def _broken_axis(ax: Axes, low: float, below: float, above: float, high: float) -> None:
    """A logarithmic axis in two parts, with a gray band at the break between them."""
    knots, heights = np.log([low, below, above, high]), [0, *_BREAK, 1]

    def forward(error: np.ndarray) -> np.ndarray:
        return np.interp(np.log(np.maximum(error, low / 2)), knots, heights)

    def inverse(height: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(height, heights, knots))

    ax.set_yscale("function", functions=(forward, inverse))
    ax.set_ylim(low, high)
    many = MaxNLocator(6, steps=[1, 2, 5, 10]) if below < 2 * low else LogLocator(subs=_DIGITS)
    lower = many.tick_values(100 * low, 100 * below) / 100
    where = [error for error in lower if low <= error <= below]
    where += [error for error in (0.2 if above <= 0.2 else 0.5, 0.9) if above <= error <= high]
    common.ticks(ax.yaxis, where, lambda error, _: f"{100 * error:.3g}")
    for panel in ax.get_shared_y_axes().get_siblings(ax):
        panel.axhspan(below, above, color="0.9", linewidth=0, zorder=0)


# Panels of arms beside each other; more arms of a family take another row.
_PANELS = 8
# So many characters of the labels of places have room side by side; more stand on end.
_BESIDE = 32


def _strips(ax: Axes, frame: pd.DataFrame, scale: Scale, arm: str) -> None:
    # Imported only here: seaborn takes two seconds to import.
    from seaborn import stripplot

    look = common.looks(scale)[arm]
    held = by_place(reported(frame), scale)
    # An arm need not be run everywhere, but all panels have one axis.
    cells = {
        label: held.get((arm, *values.values()), frame[:0])
        for label, values in zip(_labels(scale), scale.combinations, strict=True)
    }
    runs = pd.concat([rows.assign(place=label) for label, rows in cells.items()])
    points = {"color": look["color"], "marker": look["marker"], "size": 4, "alpha": 0.6}
    places = {"x": "place", "y": "test_error", "order": list(cells)}
    with _same_jitter():
        stripplot(runs, **places, **points, jitter=0.25, ax=ax)
    for x, rows in enumerate(cells.values()):
        middle = rows["test_error"].median()
        ax.hlines(middle, x - 0.35, x + 0.35, color="black", linewidth=1, zorder=3)
    ax.set(title=fill(scale.arm(arm).label, 20), xlabel="", ylabel="")
    if _stand(scale):
        labels = [label.replace("\n", ", ") for label in cells]
        ax.set_xticks(range(len(cells)), labels, rotation=90, fontsize="small")


def _labels(scale: Scale) -> list[str]:
    """A label for every combination of axis values, with a line for each axis of several values."""
    return ["\n".join(str(values[axis]) for axis in scale.varied) for values in scale.combinations]


def _stand(scale: Scale) -> bool:
    """Whether the labels of all combinations have no room side by side."""
    labels = _labels(scale)
    return len(labels) * max(len(line) for label in labels for line in label.split("\n")) > _BESIDE


@contextmanager
def _same_jitter() -> Iterator[None]:
    """Make seaborn's jitter, drawn from NumPy's global state, the same in every drawing."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def _trajectory(ax: Axes, look: dict, runs: pd.DataFrame) -> None:
    """A median curve with an arrow, and a marker at the last epoch."""
    done = runs[runs["status"] == "done"]
    if done.empty:
        return
    names = ("train_nll", "validation_nll")
    x, y = (np.median([np.array(c[name], float) for c in done["curves"]], 0) for name in names)
    ax.plot(x, y, markevery=[len(x) - 1], **look)
    _arrow(ax, look["color"], x, y)


def _arrow(ax: Axes, color: str, x: np.ndarray, y: np.ndarray) -> None:
    """Point an arrow along the epoch in which a falling curve falls most, if it falls at all."""
    fallen = x[1:] / x[:-1]
    if len(fallen) and fallen.min() < 0.9:
        step = int(fallen.argmin())
        look = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 0, "shrinkB": 0}
        start, end = ((x[i], y[i]) for i in (step, step + 1))
        ax.annotate("", end, start, arrowprops=look | {"color": color})


def _learning_curves(ax: Axes, look: dict, runs: pd.DataFrame) -> None:
    curves = [np.array(curves["validation_error"], float) for curves in runs["curves"]]
    for curve, best in zip(curves, runs["best_epoch"].astype(int), strict=True):
        x = np.arange(1, len(curve) + 1)
        ax.plot(x, curve, color=look["color"], linewidth=0.7, alpha=0.5)
        ax.plot(best, curve[best - 1], look["marker"], color=look["color"])
    if curves:
        ax.plot(x, np.median(curves, 0), color=look["color"], linestyle=look["linestyle"])


def _flops_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    # Matplotlib's own locator crowds the axis if it spans less than a factor of 5.
    digits = (1, 2, 5) if high < 50 * low else (1, 3)
    marks = [digit * 10.0**power for power in range(6, 24) for digit in digits]
    common.ticks(ax.xaxis, FixedLocator(marks), lambda flops, _: f"{flops / 1e12:g}")


def _budget_line(ax: Axes, look: dict, runs: pd.DataFrame, searched: float) -> None:
    errors = expected_best(runs.groupby("learning_rate")["validation_error"].mean())
    # The cost of a run that diverged at once may be unknown; all runs of a cell cost the same.
    flops = runs["flops"].mean() * runs["seed"].nunique()
    ax.plot(searched + flops * np.arange(1, len(errors) + 1), errors, **look)
