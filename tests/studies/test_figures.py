import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import zlib_study
from matplotlib.figure import Figure
from scipy import stats
from studies_synthetic import STUDIES
from studies_synthetic import records as synthetic

from studies.arms import ARMS, Arm
from studies.kinds.classification.figures import _percent_axis
from studies.kinds.density.show import _BOUNDS
from studies.report import figures
from studies.report.claims import sample
from studies.report.frame import frame
from studies.report.published import Published

SMALL = replace(
    STUDIES["depth"].scales["quick"],
    learning_rates=(0.03, 0.1, 0.3),
    arms=("random", "denoising", "he"),
    axes={"depth": (1, 5)},
)


def offered(scale):
    return {figure.name: figure for figure in scale.kind.show.offered(scale)}


FIGURES = offered(SMALL)
# No axis has numbers.
WORDS = replace(SMALL, axes={"noise": ("none", "masking")})
ON_SELECTION = ("rate_sensitivity", "tuning_budget")


def label(arm):
    return ARMS[arm].title


def drawn(name, results, scale=SMALL):
    return offered(scale)[name].draw(results, scale)


@pytest.fixture(scope="module")
def rows():
    return synthetic(SMALL)


@pytest.fixture(scope="module")
def results(rows):
    return frame(rows, SMALL)


@pytest.mark.parametrize("name", FIGURES)
def test_title_says_what_a_demonstration_is(name):
    title = FIGURES[name].heading(SMALL)
    seeds = "1 seed" if name in ON_SELECTION else "3 seeds"
    assert f"demonstration: {seeds}, 2,000 training images" in title
    judged = FIGURES[name].heading(replace(SMALL, demonstration=False))
    assert "demonstration" not in judged
    assert "mnist" in judged


@pytest.mark.parametrize("name", FIGURES)
def test_title_counts_the_images_that_the_runs_were_trained_on(name):
    title = FIGURES[name].heading(replace(SMALL, selection_train_size=1_000))
    assert ("1,000" if name in ON_SELECTION else "2,000") in title


def test_a_figure_that_is_rendered_has_its_title(results):
    svg = figures.render(FIGURES["error_against_cost"], results, SMALL)["error_against_cost.svg"]
    with_text = "Test error against cost" in svg.decode()
    assert with_text


@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.3)])
def test_protocol_chooses_a_pretraining_rate_only_where_there_is_a_choice(rates):
    scale = replace(SMALL, pretraining_rates=rates)
    words = scale.kind.show.protocol(scale)
    assert ("at a rate of 0.1." in words) == (len(rates) == 1)
    assert ("at the rate of 0.1, 0.3 whose" in words) == (len(rates) == 2)


# Figures that a scale of one place and one arm lacks.
COMPARING = {"error_against_depth", "gain_against_depth", "forest"}


@pytest.mark.parametrize("name", sorted(set(FIGURES) - COMPARING))
def test_one_family_one_depth_one_rate_can_be_drawn(name):
    scale = replace(SMALL, arms=("he",), axes={"depth": (3,)}, learning_rates=(0.1,))
    figures.render(offered(scale)[name], frame(synthetic(scale), scale), scale)


# Looks


def test_no_two_arms_look_the_same():
    assert len({arm.look for arm in ARMS.values()} - {None}) == len(ARMS)
    for study in STUDIES.values():
        for scale in study.scales.values():
            looks = figures.looks(scale).values()
            assert len({(look["color"], look["marker"]) for look in looks}) == len(looks)


def test_an_arm_keeps_its_look_and_its_line_says_whether_it_is_pretrained():
    looks = figures.looks(replace(STUDIES["depth"].scales["standard"], axes={}, only_at={}))
    for name, look in looks.items():
        assert (look["color"], look["marker"]) == ARMS[name].look
        assert (look["linestyle"] == "-") == bool(ARMS[name].objective)


