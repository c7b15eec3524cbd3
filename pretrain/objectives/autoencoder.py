"""Autoencoders, which train a stage so that a decoder can reconstruct the stage's input."""

import math
from dataclasses import dataclass, field, replace
from typing import Self

import keras
import numpy as np
from keras import ops
from scipy.special import xlog1py, xlogy

from pretrain.backend import Tensor, directional_derivative, normal
from pretrain.checks import check_choice, check_number, positive
from pretrain.corruption import Gaussian, Masking, PatchMasking, SaltAndPepper
from pretrain.objectives.decoders import build_decoder
from pretrain.objectives.dense import DenseStage, is_dense
from pretrain.objectives.objective import Learner, Moments, Objective
from pretrain.stages import Stage, in_unit_interval

LOSSES = ("binary_crossentropy", "mean_squared_error")
# A loss with a penalty cannot be compared with the baseline, but the reconstruction's loss can.
_WITH_RECONSTRUCTION = ("loss", "reconstruction")


class Reconstruction(Learner):
    """A stage followed by its decoder."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """Encodes and decodes a batch.

        Args:
            inputs: `"x"`, the stage's inputs after corruption (batch, ...), and what else the
                objective's `inputs` returned.
            training: Whether the stage is trained.

        Returns:
            What `encode` returns, and `"reconstruction"`, the pre-activation of the decoded code.
        """
        outputs = self.encode(inputs, training)
        return {**outputs, "reconstruction": self.decoder(outputs["code"], training=training)}

    def encode(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """Encodes a batch.

        Args:
            inputs: As in `call`.
            training: As in `call`.

        Returns:
            `"code"`, which the decoder reads, and what else the loss needs.
        """
        return {**inputs, "code": self.stage(inputs["x"], training=training)}


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Objective):
    """Reconstruction of a stage's input from its output.

    The objective is to minimize L(x, g(f(x))). Here f is the stage with its own activation and g
    is one projection. L is the cross-entropy -(x log z + (1 - x) log(1 - z)) with z = sigmoid(g),
    or the squared error (x - g)^2.

    Args:
        tied: Whether the weights of g are the transposed weights of f, one variable.
        loss: `"binary_crossentropy"`, `"mean_squared_error"` or `"auto"`. The last stands for the
            cross-entropy if the stage's input is the output of a sigmoid, or is the first stage's
            input and lies in [0, 1], and for the squared error if not.
        reduction: `"sum"` over the features, as in the literature, or `"mean"`, which divides the
            sum and the penalties by the number of features.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks)
    """

    tied: bool = False
    loss: str = "auto"
    reduction: str = "mean"

    def __post_init__(self) -> None:
        if not isinstance(self.tied, bool):
            raise ValueError(f"`tied` must be True or False. Received: tied={self.tied!r}")
        check_choice("loss", self.loss, ("auto", *LOSSES))
        check_choice("reduction", self.reduction, ("mean", "sum"))

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        return Reconstruction(stage, build_decoder(stage, self.tied, seed, copy))

    def decided(self, binary: bool) -> Self:
        return self if self.loss != "auto" else replace(self, loss=LOSSES[0 if binary else 1])

    @property
    def loss_name(self) -> str:
        return self.loss

    @property
    def binary(self) -> bool:
        return self.loss == LOSSES[0]

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        return [self._reduced(self._losses(x, outputs))]

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor | float:
        """The penalty, a scalar or an array (batch,), which is added to a sum over the features."""
        return 0.0

    def reduced(self, total: Tensor, x: Tensor) -> Tensor:
        """A sum over the features of x, or a penalty, in the units of the loss."""
        return total / math.prod(x.shape[1:]) if self.reduction == "mean" else total

    def baseline(self, moments: Moments) -> float:
        losses = trivial_losses(self.loss, moments)
        return float(losses.mean() if self.reduction == "mean" else losses.sum())

    def _losses(self, x: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        return reconstruction_losses(self.loss, x, outputs["reconstruction"])

    def _reduced(self, losses: Tensor, penalty: Tensor | float = 0.0) -> Tensor:
        """Losses of examples (batch,), from losses of features (batch, ...) and a penalty."""
        return self.reduced(sum_of_features(losses) + penalty, losses)


@dataclass(frozen=True)
class DenoisingAutoencoder(Autoencoder):
    """Reconstruction of a stage's clean input from a corrupted copy.

    The objective is to minimize L(x, g(f(x~))), see `Autoencoder`, where x~ is a fresh corruption
    of x in every step. With emphasis, the loss of a feature has the weight `alpha` if the feature
    was selected for corruption, and the weight `beta` if not: full emphasis is `beta=0`, double
    emphasis `beta=0.5`.

    Args:
        corruption: A process of `pretrain.corruption`.
        alpha: Weight of the features that were selected for corruption, at least 0.
        beta: Weight of the features that were not selected, at least 0.
        tied: As in `Autoencoder`.
        loss: As in `Autoencoder`.
        reduction: As in `Autoencoder`.

    Reference:
        [Vincent et al., 2010](https://www.jmlr.org/papers/v11/vincent10a.html)
    """

    corruption: Masking | Gaussian | SaltAndPepper | PatchMasking = field(default_factory=Masking)
    alpha: float = field(default=1.0, kw_only=True)
    beta: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.corruption) or isinstance(self.corruption, type):
            raise ValueError(
                "`corruption` must be a process of pretrain.corruption, such as Masking(0.25). "
                f"Received: corruption={self.corruption!r}"
            )
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        if self.emphasizes and not hasattr(self.corruption, "selected"):
            raise ValueError(
                "Emphasis needs a corruption that selects features, such as Masking(0.25). "
                f"Received: corruption={self.corruption!r}, alpha={self.alpha}, beta={self.beta}"
            )

    @property
    def emphasizes(self) -> bool:
        """Whether the losses of features have weights other than 1."""
        return not self.alpha == self.beta == 1

    @property
    def names(self) -> tuple[str, ...]:
        return _WITH_RECONSTRUCTION if self.emphasizes else ("loss",)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        inputs = {"x": self.corruption(x, key)}
        if self.emphasizes:
            inputs["selected"] = self.corruption.selected(x, key)
        return inputs

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        losses = self._losses(x, outputs)
        if not self.emphasizes:
            return [self._reduced(losses)]
        weights = ops.where(outputs["selected"], self.alpha, self.beta)
        return [self._reduced(losses * ops.cast(weights, losses.dtype)), self._reduced(losses)]


class _Penalized(Autoencoder):
    """An autoencoder whose loss is the reconstruction's loss plus a penalty."""

    names = _WITH_RECONSTRUCTION

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        losses = self._losses(x, outputs)
        return [self._reduced(losses, self.penalty(outputs)), self._reduced(losses)]


@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(_Penalized):
    """Reconstruction of a stage's input from a code that is mostly near 0.

    The objective is to minimize the sum over the features of L(x, g(f(x))), see `Autoencoder`,
    plus a penalty. The penalty is `weight` times sum_j KL(target || m_j), where m_j is the mean of
    code unit j over the batch and KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)); or
    `weight` times sum_j |h_j|, where h_j is code unit j.

    Args:
        norm: `"kl"`, for stages that end in a sigmoid, or `"l1"`.
        weight: Weight of the penalty, at least 0.
        target: Mean of every code unit at which the divergence is 0, between 0 and 1.
        tied: As in `Autoencoder`.
        loss: As in `Autoencoder`.
        reduction: As in `Autoencoder`.

    Reference:
        [Ng, 2011](https://web.stanford.edu/class/cs294a/sparseAutoencoder_2011new.pdf)
    """

    norm: str = "kl"
    weight: float = 3.0
    target: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("norm", self.norm, ("kl", "l1"))
        check_number("weight", self.weight)
        check_number("target", self.target)
        if not 0 < self.target < 1:
            raise ValueError(
                f"`target` must be between 0 and 1, both excluded. Received: target={self.target}"
            )

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        if self.norm == "kl" and not in_unit_interval([stage]):
            raise ValueError(
                "The Kullback-Leibler penalty needs a stage that ends in a sigmoid: use "
                f"norm='l1'. Received: stage {stage.name!r}, norm='kl'"
            )
        return super().build(stage, seed, copy)

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor:
        code = ops.cast(outputs["code"], keras.config.floatx())
        if self.norm == "l1":
            return self.weight * sum_of_features(ops.abs(code))
        # The divergence from a mean of exactly 0 or 1 is infinite.
        tiny = keras.config.epsilon()
        mean = ops.clip(ops.mean(code, axis=0), tiny, 1 - tiny)
        p = self.target
        divergence = p * ops.log(p / mean) + (1 - p) * ops.log((1 - p) / (1 - mean))
        return self.weight * ops.sum(divergence)


@dataclass(frozen=True, kw_only=True)
class ContractiveAutoencoder(_Penalized):
    """Reconstruction of a stage's input from a code that moves little with the input.

    The objective is to minimize the sum over the features of L(x, g(f(x))), see `Autoencoder`,
    plus the penalty `weight` times ||J||_F^2, where J is the Jacobian of the stage at x. For a
    dense stage with an element-wise activation s, ||J||_F^2 = sum_j s'(a_j)^2 ||W_j||^2, where a is
    the pre-activation.

    Args:
        weight: Weight of the penalty, at least 0.
        samples: Number of random directions of Hutchinson's estimate in every step, at least 1;
            `None` for the exact norm, which costs as much as encoding every example once for each
            feature. Dense stages always have the exact norm. Other stages are taken in inference
            mode.
        tied: As in `Autoencoder`; the paper has tied weights.
        loss: As in `Autoencoder`.
        reduction: As in `Autoencoder`.

    Reference:
        [Rifai et al., 2011](https://icml.cc/2011/papers/455_icmlpaper.pdf)
    """

    weight: float = 0.1
    samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight)
        if self.samples is not None:
            positive("samples", self.samples)

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        decoder = build_decoder(stage, self.tied, seed, copy)
        return ContractiveReconstruction(stage, decoder, self.samples)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        return {"x": x, "key": key}

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor:
        return self.weight * ops.cast(outputs["contraction"], keras.config.floatx())


