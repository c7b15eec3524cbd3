"""Architectures by objectives: which stages an objective can train, and which it refuses in words.

`python tests/pretrain/test_architectures.py` prints the table.
"""

from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, uniform

import pretrain
from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    RestrictedBoltzmannMachine,
    SparseAutoencoder,
    SupervisedGreedy,
    VariationalAutoencoder,
    greedy_pretrain,
    split_stages,
)
from pretrain.convolutions import as_products

OBJECTIVES = {
    "denoising": DenoisingAutoencoder(),
    "tied": Autoencoder(tied=True),
    "sparse": SparseAutoencoder(norm="l1"),
    "contractive": ContractiveAutoencoder(samples=1),
    "variational": VariationalAutoencoder(latent=2),
    "boltzmann": RestrictedBoltzmannMachine(),
    "supervised": SupervisedGreedy(2),
}
IMAGE, SIGNAL, VIDEO, VOLUME = (8, 8, 2), (8, 2), (2, 6, 6, 1), (4, 4, 4, 1)
CHANNELS_FIRST = {"data_format": "channels_first"}


def sequential(shape, *build, head=True):
    def model():
        stack = [function() for function in build]
        tail = [layers.Flatten(), layers.Dense(2)] if head else []
        return keras.Sequential([keras.Input(shape), *stack, *tail])

    return model


def functional(shape, function, **options):
    def model():
        inputs = keras.Input(shape, **options)
        return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(function(inputs))))

    return model


def conv(filters=2, **options):
    options = {"kernel_size": 3, "padding": "same", "activation": "relu", **options}
    return layers.Conv2D(filters, **options)


def residual(x):
    x = conv()(x)
    return layers.Add()([x, conv()(layers.BatchNormalization()(conv()(x)))])


def unet(x):
    a = conv()(x)
    b = layers.UpSampling2D()(conv(3)(layers.MaxPooling2D()(a)))
    return conv()(layers.Concatenate()([a, b]))


def dense_net(x):
    for _ in range(2):
        x = layers.Concatenate()([x, conv()(x)])
    return x


def inception(x):
    return layers.Concatenate()([conv(kernel_size=k)(x) for k in (1, 3)])


def squeeze(x):
    x = conv(4)(x)
    weights = layers.Dense(4, "sigmoid")(
        layers.Dense(2, "relu")(layers.GlobalAveragePooling2D()(x))
    )
    return layers.Multiply()([x, layers.Reshape((1, 1, 4))(weights)])


def attention(x):
    return layers.Add()([x, layers.MultiHeadAttention(1, 2, dropout=0.1)(x, x)])


def transformer(x):
    x = attention(layers.Dense(4)(x))
    x = layers.LayerNormalization()(x)
    return layers.Add()([x, layers.Dense(4)(layers.Dense(6, "gelu")(x))])


def vision_transformer(x):
    return transformer(layers.Reshape((4, 4))(conv(4, kernel_size=4, strides=4)(x)))


def shared(x):
    layer = layers.Dense(6, "tanh")
    return layer(layers.Dense(6)(layer(layers.Dense(6)(x))))


def nested(x):
    inner = keras.Sequential([keras.Input(IMAGE), conv(), layers.MaxPooling2D()])
    return conv()(inner(x))


def highway(x):
    x = layers.Dense(5)(x)
    gate = layers.Dense(5, "sigmoid")(x)
    return layers.Add()([layers.Multiply()([gate, layers.Dense(5, "relu")(x)]), x])


def frozen():
    model = sequential((6,), lambda: layers.Dense(5), lambda: layers.Dense(4))()
    model.layers[0].trainable = False
    return model


def words(x):
    return layers.LSTM(3)(layers.Embedding(9, 3, mask_zero=True)(x))


def application(name, end=None):
    """One of Keras's applications without weights, maybe only up to the layer `end`."""

    def model():
        options = {"weights": None, "input_shape": (32, 32, 3), "classes": 10}
        whole = getattr(keras.applications, name)(**options)
        if end is None:
            return whole
        last = whole.get_layer(end).output
        return keras.Model(whole.input, layers.Dense(2)(layers.Flatten()(last)))

    return model


