"""Cut a Keras model into stages: what "a layer" means in layer-wise pretraining."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.checks import brief
from pretrain.graph import Call, Graph
from pretrain.internals import functional, layers_of, recording
from pretrain.unpooling import is_max_pooling


def of_rank(name: str, rank: int) -> type[keras.Layer]:
    """Keras's layer of a name for 1, 2 or 3 spatial axes: `Conv2D` of `"Conv"` and 2."""
    return getattr(kl, f"{name}{rank}D")


def _of_all_ranks(*names: str) -> tuple[type[keras.Layer], ...]:
    return tuple(of_rank(name, rank) for name in names for rank in (1, 2, 3))


# Layers that only arrange values belong to the projection that reads the arrangement.
_ARRANGING = (
    *(kl.Flatten, kl.Reshape, kl.Permute, kl.RepeatVector),
    *_of_all_ranks("ZeroPadding", "Cropping", "UpSampling"),
    *_of_all_ranks("GlobalAveragePooling", "GlobalMaxPooling"),
)
# What these layers make of values in [0, 1] lies in [0, 1] too.
_RANGE_KEEPING = (
    *_ARRANGING,
    *_of_all_ranks("MaxPooling", "AveragePooling", "SpatialDropout"),
    kl.Dropout,
)

# The values between which Keras's operations and activations of these names end.
_RANGES = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "sigmoid", "hard_sigmoid"), (0, 1)),
    **dict.fromkeys(("Tanh", "HardTanh", "Softsign", "tanh", "hard_tanh", "softsign"), (-1, 1)),
}


# The number of a tensor that is in no model's graph.
_MARKED = -1
# Random inputs, by which it is found out what a model without a graph does with its layers.
_PROBES = 8


class _EndOfMask(keras.layers.Layer):
    """A layer whose output carries no mask: a mask crosses a cut by what `MarkPadding` does."""

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None


@keras.saving.register_keras_serializable("pretrain")
class MarkPadding(_EndOfMask):
    """Sets the padded steps of sequences to 0, so that their mask can be read from their values.

    A value of 0 at any other step becomes the smallest positive number.
    """

    def call(self, x: Tensor, mask: Tensor) -> Tensor:
        return ops.where(_expanded(mask, x), _nonzero(x), ops.zeros_like(x))

    def compute_output_spec(self, x: Any, mask: Any) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, x.dtype)


def _nonzero(x: Tensor) -> Tensor:
    """The same values, of which those that are 0 become the smallest positive number."""
    smallest = np.finfo("float16" if x.dtype == "float16" else "float32").smallest_normal
    return ops.where(x == 0, ops.cast(smallest, x.dtype), x)


