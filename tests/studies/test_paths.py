"""What is read from the paths of training NLL and validation NLL."""

import numpy as np
import pandas as pd
import pytest

from studies.kinds.classification.paths import metrics


def of(training, validation):
    curves = {"train_nll": training, "validation_nll": validation}
    return metrics(pd.DataFrame({"curves": [curves]})).iloc[0]


def test_a_net_that_learns_fast_is_read_where_its_training_nll_has_a_level():
    # Training NLL falls as exp(-t / 2), and validation NLL is a line against its logarithm.
    epochs = np.arange(1, 21)
    training = np.exp(-(epochs - 0.5) / 2)
    found = of(training.tolist(), (1 + 0.1 * epochs).tolist())
    for level in (0.1, 0.03):
        assert found[f"validation_nll_at_{level:g}"] == pytest.approx(1 - 0.2 * np.log(level))
    assert found["final_train_nll"] == pytest.approx(training[-1])


def test_the_first_time_counts_and_a_level_that_is_not_met_has_no_value():
    found = of([2.0, 1.0, 0.1, 0.5, 0.05], [5.0, 4.0, 3.0, 2.0, 1.0])
    assert found["validation_nll_at_0.1"] == pytest.approx(3.5)
    assert np.isnan(found["validation_nll_at_0.03"])
    assert np.isnan(of([0.2, 0.09, 0.08], [5.0, 4.0, 3.0])["validation_nll_at_0.1"])
    assert of([0.2], [5.0])["final_train_nll"] == 0.2


@pytest.mark.parametrize("curves", [None, float("nan"), {"loss": [1.0]}])
def test_a_record_without_paths_has_no_metrics_of_paths(curves):
    assert metrics(pd.DataFrame({"curves": [curves]})).isna().all(axis=None)
    assert metrics(pd.DataFrame({"other": [1]})).isna().all(axis=None)
