"""Variational autoencoders."""

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import ArrayLike

from pretrain.backend import Tensor, as_floats, normal
from pretrain.checks import check_choice, check_number, positive
from pretrain.objectives.autoencoder import (
    Reconstruction,
    Target,
    reconstruction_losses,
    sum_of_features,
    trivial_losses,
)
from pretrain.objectives.decoders import build_decoder
from pretrain.objectives.objective import Learner, Moments, Objective
from pretrain.seeds import derive
from pretrain.stages import Stage

OUTPUTS = ("bernoulli", "gaussian")


@dataclass(frozen=True, kw_only=True)
class VariationalAutoencoder(Objective):
    """A stage as the hidden layer of a variational autoencoder's encoder.

    The objective is to minimize -E log p(x | z) + beta KL(q(z | x) || p(z)) with z = m + s * noise.
    At beta = 1 this is the negative evidence lower bound, in nats per example. q is
    N(m, diag(s^2)), where a head computes m and log s^2 as linear functions of the stage's output
    h. p(z) is N(0, I), so that the divergence is sum_j (m_j^2 + s_j^2 - 1 - log s_j^2) / 2. The
    decoder mirrors the encoder: a layer of h's shape and of the stage's activation, then a
    projection to x's shape. p(x | z) is a Bernoulli distribution with the projection as logits, or
    N(projection, stddev^2 I). The code is h; the head goes into the report.

    The scores are the loss, the `reconstruction` -E log p(x | z), and the divergence `kl`.

    Example:

    >>> import numpy as np
    >>> from pretrain import VariationalAutoencoder, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="relu")
    >>> objective = VariationalAutoencoder(latent=2)
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'negative_evidence_lower_bound_bernoulli'

    Args:
        latent: Number of latent variables, at least 1.
        beta: Weight of the divergence, at least 0 (Higgins et al., 2017).
        output: `"bernoulli"`, `"gaussian"` or `"auto"`. The last stands for a Bernoulli
            distribution if the stage's input is the output of a sigmoid, or is the first stage's
            input and lies in [0, 1], and for a Gaussian distribution if not.
        stddev: Standard deviation of a Gaussian distribution, in units of x, above 0.

    Reference:
        [Kingma & Welling, 2013](https://arxiv.org/abs/1312.6114)
    """

    latent: int = 20
    beta: float = 1.0
    output: str = "auto"
    stddev: float = 1.0

    names = ("loss", "reconstruction", "kl")
    has_target = True
    auto = ("output", *OUTPUTS)

    def __post_init__(self) -> None:
        positive("latent", self.latent)
        check_number("beta", self.beta)
        check_choice("output", self.output, ("auto", *OUTPUTS))
        check_number("stddev", self.stddev, zero=False)

    @property
    def loss_name(self) -> str:
        return f"negative_evidence_lower_bound_{self.output}"

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        return Variational(stage, self.latent, seed)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        return {"x": x, "key": key}

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        target = Target.of(x, y, outputs)
        reconstruction = self.negative_log_likelihood(target, outputs["reconstruction"])
        divergence = gaussian_divergence(outputs["mean"], outputs["log_variance"])
        return [reconstruction + self.beta * divergence, reconstruction, divergence]

    def penalty(self, outputs: dict[str, Tensor]) -> Tensor:
        """The weighted divergence (batch,), which is added to the reconstruction."""
        return self.beta * gaussian_divergence(outputs["mean"], outputs["log_variance"])

    def reduced(self, total: Tensor, target: Target) -> Tensor:
        """A sum over the features of a target, or a penalty, in the units of the loss."""
        return total

    def baseline(self, moments: Moments) -> float:
        losses = trivial_losses(self.binary, moments)
        return float(self._nats(losses.sum(), moments.features))

    def negative_log_likelihood(self, target: Target, reconstruction: Tensor) -> Tensor:
        """-log p(x | z) in nats, shape (batch,), from the reconstruction's pre-activation.

        Of x, only the values that count are looked at.
        """
        losses = reconstruction_losses(self.binary, target, reconstruction)
        return self._nats(sum_of_features(losses), target.features)

    def _nats(self, losses: Tensor, features: int | float | Tensor) -> Tensor:
        if self.binary:
            return losses
        normalizer = features * math.log(2 * math.pi * self.stddev**2)
        return (losses / self.stddev**2 + normalizer) / 2


