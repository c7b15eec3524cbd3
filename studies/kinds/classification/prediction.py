"""What a network predicts, and how wrong the prediction is: classes, or a number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from studies.kinds.classification import NUMBERS

# The target of an example without a label.
UNLABELED = -1
# The probability above which a network's own label counts.
_SURE = 0.95


@dataclass(frozen=True)
class Prediction:
    """What networks are trained on and judged by.

    Args:
        judged: `loss` and `metrics`, as `Population.fit` takes them. The metric `nll` is the loss
            without the penalties of regularizers.
        error: The metric whose mean is the error; `"accuracy"` for the share of wrong classes.
        logits: Whether outputs that name classes are logits, and not probabilities.
        named: The classes that outputs of shape (members, n, ...) name, of shape (members, n);
            `None` if the error is not the share of wrong classes.
    """

    judged: dict[str, Any]
    error: str = "accuracy"
    logits: bool = False
    named: Callable[[np.ndarray], np.ndarray] | None = None

    def errors(self, scores: Mapping[str, np.ndarray], n: int, prefix: str = "") -> np.ndarray:
        """The errors of members on n examples, from the means that a population returns."""
        means = scores[f"{prefix}{self.error}"].astype("float64")
        if self.error != "accuracy":
            return means
        # Counts over n, which single precision has rounded.
        return np.rint((1 - means) * n) / n


def prediction(model: keras.Model, classes: int, error: str | Callable | None = None) -> Prediction:
    """What a network is to predict.

    The loss fits the outputs: those of a softmax or a sigmoid are probabilities, and any others are
    logits.

    Args:
        model: The network, with an output for each class; or one output, for two classes or for a
            number.
        classes: Number of classes of the data; 1 says that the targets are numbers.
        error: Name of a loss of Keras, or a function of targets and outputs, whose mean over the
            examples is the error. By default, the share of wrong classes, or the mean squared
            error.

    Raises:
        ValueError: If the network has another number of outputs.
    """
    outputs = tuple(model.output_shape[1:])
    if outputs not in ((classes,), (1,)) or outputs == (1,) and classes > 2:
        raise ValueError(
            f"Expected a network with {classes} outputs{', or with 1' * (classes == 2)}, one for "
            f"{'the number to predict' if classes == NUMBERS else 'each class'}. "
            f"Received: outputs of shape {outputs}"
        )
    if classes == NUMBERS:
        nll = keras.metrics.MeanSquaredError("nll")
        found = Prediction({"loss": keras.losses.MeanSquaredError(), "metrics": [nll]}, "nll")
    else:
        found = _binary(model) if outputs == (1,) else _categorical(model)
    return _judged_by(error, found) if error else found


def _binary(model: keras.Model) -> Prediction:
    logits = not _ends_in(model, keras.activations.sigmoid)
    middle = 0.0 if logits else 0.5
    accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=middle)
    nll = keras.metrics.BinaryCrossentropy("nll", from_logits=logits)
    loss = keras.losses.BinaryCrossentropy(from_logits=logits)
    judged = {"loss": loss, "metrics": [accuracy, nll]}
    return Prediction(judged, logits=logits, named=lambda outputs: outputs[..., 0] > middle)


def _categorical(model: keras.Model) -> Prediction:
    logits = not _ends_in(model, keras.activations.softmax)
    nll = keras.metrics.SparseCategoricalCrossentropy("nll", from_logits=logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    judged = {"loss": loss, "metrics": ["accuracy", nll]}
    return Prediction(judged, logits=logits, named=lambda outputs: outputs.argmax(axis=-1))


def _judged_by(error: str | Callable, found: Prediction) -> Prediction:
    *_, nll = found.judged["metrics"]
    metrics = [keras.metrics.MeanMetricWrapper(per_example(error), "error"), nll]
    return replace(found, judged=found.judged | {"metrics": metrics}, error="error", named=None)


def with_pseudo_labels(found: Prediction) -> Prediction:
    """Let the loss take examples whose target is `UNLABELED`.

    Their target is the class that the network names, where its probability is above `_SURE`; in all
    other places, their loss is 0 (Lee 2013; the threshold is that of Sohn et al. 2020). The metrics
    leave these examples out.
    """
    if not isinstance(found.judged["loss"], keras.losses.SparseCategoricalCrossentropy):
        raise ValueError("Pseudo-labels need a network with an output for each class.")

    def loss(targets: Any, outputs: Any) -> Any:
        targets = keras.ops.reshape(targets, (-1,))
        probabilities = keras.ops.softmax(outputs) if found.logits else outputs
        labeled = targets != UNLABELED
        counted = labeled | (keras.ops.max(probabilities, axis=-1) > _SURE)
        named = keras.ops.cast(keras.ops.argmax(outputs, axis=-1), targets.dtype)
        losses = keras.ops.sparse_categorical_crossentropy(
            keras.ops.where(labeled, targets, named), outputs, from_logits=found.logits
        )
        return keras.ops.where(counted, losses, 0.0)

    return replace(found, judged={"loss": loss, "metrics": _of_labeled(found)})


def _of_labeled(found: Prediction) -> list[keras.metrics.Metric]:
    def right(targets: Any, outputs: Any) -> Any:
        named = keras.ops.argmax(outputs, axis=-1)
        return keras.ops.cast(named == keras.ops.cast(targets, named.dtype), "float32")

    def nll(targets: Any, outputs: Any) -> Any:
        return keras.ops.sparse_categorical_crossentropy(
            keras.ops.maximum(targets, 0), outputs, from_logits=found.logits
        )

    return [_LabeledMean(right, "accuracy"), _LabeledMean(nll, "nll")]


class _LabeledMean(keras.metrics.MeanMetricWrapper):
    """The mean of a function of targets and outputs over the examples with labels."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        targets = keras.ops.reshape(y_true, (-1,))
        labeled = keras.ops.cast(targets != UNLABELED, "float32")
        super().update_state(targets, y_pred, labeled)


def per_example(error: str | Callable) -> Callable:
    """The errors of examples (n, ...) as a function of targets and outputs.

    Where a network has one output, targets and outputs have the shape (n, 1); otherwise targets
    have the shape (n,) and outputs the shape (n, classes).

    Args:
        error: Name of a loss of Keras, or a function of targets and outputs.

    Raises:
        ValueError: If Keras has no loss of the name; when called, if there is not an error for
            each example.
    """
    function = keras.losses.get(error)

    def errors(targets: Any, outputs: Any) -> Any:
        if outputs.shape[-1] == 1:
            targets = keras.ops.reshape(keras.ops.cast(targets, outputs.dtype), (-1, 1))
        found = keras.ops.convert_to_tensor(function(targets, outputs))
        if not found.shape or found.shape[0] != outputs.shape[0]:
            raise ValueError(
                "Expected a function of targets and outputs that returns an error for each "
                f"example, of shape {(outputs.shape[0],)}. Received: values of shape "
                f"{tuple(found.shape)} from error={error!r}"
            )
        return found

    return errors


def _ends_in(model: keras.Model, activation: Callable) -> bool:
    last = model
    while getattr(last, "layers", None):
        last = last.layers[-1]
    layers = {keras.activations.softmax: keras.layers.Softmax}
    own = getattr(last, "activation", None) is activation
    return own or isinstance(last, layers.get(activation, ()))
