import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, chain_model, gaussian, randomize, sequential

from pretrain import split_stages


def dense(units, name, activation="tanh", **options):
    return layers.Dense(units, activation=activation, name=name, **options)


def conv(filters, name, **options):
    options = {"activation": "relu", "padding": "same", **options}
    return layers.Conv2D(filters, 3, name=name, **options)


def functional(input_shape, function):
    inputs = keras.Input(input_shape)
    model = keras.Model(inputs, function(inputs))
    randomize(model)
    return model


def identity_block(x):
    h = dense(5, "d1")(x)
    h = layers.Add(name="add")([h, dense(5, "d2")(h)])
    h = layers.Activation("relu", name="after")(h)
    return dense(3, "head", None)(h)


def projection_block(x):
    h = conv(4, "c1")(x)
    inside = layers.BatchNormalization(name="norm")(conv(6, "c2", strides=2)(h))
    inside = conv(6, "c3")(inside)
    shortcut = layers.Conv2D(6, 1, strides=2, name="shortcut")(h)
    h = layers.Add(name="add")([inside, shortcut])
    h = layers.GlobalAveragePooling2D(name="pool")(h)
    return dense(3, "head", None)(h)


def preactivation_block(x):
    h = dense(5, "d1", None)(x)
    inside = layers.BatchNormalization(name="norm")(h)
    inside = layers.Activation("relu", name="relu")(inside)
    h = layers.Add(name="add")([h, dense(5, "d2", None)(inside)])
    return dense(3, "head", None)(h)


def two_blocks(x):
    h = dense(4, "d1")(x)
    h = layers.Add(name="add1")([h, dense(4, "d2")(h)])
    h = layers.Add(name="add2")([h, dense(4, "d3")(h)])
    return dense(3, "head", None)(h)


def branches_of_the_input(x):
    h = layers.Concatenate(name="join")([dense(4, "left")(x), dense(5, "right")(x)])
    return dense(3, "head", None)(h)


def unequal_branches(x):
    h = dense(6, "d1")(x)
    left = dense(4, "left2")(dense(5, "left1")(h))
    h = layers.Add(name="join")([left, dense(4, "right")(h)])
    return dense(3, "head", None)(h)


def nested(x):
    inner = keras.Sequential([keras.Input((4,)), dense(4, "b"), dense(5, "c")], name="inner")
    outer_input = keras.Input((6,))
    outer = keras.Model(outer_input, inner(dense(4, "a")(outer_input)), name="outer")
    return dense(3, "head", None)(outer(x))


def nested_block(x):
    inner_input = keras.Input((5,))
    inner = keras.Model(
        inner_input, layers.Add(name="add")([inner_input, dense(5, "d2")(inner_input)])
    )
    return dense(3, "head", None)(inner(dense(5, "d1")(x)))


