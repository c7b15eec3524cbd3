"""How results of density models are shown: the bound on log p(x), in nats."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from studies.engine.scale import Scale
from studies.kinds.density import ACTIVE, IMPORTANCE_SAMPLES
from studies.kinds.density.equal_bound import gaps_at_equal_bound
from studies.report import figures, tables
from studies.report.figures import figure, told
from studies.report.frame import reported
from studies.report.show import Show
from studies.report.statistics import mean_interval

_BOUNDS = {
    "train_bound": {"label": "training", "color": "#c28500", "marker": "s", "linestyle": "--"},
    "test_bound": {"label": "test", "color": "#0072b2", "marker": "o", "linestyle": "-"},
    "test_importance_weighted_bound": {
        "label": "test, importance-weighted",
        "color": "#009e73",
        "marker": "^",
        "linestyle": ":",
    },
}
_EQUAL_BOUND = """\
With many latent variables, models may still be learning at the last epoch. So two models are also
compared at equal training bound: the lower of their two last training bounds, each at the epoch in
which the model reached that bound. There, the gap between training and validation bound with
{largest} latent variables is wider by"""
_NATS = "bound on log p(x) (nats)"


@figure(
    "Bound on log p(x) against {axis}",
    "Means with their 95 % t intervals over seeds, per image; the dots are seeds. The "
    f"importance-weighted bound of {IMPORTANCE_SAMPLES} samples (Burda et al. 2016) is nearer to "
    "log p(x) than the plain bound on test images.",
    name="bound_against_{axis}",
    column="test_bound",
    metric="test_bound",
)
def bound_against_axis(frame: pd.DataFrame, scale: Scale, axis: str) -> Drawing:
    names = scale.arm_names
    drawing, stacked = figures.stack(frame, scale, axis, len(names))
    for panels, rows, values in stacked:
        for ax, name in zip(panels, names, strict=True):
            runs = rows[rows["arm"] == name].set_index(axis)
            for metric, look in _BOUNDS.items():
                figures.draw_line(ax, scale, axis, runs[metric], look)
            parts = [
                scale.arm(name).label if len(names) > 1 else "",
                figures.combination_label(values, scale),
            ]
            ax.set_title(", ".join(filter(None, parts)))
        panels[0].set_ylabel(_NATS)
    for ax in panels:
        ax.legend(**figures.BELOW, ncols=3)
    return drawing


@figure(
    "Latent variables that are used",
    f"A latent variable is used if its posterior mean has a variance above {ACTIVE} over the "
    "test images. On the gray line, all latent variables are used. The dots are seeds.",
    needs="latent",
    column="active_units",
)
def active_units(frame: pd.DataFrame, scale: Scale) -> Drawing:
    latents, styles = scale.axes["latent"], figures.looks(scale)
    drawing, stacked = figures.stack(frame, scale, "latent")
    for (ax,), rows, values in stacked:
        ax.plot(latents, latents, color="gray", linewidth=1, label="all")
        for name in scale.arm_names:
            active = rows[rows["arm"] == name].set_index("latent")["active_units"]
            figures.draw_line(ax, scale, "latent", active, styles[name] | {"linestyle": "-"})
        title = figures.combination_label(values, scale)
        ax.set(ylabel="active latent variables", title=title, yscale="log")
        figures.ticks(ax.yaxis, [1, 2, 5, 10, 20, 50, 100, 200])
    ax.legend(**figures.BELOW, ncols=2)
    return drawing


@figure(
    "Bound against epoch",
    "Medians over seeds. The bound on the validation set is measured after each epoch; the bound "
    "on the training set is the mean during the epoch.",
)
def bound_against_epoch(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing = Drawing(figsize=(7.5, 4), layout="constrained")
    panels = drawing.subplots(1, 2, sharex=True, sharey=True)
    styles = figures.place_looks(scale)
    titles = {"train_bound": "training", "validation_bound": "validation"}
    done = reported(frame)[reported(frame)["status"] == "done"]
    for ax, (name, title) in zip(panels, titles.items(), strict=True):
        for place, runs in figures.filled(done, scale):
            middle = np.median([np.array(c[name], dtype=float) for c in runs["curves"]], 0)
            x = np.arange(1, len(middle) + 1)
            ax.plot(x, middle, markevery=[len(middle) - 1], **styles[place])
        ax.set(title=title, xlabel="epoch")
    # The low bounds of the first epochs would leave no space for later epochs.
    curves = [line.get_ydata() for line in panels[0].lines]
    if curves:
        panels[0].set_ylim(bottom=min(curve[len(curve) // 8] for curve in curves))
    panels[0].set_ylabel(_NATS)
    _legend(panels[1], scale)
    return drawing


@figure(
    "Validation bound against learning rate",
    "Means over the selection seeds; a vertical line reaches from the best seed to the worst. A "
    "ring marks the chosen rate, which the reported runs have. "
    "The axis ends at the bound of the mean image: a model below is worse than the mean image.",
    needs="learning_rates",
    role="selection",
)
def rate_sensitivity(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing = Drawing(figsize=(6.4, 4.4), layout="constrained")
    ax = drawing.subplots()
    figures.draw_rates(dict.fromkeys(scale.places, ax), frame, scale, figures.place_looks(scale))
    ax.set(xlabel="learning rate", ylabel=f"validation {_NATS}")
    selection = frame[frame["role"] == "selection"]
    baseline, best = selection["baseline_bound"].mean(), selection["validation_bound"].max()
    if selection["validation_bound"].min() < baseline < best:
        # A model that is worse than the mean image may be worse by any amount.
        ax.set_ylim(baseline, best + 0.05 * (best - baseline))
    _legend(ax, scale)
    return drawing


@figure(
    "Samples",
    "Means of p(x | z) for draws of the latent variables from their prior, of the first seed.",
    seeds=1,
)
def samples(frame: pd.DataFrame, scale: Scale) -> Drawing:
    found = _arrays(frame, scale, "samples")
    columns = min(3, max(1, len(found)))
    rows = -(-max(1, len(found)) // columns)
    drawing = Drawing(figsize=(2.6 * columns, 2.8 * rows + 0.5), layout="constrained")
    panels = drawing.subplots(rows, columns, squeeze=False).ravel()
    for ax, (place, images) in zip(panels, found.items(), strict=False):
        side = int(len(images) ** 0.5)
        figures.mosaic(ax, images[: side**2].reshape(side, side, *images.shape[1:]))
        ax.set_title(figures.place_label(place, scale) + _suffix(scale))
    for ax in panels[len(found) :]:
        ax.set_visible(False)
    return drawing


@figure(
    "The manifold of two latent variables",
    "Means of p(x | z) at quantiles of the prior, of the first seed (Kingma and Welling 2013, "
    "figure 4).",
    seeds=1,
)
def latent_grid(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing = Drawing(figsize=(6, 6.4), layout="constrained")
    ax = drawing.subplots()
    if grids := _arrays(frame, scale, "latent_grid"):
        # The first variable goes to the right and the second upward, like the axes of a plot.
        figures.mosaic(ax, np.flip(np.swapaxes(next(iter(grids.values())), 0, 1), 0))
    ax.set(xlabel="first latent variable, quantiles", ylabel="second latent variable, quantiles")
    return drawing


def _suffix(scale: Scale) -> str:
    """What the numbers of a place's label are, if a single axis is varied."""
    return f" {scale.kind.label(*scale.varied)}" if len(scale.varied) == 1 else ""


