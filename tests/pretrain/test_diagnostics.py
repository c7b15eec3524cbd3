"""What the diagnoses say, against NumPy and finite differences."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from pretrain_helpers import (
    array,
    chain_model,
    gaussian,
    randomize,
    sequential,
    sigmoid,
    uniform,
    values,
)

from pretrain import Population, SupervisedGreedy, diagnostics, greedy_pretrain, networks, plots

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(seed=0):
    return networks.mlp((6,), 3, depth=2, units=[5, 4], activation="sigmoid", seed=seed)


def convnet():
    first = layers.Conv2D(3, 3, activation="tanh", name="conv")
    return sequential((5, 5, 2), first, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3))


def recurrent():
    first = layers.SimpleRNN(2, return_sequences=True)
    return sequential((4, 1), first, layers.GRU(2), layers.Dense(3))


def normalized():
    model = networks.mlp((6,), 3, depth=2, units=4, normalization="batch", seed=0)
    randomize(model)
    return model


# Activations


def test_percentiles_saturated_and_dead_units():
    model = sequential((6,), layers.Dense(4, "sigmoid", name="h"), layers.Dense(2, name="head"))
    kernel, bias = 9 * gaussian(6, 4), np.array([0, 0, 0, 200], "float32")
    model.layers[0].set_weights([kernel, bias])
    x = gaussian(50, 6, seed=2)
    table = diagnostics.activations(model, x, percentiles=(10, 50)).set_index("layer")
    codes = sigmoid(x.astype("float64") @ kernel + bias)
    np.testing.assert_allclose(table.loc["h", ["p10", "p50"]], np.percentile(codes, [10, 50]), 1e-4)
    expected = ((codes < 0.01) | (codes > 0.99)).mean()
    assert table.loc["h", "saturated"] == pytest.approx(expected)
    assert table.loc["h", "dead"] == 0.25
    assert np.isnan(table.loc["head", "saturated"])


def test_a_dead_filter_is_zero_at_every_place():
    model = sequential((5, 5, 1), layers.Conv2D(4, 3, activation="relu"), layers.Dense(1))
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel, np.array([-100, 5, 5, -100], "float32")])
    assert diagnostics.activations(model, uniform(9, 5, 5, 1))["dead"][0] == 0.5


def test_every_member_of_a_population_is_diagnosed_with_its_own_weights():
    population = Population(mlp, seeds=[3, 4])
    x, y = uniform(20, 6), np.arange(20) % 3
    for diagnosis in (
        diagnostics.activations,
        lambda model, x: diagnostics.gradients(model, x, y, loss=LOSS),
        lambda model, x: diagnostics.jacobians(model, x[:2]),
    ):
        table = diagnosis(population, x)
        assert list(table.columns[:3]) == ["layer", "member", "seed"]
        for i, seed in enumerate([3, 4]):
            found = table[table["member"] == i].drop(columns=["member", "seed"])
            pd.testing.assert_frame_equal(found.reset_index(drop=True), diagnosis(mlp(seed), x))


# Gradients


@pytest.mark.parametrize("build", [mlp, convnet, recurrent, normalized])
def test_gradients_are_those_of_finite_differences(build, float64):
    model = build()
    x, y = gaussian(4, *model.input_shape[1:]).astype("float64"), np.arange(4) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    before = values(model)
    table = diagnostics.gradients(model, x, y, loss=loss)
    for found, expected in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    slopes, step = [], 1e-6
    first = next(layer for layer in model.layers if layer.weights)
    for matrix in [v for v in first.trainable_variables if len(v.shape) > 1]:
        value = array(matrix).copy()
        for place in np.ndindex(*value.shape):
            moves = np.zeros(value.shape)
            moves[place] = step
            losses = []
            for moved in (value + moves, value - moves):
                matrix.assign(moved)
                losses.append(float(loss(y, model(x, training=True))))
            slopes.append((losses[0] - losses[1]) / (2 * step))
        matrix.assign(value)
    np.testing.assert_allclose(table["weights"][0], np.var(slopes), rtol=1e-5)


def test_gradients_of_a_small_network_by_hand():
    model, x, y = mlp(), gaussian(7, 6), np.arange(7) % 3
    table = diagnostics.gradients(model, x, y, loss=LOSS)
    kernels = [array(w) for w in model.weights if len(w.shape) > 1]
    first = sigmoid(x @ kernels[0])
    second = sigmoid(first @ kernels[1])
    exponentials = np.exp(second @ kernels[2])
    by_logits = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(3)[y]
    by_second = by_logits @ kernels[2].T
    by_first = (by_second * second * (1 - second)) @ kernels[1].T
    expected = [by_first.var(), by_second.var(), by_logits.var()]
    np.testing.assert_allclose(table["backpropagated"], expected, rtol=1e-4)
    by_kernel = x.T @ (by_first * first * (1 - first)) / len(x)
    np.testing.assert_allclose(table["weights"][0], by_kernel.var(), rtol=1e-4)


# Jacobians


@pytest.mark.parametrize("build", [mlp, convnet, recurrent, normalized])
def test_jacobians_are_those_of_finite_differences(build, float64):
    model = build()
    model(np.zeros((1, *model.input_shape[1:])))
    x = gaussian(2, *model.input_shape[1:]).astype("float64")
    first = diagnostics.jacobians(model, x).iloc[0]
    (stage, *_) = diagnostics.split_stages(model, head=0)
    step, singular = 1e-6, []
    for example in x:
        moves = step * np.eye(example.size).reshape(-1, *example.shape)
        ends = [array(stage(example + sign * moves, training=False)) for sign in (1, -1)]
        jacobian = ((ends[0] - ends[1]) / (2 * step)).reshape(example.size, -1)
        singular.append(np.linalg.svd(jacobian, compute_uv=False))
    singular = np.array(singular)
    expected = [singular[:, 0].mean(), singular.mean(), singular[:, -1].mean()]
    found = first[["largest", "mean", "smallest"]].astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_jacobian_in_parts_is_the_same(monkeypatch):
    model, x = mlp(), uniform(2, 6)
    whole = diagnostics.jacobians(model, x)
    monkeypatch.setattr(diagnostics, "_AT_ONCE", 12)
    pd.testing.assert_frame_equal(diagnostics.jacobians(model, x), whole)


def test_a_gigantic_jacobian_is_refused():
    model = sequential((100, 100, 1), layers.Conv2D(2, 3, name="large"), layers.Dense(1))
    with pytest.raises(ValueError, match=r"'large' from \(100, 100, 1\) to \(98, 98, 2\)"):
        diagnostics.jacobians(model, uniform(1, 100, 100, 1))


# Probes


def test_a_linear_probe_finds_what_a_layer_has_thrown_away():
    pytest.importorskip("sklearn")
    x = uniform(200, 6)
    y = (x[:, 0] > 0.5).astype(int)
    model = sequential((6,), layers.Dense(3, name="h"), layers.Dense(2, name="head"))
    kernel = np.zeros((6, 3), "float32")
    kernel[1:4] = np.eye(3)
    model.layers[0].set_weights([kernel, np.zeros(3)])
    table = diagnostics.linear_probes(model, (x[:100], y[:100]), (x[100:], y[100:]))
    assert table["layer"].tolist() == ["input", "h", "head"]
    errors = table.set_index("layer")["test_error"]
    assert errors["input"] < 0.1 < 0.3 < errors["h"]


# Models and epochs


def test_a_subclassed_model_is_diagnosed_by_its_named_layers():
    model, stages = chain_model(), [["first", "norm"], ["second"], ["out"]]
    table = diagnostics.activations(model, uniform(9, 6), stages=stages)
    assert table["layer"].tolist() == ["first", "second", "out"]
    expected = np.percentile(array(model(uniform(9, 6))), 50)
    assert table["p50"].iloc[-1] == pytest.approx(expected, rel=1e-4)


def test_a_population_is_followed_over_its_epochs():
    population, x, y = Population(mlp, seeds=[0, 1]), uniform(40, 6), np.arange(40) % 3
    loop = population.epochs(x, y, loss=LOSS, epochs=2, batch_size=10, learning_rate=0.5)
    table = diagnostics.follow(loop, lambda: diagnostics.activations(population, x))
    assert table.groupby("epoch").size().tolist() == [6, 6, 6]
    now = diagnostics.activations(population, x)
    last = table[table["epoch"] == 2].drop(columns="epoch").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, now)
    assert not np.allclose(table["p50"][:6], last["p50"])


def test_fit_of_keras_is_watched():
    model, x, y = mlp(), uniform(40, 6), np.arange(40) % 3
    watch = diagnostics.Watch(lambda: diagnostics.gradients(model, x, y, loss=LOSS))
    model.compile("sgd", LOSS)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[watch])
    assert watch.table["epoch"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    now = diagnostics.gradients(model, x, y, loss=LOSS)
    pd.testing.assert_frame_equal(watch.table[6:].drop(columns="epoch").reset_index(drop=True), now)


def test_greedy_pretraining_is_watched():
    model, x, y = mlp(), uniform(40, 6), np.arange(40) % 3
    watch = diagnostics.Watch(lambda: diagnostics.activations(model, x))
    options = {"y": y, "stages": 1, "batch_size": 10, "callbacks": [watch], "verbose": 0}
    greedy_pretrain(model, x, SupervisedGreedy(3), epochs=1, **options)
    last = watch.table[watch.table["epoch"] == 1].drop(columns="epoch").reset_index(drop=True)
    pd.testing.assert_frame_equal(last, diagnostics.activations(model, x))


@pytest.mark.parametrize("epochs", [False, True])
def test_a_figure_has_a_panel_for_each_quantity(epochs):
    table = diagnostics.activations(Population(mlp, seeds=[0, 1]), uniform(20, 6))
    if epochs:
        table = pd.concat([table.assign(epoch=0), table.assign(epoch=1)])
    axes = plots.plot_diagnosis(table)
    labels = [ax.get_ylabel() for ax in axes]
    assert labels[0].startswith("2nd percentile") or "percentile" in labels[0]
    assert len(axes) == 5
