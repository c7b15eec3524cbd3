import math
from dataclasses import asdict, replace

import pytest
from fake_cells import SCALE, STUDY, result

from studies import vae_latent
from studies.arms import ARMS, Arm
from studies.engine.plan import choose_rate, flops, groups, plan, progress, tally
from studies.engine.scale import CUSTOM, load_custom, save_custom
from studies.engine.trial import Cell
from studies.kinds import classification, density

LARGE = replace(SCALE, arms=("he", "denoising", "random", "he_denoising"), axes={"depth": (3, 1)})
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
    assert rate == choose_rate(records_of(tuned), SCALE)
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


def test_a_longer_arm_trains_to_the_total_cost_of_its_pretrained_arm():
    scale = replace(LARGE, arms=("random", "random_longer", "denoising"))
    _, cells = run_all(scale)
    denoising = scale.arm("denoising")
    for cell in cells:
        trial, expected = cell.trials[0], 3
        if trial.role == "pretraining":
            continue
        if trial.arm == "random_longer":
            sizes = denoising, 2, 784, 10
            expected += classification.equal_cost_epochs(replace(trial, epochs=3), cell.arm, *sizes)
        assert {t.epochs for t in cell.trials} == {expected}
    with pytest.raises(ValueError, match="cost of 'denoising'.*Received: random, random_longer$"):
        replace(scale, arms=("random", "random_longer"))


# The rule that chooses the pretraining rate

SEARCH = replace(SCALE, rule="validation", reference={"depth": 2})


def searched(best):
    """Selection in which the nets of one pretraining rate have the lowest error."""

    def judge(cell):
        records = records_of(cell)
        if cell.trials[0].role == "selection":
            for r in records:
                off = 0.1 * (r["pretraining_rate"] != best) + 0.01 * (r["learning_rate"] != 0.3)
                r["validation_error"] = 0.1 + off
        return records

    return judge


@pytest.mark.parametrize("best", [0.01, 0.03])
def test_the_pretraining_rate_is_that_of_the_best_nets_at_the_reference(best):
    records, cells = run_all(SEARCH, searched(best))
    pretrained = role(cells, "selection", arm="denoising")
    tried = [(c.trials[0].depth, c.trials[0].pretraining_rate) for c in pretrained]
    assert sorted(tried) == sorted([(2, 0.01), (2, 0.03), (1, best)])
    _, stacks = role(cells, "pretraining")
    assert (seeds(stacks), rates(stacks)) == ([0, 1, 2], [best])
    for cell in role(cells, "report", arm="denoising"):
        assert {t.pretraining_rate for t in cell.trials} == {best}
        assert rates(cell) == [0.3]
    assert progress(SEARCH, []).trials == progress(SEARCH, records).trials == len(records)


def test_without_a_reference_the_first_value_of_an_axis_is_it():
    _, cells = run_all(replace(SEARCH, reference={}), searched(0.03))
    tried = [
        c.trials[0].depth for c in role(cells, "selection", arm="denoising", pretraining_rate=0.01)
    ]
    assert tried == [1]


def test_rules_share_what_they_train():
    """Each rule is a place; a trial that two rules want is run once."""
    rules = ("worst_stage", "reconstruction", "validation")
    scale = replace(SCALE, axes={"rule": rules})

    def judge(cell):
        records = searched(0.03)(cell)
        if cell.trials[0].role == "pretraining":
            for r in records:
                better = r["learning_rate"] == 0.01
                r |= {"validation_ratio": 0.5 - 0.1 * better, "mean_validation_ratio": 0.4}
        return records

    records, cells = run_all(scale, judge)
    assert len({r["key"] for r in records}) == len(records)
    reports = [g for g in groups(scale, records) if g.trials[0].role == "report"]
    chosen = {
        g.trials[0].rule: g.trials[0].pretraining_rate
        for g in reports
        if g.trials[0].arm == "denoising"
    }
    # Of a tie, the smaller rate.
    assert chosen == {"worst_stage": 0.01, "reconstruction": 0.01, "validation": 0.03}
    assert len(role(cells, "report", arm="denoising")) == 2
    assert len(role(cells, "report", arm="random")) == 1
    assert plan(scale, records) == []


