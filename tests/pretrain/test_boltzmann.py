import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, sequential, sigmoid
from scipy.special import logsumexp, softmax

from pretrain import RestrictedBoltzmannMachine, backend, greedy_pretrain, split_stages

VISIBLE, HIDDEN = 6, 4
STATES = np.array(list(itertools.product([0.0, 1.0], repeat=VISIBLE)), "float32")
HIDDEN_STATES = np.array(list(itertools.product([0.0, 1.0], repeat=HIDDEN)), "float32")


def patterns(n=60, seed=0):
    """Binary examples of few kinds, with a little noise."""
    generator = np.random.default_rng(seed)
    kinds = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    x = kinds[generator.integers(0, 3, n)]
    return np.abs(x - (generator.random(x.shape) < 0.05)).astype("float32")


def machine(visible="binary", **options):
    model = sequential((VISIBLE,), layers.Dense(HIDDEN, activation="sigmoid"), layers.Dense(2))
    objective = RestrictedBoltzmannMachine(visible=visible, **options)
    learner = objective.build(split_stages(model)[0], seed=0)
    learner.decoder.layers[0].bias.assign(np.linspace(-0.5, 0.5, VISIBLE))
    return model, objective, learner


def key(seed):
    return ops.convert_to_tensor(np.array([seed, 0], "int32"))


def parameters(learner):
    dense = learner.stage.projection.operation
    return [array(v) for v in (dense.kernel, dense.bias, learner.decoder.layers[0].bias)]


def energy(learner, v, h):
    """E(v, h) of binary units, every v with every h."""
    w, c, b = parameters(learner)
    return -(v @ b)[:, None] - (h @ c)[None] - v @ w @ h.T


def log_likelihood(w, c, b, x):
    """Mean log p(x), by enumeration of all states of the visible units."""

    def unnormalized(v):
        return v @ b + np.logaddexp(0, c + v @ w).sum(1)

    return (unnormalized(x) - logsumexp(unnormalized(STATES))).mean()


def exact_gradient(w, c, b, x):
    """Of minus the mean log-likelihood, by kernel, hidden and visible bias."""

    def expectations(v, p):
        h = sigmoid(c + v @ w)
        return [(v * p[:, None]).T @ h, p @ h, p @ v]

    unnormalized = STATES @ b + np.logaddexp(0, c + STATES @ w).sum(1)
    data = expectations(x, np.full(len(x), 1 / len(x)))
    model = expectations(STATES, softmax(unnormalized))
    return [m - d for m, d in zip(model, data, strict=True)]


def test_free_energy_sums_over_the_hidden_states():
    _, _, learner = machine()
    expected = -logsumexp(-energy(learner, STATES, HIDDEN_STATES), axis=1)
    np.testing.assert_allclose(array(learner.free_energy(STATES)), expected, rtol=1e-5)


def test_free_energy_of_gaussian_units_sums_over_the_hidden_states():
    _, _, learner = machine("gaussian")
    v = np.random.default_rng(0).normal(size=(5, VISIBLE)).astype("float32")
    w, c, b = parameters(learner)
    square = ((v - b) ** 2).sum(1)[:, None] / 2
    expected = -logsumexp(-(square - HIDDEN_STATES @ c - v @ w @ HIDDEN_STATES.T), axis=1)
    np.testing.assert_allclose(array(learner.free_energy(v)), expected, rtol=1e-5)


def test_many_gibbs_steps_sample_from_the_model():
    _, _, learner = machine(k=20)
    start = np.zeros((20_000, VISIBLE), "float32")
    end = array(learner.gibbs(ops.convert_to_tensor(start), np.array([3, 1], "int32")))
    counts = np.array([(end == state).all(1).mean() for state in STATES])
    probabilities = np.exp(-array(learner.free_energy(STATES)))
    probabilities /= probabilities.sum()
    # Five standard errors.
    assert (np.abs(counts - probabilities) < 5 * np.sqrt(probabilities / len(start)) + 1e-4).all()


def test_gaussian_units_are_sampled_with_variance_one():
    _, _, learner = machine("gaussian", k=1)
    start = ops.zeros((20_000, VISIBLE))
    end = array(learner.gibbs(start, np.array([3, 1], "int32")))
    w, c, b = parameters(learner)
    p = sigmoid(c)
    mean, variance = b + p @ w.T, 1 + (p * (1 - p)) @ (w**2).T
    np.testing.assert_allclose(end.mean(0), mean, atol=5 * np.sqrt(variance.max() / len(end)))
    np.testing.assert_allclose(end.var(0), variance, rtol=0.06)


