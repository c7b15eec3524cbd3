"""What all objectives have in common."""

from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from pretrain import graph
from pretrain.stages import Stage


class Moments(NamedTuple):
    """Means over examples, all that a trivial model knows.

    Args:
        mean: Mean of the inputs, an array of one input's shape.
        mean_square: Mean of their squares, likewise.
        frequencies: Frequency of each label, if there are labels.
    """

    mean: np.ndarray
    mean_square: np.ndarray
    frequencies: np.ndarray | None = None


class Objective:
    """What a stage is trained on: base of the frozen dataclasses of this package.

    Once `decided`, it is a `pretrain.task.Task` of the learner that it builds.
    """

    names: tuple[str, ...] = ("loss",)
    needs_targets = False

    @property
    def parts(self) -> tuple["Objective", ...]:
        """An objective for each stage that is trained."""
        return (self,)

    @property
    def loss_name(self) -> str:
        """Name of the loss, once decided."""
        raise NotImplementedError

    @property
    def binary(self) -> bool:
        """Whether a decoder gives logits of values in [0, 1], once decided."""
        return False

    def decided(self, binary: bool) -> Self:
        """The objective with nothing left open, for one stage.

        Args:
            binary: Whether the stage's input lies in [0, 1] because of what produces it.
        """
        raise NotImplementedError

    def build(self, stage: Stage, seed: int, copy: bool = False) -> "Learner":
        """The trainable layer of a stage: the stage, shared, with what is trained beside it.

        Args:
            stage: The stage to train.
            seed: Seed of the initial weights of what is new.
            copy: Whether tied weights are tied to a copy of the stage's: for a member of a
                population whose weights are not those of the stage.

        Raises:
            ValueError: If the objective does not fit the stage.
        """
        raise NotImplementedError

    def inputs(self, x: Any, key: Any) -> dict[str, Any]:
        """What the learner is called with for a clean batch and a key for random numbers."""
        return {"x": x}

    def batch_loss(self, x: Any, y: Any, outputs: dict[str, Any], weight: Any) -> Any:
        """The scalar that is minimized."""
        return ops.mean(self.scores(x, y, outputs)[0])

    def scores(self, x: Any, y: Any, outputs: dict[str, Any]) -> list:
        """An array of shape (batch,) for each of `names`."""
        raise NotImplementedError

    def baseline(self, moments: Moments) -> float:
        """The loss of a trivial model; of the reconstruction alone, where it is a part."""
        raise NotImplementedError


class Learner(keras.layers.Layer):
    """A stage with what is trained beside it; the stage stays, the rest is for the report.

    Its `call` takes what the objective's `inputs` gives, and gives what its `scores` take.

    Args:
        stage: The stage.
        decoder: Model from a code to the pre-activation of a reconstruction, if there is one.
        head: Model that reads something else from the stage's output, if there is one.
    """

    def __init__(
        self,
        stage: Stage,
        decoder: keras.Model | None = None,
        head: keras.Model | None = None,
    ) -> None:
        super().__init__(autocast=False)
        self.stage = stage
        self.decoder = decoder
        self.head = head
        self.built = True

    @property
    def parts(self) -> list["Learner"]:
        """A learner for each stage that is trained."""
        return [self]

    @property
    def companions(self) -> list[keras.Model]:
        """What is trained beside the stage."""
        return [model for model in (self.decoder, self.head) if model is not None]

    @property
    def own_variables(self) -> list:
        """The variables of the companions, tied ones among them, and what the layer remembers."""
        return [v for model in self.companions for v in model.variables] + self.state

    @property
    def state(self) -> list:
        """What the layer remembers from batch to batch."""
        return []

    @property
    def flops(self) -> int:
        """Forward FLOPs per example."""
        calls = [call for model in self.companions for call in graph.flatten(model).calls]
        return self.stage.flops + sum(call.flops for call in calls)

    def fingerprint(self) -> str:
        """A text that is equal for learners of the same architecture."""
        graphs = [self.stage.graph, *map(graph.flatten, self.companions)]
        return " ".join([type(self).__name__, *(graph.fingerprint(g.calls) for g in graphs)])
