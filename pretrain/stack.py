"""What greedy and joint pretraining share: arguments made ready, the loop, the reports."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.checks import checked_optimizer, positive
from pretrain.codes import Codes
from pretrain.examples import Examples, split_validation
from pretrain.kept import KeptStage, describe_graph, digest_of_arrays
from pretrain.members import values_of, variables_of
from pretrain.objectives import DenoisingAutoencoder, Objective
from pretrain.objectives.objective import Learner
from pretrain.population import Population
from pretrain.report import StageReport
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages
from pretrain.task import check_inputs
from pretrain.training import BestEpoch, Trainer, progress


@dataclass
class Settings:
    """How stages are trained: arguments of `greedy_pretrain`, checked."""

    epochs: int
    batch_size: int
    optimizer: str | keras.optimizers.Optimizer
    learning_rate: float | Sequence[float] | None
    patience: int | None
    callbacks: Sequence[keras.callbacks.Callback]
    verbose: str | int

    def __post_init__(self) -> None:
        positive("epochs", self.epochs)
        positive("batch_size", self.batch_size)
        self.optimizer = checked_optimizer(self.optimizer)
        if self.patience is not None:
            positive("patience", self.patience)

    def describe(self) -> list:
        """What the result depends on, but for the number of epochs."""
        # Keras numbers the names.
        optimizer = {k: v for k, v in self.optimizer.get_config().items() if k != "name"}
        rates = None if self.learning_rate is None else np.asarray(self.learning_rate).tolist()
        kind = type(self.optimizer).__name__
        return [self.batch_size, rates, self.patience, kind, optimizer]


class Stack:
    """A population, cut into stages with an objective for each, and its examples.

    The arguments are those of `greedy_pretrain`.
    """

    def __init__(
        self, model: Any, x: Any, y: Any, objective: Any, stages: Any, validation: Any, seed: int
    ) -> None:
        single = not isinstance(model, Population)
        self.population = Population.from_models([model], [seed]) if single else model
        self.members = len(self.population)
        self.examples = Examples(x, y, members=self.members)
        self.validation = split_validation(validation, self.members)
        for data in filter(None, (self.examples, self.validation)):
            check_inputs(self.population.template, data)
        self.stages = _cut(self.population.template, stages, self.examples)
        self.objectives = _one_for_each(objective, len(self.stages))
        self.layers = None if stages is None or isinstance(stages, int) else stages

    def first_inputs(self, settings: Settings, max_memory: int) -> list[Codes]:
        """Inputs of the first stage, of validation too if there is any; decides the objectives."""
        if settings.patience and self.validation is None:
            raise ValueError(
                "`patience` waits for a lower validation loss: expected `validation_data`. "
                f"Received: patience={settings.patience}, validation_data=None"
            )
        options = {
            "dtype": _input_dtype(self.population.template),
            "members": self.members,
            "max_memory": positive("max_memory", max_memory),
            "labeled": any(o.needs_targets for o in self.objectives),
        }
        data = [Codes(self.examples, multiple=settings.batch_size, **options)]
        if self.validation is not None:
            data.append(Codes(self.validation, multiple=1, **options))
        between = self.between()
        self.advance(data, between[0])
        binary = [data[0].lie_in_unit_interval(), *map(in_unit_interval, between[1:])]
        pairs = zip(self.objectives, binary, strict=True)
        self.objectives = [objective.decided(b) for objective, b in pairs]
        return data

    def describe(self, data: list[Codes], settings: Settings, max_memory: int) -> dict[str, Any]:
        """By name, plain data about what the result of every stage depends on."""
        return {
            "data": [inputs.digest() for inputs in data],
            "seeds": self.population.seeds,
            "settings": settings.describe(),
            "max_memory": max_memory,
            "backend": [keras.backend.backend(), keras.config.floatx()],
        }

    def describe_stage(self, number: int) -> dict[str, Any]:
        """By name, plain data about what the result of a stage depends on beside that."""
        stage = self.stages[number]
        layers = [stage.preamble, stage] if stage.preamble else [stage]
        weights = [weight for layer in layers for weight in layer.weights]
        return {
            "layers": [describe_graph(layer.graph) for layer in layers],
            "objective": self.objectives[number],
            "initial weights": digest_of_arrays(map(self.population.members.stacked, weights)),
        }

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
    return split_stages(model, stages=stages, input_shape=examples.first()[0].x.shape[1:])


def _one_for_each(objective: Any, count: int) -> list[Objective]:
    objectives = list(objective) if isinstance(objective, list | tuple) else [objective] * count
    objectives = [DenoisingAutoencoder() if item is None else item for item in objectives]
    if len(objectives) != count or not all(isinstance(item, Objective) for item in objectives):
        raise ValueError(
            f"`objective` must be one of pretrain.objectives, or one for each of {count} stages. "
            f"Received: objective={objective!r}"
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
        self,
        settings: Settings,
        inputs: Codes,
        held_out: Codes | None = None,
        *,
        encodes: bool,
        after: KeptStage | None = None,
    ) -> list[StageReport]:
        """Trains on inputs, validates on held-out ones, and gives the population the weights.

        With `encodes`, the FLOPs of computing codes, once, are counted. The training goes on
        `after` an earlier one. A report for each stage is returned; only its weights and FLOPs are
        of the stage alone.
        """
        start = time.perf_counter() - (after.report["seconds"] if after else 0)
        before = [self._weights(stage) for stage in self.stages]
        n, moments = inputs.moments()
        self._trainer = self._prepare(settings, inputs, held_out, after)
        history = self._train(settings)
        if after:
            history = pd.concat([pd.DataFrame(after.report["history"]), history], ignore_index=True)
        whole = {
            "loss": self.task.loss_name,
            "baseline": np.resize([*map(self.task.baseline, moments)], len(self.population)),
            "history": history,
            "seconds": time.perf_counter() - start,
        }
        self._finish()
        epochs = history.groupby("member")["epoch"].max().to_numpy()
        examples = n // settings.batch_size * settings.batch_size * epochs
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
        self.trained.values = _unstacked(values)
        self._finish()

    def values(self) -> list[np.ndarray]:
        """All weights, each stacked over members."""
        return [self.trained.stacked(v) for v in variables_of(self.trained.template)]

    def states(self) -> list[np.ndarray]:
        """The values of the optimizer's variables, each stacked over members."""
        return [np.stack(each) for each in zip(*self._trainer.states, strict=True)]

    def models(self, i: int) -> dict[str, Any]:
        """What a report holds of a stage that is not plain data."""
        parts = [learner.parts[i] for learner in self.learners]
        return {
            "objective": self.task.parts[i],
            "decoders": [part.decoder for part in parts],
            "heads": [part.head for part in parts],
        }

    def _prepare(
        self, settings: Settings, inputs: Codes, held_out: Codes | None, after: KeptStage | None
    ) -> Trainer:
        trainer = Trainer(
            self.trained,
            self.task,
            lambda: inputs,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            validate=held_out and (lambda: self._validate(held_out)),
            stream=self.stream,
        )
        if after:
            self.trained.values = _unstacked(after.values)
            trainer.states = _unstacked(after.states)
            trainer.epoch = max(after.report["history"]["epoch"])
        return trainer

    def _train(self, settings: Settings) -> pd.DataFrame:
        trained, epochs = self.trained, iter(self._trainer)
        history = []
        running = np.ones(len(trained), bool)
        waited, best = np.zeros(len(trained), int), BestEpoch(trained)
        callbacks = self._callbacks(settings)
        callbacks.on_train_begin()
        name = " + ".join(stage.name for stage in self.stages)
        numbers = range(self._trainer.epoch, settings.epochs)
        for i in progress(numbers, "epochs", settings.verbose, desc=name):
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
        logs = pd.DataFrame(rows).drop(columns=["member", "seed", "epoch"]).mean().to_dict()
        callbacks.on_epoch_end(epoch, logs)

    def _validate(self, held_out: Codes) -> np.ndarray:
        total, n = 0.0, 0
        for blocks in held_out:
            count = len(blocks[0].x)
            scores = self.trained.scores(self.task, blocks, stream=self.stream)
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


def _unstacked(values: list[np.ndarray]) -> list[list]:
    """For each member, the tensors that were stacked over members."""
    return [[ops.convert_to_tensor(v) for v in own] for own in zip(*values, strict=True)]


def _movement(before: dict, after: dict) -> dict[str, np.ndarray]:
    """`||w - w_0|| / ||w_0||` of each weight for each member; NaN where w_0 is 0."""

    def norm(w: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(w.reshape(len(w), -1), dtype="float64").sum(axis=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: norm(after[name] - w) / norm(w) for name, w in before.items()}
    return {name: np.where(np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()}
