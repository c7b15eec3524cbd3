"""What every kind keeps of its contract, and what the rest of the house knows of kinds."""

import ast
import dataclasses
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import zlib_study
from studies_synthetic import KINDS, STUDIES, diverged, small
from studies_synthetic import records as synthetic

import studies
from studies.arms import ARMS, Arm
from studies.engine import plan
from studies.engine.trial import Trial
from studies.report import fairness, figures, tables
from studies.report.frame import frame

FOLDER = Path(studies.__file__).parent
OWN = replace(zlib_study.SCALES["standard"], kind=zlib_study.KIND, report_seeds=3)
# With one kind that a user has in a file of his own, which has no rates and the default `Show`.
SCALES = {name: small(kind) for name, kind in KINDS.items()} | {"own": OWN}


@pytest.fixture(scope="module", params=SCALES)
def scale(request):
    return SCALES[request.param]


@pytest.fixture(scope="module")
def rows(scale):
    return synthetic(scale)


# Metrics, arms and trials


def test_the_metrics_that_trials_are_judged_by_are_measured_of_them(scale):
    kind = scale.kind
    assert {"report"} <= set(kind.judged_by) <= {"pretraining", "selection", "report"}
    for role in kind.judged_by:
        assert role in kind.judge(role).roles
        assert role == "report" or not kind.judge(role).on_test
    names = [metric.name for metric in kind.metrics]
    assert len(set(names)) == len(names)
    assert {*kind.show.metrics, *kind.show.summarized} <= set(names)
    assert all(metric.label for metric in kind.metrics)


def test_only_reports_see_the_test_set(scale, rows):
    unseen = [metric for metric in scale.kind.metrics if metric.on_test]
    assert all(metric.roles == ("report",) for metric in unseen)
    assert any(metric.name in row for metric in unseen for row in rows)
    fairness.check(frame(rows, scale), scale)


@pytest.mark.parametrize("field", ["shortcut", "head_initializer", "activation"])
def test_an_arm_that_sets_what_the_kind_does_not_use_is_refused(scale, field):
    arm = Arm("new", **{field: "x"})
    if field in scale.kind.arm_fields:
        scale.kind.check_arm(arm)
    else:
        with pytest.raises(ValueError, match=f"Received: .*{field}"):
            scale.kind.check_arm(arm)


def test_every_arm_of_a_study_is_accepted_and_every_arm_has_a_kind():
    for study in STUDIES.values():
        for scale in study.scales.values():
            study.kind.check(scale)
    used = {arm.name for s in STUDIES.values() for c in s.scales.values() for arm in c.arms}
    assert used >= set(ARMS)


def test_the_fields_of_a_kind_change_no_key_of_other_trials(scale):
    assert scale.kind.trial().key == Trial().key
    own = {f.name for f in dataclasses.fields(scale.kind.trial)}
    assert own >= {f.name for f in dataclasses.fields(Trial)}
    assert set(scale.axes) <= set(scale.kind.axes) <= own


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"arm": ("he",)}, "field of the trials.*Received: .*arm"),
        ({"seed": (1,)}, "field of the trials.*Received: .*seed"),
        ({"nonsense": (1,)}, "field of the trials.*Received: .*nonsense"),
        ({"epochs": ("many",)}, "of type int.*Received: .*many"),
        ({"epochs": (0.5,)}, "of type int.*Received: .*0.5"),
        ({"dataset": (3,)}, "of type str.*Received: .*3"),
    ],
)
def test_an_axis_that_makes_no_sense_is_refused(scale, axes, message):
    with pytest.raises(ValueError, match=message):
        replace(scale, axes=axes)


def test_every_trial_costs_something(scale, rows):
    groups = plan.groups(scale, rows)
    assert all(scale.kind.flops(group.trials[0], group.arm, scale) > 0 for group in groups)
    costs = {row["arm"]: scale.kind.computed(row) for row in rows if row["role"] == "report"}
    assert set(costs) == set(scale.arm_names)
    assert min(costs.values()) > 0


