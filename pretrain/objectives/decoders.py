"""Decoders, which map a stage's output to its input, and dense stages taken apart."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, ops
from keras import layers as kl

from pretrain import graph
from pretrain.backend import Tensor, as_floats
from pretrain.stages import Stage, of_rank

# Half a gibibyte in single precision, and as much again for its gradient and each of its moments.
_LARGEST = 2**27
_LAST = {"data_format": "channels_last"}
_ARRANGING = (kl.Flatten, kl.Reshape, kl.Permute)
# With these activations, an output depends on a single pre-activation.
_ELEMENTWISE = tuple(
    getattr(activations, name)
    for name in (
        *("linear", "sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softplus", "softsign"),
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu"),
        *("mish", "exponential", "log_sigmoid", "squareplus", "tanh_shrink"),
    )
)


def build_decoder(
    stage: Stage, tied: bool, seed: int, copy: bool = False, gain: float = 1.0
) -> keras.Model:
    """A decoder for a stage, from code to pre-activation of the reconstruction.

    Where code and input have the same spatial axes (or steps), the decoder repeats or cuts the
    code's pixels to the size of the input and convolves. Such a decoder follows the size of its
    code where the model takes inputs of any size. Other decoders are dense layers, for inputs of
    one size. Weights start from Glorot's uniform weights times `gain`. The weights of a `tied`
    decoder are the transposed weights of the stage's projection, or with `copy` (see
    `Objective.build`) of a copy of the projection; a tied decoder has a bias of its own.
    """
    _refuse_unknown_sizes(stage)
    _refuse_tokens(stage)
    orders = [channels_last(stage, shape) for shape in (stage.features_out, stage.features_in)]
    source, target = (
        arranged(stage.features_out, orders[0]),
        arranged(stage.features_in, orders[1]),
    )
    transposed = _tied_layer(stage, source, target, copy) if tied else None
    initializer = keras.initializers.VarianceScaling(gain**2, "fan_avg", "uniform", seed)
    layers = [
        *permutation(orders[0]),
        *(
            _tied(transposed, stage, source, target)
            if tied
            else _free(stage, source, target, initializer)
        ),
        *permutation(np.argsort(orders[1])),
    ]
    fixed = any(isinstance(layer, kl.Reshape) for layer in layers)
    start = keras.Input(stage.features_out if fixed else stage.any_features_out)
    return keras.Sequential([start, *layers], name=f"{stage.name}_decoder")


def _refuse_unknown_sizes(stage: Stage) -> None:
    if None in stage.features_in + stage.features_out:
        raise ValueError(
            "A decoder is built for examples of one size. Expected the shape of an example, as in "
            "split_stages(model, input_shape=x.shape[1:]), and stages whose outputs have a size "
            "that follows from it. Received: "
            f"stage {stage.name!r} from {stage.features_in} to {stage.features_out}"
        )


def _refuse_tokens(stage: Stage) -> None:
    if stage.reads_tokens:
        raise ValueError(
            "A stage cannot reconstruct integer inputs, such as numbers of words. Expected "
            "`stages` to name the stages behind the embedding, or SupervisedGreedy, which "
            f"reconstructs nothing. Received: stage {stage.name!r} of "
            f"{[operation.name for operation in stage.operations]}, whose inputs of shape "
            f"{stage.features_in} are integers"
        )


def _refuse_gigantic(stage: Stage, weights: int) -> None:
    """Refuses a decoder that is larger than memory allows and than its stage makes plausible."""
    if weights > max(_LARGEST, 2 * sum(math.prod(w.shape) for w in stage.weights)):
        raise ValueError(
            f"A dense decoder of this stage would have {weights:,} weights "
            f"({4 * weights / 1024**3:,.1f} GiB). Expected a stage whose output has the spatial "
            "axes of its input, so that a convolution can decode it: name smaller stages with "
            "`stages`, or use SupervisedGreedy, which has no decoder. Received: "
            f"stage {stage.name!r} from {stage.features_in} to {stage.features_out}"
        )


def channels_last(stage: Stage, shape: tuple) -> list[int]:
    """The order of axes that puts the channels of a stage's input or output last."""
    axes, layer = list(range(len(shape))), stage.convolution
    if layer is None or layer.data_format == "channels_last":
        return axes
    # Axes in front of the channels are those of time.
    channels = max(0, len(shape) - 1 - len(layer.kernel_size))
    return [*axes[:channels], *axes[channels + 1 :], channels]