IMAGE, VECTOR = (8, 8, 2), (6,)
CASES = {
    "dense": (
        lambda: sequential(VECTOR, dense(5, "a"), dense(4, "b"), dense(3, "head", None)),
        [],
        [["a"], ["b"], ["head"]],
    ),
    "functional": (
        lambda: functional(VECTOR, lambda x: dense(3, "head")(dense(5, "a")(x))),
        [],
        [["a"], ["head"]],
    ),
    "convolution": (
        lambda: sequential(
            IMAGE,
            conv(4, "c1"),
            layers.MaxPooling2D(name="p1"),
            conv(5, "c2", padding="valid"),
            layers.GlobalAveragePooling2D(name="global"),
            dense(3, "head", None),
        ),
        [],
        [["c1", "p1"], ["c2"], ["global", "head"]],
    ),
    "batch normalization before the activation": (
        lambda: sequential(
            VECTOR,
            dense(5, "a", None, use_bias=False),
            layers.BatchNormalization(name="n"),
            layers.ReLU(name="r"),
            dense(3, "head", None),
        ),
        [],
        [["a", "n", "r"], ["head"]],
    ),
    "batch normalization after the activation": (
        lambda: sequential(
            VECTOR,
            dense(5, "a", "relu"),
            layers.BatchNormalization(name="n"),
            dense(3, "head", None),
        ),
        [],
        [["a", "n"], ["head"]],
    ),
    "pre-activation": (
        lambda: sequential(
            VECTOR,
            layers.BatchNormalization(name="n1"),
            layers.ReLU(name="r1"),
            dense(5, "a", None),
            layers.BatchNormalization(name="n2"),
            layers.ReLU(name="r2"),
            dense(3, "head", None),
        ),
        ["n1", "r1"],
        [["a", "n2", "r2"], ["head"]],
    ),
    "residual block": (
        lambda: functional(VECTOR, identity_block),
        [],
        [["d1"], ["d2", "add", "after"], ["head"]],
    ),
    "residual block with projection": (
        lambda: functional(IMAGE, projection_block),
        [],
        [["c1"], ["c2", "norm", "c3", "shortcut", "add"], ["pool", "head"]],
    ),
    "pre-activation block": (
        lambda: functional(VECTOR, preactivation_block),
        [],
        [["d1"], ["norm", "relu", "d2", "add"], ["head"]],
    ),
    "consecutive blocks": (
        lambda: functional(VECTOR, two_blocks),
        [],
        [["d1"], ["d2", "add1"], ["d3", "add2"], ["head"]],
    ),
    "branches": (
        lambda: functional(VECTOR, branches_of_the_input),
        [],
        [["left", "right", "join"], ["head"]],
    ),
    "unequal branches": (
        lambda: functional(VECTOR, unequal_branches),
        [],
        [["d1"], ["left1", "left2", "right", "join"], ["head"]],
    ),
    "flatten": (
        lambda: sequential(
            IMAGE,
            conv(4, "c1"),
            layers.Flatten(name="flat"),
            layers.BatchNormalization(name="n"),
            dense(3, "head", None),
        ),
        [],
        [["c1"], ["flat", "n", "head"]],
    ),
    "reshape": (
        lambda: sequential(
            VECTOR,
            dense(16, "a"),
            layers.Reshape((4, 4, 1), name="shape"),
            conv(2, "c"),
            layers.Flatten(name="flat"),
            dense(3, "head", None),
        ),
        [],
        [["a"], ["shape", "c"], ["flat", "head"]],
    ),
    "dropout": (
        lambda: sequential(
            VECTOR,
            layers.Dropout(0.2, name="drop0"),
            dense(5, "a"),
            layers.Dropout(0.5, name="drop1"),
            dense(3, "head", None),
        ),
        ["drop0"],
        [["a", "drop1"], ["head"]],
    ),
    "preamble": (
        lambda: sequential(
            IMAGE,
            layers.Rescaling(1 / 3, offset=0.1, name="scale"),
            layers.Normalization(mean=0.2, variance=2.0, name="standard"),
            layers.Flatten(name="flat"),
            dense(5, "a"),
            dense(3, "head", None),
        ),
        ["scale", "standard", "flat"],
        [["a"], ["head"]],
    ),
    "nested models": (lambda: functional(VECTOR, nested), [], [["a"], ["b"], ["c"], ["head"]]),
    "nested block": (
        lambda: functional(VECTOR, nested_block),
        [],
        [["d1"], ["d2", "add"], ["head"]],
    ),
    "end of an encoder": (
        lambda: sequential(
            VECTOR, dense(5, "a"), dense(8, "b"), layers.Reshape((4, 2), name="shape")
        ),
        [],
        [["a"], ["b", "shape"]],
    ),
    "recurrent": (
        lambda: sequential(
            (5, 3),
            layers.LSTM(4, return_sequences=True, name="l1"),
            layers.LayerNormalization(name="n"),
            layers.LSTM(4, name="l2"),
            dense(3, "head", None),
        ),
        [],
        [["l1", "n"], ["l2"], ["head"]],
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    build, preamble, expected = CASES[request.param]
    return build(), preamble, expected


def names(segment):
    return [] if segment is None else [operation.name for operation in segment.operations]


def run(stages, x):
    """What the stages compute one after another, in inference mode."""
    for stage in stages:
        if stage.preamble is not None:
            x = stage.preamble(x, training=False)
        assert tuple(x.shape[1:]) == stage.features_in
        x = stage(x, training=False)
        assert tuple(x.shape[1:]) == stage.features_out
    return x


def examples(model):
    return ops.convert_to_tensor(gaussian(3, *model.input_shape[1:]))


def test_a_model_is_cut_where_all_paths_meet(case):
    model, preamble, expected = case
    stages = split_stages(model, head=0)
    # The order of parallel paths is Keras's business.
    assert [sorted(names(stage)) for stage in stages] == [sorted(group) for group in expected]
    assert names(stages[0].preamble) == preamble
    assert all(stage.preamble is None for stage in stages[1:])


def test_stages_one_after_another_are_the_model(case):
    model, *_ = case
    x = examples(model)
    outputs = run(split_stages(model, head=0), x)
    np.testing.assert_array_equal(array(outputs), array(model(x, training=False)))


def test_the_head_is_left_out(case):
    model, _, expected = case
    x = examples(model)
    everything = split_stages(model, head=0)
    for head in range(1, len(expected)):
        stages = split_stages(model, head=head)
        assert [names(s) for s in stages] == [names(s) for s in everything[:-head]]
        outputs = run(everything[-head:], run(stages, x))
        np.testing.assert_array_equal(array(outputs), array(model(x, training=False)))
    with pytest.raises(ValueError, match=rf"more than head=.*Received: .* {len(expected)} stages"):
        split_stages(model, head=len(expected))


def test_the_model_is_left_as_it_was(case):
    model, *_ = case
    before = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    config, weights = model.to_json(), [array(w).copy() for w in model.weights]
    run(split_stages(model), examples(model))
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == before
    assert model.to_json() == config
    assert [tuple(layer.output.shape) for layer in model.layers]
    for variable, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(array(variable), value)


def test_a_stage_shows_the_shapes_of_an_example():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="code"), layers.Dense(2)])
    assert repr(split_stages(model)[0]) == "<Stage code, from (6,) to (4,)>"


