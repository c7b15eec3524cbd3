"""What tables of all kinds share: a row per place, marks, and numbers as text."""

import math
import re
from collections.abc import Iterable

import pandas as pd

from studies.engine.scale import Grid, Place, Scale
from studies.kinds.kind import Metric
from studies.report import fairness
from studies.report.frame import by_place, failed, reported
from studies.report.statistics import Interval, mean_interval, median_interval

MISSING = "X"
COUNTS = ("seeds", "diverged", "failed")
NOT_APPLICABLE = "–"
_NOTES = {
    "±": "half of the 95 % t interval over seeds",
    "(n)": "only n seeds have been run so far",
    "k of n failed": "k of n runs diverged or ended at chance; the number is the median of the "
    "runs, since their mean would only say how many runs failed",
    "!": "the arm does not train: it is at chance for every learning rate of the grid",
    "†": "the chosen learning rate lies at the edge of the grid",
    MISSING: "missing, not run yet",
}


def place_table(frame: pd.DataFrame, scale: Scale, metrics: tuple[str, ...]) -> pd.DataFrame:
    """Averages of metrics over report seeds, a row per place, in the order of the scale.

    A place without results has a row, too. Columns:

    - `arm` and every axis; `seeds`, `diverged` and `failed` count the report runs;
    - every metric, as it is shown, with the bounds `_low` and `_high` of its 95 % interval: see
      `average`;
    - `learning_rate`, chosen on other seeds; `rate_at_edge` of the grid: `"lowest"`, `"highest"` or
      empty; `pretraining_rate` and `pretraining_rate_at_edge` alike, if any arm is pretrained;
      `flops` of a run.
    """
    rows = []
    for place, cell in by_place(frame, scale).items():
        runs = reported(cell)
        row = dict(zip(("arm", *scale.axes), place, strict=True)) | counts(runs, scale)
        for name in metrics:
            metric = scale.kind.metric(name)
            row |= interval_values(name, average(runs, metric, scale), metric.factor)
        rows.append(
            row | rate_values(cell, scale, place) | {"flops": runs["flops"].astype(float).mean()}
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(COUNTS, "Int64"))


def counts(runs: pd.DataFrame, scale: Scale) -> dict:
    """How many runs there are, and how many diverged or learned nothing."""
    numbers = len(runs), (runs["status"] == "diverged").sum()
    return dict(
        zip(COUNTS, [*numbers, failed(runs, scale.kind.metric(), scale).sum()], strict=True)
    )


def average(runs: pd.DataFrame, metric: Metric, scale: Scale) -> Interval:
    """The mean of runs with Student's t interval; where a run failed, the median with its interval.

    With a few runs at chance, a t interval of the mean covers half of what it claims.
    """
    some_failed = failed(runs, scale.kind.metric(), scale).any()
    return average_interval(runs[metric.name].dropna(), some_failed)


def average_interval(values, some_failed: bool) -> Interval:
    """The interval of the mean of values, or of their median if some are of runs that failed."""
    return median_interval(values) if some_failed else mean_interval(values)


def interval_values(name: str, interval: Interval, factor: float = 1) -> dict[str, float]:
    """An interval as three columns."""
    return {
        name: factor * interval.estimate,
        f"{name}_low": factor * interval.low,
        f"{name}_high": factor * interval.high,
    }


def rate_values(cell: pd.DataFrame, scale: Scale, place: Place) -> dict:
    """The chosen rates of a place, and at which end of its grid each of them lies."""
    found = {}
    for name, grid in fairness.grids(scale, place).items():
        rate = cell.loc[cell["chosen"], name].max() or math.nan
        edge = f"{name.removeprefix('learning_')}_at_edge"
        found |= {name: rate, edge: fairness.end_of_grid(rate, grid)}
    return found


def mark(row, scale: Scale) -> str:
    """The marks behind a number: the seeds so far, and what is wrong with its learning rate."""
    place = (row.arm, *(getattr(row, axis) for axis in scale.axes))
    count = f" ({row.seeds})" if row.seeds < len(scale.seeds(place)) else ""
    return count + ("!" if getattr(row, "trains", "") == "no" else "†" * bool(row.rate_at_edge))