UNTIED = "denoising sparse contractive variational supervised"
ALL = UNTIED + " tied"
# name: (build, the objectives that train all its stages)
ARCHITECTURES = {
    "dense, sigmoid": (
        sequential((6,), lambda: layers.Dense(5, "sigmoid"), lambda: layers.Dense(4, "sigmoid")),
        ALL + " boltzmann",
    ),
    "dense, relu": (sequential((6,), lambda: layers.Dense(5, "relu")), ALL),
    "dense, softmax": (sequential((6,), lambda: layers.Dense(5, "softmax")), ALL),
    "dense, batch normalization": (
        sequential((6,), lambda: layers.Dense(5), layers.BatchNormalization, layers.ReLU),
        ALL,
    ),
    "dense, layer normalization": (
        sequential((6,), lambda: layers.Dense(5), layers.LayerNormalization),
        ALL,
    ),
    "dense, dropout": (
        sequential((6,), lambda: layers.Dense(5, "sigmoid"), lambda: layers.Dropout(0.5)),
        ALL + " boltzmann",
    ),
    "dense, PReLU": (sequential((6,), lambda: layers.Dense(5), layers.PReLU), ALL),
    "dense, mixed precision": (
        sequential((6,), lambda: layers.Dense(5, "sigmoid", dtype="mixed_bfloat16")),
        ALL + " boltzmann",
    ),
    "dense of sequences": (sequential(SIGNAL, lambda: layers.Dense(3, "tanh")), ALL),
    "highway": (functional((6,), highway), UNTIED),
    "shared layer": (functional((6,), shared), ""),
    "convolution": (sequential(IMAGE, conv), ALL),
    "convolution, strides": (
        sequential(IMAGE, lambda: conv(strides=2), lambda: conv(padding="valid")),
        ALL,
    ),
    "convolution, pooling": (sequential(IMAGE, conv, layers.MaxPooling2D, lambda: conv(3)), ALL),
    "convolution, batch normalization": (
        sequential(IMAGE, conv, layers.BatchNormalization, layers.ReLU),
        ALL,
    ),
    "convolution, dilated": (sequential(IMAGE, lambda: conv(dilation_rate=2)), ALL),
    "convolution, channels first": (sequential((2, 8, 8), lambda: conv(3, **CHANNELS_FIRST)), ALL),
    "convolution, groups": (sequential(IMAGE, lambda: conv(groups=2)), UNTIED),
    "convolution, spectral": (
        sequential(IMAGE, lambda: layers.SpectralNormalization(conv())),
        UNTIED,
    ),
    "convolution, then global": (sequential(IMAGE, conv, layers.GlobalAveragePooling2D), ALL),
    "separable": (sequential(IMAGE, lambda: layers.SeparableConv2D(3, 3)), UNTIED),
    "depthwise": (sequential(IMAGE, lambda: layers.DepthwiseConv2D(3)), UNTIED),
    "transposed": (sequential(IMAGE, lambda: layers.Conv2DTranspose(3, 3, strides=2)), UNTIED),
    "one-dimensional": (sequential(SIGNAL, lambda: layers.Conv1D(3, 3, strides=2)), ALL),
    "causal": (sequential(SIGNAL, lambda: layers.Conv1D(3, 3, padding="causal")), UNTIED),
    "three-dimensional": (sequential(VOLUME, lambda: layers.Conv3D(2, 3)), ALL),
    "residual": (
        functional(IMAGE, residual),
        "denoising sparse contractive variational supervised",
    ),
    "U-net": (functional(IMAGE, unet), UNTIED),
    "DenseNet": (functional(IMAGE, dense_net), UNTIED),
    "inception": (functional(IMAGE, inception), UNTIED),
    "squeeze and excitation": (functional(IMAGE, squeeze), UNTIED),
    "nested": (functional(IMAGE, nested), ALL),
    "patches and attention": (functional(IMAGE, vision_transformer), UNTIED),
    "transformer": (functional((4, 3), transformer), UNTIED),
    "LSTM": (sequential(SIGNAL, lambda: layers.LSTM(3)), UNTIED),
    "LSTM of LSTM": (
        sequential(SIGNAL, lambda: layers.LSTM(3, return_sequences=True), lambda: layers.LSTM(2)),
        UNTIED,
    ),
    "LSTM, masked": (
        sequential(
            SIGNAL,
            layers.Masking,
            lambda: layers.LSTM(3, return_sequences=True),
            lambda: layers.LSTM(2),
        ),
        UNTIED,
    ),
    "GRU, dropout": (sequential(SIGNAL, lambda: layers.GRU(3, dropout=0.2)), UNTIED),
    "simple recurrence": (sequential(SIGNAL, lambda: layers.SimpleRNN(3)), UNTIED),
    "bidirectional": (sequential(SIGNAL, lambda: layers.Bidirectional(layers.LSTM(2))), UNTIED),
    "convolutional LSTM": (sequential(VIDEO, lambda: layers.ConvLSTM2D(2, 3)), UNTIED),
    "frames": (sequential(VIDEO, lambda: layers.TimeDistributed(conv())), UNTIED),
    "embedding": (functional((4,), words, dtype="int32"), "supervised"),
    "frozen first layer": (frozen, ALL),
    "ResNet50": (application("ResNet50", "conv2_block2_out"), UNTIED),
    "MobileNetV2": (application("MobileNetV2", "expanded_conv_project_BN"), UNTIED),
    "EfficientNetV2B0": (application("EfficientNetV2B0", "block2b_add"), UNTIED),
    "DenseNet121": (application("DenseNet121", "conv2_block2_concat"), UNTIED),
}
# All the stages of the applications, of which the table has the first.
STAGES = {"ResNet50": 17, "MobileNetV2": 32, "EfficientNetV2B0": 34, "DenseNet121": 62}


