"""The contract that every arm fulfills, trained for real on a few images."""

import subprocess
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pretrain import datasets, networks, objectives
from studies.arms import ARMS, Arm
from studies.engine import journal, worker
from studies.engine.execute import Run, execute
from studies.engine.executors import LocalExecutor
from studies.engine.plan import plan
from studies.engine.scale import Scale
from studies.engine.study import load, questions
from studies.engine.trial import Cell, Trial
from studies.engine.worker import run_cell
from studies.kinds import classification, density
from studies.kinds.classification import train as train_module
from studies.kinds.classification.correctness import unpacked

VARIATIONAL = ARMS["variational"]
CLASSIFIERS = [name for name, arm in ARMS.items() if arm != VARIATIONAL]
PRETRAINED = [name for name in CLASSIFIERS if ARMS[name].objective]
TINY = Scale(
    arms=("random", "denoising"),
    axes={"depth": (1, 2)},
    train_size=60,
    validation_size=40,
    # The first 50 have no 8, which a net that names one class may name.
    test_size=100,
    epochs=2,
    learning_rates=(0.1, 0.3),
    pretraining_epochs=2,
    pretraining_rates=(0.01, 0.03),
    selection_seeds=1,
    report_seeds=2,
    width=12,
    demonstration=True,
    kind=classification.KIND,
)
PLACE = {"seconds", "provenance"}


def stages(arm):
    """The hidden layers that an arm names an objective for, or 2."""
    objective = ARMS[arm].objective
    return len(objective) if isinstance(objective, tuple) else 2


def trial(arm, role, seed=0, **fields):
    common = {
        "train_size": TINY.train_size,
        "validation_size": TINY.validation_size,
        "test_size": TINY.test_size,
        "width": TINY.width,
        "epochs": 2,
    }
    if ARMS[arm].objective and role != "pretraining":
        common |= {"pretraining_epochs": 2, "pretraining_rate": 0.03}
    identity = {"arm": arm, "role": role, "seed": seed, "depth": stages(arm)}
    return classification.ClassificationTrial(**common | identity | fields)


def cell(*trials):
    """A cell with the stacks that it needs."""
    first, stacks = trials[0], ()
    if first.pretraining_epochs:
        stack = trial(first.arm, "pretraining", learning_rate=first.pretraining_rate)
        stacks = (tuple(replace(stack, seed=s) for s in {t.seed for t in trials}),)
    return Cell(trials, ARMS[first.arm], classification.KIND, stacks=stacks)


def measured(results):
    """What must not depend on where and when a cell was run."""
    return [{k: v for k, v in result.items() if k not in PLACE} for result in results]


@pytest.mark.parametrize("arm", CLASSIFIERS)
def test_report_is_of_the_epoch_of_the_lowest_validation_error(arm, tmp_path):
    (result,) = run_cell(cell(trial(arm, "report", epochs=3)), tmp_path)
    assert result["status"] == "done"
    curves = result["curves"]
    assert set(curves) == {"train_nll", "validation_nll", "validation_error"}
    assert {len(curve) for curve in curves.values()} == {3}

    def stopped(epoch):
        return run_cell(cell(trial(arm, "report", epochs=epoch)), tmp_path)[0]

    best = int(np.argmin(curves["validation_error"])) + 1
    assert result["best_epoch"] == best
    assert result["test_error"] == stopped(best)["final_test_error"]
    assert result["test_nll"] == stopped(best)["final_test_nll"]
    assert 0 < result["test_error"] < 1
    correct = unpacked(result["correct"], TINY.test_size)
    assert result["test_error"] == pytest.approx(1 - correct.mean())


@pytest.mark.parametrize("arm", CLASSIFIERS)
def test_selection_never_sees_the_test_set(arm, tmp_path):
    asked = [trial(arm, "selection", learning_rate=rate) for rate in (0.1, 0.3)]
    results = run_cell(cell(*asked), tmp_path)
    assert not [key for r in results for key in (*r, *r["curves"]) if "test" in key]
    assert results[0]["curves"] != results[1]["curves"]


