"""Cut a Keras model into stages: what "a layer" means in layer-wise pretraining."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers as kl

from pretrain import graph
from pretrain.graph import Call, Graph
from pretrain.internals import functional, layers_of

# They only arrange values, so they belong to the projection that reads the arrangement.
_ARRANGING = (
    kl.Flatten,
    kl.Reshape,
    kl.Permute,
    kl.RepeatVector,
    kl.ZeroPadding1D,
    kl.ZeroPadding2D,
    kl.ZeroPadding3D,
    kl.Cropping1D,
    kl.Cropping2D,
    kl.Cropping3D,
    kl.UpSampling1D,
    kl.UpSampling2D,
    kl.UpSampling3D,
    kl.GlobalAveragePooling1D,
    kl.GlobalAveragePooling2D,
    kl.GlobalAveragePooling3D,
    kl.GlobalMaxPooling1D,
    kl.GlobalMaxPooling2D,
    kl.GlobalMaxPooling3D,
)
# A value in [0, 1] leaves them in [0, 1].
_RANGE_KEEPING = _ARRANGING + (
    kl.MaxPooling1D,
    kl.MaxPooling2D,
    kl.MaxPooling3D,
    kl.AveragePooling1D,
    kl.AveragePooling2D,
    kl.AveragePooling3D,
    kl.Dropout,
    kl.SpatialDropout1D,
    kl.SpatialDropout2D,
    kl.SpatialDropout3D,
)


@keras.saving.register_keras_serializable("pretrain")
class Segment(keras.layers.Layer):
    """A piece of a model's graph with one input and one output, run as a layer.

    It shares the layers, and so the weights, of the model it was cut from. Dropout and
    augmentation are off in it.

    Args:
        graph: The calls of the piece.
        output_shape: Shape of the output, batch axis included.
    """

    def __init__(self, graph: Graph, output_shape: tuple, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.graph = graph
        self.features_in = tuple(graph.input_shape[1:])
        self.features_out = tuple(output_shape[1:])
        self.operations = list(dict.fromkeys(call.operation for call in graph.calls))
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
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

    @property
    def flops(self) -> int:
        """Forward FLOPs per example."""
        return sum(call.flops for call in self.graph.calls)

    def fingerprint(self) -> str:
        """A text that is equal for segments of the same architecture."""
        return graph.fingerprint(self.graph.calls)


class Stage(Segment):
    """One stage of a model: a projection with what belongs to it.

    Args:
        graph: The calls of the stage.
        output_shape: Shape of the output, batch axis included.
        preamble: What stands, fixed, between the stage before (or the model's input) and this
            one, if anything.
        name: Name of the stage: that of its first projection.
    """

    def __init__(
        self, graph: Graph, output_shape: tuple, preamble: Segment | None, name: str
    ) -> None:
        super().__init__(graph, output_shape, name=name)
        # Past Keras, which would count the preamble's weights among the stage's.
        object.__setattr__(self, "preamble", preamble)

    @property
    def projection(self) -> Call:
        """The first call with a projection."""
        return next(call for call in self.graph.calls if graph.matrices(call.operation))


def split_stages(
    model: keras.Model,
    head: int = 1,
    stages: Sequence[Sequence[str]] | None = None,
    input_shape: tuple | None = None,
) -> list[Stage]:
    """Cuts a model into the stages that layer-wise pretraining trains one after another.

    The graph is cut at every tensor that all paths from input to output go through. A segment
    that holds a projection (Dense, Conv, or a block with one, such as a residual block) starts a
    stage. Normalization, activation, pooling and dropout join the projection before them;
    reshape, flatten and global pooling the projection after them. What comes before the first
    projection (rescaling, normalization, flatten) is the first stage's preamble.

    Args:
        model: A built Keras model with one input and one output.
        head: Number of stages at the end that are the classifier and are left out; 0 for an
            encoder. Only used if `stages` is `None`.
        stages: Names of the layers of each stage, if you want to choose them; required for a
            subclassed model, whose named layers are applied one after another.
        input_shape: Shape of a subclassed model's input, without the batch axis.

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
    return cut


def in_unit_interval(segments: Sequence[Segment]) -> bool:
    """Whether what consecutive segments compute comes from a sigmoid, so that it is in [0, 1]."""
    calls = [call for segment in segments for call in segment.graph.calls]
    operations = [c.operation for c in calls if not isinstance(c.operation, _RANGE_KEEPING)]
    last = operations[-1]
    sigmoids = (keras.activations.sigmoid, keras.activations.hard_sigmoid)
    named = type(last).__name__ in ("Sigmoid", "HardSigmoid")
    return named or getattr(last, "activation", None) in sigmoids


def _cut(flat: Graph, segments: list[list[Call]], head: int) -> list[Stage]:
    """Groups segments into stages by what they hold."""
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
            f"Expected more stages than the {head} of the head, to have one to pretrain. "
            f"Received: a model with {len(groups)} stages"
        )
    gaps = [preamble] + [[]] * (len(groups) - 1)
    return _build(flat, list(zip(gaps, groups, strict=True))[: len(groups) - head])