def _expanded(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of steps (batch, steps) with as many axes as x."""
    return ops.reshape(mask, (*ops.shape(mask), *[1] * (len(x.shape) - len(mask.shape))))


@keras.saving.register_keras_serializable("pretrain")
class ReadMask(_EndOfMask):
    """The mask of sequences whose padded steps are 0: booleans (batch, steps)."""

    def call(self, x: Tensor) -> Tensor:
        return ops.any(x != 0, axis=tuple(range(2, len(x.shape))))

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape[:2], "bool")


@keras.saving.register_keras_serializable("pretrain")
class Segment(_EndOfMask):
    """A piece of a model's graph with one input and one output, run as a layer.

    A segment shares the layers, and so the weights, of the model that the segment was cut from.
    Dropout and augmentation are off in a segment. `output_shape` includes the batch axis.
    """

    def __init__(self, graph: Graph, output_shape: tuple, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.graph = graph
        self.features_in = tuple(graph.input_shape[1:])
        self.features_out = tuple(output_shape[1:])
        self.operations = list(dict.fromkeys(call.operation for call in graph.calls))
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        tensors = {self.graph.input: x}
        for call in self.graph.calls:
            call.run(tensors, training)
        return tensors[self.graph.output]

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (input_shape[0], *self.features_out)

    def get_config(self) -> dict[str, Any]:
        output_shape = (None, *self.features_out)
        config = {"graph": graph.to_config(self.graph), "output_shape": output_shape}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Segment":
        return cls(**{**config, "graph": graph.from_config(config["graph"])})

    def resize(self, features_in: tuple) -> None:
        """Gives axes of open size the sizes of the examples that the segment is to read."""
        self.graph = graph.resized(self.graph, features_in)
        self.features_in = tuple(self.graph.input_shape[1:])
        self.features_out = tuple(graph.tensors(self.graph)[self.graph.output].shape[1:])

    @property
    def flops(self) -> int:
        """Forward FLOPs per example."""
        return sum(call.flops for call in self.graph.calls)

    def architecture_text(self) -> str:
        """A text that is equal for segments of the same architecture."""
        return graph.architecture_text(self.graph)


class Stage(Segment):
    """One stage of a model: a projection with the operations that belong to the projection.

    The `preamble` holds the calls between the stage before (or the model's input) and this stage,
    which are not trained; `None` if there are no such calls. The `name` of a stage is the name of
    its first projection. In `any_features_out`, which is like `features_out`, axes whose size the
    model leaves open are `None`, whatever the size of the examples.

    Example:

    >>> import numpy as np
    >>> from pretrain import networks, split_stages
    >>> first, second = split_stages(networks.mlp((6,), classes=3, depth=2, units=4))
    >>> second(first(np.zeros((5, 6), "float32"))).shape[1]
    4
    """

    def __init__(
        self, graph: Graph, output_shape: tuple, preamble: Segment | None, name: str
    ) -> None:
        super().__init__(graph, output_shape, name=name)
        self.any_features_out = self.features_out
        # Keras would count the preamble's weights among the stage's, so Keras must not see it.
        object.__setattr__(self, "preamble", preamble)

    def __repr__(self) -> str:
        return f"<Stage {self.name}, from {self.features_in} to {self.features_out}>"

    @property
    def projection(self) -> Call:
        """The first call with a projection."""
        return next(call for call in self.graph.calls if graph.matrices(call.operation))

    @property
    def convolution(self) -> keras.Layer | None:
        """The first convolution, which may be inside another layer; `None` if there is none."""
        return next(filter(graph.is_convolution, self._projecting_layers), None)

    def counted(self, x: Tensor) -> Tensor | None:
        """Which values of inputs x are no padding, booleans of x's shape.

        The result is `None` if the stage does not mask the steps of its inputs.
        """
        tensors = {self.graph.input: x}
        for call in self.graph.calls:
            if call.dtype == "bool" and tensors.keys() >= {*call.inputs.values()}:
                call.run(tensors, training=False)
        # Steps are an axis beside the batch and the features.
        masks = [m for m in [*tensors.values()][1:] if len(m.shape) == 2 < len(x.shape)]
        return ops.broadcast_to(_expanded(masks[-1], x), ops.shape(x)) if masks else None

    def corrupted(self, x: Tensor, clean: Tensor) -> Tensor:
        """Corrupted inputs x whose padded steps are those of the clean inputs, and no others."""
        counted = self.counted(clean)
        return x if counted is None else ops.where(counted, _nonzero(x), clean)

    @property
    def reads_tokens(self) -> bool:
        """Whether the inputs are integers: by their data type, or since an embedding reads them."""
        embeds = any(isinstance(layer, kl.Embedding) for layer in self._projecting_layers)
        # Behind an axis of features, an embedding is one of positions.
        return graph.reads_integers(self.graph) or (embeds and len(self.features_in) < 2)

    def halves(self) -> tuple["Stage", Segment]:
        """The stage up to the input of the max pooling that it ends with, and the rest.

        Behind the pooling, layers that keep the shape may stand.
        """
        calls, cuts = self.graph.calls, _cuts(self.graph)
        places = [i for i, call in enumerate(calls) if is_max_pooling(call.operation)]
        rest = calls[places[0] :] if len(places) == 1 and places[0] in cuts else []
        fits = rest and rest[0].output_shape == rest[-1].output_shape
        if not fits or any(graph.matrices(call.operation) for call in rest):
            raise ValueError(
                "Unpooling by switches needs a stage that ends with one MaxPooling layer, behind "
                "which only layers stand that keep the shape: give each stage an objective of its "
                "own, and use unpooling='repeat' for the other stages. Received: stage "
                f"{self.name!r} of {[operation.name for operation in self.operations]}"
            )
        before = _piece(self.graph, cuts, calls[: places[0]])
        pooling = Segment(*_piece(self.graph, cuts, rest), name=f"{self.name}_pooling")
        return Stage(*before, self.preamble, self.name), pooling

    @property
    def _projecting_layers(self) -> list[keras.Layer]:
        projections = [c.operation for c in self.graph.calls if graph.matrices(c.operation)]
        return [layer for operation in projections for layer in layers_of(operation)]


def split_stages(
    model: keras.Model,
    head: int = 1,
    stages: Sequence[Sequence[str]] | None = None,
    input_shape: tuple | None = None,
) -> list[Stage]:
    """Cuts a model into the stages that layer-wise pretraining trains one after another.

    The graph is cut at every tensor that all paths from input to output go through. A segment
    that holds a projection (Dense, Conv, or a block with a projection inside, such as a residual
    block) starts a stage. Normalization, activation, pooling and dropout join the projection
    before them. Reshape, flatten and global pooling join the projection after them. The layers
    before the first projection (rescaling, normalization, flatten) are the first stage's preamble.

    Example:

    >>> import keras
    >>> from keras import layers
    >>> from pretrain import split_stages
    >>> model = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     layers.Conv2D(8, 3, name="conv"),
    ...     layers.BatchNormalization(name="norm"),
    ...     layers.ReLU(name="relu"),
    ...     layers.Flatten(name="flatten"),
    ...     layers.Dense(20, name="hidden"),
    ...     layers.Dense(10, name="classifier"),
    ... ])
    >>> for stage in split_stages(model):
    ...     print(stage.name, stage.features_in, stage.features_out)
    conv (28, 28, 1) (26, 26, 8)
    hidden (26, 26, 8) (20,)

    Args:
        model: A built Keras model with one input. What leads to some of several outputs only, but
            not to all, is the last stage.
        head: Number of stages at the end of the model that are the classifier and are left out,
            at least 0; an encoder has no classifier, so `head=0`. Only used if `stages` is `None`.
        stages: Names of the layers of each stage, for a cut of your own. A subclassed model needs
            `stages`; its named layers are applied one after another.
        input_shape: Shape of an input, without the batch axis. A subclassed model needs the shape;
            a model that takes inputs of any size is cut for inputs of this size.

    Returns:
        The stages, from input to output.

    Raises:
        ValueError: If no stage is left, or `stages` does not fit the model.
    """
    if stages is not None and functional(model) is None:
        cut = _chain_stages(model, stages, input_shape)
        calls = [call for stage in cut for call in stage.graph.calls]
    else:
        flat = graph.flatten(model)
        segments, calls = _segments(flat), flat.calls
        cut = _named(flat, segments, stages) if stages is not None else _cut(flat, segments, head)
    _refuse_shared_weights(cut, calls)
    _resize(cut, input_shape)
    return cut


def _resize(stages: list[Stage], input_shape: tuple | None) -> None:
    """Gives axes whose size the model leaves open the sizes of an input."""
    if input_shape is None:
        return
    shape = tuple(input_shape)
    for segment in [s for stage in stages for s in (stage.preamble, stage) if s]:
        segment.resize(shape)
        shape = segment.features_out


def in_unit_interval(segments: Sequence[Segment]) -> bool:
    """Whether the output of consecutive segments comes from a sigmoid, and so lies in [0, 1]."""
    return value_range(segments) == (0, 1)


def value_range(segments: Sequence[Segment]) -> tuple[int, int] | None:
    """The ends of the range of consecutive segments' output; `None` if no activation bounds it."""
    names = _activation(segments)
    return next((_RANGES[name] for name in names if name in _RANGES), None)


