"""Greedy layer-wise pretraining: one stage after another, codes computed once."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import keras

from pretrain.callbacks import appending
from pretrain.examples import MAX_MEMORY, Examples
from pretrain.kept import StageFolder
from pretrain.objectives import Objective
from pretrain.population import Population
from pretrain.report import Report, StageReport, warn_of
from pretrain.stack import Settings, Stack, stream_name
from pretrain.stage_training import StageTraining


def greedy_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: Objective | Sequence[Objective] | None = None,
    *,
    y: Any = None,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | Sequence[float] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
    head: int = 1,
    validation_data: Any = None,
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    folder: str | os.PathLike | None = None,
    max_memory: int = MAX_MEMORY,
    verbose: str | int = "auto",
) -> Report:
    """Pretrains a model's stages one after another, in place.

    Each stage is trained on the clean, inference-mode output of the stages before it, which is
    computed once. Nothing outside the stage moves, with one exception: a batch normalization of the
    model's input that has never seen data gets the mean and variance of its inputs. A finished
    stage is kept if a later one is interrupted.

    A stage that ends above its baseline, saturated or with dead units is marked in the report, and
    a `PretrainingWarning` says so. If the loss of a stage is not finite, the stage gets its last
    finite weights back and the pretraining ends with an error (with a `PretrainingWarning` if a
    callback such as `TerminateOnNaN` has stopped the stage). A member of a population that
    diverges is marked in the report, is warned of and leaves the other members alone.

    Args:
        model: A built Keras model, or a `Population`. By default its last stage is taken for a
            classifier, see `head`.
        x: Inputs (n, ...); or a list with such an array for each member of a population; or a
            finite dataset (`tf.data.Dataset`, `keras.utils.PyDataset`), whose targets are ignored
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
        head: Number of stages at the end of the model that are a classifier and are left out; 0
            for a model without a classifier, such as an encoder that ends in its code. The report
            says what was left out. Not used if `stages` has names.
        validation_data: Inputs, `(x,)` or `(x, y)`, or a dataset: their loss is reported.
        patience: Epochs without a lower validation loss after which a stage ends, for each member
            by itself, at least 1. The stage then has the weights of its best epoch. `None`: it has
            all epochs, and the weights of the last.
        callbacks: Keras callbacks, which see every stage as a training of its own, and an epoch as
            one execution of all its batches (as with Keras's `steps_per_execution`). The logs are
            means over members, and hold the number of the `stage`, from 1, too: a file may be named
            `"{stage:.0f}.keras"`. `callback.model` is the stage with its decoder, a
            `DeepAutoencoder` with the weights and optimizer of the first member. What a callback
            sets is taken back: `stop_training` ends the stage, weights are the first member's, and
            a learning rate changes the rates of all members in proportion.
        folder: Where every stage is kept as it ends. Called again with the same arguments and a
            model of the same initial weights, after an interruption or in another process, those
            stages are read instead of trained. With more `epochs`, the first stage goes on where
            the folder's first stage ended, and the stages above it, whose inputs that changes, are
            trained anew: the result is that of all epochs at once. (With `patience`, all stages
            are.) The batches of a dataset may come in another order.
        max_memory: Bytes that the inputs of a stage may take, all members together; beyond it they
            are computed anew in every epoch, block by block.
        verbose: As in Keras's `fit`: `"auto"` is a progress bar in a terminal or notebook, 1 a bar
            anywhere, 2 a line for each epoch, 0 nothing.

    Returns:
        A report, which also holds the decoders.

    Raises:
        ValueError: If an argument is out of range, the model has no stage to pretrain, or `folder`
            holds stages of another model, of other data or arguments, or of more epochs.
        FloatingPointError: If a stage of a single model diverges.
        OSError: If `folder` cannot be written to.

    Reference:
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks)
    """
    stack = Stack(model, x, y, objective, stages, head, validation_data, seed)
    _check_targets(stack.objectives, stack.examples, stack.validation, y)
    settings = Settings(epochs, batch_size, optimizer, learning_rate, patience, callbacks, verbose)
    described = [stack.describe_stage(number) for number in range(len(stack.stages))]
    data = stack.first_inputs(settings, max_memory)
    kept = folder and StageFolder(
        folder,
        stack.describe(data, settings, max_memory),
        described,
        [settings.epochs] * len(described),
    )
    # All before the first is trained: what cannot be trained is found while nothing has moved.
    trainings = [
        StageTraining(stack, objective, stack.learners(number), stream_name(number))
        for number, objective in enumerate(stack.objectives)
    ]
    for training in trainings:
        training.trace(settings.batch_size, data[0].dtype)
    report = Report([], stack.population.seeds, stack.layers, stack.left_out)
    with contextlib.ExitStack() as later:
        for number, (training, steps) in enumerate(zip(trainings, stack.between(), strict=True)):
            if number:
                stack.advance(data, steps)
            found = kept.read(number, continues=patience is None) if kept else None
            if found and found.finished:
                training.restore(found.values)
                report.stages.append(StageReport.from_config(found.report, **training.models(0)))
                continue
            place = (number + 1, len(trainings))
            report.stages += training.run(settings, *data, encodes=True, place=place, after=found)
            warn_of(report.stages[-1:])
            later.enter_context(appending(settings.callbacks))
            if kept:
                config = report.stages[-1].to_config()
                kept.write(number, training.values(), training.states(), config)
    return report


def _check_targets(
    objectives: list[Objective], examples: Examples, validation: Examples | None, y: Any
) -> None:
    classes = [objective.classes for objective in objectives if objective.needs_targets]
    if not classes:
        if y is not None:
            raise ValueError(
                "None of the objectives uses targets, which are for SupervisedGreedy: expected "
                "y=None. Instead of pairs of noisy and clean inputs, DenoisingAutoencoder takes "
                "clean inputs and a corruption that makes the noise. "
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
