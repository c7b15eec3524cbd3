import itertools
import math

import numpy as np
import pytest
from scipy import stats

from studies.report.statistics import (
    MIN_PAIRS,
    Interval,
    alike_intervals,
    binomial_interval,
    bootstrap_interval,
    difference_sampling_error,
    equivalence_power,
    expected_best,
    holm,
    interquartile_mean,
    interquartile_range,
    mean_interval,
    median,
    median_interval,
    outperforming,
    sampling_error,
    sign_flip_test,
)


@pytest.mark.parametrize(
    "ends, text",
    [
        ((1.234, -0.5, 2), "1.23 [-0.50, 2.00]"),
        ((0.00123, 0.0, 0.0456), "0.001 [0.000, 0.046]"),
        ((-0.00042, -0.0007, -0.0001), "-0.00042 [-0.00070, -0.00010]"),
        ((0.0, 0.0, 0.0), "0.00 [0.00, 0.00]"),
        ((1e-9, math.nan, math.inf), "0.000000 [nan, inf]"),
    ],
)
def test_an_interval_is_told_with_two_digits(ends, text):
    assert Interval(*ends, 5).text("{estimate} [{low}, {high}]") == text


def test_mean_interval_of_a_worked_example():
    # Mean 10, standard deviation 2, n = 4: 10 ± 3.1824 * 2 / sqrt(4).
    values = [10 - math.sqrt(6), 10, 10, 10 + math.sqrt(6)]
    interval = mean_interval(values)
    assert (interval.estimate, interval.n) == (pytest.approx(10), 4)
    assert interval.low == pytest.approx(10 - 3.182446, abs=1e-6)
    assert interval.high == pytest.approx(10 + 3.182446, abs=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [3, 10, 29])
def test_mean_interval_agrees_with_scipy(n, confidence):
    values = np.random.default_rng(n).exponential(size=n)
    interval = mean_interval(values, confidence)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


# Coverage: how often an interval holds the truth, in a population where that is known.

POPULATIONS = {
    "normal": lambda generator, shape: generator.normal(3.0, 2.0, shape),
    "exponential": lambda generator, shape: generator.exponential(1.0, shape),
}
MEANS = {"normal": 3.0, "exponential": 1.0}


def coverage(interval, truth, draws):
    found = [interval(values) for values in draws]
    return np.mean([i.low <= truth <= i.high for i in found])


@pytest.mark.parametrize("interval", [mean_interval, median_interval])
@pytest.mark.parametrize("n", [7, 10])
def test_many_samples_at_once_have_the_intervals_of_each(interval, n):
    draws = np.random.default_rng(n).exponential(size=(5, n))
    found, alone = interval(draws), [interval(values) for values in draws]
    for end in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(found, end), [getattr(i, end) for i in alone])


def test_many_pairs_at_once_outperform_as_each_do():
    values, controls = np.random.default_rng(0).integers(0, 4, (2, 30, 8))
    found = outperforming(values, controls)
    alone = [outperforming(*pair) for pair in zip(values, controls, strict=True)]
    np.testing.assert_allclose(found.low, [i.low for i in alone])
    np.testing.assert_allclose(found.high, [i.high for i in alone])
    assert list(found.n) == [i.n for i in alone]


@pytest.mark.parametrize(
    ("population", "n", "expected"),
    [
        ("normal", 3, 0.95),
        ("normal", 10, 0.95),
        ("normal", 29, 0.95),
        ("exponential", 10, 0.90),
        ("exponential", 29, 0.93),
    ],
)
def test_coverage_of_the_mean(population, n, expected):
    draws = POPULATIONS[population](np.random.default_rng(n), (4_000, n))
    # Four standard errors of a proportion of 0.95 in 4,000.
    assert coverage(mean_interval, MEANS[population], draws) == pytest.approx(expected, abs=0.014)


@pytest.mark.parametrize(("n", "expected"), [(10, 0.52), (29, 0.88)])
def test_a_mean_is_not_covered_where_runs_fail_and_a_median_is(n, expected):
    # A run stays at chance with a probability of 7 %.
    generator = np.random.default_rng(n)
    trained, fails = generator.normal(5, 0.3, (4_000, n)), generator.random((4_000, n)) < 0.07
    draws = np.where(fails, 88.65, trained)
    mean, middle = mean_interval(draws), median_interval(draws)
    truth = 0.93 * 5 + 0.07 * 88.65
    assert np.mean((mean.low <= truth) & (truth <= mean.high)) == pytest.approx(expected, abs=0.025)
    # Half of all runs are below: those that train and have an error below this quantile.
    truth = stats.norm.ppf(0.5 / 0.93, 5, 0.3)
    assert np.mean((middle.low <= truth) & (truth <= middle.high)) >= 0.94


