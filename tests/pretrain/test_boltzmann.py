import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, sequential, sigmoid
from scipy.special import logsumexp, softmax

from pretrain import (
    Population,
    RestrictedBoltzmannMachine,
    backend,
    greedy_pretrain,
    split_stages,
    unroll,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

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
    visible_units = learner.decoder.layers[0]
    visible_units.bias.assign(np.linspace(-0.5, 0.5, VISIBLE))
    if objective.learned_variance:
        visible_units.log_variance.assign(np.linspace(-1, 0.5, VISIBLE))
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


def gradients(objective, learner, x):
    """Of a step's loss, by kernel, both biases, and the log-variance if it is learned."""
    trained = [ops.convert_to_tensor(array(v)) for v in learner.trainable_variables]
    inputs = {"x": ops.convert_to_tensor(x), "key": key(5)}

    def loss(variables):
        outputs, _ = learner.stateless_call(variables, [], inputs, training=True)
        return objective.batch_loss(inputs["x"], None, outputs, None), None

    return [array(g) for g in backend.value_and_gradients(loss, trained)[2]]


def test_the_gradient_of_many_gibbs_steps_is_the_exact_one():
    _, objective, learner = machine(k=20)
    x = np.tile(patterns(50), (400, 1))
    expected = exact_gradient(*parameters(learner), x)
    for gradient, exact in zip(gradients(objective, learner, x), expected, strict=True):
        np.testing.assert_allclose(gradient, exact, atol=0.02)
        assert np.abs(exact).max() > 0.1


# Gaussian units of learned variance

LEARNED = {"visible": "gaussian", "learned_variance": True}


def learned_parameters(learner):
    return [*parameters(learner), array(learner.decoder.layers[0].log_variance)]


def gaussian_energy(w, c, b, z, v):
    """E(v, h) of Gaussian units of variances exp(z), every v with every state of the hidden."""
    square = ((v - b) ** 2 / (2 * np.exp(z))).sum(1)
    return square[:, None] - HIDDEN_STATES @ c - v @ w @ HIDDEN_STATES.T


def gaussian_log_likelihood(w, c, b, z, x):
    """Mean log p(x): a sum over the states of the hidden units, and integrals over the visible."""
    m = HIDDEN_STATES @ w.T
    integrals = (np.log(2 * np.pi * np.exp(z)) / 2 + b * m + np.exp(z) * m**2 / 2).sum(1)
    unnormalized = logsumexp(-gaussian_energy(w, c, b, z, x), axis=1)
    return unnormalized.mean() - logsumexp(HIDDEN_STATES @ c + integrals)


def differences(function, arrays, step=1e-5):
    """The derivatives of a function of arrays by each of their elements."""
    arrays = [np.array(a, "float64") for a in arrays]
    slopes = [np.zeros_like(a) for a in arrays]
    for a, slope in zip(arrays, slopes, strict=True):
        for place in np.ndindex(a.shape):
            middle, ends = a[place], []
            for sign in (1, -1):
                a[place] = middle + sign * step
                ends.append(function(*arrays))
            a[place] = middle
            slope[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def test_free_energy_and_means_of_a_learned_variance():
    _, _, learner = machine(**LEARNED)
    v = np.random.default_rng(0).normal(size=(5, VISIBLE)).astype("float32")
    w, c, b, z = learned_parameters(learner)
    expected = -logsumexp(-gaussian_energy(w, c, b, z, v), axis=1)
    np.testing.assert_allclose(array(learner.free_energy(v)), expected, rtol=1e-5)
    means = array(learner.decoder(HIDDEN_STATES))
    np.testing.assert_allclose(means, b + np.exp(z) * (HIDDEN_STATES @ w.T), rtol=1e-4, atol=1e-6)


def test_units_are_sampled_with_their_learned_variance():
    _, _, learner = machine(k=1, **LEARNED)
    end = array(learner.gibbs(ops.zeros((20_000, VISIBLE)), key(3)))
    w, c, b, z = learned_parameters(learner)
    p, s = sigmoid(c), np.exp(z)
    mean, variance = b + s * (p @ w.T), s + s**2 * ((p * (1 - p)) @ (w**2).T)
    np.testing.assert_allclose(end.mean(0), mean, atol=5 * np.sqrt(variance.max() / len(end)))
    np.testing.assert_allclose(end.var(0), variance, rtol=0.06)


def test_the_gradient_with_a_learned_variance_is_that_of_the_exact_likelihood():
    _, objective, learner = machine(k=20, **LEARNED)
    x = np.random.default_rng(0).normal(size=(40, VISIBLE)).astype("float32")
    own = learned_parameters(learner)
    expected = differences(lambda *arrays: -gaussian_log_likelihood(*arrays, x), own)
    found = gradients(objective, learner, np.tile(x, (500, 1)))
    for gradient, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, exact, atol=0.03)
        assert np.abs(exact).max() > 0.1


def test_a_stack_learns_variances_and_is_unrolled_and_saved(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, VISIBLE)).astype("float32")
    x *= np.array([0.3, 0.3, 0.3, 2, 2, 2], "float32")

    def build(seed):
        hidden = [layers.Dense(n, activation="sigmoid") for n in (HIDDEN, 3)]
        return sequential((VISIBLE,), *hidden, layers.Dense(2))

    population = Population(build, seeds=(1, 2))
    objectives = [
        RestrictedBoltzmannMachine(**LEARNED),
        RestrictedBoltzmannMachine(persistent=True, chains=7),
    ]
    options = {"epochs": 30, "batch_size": 20, "learning_rate": 0.03}
    report = greedy_pretrain(population, x, objectives, verbose=0, **options)
    for decoder in report.stages[0].decoders:
        z = array(decoder.layers[0].log_variance)
        assert z[:3].max() < -0.3 < 0.3 < z[3:].min()
    model, (below, above) = population.member(1), [t.decoders[1] for t in report.stages]
    deep = unroll(model, report, member=1)
    codes = array(model.layers[1](model.layers[0](x)))
    np.testing.assert_allclose(deep.encode(x), codes, rtol=1e-5)
    expected = array(below(sigmoid(array(above(codes)))))
    np.testing.assert_allclose(deep.reconstruct(x), expected, rtol=1e-4, atol=1e-5)
    deep.save(tmp_path / "deep.keras")
    loaded = keras.saving.load_model(tmp_path / "deep.keras")
    np.testing.assert_allclose(loaded.reconstruct(x), expected, rtol=1e-4, atol=1e-5)


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
        (
            lambda: RestrictedBoltzmannMachine(learned_variance=True),
            "expected visible='gaussian'.*Received: visible='auto'",
        ),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
