"""What figures of all kinds share: looks, panels, titles, and files made of drawings."""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, product
from numbers import Real
from textwrap import wrap
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, Locator, NullLocator

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.report.frame import by_place, reported
from studies.report.published import Published
from studies.report.statistics import Interval, mean_interval

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
    # A name with a dollar is no formula.
    "text.parse_math": False,
}
# Ten colors that color-blind readers can tell apart, and as many markers.
COLORS = (
    *("#d55e00", "#661100", "#3a93c9", "#0072b2", "#009e73"),
    *("#cc79a7", "#882255", "#999933", "#117733", "#000000"),
)
MARKERS = "osD^vPX<>p"
# Looks that differ in color and marker come first.
_PAIRS = [*dict.fromkeys([*zip(COLORS, MARKERS, strict=True), *product(COLORS, MARKERS)])]
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}


@dataclass(frozen=True)
class Figure:
    """A figure that a kind or a study offers.

    Args:
        name: Name of the figure and of its files. If the name contains `{axis}`, there is such a
            figure for every axis that has several numbers; where no axis has, for every axis that
            has several values.
        title: Title of the figure, which may contain `{axis}`, too.
        caption: What there is to see, in words.
        draw: A function of the results (from `frame.frame`) and the scale, and of the name of the
            axis if there is one. It returns a matplotlib figure without a title.
        needs: What a scale must have for the figure: the name of an axis with several values, or of
            a setting such as `learning_rates`; or a function that tells it of a scale.
        role: Which runs are drawn, `"report"` or `"selection"`.
        seeds: How many seeds are drawn; `None` means all seeds of these runs.
        column: The column of the main table that the figure shows, if it shows one: its numbers
            stand in the alternative text.
        metric: The metric on the vertical axis, as it is stored: where all panels are about one
            combination of axis values, its published numbers stand as lines.
    """

    name: str
    title: str
    caption: str
    draw: Callable[..., Drawing]
    needs: str | Callable[[Scale], bool] = ""
    role: str = "report"
    seeds: int | None = None
    column: str = ""
    metric: str = ""

    def heading(self, scale: Scale) -> str:
        """The title with what was drawn: dataset, seeds and number of examples."""
        selection = self.role == "selection"
        counts = (
            [scale.selection_seeds] if selection else [len(scale.seeds(p)) for p in scale.places]
        )
        shown = sorted({self.seeds or count for count in counts})
        resized = selection and scale.selection_train_size
        size = told(scale, "selection_train_size" if resized else "train_size")
        kind = "demonstration: " if scale.demonstration else f"{told(scale, 'dataset')}, "
        plural = "s" if max(shown) > 1 else ""
        count = " or ".join(map(str, shown))
        examples = scale.kind.examples_of(scale)
        return f"{self.title}\n{kind}{count} seed{plural}, {size} training {examples}"

    def of(self, scale: Scale) -> list["Figure"]:
        """The figures that the scale has of it: none, the figure itself, or one for every axis."""
        if not self._is_possible(scale):
            return []
        if "{axis}" not in self.name:
            return [self]
        return [
            replace(
                self,
                name=self.name.format(axis=axis),
                title=self.title.format(axis=scale.kind.label(axis)),
                draw=partial(self.draw, axis=axis),
            )
            for axis in _ordered(scale) or scale.varied
        ]

    def _is_possible(self, scale: Scale) -> bool:
        if callable(self.needs):
            return self.needs(scale)
        return (
            not self.needs or self.needs in scale.varied or bool(getattr(scale, self.needs, None))
        )

    def seen(self, table: pd.DataFrame, scale: Scale) -> str:
        """What is seen, for readers who do not see the figure: its title and the arms' numbers."""
        found = [self.title]
        for arm in scale.arms if self.column in table else ():
            rows = table[(table["arm"] == arm.name) & table[self.column].notna()]
            if len(rows):
                ends = dict.fromkeys((0, len(rows) - 1))
                found.append(
                    f"{arm.label} {' to '.join(self._at(rows.iloc[i], scale) for i in ends)}"
                )
        return "; ".join(found)

    def _at(self, row: pd.Series, scale: Scale) -> str:
        values = combination_label(row[list(scale.axes)].to_dict(), scale)
        return f"{row[self.column]:.3g}" + (f" at {values}" if values else "")


def _ordered(scale: Scale) -> list[str]:
    """The axes that have several numbers, along which a line can be drawn."""
    return [axis for axis in scale.varied if all(isinstance(v, Real) for v in scale.axes[axis])]


