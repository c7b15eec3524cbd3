"""Plausible records of a scale, made without training."""

import math

import numpy as np

from studies.arms import ARMS
from studies.engine import cost
from studies.engine.plan import plan

# Test error % at depth 1, and what every further layer multiplies it by.
_ERROR = {
    "random": (8.6, 1.06),
    "glorot": (8.4, 0.98),
    "autoencoder": (7.9, 0.97),
    "denoising": (7.8, 0.96),
    "sigmoid_batch_norm": (8.1, 1.03),
    "he": (7.4, 0.99),
    "he_denoising": (7.2, 0.98),
    "batch_norm": (7.0, 0.97),
    "batch_norm_denoising": (6.9, 0.97),
    "residual_batch_norm": (7.1, 0.95),
}
_CHANCE = 0.887
_UNTRAINABLE_FROM = {"random": 4, "glorot": 8}


def records(scale, study="depth", change=lambda record: {}):
    """Records of every trial of `scale`, as `journal.read` would give them.

    `change` returns what a record is to have instead, before anything is chosen on it.
    """
    made = []
    while cells := plan(scale, made):
        new = [record(trial, scale, study) for cell in cells for trial in cell.trials]
        made += [{**r, **change(r)} for r in new]
    return made


def record(trial, scale, study="depth"):
    """The record of a trial that is done."""
    metrics = _pretraining_metrics if trial.role == "pretraining" else _metrics
    return {
        "format": 1,
        "study": study,
        "key": trial.key,
        "cell": trial.key,
        "members": 1,
        **vars(trial),
        "status": "done",
        **metrics(trial, scale),
    }


def _generator(trial):
    return np.random.default_rng(int(trial.key, 16))


def _final_error(trial, scale, generator):
    if trial.depth >= _UNTRAINABLE_FROM.get(trial.arm, 99):
        return _CHANCE + 0.002 * generator.standard_normal()
    first, factor = _ERROR[trial.arm]
    noise = math.exp(0.03 * generator.standard_normal())
    size = (2_000 / trial.train_size) ** 0.5
    # Best is the second from the top of the grid.
    best = scale.learning_rates[-2:][0]
    off = math.log10(trial.learning_rate / best)
    tuned = first / 100 * factor ** (trial.depth - 1) * size * noise
    return min(_CHANCE, tuned * 10 ** (0.35 * off**2))


def _curves(trial, scale):
    generator = _generator(trial)
    final = _final_error(trial, scale, generator)
    epochs = trial.epochs + trial.extra_epochs
    t = np.arange(1, epochs + 1)
    start = 0.25 if ARMS[trial.arm].pretrained else 0.6
    if final > 0.8:
        return {
            "error": np.full(epochs, final),
            "train_nll": np.full(epochs, 2.301),
            "nll": np.full(epochs, 2.302) + 0.001 * generator.random(epochs),
        }
    decay = np.exp(-t / (trial.epochs / 5))
    wobble = np.exp(0.01 * generator.standard_normal(epochs))
    error = (final + (start - final) * decay) * wobble
    floor = 0.012 if ARMS[trial.arm].pretrained else 0.006
    train_nll = floor + 1.6 * start * np.exp(-t / (trial.epochs / 6))
    nll = 3.2 * final + 1.5 * start * decay + 0.04 * t / trial.epochs * final / 0.05
    return {"error": error, "train_nll": train_nll, "nll": nll * wobble}


def _metrics(trial, scale):
    curves = _curves(trial, scale)
    validation = np.minimum(curves["error"] * 1.04, 1.0)
    n = trial.epochs
    best = int(validation[:n].argmin())
    whole = int(validation.argmin())
    pretraining = cost.pretraining_flops(trial, trial.pretraining_epochs, scale.features)
    if not ARMS[trial.arm].pretrained:
        pretraining = 0
    finetuning = cost.finetuning_flops(trial, n, scale.features, scale.classes)
    all_epochs = cost.finetuning_flops(trial, len(validation), scale.features, scale.classes)
    metrics = {
        "validation_error": float(validation[best]),
        "best_epoch": best + 1,
        "final_validation_error": float(validation[n - 1]),
        "train_nll": float(curves["train_nll"][best]),
        "validation_nll": float(curves["nll"][best]),
        "flops": pretraining + finetuning,
        "pretraining_flops": pretraining,
        "finetuning_flops": finetuning,
        "seconds": float(_generator(trial).random()),
        "curves": {
            "train_nll": _rounded(curves["train_nll"]),
            "validation_error": _rounded(validation),
            "validation_nll": _rounded(curves["nll"]),
        },
    }
    if trial.role == "selection":
        return metrics
    return metrics | {
        "test_error": float(curves["error"][best]),
        "test_nll": float(curves["nll"][best]),
        "final_test_error": float(curves["error"][n - 1]),
        "final_test_nll": float(curves["nll"][n - 1]),
        "equal_cost_test_error": float(curves["error"][whole]),
        "equal_cost_validation_error": float(validation[whole]),
        "equal_cost_best_epoch": whole + 1,
        "equal_cost_flops": pretraining + all_epochs,
    }


def _pretraining_metrics(trial, scale):
    loss = [_rounded(100 + 80 * np.exp(-np.arange(trial.epochs) / 4))] * trial.depth
    return {
        "validation_ratio": 0.4 + 0.01 * _generator(trial).random(),
        "flops": cost.trial_flops(trial, scale.features, scale.classes),
        "seconds": 1.0,
        "curves": {"loss": loss, "validation_loss": loss, "baseline": [206.0] * trial.depth},
    }


def _rounded(values):
    return [float(f"{v:.4g}") for v in values]
