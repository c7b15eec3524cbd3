import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers, ops
from pretrain_helpers import array, chain_model, digest, gaussian, randomize, sigmoid, uniform
from scipy import stats

from pretrain import (
    Autoencoder,
    Population,
    RestrictedBoltzmannMachine,
    SupervisedGreedy,
    VariationalAutoencoder,
    datasets,
    greedy_pretrain,
    networks,
    split_stages,
    unroll,
)
from pretrain.report import Report, StageReport

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
# A step or two cost less than compiling them; not so on JAX.
EAGER = keras.backend.backend() == "tensorflow"


def pretrained(model, *objectives, binary=(), stages=None):
    """A report as of pretraining, of decoders with random weights; the first input is binary."""
    cut = split_stages(model, stages=stages)[: len(objectives)]
    report = Report(seeds=[0], layers=stages)
    for number, (stage, objective) in enumerate(zip(cut, objectives, strict=True)):
        objective = objective.decided(number == 0 if not binary else binary[number])
        learner = objective.build(stage, seed=number)
        for companion in learner.companions:
            randomize(companion, number)
        empty = pd.DataFrame(), 0.0, 0, {}, np.zeros(1), np.zeros(1)
        report.stages.append(
            StageReport(
                stage.name,
                objective,
                objective.loss_name,
                np.zeros(1),
                *empty,
                [learner.decoder],
                [learner.head],
            )
        )
    return report


def stack(*hidden, activation="sigmoid", features=6):
    """A multilayer perceptron of the hidden sizes, and a head."""
    dense = [layers.Dense(n, activation, name=f"h{i}") for i, n in enumerate(hidden, 1)]
    model = keras.Sequential([keras.Input((features,)), *dense, layers.Dense(3, name="head")])
    randomize(model)
    return model


def weights(layer):
    return [array(variable) for variable in layer.weights]


def decoded(trained, code):
    return array(trained.decoders[0](code))


def moments(trained, code):
    return array(trained.heads[0](code))


def reloaded(deep, tmp_path):
    deep.save(tmp_path / "deep.keras")
    return keras.saving.load_model(tmp_path / "deep.keras")


# What it computes


def test_one_stage_is_its_encoder_and_its_decoder():
    model = stack(4)
    report = pretrained(model, Autoencoder())
    deep, x = unroll(model, report), uniform(7, 6)
    (w, b), (v, c) = weights(model.get_layer("h1")), weights(report.stages[0].decoders[0])
    code = sigmoid(x @ w + b)
    np.testing.assert_allclose(deep.encode(x), code, **CLOSE)
    np.testing.assert_allclose(deep.decode(code), sigmoid(code @ v + c), **CLOSE)
    np.testing.assert_allclose(deep.reconstruct(x), sigmoid(code @ v + c), **CLOSE)
    np.testing.assert_allclose(array(deep(x)), sigmoid(code @ v + c), **CLOSE)


@pytest.mark.parametrize("binary", [(True, True), (True, False), (False, True), (False, False)])
def test_a_sigmoid_stands_where_inputs_were_binary(binary):
    model = stack(5, 4)
    report = pretrained(model, Autoencoder(), Autoencoder(), binary=binary)
    code = uniform(7, 4)
    expected = code
    for trained, is_binary in zip(report.stages[::-1], binary[::-1], strict=True):
        z = decoded(trained, expected)
        expected = sigmoid(z) if is_binary else z
    np.testing.assert_allclose(unroll(model, report).decode(code), expected, **CLOSE)


def test_a_linear_stack_of_tied_weights_is_a_product_of_matrices():
    model = stack(5, 4, activation="linear")
    tied = Autoencoder(tied=True)
    report = pretrained(model, tied, tied, binary=(False, False))
    deep, x = unroll(model, report), gaussian(7, 6)
    (w, b), (v, c) = weights(model.get_layer("h1")), weights(model.get_layer("h2"))
    d, e = (array(trained.decoders[0].layers[0].bias) for trained in report.stages)
    expected = (((x @ w + b) @ v + c) @ v.T + e) @ w.T + d
    np.testing.assert_allclose(deep.reconstruct(x), expected, rtol=1e-4, atol=1e-5)
    # Two matrices, and for each the biases of both directions.
    assert len(deep.trainable_variables) == 6


