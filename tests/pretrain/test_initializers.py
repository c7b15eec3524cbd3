import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import array, digest, gaussian, sequential
from scipy import stats

from pretrain import initializers, networks


def draw(initializer, shape=(100, 400)):
    return keras.ops.convert_to_numpy(initializer(shape))


@pytest.mark.parametrize(
    "shape, fan_in", [((784, 300), 784), ((25, 2000), 25), ((3, 3, 16, 200), 3 * 3 * 16)]
)
def test_historical_is_uniform_within_one_over_root_fan_in(shape, fan_in):
    weights = draw(initializers.historical(0), shape)
    bound = 1 / np.sqrt(fan_in)
    assert np.abs(weights).max() <= bound * (1 + 1e-6)
    # Quantiles of the uniform distribution, within five standard errors.
    quantiles = np.linspace(0.05, 0.95, 19)
    error = np.quantile(weights, quantiles) / bound - (2 * quantiles - 1)
    assert np.abs(error).max() < 5 / np.sqrt(weights.size)


def test_historical_is_known_by_name():
    expected = draw(initializers.historical(5))
    np.testing.assert_array_equal(draw(initializers.get("historical", 5)), expected)


@pytest.mark.parametrize(
    "identifier",
    [
        "he_normal",
        "GlorotUniform",
        keras.initializers.HeNormal(seed=1),
        keras.initializers.serialize(keras.initializers.Orthogonal(gain=2.0, seed=1)),
        {"class_name": "RandomUniform", "config": {"minval": -3.0, "maxval": 3.0, "seed": 1}},
        "historical",
        "delta_orthogonal",
        initializers.DeltaOrthogonal(gain=2.0, seed=1),
    ],
)
def test_the_seed_alone_decides(identifier):
    one, same = (draw(initializers.get(identifier, 11)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, draw(initializers.get(identifier, 12)))
    assert not np.array_equal(one, draw(initializers.get(identifier)))


def test_equals_keras_with_the_same_seed():
    expected = draw(keras.initializers.HeNormal(seed=9))
    np.testing.assert_array_equal(draw(initializers.get("he_normal", 9)), expected)


def test_replaces_only_the_seed():
    original = keras.initializers.VarianceScaling(0.5, "fan_out", "normal", seed=1)
    config = initializers.get(original, 2).get_config()
    assert config == {**original.get_config(), "seed": 2}
    assert original.get_config()["seed"] == 1


def test_without_a_seed_each_is_fresh():
    seeded = keras.initializers.HeNormal(seed=1)
    one, other = (draw(initializers.get(seeded)) for _ in range(2))
    assert not np.array_equal(one, other)


def test_what_has_no_seed_is_returned_as_it_is():
    constant = keras.initializers.Constant(0.5)
    assert initializers.get(constant, 3) is constant
    assert not draw(initializers.get("zeros", 3)).any()


@pytest.mark.parametrize(
    "identifier",
    ["he_normall", "get", "", 3, None, np.mean, np.ones(3), {"a": 1}, {"class_name": "Foo"}],
)
def test_unknown_ones_are_answered_with_what_is_known(identifier):
    with pytest.raises(
        ValueError, match=r"historical, delta_orthogonal, .*he_normal, .*: identifier="
    ):
        initializers.get(identifier, 0)


# Orthogonal


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (3, 3, 4, 20)])
def test_keras_orthogonal_keeps_its_gain(shape):
    orthogonal = keras.initializers.Orthogonal(gain=2**0.5)
    matrix = draw(initializers.get(orthogonal, 3), shape).reshape(-1, shape[-1])
    products = matrix.T @ matrix if matrix.shape[0] > matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(products, 2 * np.eye(len(products)), atol=1e-5)


@pytest.mark.parametrize("kernel_size", [(3,), (1,), (5, 3), (4, 2), (3, 3, 3)])
def test_delta_orthogonal_convolutions_keep_norms_at_every_position(kernel_size):
    convolution = getattr(layers, f"Conv{len(kernel_size)}D")
    x = gaussian(4, *(6, 7, 5)[: len(kernel_size)], 3)
    outputs = x
    for seed, filters in enumerate((3, 8)):
        initializer = initializers.DeltaOrthogonal(gain=2.0, seed=seed)
        options = {"padding": "same", "kernel_initializer": initializer, "use_bias": False}
        outputs = convolution(filters, kernel_size, **options)(outputs)
    norms = np.linalg.norm(array(outputs), axis=-1)
    np.testing.assert_allclose(norms, 2.0**2 * np.linalg.norm(x, axis=-1), rtol=1e-5)


def test_delta_orthogonal_kernels_are_zero_but_at_the_center():
    kernel = draw(initializers.DeltaOrthogonal(seed=0), (5, 3, 4, 6))
    center = kernel[2, 1].copy()
    np.testing.assert_allclose(center @ center.T, np.eye(4), atol=1e-6)
    kernel[2, 1] = 0
    assert not kernel.any()