def truth_of(statistic, population):
    """What it is in a population: that of very many values."""
    values = POPULATIONS[population](np.random.default_rng(99), 2_000_000)
    return float(statistic(values))


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 29])
@pytest.mark.parametrize("population", POPULATIONS)
def test_coverage_of_the_interquartile_mean(population, n):
    draws = POPULATIONS[population](np.random.default_rng(n), (400, n))
    truth = truth_of(interquartile_mean, population)
    found = coverage(lambda values: bootstrap_interval(interquartile_mean, values), truth, draws)
    # Two standard errors beside the 94 % to 97 % that the docstring states.
    assert 0.917 <= found <= 0.987


@pytest.mark.parametrize("n", [10, 29])
@pytest.mark.parametrize("population", POPULATIONS)
def test_coverage_of_the_median(population, n):
    found = median_interval(POPULATIONS[population](np.random.default_rng(n), (4_000, n)))
    truth = truth_of(median, population)
    # As the docstring states, beside two standard errors.
    assert 0.93 <= np.mean((found.low <= truth) & (truth <= found.high)) <= 0.98


def spread_ratio(first, second):
    return interquartile_range(first) / np.maximum(interquartile_range(second), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 29])
def test_coverage_of_a_ratio_of_spreads(n):
    draws = np.random.default_rng(n).normal(size=(300, 2, n)) * [[3.0], [1.0]]
    found = coverage(lambda pair: bootstrap_interval(spread_ratio, *pair), 3.0, draws)
    assert found >= 0.96


@pytest.mark.parametrize("n", [6, 10, 29])
def test_coverage_of_the_binomial_interval_is_never_less_than_nominal(n):
    intervals = [binomial_interval(k, n) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 197):
        covered = [i.low <= p <= i.high for i in intervals]
        assert np.dot(stats.binom.pmf(range(n + 1), n, p), covered) >= 0.95


@pytest.mark.parametrize("error", [0.01, 0.05, 0.3])
def test_coverage_of_the_sampling_error(error):
    n = 10_000
    measured = np.random.default_rng(0).binomial(n, error, 4_000) / n
    inside = [abs(e - error) <= 1.96 * sampling_error(e, n) for e in measured]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.014)


def test_sampling_error_is_that_of_the_literature():
    # Vincent et al. 2010, table 3: 3.03 ± 0.15 on 50,000 images, 1.40 ± 0.23 on 10,000.
    assert 1.96 * sampling_error(0.0303, 50_000) == pytest.approx(0.0015, abs=5e-5)
    assert 1.96 * sampling_error(0.0140, 10_000) == pytest.approx(0.0023, abs=5e-5)


def test_error_of_a_difference_is_that_of_other_test_sets():
    # Three seeds of two nets on a population of images, some of which are hard for all nets.
    generator = np.random.default_rng(0)
    hard = generator.beta(0.1, 1.5, 200_000)
    right = generator.random((3, 200_000)) > hard
    controls = generator.random((3, 200_000)) > 1.1 * hard
    differences, stated = [], []
    for _ in range(300):
        images = generator.integers(0, 200_000, 2_000)
        pair = right[:, images], controls[:, images]
        differences.append((~pair[0]).mean() - (~pair[1]).mean())
        stated.append(difference_sampling_error(*pair))
    # A standard deviation of 300 values has a standard error of 4 %.
    assert np.mean(stated) == pytest.approx(np.std(differences), rel=0.13)
    alone = sampling_error(1 - right.mean(), 2_000)
    assert np.mean(stated) < 0.7 * alone


@pytest.mark.parametrize(("pairs", "spreads"), [(10, (0.1, 0.2)), (29, (0.3,)), (6, (0.05,))])
def test_power_of_an_equivalence_is_that_of_simulated_studies(pairs, spreads):
    generator, holds = np.random.default_rng(pairs), True
    for spread in spreads:
        found = mean_interval(generator.normal(0, spread, (20_000, pairs)), 1 - 0.01)
        holds = holds & (found.low > -0.25) & (found.high < 0.25)
    power = equivalence_power(spreads, 0.25, pairs, level=0.01)
    assert power == pytest.approx(np.mean(holds), abs=0.012)