def test_a_boltzmann_machine_decodes_by_its_transpose():
    model = stack(5, 4)
    machine = RestrictedBoltzmannMachine()
    report = pretrained(model, machine, machine, binary=(False, True))
    deep, h = unroll(model, report), uniform(7, 4)
    w, v = (array(model.get_layer(name).kernel) for name in ("h1", "h2"))
    d, e = (array(trained.decoders[0].layers[0].bias) for trained in report.stages)
    np.testing.assert_allclose(deep.decode(h), sigmoid(h @ v.T + e) @ w.T + d, **CLOSE)


def test_only_what_was_pretrained_is_unrolled():
    model = stack(5, 4)
    deep = unroll(model, pretrained(model, Autoencoder()))
    np.testing.assert_allclose(
        deep.encode(uniform(7, 6)), array(model.get_layer("h1")(uniform(7, 6))), **CLOSE
    )


def test_more_examples_than_a_batch():
    model = stack(4)
    deep, x = unroll(model, pretrained(model, Autoencoder())), uniform(2100, 6)
    np.testing.assert_allclose(deep.reconstruct(x), array(deep(x)), **CLOSE)


# What stands before and between stages


def test_the_output_has_the_arrangement_of_the_input_and_the_units_of_the_first_stage():
    model = keras.Sequential(
        [
            keras.Input((2, 3, 1)),
            layers.Rescaling(1 / 255),
            layers.Permute((2, 1, 3)),
            layers.Flatten(),
            layers.Dense(4, "tanh"),
            layers.Dense(3),
        ]
    )
    # Named so that what rearranges is not of the stage, but before it.
    report = pretrained(model, Autoencoder(), stages=[[model.layers[3].name]])
    deep, x = unroll(model, report), 255 * uniform(7, 2, 3, 1)
    flat = (x / 255).transpose(0, 2, 1, 3).reshape(7, 6)
    z = sigmoid(decoded(report.stages[0], array(model.layers[3](flat))))
    expected = z.reshape(7, 3, 2, 1).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(deep.reconstruct(x), expected, **CLOSE)


def between(*middle):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, "sigmoid", name="a"),
            *middle,
            layers.Dense(5, "sigmoid", name="b"),
            layers.Dense(3),
        ]
    )
    report = pretrained(model, Autoencoder(), Autoencoder(), stages=[["a"], ["b"]])
    return model, report


@pytest.mark.parametrize(
    "first",
    [
        lambda: [layers.Rescaling(1 / 4, offset=-1), layers.Resizing(4, 4), layers.Flatten()],
        lambda: [layers.Flatten(), layers.Rescaling(3.0), layers.Reshape((8, 8, 1))],
        lambda: [layers.ZeroPadding2D(1), layers.Rescaling(2.0)],
        lambda: [layers.Conv2D(2, 3, name="frozen")],
    ],
)
def test_the_output_is_what_the_first_stage_reads(first):
    preprocessing = keras.Sequential([keras.Input((8, 8, 1)), *first()])
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *preprocessing.layers, layers.Dense(5, name="h"), layers.Dense(2)]
    )
    report = pretrained(model, Autoencoder(), stages=[["h"]])
    x = uniform(3, 8, 8, 1)
    deep = unroll(model, report)
    read = array(preprocessing(x))
    code = array(model.get_layer("h")(read))
    np.testing.assert_allclose(deep.encode(x), code, **CLOSE)
    # The decoder is linear before its sigmoid.
    expected = sigmoid(array(report.stages[0].decoders[0](code)))
    np.testing.assert_allclose(deep.reconstruct(x).ravel(), expected.ravel(), **CLOSE)
    sizes = {2: (4, 4, 1)}.get(read.ndim, read.shape[1:])
    assert deep.reconstruct(x).shape == (3, *sizes)


