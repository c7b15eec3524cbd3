"""Objectives of layers of any precision: the losses are those of single precision."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, uniform

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    RestrictedBoltzmannMachine,
    VariationalAutoencoder,
    split_stages,
)

# JAX has no float64 unless its whole process has.
POLICIES = ["mixed_float16", "mixed_bfloat16", "float16"]
POLICIES += ["float64"] if keras.backend.backend() == "tensorflow" else []


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "objective",
    [
        RestrictedBoltzmannMachine(),
        RestrictedBoltzmannMachine(persistent=True, visible="gaussian"),
        RestrictedBoltzmannMachine(visible="gaussian", learned_variance=True),
        VariationalAutoencoder(latent=3),
        ContractiveAutoencoder(),
        Autoencoder(tied=True),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_objectives_compute_in_full_precision(policy, objective):
    losses = {}
    for kind in ("float32", policy):
        keras.utils.set_random_seed(0)
        dense = layers.Dense(7, "sigmoid", dtype=kind)
        model = keras.Sequential([keras.Input((8,)), dense, layers.Dense(3)])
        dense.kernel.assign(uniform(8, 7) - 0.5)
        keras.config.set_dtype_policy(kind if "mixed" in kind else "float32")
        try:
            chosen = objective.decided(True)
            learner = chosen.build(split_stages(model)[0], 0)
        finally:
            keras.config.set_dtype_policy("float32")
        x = ops.convert_to_tensor(uniform(20, 8))
        outputs = learner(chosen.inputs(x, ops.convert_to_tensor([1, 2], "int32")))
        scores = chosen.scores(x, None, outputs)
        # The first score of a Boltzmann machine depends on the states that are drawn.
        sampled = isinstance(objective, RestrictedBoltzmannMachine)
        losses[kind] = [array(score) for score in scores[int(sampled) :]]
        assert np.isfinite(array(scores[0])).all()
    for low, full in zip(losses[policy], losses["float32"], strict=True):
        assert low.dtype == "float32"
        np.testing.assert_allclose(low.mean(), full.mean(), rtol=0.1, atol=0.15)
