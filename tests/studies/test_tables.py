import dataclasses
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from studies_synthetic import STUDIES, diverged
from studies_synthetic import records as synthetic

from studies.arms import ARMS, Arm
from studies.kinds.classification.correctness import packed
from studies.kinds.classification.show import error_block
from studies.report import tables
from studies.report.figures import combination_label
from studies.report.frame import frame

QUICK = STUDIES["depth"].scales["quick"]
SHOW = QUICK.kind.show
SMALL = replace(
    QUICK,
    arms=("random", "denoising", "he"),
    axes={"depth": (1, 3)},
    learning_rates=(0.03, 0.1, 0.3),
    rule="worst_stage",
)
T_95 = {3: 4.302653}


@pytest.fixture
def rows():
    return synthetic(SMALL)


def is_of(record, role, arm, depth):
    return (record["role"], record["arm"], record["depth"]) == (role, arm, depth)


def of(rows, role, arm, depth):
    return [r for r in rows if is_of(r, role, arm, depth)]


def set_all(rows, role, arm, depth, **values):
    """Set metrics of a cell, one value per seed in order."""
    cell = sorted(of(rows, role, arm, depth), key=lambda r: r["seed"])
    for i, record in enumerate(cell):
        record |= {metric: by_seed[i] for metric, by_seed in values.items()}


def row(rows, arm, depth, scale=SMALL):
    table = SHOW.main_table(frame(rows, scale), scale)
    return table[(table["arm"] == arm) & (table["depth"] == depth)].iloc[0]


def cell(rows, arm, depth, scale=SMALL):
    table = SHOW.main_table(frame(rows, scale), scale)
    return error_block(table, scale).set_index("arm").loc[ARMS[arm].title, f"depth {depth}"]


def test_an_arm_that_is_not_run_everywhere_has_no_number_there():
    scale = replace(SMALL, only_at={"random": {"depth": (SMALL.axes["depth"][0],)}})
    block = error_block(SHOW.main_table(frame(synthetic(scale), scale), scale), scale)
    assert block.iloc[0, 1:].tolist()[1:] == [tables.NOT_APPLICABLE]
    assert tables.NOT_APPLICABLE not in block.iloc[1:].to_numpy()
    assert tables.markdown(block)
    assert tables.notes(block)


def test_many_combinations_are_rows_and_arms_are_columns():
    scale = replace(SMALL, axes={"depth": tuple(range(1, 11))})
    table = SHOW.main_table(frame(synthetic(scale), scale), scale)
    turned, few = error_block(table, scale), error_block(table[table["depth"] <= 2], SMALL)
    assert list(turned.columns) == ["at", *(arm.title for arm in scale.arms)]
    assert turned["at"].tolist() == [f"depth {depth}" for depth in range(1, 11)]
    assert turned.set_index("at").T.loc[ARMS["he"].title, "depth 1"].count("±") == 1
    assert "arm" in few


def test_error_against_hand_computation(rows):
    set_all(rows, "report", "random", 1, test_error=[0.08, 0.09, 0.10])
    found = row(rows, "random", 1)
    half = T_95[3] * 1.0 / np.sqrt(3)
    assert found["error"] == pytest.approx(9)
    assert found["error_low"] == pytest.approx(9 - half)
    assert found["error_high"] == pytest.approx(9 + half)
    assert (found["seeds"], found["diverged"], found["trains"]) == (3, 0, "yes")


def test_difference_is_paired_by_seed_whatever_the_order(rows):
    errors, controls = [0.05, 0.06, 0.09], [0.08, 0.10, 0.11]
    set_all(rows, "report", "denoising", 1, test_error=errors)
    set_all(rows, "report", "random", 1, test_error=controls)
    found = row(rows[::-1], "denoising", 1)
    expected = stats.ttest_rel(errors, controls).confidence_interval(0.95)
    assert (found["control"], found["pairs"]) == ("random", 3)
    assert found["difference"] == pytest.approx(-3)
    assert found["difference_low"] == pytest.approx(100 * expected.low)
    assert found["difference_high"] == pytest.approx(100 * expected.high)


