"""How a comparison is shown: what each way to start gains over nets that cost as much."""

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import NullLocator

from studies.comparison.kind import contenders, rivals
from studies.comparison.verdict import WORTH
from studies.engine.scale import Scale
from studies.kinds.classification import NUMBERS
from studies.kinds.classification.show import ClassificationShow, pretraining_words
from studies.report import tables
from studies.report.figures import figure, told
from studies.report.forest import difference

_CLASSES = "The error is the share of test examples of which the net names a wrong class."
_NUMBERS = (
    "The error is the mean squared error on test examples, in percent of the variance of the "
    "training targets: of 100 %, nothing is explained."
)


def _meaning(scale: Scale) -> str:
    """What the error is."""
    if error := scale.arms[0].error:
        name = getattr(error, "__name__", str(error).rpartition(":")[2])
        return f"The error is the mean of `{name}` over the test examples, times 100."
    return _NUMBERS if scale.classes == NUMBERS else _CLASSES


@figure(
    "What is gained",
    "A marker is the mean over seeds of the error of a net minus the error of the net that it is "
    "compared with, of the same seed, with its 95 % t interval. On the line at 0 there is no "
    "difference. In the gray band, a gain is too small to be worth the trouble.",
)
def gains(frame: pd.DataFrame, scale: Scale) -> Drawing:
    rows = [(arm, other) for arm in contenders(scale) for other in _compared(arm, scale)]
    drawing = Drawing(figsize=(8, 1.3 + 0.45 * len(rows)), layout="constrained")
    ax = drawing.subplots()
    ax.axvspan(-WORTH, 0, color="gray", alpha=0.2, linewidth=0)
    ax.axvline(0, color="black", linewidth=1)
    for y, (arm, other) in enumerate(rows):
        found = difference(frame, scale, arm.name, other.name, {})
        ax.plot([found.low, found.high], [y, y], color="#0072b2", linewidth=1.5)
        ax.plot(found.estimate, y, "o", color="#0072b2")
    ax.set_yticks(range(len(rows)), [f"{arm.label}\nminus {other.label}" for arm, other in rows])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("difference of test errors (points); better to the left")
    return drawing


def _compared(arm, scale: Scale) -> list:
    others = rivals(arm, scale)
    control = scale.arm(arm.control)
    return others if control in others else [control, *others]


class ComparisonShow(ClassificationShow):
    """The tables of classification, in words that fit any data."""

    @property
    def figures(self) -> tuple:
        return (gains, *super().figures)

    def training(self, scale: Scale) -> str:
        first = scale.arms[0]
        unlabeled = f" Pretraining sees {scale.unlabeled:,} more examples, without labels."
        return (
            f"Network: the user's own. Training: {told(scale, 'epochs')} epochs of "
            f"{first.optimizer.capitalize()}, batches of {told(scale, 'batch_size')}."
            f"{pretraining_words(scale)}{unlabeled if scale.unlabeled else ''}"
        )

    def sections(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [_meaning(scale), *super().sections(table, scale)]

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [
            *super().caveats(table, scale),
            "FLOPs are those of matrix products and convolutions; attention scores, lookups in "
            "tables of embeddings, and functions that change a network before it is trained are "
            "not counted. Pretraining counts as if every objective had the cost of an autoencoder.",
            f"An arm is worth it if its interval shows it to be better than every net that costs "
            f"as much. An arm is not worth it if it is worse than any of these nets, or gains less "
            f"than {WORTH:g} points on any of them. Otherwise, the comparison cannot tell.",
        ]

    def summary(self, table: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        block = super().summary(table, scale)
        gained = [
            tables.bounds_text(row.difference, row.difference_low, row.difference_high)
            if row.control
            else tables.NOT_APPLICABLE
            for row in table.itertuples()
        ]
        return block.assign(**{"points from no pretraining": gained})