def test_the_gradient_of_many_gibbs_steps_is_the_exact_one():
    _, objective, learner = machine(k=20)
    x = np.tile(patterns(50), (400, 1))
    trained = [ops.convert_to_tensor(array(v)) for v in learner.trainable_variables]
    inputs = {"x": ops.convert_to_tensor(x), "key": key(5)}

    def loss(variables):
        outputs, _ = learner.stateless_call(variables, [], inputs, training=True)
        return objective.batch_loss(inputs["x"], None, outputs, None), None

    _, _, gradients = backend.value_and_gradients(loss, trained)
    expected = exact_gradient(*parameters(learner), x)
    for gradient, exact in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(array(gradient), exact, atol=0.02)
        assert np.abs(exact).max() > 0.1


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_the_likelihood_rises(persistent, k):
    keras.utils.set_random_seed(2)
    model = sequential((VISIBLE,), layers.Dense(HIDDEN, activation="sigmoid"), layers.Dense(2))
    x = patterns()
    objective = RestrictedBoltzmannMachine(k=k, persistent=persistent, chains=50)
    start = log_likelihood(*map(array, model.layers[0].weights), np.zeros(VISIBLE), x)
    optimizer = keras.optimizers.SGD(0.1)
    report = greedy_pretrain(model, x, objective, epochs=80, batch_size=20, optimizer=optimizer)
    bias = array(report.stages[0].decoders[0].layers[0].bias)
    end = log_likelihood(*map(array, model.layers[0].weights), bias, x)
    # Three kinds and their noise: about log 3 + 6 H(0.05) = 2.3 nats.
    assert start < -4
    assert end > -3.2


def test_the_free_energy_gap_tells_over_fitting():
    x = (np.random.default_rng(0).random((1200, 12)) < 0.5).astype("float32")
    gaps = []
    for n, epochs in ((20, 400), (1000, 8)):
        model = sequential((12,), layers.Dense(40, activation="sigmoid"), layers.Dense(2))
        history = greedy_pretrain(
            model,
            x[:n],
            RestrictedBoltzmannMachine(),
            epochs=epochs,
            batch_size=20,
            optimizer=keras.optimizers.SGD(0.1),
            validation_data=(x[1000:],),
        ).history
        gaps.append((history["val_free_energy"] - history["free_energy"]).iloc[-5:].mean())
    assert gaps[0] > 1.5
    assert abs(gaps[1]) < 0.5


def test_chains_go_on():
    _, objective, learner = machine(persistent=True, chains=7)
    inputs = {"x": ops.zeros((3, VISIBLE)), "key": key(1)}
    state = [array(v).copy() for v in learner.non_trainable_variables]
    assert state[0].shape == (7, VISIBLE)
    trained = [v.value for v in learner.trainable_variables]
    outputs, moved = learner.stateless_call(trained, state, inputs, training=True)
    expected = learner.gibbs(ops.convert_to_tensor(state[0]), inputs["key"])
    np.testing.assert_array_equal(array(moved[0]), array(expected))
    np.testing.assert_allclose(
        array(outputs["free_energy_of_chains"]),
        np.full(3, array(learner.free_energy(expected)).mean()),
        rtol=1e-5,
    )
    _, still = learner.stateless_call(trained, state, inputs, training=False)
    np.testing.assert_array_equal(array(still[0]), state[0])


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Dense(4, activation="relu")],
        [layers.Dense(4), layers.BatchNormalization(), layers.Activation("sigmoid")],
        [layers.Reshape((3, 2)), layers.Conv1D(4, 2, activation="sigmoid"), layers.Flatten()],
    ],
)
def test_stages_without_sigmoid_units_are_refused(stack):
    model = sequential((VISIBLE,), *stack, layers.Dense(2))
    with pytest.raises(ValueError, match="one Dense layer of sigmoid units. Received: stage"):
        greedy_pretrain(model, patterns(), RestrictedBoltzmannMachine(), epochs=1)


def test_dropout_and_a_separate_sigmoid_fit():
    stack = [layers.Dense(4), layers.Activation("sigmoid"), layers.Dropout(0.5)]
    model = sequential((2, 3), layers.Flatten(), *stack, layers.Dense(2))
    report = greedy_pretrain(
        model, patterns().reshape(-1, 2, 3), RestrictedBoltzmannMachine(), epochs=2, batch_size=20
    )
    assert np.isfinite(report.history["loss"]).all()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: RestrictedBoltzmannMachine(k=0), "`k` must be an integer.*Received: k=0"),
        (lambda: RestrictedBoltzmannMachine(chains=1.5), "`chains`.*Received: chains=1.5"),
        (lambda: RestrictedBoltzmannMachine(persistent=2), "`persistent`.*persistent=2"),
        (lambda: RestrictedBoltzmannMachine(visible="real"), "`visible`.*visible='real'"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
