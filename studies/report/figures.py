"""What figures of all kinds share: looks, panels, titles, and files out of drawings."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from studies.engine.scale import Scale
from studies.report.frame import by_place

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "savefig.dpi": 150,
    "svg.hashsalt": "pretrain",
}
# Ten colors that color-blind readers can tell apart, and as many markers.
COLORS = (
    *("#d55e00", "#e69f00", "#56b4e9", "#0072b2", "#009e73"),
    *("#cc6677", "#882255", "#999933", "#117733", "#000000"),
)
MARKERS = "osD^vPX<>p"
# Looks that differ in both come first.
_PAIRS = [*dict.fromkeys([*zip(COLORS, MARKERS, strict=True), *product(COLORS, MARKERS)])]
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}


@dataclass(frozen=True)
class Figure:
    """A figure that a kind or a study offers.

    Args:
        name: Its name, that of its files. If the name contains `{axis}`, there is such a figure for
            every axis that has several values.
        title: Its title, which may contain `{axis}` too.
        caption: What is to be seen, in words.
        draw: A function of the results (from `frame.frame`) and the scale, and of the name of the
            axis if there is one, that returns a matplotlib figure.
        needs: What a scale must have for the figure: the name of an axis with several values, or of
            a setting such as `learning_rates`.
    """

    name: str
    title: str
    caption: str
    draw: Callable[..., Drawing]
    needs: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Drawing:
        return self.draw(*args, **kwargs)

    def of(self, scale: Scale) -> list["Figure"]:
        """The figure as the scale has it: none, itself, or one for every axis."""
        if self.needs and self.needs not in scale.varied and not getattr(scale, self.needs, None):
            return []
        if "{axis}" not in self.name:
            return [self]
        return [
            Figure(
                self.name.format(axis=axis),
                self.title.format(axis=scale.kind.label(axis)),
                self.caption,
                partial(self.draw, axis=axis),
            )
            for axis in scale.varied
        ]


def figure(title: str, caption: str, name: str = "", needs: str = "") -> Callable[..., Figure]:
    """Make a figure of the function that draws it, whose name is the figure's by default."""
    return lambda draw: Figure(name or draw.__name__, title, caption, draw, needs)


def render(figure: Figure, frame: pd.DataFrame, scale: Scale) -> dict[str, bytes]:
    """Draw a figure in the project's style.

    Returns:
        The contents of its files by their names, without dates and versions: drawn twice in one
        environment, a figure is the same bytes.
    """
    strip = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    files = {}
    with matplotlib.style.context(["default", _STYLE]):
        drawing = figure.draw(frame, scale)
        # Lay out once, not once for each file: it takes longer than all else.
        drawing.get_layout_engine().execute(drawing)
        drawing.set_layout_engine(None)
        for kind, metadata in strip.items():
            buffer = io.BytesIO()
            drawing.savefig(buffer, format=kind, metadata=metadata)
            files[f"{figure.name}.{kind}"] = buffer.getvalue()
    return files


# Titles


def title_of(text: str, scale: Scale, seeds: int | None = None) -> str:
    """The title of a figure of report runs, with what it stands on."""
    counts = [seeds] if seeds else sorted({len(scale.seeds(place)) for place in scale.places})
    return _title(text, scale, counts, told(scale, "train_size"))


def selection_title_of(text: str, scale: Scale) -> str:
    """The title of a figure of selection runs, with what it stands on."""
    size = scale.selection_train_size
    images = f"{size:,}" if size else told(scale, "train_size")
    return _title(text, scale, [scale.selection_seeds], images)


def told(scale: Scale, name: str) -> str:
    """A setting of a scale in words: its value, or its values if it is an axis."""
    values = scale.axes.get(name, (getattr(scale, name, None),))
    texts = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def _title(text: str, scale: Scale, seeds: list[int], images: str) -> str:
    kind = "demonstration: " if scale.demonstration else f"{told(scale, 'dataset')}, "
    plural = "s" if max(seeds) > 1 else ""
    count = " or ".join(map(str, seeds))
    return f"{text}\n{kind}{count} seed{plural}, {images} training images"


# Looks


def looks(scale: Scale) -> dict[str, dict[str, Any]]:
    """Color, marker and line of every arm: a pretrained arm has a solid line, others a dashed one.

    An arm keeps its own look in every figure; an arm without one gets a look that no other has.
    """
    found, taken = {}, {(arm.color, arm.marker) for arm in scale.arms}
    colors = {color for color, _ in taken}
    # Colors that no arm has come first.
    free = [pair for pair in sorted(_PAIRS, key=lambda p: p[0] in colors) if pair not in taken]
    for arm in scale.arms:
        own = (arm.color, arm.marker)
        fitting = (
            [own]
            if all(own)
            else [
                pair for pair in free if all(o in (None, p) for o, p in zip(own, pair, strict=True))
            ]
        )
        color, marker = fitting[0]
        free = [pair for pair in free if pair != (color, marker)]
        found[arm.name] = {
            "color": color,
            "marker": marker,
            "linestyle": "-" if arm.objective else "--",
            "label": arm.name,
        }
    return found


def place_looks(scale: Scale) -> dict[tuple, dict[str, Any]]:
    """A look for every place, where all places share a panel."""
    return {
        place: {"color": color, "marker": marker, "label": place_label(place, scale)}
        for place, (color, marker) in zip(scale.places, cycle(_PAIRS), strict=False)
    }