def test_each_optimizer_has_its_own_grid_of_one_length():
    grids = {"momentum": (0.01, 0.03), "adamw": (0.001, 0.003)}
    scale = replace(
        SCALE,
        axes={"optimizer": ("momentum", "adamw")},
        learning_rates=grids,
        pretraining_rates={"sgd": (0.1, 0.3)},
    )
    _, cells = run_all(scale)
    for cell in role(cells, "selection"):
        assert rates(cell) == list(grids[cell.trials[0].optimizer])
    tuned, stacks = role(cells, "pretraining")
    assert rates(tuned) == [0.1, 0.3]
    with pytest.raises(ValueError, match="as many rates for each optimizer"):
        replace(scale, learning_rates=grids | {"adamw": (0.001,)})
    with pytest.raises(ValueError, match="no grid of rates for the optimizer 'adamw'"):
        plan(replace(scale, learning_rates={"momentum": (0.01, 0.03)}), [])


def test_an_arm_can_be_run_at_some_values_only():
    scale = replace(SCALE, only_at={"denoising": {"depth": (1,)}})
    assert scale.places == [("random", 1), ("random", 2), ("denoising", 1)]
    _, cells = run_all(scale)
    of = [(c.trials[0].arm, c.trials[0].depth) for c in role(cells, "report")]
    assert sorted(of) == sorted(scale.places)
    assert {t.depth for c in role(cells, "pretraining") for t in c.trials} == {1}
    with pytest.raises(ValueError, match="must be run at some of them"):
        replace(SCALE, only_at={"denoising": {"depth": (7,)}})


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
    headline = {"headline_arms": ("random", "denoising"), "headline_axes": {"depth": (1,)}}
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
    assert replace(LARGE, **headline, headline_seeds=2).seeds(("random", 1)) == range(3)


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


@pytest.mark.parametrize("name", STUDY.scales)
def test_the_depth_study_can_be_composed(name):
    wanted = groups(STUDY.scales[name], [])
    assert len({group.trials for group in wanted}) == len(wanted)
    # Some hours on 2 cores.
    limit = {"standard": 9.5e14, "fashion": 4e14, "covertype": 4e14}.get(name, math.inf)
    assert progress(STUDY.scales[name], []).flops <= limit


# Axes

CROSSED = replace(SCALE, axes={"depth": (1, 2), "width": (50, 100)})


def test_two_axes_are_crossed():
    places = [(arm, d, w) for arm in ("random", "denoising") for d in (1, 2) for w in (50, 100)]
    assert CROSSED.places == places
    _, cells = run_all(CROSSED)
    asked = [(c.label, (c.trials[0].arm, c.trials[0].depth, c.trials[0].width)) for c in cells]
    for name in ("selection", "report"):
        found = {label: place for label, place in asked if label.startswith(name)}
        assert sorted(found.values()) == sorted(places)
        assert found[f"{name} denoising depth 2 width 50"] == ("denoising", 2, 50)


def test_one_stack_per_width_serves_both_depths():
    _, cells = run_all(CROSSED)
    stacks = {c.trials for c in role(cells, "pretraining")}
    assert sorted((t[0].depth, t[0].width) for t in stacks) == [(2, 50)] * 2 + [(2, 100)] * 2
    for cell in cells:
        if cell.trials[0].pretraining_epochs:
            (stack,) = cell.stacks
            assert stack in stacks
            assert stack[0].width == cell.trials[0].width


def test_a_headline_may_name_some_axes_and_counts_the_others_in_full():
    headline = {"headline_arms": ("random",), "headline_axes": {"depth": (2,)}}
    scale = replace(CROSSED, **headline, headline_seeds=6)
    more = [place for place in scale.places if len(scale.seeds(place)) > 3]
    assert more == [("random", 2, 50), ("random", 2, 100)]