def figure(title: str, caption: str, name: str = "", **options: Any) -> Callable[..., Figure]:
    """Make a figure of the function that draws it, which names the figure by default."""
    return lambda draw: Figure(name or draw.__name__, title, caption, draw, **options)


def render(
    figure: Figure, frame: pd.DataFrame, scale: Scale, published: Sequence[Published] = ()
) -> dict[str, bytes]:
    """Draw a figure in the project's style; return the contents of its files by their names.

    Numbers that papers publish are drawn as lines.
    """

    def draw() -> Drawing:
        drawing = figure.draw(frame, scale)
        if len(scale.combinations) == 1:
            _draw_published(drawing, figure, scale, published)
        drawing.suptitle(figure.heading(scale))
        return drawing

    return files(draw, figure.name)


def files(draw: Callable[[], Drawing], name: str) -> dict[str, bytes]:
    """Draw in the project's style; return the contents of the files by their names.

    The files hold no dates and versions: drawn twice in one environment, they are the same bytes.
    """
    strip = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    found = {}
    with matplotlib.style.context(["default", _STYLE]):
        drawing = draw()
        # Lay out once, not once for each file: the layout takes longest.
        drawing.get_layout_engine().execute(drawing)
        drawing.set_layout_engine(None)
        for kind, metadata in strip.items():
            buffer = io.BytesIO()
            drawing.savefig(buffer, format=kind, metadata=metadata)
            found[f"{name}.{kind}"] = buffer.getvalue()
    return found


def _draw_published(
    drawing: Drawing, figure: Figure, scale: Scale, published: Sequence[Published]
) -> None:
    for each in published:
        metric = scale.kind.metric(each.of.metric)
        for ax in drawing.axes if metric.name == figure.metric else ():
            y, look = each.value / metric.factor, {"xycoords": ax.get_yaxis_transform()}
            look["bbox"] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1}
            ax.axhline(y, color="black", linestyle=(0, (1, 1)), linewidth=1)
            text = f"{each.value:g}, {each.source}"
            ax.annotate(text, (1, y), ha="right", va="bottom", fontsize="small", **look)


