import dataclasses
import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from studies_synthetic import STUDIES, diverged
from studies_synthetic import records as synthetic

from studies.depth import CLAIMS
from studies.kinds import classification
from studies.kinds.classification import at_training_nll
from studies.kinds.kind import Metric
from studies.report import verdicts
from studies.report.claims import (
    MARGIN_REASON,
    AtChance,
    Claim,
    Condition,
    Outperforms,
    Ratio,
    SpreadRatio,
    difference,
    equivalent,
    growth,
    growth_of_gain,
    sample,
)
from studies.report.effects import place_of
from studies.report.frame import frame
from studies.report.statistics import mean_interval, median_interval

N = 10
SMALL = replace(
    STUDIES["depth"].scales["quick"],
    arms=("random", "denoising"),
    axes={"depth": (1, 3)},
    learning_rates=(0.1,),
    pretraining_rates=(0.1,),
    report_seeds=N,
    demonstration=False,
)
GENERATOR = np.random.default_rng(0)
NOISE = GENERATOR.normal(size=(4, N))


@pytest.fixture(scope="module")
def rows():
    return synthetic(SMALL)


def with_errors(rows, errors, column="test_error"):
    """Report records with other errors, in percent: an array by (arm, depth), a value per seed."""
    changed = []
    for r in rows:
        values = errors.get((r["arm"], r["depth"])) if r["role"] == "report" else None
        changed.append(r if values is None else r | {column: values[r["seed"]] / 100})
    return changed


def judged(rows, *conditions, scale=SMALL, **others):
    claims = [Claim("c", "s", "p", "w", conditions)]
    claims += [Claim(name, "s", "p", "w", (other,)) for name, other in others.items()]
    return verdicts.judge(tuple(claims), frame(rows, scale), scale)


def measured(rows, *effects, scale=SMALL):
    """What is found of effects, the first if there is one."""
    found = judged(rows, *(Condition(e, above=0) for e in effects), scale=scale)[0].findings
    return found if len(effects) > 1 else found[0]


# Effects, against scipy


def test_mean_difference_is_the_paired_t_interval_in_points(rows):
    a, b = 7 + NOISE[0], 8 + NOISE[1]
    changed = with_errors(rows, {("denoising", 3): a, ("random", 3): b})
    finding = judged(changed, Condition(difference("denoising", "random", depth=3), below=0))[
        0
    ].findings[0]
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (finding.interval.low, finding.interval.high) == pytest.approx(tuple(expected))
    exact = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=math.inf
    )
    assert finding.p_value == pytest.approx(exact.pvalue)


def test_growth_of_gain_is_a_difference_of_differences_in_pairs(rows):
    errors = dict(
        zip([("random", 1), ("random", 3), ("denoising", 1), ("denoising", 3)], NOISE, strict=True)
    )
    effect = growth_of_gain("denoising", "random", "depth", 1, 3)
    finding = measured(with_errors(rows, errors), effect)
    r1, r3, d1, d3 = NOISE
    expected = stats.ttest_1samp((r3 - d3) - (r1 - d1), 0).confidence_interval(0.95)
    assert (finding.interval.low, finding.interval.high) == pytest.approx(tuple(expected))


def test_median_is_not_moved_by_a_run_at_chance(rows):
    errors = NOISE[0] / 10 + 8
    errors[3] = 90
    changed = with_errors(rows, {("random", 3): errors, ("random", 1): NOISE[1] / 10 + 7})
    mean, median = (
        judged(changed, Condition(growth("random", "depth", 1, 3, average), above=0.2))[0]
        for average in ("mean", "median")
    )
    assert median.findings[0].interval.estimate == pytest.approx(1, abs=0.3)
    # Where a run fails, a mean only says how many runs do, so that the median stands for it.
    assert (mean.verdict, median.verdict) == ("holds", "holds")
    assert mean.findings[0].text == median.findings[0].text
    assert mean.findings[0].interval == median.findings[0].interval


