"""Analytic cost of trials: 2 FLOPs per multiply-add, training 3 times the forward pass."""

import math
from dataclasses import replace

from studies.arms import ARMS, DENSITY, Arm
from studies.runner.trial import Trial


def layer_flops(trial: Trial, features: int) -> list[int]:
    """Forward FLOPs per example of each hidden layer's own projection.

    Args:
        trial: The trial; its arm's gates (highway) count.
        features: Size of the flattened input.

    Returns:
        A list with an entry per hidden layer.
    """
    gate = ARMS[trial.arm].shortcut == "highway"
    fan_in = [features] + [trial.width] * (trial.depth - 1)
    return [2 * n * trial.width * (2 if gate and i else 1) for i, n in enumerate(fan_in)]


def finetuning_flops(trial: Trial, epochs: int, features: int, classes: int) -> int:
    """FLOPs of `epochs` epochs of supervised training."""
    forward = sum(layer_flops(trial, features)) + 2 * trial.width * classes
    return 3 * forward * _examples(trial) * epochs


def pretraining_flops(trial: Trial, epochs: int, features: int) -> int:
    """FLOPs of pretraining the trial's layers: encoder, decoder and one pass for the codes.

    The stack may be shared with deeper nets and other rates; each is charged for its own layers
    in full.
    """
    forward = sum(layer_flops(trial, features))
    codes = forward * trial.train_size
    return 3 * 2 * forward * _examples(trial) * epochs + codes


def density_flops(trial: Trial, epochs: int, features: int) -> int:
    """FLOPs of `epochs` epochs of a variational autoencoder: encoder, heads and the mirror."""
    latent = ARMS[trial.arm].objective["latent"]
    heads, hidden = 2 * trial.width * 2 * latent, 2 * latent * trial.width
    forward = 2 * sum(layer_flops(trial, features)) + heads + hidden
    return 3 * forward * _examples(trial) * epochs


def trial_flops(trial: Trial, features: int, classes: int) -> int:
    """FLOPs that running the trial takes, without its (shared) stack."""
    if ARMS[trial.arm].task == DENSITY:
        return density_flops(trial, trial.epochs, features)
    if trial.role == "pretraining":
        return pretraining_flops(trial, trial.epochs, features)
    return finetuning_flops(trial, trial.epochs + trial.extra_epochs, features, classes)


def equal_cost_epochs(
    trial: Trial, neighbor: Arm, pretraining_epochs: int, features: int, classes: int
) -> int:
    """Epochs of `trial` that cost what pretraining its neighbor's layers costs."""
    stack = replace(trial, arm=neighbor.name)
    pretraining = pretraining_flops(stack, pretraining_epochs, features)
    return math.ceil(pretraining / finetuning_flops(trial, 1, features, classes))


def _examples(trial: Trial) -> int:
    """Examples per epoch: the last partial batch is dropped."""
    return trial.train_size // trial.batch_size * trial.batch_size
