import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops
from pretrain_helpers import array, digest, gaussian, uniform, values

import pretrain
from pretrain import Autoencoder, Population, greedy_pretrain, networks

# A partial batch would be a second update to compile: the tests that are about it have another n.
N, BATCH, EPOCHS = 48, 16, 3
PARTIAL = 8
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = {"loss": LOSS, "epochs": EPOCHS, "batch_size": BATCH}


def dense(units, seed, name, **options):
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return layers.Dense(units, kernel_initializer=initializer, name=name, **options)


def net(seed=0, activation="tanh", norm=True, dropout=0.0, **options):
    stack = [dense(7, seed + 10, "hidden", activation=activation, **options)]
    if norm:
        stack.append(layers.BatchNormalization(momentum=0.9, name="norm"))
    if dropout:
        stack.append(layers.Dropout(dropout, seed=seed, name="drop"))
    return keras.Sequential([keras.Input((6,)), *stack, dense(3, seed + 20, "head")])


@pytest.fixture
def x():
    return gaussian(N, 6)


@pytest.fixture
def y():
    return np.arange(N) % 3


def same(one, other):
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def close(one, other, rtol=1e-5, atol=1e-5):
    for a, b, variable in zip(values(one), values(other), one.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=variable.path)


# The order of examples, told by what is learned: the gradient of example i's weight is 1 where
# the example is in the batch, and the rate of each step is another.


class Positional(keras.optimizers.schedules.LearningRateSchedule):
    """Rates 1, 2, ... in the first epoch, times (steps + 1) to the power of the epoch."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        epoch = ops.floor(step / self.steps)
        return (step - epoch * self.steps + 1) * ops.power(self.steps + 1.0, epoch)

    def get_config(self):
        return {"steps": self.steps}


def batch_orders(seeds, n=N, batch_size=BATCH, epochs=EPOCHS, **options):
    """The step in which each example was seen, -1 if in none: (members, epochs, n)."""
    steps = n // batch_size if options.get("drop_remainder") else -(-n // batch_size)

    def build(seed):
        inputs = keras.Input((n,))
        output = layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
        return keras.Model(inputs, output)

    population = Population(build, seeds)
    population.fit(
        np.eye(n, dtype="float32"),
        np.zeros((n, 1)),
        loss=lambda y, outputs: -outputs.shape[0] * outputs,
        optimizer=keras.optimizers.SGD(Positional(steps)),
        batch_size=batch_size,
        epochs=epochs,
        **options,
    )
    found = []
    for i in range(len(seeds)):
        digits = np.rint(array(population.member(i).weights[0])[:, 0]).astype(int)
        powers = (steps + 1) ** np.arange(epochs)
        found.append(digits // powers[:, None] % (steps + 1) - 1)
    return np.array(found)


def batches_of_seed_5(n):
    """Batches of indices in the order in which a population of seed 5 sees them."""
    (seen,) = batch_orders([5], n)
    return [np.flatnonzero(epoch == step) for epoch in seen for step in range(-(-n // BATCH))]


@pytest.fixture(scope="module")
def order():
    return batches_of_seed_5(N)


def test_an_epoch_is_a_permutation_of_all_examples():
    n = N + PARTIAL
    for seen in batch_orders([5, 6, 5], n).reshape(-1, n):
        assert np.bincount(seen).tolist() == [*[BATCH] * (N // BATCH), PARTIAL]


def test_what_fills_no_batch_may_be_left_out():
    n = N + PARTIAL
    for seen in batch_orders([5, 6], n, drop_remainder=True).reshape(-1, n):
        assert np.bincount(seen + 1).tolist() == [PARTIAL, *[BATCH] * (N // BATCH)]


def test_a_batch_may_be_larger_than_the_data():
    assert (batch_orders([5], batch_size=N + 1) == 0).all()


def test_the_order_comes_from_the_seed_and_the_epoch():
    one, other, again = batch_orders([5, 6, 5])
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=1).all()
    assert (one[0] != one[1]).any() and (one[1] != one[2]).any()


# As Keras trains


def train_with_keras(model, order, x, y, optimizer, loss=LOSS, weight=None):
    """Plain Keras on the same batches; returns the mean loss of each epoch."""
    model.compile(optimizer, loss, run_eagerly=True)
    losses = []
    for rows in order:
        model.reset_metrics()
        w = None if weight is None else weight[rows]
        losses.append(float(model.train_on_batch(x[rows], y[rows], sample_weight=w)))
    return epoch_means(losses, order)


def epoch_means(values, order):
    """Means over each epoch, in which a batch counts by its size."""
    sizes = np.reshape([len(rows) for rows in order], (EPOCHS, -1))
    return np.average(np.reshape(values, (EPOCHS, -1)), axis=1, weights=sizes)


class InverseTime(keras.optimizers.schedules.InverseTimeDecay):
    """A schedule of the user's own."""


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.2),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.02),
    "amsgrad": lambda: keras.optimizers.Adam(0.02, amsgrad=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "adamw": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1),
    "nadam": lambda: keras.optimizers.Nadam(0.02),
    "clipnorm": lambda: keras.optimizers.SGD(0.5, clipnorm=0.05),
    "global clipnorm": lambda: keras.optimizers.Adam(0.02, global_clipnorm=0.05),
    "clipvalue": lambda: keras.optimizers.SGD(0.5, clipvalue=0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "lion": lambda: keras.optimizers.Lion(0.005),
    "adafactor": lambda: keras.optimizers.Adafactor(0.02),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.2, 2, 0.5)
    ),
    "own schedule": lambda: keras.optimizers.Adam(InverseTime(0.1, 2, 1.0)),
}


