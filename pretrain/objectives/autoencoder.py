"""Autoencoders, which train a stage so that a decoder can reconstruct the stage's input."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from scipy.special import xlog1py, xlogy

from pretrain.backend import Tensor, as_floats, directional_derivative, normal
from pretrain.checks import brief, check_choice, check_number, positive
from pretrain.corruption import Gaussian, Masking, PatchMasking, SaltAndPepper
from pretrain.internals import layers_of, unrolled
from pretrain.objectives.decoders import build_decoder, dense_stage
from pretrain.objectives.objective import Learner, Moments, Objective
from pretrain.stages import Segment, Stage, in_unit_interval
from pretrain.unpooling import MaxUnpooling

UNPOOLING = ("repeat", "switches")
LOSSES = ("binary_crossentropy", "mean_squared_error")
# A loss with a penalty cannot be compared with the baseline, but the reconstruction's loss can.
_WITH_RECONSTRUCTION = ("loss", "reconstruction")


class Reconstruction(Learner):
    """A stage, in one or two `pieces` (see `Objective.pieces`), followed by its decoder."""

    def __init__(
        self,
        stage: Stage,
        decoder: keras.Model,
        head: keras.Model | None = None,
        pieces: Sequence[Segment] = (),
    ) -> None:
        super().__init__(stage, decoder, head)
        self._pieces = list(pieces) or [stage]
        self._unpooling = unpooling_layers(self._pieces)

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """What `encode` returns, and `"reconstruction"`, the pre-activation of the decoded code."""
        outputs = self.encode(inputs, training)
        return {**outputs, "reconstruction": self.decode(outputs["code"], outputs, training)}

    def encode(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """The `"code"` of a batch, which the decoder reads, and what else loss and decoder need.

        Of sequences with padded steps, `"counted"` says which of the batch's values are no padding.
        """
        clean = inputs.get("clean", inputs["x"])
        counted = self.stage.counted(clean)
        tensors = [self.stage.corrupted(inputs["x"], clean)]
        for piece in self._pieces:
            tensors.append(piece(tensors[-1], training=training))
        outputs = {**inputs, "code": tensors[-1], "image": tensors[1]}
        return outputs if counted is None else {**outputs, "counted": counted}

    def decode(self, code: Tensor, outputs: dict[str, Tensor], training: bool | None) -> Tensor:
        """The pre-activation of a code's reconstruction, beside what `encode` returned."""
        for layer in self._unpooling:
            code = layer(code, outputs["image"])
        return self.decoder(code, training=training)


