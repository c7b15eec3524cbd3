"""How results of classification are shown: test error, at equal epochs and at equal cost."""

import math

import pandas as pd

from studies.engine.scale import Scale
from studies.kinds.classification import figures as draw
from studies.report import tables
from studies.report.figures import told
from studies.report.frame import by_place, reported
from studies.report.show import Show
from studies.report.statistics import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    median,
    outperforming,
    paired_interval,
    sampling_error,
)

_EQUAL_COST = """\
Controls are trained on, at their chosen rate, to the total cost of the pretrained arm that they are
compared with; each net is read where its validation error is lowest. Pretrained arms are as above;
arms that are compared with no pretrained arm are left out."""


class ClassificationShow(Show):
    """Test errors by arm (rows) and axis (columns), differences from controls, and costs."""

    title = "Test error %"
    figures = (
        draw.error_against_axis,
        draw.error_over_seeds,
        draw.nll_trajectories,
        draw.error_over_epochs,
        draw.error_against_cost,
        draw.rate_sensitivity,
        draw.tuning_budget,
    )
    columns = (
        "*error %*: at the epoch of the lowest validation error; *last epoch %*: at the last one. "
        "A diverged run counts as chance error.",
        "*points from control*: error minus that of the control with the same seed, with its "
        "interval.",
        "*rate*: learning rate, chosen on the validation error of other seeds.",
        "*FLOPs*: of one run, the pretraining of its layers in full.",
        "*at equal cost*: a control, trained on to the cost of the pretrained arm; for a "
        "pretrained arm, its error minus that of its control so trained.",
        "A – does not apply.",
    )

    def main_table(self, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """Test error and cost, a row per place.

        Args:
            frame: Results, from `frame.frame`.
            scale: The scale they belong to.

        Returns:
            A DataFrame in the order of the scale, with a row for what is missing too. Errors are in
            percent, differences in points of percent, each with the bounds of its 95 % t interval
            over seeds:

            - `arm`, `family`, every axis; `seeds` and `diverged` count the report runs;
            - `error`, at the epoch of the lowest validation error; `median` and `iqm`, the
              interquartile mean, of the same errors, with bootstrap intervals; `final_error`, at
              the last epoch;
            - `control` of the arm; `pairs`, `difference`: error minus that of the control with the
              same seed; `outperforms`: probability of being lower, with its exact interval, of the
              pairs that are no `ties`;
            - `learning_rate`, chosen on other seeds; `rate_at_edge` of the grid: `"lowest"`,
              `"highest"` or empty; `trains`: whether any rate of the grid beats chance;
              `pretraining_rate`;
            - `flops` of a run, its pretraining in full;
            - `equal_cost_error`, `equal_cost_flops`: what a control reaches when trained on to the
              cost of the pretrained arm; `equal_cost_difference`: a pretrained arm's error minus
              that.
        """
        cells = by_place(frame, scale)
        table = pd.DataFrame(_row(cells, scale, place) for place in scale.places)
        integers = [axis for axis in scale.axes if scale.kind.axes[axis] is int]
        columns = [*integers, "seeds", "diverged", "pairs", "ties"]
        return table.astype(dict.fromkeys(columns, "Int64"))

    def summary(self, table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        return error_block(table, scale)

    def sections(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        """The table at equal epochs, and that at equal cost if any control is trained on to it."""
        epochs, cost = error_block(table, scale), error_block(table, scale, equal_cost=True)
        marks = tables.listed(tables.notes(epochs))
        parts = ["### At equal epochs", tables.markdown(epochs), marks]
        if len(cost):
            parts += ["### At equal cost", _EQUAL_COST, tables.markdown(cost)]
        return parts

    def numbers(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        block = pd.DataFrame([_long_row(row, scale) for row in table.itertuples()])
        return [tables.markdown(block), tables.listed(list(self.columns))]

    def training(self, scale: Scale) -> str:
        optimizers = " or ".join(dict.fromkeys(_optimizer(arm.optimizer) for arm in scale.arms))
        return (
            f"Networks: {told(scale, 'width')} units in every hidden layer. Training: "
            f"{told(scale, 'epochs')} epochs of {optimizers}, batches of "
            f"{told(scale, 'batch_size')}.{_pretraining(scale)}"
        )

    def caveats(self, scale: Scale) -> list[str]:
        sampling = 100 * sampling_error(0.05, scale.test_size)
        return [
            "Intervals are over seeds: initial weights, batch order and split. That the test set "
            f"is a sample comes on top: with {scale.test_size:,} test images, the standard error "
            f"of an error of 5 % is {sampling:.2f} points.",
            "Learning rates are tuned for every arm alike; the settings of pretraining, but for "
            "its rate, are not tuned.",
            "Cost is counted, not measured: 2 FLOPs per multiply-add, training three times the "
            "forward pass, every layer's pretraining in full, though runs share it.",
        ]


def error_block(table: pd.DataFrame, scale: Scale, equal_cost: bool = False) -> pd.DataFrame:
    """Error % by arm (rows) and axis values (columns), as text: mean ± half the interval.

    Args:
        table: From `ClassificationShow.main_table`.
        scale: The scale it belongs to.
        equal_cost: Whether controls are trained on to the cost of their pretrained arms. Arms that
            have no part in such a comparison are left out.

    Returns:
        A DataFrame of text, whose marks `tables.notes` explains.
    """
    names = [n for n in scale.arm_names if not equal_cost or _has_equal_cost(n, scale)]
    rows = []
    for name in names:
        cells = {"arm": name}
        for row in table[table["arm"] == name].itertuples():
            label = ", ".join(
                f"{axis.replace('_', ' ')} {getattr(row, axis)}" for axis in scale.axes
            )
            longer = equal_cost and not scale.arm(name).objective
            cells[label or "error"] = _error_text(
                row, scale, "equal_cost_error" if longer else "error"
            )
        rows.append(cells)
    return pd.DataFrame(rows)


def _has_equal_cost(name: str, scale: Scale) -> bool:
    control = scale.arm(name).control if scale.arm(name).objective else name
    return control in scale.arm_names and scale.arm(control).matches_cost_of in scale.arm_names


def _row(cells: dict[tuple, pd.DataFrame], scale: Scale, place: tuple) -> dict:
    arm, cell = scale.arm(place[0]), cells[place]
    control = arm.control if arm.control in scale.arm_names else ""
    runs = reported(cell).set_index("seed")
    controls = reported(cells.get((control, *place[1:]), cell[:0])).set_index("seed")
    errors, difference = runs["test_error"], _paired(runs["test_error"], controls["test_error"])
    interval = tables.interval_values
    return {
        "arm": arm.name,
        "family": arm.family,
        **dict(zip(scale.axes, place[1:], strict=True)),
        **tables.counts(runs),
        **interval("error", mean_interval(errors), 100),
        **interval("median", bootstrap_interval(median, errors), 100),
        **interval("iqm", bootstrap_interval(interquartile_mean, errors), 100),
        "final_error": 100 * runs["final_test_error"].mean(),
        "control": control,
        "pairs": difference.n,
        **interval("difference", difference, 100),
        **_outperforms(errors, controls["test_error"]),
        **tables.rate_values(cell, scale),
        "trains": _trains(cell[cell["role"] == "selection"], scale),
        "pretraining_rate": _pretraining_rate(cell) if arm.objective else math.nan,
        "flops": runs["flops"].mean(),
        **_equal_cost(runs, controls, bool(arm.objective)),
    }


def _both(errors: pd.Series, controls: pd.Series) -> tuple:
    """The errors of the seeds that both have."""
    return pd.concat([errors, controls], axis=1, join="inner").to_numpy().T


def _paired(errors: pd.Series, controls: pd.Series) -> Interval:
    return paired_interval(*_both(errors, controls))


def _outperforms(errors: pd.Series, controls: pd.Series) -> dict:
    first, second = _both(errors, controls)
    if not len(first):
        return dict.fromkeys(("outperforms", "outperforms_low", "outperforms_high", "ties"))
    found = outperforming(first, second)
    return tables.interval_values("outperforms", found.interval) | {"ties": found.ties}


def _trains(selection: pd.DataFrame, scale: Scale) -> str:
    if selection.empty:
        return ""
    metric = scale.kind.judge("selection")
    errors = selection.groupby("learning_rate")[metric.name].mean()
    if (errors < metric.at_chance(scale.shape(selection["dataset"].iloc[0])[1])).any():
        return "yes"
    return "no" if len(errors) == len(scale.learning_rates) else ""


def _pretraining_rate(cell: pd.DataFrame) -> float:
    chosen = cell[cell["chosen"]]
    return chosen["pretraining_rate"].iloc[0] if len(chosen) else math.nan


def _equal_cost(runs: pd.DataFrame, controls: pd.DataFrame, pretrained: bool) -> dict:
    """A control's own error at equal cost, and a pretrained arm's distance from its control's."""
    longer = runs["equal_cost_test_error"].dropna()
    reached = (
        controls["equal_cost_test_error"].dropna() if pretrained else controls["test_error"][:0]
    )
    difference = _paired(runs["test_error"], reached)
    return {
        **tables.interval_values("equal_cost_error", mean_interval(longer), 100),
        "equal_cost_flops": runs["equal_cost_flops"].mean(),
        **tables.interval_values("equal_cost_difference", difference, 100),
    }


def _error_text(row, scale: Scale, name: str) -> str:
    if not row.seeds:
        return tables.MISSING
    mean, high = getattr(row, name), getattr(row, f"{name}_high")
    return tables.mean_text(mean, high) + tables.mark(row, scale)


def _long_row(row, scale: Scale) -> dict:
    def bounds(name: str) -> str:
        return tables.bounds_text(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high")))

    cells = {
        "error %": tables.mean_text(row.error, row.error_high),
        "last epoch %": f"{row.final_error:.2f}",
        "seeds": str(row.seeds),
        "diverged": str(row.diverged),
        "control": row.control or tables.NOT_APPLICABLE,
        "points from control": bounds("difference"),
        "pairs": str(row.pairs) if row.pairs else tables.NOT_APPLICABLE,
        "rate": tables.rate_text(row),
        "FLOPs": f"{row.flops:.3g}",
        "error % at equal cost": tables.mean_text(row.equal_cost_error, row.equal_cost_error_high),
        "FLOPs at equal cost": f"{row.equal_cost_flops:.3g}",
        "points from control at equal cost": bounds("equal_cost_difference"),
    }
    if not row.seeds:
        cells = dict.fromkeys(cells, tables.MISSING)
    shown = {k: tables.NOT_APPLICABLE if text == "nan" else text for k, text in cells.items()}
    return {"arm": row.arm} | {axis: str(getattr(row, axis)) for axis in scale.axes} | shown


def _optimizer(name: str) -> str:
    return {"sgd": "plain SGD"}.get(name, name.capitalize())


def _pretraining(scale: Scale) -> str:
    if not any(arm.objective for arm in scale.arms):
        return ""
    rates = ", ".join(f"{rate:g}" for rate in scale.pretraining_rates)
    epochs = f" Pretraining: {scale.pretraining_epochs} epochs per layer of plain SGD, at"
    if len(scale.pretraining_rates) == 1:
        return f"{epochs} a rate of {rates}."
    return (
        f"{epochs} the rate of {rates} whose worst layer reconstructs its input best, on "
        "validation images, which asks for no labels."
    )