class Variational(Reconstruction):
    """A stage, a head that makes a distribution of the stage's output, and a decoder of samples."""

    def __init__(self, stage: Stage, latent: int, seed: int) -> None:
        super().__init__(stage, _decoder(stage, latent, seed), _head(stage, latent, seed))

    def encode(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """`"mean"` and `"log_variance"` of the latent variables and their drawn values, `"code"`.

        Each of the three has the shape (batch, latent).
        """
        outputs = super().encode(inputs, training)
        mean, log_variance = ops.unstack(as_floats(self.head(outputs["code"])), 2, axis=1)
        noise = ops.cast(normal(mean.shape, inputs["key"]), mean.dtype)
        z = mean + ops.exp(log_variance / 2) * noise
        return {**outputs, "mean": mean, "log_variance": log_variance, "code": z}


def importance_weighted_bound(
    objective: VariationalAutoencoder,
    head: keras.Model,
    decoder: keras.Model,
    x: ArrayLike,
    code: ArrayLike,
    *,
    samples: int = 100,
    seed: int = 0,
) -> np.ndarray:
    """The importance-weighted bound on log p(x), which is tighter the more samples there are.

    The bound is log mean_s p(x | z_s) p(z_s) / q(z_s | x), where z_s is drawn from q(z | x). With
    one sample the mean of the bound is the evidence lower bound.

    Example:

    >>> import numpy as np
    >>> from pretrain import (
    ...     VariationalAutoencoder,
    ...     greedy_pretrain,
    ...     importance_weighted_bound,
    ...     networks,
    ...     split_stages,
    ... )
    >>> x = np.random.RandomState(0).random((64, 6)).astype("float32")
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4)
    >>> (trained,) = greedy_pretrain(
    ...     model, x, VariationalAutoencoder(latent=2), epochs=2, batch_size=32, verbose=0
    ... ).stages
    >>> (stage,) = split_stages(model)
    >>> head, decoder = trained.heads[0], trained.decoders[0]
    >>> importance_weighted_bound(trained.objective, head, decoder, x, stage(x), samples=5).shape
    (64,)

    Args:
        objective: The stage's objective, from the report, where `output` is not `"auto"`.
        head: The stage's head, from the report.
        decoder: The stage's decoder, from the report.
        x: Inputs of the stage (n, ...).
        code: The stage's outputs for them (n, ...).
        samples: Number of samples, at least 1.
        seed: Seed of the samples.

    Returns:
        The bound for each example in nats, shape (n,).

    Raises:
        ValueError: If `output` is `"auto"`, or an argument is out of range.

    Reference:
        [Burda et al., 2016](https://arxiv.org/abs/1509.00519)
    """
    if objective.output == "auto":
        raise ValueError(f"`output` must be one of {OUTPUTS}. Received: output='auto'")
    x = ops.convert_to_tensor(x)
    mean, log_variance = ops.unstack(as_floats(head(ops.convert_to_tensor(code))), 2, axis=1)
    total = None
    for sample in range(positive("samples", samples)):
        noise = ops.cast(normal(mean.shape, derive("bound", seed, sample)), mean.dtype)
        z = mean + ops.exp(log_variance / 2) * noise
        # In log p(z) - log q(z | x) the normalizers cancel.
        prior = ops.sum(ops.square(noise) - ops.square(z) + log_variance, axis=-1) / 2
        weight = prior - objective.negative_log_likelihood(Target(x), decoder(z))
        total = weight if total is None else ops.logaddexp(total, weight)
    return ops.convert_to_numpy(total) - math.log(samples)


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag(exp(log_variance))) || N(0, I)) of each example, in nats."""
    return ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance, axis=-1) / 2


def _head(stage: Stage, latent: int, seed: int) -> keras.Model:
    """A model from a stage's output to mean and log-variance, shape (batch, 2, latent)."""
    flatten = [kl.Flatten()] if len(stage.features_out) > 1 else []
    dense = kl.Dense(2 * latent, kernel_initializer=_initializer("head", seed), name="moments")
    layers = [keras.Input(stage.features_out), *flatten, dense, kl.Reshape((2, latent))]
    return keras.Sequential(layers, name=f"{stage.name}_head")


def _decoder(stage: Stage, latent: int, seed: int) -> keras.Model:
    hidden = kl.Dense(
        math.prod(stage.features_out),
        activation=getattr(stage.projection.operation, "activation", None),
        kernel_initializer=_initializer("hidden", seed),
        name="hidden",
    )
    projection = build_decoder(stage, False, seed)
    layers = [keras.Input((latent,)), hidden, kl.Reshape(stage.features_out), *projection.layers]
    return keras.Sequential(layers, name=f"{stage.name}_decoder")


def _initializer(stream: str, seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(derive("variational", stream, seed))
