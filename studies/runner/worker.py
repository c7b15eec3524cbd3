"""What a worker does: trains a cell's trials as one population. It, and `density`, have Keras."""

import functools
import os
import platform
import subprocess
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from pretrain import BestEpoch, Population, datasets, greedy_pretrain, networks, objectives
from pretrain.objectives import Objective
from studies.arms import ARMS, DENSITY, Arm
from studies.runner import cost, density
from studies.runner.machine import processor
from studies.runner.trial import Cell, Trial

_PREDICTION = {
    "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "metrics": ["accuracy"],
}
# A worker meets the same few splits in cell after cell.
_load = functools.lru_cache(maxsize=16)(datasets.load)


def run_cell(
    cell: Cell, cache: Path, dataset: str | None = None, data_folder: Path | None = None
) -> list[dict]:
    """Trains the trials of a cell.

    Args:
        cell: The cell.
        cache: Folder of the pretrained stacks.
        dataset: What `pretrain.datasets.load` takes for the dataset of the trials; by default
            their `dataset` itself.
        data_folder: Where to look for datasets first.

    Returns:
        For each trial, in order, its `status`, metrics, `curves` and `provenance`, and `arrays` by
        name if figures need any.
    """
    start = time.perf_counter()
    source = _Source(dataset or cell.trials[0].dataset, data_folder)
    if ARMS[cell.trials[0].arm].task == DENSITY:
        sets = [source.load(trial) for trial in cell.trials]
        results = density.train(cell.trials, list(map(_build, cell.trials, sets)), sets)
    elif cell.trials[0].role == "pretraining":
        results = _pretrain(cell.trials, cache, source)
    else:
        results = _finetune(cell, cache, source)
    common = {"seconds": time.perf_counter() - start, "provenance": _provenance()}
    return [result | common for result in results]


