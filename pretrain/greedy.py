"""Greedy layer-wise pretraining: one stage after another, codes computed once."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from pretrain.callbacks import appending
from pretrain.examples import MAX_MEMORY, Examples, as_labels
from pretrain.kept import StageFolder
from pretrain.objectives import Objective
from pretrain.population import Population
from pretrain.report import Report, StageReport, warn_of
from pretrain.stack import Stack, settings_of_stages, stream_name
from pretrain.stage_training import StageTraining


def greedy_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: str | Objective | Sequence[str | Objective] | None = None,
    *,
    y: Any = None,
    targets: Any = None,
    missing: bool = False,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    epochs: int | Sequence[int] = 10,
    batch_size: int | Sequence[int] | None = None,
    optimizer: Any = "adam",
    learning_rate: float | Sequence[float] | Sequence[Sequence[float]] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
    head: int = 1,
    validation_data: Any = None,
    validation_split: float = 0.0,
    drop_remainder: bool = False,
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

    Example:

    >>> import numpy as np
    >>> from pretrain import DenoisingAutoencoder, Masking, greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> objective = DenoisingAutoencoder(Masking(0.25))
    >>> report = greedy_pretrain(model, x, objective, epochs=5, batch_size=32, verbose=0)
    >>> report.to_frame()["stage"].tolist()
    ['hidden_1', 'hidden_2']

    Args:
        model: A built Keras model, or a `Population`. By default its last stage is taken for a
            classifier, see `head`.
        x: Inputs (n, ...): an array, a DataFrame, a SciPy sparse matrix or nested lists; or a list
            with such an array for each member of a population; or a finite dataset
            (`tf.data.Dataset`, `keras.utils.PyDataset`), whose targets are ignored by objectives
            that use none.
        objective: An objective for all stages, or one for each; also by name: `"autoencoder"`,
            `"denoising"`, `"sparse"`, `"contractive"`, `"rbm"`. `None` is
            `DenoisingAutoencoder(Masking(0.25))`.
        y: Labels, for `SupervisedGreedy`: integers (n,) or (n, 1), or one-hot (n, classes).
        targets: What autoencoders reconstruct instead of x, of the shape of x: clean images, say,
            of which x are noisy photographs. The first stage learns from inputs x to these targets,
            and a later stage from the codes of x to the codes of the targets (Xie et al., 2012).
            `"y"` stands for the second part of a dataset that yields `(x, y)`. Beside targets, the
            data to validate on are pairs, too, and `objective=None` is `Autoencoder()`.
        missing: Whether NaN in x stands for a missing value. Missing values are fed as 0 to the
            first stage, behind preprocessing such as `keras.layers.Normalization`, and are left
            out of the first stage's loss and baseline. Fill them likewise before `fit` and
            `predict`, which know of no missing values.
        sample_weight: Weights of the examples' losses (n,).
        class_weight: Weights of the losses by class, 1 for a class that is not named; needs `y`.
        epochs: Epochs of every stage, or a list with a number for each stage.
        batch_size: Examples per update, or a list with a number for each stage; the last batch of
            an epoch may have fewer. `None` is 128, or the size of a dataset's first batch.
        optimizer: Keras optimizer, by name or instance, of which every stage starts with a fresh
            copy; or a list with one for each stage.
        learning_rate: One rate, or a list with one for each stage. For a population, a list has a
            rate for each member, and a list of lists has such a list for each stage. `None` is the
            optimizer's.
        seed: Seed of order, corruption and decoders; a `Population` has its own.
        stages: Names of the layers of each stage, as for `split_stages`; or an integer, to
            pretrain only that many of the first stages; `None` is all but the classifier.
        head: Number of stages at the end of the model that are a classifier and are left out; 0
            for a model without a classifier, such as an encoder that ends in its code. The report
            says what was left out. Not used if `stages` has names.
        validation_data: Inputs, `(x,)` or `(x, y)`, or a dataset: their loss is reported. Beside
            `targets`, `(x, targets)`.
        validation_split: Share of arrays to validate on instead, the last examples; 0 for none.
        drop_remainder: Whether examples that fill no batch are left out of an epoch.
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
            are computed anew in every epoch, block by block, and shuffled within blocks. At most
            twice as many bytes are held at once, beside the arrays that are given.
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
        [Bengio et al., 2007](https://papers.nips.cc/paper/3048-greedy-layer-wise-training-of-deep-networks);
        with targets, [Xie et al., 2012](https://papers.nips.cc/paper/4686-image-denoising-and-inpainting-with-deep-neural-networks)
    """
    stack = Stack(
        model,
        x,
        y,
        objective,
        stages,
        head,
        validation_data,
        seed,
        sample_weight=sample_weight,
        class_weight=class_weight,
        validation_split=validation_split,
        targets=targets,
        missing=missing,
    )
    _check_targets(stack.objectives, stack.examples, stack.validation, y, class_weight)
    settings = settings_of_stages(
        stack,
        epochs,
        batch_size,
        optimizer,
        learning_rate,
        patience=patience,
        callbacks=callbacks,
        verbose=verbose,
        drop_remainder=drop_remainder,
    )
    described = [stack.describe_stage(*each) for each in enumerate(settings)]
    data = stack.first_inputs(settings, max_memory)
    kept = folder and StageFolder(
        folder,
        stack.describe(data, max_memory),
        described,
        [of_stage.epochs for of_stage in settings],
    )
    # All before the first is trained: what cannot be trained is found while nothing has moved.
    trainings = [
        StageTraining(stack, objective, stack.learners(number), stream_name(number))
        for number, objective in enumerate(stack.objectives)
    ]
    for training, of_stage in zip(trainings, settings, strict=True):
        training.trace(of_stage.batch_size, data[0].dtype)
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
            place, own = (number + 1, len(trainings)), settings[number]
            report.stages += training.run(own, *data, encodes=True, place=place, after=found)
            warn_of(report.stages[-1:])
            later.enter_context(appending(own.callbacks))
            if kept:
                config = report.stages[-1].to_config()
                kept.write(number, training.values(), training.states(), config)
    return report


