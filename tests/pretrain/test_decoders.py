import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian, sequential, uniform

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    SupervisedGreedy,
    VariationalAutoencoder,
    split_stages,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")


def stage_of(input_shape, *stack):
    model = sequential(input_shape, *stack, layers.Flatten(), layers.Dense(2))
    return split_stages(model)[0]


def weights_of(layer):
    return [array(w) for w in layer.weights]


def reconstruction(stage, seed=0, **options):
    return Autoencoder(**options).build(stage, seed)


def reconstructed(layer, x):
    return layer({"x": ops.convert_to_tensor(x)})["reconstruction"]


def test_a_dense_decoder_equals_numpy():
    stage = stage_of((6,), layers.Dense(4, activation="tanh"))
    layer = reconstruction(stage)
    x = uniform(3, 6)
    kernel, bias = weights_of(stage)
    decoder_kernel, decoder_bias = weights_of(layer.decoder)
    decoder_bias = decoder_bias + 0.5
    layer.decoder.weights[1].assign(decoder_bias)
    expected = np.tanh(x @ kernel + bias) @ decoder_kernel + decoder_bias
    np.testing.assert_allclose(array(reconstructed(layer, x)), expected, atol=1e-5)


def test_a_tied_dense_decoder_equals_numpy():
    stage = stage_of((6,), layers.Dense(4, activation="tanh"))
    layer = reconstruction(stage, tied=True)
    kernel, bias = weights_of(stage)
    (own,) = [v for v in layer.trainable_variables if id(v) not in map(id, stage.variables)]
    assert tuple(own.shape) == (6,)
    own.assign(uniform(6))
    x = uniform(3, 6)
    expected = np.tanh(x @ kernel + bias) @ kernel.T + uniform(6)
    np.testing.assert_allclose(array(reconstructed(layer, x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "input_shape, build",
    [
        ((6,), lambda: [layers.Dense(4)]),
        ((6,), lambda: [layers.Dense(4, use_bias=False), layers.BatchNormalization()]),
        ((6, 5, 2), lambda: [layers.Conv2D(4, 3), layers.MaxPooling2D()]),
        ((6, 2), lambda: [layers.Conv1D(4, 3, padding="same", strides=2)]),
    ],
)
def test_tied_weights_are_one_variable(input_shape, build):
    stage = stage_of(input_shape, *build())
    layer = reconstruction(stage, tied=True)
    assert len(layer.trainable_variables) == len(stage.trainable_variables) + 1
    untied = reconstruction(stage)
    assert len(untied.trainable_variables) == len(stage.trainable_variables) + 2
    # Changing the stage's kernel changes the decoder.
    code = ops.convert_to_tensor(uniform(2, *stage.features_out))
    before = array(layer.decoder(code))
    kernel = stage.projection.operation.kernel
    kernel.assign(2 * kernel)
    np.testing.assert_allclose(array(layer.decoder(code)), 2 * before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [Autoencoder, ContractiveAutoencoder])
@pytest.mark.parametrize(
    "input_shape, layer, fans",
    [((60,), lambda: layers.Dense(50), 110), ((8, 8, 20), lambda: layers.Conv2D(40, 3), 9 * 60)],
    ids=["dense", "convolutional"],
)
def test_the_gain_is_a_factor_of_glorots_weights(input_shape, layer, fans, objective):
    """Glorot & Bengio (2010), equation 16: U[-sqrt(6 / (n + m)), sqrt(6 / (n + m))]."""
    stage = stage_of(input_shape, layer())
    for gain in (1, 4):
        kernel, bias = weights_of(objective(decoder_gain=gain).build(stage, 3).decoder)
        limit = gain * np.sqrt(6 / fans)
        assert 0.98 * limit < abs(kernel).max() <= limit * (1 + 1e-6)
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.05)
        assert not bias.any()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "input_shape, build",
    [((6,), lambda: layers.Dense(4)), ((7, 6, 2), lambda: layers.Conv2D(4, 3, strides=2))],
)
def test_a_decoder_can_be_saved(tmp_path, tied, input_shape, build):
    stage = stage_of(input_shape, build())
    decoder = reconstruction(stage, tied=tied).decoder
    decoder.save(tmp_path / "decoder.keras")
    loaded = keras.models.load_model(tmp_path / "decoder.keras")
    code = ops.convert_to_tensor(uniform(2, *stage.features_out))
    np.testing.assert_array_equal(array(loaded(code)), array(decoder(code)))


CONVOLUTIONS = [layers.Conv1D, layers.Conv2D, layers.Conv3D]


