"""Dense stages taken apart, for objectives that need the pre-activation of a stage."""

import keras
from keras import activations, ops
from keras import layers as kl

from pretrain.backend import Tensor
from pretrain.stages import Stage

_ARRANGING = (kl.Flatten, kl.Reshape, kl.Permute)
# With these activations, an output depends on a single pre-activation.
_ELEMENTWISE = tuple(
    getattr(activations, name)
    for name in (
        *("linear", "sigmoid", "hard_sigmoid", "tanh", "hard_tanh", "softplus", "softsign"),
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu"),
        *("mish", "exponential", "log_sigmoid", "squareplus", "tanh_shrink"),
    )
)


class DenseStage:
    """A stage of one Dense layer and element-wise activations, computed in two steps.

    Args:
        stage: A stage for which `is_dense` is true.
    """

    def __init__(self, stage: Stage) -> None:
        operations = _operations(stage)
        position = next(i for i, layer in enumerate(operations) if type(layer) is kl.Dense)
        self._before, self.dense = operations[:position], operations[position]
        self._after = operations[position + 1 :]

    def pre_activation(self, x: Tensor) -> Tensor:
        """The stage's pre-activation, from its inputs."""
        for layer in self._before:
            x = layer(x)
        x = ops.matmul(x, self.dense.kernel)
        return x if self.dense.bias is None else x + self.dense.bias

    def activate(self, pre_activation: Tensor) -> Tensor:
        """The stage's output, from its pre-activation."""
        values = self.dense.activation(pre_activation)
        for layer in self._after:
            values = layer(values)
        return values


def is_dense(stage: Stage) -> bool:
    """Whether a stage is a Dense layer between layers that reshape and element-wise activations."""
    operations = _operations(stage)
    kinds = [type(operation) for operation in operations]
    if kinds.count(kl.Dense) != 1:
        return False
    position = kinds.index(kl.Dense)
    return (
        all(isinstance(operation, _ARRANGING) for operation in operations[:position])
        and operations[position].activation in _ELEMENTWISE
        and all(_is_elementwise(operation) for operation in operations[position + 1 :])
    )


def _operations(stage: Stage) -> list[keras.Operation]:
    """The operations of a stage, without dropout, which is off during pretraining."""
    operations = [call.operation for call in stage.graph.calls]
    return [operation for operation in operations if not isinstance(operation, kl.Dropout)]


def _is_elementwise(operation: keras.Operation) -> bool:
    if type(operation) is kl.Activation:
        return operation.activation in _ELEMENTWISE
    return isinstance(operation, kl.ReLU | kl.LeakyReLU | kl.ELU)