def _check_targets(
    objectives: list[Objective],
    examples: Examples,
    validation: Examples | None,
    y: Any,
    class_weight: Any,
) -> None:
    classes = [objective.classes for objective in objectives if objective.needs_targets]
    if classes:
        for name, data in {"y": examples, "validation_data": validation}.items():
            for labels in (
                of_one for found in (data.targets() if data else ()) for of_one in found
            ):
                _check_labels(name, labels, min(classes))
    elif y is not None and class_weight is None:
        raise ValueError(
            "None of the objectives uses labels, of which only SupervisedGreedy does: leave `y` "
            "out, or pass y=None. Of pairs of noisy and clean inputs, the clean ones go to "
            f"`targets`. Received: y of type {type(y).__name__}"
        )


def _check_labels(name: str, y: Any, classes: int) -> None:
    labels = None if y is None else as_labels(y)
    one_hot = y is not None and y.ndim == 2 and y.shape[1] > 1
    proper = not one_hot or y.shape[1] == classes and set(np.unique(y)) <= {0, 1}
    if labels is None or labels.ndim > 1 or (labels % 1).any() or not proper:
        received = "None" if y is None else f"{y.dtype} of shape {y.shape}"
        raise ValueError(
            f"SupervisedGreedy needs targets in `{name}`: integers of shape (n,) or (n, 1), or "
            f"one-hot rows of shape (n, {classes}); numpy.argmax(y, axis=-1) makes integers of "
            f"scores. Received: targets {received}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Expected labels from 0 to {classes - 1} in `{name}`. "
            f"Received: labels from {labels.min()} to {labels.max()}"
        )
