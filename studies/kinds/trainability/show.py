"""How trainability is shown: as classification, and what else was measured."""

import pandas as pd

from studies.engine.scale import Scale
from studies.kinds.classification.show import ClassificationShow
from studies.kinds.trainability import GOAL
from studies.kinds.trainability import figures as draw
from studies.report import tables

_MEASURED = f"""\
What was measured of the training itself. *Trained* counts the runs whose training NLL at the last
epoch is below half the NLL of guessing. *Updates* count until the validation error is at most
{100 * GOAL:g} %, and to the end if the error never is. A rate is *usable* if it takes the selection
seeds to this error in the mean; a place with at most one usable rate has the quotient 1. Variances
are of what goes into the units of each hidden layer before training."""


class TrainabilityShow(ClassificationShow):
    """Test errors, and in a second table what was measured of the training."""

    measured = (
        *("final_train_nll", "updates", "usable_rates", "variance_ratio", "drift", "lesion"),
        *("lowest_variance", "highest_variance"),
    )
    figures = (
        draw.trained_against_axis,
        draw.train_nll_against_axis,
        *ClassificationShow.figures,
        draw.error_over_updates,
        draw.variance_by_layer,
        draw.gradient_by_layer,
        draw.useless_by_layer,
        draw.hidden_input_over_epochs,
        draw.lesions,
    )

    def main_table(self, frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
        """The table of classification, with `trained`, and with the other metrics as averages."""
        table = super().main_table(frame, scale)
        more = tables.place_table(frame, scale, self.measured)
        own = [name for name in more if name not in table]
        counts = draw.trained(frame, scale)
        return table.assign(trained=[counts[place][0] for place in scale.places]).join(more[own])

    def numbers(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        trained = [_count(row) for row in table.itertuples()]
        block = self._block(table, scale, self.measured).assign(trained=trained)
        block = block.replace("nan", tables.NOT_APPLICABLE)
        return [*super().numbers(table, scale), _MEASURED, tables.markdown(block)]


def _count(row) -> str:
    return f"{row.trained} of {row.seeds}" if row.seeds else tables.MISSING
