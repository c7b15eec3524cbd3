"""The weights of many members of one architecture, and the program that runs each member."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain import backend, graph, internals
from pretrain.convolutions import as_products
from pretrain.describing import describe_operation, digest
from pretrain.examples import Block
from pretrain.seeds import derive
from pretrain.task import Task

# Examples that are run at once in inference: a convolution's are laid out pixel by pixel.
_CHUNK = 1000
_CHUNK_OF_IMAGES = 100
_CACHE_SIZE = 64


class Members:
    """The weights of many members of one architecture.

    A list of a member's values is replaced, never changed, so that whoever keeps the list keeps
    the member as it was.

    Args:
        template: The layer or model whose architecture every member has.
        seeds: A seed for each member.
        values: For each member, the values of the template's variables, trainable ones first.
    """

    def __init__(self, template: keras.Layer, seeds: list[int], values: list[list]) -> None:
        self.template = template
        self.seeds = seeds
        self.values = values
        self._trainable = len(template.trainable_variables)
        self._places = {id(v): place for place, v in enumerate(variables_of(template))}

    def __len__(self) -> int:
        return len(self.seeds)

    def value(self, i: int, variable: keras.Variable) -> Any:
        """Member `i`'s value of a variable of the template."""
        return self.values[i][self._places[id(variable)]]

    def stacked(self, variable: keras.Variable) -> np.ndarray:
        """All members' values of a variable of the template, shape (members, ...)."""
        return np.stack([ops.convert_to_numpy(self.value(i, variable)) for i in range(len(self))])

    def assign(self, i: int, model: keras.Layer) -> None:
        """Gives a model of the template's architecture the weights of member `i`."""
        for variable, value in zip(variables_of(model), self.values[i], strict=True):
            # A copy: training with Keras on JAX deletes the arrays that a model held.
            variable.assign(ops.copy(value))

    def of_layer(self, layer: keras.Layer, own: Sequence[dict[int, Any]] = ()) -> "Members":
        """Members of a layer that shares variables with the template.

        Args:
            layer: A layer, or stage, of the template, or a layer that contains one. A layer
                without variables is the same for all members, so the result has one member.
            own: For each member, the values of the variables that the template lacks, by `id`.

        Returns:
            The members; `take_over` gives what they learn back.
        """
        members = range(len(self) if layer.variables else 1)
        values = [
            [
                self.value(i, variable) if id(variable) in self._places else own[i][id(variable)]
                for variable in variables_of(layer)
            ]
            for i in members
        ]
        return Members(layer, self.seeds[: len(members)], values)

    def take_over(self, other: "Members") -> None:
        """Takes the values of every variable that the templates of the two share."""
        shared = [v for v in variables_of(other.template) if id(v) in self._places]
        for i, values in enumerate(self.values):
            new = {self._places[id(variable)]: other.value(i, variable) for variable in shared}
            self.values[i] = [new.get(place, value) for place, value in enumerate(values)]

    def outputs(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs of every member, in inference mode.

        Args:
            inputs: An array (n, ...) for all members, or one for each.

        Returns:
            An array (n, ...) for each member.
        """
        program = get_program(self.template)
        n = len(inputs[0])
        chunk = min(n, program.chunk)
        outputs = []
        for start in range(0, n, chunk):
            rows = np.minimum(np.arange(start, start + chunk), n - 1)
            batch = [(ops.convert_to_tensor(x[rows]),) for x in inputs]
            outputs.append([ops.convert_to_numpy(o) for o in self.each(program.infer, [], batch)])
        return [np.concatenate(pieces)[:n] for pieces in zip(*outputs, strict=True)]

    def scores(self, task: Task, reading: Iterable[list[Block]], stream: str = "") -> np.ndarray:
        """Mean scores of every member over all examples, in inference mode.

        Args:
            task: What to score the members on.
            reading: Consecutive examples: a block for all members, or one for each.
            stream: Name of the random stream of corruption, beside a member's seed.

        Returns:
            An array of shape (members, names of the task).
        """
        program = get_program(self.template, task)
        keys = [key_of("validation", stream, seed) for seed in self.seeds]
        states = [program.metric_states() for _ in self.seeds]
        totals, n = 0.0, 0
        for blocks in reading:
            results = self.each(program.score, [keys, states], blocks)
            means, states = zip(*results, strict=True)
            count = len(blocks[0].x)
            # Double precision: of one block, the result is what the program computed.
            totals = totals + count * np.stack([np.asarray(m, "float64") for m in means])
            n += count
        return np.stack([program.results(*both) for both in zip(totals / n, states, strict=True)])

    def each(self, function: backend.Compiled, own: list[list], data: Sequence[tuple]) -> list:
        """Calls a function of a program for every member.

        Args:
            function: The function; its first arguments are a member's trainable and other values.
            own: Lists of further arguments, in each list one for every member.
            data: The last arguments: a tuple for all members, or one for each.

        Returns:
            What the function returned, for each member.
        """
        cut = self._trainable
        weights = [(values[:cut], values[cut:]) for values in self.values]
        members = [(*w, *rest) for w, *rest in zip(weights, *own, strict=True)]
        if len(data) == 1:
            return function.each(members, tuple(data[0]))
        return function.each([(*m, *d) for m, d in zip(members, data, strict=True)], ())


def variables_of(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer, trainable ones first."""
    return [*layer.trainable_variables, *layer.non_trainable_variables]


def key_of(*names: str | int) -> Any:
    """A key for random numbers, as a tensor, from what names their stream."""
    return ops.convert_to_tensor(derive(*names), "int32")


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
        return state if learning_rate is None else self.with_rate(state, learning_rate)

    def with_rate(self, state: list, learning_rate: float) -> list:
        """A state of the optimizer's variables, with another learning rate."""
        rate = self.optimizer.learning_rate
        position = [v is rate for v in self.optimizer.variables].index(True)
        return [*state[:position], ops.cast(learning_rate, rate.dtype), *state[position + 1 :]]

    def totals(self) -> Any:
        """Sums of the scores of no examples."""
        scores = len(self.task.names) - len(self.task.metrics)
        return ops.zeros((scores,), keras.config.floatx())

    def metric_states(self) -> list[list]:
        """The variables of each metric that has seen no examples."""
        for metric in self.task.metrics:
            metric.reset_state()
        return [values_of(metric.variables) for metric in self.task.metrics]

    def results(self, means: np.ndarray, states: Sequence[list]) -> np.ndarray:
        """Mean scores, followed by the results of metrics that have such states."""
        pairs = zip(self.task.metrics, states, strict=True)
        measured = [ops.convert_to_numpy(m.stateless_result(list(s))) for m, s in pairs]
        return np.array([*means, *measured], keras.config.floatx())

    def _train(self, trained, fixed, slots, totals, states, index, rest, key, first, x, y, weight):
        """An update on each batch of `index`, and one on `rest` if there is any.

        A batch counts in the sums of scores as much as it is full.
        """

        def update(step, state):
            return self._update(*state, index[step], _key(key, first + step), x, y, weight)

        steps, size = index.shape
        state = (trained, fixed, slots, totals, states)
        # XLA refuses to compile even what takes no step, if there is nothing to slice.
        state = backend.repeat(steps, update, state) if steps else state
        if not rest.shape[0]:
            return state
        share, key = rest.shape[0] / size, _key(key, first + steps)
        return self._update(*state, rest, key, x, y, weight, share)

    def _update(self, trained, fixed, slots, totals, states, rows, key, x, y, weight, share=1.0):
        x, y, weight = _take((x, y, weight), rows)
        inputs = self.task.inputs(x, key)

        def objective(variables):
            outputs, moved, penalties = self._call(variables, fixed, inputs, training=True)
            loss = self.task.batch_loss(x, y, outputs, weight) + sum(penalties)
            means = [ops.mean(s) for s in self.task.scores(x, y, outputs)[1:]]
            return loss, (moved, means, self._measured(states, y, outputs))

        loss, (fixed, means, states), gradients = backend.value_and_gradients(objective, trained)
        trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
        return trained, fixed, slots, totals + ops.stack([loss, *means]) * share, states

    def _score(self, trained, fixed, key, states, x, y, weight):
        """Mean scores over all examples, in inference mode, and the states of the metrics."""
        n = x.shape[0]
        chunk = min(n, self.chunk)

        def add(step, state, size=chunk):
            rows = step * chunk + ops.arange(size)
            return self._add_scores(*state, trained, fixed, _key(key, step), rows, x, y, weight)

        totals, states = backend.repeat(n // chunk, add, (self.totals(), states))
        if n % chunk:
            totals, states = add(n // chunk, (totals, states), n % chunk)
        return totals / n, states

    def _add_scores(self, totals, states, trained, fixed, key, rows, x, y, weight):
        x, y, weight = _take((x, y, weight), rows)
        inputs = self.task.inputs(x, key)
        outputs, _, penalties = self._call(trained, fixed, inputs, training=False)
        scores = self.task.scores(x, y, outputs)
        scores[0] = (scores[0] if weight is None else scores[0] * weight) + sum(penalties)
        totals = totals + ops.stack([ops.sum(score) for score in scores])
        return totals, self._measured(states, y, outputs)

    def _measured(self, states, y, outputs):
        """States of the metrics that have seen further examples."""
        return [
            metric.stateless_update_state(state, *internals.of_same_rank(y, outputs))
            for metric, state in zip(self.task.metrics, states, strict=True)
        ]

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
    # What a model without a graph does with its layers is its own: a program serves it alone.
    alone = None if _has_graph(template) else id(template)
    key = (architecture(template), alone, task, optimizer and _optimizer_key(optimizer))
    if key not in _programs:
        _programs[key] = Program(template, task, optimizer)
    _programs.move_to_end(key)
    while len(_programs) > _CACHE_SIZE:
        _programs.popitem(last=False)
    return _programs[key]


def values_of(variables: Sequence[keras.Variable]) -> list:
    """The values of Keras variables, as tensors that do not change with them."""
    return [ops.copy(variable) for variable in variables]


def architecture(template: keras.Layer) -> str:
    """A text that is equal for layers and models of the same operations and settings."""
    if not hasattr(template, "architecture_text") and _has_graph(template):
        return graph.architecture_text(graph.flatten(template))
    return digest(describe_operation(template))


def _has_graph(template: keras.Layer) -> bool:
    """Whether it can be told how the operations of a layer or model are connected."""
    if hasattr(template, "architecture_text"):
        return True
    function = internals.functional(template)
    return function is not None and len(function.inputs) == len(function.outputs) == 1


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