class _Source:
    """Where the data of trials comes from: every seed has a split of its own."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self._name, self._folder = name, folder

    def load(self, trial: Trial) -> datasets.Dataset:
        sizes = trial.train_size, trial.validation_size
        return _load(self._name, *sizes, seed=trial.seed, folder=self._folder)


def _build(trial: Trial, data: datasets.Dataset) -> keras.Model:
    arm = ARMS[trial.arm]
    return networks.mlp(
        data.train[0].shape[1:],
        data.classes,
        depth=trial.depth,
        units=trial.width,
        activation=arm.activation,
        normalization=arm.normalization,
        shortcut=arm.shortcut,
        initializer=arm.initializer,
        head_initializer=arm.head_initializer,
        seed=trial.seed,
    )


def _objective(arm: Arm) -> Objective | list[Objective]:
    if arm.stages is None:
        return objectives.from_config(arm.objective)
    return [objectives.from_config(config) for config in arm.objective]


def _pretrain(trials: tuple[Trial, ...], cache: Path, source: _Source) -> list[dict]:
    """Pretrains a stack for each trial and keeps it in the cache."""
    first, sets = trials[0], [source.load(trial) for trial in trials]
    models = [_build(trial, data) for trial, data in zip(trials, sets, strict=True)]
    report = greedy_pretrain(
        Population.from_models(models, [trial.seed for trial in trials]),
        [data.train[0] for data in sets],
        _objective(ARMS[first.arm]),
        epochs=first.epochs,
        batch_size=first.batch_size,
        optimizer="sgd",
        learning_rate=[trial.learning_rate for trial in trials],
        validation_data=([data.validation[0] for data in sets],),
        verbose=0,
    )
    for trial, model in zip(trials, models, strict=True):
        _save_stack(cache, trial, model)
    features = int(np.prod(sets[0].train[0].shape[1:]))
    return [_pretraining_result(trial, report, i, features) for i, trial in enumerate(trials)]


def _pretraining_result(trial: Trial, report, i: int, features: int) -> dict:
    histories = [stage.history[stage.history["member"] == i] for stage in report.stages]
    loss = [history["loss"].tolist() for history in histories]
    validation = [history["val_loss"].tolist() for history in histories]
    baseline = [float(stage.baseline[i]) for stage in report.stages]
    done = np.isfinite([*loss, *validation]).all()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array(validation)[:, -1] / baseline
    return {
        "status": "done" if done else "diverged",
        # Of the worst stage. A mean over stages would reward one that learns nothing: its constant
        # codes are easily reconstructed by the next. Dead units, all 0, make it NaN.
        "validation_ratio": float(ratios.max()) if done else None,
        "flops": cost.pretraining_flops(trial, trial.epochs, features),
        "curves": {"loss": loss, "validation_loss": validation, "baseline": baseline},
    }


def _finetune(cell: Cell, cache: Path, source: _Source) -> list[dict]:
    """Trains with labels, from the pretrained stacks if the arm has any."""
    sets = [source.load(trial) for trial in cell.trials]
    stacks = _stacks(cell, cache, source)
    models = []
    for trial, data in zip(cell.trials, sets, strict=True):
        models.append(_build(trial, data))
        _fill(models[-1], stacks.get(trial.seed, {}))
    population = Population.from_models(models, [trial.seed for trial in cell.trials])
    curves, tests = _train(population, cell.trials, sets)
    features = int(np.prod(sets[0].train[0].shape[1:]))
    return [
        _finetuning_result(
            trial,
            {name: curve[:, i] for name, curve in curves.items()},
            {epoch: {name: values[i] for name, values in t.items()} for epoch, t in tests.items()},
            features,
            data.classes,
        )
        for i, (trial, data) in enumerate(zip(cell.trials, sets, strict=True))
    ]


def _train(
    population: Population, trials: tuple[Trial, ...], sets: list
) -> tuple[dict[str, np.ndarray], dict[int, dict[str, np.ndarray]]]:
    """Trains with plain SGD.

    Returns:
        Curves of shape (epochs, members); and, for report trials, what the test set says after the
        epochs of the scale and after the extra ones, by their number.
    """
    first = trials[0]
    last = first.epochs + first.extra_epochs
    # Selection trials never see the test set.
    tested = (first.epochs, last) if first.role == "report" else ()
    curves = {"train_nll": [], "validation_nll": [], "validation_error": []}
    tests, best = {}, BestEpoch(population.members)
    held_out = _columns([data.validation for data in sets])
    for epoch in population.epochs(
        *_columns([data.train for data in sets]),
        epochs=last,
        batch_size=first.batch_size,
        optimizer="sgd",
        learning_rate=[trial.learning_rate for trial in trials],
        validation_data=held_out,
        verbose=0,
        **_PREDICTION,
    ):
        curves["train_nll"].append(epoch.scores["loss"])
        curves["validation_nll"].append(epoch.scores["val_loss"])
        error = _errors(epoch.scores["val_accuracy"], len(held_out[0][0]))
        curves["validation_error"].append(error)
        best.update(error)
        if epoch.number in tested:
            test_set = [array[: first.test_size] for array in sets[0].test]
            lowest = population.with_members(best.members)
            tests[epoch.number] = {
                **_test(lowest, "test", *test_set),
                **_test(population, "final_test", *test_set),
            }
    return {name: np.array(values, dtype="float64") for name, values in curves.items()}, tests


def _columns(sets: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list, list]:
    """The inputs of every member, and its labels."""
    return [x for x, _ in sets], [y for _, y in sets]


def _test(population: Population, name: str, x: np.ndarray, y: np.ndarray) -> dict:
    scores = population.evaluate(x, y, **_PREDICTION)
    return {
        f"{name}_nll": scores["loss"].to_numpy(dtype="float64"),
        f"{name}_error": _errors(scores["accuracy"].to_numpy(), len(x)),
    }


def _errors(accuracy: np.ndarray, n: int) -> np.ndarray:
    """Shares of errors among n examples: counts over n, which single precision has rounded."""
    return np.rint((1 - accuracy.astype("float64")) * n) / n


def _finetuning_result(
    trial: Trial, curves: dict, tests: dict[int, dict], features: int, classes: int
) -> dict:
    pretraining = cost.pretraining_flops(trial, trial.pretraining_epochs, features)
    finetuning = cost.finetuning_flops(trial, trial.epochs, features, classes)
    pretraining = pretraining if trial.pretraining_epochs else 0
    result = {
        "status": "done",
        **_scores(curves, trial.epochs),
        **{name: float(value) for name, value in tests.get(trial.epochs, {}).items()},
        "pretraining_flops": pretraining,
        "finetuning_flops": finetuning,
        "flops": pretraining + finetuning,
    }
    if trial.role == "report":
        epochs = trial.epochs + trial.extra_epochs
        total = pretraining + cost.finetuning_flops(trial, epochs, features, classes)
        longer = _scores(curves, epochs)
        for name in ("validation_error", "best_epoch"):
            result[f"equal_cost_{name}"] = longer[name]
        result["equal_cost_test_error"] = float(tests[epochs]["test_error"])
        result["equal_cost_flops"] = total
    if not np.isfinite(curves["train_nll"][: trial.epochs]).all():
        measured = [name for name in result if name != "status" and not name.endswith("flops")]
        result |= dict.fromkeys(measured) | {"status": "diverged"}
    return result | {"curves": {name: curve.tolist() for name, curve in curves.items()}}


def _scores(curves: dict, epochs: int) -> dict:
    """What curves say at the epoch of the lowest validation error, and at the last epoch."""
    best = int(np.argmin(curves["validation_error"][:epochs]))
    scores = {name: float(curve[best]) for name, curve in curves.items()}
    final = {
        f"final_{name}": float(curve[epochs - 1])
        for name, curve in curves.items()
        if name != "train_nll"
    }
    return {"best_epoch": best + 1, **scores, **final}


def _stacks(cell: Cell, cache: Path, source: _Source) -> dict[int, dict[str, np.ndarray]]:
    """The pretrained weights for each seed; a stack that the cache has lost is made again."""
    rate = cell.trials[0].pretraining_rate
    seeds = {trial.seed for trial in cell.trials}
    wanted = [t for s in cell.stacks for t in s if t.learning_rate == rate and t.seed in seeds]
    lost = tuple(trial for trial in wanted if _read_stack(cache, trial) is None)
    if lost:
        _pretrain(lost, cache, source)
    return {trial.seed: _read_stack(cache, trial) for trial in wanted}


def _fill(model: keras.Model, stack: dict[str, np.ndarray]) -> None:
    """Gives a net the layers of a stack, which may be deeper."""
    for variable in model.variables:
        if variable.path in stack:
            variable.assign(stack[variable.path])


def _save_stack(cache: Path, trial: Trial, model: keras.Model) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    hidden = [v for v in model.variables if not v.path.startswith("head/")]
    arrays = {v.path: keras.ops.convert_to_numpy(v) for v in hidden}
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as file:
        np.savez(file, **arrays)
    Path(file.name).replace(cache / f"{trial.key}.npz")


def _read_stack(cache: Path, trial: Trial) -> dict[str, np.ndarray] | None:
    """A stack of the cache; `None` if it is not there or its checksums (of npz) do not match."""
    try:
        with (cache / f"{trial.key}.npz").open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


@functools.cache
def _provenance() -> dict:
    packages = ["keras", "numpy", "pretrain", keras.backend.backend()]
    return {
        "backend": keras.backend.backend(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "commit": _commit(),
        "processor": processor(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }


def _commit() -> str | None:
    """The commit of the source tree, with `-dirty` if it was changed; `None` outside of one."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
