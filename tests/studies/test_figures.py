from dataclasses import replace
from importlib import import_module

import matplotlib
import numpy as np
import pytest
from studies_synthetic import records as synthetic

from studies.report import figures, rendering
from studies.report.classification import FIGURES, ONE_DEPTH, protocol
from studies.report.frame import frame
from studies.arms import ARMS
from studies.depth import SCALES
from studies.engine.catalog import studies

QUICK = SCALES["quick"]
SMALL = replace(
    QUICK, learning_rates=(0.03, 0.1, 0.3), arms=("random", "denoising", "he"), depths=(1, 5)
)


ON_SELECTION = (figures.rate_sensitivity, figures.tuning_budget)


@pytest.fixture(scope="module")
def rows():
    return synthetic(SMALL)


@pytest.fixture(scope="module")
def results(rows):
    return frame(rows, SMALL)


@pytest.mark.parametrize("draw", {**FIGURES, **ONE_DEPTH})
def test_title_says_what_a_demonstration_is(draw, results):
    title = draw(results, SMALL).get_suptitle()
    seeds = "1 seed" if draw in ON_SELECTION else "3 seeds"
    assert f"demonstration: {seeds}, 2,000 training images" in title
    judged = draw(results, replace(SMALL, demonstration=False)).get_suptitle()
    assert "demonstration" not in judged
    assert "mnist" in judged


@pytest.mark.parametrize("draw", {**FIGURES, **ONE_DEPTH})
def test_title_counts_the_images_that_the_runs_were_trained_on(draw, results):
    title = draw(results, replace(SMALL, selection_train_size=1_000)).get_suptitle()
    assert ("1,000" if draw in ON_SELECTION else "2,000") in title


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.3)])
def test_protocol_chooses_a_pretraining_rate_only_where_there_is_a_choice(rates):
    words = protocol(replace(SMALL, pretraining_rates=rates))
    assert ("at a rate of 0.1." in words) == (len(rates) == 1)
    assert ("at the rate of 0.1, 0.3 whose" in words) == (len(rates) == 2)


@pytest.mark.parametrize("draw", {**FIGURES, **ONE_DEPTH})
def test_every_kind_of_incompleteness_can_be_drawn(draw, rows):
    diverged = {"status": "diverged", "test_error": None, "curves": None, "flops": None}
    cases = {
        "no report": [r for r in rows if r["role"] != "report"],
        "pretraining only": [r for r in rows if r["role"] == "pretraining"],
        "one seed": [r for r in rows if r["role"] != "report" or r["seed"] == 0],
        "an arm": [r for r in rows if r["arm"] == "he"],
        "a depth": [r for r in rows if r["depth"] == 1],
        "diverged": [r | (diverged if r["role"] == "report" else {}) for r in rows],
    }
    for records in cases.values():
        draw(frame(records, SMALL), SMALL).draw_without_rendering()


@pytest.mark.parametrize("draw", {**FIGURES, **ONE_DEPTH})
def test_one_family_one_depth_one_rate_can_be_drawn(draw):
    scale = replace(SMALL, arms=("he",), depths=(3,), learning_rates=(0.1,))
    rendering.render(draw, frame(synthetic(scale), scale), scale)


def test_arms_have_a_color_and_a_marker_each():
    for study in studies():
        for scale in import_module(f"studies.{study}").SCALES.values():
            looks = [figures.look_of(arm) for arm in scale.arms]
            assert len({look["color"] for look in looks}) == len(looks)
            assert len({look["marker"] for look in looks}) == len(looks)
    looks = [figures.look_of(arm) for arm in ARMS]
    assert all((look["linestyle"] == "-") == ARMS[look["label"]].pretrained for look in looks)


def test_headline_shows_the_medians_of_the_records(results):
    figure = figures.error_against_depth(results, SMALL)
    sigmoid, relu = figure.axes
    assert {"random", "denoising", "chance"} == set(sigmoid.get_legend_handles_labels()[1])
    assert {"he", "chance"} == set(relu.get_legend_handles_labels()[1])
    report = results[(results["role"] == "report") & (results["arm"] == "denoising")]
    bars = sigmoid.containers[1]
    assert bars.get_label() == "denoising"
    medians = report.groupby("depth")["test_error"].median()
    np.testing.assert_allclose(bars.lines[0].get_ydata(), medians)


def test_all_errors_are_inside_the_axes(results):
    errors = results[results["role"] == "report"]["test_error"]
    low, high = figures.error_against_depth(results, SMALL).axes[0].get_ylim()
    assert 0 < low < errors.min() < errors.max() < high


@pytest.mark.parametrize("limits", [(0.02, 0.95), (0.06, 0.11), (0.031, 0.034), (0.004, 0.02)])
def test_ticks_are_several_round_and_apart(limits):
    ticks = np.sort(figures._percent_ticks(*limits))
    assert limits[0] <= ticks.min()
    assert ticks.max() <= limits[1]
    gaps = np.diff(figures._stretched(ticks)) / np.ptp(figures._stretched(np.array(limits)))
    assert (gaps > 0.06).all()
    assert len(ticks) >= 2


def test_cost_joins_a_control_to_its_point_at_equal_cost(results):
    figure = figures.error_against_cost(results, SMALL)
    report = results[(results["role"] == "report") & (results["depth"] == 1)]
    control = report[report["arm"] == "random"]
    joins = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert len(joins) == 1
    np.testing.assert_allclose(
        joins[0].get_xdata(), [control["flops"].mean(), control["equal_cost_flops"].mean()]
    )
    assert not [line for line in figure.axes[2].lines if line.get_linestyle() == ":"]


def test_chosen_rate_is_ringed(results):
    figure = figures.rate_sensitivity(results, SMALL)
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [list(line.get_xdata()) for line in rings] == [[SMALL.learning_rates[-2]]] * 2


def test_tuning_budget_ends_at_the_whole_grid(results):
    line = figures.tuning_budget(results, SMALL).axes[0].lines[1]
    tried = results[(results["role"] == "selection") & (results["depth"] == 1)]
    tried = tried[tried["arm"] == line.get_label()]
    assert line.get_label() == "denoising"
    errors = tried["validation_error"]
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], [errors.mean(), errors.min()])
    # Selection has one seed here; pretraining is charged to each of its runs.
    assert line.get_xdata()[-1] == pytest.approx(tried["flops"].sum())
    assert (tried["pretraining_flops"] > 0).all()


def test_trajectory_marks_the_last_epoch_of_equal_training(results):
    figure = figures.nll_trajectories(results, SMALL)
    solid = {line.get_label(): line for line in figure.axes[0].lines}["random"]
    assert len(solid.get_xdata()) == SMALL.epochs
    assert solid.get_markevery() == [SMALL.epochs - 1]


@pytest.mark.parametrize("draw", {**FIGURES, **ONE_DEPTH})
def test_files_name_no_date_and_no_version(draw, results):
    files = rendering.render(draw, results, SMALL)
    assert files["png"].startswith(b"\x89PNG")
    assert b"Software" not in files["png"]
    assert b"<dc:date>" not in files["svg"]
    assert b"Matplotlib v" not in files["svg"]


def test_the_style_of_the_reader_does_not_matter(results):
    expected = rendering.render(figures.error_against_depth, results, SMALL)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert rendering.render(figures.error_against_depth, results, SMALL) == expected