@pytest.mark.parametrize("arm", PRETRAINED)
def test_pretraining_reports_every_stage(arm, tmp_path):
    (result,) = run_cell(cell(trial(arm, "pretraining", learning_rate=0.03)), tmp_path)
    curves, shape = result["curves"], (stages(arm), 2)
    assert np.shape(curves["loss"]) == np.shape(curves["validation_loss"]) == shape
    ratios = np.array(curves["validation_loss"])[:, -1] / curves["baseline"]
    assert result["validation_ratio"] == pytest.approx(max(ratios))
    assert result["mean_validation_ratio"] == pytest.approx(np.mean(ratios))
    assert len(curves["dead"]) == len(curves["saturated"]) == stages(arm)
    assert result["dead"] == max(curves["dead"])
    assert 0 <= result["probe_error"] <= 1


def test_the_probe_is_ridge_regression_on_the_codes_of_the_last_layer():
    linear_model = pytest.importorskip("sklearn.linear_model")
    data = datasets.load("mnist", 300, 200, seed=0)
    model = networks.mlp((28, 28, 1), depth=2, units=30, seed=0)
    encoder = keras.Model(model.input, model.get_layer("hidden_2").output)
    codes, held_out = (encoder.predict(x, verbose=0) for x, _ in data[1:3])
    mean, deviation = codes.mean(axis=0), codes.std(axis=0)
    deviation[deviation == 0] = 1
    codes, held_out = ((c - mean) / deviation for c in (codes, held_out))
    probe = linear_model.Ridge(alpha=1e-3 * len(codes)).fit(codes, np.eye(10)[data.train[1]])
    expected = (probe.predict(held_out).argmax(axis=1) != data.validation[1]).mean()
    assert train_module._probe_error(model, data) == pytest.approx(expected)


RECIPES = [
    {"schedule": "cosine"},
    {"noise": "masking"},
    {"noise": "dropout"},
    {"noise": "shifts"},
    {"optimizer": "momentum"},
    {"optimizer": "adamw"},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: "-".join(recipe.values()))
def test_a_recipe_changes_training_and_not_pretraining(recipe, tmp_path):
    arm = "batch_norm_denoising"
    plain, changed = (
        run_cell(cell(trial(arm, "report", learning_rate=0.01, **fields)), tmp_path)[0]
        for fields in ({}, recipe)
    )
    assert changed["status"] == "done"
    assert changed["curves"]["train_nll"] != plain["curves"]["train_nll"]
    scale, kind = replace(TINY, arms=(arm,), axes={}), classification.KIND
    stacks = {
        kind.stack(scale, scale.arm(arm), kind.base(scale, scale.arm(arm), values))
        for values in (recipe, {})
    }
    assert len(stacks) == 1


def test_a_schedule_ends_near_zero_and_the_first_epoch_has_the_whole_rate():
    rates = [train_module._cosine(10, epoch, 0.1) for epoch in range(10)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.003


def test_masking_sets_inputs_to_zero_and_leaves_the_others():
    masking = train_module._Masking(seed=0)
    masked = keras.ops.convert_to_numpy(masking(np.ones((50, 400)), training=True))
    assert set(np.unique(masked)) == {0, 1}
    assert abs((masked == 0).mean() - 0.25) < 0.02
    assert (keras.ops.convert_to_numpy(masking(np.ones((5, 4)))) == 1).all()


def test_lsuv_gives_pre_activations_of_unit_variance():
    data = datasets.load("mnist", 500, 100, seed=0)
    model = train_module.build(trial("lsuv", "report"), ARMS["lsuv"], data)
    first = model.get_layer("hidden_1")
    x = data.train[0].reshape(500, -1)
    before = x @ keras.ops.convert_to_numpy(first.kernel)
    assert before.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("arm", PRETRAINED)
def test_pretraining_costs_what_the_library_counts(arm):
    from pretrain import greedy_pretrain

    asked = trial(arm, "pretraining", learning_rate=0.03)
    model = networks.mlp(
        (784,),
        10,
        depth=asked.depth,
        units=12,
        activation=ARMS[arm].activation,
        normalization=ARMS[arm].normalization,
    )
    x = np.random.RandomState(0).uniform(size=(60, 784))
    configs = ARMS[arm].objective
    configs = configs if isinstance(configs, tuple) else [configs] * 2
    objective = [objectives.from_config(config) for config in configs]
    report = greedy_pretrain(model, x, objective, epochs=2, batch_size=20)
    counted = sum(stage.flops for stage in report.stages)
    assert classification.pretraining_flops(asked, ARMS[arm], 2, 784) == counted


def test_members_do_not_depend_on_each_other(tmp_path):
    """However a cell is composed, a trial's result is the same to the bit."""
    asked = [trial("denoising", "report", seed) for seed in (0, 1, 2)]
    together = run_cell(cell(*asked), tmp_path / "together")
    alone = [run_cell(cell(one), tmp_path / "alone")[0] for one in asked]
    assert measured(together) == measured(alone)


def tear(path):
    path.write_bytes(path.read_bytes()[:-100])


def scratch(path):
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)


