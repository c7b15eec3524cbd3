"""Tables of a study: DataFrame in, DataFrame or text out."""

import math
from dataclasses import replace

import pandas as pd

from studies.analysis.statistics import (
    Interval,
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    median,
    outperforming,
    paired_interval,
)
from studies.arms import ARMS, Arm
from studies.runner.scale import Scale
from studies.runner.selection import chance

MISSING = "X"
NOT_APPLICABLE = "–"
# An arm is at chance if it comes no closer than this to beating it: a net that names the same class
# for every image beats chance by the luck of that class being frequent.
CHANCE_MARGIN = 0.05
_NOTES = {
    "±": "half of the 95 % t interval over seeds",
    "(n)": "n seeds so far, not all",
    "!": "does not train, at chance for every learning rate of the grid",
    "†": "the chosen learning rate lies at the edge of the grid",
    MISSING: "missing, not run yet",
}


def main_table(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Test error and cost, a row per arm and depth.

    Args:
        frame: Results, from `records.frame`.
        scale: The scale they belong to.

    Returns:
        A DataFrame in the order of the scale, with a row for what is missing too. Errors are in
        percent, differences in points of percent, each with the bounds of its 95 % t interval over
        seeds:

        - `arm`, `family`, `depth`; `seeds` and `diverged` count the report runs;
        - `error`, at the epoch of the lowest validation error; `median` and `iqm`, the
          interquartile mean, of the same errors, with bootstrap intervals;
          `final_error`, at the last epoch;
        - `control`: the arm to compare with (see `control_of`); `pairs`, `difference`: error minus
          that of the control with the same seed; `outperforms`: probability of being lower, with
          its exact interval, of the pairs that are no `ties`;
        - `learning_rate`, chosen on other seeds; `rate_at_edge` of the grid: `"lowest"`,
          `"highest"` or empty; `trains`: whether any rate of the grid beats chance;
          `pretraining_rate`;
        - `flops` of a run, its pretraining in full;
        - `equal_cost_error`, `equal_cost_flops`: what a control reaches when trained on to the cost
          of its pretrained neighbor; `equal_cost_difference`: a pretrained arm's error minus that.
    """
    places = [(arm, depth) for arm in scale.arms for depth in scale.depths]
    cells = _cells(frame, places)
    table = pd.DataFrame(_row(cells, scale, arm, depth) for arm, depth in places)
    counts = ["depth", "seeds", "diverged", "pairs", "ties"]
    return table.astype(dict.fromkeys(counts, "Int64"))


def control_of(arm: str) -> str | None:
    """The arm that another is compared with.

    Args:
        arm: Name of an arm.

    Returns:
        For a pretrained arm, the one that equals it but for pretraining; else the first of its
        family. `None` if there is none, or if it is the arm itself.
    """
    peers = [a for a in ARMS.values() if a.family == ARMS[arm].family and not a.pretrained]
    if ARMS[arm].pretrained:
        peers = [a for a in peers if _recipe(a) == _recipe(ARMS[arm])]
    return peers[0].name if peers and peers[0].name != arm else None


def seeds(n: int) -> str:
    """A number of seeds in words."""
    return f"{n} seed" if n == 1 else f"{n} seeds"


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV, floats to 6 significant digits."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def error_block(table: pd.DataFrame, scale: Scale, equal_cost: bool = False) -> pd.DataFrame:
    """Error % by arm (rows) and depth (columns), as text: mean ± half the interval.

    Args:
        table: From `main_table`.
        scale: The scale it belongs to.
        equal_cost: Whether controls are trained on to the cost of their pretrained neighbors. Arms
            that are neither are left out.

    Returns:
        A DataFrame of text, whose marks `notes` explains.
    """
    rows = _at_equal_cost(table) if equal_cost else table
    cells = {(row.arm, row.depth): _error_text(row, scale) for row in rows.itertuples()}
    arms = [arm for arm in scale.arms if not equal_cost or _has_equal_cost(arm, scale)]
    rows = [[arm] + [cells[arm, depth] for depth in scale.depths] for arm in arms]
    return pd.DataFrame(rows, columns=["arm"] + [f"depth {depth}" for depth in scale.depths])


def notes(block: pd.DataFrame) -> list[str]:
    """Explain the marks that stand in an `error_block`, and only those."""
    text = " ".join(block.iloc[:, 1:].to_numpy().ravel())
    return [f"{mark}: {note}" for mark, note in _NOTES.items() if mark[0] in text]


def long_block(table: pd.DataFrame) -> pd.DataFrame:
    """The main table as text, with intervals, costs and differences in one cell each."""
    return pd.DataFrame([_long_row(row) for row in table.itertuples()])


def plain(block: pd.DataFrame) -> str:
    """A block of text in aligned columns, for a terminal."""
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(block))


def markdown(block: pd.DataFrame, numbers: bool = True) -> str:
    """A block of text as a Markdown table.

    Args:
        block: The block.
        numbers: Whether all columns but the first hold numbers, which stand to the right.

    Returns:
        The table.
    """
    header, *rows = _aligned(block, numbers)
    end = ":" if numbers else "-"
    rule = ["-" * len(header[0]), *("-" * (len(cell) - 1) + end for cell in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def _at_equal_cost(table: pd.DataFrame) -> pd.DataFrame:
    """The main table with the errors of controls at equal cost; pretrained arms have but one."""
    control = ~table["arm"].map(lambda arm: ARMS[arm].pretrained)
    columns = {name: f"equal_cost_{name}" for name in ("error", "error_low", "error_high")}
    changed = {name: table[name].mask(control, table[other]) for name, other in columns.items()}
    return table.assign(**changed)


def _has_equal_cost(arm: str, scale: Scale) -> bool:
    control = control_of(arm) if ARMS[arm].pretrained else arm
    return control in scale.arms and ARMS[control].pretrained_neighbor in scale.arms


def _cells(frame: pd.DataFrame, places: list) -> dict[tuple[str, int], pd.DataFrame]:
    """The runs of every arm and depth, those too that have none."""
    found = dict(list(frame.groupby(["arm", "depth"])))
    return {place: found.get(place, frame[:0]) for place in places}


def _row(cells: dict[tuple[str, int], pd.DataFrame], scale: Scale, arm: str, depth: int) -> dict:
    cell, control = cells[arm, depth], control_of(arm)
    control = control if control in scale.arms else ""
    runs, controls = _reported(cell), _reported(cells.get((control, depth), cell[:0]))
    difference = _paired(runs["test_error"], controls["test_error"])
    return {
        "arm": arm,
        "family": ARMS[arm].family,
        "depth": depth,
        "seeds": len(runs),
        "diverged": (runs["status"] == "diverged").sum(),
        **_percent("error", mean_interval(runs["test_error"])),
        **_percent("median", bootstrap_interval(median, runs["test_error"])),
        **_percent("iqm", bootstrap_interval(interquartile_mean, runs["test_error"])),
        "final_error": 100 * runs["final_test_error"].mean(),
        "control": control,
        "pairs": difference.n,
        **_percent("difference", difference),
        **_outperforms(runs["test_error"], controls["test_error"]),
        **_rate(cell, scale, arm),
        "flops": runs["flops"].mean(),
        **_equal_cost(runs, controls, arm),
    }


def _reported(cell: pd.DataFrame) -> pd.DataFrame:
    """The report runs among those of an arm and depth, by seed."""
    return cell[cell["role"] == "report"].set_index("seed")


def _outperforms(errors: pd.Series, controls: pd.Series) -> dict:
    both = pd.concat([errors, controls], axis=1, join="inner").to_numpy()
    if not len(both):
        return dict.fromkeys(("outperforms", "outperforms_low", "outperforms_high", "ties"))
    found = outperforming(both[:, 0], both[:, 1])
    return {
        "outperforms": found.interval.estimate,
        "outperforms_low": found.interval.low,
        "outperforms_high": found.interval.high,
        "ties": found.ties,
    }


def _paired(errors: pd.Series, controls: pd.Series) -> Interval:
    both = pd.concat([errors, controls], axis=1, join="inner").to_numpy()
    return paired_interval(both[:, 0], both[:, 1])


def _percent(name: str, interval: Interval) -> dict:
    return {
        name: 100 * interval.estimate,
        f"{name}_low": 100 * interval.low,
        f"{name}_high": 100 * interval.high,
    }


def _rate(cell: pd.DataFrame, scale: Scale, arm: str) -> dict:
    selection = cell[cell["role"] == "selection"]
    chosen = cell[cell["chosen"]]
    rate = chosen["learning_rate"].iloc[0] if len(chosen) else math.nan
    pretraining_rate = chosen["pretraining_rate"].iloc[0] if len(chosen) else math.nan
    return {
        "learning_rate": rate,
        "rate_at_edge": edge(rate, scale.learning_rates),
        "trains": _trains(selection, scale),
        "pretraining_rate": pretraining_rate if ARMS[arm].pretrained else math.nan,
    }


def edge(rate: float, grid: tuple[float, ...]) -> str:
    """Which end of its grid a rate is: `"lowest"`, `"highest"` or empty."""
    if len(grid) < 2:
        return ""
    return {min(grid): "lowest", max(grid): "highest"}.get(rate, "")


def _trains(selection: pd.DataFrame, scale: Scale) -> str:
    errors = selection.groupby("learning_rate")["validation_error"].mean()
    if (errors < chance(scale.classes) - CHANCE_MARGIN).any():
        return "yes"
    return "no" if len(errors) == len(scale.learning_rates) else ""


def _equal_cost(runs: pd.DataFrame, controls: pd.DataFrame, arm: str) -> dict:
    """A control's own error at equal cost, and a pretrained arm's distance from its control's."""
    longer = runs[runs["extra_epochs"] > 0]
    controls = controls[controls["extra_epochs"] > 0] if ARMS[arm].pretrained else controls[:0]
    difference = _paired(runs["test_error"], controls["equal_cost_test_error"])
    return {
        **_percent("equal_cost_error", mean_interval(longer["equal_cost_test_error"])),
        "equal_cost_flops": longer["equal_cost_flops"].mean(),
        **_percent("equal_cost_difference", difference),
    }


def _recipe(arm: Arm) -> Arm:
    """What is left of an arm when its pretraining and its labels are taken away."""
    return replace(arm, name="", paper="", objective=None, pretrained_neighbor=None, version=1)


def _error_text(row, scale: Scale) -> str:
    if not row.seeds:
        return MISSING
    count = f" ({row.seeds})" if row.seeds < len(scale.seeds(row.arm, row.depth)) else ""
    mark = "!" if row.trains == "no" else "†" if row.rate_at_edge else ""
    return mean_text(row.error, row.error_high) + count + mark


def _long_row(row) -> dict:
    cells = {
        "error %": mean_text(row.error, row.error_high),
        "last epoch %": f"{row.final_error:.2f}",
        "seeds": str(row.seeds),
        "diverged": str(row.diverged),
        "control": row.control or NOT_APPLICABLE,
        "points from control": _bounds_text(
            row.difference, row.difference_low, row.difference_high
        ),
        "pairs": str(row.pairs) if row.pairs else NOT_APPLICABLE,
        "rate": _rate_text(row),
        "FLOPs": f"{row.flops:.3g}",
        "error % at equal cost": mean_text(row.equal_cost_error, row.equal_cost_error_high),
        "FLOPs at equal cost": f"{row.equal_cost_flops:.3g}",
        "points from control at equal cost": _bounds_text(
            row.equal_cost_difference,
            row.equal_cost_difference_low,
            row.equal_cost_difference_high,
        ),
    }
    if not row.seeds:
        cells = dict.fromkeys(cells, MISSING)
    shown = {name: NOT_APPLICABLE if text == "nan" else text for name, text in cells.items()}
    return {"arm": row.arm, "depth": str(row.depth)} | shown


def mean_text(mean: float, high: float) -> str:
    """A mean ± half its interval, as text."""
    return f"{mean:.2f}" if math.isnan(high) else f"{mean:.2f} ± {high - mean:.2f}"


def _bounds_text(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return NOT_APPLICABLE
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _rate_text(row) -> str:
    remark = "does not train" if row.trains == "no" else row.rate_at_edge
    return f"{row.learning_rate:g}" + (f" ({remark})" if remark else "")


def _aligned(block: pd.DataFrame, numbers: bool = True) -> list[list[str]]:
    """Header and rows, every column as wide as its widest cell, numbers to the right."""
    lines = [list(block.columns), *block.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    adjust = str.rjust if numbers else str.ljust
    return [[line[0].ljust(widths[0]), *map(adjust, line[1:], widths[1:])] for line in lines]