@pytest.mark.usefixtures("plain_graphs")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_equals_keras_for_every_optimizer(x, y, order, name):
    optimizer, model = OPTIMIZERS[name](), net(5)
    population = Population(net, [5])
    history = population.fit(x, y, optimizer=optimizer, **SETTINGS)
    losses = train_with_keras(model, order, x, y, OPTIMIZERS[name]())
    # Lion takes the sign of what may be 0 but for rounding.
    close(population.member(0), model, atol=1e-3 if name == "lion" else 1e-5)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)
    assert not optimizer.built


def test_fit_equals_keras_with_a_partial_batch():
    n = N + PARTIAL
    x, y, model = gaussian(n, 6), np.arange(n) % 3, net(5)
    population = Population(net, [5])
    history = population.fit(x, y, optimizer="sgd", learning_rate=0.2, **SETTINGS)
    losses = train_with_keras(model, batches_of_seed_5(n), x, y, keras.optimizers.SGD(0.2))
    close(population.member(0), model)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_regularizer": "l1", "bias_regularizer": keras.regularizers.L1L2(0.1, 0.2)},
        {"activity_regularizer": keras.regularizers.L2(0.01)},
        {"kernel_constraint": keras.constraints.MaxNorm(0.5)},
        {"kernel_constraint": "non_neg", "bias_constraint": "unit_norm"},
        {"norm": False, "activation": "relu"},
    ],
    ids=" ".join,
)
def test_fit_equals_keras_with_penalties_and_constraints(x, y, order, options):
    def build(seed):
        return net(seed, **options)

    population, model = Population(build, [5]), build(5)
    history = population.fit(x, y, optimizer="sgd", learning_rate=0.2, **SETTINGS)
    losses = train_with_keras(model, order, x, y, keras.optimizers.SGD(0.2))
    close(population.member(0), model)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)


def test_what_is_frozen_stays(x, y, order):
    def build(seed):
        model = net(seed)
        model.get_layer("hidden").trainable = False
        model.get_layer("norm").trainable = False
        return model

    population, model = Population(build, [5]), build(5)
    population.fit(x, y, learning_rate=0.2, **SETTINGS)
    train_with_keras(model, order, x, y, keras.optimizers.SGD(0.2))
    close(population.member(0), model)
    for name in ("hidden", "norm"):
        same(population.member(0).get_layer(name), build(5).get_layer(name))


