"""Decoders, which map a stage's output to its input, and dense stages taken apart."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import activations, ops
from keras import layers as kl

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.stages import Stage, of_rank

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


def build_decoder(stage: Stage, tied: bool, seed: int, copy: bool = False) -> keras.Model:
    """A decoder for a stage, from code to pre-activation of the reconstruction.

    The decoder of a dense stage is a dense layer. The decoder of a convolution is an upsampling to
    the size of the convolution's input, followed by a convolution. The weights of a `tied` decoder
    are the transposed weights of the stage's projection, or with `copy` (see `Objective.build`) of
    a copy of the projection; a tied decoder has a bias of its own.
    """
    if None in stage.features_in + stage.features_out:
        raise ValueError(
            "A decoder needs fixed sizes. Expected a model with a fixed input shape. Received: "
            f"stage {stage.name!r} from {stage.features_in} to {stage.features_out}"
        )
    initializer = keras.initializers.GlorotUniform(seed)
    transposed = _tied_layer(stage, copy) if tied else None
    build = _convolutional if _is_spatial(stage) else _dense
    layers = build(stage, transposed, initializer)
    return keras.Sequential(
        [keras.Input(stage.features_out), *layers], name=f"{stage.name}_decoder"
    )


def _is_spatial(stage: Stage) -> bool:
    """Whether a stage maps images (or sequences, or volumes) to images by convolution."""
    return (
        graph.is_convolution(stage.projection.operation)
        and len(stage.features_in) == len(stage.features_out)
        and stage.projection.operation.data_format == "channels_last"
    )


def _dense(
    stage: Stage, transposed: keras.Layer | None, initializer: keras.Initializer
) -> list[keras.Layer]:
    source, target = stage.features_out, stage.features_in
    if transposed is not None:
        return [TiedDense(transposed), kl.Reshape(target)]
    if source[:-1] == target[:-1]:
        return [kl.Dense(target[-1], kernel_initializer=initializer)]
    flatten = [kl.Flatten()] if len(source) > 1 else []
    dense = kl.Dense(math.prod(target), kernel_initializer=initializer)
    return [*flatten, dense, kl.Reshape(target)]


def _convolutional(
    stage: Stage, transposed: keras.Layer | None, initializer: keras.Initializer
) -> list[keras.Layer]:
    projection = stage.projection
    *size, channels = stage.features_in
    if transposed is not None:
        unpooled = _resize(stage.features_out[:-1], projection.output_shape[1:-1])
        return [*unpooled, TiedConvolution(transposed, size)]
    convolution = of_rank("Conv", len(size))(
        channels, projection.operation.kernel_size, padding="same", kernel_initializer=initializer
    )
    return [*_resize(stage.features_out[:-1], size), convolution]


def _resize(source: Sequence[int], target: Sequence[int]) -> list[keras.Layer]:
    """Layers that repeat pixels a whole number of times, then pad or crop to the target."""
    rank = len(source)
    factors = [max(1, round(t / s)) for s, t in zip(source, target, strict=True)]
    excess = [s * f - t for s, f, t in zip(source, factors, target, strict=True)]
    layers = []
    if max(factors) > 1:
        layers.append(of_rank("UpSampling", rank)(_one_or_tuple(factors)))
    if min(excess) < 0:
        layers.append(of_rank("ZeroPadding", rank)(_sides([max(0, -e) for e in excess])))
    if max(excess) > 0:
        layers.append(of_rank("Cropping", rank)(_sides([max(0, e) for e in excess])))
    return layers


def _sides(amounts: list[int]) -> Any:
    return _one_or_tuple([(amount // 2, amount - amount // 2) for amount in amounts])


def _one_or_tuple(values: list) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _tied_layer(stage: Stage, copy: bool) -> keras.Layer:
    """The one projection of a stage, if its transpose decodes the stage's output."""
    projections = [c.operation for c in stage.graph.calls if graph.matrices(c.operation)]
    layer = projections[0]
    kinds = (kl.Conv1D, kl.Conv2D, kl.Conv3D) if _is_spatial(stage) else (kl.Dense,)
    fits = (
        len(projections) == 1
        and type(layer) in kinds
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "padding", "valid") in ("valid", "same")
        and not any(isinstance(operation, kl.Permute) for operation in stage.operations)
        and layer.kernel.shape[-1] == stage.features_out[-1]
        and math.prod(stage.projection.input_shape[1:]) == math.prod(stage.features_in)
    )
    if not fits:
        raise ValueError(
            "Tied weights need a stage with a single Dense or Conv layer, which has as many "
            "output channels as the stage: use tied=False. Received: stage "
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
        return ops.matmul(x, ops.transpose(self.encoder.kernel)) + self.bias


@keras.saving.register_keras_serializable("pretrain")
class TiedConvolution(Tied):
    """The transpose of a convolution, channels last, whose input has the spatial `size`."""

    def __init__(self, encoder: keras.Layer, size: tuple, **kwargs: Any) -> None:
        super().__init__(encoder, **kwargs)
        self.size = tuple(size)

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.margins = list(map(self._margin, range(len(self.size)), self.size, input_shape[1:-1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}

    def _margin(self, axis: int, size: int, count: int) -> int:
        """How many pixels the encoder pads before its input along an axis, for `count` outputs."""
        layer = self.encoder
        extent = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
        padding = (count - 1) * layer.strides[axis] + extent - size
        return max(0, padding) // 2 if layer.padding == "same" else 0

    def call(self, x: Tensor) -> Tensor:
        layer = self.encoder
        # TensorFlow transposes dilated convolutions on some processors only.
        kernel = _spread(layer.kernel, layer.dilation_rate)
        padded = ops.conv_transpose(x, kernel, layer.strides, "valid")
        # Pixels that the encoder padded are cut off. Pixels that it did not reach become zero.
        ends = [m + n for m, n in zip(self.margins, self.size, strict=True)]
        missing = [(0, max(0, e - s)) for e, s in zip(ends, padded.shape[1:-1], strict=True)]
        window = [slice(m, e) for m, e in zip(self.margins, ends, strict=True)]
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
        x = ops.matmul(x, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias

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
