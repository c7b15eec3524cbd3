"""A comparison of the user's own network and data, and what it shares with every study."""

import gc
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from studies_synthetic import records as synthetic

import studies
from pretrain import DenoisingAutoencoder, Masking, datasets, networks
from studies import gallery
from studies.commands import main
from studies.comparison import arms as ways
from studies.comparison import budget, call, data, survey, verdict
from studies.comparison.kind import KIND
from studies.engine import journal
from studies.engine.execute import Run, execute
from studies.engine.executors import HereExecutor
from studies.engine.scale import Scale, load_custom, save_custom
from studies.engine.study import load
from studies.engine.worker import run_cell
from studies.kinds.classification.prediction import prediction
from studies.report.claims import Condition, difference
from studies.report.statistics import Interval
from studies.report.verdicts import FAILS, HOLDS, UNDECIDED, Finding, Judgment

TINY = {
    "train_size": 60,
    "validation_size": 40,
    "test_size": 100,
    "epochs": 2,
    "pretraining_epochs": 2,
    "batch_size": 20,
    "selection_seeds": 1,
}
RANDOM = np.random.RandomState(0)
X = RANDOM.normal(3, 2, (150, 4))
NUMBERS = X @ [1.0, -1.0, 2.0, 0.5] + RANDOM.normal(size=150)


def net(outputs, activation=None, shape=(4,)):
    dense = keras.layers.Dense
    return lambda seed: keras.Sequential(
        [keras.Input(shape), dense(6, "tanh"), dense(5, "tanh"), dense(outputs, activation)]
    )


def errors(folder):
    records = pd.DataFrame(journal.read(folder / journal.FILE))
    reports = records[records["role"] == "report"]
    columns = ["test_error", "test_nll", "flops"]
    return {arm: rows.sort_values("seed")[columns] for arm, rows in reports.groupby("arm")}


@pytest.mark.slow
def test_a_comparison_says_of_our_arms_what_the_depth_study_says(tmp_path):
    rates = {"learning_rates": (0.1,), "pretraining_rates": (0.03,)}
    asked = studies.compare(
        lambda seed: networks.mlp(
            (28, 28, 1),
            depth=2,
            units=12,
            activation="sigmoid",
            initializer="historical",
            seed=seed,
        ),
        "mnist",
        arms=("none", DenoisingAutoencoder(Masking(0.25), reduction="sum")),
        seeds=2,
        results=tmp_path / "own",
        optimizer="sgd",
        pretraining_optimizer="sgd",
        **rates,
        **TINY,
    )
    arms = ("random", "random_longer", "denoising")
    scale = Scale(arms=arms, axes={"depth": (2,)}, width=12, report_seeds=2, **rates, **TINY)
    depth = load("depth")
    run = Run(depth, "quick", replace(scale, kind=depth.kind), tmp_path / "depth")
    assert not execute(run, run_cell, HereExecutor(), 1).failures
    own, ours = errors(asked.folder), errors(run.folder)
    for name, other in {"none": "random", "none_longer": "random_longer"}.items():
        assert own[name].to_numpy().tolist() == ours[other].to_numpy().tolist()
    assert own["denoising"].to_numpy().tolist() == ours["denoising"].to_numpy().tolist()
    assert set(own) == {"none", "denoising", "none_longer", "noise_longer"}
    assert own["noise_longer"]["test_nll"].tolist() != own["none_longer"]["test_nll"].tolist()


SMALLEST = {
    "arms": ("lsuv",),
    "seeds": 1,
    "learning_rates": (0.01,),
    **{n: v for n, v in TINY.items() if n != "pretraining_epochs"},
    "test_size": 30,
}


def first_wrong(targets, outputs):
    return 1 - keras.metrics.sparse_top_k_categorical_accuracy(targets, outputs, k=1)


def squared(targets, outputs):
    return (targets - outputs) ** 2


def test_an_error_of_the_users_own_is_what_arms_are_judged_by(tmp_path):
    usual = studies.compare(net(2), (X, NUMBERS > 9), results=tmp_path, **SMALLEST)
    asked = SMALLEST | {"results": tmp_path, "error": first_wrong}
    own = studies.compare(net(2), (X, NUMBERS > 9), **asked)
    assert own.folder != usual.folder
    assert own.frame["error"].tolist() == pytest.approx(usual.frame["error"].tolist(), abs=1e-4)
    found = studies.compare(net(1), (X, NUMBERS), **asked | {"error": squared})
    for arm in errors(found.folder).values():
        assert arm["test_error"].tolist() == pytest.approx(arm["test_nll"].tolist(), rel=1e-5)
    assert "The error is the mean of `squared`" in (found.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("mean_absolute", "Could not interpret"),
        (lambda targets, outputs: keras.ops.mean(targets - outputs), "an error for each example"),
        (lambda targets: targets, "TypeError"),
    ],
)
def test_an_error_that_is_none_is_refused(error, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){message}.*Received: error="):
        studies.compare(net(1), (X, NUMBERS), results=tmp_path, error=error, **SMALLEST)


