"""The figure of the front page: what pretraining gains, in a row for each kind of net."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from studies.report import figures
from studies.report.claims import Difference
from studies.report.pages import Entry, Results
from studies.report.statistics import Interval

NAME = "overview"
# Gains in this unit can stand on one axis.
_UNIT = "points"
_LABELS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "covertype": "Covertype"}
_LOOKS = (("#0072b2", "o"), ("#d55e00", "s"), ("#117733", "^"), ("#cc79a7", "D"))


@dataclass(frozen=True)
class _Gain:
    row: str
    dataset: str
    interval: Interval
    at_edge: bool


def files(entries: list[Entry]) -> dict[str, bytes]:
    """The contents of the figure's files by their names; nothing if there is no gain to show."""
    gains = list(_gains(entries))
    return figures.files(partial(_draw, gains), NAME) if gains else {}


def _gains(entries: list[Entry]) -> Iterator[_Gain]:
    """The gains of all studies in the unit of the figure, of the first scale on each dataset."""
    for entry in (entry for entry in entries if entry.study.in_short):
        for row, effect in entry.study.in_short.gains.items():
            label, (arm, *_) = f"{row} ({entry.study.name})", effect.samples
            if entry.study.kind.metric(arm.metric).difference != _UNIT:
                continue
            shown = {}
            for found in entry.found.values():
                # Further data sets may have other arms.
                if interval := found.numbers.of(effect)[1]:
                    gain = _Gain(label, found.scale.dataset, interval, _at_edge(effect, found))
                    shown.setdefault(gain.dataset, gain)
            yield from shown.values()


def _at_edge(effect: Difference, found: Results) -> bool:
    """Tell whether the rate of an arm or of its control lies at the edge of its grid."""
    places = (figures.at(found.table, {"arm": s.arm, **dict(s.place)}) for s in effect.samples)
    return any(rows.filter(like="_at_edge").any(axis=None) for rows in places)


def _draw(gains: list[_Gain]) -> Drawing:
    rows = {gain.row: [each for each in gains if each.row == gain.row] for gain in gains}
    looks = _looks(gains)
    drawing = Drawing(figsize=(7.5, 1.6 + 0.34 * len(rows)), layout="constrained")
    ax = drawing.subplots()
    for row, crowd in enumerate(rows.values()):
        for i, gain in enumerate(crowd):
            y = row + 0.6 * ((i + 0.5) / len(crowd) - 0.5)
            look, found = looks[gain.dataset], gain.interval
            ax.plot([found.low, found.high], [y, y], color=look["color"])
            open_ = {"markerfacecolor": "white"} if gain.at_edge else {}
            ax.plot(found.estimate, y, **look | open_)
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(rows)), rows)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(
        "gain of pretraining in test error at equal cost (points)\n"
        "left of 0, pretraining hurts; right of 0, pretraining helps"
    )
    handles = [Line2D([], [], **look) for look in looks.values()]
    drawing.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    drawing.suptitle("Does layer-wise pretraining still pay?")
    return drawing


def _looks(gains: list[_Gain]) -> dict[str, dict]:
    """Color, marker and label of every dataset."""
    names = dict.fromkeys(gain.dataset for gain in gains)
    return {
        name: {"color": color, "marker": marker, "label": _LABELS.get(name, name)}
        for name, (color, marker) in zip(names, cycle(_LOOKS), strict=False)
    }
