"""How classifiers are trained: the trials of a cell as one population."""

import hashlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pretrain import (
    BestEpoch,
    Population,
    PretrainingWarning,
    greedy_pretrain,
    initializers,
    lsuv,
    networks,
    objectives,
    split_stages,
)
from pretrain.backend import uniform
from pretrain.datasets import Dataset
from pretrain.files import replacing
from pretrain.internals import random_seed
from pretrain.objectives import Objective
from pretrain.report import Report
from pretrain.seeds import derive
from studies.arms import Arm, functions
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import SHIFTS, finetuning_flops, labels_of, pretraining_flops
from studies.kinds.classification.correctness import packed
from studies.kinds.classification.layers import KERNEL, POOLED, is_convolutional, widths
from studies.kinds.classification.prediction import (
    UNLABELED,
    Prediction,
    prediction,
    with_pseudo_labels,
)

# The curves whose values at the best epoch are results.
_SCORED = ("train_nll", "validation_nll", "validation_error")
# These costs are known of a diverged run, too.
_COSTS = ("pretraining_flops", "finetuning_flops", "flops")
# Optimizers that Keras has no name for.
_OPTIMIZERS = {"momentum": {"class_name": "SGD", "config": {"momentum": 0.9}}}
# The share of inputs or units that noise sets to 0: as much as denoising pretraining masks.
_NOISE = 0.25
# How far the noise that shifts images moves an image, in pixels.
_SHIFT = 2
# Penalty of the linear probe, for each example.
_RIDGE = 1e-3
# Examples that layer-sequential unit-variance initialization measures variances on.
_LSUV = 1_000
# The protocol of all studies: an epoch is of full batches, and examples stay in memory.
PROTOCOL = {"drop_remainder": True, "max_memory": sys.maxsize, "verbose": 0}
Load = Callable[[Trial], Dataset]
Stack = dict[str, np.ndarray]
# The name of what a stack's file holds beside its weights; no variable has this name.
_DIGEST = "digest"
Watch = Callable[[Population, int], dict[str, np.ndarray]]


def train(cell: Cell, cache: Path, load: Load, watch: Watch = lambda *_: {}) -> list[dict]:
    """Train the trials of a cell: see `studies.kinds.kind.Kind.train`.

    Before training with labels and after each epoch of it, `watch` is called with the population
    and the number of the epoch, 0 at first. It returns arrays by name, with a row per member, which
    join the curves. So a kind that measures more while nets train needs no loop of its own.
    """
    if cell.trials[0].role == "pretraining":
        return _pretrain(cell.trials, cell.arm, cache, load)[0]
    return _finetune(cell, cache, load, watch)


def build(trial: Trial, arm: Arm, data: Dataset, dropout: float = 0.0) -> keras.Model:
    """Build the network of an arm, of which a density model uses the hidden layers."""
    own = functions(arm)
    build = partial(_built, own["build"]) if arm.build else partial(_network, arm, dropout)
    model = build(trial, data)
    if arm.initializer == "lsuv":
        lsuv(model, data.train[0][:_LSUV], seed=trial.seed)
    return own["start"](model) or model if arm.start else model


def _built(function: Callable, trial: Trial, data: Dataset) -> keras.Model:
    """The network of a build function, of the seed, or of input shape, classes and trial."""
    parameters = inspect.signature(function).parameters.values()
    required = [each for each in parameters if each.default is inspect.Parameter.empty]
    # What the function draws at random and does not seed depends on the seed, too.
    with random_seed(derive("build", trial.seed)):
        if len(required) > 1:
            return function(data.train[0].shape[1:], data.classes, trial)
        return function(trial.seed) if parameters else function()


def _network(arm: Arm, dropout: float, trial: Trial, data: Dataset) -> keras.Model:
    by_data = arm.initializer == "lsuv"
    return _architecture(trial)(
        data.train[0].shape[1:],
        data.classes,
        depth=trial.depth,
        activation=arm.activation,
        normalization=arm.normalization,
        shortcut=arm.shortcut,
        initializer="orthogonal" if by_data else arm.initializer,
        head_initializer=arm.head_initializer,
        kernel_regularizer=arm.regularizer,
        dropout=dropout,
        seed=trial.seed,
    )


