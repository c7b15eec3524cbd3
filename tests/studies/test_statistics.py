import math

import numpy as np
import pytest
from scipy import stats

from studies.analysis.statistics import mean_interval, paired_interval


def test_mean_interval_of_a_worked_example():
    # Mean 10, standard deviation 2, n = 4: 10 ± 3.1824 * 2 / sqrt(4).
    values = [10 - math.sqrt(6), 10, 10, 10 + math.sqrt(6)]
    interval = mean_interval(values)
    assert (interval.mean, interval.n) == (pytest.approx(10), 4)
    assert interval.low == pytest.approx(10 - 3.182446, abs=1e-6)
    assert interval.high == pytest.approx(10 + 3.182446, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 10, 29])
def test_mean_interval_agrees_with_scipy(n, confidence):
    values = np.random.default_rng(n).exponential(size=n)
    interval = mean_interval(values, confidence)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_paired_interval_agrees_with_scipy():
    values, controls = np.random.default_rng(0).normal(size=(2, 12))
    interval = paired_interval(values, controls)
    expected = stats.ttest_rel(values, controls).confidence_interval(0.95)
    assert interval.n == 12
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [3, 10])
def test_coverage_is_nominal(n):
    draws = np.random.default_rng(n).normal(3.0, 2.0, size=(4_000, n))
    intervals = [mean_interval(values) for values in draws]
    coverage = np.mean([i.low <= 3.0 <= i.high for i in intervals])
    # Four standard errors of a proportion of 0.95 in 4,000.
    assert coverage == pytest.approx(0.95, abs=0.014)


def test_pairs_share_what_moves_both():
    common = np.random.default_rng(1).normal(size=10)
    assert paired_interval(common - 0.5, common).high == pytest.approx(-0.5)
    assert mean_interval(common - 0.5).high > -0.5


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([0.25], 0.25)])
def test_too_few_values_have_no_bounds(values, mean):
    for interval in (mean_interval(values), paired_interval(values, [0.0] * len(values))):
        assert interval.mean == pytest.approx(mean, nan_ok=True)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert interval.n == len(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, math.nan], "finite"),
        ([0.1, math.inf], "finite"),
        ([[0.1, 0.2]], "shape"),
        (0.1, "shape"),
    ],
)
def test_unusable_values_are_refused(values, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        mean_interval(values)


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="Received: 3 values and 2 controls"):
        paired_interval([0.1, 0.2, 0.3], [0.1, 0.2])


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match=f"Received: confidence={confidence}"):
        mean_interval([0.1, 0.2], confidence)
