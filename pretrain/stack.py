"""What greedy and joint pretraining share: their arguments, made ready."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain import graph
from pretrain.callbacks import check_callbacks
from pretrain.checks import brief, checked_optimizer, positive
from pretrain.codes import Codes
from pretrain.describing import digest_of_arrays
from pretrain.examples import Examples, split_validation
from pretrain.internals import layers_of
from pretrain.objectives import Autoencoder, DenoisingAutoencoder, Objective, of_name
from pretrain.objectives.objective import Learner
from pretrain.population import Population
from pretrain.preprocessing import fit_preprocessing
from pretrain.seeds import derive
from pretrain.stages import Stage, in_unit_interval, split_stages, value_range


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
        """What the result depends on, but for the number of epochs."""
        # Keras numbers the names.
        optimizer = {k: v for k, v in self.optimizer.get_config().items() if k != "name"}
        rates = None if self.learning_rate is None else np.asarray(self.learning_rate).tolist()
        kind = type(self.optimizer).__name__
        counts = [self.batch_size, self.drop_remainder]
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
        head: int,
        validation: Any,
        seed: int,
        *,
        sample_weight: Any = None,
        class_weight: Any = None,
        validation_split: float = 0.0,
        targets: Any = None,
        missing: bool = False,
    ) -> None:
        single = not isinstance(model, Population)
        self.population = Population.from_models([model], [seed]) if single else model
        self.single = single
        self.members = len(self.population)
        self._paired, self._missing = targets is not None, missing
        options = {
            "model": self.population.template,
            "members": None if single else self.members,
            "missing": missing,
            "paired": self._paired,
        }
        if self._paired:
            y = _pairs(targets, y, class_weight)
        self.examples, self.validation = split_validation(
            Examples(x, y, sample_weight, class_weight=class_weight, **options),
            validation,
            validation_split,
            **options,
        )
        self.stages = _cut(self.population.template, stages, head, self.examples.shape[1:])
        self.left_out = _left_out(self.population.template, self.stages)
        default = Autoencoder() if self._paired else DenoisingAutoencoder()
        self.objectives = _one_for_each(objective, default, len(self.stages))
        if self._paired or missing:
            _check_have_targets(self.objectives, "targets" if self._paired else "missing")
        self.layers = None if stages is None or isinstance(stages, int) else stages

    def first_inputs(self, settings: Sequence[Settings], max_memory: int) -> list[Codes]:
        """Inputs of the first stage, of validation too if there is any; decides the objectives."""
        if settings[0].patience and self.validation is None:
            raise ValueError(
                "`patience` waits for a lower validation loss: expected `validation_data`. "
                f"Received: patience={settings[0].patience}, validation_data=None"
            )
        for of_stage in settings:
            of_stage.callbacks = check_callbacks(of_stage.callbacks, self.members)
        dtype = _input_dtype(self.population.template)
        if self._missing and "int" in dtype:
            raise ValueError(
                "`missing` needs a model that reads floating-point numbers, among which is NaN: "
                f"expected keras.Input(shape), without a dtype. Received: a model of {dtype}"
            )
        options = {
            "dtype": dtype,
            "members": self.members,
            "max_memory": positive("max_memory", max_memory),
            "labeled": any(o.needs_targets for o in self.objectives),
            "paired": self._paired,
            "missing": self._missing,
        }
        data = [
            Codes(self.examples, multiple=math.lcm(*(s.batch_size for s in settings)), **options)
        ]
        if self.validation is not None:
            data.append(Codes(self.validation, multiple=1, **options))
        between = self.between()
        if self.stages[0].preamble:
            fit_preprocessing(self.population, self.stages[0].preamble, data[0])
        self.advance(data, between[0])
        if self._missing:
            # Only now, so that what preprocessing makes of a missing value is 0, too.
            for inputs in data:
                inputs.fill()
        ranges = [inputs.bounds() for inputs in data]
        raw = min(low for low, _ in ranges), max(high for _, high in ranges)
        self._decide(raw)
        return data

    def _decide(self, raw: tuple[float, float]) -> None:
        """Decides the objectives, by the range of the first stage's inputs and by activations."""
        for number, segments in enumerate(self.between()):
            # Codes are judged by what computes them, whether or not their stage is trained here.
            computed = [s for s in segments if any(graph.matrices(o) for o in s.operations)]
            low, high = raw
            binary = in_unit_interval(segments) if number or computed else 0 <= low <= high <= 1
            objective = self.objectives[number].decided(binary)
            bounds = value_range(segments) if number else raw
            if objective.binary and bounds and not 0 <= bounds[0] <= bounds[1] <= 1:
                raise ValueError(_out_of_range(objective, self.stages[number].name, bounds))
            self.objectives[number] = objective

    def describe(self, data: list[Codes], max_memory: int) -> dict[str, Any]:
        """By name, plain data about what the result of every stage depends on."""
        return {
            "data": [inputs.digest() for inputs in data],
            "seeds": self.population.seeds,
            "max_memory": max_memory,
            "backend": [keras.backend.backend(), keras.config.floatx()],
        }

    def describe_stage(self, number: int, settings: Settings) -> dict[str, Any]:
        """By name, plain data about what the result of a stage depends on beside that."""
        stage = self.stages[number]
        layers = [stage.preamble, stage] if stage.preamble else [stage]
        weights = [weight for layer in layers for weight in layer.weights]
        return {
            "layers": [layer.architecture_text() for layer in layers],
            "objective": self.objectives[number],
            "settings": settings.describe(),
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
        integers = [w.path for w in stage.weights if len(w.shape) > 1 and "int" in w.dtype]
        if integers:
            raise ValueError(
                "Expected a stage with weights of floating point, since gradients do not move "
                "integers: pretrain the model first, and quantize it afterwards. "
                f"Received: stage {stage.name!r}, with the integer weights {integers}"
            )
        trained = {*map(id, stage.trainable_variables)}
        if not trained & {id(w) for o in stage.operations for w in graph.matrices(o)}:
            raise ValueError(
                "Expected a stage with trainable weights in its projections, since normalization "
                "alone learns no codes: name the stages to train with `stages`. Received: stage "
                f"{stage.name!r}, {'whose projections are' if trained else 'which is'} frozen"
            )
        seeds = [derive("decoder", stream_name(number), seed) for seed in self.population.seeds]
        return [objective.build(stage, seed, copy=i > 0) for i, seed in enumerate(seeds)]


def _pairs(targets: Any, y: Any, class_weight: Any) -> Any:
    """The targets of arrays; `None` if a dataset brings its own."""
    if y is not None or class_weight is not None:
        raise ValueError(
            "`targets` are reconstructed instead of x, and leave no room for labels: expected "
            f"y=None and class_weight=None beside them. Received: y of type {type(y).__name__}, "
            f"class_weight of type {type(class_weight).__name__}"
        )
    return None if isinstance(targets, str) and targets == "y" else targets


def _check_have_targets(objectives: list[Objective], name: str) -> None:
    """Refuses objectives of which an argument makes no sense."""
    for objective in objectives:
        if not objective.has_target:
            raise ValueError(
                f"`{name}` is for objectives that compare a reconstruction with a target: "
                "Autoencoder, DenoisingAutoencoder, SparseAutoencoder, ContractiveAutoencoder and "
                f"VariationalAutoencoder. Received: `{name}` beside objective={objective!r}"
            )


def _bounds(inputs: Codes) -> tuple[float, float]:
    """Minimum and maximum of all inputs."""
    # Of each block no more is kept than two numbers: all blocks together may not fit in memory.
    ends = [(float(ops.min(b.x)), float(ops.max(b.x))) for blocks in inputs for b in blocks]
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def _out_of_range(objective: Objective, stage: str, bounds: tuple[float, float]) -> str:
    field = objective.auto[0]
    return (
        f"{field}={getattr(objective, field)!r} needs inputs in [0, 1]: expected {field}='auto' or "
        f"{objective.auto[2]!r}, or scaled inputs. Received: inputs of stage {stage!r} between "
        f"{bounds[0]:.4g} and {bounds[1]:.4g}"
    )


def stream_name(number: int) -> str:
    """Name of the random streams of a stage."""
    return f"stage {number}"


def _cut(model: keras.Model, stages: Any, head: int, shape: tuple) -> list[Stage]:
    if not isinstance(stages, int) or isinstance(stages, bool):
        return split_stages(model, head, stages, shape)
    cut = split_stages(model, head, input_shape=shape)
    if not 1 <= stages <= len(cut):
        raise ValueError(
            f"Expected from 1 to {len(cut)} stages, those before the classifier, which is the last "
            f"stage. For a model without a classifier, such as an encoder, pass head=0, or "
            f"name the layers of each stage in a list. Received: stages={stages}, head={head}"
        )
    return cut[:stages]


def _left_out(model: keras.Model, stages: list[Stage]) -> list[str]:
    """Names of a model's layers with weights that no stage and no preamble has."""
    held = [layer for s in stages for layer in [s, s.preamble] if layer]
    known = {id(weight) for layer in held for weight in layer.weights}
    return [
        layer.name
        for layer in layers_of(model)
        if layer.weights and not layers_of(layer)[1:] and not known & {*map(id, layer.weights)}
    ]


def _one_for_each(objective: Any, default: Objective, count: int) -> list[Objective]:
    objectives = list(objective) if isinstance(objective, list | tuple) else [objective] * count
    objectives = [default if item is None else of_name(item) for item in objectives]
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
