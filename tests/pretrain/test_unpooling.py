"""Unpooling by switches, against an independent one in NumPy."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian, sequential, sigmoid, uniform, values

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Gaussian,
    MaxUnpooling,
    Population,
    SparseAutoencoder,
    VariationalAutoencoder,
    backend,
    greedy_pretrain,
    joint_pretrain,
    split_stages,
    unroll,
)
from pretrain.convolutions import as_products

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")


def unpooled(values, image, pool_size, padding):
    """Every value at the first maximum of its window, in loops; channels last."""
    result, size = np.zeros_like(image), image.shape[1:-1]
    before = [
        (count * k - n) // 2 if padding == "same" else 0
        for count, k, n in zip(values.shape[1:-1], pool_size, size, strict=True)
    ]
    for b, *place, c in np.ndindex(values.shape):
        ranges = [
            range(max(0, p * k - m), min(n, p * k - m + k))
            for p, k, m, n in zip(place, pool_size, before, size, strict=True)
        ]
        pixels = list(itertools.product(*ranges))
        first = pixels[int(np.argmax([image[b, *pixel, c] for pixel in pixels]))]
        result[b, *first, c] = values[b, *place, c]
    return result


POOLINGS = {
    "1d": (layers.MaxPooling1D(3), (7,)),
    "2d": (layers.MaxPooling2D(), (6, 4)),
    "2d, unequal": (layers.MaxPooling2D((3, 2)), (7, 5)),
    "2d, same": (layers.MaxPooling2D((3, 4), padding="same"), (7, 6)),
    "3d": (layers.MaxPooling3D((2, 1, 2), padding="same"), (3, 2, 4)),
}


def example(name):
    """A layer of pooling, an image, in which some pixels are equally large, and values."""
    pooling, size = POOLINGS[name]
    image = np.rint(gaussian(3, *size, 2))
    return pooling, image, gaussian(*pooling.compute_output_shape(image.shape), seed=2)


def compiled(layer, *arrays):
    """What a layer computes in a compiled program."""
    function = backend.Compiled(lambda *tensors: layer(*tensors))
    return array(function(*map(ops.convert_to_tensor, arrays)))


@pytest.mark.parametrize("name", POOLINGS)
def test_values_go_back_to_the_first_maximum(name):
    pooling, image, values = example(name)
    found = compiled(MaxUnpooling(pooling), values, image)
    np.testing.assert_array_equal(
        found, unpooled(values, image, pooling.pool_size, pooling.padding)
    )


def test_pooling_what_was_unpooled_gives_the_values_back():
    pooling, image, values = example("2d")
    positive = np.abs(values)
    np.testing.assert_array_equal(array(pooling(MaxUnpooling(pooling)(positive, image))), positive)


def test_channels_first():
    image, values = gaussian(2, 5, 6, 3), gaussian(2, 2, 3, 3, seed=2)
    expected = unpooled(values, image, (2, 2), "valid")
    layer = MaxUnpooling(layers.MaxPooling2D(data_format="channels_first"))
    found = compiled(layer, np.moveaxis(values, -1, 1), np.moveaxis(image, -1, 1))
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1), expected)


def test_gradients_equal_finite_differences(float64):
    layer, shapes = MaxUnpooling(layers.MaxPooling2D()), [(2, 2, 2, 2), (2, 5, 4, 2)]
    at, direction = ([gaussian(*s, seed=n).astype("float64") for s in shapes] for n in (1, 2))

    def loss(arrays):
        values, image = arrays
        return ops.sum(ops.square(layer(values, image)) * image), None

    function = backend.Compiled(lambda *arrays: backend.value_and_gradients(loss, list(arrays)))

    def moved(step):
        arrays = [ops.convert_to_tensor(a + step * d) for a, d in zip(at, direction, strict=True)]
        value, _, slopes = function(*arrays)
        return float(value), slopes

    pairs = zip(moved(0)[1], direction, strict=True)
    found = sum((array(slope) * along).sum() for slope, along in pairs)
    np.testing.assert_allclose(found, (moved(1e-6)[0] - moved(-1e-6)[0]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "pooling, received",
    [
        (layers.MaxPooling2D(3, strides=2), r"pool_size=\(3, 3\) and strides=\(2, 2\)"),
        (layers.AveragePooling2D(2), "type AveragePooling2D"),
    ],
)
def test_what_has_no_switches_is_refused(pooling, received):
    with pytest.raises(ValueError, match=f"Expected a MaxPooling layer.*Received: .*{received}"):
        MaxUnpooling(pooling)


def test_a_model_of_it_can_be_saved(tmp_path):
    image, values = keras.Input((6, 4, 2)), keras.Input((3, 2, 2))
    model = keras.Model([values, image], MaxUnpooling(layers.MaxPooling2D())(values, image))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = [gaussian(5, 3, 2, 2), gaussian(5, 6, 4, 2, seed=2)]
    expected = array(model(given))
    np.testing.assert_array_equal(loaded.predict(given, verbose=0), expected)


# In objectives


SWITCHES = {"unpooling": "switches"}
OBJECTIVES = {
    "tied": Autoencoder(tied=True, **SWITCHES),
    "denoising": DenoisingAutoencoder(Gaussian(0.1), **SWITCHES),
    "sparse": SparseAutoencoder(norm="l1", tied=True, **SWITCHES),
    "contractive": ContractiveAutoencoder(samples=1, **SWITCHES),
}
FIRST = {"data_format": "channels_first"}
STAGES = {
    "1d": ((7, 2), [layers.Conv1D(3, 3), layers.MaxPooling1D(2)]),
    "2d": (
        (8, 7, 2),
        [layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D(), layers.Dropout(0.5)],
    ),
    "2d, activation behind": (
        (8, 7, 2),
        [
            layers.Conv2D(3, 3, padding="same"),
            layers.BatchNormalization(),
            layers.MaxPooling2D((3, 2), padding="same"),
            layers.ReLU(),
        ],
    ),
    "2d, channels first": (
        (2, 8, 7),
        [layers.Conv2D(3, 3, **FIRST), layers.MaxPooling2D(2, **FIRST)],
    ),
    "3d": ((4, 5, 4, 1), [layers.Conv3D(2, 2), layers.MaxPooling3D(2)]),
}


def stage(name):
    shape, stack = STAGES[name]
    return split_stages(sequential(shape, *map(copied, stack)), head=0)[0]


def copied(layer):
    return type(layer).from_config(layer.get_config())


def decoded(decoder, layer, code, image):
    """What a decoder makes of a code, unpooled by NumPy to where the maxima of an image were."""
    order = (
        [0, *range(2, code.ndim), 1] if layer.data_format == "channels_first" else range(code.ndim)
    )
    values, pixels = code.transpose(order), image.transpose(order)
    whole = unpooled(values, pixels, layer.pool_size, layer.padding)
    return array(decoder(whole.transpose(np.argsort(order))))


@pytest.mark.parametrize(
    "name, kind", [*((s, "tied") for s in STAGES), *(("2d", o) for o in OBJECTIVES)]
)
def test_decoders_read_what_was_unpooled(name, kind):
    own, objective = stage(name), OBJECTIVES[kind].decided(False)
    learner = objective.build(own, 0)
    inputs = objective.inputs(
        ops.convert_to_tensor(uniform(2, *own.features_in)), np.array([1, 2], "int32")
    )
    (place,) = [i for i, layer in enumerate(own.operations) if "pool" in layer.name]
    with as_products():
        image = inputs["x"]
        for layer in own.operations[:place]:
            image = layer(image, training=False) if "norm" in layer.name else layer(image)
        code = array(own(inputs["x"]))
        expected = decoded(learner.decoder, own.operations[place], code, array(image))
        found = learner(inputs)
    np.testing.assert_allclose(array(found["code"]), code, rtol=1e-6)
    np.testing.assert_allclose(array(found["reconstruction"]), expected, rtol=1e-5, atol=1e-6)


def network(seed=0):
    """Two stages that end with a pooling, and a third without."""
    keras.utils.set_random_seed(seed)
    stack = [
        *(
            layers.Conv2D(3, 3, activation="sigmoid", padding="same", name="a"),
            layers.MaxPooling2D(),
        ),
        *(
            layers.Conv2D(2, 3, activation="sigmoid", padding="same", name="b"),
            layers.MaxPooling2D(),
        ),
    ]
    return sequential(
        (8, 8, 2), *stack, layers.Flatten(), layers.Dense(4, name="c"), layers.Dense(3)
    )


X = uniform(24, 8, 8, 2)
STACK = [Autoencoder(tied=True, **SWITCHES), Autoencoder(**SWITCHES), Autoencoder()]
OPTIONS = {"objective": STACK, "epochs": 2, "batch_size": 8, "verbose": 0, "learning_rate": 0.01}


def reconstructed(model, report, x):
    """A reconstruction by way of all stages, with NumPy's unpooling."""
    a, first, b, second, flat, c, _ = model.layers
    decoders = [trained.decoders[0] for trained in report.stages]
    images = [a(x)]
    images.append(b(first(images[0])))
    code = sigmoid(array(decoders[2](c(flat(second(images[1])))))).reshape(-1, 2, 2, 2)
    code = sigmoid(decoded(decoders[1], second, code, array(images[1])))
    return sigmoid(decoded(decoders[0], first, code, array(images[0])))