@pytest.mark.parametrize(
    ("spreads", "ten", "twenty_nine"),
    [
        # He initialization, batch normalization, and Glorot at equal cost, at depths 3 and 5, with
        # 13 claims: an independent simulation found these chances.
        ((0.246, 0.213), 0.02, 0.96),
        ((0.216, 0.282), 0.01, 0.87),
        ((0.159, 0.354), 0.01, 0.47),
    ],
)
def test_ten_pairs_cannot_show_an_equivalence(spreads, ten, twenty_nine):
    found = [equivalence_power(spreads, 0.25, pairs, 0.05 / 13) for pairs in (10, 29)]
    assert found == pytest.approx([ten, twenty_nine], abs=0.02)


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([0.25], 0.25), ([0.25, 0.75], 0.5)])
def test_too_few_values_have_no_bounds(values, mean):
    for interval in (
        mean_interval(values),
        median_interval(values),
        bootstrap_interval(interquartile_mean, values),
    ):
        assert interval.estimate == pytest.approx(mean, nan_ok=True)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert interval.n == len(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.1, math.nan], "finite"), ([0.1, math.inf], "finite"), (0.1, "shape")],
)
def test_unusable_values_are_refused(values, message):
    with pytest.raises(ValueError, match=f"{message}.*Received"):
        mean_interval(values)


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="Received: 3 values and 2 controls"):
        outperforming([0.1, 0.2, 0.3], [0.1, 0.2])


# Bootstrap


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_interval_of_the_median_is_that_of_all_resamples(n):
    values = np.random.default_rng(n).exponential(size=n)
    every = np.sort(np.median(list(itertools.product(values, repeat=n)), axis=1))
    for confidence in (0.5, 0.8, 0.95):
        tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 - confidence) / 2, n - 1))
        found = median_interval(values, confidence)
        beyond = math.ceil(tail * len(every))
        assert found.estimate == pytest.approx(np.median(values))
        assert (found.low, found.high) == pytest.approx((every[beyond - 1], every[-beyond]))


@pytest.mark.parametrize("confidence", [0.95, 0.996])
def test_far_ends_of_a_bootstrap_have_resamples_enough(confidence):
    values = np.random.default_rng(5).exponential(size=29)
    found, exact = (
        bootstrap_interval(median, values, confidence=confidence),
        median_interval(values, confidence),
    )
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("n", [10, 29])
def test_bootstrap_agrees_with_scipy_but_for_the_expansion(n):
    values = np.random.default_rng(n).exponential(size=n)
    z = math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)
    expected = stats.bootstrap(
        (values,),
        interquartile_mean,
        vectorized=False,
        method="percentile",
        confidence_level=1 - 2 * stats.norm.sf(z),
        n_resamples=10_000,
        rng=1,
    ).confidence_interval
    found = bootstrap_interval(interquartile_mean, values)
    assert found.estimate == interquartile_mean(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.08)


def test_studies_that_are_alike_are_covered_as_often_as_stated():
    means = np.random.default_rng(0).normal(3, 1, (4_000, 29)).mean(axis=1)
    found = alike_intervals(means, 29)
    assert np.mean((found.low <= 3) & (found.high >= 3)) == pytest.approx(0.963, abs=0.012)


def test_bootstrap_is_repeatable_and_leaves_the_global_generator_alone():
    values = np.random.default_rng(0).normal(size=10)
    np.random.seed(0)
    first = bootstrap_interval(median, values)
    after = np.random.rand()
    np.random.seed(0)
    assert np.random.rand() == after
    assert bootstrap_interval(median, values) == first


def test_bootstrap_resamples_seeds_not_values():
    values = np.random.default_rng(0).normal(size=20)

    def difference(a, b):
        return median(a) - median(b)

    found = bootstrap_interval(difference, values - 0.5, values)
    assert (found.low, found.high) == pytest.approx((-0.5, -0.5))
    assert found.n == 20


def test_interquartile_mean_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=(5, 29))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=1))
    np.testing.assert_allclose(interquartile_range(values), stats.iqr(values, axis=1))


