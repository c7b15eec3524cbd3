"""Private parts of Keras: only this module touches them, so that only it breaks when they change.

Its tests say on which versions of Keras, TensorFlow and JAX they were run.
"""

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

# Two threads at once would put back each other's functions.
_replacing = threading.RLock()


class Node(NamedTuple):
    """One call of an operation in the graph of a model; arguments may hold symbolic tensors."""

    operation: keras.Operation
    args: tuple
    kwargs: dict[str, Any]
    outputs: list[keras.KerasTensor]


def functional(model: Any) -> Any:
    """The functional form of a Sequential or functional model; `None` if there is no such form."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


def nodes(function: Any) -> Iterator[Node]:
    """The calls of a functional model in topological order, without its input layers."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if not node.is_input:
                arguments = node.arguments
                yield Node(node.operation, arguments.args, arguments.kwargs, node.outputs)


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """A layer and all layers inside of the layer, at any depth."""
    return layer._flatten_layers()


def attributes_of(operation: keras.Operation) -> dict[str, Any]:
    """What a class of an operation, other than the classes of Keras, or its user has set on it.

    Of Keras's own layers, their configurations tell what private attributes do.
    """
    names = _own_names(keras.Model if isinstance(operation, keras.Model) else keras.Layer)
    own = type(operation).__module__.startswith("keras.")
    return {
        name: value
        for name, value in vars(operation).items()
        if name not in names and not name.startswith("_self_") and not (own and name[0] == "_")
    }


@functools.cache
def _own_names(kind: type) -> frozenset[str]:
    """Attributes by which Keras itself remembers something of a layer, or of a compiled model."""
    layer = kind(name="layer")
    later = {"call", "backend", "history", "_build_input_shape"}
    if isinstance(layer, keras.Model):
        layer.compile("sgd", "mse")
    # Not all layers have a regularizer of their activity in their configuration.
    return frozenset({*vars(layer), *later} - {"activity_regularizer"})


def sharing_objects() -> contextlib.AbstractContextManager:
    """Lets objects that Keras serializes or deserializes twice stay one object.

    While a model is saved or loaded this is so already.
    """
    from keras.src.backend.common import global_state
    from keras.src.saving.serialization_lib import ObjectSharingScope

    active = global_state.get_global_attribute("shared_objects/id_to_obj_map") is not None
    return contextlib.nullcontext() if active else ObjectSharingScope()


@contextlib.contextmanager
def unrolled(layers: list[keras.Layer]) -> Iterator[None]:
    """Runs the recurrent layers among some step by step instead of in a loop of the program."""
    loops = [layer for layer in layers if getattr(layer, "unroll", None) is False]
    with _replacing:
        try:
            for layer in loops:
                layer.unroll = True
            yield
        finally:
            for layer in loops:
                layer.unroll = False


@contextlib.contextmanager
def in_inference_mode(layers: list[keras.Layer]) -> Iterator[None]:
    """Runs layers in inference mode, whatever the mode of the layers that call them.

    Where a layer is called, Keras looks up its method `call`, which is another one meanwhile.
    """
    # Two threads at once would put back each other's methods.
    with _replacing:
        try:
            for layer in layers:
                # Keras's own way to set attributes would track the method.
                object.__setattr__(layer, "call", _without_training(layer.call))
            yield
        finally:
            for layer in layers:
                object.__delattr__(layer, "call")


@contextlib.contextmanager
def recording(layers: list[keras.Layer]) -> Iterator[list[tuple]]:
    """Records the calls of layers: a layer, its arguments by position and by name, its output."""
    calls: list[tuple] = []
    with _replacing:
        try:
            for layer in layers:
                object.__setattr__(layer, "call", _recorded(layer, layer.call, calls))
            yield calls
        finally:
            for layer in layers:
                object.__delattr__(layer, "call")


