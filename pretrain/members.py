"""The weights of many members of one architecture, and what the members compute."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.backend import Compiled
from pretrain.examples import Block
from pretrain.program import get_program
from pretrain.seeds import derive
from pretrain.task import Task


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

    def scores(self, task: Task, blocks: list[Block], stream: str = "") -> np.ndarray:
        """Mean scores of every member, in inference mode.

        Args:
            task: What to score the members on.
            blocks: A block of examples for all members, or one for each.
            stream: Name of the random stream of corruption, beside a member's seed.

        Returns:
            An array of shape (members, names of the task).
        """
        score = get_program(self.template, task).score
        keys = [key_of("validation", stream, seed) for seed in self.seeds]
        return np.stack([ops.convert_to_numpy(s) for s in self.each(score, [keys], blocks)])

    def each(self, function: Compiled, own: list[list], data: Sequence[tuple]) -> list:
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
