"""How density models are trained: by their objective alone.

Bounds are on log p(x), in nats, means over examples.
"""

import warnings
from collections.abc import Callable
from functools import partial

import keras
import numpy as np

from pretrain import (
    Population,
    PretrainingWarning,
    greedy_pretrain,
    objectives,
    split_stages,
    unroll,
)
from pretrain.datasets import Dataset
from pretrain.objectives.variational import importance_weighted_bound
from pretrain.report import Report
from studies.arms import Arm
from studies.engine.trial import Cell
from studies.kinds.classification.train import PROTOCOL, build
from studies.kinds.density import ACTIVE, IMPORTANCE_SAMPLES, DensityTrial, flops

_PICTURES = 100
_GRID = 20


def train(cell: Cell, load: Callable[[DensityTrial], Dataset]) -> list[dict]:
    """Train a variational autoencoder for each trial: see `studies.kinds.kind.Kind.train`."""
    first, arm, sets = cell.trials[0], cell.arm, [load(trial) for trial in cell.trials]
    # The hidden layers are those of the encoder.
    models = [build(t, arm, data) for t, data in zip(cell.trials, sets, strict=True)]
    with warnings.catch_warnings():
        # Records tell what a stage did not learn.
        warnings.simplefilter("ignore", PretrainingWarning)
        report = greedy_pretrain(
            Population.from_models(models, [trial.seed for trial in cell.trials]),
            [data.train[0] for data in sets],
            objectives.from_config(arm.objective | {"latent": first.latent}),
            epochs=first.epochs,
            batch_size=first.batch_size,
            optimizer=arm.optimizer,
            learning_rate=[trial.learning_rate for trial in cell.trials],
            validation_data=([data.validation[0] for data in sets],),
            **PROTOCOL,
        )
    return [
        _result(trial, arm, model, report, i, data)
        for i, (trial, model, data) in enumerate(zip(cell.trials, models, sets, strict=True))
    ]


def _result(
    trial: DensityTrial, arm: Arm, model: keras.Model, report: Report, i: int, data: Dataset
) -> dict:
    stage = report.stages[0]
    history = stage.history[stage.history["member"] == i]
    curves = {
        "train_bound": (-history["loss"]).tolist(),
        "validation_bound": (-history["val_loss"]).tolist(),
        "validation_divergence": history["val_kl"].tolist(),
    }
    done = np.isfinite([*curves["train_bound"], *curves["validation_bound"]]).all()
    result = {
        "status": "done" if done else "diverged",
        "validation_bound": curves["validation_bound"][-1] if done else None,
        "baseline_bound": -float(stage.baseline[i]),
        "flops": flops(trial, arm, data.train[0][0].size),
        "curves": curves,
    }
    # Selection trials never see the test set.
    if trial.role == "report" and done:
        result |= _reported(trial, model, report, i, data)
    return result


def _reported(
    trial: DensityTrial, model: keras.Model, report: Report, i: int, data: Dataset
) -> dict:
    deep = unroll(model, report, i)
    test = data.test[0][: trial.test_size]
    bound = partial(_bound, model, report, i, trial.seed)
    means = deep.encode(test)
    result = {
        "train_bound": bound(data.train[0]),
        "test_bound": bound(test),
        "test_importance_weighted_bound": bound(test, IMPORTANCE_SAMPLES),
        "active_units": int((means.var(axis=0) > ACTIVE).sum()),
    }
    if trial.seed == 0:
        result["arrays"] = {"samples": _pixels(deep.sample(_PICTURES))}
        if means.shape[1] == 2:
            result["arrays"]["latent_grid"] = _pixels(deep.latent_grid(_GRID))
    return result


def _bound(
    model: keras.Model, report: Report, i: int, seed: int, images: np.ndarray, samples: int = 1
) -> float:
    stage, trained = split_stages(model)[0], report.stages[0]
    x = images.reshape(len(images), *stage.features_in)
    code = stage(x, training=False)
    parts = trained.objective, trained.heads[i], trained.decoders[i]
    bounds = importance_weighted_bound(*parts, x, code, samples=samples, seed=seed)
    return float(bounds.mean(dtype="float64"))


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.rint(255 * images).astype("uint8")