def test_a_stack_is_trained_unrolled_saved_and_loaded(tmp_path):
    model = network()
    report = greedy_pretrain(model, X, **OPTIONS)
    losses = report.stages[0].history["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    deep = unroll(model, report)
    expected = reconstructed(model, report, X)
    np.testing.assert_allclose(deep.reconstruct(X), expected, rtol=1e-4, atol=1e-5)
    assert deep.encode(X).shape == (24, 4)
    deep.save(tmp_path / "deep.keras")
    loaded = keras.saving.load_model(tmp_path / "deep.keras")
    np.testing.assert_allclose(loaded.reconstruct(X), expected, rtol=1e-4, atol=1e-5)
    assert len(loaded.trainable_variables) == len(deep.trainable_variables)


def test_joint_training_is_what_keras_makes_of_the_unrolled_stack():
    model, copy = network(), network()
    options = {**OPTIONS, "epochs": 1}
    reports = [greedy_pretrain(m, X, **options) for m in (model, copy)]
    same = {"epochs": 2, "batch_size": len(X), "verbose": 0}
    rate = keras.optimizers.SGD(0.3)
    report = joint_pretrain(model, X, report=reports[0], optimizer=rate, **same)
    deep = unroll(copy, reports[1])
    deep.compile(keras.optimizers.SGD(0.3), "binary_crossentropy")
    history = deep.fit(X, X, **same).history
    np.testing.assert_allclose(report.history["loss"], history["loss"], rtol=1e-4)
    for one, other in zip(values(model), values(copy), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_member_is_what_it_is_alone():
    population, alone = (Population(network, seeds=seeds) for seeds in ((3, 4), (4,)))
    both, one = (greedy_pretrain(p, X, **OPTIONS) for p in (population, alone))
    for found, expected in zip(values(population.member(1)), values(alone.member(0)), strict=True):
        np.testing.assert_array_equal(found, expected)
    deep = unroll(population.member(1), both, member=1)
    np.testing.assert_array_equal(deep.reconstruct(X), unroll(alone.member(0), one).reconstruct(X))


def test_codes_alone_are_not_decoded():
    convolution = [layers.Conv2D(2, 3, name="a"), layers.MaxPooling2D()]
    model, x = sequential((4, 4, 1), *convolution, layers.Dense(3)), uniform(8, 4, 4, 1)
    objective = [Autoencoder(**SWITCHES), VariationalAutoencoder(latent=2)]
    report = greedy_pretrain(model, x, objective, epochs=1, batch_size=8, head=0, verbose=0)
    deep = unroll(model, report)
    calls = [
        lambda: deep.decode(deep.encode(x)),
        lambda: deep.sample(2),
        lambda: deep.latent_grid(2),
        lambda: deep.interpolate(x[0], x[1], 3),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"Expected `reconstruct\(x\)`.*outputs of \['a'\]"):
            call()


@pytest.mark.parametrize(
    "stack, message",
    [
        ([layers.Conv2D(3, 3)], "stage that ends with one MaxPooling.*Received: stage 'conv2d"),
        ([layers.Conv2D(3, 3), layers.MaxPooling2D(), layers.Flatten()], "Received: stage"),
        ([layers.Conv2D(3, 3), layers.MaxPooling2D(), layers.MaxPooling2D()], "Received: stage"),
        ([layers.Conv2D(3, 3), layers.MaxPooling2D(3, strides=1)], "pool_size=.*strides="),
        ([layers.Conv2D(3, 3), layers.AveragePooling2D(2)], "Received: stage"),
    ],
)
def test_stages_that_cannot_be_unpooled_are_refused(stack, message):
    (own,) = split_stages(sequential((8, 8, 2), *map(copied, stack)), head=0)
    with pytest.raises(ValueError, match=message):
        Autoencoder(**SWITCHES).build(own, 0)


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="`unpooling` must be.*Received: unpooling='places'"):
        Autoencoder(unpooling="places")
