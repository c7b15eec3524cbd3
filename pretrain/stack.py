"""What greedy and joint pretraining share: arguments made ready, the loop, the reports."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.checks import brief, checked_optimizer, positive
from pretrain.codes import Codes
from pretrain.examples import Examples, split_validation
from pretrain.members import values_of, variables_of
from pretrain.objectives import DenoisingAutoencoder, Objective, of_name
from pretrain.objectives.objective import Learner
from pretrain.population import Population
from pretrain.report import StageReport
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages
from pretrain.training import BestEpoch, Trainer, progress

# Columns of a history that are no scores.
_COUNTS = ["member", "seed", "epoch", "updates"]


@dataclass
class Settings:
    """How a stage is trained: arguments of `greedy_pretrain`, checked."""

    epochs: int
    batch_size: int
    optimizer: str | keras.optimizers.Optimizer
    learning_rate: float | Sequence[float] | None
    patience: int | None
    callbacks: Sequence[keras.callbacks.Callback]
    verbose: str | int
    drop_remainder: bool = False

    def __post_init__(self) -> None:
        positive("epochs", self.epochs)
        positive("batch_size", self.batch_size)
        self.optimizer = checked_optimizer(self.optimizer)
        if self.patience is not None:
            positive("patience", self.patience)

    def describe(self) -> list:
        """What the result depends on."""
        # Keras numbers the names.
        optimizer = {k: v for k, v in self.optimizer.get_config().items() if k != "name"}
        rates = None if self.learning_rate is None else np.asarray(self.learning_rate).tolist()
        kind = type(self.optimizer).__name__
        counts = [self.epochs, self.batch_size, self.drop_remainder]
        return [*counts, rates, self.patience, kind, optimizer]


def settings_of_stages(
    stack: "Stack", epochs: Any, batch_size: Any, optimizer: Any, learning_rate: Any, **same: Any
) -> list[Settings]:
    """The settings of each stage; a list has an entry for each stage.

    A list of numbers as `learning_rate` of a population has an entry for each member.
    """
    count = len(stack.stages)
    nested = isinstance(learning_rate, list | tuple) and any(map(np.ndim, learning_rate))
    alone = stack.members == 1 and np.size(learning_rate) > 1
    rates = learning_rate if nested or alone else [learning_rate] * count
    each = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": rates,
    }
    columns = [_for_each_stage(name, value, count) for name, value in each.items()]
    return [
        Settings(epochs, stack.examples.batch_size(size, default=128), *rest, **same)
        for epochs, size, *rest in zip(*columns, strict=True)
    ]


def _for_each_stage(name: str, value: Any, count: int) -> list:
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value] * count
    if len(values) != count:
        raise ValueError(
            f"`{name}` must be one value, or a list with a value for each of {count} stages. "
            f"Received: {name}={brief(value)}"
        )
    return values


class Stack:
    """A population, cut into stages with an objective for each, and its examples.

    The arguments are those of `greedy_pretrain`.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        y: Any,
        objective: Any,
        stages: Any,
        validation: Any,
        seed: int,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation_split: float = 0.0,
    ) -> None:
        single = not isinstance(model, Population)
        self.population = Population.from_models([model], [seed]) if single else model
        self.members = len(self.population)
        options = {"model": self.population.template, "members": None if single else self.members}
        self.examples, self.validation = split_validation(
            Examples(x, y, sample_weight, class_weight=class_weight, **options),
            validation,
            validation_split,
            **options,
        )
        self.stages = _cut(self.population.template, stages, self.examples)
        self.objectives = _one_for_each(objective, len(self.stages))
        self.layers = None if stages is None or isinstance(stages, int) else stages

    def first_inputs(self, settings: Sequence[Settings], max_memory: int) -> list[Codes]:
        """Inputs of the first stage, of validation too if there is any; decides the objectives."""
        if settings[0].patience and self.validation is None:
            raise ValueError(
                "`patience` waits for a lower validation loss: expected `validation_data`. "
                f"Received: patience={settings[0].patience}, validation_data=None"
            )
        options = {
            "dtype": _input_dtype(self.population.template),
            "members": self.members,
            "max_memory": positive("max_memory", max_memory),
            "labeled": any(o.needs_targets for o in self.objectives),
        }
        data = [
            Codes(self.examples, multiple=math.lcm(*(s.batch_size for s in settings)), **options)
        ]
        if self.validation is not None:
            data.append(Codes(self.validation, multiple=1, **options))
        between = self.between()
        self.advance(data, between[0])
        binary = [data[0].lie_in_unit_interval(), *map(in_unit_interval, between[1:])]
        pairs = zip(self.objectives, binary, strict=True)
        self.objectives = [objective.decided(b) for objective, b in pairs]
        return data

    def between(self) -> list[list]:
        """What makes each stage's inputs of those of the stage before."""
        pairs = zip([None, *self.stages], self.stages, strict=False)
        return [[s for s in (before, stage.preamble) if s] for before, stage in pairs]

    def advance(self, data: list[Codes], steps: list) -> None:
        """Makes the inputs what `steps` compute of them."""
        for step in steps:
            for inputs in data:
                inputs.advance(self.population.members.of_layer(step))

    def learners(self, number: int) -> list[Learner]:
        """A learner of a stage for each member."""
        stage, objective = self.stages[number], self.objectives[number]
        if not stage.trainable_variables:
            raise ValueError(
                "Expected a stage with trainable weights: name the stages to train with `stages`. "
                f"Received: stage {stage.name!r}, which is frozen"
            )
        seeds = [derive("decoder", stream_name(number), seed) for seed in self.population.seeds]
        return [objective.build(stage, seed, copy=i > 0) for i, seed in enumerate(seeds)]