def test_outperforming_and_share_at_chance_are_exact(rows):
    a, b = np.arange(N) * 1.0, np.r_[np.arange(7) + 1.0, 7.0, 7.5, 8.0]
    b[8:] = [8.0, 8.0]
    changed = with_errors(rows, {("denoising", 3): a, ("random", 3): b})
    effect = Outperforms(sample("denoising", depth=3), sample("random", depth=3))
    interval = measured(changed, effect).interval
    # Seven lower, one higher, two equal.
    expected = stats.binomtest(7, 8).proportion_ci(0.95, method="exact")
    assert (interval.n, interval.low) == (8, pytest.approx(expected.low))
    failed = with_errors(rows, {("random", 3): [88.65] * 9 + [10.0]})
    interval = judged(failed, Condition(AtChance(sample("random", depth=3)), above=0.5))[
        0
    ].findings[0]
    assert interval.interval.estimate == 0.9


def test_spread_ratio_survives_runs_that_are_all_alike(rows):
    errors = {("random", 3): 8 + NOISE[0], ("random", 1): [88.65] * N}
    effect = SpreadRatio(sample("random", depth=3), sample("random", depth=1))
    interval = measured(with_errors(rows, errors), effect).interval
    assert interval.estimate == pytest.approx(stats.iqr(8 + NOISE[0]) / 0.01)
    assert math.isfinite(interval.high)


def test_a_ratio_is_a_geometric_mean_with_the_t_interval_of_the_logarithms(rows):
    errors = {("random", 3): 8 + NOISE[0], ("random", 1): 2 + NOISE[1] / 10}
    effect = Ratio(sample("random", depth=3), sample("random", depth=1))
    finding = measured(with_errors(rows, errors), effect)
    logarithms = np.log(errors["random", 3] / errors["random", 1])
    expected = stats.ttest_1samp(logarithms, 0).confidence_interval()
    assert finding.interval.estimate == pytest.approx(stats.gmean(np.exp(logarithms)))
    ends = (finding.interval.low, finding.interval.high)
    assert ends == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    # Where a run fails, the median stands for the mean.
    errors["random", 3] = np.r_[[88.65] * 6, [8.0] * (N - 6)]
    failing = measured(with_errors(rows, errors), effect)
    assert failing.interval.estimate == pytest.approx(88.65 / 2, rel=0.2)
    assert failing.text.startswith("median of random(depth 3) / random(depth 1)")


# Verdicts


def shifted(rows, points):
    errors = {("denoising", 3): 8 + points + NOISE[0] / 10, ("random", 3): 8 + NOISE[1] / 10}
    return with_errors(rows, errors)


LOWER = Condition(difference("denoising", "random", depth=3), below=0)
SAME = equivalent(difference("denoising", "random", depth=3))


@pytest.mark.parametrize(
    ("condition", "points", "verdict"),
    [
        (LOWER, -1, "holds"),
        (LOWER, 1, "fails"),
        (LOWER, 0, "undecided"),
        (SAME, 0, "holds"),
        (SAME, 1, "fails"),
        (SAME, -1, "fails"),
        (SAME, 0.25, "undecided"),
    ],
)
def test_verdicts(rows, condition, points, verdict):
    assert judged(shifted(rows, points), condition)[0].verdict == verdict


def test_conjunction_holds_only_if_all_do_and_fails_if_one_does(rows):
    errors = {("denoising", 1): 9 + NOISE[2] / 10, ("random", 1): 8 + NOISE[3] / 10}
    changed = with_errors(shifted(rows, -1), errors)
    worse = Condition(difference("denoising", "random", depth=1), below=0)
    unclear = Condition(difference("denoising", "random", depth=1), below=1)
    assert judged(changed, LOWER, worse)[0].verdict == "fails"
    assert judged(changed, LOWER, worse)[0].decisive.condition == worse
    assert judged(changed, LOWER, unclear)[0].verdict == "undecided"
    assert judged(changed, LOWER, unclear)[0].decisive.condition == unclear
    assert judged(changed, LOWER, LOWER)[0].verdict == "holds"


