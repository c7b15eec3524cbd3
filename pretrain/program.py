"""The compiled program that trains, scores and runs one member of a population."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from pretrain import backend, graph, internals
from pretrain.convolutions import as_products
from pretrain.task import Task

# Examples that are run at once in inference: a convolution's are laid out pixel by pixel.
_CHUNK = 1000
_CHUNK_OF_IMAGES = 100
_CACHE_SIZE = 64


class Program:
    """Functions of one member's variables, compiled when first called with a shape of data.

    Data, weights, rates and seeds are arguments, so whatever has the same architecture, task and
    optimizer runs the same program.

    Args:
        template: A layer or model of the architecture.
        task: What to train it on; `None` if it is only run.
        optimizer: A Keras optimizer; `None` if it is not trained.
    """

    def __init__(
        self, template: keras.Layer, task: Task | None, optimizer: keras.optimizers.Optimizer | None
    ) -> None:
        self.template = template
        self.task = task
        if optimizer is not None:
            self.optimizer = internals.functional_optimizer(optimizer)
            self.optimizer.build(template.trainable_variables)
        self.chunk = _CHUNK_OF_IMAGES if _has_convolution(template) else _CHUNK
        self.train = backend.Compiled(self._train)
        self.score = backend.Compiled(self._score)
        self.infer = backend.Compiled(self._infer)

    def optimizer_state(self, learning_rate: float | None) -> list:
        """A fresh state of the optimizer's variables, with a rate of its own if one is given."""
        state = values_of(self.optimizer.variables)
        if learning_rate is not None:
            rate = self.optimizer.learning_rate
            position = [v is rate for v in self.optimizer.variables].index(True)
            state[position] = ops.cast(learning_rate, rate.dtype)
        return state

    def _train(self, trained, fixed, slots, index, key, first, x, y, weight):
        """An update on each batch of `index`; returns the sums of the batches' scores too."""

        def update(step, state):
            return self._update(*state, index[step], _key(key, first + step), x, y, weight)

        totals = ops.zeros((len(self.task.names),), keras.config.floatx())
        return backend.repeat(index.shape[0], update, (trained, fixed, slots, totals))

    def _update(self, trained, fixed, slots, totals, rows, key, x, y, weight):
        x, y, weight = _take((x, y, weight), rows)
        inputs = self.task.inputs(x, key)

        def objective(variables):
            outputs, moved, penalties = self._call(variables, fixed, inputs, training=True)
            loss = self.task.batch_loss(x, y, outputs, weight) + sum(penalties)
            return loss, (moved, [ops.mean(s) for s in self.task.scores(x, y, outputs)[1:]])

        loss, (fixed, means), gradients = backend.value_and_gradients(objective, trained)
        trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
        return trained, fixed, slots, totals + ops.stack([loss, *means])

    def _score(self, trained, fixed, key, x, y, weight):
        """Mean scores over all examples, in inference mode."""
        n = x.shape[0]
        chunk = min(n, self.chunk)

        def add(step, totals):
            rows = step * chunk + ops.arange(chunk)
            return self._add_scores(totals, trained, fixed, _key(key, step), rows, x, y, weight)

        totals = ops.zeros((len(self.task.names),), keras.config.floatx())
        return backend.repeat(-(-n // chunk), add, totals) / n

    def _add_scores(self, totals, trained, fixed, key, rows, x, y, weight):
        n = x.shape[0]
        real = rows < n
        x, y, weight = _take((x, y, weight), ops.minimum(rows, n - 1))
        inputs = self.task.inputs(x, key)
        outputs, _, penalties = self._call(trained, fixed, inputs, training=False)
        scores = self.task.scores(x, y, outputs)
        scores[0] = (scores[0] if weight is None else scores[0] * weight) + sum(penalties)
        return totals + ops.stack([ops.sum(ops.where(real, score, 0)) for score in scores])

    def _infer(self, trained, fixed, x):
        return self._call(trained, fixed, x, training=False)[0]

    def _call(self, trained, fixed, x, training):
        mode = {"training": training} if graph.takes_training(self.template) else {}
        with as_products():
            return self.template.stateless_call(trained, fixed, x, return_losses=True, **mode)


_programs: OrderedDict[tuple, Program] = OrderedDict()


def get_program(
    template: keras.Layer,
    task: Task | None = None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> Program:
    """The program for an architecture, a task and an optimizer, compiled once and reused."""
    key = (architecture(template), task, optimizer and _optimizer_key(optimizer))
    if key not in _programs:
        _programs[key] = Program(template, task, optimizer)
    _programs.move_to_end(key)
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return _programs[key]


def values_of(variables: Sequence[keras.Variable]) -> list:
    """The values of Keras variables, as tensors that do not change with them."""
    return [ops.copy(variable) for variable in variables]


def architecture(template: keras.Layer) -> Any:
    """What is equal for layers and models that one program serves: a text, if it can be told."""
    if hasattr(template, "architecture_text"):
        return template.architecture_text()
    try:
        return graph.architecture_text(graph.flatten(template).calls)
    except ValueError:
        # No graph to compare: the program, which keeps its template alive, serves it alone.
        return id(template)


def _optimizer_key(optimizer: keras.optimizers.Optimizer) -> str:
    config = optimizer.get_config()
    config.pop("name")
    if isinstance(config.get("learning_rate"), float | int):
        config.pop("learning_rate")
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    return json.dumps([kind, config], sort_keys=True, default=repr)


def _has_convolution(template: Any) -> bool:
    return any(graph.is_convolution(layer) for layer in internals.layers_of(template))


def _take(parts: tuple, rows: Any) -> list:
    return [None if part is None else ops.take(part, rows, axis=0) for part in parts]


def _key(key: Any, step: Any) -> Any:
    return ops.stack([key, ops.cast(step, key.dtype)])