def test_a_record_is_checked_against_its_key_and_its_metrics(scale, rows):
    kind, row = scale.kind, next(row for row in rows if row["role"] == "report")
    for sound in (*rows, diverged(row, scale)):
        kind.check_record(sound)
    judge = kind.metric().name
    for damage, message in (
        ({"seed": row["seed"] + 1}, "key"),
        ({"arm": "other"}, "key"),
        ({"width": "50"}, "width"),
        ({"role": "nonsense"}, "key"),
        ({judge: "0.5"}, judge),
        ({judge: True}, judge),
    ):
        with pytest.raises(ValueError, match=message):
            kind.check_record(row | damage)
    with pytest.raises(ValueError, match=f"done and lacks {judge}"):
        kind.check_record({name: value for name, value in row.items() if name != judge})


# Tables and words


def test_a_table_has_a_row_per_place_and_no_empty_cell(scale, rows):
    show = scale.kind.show
    table = show.main_table(frame(rows, scale), scale)
    places = table[["arm", *scale.axes]].itertuples(index=False, name=None)
    assert list(places) == scale.places
    assert (table["seeds"] == scale.report_seeds).all()
    block = show.summary(table, scale)
    assert all(cell.strip() for cell in block.astype(str).to_numpy().ravel())
    text = "\n".join([tables.plain(block), *show.sections(table, scale)])
    text = "\n".join([text, *show.numbers(table, scale)])
    assert not re.search(r"\| *\||\bnan\b|\bNone\b|<NA>|\bX\b", text)


def test_what_is_missing_prints_x_and_the_rest_stays(scale, rows):
    show, place = scale.kind.show, scale.places[-1]
    kept = [r for r in rows if not (r["role"] == "report" and place == _place(r, scale))]
    whole, part = (show.main_table(frame(each, scale), scale) for each in (rows, kept))
    assert part["seeds"].tolist() == [scale.report_seeds] * (len(scale.places) - 1) + [0]
    line = show.numbers(part, scale)[0].splitlines()[-1].replace(" ", "").strip("|")
    # The name of the row, for links to it, is not shown.
    line = re.sub("<aid=.*?></a>", "", line)
    texts = [scale.arm(place[0]).label.replace(" ", ""), *map(str, place[1:])]
    named = [text for text in texts if text in line.split("|")]
    assert re.fullmatch(re.escape("|".join(named)) + r"(\|X){5,}", line)
    same = [table.iloc[: -len(scale.combinations)] for table in (whole, part)]
    pd.testing.assert_frame_equal(*same)


def test_a_diverged_run_counts_as_its_metric_says(scale, rows):
    metric = scale.kind.metric()
    changed = [diverged(r, scale) if r["role"] == "report" else r for r in rows]
    table = scale.kind.show.main_table(frame(changed, scale), scale)
    assert (table["diverged"] == scale.report_seeds).all()
    shown = table[next(name for name in (metric.name, "error") if name in table)]
    (counted,) = {metric.diverged(r, scale) for r in changed if r["role"] == "report"}
    expected = float("nan") if counted is None else metric.factor * counted
    assert list(shown) == pytest.approx([expected] * len(scale.places), nan_ok=True)


def _place(record, scale):
    return record["arm"], *(record[axis] for axis in scale.axes)


def test_protocol_and_caveats_are_sentences_that_hold_the_facts(scale, rows):
    show = scale.kind.show
    table = show.main_table(frame(rows, scale), scale)
    lines = [show.protocol(scale), *show.caveats(table, scale)]
    lines += [figure.caption for figure in show.offered(scale)]
    for line in lines:
        assert re.match(r"[A-Z].*\.$", line, re.DOTALL)
        assert not re.search(r"None|nan|[{}]{2}|  | ,", line)
    facts = [scale.dataset, scale.train_size, scale.validation_size, scale.test_size, scale.epochs]
    facts += [f"Report: {scale.report_seeds} seeds"]
    if scale.learning_rates:
        grid = ", ".join(f"{rate:g}" for rate in scale.learning_rates)
        facts += [f"{scale.batch_size}", f"from {grid} per arm", f"{scale.selection_seeds} seed"]
    assert ("Learning rate" in lines[0]) == bool(scale.learning_rates)
    for fact in facts:
        assert (f"{fact:,}" if isinstance(fact, int) else fact) in lines[0]


