import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, sequential, sigmoid, uniform
from scipy import integrate, stats

from pretrain import VariationalAutoencoder, greedy_pretrain, split_stages
from pretrain.objectives.autoencoder import Target
from pretrain.objectives.objective import Moments
from pretrain.objectives.variational import gaussian_divergence, importance_weighted_bound

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

FEATURES, LATENT = 6, 2
KEY = np.array([1, 2], "int32")


def trained(objective, x, optimizer="adam"):
    model = sequential((FEATURES,), layers.Dense(8, activation="tanh"), layers.Dense(2))
    report = greedy_pretrain(model, x, objective, epochs=30, batch_size=20, optimizer=optimizer)
    (stage,) = report.stages
    code = array(model.layers[0](x))
    return report, code, stage.heads[0], stage.decoders[0]


def examples(n=200):
    """Two factors behind six features, all in [0, 1]."""
    factors = np.random.default_rng(0).normal(size=(n, 2))
    mixing = np.random.default_rng(1).normal(size=(2, FEATURES))
    return sigmoid(2 * factors @ mixing).astype("float32")


def test_the_divergence_equals_numerical_integration():
    mean, log_variance = np.array([[0.7, -1.2]]), np.array([[0.5, -1.0]])
    grid = np.linspace(-15, 15, 20_001)
    expected = 0
    for m, v in zip(mean[0], np.exp(log_variance[0]), strict=True):
        q = stats.norm(m, np.sqrt(v))
        density = q.pdf(grid) * (q.logpdf(grid) - stats.norm.logpdf(grid))
        expected += integrate.trapezoid(density, grid)
    found = gaussian_divergence(ops.convert_to_tensor(mean), ops.convert_to_tensor(log_variance))
    np.testing.assert_allclose(array(found), [expected], rtol=1e-5)
    zeros = ops.zeros((1, 3))
    assert array(gaussian_divergence(zeros, zeros)) == 0


@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_likelihoods_equal_scipy(output):
    objective = VariationalAutoencoder(output=output, stddev=0.3)
    x, z = uniform(4, 3, 2), uniform(4, 3, 2, seed=2) - 0.5
    if output == "bernoulli":
        p = sigmoid(z.astype("float64"))
        expected = x * np.log(p) + (1 - x) * np.log(1 - p)
    else:
        expected = stats.norm(z, 0.3).logpdf(x)
    found = objective.negative_log_likelihood(Target(x), ops.convert_to_tensor(z))
    np.testing.assert_allclose(array(found), -expected.sum((1, 2)), rtol=1e-5)


def test_the_loss_is_the_bound():
    model = sequential((FEATURES,), layers.Dense(8, activation="tanh"), layers.Dense(2))
    objective = VariationalAutoencoder(latent=LATENT, beta=0.5, output="bernoulli")
    learner = objective.build(split_stages(model)[0], seed=0)
    x = ops.convert_to_tensor(examples(5))
    outputs = learner(objective.inputs(x, ops.convert_to_tensor(KEY)))
    loss, reconstruction, kl = map(array, objective.scores(x, None, outputs))
    np.testing.assert_allclose(loss, reconstruction + 0.5 * kl, rtol=1e-6)
    moments = array(learner.head(learner.stage(x)))
    np.testing.assert_array_equal(array(outputs["mean"]), moments[:, 0])
    np.testing.assert_array_equal(array(outputs["log_variance"]), moments[:, 1])


@pytest.mark.parametrize("output", ["bernoulli", "gaussian"])
def test_the_bound_lies_below_the_likelihood_and_grows_with_the_samples(output):
    objective = VariationalAutoencoder(latent=LATENT, output=output, stddev=0.2)
    x = examples()
    _, code, head, decoder = trained(objective, x)

    def bound(samples, seed=0):
        return importance_weighted_bound(
            objective, head, decoder, x, code, samples=samples, seed=seed
        ).mean()

    # log p(x), integrated over a grid of latent values.
    axis = np.linspace(-5, 5, 81)
    z = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2).astype("float32")
    outputs = array(decoder(z)).astype("float64")
    if output == "bernoulli":
        p = sigmoid(outputs)
        log_p = x @ np.log(p).T + (1 - x) @ np.log(1 - p).T
    else:
        log_p = stats.norm(outputs[None], 0.2).logpdf(x[:, None]).sum(-1)
    prior = stats.norm.logpdf(z).sum(1) + 2 * np.log(axis[1] - axis[0])
    likelihood = np.logaddexp.reduce(log_p + prior, axis=1).mean()
    lower = np.mean([bound(1, seed) for seed in range(20)])
    assert lower < bound(10) < likelihood + 0.02
    np.testing.assert_allclose(bound(300), likelihood, atol=0.1)


def test_the_bound_rises_and_beats_the_mean_input():
    x = examples()
    objective = VariationalAutoencoder(latent=LATENT, output="gaussian", stddev=0.1)
    report, *_ = trained(objective, x, keras.optimizers.Adam(0.01))
    losses = report.history["loss"].to_numpy()
    assert losses[-1] < losses[0]
    assert losses[-1] < report.stages[0].baseline[0]


def test_the_baseline_is_the_likelihood_of_the_mean_input():
    x = examples().astype("float64")
    moments = Moments(x.mean(0), (x**2).mean(0))
    objective = VariationalAutoencoder(output="gaussian", stddev=0.3)
    expected = -stats.norm(x.mean(0), 0.3).logpdf(x).sum(1).mean()
    assert objective.baseline(moments) == pytest.approx(expected)


def test_the_code_is_the_output_of_the_stage():
    x = examples()
    objective = VariationalAutoencoder(latent=LATENT)
    model = sequential((FEATURES,), layers.Dense(8, "tanh"), layers.Dense(4), layers.Dense(2))
    report = greedy_pretrain(model, x, objective, epochs=1, batch_size=20)
    assert [stage.heads[0].input_shape for stage in report.stages] == [(None, 8), (None, 4)]
    assert [stage.decoders[0].output_shape for stage in report.stages] == [(None, 6), (None, 8)]


def test_the_output_is_decided_by_what_produces_the_values():
    objective = VariationalAutoencoder()
    assert objective.decided(True).output == "bernoulli"
    assert objective.decided(False).output == "gaussian"
    assert VariationalAutoencoder(output="gaussian").decided(True).output == "gaussian"


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: VariationalAutoencoder(latent=0), "`latent` must be an integer.*latent=0"),
        (lambda: VariationalAutoencoder(beta=-1), "`beta` must be a number.*beta=-1"),
        (lambda: VariationalAutoencoder(stddev=0), "`stddev` must be a number above 0.*stddev=0"),
        (lambda: VariationalAutoencoder(output="normal"), "`output` must be one.*'normal'"),
        (
            lambda: importance_weighted_bound(VariationalAutoencoder(), None, None, [0], [0]),
            "`output` must be one of.*output='auto'",
        ),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