def is_rectified(stage: "Stage", below: "Stage") -> bool:
    """Whether a stage reads the output of rectified linear units of the stage below."""
    segments = [below, stage.preamble] if stage.preamble else [below]
    return not {"ReLU", "relu"}.isdisjoint(_activation(segments))


def _activation(segments: Sequence[Segment]) -> tuple[str, ...]:
    """Names of what computes the output of consecutive segments: its class and its activation."""
    calls = [call for segment in segments for call in segment.graph.calls]
    kept = (*_RANGE_KEEPING, MarkPadding)
    operations = [call.operation for call in calls if not isinstance(call.operation, kept)]
    if not operations or getattr(operations[-1], "negative_slope", 0):
        return ()
    activation = getattr(operations[-1], "activation", None)
    return type(operations[-1]).__name__, getattr(activation, "__name__", "")


def _cut(flat: Graph, segments: list[list[Call]], head: int) -> list[Stage]:
    """Groups segments into stages by the operations that the segments hold."""
    if not isinstance(head, int) or head < 0:
        raise ValueError(f"`head` must be an integer of at least 0. Received: head={head}")
    preamble: list[Call] = []
    groups: list[list[Call]] = []
    waiting: list[Call] = []
    for segment in segments:
        if any(graph.matrices(call.operation) for call in segment):
            groups.append(waiting + segment)
            waiting = []
        elif not groups:
            preamble += segment
        elif waiting or all(isinstance(call.operation, _ARRANGING) for call in segment):
            waiting += segment
        else:
            groups[-1] += segment
    if waiting and groups:
        groups[-1] += waiting
    if len(groups) <= head:
        raise ValueError(
            f"Expected a model with more than head={head} stages, so that at least one stage can "
            f"be pretrained. Received: a model with {len(groups)} stages"
        )
    gaps = [preamble] + [[]] * (len(groups) - 1)
    return _build(flat, list(zip(gaps, groups, strict=True))[: len(groups) - head])


