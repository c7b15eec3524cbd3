"""Initializers by name: Keras's, and those that Keras lacks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


def historical(seed: int | None = None) -> keras.initializers.Initializer:
    """Return the initializer U[-1/sqrt(fan_in), 1/sqrt(fan_in)].

    "The standard initialization" of Glorot & Bengio (2010), with which the literature on
    pretraining compares (Bengio et al., 2007), after LeCun et al., "Efficient BackProp" (1998). Its
    variance is 1 / (3 fan_in): a third of what keeps the variance of linear units from layer to
    layer.

    Args:
        seed: Non-negative integer. `None` draws a fresh one.

    Returns:
        A `keras.initializers.VarianceScaling`.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed)


@keras.saving.register_keras_serializable("pretrain")
class DeltaOrthogonal(keras.initializers.Orthogonal):
    """Convolution kernels of zeros, but for an orthogonal matrix of channels at the center.

    A convolution with such a kernel is that matrix at each position, so that it keeps the norm of
    what it is applied to, times `gain`, at strides of 1 and with `padding="same"`. The center of an
    even extent k is tap (k - 1) // 2, which that padding puts on the output's own position. A
    kernel of rank 2 (Dense) has no positions: it is Keras's `Orthogonal`. To load a saved model
    with it, import `pretrain.initializers` first.

    Args:
        gain: Factor of the matrix: 1 for linear units and tanh, sqrt(2) for ReLU.
        seed: Non-negative integer. `None` draws a fresh one.

    Raises:
        ValueError: When called with a shape `(*positions, channels_in, channels_out)` with fewer
            channels out than in, between which no matrix keeps norms.

    Reference:
        [Xiao et al., 2018](https://arxiv.org/abs/1806.05393)
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        if len(shape) < 3:
            return super().__call__(shape, dtype)
        *positions, channels_in, channels_out = shape
        if channels_out < channels_in:
            raise ValueError(
                "A delta-orthogonal kernel needs at least as many channels out as in. "
                f"Received: shape={tuple(shape)}, {channels_in} channels in, {channels_out} out"
            )
        matrix = super().__call__((channels_in, channels_out), dtype)
        center = ops.reshape(matrix, (1,) * len(positions) + (channels_in, channels_out))
        return ops.pad(center, [((k - 1) // 2, k // 2) for k in positions] + [(0, 0)] * 2)


_OWN = {"historical": historical, "delta_orthogonal": DeltaOrthogonal}


def get(
    identifier: str | dict[str, Any] | keras.initializers.Initializer, seed: int | None = None
) -> keras.initializers.Initializer:
    """Return an initializer that carries a seed.

    An initializer with an integer seed gives identical matrices to layers of equal shape: call this
    once per layer, with a seed for each.

    Args:
        identifier: `"historical"`, `"delta_orthogonal"`, a name that Keras knows (`"he_normal"`),
            an initializer's serialized config, or an initializer, whose own seed is replaced.
            Orthogonal matrices (Saxe et al., 2013) with the gain for ReLU are
            `keras.initializers.Orthogonal(gain=2**0.5)`.
        seed: Non-negative integer. `None` draws a fresh one.

    Returns:
        A new initializer with that seed; one without randomness (`"zeros"`) is returned as it is.

    Raises:
        ValueError: If `identifier` is none of these.
    """
    if isinstance(identifier, str) and identifier in _OWN:
        return _OWN[identifier](seed=seed)
    initializer = _resolve(identifier)
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    return type(initializer).from_config({**config, "seed": seed})


def _resolve(identifier: Any) -> keras.initializers.Initializer:
    try:
        initializer = keras.initializers.get(identifier)
    except (TypeError, ValueError):
        initializer = None
    # Keras also takes arrays and bare functions, which have no seed to replace.
    if not isinstance(initializer, keras.initializers.Initializer):
        raise ValueError(
            "Unknown initializer. Expected an initializer, its serialized config or one of "
            f"{', '.join(_names())}. Received: identifier={identifier!r}"
        )
    return initializer


def _names() -> list[str]:
    exported = vars(keras.initializers).items()
    aliases = [name for name, value in exported if name.islower() and isinstance(value, type)]
    return [*_OWN, *sorted(aliases)]
