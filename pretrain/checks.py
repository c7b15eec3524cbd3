"""Checks of arguments: an error says what was expected and what was received.

The checks that need NumPy or Keras import them: a driver of studies does without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

_LONG = 200

# What else to do with a model of several inputs.
ONE_INPUT = (
    "Expected a model with one input. Make a model of each branch, keras.Model(its_input, "
    "its_output), which shares its layers with the whole model, and pretrain the branch with "
    "head=0; then pretrain what follows, keras.Model(merged, model.output), on the branches' codes."
)


def brief(value: Any) -> str:
    """A short text about a value for an error message: never the user's data."""
    if hasattr(value, "shape"):
        dtype = getattr(value, "dtype", None)
        return f"{type(value).__name__} of shape {tuple(value.shape)}, dtype {dtype}"
    text = repr(value)
    if isinstance(value, Sequence) and len(text) > _LONG:
        kinds = ", ".join(sorted({type(item).__name__ for item in value}))
        return f"{type(value).__name__} of {len(value)}: {kinds}"
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    """Whether a shape is what is expected, where `None` stands for any size."""
    pairs = zip(shape, expected, strict=False)
    return len(shape) == len(expected) and all(n == e or None in (n, e) for n, e in pairs)


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 1."""
    return _is_integer(value) and value >= 1


def positive(name: str, value: Any) -> int:
    """The value of an argument as a Python integer, which must be at least 1."""
    if not is_count(value):
        raise ValueError(
            f"`{name}` must be an integer of at least 1. Received: {name}={brief(value)}"
        )
    return int(value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_number(name: str, value: Any, zero: bool = True) -> None:
    """Refuses an argument that is not a finite number of at least 0, or above 0 without `zero`."""
    if not is_number(value) or value < 0 or value == 0 and not zero:
        expected = "of at least 0" if zero else "above 0"
        raise ValueError(f"`{name}` must be a number {expected}. Received: {name}={brief(value)}")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses an argument that is not among the choices."""
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {expected}. Received: {name}={brief(value)}")


def checked_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds of a population's members; there must be at least one seed."""
    seeds = list(seeds) if isinstance(seeds, Iterable) else seeds
    if not isinstance(seeds, list) or not seeds or not all(map(_is_integer, seeds)):
        raise ValueError(
            "`seeds` must be integers, one for each member, at least one; for three members, "
            "range(3). "
            f"Received: seeds={brief(seeds)}"
        )
    return [int(seed) for seed in seeds]


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def checked_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    """The Keras optimizer that a name or an instance stands for."""
    import keras

    try:
        return keras.optimizers.get(optimizer)
    except (ValueError, TypeError):
        raise ValueError(
            "`optimizer` must be a Keras optimizer, by name or instance. "
            f"Received: optimizer={brief(optimizer)}"
        ) from None


def checked_rates(
    optimizer: keras.optimizers.Optimizer, learning_rate: Any, members: int
) -> list[float | None]:
    """The learning rate of each member; `None` for each member if the optimizer has a schedule."""
    import keras
    import numpy as np

    from pretrain.internals import has_schedule

    own = optimizer.learning_rate
    scheduled = not isinstance(own, keras.Variable) or has_schedule(optimizer)
    if learning_rate is None:
        rate = None if scheduled else float(keras.ops.convert_to_numpy(own.value))
        return [rate] * members
    if scheduled:
        raise ValueError(
            "An optimizer with a schedule has its own rates: expected learning_rate=None. "
            f"Received: learning_rate={brief(learning_rate)}"
        )
    try:
        rates = np.asarray(learning_rate, dtype="float64")
    except (TypeError, ValueError):
        rates = np.asarray(np.nan)
    if rates.shape not in ((), (members,)) or not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError(
            f"`learning_rate` must be a positive number, or one for each of {members} members. "
            f"Received: learning_rate={brief(learning_rate)}"
        )
    return np.broadcast_to(rates, (members,)).tolist()


def check_model(model: Any, first: Any) -> None:
    """Refuses what is not a built model, or not of the same architecture as a first model."""
    import keras

    from pretrain.members import architecture

    if not isinstance(model, keras.Model) or not model.built or not model.variables:
        raise ValueError(
            "Expected a built Keras model; give it an Input, or call it on data first. "
            f"Received: {brief(model)} of type {type(model).__name__}"
        )
    shapes, expected = ([tuple(v.shape) for v in one.variables] for one in (model, first))
    if shapes != expected:
        raise ValueError(
            "Expected models of one architecture. Received: variables of shapes "
            f"{shapes} beside {expected}"
        )
    kinds = [architecture(one) for one in (model, first)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "Expected models of one architecture, which differ in seeds and initial weights only, "
            "and not in constants such as the moments of an adapted Normalization. "
            f"Received: {model.name!r} beside {first.name!r}, with other operations or settings"
        )
