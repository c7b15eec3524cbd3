"""What is read from the paths of training NLL and validation NLL."""

import numpy as np
import pandas as pd
import pytest

from studies.kinds.classification.paths import metrics


def of(training, validation):
    curves = {"train_nll": training, "validation_nll": validation}
    return metrics(pd.DataFrame({"curves": [curves]})).iloc[0]


def test_a_power_law_is_read_where_its_training_nll_has_a_level():
    # A line against the logarithm of the training NLL, so that no epoch must be at a level.
    training = 2.0 * 0.7 ** np.arange(20)
    found = of(training.tolist(), (1 - 0.1 * np.log(training)).tolist())
    for level in (0.3, 0.1, 0.03):
        assert found[f"validation_nll_at_{level:g}"] == pytest.approx(1 - 0.1 * np.log(level))
    assert found["final_train_nll"] == pytest.approx(2.0 * 0.7**19)


def test_the_first_time_counts_and_a_level_that_is_not_reached_has_no_value():
    found = of([1.0, 0.3, 0.5, 0.1], [4.0, 3.0, 2.0, 1.0])
    assert found["validation_nll_at_0.3"] == pytest.approx(3.0)
    assert found["validation_nll_at_0.1"] == pytest.approx(1.0)
    assert np.isnan(found["validation_nll_at_0.03"])
    assert of([0.2, 0.1], [5.0, 4.0])["validation_nll_at_0.3"] == 5.0


@pytest.mark.parametrize("curves", [None, float("nan"), {"loss": [1.0]}])
def test_a_record_without_paths_has_no_metrics_of_paths(curves):
    assert metrics(pd.DataFrame({"curves": [curves]})).isna().all(axis=None)
    assert metrics(pd.DataFrame({"other": [1]})).isna().all(axis=None)
