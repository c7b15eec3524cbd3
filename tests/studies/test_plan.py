import math
from dataclasses import asdict, replace

import pytest
from fake_cells import SCALE, result

from studies.arms import ARMS
from studies.depth import SCALES
from studies.engine import selection
from studies.engine.cost import equal_cost_epochs
from studies.engine.plan import groups, plan, progress, tally
from studies.engine.scale import Scale, find, save
from studies.engine.trial import Cell

LARGE = replace(SCALE, arms=("he", "denoising", "random", "he_denoising"), depths=(3, 1))
# 1.2 million inputs of 784 values of 4 bytes are 3.8 GB: what a cell holds of one seed.
BIG = replace(SCALE, train_size=10**6, validation_size=10**5, test_size=10**5)


def records_of(cell, status="done", **metrics):
    return [
        {"key": t.key, **asdict(t), **result(t), "status": status, **metrics} for t in cell.trials
    ]


def run_all(scale, judge=lambda cell: records_of(cell), take=0):
    """Run what is planned, cell by cell; `take` says which of the ready cells."""
    records, cells = [], []
    while ready := plan(scale, records):
        cells.append(ready[take % len(ready)])
        records += judge(cells[-1])
    return records, cells


def role(cells, name, **fields):
    found = [c for c in cells if c.trials[0].role == name]
    return [c for c in found if all(getattr(c.trials[0], k) == v for k, v in fields.items())]


def seeds(cell):
    return sorted({t.seed for t in cell.trials})


def rates(cell):
    return sorted({t.learning_rate for t in cell.trials})


def test_at_first_only_what_depends_on_nothing_is_ready():
    ready = plan(SCALE, [])
    assert [(c.trials[0].role, c.trials[0].arm, c.trials[0].depth) for c in ready] == [
        ("selection", "random", 1),
        ("pretraining", "denoising", 2),
        ("selection", "random", 2),
    ]


def test_selection_is_all_seeds_times_all_rates():
    cell = role(plan(SCALE, []), "selection", depth=1)[0]
    assert [(t.seed, t.learning_rate) for t in cell.trials] == [
        (1000, 0.1),
        (1000, 0.3),
        (1001, 0.1),
        (1001, 0.3),
    ]
    assert cell.stacks == ()


def test_report_follows_its_selection_at_the_chosen_rate_and_comes_first():
    selected = role(plan(SCALE, []), "selection", depth=1)[0]
    scores = {0.1: 0.4, 0.3: 0.2}
    records = [{**r, "validation_error": scores[r["learning_rate"]]} for r in records_of(selected)]
    report = plan(SCALE, records)[0]
    assert (report.trials[0].role, report.trials[0].depth) == ("report", 1)
    assert rates(report) == [0.3]
    assert seeds(report) == [0, 1, 2]


def test_stacks_come_before_the_nets_that_start_from_them():
    records, cells = run_all(SCALE)
    tuned, stacks = role(cells, "pretraining")
    assert (seeds(tuned), rates(tuned)) == ([1000, 1001], [0.01, 0.03])
    assert seeds(stacks) == [0, 1, 2]
    (rate,) = rates(stacks)
    assert rate == selection.choose_pretraining_rate(records_of(tuned), "denoising")
    for cell in role(cells, "selection", arm="denoising"):
        assert cell.stacks == (tuned.trials,)
        assert {(t.pretraining_epochs, t.pretraining_rate) for t in cell.trials} == {(2, rate)}
    for cell in role(cells, "report", arm="denoising"):
        assert cell.stacks == (stacks.trials,)


def test_one_stack_of_the_greatest_depth_serves_all():
    _, cells = run_all(LARGE)
    assert {t.depth for c in role(cells, "pretraining") for t in c.trials} == {3}


def test_only_reports_see_the_test_set():
    _, cells = run_all(SCALE)
    other = [t for c in cells for t in c.trials if t.role != "report"]
    assert all("test_error" not in result(t) for t in other)
    assert {t.test_size for t in other} == {type(other[0])().test_size}
    assert {t.test_size for c in role(cells, "report") for t in c.trials} == {SCALE.test_size}


def test_report_seeds_and_selection_seeds_are_disjoint():
    _, cells = run_all(SCALE)
    reports = {s for c in role(cells, "report") for s in seeds(c)}
    assert not reports & {s for c in role(cells, "selection") for s in seeds(c)}