class ContractiveReconstruction(Reconstruction):
    """A `Reconstruction` that also computes how far the code moves with the input.

    Args:
        stage: The stage.
        decoder: The decoder of the stage.
        samples: As in `ContractiveAutoencoder`.
    """

    def __init__(self, stage: Stage, decoder: keras.Model, samples: int | None) -> None:
        super().__init__(stage, decoder)
        self._samples = samples

    def encode(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """Encodes a batch and computes the norm of the stage's Jacobian.

        Args:
            inputs: `"x"`, the stage's inputs (batch, ...), and `"key"`, a key for random numbers.
            training: Whether the stage is trained.

        Returns:
            What `Reconstruction.encode` returns, and `"contraction"`, ||J||_F^2, shape (batch,).
        """
        outputs = super().encode(inputs, training)
        return {**outputs, "contraction": self._contraction(inputs["x"], inputs["key"])}

    def _contraction(self, x: Tensor, key: Tensor) -> Tensor:
        if is_dense(self.stage):
            return _contraction_of_dense(DenseStage(self.stage), x)
        return self._exact(x) if self._samples is None else self._estimated(x, key)

    def _exact(self, x: Tensor) -> Tensor:
        """The sum over the features of the squared norm of the Jacobian's column."""
        features = math.prod(x.shape[1:])
        basis = ops.reshape(ops.eye(features, dtype=x.dtype), (features, *x.shape[1:]))
        directions = ops.tile(basis, (x.shape[0], *[1] * (len(x.shape) - 1)))
        columns = self._along(ops.repeat(x, features, axis=0), directions)
        squares = sum_of_features(ops.square(columns))
        return ops.sum(ops.reshape(squares, (x.shape[0], features)), axis=1)

    def _estimated(self, x: Tensor, key: Tensor) -> Tensor:
        """The mean of ||J v||^2 over standard normal v (Hutchinson 1990)."""
        directions = ops.cast(normal((self._samples, *x.shape), key), x.dtype)
        columns = [self._along(x, directions[i]) for i in range(self._samples)]
        return sum(sum_of_features(ops.square(c)) for c in columns) / self._samples

    def _along(self, x: Tensor, directions: Tensor) -> Tensor:
        # In training mode, a normalization by the batch's moments would mix the examples.
        def encode(x):
            return self.stage(x, training=False)

        return directional_derivative(encode, x, directions)[1]


def _contraction_of_dense(stage: DenseStage, x: Tensor) -> Tensor:
    a = stage.pre_activation(x)
    _, slopes = directional_derivative(stage.activate, a, ops.ones_like(a))
    norms = ops.sum(ops.square(stage.dense.kernel), axis=0)
    return sum_of_features(ops.square(slopes) * norms)


def reconstruction_losses(loss: str, x: Tensor, reconstruction: Tensor) -> Tensor:
    """Losses of the features of a reconstruction.

    Args:
        loss: One of `LOSSES`.
        x: The clean batch (batch, ...).
        reconstruction: Pre-activation of the reconstruction (batch, ...).

    Returns:
        Array of the shape of x.
    """
    x, outputs = (ops.cast(values, keras.config.floatx()) for values in (x, reconstruction))
    if loss == LOSSES[0]:
        return ops.binary_crossentropy(x, outputs, from_logits=True)
    return ops.square(x - outputs)


def trivial_losses(loss: str, moments: Moments) -> np.ndarray:
    """Mean losses of the features when the mean input reconstructs every input."""
    mean = moments.mean
    if loss == LOSSES[0]:
        return -(xlogy(mean, mean) + xlog1py(1 - mean, -mean))
    return moments.mean_square - mean**2


def sum_of_features(values: Tensor) -> Tensor:
    """Sums (batch,) over all axes except the first."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))
