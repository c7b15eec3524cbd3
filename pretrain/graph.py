"""A Keras model as a flat list of operation calls, which can be cut and run piecewise.

The calls are run directly and leave no trace in the model. Building a `keras.Model` from
intermediate tensors would make Keras add a node to each layer of the model.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from pretrain.checks import ONE_INPUT
from pretrain.describing import describe_operation, digest
from pretrain.internals import Node, functional, in_inference_mode, layers_of, nodes


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation (usually a layer) in a model's graph.

    `args` and `kwargs` may hold symbolic tensors. For the `id` of each symbolic tensor, `inputs`
    has the number of the tensor that it stands for. `outputs` are the numbers of the tensors that
    the call produces. The shapes are of the first input and output, batch axis included; the data
    type is that of the first output.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict[str, Any]
    inputs: dict[int, int]
    outputs: tuple[int, ...]
    input_shape: tuple
    output_shape: tuple
    dtype: str

    @classmethod
    def of(cls, node: Node, symbols: list[Any], numbers: list[int], outputs: tuple) -> "Call":
        """The call of a node whose symbolic tensors stand for tensors of the numbers."""
        inputs = dict(zip(map(id, symbols), numbers, strict=True))
        first, result = symbols[0], node.outputs[0]
        shapes = tuple(first.shape), tuple(result.shape)
        dtype = keras.backend.standardize_dtype(result.dtype)
        return cls(node.operation, node.args, node.kwargs, inputs, outputs, *shapes, dtype)

    def run(self, tensors: dict[int, Any], training: bool | None) -> None:
        """Computes the call's outputs from `tensors`, by number, and adds the outputs to `tensors`.

        Dropout and augmentation are off, also those inside a layer whose batch normalization is in
        training mode.
        """
        args, kwargs = self.arguments(lambda symbol: tensors[self.inputs[id(symbol)]])
        if takes_training(self.operation):
            kwargs = {**kwargs, "training": bool(training)}
        with in_inference_mode(_noisy_layers(self.operation)):
            outputs = keras.tree.flatten(self.operation(*args, **kwargs))
        tensors.update(zip(self.outputs, outputs, strict=True))

    @property
    def makes_mask(self) -> bool:
        """Whether the call is one of those by which Keras computes the mask of sequences."""
        return self.dtype == "bool" and not isinstance(self.operation, keras.layers.Layer)

    def arguments(self, value_of: Callable[[keras.KerasTensor], Any]) -> tuple[tuple, dict]:
        """The arguments with a value in the place of each symbolic tensor."""
        return _replaced((self.args, self.kwargs), value_of)

    @property
    def flops(self) -> int:
        """FLOPs per example, 2 per multiply-add of every weight of rank 2 or more."""
        if isinstance(self.operation, keras.layers.Embedding):
            return 0
        size = sum(math.prod(w.shape) for w in matrices(self.operation))
        transposed = "Transpose" in type(self.operation).__name__
        by_output = is_convolution(self.operation) and not transposed
        shape = self.output_shape if by_output else self.input_shape
        return 2 * size * math.prod(n or 1 for n in shape[1:-1])


@dataclass(frozen=True, eq=False)
class Graph:
    """A model with one input and one output as calls in topological order.

    Nested models are flattened. `input` and `output` are the numbers of tensors, and `input_shape`
    includes the batch axis.
    """

    calls: list[Call]
    input: int
    output: int
    input_shape: tuple


@dataclass
class _Flattener:
    """Walks a functional model and the models nested in it."""

    calls: list[Call] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)
    count: Iterator[int] = field(default_factory=itertools.count)

    def number(self, tensor: keras.KerasTensor) -> int:
        self.numbers[id(tensor)] = next(self.count)
        return self.numbers[id(tensor)]

    def walk(self, function: Any) -> None:
        for node in nodes(function):
            inner = functional(node.operation)
            symbols = _symbols((node.args, node.kwargs))
            if inner is None or len(inner.inputs) != len(symbols):
                self.add(node, symbols)
                continue
            for symbol, argument in zip(inner.inputs, symbols, strict=True):
                self.numbers[id(symbol)] = self.numbers[id(argument)]
            self.walk(inner)
            for symbol, result in zip(node.outputs, inner.outputs, strict=True):
                self.numbers[id(symbol)] = self.numbers[id(result)]

    def add(self, node: Node, symbols: list[keras.KerasTensor]) -> None:
        numbers = [self.numbers[id(symbol)] for symbol in symbols]
        outputs = tuple(map(self.number, node.outputs))
        self.calls.append(Call.of(node, symbols, numbers, outputs))


def _symbols(arguments: Any) -> list[keras.KerasTensor]:
    leaves = keras.tree.flatten(arguments)
    return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


def _replaced(arguments: Any, value_of: Callable[[keras.KerasTensor], Any]) -> Any:
    def value(leaf: Any) -> Any:
        return value_of(leaf) if isinstance(leaf, keras.KerasTensor) else leaf

    return keras.tree.map_structure(value, arguments)


class _Ends(keras.layers.Layer):
    """Where the outputs of a model with several outputs end; returns the first output."""

    def call(self, outputs: list) -> Any:
        return outputs[0]


def flatten(model: keras.Model) -> Graph:
    """Flattens a built Sequential or functional model with one input.

    Several outputs are taken as the inputs of one last call, so that what leads to only some of the
    outputs belongs to the end of the model.
    """
    function = functional(model)
    if function is None:
        raise ValueError(
            "Expected a built Sequential or functional model, since only such models have a graph; "
            "of a subclassed model, name the layers of each stage with `stages=`. "
            f"Received: model={model!r}, of type {type(model).__name__}"
        )
    if len(function.inputs) != 1:
        raise ValueError(f"{ONE_INPUT} Received: a model with {len(function.inputs)} inputs")
    if len(function.outputs) > 1:
        function = keras.Model(function.inputs, _Ends()(function.outputs))
    flattener = _Flattener()
    start = flattener.number(function.inputs[0])
    flattener.walk(function)
    end = flattener.numbers[id(function.outputs[0])]
    return Graph(_masks_first(flattener.calls), start, end, tuple(function.inputs[0].shape))


def _masks_first(calls: list[Call]) -> list[Call]:
    """The calls, of which those that compute masks come as soon as their inputs are known."""
    ordered: list[Call] = []
    for call in calls:
        place = len(ordered)
        while (
            call.makes_mask
            and place
            and set(call.inputs.values()).isdisjoint(ordered[place - 1].outputs)
        ):
            place -= 1
        ordered.insert(place, call)
    return ordered


def chain(layers: Iterable[keras.Layer], input_shape: tuple, dtype: str) -> Graph:
    """A graph that applies built layers one after another; `input_shape` has the batch axis."""
    flattener = _Flattener()
    symbol = keras.KerasTensor(input_shape, dtype)
    start = flattener.number(symbol)
    for layer in layers:
        result = layer.compute_output_spec(symbol)
        flattener.add(Node(layer, (symbol,), {}, [result]), [symbol])
        symbol = result
    return Graph(flattener.calls, start, flattener.numbers[id(symbol)], input_shape)


def to_config(graph: Graph) -> dict[str, Any]:
    """A graph as data that Keras can save, with its operations but without their weights."""
    operations = list(dict.fromkeys(call.operation for call in graph.calls))
    return {
        "operations": [keras.saving.serialize_keras_object(item) for item in operations],
        "calls": [_call_config(call, operations.index(call.operation)) for call in graph.calls],
        "input": graph.input,
        "output": graph.output,
        "input_shape": graph.input_shape,
        "dtype": _input_dtype(graph),
    }


def from_config(config: dict[str, Any]) -> Graph:
    """A graph of new operations, from the data that `to_config` returned."""
    operations = [keras.saving.deserialize_keras_object(item) for item in config["operations"]]
    input_shape = tuple(config["input_shape"])
    tensors = {config["input"]: keras.KerasTensor(input_shape, config["dtype"])}
    calls = [_replay(call, operations[call["operation"]], tensors) for call in config["calls"]]
    return Graph(calls, config["input"], config["output"], input_shape)


def _call_config(call: Call, operation: int) -> dict[str, Any]:
    # The history of a symbolic tensor names operations that may be outside of the graph.
    arguments = call.arguments(lambda symbol: keras.KerasTensor(symbol.shape, symbol.dtype))
    return {
        "operation": operation,
        "arguments": keras.saving.serialize_keras_object(list(arguments)),
        "inputs": [call.inputs[id(symbol)] for symbol in _symbols((call.args, call.kwargs))],
        "outputs": call.outputs,
    }


def _input_dtype(graph: Graph) -> str:
    read = [(call, s) for call in graph.calls for s in _symbols((call.args, call.kwargs))]
    return next(symbol.dtype for call, symbol in read if call.inputs[id(symbol)] == graph.input)


def reads_integers(graph: Graph) -> bool:
    """Whether the input is of integers, other than those of an image's pixels."""
    dtype = keras.backend.standardize_dtype(_input_dtype(graph))
    return dtype != "uint8" and "int" in dtype