def test_median_interquartile_mean_and_outperforming(rows):
    set_all(rows, "report", "denoising", 1, test_error=[0.05, 0.06, 0.12])
    set_all(rows, "report", "random", 1, test_error=[0.08, 0.06, 0.11])
    found = row(rows, "denoising", 1)
    assert found["median"] == pytest.approx(6)
    assert found["median_low"] >= 5
    assert found["iqm"] == pytest.approx(23 / 3)
    exact = stats.binomtest(1, 2).proportion_ci(0.95, method="exact")
    assert (found["outperforms"], found["ties"]) == (0.5, 1)
    assert found["outperforms_high"] == pytest.approx(exact.high)
    assert np.isnan(row(rows, "random", 1)["outperforms"])


def test_difference_uses_only_the_seeds_that_both_have(rows):
    set_all(rows, "report", "denoising", 1, test_error=[0.05, 0.06, 0.09])
    set_all(rows, "report", "random", 1, test_error=[0.08, 0.10, 0.11])
    rows.remove(of(rows, "report", "random", 1)[2])
    found = row(rows, "denoising", 1)
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(-3.5)
    assert found["seeds"] == 3


def test_diverged_run_counts_as_chance(rows):
    set_all(rows, "report", "he", 3, test_error=[0.08, 0.10, None])
    bad = of(rows, "report", "he", 3)[2]
    bad |= diverged(bad, SMALL)
    found = row(rows, "he", 3)
    assert (found["seeds"], found["diverged"]) == (3, 1)
    # The median: a mean only says how many runs failed.
    assert (found["error"], found["failed"]) == (pytest.approx(10), 1)
    assert cell(rows, "he", 3) == "10.00; 1 of 3 failed"
    table = SHOW.main_table(frame(rows, SMALL), SMALL)
    (note,) = [n for n in tables.notes(error_block(table, SMALL)) if "failed" in n]
    assert "median" in note
    assert "10.00; 1 of 3 failed" in SHOW.numbers(table, SMALL)[0]
    assert np.isfinite(found["flops"])


def test_a_run_at_chance_leaves_medians(rows):
    errors, controls = [0.05, 0.06, 0.89], [0.08, 0.10, 0.11]
    set_all(rows, "report", "denoising", 1, test_error=errors)
    set_all(rows, "report", "random", 1, test_error=controls)
    found = row(rows, "denoising", 1)
    assert (found["error"], found["difference"]) == pytest.approx((6, -3))
    assert (found["failed"], found["diverged"], found["pairs"]) == (1, 0, 3)
    # The bootstrap's ends are seeds, where those of Student's t are -200 and 253.
    assert (found["difference_low"], found["difference_high"]) == pytest.approx((-4, 78))
    assert row(rows, "random", 1)["failed"] == 0
    drawing = SHOW.offered(SMALL, ("error_against_cost",))[0].draw(frame(rows, SMALL), SMALL)
    drawn = [float(y) for ax in drawing.axes for line in ax.lines for y in line.get_ydata()]
    assert 0.06 in np.round(drawn, 6)


def test_the_test_set_s_part_in_a_difference_is_told_where_it_is_known(rows):
    def main_table():
        return SHOW.main_table(frame(rows, SMALL), SMALL)

    for record in rows:
        record.pop("correct", None)
    assert main_table()["sampling_error"].isna().all()
    assert "same images" not in " ".join(SHOW.caveats(main_table(), SMALL))
    generator, right = np.random.default_rng(0), {"random": [], "denoising": []}
    for arm, stored in right.items():
        for record in of(rows, "report", arm, 3):
            stored.append(generator.random(SMALL.test_size) < 0.92)
            record["correct"] = packed(stored[-1])
    table = main_table()
    (error,) = table["sampling_error"].dropna()
    differences = 100 * (np.mean(right["random"], 0) - np.mean(right["denoising"], 0))
    assert error == pytest.approx(stats.sem(differences))
    assert f"of {error:.2f} points" in " ".join(SHOW.caveats(table, SMALL))


def test_selection_that_diverges_everywhere_does_not_train(rows):
    for record in of(rows, "selection", "he", 3):
        record |= {"status": "diverged", "validation_error": None}
    found = row(rows, "he", 3)
    assert found["trains"] == "no"
    # All rates tie; the reported runs of the rate that is chosen now were not made.
    assert cell(rows, "he", 3) == "X"