def test_the_decisive_effect_is_the_tightest_or_the_farthest_outside(rows):
    far, near = (Condition(LOWER.effect, below=bound) for bound in (2, 0))
    assert judged(shifted(rows, -1), far, near)[0].decisive.condition == near
    assert judged(shifted(rows, -1), near, far)[0].decisive.condition == near
    assert judged(shifted(rows, 5), near, far)[0].decisive.condition == near
    outside = Condition(LOWER.effect, below=-4)
    assert judged(shifted(rows, 5), near, outside, far)[0].decisive.condition == outside


@pytest.mark.parametrize(
    ("condition", "points", "words"),
    [
        (LOWER, -1, "holds: denoising(depth 3) is better than random(depth 3) by"),
        (LOWER, 1, "fails: denoising(depth 3) is worse than random(depth 3) by"),
        (SAME, 2, "fails: denoising(depth 3) is worse than random(depth 3) by"),
        (
            Condition(Outperforms(*LOWER.effect.samples), above=0.5),
            -3,
            "holds: denoising(depth 3) is better than random(depth 3) in 100 % of pairs",
        ),
        (
            Condition(AtChance(sample("random", depth=3)), above=0.5),
            0,
            "fails: 0 % of the runs of random(depth 3) end at chance",
        ),
        (
            Condition(growth("random", "depth", 1, 3, metric="test_nll"), above=-9),
            0,
            "holds: test nll of random(depth 3) is lower than test nll of random(depth 1) by",
        ),
        (
            Condition(growth_of_gain("denoising", "random", "depth", 1, 3), above=40),
            -2,
            "fails: mean of random(depth 3) + denoising(depth 1) - denoising(depth 3) - "
            "random(depth 1) is",
        ),
        (
            Condition(SpreadRatio(*LOWER.effect.samples), below=1e4),
            0,
            "holds: denoising(depth 3) has",
        ),
    ],
)
def test_a_verdict_says_the_direction(rows, condition, points, words):
    changed = shifted(rows, points)
    changed = [
        r | {"test_nll": 3 / r["depth"] + r["seed"] / 100} if r["role"] == "report" else r
        for r in changed
    ]
    judgment = judged(changed, condition)[0]
    estimate = judgment.decisive.interval.estimate
    text = f"{judgment.verdict}: {judgment.finding}"
    assert text.startswith(words)
    assert f"{abs(estimate):.2f}" in text or f"{100 * estimate:.0f} %" in text
    assert text.endswith(f"power {judgment.power:.2f}")


def test_higher_is_better_of_a_bound(rows):
    scale = replace(SMALL, kind=classification.Classification())
    metrics = [
        replace(metric, lower_is_better=metric.name != "test_error")
        for metric in classification.KIND.metrics
    ]
    scale.kind.metrics = tuple(metrics)
    (judgment,) = judged(shifted(rows, 1), LOWER, scale=scale)
    assert judgment.finding.startswith("denoising(depth 3) is better than random(depth 3)")


# Power


