"""Initializers by name: Keras's, and the historical one that Keras lacks."""

from typing import Any

import keras


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


def get(
    identifier: str | dict[str, Any] | keras.initializers.Initializer, seed: int | None = None
) -> keras.initializers.Initializer:
    """Return an initializer that carries a seed.

    An initializer with an integer seed gives identical matrices to layers of equal shape: call this
    once per layer, with a seed for each.

    Args:
        identifier: `"historical"`, a name that Keras knows (`"he_normal"`), an initializer's
            serialized config, or an initializer, whose own seed is replaced.
        seed: Non-negative integer. `None` draws a fresh one.

    Returns:
        A new initializer with that seed; one without randomness (`"zeros"`) is returned as it is.

    Raises:
        ValueError: If `identifier` is none of these.
    """
    if isinstance(identifier, str) and identifier == "historical":
        return historical(seed)
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
    return ["historical", *sorted(aliases)]