@pytest.mark.filterwarnings("ignore::pretrain.report.PretrainingWarning")
def test_pretrained_at_one_size_and_used_at_any(tmp_path):
    def build(steps):
        stack = [
            layers.Conv1D(4, 3, padding="same", strides=2, activation="relu"),
            layers.SimpleRNN(3, return_sequences=True),
            layers.GlobalAveragePooling1D(),
        ]
        model = keras.Sequential([keras.Input((steps, 2)), *stack, layers.Dense(2)])
        for number, variable in enumerate(model.trainable_variables):
            variable.assign(uniform(*variable.shape, seed=number))
        return model

    x, other = uniform(16, 8, 2), uniform(3, 12, 2)
    model, fixed = build(None), build(8)
    settings = {"epochs": 1, "batch_size": 8, "verbose": 0}
    report = greedy_pretrain(model, x, Autoencoder(), **settings)
    alone = greedy_pretrain(fixed, x, Autoencoder(), **settings)
    for found, expected in zip(model.weights, fixed.weights, strict=True):
        np.testing.assert_array_equal(array(found), array(expected))
    assert report.to_frame()["flops"].tolist() == alone.to_frame()["flops"].tolist()
    deep = unroll(model, report)
    code = keras.Sequential(model.layers[:2])(other)
    np.testing.assert_allclose(deep.encode(other), array(code), **CLOSE)
    assert deep.reconstruct(other).shape == other.shape
    deep.save(tmp_path / "deep.keras")
    loaded = keras.saving.load_model(tmp_path / "deep.keras")
    np.testing.assert_allclose(loaded.reconstruct(other), deep.reconstruct(other), **CLOSE)


def test_arrangements_between_stages_are_undone():
    model, report = between(
        layers.Reshape((3, 2, 2)),
        layers.Permute((3, 1, 2)),
        layers.Dropout(0.5),
        layers.Reshape((2, 6)),
    )
    code = uniform(7, 2, 5)
    first = decoded(report.stages[1], code).reshape(7, 2, 3, 2).transpose(0, 2, 3, 1)
    expected = sigmoid(decoded(report.stages[0], first.reshape(7, 12)))
    np.testing.assert_allclose(unroll(model, report).decode(code), expected, **CLOSE)


def test_a_normalization_between_stages_is_refused():
    model, report = between(layers.BatchNormalization(name="norm"))
    with pytest.raises(
        ValueError, match="Expected `stages` to name all other.*Received: layer 'norm'"
    ):
        unroll(model, report)


# Architectures


def residual():
    """A model with two equal branches, a skip and an operation that is no layer."""
    inputs = keras.Input((6,))
    x = h = layers.Dense(8, "tanh", name="h1")(inputs)
    left = layers.Dense(4, name="left")(h)
    right = layers.Dense(4, name="right")(h)
    h = ops.concatenate([left - right, 0.5 * right], axis=-1)
    h = layers.BatchNormalization()(layers.Add()([x, h]))
    model = keras.Model(inputs, layers.Dense(3)(h))
    randomize(model)
    return model


def nested():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(4, "tanh")], name="inner"
    )
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(3)])
    randomize(model)
    return model


MODELS = {
    "convnet": lambda: networks.convnet(
        (8, 8, 1), 3, depth=2, filters=4, normalization="batch", seed=0
    ),
    "residual": residual,
    "nested": nested,
}