def empty(path):
    np.savez(path)


def change(path):
    """An archive that is sound, with a weight of another value."""
    with np.load(path) as arrays:
        held = dict(arrays)
    name = next(name for name in held if name.endswith("kernel"))
    held[name][0, 0] += 1
    np.savez(path, **held)


def shorten(path):
    """An archive that is sound, with an array less."""
    with np.load(path) as arrays:
        held = dict(arrays)
    held.pop(next(name for name in held if name.endswith("kernel")))
    np.savez(path, **held)


def pickle(path):
    np.savez(path, **{"hidden_1/kernel": np.array([{"no": "array"}])})


@pytest.mark.parametrize("damage", [Path.unlink, tear, scratch, empty, change, shorten, pickle])
def test_damaged_stack_is_made_again(damage, tmp_path):
    asked = cell(trial("denoising", "report"))
    before = run_cell(asked, tmp_path)
    (stack,) = tmp_path.glob("*.npz")
    damage(stack)
    assert measured(run_cell(asked, tmp_path)) == measured(before)


def test_the_stack_of_another_trial_is_made_again(tmp_path):
    first, second = (cell(trial("denoising", "report", seed)) for seed in (0, 1))
    before = run_cell(first, tmp_path)
    (stack,) = tmp_path.glob("*.npz")
    run_cell(second, tmp_path)
    (other,) = set(tmp_path.glob("*.npz")) - {stack}
    other.replace(stack)
    assert measured(run_cell(first, tmp_path)) == measured(before)


def test_a_cache_that_cannot_be_written_to_costs_no_result(tmp_path):
    asked = cell(trial("denoising", "report"))
    (tmp_path / "file").touch()
    found = [run_cell(asked, tmp_path / folder) for folder in ("cache", "file")]
    assert measured(found[0]) == measured(found[1])


def test_a_net_that_its_stack_does_not_fit_does_not_pass_for_pretrained(tmp_path):
    arm = replace(ARMS["denoising"], name="unnamed", build=f"{__name__}:unnamed")
    with pytest.raises(ValueError, match="not that of the net.*an output layer .* head"):
        deep = replace(cell(trial("denoising", "report")), arm=arm)
        run_cell(replace(deep, trials=(replace(deep.trials[0], depth=1),)), tmp_path)


def unnamed(input_shape, classes, trial):
    dense = keras.layers.Dense
    hidden = [dense(9, "sigmoid") for _ in range(trial.depth)]
    return keras.Sequential(
        [keras.Input(input_shape), keras.layers.Flatten(), *hidden, dense(classes)]
    )