def test_one_stage_is_left_out_by_default():
    model = sequential(VECTOR, dense(5, "a"), dense(4, "b"), dense(3, "head"))
    assert [stage.name for stage in split_stages(model)] == ["a", "b"]


def test_stages_share_the_weights_of_the_model():
    model = sequential(VECTOR, dense(5, "a"), layers.BatchNormalization(), dense(3, "head"))
    (stage,) = split_stages(model)
    held = [*model.layers[0].variables, *model.layers[1].variables]
    assert {id(v) for v in stage.variables} == {id(v) for v in held}


def test_the_weights_of_a_preamble_are_not_those_of_the_stage():
    model = CASES["pre-activation"][0]()
    (stage,) = split_stages(model)
    held = [*model.get_layer("a").variables, *model.get_layer("n2").variables]
    assert {id(v) for v in stage.variables} == {id(v) for v in held}
    assert len(stage.preamble.trainable_variables) == 2


def test_a_stage_is_named_after_its_first_projection():
    stages = split_stages(functional(VECTOR, preactivation_block), head=0)
    assert [stage.name for stage in stages] == ["d1", "d2", "head"]


def test_operations_that_are_no_layers_are_cut_too():
    model = functional(VECTOR, lambda x: dense(3, "head")(ops.relu(dense(5, "a", None)(x)) * 2))
    x = examples(model)
    stages = split_stages(model, head=0)
    assert [len(names(stage)) for stage in stages] == [3, 1]
    np.testing.assert_array_equal(array(run(stages, x)), array(model(x)))


def test_dropout_and_augmentation_are_off_and_normalization_is_not():
    stack = [layers.GaussianNoise(1.0), dense(5, "a"), layers.Dropout(0.9)]
    model = sequential(VECTOR, *stack, layers.BatchNormalization(name="n"), dense(3, "head"))
    (stage,) = split_stages(model)
    x = examples(model)
    kernel, bias = (array(w) for w in model.get_layer("a").weights)
    hidden = np.tanh(array(x) @ kernel + bias)
    normalized = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-3)
    gamma, beta = (array(w) for w in model.get_layer("n").weights[:2])
    outputs = array(stage(stage.preamble(x, training=True), training=True))
    np.testing.assert_allclose(outputs, gamma * normalized + beta, rtol=1e-4, atol=1e-5)


def padded(n=12, steps=6, features=3):
    """Sequences of unequal lengths, padded by zeros."""
    x = gaussian(n, steps, features)
    x[np.arange(steps) >= 1 + np.arange(n)[:, None] % steps] = 0
    return x