def arranged(shape: tuple, order: list[int]) -> tuple:
    return tuple(shape[axis] for axis in order)


def permutation(order: Sequence[int]) -> list[keras.Layer]:
    kept = list(order) == sorted(order)
    return [] if kept else [kl.Permute(tuple(int(axis) + 1 for axis in order))]


def _free(
    stage: Stage, source: tuple, target: tuple, initializer: keras.Initializer
) -> list[keras.Layer]:
    """The layers of a decoder with weights of its own, between shapes with channels last."""
    if stage.convolution is None and source[:-1] == target[:-1]:
        return [kl.Dense(target[-1], kernel_initializer=initializer)]
    if len(source) == 2 < len(target) and (grid := _grid(source[0], target[:-1])):
        pixels = (*grid, source[1])
        return [kl.Reshape(pixels), *_free(stage, pixels, target, initializer)]
    if len(source) == len(target) and 2 <= len(source) <= 4:
        return _convolutional(stage, source, target, initializer)
    if len(target) == len(source) + 1 and _ends_sequences_of_images(stage, source):
        steps, *size, channels = target
        layers = _convolutional(stage, source, (*size, steps * channels), initializer)
        first = (len(target) - 1, *range(1, len(target) - 1), len(target))
        return [*layers, kl.Reshape((*size, steps, channels)), kl.Permute(first)]
    return _dense(stage, source, target, initializer)


def _grid(count: int, size: Sequence[int]) -> tuple | None:
    """The sizes of a grid of so many patches of an image of a size, if there is such a grid."""
    scale = (count / math.prod(size)) ** (1 / len(size))
    grid = tuple(round(n * scale) for n in size)
    return grid if math.prod(grid) == count and len(size) <= 3 else None


def _ends_sequences_of_images(stage: Stage, source: tuple) -> bool:
    """Whether a stage reads sequences of images and returns what it makes of the last."""
    return stage.convolution is not None and len(source) == len(stage.convolution.kernel_size) + 1


def _convolutional(
    stage: Stage, source: tuple, target: tuple, initializer: keras.Initializer
) -> list[keras.Layer]:
    *size, channels = target
    own = (3,) * len(size) if stage.convolution is None else stage.convolution.kernel_size
    # A kernel does not reach beyond the image of a time.
    kernel_size = ((1,) * len(size) + tuple(own))[-len(size) :]
    convolution = of_rank("Conv", len(size))(
        channels, kernel_size, padding="same", kernel_initializer=initializer, **_LAST
    )
    return [*_resize(source[:-1], size), convolution]


def _dense(
    stage: Stage, source: tuple, target: tuple, initializer: keras.Initializer
) -> list[keras.Layer]:
    frames = isinstance(stage.projection.operation, kl.TimeDistributed) and source[0] == target[0]
    kept = source[: int(frames)]
    inputs, outputs = math.prod(source) // math.prod(kept), math.prod(target) // math.prod(kept)
    _refuse_gigantic(stage, inputs * outputs)
    flatten = kl.Reshape((*kept, inputs)) if kept else kl.Flatten()
    dense = kl.Dense(outputs, kernel_initializer=initializer)
    return [*([flatten] if len(source) > 1 + len(kept) else []), dense, kl.Reshape(target)]