@pytest.mark.parametrize(
    "name, tied", [("convnet", False), ("convnet", True), ("residual", False), ("nested", True)]
)
def test_any_architecture_can_be_unrolled_fine_tuned_saved_and_loaded(name, tied, tmp_path):
    model = MODELS[name]()
    before = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    names = [layer.name for layer in model._flatten_layers()]
    stages = split_stages(model)
    deep = unroll(model, pretrained(model, *[Autoencoder(tied=tied)] * len(stages)))
    x = uniform(8, *model.input_shape[1:])
    code = x
    for stage in stages:
        code = stage(code if stage.preamble is None else stage.preamble(code))
    np.testing.assert_allclose(deep.encode(x), array(code), **CLOSE)
    moved = digest(stages[-1].trainable_variables)
    deep.compile("adam", "binary_crossentropy", run_eagerly=EAGER)
    deep.fit(x, x, verbose=0)
    assert all(moved[key] != value for key, value in digest(stages[-1].trainable_variables).items())
    loaded = reloaded(deep, tmp_path)
    assert deep.reconstruct(x).shape == x.shape
    np.testing.assert_allclose(loaded.reconstruct(x), deep.reconstruct(x), **CLOSE)
    assert len(loaded.trainable_variables) == len(deep.trainable_variables)
    assert [len(layer._inbound_nodes) for layer in model._flatten_layers()] == before
    assert [layer.name for layer in model._flatten_layers()] == names


def test_a_subclassed_model():
    model = chain_model()
    named = [["first", "norm"], ["second"]]
    x = uniform(8, 6)
    report = greedy_pretrain(model, x, Autoencoder(), stages=named, epochs=1, batch_size=8)
    deep = unroll(model, report)
    code = model.second(model.norm(model.first(x), training=False))
    np.testing.assert_allclose(deep.encode(x), array(code), **CLOSE)
    assert deep.reconstruct(x).shape == (8, 6)
    assert not model.first._inbound_nodes


# Fine-tuning and files


def test_fine_tuning_lowers_the_reconstruction_error_of_digits():
    x = datasets.load("mnist", train_size=500).train[0]
    model = networks.mlp((28, 28, 1), depth=2, units=[128, 32], activation="sigmoid", seed=0)
    first = model.get_layer("hidden_1")
    report = greedy_pretrain(model, x, epochs=5, batch_size=25, learning_rate=0.01, verbose=0)
    assert [trained.objective.loss for trained in report.stages] == ["binary_crossentropy"] * 2
    deep = unroll(model, report)
    before, kernel = np.square(x - deep.reconstruct(x)).mean(), array(first.kernel).copy()
    deep.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    deep.fit(x, x, epochs=5, batch_size=25, verbose=0)
    found = deep.reconstruct(x)
    assert found.shape == x.shape
    assert found.min() >= 0 and found.max() <= 1
    assert np.square(x - found).mean() < 0.9 * before
    assert (array(first.kernel) != kernel).any()
    # The model's own stages: its output follows.
    hidden = model.get_layer("hidden_2")(first(x.reshape(len(x), -1)))
    np.testing.assert_allclose(array(model.layers[-1](hidden)), array(model(x)), **CLOSE)
    np.testing.assert_allclose(deep.encode(x), array(hidden), **CLOSE)


def test_tied_weights_are_one_variable_through_fine_tuning_and_files(tmp_path):
    model = stack(5, 4)
    tied = Autoencoder(tied=True)
    deep, x = unroll(model, pretrained(model, tied, tied)), uniform(8, 6)
    for _ in range(2):
        assert len(deep.trainable_variables) == 6
        before = deep.reconstruct(x)
        deep.compile("adam", "binary_crossentropy", run_eagerly=EAGER)
        deep.fit(x, x, verbose=0)
        assert (deep.reconstruct(x) != before).any()
        # What is loaded is fine-tuned and saved in turn.
        loaded = reloaded(deep, tmp_path)
        np.testing.assert_allclose(loaded.reconstruct(x), deep.reconstruct(x), **CLOSE)
        np.testing.assert_allclose(loaded.decode(loaded.encode(x)), deep.reconstruct(x), **CLOSE)
        deep = loaded


@pytest.mark.parametrize(
    "copy", [keras.models.clone_model, lambda m: m.from_config(m.get_config())]
)
def test_a_copy_of_a_tied_model_is_tied(copy):
    deep = unroll(model := stack(5, 4), pretrained(model, *[Autoencoder(tied=True)] * 2))
    copied = copy(deep)
    assert [w.shape for w in copied.weights] == [w.shape for w in deep.weights]
    copied.set_weights(deep.get_weights())
    x = uniform(3, 6)
    np.testing.assert_allclose(copied.reconstruct(x), deep.reconstruct(x), **CLOSE)
    deep.encoder.weights[0].assign(uniform(6, 5, seed=9))
    assert not np.allclose(copied.reconstruct(x), deep.reconstruct(x))


