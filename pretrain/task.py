"""What a network is trained on: the protocol, and the prediction of targets by Keras's losses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
from keras import ops

from pretrain.checks import brief
from pretrain.examples import Block, Examples
from pretrain.internals import loss_of, metric_of, of_same_rank

# On so many examples a loss is tried out; not a usual number of outputs.
_FEW = 7


class Task(Protocol):
    """What a network is trained on: hashable, since a program is compiled for it.

    `names` are those of what is reported; the first is `"loss"`, and the last are those of the
    Keras `metrics`, which see all examples of an epoch. All names before are `scores`.
    """

    names: tuple[str, ...]
    metrics: tuple[keras.metrics.Metric, ...]

    def inputs(self, x: Any, key: Any) -> Any:
        """The network's inputs, from clean examples and a key for random numbers, shape (2,)."""

    def batch_loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        """The scalar that is minimized."""

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        """An array of shape (batch,) for each of `names` that is no metric's."""


@dataclass(frozen=True)
class Prediction:
    """The task of predicting targets; its `key` tells it from other tasks of this class."""

    key: tuple
    function: keras.losses.Loss = field(compare=False)
    metrics: tuple[keras.metrics.Metric, ...] = field(compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return ("loss", *(metric.name for metric in self.metrics))

    def inputs(self, x: Any, key: Any) -> Any:
        return x

    def batch_loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        return self.function(*of_same_rank(y, outputs), sample_weight=weight)

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        y, outputs = of_same_rank(ops.cast(y, self.function.dtype), outputs)
        return [_per_example(self.function.call(y, outputs), ops.shape(outputs)[0])]


def prediction_task(
    model: keras.Layer, examples: Examples, loss: Any, metrics: Sequence[Any]
) -> Prediction:
    """The task of a loss and metrics as `compile` takes them, tried out on a few examples.

    Args:
        model: Model whose outputs the loss compares with targets.
        examples: Examples with targets.
        loss: Keras loss, by name, class or instance, or a function.
        metrics: List of Keras metrics, by name, class or instance, or of functions.

    Raises:
        ValueError: If a loss or a metric is unknown, or does not compare such targets and outputs.
    """
    check_one_output(model)
    if not isinstance(metrics, list | tuple):
        raise ValueError(f"`metrics` must be a list. Received: metrics={brief(metrics)}")
    few = examples.first()[0].take(0, _FEW)
    if few.y is None:
        raise ValueError("Expected targets. Received: y=None")
    outputs = _outputs(model, few.x)
    function = _loss(loss, few.y, outputs)
    found = tuple(_metric(metric, few.y, outputs) for metric in metrics)
    kinds = zip([loss, *metrics], [function, *found], strict=True)
    task = Prediction(tuple(_describe(*kind) for kind in kinds), function, found)
    if len(set(task.names)) < len(task.names):
        raise ValueError(f"`metrics` must have names of their own. Received: {list(task.names)}")
    check_labeled(model, task, examples)
    y, outputs = of_same_rank(few.y, outputs)
    _try(loss, y, outputs, lambda: function(y, outputs))
    for metric, given in zip(found, metrics, strict=True):
        _try(given, y, outputs, lambda metric=metric: _result(metric, y, outputs))
    return task


def check_one_output(model: keras.Layer) -> None:
    """Refuses a model with several outputs, for which a population has no losses."""
    outputs = getattr(model, "outputs", None) or [None]
    if len(outputs) > 1:
        raise ValueError(
            "A population trains and runs models with one output: expected "
            f"keras.Model(model.input, one_output). Received: a model with {len(outputs)} outputs"
        )


def _outputs(model: keras.Layer, x: Any) -> Any:
    """Outputs for inputs, or any of their shape."""
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and None not in shape[1:]:
        return ops.full((len(x), *shape[1:]), 0.5, keras.config.floatx())
    return model(x, training=False)


def _loss(loss: Any, y: Any, outputs: Any) -> keras.losses.Loss:
    try:
        function = loss_of(loss, y, outputs)
    except (ValueError, TypeError):
        function = None
    if function is None:
        raise ValueError(
            "`loss` must be a Keras loss, by name or instance, or a function (y_true, y_pred). "
            f"Received: loss={brief(loss)}"
        )
    # A sum would not compare with the mean over examples of an evaluation.
    if function.reduction not in ("sum_over_batch_size", "mean"):
        raise ValueError(
            "`loss` must be a mean over examples, reduction='sum_over_batch_size'. "
            f"Received: loss {function.name!r} with reduction={function.reduction!r}"
        )
    return function


def _metric(metric: Any, y: Any, outputs: Any) -> keras.metrics.Metric:
    try:
        return metric_of(metric, y, outputs)
    except (ValueError, TypeError):
        raise ValueError(
            "`metrics` must be Keras metrics, by name or instance, or functions "
            f"(y_true, y_pred). Received: {brief(metric)}"
        ) from None


def _try(identifier: Any, y: Any, outputs: Any, compute: Callable) -> None:
    """Refuses a loss or metric that fails or has no single value for these examples."""
    try:
        result, problem = compute(), ""
    except Exception as error:  # Keras, the backend and the user's function have errors of theirs.
        result, problem = None, f" ({str(error).splitlines()[0]})"
    if result is None or tuple(result.shape) != ():
        raise ValueError(
            f"Expected targets that {identifier!r} compares with the model's outputs, to a single "
            "number. For a cross-entropy, one-hot targets need 'categorical_crossentropy' and "
            f"integers need 'sparse_categorical_crossentropy'. Received: targets of shape "
            f"{tuple(y.shape)} and outputs of shape {tuple(outputs.shape)}{problem}"
        )


def _result(metric: keras.metrics.Metric, y: Any, outputs: Any) -> Any:
    """The result for a few examples; some metrics make their variables only now."""
    metric.update_state(y, outputs)
    result = ops.convert_to_tensor(metric.result())
    metric.reset_state()
    return result


def _describe(identifier: Any, found: keras.losses.Loss | keras.metrics.Metric) -> Any:
    """A hashable description by which equal losses and metrics are found equal."""
    if callable(identifier) and not isinstance(identifier, _KERAS):
        return identifier
    if type(found).__module__.startswith("keras."):
        return type(found), json.dumps(found.get_config(), sort_keys=True, default=repr)
    return found


# Losses and metrics of Keras, unlike functions, have a configuration.
_KERAS = (type, keras.losses.Loss, keras.metrics.Metric)


def _per_example(value: Any, n: int) -> Any:
    """Means over all axes but the first of a loss."""
    axes = tuple(range(1, len(value.shape)))
    value = ops.mean(value, axis=axes) if axes else value
    return ops.broadcast_to(ops.cast(value, keras.config.floatx()), (n,))


def check_labeled(template: keras.Layer, task: Prediction, examples: Examples) -> None:
    """Refuses examples whose targets do not fit the task; of a dataset, the first are seen."""
    for targets in examples.targets():
        _check_targets(template, task, targets)


def check_targets(template: keras.Layer, task: Prediction, blocks: list[Block]) -> list[Block]:
    """Examples as they are, unless they lack targets or a label is no class of the model."""
    _check_targets(template, task, [block.y for block in blocks])
    return blocks


def _check_targets(template: keras.Layer, task: Prediction, targets: list) -> None:
    if targets[0] is None:
        raise ValueError("Expected targets. Received: y=None")
    classes = getattr(template, "output_shape", (None,))[-1]
    sparse = getattr(task.function, "fn", None) is keras.losses.sparse_categorical_crossentropy
    if not classes or not sparse:
        return
    low, high = min(y.min() for y in targets), max(y.max() for y in targets)
    if low < 0 or high >= classes or any((y % 1).any() for y in targets):
        raise ValueError(
            f"Expected labels that are integers from 0 to {classes - 1}, the model's outputs. "
            f"Received: y of {targets[0].dtype} from {low} to {high}"
        )
