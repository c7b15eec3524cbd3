"""Cut a Keras model into stages: what "a layer" means in layer-wise pretraining."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers as kl

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.checks import brief
from pretrain.graph import Call, Graph
from pretrain.internals import functional, layers_of


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


@keras.saving.register_keras_serializable("pretrain")
class Segment(keras.layers.Layer):
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

    @property
    def flops(self) -> int:
        """Forward FLOPs per example."""
        return sum(call.flops for call in self.graph.calls)

    def architecture_text(self) -> str:
        """A text that is equal for segments of the same architecture."""
        return graph.architecture_text(self.graph.calls)


class Stage(Segment):
    """One stage of a model: a projection with the operations that belong to the projection.

    The `preamble` holds the calls between the stage before (or the model's input) and this stage,
    which are not trained; `None` if there are no such calls. The `name` of a stage is the name of
    its first projection.
    """

    def __init__(
        self, graph: Graph, output_shape: tuple, preamble: Segment | None, name: str
    ) -> None:
        super().__init__(graph, output_shape, name=name)
        # Keras would count the preamble's weights among the stage's, so Keras must not see it.
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
    that holds a projection (Dense, Conv, or a block with a projection inside, such as a residual
    block) starts a stage. Normalization, activation, pooling and dropout join the projection
    before them. Reshape, flatten and global pooling join the projection after them. The layers
    before the first projection (rescaling, normalization, flatten) are the first stage's preamble.

    Args:
        model: A built Keras model with one input and one output.
        head: Number of stages at the end of the model that are the classifier and are left out,
            at least 0; an encoder has no classifier, so `head=0`. Only used if `stages` is `None`.
        stages: Names of the layers of each stage, for a cut of your own. A subclassed model needs
            `stages`; its named layers are applied one after another.
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
    """Whether the output of consecutive segments comes from a sigmoid, and so lies in [0, 1]."""
    calls = [call for segment in segments for call in segment.graph.calls]
    operations = [c.operation for c in calls if not isinstance(c.operation, _RANGE_KEEPING)]
    last = operations[-1]
    sigmoids = (keras.activations.sigmoid, keras.activations.hard_sigmoid)
    named = type(last).__name__ in ("Sigmoid", "HardSigmoid")
    return named or getattr(last, "activation", None) in sigmoids


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
    """Stages of a model without a graph, whose named layers are applied one after another."""
    found = {layer.name: layer for layer in layers_of(model)[1:]}
    _check_names(names, set(found))
    if input_shape is None:
        raise ValueError(
            "`input_shape` is needed to cut a subclassed model. Received: input_shape=None"
        )
    result: list[Stage] = []
    shape: tuple = (None, *input_shape)
    for stage in names:
        flat = graph.chain([found[name] for name in stage], shape, model.compute_dtype)
        shape = flat.calls[-1].output_shape
        result.append(_stage(flat, None))
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
            piece, number, shape = _piece(gap, number, shape)
            preamble = Segment(piece, shape)
        piece, number, shape = _piece(calls, number, shape)
        result.append(_stage(piece, preamble))
    return result


def _piece(calls: list[Call], number: int, shape: tuple) -> tuple[Graph, int, tuple]:
    """A graph of calls that starts at a tensor, and the number and shape of its last tensor."""
    end = calls[-1]
    return Graph(calls, number, end.outputs[0], shape), end.outputs[0], end.output_shape


def _stage(flat: Graph, preamble: Segment | None) -> Stage:
    projections = [c.operation for c in flat.calls if graph.matrices(c.operation)]
    if not projections:
        raise ValueError(
            "Expected a layer with a weight matrix in every stage. Received: a stage of "
            f"{[call.operation.name for call in flat.calls]}"
        )
    if any(isinstance(operation, kl.Embedding) for operation in projections):
        raise ValueError(
            "A stage cannot reconstruct integer inputs. Expected `stages` to name only the stages "
            f"after the embedding. Received: a stage with Embedding layer {projections[0].name!r}"
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
