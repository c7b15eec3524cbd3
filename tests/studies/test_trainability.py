"""What is watched while nets train, and the metrics that follow from it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from studies_synthetic import KINDS, diverged, small
from studies_synthetic import records as synthetic

from pretrain import datasets, networks
from studies.arms import Arm
from studies.engine.plan import plan
from studies.engine.scale import Scale
from studies.engine.worker import run_cell
from studies.kinds.trainability import GOAL
from studies.kinds.trainability.derive import drift, epochs_to
from studies.kinds.trainability.train import binary, hidden_inputs, lesions
from studies.report.frame import frame, reported

KIND = KINDS["trainability"]
SMALL = small(KIND)
NETS = (
    Arm("bare", activation="sigmoid", initializer="glorot_uniform"),
    Arm("normalized", activation="relu", initializer="he_normal", normalization="batch"),
    Arm("shortened", activation="relu", initializer="he_normal", shortcut="residual"),
)
TINY = Scale(
    arms=NETS,
    axes={"depth": (4,)},
    train_size=60,
    validation_size=40,
    test_size=50,
    epochs=2,
    learning_rates=(0.1, 0.3),
    selection_seeds=1,
    report_seeds=2,
    width=12,
    kind=KIND,
)


@pytest.fixture(scope="module")
def data():
    return datasets.load("mnist", 60, 40, seed=0)


# What is watched


def test_inputs_are_binary_at_one_half_and_labels_stay(data):
    found = binary(data)
    for part in ("train", "validation", "test"):
        (x, y), (gray, labels) = getattr(found, part), getattr(data, part)
        np.testing.assert_array_equal(x, np.where(gray > 0.5, 1.0, 0.0))
        np.testing.assert_array_equal(y, labels)


def relu(x):
    return np.maximum(x, 0)


def weights(model, i, x):
    layer = model.get_layer(f"hidden_{i}")
    return x @ np.array(layer.kernel) + np.array(layer.bias)


def test_what_goes_into_hidden_units_is_what_numpy_computes(data):
    x = data.train[0]
    model = networks.mlp((28, 28, 1), depth=2, units=7, activation="sigmoid", seed=0)
    model.get_layer("hidden_2").bias.assign(np.arange(7.0))
    first = weights(model, 1, x.reshape(len(x), -1))
    second = weights(model, 2, 1 / (1 + np.exp(-first)))
    found = list(hidden_inputs(model, x))
    np.testing.assert_allclose(found[0], first, atol=1e-5)
    np.testing.assert_allclose(found[1], second, atol=1e-5)
    (last,) = hidden_inputs(model, x, last=True)
    np.testing.assert_array_equal(last, found[1])


@pytest.mark.parametrize(("normalization", "axis"), [("batch", 0), ("layer", 1)])
def test_what_goes_into_a_normalized_unit_is_normalized(data, normalization, axis):
    x = data.train[0]
    model = networks.mlp((28, 28, 1), depth=1, units=7, normalization=normalization, seed=0)
    before = model.get_weights()
    (found,) = hidden_inputs(model, x)
    raw = x.reshape(len(x), -1) @ np.array(model.get_layer("hidden_1").kernel)
    mean, variance = raw.mean(axis, keepdims=True), raw.var(axis, keepdims=True)
    np.testing.assert_allclose(found, (raw - mean) / np.sqrt(variance + 1e-3), atol=1e-4)
    # To look at a net changes none of its moving averages.
    for was, is_now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, is_now)


def test_with_the_activation_first_the_first_layer_has_neither_bias_nor_activation(data):
    x = data.train[0]
    shape = {"depth": 2, "units": 7, "shortcut": "pre_activation", "normalization": "batch"}
    first, second = hidden_inputs(networks.mlp((28, 28, 1), **shape, seed=0), x)
    kernel = networks.mlp((28, 28, 1), **shape, seed=0).get_layer("hidden_1").kernel
    np.testing.assert_allclose(first, x.reshape(len(x), -1) @ np.array(kernel), atol=1e-4)
    mean, variance = first.mean(0), first.var(0)
    np.testing.assert_allclose(second, (first - mean) / np.sqrt(variance + 1e-3), atol=1e-4)


def test_a_lesion_of_a_residual_net_takes_away_what_a_layer_adds(data):
    x = np.random.RandomState(0).normal(size=(60, 28, 28, 1)).astype("float32")
    shape = {"depth": 4, "units": 9, "activation": "relu", "shortcut": "residual"}
    model = networks.mlp((28, 28, 1), **shape, seed=0)
    # Labels that the whole net names, so that lesions make errors.
    y = model(x).numpy().argmax(axis=1)
    head = model.get_layer("head")

    def error(removed):
        code = relu(weights(model, 1, x.reshape(len(x), -1)))
        for i in (2, 3, 4):
            code = code + (i not in removed) * relu(weights(model, i, code))
        scores = code @ np.array(head.kernel) + np.array(head.bias)
        return (scores.argmax(axis=1) != y).mean()

    found = lesions(model, data._replace(train=(x, y)))
    assert found["intact_error"] == error(()) == 0
    assert found["middle_third_error"] == error((3,))
    assert found["lesion_positions"] == [2 / 4, 3 / 4, 1]
    assert found["lesion_errors"] == [error((i,)) for i in (2, 3, 4)]
    assert max(found["lesion_errors"]) > 0


def test_reported_nets_are_watched_and_others_are_not(tmp_path):
    made = []
    while cells := plan(TINY, made):
        for cell in cells:
            results = run_cell(cell, tmp_path)
            made += [
                vars(t) | {"key": t.key} | r for t, r in zip(cell.trials, results, strict=True)
            ]
    report = [r for r in made if r["role"] == "report"]
    assert len(report) == len(NETS) * TINY.report_seeds
    for record in report:
        curves = record["curves"]
        assert np.shape(curves["hidden_input"]) == (TINY.epochs + 1, 3)
        for name in ("start_variances", "start_gradients", "useless"):
            assert np.shape(curves[name]) == (1, 4)
        assert np.shape(curves["lesion_errors"]) == (1, 3)
        assert len(curves["train_nll"]) == TINY.epochs
    others = [r for r in made if r["role"] != "report"]
    assert {"hidden_input", "lesion_errors"}.isdisjoint(n for r in others for n in r["curves"])
    results = reported(frame(made, TINY))
    names = ("final_train_nll", "updates", "usable_rates", "drift", "lesion", "variance_ratio")
    assert np.isfinite(results[list(names)].to_numpy(float)).all()


# What follows


def test_the_goal_is_reached_at_the_first_epoch_that_is_at_it():
    assert epochs_to(0.05, [0.3, 0.05, 0.02], 9) == 2
    assert epochs_to(0.05, [0.3, None], 9) == 9


def test_drift_is_the_way_of_the_percentiles_over_their_distance():
    # Each percentile goes 3 up and 1 down, and the outer ones are 2 apart.
    rows = np.array([-1, 0, 1]) + np.array([[0], [3], [2]])
    assert drift(rows.tolist()) == pytest.approx(4 / 2)
    assert drift((10 * rows).tolist()) == pytest.approx(4 / 2)
    assert math.isnan(drift([[0, 0, 0], [0, 0, 0]]))
    assert math.isnan(drift([[0, 1, None]]))
    assert math.isnan(drift([]))


def test_metrics_of_a_run_are_read_off_its_curves():
    rows = synthetic(SMALL)
    results = reported(frame(rows, SMALL)).set_index("key")
    for record in (r for r in rows if r["role"] == "report"):
        found, curves = results.loc[record["key"]], record["curves"]
        assert found["final_train_nll"] == curves["train_nll"][-1]
        assert found["lesion"] == pytest.approx(curves["middle_third_error"][0] - 0.02)
        assert found["variance_ratio"] == pytest.approx(0.9, rel=1e-3)
        assert found["highest_variance"] == curves["start_variances"][0][0]
        reached = np.flatnonzero(np.array(curves["validation_error"]) <= GOAL)
        epochs = reached[0] + 1 if len(reached) else record["epochs"]
        assert found["updates"] == epochs * (record["train_size"] // record["batch_size"])


def test_a_run_that_diverged_has_the_loss_of_guessing_and_never_reaches_the_goal():
    rows = [diverged(r, SMALL) if r["role"] == "report" else r for r in synthetic(SMALL)]
    results = reported(frame(rows, SMALL))
    assert results["final_train_nll"].to_numpy() == pytest.approx(math.log(10))
    updates = SMALL.epochs * (SMALL.train_size // SMALL.batch_size)
    assert (results["updates"] >= updates).all()
    assert results["lesion"].isna().all()


def test_usable_rates_are_those_of_the_selection_seeds_that_end_far_below_chance():
    errors = {0.01: 0.5, 0.03: 0.09, 0.1: 0.04, 0.3: 0.08, 1.0: 0.9}
    arms = (Arm("bare", activation="sigmoid"),)
    scale = replace(SMALL, arms=arms, only_at={}, learning_rates=tuple(errors), selection_seeds=2)

    def change(record):
        shift = (-1) ** record["seed"] * 0.005
        return {"validation_error": errors[record["learning_rate"]] + shift}

    found = reported(frame(synthetic(scale, change), scale))
    assert found["usable_rates"].to_numpy() == pytest.approx(10)
    none = reported(frame(synthetic(scale, lambda r: {"validation_error": GOAL + 0.01}), scale))
    assert (none["usable_rates"] == 1).all()
