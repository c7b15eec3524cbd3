"""How generative models are trained and sampled: the trials of a cell as one population."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from pretrain import Population, networks
from pretrain.datasets import Dataset
from pretrain.seeds import derive
from studies.engine.trial import Cell
from studies.kinds.classification.train import PROTOCOL
from studies.kinds.generative import COVERED, GenerativeTrial, flops
from studies.kinds.generative.measures import covered, frechet, inside, nearest
from studies.kinds.generative.models import build

# Momentum of Adam, where it is another than Adam's own: Radford et al. (2016), Gulrajani et al.
# (2017).
_MOMENTUM = {"gan": 0.5, "wgan_gp": 0.0}
# Samples of a selection trial, and images of which nearest neighbors are sought and shown.
_FEW, _SHOWN = 1_000, 100
_ROWS, _STEPS = 6, 9
# The classifier whose features judge samples, the same for all models.
_CLASSIFIER = {"depth": 2, "units": [256, 64], "initializer": "he_normal", "seed": 0}
Load = Callable[[GenerativeTrial], Dataset]
Sample = Callable[[int, int], np.ndarray]


def train(cell: Cell, load: Load) -> list[dict]:
    """Train and judge the models of the trials: see `studies.kinds.kind.Kind.train`."""
    first, name = cell.trials[0], cell.arm.model
    sets = [load(trial) for trial in cell.trials]
    judge = _judge(load, replace(first, arm="", seed=0))
    if name == "real":
        return [_real(trial, data, judge) for trial, data in zip(cell.trials, sets, strict=True)]
    x = [_flat(data.train[0]) for data in sets]
    population = Population.from_models(
        [build(trial, name, x[0].shape[1]) for trial in cell.trials],
        [trial.seed for trial in cell.trials],
    )
    table = population.fit(
        x,
        [np.zeros((len(each), 1), "float32") for each in x],
        loss=_mean,
        epochs=first.epochs,
        batch_size=first.batch_size,
        optimizer=keras.optimizers.Adam(beta_1=_MOMENTUM.get(name, 0.9)),
        learning_rate=[trial.learning_rate for trial in cell.trials],
        **PROTOCOL,
    )
    return [
        _result(trial, data, population.member(i), table[table["member"] == i], judge)
        for i, (trial, data) in enumerate(zip(cell.trials, sets, strict=True))
    ]


def _mean(y_true: Any, y_pred: Any) -> Any:
    """The loss of a model whose outputs are losses."""
    return keras.ops.mean(y_pred, axis=-1)


def _result(
    trial: GenerativeTrial, data: Dataset, model: keras.Model, history: Any, judge: keras.Model
) -> dict:
    layer, x = model.get_layer("model"), _flat(data.train[0])
    loss = history["loss"].tolist()
    result = {
        "status": "done" if np.isfinite(loss).all() else "diverged",
        "flops": flops(trial, model.name, x.shape[1]),
        "curves": {"loss": loss},
    }
    if result["status"] == "diverged":
        return result
    layer.fit_codes(x, derive("codes", trial.seed))

    def sample(n: int, seed: int) -> np.ndarray:
        return layer.decode(layer.latents(n, seed))

    result |= _validated(trial, data, judge, sample)
    # Selection trials never see the test set.
    if trial.role == "report":
        result |= _tested(trial, data, judge, sample)
        if trial.seed == 0:
            result["arrays"] |= {"interpolations": _pixels(_interpolated(layer, data))}
    return result


def _real(trial: GenerativeTrial, data: Dataset, judge: keras.Model) -> dict:
    """Training images in the place of samples."""
    x = _flat(data.train[0])

    def sample(n: int, seed: int) -> np.ndarray:
        return x[np.random.default_rng(seed).permutation(len(x))[:n]]

    result = {"status": "done", "flops": x.shape[1] * trial.test_size, "curves": {}}
    return result | _validated(trial, data, judge, sample) | _tested(trial, data, judge, sample)


def _validated(trial: GenerativeTrial, data: Dataset, judge: keras.Model, sample: Sample) -> dict:
    made = sample(_FEW, derive("validation", trial.seed))
    real = _flat(data.validation[0])
    return {"validation_frechet": frechet(_features(judge, made), _features(judge, real))}


def _tested(trial: GenerativeTrial, data: Dataset, judge: keras.Model, sample: Sample) -> dict:
    test = _flat(data.test[0])[: trial.test_size]
    made = sample(len(test), derive("test", trial.seed))
    ours, real = _features(judge, made), _features(judge, test)
    classes = _outputs(judge, made).argmax(axis=1)
    x = _flat(data.train[0])
    (near, which), (usual, _) = nearest(made[:_SHOWN], x), nearest(test[: 5 * _SHOWN], x)
    result = {
        "frechet": frechet(ours, real),
        "precision": inside(ours, real),
        "recall": inside(real, ours),
        "classes_covered": covered(classes, data.classes, COVERED),
        "novelty": float(np.median(near) / np.median(usual)),
    }
    if trial.seed == 0:
        shape = data.train[0].shape[1:3]
        pictures = {"samples": made[:_SHOWN], "neighbors": x[which]}
        result["arrays"] = {n: _pixels(p.reshape(-1, *shape)) for n, p in pictures.items()}
    return result


def _interpolated(layer: keras.layers.Layer, data: Dataset) -> np.ndarray:
    """Images on great circles between pairs of latent variables, shape (rows, steps, ...)."""
    start, end = np.split(layer.latents(2 * _ROWS, seed=0), 2)
    share = np.linspace(0, np.pi / 2, _STEPS, dtype="float32")[:, None]
    paths = [np.cos(share) * a + np.sin(share) * b for a, b in zip(start, end, strict=True)]
    made = layer.decode(np.concatenate(paths).astype("float32"))
    return made.reshape(_ROWS, _STEPS, *data.train[0].shape[1:3])


def _judge(load: Load, trial: GenerativeTrial) -> keras.Model:
    """The classifier of a dataset, trained once on the training images of seed 0."""
    sizes = trial.dataset, trial.train_size, trial.validation_size
    return _trained_judge(sizes, _Once(load, trial))


class _Once:
    """Loads data for a cache, which does not compare how the data are loaded."""

    def __init__(self, load: Load, trial: GenerativeTrial):
        self.load, self.trial = load, trial

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Once)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=4)
def _trained_judge(sizes: tuple, source: _Once) -> keras.Model:
    data = source.load(source.trial)
    model = networks.mlp(data.train[0].shape[1:], data.classes, **_CLASSIFIER)
    population = Population.from_models([model], [0])
    population.fit(
        *data.train,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        epochs=20,
        batch_size=50,
        optimizer="adam",
        **PROTOCOL,
    )
    return population.member(0)


def _features(judge: keras.Model, images: np.ndarray) -> np.ndarray:
    return _outputs(keras.Model(judge.inputs, judge.layers[-1].input), images).astype("float64")


def _outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    shaped = images.reshape(-1, *model.input_shape[1:])
    return model.predict(shaped, batch_size=500, verbose=0)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.rint(255 * images).astype("uint8")
