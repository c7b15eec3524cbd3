"""A pretrained stack unrolled into one deep autoencoder."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.checks import fits, positive
from pretrain.examples import Examples
from pretrain.graph import Call
from pretrain.internals import functional, layers_of, sharing_objects
from pretrain.objectives import VariationalAutoencoder
from pretrain.objectives.autoencoder import unpooling_layers
from pretrain.objectives.decoders import Tied
from pretrain.report import Report, StageReport, check_report
from pretrain.stages import Segment, Stage, is_rectified, split_stages
from pretrain.unpooling import MaxUnpooling

_BATCH = 1000
# In inference mode, and so in a deep autoencoder, these layers return their input.
_IDENTITIES = (kl.Dropout, kl.GaussianDropout, kl.GaussianNoise, kl.Identity)


@keras.saving.register_keras_serializable("pretrain")
class DeepAutoencoder(keras.Model):
    """An encoder and a decoder as one model from inputs to reconstructions.

    A deep autoencoder can be compiled, trained, saved, loaded, cloned and exported as any Keras
    model. Import `pretrain` before `keras.saving.load_model`.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks, unroll
    >>> x = np.random.RandomState(0).random((64, 6)).astype("float32")
    >>> model = networks.mlp((6,), classes=3, depth=2, units=[4, 2])
    >>> deep = unroll(model, greedy_pretrain(model, x, epochs=2, batch_size=32, verbose=0))
    >>> codes = deep.encode(x)
    >>> codes.shape, deep.decode(codes).shape
    ((64, 2), (64, 6))

    Args:
        encoder: Model from inputs to codes.
        decoder: Model from codes to reconstructions. Where the decoder unpools by switches, it has
            further inputs, one for each max pooling: what the encoder's layer of the input's name
            returns, in which the places of the maxima are found.
        variational: Whether codes are latent variables with a standard normal prior.
    """

    def __init__(
        self, encoder: keras.Model, decoder: keras.Model, variational: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.variational = variational
        images = [encoder.get_layer(image.name).output for image in decoder.inputs[1:]]
        reading = keras.Model(encoder.inputs, [encoder.output, *images]) if images else encoder
        # Keras would save the layers of a second model beside the encoder's, but not of a method.
        self._reading = reading.__call__
        # Keras exports a model only after a call.
        self(keras.KerasTensor(encoder.input_shape, encoder.inputs[0].dtype))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self.decoder(self._reading(x, training=training), training=training)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], *self.decoder.output_shape[1:])

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Codes (n, ...) of inputs x (n, ...), in inference mode.

        The codes of a variational model are the means of the latent variables (n, latent).
        """
        return _in_batches(self.encoder, x, self.encoder)

    def decode(self, code: ArrayLike) -> np.ndarray:
        """Reconstructions (n, ...) from codes (n, ...), in inference mode.

        The codes of a variational model are values of the latent variables (n, latent).

        Raises:
            ValueError: If the decoder unpools by switches, of which codes know nothing.
        """
        if len(self.decoder.inputs) > 1:
            raise ValueError(
                "This decoder puts values back at the places of the maxima of the encoder's "
                "poolings, which codes alone do not tell. Expected `reconstruct(x)`, or a "
                "pretraining with unpooling='repeat'. Received: codes for a decoder that also "
                f"reads the outputs of {[image.name for image in self.decoder.inputs[1:]]}"
            )
        return _in_batches(self.decoder, code, self.decoder)

    def reconstruct(self, x: ArrayLike) -> np.ndarray:
        """Reconstructions (n, ...) of inputs x (n, ...), in inference mode.

        Unless the decoder unpools by switches, they are `decode(encode(x))`.
        """
        return _in_batches(self, x, self.encoder)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Decodes draws from the prior of the latent variables.

        Args:
            n: Number of draws, at least 1.
            seed: Seed of the draws.

        Returns:
            Reconstructions (n, ...): the means of the distributions p(x | z).

        Raises:
            ValueError: If the model is not variational, unpools by switches, or `n` is out of
                range.

        Reference:
            [Kingma & Welling, 2013](https://arxiv.org/abs/1312.6114)
        """
        latent = self._latent("sample")
        draws = np.random.default_rng(seed).standard_normal((positive("n", n), latent))
        return self.decode(draws.astype("float32"))

    def interpolate(self, a: ArrayLike, b: ArrayLike, steps: int) -> np.ndarray:
        """Decodes the straight line between the codes of two inputs.

        The line between two codes is `decode(np.linspace(a, b, steps))`.

        Args:
            a: Input at the start, of the shape of one input.
            b: Input at the end, of the shape of one input.
            steps: Number of points, both ends among them, at least 2.

        Returns:
            Reconstructions (steps, ...).

        Raises:
            ValueError: If the model is not variational, unpools by switches, or an argument is out
                of range.
        """
        self._latent("interpolate")
        if positive("steps", steps) < 2:
            raise ValueError(f"`steps` must be an integer of at least 2. Received: steps={steps}")
        shape = tuple(self.encoder.input_shape[1:])
        if np.shape(a) != np.shape(b) or not fits(np.shape(a), shape):
            raise ValueError(
                f"`a` and `b` must be single inputs, of shape {shape}. "
                f"Received: a of shape {np.shape(a)}, b of shape {np.shape(b)}"
            )
        return self.decode(np.linspace(*self.encode(np.stack([a, b])), steps))

    def latent_grid(self, size: int) -> np.ndarray:
        """Decodes a grid of two latent variables: the manifold that was learned.

        The grid's coordinates are the quantiles (i + 1/2) / size of the standard normal.

        Args:
            size: Number of points in each direction, at least 1.

        Returns:
            Reconstructions (size, size, ...). The first latent variable grows along the first
            axis, the second latent variable along the second axis.

        Raises:
            ValueError: If the model is not variational, unpools by switches, does not have 2 latent
                variables, or `size` is out of range.

        Reference:
            [Kingma & Welling, 2013, figure 4](https://arxiv.org/abs/1312.6114)
        """
        latent = self._latent("latent_grid")
        if latent != 2:
            raise ValueError(
                "`latent_grid` needs 2 latent variables: VariationalAutoencoder(latent=2). "
                f"Received: a model with {latent}"
            )
        quantiles = ndtri((np.arange(positive("size", size)) + 0.5) / size)
        grid = np.stack(np.meshgrid(quantiles, quantiles, indexing="ij"), axis=-1)
        decoded = self.decode(grid.reshape(-1, 2).astype("float32"))
        return decoded.reshape(size, size, *decoded.shape[1:])

    def _latent(self, method: str) -> int:
        """Number of latent variables; refuses a model without latent variables."""
        if not self.variational:
            raise ValueError(
                f"`{method}` needs latent variables with a prior: pretrain the last stage with "
                "VariationalAutoencoder. Received: a deep autoencoder whose last stage was "
                "pretrained with a different objective"
            )
        return self.encoder.output_shape[-1]

    def get_config(self) -> dict[str, Any]:
        # A tied decoder shares the encoder's layer. Keras only keeps a layer shared if the layer
        # was serialized before, so the shared layers are serialized here a first time.
        with sharing_objects():
            for layer in _tied_layers(self.decoder):
                keras.saving.serialize_keras_object(layer.encoder)
            return {
                **super().get_config(),
                "encoder": keras.saving.serialize_keras_object(self.encoder),
                "decoder": keras.saving.serialize_keras_object(self.decoder),
                "variational": self.variational,
            }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DeepAutoencoder":
        with sharing_objects():
            encoder = keras.saving.deserialize_keras_object(config["encoder"])
            decoder = keras.saving.deserialize_keras_object(config["decoder"])
        return cls(**{**config, "encoder": encoder, "decoder": decoder})


def unroll(model: keras.Model, report: Report, member: int | None = None) -> DeepAutoencoder:
    """The deep autoencoder of a pretrained stack, ready for joint fine-tuning.

    The pretrained stages are the encoder. The stages' decoders, from the last stage to the first,
    are the decoder. A decoder returns the pre-activation of its stage's input; a sigmoid follows
    where the objective took the input for binary (cross-entropy, Bernoulli), and a rectifier where
    the input is the output of rectified linear units. A variational stage
    passes on the means of its latent variables and draws nothing, so that fine-tuning minimizes a
    reconstruction loss without the divergence from the prior. The decoder of a stage that was
    pretrained with `unpooling="switches"` reads where the encoder's maxima were; such a deep
    autoencoder reconstructs inputs and does not decode codes alone.

    The layers are shared, not copied: fine-tuning the deep autoencoder moves the stages of `model`
    and the decoders in `report`. Dropout and augmentation are off, as in pretraining.

    The output is what the first pretrained layer reads; flattened or reshaped inputs get the shape
    that they had before. If `model` starts with preprocessing, so must the targets of `fit`:
    `deep.fit(x, x / 255)` for a model that starts with `Rescaling(1 / 255)`, and images of the new
    size for a model that starts with `Resizing`.

    A model that takes inputs of any size becomes a deep autoencoder of any size, if all its stages
    are convolutions, or layers that work step by step. A size must differ from that of the examples
    of the pretraining by a multiple of all strides, or the reconstruction has another size. The
    decoder of any other stage always returns the size of these examples.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks, unroll
    >>> x = np.random.RandomState(0).random((64, 6)).astype("float32")
    >>> model = networks.mlp((6,), classes=3, depth=2, units=[4, 2])
    >>> deep = unroll(model, greedy_pretrain(model, x, epochs=2, batch_size=32, verbose=0))
    >>> deep.compile("adam", "mse")
    >>> history = deep.fit(x, x, epochs=1, verbose=0)  # fine-tuned as a whole
    >>> deep.reconstruct(x).shape
    (64, 6)

    Args:
        model: The pretrained model; `population.member(i)` for a member of a population.
        report: The report that `greedy_pretrain` or `joint_pretrain` returned for the model.
        member: Index of the member that `model` is, from 0; `None` if no population was pretrained.

    Returns:
        The deep autoencoder, from (n, ...) to (n, ...) of the same shape, unless the model starts
        with preprocessing that changes the shape. The outputs lie in [0, 1] if the objective took
        the first stage's input for binary.

    Raises:
        ValueError: If model, report and member do not belong together, a stage has no decoder, or
            a layer between two stages cannot be undone.

    Reference:
        [Hinton & Salakhutdinov, 2006](https://doi.org/10.1126/science.1127647)
    """
    member = _checked_member(report, member)
    stages = _cut(model, report, member)
    first = stages[0]
    up, down, images = _up_and_down(stages, report.stages, member)
    up = [first.preamble, *up] if first.preamble else up
    dtype = model.inputs[0].dtype if getattr(model, "inputs", None) else None
    start = keras.Input((first.preamble or first).features_in, dtype=dtype)
    variational = _is_variational(report.stages[-1])
    return _joined(start, up, down + undoing(first, first), images, variational)


def stacked(stages: list[Stage], trained: Sequence[Any], name: str) -> keras.Model:
    """Stages in training as a model: a deep autoencoder, or a classifier of the stage's input.

    Args:
        stages: The stages, whose first is fed with its inputs.
        trained: For each stage its `objective`, `decoders` and `heads`, as a report has them.
        name: Name of the model.
    """
    start = keras.Input(stages[0].features_in)
    if trained[0].decoders[0] is None:
        return keras.Sequential([start, _segment(stages[0]), trained[0].heads[0]], name=name)
    path = _up_and_down(stages, trained, 0)
    return _joined(start, *path, _is_variational(trained[-1]), name=name)


def _up_and_down(
    stages: list[Stage], trained: Sequence[Any], member: int
) -> tuple[list[keras.Layer], list[keras.Layer], list[Segment]]:
    """Layers from the first stage's input to the last code, and back to that input.

    The third list has the layers of the first whose outputs the unpooling layers of the second
    read, from the first stage to the last.
    """
    up, down, images = [], [], []
    for number, (stage, own) in enumerate(zip(stages, trained, strict=True)):
        last = number == len(stages) - 1
        up += [stage.preamble] if number and stage.preamble else []
        pieces = list(map(_segment, own.objective.pieces(stage)))
        images += pieces[:-1]
        up += [*pieces, *(_mean(own.heads[member]) if last and _is_variational(own) else [])]
        undone = undoing(stage, stages[0]) if number else []
        rectified = number > 0 and is_rectified(stage, stages[number - 1])
        down = _decoding(stage, own, member, last, rectified) + undone + down
    return up, down, images


def _joined(
    start: Any,
    up: list[keras.Layer],
    down: list[keras.Layer],
    images: list[Segment],
    variational: bool,
    **options: Any,
) -> DeepAutoencoder:
    encoder = keras.Model(start, _through(up, start), name="encoder")
    code = keras.Input(encoder.output_shape[1:])
    read = [keras.Input(layer.features_out, name=layer.name) for layer in images]
    outputs = _through(down, code, read)
    decoder = keras.Model([code, *read] if read else code, outputs, name="decoder")
    return DeepAutoencoder(encoder, decoder, variational, **options)


def _through(layers: list[keras.Layer], values: Any, images: Sequence[Any] = ()) -> Any:
    """What layers make of values; those of unpooling also read images, the last image first."""
    images = list(images)
    for layer in layers:
        values = layer(values, images.pop()) if isinstance(layer, MaxUnpooling) else layer(values)
    return values


def _segment(piece: Segment) -> Segment:
    """A stage, or a piece of it, as a layer that can be saved."""
    return Segment(piece.graph, (None, *piece.features_out), name=piece.name)


def _checked_member(report: Any, member: Any) -> int:
    """Index of the member, after a check that the report has such a member."""
    check_report(report)
    count = len(report.seeds)
    if member is None and count > 1:
        raise ValueError(
            f"Expected the index of a member, since a population of {count} was pretrained: "
            "unroll(population.member(i), report, member=i). Received: member=None"
        )
    number = 0 if member is None else member
    if not isinstance(number, int | np.integer) or not 0 <= number < count:
        raise ValueError(
            f"`member` must be an integer from 0 to {count - 1}. Received: member={member!r}"
        )
    return int(number)


def _cut(model: Any, report: Report, member: int) -> list[Stage]:
    """The pretrained stages of a model, after a check that the report fits the model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Expected a Keras model; for a population, pass population.member(i) and member=i. "
            f"Received: model={model!r}"
        )
    for trained in report.stages:
        if trained.decoders[member] is None:
            raise ValueError(
                "Expected stages with a decoder, which reconstructs the stage's input. Received: "
                f"stage {trained.name!r}, pretrained with {type(trained.objective).__name__}"
            )
    chain = functional(model) is None
    shape = report.stages[0].decoders[member].output_shape[1:] if chain else None
    stages = split_stages(model, 0, report.layers, shape)[: len(report.stages)]
    pairs = zip(report.stages, stages, strict=False)
    decoded = [trained.objective.pieces(stage)[0] for trained, stage in pairs]
    found = [(piece.features_in, piece.features_out) for piece in decoded]
    readers = [t.heads if _is_variational(t) else t.decoders for t in report.stages]
    expected = [
        (trained.decoders[member].output_shape[1:], models[member].input_shape[1:])
        for trained, models in zip(report.stages, readers, strict=True)
    ]
    if len(found) != len(expected) or not all(map(_agree, found, expected)):
        raise ValueError(
            "Expected the model that was pretrained, with stages of inputs and outputs of shapes "
            f"{expected}. Received: a model with stages of inputs and outputs of shapes {found}"
        )
    return stages


def _agree(found: tuple, expected: tuple) -> bool:
    """Whether the shapes of a stage are those expected, where `None` stands for any size."""
    return all(map(fits, found, expected))


def _is_variational(trained: Any) -> bool:
    return isinstance(trained.objective, VariationalAutoencoder)


def _decoding(
    stage: Stage, trained: StageReport, member: int, last: bool, rectified: bool
) -> list[keras.Layer]:
    """Layers from a stage's output, or its latent variables, to a reconstruction of its input."""
    mean = _mean(trained.heads[member]) if not last and _is_variational(trained) else []
    unpooling = unpooling_layers(trained.objective.pieces(stage))
    decoder = _tied_to(stage, trained.decoders[member])
    name = decoding_activation(trained.objective, rectified)
    return [*mean, *unpooling, decoder, *([kl.Activation(name)] if name else [])]


def decoding_activation(objective: Any, rectified: bool) -> str | None:
    """Name of the activation that follows the decoder of a stage, by what the stage reads."""
    return "sigmoid" if objective.binary else "relu" if rectified else None


def _mean(head: keras.Model) -> list[keras.Layer]:
    """Layers from a variational stage's output to the means of its latent variables."""
    return [head, kl.Cropping1D((0, 1)), kl.Reshape(head.output_shape[2:])]


def _tied_to(stage: Stage, decoder: keras.Model) -> keras.Model:
    """The decoder of a stage; a tied decoder is tied to the stage itself.

    The report's decoder may be tied to a copy, in which a population's member has its weights.
    """
    tied, encoder = _tied_layers(decoder), stage.projection.operation
    if not tied or tied[0].encoder is encoder:
        return decoder
    layers = [each.of(encoder) if each is tied[0] else each for each in decoder.layers]
    start = keras.Input(decoder.input_shape[1:])
    rebuilt = keras.Sequential([start, *layers], name=decoder.name)
    for new, old in zip(_tied_layers(rebuilt)[0].own, tied[0].own, strict=True):
        new.assign(old)
    return rebuilt


def _tied_layers(decoder: keras.Model) -> list[Tied]:
    return [layer for layer in layers_of(decoder) if isinstance(layer, Tied)]


def undoing(stage: Stage, first: Stage) -> list[keras.Layer]:
    """Layers that undo a stage's preamble, from the stage's input to the previous stage's output.

    Of the preamble of the `first` stage, these layers undo no more than the arrangements since the
    shape was last changed by preprocessing, which cannot be undone.
    """
    calls = stage.preamble.graph.calls[::-1] if stage.preamble else []
    if stage is first:
        calls = [c for c in itertools.takewhile(_keeps_shape, calls) if _arranges(c)]
    untrained = [call.operation.name for call in calls if graph.matrices(call.operation)]
    if untrained:
        raise ValueError(
            "A deep autoencoder has decoders of pretrained stages only, and cannot undo a layer "
            "that was not pretrained. Expected pretrained stages that follow one another. "
            f"Received: layers {untrained} before stage {stage.name!r}"
        )
    return [layer for call in calls for layer in _inverse(call, stage)]


def _keeps_shape(call: Call) -> bool:
    """Whether a call only arranges values, or changes them one by one."""
    one = len(call.inputs) == 1 and not graph.matrices(call.operation)
    return _arranges(call) or (one and call.output_shape == call.input_shape)


def _arranges(call: Call) -> bool:
    return isinstance(call.operation, kl.Flatten | kl.Reshape | kl.Permute)


def _inverse(call: Call, stage: Stage) -> list[keras.Layer]:
    operation, shape = call.operation, call.input_shape[1:]
    if isinstance(operation, kl.Flatten | kl.Reshape):
        return [kl.Reshape(shape)]
    if isinstance(operation, kl.Permute):
        return [kl.Permute(tuple(int(axis) + 1 for axis in np.argsort(operation.dims)))]
    if isinstance(operation, _IDENTITIES):
        return []
    raise ValueError(
        "Only Flatten, Reshape and Permute layers can be undone between stages. Expected `stages` "
        "to name all other layers, each in the stage that the layer belongs to. Received: layer "
        f"{operation.name!r} ({type(operation).__name__}) before stage {stage.name!r}"
    )


def _in_batches(model: keras.Model, x: Any, first: keras.Model) -> np.ndarray:
    """Outputs of a model, which begins with another, in inference mode."""
    if getattr(x, "shape", (1,))[:1] == (0,):
        return keras.ops.convert_to_numpy(model(np.asarray(x), training=False))
    blocks = Examples(x, model=first).blocks(_BATCH)
    outputs = [model(block.x, training=False) for (block,) in blocks]
    return np.concatenate([keras.ops.convert_to_numpy(output) for output in outputs])
