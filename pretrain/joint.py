"""Joint training of all stages, as one deep autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras

from pretrain.backend import Tensor, subkey
from pretrain.checks import brief
from pretrain.examples import MAX_MEMORY
from pretrain.objectives import (
    Autoencoder,
    DenoisingAutoencoder,
    Objective,
    SupervisedGreedy,
    VariationalAutoencoder,
)
from pretrain.objectives.autoencoder import Reconstruction, Target
from pretrain.objectives.objective import Moments
from pretrain.objectives.variational import gaussian_divergence
from pretrain.population import Population
from pretrain.report import Report, check_report, warn_of
from pretrain.stack import Settings, Stack, stream_name
from pretrain.stage_training import StageTraining
from pretrain.stages import is_rectified
from pretrain.unrolling import decoding_activation, undoing


def joint_pretrain(
    model: keras.Model | Population,
    x: Any,
    objective: Objective | Sequence[Objective] | None = None,
    *,
    report: Report | None = None,
    epochs: int = 10,
    batch_size: int | None = None,
    optimizer: Any = "adam",
    learning_rate: float | Sequence[float] | None = None,
    seed: int = 0,
    stages: int | Sequence[Sequence[str]] | None = None,
    head: int = 1,
    targets: Any = None,
    missing: bool = False,
    sample_weight: Any = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    max_memory: int = MAX_MEMORY,
    verbose: Any = "auto",
) -> Report:
    """Pretrains all stages of a model together, in place, with or without greedy pretraining.

    The stages are the encoder of a deep autoencoder and their decoders are its decoder, as in
    `unroll`. The input of each stage is corrupted as the stage's objective says. The training
    minimizes the first objective's loss between the clean input and the reconstruction, plus the
    penalties of all stages. If the first objective's `reduction` is `"mean"`, the sum of the loss
    and the penalties is divided by the number of features.

    With one stage, the training is the same as in `greedy_pretrain`. With a variational last stage
    and a first objective of cross-entropy and the reduction `"sum"`, the training minimizes the
    negative evidence lower bound.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, joint_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> options = {"epochs": 5, "batch_size": 32, "verbose": 0}
    >>> report = greedy_pretrain(model, x, **options)
    >>> report = joint_pretrain(model, x, report=report, **options)  # goes on with its decoders
    >>> len(report.stages)
    2

    Args:
        model, x: As in `greedy_pretrain`.
        objective: An autoencoder for all stages, or an autoencoder for each stage. Only the last
            stage can have a variational autoencoder. `None` stands for the objectives of `report`,
            and without a report for `DenoisingAutoencoder(Masking(0.25))`.
        report: The report of an earlier pretraining of this model, greedy or joint. The training
            then starts with copies of the report's decoders. `None`: decoders are new, as in
            `greedy_pretrain`.
        epochs, batch_size, optimizer, learning_rate: As in `greedy_pretrain`.
        seed: Seed of order, corruption and decoders; a `Population` has seeds of its own.
        stages: As in `greedy_pretrain`; `None` beside a `report`, which knows its stages.
        head, validation_data, verbose: As in `greedy_pretrain`; beside a `report`, which knows its
            stages, `head` is not used.
        targets, missing: As in `greedy_pretrain`; all stages together learn from inputs x to the
            targets.
        sample_weight, validation_split: As in `greedy_pretrain`.
        patience: As in `greedy_pretrain`, for all stages together.
        callbacks: As in `greedy_pretrain`; the callbacks see a single training.
        max_memory: As in `greedy_pretrain`.

    Returns:
        A report with all decoders. Every stage has the loss, history and seconds of all stages
        together. The score `reconstruction` is the loss without penalties.

    Raises:
        ValueError: If an argument is out of range, an objective has no reconstruction, `report`
            does not fit the model, or a layer between two stages cannot be undone.

    Reference:
        [Zhou et al., 2014](https://arxiv.org/abs/1405.1380)
    """
    if report is not None:
        objective, stages = _continued(report, objective, stages)
        head = 0
    _check_autoencoders(objective)
    stack = Stack(
        model,
        x,
        None,
        objective,
        stages,
        head,
        validation_data,
        seed,
        sample_weight=sample_weight,
        validation_split=validation_split,
        targets=targets,
        missing=missing,
    )
    size = stack.examples.batch_size(batch_size, default=128)
    settings = Settings(epochs, size, optimizer, learning_rate, patience, callbacks, verbose)
    _check_order(stack.objectives)
    data = stack.first_inputs([settings], max_memory)
    learners = [stack.learners(number) for number in range(len(stack.stages))]
    if report is not None:
        _take_over(learners, report)
    joint = JointObjective(tuple(stack.objectives))
    deep = [DeepLearner(joint, list(parts)) for parts in zip(*learners, strict=True)]
    # A stack of one stage is trained as greedily, with the random numbers of the first stage.
    training = StageTraining(stack, joint, deep, stream_name(0))
    training.trace(settings.batch_size, data[0].dtype)
    trained = training.run(settings, *data, encodes=False)
    warn_of(trained)
    return Report(trained, stack.population.seeds, stack.layers, stack.left_out, joint=True)


@dataclass(frozen=True)
class JointObjective(Objective):
    """The objective of all stages together, made of the decided objective of each stage."""

    objectives: tuple[Objective, ...]

    @property
    def parts(self) -> tuple[Objective, ...]:
        return self.objectives

    @property
    def names(self) -> tuple[str, ...]:
        variational = isinstance(self.objectives[-1], VariationalAutoencoder)
        return ("loss", "reconstruction", *(["kl"] if variational else []))

    @property
    def loss_name(self) -> str:
        return self.objectives[0].loss_name

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        return {"x": x, "key": key}

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Any]) -> list[Tensor]:
        first, *others = self.objectives
        bottom, *above = outputs["stages"]
        own = first.scores(x, y, {**bottom, "reconstruction": outputs["reconstruction"]})
        penalty = sum(o.penalty(stage) for o, stage in zip(others, above, strict=True))
        target = Target.of(x, y, bottom)
        scores = [own[0] + first.reduced(penalty, target), own[min(1, len(own) - 1)]]
        if "kl" in self.names:
            top = outputs["stages"][-1]
            scores.append(gaussian_divergence(top["mean"], top["log_variance"]))
        return scores

    def baseline(self, moments: Moments) -> float:
        return self.objectives[0].baseline(moments)


class DeepLearner(keras.layers.Layer):
    """The learners of consecutive stages as one deep autoencoder."""

    def __init__(self, objective: JointObjective, parts: list[Reconstruction]) -> None:
        super().__init__(autocast=False)
        self.parts = parts
        self._objectives = objective.parts
        self._undoing = [undoing(part.stage, parts[0].stage) for part in parts[1:]]
        pairs = pairwise(part.stage for part in parts)
        self._rectified = [is_rectified(stage, below) for below, stage in pairs]
        self.built = True

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The variables of the models that are trained beside the stages."""
        return [variable for part in self.parts for variable in part.own_variables]

    def architecture_text(self) -> str:
        """A text that is equal for learners of the same architecture."""
        preambles = [part.stage.preamble for part in self.parts[1:]]
        described = [*self.parts, *filter(None, preambles)]
        return " ".join(["joint", *(part.architecture_text() for part in described)])

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Any]:
        """Encodes a batch through all stages and decodes the last code.

        Returns:
            `"stages"`, a list of what each learner's `encode` returns; `"reconstruction"`, the
            pre-activation of the reconstruction (batch, ...).
        """
        x, stages = inputs["x"], []
        for number, (objective, part) in enumerate(zip(self._objectives, self.parts, strict=True)):
            preamble = part.stage.preamble if number else None
            x = preamble(x) if preamble else x
            key = subkey(inputs["key"], number) if number else inputs["key"]
            stages.append(part.encode(objective.inputs(x, key), training))
            x = stages[-1]["code"]
        return {"stages": stages, "reconstruction": self._decode(x, stages, training)}

    def _decode(self, code: Tensor, stages: list[dict], training: bool | None) -> Tensor:
        first, *above = self.parts
        known = self._objectives[1:], self._rectified, self._undoing
        steps = zip(above, stages[1:], *known, strict=True)
        for part, outputs, objective, rectified, layers in reversed(list(steps)):
            code = part.decode(code, outputs, training)
            code = keras.activations.get(decoding_activation(objective, rectified))(code)
            for layer in layers:
                code = layer(code)
        return first.decode(code, stages[0], training)