def _replay(config: dict[str, Any], operation: Any, tensors: dict[int, Any]) -> Call:
    """Calls an operation on symbolic tensors, by number, and adds its outputs to the tensors."""
    inputs, outputs = config["inputs"], tuple(config["outputs"])
    numbers = iter(inputs)
    saved = keras.saving.deserialize_keras_object(config["arguments"])
    args, kwargs = _replaced(saved, lambda _: tensors[next(numbers)])
    results = keras.tree.flatten(operation(*args, **kwargs))
    return _added(Node(operation, tuple(args), kwargs, results), inputs, outputs, tensors)


def _added(node: Node, inputs: list[int], outputs: tuple, tensors: dict[int, Any]) -> Call:
    """The call of a node, whose outputs are added to the tensors, by number."""
    tensors.update(zip(outputs, node.outputs, strict=True))
    return Call.of(node, [tensors[number] for number in inputs], inputs, outputs)


def resized(graph: Graph, shape: tuple) -> Graph:
    """A graph whose axes of open size have the sizes of an input's shape, without batch axis."""
    batch, *own = graph.input_shape
    if None not in own:
        return graph
    known = (batch, *(n if o is None else o for o, n in zip(own, shape, strict=True)))
    tensors = {graph.input: keras.KerasTensor(known, _input_dtype(graph))}
    calls = [_resized(call, tensors) for call in graph.calls]
    return Graph(calls, graph.input, graph.output, known)