def test_an_arm_without_a_look_gets_a_free_one():
    own = Arm("red", look=("#d55e00", "D")), *map(Arm, map(str, range(51)))
    looks = figures.looks(replace(SMALL, arms=(*own, *SMALL.arms)))
    assert (looks["red"]["color"], looks["red"]["marker"]) == ("#d55e00", "D")
    assert looks["random"] == figures.looks(SMALL)["random"]
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(looks) == 55


def linear(color):
    """The linear red, green and blue of a color."""
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(color):
    """Relative luminance of a color (Web Content Accessibility Guidelines 2.1)."""
    return linear(color) @ [0.2126, 0.7152, 0.0722]


# What people see who lack one kind of cone (Machado et al. 2009), in linear red, green and blue.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
}
# From linear red, green and blue to CIE XYZ, relative to daylight.
XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]])


def lab(color, sight):
    """A color in CIE L*a*b*, as it is seen; a distance of 2 can just be noticed."""
    x, y, z = np.cbrt(XYZ @ np.clip(sight @ linear(color), 1e-3, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT.values(), ids=SIGHT)
def test_arms_of_a_panel_look_different_to_the_color_blind(sight):
    """A twin of an arm has the color of the arm and another marker."""
    for study in STUDIES.values():
        for scale in study.scales.values():
            looks = figures.looks(scale)
            for names in figures.families(scale.arms).values():
                colors = {looks[name]["color"] for name in names}
                for one, other in itertools.combinations(colors, 2):
                    distance = np.linalg.norm(lab(one, sight) - lab(other, sight))
                    assert distance > 10, (study.name, one, other)


def test_every_color_stands_out_from_white():
    colors = {arm.look[0] for arm in ARMS.values()} | set(figures.COLORS)
    colors |= {look["color"] for look in _BOUNDS.values()}
    contrast = {color: 1.05 / (luminance(color) + 0.05) for color in colors}
    assert [color for color, ratio in contrast.items() if ratio < 3] == []


def test_no_arm_is_drawn_upon_another(results):
    same = results.assign(test_error=0.05, flops=1e12)
    bars = drawn("error_against_depth", same).axes[0].containers
    dots = drawn("error_against_cost", same).axes[0].lines
    assert len({bar.lines[0].get_xdata()[0] for bar in bars}) == len(bars) == 2
    assert len({float(dot.get_xdata()[0]) for dot in dots}) == len(dots)


def test_an_alternative_text_has_the_numbers_of_every_arm(results):
    table = SMALL.kind.show.main_table(results, SMALL)
    text = FIGURES["error_against_depth"].seen(table, SMALL)
    report = results[(results["role"] == "report") & (results["arm"] == "denoising")]
    first, last = 100 * report.groupby("depth")["test_error"].median()
    assert f"{label('denoising')} {first:.3g} at depth 1 to {last:.3g} at depth 5" in text
    assert FIGURES["rate_sensitivity"].seen(table, SMALL) == FIGURES["rate_sensitivity"].title


# What is drawn


def test_headline_shows_the_medians_of_the_records(results):
    figure = drawn("error_against_depth", results)
    sigmoid, relu = figure.axes
    labels = {*map(label, ("random", "denoising")), "chance"}
    assert labels == set(sigmoid.get_legend_handles_labels()[1])
    assert {label("he"), "chance"} == set(relu.get_legend_handles_labels()[1])
    report = results[(results["role"] == "report") & (results["arm"] == "denoising")]
    bars = sigmoid.containers[1]
    assert bars.get_label() == label("denoising")
    medians = report.groupby("depth")["test_error"].median()
    np.testing.assert_allclose(np.float64(bars.lines[0].get_ydata()), medians)


def test_all_errors_are_inside_the_axes(results):
    errors = results[results["role"] == "report"]["test_error"]
    low, high = drawn("error_against_depth", results).axes[0].get_ylim()
    assert 0 < low < errors.min() < errors.max() < high


@pytest.mark.parametrize("limits", [(0.02, 0.95), (0.06, 0.11), (0.031, 0.034), (0.004, 0.02)])
def test_ticks_are_several_and_apart_and_in_percent(limits):
    ax = Figure(figsize=(6, 3)).subplots()
    _percent_axis(ax, pd.Series(limits))
    low, high = ax.get_ylim()
    ticks = np.array([tick for tick in ax.get_yticks() if low <= tick <= high])
    heights = ax.transAxes.inverted().transform(ax.transData.transform([(0, t) for t in ticks]))
    assert 0 < low < limits[0] < limits[1] < high
    assert len(ticks) >= 2
    assert (np.diff(heights[:, 1]) > 0.04).all()
    assert ax.yaxis.get_major_formatter()(0.035) == "3.5"


def test_few_runs_that_fail_leave_most_of_the_axis_to_all_others():
    ax, trained = Figure(figsize=(6, 3)).subplots(), [0.15, *[0.16] * 6, 0.17]
    _percent_axis(ax, pd.Series([*trained, 0.6, 0.9]))
    points = ax.transData.transform([(0, error) for error in (*trained, 0.6, 0.9)])
    heights = ax.transAxes.inverted().transform(points)[:, 1]
    assert (np.diff(heights) >= 0).all() and heights[-1] < 1 and heights[-3] < heights[-2] - 0.05
    assert heights[-3] - heights[0] > 0.3
    (band,) = ax.patches
    assert 0.17 < band.get_y() < band.get_y() + band.get_height() < 0.6


def test_chosen_rate_is_ringed(results):
    figure = drawn("rate_sensitivity", results)
    rings = [line for line in figure.axes[0].lines if line.get_markersize() > 10]
    where = [x for line in rings for x in line.get_xdata()]
    assert len(set(where)) == 2
    assert where == pytest.approx([SMALL.learning_rates[-2]] * 2, rel=0.15)


def test_rate_sensitivity_reaches_from_the_best_seed_to_the_worst():
    scale = replace(SMALL, selection_seeds=2)
    results = frame(synthetic(scale), scale)
    (spread, *_) = drawn("rate_sensitivity", results, scale).axes[0].collections
    tried = results[(results["role"] == "selection") & (results["depth"] == 1)]
    errors = tried[tried["arm"] == "random"].groupby("learning_rate")["validation_error"]
    ends = [sorted(segment[:, 1]) for segment in spread.get_segments()]
    np.testing.assert_allclose(ends, errors.agg(["min", "max"]))


def test_tuning_budget_ends_at_the_whole_grid(results):
    line = drawn("tuning_budget", results).axes[0].lines[1]
    tried = results[(results["role"] == "selection") & (results["depth"] == 1)]
    tried = tried[tried["arm"] == "denoising"]
    assert line.get_label() == label("denoising")
    errors = tried["validation_error"]
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], [errors.mean(), errors.min()])
    # Selection has one seed here; pretraining is charged to each of its runs, and to each run of
    # the search for the pretraining rate.
    searched = results[(results["role"] == "search") & (results["arm"] == "denoising")]
    assert len(searched)
    assert line.get_xdata()[-1] == pytest.approx(tried["flops"].sum() + searched["flops"].sum())
    assert (tried["pretraining_flops"] > 0).all()


