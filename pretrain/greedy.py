"""Greedy layer-wise pretraining: one stage after another, codes computed once."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain import graph
from pretrain.checks import positive
from pretrain.objectives import Autoencoder, DenoisingAutoencoder
from pretrain.objectives.autoencoder import ReconstructionTask
from pretrain.population import Population, Trainer, on_device, progress
from pretrain.program import values_of
from pretrain.report import Report, StageReport
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages
from pretrain.streams import MAX_MEMORY, Block, Examples, rows_within, split_validation
from pretrain.supervised import check_inputs


def greedy_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: Autoencoder | Sequence[Autoencoder] | None = None,
    *,
    y: Any = None,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: Any = "adam",
    learning_rate: float | Sequence[float] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
    validation_data: Any = None,
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
            finite stream (`tf.data.Dataset`, `keras.utils.PyDataset`), whose targets are ignored.
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
        max_memory: Bytes that the inputs of a stage may take, all members together; beyond it they
            are computed anew in every epoch, block by block.
        verbose: `"auto"` shows a progress bar in a terminal, 0 never.

    Returns:
        A report, which also holds the decoders.

    Raises:
        ValueError: If an argument is out of range, or the model has no stage to pretrain.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks)
    """
    if y is not None:
        raise ValueError(
            "None of the objectives uses targets: expected y=None. "
            f"Received: y of type {type(y).__name__}"
        )
    population = model if isinstance(model, Population) else Population.from_models([model], [seed])
    members = len(population)
    examples = Examples(x, members=members)
    validation = split_validation(validation_data, members)
    for data in filter(None, (examples, validation)):
        check_inputs(population.template, data)
    cut = _cut(population.template, stages, examples)
    objectives = _one_for_each(objective, len(cut))
    settings = _Settings(
        positive("epochs", epochs),
        positive("batch_size", batch_size),
        optimizer,
        learning_rate,
        verbose,
    )
    dtype, max_memory = _input_dtype(population.template), positive("max_memory", max_memory)
    data = [_Inputs(examples, dtype, members, max_memory, batch_size)]
    if validation is not None:
        data.append(_Inputs(validation, dtype, members, max_memory, 1))
    # All before the first is trained: what cannot be trained is found while nothing has moved.
    trainings = [
        _StageTraining(population, *parts)
        for parts in zip(cut, objectives, range(len(cut)), strict=True)
    ]
    report = Report(seeds=population.seeds)
    for number, stage in enumerate(cut):
        steps = [step for step in (*cut[max(0, number - 1) : number], stage.preamble) if step]
        for step in steps:
            for inputs in data:
                inputs.advance(population.part(step))
        binary = in_unit_interval(steps) if number else data[0].lie_in_unit_interval()
        task = objectives[number].task(binary)
        report.stages.append(trainings[number].run(task, *data, settings=settings))
    return report


@dataclass(frozen=True)
class _Settings:
    """How every stage is trained."""

    epochs: int
    batch_size: int
    optimizer: Any
    learning_rate: Any
    verbose: Any


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


def _one_for_each(objective: Any, count: int) -> list[Autoencoder]:
    objectives = list(objective) if isinstance(objective, list | tuple) else [objective] * count
    objectives = [DenoisingAutoencoder() if item is None else item for item in objectives]
    if len(objectives) != count or not all(isinstance(item, Autoencoder) for item in objectives):
        raise ValueError(
            f"`objective` must be one of pretrain.objectives, or one for each of {count} stages. "
            f"Received: objective={objective!r}"
        )
    return objectives