def _named(flat: Graph, segments: list[list[Call]], names: Sequence[Sequence[str]]) -> list[Stage]:
    """Groups segments into stages by the names that the caller gave."""
    known = {call.operation.name for call in flat.calls}
    _check_names(names, known)
    pieces: list[tuple[list[Call], list[Call]]] = []
    position = 0
    for stage in names:
        held = [i for i, s in enumerate(segments) if {c.operation.name for c in s} & set(stage)]
        first, last = held[0], held[-1]
        # Keras adds the operations that compute a mask, which the caller did not name.
        inside = {
            c.operation.name for s in segments[first : last + 1] for c in s if not c.makes_mask
        }
        if first < position or not inside <= set(stage):
            left_out = sorted(inside - set(stage))
            raise ValueError(
                "Each entry of `stages` must name all layers between two points that every path "
                "through the model goes through, in the order of the model. Received: "
                f"stages={names!r}, where {list(stage)} "
                + (f"leaves out {left_out}" if left_out else "comes too late")
            )
        gap = [c for s in segments[position:first] for c in s]
        pieces.append((gap, [c for s in segments[first : last + 1] for c in s]))
        position = last + 1
    return _build(flat, pieces)


def _chain_stages(
    model: keras.Model, names: Sequence[Sequence[str]], input_shape: tuple | None
) -> list[Stage]:
    """Stages of a model without a graph, whose named layers are applied one after another."""
    found = {layer.name: layer for layer in layers_of(model)[1:]}
    _check_names(names, set(found))
    if input_shape is None:
        raise ValueError(
            "`input_shape` is needed to cut a subclassed model. Received: input_shape=None"
        )
    _check_chain(model, [found[name] for stage in names for name in stage], input_shape)
    result: list[Stage] = []
    shape: tuple = (None, *input_shape)
    for stage in names:
        flat = graph.chain([found[name] for name in stage], shape, model.compute_dtype)
        shape = flat.calls[-1].output_shape
        result.append(_stage(flat, None))
    return result


