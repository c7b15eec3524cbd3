"""Unpooling by switches, which undoes a max pooling."""

from typing import Any

import keras
from keras import ops

from pretrain.backend import Tensor, as_floats
from pretrain.convolutions import max_unpool


@keras.saving.register_keras_serializable("pretrain")
class MaxUnpooling(keras.layers.Layer):
    """Puts pooled values back at the places of the maxima of an image; all other places are 0.

    The places are the "switches" of the literature. Where several pixels of a window are equally
    large, the value goes to the first of these pixels. Pixels that the pooling leaves out at the
    edge of the image are 0 too.

    Example:

    >>> import numpy as np
    >>> from keras import layers
    >>> from pretrain import MaxUnpooling
    >>> signal = np.array([1.0, 3.0, 2.0, 2.0]).reshape(1, 4, 1)
    >>> pooling = layers.MaxPooling1D(2)
    >>> values = 10 * pooling(signal)
    >>> np.asarray(MaxUnpooling(pooling)(values, signal)).ravel().tolist()
    [0.0, 30.0, 20.0, 0.0]

    Args:
        pooling: A `MaxPooling1D`, `MaxPooling2D` or `MaxPooling3D` layer, whose windows do not
            overlap. The layer that is made is called with values of the shape of the pooling's
            output, and with the pooling's input.

    Raises:
        ValueError: If `pooling` is no such layer.

    Reference:
        [Zeiler & Fergus, 2014](https://arxiv.org/abs/1311.2901)
    """

    def __init__(self, pooling: keras.Layer, **kwargs: Any) -> None:
        # Rounded pixels could be equally large where the pixels that were pooled are not.
        super().__init__(autocast=False, **kwargs)
        if not is_max_pooling(pooling) or tuple(pooling.strides) != tuple(pooling.pool_size):
            raise ValueError(
                "Expected a MaxPooling layer whose strides are equal to its pool_size: where "
                "windows overlap, a pixel could be the maximum of several windows. "
                f"Received: pooling={_described(pooling)}"
            )
        self.pooling = pooling

    def call(self, values: Tensor, image: Tensor) -> Tensor:
        axis = 1 if self.pooling.data_format == "channels_first" else -1
        last = [ops.moveaxis(as_floats(x), axis, -1) for x in (values, image)]
        whole = max_unpool(*last, self.pooling.pool_size, self.pooling.padding)
        return ops.cast(ops.moveaxis(whole, -1, axis), values.dtype)

    def compute_output_shape(self, values_shape: tuple, image_shape: tuple) -> tuple:
        return image_shape

    def get_config(self) -> dict[str, Any]:
        pooling = keras.saving.serialize_keras_object(self.pooling)
        return {**super().get_config(), "pooling": pooling}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MaxUnpooling":
        pooling = keras.saving.deserialize_keras_object(config["pooling"])
        return cls(**{**config, "pooling": pooling})


def is_max_pooling(operation: Any) -> bool:
    """Whether an operation is one of Keras's layers of max pooling with windows."""
    kinds = keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D
    return isinstance(operation, kinds)


def _described(pooling: Any) -> str:
    if not is_max_pooling(pooling):
        return f"an object of type {type(pooling).__name__}"
    return f"{pooling.name!r} with pool_size={pooling.pool_size} and strides={pooling.strides}"