def unpooling_layers(pieces: list[Segment]) -> list[MaxUnpooling]:
    """What leads from the output of a stage to the output of its first piece."""
    name = f"{pieces[0].name}_unpooling"
    return [MaxUnpooling(piece.operations[0], name=name) for piece in pieces[1:]]


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Objective):
    """Reconstruction of a stage's input from its output.

    The objective is to minimize L(x, g(f(x))). Here f is the stage with its own activation and g
    is one projection. L is the cross-entropy -(x log z + (1 - x) log(1 - z)) with z = sigmoid(g),
    or the squared error (x - g)^2.

    Example:

    >>> import numpy as np
    >>> from pretrain import Autoencoder, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="sigmoid")
    >>> objective = Autoencoder(tied=True)
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'binary_crossentropy'

    Args:
        tied: Whether the weights of g are the transposed weights of f, one variable.
        loss: `"binary_crossentropy"`, `"mean_squared_error"` or `"auto"`. The last stands for the
            cross-entropy if the stage's input is the output of a sigmoid, or is the first stage's
            input and lies in [0, 1], and for the squared error if not.
        reduction: `"sum"` over the features, as in the literature, or `"mean"`, which divides the
            sum and the penalties by the number of features.
        unpooling: How g undoes a max pooling at the end of f, before g projects. `"repeat"` fills
            the window of a pooled value with the value. `"switches"` puts the value where the
            maximum of the window was, and 0 elsewhere (Zeiler & Fergus, 2014), see `MaxUnpooling`.
        decoder_gain: Factor, above 0, of the weights that g starts from: with 1, they are Glorot's
            uniform weights. In `joint_pretrain`, the activation of the layer below follows g; where
            that is a sigmoid, 4 gives the decoder the scale that sigmoid layers need. Tied weights
            have no factor.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks);
        of convolutions, [Masci et al., 2011](https://doi.org/10.1007/978-3-642-21735-7_7)
    """

    tied: bool = False
    loss: str = "auto"
    reduction: str = "mean"
    unpooling: str = "repeat"
    decoder_gain: float = 1.0

    has_target = True
    auto = ("loss", *LOSSES)

    def __post_init__(self) -> None:
        if not isinstance(self.tied, bool):
            raise ValueError(f"`tied` must be True or False. Received: tied={self.tied!r}")
        check_choice("loss", self.loss, ("auto", *LOSSES))
        check_choice("reduction", self.reduction, ("mean", "sum"))
        check_choice("unpooling", self.unpooling, UNPOOLING)
        check_number("decoder_gain", self.decoder_gain, zero=False)
        if self.tied and self.decoder_gain != 1:
            raise ValueError(
                "Tied weights are those of the encoder, which have no factor. Expected tied=False "
                f"or decoder_gain=1. Received: decoder_gain={self.decoder_gain!r}"
            )

    def pieces(self, stage: Stage) -> list[Segment]:
        return list(stage.halves()) if self.unpooling == "switches" else [stage]

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        pieces = self.pieces(stage)
        decoder = build_decoder(pieces[0], self.tied, seed, copy, self.decoder_gain)
        return Reconstruction(stage, decoder, pieces=pieces)

    @property
    def loss_name(self) -> str:
        return self.loss

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        target = Target.of(x, y, outputs)
        losses = reconstruction_losses(self.binary, target, outputs["reconstruction"])
        loss = sum_of_features(self._weighted(losses, outputs)) + self.penalty(outputs)
        totals = [loss, sum_of_features(losses)][: len(self.names)]
        return [self.reduced(total, target) for total in totals]

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor | float:
        """The penalty, a scalar or an array (batch,), which is added to a sum over the features."""
        return 0.0

    def reduced(self, total: Tensor, target: "Target") -> Tensor:
        """A sum over the features of a target, or a penalty, in the units of the loss."""
        return total / target.mean_features if self.reduction == "mean" else total

    def baseline(self, moments: Moments) -> float:
        total = trivial_losses(self.binary, moments).sum()
        return float(total / moments.features if self.reduction == "mean" else total)

    def _weighted(self, losses: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        """The losses of the features (batch, ...), by the weights that an emphasis gives them."""
        return losses


@dataclass(frozen=True)
class DenoisingAutoencoder(Autoencoder):
    """Reconstruction of a stage's clean input from a corrupted copy.

    The objective is to minimize L(x, g(f(x~))), see `Autoencoder`, where x~ is a fresh corruption
    of x in every step. With emphasis, the loss of a feature has the weight `alpha` if the feature
    was selected for corruption, and the weight `beta` if not: full emphasis is `beta=0`, double
    emphasis `beta=0.5`.

    Example:

    >>> import numpy as np
    >>> from pretrain import DenoisingAutoencoder, Gaussian, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="relu")
    >>> objective = DenoisingAutoencoder(Gaussian(0.1))
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'binary_crossentropy'

    Args:
        corruption: A process of `pretrain.corruption`.
        alpha: Weight of the features that were selected for corruption, at least 0.
        beta: Weight of the features that were not selected, at least 0.
        tied, loss, reduction, unpooling, decoder_gain: As in `Autoencoder`.

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
                f"Received: corruption={brief(self.corruption)}"
            )
        _check_signature(self.corruption)
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        if self.emphasizes and not hasattr(self.corruption, "selected"):
            raise ValueError(
                "Emphasis needs a corruption that selects features, such as Masking(0.25). "
                f"Received: corruption={brief(self.corruption)}, "
                f"alpha={self.alpha}, beta={self.beta}"
            )

    @property
    def emphasizes(self) -> bool:
        """Whether the losses of features have weights other than 1."""
        return not self.alpha == self.beta == 1

    @property
    def names(self) -> tuple[str, ...]:
        return _WITH_RECONSTRUCTION if self.emphasizes else ("loss",)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        inputs = {"x": self.corruption(x, key), "clean": x}
        if self.emphasizes:
            inputs["selected"] = self.corruption.selected(x, key)
        return inputs

    def _weighted(self, losses: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        if not self.emphasizes:
            return losses
        weights = ops.where(outputs["selected"], self.alpha, self.beta)
        return losses * ops.cast(weights, losses.dtype)


def _check_signature(corruption: Callable) -> None:
    """Refuses a corruption that cannot be called with examples and a seed."""
    try:
        inspect.signature(corruption).bind(None, None)
    except TypeError as error:
        raise ValueError(
            "`corruption` must be a function (x, seed) of a batch and an integer array of shape "
            f"(2,), which returns a corrupted batch. Received: a corruption with {error}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class SparseAutoencoder(Autoencoder):
    """Reconstruction of a stage's input from a code that is mostly near 0.

    The objective is to minimize the sum over the features of L(x, g(f(x))), see `Autoencoder`,
    plus a penalty. The penalty is `weight` times sum_j KL(target || m_j), where m_j is the mean of
    code unit j over the batch and KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)); or
    `weight` times the sum of the absolute values of the code units.

    Example:

    >>> import numpy as np
    >>> from pretrain import SparseAutoencoder, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="sigmoid")
    >>> objective = SparseAutoencoder(weight=0.1)
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'binary_crossentropy'

    Args:
        norm: `"kl"`, for stages that end in a sigmoid, or `"l1"`.
        weight: Weight of the penalty, at least 0.
        target: Mean of every code unit at which the divergence is 0, between 0 and 1.
        tied, loss, reduction, unpooling, decoder_gain: As in `Autoencoder`.

    Reference:
        [Ng, 2011](https://web.stanford.edu/class/cs294a/sparseAutoencoder_2011new.pdf)
    """

    norm: str = "kl"
    weight: float = 3.0
    target: float = 0.05

    names = _WITH_RECONSTRUCTION

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
        code = as_floats(outputs["code"])
        if self.norm == "l1":
            return self.weight * sum_of_features(ops.abs(code))
        # The divergence from a mean of exactly 0 or 1 is infinite.
        tiny = keras.config.epsilon()
        mean = ops.clip(ops.mean(code, axis=0), tiny, 1 - tiny)
        p = self.target
        divergence = p * ops.log(p / mean) + (1 - p) * ops.log((1 - p) / (1 - mean))
        return self.weight * ops.sum(divergence)


@dataclass(frozen=True, kw_only=True)
class ContractiveAutoencoder(Autoencoder):
    """Reconstruction of a stage's input from a code that moves little with the input.

    The objective is to minimize the sum over the features of L(x, g(f(x))), see `Autoencoder`,
    plus the penalty `weight` times ||J||_F^2, where J is the Jacobian of the stage at x. For a
    dense stage with an element-wise activation s, ||J||_F^2 = sum_j s'(a_j)^2 ||W_j||^2, where a is
    the pre-activation.

    Example:

    >>> import numpy as np
    >>> from pretrain import ContractiveAutoencoder, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="sigmoid")
    >>> objective = ContractiveAutoencoder(weight=0.1)
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'binary_crossentropy'

    Args:
        weight: Weight of the penalty, at least 0.
        samples: Number of random directions of Hutchinson's estimate in every step, at least 1;
            `None` for the exact norm, which costs as much as encoding every example once for each
            feature. Dense stages always have the exact norm. Other stages are taken in inference
            mode.
        tied, loss, reduction, unpooling, decoder_gain: As in `Autoencoder`; the paper has tied
            weights.

    Reference:
        [Rifai et al., 2011](https://icml.cc/2011/papers/455_icmlpaper.pdf)
    """

    weight: float = 0.1
    samples: int | None = None

    names = _WITH_RECONSTRUCTION

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight)
        if self.samples is not None:
            positive("samples", self.samples)

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        if any(getattr(layer, "stateful", False) for layer in layers_of(stage)):
            raise ValueError(
                "The contractive penalty encodes more examples than are in a batch, which a "
                "stateful layer cannot do: use stateful=False or another objective. "
                f"Received: stage {stage.name!r}"
            )
        pieces = self.pieces(stage)
        decoder = build_decoder(pieces[0], self.tied, seed, copy, self.decoder_gain)
        return ContractiveReconstruction(stage, decoder, pieces, self.samples)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        return {"x": x, "key": key}

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor:
        return self.weight * outputs["contraction"]


class ContractiveReconstruction(Reconstruction):
    """A `Reconstruction` that also computes how far the code moves with the input."""

    def __init__(
        self, stage: Stage, decoder: keras.Model, pieces: list[Segment], samples: int | None
    ) -> None:
        super().__init__(stage, decoder, pieces=pieces)
        self._samples = samples

    def encode(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """What `Reconstruction.encode` returns, and `"contraction"`, ||J||_F^2, shape (batch,)."""
        outputs = super().encode(inputs, training)
        return {**outputs, "contraction": self._contraction(inputs["x"], inputs["key"])}

    def _contraction(self, x: Tensor, key: Tensor) -> Tensor:
        parts = dense_stage(self.stage)
        if parts is None:
            return self._exact(x) if self._samples is None else self._estimated(x, key)
        a = parts.pre_activation(x)
        _, slopes = directional_derivative(parts.activate, a, ops.ones_like(a))
        norms = ops.sum(ops.square(as_floats(parts.dense.kernel)), axis=0)
        return sum_of_features(ops.square(as_floats(slopes)) * norms)

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

        # TensorFlow has no derivative along a direction of a loop.
        with unrolled(layers_of(self.stage)):
            return as_floats(directional_derivative(encode, x, directions)[1])


class Target(NamedTuple):
    """What a batch's reconstruction is compared with, and which of the values count.

    `counted` are booleans of the shape of `values`, or `None` if all values count.
    """

    values: Tensor
    counted: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> "Target":
        """The target for an objective's `scores`: y, or x if there is no such y.

        What counts is not NaN in y, and no padding of a sequence.
        """
        # Labels (batch,), which another objective may need, are no target.
        given = y is not None and len(y.shape) == len(x.shape)
        values = y if given else x
        counted = [outputs["counted"]] if "counted" in outputs else []
        counted += [ops.logical_not(ops.isnan(values))] if given else []
        if not counted:
            return cls(values)
        both = functools.reduce(ops.logical_and, counted)
        return cls(ops.where(both, values, ops.zeros_like(values)), both)

    @property
    def features(self) -> int | Tensor:
        """The number of features that count; if they differ, that of each example (batch,)."""
        if self.counted is None:
            return math.prod(self.values.shape[1:])
        return sum_of_features(as_floats(self.counted))

    @property
    def mean_features(self) -> int | Tensor:
        """The mean of `features` over the batch: as in Keras, each value that counts is equal."""
        if self.counted is None:
            return self.features
        return ops.maximum(ops.mean(self.features), keras.config.epsilon())


def reconstruction_losses(binary: bool, target: Target, reconstruction: Tensor) -> Tensor:
    """Losses of the features of a target, from a reconstruction's pre-activation.

    The loss is the cross-entropy if the inputs are `binary`, and the squared error if not. It is 0
    where the target does not count.
    """
    x, outputs = as_floats(target.values), as_floats(reconstruction)
    if binary:
        losses = ops.binary_crossentropy(x, outputs, from_logits=True)
    else:
        losses = ops.square(x - outputs)
    return losses if target.counted is None else losses * as_floats(target.counted)


def trivial_losses(binary: bool, moments: Moments) -> np.ndarray:
    """Mean losses of the features when the mean input reconstructs every input.

    A feature that counts in some examples only has a loss of 0 in the others.
    """
    mean = moments.mean
    if binary:
        return -(xlogy(mean, mean) + xlog1py(1 - mean, -mean)) * moments.shares
    return (moments.mean_square - mean**2) * moments.shares


def sum_of_features(values: Tensor) -> Tensor:
    """Sums (batch,) over all axes except the first."""
    return ops.sum(values, axis=tuple(range(1, len(values.shape))))