def _tied(transposed: keras.Layer, stage: Stage, source: tuple, target: tuple) -> list[keras.Layer]:
    if isinstance(transposed, kl.Dense):
        kept = (*source[:-1], transposed.kernel.shape[0]) == target
        return [TiedDense(transposed), *([] if kept else [kl.Reshape(target)])]
    call = stage.projection
    *counts, _ = arranged(call.output_shape[1:], channels_last(stage, call.output_shape[1:]))
    axes = enumerate(zip(counts, target[:-1], strict=True))
    margins = [_margins(transposed, axis, *sizes) for axis, sizes in axes]
    return [*_resize(source[:-1], counts), TiedConvolution(transposed, margins)]


def _margins(layer: keras.Layer, axis: int, count: int, size: int) -> tuple[int, int]:
    """How many pixels the transpose of a convolution has before and behind its input of a size.

    The convolution has `count` outputs along the axis. Pixels that it did not reach count as -1.
    """
    stride = layer.strides[axis]
    extent = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
    padding = max(0, (count - 1) * stride + extent - size)
    before = padding // 2 if layer.padding == "same" else 0
    return before, (count - 1) * stride + max(extent, stride) - before - size


def _resize(source: Sequence[int], target: Sequence[int]) -> list[keras.Layer]:
    """Layers that repeat pixels a whole number of times, then pad or crop to the target."""
    rank = len(source)
    factors = [max(1, round(t / s)) for s, t in zip(source, target, strict=True)]
    excess = [s * f - t for s, f, t in zip(source, factors, target, strict=True)]
    layers = []
    if max(factors) > 1:
        layers.append(_resizing("UpSampling", rank, _one_or_tuple(factors)))
    if min(excess) < 0:
        layers.append(_resizing("ZeroPadding", rank, _sides([max(0, -e) for e in excess])))
    if max(excess) > 0:
        layers.append(_resizing("Cropping", rank, _sides([max(0, e) for e in excess])))
    return layers


def _resizing(name: str, rank: int, amounts: Any) -> keras.Layer:
    # Along one axis, Keras's layers know no other order than channels last.
    return of_rank(name, rank)(amounts, **(_LAST if rank > 1 else {}))