@pytest.mark.parametrize(
    ("axis", "values"),
    [("train_size", (40, 100)), ("epochs", (2, 3)), ("dataset", ("mnist", "own"))],
)
def test_any_setting_can_be_an_axis(axis, values):
    scale = replace(SCALE, axes={axis: values}, features=50)
    records, cells = run_all(scale)
    assert scale.places == [(arm, v) for arm in ("random", "denoising") for v in values]
    for name in ("selection", "report"):
        of = [(c.trials[0].arm, getattr(c.trials[0], axis)) for c in role(cells, name)]
        assert sorted(of) == sorted(scale.places)
    assert progress(scale, records).trials == len({r["key"] for r in records})


def test_a_dataset_has_its_own_shape():
    scale = replace(SCALE, axes={"dataset": ("cifar10", "own")}, features=50, classes=3)
    assert (scale.shape("cifar10"), scale.shape("own")) == ((3072, 10), (50, 3))
    for group in groups(scale, []):
        if group.trials[0].role == "selection":
            trial = group.trials[0]
            shape = {"cifar10": (3072, 10), "own": (50, 3)}[trial.dataset]
            each = classification.finetuning_flops(trial, group.arm, 3, *shape)
            assert flops(scale, group.arm, group.trials) == 4 * each


def test_reports_at_several_test_sizes_share_all_else():
    scale = replace(SCALE, axes={"test_size": (20, 30)})
    records, cells = run_all(scale)
    assert len(cells) == progress(scale, []).cells
    assert len(records) == progress(scale, []).trials
    assert {t.test_size for c in role(cells, "report") for t in c.trials} == {20, 30}
    assert {t.test_size for c in role(cells, "selection") for t in c.trials} == {10_000}


# Arms

FIXED = Arm("fixed", activation="relu", initializer="he_normal", rates=False)


def test_an_arm_without_rates_has_no_selection():
    scale = replace(SCALE, arms=("random", FIXED))
    _, cells = run_all(scale)
    asked = [c for c in cells if c.arm == FIXED]
    assert [(c.trials[0].role, rates(c), seeds(c)) for c in asked] == [
        ("report", [0.0], [0, 1, 2]),
        ("report", [0.0], [0, 1, 2]),
    ]
    assert role(cells, "selection", arm="random")


def test_only_arms_without_rates_need_no_grid():
    without = {"learning_rates": (), "selection_seeds": 0}
    assert progress(replace(SCALE, arms=(FIXED,), **without), []).trials == 6
    with pytest.raises(ValueError, match=r"Received: learning_rates=\(\)"):
        replace(SCALE, arms=("random", FIXED), **without)


OBJECTIVE = ARMS["variational"].objective


@pytest.mark.parametrize(
    ("fields", "unused"),
    [
        ({"normalization": "batch"}, None),
        ({"shortcut": "residual"}, "shortcut"),
        ({"build": "a:b", "head_initializer": "zeros"}, "head_initializer, build"),
    ],
)
def test_an_arm_that_sets_what_its_kind_does_not_use_is_refused(fields, unused):
    scale = vae_latent.SCALES["quick"]
    arms = (Arm("mine", objective=OBJECTIVE, **fields),)
    if unused is None:
        assert replace(scale, arms=arms, kind=density.KIND).arm_names == ["mine"]
    else:
        with pytest.raises(ValueError, match=f"arm 'mine' sets.*Received: {unused}$"):
            replace(scale, arms=arms, kind=density.KIND)


# Choice


def selected(rate, value, status="done", seed=0):
    return {
        "status": status,
        "role": "selection",
        "dataset": "own",
        "learning_rate": rate,
        "seed": seed,
        "validation_error": value,
    }


def test_lowest_mean_error_over_seeds_wins():
    records = [selected(0.1, 0.2), selected(0.1, 0.4), selected(0.3, 0.1), selected(0.3, 0.6)]
    assert choose_rate(records, SCALE) == 0.1