def told(scale: Scale, name: str) -> str:
    """The value of a setting of a scale in words; all values, if the setting is an axis."""
    values = scale.axes.get(name, (getattr(scale, name, None),))
    texts = [f"{value:,}" if isinstance(value, int) else str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def looks(scale: Scale) -> dict[str, dict[str, Any]]:
    """Color, marker and line of every arm: solid and filled for a pretrained arm, dashed and open
    for other arms.

    An arm keeps its own look in every figure. An arm without a look gets one that no other arm has.
    """
    found, taken = {}, {arm.look for arm in scale.arms}
    colors = {look[0] for look in taken if look}
    # Colors that no arm has come first.
    pairs = sorted(_PAIRS, key=lambda pair: pair[0] in colors)
    free = (pair for pair in pairs if pair not in taken)
    for arm in scale.arms:
        color, marker = arm.look or next(free)
        found[arm.name] = {
            "color": color,
            "marker": marker,
            "linestyle": "-" if arm.pretrained else "--",
            # An open marker hides no other.
            "markerfacecolor": color if arm.pretrained else "none",
            "label": arm.label,
        }
    return found


def place_looks(scale: Scale) -> dict[tuple, dict[str, Any]]:
    """A look for every place, where all places share a panel."""
    return {
        place: {"color": color, "marker": marker, "label": place_label(place, scale)}
        for place, (color, marker) in zip(scale.places, cycle(_PAIRS), strict=False)
    }


def place_label(place: tuple, scale: Scale) -> str:
    """The words that tell a place from the other places of its scale."""
    label = scale.arm(place[0]).label
    arm = [label] if len(scale.arms) > 1 else []
    values = [v for axis, v in zip(scale.axes, place[1:], strict=True) if axis in scale.varied]
    return ", ".join(map(str, arm + values)) or label


def at(table: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """The rows at axis values."""
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def combination_label(values: dict[str, Any], scale: Scale) -> str:
    """A combination of axis values in words: "depth 3, width 50".

    An axis that has a single value in the scale is not named.
    """
    varied = [axis for axis in values if axis in scale.varied]
    return ", ".join(f"{axis} {values[axis]}".replace("_", " ") for axis in varied)


def families(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """The names of arms by family."""
    names = dict.fromkeys(arm.family for arm in arms)
    return {f: [arm.name for arm in arms if arm.family == f] for f in names}


def dodges(panels: dict[tuple, Axes]) -> dict[tuple, float]:
    """Where each place stands among the places of its panel, from -0.5 to 0.5, so that no place is
    drawn upon another.
    """
    crowds = {ax: [place for place in panels if panels[place] is ax] for ax in panels.values()}
    return {
        place: (i + 0.5) / len(crowd) - 0.5
        for crowd in crowds.values()
        for i, place in enumerate(crowd)
    }


# Panels beside each other in a figure.
_MOST_COLUMNS = 6
# Single panels above each other.
_MOST_ROWS = 3
# Lines of a panel above which a row has half as many panels.
_CROWD = 8


def grid(
    scale: Scale, xlabel: str, ylabel: str, arms: Collection[str] = (), **look: Any
) -> tuple[Drawing, dict[tuple, Axes]]:
    """Make a panel per family (rows) and combination of axis values (columns).

    More combinations than fit beside each other take several rows. A legend stands to the right of
    each family; `look` changes the looks of the arms in the legends. Without `arms`, all arms of
    the scale are shown. Returns the figure, and its panels by place.
    """
    shown = [arm for arm in scale.arms if arm.name in arms] or scale.arms
    found, groups, styles = scale.combinations, families(shown), looks(scale)
    # Many lines need wide panels.
    crowded = max(map(len, groups.values())) > _CROWD
    columns = min(len(found), _MOST_COLUMNS // 2 if crowded else _MOST_COLUMNS)
    bands = -(-len(found) // columns)
    width = max(1.75, 7.5 / columns) * columns + 2
    drawing = Drawing(figsize=(width, 2.5 * bands * len(groups) + 0.6), layout="constrained")
    shape = bands * len(groups), columns
    axes = drawing.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    panels, titles, lefts = {}, {}, {}
    for i, (family, names) in enumerate(groups.items()):
        own = axes[i * bands : (i + 1) * bands]
        own[0, -1].legend(handles=[Line2D([], [], **styles[n] | look) for n in names], **BESIDE)
        for ax, values in zip(own.flat, found, strict=False):
            ran = [(name, *values.values()) for name in names]
            panels |= {place: ax for place in ran if place in scale.places}
            titles[ax] = "\n".join(wrap(combination_label(values, scale), 20))
            lefts[ax] = f"{scale.kind.label(family)}\n{ylabel}"
    used = set(panels.values())
    for ax in set(axes.flat) - used:
        # A legend beside the panel stays.
        ax.set_axis_off()
    for column in axes.T:
        own = [ax for ax in column if ax in used]
        for ax in own if bands > 1 else own[:1]:
            ax.set_title(titles[ax])
        for ax in own[-1:]:
            ax.tick_params(labelbottom=True)
    for row in axes:
        for ax in [ax for ax in row if ax in used][:1]:
            ax.set_ylabel(lefts[ax])
            ax.tick_params(labelleft=True)
    drawing.supxlabel(xlabel, fontsize="medium")
    return drawing, panels


def filled(table: pd.DataFrame, scale: Scale) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The places that have rows, and their rows."""
    return ((place, rows) for place, rows in by_place(table, scale).items() if len(rows))


def shared(panels: dict[tuple, Axes]) -> Axes:
    """Any panel of a grid: the panels share their axes, so that any panel sets all of them."""
    return next(iter(panels.values()))


def axis_positions(ax: Axes, scale: Scale, axis: str) -> dict[Any, float]:
    """Lay out a horizontal axis for an axis of the scale, and return where each value stands.

    Numbers that span more than a factor of 20 stand on a logarithmic axis; names stand side by
    side.
    """
    values = scale.axes[axis]
    ax.set_xlabel(scale.kind.label(axis))
    if any(isinstance(value, str) for value in values):
        ax.set_xticks(range(len(values)), [str(value).replace("_", " ") for value in values])
        return {value: float(i) for i, value in enumerate(values)}
    if max(values) > 20 * min(values):
        ax.set_xscale("log")
    ticks(ax.xaxis, values)
    return {value: float(value) for value in values}


def ticks(axis: Axis, where: Sequence[float] | Locator, text: Any = "{x:g}") -> None:
    """Put ticks at values, or where a locator puts them; by default, written as plain numbers."""
    axis.set_major_locator(where if isinstance(where, Locator) else FixedLocator(where))
    axis.set_major_formatter(text)
    axis.set_minor_locator(NullLocator())


def beside(scale: Scale, axis: str) -> list[dict[str, Any]]:
    """The combinations of the other axes that have several values."""
    others = [name for name in scale.varied if name != axis]
    found = [{name: values[name] for name in others} for values in scale.combinations]
    return [values for i, values in enumerate(found) if values not in found[:i]]


def stack(
    frame: pd.DataFrame,
    scale: Scale,
    axis: str,
    columns: int = 1,
    width: float = 6.4,
    entries: int = 0,
) -> tuple[Drawing, list[tuple[np.ndarray, pd.DataFrame, dict[str, Any]]]]:
    """Make panels for a figure against an axis: a row for each combination of the other axes.

    Many combinations of one panel each stand in two columns. There is space for a legend of
    `entries` lines below the panels. Returns the figure and, for each combination, its panels, its
    report runs and its axis values.
    """
    combinations = beside(scale, axis)
    across = 2 if columns == 1 and len(combinations) > _MOST_ROWS else 1
    lines = -(-len(combinations) // across)
    size = (width * columns * across, 3.6 * lines + 0.8 + 0.17 * entries)
    drawing = Drawing(figsize=size, layout="constrained")
    axes = drawing.subplots(lines, columns * across, sharey=True, squeeze=False)
    panels = axes.reshape(-1, columns)
    for ax in panels[len(combinations) :].flat:
        ax.set_visible(False)
    rows = [at(reported(frame), values) for values in combinations]
    return drawing, list(zip(panels, rows, combinations, strict=False))


def draw_line(
    ax: Axes,
    scale: Scale,
    axis: str,
    values: pd.Series,
    look: dict,
    interval: Callable[[pd.Series], Interval] = mean_interval,
    shift: float = 0.0,
) -> None:
    """Draw the estimates of values, indexed by an axis, with their intervals, and a dot per seed.

    Lines of one panel can be shifted sidewards, from -0.5 to 0.5, so that none is hidden.
    """
    where = _shifted(ax, axis_positions(ax, scale, axis), shift)
    held = dict(list(values.dropna().groupby(level=0)))
    # In the order of the axis: a line through names in another order would run to and fro.
    samples = {x: held[value] for value, x in where.items() if value in held}
    found = [interval(each) for each in samples.values()]
    middle = [i.estimate for i in found]
    reach = [[i.estimate - i.low for i in found], [i.high - i.estimate for i in found]]
    ax.errorbar(list(samples), middle, yerr=np.nan_to_num(reach), elinewidth=1, zorder=3, **look)
    for x, each in samples.items():
        ax.plot([x] * len(each), each, ".", color=look["color"], alpha=0.35, markersize=4)


def _shifted(ax: Axes, where: dict[Any, float], shift: float) -> dict[Any, float]:
    """Positions shifted by a part of half the least distance between two of them."""
    if ax.get_xscale() == "log":
        return {value: x * 1.25**shift for value, x in where.items()}
    step = min(np.diff(sorted(where.values())), default=1) / 2
    return {value: x + shift * step for value, x in where.items()}


def draw_rates(
    panels: dict[tuple, Axes],
    frame: pd.DataFrame,
    scale: Scale,
    styles: dict[tuple, dict] | None = None,
) -> None:
    """Draw what rates are chosen by against learning rate, with the range of the seeds.

    The chosen rate is ringed. By default, every place has the look of its arm.
    """
    metric, selection = scale.kind.judge("selection").name, frame[frame["role"] == "selection"]
    styles = styles or {place: looks(scale)[place[0]] for place in scale.places}
    shifts = dodges(panels)
    for place, runs in filled(selection, scale):
        look, ax, shift = styles[place], panels[place], 1.25 ** shifts[place]
        seeds = runs.groupby("learning_rate")[metric].agg(["mean", "min", "max"])
        ax.plot(seeds.index * shift, seeds["mean"], **look)
        ax.vlines(seeds.index * shift, seeds["min"], seeds["max"], look["color"], linewidth=1)
        chosen = runs[runs["chosen"]].groupby("learning_rate")[metric].mean()
        ring = {"color": look["color"], "markersize": 11, "markerfacecolor": "none"}
        ax.plot(chosen.index * shift, chosen, "o", **ring)
    rates = sorted(set(selection["learning_rate"]))
    columns = min(len(scale.combinations), _MOST_COLUMNS)
    # The labels of more rates touch.
    shown = rates if len(rates) <= 7 and len(rates) * columns <= 21 else rates[::2]
    for ax in panels.values():
        ax.set_xscale("log")
        ticks(ax.xaxis, shown)
        ax.tick_params(axis="x", rotation=45 if len(rates) > 4 else 0)


def mosaic(ax: Axes, images: np.ndarray, colors: str = "gray_r") -> None:
    """Images of shape (rows, columns, height, width, 1), or without the last axis, as one."""
    rows, columns = images.shape[:2]
    images = images.reshape(rows, columns, *images.shape[2:4])
    joined = images.transpose(0, 2, 1, 3).reshape(rows * images.shape[2], -1)
    ax.imshow(joined, cmap=colors, interpolation="nearest", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
