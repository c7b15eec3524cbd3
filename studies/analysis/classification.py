"""How results of classification are shown: test error, at equal epochs and at equal cost."""

from collections.abc import Callable

import pandas as pd

from studies.analysis import figures as draw
from studies.analysis import tables
from studies.analysis.statistics import sampling_error
from studies.runner.scale import Scale

TITLE = "Test error %"
main_table = tables.main_table
summary = tables.error_block
notes = tables.notes

_TUNING = {
    draw.rate_sensitivity: (
        "Validation error against learning rate.",
        "Means over the selection seeds. Ringed: the chosen rate, which the reported runs have.",
    ),
    draw.tuning_budget: (
        "Expected validation error against tuning budget.",
        "The expected error of the best of n learning rates, drawn from the grid without "
        "replacement, for n from 1 to all of them (Dodge et al. 2019), against what the selection "
        "runs at n rates cost, the pretraining of each in full.",
    ),
}
# Title and caption, the headline's first.
FIGURES = {
    draw.error_against_depth: (
        "Test error against depth.",
        "Medians with their 95 % bootstrap intervals over seeds; the dots are seeds. Solid lines: "
        "pretrained; dashed lines: not. Here and below, the error axis is stretched at its low "
        "end: it is even in 1 / sqrt(error).",
    ),
    draw.error_over_seeds: (
        "Test error of every seed.",
        "The bar is the median.",
    ),
    draw.nll_trajectories: (
        "Optimizer or regularizer?",
        "Mean validation NLL against mean training NLL, from the first epoch (upper right) to the "
        "last (marker); the dotted line is what a control goes through when trained on to the cost "
        "of its pretrained neighbor. Of two arms at one training NLL, the lower one generalizes "
        "better (Erhan et al. 2010, figure 7).",
    ),
    draw.error_against_cost: (
        "Test error against cost.",
        "Means over seeds; a run's cost is that of its pretraining in full and its training. Open "
        "markers: the control trained on to the cost of its pretrained neighbor.",
    ),
    **_TUNING,
}
# Of a scale with one depth.
ONE_DEPTH = {
    draw.error_over_epochs: (
        "Validation error against epoch.",
        "A thin line per seed, and their mean; marked: the epoch of a seed's lowest validation "
        "error, where its test error is read.",
    ),
    **_TUNING,
}


_EQUAL_COST = """\
Controls are trained on, at their chosen rate, to the total cost of their pretrained neighbor; each
net is read where its validation error is lowest. Pretrained arms are as above; arms that have no
pretrained neighbor are left out."""
_COLUMNS = """\
- *error %*: at the epoch of the lowest validation error; *last epoch %*: at the last one. A
  diverged run counts as chance error.
- *points from control*: error minus that of the control with the same seed, with its interval.
- *rate*: learning rate, chosen on the validation error of other seeds.
- *FLOPs*: of one run, the pretraining of its layers in full.
- *at equal cost*: a control, trained on to the cost of its pretrained neighbor; for a pretrained
  arm, its error minus that of its control so trained.
- A – does not apply."""


def figures(scale: Scale) -> dict[Callable, tuple[str, str]]:
    """The figures of a scale with title and caption, the headline's first."""
    return FIGURES if len(scale.depths) > 1 else ONE_DEPTH


def sections(table: pd.DataFrame, scale: Scale) -> list[str]:
    """The table at equal epochs, and that at equal cost if any control is trained on to it."""
    epochs = tables.error_block(table, scale)
    cost = tables.error_block(table, scale, equal_cost=True)
    marks = "\n".join(f"- {note}" for note in tables.notes(epochs))
    parts = ["### At equal epochs", tables.markdown(epochs), marks]
    if len(cost):
        parts += ["### At equal cost", _EQUAL_COST, tables.markdown(cost)]
    return parts


def numbers(table: pd.DataFrame) -> list[str]:
    """The table with everything, and what its columns mean."""
    return [tables.markdown(tables.long_block(table)), _COLUMNS]


def protocol(scale: Scale) -> str:
    """What was done, in words."""
    rates = ", ".join(f"{rate:g}" for rate in scale.learning_rates)
    return (
        f"Data: {scale.dataset}, {scale.train_size:,} training, {scale.validation_size:,} "
        f"validation and {scale.test_size:,} test images. Networks: {scale.width} units in every "
        f"hidden layer. Training: {scale.epochs} epochs of plain SGD, batches of "
        f"{scale.batch_size}, learning rate chosen from {rates} per arm and depth, on the "
        f"validation error of {tables.seeds(scale.selection_seeds)}.{_selection(scale)}"
        f"{_pretraining(scale)} Report: {tables.seeds(scale.report_seeds)}{_headline(scale)}, none "
        "of them among those."
    )


def _selection(scale: Scale) -> str:
    size = scale.selection_train_size
    return f" Rates are chosen with {size:,} training images." if size else ""


def _pretraining(scale: Scale) -> str:
    if not scale.pretraining_epochs:
        return ""
    rates = ", ".join(f"{rate:g}" for rate in scale.pretraining_rates)
    epochs = f" Pretraining: {scale.pretraining_epochs} epochs per layer, at"
    if len(scale.pretraining_rates) == 1:
        return f"{epochs} a rate of {rates}."
    return (
        f"{epochs} the rate of {rates} whose worst layer reconstructs its input best, on "
        "validation images, which asks for no labels."
    )


def _headline(scale: Scale) -> str:
    if not scale.headline_arms:
        return ""
    depths = ", ".join(map(str, scale.headline_depths))
    arms = " and ".join(f"`{arm}`" for arm in scale.headline_arms)
    return f" ({scale.headline_seeds} for the headline, {arms} at depths {depths})"


def caveats(scale: Scale) -> list[str]:
    """What must be known to read the numbers."""
    sampling = 100 * sampling_error(0.05, scale.test_size)
    return [
        "Intervals are over seeds: initial weights, batch order and split. That the test set is a "
        f"sample comes on top: with {scale.test_size:,} test images, the standard error of an "
        f"error of 5 % is {sampling:.2f} points.",
        "Learning rates are tuned for every arm alike; the settings of pretraining, but for its "
        "rate, are not tuned.",
        "Cost is counted, not measured: 2 FLOPs per multiply-add, training three times the "
        "forward pass, every layer's pretraining in full, though runs share it.",
    ]