@pytest.mark.parametrize(
    ("outputs", "activation", "y"),
    [(1, None, NUMBERS), (2, "softmax", NUMBERS > 9), (1, "sigmoid", NUMBERS > 9)],
)
def test_guessing_has_the_error_of_constant_outputs(outputs, activation, y, tmp_path):
    error = "mean_absolute_error" if y is NUMBERS else "mean_squared_error"
    found = data.source((X, y, X, y), tmp_path)
    made = ways.made(net(outputs, activation), ("lsuv",), "adam", "adam", error)
    if outputs == 2:
        made = [replace(arm, error=lambda t, z: squared(0, 1 - z[:, 1])) for arm in made]
    _, guessing = survey.surveyed(made, str(found.path))
    y = (y - y.mean()) / y.std() if y is NUMBERS else y.astype(float)
    expected = {1: np.abs(y).mean() if y.max() != 1 else y.var(), 2: (1 - y.mean()) ** 2}
    # Some of the examples are for validation, and not known to guessing.
    assert guessing == pytest.approx(expected[outputs], rel=0.1)


def test_numbers_are_predicted_and_a_second_call_trains_nothing(tmp_path, monkeypatch):
    asked = {
        "arms": ("autoencoder", "lsuv", halved),
        "seeds": 3,
        "unlabeled": RANDOM.normal(3, 2, (50, 4)),
        "results": tmp_path,
        "learning_rates": (0.003, 0.03),
        "pretraining_rates": (0.003,),
        **TINY,
        "test_size": 30,
    }
    found = studies.compare(net(1), (X, NUMBERS), **asked)
    table = found.frame.set_index("arm")
    assert list(table.index) == ["none", "autoencoder", "lsuv", "halved", "none_longer"]
    assert (table["seeds"] == 3).all()
    assert (table.loc["none", "error"] > 0) and (table["error"] < 200).all()
    # The equal cost holds the unlabeled examples, too.
    assert table["flops"]["none_longer"] >= table["flops"]["autoencoder"] > table["flops"]["none"]
    assert re.match(
        r"Autoencoder pretraining (lowers|raises) the test error by [\d.]+ points "
        r"\(95 % interval -?[\d.]+ to -?[\d.]+, 3 pairs\); compared with a net without it that "
        r"trains as long, it (lowers|raises) .*: (not worth it|cannot tell|worth it).* LSUV ",
        found.sentence,
    )
    assert found.sentence in str(found) and found.sentence in found._repr_html_()
    assert len(found.figure().axes) == 1
    assert "<svg" in (page := (found.folder / "index.html").read_text()) or "data:image" in page
    monkeypatch.setattr(call, "run_cell", lambda *_, **__: pytest.fail("trained again"))
    again = studies.compare(net(1), (X, NUMBERS), **asked)
    assert again.folder == found.folder
    assert again.sentence == found.sentence


def halved(model):
    for variable in model.trainable_variables:
        variable.assign(variable / 2)


def test_two_pairs_have_no_interval():
    labels = (NUMBERS.mean() < NUMBERS).astype(int)
    found = studies.compare(
        net(1, "sigmoid"),
        (X, labels),
        arms=("none", "lsuv"),
        seeds=2,
        learning_rates=(0.01,),
        **TINY | {"test_size": 30},
    )
    assert "interval" not in found.sentence
    assert "cannot tell" in found.sentence
    assert found.frame["error_low"].isna().all()
    folder = found.folder
    del found
    gc.collect()
    assert not folder.exists()


def test_a_network_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="inputs have the shape of an example, .4,"):
        studies.compare(net(1, shape=(3,)), (X, NUMBERS))
    with pytest.raises(ValueError, match="Expected a network with 1 outputs.*number to predict"):
        studies.compare(net(2), (X, NUMBERS))
    with pytest.raises(ValueError, match="'none' cannot be built: ZeroDivisionError"):
        studies.compare(lambda seed: 1 / 0, (X, NUMBERS))


# Data


