import re
from dataclasses import replace

import pytest
from studies_synthetic import STUDIES, diverged
from studies_synthetic import records as synthetic

from studies.arms import Arm
from studies.report.fairness import UnfairError, check
from studies.report.frame import frame

SMALL = replace(
    STUDIES["depth"].scales["quick"],
    arms=("random", "denoising"),
    axes={"depth": (1, 3)},
    learning_rates=(0.03, 0.1, 0.3),
    selection_seeds=2,
)


@pytest.fixture
def rows():
    return synthetic(SMALL)


def of(rows, role, arm="random", depth=1):
    return [r for r in rows if (r["role"], r["arm"], r["depth"]) == (role, arm, depth)]


def refused(rows, message, scale=SMALL):
    with pytest.raises(UnfairError, match=message + r".*Received: "):
        check(frame(rows, scale), scale)


def test_what_the_plan_makes_is_fair(rows):
    check(frame(rows, SMALL), SMALL)


def test_what_is_not_finished_is_not_unfair(rows):
    for kept in (
        [r for r in rows if r["role"] != "report"],
        [r for r in rows if r["role"] == "pretraining"],
        [r for r in rows if r is not of(rows, "selection")[0]],
        [r for r in rows if r["arm"] == "denoising"],
        [diverged(r, SMALL) if r["role"] == "report" else r for r in rows],
    ):
        check(frame(kept, SMALL), SMALL)


@pytest.mark.parametrize(
    "seen", [{"test_error": 0.1}, {"final_test_nll": 0.3}, {"curves": {"test_error": [0.1]}}]
)
def test_a_selection_trial_that_saw_the_test_set_is_refused(rows, seen):
    of(rows, "selection")[0].update(seen)
    refused(rows, "saw the test set")


def test_a_selection_seed_that_is_reported_is_refused(rows):
    of(rows, "report")[0]["seed"] = 1000
    refused(rows, "fresh seeds")


def test_another_grid_is_refused(rows):
    of(rows, "selection", depth=3)[0]["learning_rate"] = 0.05
    refused(rows, "random at depth 3.*not chosen on the grid")


def test_a_rate_that_one_seed_lacks_is_refused(rows):
    cell = of(rows, "selection", arm="denoising")
    lowest = [r for r in cell if r["learning_rate"] == 0.03]
    lowest[0]["seed"] = 1002
    refused(rows, "denoising at depth 1.*2 seeds")


def test_a_reported_rate_that_was_not_chosen_is_refused(rows):
    for record in of(rows, "report"):
        record["learning_rate"] = 0.3
    refused(rows, re.escape("random at depth 1") + ".*Expected 0.1")


def test_a_place_is_found_on_all_axes():
    scale = replace(SMALL, axes={"width": (50, 200), "dataset": ("mnist", "fashion_mnist")})
    rows = synthetic(scale)
    check(frame(rows, scale), scale)
    changed = next(r for r in rows if r["role"] == "report" and r["width"] == 200)
    changed["learning_rate"] = 0.3
    refused(rows, "random at width 200, dataset mnist.*Expected 0.1", scale)


@pytest.mark.parametrize("others", [(), ("random",)])
def test_an_arm_without_rates_needs_no_selection(others):
    rates = {"learning_rates": (0.03, 0.1) if others else (), "selection_seeds": len(others)}
    scale = replace(SMALL, arms=(*others, Arm("untrained", rates=False)), **rates)
    rows = synthetic(scale)
    assert {r["arm"] for r in rows if r["role"] == "selection"} == set(others)
    check(frame(rows, scale), scale)
    if others:
        of(rows, "selection")[-1]["learning_rate"] = 0.05
        refused(rows, "random at depth 1.*not chosen on the grid", scale)