@pytest.mark.parametrize("points", [-0.1, 0.05])
def test_power_is_that_of_the_t_test(rows, points):
    judgment = judged(shifted(rows, points), LOWER)[0]
    total = points + (NOISE[0] - NOISE[1]) / 10
    # The simulated studies are of the seeds of the records, whose spread is that of a population.
    shift = math.sqrt(N) * total.mean() / total.std()
    below, above = (
        stats.nct.cdf(stats.t.ppf(0.025, N - 1), N - 1, shift),
        stats.nct.sf(stats.t.ppf(0.975, N - 1), N - 1, shift),
    )
    assert judgment.power == pytest.approx(below if total.mean() < 0 else above, abs=0.07)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_as_many_pairs_as_are_needed_decide(rows, average):
    effect = replace(LOWER.effect, average=average)
    judgment = judged(shifted(rows, -0.1), Condition(effect, below=0))[0]
    assert judgment.verdict == "undecided"
    assert N < judgment.pairs_needed < 301
    assert judgment.finding == f"{judgment.pairs_needed} pairs would decide it"
    total = (NOISE[0] - NOISE[1]) / 10 - 0.1
    drawn = np.random.default_rng(1).choice(total, (2_000, judgment.pairs_needed))
    interval = {"mean": mean_interval, "median": median_interval}[average]
    assert np.mean(interval(drawn).high < 0) > 0.76
    assert np.mean(interval(drawn[:, : judgment.pairs_needed // 2]).high < 0) < 0.8


def test_pairs_are_needed_for_all_conditions_together(rows):
    alone = judged(shifted(rows, -0.02), LOWER)[0]
    errors = {("denoising", 1): 8 - 0.02 + NOISE[2] / 10, ("random", 1): 8 + NOISE[3] / 10}
    other = Condition(difference("denoising", "random", depth=1), below=0)
    both = judged(with_errors(shifted(rows, -0.02), errors), LOWER, other)[0]
    assert both.power < alone.power
    assert both.pairs_needed >= alone.pairs_needed


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(
    "effect",
    [LOWER.effect, replace(LOWER.effect, average="median"), SpreadRatio(*LOWER.effect.samples)],
)
def test_too_few_pairs_have_no_power_and_need_more(effect, n):
    scale = replace(SMALL, report_seeds=n)
    judgment = judged(synthetic(scale), Condition(effect, below=-9), scale=scale)[0]
    assert (judgment.verdict, judgment.power) == ("undecided", 0)
    assert judgment.pairs_needed >= 6


def test_what_no_number_of_pairs_decides_is_said(rows):
    changed = with_errors(shifted(rows, 0), {("denoising", 3): 8.001 + NOISE[1][::-1] / 10})
    judgment = judged(changed, LOWER)[0]
    assert (judgment.verdict, judgment.pairs_needed) == ("undecided", math.inf)
    assert judgment.finding == "even 301 pairs would not decide it"


def test_a_claim_that_is_not_run_has_no_power(rows):
    judgment = judged(rows, Condition(growth("he", "depth", 1, 3), above=0))[0]
    assert np.isnan([judgment.power, judgment.pairs_needed]).all()
    assert judgment.finding == "X"


# Rates at the edge of their grid


def at_rates(best, pretraining=(0.1,), **changes):
    """A scale, and its records if one learning rate is the best for every place."""
    scale = replace(SMALL, learning_rates=(0.03, 0.1, 0.3), pretraining_rates=pretraining)
    scale = replace(scale, **changes)

    def change(r):
        off = abs(math.log((r["learning_rate"] or 1) / best))
        return {"validation_error": 0.05 + off / 50} if r["role"] == "selection" else {}

    return scale, synthetic(scale, change)


@pytest.mark.parametrize(("best", "verdict"), [(0.03, "undecided"), (0.1, "holds")])
def test_no_claim_rests_on_a_learning_rate_at_the_edge(best, verdict):
    scale, rows = at_rates(best)
    judgment = judged(shifted(rows, -1), LOWER, scale=scale)[0]
    assert judgment.verdict == verdict
    edge = "the learning rate of denoising(depth 3) lies at the edge of its grid"
    assert (edge in judgment.finding) == (verdict == "undecided")
    assert np.isnan(judgment.power) == (verdict == "undecided")


@pytest.mark.parametrize(("rates", "edge"), [((0.1,), False), ((0.1, 0.3), True)])
def test_no_claim_rests_on_a_pretraining_rate_at_the_edge(rates, edge):
    scale, rows = at_rates(0.1, rates)
    judgment = judged(shifted(rows, 1), LOWER, scale=scale)[0]
    assert judgment.verdict == ("undecided" if edge else "fails")
    said = "the pretraining rate of denoising(depth 3) lies at the edge of its grid"
    assert (judgment.finding == said) == edge


def test_a_firm_effect_outside_fails_a_claim_whatever_lies_at_an_edge():
    scale, rows = at_rates(0.1, (0.1, 0.3))
    firm = Condition(growth("random", "depth", 1, 3), above=50)
    judgment = judged(shifted(rows, 5), LOWER, firm, scale=scale)[0]
    assert (judgment.verdict, judgment.decisive.condition) == ("fails", firm)


def test_a_place_that_trains_at_no_rate_is_no_edge():
    axes = {"axes": {"depth": (1, 5)}, "reference": {"depth": 1}}
    scale = replace(SMALL, **axes, learning_rates=(0.03, 0.1, 0.3))
    # All rates are alike, so that the lowest is chosen.
    rows = synthetic(
        scale,
        lambda r: {"validation_error": 0.9} if r["role"] == "selection" and r["depth"] == 5 else {},
    )
    assert {r["learning_rate"] for r in rows if r["role"] == "report" and r["depth"] == 5} == {0.03}
    claimed = Condition(AtChance(sample("random", depth=5)), above=0.5)
    assert judged(rows, claimed, scale=scale)[0].verdict == "holds"


def test_every_claim_of_the_study_widens_the_intervals_of_all(rows):
    changed = shifted(rows, -1)
    alone = judged(changed, LOWER)[0]
    among = judged(changed, LOWER, a=SAME, b=SAME)[0]
    assert (alone.level, among.level) == pytest.approx((0.05, 0.05 / 3))
    assert among.findings[0].interval.low < alone.findings[0].interval.low
    # Those that are not run are among them.
    absent = Condition(difference("denoising", "random", depth=8), below=0)
    assert judged(changed, LOWER, a=absent, b=absent)[0].level == pytest.approx(0.05 / 3)


def test_claim_that_fails_is_tested_more_strictly_for_each_condition(rows):
    assert judged(shifted(rows, 1), LOWER, LOWER)[0].level == pytest.approx(0.05 / 2)


@pytest.mark.parametrize("n", [5, 6])
def test_fewer_than_six_pairs_decide_nothing(n):
    scale = replace(SMALL, report_seeds=n)
    rows = shifted(synthetic(scale), -5)
    assert judged(rows, LOWER, scale=scale)[0].verdict == {5: "undecided", 6: "holds"}[n]


def test_a_missing_seed_is_not_run_and_shows_no_number(rows):
    last = next(
        r for r in rows if r["role"] == "report" and r["arm"] == "random" and r["depth"] == 3
    )
    (judgment,) = judged([r for r in rows if r is not last], LOWER)
    assert judgment.verdict == "not run"
    assert judgment.findings[0].interval is None
    assert judged(rows, Condition(growth("he", "depth", 1, 3), above=0))[0].verdict == "not run"


def test_a_metric_that_some_runs_lack_leaves_a_claim_undecided(rows):
    metric = at_training_nll(0.1)
    place = {"role": "report", "arm": "random", "depth": 3}
    changed = []
    for r in rows:
        curve = [1, 0.5, 0.05] if r["seed"] or r["arm"] != "random" else [1, 0.9, 0.8]
        curves = {"train_nll": curve, "validation_nll": [1, 0.4, 0.3]}
        changed.append(r | {"curves": curves} if place["role"] == r["role"] else r)
    condition = Condition(difference("denoising", "random", metric=metric, depth=3), below=0)
    (judgment,) = judged(changed, condition)
    assert judgment.verdict == "undecided"
    lacks = f"1 of {N} runs lack {metric.replace('_', ' ')} of random(depth 3)"
    assert judgment.finding == lacks
    assert verdicts.ledger([judgment])["effect"][0] == "X"
    first = next(r for r in changed if all(r[name] == value for name, value in place.items()))
    assert judged([r for r in changed if r is not first], condition)[0].verdict == "not run"


def test_pairs_are_the_seeds_that_both_have(rows):
    scale = replace(
        SMALL, headline_arms=("random",), headline_axes={"depth": (3,)}, headline_seeds=N + 4
    )
    finding = judged(synthetic(scale), LOWER, scale=scale)[0].findings[0]
    assert finding.interval.n == N


def test_a_diverged_run_counts(rows):
    bad = ("report", "random", 3, 0)
    changed = [
        diverged(r, SMALL) if (r["role"], r["arm"], r["depth"], r["seed"]) == bad else r
        for r in rows
    ]
    effect = AtChance(sample("random", depth=3))
    assert measured(changed, effect).interval.estimate == 0.1


def test_too_many_claims_and_a_name_twice_are_refused(rows):
    with pytest.raises(ValueError, match="at most 20 claims.*Received: 21 claims"):
        judged(rows, LOWER, **{f"c{i}": LOWER for i in range(20)})
    with pytest.raises(ValueError, match="another name"):
        verdicts.not_run((CLAIMS[0], CLAIMS[0]))


def test_the_frame_has_a_row_per_condition(rows):
    table = verdicts.to_frame(judged(shifted(rows, -1), LOWER, SAME, other=LOWER))
    assert list(table["claim"]) == ["c", "c", "other"]
    assert list(table["below"]) == [0, 0.25, 0]
    assert list(table["reason"]) == ["", MARGIN_REASON, ""]
    assert list(table["spread"]) == pytest.approx([np.std(NOISE[0] - NOISE[1], ddof=1) / 10] * 3)
    assert (table["power"].between(0, 1)).all()
    assert np.isnan(table["above"][0])
    assert (table["pairs"] == N).all()


# Any metric, any axes


HIGHER = replace(SMALL, kind=classification.Classification())
HIGHER.kind.metrics = (
    *classification.KIND.metrics,
    Metric("accuracy", "accuracy", "%", "points", factor=100, lower_is_better=False),
)


@pytest.mark.parametrize(("metric", "share"), [("test_error", 1 / 8), ("accuracy", 7 / 8)])
def test_what_outperforms_is_what_is_better(rows, metric, share):
    a, b = np.arange(N) * 1.0, np.r_[np.arange(7) - 1.0, 8.0, 8.0, 9.0]
    changed = with_errors(rows, {("denoising", 3): a, ("random", 3): b}, metric)
    effect = Outperforms(*(sample(arm, metric, depth=3) for arm in ("denoising", "random")))
    interval = measured(changed, effect, scale=HIGHER).interval
    assert (interval.estimate, interval.n) == (share, 8)


@pytest.mark.parametrize(
    ("metric", "unit"), [("test_error", "points"), ("test_nll", "nats"), ("flops", "FLOP")]
)
def test_an_effect_has_the_unit_and_the_scale_of_its_metric(rows, metric, unit):
    report = [r for r in rows if (r["role"], r["arm"]) == ("report", "random")]
    means = [np.mean([r[metric] for r in report if r["depth"] == depth]) for depth in (1, 3)]
    effect = growth("random", "depth", 1, 3, metric=metric)
    finding = measured(rows, effect)
    factor = 100 if unit == "points" else 1
    assert finding.interval.estimate == pytest.approx(factor * (means[1] - means[0]))
    assert finding.text.endswith(f"random(depth 1), {unit} > 0")


TWO_AXES = replace(SMALL, axes={"depth": (1, 3), "width": (50, 200), "epochs": (25,)})


def test_a_claim_is_about_one_place_of_several_axes():
    rows = synthetic(TWO_AXES)
    bad = ("report", "random", 3, 50)
    changed = [
        r | {"test_error": 1.0} if (r["role"], r["arm"], r["depth"], r["width"]) == bad else r
        for r in rows
    ]
    effects = [difference("random", "denoising", depth=3, width=width) for width in (50, 200)]
    effects += [difference("random", "denoising", epochs=25, width=50, depth=3)]
    found = measured(changed, *effects, scale=TWO_AXES)
    assert [f.interval.estimate > 80 for f in found] == [True, False, True]


@pytest.mark.parametrize(
    ("place", "received"),
    [
        ({"depth": 3}, "random(depth 3)"),
        ({}, "random"),
        ({"depth": 3, "width": 50, "latent": 2}, "random(depth 3, width 50, latent 2)"),
    ],
)
def test_a_claim_that_does_not_say_where_is_refused(place, received):
    rows, effect = synthetic(TWO_AXES), AtChance(sample("random", **place))
    expected = f"Expected: depth, width, epochs. Received: {received}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        measured(rows, effect, scale=TWO_AXES)


def test_a_metric_that_the_kind_lacks_is_refused(rows):
    effect = growth("random", "depth", 1, 3, metric="test_bound")
    with pytest.raises(ValueError, match="metric of the kind classification.*Received: test_bound"):
        measured(rows, effect)


def test_chance_is_that_of_the_place(rows):
    scale = replace(SMALL, axes={"depth": (1, 3), "dataset": ("mnist", "mine")}, classes=2)
    effects = [
        AtChance(sample("random", depth=1, dataset=dataset)) for dataset in ("mnist", "mine")
    ]
    changed = with_errors(synthetic(scale), {("random", 1): [48.0] * N})
    assert [f.interval.estimate for f in measured(changed, *effects, scale=scale)] == [0, 1]
    alone = replace(scale, axes=scale.axes | {"dataset": ("mine",)})
    changed = with_errors(synthetic(alone), {("random", 1): [48.0] * N})
    effect = AtChance(sample("random", depth=1))
    assert measured(changed, effect, scale=alone).interval.estimate == 1


# The claims that studies fix


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.claims])
def test_claims_have_metrics_and_bounds_and_compare_within_a_family(name):
    study = STUDIES[name]
    verdicts.check(study.claims)
    for claim in study.claims:
        scale = next(s for s in study.scales.values() if verdicts.asked((claim,), s))
        # Refuses what is no metric of the scale.
        assert all(scale.kind.metric(s.metric) for s in claim.samples)
        for condition in claim.conditions:
            assert len({scale.arm(s.arm).family for s in condition.effect.samples}) == 1
        assert all(c.above < c.below for c in claim.conditions)
        assert all(math.isfinite(min(abs(c.above), abs(c.below))) for c in claim.conditions)
        assert all(getattr(claim, f.name) for f in dataclasses.fields(claim))


def test_claims_of_equivalence_have_29_pairs():
    scale = STUDIES["depth"].scales["standard"]
    equivalences = [c for claim in CLAIMS for c in claim.conditions if c.above == -c.below]
    samples = {sample for c in equivalences for sample in c.effect.samples}
    assert len(equivalences) >= 12
    assert {len(scale.seeds(place_of(s, scale))) for s in samples} == {29}


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.claims])
def test_every_claim_is_asked_and_some_at_every_scale(name):
    study = STUDIES[name]
    asked = [
        verdicts.asked(study.claims, scale)
        for scale in study.scales.values()
        if not scale.demonstration
    ]
    assert {claim for each in asked for claim in each} == set(study.claims)
    assert min(map(len, asked)) >= min(3, len(study.claims))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (["holds"] * 3, "holds"),
        (["holds", "undecided"], "undecided"),
        (["holds", "fails"], "fails"),
    ],
)
def test_a_claim_holds_on_all_data_if_it_holds_on_each(found, verdict):
    assert verdicts.over_all(found) == verdict


def test_the_depth_study_can_be_judged():
    scale = STUDIES["depth"].scales["standard"]
    rates = {"learning_rates": (0.03, 0.1, 0.3), "pretraining_rates": (0.1,)}
    scale = replace(scale, train_size=2_000, **rates)
    judgments = verdicts.judge(CLAIMS, frame(synthetic(scale), scale), scale)
    verdict = {j.claim.name: j.verdict for j in judgments}
    # In the synthetic records, pretraining helps, and random stays at chance from 4 layers on.
    assert verdict["pretraining-helps-at-every-depth"] == "holds"
    assert verdict["five-layers-need-pretraining"] == "holds"
    assert verdict["batch-norm-makes-depth-trainable"] == "holds"
    assert "not run" not in verdict.values()


def test_a_run_does_not_wait_for_numpy():
    code = "import sys, studies.depth; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