def test_a_tied_model_is_exported(tmp_path):
    tf = pytest.importorskip("tensorflow")
    deep = unroll(model := stack(5, 4), pretrained(model, *[Autoencoder(tied=True)] * 2))
    deep.export(str(tmp_path), verbose=False)
    exported, x = tf.saved_model.load(str(tmp_path)), uniform(3, 6)
    np.testing.assert_allclose(exported.serve(x), deep.reconstruct(x), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports", ["import pretrain", "import keras, pretrain", "from pretrain import split_stages"]
)
def test_saved_models_are_loaded_in_another_process(imports, tmp_path):
    deep = unroll(model := stack(5, 4), pretrained(model, *[Autoencoder(tied=True)] * 2))
    deep.save(tmp_path / "deep.keras")
    networks.mlp((6,), depth=2, shortcut="skip_init").save(tmp_path / "skip.keras")
    paths = [str(tmp_path / "deep.keras"), str(tmp_path / "skip.keras")]
    load = f"import keras\nfor path in {paths}: keras.saving.load_model(path)"
    subprocess.run([sys.executable, "-c", f"{imports}\n{load}"], check=True)


def test_the_model_is_left_as_it_was():
    model = stack(5, 4)
    report = pretrained(model, *[Autoencoder(tied=True)] * 2)
    before, outputs = digest(model.variables), [layer.output for layer in model.layers]
    for _ in range(2):
        unroll(model, report).reconstruct(uniform(7, 6))
    assert all(a is b.output for a, b in zip(outputs, model.layers, strict=True))
    assert [len(layer._inbound_nodes) for layer in model.layers] == [1, 1, 1]
    assert digest(model.variables) == before
    assert [layer.name for layer in model.layers] == ["h1", "h2", "head"]


# Variational stages


def variational(latent=2):
    model = stack(5, 4, activation="tanh")
    return model, pretrained(model, Autoencoder(), VariationalAutoencoder(latent=latent))


def test_a_variational_top_encodes_to_the_mean():
    model, report = variational()
    deep, x = unroll(model, report), uniform(7, 6)
    hidden = array(model.layers[1](model.layers[0](x)))
    z = moments(report.stages[1], hidden)[:, 0]
    np.testing.assert_allclose(deep.encode(x), z, **CLOSE)
    below = decoded(report.stages[1], z)
    np.testing.assert_allclose(deep.decode(z), sigmoid(decoded(report.stages[0], below)), **CLOSE)


def test_a_variational_stage_below_decodes_through_its_mean():
    model = stack(5, 4, activation="tanh")
    report = pretrained(model, VariationalAutoencoder(latent=2), Autoencoder())
    deep, code = unroll(model, report), uniform(7, 4)
    z = moments(report.stages[0], decoded(report.stages[1], code))[:, 0]
    np.testing.assert_allclose(deep.decode(code), sigmoid(decoded(report.stages[0], z)), **CLOSE)
    with pytest.raises(ValueError, match="`sample` needs latent variables"):
        deep.sample(3)


def test_samples_are_decoded_draws_of_the_prior():
    deep = unroll(*variational(latent=3))
    found = deep.sample(5, seed=1)
    z = np.random.default_rng(1).standard_normal((5, 3)).astype("float32")
    np.testing.assert_allclose(found, deep.decode(z), **CLOSE)
    assert (deep.sample(5, seed=2) != found).any()


def test_interpolation_goes_straight_from_code_to_code():
    deep, (a, b) = unroll(*variational()), uniform(2, 6)
    found = deep.interpolate(a, b, 5)
    assert found.shape == (5, 6)
    np.testing.assert_allclose(found[[0, -1]], deep.reconstruct(np.stack([a, b])), **CLOSE)
    middle = deep.encode(np.stack([a, b])).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(found[[2]], deep.decode(middle), **CLOSE)