def _input_dtype(model: Any) -> str:
    """What Keras casts a model's input to; images of integers, too, are trained on as floats."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].dtype if inputs else keras.config.floatx()


class _Inputs:
    """Inputs of the stage at hand for every member, kept if they fit in memory.

    Args:
        examples: Inputs of the model.
        dtype: Data type of the model's input.
        members: Number of members.
        max_memory: Bytes that the inputs of a stage may take.
        multiple: Blocks that are computed anew have a multiple of this many examples.
    """

    def __init__(
        self, examples: Examples, dtype: str, members: int, max_memory: int, multiple: int
    ) -> None:
        self._examples = examples
        self._dtype = dtype
        self._members = members
        self._max_memory = max_memory
        self._multiple = multiple
        self._encoders: list[Population] = []
        self._kept = self._keep(self._read(self._rows() if examples.is_stream else None))

    def __iter__(self) -> Iterator[list[Block]]:
        """Consecutive inputs, without targets: a block for all members, or one for each."""
        if self._kept is not None:
            yield self._kept
            return
        for arrays in self._read(self._rows()):
            for encoder in self._encoders:
                arrays = _encode(encoder, arrays)
            yield _on_device(arrays)

    def _read(self, rows: int | None) -> Iterator[list[np.ndarray]]:
        for blocks in self._examples.blocks(rows):
            yield [block.x.astype(self._dtype, copy=False) for block in blocks]

    def advance(self, encoder: Population) -> None:
        """Makes the inputs what `encoder` computes from what they were."""
        previous, self._kept = self._kept, None
        self._encoders.append(encoder)
        if previous is None:
            self._kept = self._keep(map(_arrays, self))
            return
        arrays, rows = _arrays(previous), self._rows()
        self._kept = self._keep(
            _encode(encoder, [x[start : start + rows] for x in arrays])
            for start in range(0, len(arrays[0]), rows)
        )

    def _keep(self, parts: Iterable[list[np.ndarray]]) -> list[Block] | None:
        """All parts as one block per array, or `None` if they take too much memory."""
        kept, size = [], 0
        for arrays in parts:
            kept.append(arrays)
            size += sum(x.nbytes for x in arrays)
            if size > self._max_memory and (self._encoders or self._examples.is_stream):
                return None
        if len(kept) == 1:
            return _on_device(kept[0])
        return _on_device([np.concatenate(pieces) for pieces in zip(*kept, strict=True)])

    def _rows(self) -> int:
        """Examples in a block that fits in memory at every stage so far."""
        x = self._examples.first()[0].x
        rows = [rows_within(self._max_memory, x, self._multiple)]
        for encoder in self._encoders:
            codes = np.empty((0, *encoder.template.features_out), keras.config.floatx())
            rows.append(rows_within(self._max_memory, codes, self._multiple, self._members))
        return min(rows)

    def moments(self) -> tuple[int, list[np.ndarray], list[np.ndarray]]:
        """Number of examples, and their mean and mean square for each array of inputs."""
        n, sums = 0, None
        for blocks in self:
            arrays = [x.astype("float64") for x in _arrays(blocks)]
            n += len(arrays[0])
            new = np.stack([[x.sum(axis=0), (x**2).sum(axis=0)] for x in arrays])
            sums = new if sums is None else sums + new
        return n, list(sums[:, 0] / n), list(sums[:, 1] / n)

    def lie_in_unit_interval(self) -> bool:
        return all(x.min() >= 0 and x.max() <= 1 for blocks in self for x in _arrays(blocks))


class _StageTraining:
    """The pretraining of one stage of a population.

    Args:
        population: The population; the stage's weights in it change.
        stage: The stage.
        objective: What it is trained on.
        number: Position of the stage, which names its random streams.
    """

    def __init__(
        self, population: Population, stage: Stage, objective: Autoencoder, number: int
    ) -> None:
        if not stage.trainable_variables:
            raise ValueError(
                "Expected a stage with trainable weights: name the stages to train with `stages`. "
                f"Received: stage {stage.name!r}, which is frozen"
            )
        self.population = population
        self.stage = stage
        self.stream = f"stage {number}"
        seeds = [derive("decoder", self.stream, seed) for seed in population.seeds]
        layers = [objective.build(stage, seed, copy=i > 0) for i, seed in enumerate(seeds)]
        self.decoders = [layer.decoder for layer in layers]
        first = self.decoders[0].variables
        self.part = population.part(
            layers[0],
            [dict(zip(map(id, first), values_of(d.variables), strict=True)) for d in self.decoders],
        )

    def run(
        self,
        task: ReconstructionTask,
        inputs: _Inputs,
        held_out: _Inputs | None = None,
        *,
        settings: _Settings,
    ) -> StageReport:
        """Trains the stage and puts its weights back into the population."""
        start = time.perf_counter()
        before = self._weights()
        n, means, squares = inputs.moments()
        baselines = [task.baseline(*moments) for moments in zip(means, squares, strict=True)]
        history = self._train(task, inputs, held_out, settings)
        self.population.set_part(self.part)
        self._fill_decoders()
        return StageReport(
            name=self.stage.name,
            loss=task.objective.loss,
            baseline=np.resize(baselines, len(self.population)),
            history=history,
            seconds=time.perf_counter() - start,
            flops=self._flops(n, settings),
            movement=_movement(before, self._weights()),
            decoders=self.decoders,
        )

    def _train(
        self,
        task: ReconstructionTask,
        inputs: _Inputs,
        held_out: _Inputs | None,
        settings: _Settings,
    ) -> pd.DataFrame:
        trainer = Trainer(
            self.part,
            task,
            settings.optimizer,
            settings.learning_rate,
            settings.batch_size,
            stream=self.stream,
        )
        rows = []
        epochs = range(1, settings.epochs + 1)
        for epoch in progress(epochs, "epochs", settings.verbose, desc=self.stage.name):
            losses = trainer.epoch(inputs, epoch)[:, 0]
            validated = None if held_out is None else self._validate(task, held_out)
            for i, seed in enumerate(self.population.seeds):
                row = {"member": i, "seed": seed, "epoch": epoch, "loss": losses[i]}
                rows.append(row if validated is None else row | {"val_loss": validated[i]})
        return pd.DataFrame(rows)

    def _validate(self, task: ReconstructionTask, held_out: _Inputs) -> np.ndarray:
        total, n = 0.0, 0
        for blocks in held_out:
            count = len(blocks[0].x)
            scores = self.part.scores(task, blocks, stream=self.stream)
            total, n = total + count * scores[:, 0], n + count
        return total / n

    def _fill_decoders(self) -> None:
        """Gives every member's decoder its weights; those of tied ones are copies."""
        for i, decoder in enumerate(self.decoders):
            for shared, variable in zip(self.decoders[0].variables, decoder.variables, strict=True):
                variable.assign(ops.copy(self.part.value(i, shared)))

    def _weights(self) -> dict[str, np.ndarray]:
        """The stage's trainable weights, matrices first, each stacked over members."""
        return {
            variable.path: np.stack(
                [ops.convert_to_numpy(self.part.value(i, variable)) for i in range(len(self.part))]
            )
            for variable in sorted(self.stage.trainable_variables, key=lambda v: len(v.shape) < 2)
        }

    def _flops(self, n: int, settings: _Settings) -> int:
        decoder = sum(call.flops for call in graph.flatten(self.decoders[0]).calls)
        trained = n // settings.batch_size * settings.batch_size * settings.epochs
        return 3 * (self.stage.flops + decoder) * trained + self.stage.flops * n


def _movement(before: dict, after: dict) -> dict[str, np.ndarray]:
    """`||w - w_0|| / ||w_0||` of each weight for each member; NaN where w_0 is 0."""

    def norm(w: np.ndarray) -> np.ndarray:
        return np.sqrt(np.square(w.reshape(len(w), -1), dtype="float64").sum(axis=1))

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {name: norm(after[name] - w) / norm(w) for name, w in before.items()}
    return {name: np.where(np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()}


def _encode(encoder: Population, arrays: list) -> list[np.ndarray]:
    """Outputs of an encoder for the inputs of all members; a fixed encoder serves them all."""
    if len(encoder) == 1:
        return [encoder.outputs([x])[0] for x in arrays]
    return encoder.outputs(arrays)


def _arrays(blocks: list[Block]) -> list[np.ndarray]:
    return [ops.convert_to_numpy(block.x) for block in blocks]


def _on_device(arrays: list[np.ndarray]) -> list[Block]:
    return on_device([Block(x) for x in arrays])