def test_a_net_without_names_starts_from_its_stack(tmp_path):
    """The stack holds all weights, of which pretraining leaves the output's as they are."""
    arm = replace(ARMS["denoising"], name="unnamed", build=f"{__name__}:unnamed")
    data = datasets.load("mnist", TINY.train_size, TINY.validation_size)
    start, asked = trial("denoising", "pretraining", learning_rate=0.03), trial("random", "report")
    _, (stack,) = train_module._pretrain((start,), arm, tmp_path, lambda _: data)
    fresh, filled = (train_module.build(asked, arm, data) for _ in range(2))
    train_module._fill(filled, stack)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(fresh.get_weights(), filled.get_weights(), strict=True)
    ]
    assert moved == [True] * 4 + [False] * 2


def test_a_deep_stack_serves_shallow_nets(tmp_path):
    """Layer 1 of a pretrained stack does not know how deep the stack is."""
    shallow = trial("denoising", "report", depth=1)
    deep_stack = trial("denoising", "pretraining", learning_rate=0.03, depth=2)
    shallow_stack = replace(deep_stack, depth=1)
    results = [
        run_cell(replace(cell(shallow), stacks=((stack,),)), tmp_path / str(stack.depth))
        for stack in (deep_stack, shallow_stack)
    ]
    assert measured(results[0]) == measured(results[1])


def test_pretraining_changes_the_result(tmp_path):
    pretrained, random = (
        run_cell(cell(trial(a, "report")), tmp_path) for a in ("denoising", "random")
    )
    assert pretrained[0]["curves"] != random[0]["curves"]


def test_divergence_is_a_result(tmp_path):
    asked = [trial("he", "report", learning_rate=rate) for rate in (1e30, 0.1)]
    diverged, sound = run_cell(cell(*asked), tmp_path)
    assert (diverged["status"], sound["status"]) == ("diverged", "done")
    assert diverged["test_error"] is diverged["best_epoch"] is None
    assert diverged["flops"] == sound["flops"]
    assert measured([sound]) == measured(run_cell(cell(asked[1]), tmp_path))


def linear(input_shape, classes, trial):
    return networks.mlp(input_shape, classes, depth=1, activation=None, seed=trial.seed)


def test_an_arm_can_bring_a_network_of_its_own(tmp_path):
    arm = Arm("linear", build=f"{__name__}:linear")
    asked = replace(cell(trial("he", "report")), arm=arm)
    (own,), (mlp,) = run_cell(asked, tmp_path), run_cell(cell(trial("he", "report")), tmp_path)
    assert own["status"] == "done"
    assert own["curves"] != mlp["curves"]


def test_a_trial_is_of_its_own_dataset(tmp_path):
    """The dataset is an axis as any other."""
    pytest.importorskip("sklearn")
    digits = trial("he", "report", dataset="digits")
    results = [run_cell(cell(t), tmp_path)[0] for t in (trial("he", "report"), digits)]
    assert results[0]["curves"] != results[1]["curves"]


def test_other_data_than_the_trial_names_are_refused(tmp_path):
    path = tmp_path / "own.npz"
    arrays = {"y_train": np.arange(200) % 3, "y_test": np.arange(200) % 3}
    for content in (0, 1):
        images = np.full((200, 5, 5), content, "uint8")
        np.savez(path, x_train=images, x_test=images, **arrays)
        name = datasets.fingerprint(path)
        asked = replace(cell(trial("he", "report", dataset=name)), shape=(25, 3))
        (result,) = run_cell(asked, tmp_path, dataset=str(path))
        assert len(result["provenance"]["data"]) == 12
    # The file of the first trial has been replaced.
    with pytest.raises(ValueError, match=f"Received: {name}, not own-0123456789ab"):
        stale = trial("he", "report", dataset="own-0123456789ab")
        run_cell(replace(asked, trials=(stale,)), tmp_path, dataset=str(path))


def test_noise_does_not_pass_for_a_known_dataset(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (200, 5, 5, 3)).astype("uint8")
    labels = np.arange(200) % 10
    np.savez(tmp_path / "cifar10.npz", x_train=noise, y_train=labels, x_test=noise, y_test=labels)
    asked = replace(cell(trial("he", "report", dataset="cifar10")), shape=(3072, 10))
    with pytest.raises(ValueError, match="3072 features.*Received: cifar10 with 75"):
        run_cell(asked, tmp_path, data_folder=tmp_path)


