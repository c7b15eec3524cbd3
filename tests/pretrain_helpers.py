"""Small models and measurements that the library's tests have in common."""

import hashlib

import keras
import numpy as np
from keras import layers


def sequential(input_shape, *stack):
    """A Sequential model whose dense and convolution layers have nonzero biases."""
    model = keras.Sequential([keras.Input(input_shape), *stack])
    randomize(model)
    return model


def randomize(model, seed=0):
    """Gives every weight that is 0 or 1 a random value: zeros and ones would hide errors."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        value = array(variable)
        if len(value.shape) == 1 and np.issubdtype(value.dtype, np.floating):
            variable.assign(generator.uniform(0.2, 0.8, value.shape))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def values(model):
    """Copies of all variables of a model, states of random generators included."""
    return [np.array(array(variable)) for variable in model.variables]


def digest(variables):
    """SHA-256 of the values of variables."""
    return {
        f"{position} {variable.path}": hashlib.sha256(array(variable).tobytes()).hexdigest()
        for position, variable in enumerate(variables)
    }


def uniform(*shape, seed=1):
    """Examples in [0, 1)."""
    return np.random.default_rng(seed).random(shape, dtype="float32")


def gaussian(*shape, seed=1):
    """Examples that are not in [0, 1]."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class Chain(keras.Model):
    """A subclassed model: no graph, only named layers."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(5, activation="tanh", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.second = layers.Dense(4, activation="sigmoid", name="second")
        self.out = layers.Dense(3, name="out")

    def call(self, x, training=False):
        return self.out(self.second(self.norm(self.first(x), training=training)))


def chain_model(features=6):
    model = Chain()
    model(np.zeros((2, features), "float32"))
    randomize(model)
    return model
