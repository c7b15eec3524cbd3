"""How results are shown: the figures, tables and words that every kind has.

A kind whose results need more has a subclass of `Show` in its folder.
"""

from functools import partial

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator

from studies.engine.scale import Scale
from studies.report import figures, tables
from studies.report.figures import Figure, told
from studies.report.forest import forest
from studies.report.frame import failed

# Values that differ by more than this factor have a logarithmic axis.
_WIDE = 30


class Show:
    """Figures, tables and words of a kind of experiment.

    Args:
        kind: The kind, a `studies.kinds.kind.Kind`.

    Attributes:
        metrics: Names of the metrics in the table with all numbers; by default, the metric that
            reported trials are judged by.
        summarized: Names of the metrics in the short table; by default, the same metrics.
        columns: What the columns of the table with all numbers mean, a line each.
    """

    metrics: tuple[str, ...] = ()
    summarized: tuple[str, ...] = ()
    columns: tuple[str, ...] = (
        "*rate*: the learning rate, which was chosen on other seeds.",
        "*FLOPs*: the cost of one run.",
    )

    def __init__(self, kind):
        self.kind = kind
        self.metrics = self.metrics or (kind.metric().name,)
        self.summarized = self.summarized or self.metrics

    @property
    def title(self) -> str:
        """The metric that the tables show, with its unit."""
        metric = self.kind.metric()
        unit = f" ({metric.unit})" if metric.unit else ""
        return f"{metric.label[0].upper()}{metric.label[1:]}{unit}"

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that the kind offers, the headline first."""
        return (
            Figure(
                f"{self.kind.metric().name}_against_{{axis}}",
                f"{self.title} against {{axis}}",
                "Means with their 95 % t intervals over seeds; the dots are seeds. An arm of which "
                "a run failed has medians with their bootstrap intervals.",
                self._against_axis,
                column=self.kind.metric().name,
            ),
            forest,
            Figure(
                "rate_sensitivity",
                "Validation against learning rate",
                "Means over the selection seeds; a vertical line reaches from the best seed to the "
                "worst. A ring marks the chosen rate, which the reported runs have.",
                self._rate_sensitivity,
                needs="learning_rates",
                role="selection",
            ),
        )

    def offered(self, scale: Scale, wanted: tuple = ()) -> list[Figure]:
        """The figures of a scale, in the order of `wanted`; by default, all that the kind offers.

        `wanted` holds names of figures that are offered, or figures of the study's own, the
        headline first. A name without a figure raises `ValueError`.
        """
        known = {figure.name: figure for figure in self.figures}
        chosen = [known.get(f, f) if isinstance(f, str) else f for f in wanted or self.figures]
        if unknown := [f for f in chosen if isinstance(f, str)]:
            raise ValueError(
                f"Expected figures of the kind {self.kind.name}: {', '.join(known)}. "
                f"Received: {', '.join(unknown)}"
            )
        return [each for figure in chosen for each in figure.of(scale)]

    def main_table(self, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """The numbers of all metrics, a row per place: see `tables.place_table`."""
        return tables.place_table(frame, scale, self.metrics)

    def summary(self, table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """The main table in short, as text; `tables.notes` explains its marks."""
        return self._block(table, scale, self.summarized)

    def sections(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        """The tables of a page, with their explanations."""
        block = self.summary(table, scale)
        return [tables.markdown(block), tables.listed(tables.notes(block))]

    def numbers(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        """The table with all numbers, and the meaning of its columns."""
        block = self._block(table, scale, self.metrics).assign(
            seeds=table["seeds"].astype(str).tolist(),
            diverged=table["diverged"].astype(str).tolist(),
            rate=[tables.rate_text(row) for row in table.itertuples()],
            FLOPs=[f"{flops:.3g}" for flops in table["flops"]],
        )
        block.loc[(table["seeds"] == 0).tolist(), ["seeds", "diverged", "rate", "FLOPs"]] = (
            tables.MISSING
        )
        names = [tables.row_name(*place) for place in scale.places]
        return [tables.markdown(block, names=names), tables.listed(list(self.columns))]

    def protocol(self, scale: Scale) -> str:
        """The protocol of a scale in words: data, training, tuning, report."""
        tuning = ""
        if scale.learning_rates:
            grid = tables.grid_text(scale.learning_rates)
            per = " and ".join(["arm", *(axis.replace("_", " ") for axis in scale.varied)])
            metric, size = self.kind.judge("selection").label, scale.selection_train_size
            size = f", with {size:,} training {scale.kind.examples_of(scale)}" if size else ""
            tuning = (
                f" Learning rate: chosen from {grid} per {per}, on the {metric} of "
                f"{tables.seeds(scale.selection_seeds)}{size}."
            )
        return (
            f"Data: {tables.escaped(told(scale, 'dataset'))}, "
            f"{told(scale, 'train_size')} training, {told(scale, 'validation_size')} validation "
            f"and {told(scale, 'test_size')} test {scale.kind.examples_of(scale)}. "
            f"{self.training(scale)}"
            f"{tuning} Report: {tables.seeds(scale.report_seeds)}"
            f"{_headline(scale)}, of which none is a selection seed."
        )

    def training(self, scale: Scale) -> str:
        """The networks and their training in words, for the protocol."""
        return f"Training: {told(scale, 'epochs')} epochs, batches of {told(scale, 'batch_size')}."

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        """What a reader must know of the numbers in the main table."""
        return [
            "Intervals are over seeds. The metric says what a diverged run counts as.",
            "Costs are counted, not measured.",
        ]

    def _block(self, table: pd.DataFrame, scale: Scale, metrics: tuple[str, ...]) -> pd.DataFrame:
        axes = {axis: self.kind.label(axis) for axis in scale.varied}
        if len(scale.arms) > 1 or not axes:
            axes = {"arm": "arm"} | axes
        rows = []
        for row in table.itertuples():
            cells = {axes[name]: str(getattr(row, name)) for name in axes}
            if "arm" in axes:
                cells["arm"] = scale.arm(row.arm).label
            for name in metrics:
                label = self.kind.metric(name).label
                cells[label] = tables.average_text(row, name) if row.seeds else tables.MISSING
            if row.seeds:
                cells[self.kind.metric(metrics[0]).label] += tables.mark(row, scale)
            rows.append(cells)
        return pd.DataFrame(rows)

    def _against_axis(self, frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
        metric, styles = self.kind.metric(), figures.looks(scale)
        drawing, stacked = figures.stack(frame, scale, axis)
        for (ax,), rows, values in stacked:
            for name, runs in rows.groupby("arm", sort=False):
                shown = metric.factor * runs.set_index(axis)[metric.name]
                middle = partial(tables.average_interval, some_failed=_fails(runs, scale))
                figures.draw_line(ax, scale, axis, shown, styles[name], middle)
            ax.set(ylabel=self.title, title=figures.combination_label(values, scale))
        ax.legend(**figures.BELOW, ncols=3)
        return drawing

    def _rate_sensitivity(self, frame: pd.DataFrame, scale: Scale) -> Drawing:
        metric = self.kind.judge("selection")
        arms = [arm.name for arm in scale.arms if arm.rates]
        drawing, panels = figures.grid(scale, "learning rate", metric.label, arms)
        figures.draw_rates(panels, frame, scale)
        judged = frame[frame["role"] == "selection"][metric.name].dropna()
        if len(judged) and 0 < _WIDE * judged.min() < judged.max():
            for ax in panels.values():
                ax.set_yscale("log")
                figures.ticks(ax.yaxis, LogLocator(subs=(1, 3)))
        return drawing


def _fails(runs: pd.DataFrame, scale: Scale) -> bool:
    return failed(runs, scale.kind.metric(), scale).any()


def _headline(scale: Scale) -> str:
    if not scale.headline_arms:
        return ""
    values = ", ".join(
        f"{axis} {', '.join(map(str, each))}" for axis, each in scale.headline_axes.items()
    )
    arms = " and ".join(scale.arm(name).label for name in scale.headline_arms)
    return f" ({scale.headline_seeds} for the headline, {arms}{' at ' * bool(values)}{values})"
