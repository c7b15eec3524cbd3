"""How results of models of the inputs' density are shown: the bound on log p(x), in nats."""

import math
from collections.abc import Callable

import pandas as pd

from studies.analysis import density_figures as draw
from studies.analysis import tables
from studies.analysis.statistics import Interval, mean_interval
from studies.arms import ARMS
from studies.runner.scale import Scale

TITLE = "Test bound (nats)"
FIGURES = {
    draw.bound_against_latents: (
        "Bound on log p(x) against the number of latent variables.",
        "Means with their 95 % t intervals over seeds, per image; the dots are seeds. The "
        "importance-weighted bound of 50 samples (Burda et al. 2016) is nearer to log p(x).",
    ),
    draw.active_units: (
        "Latent variables that are used.",
        "Those whose posterior mean has a variance above 0.01 over the test images. On the gray "
        "line all are used. The dots are seeds.",
    ),
    draw.bound_against_epoch: (
        "Bound against epoch.",
        "Means over seeds: on the validation set after each epoch, and on the training set, the "
        "mean during it.",
    ),
    draw.rate_sensitivity: (
        "Validation bound against learning rate.",
        "Means over the selection seeds. Ringed: the chosen rate, which the reported runs have. "
        "The axis ends at the bound of the mean image: what lies below is worse than that.",
    ),
    draw.samples: (
        "Samples.",
        "Means of p(x | z) for draws of the latent variables from their prior, of the first seed.",
    ),
    draw.latent_grid: (
        "The manifold of two latent variables.",
        "Means of p(x | z) at quantiles of the prior, of the first seed (Kingma and Welling 2013, "
        "figure 4).",
    ),
}
_BOUNDS = ("test_bound", "train_bound", "bound_gap", "test_importance_weighted_bound")
_COLUMNS = """\
- *test*, *training*: bound on log p(x) after the last epoch, mean over images; *gap*: training
  minus test.
- *importance-weighted*: that bound of 50 samples, on the test set.
- *active*: latent variables whose posterior mean has a variance above 0.01 over the test images.
- *rate*: learning rate, chosen on the validation bound of another seed.
- *FLOPs*: of one run."""