def _sides(amounts: list[int]) -> Any:
    return _one_or_tuple([(amount // 2, amount - amount // 2) for amount in amounts])


def _one_or_tuple(values: list) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _tied_layer(stage: Stage, source: tuple, target: tuple, copy: bool) -> keras.Layer:
    """The one projection of a stage, if its transpose decodes the stage's output."""
    projections = [c.operation for c in stage.graph.calls if graph.matrices(c.operation)]
    layer = projections[0]
    images = len(source) == len(target) and graph.is_convolution(layer)
    kinds = (kl.Conv1D, kl.Conv2D, kl.Conv3D) if images else (kl.Dense,)
    fits = (
        len(projections) == 1
        and type(layer) in kinds
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "padding", "valid") in ("valid", "same")
        and not any(isinstance(operation, kl.Permute) for operation in stage.operations)
        and layer.kernel.shape[-1] == source[-1]
        and math.prod(stage.projection.input_shape[1:]) == math.prod(stage.features_in)
    )
    if not fits:
        raise ValueError(
            "Tied weights need a stage with a single Dense or Conv layer, which has as many "
            "output channels as the stage, and no groups or causal padding: use tied=False. "
            "Received: stage "
            f"{stage.name!r} of {[operation.name for operation in stage.operations]}"
        )
    if not copy:
        return layer
    copied = type(layer).from_config(layer.get_config())
    copied.build(stage.projection.input_shape)
    return copied


class Tied(keras.layers.Layer):
    """The transpose of a built layer, with a bias of its own."""

    def __init__(self, encoder: keras.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape: tuple) -> None:
        inputs = self.encoder.kernel.shape[-2]
        self.bias = self.add_weight(shape=(inputs,), initializer="zeros", name="bias")

    def of(self, encoder: keras.Layer) -> "Tied":
        """The transpose of another layer of the same architecture, not built."""
        return type(self)(**{**self.get_config(), "encoder": encoder})

    @property
    def own(self) -> list[keras.Variable]:
        """The variables that are not the encoder's."""
        encoders = set(map(id, self.encoder.variables))
        return [variable for variable in self.variables if id(variable) not in encoders]

    @property
    def kernel(self) -> Tensor:
        """The encoder's kernel, whose precision may be another."""
        return ops.cast(self.encoder.kernel, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Tied":
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


@keras.saving.register_keras_serializable("pretrain")
class TiedDense(Tied):
    """The transpose of a Dense layer, with a bias of its own."""

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x, ops.transpose(self.kernel)) + self.bias


@keras.saving.register_keras_serializable("pretrain")
class TiedConvolution(Tied):
    """The transpose of a convolution, channels last.

    Along each spatial axis, `margins` says how many pixels are cut off before and behind.
    """

    def __init__(self, encoder: keras.Layer, margins: Sequence, **kwargs: Any) -> None:
        super().__init__(encoder, **kwargs)
        self.margins = [tuple(pair) for pair in margins]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margins": [list(pair) for pair in self.margins]}

    def call(self, x: Tensor) -> Tensor:
        layer = self.encoder
        # TensorFlow transposes dilated convolutions on some processors only.
        kernel = _spread(self.kernel, layer.dilation_rate)
        padded = ops.conv_transpose(x, kernel, layer.strides, "valid")
        # Pixels that the encoder padded are cut off. Pixels that it did not reach become zero.
        missing = [(0, max(0, -behind)) for _, behind in self.margins]
        window = [slice(before, -behind if behind > 0 else None) for before, behind in self.margins]
        return ops.pad(padded, [(0, 0), *missing, (0, 0)])[:, *window] + self.bias


def _spread(kernel: Tensor, rates: tuple) -> Tensor:
    """A kernel with zeros between its taps, which does without dilation what dilation does."""
    for axis, rate in enumerate(rates):
        if rate > 1:
            places = ops.eye((kernel.shape[axis] - 1) * rate + 1, dtype=kernel.dtype)[::rate]
            kernel = ops.moveaxis(ops.tensordot(kernel, places, [[axis], [0]]), -1, axis)
    return kernel


class DenseStage(NamedTuple):
    """A stage of one Dense layer and element-wise activations, computed in two steps."""

    before: list[keras.Operation]
    dense: kl.Dense
    after: list[keras.Operation]

    def pre_activation(self, x: Tensor) -> Tensor:
        """The stage's pre-activation, from its inputs."""
        for layer in self.before:
            x = layer(x)
        x = ops.matmul(as_floats(x), as_floats(self.dense.kernel))
        return x if self.dense.bias is None else x + as_floats(self.dense.bias)

    def activate(self, pre_activation: Tensor) -> Tensor:
        """The stage's output, from its pre-activation."""
        values = self.dense.activation(pre_activation)
        for layer in self.after:
            values = layer(values)
        return values


def dense_stage(stage: Stage) -> DenseStage | None:
    """A stage taken apart; `None` if a layer does more than reshape or activate by element."""
    operations = [call.operation for call in stage.graph.calls]
    # Dropout is off during pretraining.
    operations = [operation for operation in operations if not isinstance(operation, kl.Dropout)]
    kinds = [type(operation) for operation in operations]
    if kinds.count(kl.Dense) != 1:
        return None
    position = kinds.index(kl.Dense)
    before, dense, after = operations[:position], operations[position], operations[position + 1 :]
    fits = (
        all(isinstance(operation, _ARRANGING) for operation in before)
        and dense.activation in _ELEMENTWISE
        and all(_is_elementwise(operation) for operation in after)
    )
    return DenseStage(before, dense, after) if fits else None


def _is_elementwise(operation: keras.Operation) -> bool:
    if type(operation) is kl.Activation:
        return operation.activation in _ELEMENTWISE
    return isinstance(operation, kl.ReLU | kl.LeakyReLU | kl.ELU)
