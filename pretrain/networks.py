"""Plain, normalized, residual and highway networks of any depth."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import layers

from pretrain import initializers
from pretrain.checks import check_choice, is_count, is_number, positive
from pretrain.seeds import derive

Initializer: TypeAlias = str | dict[str, Any] | keras.Initializer

NORMALIZATIONS = {"batch": layers.BatchNormalization, "layer": layers.LayerNormalization}
SHORTCUTS = ("residual", "highway", "skip_init", "pre_activation")


def mlp(
    input_shape: Sequence[int],
    classes: int = 10,
    *,
    depth: int = 3,
    units: int | Sequence[int] = 200,
    activation: str | Callable | None = "relu",
    normalization: str | None = None,
    shortcut: str | None = None,
    initializer: Initializer = "glorot_uniform",
    head_initializer: Initializer | None = None,
    kernel_regularizer: str | dict[str, Any] | keras.Regularizer | None = None,
    dropout: float = 0.0,
    gate_bias: float = -1.0,
    seed: int | None = None,
) -> keras.Model:
    """Build a multilayer perceptron.

    A layer is Dense, normalization, activation. The output is logits: compile the model with
    `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. Layer i's initial weights depend
    on `seed` and i alone, so layers 1..d are the same in a deeper and a shallower network.

    Example:

    >>> from pretrain import networks
    >>> model = networks.mlp((28, 28, 1), depth=3, units=[100, 100, 50], normalization="batch")
    >>> model.output_shape
    (None, 10)

    Args:
        input_shape: Shape of one example, without the batch axis. An example of rank above 1 is
            flattened.
        classes: Number of classes, at least 1.
        depth: Number of hidden layers, at least 1.
        units: Width of the hidden layers, or one width per layer.
        activation: Name of a Keras activation, a callable, or `None` for linear layers.
        normalization: `None`, `"batch"` (Ioffe & Szegedy, 2015) or `"layer"` (Ba et al., 2016).
            There is no bias in front of batch normalization, which would remove it.
        shortcut: `None`, `"residual"` (He et al., 2015): h + f(W h); `"pre_activation"` (He et al.,
            2016): h + W f(h), with f once more before the classifier and any normalization before
            f, so that what layers add can have either sign; `"skip_init"` (De & Smith, 2020):
            h + a f(W h) with a trainable scalar a = 0 initially, for residual networks without
            normalization; or `"highway"` (Srivastava et al., 2015): T f(W h) + (1 - T) h with the
            gate T = sigmoid(V h + b), b = `gate_bias` initially. A shortcut goes around one layer,
            and the first layer has no shortcut.
        initializer: Initializer of all kernels, as for `pretrain.initializers.get`. Biases start
            at zero.
        head_initializer: Initializer of the classifier's kernel; `None` stands for `initializer`.
            With `"zeros"`, the classifier sends no gradient into pretrained layers before it has
            learned something itself.
        kernel_regularizer: Penalty of all kernels, the classifier's among them: a Keras
            regularizer, its name or its config.
        dropout: Share of the outputs of every hidden layer that training sets to 0 (Srivastava et
            al., 2014), in [0, 1); with a shortcut, of what the layer adds to it.
        gate_bias: Initial bias of the gates of highway layers. At -1, a layer passes on 73 % of its
            input, and little of the input reaches the end of 30 layers; the authors search from -1
            to -10.
        seed: Seed of the initial weights, an integer; `None` draws fresh weights.

    Returns:
        An uncompiled functional model, inputs `(batch, *input_shape)`, outputs `(batch, classes)`.
        Its layers are named `hidden_1`, ..., `normalization_1`, ..., `gate_2`, ..., `scale_2`, ...,
        `head`; what pre-activation networks have before the classifier ends in `_head`, too.

    Raises:
        ValueError: If an argument is out of range, or a shortcut is asked for between layers of
            different widths.
    """
    _check_shape(input_shape)
    widths = _widths("units", units, depth, shortcut)
    settings = (
        *(activation, normalization, shortcut, initializer),
        *(kernel_regularizer, dropout, gate_bias, seed),
    )
    stack = _Stack(layers.Dense, *settings).checked()
    inputs = hidden = keras.Input(tuple(input_shape))
    if len(input_shape) > 1:
        hidden = layers.Flatten(name="flatten")(hidden)
    for layer, width in enumerate(widths, start=1):
        hidden = stack.layer(hidden, layer, width)
    outputs = stack.head(stack.end(hidden), classes, head_initializer)
    return keras.Model(inputs, outputs, name="mlp")


def convnet(
    input_shape: Sequence[int],
    classes: int = 10,
    *,
    depth: int = 4,
    filters: int | Sequence[int] = 32,
    kernel_size: int = 3,
    pooling: Sequence[int] | None = None,
    global_pooling: bool = True,
    activation: str | Callable | None = "relu",
    normalization: str | None = None,
    shortcut: str | None = None,
    initializer: Initializer = "glorot_uniform",
    head_initializer: Initializer | None = None,
    kernel_regularizer: str | dict[str, Any] | keras.Regularizer | None = None,
    dropout: float = 0.0,
    gate_bias: float = -1.0,
    seed: int | None = None,
) -> keras.Model:
    """Build a convolutional network.

    The convolutions have stride 1 and keep the image's size. By default, a 2x2 max pooling follows
    every second convolution as long as the image is at least 4 pixels high and wide, and global
    average pooling and a Dense classifier follow the last convolution. The output is logits:
    compile the model with `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. Layer i's
    initial weights depend on `seed` and i alone, so layers 1..d are the same in a deeper and a
    shallower network.

    Example:

    >>> from pretrain import networks
    >>> model = networks.convnet((8, 8, 1), depth=2, filters=4)
    >>> model.output_shape
    (None, 10)

    Args:
        input_shape: `(height, width, channels)`.
        classes: Number of classes, at least 1.
        depth: Number of convolutions, at least 1.
        filters: Channels of the convolutions, or one number per layer.
        kernel_size: Height and width of the kernels in pixels.
        pooling: Numbers of the convolutions that a 2x2 max pooling follows, from 1 on. Numbers
            above `depth` have no effect, so that networks of all depths can have the same pooling.
        global_pooling: Whether the classifier reads the mean of each channel. If not, it reads all
            pixels of all channels, as in the networks of LeCun et al. (1998).
        normalization: As in `mlp`; layer normalization is over the channels.
        shortcut: As in `mlp`, with convolutions in the place of matrices.
        activation, initializer, head_initializer, kernel_regularizer: As in `mlp`.
        dropout, gate_bias, seed: As in `mlp`.

    Returns:
        An uncompiled functional model, inputs `(batch, height, width, channels)`, outputs `(batch,
        classes)`. Its layers are named like the layers of `mlp`; pooling layers are named
        `pooling_2`, ...

    Raises:
        ValueError: If an argument is out of range, or a shortcut is asked for between layers of
            different widths.
    """
    _check_shape(input_shape, rank=3)
    positive("kernel_size", kernel_size)
    _check_pooling(pooling)
    widths = _widths("filters", filters, depth, shortcut)
    channels_last = {"data_format": "channels_last"}
    project = partial(layers.Conv2D, kernel_size=kernel_size, padding="same", **channels_last)
    settings = (
        *(activation, normalization, shortcut, initializer),
        *(kernel_regularizer, dropout, gate_bias, seed),
    )
    stack = _Stack(project, *settings).checked()
    inputs = hidden = keras.Input(tuple(input_shape))
    for layer, width in enumerate(widths, start=1):
        hidden = stack.layer(hidden, layer, width)
        alternating = layer % 2 == 0 and min(hidden.shape[1:3]) >= 4
        if alternating if pooling is None else layer in pooling:
            hidden = layers.MaxPooling2D(2, **channels_last, name=f"pooling_{layer}")(hidden)
    hidden = stack.end(hidden)
    if global_pooling:
        hidden = layers.GlobalAveragePooling2D(**channels_last, name="global_pooling")(hidden)
    else:
        hidden = layers.Flatten(name="flatten")(hidden)
    return keras.Model(inputs, stack.head(hidden, classes, head_initializer), name="convnet")


@keras.saving.register_keras_serializable("pretrain")
class SkipInit(layers.Layer):
    """The end of a residual branch: a trainable scalar, initially 0, times the branch.

    A residual block that ends in this layer is the identity at first, so that networks of any depth
    can be trained without normalization. Import `pretrain` before you load a saved model with this
    layer.

    Example:

    >>> import numpy as np
    >>> from pretrain import networks
    >>> branch = networks.SkipInit()(np.ones((1, 3), "float32"))
    >>> np.asarray(branch).tolist()
    [[0.0, 0.0, 0.0]]

    Reference:
        [De & Smith, 2020](https://arxiv.org/abs/2002.10444)
    """

    def build(self, input_shape: tuple) -> None:
        self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return self.scale * x


class _Stack(NamedTuple):
    """The settings that all layers of a network have in common, and the layers' construction."""

    project: Callable[..., keras.Layer]
    activation: str | Callable | None
    normalization: str | None
    shortcut: str | None
    initializer: Initializer
    kernel_regularizer: str | dict[str, Any] | keras.Regularizer | None
    dropout: float
    gate_bias: float
    seed: int | None

    def checked(self) -> "_Stack":
        check_choice("normalization", self.normalization, (None, *NORMALIZATIONS))
        check_choice("shortcut", self.shortcut, (None, *SHORTCUTS))
        try:
            keras.activations.get(self.activation)
        except ValueError:
            raise ValueError(
                "`activation` must be the name of a Keras activation, a callable or None. "
                f"Received: activation={self.activation!r}"
            ) from None
        if not is_number(self.gate_bias):
            raise ValueError(
                f"`gate_bias` must be a number. Received: gate_bias={self.gate_bias!r}"
            )
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={self.dropout!r}")
        return self

    def layer(self, hidden: keras.KerasTensor, layer: int, width: int) -> keras.KerasTensor:
        """Add one layer and, from the second layer on, a shortcut around the layer."""
        candidate = self._dropped(self._transform(hidden, layer, width), layer)
        if self.shortcut is None or layer == 1:
            return candidate
        if self.shortcut == "highway":
            candidate = self._gated(hidden, candidate, layer, width)
        if self.shortcut == "skip_init":
            candidate = SkipInit(name=f"scale_{layer}")(candidate)
        return layers.Add(name=f"shortcut_{layer}")([hidden, candidate])

    def head(
        self, hidden: keras.KerasTensor, classes: int, initializer: Initializer | None
    ) -> keras.KerasTensor:
        positive("classes", classes)
        own = self if initializer is None else self._replace(initializer=initializer)
        return layers.Dense(
            classes,
            kernel_initializer=own._kernel("head"),
            kernel_regularizer=self.kernel_regularizer,
            name="head",
        )(hidden)

    def end(self, hidden: keras.KerasTensor) -> keras.KerasTensor:
        """What follows the last layer, before any pooling."""
        return self._activated(hidden, "head") if self.shortcut == "pre_activation" else hidden

    def _transform(self, hidden: keras.KerasTensor, layer: int, width: int) -> keras.KerasTensor:
        first = self.shortcut == "pre_activation"
        fused = self.normalization is None and not first
        project = self.project(
            width,
            activation=self.activation if fused else None,
            use_bias=self.normalization != "batch",
            kernel_initializer=self._kernel(layer),
            kernel_regularizer=self.kernel_regularizer,
            name=f"hidden_{layer}",
        )
        if first:
            return project(hidden if layer == 1 else self._activated(hidden, layer))
        return project(hidden) if fused else self._activated(project(hidden), layer)

    def _activated(self, hidden: keras.KerasTensor, layer: int | str) -> keras.KerasTensor:
        if self.normalization:
            hidden = NORMALIZATIONS[self.normalization](name=f"normalization_{layer}")(hidden)
        return layers.Activation(self.activation, name=f"activation_{layer}")(hidden)

    def _dropped(self, hidden: keras.KerasTensor, layer: int) -> keras.KerasTensor:
        if not self.dropout:
            return hidden
        seed = None if self.seed is None else derive("dropout", self.seed, layer)
        return layers.Dropout(self.dropout, seed=seed, name=f"dropout_{layer}")(hidden)

    def _gated(
        self, hidden: keras.KerasTensor, candidate: keras.KerasTensor, layer: int, width: int
    ) -> keras.KerasTensor:
        """Return T (H - h); the sum of this and h is T H + (1 - T) h."""
        gate = self.project(
            width,
            activation="sigmoid",
            kernel_initializer=self._kernel(layer, "gate"),
            kernel_regularizer=self.kernel_regularizer,
            # Closed at first: a deep network begins close to the identity.
            bias_initializer=keras.initializers.Constant(self.gate_bias),
            name=f"gate_{layer}",
        )
        change = layers.Subtract(name=f"change_{layer}")([candidate, hidden])
        return layers.Multiply(name=f"gated_{layer}")([gate(hidden), change])

    def _kernel(self, *names: str | int) -> keras.Initializer:
        seed = None if self.seed is None else derive("init", self.seed, *names)
        return initializers.get(self.initializer, seed)


def _widths(name: str, value: int | Sequence[int], depth: int, shortcut: str | None) -> list[int]:
    positive("depth", depth)
    widths = [value] * depth if isinstance(value, Integral) else value
    if not isinstance(widths, Sequence) or isinstance(widths, str) or len(widths) != depth:
        raise ValueError(
            f"`{name}` must be an integer, or an integer for each of {depth} layers. "
            f"Received: {name}={value!r}"
        )
    widths = [positive(name, width) for width in widths]
    if shortcut is not None and len(set(widths)) > 1:
        raise ValueError(
            f"`{name}` must be the same in all layers with shortcut={shortcut!r}, which adds a "
            f"layer's input to its output. Received: {name}={value!r}"
        )
    return widths


def _check_pooling(pooling: Any) -> None:
    listed = isinstance(pooling, Sequence) and not isinstance(pooling, str)
    if pooling is not None and not (listed and all(map(is_count, pooling))):
        raise ValueError(
            "`pooling` must hold numbers of convolutions, from 1 on, or be None. "
            f"Received: pooling={pooling!r}"
        )


def _check_shape(input_shape: Any, rank: int | None = None) -> None:
    valid = isinstance(input_shape, Sequence) and not isinstance(input_shape, str)
    valid = valid and (len(input_shape) == rank if rank else len(input_shape) > 0)
    if not valid or not all(map(is_count, input_shape)):
        expected = "(height, width, channels)" if rank else "a tuple such as (784,) or (28, 28, 1)"
        raise ValueError(
            f"`input_shape` must be {expected}, of positive integers and without the batch axis. "
            f"Received: input_shape={input_shape!r}"
        )
