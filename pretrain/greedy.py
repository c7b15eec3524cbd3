"""Greedy layer-wise pretraining: one stage after another, codes computed once."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.checkpoint import StageFolder
from pretrain.checks import checked_optimizer, positive
from pretrain.graph import Call
from pretrain.inputs import StageInputs
from pretrain.objectives import DenoisingAutoencoder, Objective, to_config
from pretrain.population import BestEpoch, Population, Trainer, progress
from pretrain.program import values_of
from pretrain.report import Report, StageReport
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages
from pretrain.streams import MAX_MEMORY, Examples, split_validation
from pretrain.supervised import check_inputs


def greedy_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: Objective | Sequence[Objective] | None = None,
    *,
    y: Any = None,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: Any = "adam",
    learning_rate: float | Sequence[float] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
    validation_data: Any = None,
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    folder: str | os.PathLike | None = None,
    max_memory: int = MAX_MEMORY,
    verbose: Any = "auto",
) -> Report:
    """Pretrains a model's stages one after another, in place.

    Each stage is trained on the clean, inference-mode output of the stages before it, which is
    computed once. Nothing outside the stage moves. A finished stage is kept if a later one is
    interrupted.

    Args:
        model: A built Keras model with a classifier as its last stage, or a `Population`.
        x: Inputs (n, ...); or a list with such an array for each member of a population; or a
            finite stream (`tf.data.Dataset`, `keras.utils.PyDataset`), whose targets are ignored
            by objectives that use none.
        objective: An objective for all stages, or one for each; `None` is
            `DenoisingAutoencoder(Masking(0.25))`.
        y: Targets, for objectives that use them.
        epochs: Epochs of every stage.
        batch_size: Examples per update.
        optimizer: Keras optimizer, by name or instance; every stage starts with a fresh copy.
        learning_rate: One rate, or one for each member of a population; `None` is the optimizer's.
        seed: Seed of order, corruption and decoders; a `Population` has its own.
        stages: Names of the layers of each stage, as for `split_stages`; or an integer, to
            pretrain only that many of the first stages; `None` is all but the classifier.
        validation_data: Inputs, `(x,)` or `(x, y)`, or a stream: their loss is reported.
        patience: Epochs without a lower validation loss after which a stage ends, for each member
            by itself, at least 1. The stage then has the weights of its best epoch. `None`: it has
            all epochs, and the weights of the last.
        callbacks: Keras callbacks, which see every stage as a training of its own: its logs are
            means over members, and `callback.model` is the stage with its decoder, with the weights
            of the first member. Setting `callback.model.stop_training` ends the stage.
        folder: Where every stage is kept as it ends. Called again with the same arguments, after an
            interruption or in another process, those stages are read instead of trained.
        max_memory: Bytes that the inputs of a stage may take, all members together; beyond it they
            are computed anew in every epoch, block by block.
        verbose: `"auto"` shows a progress bar in a terminal, 0 never.

    Returns:
        A report, which also holds the decoders.

    Raises:
        ValueError: If an argument is out of range, the model has no stage to pretrain, or `folder`
            holds stages that were made with other arguments.
        OSError: If `folder` cannot be written to.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks)
    """
    population = model if isinstance(model, Population) else Population.from_models([model], [seed])
    template, members = population.template, len(population)
    examples = Examples(x, y, members=members)
    validation = split_validation(validation_data, members)
    for data in filter(None, (examples, validation)):
        check_inputs(template, data)
    cut = _cut(template, stages, examples)
    objectives = _one_for_each(objective, len(cut))
    _check_targets(objectives, examples, validation, y)
    _check_patience(patience, validation)
    settings = _Settings(
        positive("epochs", epochs),
        positive("batch_size", batch_size),
        checked_optimizer(optimizer),
        learning_rate,
        patience,
        tuple(callbacks),
        verbose,
    )
    options = {
        "dtype": _input_dtype(template),
        "members": members,
        "max_memory": positive("max_memory", max_memory),
        "labeled": any(o.needs_targets for o in objectives),
    }
    data = [StageInputs(examples, multiple=batch_size, **options)]
    if validation is not None:
        data.append(StageInputs(validation, multiple=1, **options))
    preambles = [[step for step in steps if step] for steps in _between(cut)]
    _advance(population, data, preambles[0])
    binary = [data[0].lie_in_unit_interval(), *map(in_unit_interval, preambles[1:])]
    objectives = [o.decided(b) for o, b in zip(objectives, binary, strict=True)]
    kept = folder and StageFolder(
        folder,
        [
            _describe(population, cut, objectives),
            settings.describe(),
            [inputs.digest() for inputs in data],
        ],
    )
    # All before the first is trained: what cannot be trained is found while nothing has moved.
    trainings = [
        _StageTraining(population, *parts)
        for parts in zip(cut, objectives, range(len(cut)), strict=True)
    ]
    named = None if stages is None or isinstance(stages, int) else stages
    report = Report(seeds=population.seeds, layers=named)
    for number, training in enumerate(trainings):
        if number:
            _advance(population, data, preambles[number])
        report.stages.append(training.run(*data, settings=settings, kept=kept))
    return report


def _between(cut: list[Stage]) -> list[tuple]:
    """What makes each stage's inputs of those of the stage before."""
    return [(before, stage.preamble) for before, stage in zip([None, *cut], cut, strict=False)]


