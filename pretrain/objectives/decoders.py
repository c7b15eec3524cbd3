"""Decoders: one projection of the kind of a stage's first, from its output to its input."""

import math
from typing import Any

import keras
from keras import layers as kl
from keras import ops

from pretrain import graph
from pretrain.seeds import derive
from pretrain.stages import Stage

_SPATIAL_LAYERS = {
    1: (kl.UpSampling1D, kl.ZeroPadding1D, kl.Cropping1D, kl.Conv1D),
    2: (kl.UpSampling2D, kl.ZeroPadding2D, kl.Cropping2D, kl.Conv2D),
    3: (kl.UpSampling3D, kl.ZeroPadding3D, kl.Cropping3D, kl.Conv3D),
}


def build_decoder(stage: Stage, tied: bool, seed: int, copy: bool = False) -> keras.Model:
    """A decoder for a stage, from code to pre-activation of the reconstruction.

    A dense stage is decoded by a dense layer, a convolution by upsampling to the size of its
    input and a convolution.

    Args:
        stage: The stage to decode.
        tied: Whether the decoder's weights are the transposed weights of the stage's projection,
            one variable; only its bias is its own then.
        seed: Seed of the initial weights.
        copy: Whether a tied decoder holds a copy of the stage's projection instead of itself, for
            a member of a population whose weights are not those of the stage.

    Returns:
        A model from `(batch, *stage.features_out)` to `(batch, *stage.features_in)`.

    Raises:
        ValueError: If the stage's sizes are unknown, or tied weights do not fit it.
    """
    if None in stage.features_in + stage.features_out:
        raise ValueError(
            "A decoder needs fixed sizes: build the model with a fixed input shape. Received: "
            f"stage {stage.name!r} from {stage.features_in} to {stage.features_out}"
        )
    initializer = keras.initializers.GlorotUniform(derive("decoder", stage.name, seed))
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


def _dense(stage: Stage, transposed: Any, initializer: Any) -> list:
    source, target = stage.features_out, stage.features_in
    if transposed is not None:
        return [TiedDense(transposed), kl.Reshape(target)]
    if source[:-1] == target[:-1]:
        return [kl.Dense(target[-1], kernel_initializer=initializer)]
    flatten = [kl.Flatten()] if len(source) > 1 else []
    dense = kl.Dense(math.prod(target), kernel_initializer=initializer)
    return [*flatten, dense, kl.Reshape(target)]


def _convolutional(stage: Stage, transposed: Any, initializer: Any) -> list:
    rank = len(stage.features_in) - 1
    projection = stage.projection
    size, channels = stage.features_in[:-1], stage.features_in[-1]
    if transposed is not None:
        before = _resize(stage.features_out[:-1], projection.output_shape[1:-1])
        decoder = TiedConvolution(transposed)
        after = _resize(decoder.spatial_size(projection.output_shape[1:-1]), size, scale=False)
        return [*before, decoder, *after]
    convolution = _SPATIAL_LAYERS[rank][-1](
        channels, projection.operation.kernel_size, padding="same", kernel_initializer=initializer
    )
    return [*_resize(stage.features_out[:-1], size), convolution]


def _resize(source: tuple, target: tuple, scale: bool = True) -> list:
    """Layers that repeat pixels a whole number of times, then pad or crop to the target."""
    upsampling, padding, cropping, _ = _SPATIAL_LAYERS[len(source)]
    factors = [max(1, round(t / s)) if scale else 1 for s, t in zip(source, target, strict=True)]
    excess = [s * f - t for s, f, t in zip(source, factors, target, strict=True)]
    layers = []
    if any(f > 1 for f in factors):
        layers.append(upsampling(_one_or_tuple(factors)))
    if any(e < 0 for e in excess):
        layers.append(padding(_sides([max(0, -e) for e in excess])))
    if any(e > 0 for e in excess):
        layers.append(cropping(_sides([max(0, e) for e in excess])))
    return layers


def _sides(amounts: list[int]) -> Any:
    return _one_or_tuple([(amount // 2, amount - amount // 2) for amount in amounts])


def _one_or_tuple(values: list) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _tied_layer(stage: Stage, copy: bool) -> Any:
    """The one projection of a stage, if its transpose decodes the stage's output."""
    projections = [c.operation for c in stage.graph.calls if graph.matrices(c.operation)]
    layer = projections[0]
    kinds = (kl.Conv1D, kl.Conv2D, kl.Conv3D) if _is_spatial(stage) else (kl.Dense,)
    fits = (
        len(projections) == 1
        and type(layer) in kinds
        and getattr(layer, "groups", 1) == 1
        and layer.kernel.shape[-1] == stage.features_out[-1]
        and math.prod(stage.projection.input_shape[1:]) == math.prod(stage.features_in)
    )
    if not fits:
        raise ValueError(
            "Tied weights need a stage with one Dense or Conv layer whose channels are the "
            f"stage's: use tied=False. Received: stage {stage.name!r} of "
            f"{[operation.name for operation in stage.operations]}"
        )
    return _copy(layer, stage.projection.input_shape) if copy else layer


def _copy(layer: Any, input_shape: tuple) -> Any:
    copied = type(layer).from_config(layer.get_config())
    copied.build(input_shape)
    return copied


class TiedDense(keras.layers.Layer):
    """The transpose of a Dense layer, with a bias of its own.

    Args:
        encoder: The built Dense layer.
    """

    def __init__(self, encoder: kl.Dense, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape: tuple) -> None:
        self.bias = self.add_weight(
            shape=(self.encoder.kernel.shape[0],), initializer="zeros", name="bias"
        )

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.encoder.kernel)) + self.bias


class TiedConvolution(keras.layers.Layer):
    """The transpose of a convolution, with a bias of its own.

    Args:
        encoder: The built convolution layer, channels last.
    """

    def __init__(self, encoder: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def build(self, input_shape: tuple) -> None:
        self.bias = self.add_weight(
            shape=(self.encoder.kernel.shape[-2],), initializer="zeros", name="bias"
        )

    def spatial_size(self, source: tuple) -> tuple:
        """Spatial size of the output, from that of the input."""
        layer = self.encoder
        extents = [
            (k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)
        ]
        overlaps = [
            max(extent - stride, 0) if layer.padding == "valid" else 0
            for extent, stride in zip(extents, layer.strides, strict=True)
        ]
        return tuple(n * s + o for n, s, o in zip(source, layer.strides, overlaps, strict=True))

    def call(self, x: Any) -> Any:
        transposed = ops.conv_transpose(
            x,
            self.encoder.kernel,
            strides=self.encoder.strides,
            padding=self.encoder.padding,
            dilation_rate=self.encoder.dilation_rate,
        )
        return transposed + self.bias
