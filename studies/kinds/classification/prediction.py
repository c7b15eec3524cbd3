"""What a network predicts, and how wrong the prediction is: classes, or a number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from studies.kinds.classification import NUMBERS


@dataclass(frozen=True)
class Prediction:
    """What networks are trained on and judged by.

    Args:
        judged: `loss` and `metrics`, as `Population.fit` takes them. The metric `nll` is the loss
            without the penalties of regularizers.
        named: The classes that outputs of shape (members, n, ...) name, of shape (members, n);
            `None` if the targets are numbers.
    """

    judged: dict[str, Any]
    named: Callable[[np.ndarray], np.ndarray] | None = None

    def errors(self, scores: Mapping[str, np.ndarray], n: int, prefix: str = "") -> np.ndarray:
        """The errors of members on n examples, from the means that a population returns.

        The error is the share of the examples whose class is not named, or the mean squared error.
        """
        if not self.named:
            return scores[f"{prefix}nll"].astype("float64")
        # Counts over n, which single precision has rounded.
        return np.rint((1 - scores[f"{prefix}accuracy"].astype("float64")) * n) / n


def prediction(model: keras.Model, classes: int) -> Prediction:
    """What a network is to predict.

    The loss fits the outputs: those of a softmax or a sigmoid are probabilities, and any others are
    logits.

    Args:
        model: The network, with an output for each class; or one output, for two classes or for a
            number.
        classes: Number of classes of the data; 1 says that the targets are numbers.

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
        error = keras.metrics.MeanSquaredError("nll")
        return Prediction({"loss": keras.losses.MeanSquaredError(), "metrics": [error]})
    if outputs == (1,):
        logits = not _ends_in(model, keras.activations.sigmoid)
        middle = 0.0 if logits else 0.5
        accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=middle)
        nll = keras.metrics.BinaryCrossentropy("nll", from_logits=logits)
        loss = keras.losses.BinaryCrossentropy(from_logits=logits)
        return Prediction({"loss": loss, "metrics": [accuracy, nll]}, lambda z: z[..., 0] > middle)
    logits = not _ends_in(model, keras.activations.softmax)
    nll = keras.metrics.SparseCategoricalCrossentropy("nll", from_logits=logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    return Prediction({"loss": loss, "metrics": ["accuracy", nll]}, lambda z: z.argmax(axis=-1))


def _ends_in(model: keras.Model, activation: Callable) -> bool:
    last = model
    while getattr(last, "layers", None):
        last = last.layers[-1]
    layers = {keras.activations.softmax: keras.layers.Softmax}
    own = getattr(last, "activation", None) is activation
    return own or isinstance(last, layers.get(activation, ()))
