"""A Keras model as a flat list of operation calls, which can be cut and run piecewise.

Running the calls directly, instead of building `keras.Model`s from intermediate tensors, leaves
no trace in the model: Keras would add a node to each of its layers.
"""

import hashlib
import inspect
import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an operation (usually a layer) in a model's graph.

    Args:
        operation: The layer or operation.
        arguments: Keras's symbolic arguments of the call.
        inputs: Number of the tensor that stands for each symbolic tensor's `id`.
        outputs: Numbers of the tensors that the call produces.
        input_shape: Shape of the first input, batch axis included.
        output_shape: Shape of the first output, batch axis included.
    """

    operation: Any
    arguments: Any
    inputs: dict[int, int]
    outputs: tuple[int, ...]
    input_shape: tuple
    output_shape: tuple

    def run(self, tensors: dict[int, Any], training: bool | None) -> None:
        """Computes the call's outputs from `tensors` and adds them to it; noise layers are off."""
        values = {key: tensors[number] for key, number in self.inputs.items()}
        args, kwargs = self.arguments.fill_in(values)
        if takes_training(self.operation):
            kwargs = {**kwargs, "training": bool(training) and not _draws_noise(self.operation)}
        outputs = keras.tree.flatten(self.operation(*args, **kwargs))
        tensors.update(zip(self.outputs, outputs, strict=True))

    @property
    def flops(self) -> int:
        """FLOPs per example, 2 per multiply-add of every weight of rank 2 or more."""
        size = sum(math.prod(w.shape) for w in matrices(self.operation))
        if not size:
            return 0
        transposed = "Transpose" in type(self.operation).__name__
        if is_convolution(self.operation) and not transposed:
            positions = self.output_shape[1:-1]
        else:
            positions = self.input_shape[1:-1]
        return 2 * size * math.prod(n or 1 for n in positions)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model with one input and one output as calls in topological order.

    Args:
        calls: The calls; nested models are flattened.
        input: Number of the input tensor.
        output: Number of the output tensor.
        input_shape: Shape of the input, batch axis included.
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
    count: int = 0

    def number(self, tensor: Any) -> int:
        self.numbers[id(tensor)] = self.count
        self.count += 1
        return self.count - 1

    def walk(self, function: Any) -> None:
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if not node.is_input:
                    self.visit(node)

    def visit(self, node: Any) -> None:
        inner = functional(node.operation)
        tensors = node.arguments.keras_tensors
        if inner is None or len(inner.inputs) != len(tensors):
            self.add(node)
            return
        for tensor, argument in zip(inner.inputs, tensors, strict=True):
            self.numbers[id(tensor)] = self.numbers[id(argument)]
        self.walk(inner)
        for tensor, result in zip(node.outputs, inner.outputs, strict=True):
            self.numbers[id(tensor)] = self.numbers[id(result)]

    def add(self, node: Any) -> None:
        tensors = node.arguments.keras_tensors
        self.calls.append(
            Call(
                node.operation,
                node.arguments,
                {id(t): self.numbers[id(t)] for t in tensors},
                tuple(self.number(t) for t in node.outputs),
                tuple(tensors[0].shape),
                tuple(node.outputs[0].shape),
            )
        )


