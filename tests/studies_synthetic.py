"""Plausible records of a scale of any kind, made without training."""

import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np

import studies.kinds
from studies.engine import study
from studies.engine.plan import plan
from studies.kinds import classification
from studies.kinds.classification.correctness import packed

STUDIES = {name: study.load(name) for name in study.questions()}
KINDS = {
    path.parent.name: import_module(f"studies.kinds.{path.parent.name}").KIND
    for path in sorted(Path(studies.kinds.__file__).parent.glob("*/__init__.py"))
}

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
    "residual_denoising": (7.0, 0.95),
}
_CHANCE = 0.887
_UNTRAINABLE_FROM = {"random": 4, "random_longer": 4}
_BEST_RATE_OF_DENSITY = 0.003


def small(kind, **changes):
    """A scale of a kind, as a study has it, with few arms and axis values."""
    quick = [study.scales["quick"] for study in STUDIES.values() if study.kind is kind]
    scale = max(quick, key=lambda scale: len(scale.places))
    axes = {axis: values[:2] for axis, values in scale.axes.items()}
    return replace(scale, **{"arms": scale.arms[:3], "axes": axes, "report_seeds": 3} | changes)


def records(scale, change=lambda record: {}):
    """Records of every trial of `scale`, as `journal.read` would give them.

    `change` returns what a record is to have instead, before anything is chosen on it.
    """
    made = []
    while cells := plan(scale, made):
        new = [record(trial, scale) for cell in cells for trial in cell.trials]
        made += [{**r, **change(r)} for r in new]
    return made


def record(trial, scale):
    """The record of a trial that is done."""
    results = {
        "classification": _classification,
        "density": _density,
        "trainability": _trainability,
        "trajectories": _trajectories,
    }
    return {
        "format": 1,
        "study": "synthetic",
        "key": trial.key,
        "cell": trial.key,
        "members": 1,
        **vars(trial),
        "status": "done",
        "seconds": float(_generator(trial).random()),
        **results.get(scale.kind.name, _measured)(trial, scale),
    }


def diverged(record, scale):
    """The same trial, without any of its metrics."""
    measured = {metric.name for metric in scale.kind.metrics} & set(record)
    return record | dict.fromkeys(measured) | {"status": "diverged", "curves": None}


def _generator(trial):
    return np.random.default_rng(int(trial.key, 16))


def _measured(trial, scale):
    """The metrics of a kind of which nothing else is known."""
    generator = _generator(trial)
    metrics = [metric.name for metric in scale.kind.metrics if trial.role in metric.roles]
    flops = scale.kind.flops(trial, scale.arm(trial.arm), scale)
    return {"flops": flops} | {name: 1 + generator.random() for name in metrics}


# Classification


def _classification(trial, scale):
    return (_pretraining if trial.role == "pretraining" else _training)(trial, scale)


def _trajectories(trial, scale):
    return _measured(trial, scale) | _classification(trial, scale)


def _final_error(trial, scale, generator):
    if trial.depth >= _UNTRAINABLE_FROM.get(trial.arm, 99):
        return _CHANCE + 0.002 * generator.standard_normal()
    first, factor = _ERROR.get(trial.arm, (8.0, 0.98))
    noise = math.exp(0.03 * generator.standard_normal())
    size = (2_000 / trial.train_size) ** 0.5
    # Best is the second from the top of the grid.
    grid = scale.rates((trial.arm, *(getattr(trial, axis) for axis in scale.axes)))
    best = grid[-2:][0] if trial.learning_rate else 1
    off = math.log10((trial.learning_rate or 1) / best)
    tuned = first / 100 * factor ** (trial.depth - 1) * size * noise
    return min(_CHANCE, tuned * 10 ** (0.35 * off**2))


def _curves(trial, scale):
    generator = _generator(trial)
    final = _final_error(trial, scale, generator)
    epochs = trial.epochs
    t = np.arange(1, epochs + 1)
    pretrained = bool(scale.arm(trial.arm).objective)
    start = 0.25 if pretrained else 0.6
    if final > 0.8:
        return {
            "error": np.full(epochs, final),
            "train_nll": np.full(epochs, 2.301),
            "nll": np.full(epochs, 2.302) + 0.001 * generator.random(epochs),
        }
    decay = np.exp(-t / (trial.epochs / 5))
    wobble = np.exp(0.01 * generator.standard_normal(epochs))
    error = (final + (start - final) * decay) * wobble
    floor = 0.012 if pretrained else 0.006
    train_nll = floor + 1.6 * start * np.exp(-t / (trial.epochs / 6))
    nll = 3.2 * final + 1.5 * start * decay + 0.04 * t / trial.epochs * final / 0.05
    return {"error": error, "train_nll": train_nll, "nll": nll * wobble}


