"""The base classes of all objectives and of the layers that objectives train."""

from dataclasses import replace
from typing import NamedTuple, Self

import keras
import numpy as np
from keras import ops

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.stages import Segment, Stage


class Moments(NamedTuple):
    """Weighted means of inputs and squared inputs, frequencies of labels, and the mean weight.

    A trivial model knows the means and nothing more. `shares` are the weighted shares of examples
    in which each feature counts, and `counted` is the mean number of features that count in an
    example; `None` if all do.
    """

    mean: np.ndarray
    mean_square: np.ndarray
    frequencies: np.ndarray | None = None
    weight: float = 1.0
    shares: np.ndarray | float = 1.0
    counted: float | None = None

    @property
    def features(self) -> float:
        """The mean number of features that count in an example."""
        return self.mean.size if self.counted is None else self.counted


class Objective:
    """What a stage is trained on: the base of the frozen dataclasses of this package.

    Once `decided`, it is a `pretrain.task.Task` of the learner that it builds.
    """

    names: tuple[str, ...] = ("loss",)
    metrics: tuple[keras.metrics.Metric, ...] = ()
    needs_targets = False
    # Whether the loss compares a reconstruction with a target, which need not be the input.
    has_target = False
    # The field that can be "auto", and the field's values for binary inputs and for other inputs.
    auto: tuple[str, str, str] | None = None

    @property
    def parts(self) -> tuple["Objective", ...]:
        """The objective of each stage that is trained."""
        return (self,)

    @property
    def loss_name(self) -> str:
        """Name of the loss; the objective must be decided."""
        raise NotImplementedError

    @property
    def binary(self) -> bool:
        """Whether the decoder gives logits of values in [0, 1]; the objective must be decided."""
        return self.auto is not None and getattr(self, self.auto[0]) == self.auto[1]

    def decided(self, binary: bool) -> Self:
        """A copy of the objective for one stage, in which the stage's input has settled `"auto"`.

        Args:
            binary: Whether the stage's input lies in [0, 1] because of what produces the input.
        """
        if self.auto is None or getattr(self, self.auto[0]) != "auto":
            return self
        field, yes, no = self.auto
        return replace(self, **{field: yes if binary else no})

    def pieces(self, stage: Stage) -> list[Segment]:
        """The stage; in two, if the decoder goes back to the places of its max pooling's maxima.

        The decoder decodes the output of the first piece.
        """
        return [stage]

    def build(self, stage: Stage, seed: int, copy: bool = False) -> "Learner":
        """The layer that is trained: the stage itself, and new models such as a decoder.

        Args:
            stage: The stage to train. The learner shares its variables.
            seed: Seed of the initial weights of the new models.
            copy: Whether a tied decoder is tied to a copy of the stage's projection, because the
                learner belongs to a member of a population whose weights the stage does not hold.

        Raises:
            ValueError: If the objective does not fit the stage.
        """
        raise NotImplementedError

    def inputs(self, x: Tensor, key: Tensor) -> dict[str, Tensor]:
        """What the learner is called with.

        Args:
            x: Clean batch of the stage's inputs (batch, ...).
            key: Key for random numbers, integers of shape (2,).
        """
        return {"x": x}

    def batch_loss(
        self, x: Tensor, y: Tensor, outputs: dict[str, Tensor], weight: Tensor
    ) -> Tensor:
        """The scalar that is minimized, from the arguments of `scores`."""
        losses = self.scores(x, y, outputs)[0]
        return ops.mean(losses if weight is None else losses * weight)

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        """The scores of each example.

        Args:
            x: Clean batch of the stage's inputs (batch, ...).
            y: Labels (batch,); or what is to be reconstructed, of the shape of x, NaN where a
                value is missing; `None` stands for x.
            outputs: What the learner returned.

        Returns:
            An array of shape (batch,) for each of `names`.
        """
        raise NotImplementedError

    def baseline(self, moments: Moments) -> float:
        """The loss of a trivial model.

        Where the objective has a score `reconstruction`, the baseline is to be compared with that
        score, since a trivial model has no penalty.
        """
        raise NotImplementedError


class Learner(keras.layers.Layer):
    """A stage together with the models that are trained beside it.

    The stage goes back to the model it was cut from, and the other models go into the report.
    `call` takes what the objective's `inputs` returns, and returns what its `scores` take.

    Args:
        stage: The stage.
        decoder: Model from a code to the pre-activation of a reconstruction, if there is one.
        head: Model that reads something else from the stage's output, such as the logits of
            classes, if there is one.
    """

    def __init__(
        self, stage: Stage, decoder: keras.Model | None = None, head: keras.Model | None = None
    ) -> None:
        super().__init__(autocast=False)
        self.stage = stage
        self.decoder = decoder
        self.head = head
        self.built = True

    @property
    def parts(self) -> list["Learner"]:
        """The learner of each stage that is trained."""
        return [self]

    @property
    def companions(self) -> list[keras.Model]:
        """The models that are trained beside the stage."""
        return [model for model in (self.decoder, self.head) if model is not None]

    @property
    def own_variables(self) -> list[keras.Variable]:
        """The companions' variables, tied variables among them, and the learner's `state`."""
        return [v for model in self.companions for v in model.variables] + self.state

    @property
    def state(self) -> list[keras.Variable]:
        """The variables in which the learner remembers something from batch to batch."""
        return []

    @property
    def flops(self) -> int:
        """Forward FLOPs per example."""
        shape = self.stage.features_out
        graphs = [graph.resized(graph.flatten(model), shape) for model in self.companions]
        return self.stage.flops + sum(call.flops for each in graphs for call in each.calls)

    def architecture_text(self) -> str:
        """A text that is equal for learners of the same architecture."""
        graphs = [self.stage.graph, *map(graph.flatten, self.companions)]
        return " ".join([type(self).__name__, *(graph.architecture_text(g) for g in graphs)])