def adjoint_cases():
    for size in (8, 11):
        for kernel in (2, 3, 5):
            for stride in (1, 2, 3):
                for padding in ("valid", "same"):
                    yield 1, (size,), kernel, stride, 1, padding
    for padding in ("valid", "same"):
        yield 1, (11,), 3, 1, 2, padding
        yield 2, (11, 10), 3, 1, 2, padding
        yield 2, (9, 6), (3, 2), 1, 1, padding
        yield 2, (9, 6), (3, 2), (2, 3), 1, padding
        yield 2, (7, 11), 5, (3, 2), 1, padding
        yield 3, (5, 4, 7), 3, 2, 1, padding


@pytest.mark.parametrize("rank, size, kernel, stride, dilation, padding", list(adjoint_cases()))
def test_a_tied_convolution_is_the_adjoint(rank, size, kernel, stride, dilation, padding):
    convolution = CONVOLUTIONS[rank - 1](
        3, kernel, strides=stride, dilation_rate=dilation, padding=padding, use_bias=False
    )
    stage = stage_of((*size, 2), convolution)
    decoder = reconstruction(stage, tied=True).decoder
    x = ops.convert_to_tensor(gaussian(4, *stage.features_in, seed=1))
    y = ops.convert_to_tensor(gaussian(4, *stage.features_out, seed=2))
    forward = (array(stage(x)) * array(y)).sum()
    backward = (array(x) * array(decoder(y))).sum()
    np.testing.assert_allclose(forward, backward, rtol=1e-4, atol=1e-3)


def test_pixels_of_a_pooled_code_are_decoded_in_place():
    # A code that is bright in one corner is decoded to an image that is bright there.
    stage = stage_of((8, 8, 1), layers.Conv2D(1, 3, padding="same"), layers.MaxPooling2D(4))
    for tied in (False, True):
        decoder = reconstruction(stage, tied=tied).decoder
        for variable in [stage.projection.operation.kernel, *decoder.trainable_variables]:
            variable.assign(ops.ones(variable.shape) * (len(variable.shape) > 1))
        code = np.zeros((1, 2, 2, 1), "float32")
        code[0, 1, 0] = 1
        image = array(decoder(ops.convert_to_tensor(code)))[0, :, :, 0]
        assert image[4:, :4].min() > 0
        assert image[:3].max() == image[:, 5:].max() == 0


def test_a_decoder_of_images_has_few_weights():
    # One projection of the kind of the stage's: a convolution, not a matrix of all pixels.
    stage = stage_of((16, 16, 3), layers.Conv2D(8, 5, strides=2, padding="same"))
    decoder = reconstruction(stage).decoder
    assert decoder.count_params() == 5 * 5 * 8 * 3 + 3
    assert len([layer for layer in decoder.layers if layer.weights]) == 1


@pytest.mark.parametrize(
    "input_shape, build",
    [
        ((5, 3), lambda: [layers.LSTM(4)]),
        ((8, 8, 2), lambda: [layers.SeparableConv2D(4, 3)]),
        ((8, 8, 2), lambda: [layers.DepthwiseConv2D(3)]),
        ((8, 8, 2), lambda: [layers.Conv2D(4, 3, groups=2)]),
        ((8, 8, 2), lambda: [layers.Conv2DTranspose(4, 3)]),
        ((9, 2), lambda: [layers.Conv1D(4, 3, padding="causal")]),
        ((6,), lambda: [layers.Dense(4), layers.Lambda(lambda x: x[:, :2])]),
    ],
)
def test_stages_that_have_no_transpose_refuse_tied_weights(input_shape, build):
    stage = stage_of(input_shape, *build())
    with pytest.raises(ValueError, match="Tied weights need.*tied=False.*Received: stage"):
        reconstruction(stage, tied=True)
    layer = reconstruction(stage)
    x = ops.convert_to_tensor(uniform(2, *input_shape))
    assert tuple(reconstructed(layer, x).shape) == (2, *input_shape)


def test_tied_weights_do_not_undo_a_permutation():
    inputs = keras.Input((4, 3))
    h = layers.Permute((2, 1))(layers.Dense(3, name="a")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, name="b")(h)))
    stage = split_stages(model)[1]
    with pytest.raises(ValueError, match="Tied weights need"):
        reconstruction(stage, tied=True)


def of_size(size, stack, channels=3):
    inputs = keras.Input((*size, channels))
    return keras.Model(inputs, layers.Dense(2)(keras.Sequential(stack)(inputs)))


def test_sizes_must_be_known():
    (stage,) = split_stages(of_size((None,), [layers.Conv1D(4, 3)]))
    with pytest.raises(ValueError, match=r"input_shape=x\.shape\[1:\].*Received: stage .*None"):
        reconstruction(stage)


