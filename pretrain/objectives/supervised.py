"""Greedy supervised training, which trains a stage together with a small classifier on top."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers as kl
from keras import ops
from scipy.special import entr

from pretrain.backend import Tensor, as_floats
from pretrain.checks import positive
from pretrain.objectives.decoders import arranged, channels_last, permutation
from pretrain.objectives.objective import Learner, Moments, Objective
from pretrain.seeds import derive
from pretrain.stages import Stage, of_rank


@dataclass(frozen=True)
class SupervisedGreedy(Objective):
    """A stage whose output lets a head, a small auxiliary classifier, tell the classes apart.

    The objective is to minimize -log p(y | h), where p is the softmax of a head on the stage's
    output h. The head has k - 1 rectified layers of the stage's width and a linear layer. On
    images, the rectified layers are 3 x 3 convolutions. On images and sequences, the linear layer
    reads means over the pixels or steps. With k = 1 and dense stages this is the greedy supervised
    training of Bengio et al. (2006). The objective needs labels `y`.

    The scores are the loss and the `accuracy`. The baseline is the entropy of the classes'
    frequencies.

    Example:

    >>> import numpy as np
    >>> from pretrain import SupervisedGreedy, greedy_pretrain, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> options = {"epochs": 2, "batch_size": 32, "verbose": 0}
    >>> report = greedy_pretrain(model, x, SupervisedGreedy(classes=3), y=y, **options)
    >>> report.to_frame()["accuracy"].between(0, 1).all().item()
    True

    Args:
        classes: Number of classes, at least 1; the labels are integers in [0, classes).
        k: Number of layers of the head, at least 1.

    Reference:
        [Belilovsky et al., 2019](https://arxiv.org/abs/1812.11446)
    """

    classes: int
    k: int = 1

    names = ("loss", "accuracy")
    needs_targets = True
    loss_name = "sparse_categorical_crossentropy"

    def __post_init__(self) -> None:
        positive("classes", self.classes)
        positive("k", self.k)

    def build(self, stage: Stage, seed: int, copy: bool = False) -> Learner:
        return Classifier(stage, head=_head(stage, self.classes, self.k, seed))

    def scores(self, x: Tensor, y: Tensor, outputs: dict[str, Tensor]) -> list[Tensor]:
        labels = ops.cast(y, "int32")
        logits = as_floats(outputs["logits"])
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        hits = ops.cast(ops.argmax(logits, axis=-1), "int32") == labels
        return [losses, ops.cast(hits, losses.dtype)]

    def baseline(self, moments: Moments) -> float:
        return float(entr(moments.frequencies).sum())


class Classifier(Learner):
    """A stage followed by a head."""

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """The `"logits"` of a batch's classes (batch, classes)."""
        code = self.stage(inputs["x"], training=training)
        return {"logits": self.head(code, training=training)}


def _head(stage: Stage, classes: int, k: int, seed: int) -> keras.Model:
    order = channels_last(stage, stage.features_out)
    *size, width = arranged(stage.features_out, order)
    layers = [_hidden(stage, len(size), width, derive("head", i, seed)) for i in range(k - 1)]
    means = _means(size, width) if size else []
    initializer = keras.initializers.GlorotUniform(derive("head", "logits", seed))
    logits = kl.Dense(classes, kernel_initializer=initializer, name="logits")
    layers = [keras.Input(stage.features_out), *permutation(order), *layers, *means, logits]
    return keras.Sequential(layers, name=f"{stage.name}_head")


def _means(size: Sequence[int], width: int) -> list[keras.Layer]:
    """Layers that take means over all axes but the last."""
    if len(size) <= 3:
        return [of_rank("GlobalAveragePooling", len(size))(data_format="channels_last")]
    return [kl.Reshape((math.prod(size), width)), kl.GlobalAveragePooling1D("channels_last")]


def _hidden(stage: Stage, rank: int, width: int, seed: int) -> keras.Layer:
    settings = {"activation": "relu", "kernel_initializer": keras.initializers.HeNormal(seed)}
    if stage.convolution is None or not 1 <= rank <= 3:
        return kl.Dense(width, **settings)
    options = {"padding": "same", "data_format": "channels_last", **settings}
    return of_rank("Conv", rank)(width, 3, **options)