MASKED = {
    "two recurrent layers": lambda: [
        layers.Masking(),
        layers.LSTM(5, return_sequences=True, name="a"),
        layers.GRU(4, name="b"),
    ],
    "zeros that are no padding": lambda: [
        layers.Masking(),
        layers.Dense(4, "relu", bias_initializer=keras.initializers.Constant(-1), name="a"),
        layers.LSTM(4, name="b"),
    ],
    "frames and pooling": lambda: [
        layers.Masking(),
        layers.TimeDistributed(layers.Dense(5), name="a"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(4, name="b"),
    ],
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("stages", [None, [["a"], ["b"]]])
def test_stages_behind_a_mask_ignore_the_padding_as_the_model_does(name, stages):
    stack = MASKED[name]()
    model = keras.Sequential([keras.Input((6, 3)), *stack, dense(3, "head")])
    if stages and len(stack) == 4:
        stages = [["a"], [stack[2].name, "b"]]
    cut = split_stages(model, stages=stages)
    assert [stage.name for stage in cut] == ["a", "b"]
    x = ops.convert_to_tensor(padded())
    own = keras.Model(model.inputs, model.get_layer("b").output)(x)
    np.testing.assert_allclose(array(run(cut, x)), array(own), atol=1e-6)


def test_words_behind_an_embedding_are_a_stage_that_ignores_the_padding():
    words = ops.convert_to_tensor([[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0]], "int32")
    embedding = layers.Embedding(9, 3, mask_zero=True, name="embedding")
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), embedding, layers.LSTM(5, name="a"), dense(3, "head")]
    )
    (stage,) = split_stages(model, stages=[["a"]])
    own = keras.Model(model.inputs, model.get_layer("a").output)(words)
    np.testing.assert_allclose(array(run([stage], words)), array(own), atol=1e-6)