def place_label(place: tuple, scale: Scale) -> str:
    """What tells a place from the others of its scale."""
    arm = [place[0]] if len(scale.arms) > 1 else []
    values = [v for axis, v in zip(scale.axes, place[1:], strict=True) if axis in scale.varied]
    return ", ".join(map(str, arm + values)) or place[0]


def others(scale: Scale, axis: str) -> list[dict[str, Any]]:
    """Combinations of the axes that are varied beside one; an empty one if there is none."""
    rest = [name for name in scale.varied if name != axis]
    found = [{name: values[name] for name in rest} for values in scale.combinations]
    return [values for i, values in enumerate(found) if values not in found[:i]]


def at(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """The rows at axis values."""
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def combination_label(values: dict[str, Any]) -> str:
    """A combination of axis values in words: "depth 3, width 50"."""
    return ", ".join(f"{axis.replace('_', ' ')} {value}" for axis, value in values.items())


# Panels


def families(scale: Scale) -> list[str]:
    """The families of the scale's arms, each once."""
    return list(dict.fromkeys(arm.family for arm in scale.arms))


def members(scale: Scale, family: str) -> list[str]:
    """The names of the arms of a family."""
    return [arm.name for arm in scale.arms if arm.family == family]


def grid(scale: Scale, xlabel: str, ylabel: str, **look: Any) -> tuple[Drawing, dict[tuple, Axes]]:
    """A panel per family (rows) and combination of axis values (columns).

    Args:
        scale: The scale.
        xlabel: Label of all horizontal axes.
        ylabel: Label of all vertical axes.
        **look: In what the legend differs from the looks of the arms.

    Returns:
        The figure, whose legends stand to the right of its rows, and its panels by place.
    """
    columns, rows, styles = len(scale.combinations), families(scale), looks(scale)
    width = max(1.75, 7.5 / columns) * columns + 2
    drawing = Drawing(figsize=(width, 2.5 * len(rows) + 0.6), layout="constrained")
    axes = drawing.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    panels = {}
    for row, family in zip(axes, rows, strict=True):
        names = members(scale, family)
        row[-1].legend(handles=[Line2D([], [], **styles[n] | look) for n in names], **BESIDE)
        row[0].set_ylabel(f"{scale.kind.label(family)}\n{ylabel}")
        for ax, values in zip(row, scale.combinations, strict=True):
            panels |= {(name, *values.values()): ax for name in names}
    for ax, values in zip(axes[0], scale.combinations, strict=True):
        ax.set_title(combination_label(values))
    drawing.supxlabel(xlabel, fontsize="medium")
    return drawing, panels


def filled(table: pd.DataFrame, scale: Scale) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The places that have rows, and their rows."""
    return ((place, rows) for place, rows in by_place(table, scale).items() if len(rows))


def shared(panels: dict[tuple, Axes]) -> Axes:
    """Any panel of a grid: what is set on the axis of one is set on all, which share it."""
    return next(iter(panels.values()))


def axis_positions(ax: Axes, scale: Scale, axis: str) -> dict[Any, float]:
    """Lay out a horizontal axis for the values of an axis of the scale.

    Numbers that span more than a factor of 20 stand on a logarithmic axis; names stand side by
    side.

    Args:
        ax: The panel.
        scale: The scale.
        axis: Name of the axis.

    Returns:
        Where each value stands.
    """
    values = scale.axes[axis]
    ax.set_xlabel(scale.kind.label(axis))
    if any(isinstance(value, str) for value in values):
        ax.set_xticks(range(len(values)), values)
        return {value: float(i) for i, value in enumerate(values)}
    if max(values) > 20 * min(values):
        ax.set_xscale("log")
    plain_ticks(ax, values)
    return {value: float(value) for value in values}


def plain_ticks(ax: Axes, values: tuple[float, ...]) -> None:
    """Put ticks at the values, written as plain numbers."""
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def draw_intervals(ax: Axes, x: list[float], intervals: list, **look: Any) -> None:
    """Estimates, joined by a line, with their intervals."""
    middle = [i.estimate for i in intervals]
    reach = [[i.estimate - i.low for i in intervals], [i.high - i.estimate for i in intervals]]
    ax.errorbar(x, middle, yerr=np.nan_to_num(reach), elinewidth=1, zorder=3, **look)


def draw_seeds(ax: Axes, x: float, values: pd.Series, color: str) -> None:
    """A dot for every seed."""
    ax.plot([x] * len(values), values, ".", color=color, alpha=0.35, markersize=4)


def draw_rates(
    panels: dict[tuple, Axes],
    styles: dict[tuple, dict],
    frame: pd.DataFrame,
    scale: Scale,
    metric: str,
) -> None:
    """Mean of a metric against learning rate over selection seeds; the chosen rate is ringed."""
    for place, runs in filled(frame[frame["role"] == "selection"], scale):
        look, ax = styles[place], panels[place]
        means = runs.groupby("learning_rate")[metric].mean()
        ax.plot(means.index, means, **look)
        chosen = runs[runs["chosen"]].groupby("learning_rate")[metric].mean()
        ring = {"color": look["color"], "markersize": 11, "markerfacecolor": "none"}
        ax.plot(chosen.index, chosen, "o", **ring)
    for ax in panels.values():
        ax.set_xscale("log")
        plain_ticks(ax, scale.learning_rates)
        ax.tick_params(axis="x", rotation=45 if len(scale.learning_rates) > 4 else 0)