def _training(trial, scale):
    curves, arm = _curves(trial, scale), scale.arm(trial.arm)
    validation = np.minimum(curves["error"] * 1.04, 1.0)
    best = int(validation.argmin())
    features, classes = scale.shape(trial.dataset)
    pretraining = classification.pretraining_flops(trial, arm, trial.pretraining_epochs, features)
    if not arm.objective:
        pretraining = 0
    finetuning = classification.finetuning_flops(trial, arm, trial.epochs, features, classes)
    metrics = {
        "validation_error": float(validation[best]),
        "best_epoch": best + 1,
        "final_validation_error": float(validation[-1]),
        "train_nll": float(curves["train_nll"][best]),
        "validation_nll": float(curves["nll"][best]),
        "flops": pretraining + finetuning,
        "pretraining_flops": pretraining,
        "finetuning_flops": finetuning,
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
        "final_test_error": float(curves["error"][-1]),
        "final_test_nll": float(curves["nll"][-1]),
        "correct": _correct(trial, scale, float(curves["error"][best])),
    }


def _correct(trial, scale, error):
    """Which test examples a run of this error is right about: the same ones are hard for all."""
    generator = _generator(trial)
    hard = np.random.default_rng(0).random(scale.test_size)
    noisy = hard + 0.02 * generator.standard_normal(scale.test_size)
    wrong = np.argsort(noisy)[: round(error * scale.test_size)]
    correct = np.ones(scale.test_size, bool)
    correct[wrong] = False
    return packed(correct)


def _pretraining(trial, scale):
    loss = [_rounded(100 + 80 * np.exp(-np.arange(trial.epochs) / 4))] * trial.depth
    return {
        "validation_ratio": 0.4 + 0.01 * _generator(trial).random(),
        "mean_validation_ratio": 0.3 + 0.01 * _generator(trial).random(),
        "probe_error": 0.1 + 0.01 * _generator(trial).random(),
        "dead": 0.0,
        "saturated": 0.0,
        "flops": scale.kind.flops(trial, scale.arm(trial.arm), scale),
        "curves": {"loss": loss, "validation_loss": loss, "baseline": [206.0] * trial.depth},
    }


def _rounded(values):
    return [float(f"{v:.4g}") for v in values]


# Trainability


def _trainability(trial, scale):
    made, generator = _classification(trial, scale), _generator(trial)
    if trial.role != "report":
        return made
    layers, noise = np.arange(1, trial.depth + 1), 1 + 0.01 * generator.random()
    epochs = np.arange(trial.epochs + 1)[:, None]
    watched = {
        "hidden_input": [_rounded(row) for row in np.array([-1, 0, 1]) * (1 + 0.1 * epochs)],
        "start_variances": [_rounded(noise * 0.9**layers)],
        "start_gradients": [_rounded(noise * 0.8**layers)],
        "useless": [_rounded(0.01 * layers / trial.depth)],
        "intact_error": [0.02],
        "middle_third_error": [0.02 + 0.1 * noise],
        "lesion_positions": [_rounded(layers[1:] / trial.depth)],
        "lesion_errors": [_rounded(0.02 + 0.05 / layers[1:])],
    }
    return made | {"curves": made["curves"] | watched}


# Density


def _density(trial, scale):
    off = abs(np.log(trial.learning_rate / _BEST_RATE_OF_DENSITY))
    bound = -100 - 200 / trial.latent - off - 0.1 * (trial.seed % 7)
    curve = [bound - 20, bound - 5, bound - 1, bound]
    made = {
        "validation_bound": bound,
        "baseline_bound": -206.0,
        "flops": scale.kind.flops(trial, scale.arm(trial.arm), scale),
        "curves": {"train_bound": curve, "validation_bound": curve},
    }
    if trial.role == "selection":
        return made
    return made | {
        "train_bound": bound + 2,
        "test_bound": bound - 1,
        "test_importance_weighted_bound": bound + 1,
        "active_units": min(trial.latent, 25 + trial.seed % 2),
    }