def _advance(population: Population, data: list[StageInputs], steps: list) -> None:
    for step in steps:
        for inputs in data:
            inputs.advance(population.part(step))


@dataclass(frozen=True)
class _Settings:
    """How every stage is trained."""

    epochs: int
    batch_size: int
    optimizer: Any
    learning_rate: Any
    patience: int | None
    callbacks: tuple
    verbose: Any

    def describe(self) -> list:
        """What the result depends on."""
        # Keras numbers the names.
        optimizer = {k: v for k, v in self.optimizer.get_config().items() if k != "name"}
        rates = None if self.learning_rate is None else np.asarray(self.learning_rate).tolist()
        kind = type(self.optimizer).__name__
        return [self.epochs, self.batch_size, rates, self.patience, kind, optimizer]


def _describe(population: Population, cut: list[Stage], objectives: list[Objective]) -> list:
    return [
        [[_describe_call(call) for call in stage.graph.calls] for stage in cut],
        [to_config(objective) for objective in objectives],
        population.seeds,
    ]


def _describe_call(call: Call) -> list:
    """The same in every process, which `graph.fingerprint` is not."""
    activation = getattr(call.operation, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    return [type(call.operation).__name__, name, call.input_shape, call.output_shape]


def _check_patience(patience: Any, validation: Examples | None) -> None:
    if patience is None:
        return
    positive("patience", patience)
    if validation is None:
        raise ValueError(
            "`patience` waits for a lower validation loss: expected `validation_data`. "
            f"Received: patience={patience}, validation_data=None"
        )


def _cut(model: Any, stages: Any, examples: Examples) -> list[Stage]:
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


def _check_targets(
    objectives: list[Objective], examples: Examples, validation: Examples | None, y: Any
) -> None:
    classes = [objective.classes for objective in objectives if objective.needs_targets]
    if not classes:
        if y is not None:
            raise ValueError(
                "None of the objectives uses targets: expected y=None. "
                f"Received: y of type {type(y).__name__}"
            )
        return
    for name, data in {"y": examples, "validation_data": validation}.items():
        for block in data.first() if data else ():
            labels = block.y
            if labels is None or labels.ndim > 1 or (labels % 1).any():
                received = "None" if labels is None else f"{labels.dtype} of shape {labels.shape}"
                raise ValueError(
                    f"SupervisedGreedy needs targets, integers of shape (n,), in `{name}`. "
                    f"Received: targets {received}"
                )
            if labels.min() < 0 or labels.max() >= min(classes):
                raise ValueError(
                    f"Expected labels from 0 to {min(classes) - 1} in `{name}`. "
                    f"Received: labels from {labels.min()} to {labels.max()}"
                )


def _input_dtype(model: Any) -> str:
    """What Keras casts a model's input to; images of integers, too, are trained on as floats."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].dtype if inputs else keras.config.floatx()


class _StageTraining:
    """The pretraining of one stage of a population.

    Args:
        population: The population; the stage's weights in it change.
        stage: The stage.
        objective: What it is trained on.
        number: Position of the stage, which names its random streams.
    """

    def __init__(
        self, population: Population, stage: Stage, objective: Objective, number: int
    ) -> None:
        if not stage.trainable_variables:
            raise ValueError(
                "Expected a stage with trainable weights: name the stages to train with `stages`. "
                f"Received: stage {stage.name!r}, which is frozen"
            )
        self.population = population
        self.stage = stage
        self.number = number
        self.objective = objective
        self.stream = f"stage {number}"
        seeds = [derive("decoder", self.stream, seed) for seed in population.seeds]
        self.learners = [objective.build(stage, seed, copy=i > 0) for i, seed in enumerate(seeds)]
        first = [id(variable) for variable in self.learners[0].own_variables]
        own = [values_of(learner.own_variables) for learner in self.learners]
        self.part = population.part(
            self.learners[0], [dict(zip(first, values, strict=True)) for values in own]
        )

    def run(
        self,
        inputs: StageInputs,
        held_out: StageInputs | None = None,
        *,
        settings: _Settings,
        kept: StageFolder | None = None,
    ) -> StageReport:
        """Trains the stage, or reads it, and puts its weights back into the population."""
        found = kept.read(self.number) if kept else None
        report = self._restore(*found) if found else self._report(inputs, held_out, settings)
        self.population.set_part(self.part)
        self._fill_companions()
        if kept and not found:
            stacked = [np.stack(values) for values in zip(*self.part.values(), strict=True)]
            kept.write(self.number, stacked, report.to_config())
        return report

    def _report(
        self, inputs: StageInputs, held_out: StageInputs | None, settings: _Settings
    ) -> StageReport:
        start = time.perf_counter()
        before = self._weights()
        n, moments = inputs.moments()
        history = self._train(inputs, held_out, settings)
        return StageReport(
            name=self.stage.name,
            loss=self.objective.loss_name,
            baseline=np.resize([*map(self.objective.baseline, moments)], len(self.population)),
            history=history,
            seconds=time.perf_counter() - start,
            flops=self._flops(n, history, settings),
            movement=_movement(before, self._weights()),
            **self._trained(),
        )

    def _trained(self) -> dict[str, Any]:
        """What a report holds of the stage that is not plain data."""
        return {
            "objective": self.objective,
            "decoders": [learner.decoder for learner in self.learners],
            "heads": [learner.head for learner in self.learners],
        }

    def _restore(self, values: list[np.ndarray], config: dict) -> StageReport:
        self.part = self.part.with_values([list(own) for own in zip(*values, strict=True)])
        return StageReport.from_config(config, **self._trained())

    def _train(
        self, inputs: StageInputs, held_out: StageInputs | None, settings: _Settings
    ) -> pd.DataFrame:
        trainer = Trainer(
            self.part,
            self.objective,
            settings.optimizer,
            settings.learning_rate,
            settings.batch_size,
            stream=self.stream,
        )
        history = []
        running = np.ones(len(self.part), bool)
        waited, best = np.zeros(len(self.part), int), BestEpoch(self.part)
        callbacks = self._callbacks(settings)
        callbacks.on_train_begin()
        epochs = range(1, settings.epochs + 1)
        for epoch in progress(epochs, "epochs", settings.verbose, desc=self.stage.name):
            callbacks.on_epoch_begin(epoch - 1)
            scores = trainer.epoch(inputs, epoch)
            validated = None if held_out is None else self._validate(held_out)
            rows = self.part.history(self.objective.names, epoch, scores, validated)
            history += [row for row, runs in zip(rows, running, strict=True) if runs]
            if settings.patience:
                waited = np.where(best.update(validated[:, 0], among=running), 0, waited + 1)
                running &= waited < settings.patience
            self._log(callbacks, epoch, rows)
            if not running.any() or self.learners[0].stop_training:
                break
        callbacks.on_train_end()
        if settings.patience:
            self.part = best.population
        return pd.DataFrame(history)

    def _callbacks(self, settings: _Settings) -> keras.callbacks.CallbackList:
        self.learners[0].stop_training = False
        return keras.callbacks.CallbackList(list(settings.callbacks), model=self.learners[0])

    def _log(self, callbacks: keras.callbacks.CallbackList, epoch: int, rows: list[dict]) -> None:
        if not callbacks.callbacks:
            return
        for variable in self.learners[0].variables:
            variable.assign(ops.copy(self.part.value(0, variable)))
        logs = pd.DataFrame(rows).drop(columns=["member", "seed", "epoch"]).mean().to_dict()
        callbacks.on_epoch_end(epoch - 1, logs)

    def _validate(self, held_out: StageInputs) -> np.ndarray:
        total, n = 0.0, 0
        for blocks in held_out:
            count = len(blocks[0].x)
            scores = self.part.scores(self.objective, blocks, stream=self.stream)
            total, n = total + count * scores, n + count
        return total / n

    def _fill_companions(self) -> None:
        """Gives what every member has trained beside its stage its weights, tied ones as copies."""
        first = self.learners[0].own_variables
        for i, learner in enumerate(self.learners):
            for shared, variable in zip(first, learner.own_variables, strict=True):
                variable.assign(ops.copy(self.part.value(i, shared)))

    def _weights(self) -> dict[str, np.ndarray]:
        """The stage's trainable weights, matrices first, each stacked over members."""
        matrices_first = sorted(self.stage.trainable_variables, key=lambda v: len(v.shape) < 2)
        return {variable.path: self._stacked(variable) for variable in matrices_first}

    def _stacked(self, variable: keras.Variable) -> np.ndarray:
        members = range(len(self.part))
        return np.stack([ops.convert_to_numpy(self.part.value(i, variable)) for i in members])

    def _flops(self, n: int, history: pd.DataFrame, settings: _Settings) -> np.ndarray:
        epochs = history.groupby("member")["epoch"].max().to_numpy()
        trained = n // settings.batch_size * settings.batch_size * epochs
        return 3 * self.learners[0].flops * trained + self.stage.flops * n


def _movement(before: dict, after: dict) -> dict[str, np.ndarray]:
    """`||w - w_0|| / ||w_0||` of each weight for each member; NaN where w_0 is 0."""

    def norm(w: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(w.reshape(len(w), -1), dtype="float64").sum(axis=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: norm(after[name] - w) / norm(w) for name, w in before.items()}
    return {name: np.where(np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()}
