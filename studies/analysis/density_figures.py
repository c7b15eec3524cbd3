"""Figures of models of the inputs' density: DataFrame in, matplotlib figure out.

`rendering` draws them in the project's style, as the others.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from studies.analysis.figures import look_of, selection_title_of, title_of
from studies.analysis.statistics import mean_interval
from studies.arms import ARMS
from studies.runner.scale import Scale

_BOUNDS = {
    "train_bound": {"label": "training", "color": "#e69f00", "marker": "s", "linestyle": "--"},
    "test_bound": {"label": "test", "color": "#0072b2", "marker": "o", "linestyle": "-"},
    "test_importance_weighted_bound": {
        "label": "test, importance-weighted",
        "color": "#009e73",
        "marker": "^",
        "linestyle": ":",
    },
}
_NATS = "bound on log p(x) (nats)"


def bound_against_latents(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Mean bounds with their intervals, and every seed, against the number of latent variables."""
    figure, ax = _single(_NATS)
    for name, look in _BOUNDS.items():
        _line(ax, frame, scale, name, look)
    _latent_axis(ax, scale)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    figure.suptitle(title_of("Bound against latent variables", scale, [scale.report_seeds]))
    return figure


def active_units(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Latent variables that are used against their number."""
    figure, ax = _single("active latent variables")
    latents = [_latent(arm) for arm in scale.arms]
    ax.plot(latents, latents, color="gray", linewidth=1, label="all")
    look = _BOUNDS["test_bound"] | {"label": "active"}
    _line(ax, frame, scale, "active_units", look)
    _latent_axis(ax, scale)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100, 200]))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    figure.suptitle(title_of("Latent variables that are used", scale, [scale.report_seeds]))
    return figure


def bound_against_epoch(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Mean training and validation bound, epoch by epoch."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, name in zip(panels, ("train_bound", "validation_bound"), strict=True):
        for arm, runs in _reported(frame, scale):
            curves = runs[runs["status"] == "done"]["curves"]
            mean = np.mean([np.array(c[name], dtype=float) for c in curves], 0)
            x = np.arange(1, len(mean) + 1)
            ax.plot(x, mean, markevery=[len(mean) - 1], **_colored(arm))
        ax.set(title=name.split("_")[0].replace("train", "training"), xlabel="epoch")
    # What the first epochs are like would leave no space for the rest.
    curves = [line.get_ydata() for line in panels[0].lines]
    if curves:
        panels[0].set_ylim(bottom=min(curve[len(curve) // 8] for curve in curves))
    panels[0].set_ylabel(_NATS)
    handles = [Line2D([], [], **_colored(arm)) for arm in scale.arms]
    legend = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "title": "latent variables"}
    panels[1].legend(handles=handles, **legend)
    figure.suptitle(title_of("Bound against epoch", scale, [scale.report_seeds]))
    return figure


def rate_sensitivity(frame: pd.DataFrame, scale: Scale) -> Figure:
    """Validation bound against learning rate over the selection seeds; the chosen one ringed."""
    figure, ax = _single(f"validation {_NATS}")
    selection = frame[frame["role"] == "selection"]
    for arm in scale.arms:
        runs = selection[selection["arm"] == arm]
        look = _colored(arm)
        bounds = runs.groupby("learning_rate")["validation_bound"].mean()
        ax.plot(bounds.index, bounds, **look)
        chosen = runs[runs["chosen"]].groupby("learning_rate")["validation_bound"].mean()
        ring = {"markersize": 11, "markerfacecolor": "none", "color": look["color"]}
        ax.plot(chosen.index, chosen, "o", **ring)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    ax.xaxis.set_major_locator(FixedLocator(scale.learning_rates))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    baseline = selection["baseline_bound"].mean()
    best = selection["validation_bound"].max()
    if selection["validation_bound"].min() < baseline < best:
        # What is worse than knowing nothing may be worse by any amount.
        ax.set_ylim(baseline, best + 0.05 * (best - baseline))
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="latent variables")
    figure.suptitle(selection_title_of("Bound against learning rate", scale))
    return figure


def samples(frame: pd.DataFrame, scale: Scale) -> Figure:
    """What draws from the prior decode to, a panel per number of latent variables."""
    arms = [arm for arm in scale.arms if len(_arrays(frame, arm, "samples"))]
    columns = min(3, max(1, len(arms)))
    rows = -(-max(1, len(arms)) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.8 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, arm in zip(panels, arms, strict=False):
        images = _arrays(frame, arm, "samples")
        side = int(len(images) ** 0.5)
        _mosaic(ax, images[: side**2].reshape(side, side, *images.shape[1:]))
        ax.set_title(f"{_latent(arm)} latent variables")
    for ax in panels[len(arms) :]:
        ax.set_visible(False)
    figure.suptitle(title_of("Samples", scale, [1]))
    return figure


def latent_grid(frame: pd.DataFrame, scale: Scale) -> Figure:
    """What a grid of two latent variables decodes to."""
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    ax = figure.subplots()
    grids = [grid for arm in scale.arms if len(grid := _arrays(frame, arm, "latent_grid"))]
    if grids:
        # The first variable to the right, the second upward, as axes of a plot.
        _mosaic(ax, np.flip(np.swapaxes(grids[0], 0, 1), 0))
    ax.set(xlabel="first latent variable, quantiles", ylabel="second latent variable, quantiles")
    figure.suptitle(title_of("The manifold of two latent variables", scale, [1]))
    return figure


def _single(ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    ax.set_ylabel(ylabel)
    return figure, ax


def _latent(arm: str) -> int:
    return ARMS[arm].objective["latent"]


def _colored(arm: str) -> dict:
    return look_of(arm) | {"linestyle": "-", "label": str(_latent(arm))}


def _reported(frame: pd.DataFrame, scale: Scale) -> Iterator[tuple[str, pd.DataFrame]]:
    """The report runs of every arm that has any."""
    for arm in scale.arms:
        runs = frame[(frame["arm"] == arm) & (frame["role"] == "report")]
        if len(runs):
            yield arm, runs


def _line(ax: Axes, frame: pd.DataFrame, scale: Scale, name: str, look: dict) -> None:
    """Means with intervals against the number of latent variables, and the seeds."""
    values = {_latent(arm): runs[name] for arm, runs in _reported(frame, scale)}
    found = [mean_interval(v) for v in values.values()]
    middle = np.array([interval.estimate for interval in found])
    reach = [[i.estimate - i.low for i in found], [i.high - i.estimate for i in found]]
    ax.errorbar(list(values), middle, yerr=np.nan_to_num(reach), elinewidth=1, zorder=3, **look)
    for latent, seeds in values.items():
        ax.plot([latent] * len(seeds), seeds, ".", color=look["color"], alpha=0.35, markersize=4)


def _latent_axis(ax: Axes, scale: Scale) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("latent variables")
    ax.xaxis.set_major_locator(FixedLocator([_latent(arm) for arm in scale.arms]))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _arrays(frame: pd.DataFrame, arm: str, name: str) -> np.ndarray:
    """An array of the first of an arm's trials that have it; else an empty one."""
    held = [a for a in frame.loc[frame["arm"] == arm, "arrays"] if a and name in a]
    return held[0][name] if held else np.empty(0)


def _mosaic(ax: Axes, images: np.ndarray) -> None:
    """Images of shape (rows, columns, height, width, 1), or without the last axis, as one."""
    rows, columns = images.shape[:2]
    images = images.reshape(rows, columns, *images.shape[2:4])
    joined = images.transpose(0, 2, 1, 3).reshape(rows * images.shape[2], -1)
    ax.imshow(joined, cmap="gray_r", interpolation="nearest", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
