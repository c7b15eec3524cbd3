"""Autoencoders: a stage is trained to let a decoder reconstruct its input."""

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.special import xlog1py, xlogy

from pretrain import graph
from pretrain.corruption import Gaussian, Masking, SaltAndPepper
from pretrain.objectives.decoders import build_decoder
from pretrain.stages import Stage

LOSSES = ("binary_crossentropy", "mean_squared_error")


class Reconstruction(keras.layers.Layer):
    """A stage followed by its decoder: from input to pre-activation of the reconstruction.

    Args:
        stage: The stage.
        decoder: Its decoder.
    """

    def __init__(self, stage: Stage, decoder: keras.Model) -> None:
        super().__init__(autocast=False)
        self.stage = stage
        self.decoder = decoder
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.decoder(self.stage(x, training=training), training=training)

    def fingerprint(self) -> str:
        """A text that is equal for reconstructions of the same architecture."""
        calls = self.stage.graph.calls + graph.flatten(self.decoder).calls
        return graph.fingerprint(calls)


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """Reconstruction of a stage's input from its output.

    Minimizes L(x, g(f(x))): f is the stage with its own activation, g one projection. L is the
    cross-entropy -(x log z + (1 - x) log(1 - z)) with z = sigmoid(g), or the squared error
    (x - g)^2.

    Args:
        tied: Whether g's weights are f's, transposed, one variable.
        loss: `"binary_crossentropy"`, `"mean_squared_error"`, or `"auto"`: cross-entropy where the
            input is the output of a sigmoid, or is the first stage's and in [0, 1].
        reduction: `"mean"` over the features, or their `"sum"`, as in the literature.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks)
    """

    tied: bool = False
    loss: str = "auto"
    reduction: str = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.tied, bool):
            raise ValueError(f"`tied` must be True or False. Received: tied={self.tied!r}")
        _check_choice("loss", self.loss, ("auto", *LOSSES))
        _check_choice("reduction", self.reduction, ("mean", "sum"))

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Reconstruction:
        """The trainable layer of a stage: the stage, shared, and a new decoder.

        Args:
            stage: The stage to train.
            seed: Seed of the decoder's initial weights.
            copy: Whether tied weights are tied to a copy; see `build_decoder`.
        """
        return Reconstruction(stage, build_decoder(stage, self.tied, seed, copy))

    def task(self, binary: bool) -> "ReconstructionTask":
        """What the layer of `build` is trained on.

        Args:
            binary: Whether the stage's input lies in [0, 1] because of what produces it.
        """
        loss = self.loss
        if loss == "auto":
            loss = LOSSES[0] if binary else LOSSES[1]
        return ReconstructionTask(replace(self, loss=loss))

    def corrupt(self, x: Any, seed: Any) -> Any:
        """The encoder's input for a clean batch."""
        return x


@dataclass(frozen=True)
class DenoisingAutoencoder(Autoencoder):
    """Reconstruction of a stage's clean input from a corrupted copy.

    Minimizes L(x, g(f(x~))), x~ a fresh corruption of x in every step; see `Autoencoder`.

    Args:
        corruption: A process of `pretrain.corruption`.
        tied: As in `Autoencoder`.
        loss: As in `Autoencoder`.
        reduction: As in `Autoencoder`.

    Reference:
        [Vincent et al., 2010](https://www.jmlr.org/papers/v11/vincent10a.html)
    """

    corruption: Masking | Gaussian | SaltAndPepper = field(default_factory=Masking)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.corruption) or isinstance(self.corruption, type):
            raise ValueError(
                "`corruption` must be a process of pretrain.corruption, such as Masking(0.25). "
                f"Received: corruption={self.corruption!r}"
            )

    def corrupt(self, x: Any, seed: Any) -> Any:
        """The encoder's input for a clean batch."""
        return self.corruption(x, seed)


@dataclass(frozen=True)
class ReconstructionTask:
    """The task of reconstructing a stage's clean input.

    Args:
        objective: The objective, its loss decided.
    """

    objective: Autoencoder

    names = ("loss",)

    def inputs(self, x: Any, key: Any) -> Any:
        return self.objective.corrupt(x, key)

    def loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        return ops.mean(self.scores(x, y, outputs)[0])

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        x, outputs = (ops.cast(values, keras.config.floatx()) for values in (x, outputs))
        if self.objective.loss == "binary_crossentropy":
            losses = ops.binary_crossentropy(x, outputs, from_logits=True)
        else:
            losses = ops.square(x - outputs)
        return [self._reduce(losses)]

    def _reduce(self, losses: Any) -> Any:
        axes = tuple(range(1, len(losses.shape)))
        return (ops.mean if self.objective.reduction == "mean" else ops.sum)(losses, axis=axes)

    def baseline(self, mean: np.ndarray, mean_square: np.ndarray) -> float:
        """The loss of the trivial reconstruction, the mean input.

        Args:
            mean: Mean of the inputs, an array of one input's shape.
            mean_square: Mean of their squares, likewise.
        """
        if self.objective.loss == "binary_crossentropy":
            losses = -(xlogy(mean, mean) + xlog1py(1 - mean, -mean))
        else:
            losses = mean_square - mean**2
        return float(losses.mean() if self.objective.reduction == "mean" else losses.sum())


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}")