@pytest.mark.parametrize("axis", ["train_size", "epochs", "batch_size", "test_size", "width"])
def test_a_fact_that_is_an_axis_is_told_by_its_values(scale, axis):
    told = scale.kind.show.protocol(replace(scale, train_size=2_000, axes={axis: (177, 199)}))
    silent = scale is OWN and axis == "width"
    assert ("177 or 199" in told) == (not silent)


# Figures


# What an interrupted run leaves, or one that went wrong.
INCOMPLETE = {
    "no report": lambda r, scale: r["role"] != "report",
    "the first role": lambda r, scale: r["role"] == next(iter(scale.kind.judged_by)),
    "one seed": lambda r, scale: r["role"] != "report" or r["seed"] == 0,
    "one arm": lambda r, scale: r["arm"] == scale.arm_names[-1],
    "all but one place": lambda r, scale: _place(r, scale) != scale.places[0],
}


@pytest.mark.parametrize("kept", INCOMPLETE)
def test_every_figure_can_be_drawn_of_what_there_is(scale, rows, kept):
    # Of a kind without selection, nothing is there before the reports.
    there = [r for r in rows if INCOMPLETE[kept](r, scale)] or rows[:1]
    for figure in scale.kind.show.offered(scale):
        figure.draw(frame(there, scale), scale).draw_without_rendering()


def test_every_figure_can_be_drawn_if_all_runs_diverged(scale, rows):
    results = frame([diverged(r, scale) for r in rows], scale)
    for figure in scale.kind.show.offered(scale):
        figure.draw(results, scale).draw_without_rendering()


def test_every_figure_is_two_files(scale, rows):
    results, offered = frame(rows, scale), scale.kind.show.offered(scale)
    assert len({figure.name for figure in offered}) == len(offered) > 0
    for figure in offered:
        files = figures.render(figure, results, scale)
        assert list(files) == [f"{figure.name}.png", f"{figure.name}.svg"]


def test_every_figure_of_two_axes_and_of_none_can_be_drawn(scale):
    first = dict(list(scale.axes.items())[:1])
    second = {"width": (20, 30)} if "dataset" in first else {"dataset": ("mnist", "fashion_mnist")}
    for axes in ({}, first | second):
        changed = replace(scale, axes=axes)
        results = frame(synthetic(changed), changed)
        for figure in scale.kind.show.offered(changed):
            figure.draw(results, changed).draw_without_rendering()


# The rule of the house


def _words(path):
    """The words in a module's strings, but for docstrings and a page's HTML, and its attributes."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [n for n in nodes if isinstance(n, ast.Constant) and id(n) not in docstrings]
    texts = [c.value for c in constants if isinstance(c.value, str) and c.value[:2] != "<!"]
    attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return {*attributes, *re.findall(r"\w+", " ".join(texts))}


# What every record has, of any kind.
# What every kind may have, and what arms and scales call their own.
COMMON = {"dataset", "flops", "noise", "optimizer", "rule"}


@pytest.mark.parametrize("folder", ["engine", "report"])
def test_engine_and_report_name_no_metric_no_kind_and_no_axis(folder):
    names = {metric.name for kind in KINDS.values() for metric in kind.metrics}
    names |= {kind.name for kind in KINDS.values()}
    names |= {axis for study in STUDIES.values() for c in study.scales.values() for axis in c.axes}
    names = names - COMMON | {"width"}
    assert {"depth", "latent", "test_error", "validation_error", "test_bound", "density"} < names
    files = sorted((FOLDER / folder).glob("*.py"))
    assert len(files) > 5
    assert {path.name: names & _words(path) for path in files if names & _words(path)} == {}


@pytest.mark.parametrize("folder", ["engine", "report"])
def test_engine_and_report_import_no_kind(folder):
    for path in sorted((FOLDER / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            assert not module.startswith("studies.kinds.") or module == "studies.kinds.kind"
            assert module != "studies.kinds"


def test_only_training_imports_keras():
    names = ", ".join(f"studies.kinds.{name}" for name in KINDS)
    shows = "; ".join(f"studies.kinds.{name}.KIND.show" for name in KINDS)
    heavy = "{'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    code = (
        f"import sys, {names}; assert 'numpy' not in sys.modules; {shows}; sys.exit(bool({heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent).returncode == 0