def _recorded(layer: keras.Layer, call: Callable, calls: list[tuple]) -> Callable:
    def record(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        calls.append((layer, args, kwargs, output))
        return output

    return record


def _without_training(call: Callable) -> Callable:
    def inference(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **{**kwargs, "training": False})

    return inference


def loss_of(identifier: Any, y: Any, outputs: Any) -> keras.losses.Loss | None:
    """The loss that `compile` makes of a name, class, instance or function for such targets."""
    from keras.src.trainers.compile_utils import get_loss

    return get_loss(identifier, y, outputs)


def metric_of(identifier: Any, y: Any, outputs: Any) -> keras.metrics.Metric:
    """The metric that `compile` makes of a name, class, instance or function."""
    from keras.src.trainers.compile_utils import get_metric

    return get_metric(identifier, y, outputs)


@contextlib.contextmanager
def random_seed(seed: int) -> Iterator[None]:
    """Sets the seeds that `keras.utils.set_random_seed` sets, whatever other threads draw.

    Keras draws the seeds of layers without a seed from Python's `random`, from which threads of
    other packages draw as well, such as the event loop of a dask worker.
    """
    module = keras.src.random.seed_generator
    with _replacing:
        theirs = module.python_random
        keras.utils.set_random_seed(seed)
        # Of this seed, Python's own would draw the same.
        module.python_random = random.Random(seed)
        try:
            yield
        finally:
            module.python_random = theirs


def of_same_rank(y: Any, outputs: Any) -> tuple[Any, Any]:
    """Targets and outputs whose ranks Keras's losses make equal, by a last axis of size 1."""
    from keras.src.losses.loss import squeeze_or_expand_to_same_rank

    return squeeze_or_expand_to_same_rank(y, outputs)


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer takes its learning rate from a schedule."""
    schedule = keras.optimizers.schedules.LearningRateSchedule
    # An optimizer that wraps another has no rate of its own.
    return isinstance(getattr(optimizer, "_learning_rate", None), schedule)


def functional_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A copy of an optimizer whose `stateless_apply` works on every backend.

    TensorFlow's optimizers write to `tf.Variable`s through `tf.distribute`. Below them in the
    class hierarchy stands the backend-free optimizer of Keras, whose methods the copy has. The copy
    is not built. An optimizer that does more than update variables step by step is refused.
    """
    kind, base = type(optimizer), keras.optimizers.Optimizer
    if kind is keras.optimizers.Nadam:
        kind = base = _Nadam
    for name in ("apply", "_backend_apply_gradients", "_backend_update_step"):
        if getattr(kind, name) is not getattr(base, name):
            raise ValueError(
                "Expected an optimizer that only defines `update_step` (SGD, Adam, RMSprop, ...). "
                f"Received: optimizer={kind.__name__}, which defines {name!r}"
            )
    for option in ("use_ema", "gradient_accumulation_steps", "loss_scale_factor"):
        if getattr(optimizer, option):
            raise ValueError(
                f"Optimizers with `{option}` are not supported. "
                f"Received: {option}={getattr(optimizer, option)}"
            )
    if keras.backend.backend() == "tensorflow":
        kind = type(kind.__name__, (kind,), _without_tensorflow(kind))
    return copied_optimizer(optimizer, kind)


class _Nadam(keras.optimizers.Nadam):
    """Nadam whose product of momenta is one of the optimizer's variables, which Keras's is not."""

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        dtype = self._u_product.dtype
        self._u_product = self.add_variable((), initializer="ones", dtype=dtype, name="u_product")

    def _backend_update_step(self, gradients: list, variables: list, learning_rate: Any) -> None:
        step = keras.ops.cast(self.iterations + 1, self._u_product.dtype)
        momentum = self.beta_1 * (1 - 0.5 * keras.ops.power(0.96, step))
        self.assign(self._u_product, self._u_product * momentum)
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable, learning_rate)


def copied_optimizer(
    optimizer: keras.optimizers.Optimizer, kind: type | None = None
) -> keras.optimizers.Optimizer:
    """A copy of an optimizer, not built, of the optimizer's class or of another kind."""
    config = optimizer.get_config()
    if isinstance(config["learning_rate"], dict):
        # Keras would look by name for a schedule, which may be the user's own.
        config["learning_rate"] = optimizer._learning_rate
    return (kind or type(optimizer)).from_config(config)


def _without_tensorflow(kind: type) -> dict[str, Callable]:
    """The backend-free form of the methods that an optimizer has from TensorFlow's optimizer."""
    from keras.src.backend.tensorflow.optimizer import TFOptimizer
    from keras.src.optimizers.base_optimizer import BaseOptimizer

    return {
        name: vars(BaseOptimizer)[name]
        for name, method in vars(TFOptimizer).items()
        if name in vars(BaseOptimizer)
        and not name.startswith("__")
        and getattr(kind, name) is method
    }


@contextlib.contextmanager
def replaced(replacements: dict[str, Callable]) -> Iterator[None]:
    """Replaces functions of Keras's backend for neural networks, by which layers compute.

    Args:
        replacements: For the name of each function, a function from Keras's own to the new one.
    """
    module = keras.src.backend.nn
    with _replacing:
        theirs = {name: getattr(module, name) for name in replacements}
        try:
            for name, replacement in replacements.items():
                setattr(module, name, replacement(theirs[name]))
            yield
        finally:
            for name, function in theirs.items():
                setattr(module, name, function)