def _check_chain(model: keras.Model, chain: list[keras.Layer], input_shape: tuple) -> None:
    """Refuses layers that a model does not apply one after another, and nothing between them.

    Such a model is run on a few random inputs, and its layers tell what they read.
    """
    x = np.random.default_rng(0).standard_normal((_PROBES, *input_shape)).astype("float32")
    with recording(_outermost(model, chain)) as calls:
        result = model(ops.convert_to_tensor(x), training=False)
    own = [call for call in calls if call[0] in chain]
    if [call[0] for call in own] != chain:
        raise ValueError(
            "Expected `stages` to name the layers of a subclassed model in the order in which the "
            "model calls the layers, each once. Received: layers "
            f"{[layer.name for layer in chain]}, where the model calls "
            f"{[call[0].name for call in own]}"
        )
    output, before = x, "the model's input"
    last = next(i for i, call in enumerate(calls) if call is own[-1])
    # What follows on the chain tells whether a function is applied to its output.
    for layer, args, kwargs, computed in [*own, *calls[last + 1 : last + 2]]:
        if kwargs.get("mask") is not None:
            raise ValueError(
                "A subclassed model is cut without the masks of its sequences, which would be "
                "lost. Expected a Sequential or functional model, of which `stages` passes masks "
                f"on. Received: layer {layer.name!r}, which takes a mask"
            )
        if not args or not _is_same(args[0], output):
            raise ValueError(_not_a_chain(f"layer {layer.name!r}, whose input is not {before}"))
        output, before = computed, f"the output of {layer.name!r}"
    ends = calls[-1] is own[-1]
    if ends and not any(_is_same(each, output) for each in keras.tree.flatten(result)):
        raise ValueError(_not_a_chain(f"a model whose output is not {before}"))


def _not_a_chain(received: str) -> str:
    return (
        "Expected a subclassed model that applies its named layers one after another, and nothing "
        "between or after them. Make a layer of every function that `call` applies "
        "(keras.layers.Activation, keras.layers.Reshape, keras.layers.Lambda), and name the layer "
        f"in `stages`. Received: {received}"
    )


def _outermost(model: keras.Model, chain: list[keras.Layer]) -> list[keras.Layer]:
    """Layers of a chain, and what a model calls beside them, without the layers inside of each."""
    inside = {id(inner) for layer in chain for inner in layers_of(layer)[1:]}
    holding = {id(layer) for layer in layers_of(model) if {*chain} & {*layers_of(layer)[1:]}}
    skipped = (inside | holding) - {*map(id, chain)}
    return [layer for layer in layers_of(model)[1:] if id(layer) not in skipped]


def _is_same(one: Any, other: Any) -> bool:
    """Whether two are tensors of equal values, up to the precision of half floats."""
    if not (hasattr(one, "shape") and hasattr(other, "shape")):
        return False
    one, other = (ops.convert_to_numpy(ops.cast(each, "float32")) for each in (one, other))
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-2, atol=1e-2)


class _Cut(NamedTuple):
    """A point of a graph: the tensor that later calls read, and the mask of its steps, if any."""

    value: keras.KerasTensor
    number: int
    mask: keras.KerasTensor | None = None
    mask_number: int | None = None


