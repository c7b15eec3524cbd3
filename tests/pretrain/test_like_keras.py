"""Losses, metrics, weights and batches of a population are those of Keras's `fit`."""

import keras
import numpy as np
import pytest
from keras import ops
from pretrain_helpers import gaussian, values

from pretrain import Population

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

N = 12
X = gaussian(N, 5)


def net(units):
    def build(seed):
        initializer = keras.initializers.GlorotUniform(seed=seed)
        dense = keras.layers.Dense(units, "sigmoid", kernel_initializer=initializer)
        return keras.Sequential([keras.Input((5,)), dense])

    return build


def squared(y, outputs):
    return ops.mean(ops.square(ops.cast(y, outputs.dtype) - outputs), axis=-1)


class Squared(keras.losses.Loss):
    def call(self, y, outputs):
        return squared(y, outputs)


class Scalar(keras.losses.Loss):
    def call(self, y, outputs):
        return ops.mean(squared(y, outputs))


BITS = (np.arange(N) % 3 == 0).astype("float32")
SEVERAL = gaussian(N, 3, seed=4)
LABELS = np.arange(N) % 3
SPARSE = "sparse_categorical_crossentropy"
# targets: (outputs, losses, metrics)
GRID = {
    "row": (BITS, 1, ["mse", keras.losses.MeanAbsoluteError, squared, Squared(), Scalar()]),
    "column": (BITS[:, None], 1, ["binary_crossentropy", squared, Squared()]),
    "integers": (BITS.astype(int), 1, ["mse", squared, Squared()]),
    "truth": (BITS.astype(bool), 1, ["binary_crossentropy", Squared()]),
    "several": (SEVERAL, 3, ["huber", keras.losses.CosineSimilarity(), squared, Squared()]),
    "labels": (LABELS, 3, [SPARSE, keras.losses.SparseCategoricalCrossentropy()]),
    "labels in a column": (
        LABELS[:, None],
        3,
        [SPARSE, keras.losses.sparse_categorical_crossentropy],
    ),
    "one-hot": (np.eye(3)[LABELS], 3, ["categorical_crossentropy", "crossentropy"]),
}
CASES = [(name, loss) for name, (_, _, losses) in GRID.items() for loss in losses]


def identity(value):
    """A name of a case that is the same in every process."""
    return value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)


@pytest.mark.parametrize("name, loss", CASES, ids=identity)
@pytest.mark.parametrize("weighted", [False, True])
def test_an_update_and_an_evaluation_are_those_of_keras(name, loss, weighted):
    targets, units, _ = GRID[name]
    weight = np.linspace(0.5, 2, N).astype("float32") if weighted else None
    population = Population(net(units), [0])
    model = population.member(0)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"], run_eagerly=True)
    # Keras leaves the targets of functions and subclasses as they are, and so compares (n,) with
    # (n, 1) number by number.
    wide = np.asarray(targets, "float32").reshape(N, -1) if units == 1 else targets
    options = {"sample_weight": weight, "batch_size": N, "verbose": 0}
    expected = model.evaluate(X, wide, return_dict=True, **options)
    scores = population.evaluate(X, targets, loss=loss, metrics=["accuracy"], sample_weight=weight)
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(scores[key][0], expected[key], rtol=1e-5)
    history = population.fit(X, targets, loss=loss, optimizer=keras.optimizers.SGD(0.5), **options)
    trained = model.fit(X, wide, **options)
    np.testing.assert_allclose(history["loss"], trained.history["loss"], rtol=1e-5)
    for one, other in zip(values(population.member(0)), values(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


# An instance counts what it sees in any model, so that each model needs one of its own.
METRICS = {
    "auc": (BITS, 1, lambda: "AUC"),
    "recall": (BITS[:, None], 1, lambda: keras.metrics.Recall(name="recall")),
    "precision": (BITS, 1, lambda: keras.metrics.Precision),
    "r2": (BITS, 1, lambda: "R2Score"),
    "f1": (np.eye(3)[LABELS], 3, lambda: keras.metrics.F1Score(average="macro")),
    "mean": (SEVERAL, 3, lambda: keras.metrics.MeanAbsoluteError()),
    "root": (SEVERAL, 3, lambda: keras.metrics.RootMeanSquaredError()),
    "function": (BITS, 1, lambda: squared),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_keras_over_all_examples(name):
    targets, units, metric = METRICS[name]
    population = Population(net(units), [0, 1])
    scores = population.evaluate(X, targets, loss="mse", metrics=[metric()])
    options = {"batch_size": 5, "learning_rate": 1e-9, "verbose": 0}
    history = population.fit(X, targets, loss="mse", metrics=[metric()], **options)
    for i in range(2):
        model = population.member(i)
        model.compile("sgd", "mse", metrics=[metric()], run_eagerly=True)
        wide = np.asarray(targets).reshape(N, -1)
        expected = model.evaluate(X, wide, batch_size=N, verbose=0, return_dict=True)
        expected.pop("loss")
        # An epoch that moves nothing sees, batch by batch, what an evaluation sees.
        for table in (scores, history):
            found = table.iloc[i, -1]
            np.testing.assert_allclose(found, *expected.values(), rtol=1e-5, atol=1e-6)


def test_an_evaluation_in_several_pieces_counts_every_example_once():
    x, y = gaussian(1003, 5), np.arange(1003) % 7.0
    population = Population(net(1), [0])
    scores = population.evaluate(x, y, loss=Scalar(), metrics=["mse"])
    np.testing.assert_allclose(
        scores["mse"], ((population.predict(x)[0, :, 0] - y) ** 2).mean(), 1e-5
    )
    np.testing.assert_allclose(scores["loss"], scores["mse"], rtol=1e-5)


@pytest.mark.parametrize(
    "targets", [LABELS, LABELS[:, None], np.eye(3)[LABELS]], ids=["flat", "column", "one-hot"]
)
def test_weights_of_classes_are_those_of_keras(targets):
    loss = SPARSE if targets.shape[-1] != 3 else "categorical_crossentropy"
    class_weight = {0: 2.0, 1: 0.5}
    population = Population(net(3), [0])
    model = population.member(0)
    model.compile(keras.optimizers.SGD(0.5), loss, run_eagerly=True)
    options = {"batch_size": N, "class_weight": class_weight, "verbose": 0}
    population.fit(X, targets, loss=loss, learning_rate=0.5, **options)
    model.fit(X, targets, **options)
    for one, other in zip(values(population.member(0)), values(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_share_of_the_examples_is_held_out_as_by_keras():
    population = Population(net(1), [0])
    model = population.member(0)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    options = {"validation_split": 0.3, "batch_size": N, "verbose": 0}
    history = population.fit(X, BITS, loss="mse", learning_rate=0.5, **options)
    expected = model.fit(X, BITS, **options).history
    for key in ("loss", "val_loss"):
        np.testing.assert_allclose(history[key], expected[key], rtol=1e-5)
