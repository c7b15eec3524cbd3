"""Layer-sequential unit-variance initialization, measured on data that it has not seen."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, chain_model, digest, gaussian, sequential, uniform

from pretrain import Population, datasets, lsuv
from pretrain.networks import convnet, mlp


@pytest.fixture(scope="module")
def mnist():
    """Images, every second row and column, to initialize on, and others to measure on."""
    data = datasets.load("mnist", train_size=500, validation_size=500)
    return data.train[0][:, ::2, ::2], data.validation[0][:, ::2, ::2]


def preactivation(layer, h):
    """What a dense layer or a convolution computes from its input, without its own code."""
    if isinstance(layer, layers.Dense):
        z = array(h) @ array(layer.kernel)
    else:
        z = array(ops.conv(h, layer.kernel, strides=layer.strides, padding=layer.padding))
    return z if layer.bias is None else z + array(layer.bias)


def variances(model, x):
    """Variance of the pre-activations of every dense layer and convolution, by name."""
    found = [layer for layer in model.layers if hasattr(layer, "kernel")]
    inputs = keras.Model(model.inputs[0], [layer.input for layer in found])(x, training=False)
    return {
        layer.name: preactivation(layer, h).astype("float64").var()
        for layer, h in zip(found, inputs, strict=True)
    }


def assert_unit(found):
    assert found
    assert all(0.9 < variance < 1.1 for variance in found.values()), found


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize("build, width", [(mlp, {"units": 60}), (convnet, {"filters": 8})])
def test_preactivations_of_deep_networks_have_unit_variance(mnist, build, width, activation):
    model = build((14, 14, 1), depth=8, activation=activation, seed=0, **width)
    x, held_out = mnist
    lsuv(model, x)
    found = variances(model, held_out)
    assert list(found) == [*(f"hidden_{i}" for i in range(1, 9)), "head"]
    assert_unit(found)


@pytest.mark.parametrize(
    "shortcut, normalization",
    [(None, "batch"), ("residual", "batch"), ("highway", None), ("skip_init", None)],
)
def test_normalization_and_shortcuts_are_run_as_they_are(mnist, shortcut, normalization):
    options = {"normalization": normalization, "shortcut": shortcut, "units": 50}
    model = mlp((14, 14, 1), depth=3, seed=0, **options)
    x, held_out = mnist
    lsuv(model, x)
    assert_unit(variances(model, held_out))


def blocks():
    """Fused activations, one of them a layer with weights, and a block whose shortcut projects."""
    inputs = keras.Input((14, 14, 1))
    h = layers.Rescaling(2.0, offset=-0.3)(inputs)
    h = layers.Conv2D(6, 3, strides=2, activation=layers.PReLU(shared_axes=[1, 2]))(h)
    h = layers.BatchNormalization()(h)
    inside = layers.Conv2D(8, 3, padding="same", activation="elu")(layers.Dropout(0.5)(h))
    inside = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inside)
    shortcut = layers.Conv2D(8, 1, strides=2, padding="same")(h)
    h = layers.ReLU()(layers.Add()([inside, shortcut]))
    h = layers.Dense(20, activation="tanh")(layers.Flatten()(h))
    outputs = layers.Dense(10, activation="softmax", activity_regularizer="l2")(h)
    return keras.Model(inputs, outputs)


def test_a_functional_model_has_unit_variance_in_front_of_fused_activations(mnist):
    model = blocks()
    x, held_out = mnist
    lsuv(model, x)
    assert len(variances(model, held_out)) == 6
    assert_unit(variances(model, held_out))


OTHERS = {
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(5, 3),
    "transposed": lambda: layers.Conv2DTranspose(5, 3),
    "einsum": lambda: layers.EinsumDense("abcd,de->abce", (6, 6, 7), bias_axes="ce"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_projections_have_unit_variance(kind):
    # Without activation, the layer's output is its pre-activation.
    model = keras.Sequential([keras.Input((6, 6, 4)), OTHERS[kind]()])
    lsuv(model, gaussian(300, 6, 6, 4))
    outputs = model.predict(gaussian(300, 6, 6, 4, seed=2), verbose=0)
    assert 0.9 < outputs.var() < 1.1


def test_nested_models_are_initialized():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(7, "relu"), layers.Dense(5, "tanh")])
    first, last = layers.Dense(6, "relu"), layers.Dense(3)
    lsuv(keras.Sequential([keras.Input((4,)), first, inner, last]), gaussian(1000, 4))
    h = first(gaussian(1000, 4, seed=2))
    assert 0.9 < preactivation(inner.layers[0], h).var() < 1.1
    assert 0.9 < preactivation(last, inner(h)).var() < 1.1


def test_kernels_are_orthonormal_but_for_a_factor():
    model = mlp((30,), 10, depth=2, units=[20, 40], seed=0)
    lsuv(model, gaussian(200, 30))
    for name, smaller in [("hidden_1", "columns"), ("hidden_2", "rows"), ("head", "columns")]:
        kernel = array(model.get_layer(name).kernel)
        products = kernel.T @ kernel if smaller == "columns" else kernel @ kernel.T
        expected = np.eye(len(products)) * products[0, 0]
        np.testing.assert_allclose(products, expected, atol=1e-5 * products[0, 0])


def test_biases_count_and_stay():
    model = sequential((8,), layers.Dense(9, "tanh"), layers.Dense(4))
    before = [array(layer.bias).copy() for layer in model.layers]
    assert all(bias.any() for bias in before)
    lsuv(model, gaussian(1000, 8), tol=0.01)
    for layer, bias in zip(model.layers, before, strict=True):
        np.testing.assert_array_equal(array(layer.bias), bias)
    assert_unit(variances(model, gaussian(1000, 8, seed=2)))


def test_the_tolerance_is_kept_and_one_division_is_enough_without_biases():
    x = gaussian(100, 8)
    model = mlp((8,), 4, depth=2, units=9, seed=0)
    lsuv(model, x, tol=1e-4, max_iterations=1)
    assert all(abs(variance - 1) < 1.1e-4 for variance in variances(model, x).values())


def test_what_is_within_the_tolerance_is_left_orthonormal():
    model = mlp((8,), 4, depth=1, units=8, seed=0)
    lsuv(model, gaussian(500, 8), tol=0.5)
    kernel = array(model.get_layer("hidden_1").kernel)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-5)


def test_frozen_layers_and_other_layers_stay():
    frozen, last = layers.Dense(6, "relu", trainable=False), layers.Dense(3, name="last")
    others = [layers.Embedding(9, 4), layers.LSTM(5), layers.BatchNormalization()]
    model = sequential((7,), *others, frozen, last)
    before = digest(model.variables)
    lsuv(model, np.random.default_rng(0).integers(0, 9, (200, 7)))
    after = digest(model.variables)
    (moved,) = {name for name in before if before[name] != after[name]}
    assert moved.endswith("last/kernel")


def test_a_layer_that_is_called_twice_is_scaled_for_its_first_call():
    inputs = keras.Input((6,))
    shared = layers.Dense(6, "relu")
    model = keras.Model(inputs, layers.Dense(3)(shared(shared(inputs))))
    lsuv(model, gaussian(2000, 6))
    assert 0.9 < preactivation(shared, gaussian(2000, 6, seed=2)).var() < 1.1


def test_the_seed_decides():
    def kernels(seed, depth=2):
        model = mlp((8,), 4, depth=depth, units=8, seed=0)
        lsuv(model, gaussian(50, 8), seed=seed)
        return [array(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]

    one, same, other, deeper = kernels(1), kernels(1), kernels(2), kernels(1, depth=3)
    for i in range(3):
        np.testing.assert_array_equal(one[i], same[i])
        assert not np.allclose(one[i], other[i])
    for i in range(2):
        np.testing.assert_array_equal(one[i], deeper[i])
    # Of equal shape.
    assert not np.allclose(*(kernel / np.linalg.norm(kernel) for kernel in one[:2]))


def test_images_of_integers_are_taken_as_keras_takes_them():
    images = (uniform(100, 6, 6, 1) * 255).astype("uint8")
    one, other = (convnet((6, 6, 1), 3, depth=2, filters=4, seed=0) for _ in range(2))
    lsuv(one, images)
    lsuv(other, images.astype("float32"))
    assert digest(one.variables) == digest(other.variables)


def test_low_precision_is_measured_in_full():
    stack = [layers.Dense(20, "relu", dtype="mixed_bfloat16") for _ in range(3)]
    model = keras.Sequential([keras.Input((30,)), *stack])
    lsuv(model, gaussian(500, 30))
    assert_unit(variances(model, gaussian(500, 30, seed=2)))


def test_it_leaves_no_trace_but_the_kernels(mnist):
    model = blocks()
    # Keras builds an activation that is a layer when it is first called.
    model(mnist[0][:1])
    nodes = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    before, config = digest(model.variables), model.to_json()
    lsuv(model, mnist[0][:100])
    after = digest(model.variables)
    assert {n.split("/")[-1] for n in before if before[n] != after[n]} == {"kernel"}
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == nodes
    assert model.to_json() == config
    assert not model.losses


def multi_input():
    inputs = [keras.Input((8,)), keras.Input((8,))]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(inputs)))


def with_large_biases():
    model = mlp((8,), 4, depth=2, units=9, seed=0)
    model.get_layer("hidden_2").bias.assign(np.arange(9.0))
    return model


def with_dead_units():
    model = mlp((8,), 4, depth=2, units=9, seed=0)
    model.get_layer("hidden_1").bias.assign(np.full(9, -99.0))
    return model


def with_nan():
    model = mlp((8,), 4, depth=2, units=9, normalization="batch", seed=0)
    model.get_layer("normalization_1").gamma.assign(np.full(9, np.nan))
    return model


def without_projection():
    return keras.Sequential([keras.Input((8,)), layers.BatchNormalization(), layers.ReLU()])


def frozen():
    model = mlp((8,), 4, depth=1, seed=0)
    model.trainable = False
    return model


def small():
    return mlp((8,), 4, depth=2, units=9, seed=0)


X = gaussian(50, 8)
BUILT = "Expected a built Keras model.*Received: "
FINITE = "finite and not all equal.*Received: layer "


@pytest.mark.parametrize(
    "build, x, options, message",
    [
        (
            small,
            np.ones((50, 8)),
            {},
            "examples that are not all equal.*Received: 50 equal examples",
        ),
        (small, X[:1], {}, "examples that are not all equal.*Received: 1 equal examples"),
        (small, X * np.nan, {}, "finite.*Received: x with 400 NaN"),
        (small, X[:, :7], {}, r"Received: x.shape=\(50, 7\)"),
        (small, None, {}, "one array.*Received: x of type NoneType"),
        (small, X, {"tol": 0}, "`tol` must.*Received: tol=0"),
        (small, X, {"tol": "tight"}, "`tol` must.*Received: tol='tight'"),
        (small, X, {"max_iterations": 0}, "Received: max_iterations=0"),
        (small, X, {"seed": 0.5}, r"Received: seeds=\[0.5\]"),
        (lambda: keras.Sequential([layers.Dense(3)]), X, {}, BUILT + ".*Sequential"),
        (lambda: Population.from_models([small()]), X, {}, BUILT + ".*Population"),
        (lambda: chain_model(8), X, {}, "Sequential or functional.*Received: model=.*Chain"),
        (multi_input, X, {}, "with one input.*Received: .*2 inputs"),
        (without_projection, X, {}, "dense or convolution layer.*Received: a model"),
        (frozen, X, {}, "not frozen.*Received: .*'hidden_1', 'head'"),
        (with_dead_units, X, {}, FINITE + "'hidden_2', whose variance is 0.0"),
        (with_nan, X, {}, FINITE + "'hidden_2', whose variance is nan"),
        (with_large_biases, X, {}, "within tol=0.02 of 1.*biases.*Received: layer 'hidden_2'"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_moves(build, x, options, message):
    model = build()
    variables = getattr(model, "variables", [])
    before = digest(variables)
    with pytest.raises(ValueError, match=message):
        lsuv(model, x, **options)
    assert digest(variables) == before
