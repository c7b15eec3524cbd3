"""Restricted Boltzmann machines."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from pretrain.backend import Tensor, as_floats, normal, subkey, uniform
from pretrain.checks import check_choice, positive
from pretrain.objectives.autoencoder import (
    Target,
    reconstruction_losses,
    sum_of_features,
    trivial_losses,
)
from pretrain.objectives.decoders import TiedDense, build_decoder, dense_stage
from pretrain.objectives.objective import Learner, Moments, Objective
from pretrain.stages import Stage, in_unit_interval

VISIBLE = ("binary", "gaussian")


@dataclass(frozen=True, kw_only=True)
class RestrictedBoltzmannMachine(Objective):
    """A stage as the hidden units of a restricted Boltzmann machine; stacked, a deep belief net.

    The objective is to minimize F(v) - F(v_k), with v_k held constant. v_k is the end of k steps of
    Gibbs sampling that start at v (contrastive divergence), or at the end of persistent chains,
    which go on from batch to batch. The free energy of binary visible units is
    F(v) = -b'v - sum_j log(1 + exp(c_j + W_j v)). For Gaussian visible units, of variance 1,
    ||v - b||^2 / 2 replaces -b'v. W and c are the stage's kernel and bias, and the stage's output
    P(h = 1 | v) is the code. A value between 0 and 1 of a binary unit is the unit's probability.

    With a learned variance s_i^2 of each Gaussian unit, sum_i (v_i - b_i)^2 / (2 s_i^2) replaces
    -b'v, and the unit's mean, given h, is b_i + s_i^2 sum_j W_ji h_j. So W_ji stands for what Cho
    et al. write as W_ij / s_i^2, and P(h = 1 | v) stays the stage's output. What is trained is
    log s_i^2, from 0 on. The decoder, which gives the means, has the weight `log_variance`.

    The scores are the loss; the `reconstruction`, which is the mean loss over the features of the
    mean field and is to be compared with the baseline; and the `free_energy`. A stage over-fits
    when the free energies of training and validation data grow apart.

    Example:

    >>> import numpy as np
    >>> from pretrain import RestrictedBoltzmannMachine, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=1, units=4, activation="sigmoid")
    >>> objective = RestrictedBoltzmannMachine(k=1)
    >>> report = greedy_pretrain(model, x, objective, epochs=2, batch_size=32, verbose=0)
    >>> report.to_frame()["loss_name"].item()
    'contrastive_divergence'

    Gaussian units of features on several scales, with learned variances:

    >>> x = np.random.RandomState(0).normal(size=(64, 6)) * [1, 1, 1, 2, 2, 2]
    >>> objective = RestrictedBoltzmannMachine(visible="gaussian", learned_variance=True)
    >>> options = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1, "verbose": 0}
    >>> (trained,) = greedy_pretrain(model, x, objective, **options).stages
    >>> log_variance = np.asarray(trained.decoders[0].layers[0].log_variance)
    >>> bool(log_variance[3:].min() > log_variance[:3].max())
    True

    Args:
        k: Steps of Gibbs sampling in every update, at least 1.
        persistent: Whether the chains are persistent (Tieleman, 2008).
        chains: Number of persistent chains, at least 1.
        visible: `"binary"`, `"gaussian"` or `"auto"`. The last stands for binary units if the
            stage's input is the output of a sigmoid, or is the first stage's input and lies in
            [0, 1], and for Gaussian units if not.
        learned_variance: Whether the variance of each visible unit is learned. Needs
            `visible="gaussian"`.

    Reference:
        [Hinton et al., 2006](https://doi.org/10.1162/neco.2006.18.7.1527); of learned variances,
        [Cho et al., 2011](https://doi.org/10.1007/978-3-642-21735-7_2)
    """

    k: int = 1
    persistent: bool = False
    chains: int = 100
    visible: str = "auto"
    learned_variance: bool = False

    names = ("loss", "reconstruction", "free_energy")
    auto = ("visible", *VISIBLE)

    def __post_init__(self) -> None:
        positive("k", self.k)
        positive("chains", self.chains)
        check_choice("persistent", self.persistent, (True, False))
        check_choice("visible", self.visible, ("auto", *VISIBLE))
        check_choice("learned_variance", self.learned_variance, (True, False))
        if self.learned_variance and self.visible != "gaussian":
            raise ValueError(
                "Only Gaussian units have a variance: expected visible='gaussian' beside "
                "learned_variance=True, and an objective of its own for each stage whose inputs "
                f"are binary. Received: visible={self.visible!r}, learned_variance=True"
            )

    @property
    def loss_name(self) -> str:
        return "persistent_contrastive_divergence" if self.persistent else "contrastive_divergence"

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        if dense_stage(stage) is None or not in_unit_interval([stage]):
            raise ValueError(
                "A restricted Boltzmann machine needs a stage that is one Dense layer of sigmoid "
                f"units. Received: stage {stage.name!r} of "
                f"{[operation.name for operation in stage.operations]}"
            )
        decoder = build_decoder(stage, True, seed, copy)
        decoder = _of_learned_variance(decoder) if self.learned_variance else decoder
        return BoltzmannMachine(stage, decoder, self, seed)

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        return {"x": x, "key": key}

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        energy = outputs["free_energy"]
        losses = reconstruction_losses(self.binary, Target(x), outputs["reconstruction"])
        n = np.prod(losses.shape[1:])
        return [energy - outputs["free_energy_of_chains"], sum_of_features(losses) / n, energy]

    def baseline(self, moments: Moments) -> float:
        return float(trivial_losses(self.binary, moments).mean())


@keras.saving.register_keras_serializable("pretrain")
class TiedGaussian(TiedDense):
    """The means of Gaussian units of learned variance, from hidden units."""

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.log_variance = self.add_weight(
            shape=self.bias.shape, initializer="zeros", name="log_variance"
        )

    def call(self, x: Tensor) -> Tensor:
        inputs = ops.matmul(x, ops.transpose(self.kernel))
        return ops.exp(self.log_variance) * inputs + self.bias


def _of_learned_variance(decoder: keras.Model) -> keras.Model:
    """A tied decoder whose outputs are the means of units of learned variance."""
    tied, *reshape = decoder.layers
    layers = [keras.Input(decoder.input_shape[1:]), TiedGaussian(tied.encoder), *reshape]
    return keras.Sequential(layers, name=decoder.name)


class BoltzmannMachine(Learner):
    """A stage and its transpose, with a bias for the visible units.

    The `seed` is the seed of the first states of persistent chains.
    """

    def __init__(
        self, stage: Stage, decoder: keras.Model, objective: RestrictedBoltzmannMachine, seed: int
    ) -> None:
        super().__init__(stage, decoder)
        self._objective = objective
        self._chains = None
        if objective.persistent:
            start = uniform((objective.chains, *stage.features_in), seed)
            self._chains = self.add_weight(
                shape=tuple(start.shape), initializer="zeros", trainable=False, name="chains"
            )
            self._chains.assign(ops.cast(start < 0.5, self._chains.dtype))

    @property
    def state(self) -> list[keras.Variable]:
        return [] if self._chains is None else [self._chains]

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """Runs the chains; persistent chains keep their new states in training.

        Returns:
            `"free_energy"` of each example (batch,); `"free_energy_of_chains"` (batch,), the free
            energy of the end of the example's chain, or the mean over all persistent chains;
            `"reconstruction"`, the pre-activation of the mean field (batch, ...).
        """
        x, start = inputs["x"], inputs["x"] if self._chains is None else self._chains.value
        end = ops.stop_gradient(self.gibbs(start, inputs["key"]))
        energies = self.free_energy(end)
        if self._chains is not None:
            energies = ops.mean(energies) * ops.ones(x.shape[0], energies.dtype)
            if training:
                self._chains.assign(ops.cast(end, self._chains.dtype))
        return {
            "free_energy": self.free_energy(x),
            "free_energy_of_chains": energies,
            "reconstruction": self.decoder(self.stage(x)),
        }

    def free_energy(self, v: Tensor) -> Tensor:
        """Free energy of states of the visible units, shape (batch,)."""
        v = as_floats(v)
        bias = as_floats(self.decoder(ops.zeros((1, *self.stage.features_out), v.dtype)))
        square = ops.square(v - bias) / (2 * self._variance)
        energy = -v * bias if self._objective.binary else square
        hidden = ops.softplus(dense_stage(self.stage).pre_activation(v))
        return sum_of_features(energy) - sum_of_features(hidden)

    def gibbs(self, v: Tensor, key: Tensor) -> Tensor:
        """States of the visible units after `k` steps of Gibbs sampling from states v."""
        for step in range(self._objective.k):
            h = _sample(as_floats(self.stage(v)), subkey(key, 2 * step))
            v = self._visible(as_floats(self.decoder(h)), subkey(key, 2 * step + 1))
        return v

    def _visible(self, pre_activation: Tensor, key: Tensor) -> Tensor:
        if self._objective.binary:
            return _sample(ops.sigmoid(pre_activation), key)
        noise = ops.cast(normal(pre_activation.shape, key), pre_activation.dtype)
        return pre_activation + self._variance**0.5 * noise

    @property
    def _variance(self) -> Tensor | float:
        """The variances of Gaussian visible units, in the shape of the stage's input."""
        if not self._objective.learned_variance:
            return 1.0
        log_variance = as_floats(self.decoder.layers[0].log_variance)
        return ops.reshape(ops.exp(log_variance), self.stage.features_in)


def _sample(p: Tensor, key: Tensor) -> Tensor:
    return ops.cast(ops.cast(uniform(p.shape, key), p.dtype) < p, p.dtype)