def _legend(ax: Axes, scale: Scale) -> None:
    handles = [Line2D([], [], **look) for look in figures.place_looks(scale).values()]
    ax.legend(handles=handles, **figures.BESIDE, title=_suffix(scale).strip() or None)


def _arrays(frame: pd.DataFrame, scale: Scale, name: str) -> dict[tuple, np.ndarray]:
    """An array of the first trial of every place that has it."""
    found = {}
    for place, rows in figures.filled(frame, scale):
        held = [arrays[name] for arrays in rows["arrays"] if arrays and name in arrays]
        if held:
            found[place] = held[0]
    return found


class DensityShow(Show):
    """Bounds, their gap and the latent variables that are used, a row per place."""

    title = "Test bound (nats)"
    metrics = (
        *("test_bound", "train_bound", "bound_gap"),
        *("test_importance_weighted_bound", "active_units"),
    )
    summarized = ("test_bound", "train_bound", "bound_gap", "active_units")
    columns = (
        "*test*, *training*: the bound on log p(x) after the last epoch, mean over images; *gap*: "
        "the training bound minus the test bound.",
        f"*importance-weighted*: the bound of {IMPORTANCE_SAMPLES} samples, on the test set.",
        f"*active*: the number of latent variables whose posterior mean has a variance above "
        f"{ACTIVE} over the test images.",
        "*rate*: the learning rate, which was chosen on the validation bound of other seeds.",
        "*FLOPs*: the cost of one run.",
    )
    figures = (
        bound_against_axis,
        active_units,
        bound_against_epoch,
        rate_sensitivity,
        samples,
        latent_grid,
    )

    def main_table(self, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """The numbers of all metrics, a row per place: see `tables.place_table`.

        If nothing but the number of latent variables is varied, `wider_gap` is what the gap of the
        largest model is wider than the gap of this model, at equal training bound.
        """
        table = super().main_table(frame, scale)
        if scale.varied != ["latent"]:
            return table
        gaps = {arm: gaps_at_equal_bound(frame, scale, arm) for arm in scale.arm_names}
        nothing = mean_interval([])
        found = [gaps[row.arm].get(row.latent, nothing) for row in table.itertuples()]
        columns = pd.DataFrame([tables.interval_values("wider_gap", each) for each in found])
        return pd.concat([table, columns], axis=1)

    def sections(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        parts = super().sections(table, scale)
        rows = [] if "wider_gap" not in table else table.dropna(subset="wider_gap").itertuples()
        lines = [
            f"{scale.arm(row.arm).label}, than with {row.latent}: "
            f"{tables.bounds_text(row.wider_gap, row.wider_gap_low, row.wider_gap_high)} nats"
            for row in rows
        ]
        if lines:
            parts += [_EQUAL_BOUND.format(largest=max(scale.axes["latent"])), tables.listed(lines)]
        return parts

    def training(self, scale: Scale) -> str:
        arms = [
            f"a hidden layer of {told(scale, 'width')} {arm.activation} units in the encoder and "
            f"one in the decoder, trained by {arm.optimizer.capitalize()}"
            for arm in scale.arms
        ]
        return (
            "Pixels in [0, 1] are means of Bernoulli variables. Networks: "
            f"{'; '.join(dict.fromkeys(arms))}. Training: {told(scale, 'epochs')} epochs, batches "
            f"of {told(scale, 'batch_size')}, one draw of the latent variables per image and step. "
            "Bounds are reported after the last epoch."
        )

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [
            "The bound is of a density on {0, 1} for each pixel, taken at gray values. It can be "
            "compared with bounds at gray values only, and not with bounds of binarized images.",
            "Intervals are over seeds: initial weights, batch order and split. A diverged run "
            "counts as the bound of the mean image.",
            "The number of epochs is fixed, so that a model which learns more slowly is read "
            "earlier in its training: see the bound against epoch.",
            "Costs are counted, not measured: 2 FLOPs per multiply-add; a step of training counts "
            "as three forward passes.",
        ]