def test_trajectory_marks_the_last_epoch_of_equal_training(results):
    figure = drawn("nll_trajectories", results)
    solid = {line.get_label(): line for line in figure.axes[0].lines}[label("random")]
    assert len(solid.get_xdata()) == SMALL.epochs
    assert solid.get_markevery() == [SMALL.epochs - 1]


def test_forest_has_a_row_for_every_difference_from_a_control():
    scale = replace(
        SMALL,
        arms=("random", "random_longer", "denoising"),
        axes={"depth": (1, 3), "width": (50, 100)},
    )
    results = frame(synthetic(scale), scale)
    figure = drawn("forest", results, scale)
    (ax,) = figure.axes
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == [
        label("denoising"),
        *(f"depth {d}, width {w}" for d in (1, 3) for w in (50, 100)),
    ]
    marks = {
        round(line.get_ydata()[0], 2): line.get_xdata()[0]
        for line in ax.lines
        if line.get_marker() == ARMS["denoising"].look[1]
    }
    report = results[results["role"] == "report"]
    errors = report.pivot_table("test_error", ["depth", "width", "seed"], "arm")
    for row, place in enumerate(scale.combinations, start=1):
        at = errors.loc[place["depth"], place["width"]]
        for control, y in (("random", row - 0.15), ("random_longer", row + 0.15)):
            found = stats.ttest_rel(at["denoising"], at[control]).confidence_interval()
            mean = 100 * (at["denoising"] - at[control]).mean()
            assert marks[round(y, 2)] == pytest.approx(mean)
            ends = [sorted(line.get_xdata()) for line in ax.lines if line.get_ydata()[0] == y]
            assert [pytest.approx([100 * found.low, 100 * found.high])] == [
                e for e in ends if e[1:]
            ]
    assert len(marks) == 8