def _continued(report: Any, objective: Any, stages: Any) -> tuple[Any, Any]:
    """The objectives and stages of a joint training that goes on after a report."""
    check_report(report)
    if stages is not None:
        raise ValueError(
            "Expected stages=None beside a report, which knows its stages. "
            f"Received: stages={brief(stages)}"
        )
    own = [stage.objective for stage in report.stages]
    return objective or own, report.layers or len(report.stages)


def _check_autoencoders(objective: Any) -> None:
    for item in objective if isinstance(objective, list | tuple) else [objective]:
        known = isinstance(item, Objective)
        if known and not isinstance(item, Autoencoder | VariationalAutoencoder):
            hint = (
                "Pretrain the stages greedily, or train the whole classifier"
                if isinstance(item, SupervisedGreedy)
                else "After greedy pretraining, pass objective=Autoencoder(tied=True)"
            )
            raise ValueError(
                "Joint training needs autoencoders, which reconstruct their input. "
                f"{hint}. Received: objective={item!r}"
            )


def _check_order(objectives: list[Objective]) -> None:
    for objective in objectives[:-1]:
        if isinstance(objective, VariationalAutoencoder):
            raise ValueError(
                "Only the last stage can be variational in joint training. Expected an objective "
                f"for each stage. Received: objective={objectives}"
            )
    for objective in objectives[1:]:
        if isinstance(objective, DenoisingAutoencoder) and objective.emphasizes:
            raise ValueError(
                "Emphasis weighs the features of the model's input in joint training, so only the "
                "first stage's objective can have emphasis. Expected an objective for each stage. "
                f"Received: objective={objectives}"
            )


def _take_over(learners: list[list[Reconstruction]], report: Report) -> None:
    """Gives the learners of each stage and member the weights of a report's models."""
    members = len(learners[0])
    if len(report.seeds) != members:
        raise ValueError(
            f"`report` must be of the population that is pretrained, with {members} members. "
            f"Received: a report of {len(report.seeds)} members"
        )
    for of_stage, stage in zip(learners, report.stages, strict=True):
        for learner, decoder, head in zip(of_stage, stage.decoders, stage.heads, strict=True):
            found = [v for m in (decoder, head) if m is not None for v in m.variables]
            shapes, expected = ([v.shape for v in vs] for vs in (found, learner.own_variables))
            if shapes != expected:
                raise ValueError(
                    "`report` must be of this model, and its decoders must fit `objective`, with "
                    f"variables of shapes {expected} in stage {stage.name!r}. "
                    f"Received: decoders with variables of shapes {shapes}"
                )
            for variable, value in zip(learner.own_variables, found, strict=True):
                variable.assign(value)
