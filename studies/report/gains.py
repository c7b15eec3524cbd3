"""What pretraining gains on the nets that are not pretrained, against an axis."""

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.report import figures
from studies.report.figures import figure
from studies.report.frame import failed, reported
from studies.report.tables import average_interval

# Gains are drawn on a linear axis up to here, and on a logarithmic axis beyond.
_LINEAR = 1
_TICKS = (-100, -30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30, 100)


def _compared(scale: Scale) -> dict[str, list[Arm]]:
    """The arms of its family that each pretrained arm is compared with, by the arm's name."""
    others = [arm for arm in scale.arms if not arm.pretrained]
    found = {
        arm.name: [other for other in others if other.family == arm.family]
        for arm in scale.arms
        if arm.pretrained
    }
    return {name: arms for name, arms in found.items() if arms}


@figure(
    "Gain of pretraining against {axis}",
    "How much better a pretrained net is than the nets of its family in the legend, seed by seed. "
    "Means over seeds with their 95 % t intervals; where a run failed, medians with their "
    "bootstrap intervals. The dots are seeds. Above the line at 0, pretraining helps. Beyond a "
    "gain of 1, the axis is logarithmic.",
    name="gain_against_{axis}",
    # With a third axis, there would be too many panels.
    needs=lambda scale: bool(_compared(scale)) and len(scale.varied) < 3,
)
def gain_against_axis(frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
    combinations, compared = figures.beside(scale, axis), _compared(scale)
    shape = len(compared), len(combinations)
    lines = len({other.name for others in compared.values() for other in others})
    size = (max(3.2 * shape[1], 6.4), 3.2 * shape[0] + 0.5 + 0.17 * lines)
    drawing = Drawing(figsize=size, layout="constrained")
    panels = drawing.subplots(*shape, sharex=True, sharey=True, squeeze=False)
    panels[0, 0].set_yscale("symlog", linthresh=_LINEAR)
    for row, (name, others) in zip(panels, compared.items(), strict=True):
        arm, ran = scale.arm(name), scale.combinations_of(name)
        for ax, values in zip(row, combinations, strict=True):
            _panel(ax, figures.at(reported(frame), values), scale, axis, (arm, others))
            ax.set_title(figures.combination_label(values, scale))
            # An arm need not be run everywhere.
            ax.set_visible(any(values.items() <= each.items() for each in ran))
        row[0].set_ylabel(f"{arm.label}:\ngain ({_unit(scale)})")
    figures.ticks(panels[0, 0].yaxis, _TICKS)
    found = {}
    for ax in panels[:, 0]:
        found |= {text: line for line, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    drawing.legend(found.values(), found, loc="outside lower center")
    return drawing


def _panel(
    ax: Axes, runs: pd.DataFrame, scale: Scale, axis: str, arms: tuple[Arm, list[Arm]]
) -> None:
    """The gains of an arm on each other arm, which has its own look."""
    arm, others = arms
    for i, other in enumerate(others):
        look, shift = figures.looks(scale)[other.name], (i + 0.5) / len(others) - 0.5
        look |= {"label": f"gain on: {other.label}"}
        both = runs[runs["arm"].isin([arm.name, other.name])]
        middle = partial(
            average_interval, some_failed=failed(both, scale.kind.metric(), scale).any()
        )
        gains = _gains(runs, scale, axis, arm.name, other.name)
        figures.draw_line(ax, scale, axis, gains, look, middle, shift)
    ax.axhline(0, color="black", linewidth=1)
    ax.margins(y=0.08)


def _gains(runs: pd.DataFrame, scale: Scale, axis: str, arm: str, other: str) -> pd.Series:
    """How much better an arm is than another, as it is shown, by axis value; a value per seed."""
    metric = scale.kind.metric()
    ours, others = (
        metric.factor * runs[runs["arm"] == name].set_index([axis, "seed"])[metric.name]
        for name in (arm, other)
    )
    gain = others - ours if metric.lower_is_better else ours - others
    return gain.dropna().droplevel("seed")


def _unit(scale: Scale) -> str:
    metric = scale.kind.metric()
    return metric.difference or metric.unit