def stream_name(number: int) -> str:
    """Name of the random streams of a stage."""
    return f"stage {number}"


def _cut(model: keras.Model, stages: Any, examples: Examples) -> list[Stage]:
    if isinstance(stages, int) and not isinstance(stages, bool):
        cut = split_stages(model)
        if not 1 <= stages <= len(cut):
            raise ValueError(
                f"Expected from 1 to {len(cut)} stages, those before the classifier. "
                f"Received: stages={stages}"
            )
        return cut[:stages]
    return split_stages(model, stages=stages, input_shape=examples.shape[1:])


def _one_for_each(objective: Any, count: int) -> list[Objective]:
    objectives = list(objective) if isinstance(objective, list | tuple) else [objective] * count
    objectives = [DenoisingAutoencoder() if item is None else of_name(item) for item in objectives]
    if len(objectives) != count or not all(isinstance(item, Objective) for item in objectives):
        labels = " Targets go to `y=`, which only SupervisedGreedy uses."
        raise ValueError(
            f"`objective` must be one of pretrain.objectives, or one for each of {count} stages."
            f"{labels if hasattr(objective, 'shape') else ''} "
            f"Received: objective={brief(objective)}"
        )
    return objectives


def _input_dtype(model: keras.Model) -> str:
    """What Keras casts a model's input to; images of integers, too, are trained on as floats."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].dtype if inputs else keras.config.floatx()


class StageTraining:
    """The training of a layer, the learner of a stage or of several, for each member.

    The `task` and every learner have one of their `parts` for each stage. The members' learners are
    equal but for their weights and tied copies. `stream` is the name of the random streams.
    """

    def __init__(
        self, population: Population, task: Objective, learners: list[keras.Layer], stream: str
    ) -> None:
        self.population = population
        self.task = task
        self.learners = learners
        self.stream = stream
        self.stages = [part.stage for part in learners[0].parts]
        first = [id(variable) for variable in learners[0].own_variables]
        own = [values_of(learner.own_variables) for learner in learners]
        values = [dict(zip(first, each, strict=True)) for each in own]
        self.trained = population.members.of_layer(learners[0], values)

    def run(
        self, settings: Settings, inputs: Codes, held_out: Codes | None = None, *, encodes: bool
    ) -> list[StageReport]:
        """Trains on inputs, validates on held-out ones, and gives the population the weights.

        With `encodes`, the FLOPs of computing codes, once, are counted. A report for each stage is
        returned; only its weights and FLOPs are of the stage alone.
        """
        start = time.perf_counter()
        before = [self._weights(stage) for stage in self.stages]
        n, moments = inputs.moments()
        history = self._train(settings, inputs, held_out)
        whole = {
            "loss": self.task.loss_name,
            "baseline": np.resize(
                [m.weight * self.task.baseline(m) for m in moments], len(self.population)
            ),
            "history": history,
            "seconds": time.perf_counter() - start,
        }
        self._finish()
        epochs = history.groupby("member")["epoch"].max().to_numpy()
        examples = (n - n % settings.batch_size * settings.drop_remainder) * epochs
        return [
            StageReport(
                name=stage.name,
                flops=3 * part.flops * examples + encodes * stage.flops * n,
                movement=_movement(weights, self._weights(stage)),
                **whole,
                **self.models(i),
            )
            for i, (stage, weights, part) in enumerate(
                zip(self.stages, before, self.learners[0].parts, strict=True)
            )
        ]

    def restore(self, values: list[np.ndarray]) -> None:
        """Puts weights, as `values` gave them, into the population instead of training."""
        tensors = [[ops.convert_to_tensor(v) for v in own] for own in zip(*values, strict=True)]
        self.trained.values = tensors
        self._finish()

    def values(self) -> list[np.ndarray]:
        """All weights, each stacked over members."""
        return [self.trained.stacked(v) for v in variables_of(self.trained.template)]

    def models(self, i: int) -> dict[str, Any]:
        """What a report holds of a stage that is not plain data."""
        parts = [learner.parts[i] for learner in self.learners]
        return {
            "objective": self.task.parts[i],
            "decoders": [part.decoder for part in parts],
            "heads": [part.head for part in parts],
        }

    def _train(self, settings: Settings, inputs: Codes, held_out: Codes | None) -> pd.DataFrame:
        trained = self.trained
        epochs = iter(
            Trainer(
                trained,
                self.task,
                lambda: inputs,
                optimizer=settings.optimizer,
                learning_rate=settings.learning_rate,
                batch_size=settings.batch_size,
                drop_remainder=settings.drop_remainder,
                validate=held_out and (lambda: self._validate(held_out)),
                stream=self.stream,
            )
        )
        history = []
        running = np.ones(len(trained), bool)
        waited, best = np.zeros(len(trained), int), BestEpoch(trained)
        callbacks = self._callbacks(settings)
        callbacks.on_train_begin()
        name = " + ".join(stage.name for stage in self.stages)
        for i in progress(range(settings.epochs), "epochs", settings.verbose, desc=name):
            callbacks.on_epoch_begin(i)
            epoch = next(epochs)
            rows = epoch.rows(trained.seeds)
            history += [row for row, runs in zip(rows, running, strict=True) if runs]
            if settings.patience:
                better = best.update(epoch.scores["val_loss"], among=running)
                waited = np.where(better, 0, waited + 1)
                running &= waited < settings.patience
            self._log(callbacks, i, rows)
            if not running.any() or self.learners[0].stop_training:
                break
        callbacks.on_train_end()
        if settings.patience:
            self.trained = best.members
        return pd.DataFrame(history)

    def _callbacks(self, settings: Settings) -> keras.callbacks.CallbackList:
        self.learners[0].stop_training = False
        return keras.callbacks.CallbackList(list(settings.callbacks), model=self.learners[0])

    def _log(self, callbacks: keras.callbacks.CallbackList, epoch: int, rows: list[dict]) -> None:
        if not callbacks.callbacks:
            return
        self.trained.assign(0, self.learners[0])
        logs = pd.DataFrame(rows).drop(columns=_COUNTS).mean().to_dict()
        callbacks.on_epoch_end(epoch, logs)

    def _validate(self, held_out: Codes) -> np.ndarray:
        total, n = 0.0, 0
        for blocks in held_out:
            count = len(blocks[0].x)
            scores = self.trained.scores(self.task, [blocks], stream=self.stream)
            total, n = total + count * scores, n + count
        return total / n

    def _finish(self) -> None:
        """Gives the population its weights, and what each member has beside it, tied or not."""
        self.population.take_over(self.trained)
        first = self.learners[0].own_variables
        for i, learner in enumerate(self.learners):
            for shared, variable in zip(first, learner.own_variables, strict=True):
                variable.assign(ops.copy(self.trained.value(i, shared)))

    def _weights(self, stage: Stage) -> dict[str, np.ndarray]:
        """A stage's trainable weights, matrices first, each stacked over members."""
        matrices_first = sorted(stage.trainable_variables, key=lambda v: len(v.shape) < 2)
        return {variable.path: self.trained.stacked(variable) for variable in matrices_first}


def _movement(before: dict, after: dict) -> dict[str, np.ndarray]:
    """`||w - w_0|| / ||w_0||` of each weight for each member; NaN where w_0 is 0."""

    def norm(w: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(w.reshape(len(w), -1), dtype="float64").sum(axis=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: norm(after[name] - w) / norm(w) for name, w in before.items()}
    return {name: np.where(np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()}