class NormalizedBlock(layers.Layer):
    """A custom layer with dropout and batch normalization inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.project, self.drop = layers.Dense(5), layers.Dropout(0.9)
        self.norm = layers.BatchNormalization()

    def build(self, input_shape):
        self.project.build(input_shape)
        self.norm.build((*input_shape[:-1], 5))

    def call(self, x, training=False):
        x = self.drop(self.project(x), training=training)
        return self.norm(x, training=training)


@pytest.mark.parametrize("frames", [False, True])
def test_dropout_is_off_and_normalization_is_not_inside_one_layer(frames):
    inner = keras.Sequential(
        [layers.Dense(5), layers.Dropout(0.9), layers.BatchNormalization()], name="inner"
    )
    layer = layers.TimeDistributed(inner) if frames else NormalizedBlock()
    shape = (4, 6) if frames else (6,)
    (stage,) = split_stages(sequential(shape, layer, layers.Flatten(), dense(3, "head")))
    x = ops.convert_to_tensor(gaussian(200, *shape))
    norm = inner.layers[-1] if frames else layer.norm
    norm.moving_mean.assign(np.full(5, 9.0))
    before = array(norm.moving_mean)
    first, second = (array(stage(x, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    gamma, beta = map(array, (norm.gamma, norm.beta))
    steps = first[:, 0] if frames else first
    np.testing.assert_allclose(steps.mean(0), beta, atol=1e-3)
    np.testing.assert_allclose(steps.std(0), gamma, rtol=1e-2)
    assert not np.allclose(array(norm.moving_mean), before)


# Stages by name


def named_model():
    return sequential(
        VECTOR,
        dense(5, "a", "sigmoid"),
        layers.BatchNormalization(name="n"),
        dense(4, "b"),
        dense(4, "c"),
        dense(3, "head", None),
    )


@pytest.mark.parametrize(
    "chosen, preambles",
    [
        ([["a", "n"], ["b"], ["c"]], [[], [], []]),
        ([["a"], ["b"]], [[], ["n"]]),
        ([["b", "c"]], [["a", "n"]]),
        ([["a"], ["c", "head"]], [[], ["n", "b"]]),
        ((("a", "n", "b"),), [[]]),
    ],
)
def test_the_caller_chooses_stages(chosen, preambles):
    model = named_model()
    stages = split_stages(model, stages=chosen)
    assert [names(stage) for stage in stages] == [list(group) for group in chosen]
    assert [names(stage.preamble) for stage in stages] == preambles
    x = examples(model)
    expected = keras.Model(model.inputs, model.get_layer(chosen[-1][-1]).output)(x)
    np.testing.assert_array_equal(array(run(stages, x)), array(expected))


def test_the_caller_names_a_whole_block():
    model = functional(VECTOR, identity_block)
    (stage,) = split_stages(model, stages=[["d2", "add"]])
    assert names(stage.preamble) == ["d1"]
    assert names(stage) == ["d2", "add"]


def test_the_caller_names_layers_of_a_nested_model():
    stages = split_stages(functional(VECTOR, nested), stages=[["a", "b"], ["c"]])
    assert [names(stage) for stage in stages] == [["a", "b"], ["c"]]


LIST_OF_LISTS = "list with a list of layer names.*Received: stages="


@pytest.mark.parametrize(
    "chosen, message",
    [
        ([["b"], ["a"]], r"in the order of the model.*Received: .*\['a'\] comes too late"),
        ([["a", "b"]], r"Received: .*leaves out \['n'\]"),
        ([["a"], ["a", "n"]], "each at most once.*Received: stages="),
        ([["a", "nope"]], r"unknown names \['nope'\]"),
        ([["n"]], "weight matrix.*Received: a stage"),
        (["a", "b"], LIST_OF_LISTS),
        ("a", LIST_OF_LISTS),
        ([], LIST_OF_LISTS),
        ([[]], LIST_OF_LISTS),
        (True, LIST_OF_LISTS),
        (1.5, LIST_OF_LISTS),
        ([[1, "a"]], LIST_OF_LISTS),
        ([None], LIST_OF_LISTS),
    ],
)
def test_stages_that_do_not_fit_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        split_stages(named_model(), stages=chosen)


@pytest.mark.parametrize("part", [["d2"], ["add"], ["d1", "d2"]])
def test_a_part_of_a_block_is_refused(part):
    with pytest.raises(ValueError, match="every path.*Received.*leaves out"):
        split_stages(functional(VECTOR, identity_block), stages=[part])


def test_a_subclassed_model_is_cut_by_name():
    model = chain_model()
    x = ops.convert_to_tensor(gaussian(3, 6))
    cut = [["first", "norm"], ["second"], ["out"]]
    stages = split_stages(model, stages=cut, input_shape=(6,))
    assert [names(stage) for stage in stages] == cut
    assert [stage.features_out for stage in stages] == [(5,), (4,), (3,)]
    np.testing.assert_array_equal(array(run(stages, x)), array(model(x)))


# What is refused


class Between(keras.Model):
    """A subclassed model whose `call` does something between, or before, its layers."""

    def __init__(self, function, before=lambda x: x):
        super().__init__()
        self.function, self.before = function, before
        self.a, self.b, self.out = dense(5, "a"), dense(5, "b"), dense(3, "out")

    def call(self, x):
        return self.out(self.function(self.b(self.function(self.a(self.before(x))))))


class After(Between):
    """A subclassed encoder whose `call` applies a function to the output of its last layer."""

    def call(self, x):
        return self.function(self.out(self.b(self.a(x))))


def test_a_function_after_the_last_layer_of_a_subclassed_model_is_noticed():
    encoder, harmless = After(ops.tanh), After(ops.copy)
    for model in (encoder, harmless):
        model(gaussian(2, 6))
    cut = {"stages": [["a"], ["b"], ["out"]], "input_shape": (6,)}
    with pytest.raises(ValueError, match="or after them.*output is not the output of 'out'"):
        split_stages(encoder, **cut)
    assert len(split_stages(harmless, **cut)) == 3


@pytest.mark.parametrize(
    "function, before, cut",
    [
        (ops.tanh, ops.copy, [["a"], ["b"]]),
        (ops.relu, ops.copy, [["a"]]),
        (lambda x: x * 2, ops.copy, [["a", "b"]]),
        (ops.copy, ops.tanh, [["a"]]),
        (ops.copy, ops.copy, [["b"]]),
        (ops.copy, ops.copy, [["b"], ["a"]]),
    ],
)
def test_a_subclassed_model_with_functions_between_its_layers_is_refused(function, before, cut):
    model = Between(function, before)
    model(gaussian(2, 6))
    with pytest.raises(ValueError, match="subclassed model.*Received: layer"):
        split_stages(model, stages=cut, input_shape=(6,))
    harmless = Between(ops.copy)
    harmless(gaussian(2, 6))
    assert len(split_stages(harmless, stages=[["a"], ["b"]], input_shape=(6,))) == 2


class Masked(keras.Model):
    def __init__(self):
        super().__init__()
        self.mask, self.first = layers.Masking(name="mask"), layers.LSTM(4, name="first")
        self.out = dense(3, "out")

    def call(self, x):
        return self.out(self.first(self.mask(x)))


def test_the_mask_of_a_subclassed_model_is_not_lost():
    model = Masked()
    model(gaussian(2, 5, 3))
    with pytest.raises(ValueError, match="masks.*Received: layer 'first'"):
        split_stages(model, stages=[["mask", "first"]], input_shape=(5, 3))


def shared_by_stages(x):
    layer = dense(6, "shared")
    return dense(3, "head")(layer(dense(6, "between")(layer(x))))


def shared_with_head(x):
    layer = dense(6, "shared")
    return layer(dense(6, "between")(layer(x)))


@pytest.mark.parametrize("function", [shared_by_stages, shared_with_head])
def test_weights_common_to_several_stages_are_refused(function):
    with pytest.raises(ValueError, match="without common weights.*Received: .*shared/kernel"):
        split_stages(functional(VECTOR, function))


def test_weights_common_within_a_stage_are_fine():
    def siamese(x):
        layer = dense(4, "shared")
        h = layers.Concatenate(name="join")([layer(x), layer(x * 2)])
        return dense(3, "head")(h)

    model = functional(VECTOR, siamese)
    x = examples(model)
    np.testing.assert_array_equal(array(run(split_stages(model, head=0), x)), array(model(x)))


def test_what_leads_to_some_outputs_only_is_the_last_stage():
    x = keras.Input((3,))
    shared = dense(5, "shared")(x)
    model = keras.Model(x, [dense(2, "a")(shared), dense(2, "c")(dense(4, "b")(shared))])
    assert [stage.name for stage in split_stages(model)] == ["shared"]
    assert len(split_stages(model, head=0)) == 2


def two_inputs():
    inputs = [keras.Input((3,)), keras.Input((3,))]
    return keras.Model(inputs, dense(2, "head")(layers.Add()(inputs)))


@pytest.mark.parametrize(
    "build, message",
    [
        (two_inputs, "with one input.*model of each branch.*Received: .* 2 inputs"),
        (lambda: keras.Sequential([dense(3, "a")]), "built.*Received: model="),
        (chain_model, "Sequential or functional model.*Received: model=.*Chain"),
        (lambda: sequential(VECTOR, layers.ReLU()), "more than head=.*Received: .* 0 stages"),
    ],
)
def test_models_without_stages_are_refused(build, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        split_stages(build())


@pytest.mark.parametrize("head", [-1, 1.0, "1", None])
def test_a_head_is_a_count(head):
    with pytest.raises(ValueError, match="`head` must be.*Received: head="):
        split_stages(named_model(), head=head)


# What a stage knows


@pytest.mark.parametrize(
    "stack, flops",
    [
        ([dense(5, "a")], 2 * 6 * 8 * 8 * 5),
        ([layers.Flatten(), dense(5, "a")], 2 * 384 * 5),
        ([conv(4, "a")], 2 * 9 * 6 * 4 * 64),
        ([conv(4, "a", padding="valid")], 2 * 9 * 6 * 4 * 36),
        ([conv(4, "a", strides=2), layers.MaxPooling2D()], 2 * 9 * 6 * 4 * 16),
        ([layers.DepthwiseConv2D(3, padding="same", name="a")], 2 * 9 * 6 * 64),
        ([layers.Conv2DTranspose(4, 2, strides=2, name="a")], 2 * 4 * 6 * 4 * 64),
        ([layers.Reshape((64, 6)), layers.Conv1D(5, 3, name="a")], 2 * 3 * 6 * 5 * 62),
        ([layers.Reshape((64, 6)), layers.LSTM(5, name="a")], 2 * 64 * (6 * 20 + 5 * 20)),
        ([conv(4, "a"), layers.BatchNormalization(), layers.PReLU()], 2 * 9 * 6 * 4 * 64),
    ],
)
def test_flops_are_two_per_multiply_add(stack, flops):
    model = sequential((8, 8, 6), *stack, layers.Flatten(), dense(3, "head"))
    (stage,) = split_stages(model)
    assert stage.flops == flops
