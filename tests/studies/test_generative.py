"""Generative models and the measures of their samples, against what is known of them."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import logit, softmax

from pretrain import datasets
from pretrain.backend import value_and_gradients
from studies import generative as study
from studies.arms import Arm
from studies.engine.trial import Cell
from studies.kinds import generative
from studies.kinds.generative import GenerativeTrial, measures, models, train

ARMS = {arm.name: arm for arm in study.SCALES["standard"].arms}
TRIAL = GenerativeTrial(
    train_size=60,
    validation_size=40,
    test_size=50,
    width=16,
    latent=3,
    epochs=2,
    batch_size=20,
    learning_rate=0.001,
)
X = np.random.RandomState(0).random((7, 5)).astype("float32")


def load(trial):
    return datasets.load("mnist", trial.train_size, trial.validation_size, seed=trial.seed)


def layer(model, x=X):
    built = models.build(TRIAL, model, x.shape[1])
    # Biases of zero would hide an error in them.
    random = np.random.RandomState(1)
    for variable in built.trainable_variables:
        if "bias" in variable.path:
            variable.assign(random.normal(size=variable.shape))
    return built.get_layer("model")


def gradients(function, variables):
    value, _, found = value_and_gradients(
        lambda values: (_with(function, variables, values), None), [v.value for v in variables]
    )
    return [ops.convert_to_numpy(each) for each in found]


def _with(function, variables, values):
    with keras.StatelessScope(zip(variables, values, strict=True)):
        return function()


# Models


def test_the_gradient_of_a_critic_is_that_of_finite_differences():
    critic = layer("wgan_gp").discriminator
    found = ops.convert_to_numpy(critic.input_gradient(X))
    step = 1e-3
    for j in range(X.shape[1]):
        moved = step * np.eye(X.shape[1], dtype="float32")[j]
        change = ops.convert_to_numpy(critic(X + moved) - critic(X - moved))[:, 0]
        np.testing.assert_allclose(found[:, j], change / (2 * step), atol=2e-3)


def test_each_network_of_a_gan_learns_from_its_own_loss_alone():
    gan = layer("gan")
    gan._dropped = lambda x: x
    noise = np.random.RandomState(2).normal(size=(7, 3)).astype("float32")
    gan._normal = lambda like, units: noise
    discriminator = gan.discriminator.trainable_variables
    generator = gan.generator.trainable_variables

    def fake():
        return 2 * ops.sigmoid(gan.generator(noise)) - 1

    def judged():
        return ops.mean(
            ops.softplus(-gan.discriminator(2 * X - 1)) + ops.softplus(gan.discriminator(fake()))
        )

    def fooled():
        return ops.mean(ops.softplus(-gan.discriminator(fake())))

    whole = gradients(lambda: ops.mean(gan.call(X)), [*discriminator, *generator])
    expected = gradients(judged, discriminator) + gradients(fooled, generator)
    for ours, theirs in zip(whole, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_discriminator_drops_units_and_keeps_their_mean():
    dropped = ops.convert_to_numpy(layer("gan")._dropped(np.ones((200, 100), "float32")))
    assert (dropped == 0).mean() == pytest.approx(models._DROPPED, abs=0.02)
    assert dropped.mean() == pytest.approx(1, abs=0.02)


def test_the_loss_of_a_variational_autoencoder_is_the_negative_bound():
    vae = layer("vae")
    noise = np.random.RandomState(2).normal(size=(7, 3)).astype("float32")
    vae._normal = lambda like, units: noise
    mean, log_variance = np.split(ops.convert_to_numpy(vae.encoder(X)), 2, axis=1)
    code = mean + np.exp(log_variance / 2) * noise
    p = 1 / (1 + np.exp(-ops.convert_to_numpy(vae.decoder(code)).astype("float64")))
    likelihood = (X * np.log(p) + (1 - X) * np.log(1 - p)).sum(axis=1)
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    found = ops.convert_to_numpy(vae.call(X))[:, 0]
    np.testing.assert_allclose(found, divergence - likelihood, rtol=1e-4)


@pytest.mark.parametrize("name", ["autoencoder", "vae_mixture"])
def test_a_fitted_density_draws_latent_variables_like_the_codes_of_training_images(name):
    x = np.random.RandomState(3).random((400, 5)).astype("float32")
    fitted = layer(name, x)
    fitted.fit_codes(x, seed=0)
    codes = ops.convert_to_numpy(fitted.encoder(x))[:, :3]
    drawn = fitted.latents(20_000, seed=0)
    spread = codes.std(axis=0)
    np.testing.assert_allclose(drawn.mean(axis=0), codes.mean(axis=0), atol=0.1 * spread.max())
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(codes.T), atol=0.1 * spread.max() ** 2)


def test_a_diffusion_model_that_expects_either_of_two_images_makes_both():
    diffusion, kept = layer("diffusion"), models._kept()
    pair = 2 * X[:2] - 1

    def expected(network, noisy, time):
        """The mean of the two images, by their probabilities given the noisy image, as logits."""
        share = kept[np.asarray(time, int) + 1][:, None]
        squares = ((noisy[:, None] - share[:, None] ** 0.5 * pair) ** 2).sum(axis=-1)
        mean = softmax(-squares / (2 * (1 - share)), axis=1) @ pair
        return logit(np.clip((mean + 1) / 2, 1e-6, 1 - 1e-6)).astype("float32")

    diffusion._logits = expected
    made = diffusion.decode(diffusion.latents(100, seed=0))
    distances = np.abs(made[:, None] - X[:2]).max(axis=-1)
    assert (distances.min(axis=1) < 1e-3).all()
    assert 30 < (distances.argmin(axis=1) == 0).sum() < 70
    assert (np.diff(kept) < 0).all() and kept[0] == 1


def test_a_diffusion_model_makes_images_with_the_average_of_its_weights():
    diffusion = models.build(TRIAL, "diffusion", X.shape[1]).get_layer("model")
    start = diffusion.denoiser.get_weights()
    for step in (1, 2):
        diffusion.denoiser.set_weights([weight + step for weight in start])
        diffusion(X)
    expected = 0.001 * (0.999 * 1 + 2)
    for mean, weight in zip(diffusion.average.get_weights(), start, strict=True):
        np.testing.assert_allclose(mean, weight + expected, rtol=1e-5)
    z = diffusion.latents(3, seed=0)
    made = diffusion.decode(z)
    diffusion.denoiser.set_weights(start)
    np.testing.assert_array_equal(diffusion.decode(z), made)
    assert not diffusion.average.trainable_weights


@pytest.mark.parametrize("name", [name for name in ARMS if name != "real"])
def test_a_model_is_trained_judged_and_costs_as_much_as_others(name):
    arm = ARMS[name]
    (result,) = train.train(Cell((replace(TRIAL, arm=name),), arm, study.KIND), load)
    assert result["status"] == "done"
    assert result["frechet"] > 0 and 0 <= result["precision"] <= 1 and 0 <= result["recall"] <= 1
    assert result["arrays"]["samples"].shape == (50, 28, 28)
    scale = replace(study.SCALES["standard"], kind=study.KIND)
    costs = {
        each: study.KIND.flops(study.KIND.base(scale, ARMS[each], {}), ARMS[each], scale)
        for each in (name, "vae")
    }
    assert 1 <= costs[name] / costs["vae"] < 1.15
    (chosen,) = train.train(
        Cell((replace(TRIAL, arm=name, role="selection"),), arm, study.KIND), load
    )
    assert chosen["validation_frechet"] == pytest.approx(result["validation_frechet"])
    assert "frechet" not in chosen and "arrays" not in chosen


def test_the_classifier_that_judges_knows_the_classes():
    trial = replace(TRIAL, train_size=1_000, validation_size=500)
    judge, data = train._judge(load, trial), load(trial)
    named = judge.predict(data.validation[0], verbose=0).argmax(axis=1)
    assert (named == data.validation[1].ravel()).mean() > 0.8
    (real,) = train.train(
        Cell((replace(trial, arm="real", test_size=1_000),), ARMS["real"], study.KIND), load
    )
    assert real["classes_covered"] == 10


def test_training_images_are_nearer_to_test_images_than_an_untrained_model():
    (real,) = train.train(Cell((replace(TRIAL, arm="real"),), ARMS["real"], study.KIND), load)
    (made,) = train.train(Cell((replace(TRIAL, arm="gan"),), ARMS["gan"], study.KIND), load)
    assert real["frechet"] < made["frechet"]
    assert real["novelty"] == 0 < made["novelty"]


# Measures


def test_the_frechet_distance_of_normal_densities_is_known():
    random = np.random.RandomState(0)
    a, b = random.normal(size=(2, 40_000, 3))
    b = 2 * b + [1, 0, 2]
    assert measures.frechet(a, b) == pytest.approx(5 + 3 * (2 - 1) ** 2, rel=0.03)
    assert measures.frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_regions_hold_what_lies_in_them():
    random = np.random.RandomState(0)
    a = random.normal(size=(300, 2))
    assert measures.inside(a, a) == 1
    assert measures.inside(a + 100, a) == 0
    # A part of a region is precise and recalls a part.
    half = a[a[:, 0] > 0]
    assert measures.inside(half, a) == 1
    assert 0.4 < measures.inside(a, half) < 0.7


def test_classes_count_if_enough_samples_are_of_them():
    assert measures.covered(np.array([0] * 97 + [1] * 2 + [2]), 10, 0.02) == 2


def test_an_arm_without_a_model_is_refused():
    with pytest.raises(ValueError, match="Expected an arm that is a `Generator`"):
        replace(study.SCALES["quick"], kind=generative.KIND, arms=(Arm("own"),))