def test_bootstrap_of_too_few_has_no_bounds_and_of_unequal_samples_is_refused():
    assert math.isnan(bootstrap_interval(median, [0.3, 0.4]).low)
    assert math.isnan(bootstrap_interval(median, []).estimate)
    with pytest.raises(ValueError, match=r"Received: samples of \[1, 2\] values"):
        bootstrap_interval(spread_ratio, [0.1], [0.1, 0.2])


# Binomial


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (7, 10), (25, 29)])
@pytest.mark.parametrize("confidence", [0.95, 0.997])
def test_binomial_interval_agrees_with_scipy(k, n, confidence):
    found = binomial_interval(k, n, confidence)
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == k / n


def test_nothing_is_known_of_no_trials():
    found = binomial_interval(0, 0)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize("successes", [-1, 4])
def test_impossible_successes_are_refused(successes):
    with pytest.raises(ValueError, match=f"Received: successes={successes}, n=3"):
        binomial_interval(successes, 3)


def test_ties_leave_the_binomial():
    found = outperforming([1, 1, 1, 2, 3], [2, 2, 2, 2, 1])
    assert found == binomial_interval(3, 4)


# Sign-flip test


def test_sign_flip_of_a_worked_example():
    # Of the 8 flips of 1, 2, 4, sums are ±7, ±5, ±3, ±1: for 1 + 2 - 4, six are as far from 0.
    assert sign_flip_test([1, 2, 4]) == 2 / 8
    assert sign_flip_test([-1, 2, 4]) == 4 / 8
    assert sign_flip_test([1, 2, -4]) == 8 / 8


@pytest.mark.parametrize("n", [6, 10, 14])
def test_exact_sign_flip_agrees_with_scipy(n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=math.inf
    )
    assert sign_flip_test(values) == pytest.approx(expected.pvalue)


def test_random_sign_flip_agrees_with_the_exact_one():
    values = np.random.default_rng(2).normal(0.4, 1, 18)
    signs = np.array(list(itertools.product([-1, 1], repeat=18)))
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    found = sign_flip_test(values)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert found == sign_flip_test(values)
    assert sign_flip_test(np.ones(29)) == pytest.approx(1 / 20_000)


def test_fewer_pairs_than_the_least_can_never_be_significant():
    assert sign_flip_test([1.0] * (MIN_PAIRS - 1)) > 0.05 >= sign_flip_test([1.0] * MIN_PAIRS)
    assert sign_flip_test([]) == 1


def test_sign_flip_test_keeps_its_level():
    draws = np.random.default_rng(0).normal(size=(2_000, 8))
    assert np.mean([sign_flip_test(values) <= 0.05 for values in draws]) <= 0.05 + 0.015


# Holm


def rejected(p_values):
    rejects = [lambda level, p=p: p <= level for p in p_values]
    return [reject(level) for reject, level in zip(rejects, holm(rejects), strict=True)]


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        # Adjusted: 0.03, 0.06, 0.06, 0.02.
        ([0.01, 0.04, 0.03, 0.005], [True, False, False, True]),
        # Rejected only after the others are; Bonferroni would keep the last two.
        ([0.01, 0.02, 0.05], [True, True, True]),
        # The second would pass at its own level, but the first did not.
        ([0.03, 0.04], [False, False]),
        ([0.001], [True]),
        ([], []),
    ],
)
def test_holm_of_worked_examples(p_values, expected):
    assert rejected(p_values) == expected


def test_holm_agrees_with_adjusted_p_values():
    generator = np.random.default_rng(0)
    for _ in range(200):
        p = generator.uniform(0, 0.1, generator.integers(1, 21))
        order, m = np.argsort(p), len(p)
        adjusted = np.empty(m)
        adjusted[order] = np.maximum.accumulate((m - np.arange(m)) * p[order])
        assert rejected(p) == list(adjusted <= 0.05)


def test_holm_says_at_which_level():
    rejects = [lambda level, p=p: p <= level for p in (0.012, 0.2, 0.02)]
    assert holm(rejects) == pytest.approx([0.05 / 3, 0.05 / 1, 0.05 / 2])
    assert holm([lambda level: False] * 4) == pytest.approx([0.05 / 4] * 4)


# Tuning


def test_expected_best_is_the_mean_over_all_draws():
    scores = [0.5, 0.1, 0.4, 0.1, 0.9]
    found = expected_best(scores)
    for n in range(1, 6):
        draws = itertools.combinations(scores, n)
        assert found[n - 1] == pytest.approx(np.mean([min(draw) for draw in draws]))
    assert len(expected_best([])) == 0