def _resized(call: Call, tensors: dict[int, Any]) -> Call:
    inputs = [call.inputs[id(symbol)] for symbol in _symbols((call.args, call.kwargs))]
    args, kwargs = call.arguments(lambda symbol: tensors[call.inputs[id(symbol)]])
    # To call the operation would leave a trace in the model.
    results = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
    return _added(Node(call.operation, args, kwargs, results), inputs, call.outputs, tensors)


def tensors(graph: Graph) -> dict[int, keras.KerasTensor]:
    """Symbolic tensors by number: the input, and the first output of every call."""
    first = keras.KerasTensor(graph.input_shape, _input_dtype(graph))
    calls = {c.outputs[0]: keras.KerasTensor(c.output_shape, c.dtype) for c in graph.calls}
    return {graph.input: first, **calls}


def masks(graph: Graph) -> set[int]:
    """The numbers of the tensors that say which steps of a sequence are padding, and of no other.

    Keras makes a mask from the input of an `Embedding` or `Masking` layer, and passes the mask on
    to all layers behind that take one.
    """
    found = {n for call in graph.calls if call.dtype == "bool" for n in call.outputs}
    for call in reversed(graph.calls):
        if not found.issuperset(call.outputs):
            given = [value for name, value in call.kwargs.items() if name.endswith("mask")]
            found -= set(call.inputs.values()) - {call.inputs[id(s)] for s in _symbols(given)}
    return found


def call_of(operation: keras.Operation, symbols: dict[int, keras.KerasTensor], output: int) -> Call:
    """The call of an operation on tensors by number, whose output gets a number."""
    inputs = list(symbols.values())
    node = Node(operation, tuple(inputs), {}, [operation.compute_output_spec(*inputs)])
    return Call.of(node, inputs, list(symbols), (output,))


def architecture_text(graph: Graph) -> str:
    """A text that is equal for graphs of the same architecture, in every process.

    The text does not depend on names and initial values.
    """
    places: dict[int, int] = {}
    numbers: dict[int, int] = {}

    def describe(call: Call) -> list:
        place = places.setdefault(id(call.operation), len(places))
        ends = [*call.inputs.values(), -1, *call.outputs]
        tensors = [numbers.setdefault(number, len(numbers)) for number in ends]
        shapes = [call.input_shape, call.output_shape]
        constants = call.arguments(lambda symbol: "tensor")
        return [place, describe_operation(call.operation), tensors, shapes, constants]

    return digest([graph.input_shape, *map(describe, graph.calls)])


def matrices(operation: keras.Operation) -> list[keras.Variable]:
    """The weights of rank 2 or more of an operation that is not, for instance, a normalization."""
    if isinstance(operation, _NOT_PROJECTIONS):
        return []
    return [w for w in getattr(operation, "weights", []) if len(w.shape) > 1]


def is_convolution(operation: keras.Operation) -> bool:
    """Whether an operation is one of Keras's convolutions."""
    return hasattr(operation, "kernel_size") and hasattr(operation, "data_format")


_NOT_PROJECTIONS = (
    keras.layers.Normalization,
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
    keras.layers.PReLU,
    keras.layers.Discretization,
    keras.layers.CategoryEncoding,
)


def takes_training(operation: keras.Operation) -> bool:
    """Whether an operation is a layer that tells training from inference."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return "training" in inspect.signature(operation.call).parameters


def _noisy_layers(operation: keras.Operation) -> list[keras.Layer]:
    """The layers of dropout, of noise and of augmentation that an operation is or holds."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    layers = dict.fromkeys(layers_of(operation))
    return [layer for layer in layers if _draws(layer) and takes_training(layer)]


def _draws(layer: keras.Layer) -> bool:
    return any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values())
