"""Generative models as Keras layers from images to losses, so that a population can train them.

A layer's call takes images (n, features) in [0, 1] and returns a loss for each, shape (n, 1). The
updates of the two networks of a GAN are one step: each network's loss holds the other network's
weights constant.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.seeds import derive
from studies.kinds.generative import TIME, GenerativeTrial, sizes

# Steps of the diffusion, and the schedule of Nichol and Dhariwal (2021), with its offset.
_STEPS, _OFFSET = 100, 0.008
# Weight of the penalty of a critic's gradient (Gulrajani et al. 2017).
_PENALTY = 10.0
# Share of a discriminator's hidden units that a step drops.
_DROPPED = 0.3
# Slope of units below 0, as in Radford et al. (2016).
_SLOPE = 0.2
# Momentum of the averages of a diffusion model's weights.
_AVERAGED = 0.999
_COMPONENTS = 20


def build(trial: GenerativeTrial, model: str, features: int) -> keras.Model:
    """A model that is ready to be trained: its output is the loss of each image."""
    inputs = keras.Input((features,))
    layer = _LAYERS[model](sizes(trial, model, features), seed=trial.seed, name="model")
    return keras.Model(inputs, layer(inputs), name=model)


class _Perceptron(keras.layers.Layer):
    """Dense layers with leaky rectifiers between them."""

    def __init__(self, units: list[int], seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.seed = units, seed

    def build(self, input_shape: tuple) -> None:
        self.kernels, self.biases = [], []
        for i, (n, m) in enumerate(zip(self.units[:-1], self.units[1:], strict=True)):
            # Outputs that start large would saturate the sigmoid units behind them.
            last = i == len(self.units) - 2
            start = (keras.initializers.GlorotNormal if last else keras.initializers.HeNormal)(
                derive(self.name, self.seed, i)
            )
            self.kernels.append(self.add_weight((n, m), start, name=f"kernel_{i}"))
            self.biases.append(self.add_weight((m,), "zeros", name=f"bias_{i}"))

    def call(
        self, x: Any, frozen: bool = False, drop: Callable[[Any], Any] = ops.convert_to_tensor
    ) -> Any:
        """The outputs; with `frozen`, no gradient goes to the weights; `drop` drops units."""
        hold = ops.stop_gradient if frozen else ops.convert_to_tensor
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            x = (drop(ops.leaky_relu(x, _SLOPE)) if i else x) @ hold(kernel) + hold(bias)
        return x

    def input_gradient(self, x: Any) -> Any:
        """The gradient of the sum of the outputs with respect to the inputs."""
        slopes = []
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            if i:
                slopes.append(ops.where(x > 0, 1.0, _SLOPE))
                x = ops.leaky_relu(x, _SLOPE)
            x = x @ kernel + bias
        gradient = ops.ones_like(x) @ ops.transpose(self.kernels[-1])
        for kernel, slope in zip(self.kernels[-2::-1], slopes[::-1], strict=True):
            gradient = (gradient * slope) @ ops.transpose(kernel)
        return gradient


class _Generative(keras.layers.Layer):
    """A model of networks of the given sizes, and a stream of random numbers."""

    def __init__(self, units: dict[str, list[int]], seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.seed = units, seed
        self.random = keras.random.SeedGenerator(derive("noise", seed))
        for name, each in units.items():
            setattr(self, name, _Perceptron(each, seed, name=name))

    def build(self, input_shape: tuple) -> None:
        for name, each in self.units.items():
            getattr(self, name).build((None, each[0]))

    def get_config(self) -> dict:
        return super().get_config() | {"units": self.units, "seed": self.seed}

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], 1)

    def _normal(self, like: Any, units: int) -> Any:
        return keras.random.normal((ops.shape(like)[0], units), seed=self.random)

    # What is learned of the training images after the training of the networks.
    def fit_codes(self, x: np.ndarray, seed: int) -> None:
        """Learn what sampling needs beside the networks: nothing, for most models."""

    def latents(self, n: int, seed: int) -> np.ndarray:
        """Draws of what `decode` makes images of."""
        units = self.units.get("generator", self.units.get("decoder"))[0]
        return np.random.default_rng(seed).normal(size=(n, units)).astype("float32")

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Images (n, features) of latent variables."""
        network = self.generator if "generator" in self.units else self.decoder
        return ops.convert_to_numpy(ops.sigmoid(network(z)))


class _OfMixture(_Generative):
    """A model to whose codes a mixture of normal densities is fitted in the end."""

    def fit_codes(self, x: np.ndarray, seed: int) -> None:
        try:
            from sklearn.mixture import GaussianMixture
        except ImportError as error:
            raise ImportError(
                "The density of codes comes with scikit-learn, which is not installed. Expected "
                '`pip install "pretrain[sklearn]"`'
            ) from error
        mixture = GaussianMixture(_COMPONENTS, reg_covar=1e-3, random_state=seed)
        # A variational encoder returns variances behind the means.
        codes = self.encoder(x)[:, : self.units["decoder"][0]]
        self.mixture = mixture.fit(ops.convert_to_numpy(codes).astype("float64"))

    def latents(self, n: int, seed: int) -> np.ndarray:
        self.mixture.random_state = seed
        codes, _ = self.mixture.sample(n)
        return np.random.default_rng(seed).permutation(codes).astype("float32")


class Autoencoder(_OfMixture):
    """An autoencoder, sampled from a density of its codes."""

    def call(self, x: Any) -> Any:
        return _cross_entropy(x, self.decoder(self.encoder(x)))