def notes(block: pd.DataFrame) -> list[str]:
    """Explain the marks that stand in a block of text, behind its first column, and no others."""
    text = " ".join(block.iloc[:, 1:].astype(str).to_numpy().ravel())
    marks = {mark: "failed" if "failed" in mark else mark[0] for mark in _NOTES}
    return [f"{mark}: {note}" for mark, note in _NOTES.items() if marks[mark] in text]


def listed(lines: list[str]) -> str:
    """Lines as a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def seeds(n: int) -> str:
    """A number of seeds in words."""
    return f"{n} seed" if n == 1 else f"{n} seeds"


def average_text(row, name: str) -> str:
    """The average of a metric in a row of a table: the mean ± half its interval, or the median."""
    value, high = getattr(row, name), getattr(row, f"{name}_high")
    if row.failed:
        return f"{value:.2f}; {row.failed} of {row.seeds} failed"
    return mean_text(value, high)


def mean_text(mean: float, high: float) -> str:
    """A mean ± half its interval, as text."""
    if math.isnan(mean):
        return NOT_APPLICABLE
    return f"{mean:.2f}" if math.isnan(high) else f"{mean:.2f} ± {high - mean:.2f}"


def bounds_text(mean: float, low: float, high: float) -> str:
    """A difference with its interval, as text."""
    if math.isnan(mean):
        return NOT_APPLICABLE
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def rate_text(row) -> str:
    """A chosen learning rate, with a remark if it is at the edge or does not train."""
    if math.isnan(row.learning_rate):
        return NOT_APPLICABLE
    remark = "does not train" if getattr(row, "trains", "") == "no" else row.rate_at_edge
    return f"{row.learning_rate:g}" + (f" ({remark})" if remark else "")


def grid_text(grid: Grid) -> str:
    """The rates of a grid, by optimizer if each optimizer has its own."""
    if isinstance(grid, dict):
        return "; ".join(f"{grid_text(rates)} for {name}" for name, rates in grid.items())
    return ", ".join(f"{rate:g}" for rate in grid)


def to_csv(table: pd.DataFrame) -> str:
    """The table as CSV, floats to 6 significant digits."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def plain(block: pd.DataFrame) -> str:
    """A block of text in aligned columns, for a terminal."""
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(block))


def markdown(block: pd.DataFrame, numbers: bool = True, names: Iterable[str] = ()) -> str:
    """A block of text as a Markdown table, whose cells may hold links.

    With `numbers`, all columns but the first hold numbers, which stand to the right. `names` has a
    name for each row, for links that lead to the row.
    """
    cells = block.map(_cell).rename(columns=_cell)
    for row, name in enumerate(names):
        cells.iloc[row, 0] = f'<a id="{name}"></a>{cells.iloc[row, 0]}'
    header, *rows = _aligned(cells, numbers)
    end = ":" if numbers else "-"
    rule = ["-" * len(header[0]), *("-" * (len(cell) - 1) + end for cell in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def row_name(*words: object) -> str:
    """The name of a table's row, made of what the row is about."""
    return "-".join(re.sub(r"\W+", "-", str(word).lower()).strip("-") for word in words)


def _cell(text: object) -> str:
    """Text that neither ends its cell nor opens HTML or code."""
    text = re.sub(r"[\\|`]|<(?=[a-zA-Z/!?])", r"\\\g<0>", str(text))
    return re.sub(r"\s*\n\s*", " ", text)


def escaped(text: str) -> str:
    """A name or a title as Markdown that shows it as it is, also within a link."""
    return re.sub(r"[\[\]]", r"\\\g<0>", _cell(text))


def _aligned(block: pd.DataFrame, numbers: bool = True) -> list[list[str]]:
    """Header and rows, every column as wide as its widest cell, numbers to the right."""
    lines = [list(block.columns), *block.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    adjust = str.rjust if numbers else str.ljust
    return [[line[0].ljust(widths[0]), *map(adjust, line[1:], widths[1:])] for line in lines]
