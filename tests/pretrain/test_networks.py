import itertools

import keras
import numpy as np
import pytest

from pretrain import split_stages
from pretrain.networks import SHORTCUTS, convnet, mlp

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

COMBINATIONS = list(itertools.product([None, "batch", "layer"], [None, *SHORTCUTS]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def weights(model, name):
    return [keras.ops.convert_to_numpy(weight) for weight in model.get_layer(name).weights]


def affine(model, name, x):
    kernel, bias = weights(model, name)
    return x @ kernel + bias


def named(model, kind):
    return [layer.name for layer in model.layers if layer.name.split("_")[0] == kind]


def randomize_biases(model):
    """Zero biases would hide an error in them."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(generator.normal(size=layer.bias.shape))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).random((6, 12), dtype="float32")


def test_plain_mlp_equals_numpy(x):
    model = mlp((12,), 4, depth=2, units=[7, 5], activation="tanh", seed=0)
    randomize_biases(model)
    hidden = np.tanh(affine(model, "hidden_1", x))
    hidden = np.tanh(affine(model, "hidden_2", hidden))
    expected = affine(model, "head", hidden)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("shortcut", [None, "highway"])
def test_the_regularizer_penalizes_every_kernel_and_no_bias(shortcut):
    config = keras.regularizers.serialize(keras.regularizers.L2(0.5))
    model = mlp((12,), 4, units=7, shortcut=shortcut, kernel_regularizer=config, seed=0)
    randomize_biases(model)
    kernels = [keras.ops.convert_to_numpy(w) for w in model.weights if w.path.endswith("kernel")]
    assert len(kernels) == (4 if shortcut is None else 6)
    expected = 0.5 * sum((kernel**2).sum() for kernel in kernels)
    np.testing.assert_allclose(sum(map(float, model.losses)), expected, rtol=1e-5)


def test_residual_mlp_equals_numpy(x):
    model = mlp((12,), 4, depth=3, units=7, activation="tanh", shortcut="residual", seed=0)
    randomize_biases(model)
    hidden = np.tanh(affine(model, "hidden_1", x))
    for name in ("hidden_2", "hidden_3"):
        hidden = hidden + np.tanh(affine(model, name, hidden))
    expected = affine(model, "head", hidden)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_skip_init_mlp_equals_numpy(x):
    model = mlp((12,), 4, depth=3, units=7, activation="tanh", shortcut="skip_init", seed=0)
    randomize_biases(model)
    hidden = np.tanh(affine(model, "hidden_1", x))
    for layer, scale in ((2, 0.7), (3, -1.2)):
        model.get_layer(f"scale_{layer}").scale.assign(scale)
        hidden = hidden + scale * np.tanh(affine(model, f"hidden_{layer}", hidden))
    expected = affine(model, "head", hidden)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("build, shape", [(mlp, (12,)), (convnet, (3, 3, 2))])
def test_with_skip_init_a_deep_network_begins_as_one_layer(build, shape):
    inputs = np.random.default_rng(0).random((6, *shape), dtype="float32")
    shallow, deep = (build(shape, 4, depth=d, shortcut="skip_init", seed=0) for d in (1, 5))
    np.testing.assert_array_equal(
        deep.predict(inputs, verbose=0), shallow.predict(inputs, verbose=0)
    )


def test_a_block_that_ends_in_skip_init_is_a_stage():
    stages = split_stages(mlp((12,), depth=3, units=7, shortcut="skip_init"))
    names = [[operation.name for operation in stage.operations] for stage in stages[1:]]
    assert names == [[f"hidden_{i}", f"scale_{i}", f"shortcut_{i}"] for i in (2, 3)]
    assert [stage.flops for stage in stages] == [2 * 12 * 7, 2 * 7 * 7, 2 * 7 * 7]


def test_highway_mlp_equals_numpy(x):
    model = mlp((12,), 4, depth=3, units=7, activation="tanh", shortcut="highway", seed=0)
    randomize_biases(model)
    hidden = np.tanh(affine(model, "hidden_1", x))
    for layer in (2, 3):
        gate = sigmoid(affine(model, f"gate_{layer}", hidden))
        candidate = np.tanh(affine(model, f"hidden_{layer}", hidden))
        hidden = gate * candidate + (1 - gate) * hidden
    expected = affine(model, "head", hidden)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("normalization", [None, "layer"])
def test_pre_activation_mlp_equals_numpy(x, normalization):
    options = {"units": 7, "activation": "tanh", "normalization": normalization, "seed": 0}
    model = mlp((12,), 4, depth=3, shortcut="pre_activation", **options)
    randomize_biases(model)

    def activated(hidden, name):
        if normalization:
            epsilon = model.get_layer(f"normalization_{name}").epsilon
            centered = hidden - hidden.mean(1, keepdims=True)
            hidden = centered / np.sqrt(hidden.var(1, keepdims=True) + epsilon)
        return np.tanh(hidden)

    hidden = affine(model, "hidden_1", x)
    for layer in (2, 3):
        hidden = hidden + affine(model, f"hidden_{layer}", activated(hidden, layer))
    expected = affine(model, "head", activated(hidden, "head"))
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)


def test_a_pre_activation_block_is_a_stage_and_the_last_one_ends_in_what_the_head_reads():
    options = {"depth": 3, "units": 7, "normalization": "batch"}
    stages = split_stages(mlp((12,), shortcut="pre_activation", **options))
    names = [[operation.name for operation in stage.operations] for stage in stages]
    parts = ("normalization", "activation", "hidden", "shortcut")
    blocks = [[f"{part}_{i}" for part in parts] for i in (2, 3)]
    assert names == [["hidden_1"], blocks[0], [*blocks[1], "normalization_head", "activation_head"]]


@pytest.mark.parametrize("shortcut", [None, "residual"])
def test_normalization_stands_between_projection_and_activation(x, shortcut):
    model = mlp((12,), 4, depth=2, units=7, normalization="layer", shortcut=shortcut, seed=0)
    randomize_biases(model)

    def layer(index, hidden):
        z = affine(model, f"hidden_{index}", hidden)
        epsilon = model.get_layer(f"normalization_{index}").epsilon
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + epsilon)
        return np.maximum(z, 0)

    hidden = layer(1, x)
    hidden = layer(2, hidden) + (hidden if shortcut else 0)
    expected = affine(model, "head", hidden)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)


def test_convolution_equals_numpy():
    model = convnet((5, 6, 2), 3, depth=1, filters=4, activation="tanh", seed=0)
    randomize_biases(model)
    images = np.random.default_rng(2).random((3, 5, 6, 2), dtype="float32")
    kernel, bias = weights(model, "hidden_1")
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    hidden = np.tanh(np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias)
    expected = affine(model, "head", hidden.mean((1, 2)))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("build, shape", [(mlp, (12,)), (convnet, (4, 4, 2))])
@pytest.mark.parametrize("normalization, shortcut", COMBINATIONS)
def test_every_combination_trains(build, shape, normalization, shortcut):
    width = {"units": 6} if build is mlp else {"filters": 6}
    options = {"normalization": normalization, "shortcut": shortcut, "activation": "tanh"}
    model = build(shape, 3, depth=3, seed=0, **width, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    before = model.get_weights()
    x = np.random.default_rng(3).random((9, *shape), dtype="float32")
    first, *_, last = (float(model.train_on_batch(x, np.arange(9) % 3)) for _ in range(6))
    assert last < first
    for variable, old in zip(model.weights, before, strict=True):
        assert not np.array_equal(keras.ops.convert_to_numpy(variable), old), variable.path


@pytest.mark.parametrize("build, shape", [(mlp, (4, 4, 1)), (convnet, (4, 4, 1))])
@pytest.mark.parametrize("shortcut", [None, *SHORTCUTS])
def test_deeper_networks_begin_with_the_layers_of_shallower_ones(build, shape, shortcut):
    deep = build(shape, depth=4, shortcut=shortcut, seed=5)
    shallow = build(shape, depth=2, shortcut=shortcut, seed=5)
    names = [name for kind in ("hidden", "gate", "head") for name in named(shallow, kind)]
    assert len(names) == (4 if shortcut == "highway" else 3)
    for name in names:
        np.testing.assert_array_equal(weights(deep, name)[0], weights(shallow, name)[0])


def test_layers_of_equal_shape_differ():
    model = mlp((20,), 20, depth=3, units=20, shortcut="highway", seed=0)
    names = [*named(model, "hidden"), *named(model, "gate"), "head"]
    kernels = [weights(model, name)[0] for name in names]
    assert len(kernels) == 6
    for one, other in itertools.combinations(kernels, 2):
        assert not np.array_equal(one, other)


def test_the_seed_decides_and_normalization_does_not():
    one = weights(mlp((9,), seed=1), "hidden_2")[0]
    np.testing.assert_array_equal(one, weights(mlp((9,), seed=1), "hidden_2")[0])
    normalized = mlp((9,), seed=1, normalization="batch", shortcut="residual")
    np.testing.assert_array_equal(one, weights(normalized, "hidden_2")[0])
    assert not np.array_equal(one, weights(mlp((9,), seed=2), "hidden_2")[0])


def test_without_a_seed_networks_differ():
    seeded = keras.initializers.HeNormal(seed=1)
    one, other = (weights(mlp((9,), initializer=seeded), "hidden_2")[0] for _ in range(2))
    assert not np.array_equal(one, other)


def test_the_initializer_serves_every_kernel():
    model = mlp((64,), depth=3, units=64, shortcut="highway", initializer="historical", seed=0)
    for name in (*named(model, "hidden"), *named(model, "gate"), "head"):
        largest = np.abs(weights(model, name)[0]).max()
        assert 0.95 / 8 < largest <= 1.000001 / 8, name


@pytest.mark.parametrize("build, shape", [(mlp, (9,)), (convnet, (4, 4, 1))])
def test_the_head_can_have_an_initializer_of_its_own(build, shape):
    model = build(shape, seed=0)
    other = build(shape, head_initializer="zeros", seed=0)
    assert weights(model, "head")[0].any() and not weights(other, "head")[0].any()
    for name in named(model, "hidden"):
        np.testing.assert_array_equal(weights(model, name)[0], weights(other, name)[0])


@pytest.mark.parametrize("build, shape", [(mlp, (9,)), (convnet, (4, 4, 1))])
@pytest.mark.parametrize("settings, bias", [({}, -1), ({"gate_bias": -3.5}, -3.5)])
def test_biases_start_at_zero_and_gates_closed(build, shape, settings, bias):
    model = build(shape, depth=3, shortcut="highway", seed=0, **settings)
    for name in (*named(model, "hidden"), "head"):
        assert not weights(model, name)[1].any()
    for name in named(model, "gate"):
        assert (weights(model, name)[1] == bias).all()


@pytest.mark.parametrize("build, shape", [(mlp, (9,)), (convnet, (4, 4, 1))])
@pytest.mark.parametrize("normalization, bias", [(None, True), ("batch", False), ("layer", True)])
def test_only_batch_normalization_replaces_the_bias(build, shape, normalization, bias):
    model = build(shape, depth=2, normalization=normalization)
    assert [model.get_layer(name).use_bias for name in named(model, "hidden")] == [bias, bias]


def test_layers_are_named_in_order():
    model = mlp((2, 3), depth=2, normalization="batch", shortcut="highway")
    assert named(model, "hidden") == ["hidden_1", "hidden_2"]
    assert named(model, "normalization") == ["normalization_1", "normalization_2"]
    assert named(model, "gate") == ["gate_2"]
    again = mlp((2, 3), depth=2, normalization="batch", shortcut="highway")
    trained = [layer.name for layer in again.layers if layer.weights]
    assert trained == [layer.name for layer in model.layers if layer.weights]


@pytest.mark.parametrize(
    "shape, depth, sizes", [((28, 28, 1), 8, [14, 7, 3]), ((7, 3, 1), 4, []), ((4, 9, 3), 5, [2])]
)
def test_pools_after_every_second_layer_while_the_image_is_large(shape, depth, sizes):
    model = convnet(shape, depth=depth, filters=2)
    pools = named(model, "pooling")
    assert pools == [f"pooling_{2 * index}" for index in range(1, len(sizes) + 1)]
    assert [model.get_layer(name).output.shape[1] for name in pools] == sizes


def test_the_caller_chooses_where_pooling_stands_and_what_the_classifier_reads():
    model = convnet((12, 8, 1), depth=3, filters=2, pooling=(1, 2, 5), global_pooling=False)
    assert named(model, "pooling") == ["pooling_1", "pooling_2"]
    assert named(model, "global") == []
    assert model.get_layer("head").kernel.shape == (3 * 2 * 2, 10)
    assert named(convnet((8, 8, 1), pooling=()), "pooling") == []


def test_images_are_flattened_and_vectors_are_not():
    assert named(mlp((4, 5, 3)), "flatten") == ["flatten"]
    assert mlp((4, 5, 3)).get_layer("hidden_1").kernel.shape == (60, 200)
    assert named(mlp((60,)), "flatten") == []


def test_activation_may_be_a_callable(x):
    by_name = mlp((12,), activation="tanh", seed=0)
    by_function = mlp((12,), activation=keras.ops.tanh, seed=0)
    expected = by_name.predict(x, verbose=0)
    np.testing.assert_allclose(by_function.predict(x, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_network_survives_saving(tmp_path, x, shortcut):
    model = mlp((12,), depth=2, units=7, normalization="batch", shortcut=shortcut, seed=0)
    for variable in model.weights:
        # Not what a network starts with.
        variable.assign(variable + 0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("build, shape", [(mlp, (9,)), (convnet, (4, 4, 1))])
@pytest.mark.parametrize(
    "argument, value",
    [
        ("depth", 0),
        ("depth", 2.0),
        ("depth", True),
        ("classes", 0),
        ("normalization", "bathc"),
        ("normalization", True),
        ("shortcut", "dense"),
        ("dropout", 1.0),
        ("dropout", "half"),
        ("activation", "relluu"),
        ("initializer", "he"),
        ("head_initializer", "he"),
        ("input_shape", ()),
        ("input_shape", (None,)),
        ("input_shape", (4, 4, 0)),
        ("input_shape", 784),
        ("input_shape", "abc"),
    ],
)
def test_bad_arguments_are_named(build, shape, argument, value):
    expected = "identifier" if "initializer" in argument else argument
    with pytest.raises(ValueError, match=rf"Received: {expected}="):
        build(**{"input_shape": shape, argument: value})


@pytest.mark.parametrize(
    "build, shape, name", [(mlp, (9,), "units"), (convnet, (4, 4, 1), "filters")]
)
@pytest.mark.parametrize("value", [0, -1, 2.5, "200", [10, 20], [10, 0, 10], None])
def test_bad_widths_are_named(build, shape, name, value):
    with pytest.raises(ValueError, match=rf"Received: {name}="):
        build(shape, depth=3, **{name: value})


@pytest.mark.parametrize("shortcut", [None, "residual"])
def test_dropout_sets_a_share_of_every_layer_to_zero_in_training_only(shortcut):
    model, plain = (
        mlp((6,), depth=2, units=400, dropout=rate, shortcut=shortcut, seed=0)
        for rate in (0.25, 0.0)
    )
    x = np.random.RandomState(0).normal(size=(50, 6)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))
    for layer in ("dropout_1", "dropout_2"):
        dropped = model.get_layer(layer)(np.ones((50, 400)), training=True)
        assert abs((keras.ops.convert_to_numpy(dropped) == 0).mean() - 0.25) < 0.02


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_shortcuts_need_equal_widths(shortcut):
    with pytest.raises(ValueError, match=r"same in all layers.*Received: units=\[8, 9\]"):
        mlp((9,), depth=2, units=[8, 9], shortcut=shortcut)


def test_convnet_needs_images():
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*input_shape=\(28, 28\)"):
        convnet((28, 28))
    with pytest.raises(ValueError, match="Received: kernel_size=0"):
        convnet((28, 28, 1), kernel_size=0)