# Densities


def bounded(role, seed=0, latent=2, **fields):
    common = vars(trial("variational", role, seed, depth=1, learning_rate=0.003, **fields))
    names = Trial.__dataclass_fields__
    common = {name: common[name] for name in names if not name.startswith("pretraining")}
    return density.DensityTrial(**common, latent=latent)


def density_cell(*trials):
    return Cell(trials, VARIATIONAL, density.KIND)


def test_density_reports_bounds(tmp_path):
    (result,) = run_cell(density_cell(bounded("report", seed=1, latent=5, epochs=3)), tmp_path)
    assert result["status"] == "done"
    bounds = [result[f"{name}_bound"] for name in ("train", "validation", "test")]
    assert all(-1000 < bound < 0 for bound in bounds)
    # More samples, a bound nearer to log p(x) from below.
    assert result["test_importance_weighted_bound"] > result["test_bound"]
    assert 0 <= result["active_units"] <= 5
    assert "arrays" not in result
    assert len(result["curves"]["validation_bound"]) == 3


def test_density_selection_never_sees_the_test_set(tmp_path):
    (result,) = run_cell(density_cell(bounded("selection", seed=1000)), tmp_path)
    assert not [name for name in (*result, *result["curves"]) if "test" in name]


def test_density_of_the_first_seed_has_pictures(tmp_path):
    (result,) = run_cell(density_cell(bounded("report")), tmp_path)
    shapes = {name: images.shape for name, images in result["arrays"].items()}
    assert shapes == {"samples": (100, 28, 28, 1), "latent_grid": (20, 20, 28, 28, 1)}
    assert all(images.dtype == "uint8" and images.max() > 0 for images in result["arrays"].values())


def test_density_costs_what_the_library_counts():
    from pretrain import greedy_pretrain

    asked = bounded("report", latent=5)
    model = networks.mlp((784,), 10, depth=1, units=12, activation="tanh")
    x = np.random.RandomState(0).uniform(size=(60, 784))
    objective = objectives.from_config(VARIATIONAL.objective | {"latent": 5})
    report = greedy_pretrain(model, x, objective, epochs=2, batch_size=20)
    codes = report.stages[0].flops[0] - density.flops(asked, VARIATIONAL, 784)
    # What the library counts beside: the codes for a next stage.
    assert codes == 2 * 784 * 12 * 60


def test_density_that_diverges_is_a_result(tmp_path):
    asked = [bounded("report"), replace(bounded("report"), learning_rate=1e30)]
    sound, diverged = run_cell(density_cell(*asked), tmp_path)
    assert (diverged["status"], sound["status"]) == ("diverged", "done")
    assert diverged["validation_bound"] is None
    assert "test_bound" not in diverged
    assert diverged["baseline_bound"] == sound["baseline_bound"]


# A study of each kind; other studies of a kind would train the same things for minutes.
# Data of `compression` come with no package: tests/studies/test_compression.py has its own.
EVERY_KIND = {
    study.kind.name: study
    for study in map(load, questions())
    if study.scales and study.name != "compression"
}


@pytest.mark.slow
@pytest.mark.parametrize("study", EVERY_KIND.values(), ids=EVERY_KIND)
def test_study_runs_to_the_end_alike_for_any_number_of_workers(study, tmp_path):
    quick = study.scales["quick"]
    axes = {axis: values[1:2] or values for axis, values in quick.axes.items()}
    # Two arms, since all of them would be trained for minutes.
    ends = quick.arms[:1] + quick.arms[1:][-1:]
    scale = replace(TINY, arms=ends, axes=axes, kind=study.kind)
    two, one = (Run(study, "quick", scale, tmp_path / name) for name in ("two", "one"))
    records = _finished(two, workers=2)
    # One worker makes the reports only, and the stacks that these start from.
    with journal.Journal(one.folder) as chosen:
        chosen.append([record for record in records if record["role"] != "report"])
    assert measured(_finished(one, workers=1)) == measured(records)