CONV = {"padding": "same"}
OF_ANY_SIZE = {
    "signals": (1, lambda: [layers.Conv1D(4, 3)], True),
    "steps": (1, lambda: [layers.Dense(4)], True),
    "recurrent": (1, lambda: [layers.LSTM(4, return_sequences=True)], False),
    "frames": (1, lambda: [layers.TimeDistributed(layers.Dense(4))], False),
    "pooling": (2, lambda: [layers.Conv2D(4, 3, 2, **CONV), layers.MaxPooling2D()], True),
    "dilated": (2, lambda: [layers.Conv2D(4, 5, dilation_rate=2, **CONV)], True),
}


@pytest.mark.parametrize(
    "name, tied", [(n, t) for n, (*_, ties) in OF_ANY_SIZE.items() for t in {False, ties}]
)
def test_a_decoder_of_any_size_is_that_of_each_size(name, tied):
    rank, build, _ = OF_ANY_SIZE[name]
    stack = build()
    model = of_size((None,) * rank, stack)
    (found,) = split_stages(model, input_shape=(8,) * rank + (3,))
    decoder = reconstruction(found, tied=tied).decoder
    for size in ((8, 8), (16, 12)):
        (stage,) = split_stages(of_size(size[:rank], stack))
        expected = reconstruction(stage, tied=tied).decoder
        for variable, value in zip(decoder.weights, expected.weights, strict=True):
            value.assign(variable)
        code = ops.convert_to_tensor(uniform(2, *stage.features_out))
        np.testing.assert_allclose(array(decoder(code)), array(expected(code)), atol=1e-6)
        assert expected.output_shape == (None, *size[:rank], 3)


class Block(layers.Layer):
    """A custom layer around convolutions, whose inside cannot be cut."""

    def __init__(self, filters, data_format="channels_last", **options):
        super().__init__(**options)
        self.a = layers.Conv2D(filters, 3, padding="same", data_format=data_format)
        self.b = layers.Conv2D(filters, 3, strides=2, padding="same", data_format=data_format)

    def build(self, input_shape):
        self.a.build(input_shape)
        self.b.build(self.a.compute_output_shape(input_shape))

    def call(self, x):
        return self.b(keras.ops.relu(self.a(x)))


def frames(*stack):
    return layers.TimeDistributed(keras.Sequential(list(stack)))


CHANNELS_FIRST = {"data_format": "channels_first", "padding": "same"}
BY_SHAPES = {
    "custom block": ((8, 6, 2), lambda: [Block(4)]),
    "custom block, channels first": ((2, 8, 6), lambda: [Block(4, "channels_first")]),
    "channels first": ((2, 8, 6), lambda: [layers.Conv2D(4, 3, strides=2, **CHANNELS_FIRST)]),
    "channels first, one axis": (
        (2, 8),
        lambda: [layers.Conv1D(4, 3, strides=2, **CHANNELS_FIRST)],
    ),
    "wrapped": ((8, 6, 2), lambda: [layers.SpectralNormalization(layers.Conv2D(4, 3))]),
    "frames": ((3, 8, 6, 2), lambda: [layers.TimeDistributed(layers.Conv2D(4, 3, strides=2))]),
    "steps of images": ((3, 8, 6, 2), lambda: [layers.ConvLSTM2D(4, 3, return_sequences=True)]),
    "last of images": ((3, 8, 6, 2), lambda: [layers.ConvLSTM2D(4, 3)]),
    "last of signals": ((3, 8, 2), lambda: [layers.ConvLSTM1D(4, 3)]),
    "patches": ((8, 12, 2), lambda: [layers.Conv2D(4, 4, strides=4), layers.Reshape((6, 4))]),
    "pooled steps": (
        (8, 2),
        lambda: [layers.LSTM(4, return_sequences=True), layers.MaxPooling1D()],
    ),
}


@pytest.mark.parametrize("name", BY_SHAPES)
def test_decoders_of_images_convolve_whatever_the_layer(name):
    input_shape, build = BY_SHAPES[name]
    stage = stage_of(input_shape, *build())
    decoder = reconstruction(stage).decoder
    assert decoder.output_shape[1:] == input_shape
    # A matrix of all outputs by all inputs would have more weights for larger images.
    assert decoder.count_params() < 500
    assert tuple(decoder(ops.zeros((2, *stage.features_out))).shape) == (2, *input_shape)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("tied", [True, False])