def test_controls_train_on_to_the_cost_of_their_neighbor_in_reports_only():
    _, cells = run_all(LARGE)
    for cell in cells:
        trial = cell.trials[0]
        neighbor = ARMS.get(ARMS[trial.arm].pretrained_neighbor)
        expected = 0
        if trial.role == "report" and neighbor:
            expected = equal_cost_epochs(trial, neighbor, 2, SCALE.features, SCALE.classes)
        assert {t.extra_epochs for t in cell.trials} == {expected}


def test_a_control_without_its_neighbor_trains_no_longer():
    _, cells = run_all(replace(SCALE, arms=("random",)))
    assert {t.extra_epochs for c in cells for t in c.trials} == {0}


def test_a_cell_holds_no_more_seeds_than_fit_in_memory():
    records, cells = run_all(BIG)
    assert {len(seeds(cell)) for cell in cells} == {1}
    assert rates(role(cells, "selection")[0]) == [0.1, 0.3]
    assert len(records) == progress(BIG, []).trials == progress(SCALE, []).trials


@pytest.mark.parametrize("scale", [SCALE, LARGE, BIG], ids=["small", "large", "big"])
def test_every_order_runs_every_trial_once_and_ends_the_same(scale):
    ends = []
    for take in (0, -1, 7):
        records, cells = run_all(scale, take=take)
        keys = [r["key"] for r in records]
        assert len(set(keys)) == len(keys)
        ends.append((sorted(keys), sorted(c.key for c in cells)))
    assert ends[0] == ends[1] == ends[2]


def test_the_total_is_known_from_the_start():
    begin = progress(SCALE, [])
    records, cells = run_all(SCALE)
    end = progress(SCALE, records)
    assert (begin.cells, begin.trials) == (len(cells), len(records)) == (10, 35)
    assert (begin.cells_done, begin.trials_done, begin.flops_done) == (0, 0, 0)
    assert (end.cells, end.trials, end.flops) == (begin.cells, begin.trials, begin.flops)
    assert (end.cells_done, end.trials_done, end.flops_done) == (end.cells, end.trials, end.flops)


def test_failures_are_planned_again_and_results_are_not():
    (first, *_) = plan(SCALE, [])
    for status in ("error", "killed"):
        assert plan(SCALE, records_of(first, status))[0] == first
    assert first not in plan(SCALE, records_of(first, "diverged"))


def test_an_added_seed_and_an_added_arm_run_only_what_is_new():
    records, _ = run_all(SCALE)
    more = replace(SCALE, report_seeds=5)
    ready = plan(more, records)
    assert {tuple(seeds(c)) for c in ready} == {(3, 4)}
    (stacks,) = role(ready, "pretraining")
    records += records_of(stacks)
    report = role(plan(more, records), "report", arm="denoising")[0]
    assert [sorted({t.seed for t in group}) for group in report.stacks] == [[0, 1, 2, 3, 4]]

    arm = replace(SCALE, arms=(*SCALE.arms, "glorot"))
    assert {c.trials[0].arm for c in plan(arm, records)} == {"glorot"}


def test_the_headline_has_more_seeds_and_loses_none_that_are_done():
    records, _ = run_all(LARGE)
    headline = {"headline_arms": ("random", "denoising"), "headline_depths": (1,)}
    more = replace(LARGE, **headline, headline_seeds=6)
    _, cells = run_all(more)
    asked = {
        (c.trials[0].arm, c.trials[0].depth): seeds(c)
        for c in role(cells, "report")
        if len(seeds(c)) != LARGE.report_seeds
    }
    assert asked == dict.fromkeys([("random", 1), ("denoising", 1)], [0, 1, 2, 3, 4, 5])
    added = plan(more, records)
    assert {(c.trials[0].role, c.trials[0].arm, *seeds(c)) for c in added} == {
        ("report", "random", 3, 4, 5),
        ("pretraining", "denoising", 3, 4, 5),
    }
    assert replace(LARGE, **headline, headline_seeds=2).seeds("random", 1) == range(3)


def test_a_wider_grid_waits_for_its_own_trials_and_ignores_others():
    records, _ = run_all(SCALE)
    wider = replace(SCALE, learning_rates=(0.1, 0.3, 1.0))
    ready = plan(wider, records)
    assert {c.trials[0].role for c in ready} == {"selection"}
    assert {t.learning_rate for c in ready for t in c.trials} == {1.0}


def test_tally_counts_by_status():
    (first, second, *_) = plan(SCALE, [])
    records = records_of(first, "error") + records_of(second, "diverged")
    assert tally(SCALE, records) == {"error": 4, "diverged": 4, "missing": 27}


def test_plan_changes_nothing_and_repeats_itself():
    records, _ = run_all(SCALE)
    part = records[:12]
    before = [dict(r) for r in part]
    assert plan(SCALE, part) == plan(SCALE, reversed(part))
    assert part == before


