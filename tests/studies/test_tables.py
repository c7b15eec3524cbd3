from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from studies_synthetic import records as synthetic

from studies.report import tables
from studies.report.frame import frame
from studies.arms import ARMS
from studies.depth import SCALES

QUICK = SCALES["quick"]
SMALL = replace(
    QUICK,
    arms=("random", "denoising", "he"),
    depths=(1, 3),
    learning_rates=(0.03, 0.1, 0.3),
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
    table = tables.main_table(frame(rows, scale), scale)
    return table[(table["arm"] == arm) & (table["depth"] == depth)].iloc[0]


def cell(rows, arm, depth, scale=SMALL):
    table = tables.main_table(frame(rows, scale), scale)
    return tables.error_block(table, scale).set_index("arm").loc[arm, f"depth {depth}"]


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
    diverged = of(rows, "report", "he", 3)[2]
    diverged |= dict.fromkeys((k for k in diverged if "error" in k or "flops" in k), None)
    diverged |= {"status": "diverged", "curves": None}
    found = row(rows, "he", 3)
    assert (found["seeds"], found["diverged"]) == (3, 1)
    assert found["error"] == pytest.approx((8 + 10 + 90) / 3)
    assert np.isfinite(found["flops"])


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
    table = tables.main_table(frame(rows, QUICK), QUICK)
    assert "does not train" in " ".join(tables.notes(tables.error_block(table, QUICK)))
    assert "does not train" in tables.markdown(tables.long_block(table))


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


def test_equal_cost_of_control_and_of_pretrained_arm(rows):
    set_all(rows, "report", "random", 1, equal_cost_test_error=[0.06, 0.07, 0.08])
    set_all(rows, "report", "denoising", 1, test_error=[0.05, 0.06, 0.06])
    control, pretrained = row(rows, "random", 1), row(rows, "denoising", 1)
    assert control["equal_cost_error"] == pytest.approx(7)
    # One whole epoch is the grain of equality.
    assert control["equal_cost_flops"] == pytest.approx(pretrained["flops"], rel=0.05)
    assert control["equal_cost_flops"] > 1.5 * control["flops"]
    assert pretrained["equal_cost_difference"] == pytest.approx(-4 / 3)
    assert np.isnan(pretrained["equal_cost_error"])
    assert np.isnan(control["equal_cost_difference"])


def test_table_at_equal_cost_has_controls_trained_on_and_pretrained_arms_as_they_are(rows):
    set_all(rows, "report", "random", 1, equal_cost_test_error=[0.06, 0.07, 0.08])
    table = tables.main_table(frame(rows, SMALL), SMALL)
    epochs, cost = (tables.error_block(table, SMALL, cost).set_index("arm") for cost in (0, 1))
    assert list(cost.index) == ["random", "denoising"]
    assert cost.loc["random", "depth 1"].startswith("7.00 ± ")
    assert list(cost.loc["denoising"]) == list(epochs.loc["denoising"])


def test_without_pretrained_neighbor_there_is_no_equal_cost(rows):
    found = row(rows, "he", 1)
    assert np.isnan(found["equal_cost_error"])
    assert np.isnan(found["equal_cost_flops"])


def test_flops_are_those_of_the_records(rows):
    for arm in SMALL.arms:
        assert row(rows, arm, 3)["flops"] == of(rows, "report", arm, 3)[0]["flops"]


@pytest.mark.parametrize(
    ("arm", "control"),
    [
        ("random", None),
        ("he", None),
        ("glorot", "random"),
        ("autoencoder", "random"),
        ("denoising", "random"),
        ("sigmoid_batch_norm", "random"),
        ("he_denoising", "he"),
        ("batch_norm", "he"),
        ("batch_norm_denoising", "batch_norm"),
        ("residual_batch_norm", "he"),
    ],
)
def test_control(arm, control):
    assert tables.control_of(arm) == control


def test_every_control_is_of_the_same_family_and_unpretrained():
    for name, arm in ARMS.items():
        control = ARMS.get(tables.control_of(name), None)
        assert control is None or (control.family == arm.family and not control.pretrained)


def test_control_outside_the_scale_is_none():
    scale = replace(SMALL, arms=("denoising",))
    found = row(synthetic(scale), "denoising", 1, scale)
    assert (found["control"], found["pairs"]) == ("", 0)


def test_rows_follow_the_scale(rows):
    scale = replace(SMALL, arms=("he", "denoising", "random"), depths=(3, 1))
    table = tables.main_table(frame(rows, scale), scale)
    assert list(table["arm"]) == ["he", "he", "denoising", "denoising", "random", "random"]
    assert list(table["depth"]) == [3, 1] * 3


def test_missing_cell_prints_x(rows):
    rows = [r for r in rows if not is_of(r, "report", "denoising", 3)]
    assert cell(rows, "denoising", 3) == "X"
    found = row(rows, "denoising", 3)
    assert found["seeds"] == 0
    assert found["learning_rate"] == 0.1
    table = tables.main_table(frame(rows, SMALL), SMALL)
    block = tables.long_block(table).set_index(["arm", "depth"])
    assert set(block.loc["denoising", "3"]) == {"X"}
    assert "X" not in set(block.loc["denoising", "1"])
    assert "X: missing" in " ".join(tables.notes(tables.error_block(table, SMALL)))


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
    table = tables.main_table(frame(rows, SMALL), SMALL)
    both = tables.main_table(frame(other + rows, SMALL), SMALL)
    assert tables.to_csv(table) == tables.to_csv(both)


def test_no_result_is_an_error(rows):
    failed = [{**r, "status": "error"} for r in rows]
    for records in ([], failed):
        with pytest.raises(ValueError, match=f"Received: {len(records)} records"):
            frame(records, SMALL)


def test_csv_does_not_depend_on_order_or_seconds(rows):
    text = tables.to_csv(tables.main_table(frame(rows, SMALL), SMALL))
    slower = [{**r, "seconds": 1e6, "provenance": {"host": "b"}} for r in rows[::-1]]
    assert text == tables.to_csv(tables.main_table(frame(slower, SMALL), SMALL))
    numbers = [v for line in text.splitlines()[1:] for v in line.split(",") if "." in v]
    assert all(len(n.lstrip("-0.").replace(".", "").partition("e")[0]) <= 6 for n in numbers)


def test_text_is_aligned(rows):
    block = tables.error_block(tables.main_table(frame(rows, SMALL), SMALL), SMALL)
    assert len({len(line) for line in tables.markdown(block).splitlines()}) == 1
    assert len({len(line) for line in tables.plain(block).splitlines()}) == 1
