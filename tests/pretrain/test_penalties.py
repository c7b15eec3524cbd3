"""The penalties and the emphasis of autoencoders, against formulas in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian, randomize, sequential, sigmoid, uniform

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Gaussian,
    Masking,
    PatchMasking,
    SaltAndPepper,
    SparseAutoencoder,
    greedy_pretrain,
    split_stages,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

KEY = np.array([3, 4], "int32")


def contraction(model, x, samples=None):
    """||J||_F^2 of the first stage, by a learner built for it."""
    learner = ContractiveAutoencoder(samples=samples).build(split_stages(model)[0], seed=0)
    inputs = {"x": ops.convert_to_tensor(x), "key": ops.convert_to_tensor(KEY)}
    return array(learner(inputs)["contraction"])


def numeric_contraction(model, x):
    """The same by finite differences, feature by feature."""
    stage = split_stages(model)[0]
    total, step = 0, 1e-4
    for place in np.ndindex(x.shape[1:]):
        moved = []
        for sign in (1, -1):
            y = x.astype("float64").copy()
            y[(slice(None), *place)] += sign * step
            moved.append(array(stage(ops.convert_to_tensor(y), training=False)))
        slopes = (moved[0] - moved[1]) / (2 * step)
        total = total + (slopes.reshape(len(x), -1) ** 2).sum(1)
    return total


# The contraction


def test_the_contraction_of_a_known_matrix():
    model = sequential((3,), layers.Dense(2), layers.Dense(2))
    w = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]], "float32")
    model.layers[0].kernel.assign(w)
    np.testing.assert_allclose(contraction(model, uniform(4, 3)), np.full(4, (w**2).sum()))


def test_the_contraction_of_sigmoid_units_is_that_of_the_paper():
    model = sequential((6,), layers.Dense(4, activation="sigmoid"), layers.Dense(2))
    x = uniform(5, 6)
    w, b = map(array, model.layers[0].weights)
    h = sigmoid(x @ w + b)
    expected = (h * (1 - h)) ** 2 @ (w**2).sum(0)
    np.testing.assert_allclose(contraction(model, x), expected, rtol=1e-5)


CLOSED = {
    "tanh": ((6,), [layers.Dense(4, activation="tanh")]),
    "separate activation": ((6,), [layers.Dense(4), layers.LeakyReLU(), layers.Dropout(0.5)]),
    "no bias": ((6,), [layers.Dense(4, activation="softplus", use_bias=False)]),
    "each step": ((5, 3), [layers.Dense(4, activation="sigmoid"), layers.Flatten()]),
}
OPEN = {
    "softmax": ((6,), [layers.Dense(4, activation="softmax")]),
    "batch normalization": (
        (6,),
        [layers.Dense(4), layers.BatchNormalization(), layers.Activation("tanh")],
    ),
    "convolution": (
        (5, 6, 2),
        [layers.Conv2D(3, 3, activation="tanh"), layers.AveragePooling2D(2), layers.Flatten()],
    ),
    "recurrent": ((4, 2), [layers.LSTM(3)]),
}


@pytest.mark.parametrize("kind", [*CLOSED, *OPEN])
def test_the_contraction_equals_finite_differences(float64, kind):
    shape, stack = (CLOSED | OPEN)[kind]
    stack = [type(layer).from_config({**layer.get_config(), "dtype": None}) for layer in stack]
    model = sequential(shape, *stack, layers.Dense(2))
    x = gaussian(3, *shape).astype("float64")
    np.testing.assert_allclose(contraction(model, x), numeric_contraction(model, x), rtol=1e-5)


@pytest.mark.parametrize("kind", ["convolution", "recurrent"])
def test_hutchinsons_estimate_is_unbiased(kind):
    shape, stack = OPEN[kind]
    stack = [type(layer).from_config(layer.get_config()) for layer in stack]
    model = sequential(shape, *stack, layers.Dense(2))
    x = np.repeat(gaussian(1, *shape), 4000, axis=0)
    exact = contraction(model, x[:1])
    estimates = contraction(model, x, samples=2)
    error = estimates.std() / np.sqrt(len(x))
    assert abs(estimates.mean() - exact[0]) < 4 * error
    assert error < 0.05 * exact[0]


def test_a_heavier_penalty_contracts_more():
    x, found = uniform(64, 6), []
    for weight in (0.0, 3.0):
        keras.utils.set_random_seed(1)
        model = sequential((6,), layers.Dense(4, activation="sigmoid"), layers.Dense(2))
        objective = ContractiveAutoencoder(weight=weight, tied=True, reduction="sum")
        optimizer = keras.optimizers.Adam(0.02)
        greedy_pretrain(model, x, objective, epochs=30, batch_size=16, optimizer=optimizer)
        found.append(contraction(model, x).mean())
    assert found[1] < 0.5 * found[0]


# Sparsity


def penalty_of(objective, x=None):
    """Loss minus reconstruction, and the code."""
    model = sequential((6,), layers.Dense(4, activation="sigmoid"), layers.Dense(2))
    x = ops.convert_to_tensor(uniform(8, 6) if x is None else x)
    objective = objective.decided(True)
    outputs = objective.build(split_stages(model)[0], seed=0)(objective.inputs(x, KEY))
    total, reconstruction = map(array, objective.scores(x, None, outputs))
    return total - reconstruction, array(outputs["code"]).astype("float64")


@pytest.mark.parametrize("reduction, features", [("sum", 1), ("mean", 6)])
def test_the_divergence_from_the_target_equals_numpy(reduction, features):
    objective = SparseAutoencoder(weight=2.0, target=0.1, reduction=reduction)
    penalty, code = penalty_of(objective)
    q = code.mean(0)
    expected = 2 * (0.1 * np.log(0.1 / q) + 0.9 * np.log(0.9 / (1 - q))).sum() / features
    np.testing.assert_allclose(penalty, np.full(8, expected), rtol=1e-4)


def test_the_divergence_is_zero_at_the_target_and_finite_at_the_bounds():
    objective = SparseAutoencoder(target=0.25)
    code = ops.convert_to_tensor(np.array([[0.5, 0.25], [0.0, 0.25]], "float32"))
    assert array(objective.penalty({"code": code})) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(array(objective.penalty({"code": ops.zeros((2, 3))})))
    assert np.isfinite(array(objective.penalty({"code": ops.ones((2, 3))})))


def test_the_norm_of_the_code_equals_numpy():
    penalty, code = penalty_of(SparseAutoencoder(norm="l1", weight=0.5, reduction="sum"))
    np.testing.assert_allclose(penalty, 0.5 * np.abs(code).sum(1), rtol=1e-4)


def test_the_code_becomes_sparse():
    x, means = uniform(64, 6), []
    for objective in (Autoencoder(reduction="sum"), SparseAutoencoder(reduction="sum")):
        keras.utils.set_random_seed(1)
        model = sequential((6,), layers.Dense(8, activation="sigmoid"), layers.Dense(2))
        optimizer = keras.optimizers.Adam(0.02)
        greedy_pretrain(model, x, objective, epochs=40, batch_size=16, optimizer=optimizer)
        means.append(array(model.layers[0](x)).mean())
    assert means[1] < 0.2 < means[0]


def test_the_divergence_needs_sigmoid_units():
    model = sequential((6,), layers.Dense(4, activation="relu"), layers.Dense(2))
    with pytest.raises(ValueError, match="ends in a sigmoid: use norm='l1'. Received: stage"):
        greedy_pretrain(model, uniform(8, 6), SparseAutoencoder(), epochs=1, batch_size=8)


# Emphasis


@pytest.mark.parametrize("corruption", [Masking(0.5), SaltAndPepper(0.5)])
def test_emphasis_weighs_what_was_selected(corruption):
    # Features that are 0 anyway are masked as well as others.
    x = ops.convert_to_tensor(np.where(uniform(9, 6) < 0.5, 0, uniform(9, 6, seed=2)))
    z = ops.convert_to_tensor(gaussian(9, 6))
    objective = DenoisingAutoencoder(corruption, alpha=2.0, beta=0.5, loss="mean_squared_error")
    inputs = objective.inputs(x, ops.convert_to_tensor(KEY))
    selected = array(corruption.selected(x, ops.convert_to_tensor(KEY)))
    np.testing.assert_array_equal(array(inputs["x"])[~selected], array(x)[~selected])
    total, reconstruction = objective.scores(x, None, {**inputs, "reconstruction": z})
    losses = (array(x) - array(z)) ** 2
    np.testing.assert_allclose(array(reconstruction), losses.mean(1), rtol=1e-5)
    expected = (losses * np.where(selected, 2.0, 0.5)).mean(1)
    np.testing.assert_allclose(array(total), expected, rtol=1e-5)
    assert 0.2 < selected.mean() < 0.8


def test_equal_emphasis_is_a_denoising_autoencoder():
    assert DenoisingAutoencoder(alpha=1, beta=1).names == ("loss",)
    assert DenoisingAutoencoder(Gaussian(0.1)) == DenoisingAutoencoder(Gaussian(0.1), alpha=1.0)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: DenoisingAutoencoder(Gaussian(), beta=0.5), "selects features.*Received: corrup"),
        (lambda: DenoisingAutoencoder(alpha=-1), "`alpha` must be a number.*alpha=-1"),
        (lambda: DenoisingAutoencoder(beta="full"), "`beta` must be a number.*beta='full'"),
        (lambda: SparseAutoencoder(norm="l2"), "`norm` must be one of.*norm='l2'"),
        (lambda: SparseAutoencoder(target=1), "`target` must be between 0 and 1.*target=1"),
        (lambda: SparseAutoencoder(weight=np.nan), "`weight` must be a number.*weight=nan"),
        (lambda: ContractiveAutoencoder(weight=-0.1), "`weight` must be a number.*weight=-0.1"),
        (lambda: ContractiveAutoencoder(samples=0), "`samples` must be an integer.*samples=0"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# The linear autoencoder


def test_a_linear_tied_autoencoder_finds_the_principal_subspace():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(500, 8)) * np.array([3, 2, 1.5, *[0.3] * 5])
    x = (x @ np.linalg.qr(generator.normal(size=(8, 8)))[0]).astype("float32")
    x -= x.mean(0)
    model = sequential((8,), layers.Dense(3), layers.Dense(2))
    optimizer = keras.optimizers.Adam(0.01)
    objective = Autoencoder(tied=True)
    greedy_pretrain(model, x, objective, epochs=150, batch_size=50, optimizer=optimizer)
    learned = np.linalg.qr(array(model.layers[0].kernel))[0]
    principal = np.linalg.svd(x)[2][:3].T
    cosines = np.linalg.svd(learned.T @ principal)[1]
    assert cosines.min() > 0.995


# Patches


@pytest.mark.parametrize("shape, size", [((8, 8, 1), 4), ((7, 9, 3), 4), ((5, 5, 2), 1)])
def test_patches_are_masked_whole(shape, size):
    x = ops.ones((50, *shape))
    masked = array(PatchMasking(0.5, size)(x, KEY)) == 0
    rows, columns = -(-shape[0] // size), -(-shape[1] // size)
    fractions = []
    for i in range(rows):
        for j in range(columns):
            patch = masked[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            whole = patch.reshape(50, -1)
            assert (whole.all(1) | ~whole.any(1)).all()
            fractions.append(whole.all(1).mean())
    assert 0.35 < np.mean(fractions) < 0.65


def test_flattened_images_have_the_same_patches():
    x = uniform(6, 8, 8, 2)
    images = array(PatchMasking(0.5, 3)(ops.convert_to_tensor(x), KEY))
    flat = PatchMasking(0.5, 3, image_shape=(8, 8, 2))
    rows = array(flat(ops.convert_to_tensor(x.reshape(6, -1)), KEY))
    np.testing.assert_array_equal(rows, images.reshape(6, -1))


def test_patch_masking_pretrains_flattened_images():
    model = sequential((8, 8, 1), layers.Flatten(), layers.Dense(4, "sigmoid"), layers.Dense(2))
    objective = DenoisingAutoencoder(PatchMasking(0.5, 2, image_shape=(8, 8, 1)), beta=0.5)
    report = greedy_pretrain(model, uniform(32, 8, 8, 1), objective, epochs=2, batch_size=8)
    assert np.isfinite(report.history[["loss", "reconstruction"]].to_numpy()).all()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: PatchMasking(1.0), "`rate` must be in"),
        (lambda: PatchMasking(size=0), "`size` must be an integer.*size=0"),
        (lambda: PatchMasking(image_shape=(28, 28)), "`image_shape` must be.*\\(28, 28\\)"),
        (lambda: PatchMasking()(ops.ones((2, 64)), 0), "needs images.*x.shape=\\(2, 64\\)"),
        (
            lambda: PatchMasking(image_shape=(8, 8, 2))(ops.ones((2, 64)), 0),
            "needs images.*image_shape=\\(8, 8, 2\\)",
        ),
    ],
)
def test_bad_patches_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_penalties_of_a_population_are_those_of_its_members():
    from pretrain import Population

    x, reports = uniform(32, 6), []

    def build(seed):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, activation="sigmoid"), layers.Dense(2)]
        )
        randomize(model, seed)
        return model

    for seeds in ([0, 1], [1]):
        population = Population(build, seeds)
        objective = ContractiveAutoencoder(tied=True)
        reports.append(greedy_pretrain(population, x, objective, epochs=2, batch_size=8).history)
    both, alone = reports
    assert both.loc[both["seed"] == 1, "loss"].tolist() == alone["loss"].tolist()
