"""The compiled program that trains, scores and runs one member of a population."""

import json
from collections import OrderedDict
from typing import Any, Protocol

import keras
from keras import ops

from pretrain import backend, graph

_CHUNK = 1000
_CACHE_SIZE = 64


class Task(Protocol):
    """What a network is trained on: hashable, since a program is compiled for it.

    `names` are those of what is reported of each example; the first is `"loss"`.
    """

    names: tuple[str, ...]

    def inputs(self, x: Any, key: Any) -> Any:
        """The network's inputs, from clean examples and a key for random numbers, shape (2,)."""

    def loss(self, x: Any, y: Any, outputs: Any, weight: Any) -> Any:
        """The scalar loss of a batch."""

    def scores(self, x: Any, y: Any, outputs: Any) -> list:
        """An array of shape (batch,) for each of `names`."""


class Program:
    """Functions of one member's variables, compiled when first called with a shape of data.

    Data, weights, rates and seeds are arguments, so whatever has the same architecture, task and
    optimizer runs the same program.

    Args:
        template: Any layer or model of the architecture.
        task: What to train it on; `None` if it is only run.
        optimizer: A Keras optimizer; `None` if it is not trained.
    """

    def __init__(self, template: Any, task: Task | None, optimizer: Any) -> None:
        self.template = template
        self.task = task
        if optimizer is not None:
            self.optimizer = backend.functional_optimizer(optimizer)
            self.optimizer.build(template.trainable_variables)
        self.train = backend.Compiled(self._train)
        self.score = backend.Compiled(self._score)
        self.infer = backend.Compiled(self._infer)

    def optimizer_state(self, learning_rate: float | None) -> list:
        """A fresh state of the optimizer's variables, with a rate of its own if one is given."""
        state = [ops.convert_to_tensor(v.value) for v in self.optimizer.variables]
        if learning_rate is not None:
            rate = self.optimizer.learning_rate
            position = [v is rate for v in self.optimizer.variables].index(True)
            state[position] = ops.cast(learning_rate, rate.dtype)
        return state

    def _train(self, trained, fixed, slots, index, key, x, y, weight, first):
        """An update on each batch of `index`; returns the sums of the batches' scores too."""

        def update(step, state):
            trained, fixed, slots, totals = state
            x_batch, y_batch, weight_batch = _take((x, y, weight), index[step])
            inputs = self.task.inputs(x_batch, _key(key, first + step))

            def objective(variables):
                outputs, moved, penalties = self.template.stateless_call(
                    variables, fixed, inputs, training=True, return_losses=True
                )
                loss = self.task.loss(x_batch, y_batch, outputs, weight_batch) + sum(penalties)
                scores = self.task.scores(x_batch, y_batch, outputs)[1:]
                return loss, (moved, [ops.mean(score) for score in scores])

            loss, (fixed, means), gradients = backend.value_and_gradients(objective, trained)
            trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
            return trained, fixed, slots, totals + ops.stack([loss, *means])

        totals = ops.zeros((len(self.task.names),), keras.config.floatx())
        return backend.repeat(index.shape[0], update, (trained, fixed, slots, totals))

    def _score(self, trained, fixed, key, x, y, weight):
        """Mean scores over all examples, in inference mode."""
        n = x.shape[0]
        chunk = min(n, _CHUNK)

        def add(step, totals):
            rows = step * chunk + ops.arange(chunk)
            counts = ops.cast(rows < n, keras.config.floatx())
            x_chunk, y_chunk, weights = _take((x, y, weight), ops.minimum(rows, n - 1))
            outputs, _, penalties = self.template.stateless_call(
                trained, fixed, self.task.inputs(x_chunk, _key(key, step)), return_losses=True
            )
            scores = self.task.scores(x_chunk, y_chunk, outputs)
            scores[0] = scores[0] * (1 if weights is None else weights)
            sums = ops.stack([ops.sum(ops.where(counts > 0, s, 0)) for s in scores])
            penalty = ops.sum(counts) * sum(penalties)
            return totals + sums + ops.stack([penalty] + [0.0] * (len(scores) - 1))

        totals = ops.zeros((len(self.task.names),), keras.config.floatx())
        return backend.repeat(-(-n // chunk), add, totals) / n

    def _infer(self, trained, fixed, x):
        return self.template.stateless_call(trained, fixed, x, training=False)[0]


_programs: OrderedDict[tuple, Program] = OrderedDict()


def get_program(template: Any, task: Task | None = None, optimizer: Any = None) -> Program:
    """The program for an architecture, a task and an optimizer, compiled once and reused."""
    key = (_architecture(template), task, optimizer and _optimizer_key(optimizer))
    if key not in _programs:
        _programs[key] = Program(template, task, optimizer)
    _programs.move_to_end(key)
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return _programs[key]


def _architecture(template: Any) -> Any:
    if hasattr(template, "fingerprint"):
        return template.fingerprint()
    try:
        return graph.fingerprint(graph.flatten(template).calls)
    except ValueError:
        # No graph to compare: the program, which keeps its template alive, serves it alone.
        return id(template)


def _optimizer_key(optimizer: Any) -> str:
    config = optimizer.get_config()
    config.pop("name")
    if isinstance(config["learning_rate"], float | int):
        config.pop("learning_rate")
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    return json.dumps([kind, config], sort_keys=True, default=repr)


def _take(parts: tuple, rows: Any) -> list:
    return [None if part is None else ops.take(part, rows, axis=0) for part in parts]


def _key(key: Any, step: Any) -> Any:
    return ops.stack([key, ops.cast(step, key.dtype)])
