"""Conduct a comparison: survey, speed, tuning with grids that widen by themselves, and report."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pretrain.checks import check_choice
from studies.arms import Arm
from studies.comparison import budget
from studies.comparison.data import Source
from studies.comparison.kind import KIND
from studies.comparison.settings import Settings
from studies.engine.execute import Outcome, Run, execute
from studies.engine.scale import CUSTOM, FIRST_SELECTION_SEED, Scale, load_custom
from studies.engine.study import load
from studies.engine.trial import Cell

# Starting points for data that nobody knows; grids widen by themselves.
_GRIDS = {
    "adam": (0.0003, 0.001, 0.003, 0.01),
    "adamw": (0.0003, 0.001, 0.003, 0.01),
    "momentum": (0.003, 0.01, 0.03, 0.1),
    "sgd": (0.03, 0.1, 0.3, 1.0),
}
_SEED_OF_SPEED = 2 * FIRST_SELECTION_SEED
_EPOCHS_OF_SPEED = (1, 1, 4)
_MANY_EXAMPLES = 20_000


def conduct(
    arms: list[Arm],
    data: Source,
    settings: Settings,
    results: Path,
    executor: Executor,
    run_cell: Callable[..., list[dict]],
    workers: int,
    data_folder: Any = None,
) -> tuple[Run, Outcome]:
    """Run a comparison, or what an earlier call with the same arguments has left of it.

    Args:
        arms: The arms, from `studies.comparison.arms.made`.
        data: The data.
        settings: What the user says of the comparison.
        results: The folder of all results.
        executor: Where cells run.
        run_cell: Trains a cell: `studies.engine.worker.run_cell`.
        workers: Number of cells that run at the same time.
        data_folder: Where data that have a name are looked for first.

    Returns:
        The run and what was done in this call.
    """
    where = str(data.path or data.name)
    run_cell = partial(run_cell, dataset=where, data_folder=data_folder)
    arms, guessing = executor.submit(_surveyed, arms, where, data_folder).result()
    chance = data.chance_error if guessing is None else guessing
    first = _scale(arms, replace(data, chance_error=chance), settings)
    run = Run(load("compare"), _name(first, settings), first, results)
    run = replace(run, scale=_kept(run) or _fitted(run, settings, executor, run_cell, workers))
    while True:
        outcome = execute(run, run_cell, executor, workers, _is_tuning)
        wider = budget.wider(run.scale, run.records, first)
        if outcome.failures or wider == run.scale:
            break
        run = replace(run, scale=wider)
    if outcome.failures:
        return run, outcome
    if settings.minutes is not None:
        fewer = budget.shortened(run.scale, run.records, settings.minutes, workers)
        run = replace(run, scale=fewer)
    return run, execute(run, run_cell, executor, workers)


def _surveyed(*arguments: Any) -> tuple[list[Arm], float | None]:
    # Imported only here: the driver does without Keras.
    from studies.comparison.survey import surveyed

    return surveyed(*arguments)


def _is_tuning(cell: Cell) -> bool:
    return cell.trials[0].seed >= FIRST_SELECTION_SEED


def _scale(arms: list[Arm], data: Source, settings: Settings) -> Scale:
    """The comparison at its full size."""
    pretrained = any(arm.objective for arm in arms)
    stacks = _grid(settings.pretraining_rates, settings.pretraining_optimizer)
    size = settings.train_size or data.train_size
    return Scale(
        arms=tuple(arms),
        train_size=size,
        validation_size=settings.validation_size or data.validation_size,
        test_size=settings.test_size or data.test_size,
        epochs=settings.epochs,
        report_seeds=settings.seeds,
        learning_rates=_grid(settings.learning_rates, settings.optimizer),
        selection_seeds=settings.selection_seeds,
        pretraining_epochs=settings.pretraining_epochs if pretrained else None,
        pretraining_rates=stacks if pretrained else (),
        batch_size=settings.batch_size or min(128 if size > _MANY_EXAMPLES else 32, size),
        dataset=data.name,
        features=data.features,
        classes=data.classes,
        chance_error=data.chance_error,
        unlabeled=data.unlabeled,
        kind=KIND,
    )


def _grid(given: tuple[float, ...] | None, optimizer: str) -> tuple[float, ...]:
    check_choice("optimizer", optimizer, list(_GRIDS))
    return tuple(given or _GRIDS[optimizer])


def _name(scale: Scale, settings: Settings) -> str:
    """The name of a comparison: the data, and a digest of all that was asked."""
    asked = [[(arm.name, arm.version) for arm in scale.arms], dataclasses.asdict(settings)]
    digest = hashlib.sha256(json.dumps([scale.dataset, *asked]).encode()).hexdigest()[:8]
    return f"{CUSTOM}-{scale.dataset.partition('-')[0]}-{digest}"


def _kept(run: Run) -> Scale | None:
    """The scale that an earlier call has chosen and written, before there were results."""
    try:
        # What is written names functions that nobody may be able to import.
        return replace(load_custom(run.study, run.folder), arms=run.scale.arms)
    except OSError:
        return None


def _fitted(
    run: Run, settings: Settings, executor: Executor, run_cell: Callable, workers: int
) -> Scale:
    if settings.minutes is None:
        return run.scale
    speed = _speed(run, executor, run_cell)
    return budget.fitted(run.scale, speed, settings.minutes, workers)


def _speed(run: Run, executor: Executor, run_cell: Callable) -> budget.Speed:
    """Measure the speed of a worker on the network and the data, in cells that are not recorded."""
    flop, cell, program = {}, 0.0, 0.0
    for arm in {arm.noise: arm for arm in reversed(run.scale.arms)}.values():
        cells = [_selection(run.scale, arm, epochs) for epochs in _EPOCHS_OF_SPEED]
        found = [executor.submit(run_cell, each, run.cache).result()[0] for each in cells]
        # The first cell imports and compiles.
        first, one, more = (each["seconds"] for each in found)
        epochs = _EPOCHS_OF_SPEED[-1] - _EPOCHS_OF_SPEED[0]
        epoch = max(more - one, 1e-3) / epochs
        flop[arm.noise] = epoch / (len(cells[0].trials) * found[0]["flops"])
        cell, program = max(cell, one - epoch), max(program, first - one)
    return budget.Speed(flop, cell, program)


def _selection(scale: Scale, arm: Arm, epochs: int) -> Cell:
    """A cell of few epochs with the rates of a grid, of a seed that is not in any plan."""
    trial = replace(KIND.base(scale, arm, {}), role="selection", seed=_SEED_OF_SPEED, epochs=epochs)
    trials = tuple(replace(trial, learning_rate=rate) for rate in scale.learning_rates)
    return Cell(trials, arm, KIND, "speed")