def outcome(model, objective):
    """`None` if an objective trains all stages of a model, or the words of the refusal."""
    keras.utils.set_random_seed(0)
    key = ops.convert_to_tensor([1, 2], "int32")
    try:
        for stage in split_stages(model):
            x = ops.convert_to_tensor(uniform(2, *stage.features_in))
            x = ops.cast(x, "int32") if stage.reads_tokens else x
            decided = objective.decided(binary=True)
            learner = decided.build(stage, 0)
            # Outside of a program, Keras computes no convolution of channels first on a processor.
            first = getattr(stage.convolution, "data_format", None) == "channels_first"
            with as_products() if first else nullcontext():
                scores = decided.scores(x, np.array([0, 1]), learner(decided.inputs(x, key)))
            assert all(np.isfinite(array(score)).all() for score in scores)
    except ValueError as error:
        return str(error)
    return None


FAST = (
    *("dense, sigmoid", "convolution, pooling", "convolution, channels first", "residual"),
    *("LSTM, masked", "causal", "patches and attention", "embedding", "shared layer"),
)


def params():
    slow = {name: () if name in FAST else pytest.mark.slow for name in ARCHITECTURES}
    return [pytest.param(name, marks=marks) for name, marks in slow.items()]


@pytest.mark.parametrize("name", params())
def test_every_objective_trains_an_architecture_or_refuses_in_words(name):
    build, works = ARCHITECTURES[name]
    model = build()
    found = {kind: outcome(model, objective) for kind, objective in OBJECTIVES.items()}
    assert {kind for kind, refusal in found.items() if refusal is None} == set(works.split()), found
    for refusal in filter(None, found.values()):
        assert "Received: stage" in refusal and "Exception encountered" not in refusal


# What compiles for a minute with the Jacobian of a contractive autoencoder compiles with others.
COMPILED = {
    **dict.fromkeys(("LSTM", "causal"), tuple(OBJECTIVES)),
    "U-net": ("denoising", "contractive"),
    **dict.fromkeys(("convolutional LSTM", "frames"), ("denoising",)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pretrain.report.PretrainingWarning")
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kinds in COMPILED.items() for kind in kinds]
)
def test_what_works_works_in_a_compiled_program(name, kind):
    build, works = ARCHITECTURES[name]
    if kind not in works.split():
        pytest.skip("refused")
    model, objective = build(), OBJECTIVES[kind]
    x, y = uniform(8, *model.input_shape[1:]), np.arange(8) % 2
    targets = {"y": y} if objective.needs_targets else {}
    report = greedy_pretrain(model, x, objective, epochs=1, batch_size=4, verbose=0, **targets)
    assert np.isfinite(report.history["loss"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pretrain.report.PretrainingWarning")
@pytest.mark.parametrize("name", STAGES)
def test_applications_are_cut_at_every_block_and_pretrained(name):
    model = application(name)()
    assert len(split_stages(model)) == STAGES[name]
    x, options = uniform(4, 32, 32, 3), {"epochs": 1, "batch_size": 4, "verbose": 0}
    report = greedy_pretrain(model, x, Autoencoder(), stages=2, **options)
    assert np.isfinite(report.history["loss"]).all()


def table():
    """The architectures by objectives, as a table of Markdown."""
    rows = [["architecture", *OBJECTIVES], ["---"] * (len(OBJECTIVES) + 1)]
    for name, (_, works) in ARCHITECTURES.items():
        rows.append([name, *("works" if kind in works.split() else "–" for kind in OBJECTIVES)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_documentation_has_the_table():
    page = Path(pretrain.__file__).parent / "docs" / "architectures.md"
    assert table() in page.read_text()


if __name__ == "__main__":
    print(table())