def test_a_table_is_standardized_by_its_training_examples(tmp_path):
    found = data.source((X, NUMBERS), tmp_path, unlabeled=X[:7])
    assert (found.classes, found.chance_error, found.unlabeled) == (1, 1, 7)
    assert (found.train_size, found.validation_size, found.test_size) == (96, 24, 30)
    loaded = data.load(str(found.path), 50, 20, seed=3)
    x, y = loaded.train
    assert x.shape == (50, 4)
    for values in (x, y):
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-5)
    # One and the same change of units for all parts, and targets stay with their examples.
    parts = [loaded.train, loaded.validation, loaded.test]
    for part in parts:
        means = [X.mean(), NUMBERS.mean()]
        assert np.corrcoef(part[0] @ [1, -1, 2, 0.5], part[1])[0, 1] > 0.8, means
    rows = {tuple(row) for row in np.round(loaded.unlabeled, 4)}
    assert len(rows) == 7


def test_values_in_the_unit_interval_and_arrays_of_other_shapes_stay_as_they_are(tmp_path):
    for shape in ((150, 4), (150, 3, 2)):
        x = RANDOM.random_sample(shape).astype("float32")
        loaded = data.load(str(data.source((x, NUMBERS), tmp_path).path), None, None)
        rows = {row.tobytes() for row in x}
        parts = (loaded.train, loaded.validation, loaded.test)
        assert {row.tobytes() for part, _ in parts for row in part} == rows


def test_the_chance_of_data_is_that_of_their_most_frequent_class(tmp_path):
    found = data.source((X, np.repeat(["a", "b"], [120, 30])), tmp_path)
    assert (found.classes, found.chance_error) == (2, pytest.approx(0.2))
    scale = replace(SCALE, dataset=found.name, chance_error=found.chance_error, classes=2)
    assert scale.chance(found.name) == pytest.approx(0.2)
    assert data.source(datasets.load("mnist", 100, 50), tmp_path).test_size == 10_000


def test_integers_that_may_be_numbers_are_asked_about(tmp_path):
    with pytest.raises(ValueError, match="task='classification' or task='regression'"):
        data.source((X, np.arange(150)), tmp_path)
    assert data.source((X, np.arange(150)), tmp_path, task="regression").classes == 1


def test_a_table_has_a_named_target(tmp_path):
    path = tmp_path / "own.csv"
    table = pd.DataFrame(X, columns=list("abcd")).assign(price=NUMBERS)
    table.to_csv(path, index=False)
    found = data.source(str(path), tmp_path, target="price")
    assert (found.features, found.classes, found.name[:4]) == (4, 1, "own-")
    with pytest.raises(ValueError, match="which is named cost"):
        data.source(str(path), tmp_path, target="cost")
    np.savez(tmp_path / "two.npz", x=X, y=NUMBERS)
    assert data.source(tmp_path / "two.npz", tmp_path).test_size == 30


# Networks


@pytest.mark.parametrize("outputs", [1, 2])
def test_probabilities_and_logits_are_one_prediction(outputs):
    """The loss is that of the probabilities, and the class is the more probable one."""
    activation = {1: "sigmoid", 2: "softmax"}[outputs]
    models = [net(outputs, each)(0) for each in (activation, None)]
    models[1].set_weights(models[0].get_weights())
    x, y = X[:20].astype("float32"), np.arange(20) % 2
    p = models[0].predict(x, verbose=0)
    p = p[:, 0] if outputs == 1 else p[:, 1]
    expected = -np.mean(np.log(np.where(y == 1, p, 1 - p)))
    for model in models:
        asked, z = prediction(model, 2), model.predict(x, verbose=0)
        shaped = y[:, None] if outputs == 1 else y
        assert float(asked.judged["loss"](shaped, z)) == pytest.approx(expected, rel=1e-4)
        assert (asked.named(z[None])[0] == (p > 0.5)).all()


def surveyed(build, tmp_path, *arms):
    source = data.source((X, NUMBERS), tmp_path)
    found, _ = survey.surveyed(
        ways.made(build, arms or ("denoising",), "adam", "adam"), source.path
    )
    return found


def test_a_survey_counts_the_flops_of_layers_and_knows_a_network_by_its_meaning(tmp_path):
    none, denoising, *_ = surveyed(net(1), tmp_path)
    assert none.flops == denoising.flops == (2 * 4 * 6, 2 * 6 * 5, 2 * 5 * 1)
    same, *_ = surveyed(net(1), tmp_path)
    other, *_ = surveyed(net(1, "tanh"), tmp_path)
    assert none.version == same.version
    assert len({none.version, denoising.version, other.version}) == 3