def _finished(run, workers):
    with LocalExecutor(workers, run.logs) as executor:
        outcome = execute(run, run_cell, executor, workers)
    assert not outcome.failures
    records = journal.read(run.journal)
    assert plan(run.scale, records) == []
    return records


def _start(data, stack=None, arm="denoising", **fields):
    """The weights that a net starts from, by name, as arms that start from a stack differ."""
    own = replace(ARMS["random"], name="own", stack_of=ARMS[arm], **fields)
    asked = classification.ClassificationTrial(depth=2, width=12)
    model = train_module._started(asked, own, data, stack or {})
    return {v.path: keras.ops.convert_to_numpy(v) for v in model.weights}


def test_an_arm_starts_from_the_first_layers_of_a_stack_or_from_their_histogram():
    data = datasets.load("mnist", train_size=60, validation_size=40)
    initial = _start(data)
    stack = {k: w + 1 for k, w in initial.items() if not k.startswith("head")}
    whole, first = (_start(data, stack, pretrained_layers=n) for n in (None, 1))
    drawn = _start(data, stack, histogram=True)
    for name, weight in initial.items():
        kept = name.startswith("head")
        np.testing.assert_array_equal(whole[name], weight if kept else weight + 1)
        is_first = name.startswith("hidden_1")
        np.testing.assert_array_equal(first[name], weight + 1 if is_first else weight)
        if name.endswith("kernel") and not kept:
            assert np.isin(drawn[name], stack[name]).all()
            assert (drawn[name] != stack[name]).mean() > 0.9


def test_stages_are_pretrained_with_labels_at_the_cost_that_the_library_counts(tmp_path):
    from pretrain import greedy_pretrain

    objective = {"name": "SupervisedGreedy", "classes": 10}
    own = replace(ARMS["random"], name="own", objective=objective)
    asked = replace(trial("random", "pretraining", learning_rate=1.0), arm="own", epochs=3)
    (result,) = run_cell(Cell((asked,), own, classification.KIND), tmp_path)
    (loss, _), baseline = result["curves"]["loss"], result["curves"]["baseline"]
    assert loss[-1] < loss[0] < 1.5 * baseline[0] == pytest.approx(1.5 * np.log(10), rel=0.05)
    model = networks.mlp((784,), 10, depth=2, units=12)
    x, y = np.random.RandomState(0).uniform(size=(60, 784)), np.arange(60) % 10
    report = greedy_pretrain(
        model, x, objectives.from_config(objective), y=y, epochs=3, batch_size=20
    )
    assert result["flops"] == sum(stage.flops for stage in report.stages)


def test_the_nll_of_a_net_with_a_penalty_does_not_hold_the_penalty(tmp_path):
    config = {"class_name": "L2", "config": {"l2": 1.0}}
    own = replace(ARMS["random"], name="own", regularizer=config)
    # A step that is too small to change anything: chance is all that the net can do.
    asked = replace(trial("random", "report", learning_rate=1e-9), arm="own", epochs=1)
    (result,) = run_cell(Cell((asked,), own, classification.KIND), tmp_path)
    for name in ("train_nll", "validation_nll", "test_nll"):
        assert result[name] == pytest.approx(np.log(10), rel=0.1)


def test_a_commit_is_marked_only_if_source_was_changed(tmp_path, monkeypatch):
    source, records = tmp_path / "studies" / "worker.py", tmp_path / "results" / "records.jsonl"
    for path in (source, records):
        path.parent.mkdir()
        path.write_text("1\n")
    identity = ["-c", "user.name=N", "-c", "user.email=n@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "First"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(worker, "__file__", str(source))
    monkeypatch.setattr(worker, "_roots", lambda: [source.parent])
    commit = worker._commit()
    records.write_text("2\n")
    assert worker._commit() == commit and not commit.endswith("-dirty")
    source.write_text("2\n")
    assert worker._commit() == f"{commit}-dirty"
