"""Analytic cost of training classifiers: 2 FLOPs per multiply-add, training 3 times the forward."""

import math

from studies.arms import Arm
from studies.engine.trial import Trial


def layer_flops(trial: Trial, arm: Arm, features: int) -> list[int]:
    """Forward FLOPs per example of each hidden layer's own projection.

    Args:
        trial: The trial.
        arm: Its arm, whose gates (highway) count.
        features: Size of the flattened input.

    Returns:
        A list with an entry per hidden layer.
    """
    gate = arm.shortcut == "highway"
    fan_in = [features] + [trial.width] * (trial.depth - 1)
    return [2 * n * trial.width * (2 if gate and i else 1) for i, n in enumerate(fan_in)]


def finetuning_flops(trial: Trial, arm: Arm, epochs: int, features: int, classes: int) -> int:
    """FLOPs of `epochs` epochs of supervised training."""
    forward = sum(layer_flops(trial, arm, features)) + 2 * trial.width * classes
    return 3 * forward * examples(trial) * epochs


def pretraining_flops(trial: Trial, arm: Arm, epochs: int, features: int) -> int:
    """FLOPs of pretraining the trial's layers: encoder, decoder and one pass for the codes.

    The stack may be shared with deeper nets and other rates; each is charged for its own layers
    in full.
    """
    forward = sum(layer_flops(trial, arm, features))
    codes = forward * trial.train_size
    return 3 * 2 * forward * examples(trial) * epochs + codes


def equal_cost_epochs(
    trial: Trial, arm: Arm, pretrained: Arm, epochs: int, features: int, classes: int
) -> int:
    """Epochs of `trial` that cost what `epochs` epochs of pretraining an arm's layers cost."""
    pretraining = pretraining_flops(trial, pretrained, epochs, features)
    return math.ceil(pretraining / finetuning_flops(trial, arm, 1, features, classes))


def examples(trial: Trial) -> int:
    """Examples per epoch: the last partial batch is dropped."""
    return trial.train_size // trial.batch_size * trial.batch_size
