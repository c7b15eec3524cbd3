"""What a network is trained on: the protocol, and the prediction of targets by Keras's losses."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
from keras import ops

from pretrain.examples import Block, Examples
from pretrain.internals import metric_function


class Task(Protocol):
    """What a network is trained on: hashable, since a program is compiled for it.

    `names` are those of what is reported of each example; the first is `"loss"`.
    """

    names: tuple[str, ...]

    def inputs(self, x: Any, key: Any) -> Any:
        """The network's inputs, from clean examples and a key for random numbers, shape (2,)."""

    def batch_loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        """The scalar that is minimized."""

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        """An array of shape (batch,) for each of `names`."""


@dataclass(frozen=True)
class Prediction:
    """The task of predicting targets; its `key` tells it from other tasks of this class."""

    key: tuple
    function: keras.losses.Loss = field(compare=False)
    metrics: tuple[tuple[str, Callable], ...] = field(compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return ("loss", *(name for name, _ in self.metrics))

    def inputs(self, x: Any, key: Any) -> Any:
        return x

    def batch_loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        return self.function(y, outputs, sample_weight=weight)

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        values = [self.function.call(y, outputs)]
        values += [function(y, outputs) for _, function in self.metrics]
        return [_per_example(value, ops.shape(outputs)[0]) for value in values]


def prediction_task(loss: Any, metrics: Sequence[Any]) -> Prediction:
    """The task of a Keras loss and Keras metrics, as `Population.fit` takes them."""
    function = _loss(loss)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise ValueError(f"`metrics` must be a list. Received: metrics={metrics!r}")
    named = tuple(_metric(metric, function) for metric in metrics)
    key = (_describe(function), *((name, _describe(metric)) for name, metric in named))
    task = Prediction(key, function, named)
    if len(set(task.names)) < len(task.names):
        raise ValueError(f"`metrics` must have names of their own. Received: {list(task.names)}")
    return task


def _loss(loss: Any) -> keras.losses.Loss:
    try:
        function = keras.losses.get(loss)
    except (ValueError, TypeError):
        function = None
    if callable(function) and not isinstance(function, keras.losses.Loss):
        return _keras_class_of(function) or _FunctionLoss(function)
    if not isinstance(function, keras.losses.Loss):
        raise ValueError(
            "`loss` must be a Keras loss, by name or instance, or a function (y_true, y_pred). "
            f"Received: loss={loss!r}"
        )
    # A sum would not compare with the mean over examples of an evaluation.
    if function.reduction not in ("sum_over_batch_size", "mean"):
        raise ValueError(
            "`loss` must be a mean over examples, reduction='sum_over_batch_size'. "
            f"Received: loss {function.name!r} with reduction={function.reduction!r}"
        )
    return function


def _keras_class_of(function: Callable) -> keras.losses.Loss | None:
    """The loss whose function Keras gives for a name: `SparseCategoricalCrossentropy`, ..."""
    name = getattr(function, "__name__", "")
    kind = getattr(keras.losses, "".join(map(str.capitalize, name.split("_"))), None)
    return kind() if kind and function is getattr(keras.losses, name, None) else None


class _FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred)` as a Keras loss."""

    def __init__(self, function: Callable) -> None:
        super().__init__(name="loss")
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _metric(metric: Any, loss: keras.losses.Loss) -> tuple[str, Callable]:
    if callable(metric) and not isinstance(metric, keras.metrics.Metric | type):
        return metric.__name__, metric
    name = metric
    if metric in ("accuracy", "acc"):
        kind = type(loss).__name__.removesuffix("Crossentropy")
        metric = {
            "SparseCategorical": "sparse_categorical_accuracy",
            "Categorical": "categorical_accuracy",
            "Binary": "binary_accuracy",
        }.get(kind)
    try:
        metric = keras.metrics.get(metric)
        function = metric_function(metric)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(
            "`metrics` must be names of Keras metrics that are means over examples, or functions "
            f"(y_true, y_pred) -> (batch,). Received: {name!r} with loss {loss.name!r}"
        ) from None
    return (name if isinstance(name, str) else metric.name), function


def _describe(function: Any) -> Any:
    """A hashable description by which equal losses and metrics are found equal."""
    if isinstance(function, _FunctionLoss):
        return function.function
    if type(function).__module__.startswith("keras."):
        return type(function), json.dumps(function.get_config(), sort_keys=True, default=repr)
    if isinstance(function, functools.partial):
        return function.func, repr(function.keywords)
    return function


def _per_example(value: Any, n: int) -> Any:
    """Means over all axes but the first of a loss or metric."""
    axes = tuple(range(1, len(value.shape)))
    value = ops.mean(value, axis=axes) if axes else value
    return ops.broadcast_to(ops.cast(value, keras.config.floatx()), (n,))


def check_inputs(template: keras.Layer, examples: Examples) -> None:
    """Refuses examples that do not have the shape of the model's input."""
    x = examples.first()[0].x
    expected = getattr(template, "input_shape", None)
    if not isinstance(expected, tuple):
        return
    fits = len(x.shape) == len(expected) and all(
        e is None or e == n for e, n in zip(expected[1:], x.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected x of shape {('n', *expected[1:])}, the model's input. "
            f"Received: x.shape={tuple(x.shape)}"
        )


def check_labeled(template: keras.Layer, task: Prediction, examples: Examples | None) -> None:
    """Refuses examples that do not fit the model or the task; of a dataset, the first are seen."""
    if examples is None:
        return
    check_inputs(template, examples)
    check_targets(template, task, examples.first())


def check_targets(template: keras.Layer, task: Prediction, blocks: list[Block]) -> list[Block]:
    """Examples as they are, unless they lack targets or a label is no class of the model."""
    targets = [block.y for block in blocks]
    if targets[0] is None:
        raise ValueError("Expected targets. Received: y=None")
    classes = getattr(template, "output_shape", (None,))[-1]
    if not classes or not isinstance(task.function, keras.losses.SparseCategoricalCrossentropy):
        return blocks
    low, high = min(y.min() for y in targets), max(y.max() for y in targets)
    if low < 0 or high >= classes or any((y % 1).any() for y in targets):
        raise ValueError(
            f"Expected labels that are integers from 0 to {classes - 1}, the model's outputs. "
            f"Received: y of {targets[0].dtype} from {low} to {high}"
        )
    return blocks
