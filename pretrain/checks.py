"""Checks of arguments: what is wrong is answered by what was expected and what was received."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.program import architecture


def checked_optimizer(optimizer: Any) -> keras.optimizers.Optimizer:
    """A Keras optimizer, given by name or instance."""
    try:
        return keras.optimizers.get(optimizer)
    except (ValueError, TypeError):
        raise ValueError(
            "`optimizer` must be a Keras optimizer, by name or instance. "
            f"Received: optimizer={optimizer!r}"
        ) from None


def checked_rates(optimizer: Any, learning_rate: Any, members: int) -> list:
    """A rate for each member; `None` for each if the optimizer has a schedule."""
    own = optimizer.learning_rate
    scheduled = not isinstance(own, keras.Variable) or isinstance(
        getattr(optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule
    )
    if learning_rate is None:
        return [None if scheduled else float(ops.convert_to_numpy(own.value))] * members
    if scheduled:
        raise ValueError(
            "An optimizer with a schedule has its own rates: expected learning_rate=None. "
            f"Received: learning_rate={learning_rate}"
        )
    try:
        rates = np.asarray(learning_rate, dtype="float64")
    except (TypeError, ValueError):
        rates = np.asarray(np.nan)
    if rates.shape not in ((), (members,)) or not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError(
            f"`learning_rate` must be a positive number, or one for each of {members} members. "
            f"Received: learning_rate={learning_rate!r}"
        )
    return np.broadcast_to(rates, (members,)).tolist()


def positive(name: str, value: Any) -> int:
    """A count, checked."""
    if not _is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def checked_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds of members, at least one."""
    seeds = list(seeds) if isinstance(seeds, Iterable) else seeds
    if not isinstance(seeds, list) or not seeds or not all(map(_is_integer, seeds)):
        raise ValueError(
            "`seeds` must be integers, one for each member, at least one. "
            f"Received: seeds={seeds!r}"
        )
    return [int(seed) for seed in seeds]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_model(model: Any, first: Any) -> None:
    """Refuses what is no built model, or not of the architecture of the first one."""
    if not isinstance(model, keras.Model) or not model.built or not model.variables:
        raise ValueError(
            "Expected a built Keras model; give it an Input, or call it on data first. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    shapes = [tuple(v.shape) for v in model.variables]
    expected = [tuple(v.shape) for v in first.variables]
    if shapes != expected:
        raise ValueError(
            "Expected models of one architecture. Received: variables of shapes "
            f"{shapes} beside {expected}"
        )
    kinds = [architecture(one) for one in (model, first)]
    if kinds[0] != kinds[1] and all(isinstance(kind, str) for kind in kinds):
        raise ValueError(
            "Expected models of one architecture, which differ in seeds and initial weights only. "
            f"Received: {model.name!r} beside {first.name!r}, with other operations or settings"
        )