def test_a_tie_goes_to_the_smaller_rate_in_any_order():
    records = [selected(0.3, 0.2), selected(0.1, 0.2), selected(1.0, 0.2)]
    assert choose_rate(records, SCALE) == 0.1
    assert choose_rate(records[::-1], SCALE) == 0.1


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_diverged_run_has_the_error_of_chance(nothing):
    diverged = selected(0.3, nothing, "diverged")
    assert choose_rate([diverged, selected(0.1, 0.89)], SCALE) == 0.1
    assert choose_rate([diverged, selected(0.1, 0.91)], SCALE) == 0.3
    # Of two classes, chance is 0.5.
    assert choose_rate([diverged, selected(0.1, 0.6)], replace(SCALE, classes=2)) == 0.3


def test_a_rate_is_chosen_from_the_records_of_its_own_place():
    """At depth 2, the other rate is the best; a failure counts nowhere."""
    cells = {c.trials[0].depth: c for c in role(plan(SCALE, []), "selection")}
    best = {1: 0.1, 2: 0.3}
    records = [
        {**record, "validation_error": 0.2 if record["learning_rate"] == best[depth] else 0.4}
        for depth, cell in cells.items()
        for record in records_of(cell)
    ]
    reports = role(plan(SCALE, records), "report")
    assert {c.trials[0].depth: rates(c) for c in reports} == {1: [0.1], 2: [0.3]}
    failed = [{**r, "status": "error"} if r["depth"] == 1 else r for r in records]
    assert {c.trials[0].depth for c in role(plan(SCALE, failed), "report")} == {2}


def test_no_record_is_no_choice():
    with pytest.raises(ValueError, match="at least one finished trial.*Received: none"):
        choose_rate([], SCALE)


def test_rows_of_a_data_frame_will_do():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([selected(0.1, 0.5), selected(0.3, None, "diverged")])
    assert choose_rate(frame.to_dict("records"), SCALE) == 0.1


def test_pretraining_rate_has_the_lowest_ratio_and_divergence_is_infinitely_bad():
    def stack(rate, ratio, status="done"):
        changes = {"role": "pretraining", "validation_ratio": ratio}
        return {**selected(rate, None, status), **changes}

    records = [stack(0.1, None, "diverged"), stack(0.1, 0.1), stack(0.03, 5.0), stack(0.03, 7.0)]
    assert choose_rate(records, SCALE) == 0.03
    assert choose_rate(records[:1], SCALE) == 0.1


def test_where_higher_is_better_the_highest_wins():
    def bound(rate, value, status="done"):
        changes = {"validation_bound": value, "baseline_bound": -206.0}
        return {**selected(rate, None, status), **changes}

    scale = replace(vae_latent.SCALES["quick"], kind=density.KIND)
    assert choose_rate([bound(0.1, -120.0), bound(0.3, -100.0)], scale) == 0.3
    # A diverged run counts as the mean image.
    diverged = bound(0.1, None, "diverged")
    assert choose_rate([diverged, bound(0.3, -205.0)], scale) == 0.3
    assert choose_rate([diverged, bound(0.3, -207.0)], scale) == 0.1