def main_table(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """Bounds, a row per arm.

    Args:
        frame: Results, from `records.frame`.
        scale: The scale they belong to.

    Returns:
        A DataFrame in the order of the scale, with a row for what is missing too, of means over
        seeds, each with the bounds of its 95 % t interval:

        - `arm`, `latent`; `seeds` and `diverged` count the report runs;
        - `test_bound`, `train_bound`, `bound_gap` (training minus test) and
          `test_importance_weighted_bound`, in nats; `active_units`, a number;
        - `learning_rate`, chosen on other seeds, `rate_at_edge` of the grid: `"lowest"`,
          `"highest"` or empty; `flops` of a run.
    """
    table = pd.DataFrame(_row(frame[frame["arm"] == arm], arm, scale) for arm in scale.arms)
    return table.astype(dict.fromkeys(["latent", "seeds", "diverged"], "Int64"))


def summary(table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """The main table as text: mean ± half the interval."""
    return pd.DataFrame([_summary_row(row, scale) for row in table.itertuples()])


def notes(block: pd.DataFrame) -> list[str]:
    """Explain the marks that stand in a `summary`, and only those."""
    return tables.notes(block)


def figures(scale: Scale) -> dict[Callable, tuple[str, str]]:
    """The figures of a scale with title and caption, the headline's first."""
    return FIGURES


def sections(table: pd.DataFrame, scale: Scale) -> list[str]:
    """The table of bounds."""
    block = summary(table, scale)
    return [tables.markdown(block), "\n".join(f"- {note}" for note in notes(block))]


def numbers(table: pd.DataFrame) -> list[str]:
    """The table with everything, and what its columns mean."""
    block = pd.DataFrame([_long_row(row) for row in table.itertuples()])
    return [tables.markdown(block), _COLUMNS]


def protocol(scale: Scale) -> str:
    """What was done, in words."""
    rates = ", ".join(f"{rate:g}" for rate in scale.learning_rates)
    return (
        f"Data: {scale.dataset}, {scale.train_size:,} training, {scale.validation_size:,} "
        f"validation and {scale.test_size:,} test images, pixels in [0, 1] as means of Bernoulli "
        f"variables. Networks: a hidden layer of {scale.width} tanh units in the encoder and one "
        f"in the decoder. Training: {scale.epochs} epochs of Adam, batches of {scale.batch_size}, "
        "one draw of the latent variables per image and step, learning rate chosen from "
        f"{rates} per number of latent variables, on the validation bound of "
        f"{tables.seeds(scale.selection_seeds)}. Report: {tables.seeds(scale.report_seeds)}, none "
        "of them among those, after the last epoch."
    )


def caveats(scale: Scale) -> list[str]:
    """What must be known to read the numbers."""
    return [
        "The bound is that of a density on {0, 1} for each pixel, taken at gray values: it is to "
        "be compared with others so taken, and not with those of binarized images.",
        "Intervals are over seeds: initial weights, batch order and split. A diverged run counts "
        "as the bound of the mean image.",
        "With a fixed number of epochs, a model that learns more slowly is read earlier: see the "
        "bound against epoch.",
        "Cost is counted, not measured: 2 FLOPs per multiply-add, training three times the "
        "forward pass.",
    ]


def _row(runs: pd.DataFrame, arm: str, scale: Scale) -> dict:
    reported = runs[runs["role"] == "report"]
    chosen = runs.loc[runs["chosen"], "learning_rate"]
    rate = chosen.iloc[0] if len(chosen) else math.nan
    intervals = {name: mean_interval(reported[name]) for name in (*_BOUNDS, "active_units")}
    return {
        "arm": arm,
        "latent": ARMS[arm].objective["latent"],
        "seeds": len(reported),
        "diverged": (reported["status"] == "diverged").sum(),
        **{k: v for name, interval in intervals.items() for k, v in _bounds(name, interval)},
        "learning_rate": rate,
        "rate_at_edge": tables.edge(rate, scale.learning_rates),
        "flops": reported["flops"].mean(),
    }


def _bounds(name: str, interval: Interval) -> list[tuple[str, float]]:
    return [
        (name, interval.estimate),
        (f"{name}_low", interval.low),
        (f"{name}_high", interval.high),
    ]


def _summary_row(row, scale: Scale) -> dict:
    mark = "†" if row.rate_at_edge else ""
    count = f" ({row.seeds})" if row.seeds < len(scale.seeds(row.arm, 1)) else ""
    cells = {
        "test": tables.mean_text(row.test_bound, row.test_bound_high) + count + mark,
        "training": tables.mean_text(row.train_bound, row.train_bound_high),
        "gap": tables.mean_text(row.bound_gap, row.bound_gap_high),
        "active": tables.mean_text(row.active_units, row.active_units_high),
    }
    if not row.seeds:
        cells = dict.fromkeys(cells, tables.MISSING)
    return {"latent variables": str(row.latent), **cells}


def _long_row(row) -> dict:
    weighted = row.test_importance_weighted_bound, row.test_importance_weighted_bound_high
    cells = {
        "test": tables.mean_text(row.test_bound, row.test_bound_high),
        "training": tables.mean_text(row.train_bound, row.train_bound_high),
        "gap": tables.mean_text(row.bound_gap, row.bound_gap_high),
        "importance-weighted": tables.mean_text(*weighted),
        "active": tables.mean_text(row.active_units, row.active_units_high),
        "seeds": str(row.seeds),
        "diverged": str(row.diverged),
        "rate": f"{row.learning_rate:g}" + (f" ({row.rate_at_edge})" if row.rate_at_edge else ""),
        "FLOPs": f"{row.flops:.3g}",
    }
    if not row.seeds:
        cells = dict.fromkeys(cells, tables.MISSING)
    return {"arm": row.arm} | cells