def test_a_custom_scale_holds_arms_of_functions(tmp_path):
    scale = replace(SCALE, arms=tuple(surveyed(net(1), tmp_path, "lsuv", halved)))
    save_custom(scale, tmp_path)
    kept = load_custom(load("compare"), tmp_path)
    assert kept.arm("halved").start == f"{__name__}:halved"
    without = [replace(arm, build=None, start=None) for arm in scale.arms]
    assert [replace(arm, build=None, start=None) for arm in kept.arms] == without


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("none",), "at least one arm beside 'none'"),
        (("lsuv", "lsuv"), "no arm twice"),
        (("dropout",), "Expected an arm that is 'none'.*Received: 'dropout'"),
        ((3,), "Received: 3"),
    ],
)
def test_arms_that_make_no_sense_are_refused(arms, message):
    with pytest.raises(ValueError, match=message):
        ways.made(net(1), arms, "adam", "adam")


# Time, grids and verdicts

SCALE = Scale(
    arms=tuple(
        replace(arm, flops=(1_000, 1_000), version="1-a")
        for arm in ways.made(net(1), ("denoising",), "adam", "adam")
    ),
    train_size=4_000,
    validation_size=1_000,
    test_size=1_000,
    epochs=30,
    report_seeds=10,
    learning_rates=(0.001, 0.003, 0.01),
    selection_seeds=2,
    pretraining_epochs=15,
    pretraining_rates=(0.001, 0.003, 0.01),
    dataset="own-1",
    kind=KIND,
)


@pytest.mark.parametrize(("minutes", "seeds"), [(1e9, 10), (1e-9, 3)])
def test_what_tuning_has_left_of_the_time_bounds_the_seeds(minutes, seeds):
    tuning = [r for r in synthetic(SCALE) if r["role"] != "report"]
    tuning = [r | {"seconds": 60.0, "members": 1, "flops": 1_000_000} for r in tuning]
    found = budget.shortened(SCALE, tuning, minutes, 1)
    assert found.report_seeds == seeds
    assert len(found.remarks) == (seeds < 10)
    # Called again, as after an interruption, the scale stays as it is.
    assert budget.shortened(found, tuning, minutes, 1) == found


def test_a_comparison_is_made_as_large_as_its_time_allows():
    speed = budget.Speed({"none": 1e-9, "masking": 4e-9}, cell=0.01)
    full = budget.minutes(SCALE, speed, 1)
    assert budget.fitted(SCALE, speed, full, 1) == SCALE
    last = full
    for limit in (0.7 * full, 0.3 * full, 0.1 * full):
        found = budget.fitted(SCALE, speed, limit, 1)
        assert budget.minutes(found, speed, 1) <= limit < last
        (remark,) = found.remarks
        assert f"{found.epochs} epochs instead of 30" in remark
        assert "even this" not in remark
        # Random numbers, and programs to be compiled, take time, too.
        slower = budget.Speed({"none": 1e-9, "masking": 8e-9}, cell=0.01, program=1)
        assert budget.minutes(found, slower, 1) > budget.minutes(found, speed, 1)
        last = limit
    (remark,) = budget.fitted(SCALE, speed, 1e-6, 1).remarks
    assert "3 seeds instead of 10" in remark and "even this takes" in remark


def test_grids_widen_where_a_best_rate_lies_at_an_end(monkeypatch):
    chosen = {"learning_rate": 0.01, "pretraining_rate": 0.003}

    def groups(scale, records):
        trial = replace(KIND.base(scale, scale.arms[0], {}), role="report", **chosen)
        return [SimpleNamespace(trials=(trial,))]

    monkeypatch.setattr(budget, "groups", groups)
    scale = budget.wider(SCALE, [], SCALE)
    assert scale.learning_rates == (0.001, 0.003, 0.01, 0.03)
    assert scale.pretraining_rates == SCALE.pretraining_rates
    assert budget.wider(scale, [], SCALE) == scale
    for rate in (0.03, 0.1, 0.3):
        chosen["learning_rate"] = rate
        scale = budget.wider(scale, [], SCALE)
    # Twice at most.
    assert scale.learning_rates == (0.001, 0.003, 0.01, 0.03, 0.1)