@pytest.mark.parametrize("name", SCALES)
def test_the_depth_study_can_be_composed(name):
    wanted = groups(SCALES[name], [])
    assert len({group.trials for group in wanted}) == len(wanted)
    # Two hours on 2 cores.
    limit = {"standard": 7.6e14}.get(name, math.inf)
    assert progress(SCALES[name], []).flops <= limit


# Selection


def selected(rate, value, status="done", seed=0):
    return {
        "status": status,
        "role": "selection",
        "arm": "he",
        "depth": 1,
        "learning_rate": rate,
        "seed": seed,
        "validation_error": value,
    }


def test_lowest_mean_error_over_seeds_wins():
    records = [selected(0.1, 0.2), selected(0.1, 0.4), selected(0.3, 0.1), selected(0.3, 0.6)]
    assert selection.choose_rate(records, "he", 1, 10) == 0.1


def test_a_tie_goes_to_the_smaller_rate_in_any_order():
    records = [selected(0.3, 0.2), selected(0.1, 0.2), selected(1.0, 0.2)]
    assert selection.choose_rate(records, "he", 1, 10) == 0.1
    assert selection.choose_rate(records[::-1], "he", 1, 10) == 0.1


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_diverged_run_has_the_error_of_chance(nothing):
    diverged = selected(0.3, nothing, "diverged")
    assert selection.choose_rate([diverged, selected(0.1, 0.89)], "he", 1, 10) == 0.1
    assert selection.choose_rate([diverged, selected(0.1, 0.91)], "he", 1, 10) == 0.3
    # Of two classes, chance is 0.5.
    assert selection.choose_rate([diverged, selected(0.1, 0.6)], "he", 1, 2) == 0.3


def test_other_arms_depths_roles_and_failures_do_not_count():
    others = [
        {**selected(0.3, 0.0), "arm": "glorot"},
        {**selected(0.3, 0.0), "depth": 2},
        {**selected(0.3, 0.0), "role": "report"},
        {**selected(0.3, 0.0), "status": "error"},
    ]
    assert selection.choose_rate([*others, selected(0.1, 0.5)], "he", 1, 10) == 0.1
    with pytest.raises(ValueError, match="arm 'he' at depth 1. Received: none"):
        selection.choose_rate(others, "he", 1, 10)


def test_rows_of_a_data_frame_will_do():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([selected(0.1, 0.5), selected(0.3, None, "diverged")])
    assert selection.choose_rate(frame.to_dict("records"), "he", 1, 10) == 0.1


def test_pretraining_rate_has_the_lowest_ratio_and_divergence_is_infinitely_bad():
    def stack(rate, ratio, status="done"):
        changes = {"role": "pretraining", "validation_ratio": ratio}
        return {**selected(rate, None, status), **changes}

    records = [stack(0.1, None, "diverged"), stack(0.1, 0.1), stack(0.03, 5.0), stack(0.03, 7.0)]
    assert selection.choose_pretraining_rate(records, "he") == 0.03
    assert selection.choose_pretraining_rate(records[:1], "he") == 0.1
    with pytest.raises(ValueError, match="pretraining trial of arm 'glorot'"):
        selection.choose_pretraining_rate(records, "glorot")


# Scales


@pytest.mark.parametrize(
    ("axis", "value"),
    [
        ("arms", ("random", "no_such_arm")),
        ("arms", ()),
        ("arms", ("he", "he")),
        ("depths", (0,)),
        ("depths", (1.5,)),
        ("learning_rates", (0.1, -0.1)),
        ("pretraining_rates", (math.nan,)),
        ("epochs", 0),
        ("selection_seeds", True),
        ("report_seeds", 1001),
        ("headline_seeds", 1001),
        ("batch_size", 101),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(axis, value):
    with pytest.raises(ValueError, match=f"Received: {axis}="):
        replace(SCALE, **{axis: value})


def test_a_custom_scale_is_found_in_its_folder(tmp_path):
    save(SCALE, tmp_path / "custom")
    assert find("depth", "custom", tmp_path / "custom") == SCALE
    assert find("depth", "quick", tmp_path) == SCALES["quick"]
    assert isinstance(find("depth", "custom", tmp_path / "custom"), Scale)


def test_a_cell_is_one_population():
    _, cells = run_all(LARGE)
    for cell in cells:
        fixed = {replace(t, seed=0, learning_rate=0.0) for t in cell.trials}
        assert len(fixed) == 1
        assert isinstance(cell, Cell)
