"""What must be known of a user's network before a comparison is planned: the work of a worker."""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain import split_stages
from pretrain.checks import fits
from pretrain.members import architecture
from studies.arms import Arm, functions
from studies.comparison.data import load
from studies.kinds.classification import NUMBERS, ClassificationTrial
from studies.kinds.classification.prediction import per_example, prediction
from studies.kinds.classification.train import build

# Enough to build a network by, and to measure variances on.
_FEW = 100


def surveyed(
    arms: Sequence[Arm], source: str, data_folder: Any = None
) -> tuple[list[Arm], float | None]:
    """Build the network of every arm, and find out what the arms cost and mean.

    Args:
        arms: The arms, of which the first is the user's own network.
        source: What `studies.comparison.data.load` takes.
        data_folder: As `folder` of `pretrain.datasets.load`.

    Returns:
        The arms, with their costs and their meanings; and the error of guessing, if arms have an
        error of their own.

    Raises:
        ValueError: If a network does not fit the data, or has no layer to pretrain; or if the
            error is none.
    """
    data = load(source, None, None, folder=data_folder)
    x, y = data.train
    few = data._replace(train=(x[:_FEW], y[:_FEW]))
    guessing = _guessing(arms[0], few, y) if arms[0].error else None
    return [_surveyed(arm, few) for arm in arms], guessing


def _guessing(arm: Arm, data: Any, y: np.ndarray) -> float:
    """The error of a network that always returns the mean target, or the classes' frequencies."""
    error, model = functions(arm).get("error", arm.error), _built(arm, data)
    logits = prediction(model, data.classes).logits
    outputs = np.tile(_constant(y, model.output_shape[-1], data.classes, logits), (len(y), 1))
    try:
        errors = per_example(error)(y, ops.convert_to_tensor(outputs))
    # The user's function can raise any exception.
    except Exception as failed:
        raise ValueError(
            "The error cannot be computed. Expected a function of targets and outputs that returns "
            f"an error for each example: {type(failed).__name__}: {failed}. "
            f"Received: error={arm.error!r}"
        ) from failed
    return float(ops.mean(errors))


def _constant(y: np.ndarray, outputs: int, classes: int, logits: bool) -> np.ndarray:
    """The best outputs, of shape (outputs,), of a network that knows nothing of its inputs."""
    if classes == NUMBERS:
        return np.array([y.mean()], "float32")
    shares = np.bincount(y.ravel(), minlength=classes) / y.size
    if outputs == 1:
        shares = shares[1:]
        return (np.log(shares / (1 - shares)) if logits else shares).astype("float32")
    return (np.log(np.maximum(shares, 1e-7)) if logits else shares).astype("float32")


def _surveyed(arm: Arm, data: Any) -> Arm:
    plain = _built(replace(arm, start=None, initializer=None), data)
    model, shape = _built(arm, data), data.train[0].shape[1:]
    if not fits(model.input_shape[1:], shape):
        raise ValueError(
            f"Expected a network whose inputs have the shape of an example, {shape}. "
            f"Received: inputs of shape {model.input_shape[1:]} of the network of {arm.name!r}"
        )
    prediction(model, data.classes)
    flops = _flops(model, arm, shape)
    return replace(arm, flops=flops, version=f"1-{_meaning(arm, model, plain)}")


def _built(arm: Arm, data: Any) -> keras.Model:
    try:
        return build(ClassificationTrial(arm=arm.name), arm, data)
    # The user's function can raise any exception.
    except Exception as error:
        raise ValueError(
            f"The network of the arm {arm.name!r} cannot be built: "
            f"{type(error).__name__}: {error}. "
            f"Expected a function from a seed to a Keras model. Received: {arm.build!r}"
        ) from error


def _meaning(arm: Arm, model: keras.Model, plain: keras.Model) -> str:
    """A digest of what an arm does, and of the network that it starts with."""
    named = vars(replace(arm, title="", look=None, version=1))
    sources = [_source(function) for function in functions(arm).values()]
    told = [named, architecture(model), *sources]
    text = json.dumps(told, default=lambda function: "", sort_keys=True)
    weights = b"".join(np.round(w, 4).tobytes() for w in plain.get_weights())
    return hashlib.sha256(text.encode() + weights).hexdigest()[:12]


def _flops(model: keras.Model, arm: Arm, shape: tuple) -> tuple[int, ...]:
    """Forward FLOPs per example of the layers that are pretrained, and of the others."""
    try:
        whole = sum(stage.flops for stage in split_stages(model, head=0, input_shape=shape))
        hidden = [stage.flops for stage in split_stages(model, input_shape=shape)]
    except ValueError:
        if arm.objective:
            raise
        # A network that cannot be cut is not pretrained: only ratios of its cost count.
        return (0, 2 * model.count_params())
    return (*hidden, max(whole - sum(hidden), 1))


def _source(function: Callable) -> str:
    """What a function does, as text; of a function whose source is nowhere, its instructions."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return f"{code.co_code.hex()} {code.co_names}" if code else type(function).__name__
