"""The training of a stage, or of several at once: the loop, its endings, and the reports."""

import time
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.callbacks import Watched
from pretrain.codes import Codes, encode
from pretrain.kept import KeptStage
from pretrain.members import Members, values_of, variables_of
from pretrain.objectives import Objective
from pretrain.report import ADVICE, StageReport, listed
from pretrain.stack import Settings, Stack
from pretrain.stages import Stage, value_range
from pretrain.training import BestEpoch, Epoch, Trainer, progress
from pretrain.unrolling import stacked

# Examples whose codes are looked at.
_SAMPLE = 1000


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
        self.left_out = stack.left_out
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
        n, moments = inputs.moments(unpadded=self.stages[0].counted)
        self._trainer = self._prepare(settings, inputs, held_out, after)
        history = self._train(settings, place)
        if after:
            history = pd.concat([pd.DataFrame(after.report["history"]), history], ignore_index=True)
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
        codes = self._codes(inputs)
        return [
            StageReport(
                name=stage.name,
                flops=3 * part.flops * examples + encodes * stage.flops * n,
                movement=_movement(weights, self._weights(stage)),
                saturated=np.array([saturated_share(code, stage) for code in codes[i]]),
                dead=np.array([dead_share(code, stage) for code in codes[i]]),
                **whole,
                **self.models(i),
            )
            for i, (stage, weights, part) in enumerate(
                zip(self.stages, before, self.learners[0].parts, strict=True)
            )
        ]

    def _codes(self, inputs: Codes) -> list[list[np.ndarray]]:
        """Every stage's codes of the first inputs, an array for each member."""
        blocks, codes = inputs.sample(_SAMPLE), []
        for number, stage in enumerate(self.stages):
            for step in [stage.preamble, stage] if number and stage.preamble else [stage]:
                blocks = encode(self.population.members.of_layer(step), blocks)
            codes.append([block.x for block in blocks])
        return codes

    def trace(self, batch_size: int, dtype: str) -> None:
        """Refuses an objective whose computation fails for the shapes of the stage's inputs."""
        x = keras.KerasTensor((batch_size, *self.stages[0].features_in), dtype)
        y = keras.KerasTensor((batch_size,), "int32")
        step = _Step(self.task, self.learners[0])
        try:
            step.compute_output_spec(x, y, keras.KerasTensor((2,), "int32"))
        except Exception as error:
            if step.error is None:
                raise
            raise ValueError(
                f"The objective does not fit stage {self.name!r}, whose inputs have the shape "
                f"{self.stages[0].features_in}. Received: objective={self.task}, which fails with "
                f"{type(step.error).__name__}: {step.error}"
            ) from error

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
            drop_remainder=settings.drop_remainder,
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
        left_out = f" (without {listed(self.left_out)})" if self.left_out else ""
        title = f"stage {place[0]} of {place[1]}: {self.name}{left_out}"
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
        rate, kind = self._trainer.rates[0], type(settings.optimizer).__name__
        return (
            f"Stage {self.name!r} diverged in epoch {epoch.number}: its loss or a weight became "
            "infinite or NaN. The stage has the weights that it had before that epoch, and no "
            f"later stage is trained. Try a smaller {ADVICE} Received: learning_rate={rate}, "
            f"optimizer={kind}, loss {epoch.scores['loss'][0]}"
        )

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


class _Step(keras.Operation):
    """The forward half of a step of training, to be traced.

    Keras words an error anew, so `error` is the one that was raised.
    """

    def __init__(self, task: Objective, learner: keras.Layer) -> None:
        super().__init__()
        self._task = task
        self._learner = learner
        self.error: Exception | None = None

    def call(self, x: Any, y: Any, key: Any) -> list:
        try:
            outputs = self._learner(self._task.inputs(x, key), training=True)
            return self._task.scores(x, y, outputs)
        except Exception as error:
            self.error = error
            raise


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


def dead_share(code: np.ndarray, stage: Stage) -> float:
    """Share of units with the same value for all examples and places; NaN of a single value."""
    projection = stage.projection.operation
    if getattr(projection, "data_format", None) == "channels_first" and code.ndim > 2:
        code = np.moveaxis(code, 1, -1)
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