def test_what_xla_cannot_compile_runs_without_it(x, y, order):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a matter of TensorFlow")

    class InPython(layers.Layer):
        def call(self, z):
            outputs = tf.py_function(tf.tanh, [z], z.dtype)
            return tf.ensure_shape(outputs, z.shape)

        def compute_output_shape(self, input_shape):
            return input_shape

    def build(seed):
        stack = [dense(7, seed + 10, "hidden"), InPython(), dense(3, seed + 20, "head")]
        return keras.Sequential([keras.Input((6,)), *stack])

    population, model = Population(build, [5]), net(5, norm=False)
    with pytest.warns(UserWarning, match="runs without XLA"):
        population.fit(x, y, learning_rate=0.1, **SETTINGS)
    train_with_keras(model, order, x, y, keras.optimizers.SGD(0.1))
    for one, other in zip(values(population.member(0)), values(model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def recurrent(seed):
    initializer = keras.initializers.GlorotUniform(seed=seed)
    recurrence = keras.initializers.Orthogonal(seed=seed)
    lstm = layers.LSTM(4, kernel_initializer=initializer, recurrent_initializer=recurrence, seed=1)
    return keras.Sequential([keras.Input((5, 2)), lstm, dense(3, seed, "head")])


def embedding(seed):
    embed = layers.Embedding(9, 4, embeddings_initializer=keras.initializers.RandomNormal(seed=1))
    stack = [embed, layers.Flatten(), dense(3, seed, "head")]
    return keras.Sequential([keras.Input((5,), dtype="int32"), *stack])


def convolution(seed):
    return networks.convnet((6, 6, 1), 3, depth=2, filters=3, normalization="batch", seed=seed)


KINDS = {
    "recurrent": (recurrent, gaussian(N, 5, 2)),
    "embedding": (embedding, np.random.default_rng(0).integers(0, 9, (N, 5))),
    "convolution": (convolution, gaussian(N, 6, 6, 1)),
    "residual": (
        lambda s: networks.mlp((6,), 3, units=5, shortcut="residual", seed=s),
        gaussian(N, 6),
    ),
    "skip_init": (
        lambda s: networks.mlp((6,), 3, units=5, shortcut="skip_init", seed=s),
        gaussian(N, 6),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fit_equals_keras_for_other_layers(y, order, kind):
    build, x = KINDS[kind]
    population, model = Population(build, [5]), build(5)
    history = population.fit(x, y, learning_rate=0.1, **SETTINGS)
    losses = train_with_keras(model, order, x, y, keras.optimizers.SGD(0.1))
    close(population.member(0), model, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)
    prediction = population.member(0).predict(x, verbose=0)
    np.testing.assert_allclose(population.predict(x)[0], prediction, rtol=1e-4, atol=1e-5)


LOSSES = {
    "smoothed": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    "by name": "mean_squared_error",
    "hinge": "categorical_hinge",
    "function": lambda y, z: ops.mean(ops.square(y - z) ** 2, axis=-1),
}


@pytest.mark.parametrize(
    "name, weighted",
    [
        ("smoothed", True),
        ("by name", False),
        ("by name", True),
        ("hinge", True),
        ("function", True),
    ],
)
def test_fit_equals_keras_for_other_losses(x, y, order, name, weighted):
    loss, targets = LOSSES[name], np.eye(3, dtype="float32")[y]
    weight = uniform(N) * 2 if weighted else None
    population, model = Population(net, [5]), net(5)
    settings = {**SETTINGS, "loss": loss, "learning_rate": 0.01}
    history = population.fit(x, targets, sample_weight=weight, **settings)
    losses = train_with_keras(model, order, x, targets, keras.optimizers.SGD(0.01), loss, weight)
    close(population.member(0), model)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-4)


def test_sparse_labels_may_stand_in_a_column(x, y):
    one, other = Population(net, [5]), Population(net, [5])
    first = one.fit(x, y, metrics=["accuracy"], **SETTINGS)
    second = other.fit(x, y[:, None], metrics=["accuracy"], **SETTINGS)
    close(one.member(0), other.member(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(first["accuracy"], second["accuracy"])


@pytest.mark.parametrize(
    "build, received",
    [
        (lambda: keras.optimizers.SGD(use_ema=True), "use_ema=True"),
        (lambda: keras.optimizers.Adam(gradient_accumulation_steps=2), "gradient_accumulation"),
        (lambda: keras.optimizers.SGD(loss_scale_factor=8.0), "loss_scale_factor=8.0"),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "LossScaleOptimizer"),
    ],
)
def test_optimizers_that_do_more_than_update_are_refused(x, y, build, received):
    population = Population(net, [5])
    with pytest.raises(ValueError, match=f"(?i)optimizer.*Received: .*{received}"):
        population.fit(x, y, optimizer=build(), **SETTINGS)
    same(population.member(0), net(5))


# Members


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_member_equals_the_same_model_alone(x, y, dropout):
    def build(seed):
        return net(seed, dropout=dropout)

    seeds = [3, 5, 8]
    together = Population(build, seeds)
    settings = {**SETTINGS, "metrics": ["accuracy"], "validation_data": (x[:20], y[:20])}
    history = together.fit(x, y, **settings)
    for i, seed in enumerate(seeds):
        alone = Population(build, [seed])
        own = alone.fit(x, y, **settings)
        same(together.member(i), alone.member(0))
        mine = history[history["member"] == i].drop(columns="member").reset_index(drop=True)
        pd.testing.assert_frame_equal(mine, own.drop(columns="member"), check_exact=True)


def test_members_may_share_a_seed_and_differ_in_rate(x, y):
    rates = [0.3, 0.01]
    population = Population(net, [5, 5])
    history = population.fit(x, y, learning_rate=rates, **SETTINGS)
    for i, rate in enumerate(rates):
        alone = Population(net, [5])
        alone.fit(x, y, learning_rate=rate, **SETTINGS)
        same(population.member(i), alone.member(0))
    assert history.groupby("member")["learning_rate"].unique().explode().tolist() == rates


def test_a_rate_overrides_that_of_the_optimizer(x, y):
    one, other, default = (Population(net, [5]) for _ in range(3))
    one.fit(x, y, optimizer=keras.optimizers.Adam(0.5), learning_rate=0.01, **SETTINGS)
    history = other.fit(x, y, optimizer=keras.optimizers.Adam(0.01), **SETTINGS)
    same(one.member(0), other.member(0))
    np.testing.assert_allclose(history["learning_rate"], 0.01, rtol=1e-6)
    assert default.fit(x, y, **SETTINGS)["learning_rate"].unique() == pytest.approx(0.01)


@pytest.mark.filterwarnings("ignore:(invalid|overflow)")
def test_a_diverging_member_leaves_the_others_alone(x, y):
    settings = {**SETTINGS, "loss": "mse", "epochs": 8}
    targets = np.eye(3, dtype="float32")[y]
    rates = [0.1, 1e6, 0.1]
    population = Population(lambda seed: net(seed, norm=False, activation=None), [3, 3, 8])
    history = population.fit(x, targets, learning_rate=rates, **settings)
    for i, seed in ((0, 3), (2, 8)):
        alone = Population(lambda seed: net(seed, norm=False, activation=None), [seed])
        alone.fit(x, targets, learning_rate=0.1, **settings)
        same(population.member(i), alone.member(0))
    finite = np.isfinite(history["loss"]).groupby(history["member"]).all()
    assert finite.tolist() == [True, False, True]


def test_members_with_different_seeds_draw_different_masks(x, y):
    def build(seed):
        model = net(0, dropout=0.5, norm=False)
        model.get_layer("drop").seed_generator.state.assign([seed, 7])
        return model

    # All examples in one batch: only the masks tell the members apart.
    settings = {**SETTINGS, "batch_size": N, "epochs": 1}
    population = Population(build, [1, 2, 1])
    population.fit(x, y, **settings)
    kernels = [array(population.member(i).get_layer("head").kernel) for i in range(3)]
    assert (kernels[0] != kernels[1]).any()
    np.testing.assert_allclose(kernels[0], kernels[2], rtol=1e-5, atol=1e-7)
    # Masks are fresh in every step.
    states = [array(population.member(0).get_layer("drop").seed_generator.state)]
    population.fit(x, y, **settings)
    states.append(array(population.member(0).get_layer("drop").seed_generator.state))
    assert (states[0] != states[1]).any()


def test_dropout_is_off_in_evaluation(x, y):
    dropping, plain = Population(lambda s: net(s, dropout=0.9), [5]), Population(net, [5])
    np.testing.assert_allclose(dropping.predict(x), plain.predict(x), rtol=1e-6)
    assert dropping.evaluate(x, y, loss=LOSS)["loss"][0] == pytest.approx(
        plain.evaluate(x, y, loss=LOSS)["loss"][0]
    )


def test_the_members_of_a_build_function_are_new_models(x, y):
    population = Population(net, [3, 5])
    same(population.member(1), net(5))
    population.fit(x, y, **SETTINGS)
    one, again = population.member(0), population.member(0)
    assert one is not again
    same(one, again)
    same(population.member(-1), population.member(1))
    np.testing.assert_allclose(
        one.predict(x, verbose=0), population.predict(x)[0], rtol=1e-5, atol=1e-6
    )


def test_the_members_of_models_are_these_models(x, y):
    models = [net(3), net(5)]
    before = [digest(model.variables) for model in models]
    population = Population.from_models(models)
    assert population.seeds == [0, 1]
    population.fit(x, y, **SETTINGS)
    assert [digest(model.variables) for model in models] == before
    assert population.member(1) is models[1]
    assert digest(models[0].variables) == before[0]
    assert digest(models[1].variables) != before[1]
    again = Population.from_models([net(3), net(5)], [0, 1])
    again.fit(x, y, **SETTINGS)
    same(models[1], again.member(1))


def test_training_goes_on_where_it_ended(x, y):
    population = Population(net, [3, 5])
    population.fit(x, y, **SETTINGS)
    continued = Population.from_models([population.member(0), population.member(1)], [3, 5])
    population.fit(x, y, **SETTINGS)
    continued.fit(x, y, **SETTINGS)
    same(population.member(1), continued.member(1))


def test_a_population_knows_itself():
    population = Population(net, range(3))
    assert len(population) == 3
    assert population.seeds == [0, 1, 2]
    assert "3 x sequential" in repr(population)
    assert "[0, 1, 2]" in repr(population)


def test_members_may_have_data_of_their_own(x, y):
    own = {"x": [x, x[::-1].copy()], "y": [y, y[::-1].copy()]}
    weights = [uniform(N), uniform(N, seed=3)]
    population = Population(net, [3, 5])
    validation = (own["x"], y)
    history = population.fit(
        *own.values(), sample_weight=weights, validation_data=validation, **SETTINGS
    )
    scores = population.evaluate(*own.values(), loss=LOSS, sample_weight=weights)
    outputs = population.predict(own["x"])
    for i, seed in enumerate([3, 5]):
        alone = Population(net, [seed])
        held_out = (own["x"][i], y)
        mine = (own["x"][i], own["y"][i])
        single = alone.fit(*mine, sample_weight=weights[i], validation_data=held_out, **SETTINGS)
        same(population.member(i), alone.member(0))
        together = history[history["member"] == i]
        assert together["val_loss"].tolist() == single["val_loss"].tolist()
        score = alone.evaluate(*mine, loss=LOSS, sample_weight=weights[i])
        assert scores["loss"][i] == score["loss"][0]
        np.testing.assert_array_equal(outputs[i], alone.predict(own["x"][i])[0])


# Evaluation


@pytest.mark.parametrize(
    "n, weighted", [(1, False), (7, True), (1000, False), (1001, False), (2300, True)]
)
def test_evaluation_equals_keras(n, weighted):
    x, y = gaussian(n, 6), np.arange(n) % 3
    weight = uniform(n) * 2 if weighted else None
    population = Population(lambda s: net(s, kernel_regularizer="l2"), [3, 5])
    scores = population.evaluate(x, y, loss=LOSS, metrics=["accuracy"], sample_weight=weight)
    outputs = population.predict(x)
    assert list(scores.columns) == ["member", "seed", "loss", "accuracy"]
    assert scores["seed"].tolist() == [3, 5]
    assert outputs.shape == (2, n, 3)
    for i in range(2):
        model = population.member(i)
        model.compile(loss=LOSS, metrics=["accuracy"], run_eagerly=True)
        expected = model.evaluate(
            x, y, sample_weight=weight, batch_size=n, verbose=0, return_dict=True
        )
        np.testing.assert_allclose(scores["loss"][i], expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(scores["accuracy"][i], expected["accuracy"], rtol=1e-5)
        prediction = model.predict(x, batch_size=n, verbose=0)
        np.testing.assert_allclose(outputs[i], prediction, rtol=1e-5, atol=1e-6)


def test_evaluation_changes_nothing(x, y):
    population = Population(lambda s: net(s, dropout=0.5), [5])
    population.evaluate(x, y, loss=LOSS)
    population.predict(x)
    same(population.member(0), net(5, dropout=0.5))


def top_two(y, outputs):
    return keras.metrics.sparse_top_k_categorical_accuracy(y, outputs, k=2)


METRICS = {
    "by name": ["accuracy", "sparse_categorical_crossentropy"],
    "instance": [keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")],
    "function": [top_two],
}


@pytest.mark.parametrize("kind", METRICS)
def test_metrics_equal_keras(x, y, kind):
    population = Population(net, [5])
    scores = population.evaluate(x, y, loss=LOSS, metrics=METRICS[kind])
    model = population.member(0)
    model.compile(loss=LOSS, metrics=METRICS[kind], run_eagerly=True)
    expected = model.evaluate(x, y, batch_size=N, verbose=0, return_dict=True)
    assert set(scores.columns) == {"member", "seed", *expected}
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name][0], value, rtol=1e-5)


@pytest.mark.parametrize(
    "loss, targets, name",
    [
        (LOSS, lambda y: y, "sparse_categorical_accuracy"),
        ("sparse_categorical_crossentropy", lambda y: y, "sparse_categorical_accuracy"),
        ("categorical_crossentropy", lambda y: np.eye(3)[y], "categorical_accuracy"),
        ("binary_crossentropy", lambda y: np.eye(3)[y], "categorical_accuracy"),
    ],
)
def test_accuracy_is_that_of_the_targets(x, y, loss, targets, name):
    population = Population(net, [5])
    scores = population.evaluate(x, targets(y), loss=loss, metrics=["accuracy", name])
    assert scores["accuracy"][0] == scores[name][0]
    assert 0 < scores["accuracy"][0] < 1


def test_the_history_is_a_row_for_each_member_and_epoch(x, y):
    population = Population(net, [3, 5])
    history = population.fit(
        x, y, metrics=["accuracy"], validation_data=(x[:20], y[:20]), **SETTINGS
    )
    assert list(history.columns) == [
        "member",
        "seed",
        "epoch",
        "learning_rate",
        "updates",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
    ]
    assert history["epoch"].tolist() == [1, 1, 2, 2, 3, 3]
    assert history["updates"].tolist() == [3, 3, 6, 6, 9, 9]
    assert history["member"].tolist() == [0, 1] * EPOCHS
    assert history["seed"].tolist() == [3, 5] * EPOCHS
    last = population.evaluate(x[:20], y[:20], loss=LOSS, metrics=["accuracy"])
    assert history["val_loss"].tolist()[-2:] == last["loss"].tolist()
    assert history["val_accuracy"].tolist()[-2:] == last["accuracy"].tolist()


def test_the_history_of_metrics_is_their_mean_over_examples(x, y, order):
    population, model = Population(net, [5]), net(5)
    history = population.fit(x, y, metrics=["accuracy"], **SETTINGS)
    model.compile(keras.optimizers.SGD(0.01), LOSS, metrics=["accuracy"], run_eagerly=True)
    seen = []
    for rows in order:
        model.reset_metrics()
        seen.append(model.train_on_batch(x[rows], y[rows], return_dict=True)["accuracy"])
    np.testing.assert_allclose(history["accuracy"], epoch_means(seen, order), rtol=1e-5)


def test_an_epoch_can_be_looked_at_in_the_loop(x, y):
    """After every epoch the caller finds what a training of so many epochs ends with."""
    settings = {**SETTINGS, "metrics": ["accuracy"], "validation_data": (x[:20], y[:20])}
    whole, watched = Population(net, [3, 5]), Population(net, [3, 5])
    history = whole.fit(x, y, **settings)
    numbers = []
    for epoch in watched.epochs(x, y, **settings):
        numbers.append(epoch.number)
        now = history[history["epoch"] == epoch.number]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_array_equal(epoch.scores[name], now[name])
        shorter = Population(net, [3, 5])
        shorter.fit(x, y, **{**settings, "epochs": epoch.number})
        scores = watched.evaluate(x[:20], y[:20], loss=LOSS)
        np.testing.assert_array_equal(scores["loss"], now["val_loss"])
        for i in range(2):
            same(watched.member(i), shorter.member(i))
    assert numbers == [1, 2, 3]
    for i in range(2):
        same(watched.member(i), whole.member(i))


def test_to_break_out_of_the_loop_is_early_stopping(x, y):
    stopped, short = Population(net, [3]), Population(net, [3])
    for epoch in stopped.epochs(x, y, **{**SETTINGS, "epochs": 50}):
        if epoch.number == 2:
            break
    short.fit(x, y, **{**SETTINGS, "epochs": 2})
    same(stopped.member(0), short.member(0))


def test_what_is_wrong_is_refused_before_the_loop_begins(x, y):
    with pytest.raises(ValueError, match="`epochs` must be.*Received: epochs=0"):
        Population(net, [3]).epochs(x, y, **{**SETTINGS, "epochs": 0})


def test_members_are_kept_as_they_were_at_their_best_epoch(x, y):
    population = Population(net, [3, 5])
    best, kept = pretrain.BestEpoch(population.members), []
    # The first is best in epoch 1, the second in epoch 2; a score that is no number never is.
    scores = {1: [1.0, np.nan], 2: [2.0, 1.0], 3: [np.nan, 1.0]}
    for epoch in population.epochs(x, y, **SETTINGS):
        kept.append([values(population.member(i)) for i in range(2)])
        best.update(np.array(scores[epoch.number]))
    lowest = population.with_members(best.members)
    for i, epoch in enumerate((1, 2)):
        for a, b in zip(values(lowest.member(i)), kept[epoch - 1][i], strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(values(population.member(i)), kept[-1][i], strict=True):
            np.testing.assert_array_equal(a, b)


def test_validation_does_not_change_the_training(x, y):
    one, other = Population(net, [5]), Population(net, [5])
    one.fit(x, y, **SETTINGS)
    other.fit(x, y, validation_data=(x[:20], y[:20]), **SETTINGS)
    same(one.member(0), other.member(0))


# One program for one architecture


class Calls:
    """Counts calls without attributes, which would be taken for constants of the activation."""

    __slots__ = ("count",)

    def __init__(self):
        self.count = 0


def counting(calls):
    """An activation that records when a program is made of it."""

    def activation(z):
        calls.count += 1
        return ops.tanh(z)

    return activation


@pytest.fixture
def traces(x, y):
    """How often programs are traced when a population is trained, evaluated and run."""
    calls = Calls()
    activation = counting(calls)

    def run(build, seeds, rate=0.1, **options):
        population = Population(lambda seed: build(seed, activation), seeds)
        calls.count = 0
        population.fit(x, y, learning_rate=rate, **{**SETTINGS, **options})
        population.evaluate(x, y, loss=LOSS)
        population.predict(x)
        return calls.count

    return run


def initialized(initializer):
    def build(seed, activation):
        hidden = layers.Dense(7, activation=activation, kernel_initializer=initializer)
        return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(3)])

    return build


def test_an_architecture_is_compiled_once(traces):
    build = initialized("glorot_uniform")
    assert traces(build, [1, 2]) > 0
    assert traces(build, [1, 2]) == 0
    assert traces(build, [7, 8, 9], rate=[0.1, 0.2, 0.3]) == 0
    assert traces(build, [7], optimizer=keras.optimizers.SGD(0.5)) == 0
    assert traces(initialized("he_normal"), [1]) == 0
    assert traces(initialized(lambda shape, dtype=None: ops.ones(shape, dtype)), [1]) == 0
    assert traces(build, [1], optimizer="adam") > 0


def test_pretraining_compiles_an_architecture_once(x):
    calls = Calls()
    activation = counting(calls)
    for objective in (None, Autoencoder(tied=True)):
        counts = []
        for seed in range(3):
            model = networks.mlp((6,), 3, depth=2, units=5, activation=activation, seed=seed)
            calls.count = 0
            greedy_pretrain(model, x, objective, epochs=1, batch_size=BATCH, seed=seed)
            counts.append(calls.count)
        # Of every model, the shapes of its two stages are traced.
        assert counts[0] > 2
        assert counts[1:] == [2, 2]


@pytest.mark.parametrize(
    "one, other",
    [("tanh", "relu"), (lambda z: z, lambda z: ops.tanh(z)), (lambda z: z + 1, lambda z: z + 2)],
)
def test_other_activations_are_other_programs(x, one, other):
    for activation in (one, other):
        population = Population(lambda s, a=activation: net(s, activation=a), [5])
        expected = population.member(0).predict(x, verbose=0)
        np.testing.assert_allclose(population.predict(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_other_constants_in_the_graph_are_other_programs():
    x = gaussian(4, 2000)
    for position in (500, 1000):
        constant = np.zeros(2000, "float32")
        constant[position] = 100.0
        inputs = keras.Input((2000,))
        outputs = layers.Dense(2)(inputs + constant)
        population = Population.from_models([keras.Model(inputs, outputs)])
        kernel = array(population.member(0).weights[0])
        expected = (x + constant) @ kernel
        np.testing.assert_allclose(population.predict(x)[0], expected, rtol=1e-3, atol=1e-2)


def normalized(mean):
    layer = layers.Normalization()
    layer.adapt(gaussian(50, 6, seed=1) + mean)
    return layer


@keras.saving.register_keras_serializable()
class Shift(layers.Layer):
    """A layer as users write them: `get_config` leaves out what the layer adds."""

    def __init__(self, shift):
        super().__init__()
        self._shift = shift

    def call(self, x):
        return x + sum(ops.sum(ops.cast(c, x.dtype)) for c in keras.tree.flatten(self._shift))

    def compute_output_shape(self, input_shape):
        return input_shape


class ShiftThroughAFunction(layers.Layer):
    def __init__(self, shift):
        super().__init__()
        self.shift = lambda x: x + shift.sum()

    def call(self, x):
        return self.shift(x)


def shifted_globally(x):
    return x + SHIFT.sum()


SHIFT = np.zeros(2000)


def through_a_global(position):
    globals()["SHIFT"] = constant(position)
    return layers.Lambda(shifted_globally)


def constant(position):
    return (np.full(2000, 1e-3) + (np.arange(2000) == 500) * position).astype("float32")


# By name, a function of a number to a layer, which has a constant that depends on the number.
CONSTANTS = {
    "adapted normalization": normalized,
    "given moments": lambda i: layers.Normalization(mean=np.full(6, 1.0 + i), variance=np.ones(6)),
    "attribute": lambda i: Shift(constant(i)),
    "attribute of tensors": lambda i: Shift(ops.convert_to_tensor(constant(i))),
    "attribute of arrays": lambda i: Shift([constant(i), constant(0)]),
    "attribute of a function": lambda i: ShiftThroughAFunction(constant(i)),
    "closure": lambda i: (lambda c: layers.Lambda(lambda x: x + c.sum()))(constant(i)),
    "global": through_a_global,
    "inside another layer": lambda i: layers.TimeDistributed(Shift(constant(i))),
}


def with_constant(name, i):
    shape = (2, 6) if name == "inside another layer" else (6,)
    model = keras.Sequential([keras.Input(shape), CONSTANTS[name](i), layers.Dense(3)])
    model.layers[-1].kernel.assign(np.linspace(-1, 1, 18).reshape(6, 3))
    return model


class Subclassed(keras.Model):
    """A model without a graph that applies the layers of a model."""

    def __init__(self, model):
        super().__init__()
        self.own = model.layers

    def call(self, x):
        for layer in self.own:
            x = layer(x)
        return x


@pytest.mark.parametrize("subclassed", [False, True])
@pytest.mark.parametrize("name", CONSTANTS)
def test_other_constants_of_operations_are_other_programs(name, subclassed):
    for i in range(3):
        model = with_constant(name, i % 2)
        x = gaussian(4, *model.input_shape[1:])
        model = Subclassed(model) if subclassed else model
        expected = array(model(x))
        np.testing.assert_allclose(
            Population.from_models([model]).predict(x)[0], expected, rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("subclassed", [False, True])
@pytest.mark.parametrize("name", CONSTANTS)
def test_members_with_other_constants_are_refused(name, subclassed):
    if name == "global":
        pytest.skip("of all members, a global is the last")
    models = [with_constant(name, i) for i in (0, 0, 1)]
    if subclassed:
        x = gaussian(4, *models[0].input_shape[1:])
        models = [Subclassed(model) for model in models]
        for model in models:
            model(x)
    assert len(Population.from_models(models[:2])) == 2
    with pytest.raises(ValueError, match="one architecture.*constants.*Received: "):
        Population.from_models(models[1:])


def test_a_model_that_is_adapted_again_runs_another_program():
    model = with_constant("adapted normalization", 1)
    population, x = Population.from_models([model]), gaussian(4, 6)
    for mean in (1, 7):
        model.layers[0].adapt(gaussian(50, 6, seed=2) + mean)
        np.testing.assert_allclose(population.predict(x)[0], array(model(x)), rtol=1e-4, atol=1e-4)


class Scaled(keras.losses.Loss):
    """A loss as users write them: without `get_config`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * ops.mean(ops.square(y_true - y_pred), axis=-1)


def test_other_losses_are_other_programs(x, y):
    targets = np.eye(3, dtype="float32")[y]
    population = Population(net, [5])
    one, two = (population.evaluate(x, targets, loss=Scaled(f))["loss"][0] for f in (1.0, 2.0))
    assert two == pytest.approx(2 * one)


class Penalty(keras.regularizers.Regularizer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, weights):
        return self.factor * ops.sum(ops.square(weights))

    def get_config(self):
        return {}


def test_other_penalties_are_other_programs(x, y):
    losses = [
        Population(lambda s, f=f: net(s, kernel_regularizer=Penalty(f)), [5])
        .evaluate(x, y, loss=LOSS)["loss"]
        .item()
        for f in (0.0, 1.0, 2.0)
    ]
    assert losses[2] - losses[0] == pytest.approx(2 * (losses[1] - losses[0]), rel=1e-4)


def test_models_without_a_graph_are_trained_too(x, y):
    class Own(keras.Model):
        def __init__(self, seed):
            super().__init__()
            self.hidden = dense(7, seed + 10, "hidden", activation="tanh")
            self.head = dense(3, seed + 20, "head")

        def call(self, x):
            return self.head(self.hidden(x))

    def build(seed):
        model = Own(seed)
        model(np.zeros((1, 6), "float32"))
        return model

    one, other = Population(build, [3, 5]), Population(lambda s: net(s, norm=False), [3, 5])
    one.fit(x, y, **SETTINGS)
    other.fit(x, y, **SETTINGS)
    np.testing.assert_allclose(one.predict(x), other.predict(x), rtol=1e-4, atol=1e-5)


# Reproducibility


def test_one_seed_gives_one_result_to_the_bit(x, y):
    one, again = Population(net, [3, 5]), Population(net, [3, 5])
    first = one.fit(x, y, metrics=["accuracy"], **SETTINGS)
    keras.utils.set_random_seed(99)
    second = again.fit(x, y, metrics=["accuracy"], **SETTINGS)
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    for i in range(2):
        same(one.member(i), again.member(i))


@pytest.mark.parametrize("threads", ["1", "2", "nonsense"])
def test_the_number_of_threads_changes_nothing(x, y, monkeypatch, threads):
    one, other = Population(net, [3, 5, 8]), Population(net, [3, 5, 8])
    one.fit(x, y, **SETTINGS)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    other.fit(x, y, **SETTINGS)
    for i in range(3):
        same(one.member(i), other.member(i))


# Members as one vectorized call, as on an accelerator


def test_an_accelerator_has_a_name_and_a_processor_is_none(monkeypatch):
    assert pretrain.backend.accelerator() is None
    if keras.backend.backend() == "jax":
        monkeypatch.setattr(pretrain.backend, "on_processor", lambda: False)
        assert pretrain.backend.accelerator() == "cpu"


@pytest.fixture
def accelerated(monkeypatch):
    """Runs a function as on an accelerator, and as on a processor."""
    if keras.backend.backend() != "jax":
        pytest.skip("members are vectorized on JAX only")

    def both(function):
        results = []
        for value in (False, True):
            monkeypatch.setattr(pretrain.backend, "accelerated", lambda value=value: value)
            monkeypatch.setattr(pretrain.members, "_programs", type(pretrain.members._programs)())
            results.append(function())
        return results

    return both


def assert_close(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own_data", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_vectorized_members_are_trained_alike(accelerated, x, y, own_data, weighted):
    data = [x, x[::-1].copy(), x + 1] if own_data else x
    weight = uniform(N) if weighted else None

    def run():
        population = Population(net, [3, 5, 8])
        settings = {**SETTINGS, "learning_rate": [0.1, 0.2, 0.3], "sample_weight": weight}
        history = population.fit(data, y, validation_data=(data, y), **settings)
        scores = population.evaluate(data, y, loss=LOSS, metrics=["accuracy"])
        weights = [v for i in range(3) for v in values(population.member(i))]
        losses = history[["loss", "val_loss"]].to_numpy()
        return [losses, scores.to_numpy(), population.predict(data), *weights]

    assert_close(*accelerated(run))


@pytest.mark.parametrize("kind", ["convolution", "residual", "flattened"])
@pytest.mark.parametrize("objective", [None, Autoencoder(tied=True)], ids=str)
def test_vectorized_members_are_pretrained_alike(accelerated, kind, objective):
    # The first operation has no variables, and the examples are the same for all members.
    others = {"flattened": (lambda s: networks.mlp((2, 3), 3, seed=s), gaussian(N, 2, 3))}
    build, x = (KINDS | others)[kind]

    def run():
        population = Population(build, [3, 5])
        report = greedy_pretrain(
            population, x, objective, epochs=2, batch_size=BATCH, validation_data=x[:20]
        )
        weights = [v for i in range(2) for v in values(population.member(i))]
        decoders = [v for s in report.stages for d in s.decoders for v in values(d)]
        return [report.history[["loss", "val_loss"]].to_numpy(), *weights, *decoders]

    assert_close(*accelerated(run))


def test_a_model_with_several_outputs_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(1)(x)])
    population, inputs = Population.from_models([model]), np.zeros((4, 3))
    for call in (
        lambda: population.predict(inputs),
        lambda: population.fit(inputs, inputs, loss="mse"),
        lambda: population.evaluate(inputs, inputs, loss="mse"),
    ):
        with pytest.raises(ValueError, match="one output.*Received: a model with 2 outputs"):
            call()


def test_a_schedule_is_what_keras_does_with_its_callback(x, y):
    def halved(epoch, rate):
        return rate * 0.5**epoch

    scheduled, reference = Population(net, seeds=[3]), Population(net, seeds=[3])
    history = scheduled.fit(x, y, learning_rate=0.3, schedule=halved, verbose=0, **SETTINGS)
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: halved(epoch, 0.3))
    expected = reference.fit(x, y, learning_rate=0.3, callbacks=[callback], verbose=0, **SETTINGS)
    np.testing.assert_array_equal(history["loss"], expected["loss"])
    constant = Population(net, seeds=[3]).fit(x, y, learning_rate=0.3, verbose=0, **SETTINGS)
    assert history["loss"].iloc[-1] != constant["loss"].iloc[-1]


def test_each_member_has_its_own_rate_in_a_schedule(x, y):
    def falling(epoch, rate):
        return rate / (1 + epoch)

    both, alone = Population(net, seeds=[3, 4]), Population(net, seeds=[4])
    options = {"schedule": falling, "verbose": 0, **SETTINGS}
    history = both.fit(x, y, learning_rate=[0.3, 0.1], **options)
    expected = alone.fit(x, y, learning_rate=0.1, **options)
    np.testing.assert_array_equal(history.loc[history["seed"] == 4, "loss"], expected["loss"])


@pytest.mark.parametrize("optimizer", ["sgd", "scheduled"])
def test_a_schedule_that_cannot_be_followed_is_refused(x, y, optimizer):
    schedules = keras.optimizers.schedules
    own = keras.optimizers.SGD(schedules.ExponentialDecay(0.1, 10, 0.9))
    schedule = "cosine" if optimizer == "sgd" else lambda epoch, rate: rate
    options = {"optimizer": "sgd" if optimizer == "sgd" else own, "schedule": schedule}
    with pytest.raises(ValueError, match="`schedule` must be a function"):
        Population(net, seeds=[3]).fit(x, y, verbose=0, **options, **SETTINGS)