def test_forest_shows_medians_where_a_run_failed():
    scale = replace(SMALL, arms=("random", "denoising"), axes={"depth": (3,)}, report_seeds=9)
    at_chance = {"role": "report", "arm": "random", "seed": 2}
    records = [
        r | ({"test_error": 0.9} if all(r[n] == v for n, v in at_chance.items()) else {})
        for r in synthetic(scale)
    ]
    results = frame(records, scale)
    (ax,) = drawn("forest", results, scale).axes
    report = results[results["role"] == "report"]
    errors = report.pivot_table("test_error", "seed", "arm")
    differences = 100 * (errors["denoising"] - errors["random"])
    look = ARMS["denoising"].look[1]
    (marker,) = [line for line in ax.lines if line.get_marker() == look]
    assert marker.get_xdata()[0] == pytest.approx(differences.median())
    assert differences.mean() < differences.median() - 5


def test_the_bar_of_an_arm_that_is_not_run_everywhere_stands_at_its_dots():
    scale = replace(SMALL, only_at={"he": {"depth": (5,)}})
    results = frame(synthetic(scale), scale)
    # The rectifiers' panel is the first of the second row.
    he = drawn("error_over_seeds", results, scale).axes[2]
    bars = [segment for each in he.collections for segment in getattr(each, "get_segments", list)()]
    dots = [each.get_offsets() for each in he.collections if not hasattr(each, "get_segments")]
    (((left, height), (right, _)),) = [bar for bar in bars if len(bar)]
    errors = results[(results["role"] == "report") & (results["arm"] == "he")]["test_error"]
    assert height == errors.median()
    where = np.concatenate(dots)[:, 0]
    assert len(where) == SMALL.report_seeds
    assert left < where.min() < where.max() < right


def test_gain_is_the_mean_of_what_a_pretrained_net_is_better_by_seed_by_seed():
    # The rectifiers are another family, which the pretrained sigmoid nets are not compared with.
    arms = ("random", "glorot", "he", "denoising")
    scale = replace(SMALL, arms=arms, axes={"width": (50, 100)})
    results = frame(synthetic(scale), scale)
    (ax,) = drawn("gain_against_width", results, scale).axes
    errors = results[results["role"] == "report"].pivot_table(
        "test_error", ["width", "seed"], "arm"
    )
    for bars, control in zip(ax.containers, ("random", "glorot"), strict=True):
        gains = 100 * (errors[control] - errors["denoising"])
        middle = gains.groupby("width").mean()
        np.testing.assert_allclose(bars.lines[0].get_ydata(orig=False), middle)
        (segments,) = (each.get_segments() for each in bars.lines[2])
        for width, segment in zip((50, 100), segments, strict=True):
            at = errors.loc[width]
            found = stats.ttest_rel(at[control], at["denoising"]).confidence_interval()
            np.testing.assert_allclose(segment[:, 1], [100 * found.low, 100 * found.high])
    for arms in (("random", "he"), ("denoising", "he")):
        assert "gain_against_depth" not in offered(replace(SMALL, arms=arms))


