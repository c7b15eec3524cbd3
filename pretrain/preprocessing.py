"""Preprocessing inside a model that has to see data first."""

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from pretrain.codes import Codes
from pretrain.graph import Graph, matrices
from pretrain.members import Members, variables_of
from pretrain.objectives.objective import Moments
from pretrain.population import Population
from pretrain.stages import Segment


def fit_preprocessing(population: Population, preamble: Segment, inputs: Codes) -> None:
    """Gives batch normalizations of the model's input that have never seen data its moments.

    They are not trained with a stage, so that they would stay the identity.

    Args:
        population: The population that gets the moments.
        preamble: Calls before the first stage; those after a projection are left alone.
        inputs: What the first of these calls reads.

    Raises:
        ValueError: If there is a Normalization that has not been adapted.
    """
    for position, call in enumerate(preamble.graph.calls):
        layer = call.operation
        if matrices(layer):
            return
        if not _is_unfitted(layer, population.members):
            continue
        if isinstance(layer, kl.Normalization):
            raise ValueError(
                "Expected a Normalization layer that has seen data: call its adapt(x) first. "
                f"Received: layer {layer.name!r}, which has not been adapted"
            )
        _, moments = inputs.moments(population.members.of_layer(_before(preamble, position)))
        members = population.members.of_layer(layer)
        for i, values in enumerate(members.values):
            members.values[i] = _fitted(layer, values, moments[i % len(moments)])
        population.take_over(members)


def _before(preamble: Segment, position: int) -> Segment:
    """The calls before a call."""
    call, whole = preamble.graph.calls[position], preamble.graph
    (number,) = call.inputs.values()
    calls = Graph(whole.calls[:position], whole.input, number, whole.input_shape)
    return Segment(calls, call.input_shape)


def _fitted(layer: kl.BatchNormalization, values: list, moments: Moments) -> list:
    """The values of a layer's variables, with other moments."""
    mean, variance = _of_axis(moments, layer.axis)
    new = {id(layer.moving_mean): mean, id(layer.moving_variance): variance}
    return [
        ops.convert_to_tensor(new.get(id(variable), value), variable.dtype)
        for variable, value in zip(variables_of(layer), values, strict=True)
    ]


def _is_unfitted(layer: keras.Operation, members: Members) -> bool:
    """Whether a layer normalizes by moments that are those it was built with."""
    if isinstance(layer, kl.BatchNormalization) and layer.trainable:
        mean, variance = layer.moving_mean, layer.moving_variance
    elif isinstance(layer, kl.Normalization) and layer.input_mean is None:
        mean, variance = layer.adapt_mean, layer.adapt_variance
    else:
        return False
    return not members.stacked(mean).any() and bool((members.stacked(variance) == 1).all())


def _of_axis(moments: Moments, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of what has a place on an axis of the inputs, batch axis included."""
    rank = moments.mean.ndim + 1
    others = tuple(a - 1 for a in range(1, rank) if a != axis % rank)
    mean, square = (m.mean(axis=others) for m in (moments.mean, moments.mean_square))
    return mean, square - mean**2
