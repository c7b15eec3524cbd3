"""Greedy layer-wise pretraining: one stage after another, codes computed once."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pretrain.codes import Codes
from pretrain.examples import MAX_MEMORY, Examples, as_labels
from pretrain.files import replacing
from pretrain.graph import Call
from pretrain.objectives import Objective, to_config
from pretrain.population import Population
from pretrain.report import Report, StageReport
from pretrain.stack import Settings, Stack, StageTraining, settings_of_stages, stream_name


def greedy_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: str | Objective | Sequence[str | Objective] | None = None,
    *,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    epochs: int | Sequence[int] = 10,
    batch_size: int | Sequence[int] | None = None,
    optimizer: Any = "adam",
    learning_rate: float | Sequence[float] | Sequence[Sequence[float]] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
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
    computed once. Nothing outside the stage moves. A finished stage is kept if a later one is
    interrupted.

    Args:
        model: A built Keras model with a classifier as its last stage, or a `Population`.
        x: Inputs (n, ...): an array, a DataFrame, a SciPy sparse matrix or nested lists; or a list
            with such an array for each member of a population; or a finite dataset
            (`tf.data.Dataset`, `keras.utils.PyDataset`), whose targets are ignored by objectives
            that use none.
        objective: An objective for all stages, or one for each; also by name: `"autoencoder"`,
            `"denoising"`, `"sparse"`, `"contractive"`, `"rbm"`. `None` is
            `DenoisingAutoencoder(Masking(0.25))`.
        y: Labels, for `SupervisedGreedy`: integers (n,) or (n, 1), or one-hot (n, classes).
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
        validation_data: Inputs, `(x,)` or `(x, y)`, or a dataset: their loss is reported.
        validation_split: Share of arrays to validate on instead, the last examples; 0 for none.
        drop_remainder: Whether examples that fill no batch are left out of an epoch.
        patience: Epochs without a lower validation loss after which a stage ends, for each member
            by itself, at least 1. The stage then has the weights of its best epoch. `None`: it has
            all epochs, and the weights of the last.
        callbacks: Keras callbacks, which see every stage as a training of its own: its logs are
            means over members, and `callback.model` is the stage with its decoder, with the weights
            of the first member. Setting `callback.model.stop_training` ends the stage.
        folder: Where every stage is kept as it ends. Called again with the same arguments, after an
            interruption or in another process, those stages are read instead of trained.
        max_memory: Bytes that the inputs of a stage may take, all members together; beyond it they
            are computed anew in every epoch, block by block, and shuffled within blocks. At most
            twice as many bytes are held at once, beside the arrays that are given.
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
    stack = Stack(
        model,
        x,
        y,
        objective,
        stages,
        validation_data,
        seed,
        sample_weight=sample_weight,
        class_weight=class_weight,
        validation_split=validation_split,
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
    data = stack.first_inputs(settings, max_memory)
    kept = folder and _StageFolder(
        folder,
        [
            _describe(stack),
            [of_stage.describe() for of_stage in settings],
            [inputs.digest() for inputs in data],
        ],
    )
    # All before the first is trained: what cannot be trained is found while nothing has moved.
    trainings = [
        StageTraining(stack.population, objective, stack.learners(number), stream_name(number))
        for number, objective in enumerate(stack.objectives)
    ]
    report = Report(seeds=stack.population.seeds, layers=stack.layers)
    for number, (training, steps) in enumerate(zip(trainings, stack.between(), strict=True)):
        if number:
            stack.advance(data, steps)
        report.stages.append(_trained(training, number, settings[number], data, kept or None))
    return report


class _StageFolder:
    """A folder with a file for every stage that has been pretrained.

    The `description` is plain data about the arguments, which differs if the arguments differ.
    """

    def __init__(self, folder: str | os.PathLike, description: Any) -> None:
        self._folder = Path(folder)
        canonical = json.dumps(description, sort_keys=True, default=repr)
        self._key = hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, number: int) -> tuple[list[np.ndarray], dict] | None:
        """What `write` was given for a stage; `None` if its file is missing or damaged."""
        path = self._path(number)
        try:
            with path.open("rb") as file, np.load(file) as content:
                about = json.loads(str(content["about"]))
                arrays = [content[f"{i}"] for i in range(len(content.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if about["key"] != self._key:
            raise ValueError(
                "`folder` holds stages that were made with another model, other data or other "
                "arguments: choose another folder, or empty this one. "
                f"Received: folder={str(self._folder)!r}"
            )
        return arrays, about["report"]

    def write(self, number: int, arrays: list[np.ndarray], report: dict) -> None:
        """Writes the weights of a stage, and its report as plain data."""
        about = np.array(json.dumps({"key": self._key, "report": report}))
        with replacing(self._path(number)) as file:
            np.savez(file, about=about, **{f"{i}": array for i, array in enumerate(arrays)})

    def _path(self, number: int) -> Path:
        return self._folder / f"stage_{number}.npz"


def _trained(
    training: StageTraining,
    number: int,
    settings: Settings,
    data: list[Codes],
    kept: _StageFolder | None,
) -> StageReport:
    """The report of a stage that is trained, or was and is read."""
    found = kept.read(number) if kept else None
    if found:
        values, config = found
        training.restore(values)
        return StageReport.from_config(config, **training.models(0))
    (report,) = training.run(settings, *data, encodes=True)
    if kept:
        kept.write(number, training.values(), report.to_config())
    return report


def _describe(stack: Stack) -> list:
    return [
        [[_describe_call(call) for call in stage.graph.calls] for stage in stack.stages],
        [to_config(objective) for objective in stack.objectives],
        stack.population.seeds,
    ]


def _describe_call(call: Call) -> list:
    """The same in every process, which `graph.architecture_text` is not."""
    activation = getattr(call.operation, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    return [type(call.operation).__name__, name, call.input_shape, call.output_shape]


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
            "None of the objectives uses targets, of which only SupervisedGreedy does: leave `y` "
            f"out, or pass y=None. Received: y of type {type(y).__name__}"
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