def _architecture(trial: Trial) -> Callable[..., keras.Model]:
    if not is_convolutional(trial):
        return partial(networks.mlp, units=widths(trial))
    return partial(
        networks.convnet,
        filters=trial.filters,
        kernel_size=KERNEL,
        pooling=POOLED,
        global_pooling=False,
    )


class _InputNoise(keras.layers.Layer):
    """Changes the inputs at random in training, by a function of the inputs and a seed.

    The random numbers are those of denoising pretraining. With Keras's own, which are slow for many
    inputs within a compiled loop, an epoch of a small net takes some ten times as long.
    """

    def __init__(self, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict:
        return super().get_config() | {"seed": self.seed}

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.changed(inputs, self.seed_generator.next()) if training else inputs

    def changed(self, inputs: Any, seed: Any) -> Any:
        raise NotImplementedError


class _Masking(_InputNoise):
    """Sets a share of the inputs to 0, and does not scale up the others."""

    def changed(self, inputs: Any, seed: Any) -> Any:
        kept = uniform(tuple(inputs.shape), seed) >= _NOISE
        return inputs * keras.ops.cast(kept, inputs.dtype)


class _Shifts(_InputNoise):
    """Moves each image by whole pixels, up to `_SHIFT` along each axis; zeros fill the margin."""

    def changed(self, inputs: Any, seed: Any) -> Any:
        places = keras.ops.floor(uniform((2, inputs.shape[0]), seed) * (2 * _SHIFT + 1))
        return _shifted(_shifted(inputs, places[0], axis=1), places[1], axis=2)


def _shifted(images: Any, places: Any, axis: int) -> Any:
    """Cut images out of their padded images, each at a place of its own along an axis."""
    margins = [(_SHIFT, _SHIFT) if i == axis else (0, 0) for i in range(len(images.shape))]
    padded, size = keras.ops.pad(images, margins), images.shape[axis]
    total = 0
    # A sum over the few places: to gather pixels is slow within a compiled loop.
    for place in range(2 * _SHIFT + 1):
        window = (slice(None),) * axis + (slice(place, place + size),)
        chosen = keras.ops.cast(places == place, images.dtype)
        total += padded[window] * keras.ops.reshape(chosen, (-1,) + (1,) * (len(images.shape) - 1))
    return total


_INPUT_NOISE = {"masking": _Masking, SHIFTS: _Shifts}


def _started(trial: Trial, arm: Arm, data: Dataset, stack: Stack) -> keras.Model:
    """Build the net that training with labels starts from, with the noise of this training."""
    model = build(trial, arm, data, dropout=_NOISE if trial.noise == "dropout" else 0.0)
    if arm.histogram:
        pretrained = build(trial, arm.source, data)
        _fill(pretrained, stack)
        initializers.histogram(model, pretrained, seed=trial.seed)
    else:
        _fill(model, stack, arm.pretrained_layers)
    if trial.noise not in _INPUT_NOISE:
        return model
    noise = _INPUT_NOISE[trial.noise](derive(trial.noise, trial.seed), name=trial.noise)
    return keras.Sequential([keras.Input(model.input_shape[1:]), noise, model])


def _optimizer(name: str) -> keras.optimizers.Optimizer:
    return keras.optimizers.get(_OPTIMIZERS.get(name, name))


def _objective(arm: Arm) -> Objective | list[Objective]:
    if isinstance(arm.objective, tuple):
        return [objectives.from_config(config) for config in arm.objective]
    return objectives.from_config(arm.objective)


def _pretrain(
    trials: tuple[Trial, ...], arm: Arm, cache: Path, load: Load
) -> tuple[list[dict], list[Stack]]:
    """Pretrain a stack for each trial; return results and stacks, which the cache keeps, too."""
    first, sets = trials[0], [load(trial) for trial in trials]
    models = [build(trial, arm, data) for trial, data in zip(trials, sets, strict=True)]
    objective = _objective(arm)
    train, held_out = (
        _columns([getattr(data, part) for data in sets]) for part in ("train", "validation")
    )
    supervised = getattr(objective, "needs_targets", False)
    with warnings.catch_warnings():
        # Records tell what a stage did not learn.
        warnings.simplefilter("ignore", PretrainingWarning)
        report = greedy_pretrain(
            Population.from_models(models, [trial.seed for trial in trials]),
            train[0] if supervised else [_seen(data) for data in sets],
            objective,
            y=train[1] if supervised else None,
            epochs=first.epochs,
            batch_size=first.batch_size,
            optimizer=_optimizer(arm.pretraining_optimizer),
            learning_rate=[trial.learning_rate for trial in trials],
            validation_data=held_out if supervised else held_out[:1],
            **PROTOCOL,
        )
    stacks = [_weights(model) for model in models]
    for trial, stack in zip(trials, stacks, strict=True):
        _save_stack(cache, trial, stack)
    features = int(np.prod(sets[0].train[0].shape[1:]))
    results = [_pretraining_result(t, arm, report, i, features) for i, t in enumerate(trials)]
    for result, model, data in zip(results, models, sets, strict=True):
        if result["status"] == "done" and _named(model):
            result["probe_error"] = _probe_error(model, data)
    return results, stacks


def _seen(data: Dataset) -> np.ndarray:
    """The inputs that pretraining sees: those with labels, and those without."""
    x, _ = data.train
    return x if data.unlabeled is None else np.concatenate([x, data.unlabeled])


def _pretraining_result(trial: Trial, arm: Arm, report: Report, i: int, features: int) -> dict:
    histories = [stage.history[stage.history["member"] == i] for stage in report.stages]
    loss = [history["loss"].tolist() for history in histories]
    # A loss whose value says little, such as contrastive divergence, has this score beside it.
    scores = ["val_reconstruction" if "val_reconstruction" in h else "val_loss" for h in histories]
    validation = [h[score].tolist() for h, score in zip(histories, scores, strict=True)]
    baseline = [float(stage.baseline[i]) for stage in report.stages]
    done = np.isfinite([*loss, *validation]).all()
    useless = {
        name: [_share(getattr(stage, name)[i]) for stage in report.stages]
        for name in ("dead", "saturated")
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array(validation)[:, -1] / baseline
    return {
        "status": "done" if done else "diverged",
        # The ratio of the worst stage. A mean would reward a stage that learns nothing, since the
        # next stage easily reconstructs its constant codes. Dead units, all 0, make it NaN.
        "validation_ratio": float(ratios.max()) if done else None,
        "mean_validation_ratio": float(ratios.mean()) if done else None,
        **{name: _worst(shares) if done else None for name, shares in useless.items()},
        "flops": pretraining_flops(trial, arm, trial.epochs, features),
        "curves": {"loss": loss, "validation_loss": validation, "baseline": baseline, **useless},
    }


def _probe_error(model: keras.Model, data: Dataset) -> float:
    """Validation error of a linear classifier on the codes of the last hidden layer.

    The classifier is the ridge regression of the labels' indicators on the standardized codes.
    """
    encoder = keras.Model(model.inputs, model.layers[-1].input)
    (x, y), (x_val, y_val) = data.train, data.validation
    codes, held_out = (encoder.predict(each, batch_size=500, verbose=0) for each in (x, x_val))
    codes, held_out = (c.reshape(len(c), -1).astype("float64") for c in (codes, held_out))
    mean, scale = codes.mean(axis=0), codes.std(axis=0)
    scale[scale == 0] = 1
    codes, held_out = ((c - mean) / scale for c in (codes, held_out))
    penalty = _RIDGE * len(codes) * np.eye(codes.shape[1])
    labels = np.eye(data.classes)[y.ravel()]
    weights = np.linalg.solve(codes.T @ codes + penalty, codes.T @ (labels - labels.mean(axis=0)))
    scores = held_out @ weights + labels.mean(axis=0)
    return float((scores.argmax(axis=1) != y_val.ravel()).mean())


def _share(value: float) -> float | None:
    """A share for a record, in which NaN is null."""
    return None if math.isnan(value) else float(value)


def _worst(shares: list[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)


def _finetune(cell: Cell, cache: Path, load: Load, watch: Watch) -> list[dict]:
    """Train with labels, from the pretrained stacks if the arm has any."""
    sets = [load(trial) for trial in cell.trials]
    stacks = _stacks(cell, cache, load)
    models = [
        _started(trial, cell.arm, data, stacks.get(trial.seed, {}))
        for trial, data in zip(cell.trials, sets, strict=True)
    ]
    population = Population.from_models(models, [trial.seed for trial in cell.trials])
    error = functions(cell.arm).get("error", cell.arm.error)
    asked = prediction(models[0], sets[0].classes, error)
    if cell.arm.pseudo_labels:
        asked = with_pseudo_labels(asked)
    curves, tests = _train(population, cell, sets, asked, watch)
    features = int(np.prod(sets[0].train[0].shape[1:]))
    return [
        _finetuning_result(
            trial,
            cell.arm,
            {name: curve[:, i] for name, curve in curves.items()},
            {name: values[i] for name, values in tests.items()},
            features,
            data.classes,
        )
        | _filters(trial, population.member(i))
        for i, (trial, data) in enumerate(zip(cell.trials, sets, strict=True))
    ]


def _filters(trial: Trial, model: keras.Model) -> dict:
    """The filters of the first convolution of a trained net, which are kept of the first seed."""
    if not (is_convolutional(trial) and trial.role == "report" and trial.seed == 0):
        return {}
    kernel = keras.ops.convert_to_numpy(model.trainable_variables[0])
    return {"arrays": {"filters": np.moveaxis(kernel, -1, 0).astype("float16")}}


def _train(
    population: Population, cell: Cell, sets: list[Dataset], asked: Prediction, watch: Watch
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train with labels.

    Returns curves of shape (epochs, members), and what was watched, of shape (times, members, ...);
    and, for report trials, the results on the test set, a value per member.
    """
    first = cell.trials[0]
    curves = {name: [] for name in _SCORED}
    best = BestEpoch(population.members)

    def note(epoch: int) -> None:
        for name, values in watch(population, epoch).items():
            curves.setdefault(name, []).append(values)

    note(0)
    held_out = _columns([data.validation for data in sets])
    for epoch in population.epochs(
        *_columns([_seen_with_labels(first, cell.arm, data) for data in sets]),
        epochs=first.epochs,
        batch_size=first.batch_size,
        optimizer=_optimizer(first.optimizer or cell.arm.optimizer),
        schedule=partial(_cosine, first.epochs) if first.schedule == "cosine" else None,
        learning_rate=[trial.learning_rate for trial in cell.trials],
        validation_data=held_out,
        **PROTOCOL,
        **asked.judged,
    ):
        curves["train_nll"].append(epoch.scores["nll"])
        curves["validation_nll"].append(epoch.scores["val_nll"])
        error = asked.errors(epoch.scores, len(held_out[0][0]), "val_")
        curves["validation_error"].append(error)
        note(epoch.number)
        best.update(error)
    tests = {}
    # Selection trials never see the test set.
    if first.role == "report":
        x, y = (array[: first.test_size] for array in sets[0].test)
        lowest = population.with_members(best.members)
        tests = _test(lowest, asked, "test", x, y) | _test(population, asked, "final_test", x, y)
        if asked.named:
            tests["correct"] = [packed(row) for row in asked.named(lowest.predict(x)) == y]
    return {name: np.array(values, dtype="float64") for name, values in curves.items()}, tests


def _cosine(epochs: int, epoch: int, rate: float) -> float:
    return rate * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _seen_with_labels(trial: Trial, arm: Arm, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The examples of an epoch of training with labels, and their labels."""
    if not trial.labeled:
        return data.train
    (x, y), (labeled, times) = data.train, labels_of(trial)
    parts = [(x[:labeled], y[:labeled])] * times
    if arm.pseudo_labels:
        parts.append((x[labeled:], np.full_like(y[labeled:], UNLABELED)))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _columns(sets: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list, list]:
    """The inputs and the labels of every member."""
    return [x for x, _ in sets], [y for _, y in sets]


def _test(
    population: Population, asked: Prediction, name: str, x: np.ndarray, y: np.ndarray
) -> dict:
    table = population.evaluate(x, y, **asked.judged)
    scores = {column: table[column].to_numpy(dtype="float64") for column in table}
    return {f"{name}_nll": scores["nll"], f"{name}_error": asked.errors(scores, len(x))}


def _finetuning_result(
    trial: Trial, arm: Arm, curves: dict, tests: dict[str, Any], features: int, classes: int
) -> dict:
    pretraining = pretraining_flops(trial, arm, trial.pretraining_epochs, features)
    finetuning = finetuning_flops(trial, arm, trial.epochs, features, classes)
    pretraining = pretraining if arm.pretrained else 0
    result = {
        "status": "done",
        **_scores(curves),
        **{k: v if isinstance(v, str) else float(v) for k, v in tests.items()},
        "pretraining_flops": pretraining,
        "finetuning_flops": finetuning,
        "flops": pretraining + finetuning,
    }
    if not np.isfinite(curves["train_nll"]).all():
        measured = [name for name in result if name not in _COSTS]
        result |= dict.fromkeys(measured) | {"status": "diverged"}
    return result | {"curves": {name: curve.tolist() for name, curve in curves.items()}}


def _scores(curves: dict) -> dict:
    """The values of curves at the epoch of the lowest validation error, and at the last epoch."""
    best = int(np.argmin(curves["validation_error"]))
    scores = {name: float(curves[name][best]) for name in _SCORED}
    final = {f"final_{name}": float(curves[name][-1]) for name in _SCORED if name != "train_nll"}
    return {"best_epoch": best + 1, **scores, **final}


def _stacks(cell: Cell, cache: Path, load: Load) -> dict[int, Stack]:
    """The pretrained weights for each seed; a stack that the cache has lost is made again."""
    rate = cell.trials[0].pretraining_rate
    seeds = {trial.seed for trial in cell.trials}
    wanted = [t for s in cell.stacks for t in s if t.learning_rate == rate and t.seed in seeds]
    found = {trial: _read_stack(cache, trial) for trial in wanted}
    if lost := tuple(trial for trial, stack in found.items() if stack is None):
        _, made = _pretrain(lost, cell.arm.source, cache, load)
        found |= zip(lost, made, strict=True)
    return {trial.seed: stack for trial, stack in found.items()}


def _fill(model: keras.Model, stack: Stack, layers: int | None = None) -> None:
    """Give a net the layers of a stack, which may be deeper; or the first `layers` of them."""
    hidden = _hidden(model) if stack else {}
    is_other = hidden and not _named(model) and len(stack) > len(hidden)
    if layers:
        first = {v.path for stage in split_stages(model)[:layers] for v in stage.variables}
        hidden = {name: v for name, v in hidden.items() if v.path in first}
    # A net that lacks a part of its stack must not pass for a pretrained net.
    wrong = [name for name, v in hidden.items() if np.shape(stack.get(name)) != tuple(v.shape)]
    if wrong or is_other:
        raise ValueError(
            "The pretrained stack is not that of the net. Expected the same layers for every seed; "
            "and where the depth is varied, an output layer that is named head, and hidden layers "
            f"that have the same names for every depth. Received: a stack of {', '.join(stack)} "
            f"for {', '.join(hidden)}"
        )
    for name, variable in hidden.items():
        variable.assign(stack[name])


def _hidden(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights that a stack holds, by name."""
    # Not the state of dropout's random numbers, which a stack has none of.
    if _named(model):
        return {v.path: v for v in model.weights if not v.path.startswith("head/")}
    # Keras may number the names anew for every net. Of all weights, pretraining leaves the output's
    # as they are, so that they are those of the seed.
    return {f"weight_{i}": v for i, v in enumerate(model.weights)}


def _named(model: keras.Model) -> bool:
    """Whether the names of the layers tell which are hidden: the output layer is the head."""
    return model.layers[-1].name == "head"


def _weights(model: keras.Model) -> Stack:
    return {name: keras.ops.convert_to_numpy(v) for name, v in _hidden(model).items()}


def _save_stack(cache: Path, trial: Trial, stack: Stack) -> None:
    # A cache that cannot be written to costs time and nothing else.
    with suppress(OSError), replacing(cache / f"{trial.key}.npz") as file:
        np.savez(file, **stack, **{_DIGEST: _digest(trial, stack)})


def _read_stack(cache: Path, trial: Trial) -> Stack | None:
    """A stack of the cache; `None` if it is missing, damaged or the stack of another trial."""
    try:
        with (cache / f"{trial.key}.npz").open("rb") as file, np.load(file) as arrays:
            stack = dict(arrays)
    # A damaged archive can raise any exception.
    except Exception:
        return None
    is_sound = str(stack.pop(_DIGEST, "")) == _digest(trial, stack)
    return stack if is_sound else None


def _digest(trial: Trial, stack: Stack) -> str:
    """Digest of the trial, and of the names, shapes and contents of its stack."""
    digest = hashlib.sha256(trial.key.encode())
    for name in sorted(stack):
        array = stack[name]
        digest.update(f"{name} {array.shape} {array.dtype} ".encode() + array.tobytes())
    return digest.hexdigest()