# Scales


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"arms": ("random", "no_such_arm")}, "arms="),
        ({"arms": ()}, "arms="),
        ({"arms": ("he", "he")}, "arms="),
        ({"arms": ("he", Arm("he"))}, "arms="),
        ({"axes": {"depth": ()}}, r"depth=\(\)"),
        ({"axes": {"depth": (0,)}}, r"depth=\(0,\)"),
        ({"axes": {"depth": (1, 1)}}, r"depth=\(1, 1\)"),
        ({"axes": {"depth": (1, 1.5)}}, r"depth=\[1.5\]"),
        ({"axes": {"depth": (True,)}}, r"depth=\(True,\)"),
        ({"axes": {"depth": ("deep",)}}, r"depth=\['deep'\]"),
        ({"axes": {"depth": (1,), "dataset": ("mnist", 1)}}, r"dataset=\[1\]"),
        ({"axes": {"latent": (1,)}}, r"axes=\['latent'\]"),
        # The plan sets these.
        ({"axes": {"seed": (1, 2)}}, r"axes=\['seed'\]"),
        ({"axes": {"pretraining_epochs": (1, 2)}}, r"axes=\['pretraining_epochs'\]"),
        ({"learning_rates": (0.1, -0.1)}, "learning_rates="),
        ({"learning_rates": ()}, "learning_rates="),
        ({"pretraining_rates": (math.nan,)}, "pretraining_rates="),
        ({"pretraining_epochs": None}, "pretraining_epochs=None"),
        ({"epochs": 0}, "epochs="),
        ({"selection_seeds": True}, "selection_seeds="),
        ({"report_seeds": 1001}, "report_seeds="),
        ({"headline_seeds": 1001}, "headline_seeds="),
        ({"batch_size": 101}, "batch_size="),
        ({"axes": {"batch_size": (10, 101)}}, "batch_size=101"),
        ({"axes": {"train_size": (100, 19)}}, "batch_size=20, train_size=19"),
        ({"axes": {"train_size": (100, 50)}, "selection_train_size": 51}, "selection_train_size="),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(changes, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        replace(SCALE, **changes)


@pytest.mark.parametrize("scale", [SCALE, CROSSED, replace(SCALE, arms=(FIXED,))])
def test_a_custom_scale_is_found_in_its_folder(scale, tmp_path):
    study = replace(STUDY, scales={"quick": scale})
    save_custom(scale, tmp_path)
    assert load_custom(study, tmp_path) == study.scale(CUSTOM, tmp_path) == scale
    assert load_custom(study, tmp_path).kind is scale.kind
    assert STUDY.scale("quick", tmp_path) == STUDY.scales["quick"]


def test_a_cell_is_one_population():
    _, cells = run_all(LARGE)
    for cell in cells:
        fixed = {replace(t, seed=0, learning_rate=0.0) for t in cell.trials}
        assert len(fixed) == 1
        assert isinstance(cell, Cell)


def test_an_arm_that_starts_from_the_stack_of_another_arm_shares_its_stacks_and_their_rate():
    sharing = Arm("sharing", stack_of=ARMS["denoising"], histogram=True)
    own = replace(SCALE, arms=("denoising",), rule="validation", headline_arms=())
    both = replace(own, arms=("denoising", sharing), headline_arms=("sharing",), headline_seeds=12)

    def stacks(scale):
        found = groups(scale, [])
        return [group for group in found if group.trials[0].role == "pretraining"]

    assert [group.trials[0].arm for group in stacks(both)] == ["denoising"] * len(stacks(own))
    assert {len({t.seed for t in g.trials}) for g in stacks(both)} == {SCALE.selection_seeds, 12}
    wanted = [g for g in groups(both, []) if g.trials[0].arm == "sharing"]
    assert all(trial.arm == "denoising" for g in wanted for s in g.stacks for trial in s)
    # Its own nets are no part of the search for the pretraining rate.
    depths = len(both.axes["depth"])
    assert [g.trials[0].role for g in wanted].count("selection") == depths
    with pytest.raises(ValueError, match="must be an arm of the scale, too. Received: sharing"):
        replace(own, arms=(sharing,))


def test_an_arm_has_its_noise_in_training_and_its_stack_has_none():
    own = replace(ARMS["denoising"], name="own", noise="masking")
    scale = replace(SCALE, arms=(own,), axes={"depth": (2,)})
    noise = {group.trials[0].role: group.trials[0].noise for group in groups(scale, [])}
    assert noise == {"pretraining": "none", "selection": "masking", "report": "masking"}
    both = replace(scale, axes={"noise": ("none",)})
    assert {group.trials[0].noise for group in groups(both, [])} == {"none"}