def test_the_gain_of_an_arm_has_no_panel_where_the_arm_is_not_run():
    arms, axes = ("random", "denoising"), {"depth": (1, 2), "width": (50, 100)}
    scale = replace(SMALL, arms=arms, axes=axes, only_at={"denoising": {"width": (50,)}})
    panels = drawn("gain_against_depth", frame(synthetic(scale), scale), scale).axes
    assert [ax.get_visible() for ax in panels] == [True, False]


def test_a_family_has_no_panel_where_none_of_its_arms_is_run():
    scale = replace(SMALL, only_at={"he": {"depth": (5,)}})
    drawing = drawn("rate_sensitivity", frame(synthetic(scale), scale), scale)
    drawing.canvas.draw()
    assert [ax.axison for ax in drawing.axes] == [True, True, False, True]
    # The panels beside and above the gap take over its labels.
    (above, _, gap, right) = drawing.axes
    assert right.get_ylabel() == above.get_ylabel().replace("sigmoid", "rectified linear")
    assert any(text.get_text() and text.get_visible() for text in above.get_xticklabels())
    assert gap.get_legend() is None and right.get_legend()


@pytest.mark.parametrize(("widths", "columns"), [((25, 50, 100), 1), ((25, 50, 100, 200, 400), 2)])
def test_many_single_panels_stand_in_two_columns(widths, columns):
    scale = replace(SMALL, arms=("random", "denoising"), axes={"depth": (1, 2), "width": widths})
    drawing = drawn("error_against_depth", frame(synthetic(scale), scale), scale)
    shown = [ax for ax in drawing.axes if ax.get_visible()]
    assert [ax.get_ylabel().split("\n")[0] for ax in shown] == [f"width {each}" for each in widths]
    assert len({ax.get_position().x0 for ax in shown}) == columns


def test_a_published_number_is_a_line_and_named():
    scale = replace(SMALL, axes={"depth": (1,)})
    published = Published(7.5, sample("he", "validation_error"), "A paper")
    other = Published(6.5, sample("he", "test_error"), "Another")
    results, figure = frame(synthetic(scale), scale), offered(scale)["error_over_epochs"]
    with_line, without = (
        figures.render(figure, results, scale, each)["error_over_epochs.svg"]
        for each in ((published, other), (other,))
    )
    assert b"7.5, A paper" in with_line
    assert with_line.count(b"Another") == without.count(b"paper") == 0


def test_there_is_no_forest_without_a_control():
    assert "forest" not in offered(replace(SMALL, arms=("random", "he")))
    own = Arm("a", rates=False), Arm("b", control="a", rates=False)
    assert "forest" in offered(replace(OWN, arms=own))


# Any axes

DENSITY = STUDIES["vae_latent"].scales["quick"]
OWN = replace(zlib_study.SCALES["standard"], kind=zlib_study.KIND)


@pytest.mark.parametrize(
    ("scale", "axis", "other", "values", "arm", "label", "metric", "average"),
    [
        (SMALL, "depth", "width", (50, 200), "random", "random", "test_error", np.median),
        (SMALL, "width", "width", (50, 5_000), "he", "he", "test_error", np.median),
        (SMALL, "depth", "dataset", ("mnist", "digits"), "he", "he", "test_error", np.median),
        (WORDS, "dataset", "dataset", ("digits", "mnist"), "he", "he", "test_error", np.median),
        (DENSITY, "latent", "width", (50, 200), "variational", "test", "test_bound", np.mean),
        (OWN, "level", "test_size", (50, 100), "single", "single", "bits", np.mean),
    ],
)
def test_each_combination_of_the_other_axes_has_a_panel(
    scale, axis, other, values, arm, label, metric, average
):
    scale = replace(scale, axes=scale.axes | {other: values})
    results = frame(synthetic(scale), scale)
    (name, *_) = (name for name in offered(scale) if name.endswith(f"_against_{axis}"))
    figure = drawn(name, results, scale)
    label = ARMS[label].title if label in ARMS else label
    bars = [b for ax in figure.axes for b in ax.containers if b.get_label() == label]
    runs = results[(results["role"] == "report") & (results["arm"] == arm)]
    rest = next(name for name in scale.axes if name != axis)
    assert len(bars) == len(scale.axes[rest])
    for bar, value in zip(bars, scale.axes[rest], strict=True):
        at = runs[runs[rest] == value].groupby(axis)[metric].agg(average)
        found = dict(zip(bar.lines[0].get_xdata(), bar.lines[0].get_ydata(), strict=True))
        text = isinstance(scale.axes[axis][0], str)
        expected = {scale.axes[axis].index(v) if text else v: each for v, each in at.items()}
        shift = min(found) - min(expected)
        assert {x - shift: y for x, y in found.items()} == pytest.approx(expected)
        gaps = [1] if text else np.diff(sorted(scale.axes[axis]))
        assert abs(shift) < min(gaps) / 4 + 1e-9