def test_delta_orthogonal_matrices_are_orthogonal():
    expected = draw(keras.initializers.Orthogonal(gain=2.0, seed=3), (9, 4))
    actual = draw(initializers.DeltaOrthogonal(gain=2.0, seed=3), (9, 4))
    np.testing.assert_array_equal(actual, expected)


def test_delta_orthogonal_serves_a_network_that_is_saved(tmp_path):
    model = networks.convnet((6, 6, 1), 3, filters=4, initializer="delta_orthogonal", seed=0)
    kernels = [array(model.get_layer(f"hidden_{i}").kernel) for i in (2, 3)]
    assert not np.allclose(*kernels)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    initializer = loaded.get_layer("hidden_2").kernel_initializer
    np.testing.assert_array_equal(draw(initializer, (3, 3, 4, 4)), kernels[0])


def test_delta_orthogonal_needs_as_many_channels_out_as_in():
    with pytest.raises(ValueError, match=r"channels out as in.*Received: shape=\(3, 3, 5, 4\), 5"):
        initializers.DeltaOrthogonal()((3, 3, 5, 4))
    with pytest.raises(ValueError, match=r"two-dimensional. Received: shape=\(4,\)"):
        initializers.DeltaOrthogonal()((4,))


# The histogram control


def network(depth=2, **options):
    return networks.mlp((50,), 3, depth=depth, units=40, normalization="layer", **options)


def pretrained_network(depth=2):
    """A network whose every array has a skewed distribution and a scale of its own."""
    model = network(depth)
    random = np.random.RandomState(0)
    for i, variable in enumerate(model.trainable_variables[:-2]):
        variable.assign(random.exponential(i + 1, tuple(variable.shape)))
    return model


def test_the_histogram_keeps_the_distribution_of_every_array_and_nothing_else():
    model, pretrained = network(), pretrained_network()
    initializers.histogram(model, pretrained)
    # Both kernels, with their biases and two arrays of normalization each.
    pairs = zip(model.trainable_variables[:8], pretrained.trainable_variables, strict=False)
    for variable, source in pairs:
        drawn, values = array(variable).ravel(), array(source).ravel()
        assert np.isin(drawn, values).all()
        assert stats.ks_2samp(drawn, values).pvalue > 0.01, variable.path
        assert abs(stats.pearsonr(drawn, values).statistic) < 4 / np.sqrt(values.size)
        # Of n values, n draws with replacement are expected to find 1 - 1/e.
        assert abs(len(np.unique(drawn)) / values.size - 0.632) < 2 / np.sqrt(values.size)


def test_the_histogram_leaves_the_classifier_and_what_is_not_trained():
    model, pretrained = (build() for build in (stacked, stacked))
    before, source = digest(model.variables), digest(pretrained.variables)
    initializers.histogram(model, pretrained)
    after = digest(model.variables)
    moved = {name.split("/", 1)[1] for name in before if before[name] != after[name]}
    assert moved == {"a/kernel", "a/bias", "n/gamma", "n/beta"}
    assert digest(pretrained.variables) == source


def stacked():
    norm = layers.BatchNormalization(name="n")
    stack = [layers.Rescaling(2.0), layers.Dense(7, name="a"), norm, layers.Dense(3, name="head")]
    return sequential((5,), *stack)


def test_the_seed_decides_the_histogram_and_the_depth_does_not():
    def drawn(seed, depth=2):
        model = network(depth)
        initializers.histogram(model, pretrained_network(depth), seed=seed)
        return [array(model.get_layer(f"hidden_{i}").kernel) for i in (1, 2)]

    one, same, other, deeper = drawn(1), drawn(1), drawn(2), drawn(1, depth=3)
    for i in range(2):
        np.testing.assert_array_equal(one[i], same[i])
        np.testing.assert_array_equal(one[i], deeper[i])
        assert not np.array_equal(one[i], other[i])


@pytest.mark.parametrize(
    "build, build_pretrained, options, message",
    [
        (network, lambda: network(depth=3), {}, "one architecture.*Received: "),
        (network, lambda: network(activation="tanh"), {}, "one architecture.*Received: "),
        (lambda: keras.Sequential([layers.Dense(3)]), network, {}, "built Keras model.*Received: "),
        (network, lambda: "pretrained.keras", {}, "built Keras model.*Received: 'pretrained"),
        (lambda: sequential((5,), layers.Dense(3)),) * 2 + ({}, "head=1 stages.*1 stages"),
        (network, network, {"seed": None}, r"Received: seeds=\[None\]"),
    ],
)
def test_histograms_of_other_networks_are_refused(build, build_pretrained, options, message):
    with pytest.raises(ValueError, match=message):
        initializers.histogram(build(), build_pretrained(), **options)