def functional(model: Any) -> Any:
    """The graph-holding form of a Sequential or functional model, else `None`."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def flatten(model: keras.Model) -> Graph:
    """Flattens a Sequential or functional model with one input and one output.

    Args:
        model: A built model.

    Returns:
        Its graph.

    Raises:
        ValueError: If the model has no graph, or several inputs or outputs.
    """
    function = functional(model)
    if function is None:
        raise ValueError(
            "Expected a built Sequential or functional model, whose graph can be read. "
            f"Received: model={model!r}, of type {type(model).__name__}"
        )
    if len(function.inputs) != 1 or len(function.outputs) != 1:
        raise ValueError(
            "Expected a model with one input and one output. Received: a model with "
            f"{len(function.inputs)} inputs and {len(function.outputs)} outputs"
        )
    flattener = _Flattener()
    start = flattener.number(function.inputs[0])
    flattener.walk(function)
    end = flattener.numbers[id(function.outputs[0])]
    return Graph(flattener.calls, start, end, tuple(function.inputs[0].shape))


def chain(layers: Iterable[Any], input_shape: tuple, dtype: str) -> Graph:
    """A graph that applies layers one after another.

    Args:
        layers: Built layers.
        input_shape: Shape of the input, batch axis included.
        dtype: Data type of the input.
    """
    flattener = _Flattener()
    tensor = keras.KerasTensor(input_shape, dtype)
    start = end = flattener.number(tensor)
    for layer in layers:
        arguments = keras.src.ops.symbolic_arguments.SymbolicArguments(tensor)
        result = layer.compute_output_spec(tensor)
        number = flattener.number(result)
        shapes = tuple(tensor.shape), tuple(result.shape)
        flattener.calls.append(Call(layer, arguments, {id(tensor): end}, (number,), *shapes))
        tensor, end = result, number
    return Graph(flattener.calls, start, end, input_shape)


def to_config(graph: Graph) -> dict[str, Any]:
    """A graph as data that Keras can save, its operations included but not their weights.

    Args:
        graph: The graph.

    Returns:
        What `from_config` makes an equal graph of.
    """
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
    """A graph of new operations, from what `to_config` returned.

    Args:
        config: The data.

    Returns:
        The graph.
    """
    operations = [keras.saving.deserialize_keras_object(item) for item in config["operations"]]
    input_shape = tuple(config["input_shape"])
    tensors = {config["input"]: keras.KerasTensor(input_shape, config["dtype"])}
    calls = [_replay(call, operations[call["operation"]], tensors) for call in config["calls"]]
    return Graph(calls, config["input"], config["output"], input_shape)


def _call_config(call: Call, operation: int) -> dict[str, Any]:
    def bare(value: Any) -> Any:
        tensor = isinstance(value, keras.KerasTensor)
        return keras.KerasTensor(value.shape, value.dtype) if tensor else value

    # Without their history, which names operations that may be outside of the graph.
    arguments = list(call.arguments.convert(bare))
    return {
        "operation": operation,
        "arguments": keras.saving.serialize_keras_object(arguments),
        "inputs": [call.inputs[id(tensor)] for tensor in call.arguments.keras_tensors],
        "outputs": call.outputs,
    }


def _input_dtype(graph: Graph) -> str:
    read = [(call, t) for call in graph.calls for t in call.arguments.keras_tensors]
    return next(t.dtype for call, t in read if call.inputs[id(t)] == graph.input)


def _replay(config: dict[str, Any], operation: Any, tensors: dict[int, Any]) -> Call:
    """Calls an operation on symbolic tensors, by number, and adds what it returns to them."""
    inputs, outputs = config["inputs"], tuple(config["outputs"])
    numbers = iter(inputs)

    def fill(value: Any) -> Any:
        return tensors[next(numbers)] if isinstance(value, keras.KerasTensor) else value

    saved = keras.saving.deserialize_keras_object(config["arguments"])
    args, kwargs = keras.tree.map_structure(fill, saved)
    results = keras.tree.flatten(operation(*args, **kwargs))
    tensors.update(zip(outputs, results, strict=True))
    arguments = keras.src.ops.symbolic_arguments.SymbolicArguments(*args, **kwargs)
    read = {id(tensors[number]): number for number in inputs}
    shapes = tuple(tensors[inputs[0]].shape), tuple(results[0].shape)
    return Call(operation, arguments, read, outputs, *shapes)


def fingerprint(calls: list[Call]) -> str:
    """A text that is equal for calls of the same architecture, whatever names and initial values.

    Args:
        calls: Calls of one or more graphs.
    """
    layers: dict[int, int] = {}
    tensors: dict[int, int] = {}

    def describe(call: Call) -> list:
        operation = call.operation
        position = layers.setdefault(id(operation), len(layers))
        inputs = [tensors.setdefault(n, len(tensors)) for n in call.inputs.values()]
        outputs = [tensors.setdefault(n, len(tensors)) for n in call.outputs]
        shapes = [call.input_shape, call.output_shape]
        return [position, _describe_operation(operation), inputs, outputs, shapes, _constants(call)]

    return json.dumps([describe(call) for call in calls], sort_keys=True, default=repr)


def matrices(operation: Any) -> list:
    """The weights of an operation that project: rank 2 or more, not of a normalization."""
    if isinstance(operation, _NOT_PROJECTIONS):
        return []
    return [w for w in getattr(operation, "weights", []) if len(w.shape) > 1]


def is_convolution(operation: Any) -> bool:
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


_CONSTANTS = (bool, int, float, str, slice, type(None), type(...))


def takes_training(operation: Any) -> bool:
    """Whether an operation is a layer that tells training from inference."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return "training" in inspect.signature(operation.call).parameters


