"""How results of classification are shown: test error, at equal epochs and at equal cost."""

import math

import numpy as np
import pandas as pd

from studies.engine.scale import Scale
from studies.kinds.classification import LEAST_EPOCH
from studies.kinds.classification import figures as draw
from studies.kinds.classification.correctness import unpacked
from studies.kinds.classification.layers import CONVOLUTIONAL, DENSE, KERNEL
from studies.report import fairness, statistics, tables
from studies.report.figures import combination_label, told
from studies.report.forest import forest
from studies.report.frame import by_place, failed, reported
from studies.report.gains import gain_against_axis
from studies.report.show import Show


class ClassificationShow(Show):
    """Test errors by arm (rows) and axis (columns), differences from controls, and costs."""

    title = "Test error %"
    figures = (
        draw.error_against_axis,
        draw.error_over_seeds,
        gain_against_axis,
        forest,
        draw.nll_trajectories,
        draw.error_over_epochs,
        draw.error_against_cost,
        draw.rate_sensitivity,
        draw.tuning_budget,
        draw.filters,
    )
    columns = (
        "*error %*: the error at the epoch of the lowest validation error; *last epoch %*: the "
        "error at the last epoch. A diverged run counts as chance error. Where a run failed, the "
        "number is a median; so is the number of points from a control.",
        "*points from control*: the error minus the error of the control with the same seed, with "
        "its interval.",
        "*rate*: the learning rate, which was chosen on the validation error of other seeds.",
        "*FLOPs*: the cost of one run, with the pretraining of its layers in full.",
        "A – stands where a column does not apply.",
    )

    def main_table(self, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """Test error and cost, a row per place, in the order of the scale, with runs or without.

        Errors are in percent, differences in points, with 95 % intervals over seeds. There are the
        columns of `tables.place_table`, and:

        - `error`, at the epoch of the lowest validation error; `median` and `iqm` (interquartile
          mean) of the same errors; `final_error`, at the last epoch;
        - `difference`: error minus that of the `control` with the same seed, over `pairs`; where a
          run of either failed, its median, as for `error`; `sampling_error`: the standard error of
          the difference that comes from the test set, where records say which images were right;
          `outperforms`: probability of being lower, over the pairs that are no `ties`;
        - `trains`: whether any rate of the grid beats chance.
        """
        cells = by_place(frame, scale)
        table = pd.DataFrame(_row(cells, scale, place) for place in scale.places)
        integers = [axis for axis in scale.axes if scale.kind.axes[axis] is int]
        columns = [*integers, *tables.COUNTS, "pairs", "ties"]
        return table.astype(dict.fromkeys(columns, "Int64"))

    def summary(self, table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        return error_block(table, scale)

    def sections(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        """The table of errors, and the meaning of its marks."""
        block = self.summary(table, scale)
        return [tables.markdown(block), tables.listed(tables.notes(block))]

    def numbers(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        block = pd.DataFrame([_long_row(row, scale) for row in table.itertuples()])
        names = [tables.row_name(*place) for place in scale.places]
        return [tables.markdown(block, names=names), tables.listed(list(self.columns))]

    def training(self, scale: Scale) -> str:
        names = [
            {"sgd": "plain SGD"}.get(a.optimizer, a.optimizer.capitalize()) for a in scale.arms
        ]
        optimizers = " or ".join(dict.fromkeys(names))
        return (
            f"Networks: {_network_words(scale)}. Training: "
            f"{told(scale, 'epochs')} epochs of {optimizers}, batches of "
            f"{told(scale, 'batch_size')}.{_label_words(scale)}{pretraining_words(scale)}"
        )

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        sampling = 100 * statistics.sampling_error(0.05, scale.test_size)
        return [
            "Intervals are over seeds: initial weights, batch order and split. They do not count "
            f"that the test set is a sample: with {scale.test_size:,} test "
            f"{scale.kind.examples_of(scale)}, an error of 5 % has a standard error of "
            f"{sampling:.2f} "
            f"points.{_of_differences(table, scale)}",
            "Learning rates are tuned for every arm alike. Of the settings of pretraining, only "
            "the rate is tuned.",
            "Costs are counted, not measured: 2 FLOPs per multiply-add; a step of training counts "
            "as three forward passes. The pretraining of every layer counts in full, though runs "
            "share it.",
        ]


# More columns do not fit on a page.
_MOST_COLUMNS = 8


def error_block(table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Error % by arm (rows) and axis values (columns), as text: mean ± half the interval.

    Many axis values are rows, and the arms are columns.
    """
    rows = []
    for name in scale.arm_names:
        cells = {"arm": scale.arm(name).label}
        for row in table[table["arm"] == name].itertuples():
            label = combination_label({axis: getattr(row, axis) for axis in scale.axes}, scale)
            cells[label or "error"] = _error_text(row, scale)
        rows.append(cells)
    # An arm need not be run at all axis values.
    block = pd.DataFrame(rows).fillna(tables.NOT_APPLICABLE)
    if len(block.columns) <= _MOST_COLUMNS + 1:
        return block
    turned = block.set_index("arm").T
    return turned.rename_axis(columns=None).rename_axis("at").reset_index()


def _row(cells: dict[tuple, pd.DataFrame], scale: Scale, place: tuple) -> dict:
    arm, cell = scale.arm(place[0]), cells[place]
    control = arm.control if arm.control in scale.arm_names else ""
    runs = reported(cell).set_index("seed")
    controls = reported(cells.get((control, *place[1:]), cell[:0])).set_index("seed")
    errors, interval = runs["test_error"], tables.interval_values
    metric, final = scale.kind.metric(), scale.kind.metric("final_test_error")
    some_failed = any(failed(each, metric, scale).any() for each in (runs, controls))
    both = np.subtract(*_both(errors, controls["test_error"]))
    difference = tables.average_interval(both, some_failed)
    return {
        "arm": arm.name,
        "family": arm.family,
        **dict(zip(scale.axes, place[1:], strict=True)),
        **tables.counts(runs, scale),
        **interval("error", tables.average(runs, metric, scale), 100),
        **interval("median", statistics.median_interval(errors), 100),
        **interval(
            "iqm", statistics.bootstrap_interval(statistics.interquartile_mean, errors), 100
        ),
        "final_error": 100 * tables.average(runs, final, scale).estimate,
        "control": control,
        "pairs": difference.n,
        **interval("difference", difference, 100),
        "sampling_error": 100 * _sampling_error(runs, controls),
        **_outperforms(errors, controls["test_error"]),
        **tables.rate_values(cell, scale, place),
        "trains": _trains(cell, scale),
        "flops": runs["flops"].mean(),
    }


def _network_words(scale: Scale) -> str:
    # A study that does not vary a field of its trials says nothing of it: they have the default.
    depth, filters = (
        told(scale, name) if name in scale.axes else getattr(scale.kind.trial, name)
        for name in ("depth", "filters")
    )
    words = {
        DENSE: f"{depth} hidden layers of {told(scale, 'width')} units",
        CONVOLUTIONAL: f"{depth} convolutions of {filters} filters of {KERNEL} x {KERNEL} pixels, "
        "with a max pooling of 2 x 2 pixels behind the first and behind the second",
    }
    return ", or ".join(words[each] for each in scale.axes.get("network", (DENSE,)))


def _label_words(scale: Scale) -> str:
    """How nets are trained with few labels, as sentences; empty if all images have labels."""
    if "labeled" not in scale.axes:
        return ""
    return (
        f" Of the training images, {told(scale, 'labeled')} have labels. Training with fewer than "
        f"{LEAST_EPOCH:,} labels repeats the labeled images until an epoch has at least "
        f"{LEAST_EPOCH:,} examples, so that an epoch has about as many updates. Pretraining sees "
        "all training images."
    )


def _both(errors: pd.Series, controls: pd.Series) -> tuple:
    """The errors and the controls' errors of the seeds that both have."""
    return pd.concat([errors, controls], axis=1, join="inner").to_numpy().T


def _sampling_error(runs: pd.DataFrame, controls: pd.DataFrame) -> float:
    """The standard error of a difference that comes from the test set; NaN if it is not known."""
    right = [_right(each) for each in (runs, controls)]
    known = all(each is not None for each in right)
    return statistics.difference_sampling_error(*right) if known else math.nan


def _right(runs: pd.DataFrame) -> np.ndarray | None:
    """Which test images the runs got right, of shape `(seeds, images)`; `None` if not stored."""
    texts = list(runs.get("correct", ()))
    # Records of earlier versions, and runs that diverged, do not say.
    if not texts or not all(isinstance(text, str) for text in texts):
        return None
    return np.stack([unpacked(text, int(runs["test_size"].iloc[0])) for text in texts])


def _of_differences(table: pd.DataFrame, scale: Scale) -> str:
    """What is known of the test set's part in differences, as a sentence; empty if nothing is."""
    errors = table["sampling_error"].dropna()
    if errors.empty:
        return ""
    low, high = f"{errors.min():.2f}", f"{errors.max():.2f}"
    size = low if low == high else f"{low} to {high}"
    return (
        " An arm and its control are tested on the same "
        f"{scale.kind.examples_of(scale)}, so that their difference has a smaller standard error "
        f"from the test set, of {size} points."
    )


def _outperforms(errors: pd.Series, controls: pd.Series) -> dict:
    both = _both(errors, controls)
    if not both.size:
        return dict.fromkeys(("outperforms", "outperforms_low", "outperforms_high", "ties"))
    found = statistics.outperforming(*both)
    return tables.interval_values("outperforms", found) | {"ties": len(both[0]) - found.n}


def _trains(cell: pd.DataFrame, scale: Scale) -> str:
    trains = fairness.trains(cell[cell["role"] == "selection"], scale)
    # Of a part of the grid, only success says anything.
    return "yes" if trains else "no" if trains is False and cell["chosen"].any() else ""


def _error_text(row, scale: Scale) -> str:
    if not row.seeds:
        return tables.MISSING
    return tables.average_text(row, "error") + tables.mark(row, scale)


def _long_row(row, scale: Scale) -> dict:
    def bounds(name: str) -> str:
        return tables.bounds_text(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high")))

    cells = {
        "error %": tables.average_text(row, "error"),
        "last epoch %": f"{row.final_error:.2f}",
        "seeds": str(row.seeds),
        "diverged": str(row.diverged),
        "control": scale.arm(row.control).label if row.control else tables.NOT_APPLICABLE,
        "points from control": bounds("difference"),
        "pairs": str(row.pairs) if row.pairs else tables.NOT_APPLICABLE,
        "rate": tables.rate_text(row),
        "FLOPs": f"{row.flops:.3g}",
    }
    if not row.seeds:
        cells = dict.fromkeys(cells, tables.MISSING)
    shown = {k: tables.NOT_APPLICABLE if text == "nan" else text for k, text in cells.items()}
    return (
        {"arm": scale.arm(row.arm).label}
        | {axis: str(getattr(row, axis)) for axis in scale.varied}
        | shown
    )


_RULES = {
    "reconstruction": "whose layers reconstruct validation images best in the mean",
    "worst_stage": "whose worst layer reconstructs its input best on validation images",
    "probe": "whose codes a linear classifier tells the classes from best, on validation images",
    "validation": "whose nets have the lowest validation error at the end, each at its best "
    "learning rate{where}",
}


def pretraining_words(scale: Scale) -> str:
    """How arms are pretrained, as a sentence; empty if none is."""
    if not any(arm.objective for arm in scale.arms):
        return ""
    rates, grid = tables.grid_text(scale.pretraining_rates), scale.pretraining_rates
    epochs = f" Pretraining: {scale.pretraining_epochs} epochs per layer, at"
    if isinstance(grid, tuple) and len(grid) == 1:
        return f"{epochs} a rate of {rates}."
    where = "".join(f", at {axis.replace('_', ' ')} {v}" for axis, v in scale.reference.items())
    rules = [_RULES[rule].format(where=where) for rule in scale.axes.get("rule", (scale.rule,))]
    return f"{epochs} the rate of {rates} {', or '.join(rules)}."