def test_the_latent_grid_is_of_quantiles_of_the_prior():
    deep = unroll(*variational())
    quantiles = stats.norm.ppf([0.125, 0.375, 0.625, 0.875])
    found = deep.latent_grid(4)
    assert found.shape == (4, 4, 6)
    z = np.array([[quantiles[3], quantiles[1]]], "float32")
    np.testing.assert_allclose(found[3, 1], deep.decode(z)[0], **CLOSE)


def test_a_loaded_variational_model_has_the_same_methods(tmp_path):
    deep, x = unroll(*variational()), uniform(7, 6)
    loaded = reloaded(deep, tmp_path)
    np.testing.assert_allclose(loaded.encode(x), deep.encode(x), **CLOSE)
    np.testing.assert_allclose(loaded.sample(3), deep.sample(3), **CLOSE)
    np.testing.assert_allclose(loaded.latent_grid(2), deep.latent_grid(2), **CLOSE)
    np.testing.assert_allclose(loaded.interpolate(*x[:2], 3), deep.interpolate(*x[:2], 3), **CLOSE)


# Populations


@pytest.mark.parametrize("tied", [False, True])
def test_members_of_a_population(tied):
    x = uniform(32, 6)

    def build(seed):
        return networks.mlp((6,), 3, depth=1, units=[4], activation="sigmoid", seed=seed)

    population = Population(build, seeds=[0, 1])
    report = greedy_pretrain(population, x, Autoencoder(tied=tied), epochs=1, batch_size=16)
    for i in range(2):
        model = population.member(i)
        deep = unroll(model, report, member=i)
        code = array(model.get_layer("hidden_1")(x))
        expected = sigmoid(array(report.stages[0].decoders[i](code)))
        np.testing.assert_allclose(deep.reconstruct(x), expected, **CLOSE)
        assert len(deep.trainable_variables) == (3 if tied else 4)
    with pytest.raises(ValueError, match="a population of 2 was pretrained.*Received: member=None"):
        unroll(population.member(0), report)
    with pytest.raises(ValueError, match="from 0 to 1. Received: member=2"):
        unroll(population.member(0), report, member=2)
    with pytest.raises(ValueError, match=r"population.member\(i\).*Received: model=<Population"):
        unroll(population, report, member=0)


# Errors


def test_wrong_models_and_reports_are_named():
    report = pretrained(stack(5, 4), *[Autoencoder()] * 2)
    for model in (stack(5), stack(5, 3), stack(5, 4, features=7)):
        with pytest.raises(ValueError, match="Expected the model that was pretrained.*Received"):
            unroll(model, report)
    with pytest.raises(ValueError, match="`report` must be a report.*Received: report=None"):
        unroll(stack(5), None)


def test_stages_without_a_decoder_are_refused():
    model = stack(5)
    report = pretrained(model, SupervisedGreedy(classes=3))
    with pytest.raises(ValueError, match="a decoder.*Received: stage 'h1'.*SupervisedGreedy"):
        unroll(model, report)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda deep: deep.sample(0), "`n` must be an integer.*n=0"),
        (lambda deep: deep.interpolate(*uniform(2, 6), 1), "`steps` must be.*steps=1"),
        (lambda deep: deep.interpolate(*uniform(2, 3, 6), 4), r"shape \(6,\).*a of shape \(3, 6\)"),
        (lambda deep: deep.latent_grid(0), "2 latent variables.*Received: a model with 3"),
    ],
)
def test_bad_arguments_of_variational_models(call, message):
    with pytest.raises(ValueError, match=message):
        call(unroll(*variational(latent=3)))


@pytest.mark.parametrize("method", ["sample", "interpolate", "latent_grid"])
def test_other_models_have_no_prior(method):
    model = stack(4)
    deep = unroll(model, pretrained(model, Autoencoder()))
    arguments = {"sample": (3,), "interpolate": (*uniform(2, 6), 3), "latent_grid": (3,)}
    with pytest.raises(ValueError, match=f"`{method}` needs latent variables.*Received"):
        getattr(deep, method)(*arguments[method])