def _draws_noise(operation: Any) -> bool:
    """Whether an operation is dropout or augmentation, or holds some."""
    return any(
        isinstance(value, keras.random.SeedGenerator)
        for layer in operation._flatten_layers()
        for value in vars(layer).values()
    )


def _describe_operation(operation: Any) -> list:
    kind = [id(type(operation)), type(operation).__qualname__]
    if not isinstance(operation, keras.layers.Layer):
        return [kind, _state(operation), _callables(operation)]
    try:
        with warnings.catch_warnings():
            # Keras warns of functions that cannot be saved; here nothing is.
            warnings.simplefilter("ignore")
            config = operation.get_config()
    except NotImplementedError:
        # An operation that cannot say what it is equals only itself.
        return [kind, id(operation)]
    trainable = [bool(w.trainable) for w in operation.weights]
    callables = [_callables(layer) for layer in operation._flatten_layers()]
    return [kind, _strip(config), trainable, operation.dtype_policy.name, callables]


def _state(operation: Any) -> dict:
    return {
        key: value
        for key, value in vars(operation).items()
        if not key.startswith("_")
        and key != "name"
        and isinstance(value, (*_CONSTANTS, tuple, list))
    }


def _callables(operation: Any) -> list:
    """The user's own activations, regularizers, ...: a configuration only holds their names."""
    return [
        [name, _describe_callable(value)]
        for name, value in sorted(vars(operation).items())
        if callable(value)
        and not isinstance(value, keras.layers.Layer)
        and not hasattr(type(operation), name)
        and not name.endswith("initializer")
    ]


def _describe_callable(value: Any) -> Any:
    """What is equal for functions of one piece of code, and for objects of one state."""
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [id(value.__code__), *map(_describe_value, [*cells, *(value.__defaults__ or ())])]
    if isinstance(value, keras.regularizers.Regularizer | keras.constraints.Constraint):
        state = {key: _describe_value(item) for key, item in vars(value).items()}
        return [id(type(value)), state]
    return id(value)


def _describe_value(value: Any) -> Any:
    """Constants by their text, arrays by their content, what may change by its identity."""
    if isinstance(value, tuple):
        return [_describe_value(item) for item in value]
    if isinstance(value, _CONSTANTS):
        return repr(value)
    if not hasattr(value, "__array__"):
        return id(value)
    array = keras.ops.convert_to_numpy(value)
    return [array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()]


def _strip(config: Any) -> Any:
    """Drops what does not change the computation: names, initial values and seeds."""
    if isinstance(config, dict):
        return {
            key: _strip(value)
            for key, value in config.items()
            if key not in ("name", "seed", "build_config") and not key.endswith("initializer")
        }
    if isinstance(config, list | tuple):
        return [_strip(value) for value in config]
    return config


def _constants(call: Call) -> list:
    arguments = call.arguments.fill_in(dict.fromkeys(call.inputs, "tensor"))
    return keras.tree.map_structure(_describe_value, list(arguments))