@pytest.mark.parametrize(
    ("verdict_of_claim", "intervals", "n", "expected"),
    [
        (HOLDS, [(-2.0, -1.0)], 10, verdict.WORTH_IT),
        (FAILS, [(1.0, 2.0)], 10, verdict.NOT_WORTH_IT),
        # The gain is surely less than half a point.
        (UNDECIDED, [(-0.4, 0.3)], 10, verdict.NOT_WORTH_IT),
        (UNDECIDED, [(-3.0, -1.0), (-0.4, 0.3)], 10, verdict.NOT_WORTH_IT),
        (UNDECIDED, [(-0.6, 0.3)], 10, verdict.CANNOT_TELL),
        (UNDECIDED, [(-0.4, 0.3)], 5, verdict.CANNOT_TELL),
        (UNDECIDED, [(math.nan, math.nan)], 2, verdict.CANNOT_TELL),
    ],
)
def test_what_pays_beats_all_that_costs_as_much(verdict_of_claim, intervals, n, expected):
    (claim,) = KIND.claims(SCALE)
    assert [c.effect for c in claim.conditions] == [
        difference("denoising", "none_longer"),
        difference("denoising", "noise_longer"),
    ]
    condition = Condition(difference("a", "b"), below=0)
    findings = tuple(
        Finding(condition, Interval((low + high) / 2, low, high, n)) for low, high in intervals
    )
    assert verdict.verdict(Judgment(claim, verdict_of_claim, 0.05, findings)) == expected
    at_edge = tuple(replace(finding, edges=("a rate",)) for finding in findings)
    if verdict_of_claim == UNDECIDED:
        edged = Judgment(claim, UNDECIDED, 0.05, at_edge)
        assert verdict.verdict(edged) == verdict.CANNOT_TELL


# The command line

MODEL = """import keras

def build(seed):
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,)), dense(5, "relu"), dense(3, "relu"), dense(1)])
"""
SIZES = "--seeds 3 --epochs 2 --pretraining-epochs 1 --selection-seeds 1 --learning-rates 0.01"
COMMAND = "run compare --model my_own.py:build --data own.csv --target price --workers 1"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a network and a table, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_own.py").write_text(MODEL)
    table = pd.DataFrame(X, columns=list("abcd")).assign(price=NUMBERS)
    table.to_csv(tmp_path / "own.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_a_comparison_is_a_command_that_goes_on_and_a_page(files, capsys):
    command = f"{COMMAND} {SIZES} --pretraining-rates 0.01".split()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Denoising pretraining" in shown and "3 pairs" in shown
    (folder,) = (files / "results" / "compare").glob("custom-own-*")
    page = (folder / "index.html").read_text()
    assert shown.partition(";")[0].splitlines()[-1] in page
    assert not re.search(r'(src|href)="(?!data:|#|https?:)[^"]*\.(png|svg|css|js)"', page)
    assert main(command) == 0
    assert "Nothing to do." in capsys.readouterr().out
    # A report needs the records, and not the network.
    (files / "my_own.py").unlink()
    table = (folder / "table.csv").read_bytes()
    (folder / "table.csv").unlink()
    assert main(["report", "compare"]) == 0
    assert (folder / "table.csv").read_bytes() == table
    assert "keras" not in (folder / "scale.json").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("my_own.py:build", "my_own.py"), "Expected FILE.py:FUNCTION. Received: my_own.py"),
        (("my_own.py:build", "none.py:build"), "Expected the file of a function.*none.py"),
        (("price", "cost"), "which is named cost"),
        (("own.csv", "no.csv"), "no.csv"),
    ],
)
def test_a_command_that_makes_no_sense_says_so(files, capsys, change, message):
    assert main(COMMAND.replace(*change).split()) == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_driver_of_a_comparison_imports_no_keras(files):
    code = (
        "import sys; from studies import commands; from studies.comparison import conduct, data;"
        "data.source('own.csv', conduct.Path('.'), target='price');"
        "sys.exit(bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    root = str(Path(studies.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root})
    assert found.returncode == 0


# The gallery


@pytest.mark.slow
def test_the_gallery_is_made_of_records(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    settings = {"seeds": 3, "epochs": 2, "pretraining_epochs": 1, "selection_seeds": 1}
    grids = {"learning_rates": (0.003,), "pretraining_rates": (0.003,)}
    example = replace(gallery.EXAMPLES["wine"], settings=settings | grids)
    monkeypatch.setattr(gallery, "EXAMPLES", {"wine": example})
    page = tmp_path / "gallery.md"
    gallery.main(["all", "--results", str(tmp_path)])
    made = page.read_text()
    sentence = next(line for line in made.splitlines() if line.startswith("Denoising"))
    assert sentence in capsys.readouterr().out and "3 pairs" in sentence
    (link,) = re.findall(r"\]\(([^)]*README.md)\)", made)
    (tmp_path / link).unlink()
    page.unlink()
    # Without an argument, nothing is trained.
    monkeypatch.setattr(studies, "compare", None)
    gallery.main(["--results", str(tmp_path)])
    assert page.read_text() == made and (tmp_path / link).exists()


def test_an_example_that_the_gallery_lacks_is_refused(capsys):
    with pytest.raises(SystemExit):
        gallery.main(["iris"])
    assert "Received: iris" in capsys.readouterr().err
