"""Figures of trainability: DataFrame in, matplotlib figure out."""

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, MaxNLocator

from studies.engine.scale import Scale
from studies.kinds.classification.figures import against_axis
from studies.kinds.trainability import GOAL, PERCENTILES, half_of_guessing
from studies.report import figures as common
from studies.report.figures import figure
from studies.report.frame import at_place, by_place, failed, reported

_LOSS = "final_train_nll"
# Panels beside each other.
_COLUMNS = 4


def trained(frame: pd.DataFrame, scale: Scale) -> dict[tuple, tuple[int, int]]:
    """For each place, how many of its reported runs train, and how many runs there are."""
    metric = scale.kind.metric(_LOSS)
    return {
        place: (int((~failed(runs, metric, scale)).sum()), len(runs))
        for place, runs in by_place(reported(frame), scale).items()
    }


@figure(
    "Runs that train, against {axis}",
    "How many of the reported runs train: at the last epoch, their training NLL is below half the "
    "NLL of a net that takes all classes for equally likely. The darker a field, the more runs "
    "train. A field without a number was not run.",
    name="trained_against_{axis}",
)
def trained_against_axis(frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
    counts, rows = trained(frame, scale), _rows(scale, axis)
    drawing = Drawing(figsize=(7, 1.8 + 0.26 * len(rows)), layout="constrained")
    ax = drawing.subplots()
    ax.grid(False)
    places = [
        [
            (arm, *({**values, axis: value}[name] for name in scale.axes))
            for value in scale.axes[axis]
        ]
        for arm, values in rows
    ]
    _shares(ax, [[counts.get(place, (0, 0)) for place in row] for row in places])
    ax.set_xticks(range(len(scale.axes[axis])), map(str, scale.axes[axis]))
    words = ((scale.arm(arm).label, common.combination_label(v, scale)) for arm, v in rows)
    ax.set_yticks(range(len(rows)), [", ".join(filter(None, each)) for each in words])
    ax.set_xlabel(scale.kind.label(axis))
    return drawing


@figure(
    "Training NLL against {axis}",
    "Medians at the last epoch, with their 95 % bootstrap intervals over seeds; the dots are "
    "seeds. Chance is a net that takes all classes for equally likely.",
    name="train_nll_against_{axis}",
    metric=_LOSS,
)
def train_nll_against_axis(frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
    def guessing(dataset: str) -> float:
        return 2 * half_of_guessing(scale.chance(dataset))

    drawing, ax = against_axis(frame, scale, axis, _LOSS, "training NLL (nats)", guessing)
    ax.set_yscale("log")
    _log_ticks(ax.yaxis)
    return drawing


@figure(
    "Validation error against updates",
    "Medians over seeds, on logarithmic axes. The dotted line is at an accuracy of "
    f"{100 - 100 * GOAL:g} %.",
    metric="validation_error",
)
def error_over_updates(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = common.grid(scale, "updates", "validation error (%)")
    for place, curves in _watched(frame, scale, "validation_error"):
        runs = at_place(reported(frame), place, scale).iloc[0]
        median = 100 * np.median(curves, axis=0)
        updates = np.arange(1, len(median) + 1) * (runs["train_size"] // runs["batch_size"])
        look = common.looks(scale)[place[0]] | {"markevery": max(1, len(median) // 5)}
        panels[place].plot(updates, median, **look)
    for ax in {ax for ax in panels.values() if ax.lines}:
        ax.axhline(100 * GOAL, color="gray", linestyle=":", linewidth=1)
    ax = common.shared(panels)
    ax.set(xscale="log", yscale="log")
    _log_ticks(ax.xaxis)
    _log_ticks(ax.yaxis)
    return drawing


@figure(
    "Variance of what goes into each hidden layer's units, before training",
    "Medians over seeds, over validation images and all units of a layer. After batch "
    "normalization or layer normalization, it is 1 by construction, or nearly so.",
)
def variance_by_layer(frame: pd.DataFrame, scale: Scale) -> Drawing:
    return _variances_by_layer(frame, scale, "start_variances")


@figure(
    "Variance of the gradient that comes back to each hidden layer, before training",
    "Medians over seeds. The gradient is that of an image's loss by what a layer puts out; the "
    "variance is over validation images and units.",
)
def gradient_by_layer(frame: pd.DataFrame, scale: Scale) -> Drawing:
    return _variances_by_layer(frame, scale, "start_gradients")


@figure(
    "Useless units of each hidden layer, after training",
    "Medians over seeds, on validation images. Of sigmoid and tanh units, the share of outputs "
    "that are saturated: within 1 % of the range from an end of the range. Of rectifiers, the "
    "share of units that are dead: they put out the same for every image.",
)
def useless_by_layer(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = _by_layer(frame, scale, "useless", "useless (%)", 100)
    common.shared(panels).set_ylim(-5, 105)
    return drawing


@figure(
    "Inputs of a hidden unit during training",
    f"The {PERCENTILES[0]}th (dotted), {PERCENTILES[1]}th (solid) and {PERCENTILES[2]}th (dashed) "
    "percentile, over validation images, of what goes into the first unit of the last hidden "
    "layer, of one seed. Epoch 0 is before training. A net with normalization is looked at behind "
    "the normalization.",
    seeds=1,
)
def hidden_input_over_epochs(frame: pd.DataFrame, scale: Scale) -> Drawing:
    found = dict(_watched(frame, scale, "hidden_input"))
    places = [place for place in scale.places if place[1:] == scale.places[0][1:]]
    rows = -(-len(places) // _COLUMNS)
    drawing = Drawing(figsize=(10, 2.4 * rows + 0.6), layout="constrained")
    axes = drawing.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for ax, place in zip(axes.flat, places, strict=False):
        ax.set_title("\n".join(wrap(scale.arm(place[0]).label, 28)))
        if place in found:
            _percentiles(ax, np.array(found[place][0]), common.looks(scale)[place[0]]["color"])
    for ax in axes.flat:
        ax.tick_params(labelbottom=True)
    for ax in axes.flat[len(places) :]:
        ax.set_visible(False)
    drawing.supxlabel("epoch", fontsize="medium")
    drawing.supylabel("input of the unit", fontsize="medium")
    return drawing


@figure(
    "Training error without one layer",
    "The error of trained nets on training images if one hidden layer passes on its inputs: a net "
    "with shortcuts then lacks what the layer adds. Medians over seeds. The dotted line is the "
    "error of the whole net.",
    needs=lambda scale: any(arm.shortcut for arm in scale.arms),
)
def lesions(frame: pd.DataFrame, scale: Scale) -> Drawing:
    where = "layer that is removed, as a share of the depth"
    drawing, panels = common.grid(scale, where, "training error (%)")
    whole = dict(_watched(frame, scale, "intact_error"))
    positions = dict(_watched(frame, scale, "lesion_positions"))
    for place, curves in _watched(frame, scale, "lesion_errors"):
        look, median = common.looks(scale)[place[0]], np.median([c[0] for c in curves], axis=0)
        if len(median):
            panels[place].plot(positions[place][0][0], 100 * median, **look)
            intact = 100 * np.median([each[0] for each in whole[place]])
            panels[place].axhline(intact, color=look["color"], linestyle=":", linewidth=1)
    return drawing


def _watched(frame: pd.DataFrame, scale: Scale, name: str) -> Iterator[tuple[tuple, list[Any]]]:
    """What was watched by a name, of each run of a place that is whole and finite, by place."""
    for place, runs in common.filled(reported(frame), scale):
        found = [c.get(name) for c in runs["curves"] if isinstance(c, dict)]
        finite = [each for each in found if each and np.isfinite(np.array(each, "float64")).all()]
        if finite:
            yield place, finite


def _variances_by_layer(frame: pd.DataFrame, scale: Scale, name: str) -> Drawing:
    drawing, panels = _by_layer(frame, scale, name, "variance")
    common.shared(panels).set_yscale("log")
    _log_ticks(common.shared(panels).yaxis)
    return drawing


def _by_layer(
    frame: pd.DataFrame, scale: Scale, name: str, label: str, factor: float = 1
) -> tuple[Drawing, dict[tuple, Axes]]:
    """Draw medians of what was watched once, in each hidden layer."""
    drawing, panels = common.grid(scale, "hidden layer, as a share of the depth", label)
    for place, curves in _watched(frame, scale, name):
        median = factor * np.median([each[0] for each in curves], axis=0)
        look = common.looks(scale)[place[0]] | {"markevery": max(1, len(median) // 5)}
        panels[place].plot(np.arange(1, len(median) + 1) / len(median), median, **look)
    return drawing, panels


def _shares(ax: Axes, counts: list[list[tuple[int, int]]]) -> None:
    """Draw fields that say how many of how many runs, the darker, the greater the share."""
    shares = [[done / runs if runs else np.nan for done, runs in row] for row in counts]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(counts):
        for x, (done, runs) in enumerate(row):
            color = "white" if shares[y][x] > 0.6 else "black"
            text = f"{done} of {runs}" if runs else ""
            ax.text(x, y, text, color=color, ha="center", va="center")


def _rows(scale: Scale, axis: str) -> list[tuple[str, dict[str, Any]]]:
    """Every arm at the values of all axes but one."""
    others = [{k: v for k, v in each.items() if k != axis} for each in scale.combinations]
    alike = [values for i, values in enumerate(others) if values not in others[:i]]
    return [(arm, values) for arm in scale.arm_names for values in alike]


def _log_ticks(axis: Axis) -> None:
    """Put ticks on a logarithmic axis: powers of 10, and parts of them if it spans few."""
    low, high = axis.get_view_interval()
    wide = high > 1_000 * low
    common.ticks(axis, LogLocator(numticks=6) if wide else LogLocator(subs=(1, 3)))


def _percentiles(ax: Axes, rows: np.ndarray, color: str) -> None:
    epochs = np.arange(len(rows))
    for percentile, look in zip(rows.T, (":", "-", "--"), strict=True):
        ax.plot(epochs, percentile, look, color=color)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