def test_names_stand_side_by_side_and_far_apart_numbers_on_a_logarithmic_axis():
    names, numbers = (
        drawn(f"error_against_{axis}", frame(synthetic(scale), scale), scale).axes[-1]
        for axis, values in (("dataset", ("mnist", "digits")), ("width", (50, 5_000)))
        for scale in (replace(SMALL, axes={axis: values}),)
    )
    assert [tick.get_text() for tick in names.get_xticklabels()] == ["mnist", "digits"]
    assert list(names.get_xticks()) == [0, 1]
    assert numbers.get_xscale() == "log"
    assert list(numbers.get_xticks()) == [50, 5_000]
    assert (names.get_xlabel(), numbers.get_xlabel()) == ("dataset", "units per layer")


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        ({}, set()),
        ({"depth": (3,)}, set()),
        ({"depth": (1, 3), "width": (50,)}, {"error_against_depth"}),
        ({"depth": (1, 3), "width": (50, 9)}, {"error_against_depth", "error_against_width"}),
        ({"depth": (1, 3), "dataset": ("mnist", "digits")}, {"error_against_depth"}),
    ],
)
def test_there_is_a_figure_for_every_axis_of_several_values(axes, names):
    found = offered(replace(SMALL, axes=axes))
    gains = {name.replace("error", "gain") for name in names}
    others = set(FIGURES) - {"error_against_depth", "gain_against_depth"}
    assert set(found) == names | gains | others
    titles = [found[name].title for name in sorted(names)]
    assert titles == [f"Test error against {t}" for t in TITLES[: len(titles)]]


TITLES = ("depth (hidden layers)", "units per layer")


def test_figures_that_a_study_wants_come_in_its_order():
    show = SMALL.kind.show
    own = figures.Figure("mine", "Mine.", "My own.", lambda frame, scale: None)
    wanted = ("tuning_budget", own, "error_against_{axis}", "error_over_seeds")
    found = [figure.name for figure in show.offered(SMALL, wanted)]
    assert found == ["tuning_budget", "mine", "error_against_depth", "error_over_seeds"]
    without = replace(SMALL, arms=(Arm("untrained", rates=False),), learning_rates=())
    assert "tuning_budget" not in offered(without)
    with pytest.raises(ValueError, match="figures of the kind classification.*Received: samples"):
        show.offered(SMALL, ("samples",))


# Files


@pytest.mark.parametrize("name", FIGURES)
def test_files_name_no_date_and_no_version(name, results):
    files = figures.render(FIGURES[name], results, SMALL)
    assert files[f"{name}.png"].startswith(b"\x89PNG")
    assert b"Software" not in files[f"{name}.png"]
    assert b"<dc:date>" not in files[f"{name}.svg"]
    assert b"Matplotlib v" not in files[f"{name}.svg"]


def test_the_style_of_the_reader_does_not_matter(results):
    expected = figures.render(FIGURES["error_against_depth"], results, SMALL)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert figures.render(FIGURES["error_against_depth"], results, SMALL) == expected