def _named(flat: Graph, segments: list[list[Call]], names: Sequence[Sequence[str]]) -> list[Stage]:
    """Groups segments into stages by the names the caller gave."""
    known = {call.operation.name for call in flat.calls}
    _check_names(names, known)
    pieces: list[tuple[list[Call], list[Call]]] = []
    position = 0
    for stage in names:
        held = [i for i, s in enumerate(segments) if {c.operation.name for c in s} & set(stage)]
        first, last = held[0], held[-1]
        inside = {c.operation.name for s in segments[first : last + 1] for c in s}
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
    """Stages of a model without a graph: its named layers, one after another."""
    found = {layer.name: layer for layer in layers_of(model)[1:]}
    _check_names(names, set(found))
    if input_shape is None:
        raise ValueError(
            "`input_shape` is needed to cut a subclassed model. Received: input_shape=None"
        )
    result = []
    shape: tuple = (None, *input_shape)
    for stage in names:
        flat = graph.chain([found[name] for name in stage], shape, model.compute_dtype)
        shape = flat.calls[-1].output_shape
        result.append(_stage(flat, shape, None))
    return result


def _segments(flat: Graph) -> list[list[Call]]:
    """Cuts the calls wherever a single tensor is left that later calls read."""
    last_use = {flat.output: len(flat.calls)}
    for i, call in enumerate(flat.calls):
        for number in call.inputs.values():
            last_use[number] = max(last_use.get(number, 0), i)
    segments: list[list[Call]] = [[]]
    live = {flat.input}
    for i, call in enumerate(flat.calls):
        segments[-1].append(call)
        live = {n for n in live | set(call.outputs) if last_use.get(n, -1) > i}
        if len(live) == 1:
            segments.append([])
    return segments[:-1]


def _build(flat: Graph, pieces: list[tuple[list[Call], list[Call]]]) -> list[Stage]:
    """Makes stages of `(preamble calls, stage calls)` pairs."""
    result = []
    number, shape = flat.input, flat.input_shape
    for gap, calls in pieces:
        preamble = None
        if gap:
            part, number, shape = _piece(gap, number, shape)
            preamble = Segment(part, shape)
        part, number, shape = _piece(calls, number, shape)
        result.append(_stage(part, shape, preamble))
    return result


def _piece(calls: list[Call], number: int, shape: tuple) -> tuple[Graph, int, tuple]:
    """A graph of calls that starts at a tensor, with the tensor it ends in."""
    end = calls[-1]
    return Graph(calls, number, end.outputs[0], shape), end.outputs[0], end.output_shape


def _stage(flat: Graph, output_shape: tuple, preamble: Segment | None) -> Stage:
    projections = [c.operation for c in flat.calls if graph.matrices(c.operation)]
    if not projections:
        raise ValueError(
            "Expected a layer with a weight matrix in every stage. Received: a stage of "
            f"{[call.operation.name for call in flat.calls]}"
        )
    if any(isinstance(operation, kl.Embedding) for operation in projections):
        raise ValueError(
            "A stage cannot reconstruct integer inputs: name the stages after the embedding with "
            f"`stages`. Received: a stage with Embedding layer {projections[0].name!r}"
        )
    return Stage(flat, output_shape, preamble, projections[0].name)


def _check_names(names: Any, known: set[str]) -> None:
    if not _is_list(names) or not all(_is_list(s) and all(map(_is_name, s)) for s in names):
        raise ValueError(
            "`stages` must be a list with a list of layer names for each stage. "
            f"Received: stages={names!r}"
        )
    flat = [name for stage in names for name in stage]
    unknown = sorted(set(flat) - known)
    if unknown or len(set(flat)) < len(flat):
        raise ValueError(
            f"`stages` must name layers of the model, each once, of {sorted(known)}. "
            f"Received: stages={names!r}, with unknown names {unknown}"
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _refuse_shared_weights(stages: list[Stage], calls: list[Call]) -> None:
    """Refuses stages whose training would move what other calls of the model compute."""
    for stage in stages:
        trained = {id(variable) for variable in stage.trainable_variables}
        outside = [call.operation for call in calls if call not in stage.graph.calls]
        variables = [v for operation in outside for v in getattr(operation, "variables", [])]
        shared = sorted({v.path for v in variables if id(v) in trained})
        if shared:
            raise ValueError(
                "Expected stages without common weights, since each is trained alone. "
                f"Received: {shared} of stage {stage.name!r}, which are used outside of it too"
            )