def test_at_chance_for_every_rate_does_not_train():
    rows = synthetic(QUICK)
    assert row(rows, "random", 5, QUICK)["trains"] == "no"
    assert cell(rows, "random", 5, QUICK).endswith("!")
    table = SHOW.main_table(frame(rows, QUICK), QUICK)
    assert "does not train" in " ".join(tables.notes(error_block(table, QUICK)))
    assert "does not train" in SHOW.numbers(table, QUICK)[0]


def test_training_at_one_rate_is_training(rows):
    cell = of(rows, "selection", "he", 3)
    for record in cell:
        record["validation_error"] = 0.5 if record["learning_rate"] == 0.1 else 0.9
    assert row(rows, "he", 3)["trains"] == "yes"


@pytest.mark.parametrize(("best", "edge"), [(0.03, "lowest"), (0.1, ""), (0.3, "highest")])
def test_rate_at_the_edge_of_the_grid_is_flagged(best, edge):
    def errors(record):
        return {"validation_error": 0.05 if record["learning_rate"] == best else 0.5}

    rows = synthetic(SMALL, change=lambda r: errors(r) if r["role"] == "selection" else {})
    found = row(rows, "he", 1)
    assert (found["learning_rate"], found["rate_at_edge"]) == (best, edge)
    assert cell(rows, "he", 1).endswith("†") == bool(edge)


def test_grid_of_one_rate_has_no_edge():
    scale = replace(SMALL, learning_rates=(0.1,))
    assert row(synthetic(scale), "he", 1, scale)["rate_at_edge"] == ""


def test_flops_are_those_of_the_records(rows):
    for arm in SMALL.arm_names:
        assert row(rows, arm, 3)["flops"] == of(rows, "report", arm, 3)[0]["flops"]


@pytest.mark.parametrize("arm", [arm for arm in ARMS.values() if arm.control], ids=lambda a: a.name)
def test_an_arm_differs_from_its_control_in_one_thing(arm):
    control = ARMS[arm.control]
    about = {"name", "title", "paper", "control", "look", "version"}
    ours, other = (dataclasses.asdict(each) for each in (arm, control))
    differing = {name for name in ours if ours[name] != other[name]} - about
    # The optimizer of pretraining is a part of the pretraining.
    assert len(differing - {"pretraining_optimizer"}) == 1
    assert not control.objective


def test_control_outside_the_scale_is_none():
    scale = replace(SMALL, arms=("denoising",))
    found = row(synthetic(scale), "denoising", 1, scale)
    assert (found["control"], found["pairs"]) == ("", 0)


def test_rows_follow_the_scale(rows):
    scale = replace(SMALL, arms=("he", "denoising", "random"), axes={"depth": (3, 1)})
    table = SHOW.main_table(frame(rows, scale), scale)
    assert list(table["arm"]) == ["he", "he", "denoising", "denoising", "random", "random"]
    assert list(table["depth"]) == [3, 1] * 3


def test_missing_cell_prints_x(rows):
    rows = [r for r in rows if not is_of(r, "report", "denoising", 3)]
    assert cell(rows, "denoising", 3) == "X"
    found = row(rows, "denoising", 3)
    assert found["seeds"] == 0
    assert found["learning_rate"] == 0.1
    table = SHOW.main_table(frame(rows, SMALL), SMALL)
    lines = [re.split(r" *\| *", line)[1:-1] for line in SHOW.numbers(table, SMALL)[0].split("\n")]
    numbers = {(arm.rpartition(">")[2], depth): set(cells) for arm, depth, *cells in lines}
    assert numbers[ARMS["denoising"].title, "3"] == {"X"}
    assert "X" not in numbers[ARMS["denoising"].title, "1"]
    assert "X: missing" in " ".join(tables.notes(error_block(table, SMALL)))


def test_unfinished_cell_says_how_many_seeds(rows):
    rows.remove(of(rows, "report", "he", 1)[0])
    assert cell(rows, "he", 1).endswith("(2)")
    rows.remove(of(rows, "report", "he", 1)[0])
    error = 100 * of(rows, "report", "he", 1)[0]["test_error"]
    assert cell(rows, "he", 1) == f"{error:.2f} (1)"


@pytest.mark.parametrize("status", ["error", "killed"])
def test_failure_is_no_result(rows, status):
    for record in of(rows, "report", "he", 1):
        record["status"] = status
    assert cell(rows, "he", 1) == "X"