class VariationalAutoencoder(_Generative):
    """A variational autoencoder of Bernoulli pixels (Kingma and Welling 2013)."""

    def call(self, x: Any) -> Any:
        mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
        noise = self._normal(x, self.units["decoder"][0])
        code = mean + ops.exp(log_variance / 2) * noise
        divergence = ops.sum(mean**2 + ops.exp(log_variance) - log_variance - 1, 1, keepdims=True)
        return _cross_entropy(x, self.decoder(code)) + divergence / 2


class VariationalAutoencoderOfMixture(_OfMixture, VariationalAutoencoder):
    """A variational autoencoder, sampled from a density of its mean codes (Ghosh et al. 2020)."""


class GAN(_Generative):
    """A generative adversarial net with the non-saturating loss (Goodfellow et al. 2014).

    As in the paper, hidden units of the discriminator are dropped in training.
    """

    def call(self, x: Any) -> Any:
        fake = ops.sigmoid(self.generator(self._normal(x, self.units["generator"][0])))
        real, made = self._judged(x), self._judged(ops.stop_gradient(fake))
        return ops.softplus(-real) + ops.softplus(made) + ops.softplus(-self._judged(fake, True))

    def _judged(self, x: Any, frozen: bool = False) -> Any:
        return self.discriminator(2 * x - 1, frozen=frozen, drop=self._dropped)

    def _dropped(self, x: Any) -> Any:
        kept = keras.random.uniform(ops.shape(x), seed=self.random) >= _DROPPED
        return ops.where(kept, x / (1 - _DROPPED), 0.0)


class WassersteinGAN(_Generative):
    """A Wasserstein GAN with a penalty of the critic's gradient (Gulrajani et al. 2017).

    The generator is trained in every step, and not in every fifth.
    """

    def call(self, x: Any) -> Any:
        fake = ops.sigmoid(self.generator(self._normal(x, self.units["generator"][0])))
        held = ops.stop_gradient(fake)
        share = keras.random.uniform((ops.shape(x)[0], 1), seed=self.random)
        gradient = self.discriminator.input_gradient(share * x + (1 - share) * held)
        norm = ops.sqrt(ops.sum(gradient**2, axis=1, keepdims=True) + 1e-12)
        critic = self.discriminator(held) - self.discriminator(x) + _PENALTY * (norm - 1) ** 2
        return critic - self.discriminator(fake, frozen=True)


class Diffusion(_Generative):
    """A denoising diffusion model (Ho et al. 2020), sampled without noise (Song et al. 2021).

    The network predicts the clean image, one of the choices that Ho et al. name. As theirs, it is
    sampled with moving averages of its weights.
    """

    def build(self, input_shape: tuple) -> None:
        super().build(input_shape)
        self.average = _Perceptron(self.units["denoiser"], self.seed, name="average")
        self.average.trainable = False
        self.average.build((None, self.units["denoiser"][0]))
        self.average.set_weights(self.denoiser.get_weights())

    def call(self, x: Any) -> Any:
        for mean, weight in zip(self.average.weights, self.denoiser.weights, strict=True):
            mean.assign(_AVERAGED * mean + (1 - _AVERAGED) * ops.stop_gradient(weight))
        n, features = ops.shape(x)[0], self.units["denoiser"][-1]
        time = keras.random.randint((n,), 0, _STEPS, seed=self.random)
        kept = ops.reshape(ops.take(ops.convert_to_tensor(_kept(), "float32"), time + 1), (-1, 1))
        noise = self._normal(x, features)
        noisy = ops.sqrt(kept) * (2 * x - 1) + ops.sqrt(1 - kept) * noise
        return _cross_entropy(x, self._logits(self.denoiser, noisy, ops.cast(time, "float32")))

    def _logits(self, network: _Perceptron, noisy: Any, time: Any) -> Any:
        # The noise of an image does not fit through layers that are narrower than the image.
        return network(ops.concatenate([noisy, _embedded(time)], axis=1))

    def latents(self, n: int, seed: int) -> np.ndarray:
        shape = n, self.units["denoiser"][-1]
        return np.random.default_rng(seed).normal(size=shape).astype("float32")

    def decode(self, z: np.ndarray) -> np.ndarray:
        kept, x = _kept(), z
        for step in range(_STEPS - 1, -1, -1):
            time = np.full(len(x), step, "float32")
            logits = self._logits(self.average, x, time)
            clean = 2 * ops.convert_to_numpy(ops.sigmoid(logits)) - 1
            noise = (x - kept[step + 1] ** 0.5 * clean) / (1 - kept[step + 1]) ** 0.5
            x = (kept[step] ** 0.5 * clean + (1 - kept[step]) ** 0.5 * noise).astype("float32")
        return (np.clip(x, -1, 1) + 1) / 2


def _kept() -> np.ndarray:
    """The share of the signal's variance that is left after 0, 1, ... steps; never none."""
    time = np.arange(_STEPS + 1) / _STEPS
    share = np.cos((time + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
    return np.maximum(share / share[0], 1e-4)


def _embedded(time: Any) -> Any:
    """Sines and cosines of a time, shape (n, TIME)."""
    frequencies = np.exp(-math.log(100) * np.arange(TIME // 2) / (TIME // 2)).astype("float32")
    angles = ops.reshape(time, (-1, 1)) * frequencies
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1)


def _cross_entropy(x: Any, logits: Any) -> Any:
    return ops.sum(ops.softplus(logits) - x * logits, axis=1, keepdims=True)


_LAYERS = {
    "autoencoder": Autoencoder,
    "vae": VariationalAutoencoder,
    "vae_mixture": VariationalAutoencoderOfMixture,
    "gan": GAN,
    "wgan_gp": WassersteinGAN,
    "diffusion": Diffusion,
}
