"""What greedy and joint pretraining share: arguments made ready, the loop, the reports."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.callbacks import Watched
from pretrain.checks import checked_optimizer, positive
from pretrain.codes import Codes, encode
from pretrain.examples import Examples, split_validation
from pretrain.kept import KeptStage, describe_graph, digest_of_arrays
from pretrain.members import Members, values_of, variables_of
from pretrain.objectives import DenoisingAutoencoder, Objective
from pretrain.objectives.objective import Learner
from pretrain.population import Population
from pretrain.report import StageReport, warn_of
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages, value_range
from pretrain.task import check_inputs
from pretrain.training import BestEpoch, Epoch, Trainer, progress
from pretrain.unrolling import stacked

# Examples whose codes are looked at.
_SAMPLE = 1000
_ADVICE = (
    "Try a smaller or larger learning_rate, more epochs, or inputs on another scale: columns of a "
    "table of mean 0 and variance 1, pixels from 0 to 1."
)


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
        self.single = single
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
    equal but for their weights and tied copies. `stream` is the name of the random streams. The
    training of a `single` model ends where it diverges.
    """

    def __init__(
        self, stack: Stack, task: Objective, learners: list[keras.layers.Layer], stream: str
    ) -> None:
        self.population = stack.population
        self.single = stack.single
        self.task = task
        self.learners = learners
        self.stream = stream
        self.stages = [part.stage for part in learners[0].parts]
        self.name = " + ".join(stage.name for stage in self.stages)
        first = [id(variable) for variable in learners[0].own_variables]
        own = [values_of(learner.own_variables) for learner in learners]
        values = [dict(zip(first, each, strict=True)) for each in own]
        self.trained = self.population.members.of_layer(learners[0], values)

    def run(
        self,
        settings: Settings,
        inputs: Codes,
        held_out: Codes | None = None,
        *,
        encodes: bool,
        place: tuple[int, int] = (1, 1),
        after: KeptStage | None = None,
    ) -> list[StageReport]:
        """Trains on inputs, validates on held-out ones, and gives the population the weights.

        With `encodes`, the FLOPs of computing codes, once, are counted. The training is at `place`
        (number, count) among the trainings. It goes on `after` an earlier one. A report for each
        stage is returned; only its weights and FLOPs are of the stage alone.
        """
        start = time.perf_counter() - (after.report["seconds"] if after else 0)
        before = [self._weights(stage) for stage in self.stages]
        n, moments = inputs.moments()
        self._trainer = self._prepare(settings, inputs, held_out, after)
        history = self._train(settings, place)
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
        codes = self._codes(inputs)
        reports = [
            StageReport(
                name=stage.name,
                flops=3 * part.flops * examples + encodes * stage.flops * n,
                movement=_movement(weights, self._weights(stage)),
                saturated=np.array([saturated_share(code, stage) for code in codes[i]]),
                dead=np.array([dead_share(code) for code in codes[i]]),
                **whole,
                **self.models(i),
            )
            for i, (stage, weights, part) in enumerate(
                zip(self.stages, before, self.learners[0].parts, strict=True)
            )
        ]
        warn_of(reports, _ADVICE)
        return reports

    def _codes(self, inputs: Codes) -> list[list[np.ndarray]]:
        """Every stage's codes of the first inputs, an array for each member."""
        blocks, codes = inputs.sample(_SAMPLE), []
        for number, stage in enumerate(self.stages):
            for step in [stage.preamble, stage] if number and stage.preamble else [stage]:
                blocks = encode(self.population.members.of_layer(step), blocks)
            codes.append([block.x for block in blocks])
        return codes

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
            trainer.updates = max(after.report["history"]["updates"])
        return trainer

    def _train(self, settings: Settings, place: tuple[int, int]) -> pd.DataFrame:
        trainer, trained = self._trainer, self.trained
        watched = Watched(
            trainer,
            trained,
            settings.callbacks,
            self._model,
            settings.optimizer,
            settings.epochs,
            {"stage": place[0]},
        )
        title = f"stage {place[0]} of {place[1]}: {self.name}"
        history, finite, broken = [], list(trained.values), None
        patience = Patience(trained, settings.patience)
        for epoch in progress(watched, trainer.epoch, settings.epochs, settings.verbose, title):
            rows = zip(epoch.rows(trained.seeds), patience.running, strict=True)
            history += [row for row, runs in rows if runs]
            if self.single and not _is_finite(epoch, trained):
                broken, trained.values = epoch, finite
                break
            finite = list(trained.values)
            patience.update(epoch)
            if not patience.running.any():
                break
        watched.end()
        self.trained = patience.members
        if broken and not watched.stopped:
            self._finish()
            raise FloatingPointError(self._divergence(broken, settings))
        return pd.DataFrame(history)

    def _model(self) -> keras.Model:
        """What callbacks see."""
        trained = [SimpleNamespace(**self.models(i)) for i in range(len(self.stages))]
        return stacked(self.stages, trained, "_".join(stage.name for stage in self.stages))

    def _divergence(self, epoch: Epoch, settings: Settings) -> str:
        rate = self._trainer.rates[0]
        return (
            f"Stage {self.name!r} diverged: its loss or its weights became infinite or NaN in "
            f"epoch {epoch.number}. The stage has the weights that it had before that epoch, and "
            f"the stages after it are not trained. {_ADVICE} Received: learning_rate={rate}, "
            f"optimizer={type(settings.optimizer).__name__}, loss {epoch.scores['loss'][0]} in "
            f"epoch {epoch.number}"
        )

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


class Patience:
    """Ends members whose validation loss has not fallen for so many epochs.

    Without patience no member ends, and members are as they were trained last.
    """

    def __init__(self, trained: Members, patience: int | None) -> None:
        self._trained = trained
        self._patience = patience
        self._best = BestEpoch(trained)
        self._waited = np.zeros(len(trained), int)
        self.running = np.ones(len(trained), bool)

    def update(self, epoch: Epoch) -> None:
        if self._patience is None:
            return
        better = self._best.update(epoch.scores["val_loss"], among=self.running)
        self._waited = np.where(better, 0, self._waited + 1)
        self.running = self.running & (self._waited < self._patience)

    @property
    def members(self) -> Members:
        return self._trained if self._patience is None else self._best.members


def _is_finite(epoch: Epoch, members: Members) -> bool:
    """Whether loss and weights of the only member are finite."""
    arrays = [ops.convert_to_numpy(value) for value in members.values[0]]
    weights = [array for array in arrays if array.dtype.kind == "f"]
    return bool(
        np.isfinite(epoch.scores["loss"]).all() and all(np.isfinite(w).all() for w in weights)
    )


def saturated_share(code: np.ndarray, stage: Stage) -> float:
    """Share of values within 1 % of an end of the range of a stage's activation, or NaN."""
    ends = value_range([stage])
    if ends is None:
        return np.nan
    low, high = ends
    margin = (high - low) / 100
    return float(((code < low + margin) | (code > high - margin)).mean())


def dead_share(code: np.ndarray) -> float:
    """Share of units that have the same value for all examples; NaN of a single example."""
    units = code.reshape(-1, code.shape[-1]).astype("float64")
    if len(units) < 2:
        return np.nan
    return float((np.ptp(units, axis=0) <= 1e-6 * np.abs(units).max(axis=0)).mean())


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