def _cuts(flat: Graph) -> dict[int, _Cut]:
    """The points between calls at which a single tensor is left that later calls read.

    A mask beside the tensor does not count. The keys say how many calls are before a point.
    """
    last_use = {flat.output: len(flat.calls)}
    for i, call in enumerate(flat.calls):
        for number in call.inputs.values():
            last_use[number] = max(last_use.get(number, 0), i)
    masks, symbols = graph.masks(flat), graph.tensors(flat)
    cuts = {0: _Cut(symbols[flat.input], flat.input)}
    live = {flat.input}
    for i, call in enumerate(flat.calls):
        live = {n for n in live | set(call.outputs) if last_use.get(n, -1) > i}
        values, beside = live - masks, live & masks
        steps = all(len(symbols[n].shape) == 2 for n in beside)
        if len(values) == 1 and len(beside) <= 1 and steps:
            pairs = ((symbols[n], n) for n in (*values, *beside))
            cuts[i + 1] = _Cut(*itertools.chain(*pairs))
    return cuts


def _segments(flat: Graph) -> list[list[Call]]:
    """Cuts the calls wherever a single tensor is left that later calls read."""
    points = sorted(_cuts(flat))
    return [flat.calls[start:stop] for start, stop in itertools.pairwise(points)]


def _build(flat: Graph, pieces: list[tuple[list[Call], list[Call]]]) -> list[Stage]:
    """Makes stages of `(preamble calls, stage calls)` pairs."""
    cuts, result = _cuts(flat), []
    for gap, calls in pieces:
        preamble = Segment(*_piece(flat, cuts, gap)) if gap else None
        piece, _ = _piece(flat, cuts, calls)
        result.append(_stage(piece, preamble))
    return result


def _piece(flat: Graph, cuts: dict[int, _Cut], calls: list[Call]) -> tuple[Graph, tuple]:
    """A graph of the calls between two cuts, and the shape of its output.

    Where a mask crosses a cut, the piece before it marks the padded steps of its output, and the
    piece behind it reads the mask from the marks.
    """
    start, stop = flat.calls.index(calls[0]), flat.calls.index(calls[-1]) + 1
    first, last = cuts[start], cuts[stop]
    output = last.number
    if first.mask is not None:
        read = graph.call_of(ReadMask(), {first.number: first.value}, first.mask_number)
        calls = [read, *calls]
    if last.mask is not None:
        output = _MARKED
        symbols = {last.number: last.value, last.mask_number: last.mask}
        calls = [*calls, graph.call_of(MarkPadding(), symbols, output)]
    shape = tuple(last.value.shape)
    return Graph(calls, first.number, output, tuple(first.value.shape)), shape


def _stage(flat: Graph, preamble: Segment | None) -> Stage:
    projections = [c.operation for c in flat.calls if graph.matrices(c.operation)]
    if not projections:
        raise ValueError(
            "Expected a layer with a weight matrix in every stage. Received: a stage of "
            f"{[call.operation.name for call in flat.calls]}"
        )
    return Stage(flat, flat.calls[-1].output_shape, preamble, projections[0].name)


def _check_names(names: Any, known: set[str]) -> None:
    lists = [names, *names] if isinstance(names, list | tuple) else [None]
    valid = all(isinstance(item, list | tuple) and item for item in lists)
    if not valid or not all(isinstance(name, str) for stage in names for name in stage):
        raise ValueError(
            "`stages` must be a list with a list of layer names for each stage. "
            f"Received: stages={brief(names)}"
        )
    flat = [name for stage in names for name in stage]
    unknown = sorted(set(flat) - known)
    if unknown or len(set(flat)) < len(flat):
        raise ValueError(
            f"`stages` must name layers of the model, each at most once: {sorted(known)}. "
            f"Received: stages={names!r}, with unknown names {unknown}"
        )


def _refuse_shared_weights(stages: list[Stage], calls: list[Call]) -> None:
    """Refuses stages whose training would change the results of other calls of the model."""
    for stage in stages:
        trained = {id(variable) for variable in stage.trainable_variables}
        outside = [call.operation for call in calls if call not in stage.graph.calls]
        variables = [v for operation in outside for v in getattr(operation, "variables", [])]
        shared = sorted({v.path for v in variables if id(v) in trained})
        if shared:
            raise ValueError(
                "Expected stages without common weights, since each stage is trained alone. "
                f"Received: stage {stage.name!r}, whose weights {shared} other layers use too"
            )