def test_records_of_another_version_of_the_study_are_left_out(rows):
    other = synthetic(replace(SMALL, epochs=SMALL.epochs + 1))
    table = SHOW.main_table(frame(rows, SMALL), SMALL)
    both = SHOW.main_table(frame(other + rows, SMALL), SMALL)
    assert tables.to_csv(table) == tables.to_csv(both)


def test_no_result_is_an_error(rows):
    failed = [{**r, "status": "error"} for r in rows]
    for records in ([], failed):
        with pytest.raises(ValueError, match=f"Received: {len(records)} records"):
            frame(records, SMALL)


def test_csv_does_not_depend_on_order_or_seconds(rows):
    text = tables.to_csv(SHOW.main_table(frame(rows, SMALL), SMALL))
    slower = [{**r, "seconds": 1e6, "provenance": {"host": "b"}} for r in rows[::-1]]
    assert text == tables.to_csv(SHOW.main_table(frame(slower, SMALL), SMALL))
    numbers = [v for line in text.splitlines()[1:] for v in line.split(",") if "." in v]
    assert all(len(n.lstrip("-0.").replace(".", "").partition("e")[0]) <= 6 for n in numbers)


def test_text_is_aligned(rows):
    block = error_block(SHOW.main_table(frame(rows, SMALL), SMALL), SMALL)
    assert len({len(line) for line in tables.markdown(block).splitlines()}) == 1
    assert len({len(line) for line in tables.plain(block).splitlines()}) == 1


# Other axes, other arms

TWO_AXES = replace(SMALL, axes={"depth": (1, 3), "dataset": ("mnist", "fashion_mnist")})


def test_a_table_has_a_row_or_a_cell_for_every_combination_of_axes():
    rows = synthetic(TWO_AXES)
    table = SHOW.main_table(frame(rows, TWO_AXES), TWO_AXES)
    assert list(table[["arm", "depth", "dataset"]].itertuples(index=False, name=None)) == (
        TWO_AXES.places
    )
    report = {(r["arm"], r["depth"], r["dataset"], r["seed"]): r for r in rows if "test_nll" in r}
    block = error_block(table, TWO_AXES).set_index("arm")
    for arm, depth, dataset in TWO_AXES.places:
        errors, controls = (
            [100 * report[name, depth, dataset, seed]["test_error"] for seed in range(3)]
            for name in (arm, "random")
        )
        found = table[(table["arm"] == arm) & (table["depth"] == depth)]
        found = found[found["dataset"] == dataset].iloc[0]
        assert found["error"] == pytest.approx(np.mean(errors))
        if arm == "denoising":
            assert found["difference"] == pytest.approx(np.mean(errors) - np.mean(controls))
        column = combination_label({"depth": depth, "dataset": dataset}, TWO_AXES)
        text = block.loc[ARMS[arm].title, column]
        assert text.startswith(f"{np.mean(errors):.2f} ± ")


@pytest.mark.parametrize("axes", [{}, {"depth": (3,)}], ids=["none", "one value"])
def test_a_table_names_no_axis_that_has_no_other_value(axes):
    scale = replace(SMALL, axes=axes)
    table = SHOW.main_table(frame(synthetic(scale), scale), scale)
    assert list(table["arm"]) == scale.arm_names
    assert list(error_block(table, scale)) == ["arm", "error"]


@pytest.mark.parametrize("others", [(), ("random",)])
def test_an_arm_without_rates_has_no_rate(others):
    rates = {"learning_rates": (0.03, 0.1) if others else (), "selection_seeds": len(others)}
    scale = replace(SMALL, arms=(*others, Arm("untrained", rates=False)), **rates)
    table = SHOW.main_table(frame(synthetic(scale), scale), scale)
    found = table[table["arm"] == "untrained"]
    assert (found["seeds"] == 3).all()
    assert found["learning_rate"].isna().all()
    assert set(found["rate_at_edge"]) | set(found["trains"]) == {""}
    assert found["pretraining_rate"].isna().all()
    *_, line = SHOW.numbers(table, scale)[0].split("\n")
    assert re.match(r"\| \S+ \S+>untrained +\| +3 \| +\d\.\d\d ± .* +– \| ", line)
    assert not re.search(r"[X†!]", error_block(table, scale).loc[len(others)].to_string())