def test_decoders_do_not_depend_on_the_order_of_axes(data_format, tied):
    shape = (7, 6, 2) if data_format == "channels_last" else (2, 7, 6)
    convolution = layers.Conv2D(4, 3, strides=2, padding="same", data_format=data_format)
    convolution.build((None, *shape))
    convolution.kernel.assign(uniform(3, 3, 2, 4))
    stage = split_stages(sequential(shape, convolution), head=0)[0]
    decoder = reconstruction(stage, tied=tied).decoder
    code = uniform(2, 4, 3, 4)
    moved = code if data_format == "channels_last" else np.moveaxis(code, -1, 1)
    image = array(decoder(ops.convert_to_tensor(moved)))
    image = image if data_format == "channels_last" else np.moveaxis(image, 1, -1)
    model = sequential((7, 6, 2), layers.Conv2D(4, 3, strides=2, padding="same"))
    plain = split_stages(model, head=0)[0]
    plain.projection.operation.kernel.assign(convolution.kernel)
    expected = reconstruction(plain, tied=tied).decoder(ops.convert_to_tensor(code))
    np.testing.assert_allclose(image, array(expected), rtol=1e-5, atol=1e-6)


def test_frames_are_decoded_one_by_one():
    for stack in ([layers.Conv2D(4, 3, strides=2)], [layers.Flatten(), layers.Dense(5)]):
        stage = stage_of((3, 8, 6, 2), frames(*stack))
        decoder = reconstruction(stage).decoder
        code = uniform(1, *stage.features_out)
        before = array(decoder(ops.convert_to_tensor(code)))
        code[0, 1] += 1
        changed = (array(decoder(ops.convert_to_tensor(code))) != before).any(axis=(0, 2, 3, 4))
        assert changed.tolist() == [False, True, False]


class Global(layers.Layer):
    """A layer that is small itself but would need a gigantic matrix for a decoder."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 4), name="kernel")

    def call(self, x):
        return keras.ops.reshape(keras.ops.matmul(x, self.kernel), (-1, 300 * 300 * 4))


def test_gigantic_decoders_are_refused_with_their_size():
    stage = split_stages(sequential((300, 300, 3), Global(name="wide")), head=0)[0]
    words = r"97,200,000,000 weights \(362.1 GiB\).*SupervisedGreedy.*Received: stage 'wide'"
    for objective in (Autoencoder(), VariationalAutoencoder()):
        with pytest.raises(ValueError, match=words):
            objective.build(stage, 0)


@pytest.mark.parametrize("name", ["custom block", "custom block, channels first", "frames"])
def test_the_head_of_images_reads_means(name):
    input_shape, build = BY_SHAPES[name]
    stage = stage_of(input_shape, *build())
    for k in (1, 2):
        head = SupervisedGreedy(3, k=k).build(stage, 0).head
        assert head.output_shape == (None, 3)
        assert head.layers[-1].kernel.shape == (4, 3)


class Tokens(layers.Layer):
    """An embedding of tokens and of their positions."""

    def __init__(self, **options):
        super().__init__(**options)
        self.tokens, self.positions = layers.Embedding(9, 3), layers.Embedding(4, 3)

    def build(self, input_shape):
        self.tokens.build(input_shape)
        self.positions.build((4,))

    def call(self, x):
        return self.tokens(x) + self.positions(ops.arange(4))


class Positions(layers.Layer):
    """A projection to which an embedding of the positions is added."""

    def __init__(self, **options):
        super().__init__(**options)
        self.project, self.positions = layers.Dense(3), layers.Embedding(4, 3)

    def build(self, input_shape):
        self.project.build(input_shape)
        self.positions.build((4,))

    def call(self, x):
        return self.project(x) + self.positions(ops.arange(4))


@pytest.mark.parametrize("embed", [lambda: Tokens(), lambda: layers.Embedding(9, 3)])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_integers_are_not_reconstructed(embed, dtype):
    inputs = keras.Input((4,), dtype=dtype)
    model = keras.Sequential([inputs, embed(), layers.Flatten(), layers.Dense(2)])
    stage = split_stages(model)[0]
    for objective in (Autoencoder(), VariationalAutoencoder()):
        with pytest.raises(ValueError, match="cannot reconstruct integer inputs.*SupervisedGreedy"):
            objective.build(stage, 0)
    learner = SupervisedGreedy(3).build(stage, 0)
    assert tuple(learner({"x": np.ones((2, 4), dtype)})["logits"].shape) == (2, 3)


def test_embeddings_of_positions_read_no_integers():
    layer = reconstruction(stage_of((4, 5), Positions()))
    assert tuple(reconstructed(layer, uniform(2, 4, 5)).shape) == (2, 4, 5)
