from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies_synthetic import STUDIES
from studies_synthetic import records as synthetic

from studies.kinds.classification import at_training_nll
from studies.report.answers import Numbers
from studies.report.claims import sample
from studies.report.frame import frame
from studies.report.published import Published
from studies.report.verdicts import judge, not_run

SCALE = replace(
    STUDIES["depth"].scales["quick"],
    arms=("random", "denoising"),
    axes={"depth": (1, 3)},
    learning_rates=(0.1, 0.3),
    pretraining_rates=(0.1,),
    report_seeds=8,
)
ERRORS = {"random": [8.1, 8.4, 8.2, 8.9, 8.0, 8.3, 8.5, 8.6], "denoising": [7.2, 7.6, 7.1] * 3}


def rows(**errors):
    """Records in which the arms have these errors in percent at depth 1."""

    def change(record):
        if (record["role"], record["depth"]) != ("report", 1):
            return {}
        return {"test_error": (ERRORS | errors)[record["arm"]][record["seed"]] / 100}

    return synthetic(SCALE, change=change)


def numbers(records):
    return Numbers(frame(records, SCALE), SCALE)


@pytest.fixture(scope="module")
def found():
    return numbers(rows())


def test_a_number_has_the_interval_of_its_mean(found):
    errors = ERRORS["random"]
    low, high = stats.t.interval(0.95, 7, np.mean(errors), stats.sem(errors))
    expected = f"{np.mean(errors):.2f} % ({low:.2f} to {high:.2f})"
    assert found.number("random", depth=1) == expected


def test_a_number_has_the_digits_that_its_interval_leaves():
    wide = numbers(rows(random=[2.0, 8.0, 14.0, 20.0, 26.0, 32.0, 38.0, 44.0]))
    assert wide.number("random", depth=1) == "23 % (11 to 35)"
    narrow = numbers(rows(random=[8.001, 8.002, 8.003, 8.004] * 2))
    assert narrow.number("random", depth=1) == "8.00 % (8.00 to 8.00)"


def test_no_interval_reaches_beyond_what_a_metric_can_be():
    scale = replace(STUDIES["trajectories"].scales["standard"], report_seeds=4)
    told = [1.0, 0.9, 1.0, 1.0]
    arm = scale.arm_names[-1]
    results = pd.DataFrame(
        {"role": "report", "arm": arm, "depth": 2, "seed": range(4), "told": told}
    )
    results["status"], results["test_error"], results["dataset"] = "done", 0.05, "mnist"
    low, _ = stats.t.interval(0.95, 3, 97.5, stats.sem(100 * np.array(told)))
    found = Numbers(results, scale).number(arm, "told", depth=2)
    assert found == f"97.5 % ({low:.1f} to 100.0)"


def test_a_comparison_is_paired_and_says_the_direction(found):
    gain = np.subtract(ERRORS["random"], ERRORS["denoising"][:8])
    low, high = stats.t.interval(0.95, 7, gain.mean(), stats.sem(gain))
    expected = f"by {gain.mean():.2f} points ({low:.2f} to {high:.2f})"
    assert found.comparison("denoising", "random", depth=1) == f"better {expected}"
    assert found.comparison("random", "denoising", depth=1) == f"worse {expected}"
    same = numbers(rows(denoising=[8.2, 8.3, 8.3, 8.8, 8.1, 8.2, 8.6, 8.5]))
    assert same.comparison("denoising", "random", depth=1).startswith("neither shown to be better")


def test_where_runs_fail_numbers_are_medians():
    failed = numbers(rows(random=[*ERRORS["random"][:6], 88.0, 88.5]))
    text = failed.number("random", depth=1)
    assert text == "8.35 % (median; 2 of 8 runs failed)"
    gain = float(failed.comparison("denoising", "random", depth=1).split()[2])
    differences = np.subtract([*ERRORS["random"][:6], 88.0, 88.5], ERRORS["denoising"][:8])
    assert gain == pytest.approx(np.median(differences), abs=0.006)


def test_what_lacks_runs_is_not_run():
    whole = rows()
    last = next(r for r in whole if (r["role"], r["arm"], r["depth"]) == ("report", "random", 1))
    partial = numbers([r for r in whole if r is not last])
    assert partial.number("random", depth=1) == "(not run)"
    assert partial.comparison("denoising", "random", depth=1) == "not compared (not run)"
    assert "%" in partial.number("denoising", depth=1)
    assert partial.number("glorot", depth=1) == partial.number("random", depth=8) == "(not run)"
    published = partial.beside(Published(8.0, sample("random", depth=1), "A paper"))
    assert (published["published"], published["ours"]) == ("8", "X")


def test_a_number_that_some_runs_lack_is_said_to_be_missing():
    records = [r | ({"curves": {}} if r["role"] == "report" else {}) for r in rows()]
    lacking, metric = numbers(records), at_training_nll(0.1)
    assert lacking.number("random", metric, depth=1) == "(missing in some runs)"
    comparison = lacking.comparison("denoising", "random", metric, depth=1)
    assert comparison == "not compared (missing in some runs)"
    assert lacking.comparison("denoising", "glorot", metric, depth=1) == "not compared (not run)"


def test_an_axis_that_is_left_open_is_an_error(found):
    with pytest.raises(ValueError, match="a value of each axis.*Expected: depth. Received: random"):
        found.number("random")


def test_a_published_number_stands_beside_the_interval_of_single_runs(found):
    errors = np.array(ERRORS["random"])
    half = stats.t.ppf(0.975, 7) * errors.std(ddof=1) * np.sqrt(1 + 1 / 8)
    beside = found.beside(Published(8.0, sample("random", depth=1), "A paper, table 1"))
    assert beside["ours"] == f"{errors.mean():.2f}"
    assert beside["95 % of single runs"] == (
        f"{errors.mean() - half:.2f} to {errors.mean() + half:.2f}"
    )
    assert (beside["source"], beside["metric"]) == ("A paper, table 1", "test error, %")


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.scales])
def test_a_study_answers_whatever_has_been_run(name):
    study = STUDIES[name]
    scale = replace(study.scales["standard"], report_seeds=3, headline_arms=())
    records = synthetic(scale)
    some = [r for r in records if r["role"] != "report" or r["seed"] == 0]
    judged = judge(study.claims, frame(records, scale), scale)
    whole = Numbers(frame(records, scale), scale, judged)
    partial = Numbers(frame(some, scale), scale, not_run(study.claims))
    assert "not run" not in study.answer(whole)
    assert "(not run)" in study.answer(partial)


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.in_short])
def test_a_study_says_in_short_what_pretraining_gains(name):
    short, scale = STUDIES[name].in_short, STUDIES[name].scales["standard"]
    some = replace(scale, report_seeds=3, headline_arms=())
    numbers = Numbers(frame(synthetic(some), some), some)
    told = [numbers.of(gain) for gain in short.gains.values()]
    assert short.sentence.count("{}") == len(told)
    for words, gain in told:
        assert "not run" not in words
        assert gain.low <= gain.estimate <= gain.high
