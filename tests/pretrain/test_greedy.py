import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import array, chain_model, digest, gaussian, sigmoid, uniform, values

from pretrain import (
    Autoencoder,
    DenoisingAutoencoder,
    Masking,
    Population,
    PretrainingWarning,
    RestrictedBoltzmannMachine,
    VariationalAutoencoder,
    datasets,
    greedy_pretrain,
    joint_pretrain,
    networks,
    split_stages,
    unroll,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

N, BATCH, EPOCHS = 64, 16, 3
SETTINGS = {"epochs": EPOCHS, "batch_size": BATCH, "verbose": 0}


def small(seed=0, **options):
    options = {"depth": 2, "units": [7, 6], "activation": "sigmoid", **options}
    return networks.mlp((8,), 3, seed=seed, **options)


def rich(dropout=0.0):
    """A preamble that has seen data, batch normalization, dropout; layers named for their stage."""
    drop = [] if not dropout else [layers.Dropout(dropout, seed=1, name="1_dropout")]

    def dense(name, units, **options):
        initializer = keras.initializers.GlorotUniform(seed=units)
        return layers.Dense(units, kernel_initializer=initializer, name=name, **options)

    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.BatchNormalization(name="0_norm"),
            dense("1_dense", 7, use_bias=False),
            layers.BatchNormalization(name="1_norm"),
            layers.Activation("relu", name="1_relu"),
            *drop,
            dense("2_dense", 6, activation="sigmoid"),
            layers.BatchNormalization(name="2_norm"),
            dense("3_dense", 5, activation="tanh"),
            dense("4_head", 3),
        ]
    )
    model.get_layer("0_norm").moving_mean.assign([0.1] * 8)
    return model


@pytest.fixture
def x():
    pattern = uniform(3, 8)
    return pattern[np.arange(N) % 3] * uniform(N, 1, seed=2)


def same(one, other):
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def close(one, other, **tolerance):
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def codes(model, name, x):
    """What the model computes up to a layer, in inference mode."""
    return keras.Model(model.inputs, model.get_layer(name).output).predict(x, verbose=0)


def mean_cross_entropy(x, z):
    z = sigmoid(np.asarray(z, "float64"))
    return -(x * np.log(z) + (1 - x) * np.log(1 - z)).mean()


# What a user sees first


@pytest.mark.slow
def test_with_nothing_else_every_stage_beats_its_baseline_on_images():
    x, _ = datasets.load("mnist", train_size=3000).train
    model = networks.mlp(x.shape[1:], depth=3, activation="sigmoid", seed=0)
    table = greedy_pretrain(model, x).to_frame()
    assert len(table) == 3
    assert (table["loss_name"] == "binary_crossentropy").all()
    assert (table["loss"] < table["baseline"]).all(), str(table)


def test_the_model_can_be_trained_on(x):
    model = small()
    greedy_pretrain(model, x, **SETTINGS)
    before = array(model.get_layer("hidden_1").kernel).copy()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.arange(N) % 3, verbose=0)
    assert (array(model.get_layer("hidden_1").kernel) != before).any()


NETWORKS = {
    "convnet": lambda: networks.convnet(
        (8, 8, 1), 3, depth=2, filters=4, normalization="batch", seed=0
    ),
    "residual": lambda: small(units=7, shortcut="residual", normalization="batch"),
    "highway": lambda: small(units=7, shortcut="highway"),
    "skip_init": lambda: small(units=7, shortcut="skip_init"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_package_can_be_pretrained(name):
    model = NETWORKS[name]()
    shape = model.input_shape[1:]
    x = uniform(3, *shape)[np.arange(N) % 3] * uniform(N, *[1] * len(shape), seed=2)
    before = digest(model.variables)
    report = greedy_pretrain(model, x, epochs=15, batch_size=BATCH, learning_rate=0.01, verbose=0)
    history = report.history.groupby("stage", sort=False)["loss"].agg(["first", "last"])
    assert list(history.index) == [f"hidden_{i}" for i in range(1, len(history) + 1)]
    assert (history["last"] < history["first"]).all(), str(history)
    after = digest(model.variables)
    moved = {name for name in before if before[name] != after[name]}
    assert {name for name in before if "head" not in name} == moved


# Nothing outside the stage moves


def stage_of(name):
    return name.split(" ")[1].split("/")[-2].split("_")[0]


@pytest.mark.parametrize(
    "optimizer", ["adam", keras.optimizers.AdamW(weight_decay=0.1)], ids=["adam", "adamw"]
)
@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_nothing_outside_the_stage_moves(x, number, optimizer):
    model = rich()
    names = [layer.name for layer in model.layers if layer.name.startswith(number)]
    before = digest(model.variables)
    greedy_pretrain(model, x, stages=[names], optimizer=optimizer, **SETTINGS)
    after = digest(model.variables)
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {name for name in before if stage_of(name) == number}


def test_as_many_stages_as_asked_for_are_pretrained(x):
    model = rich()
    before = digest(model.variables)
    report = greedy_pretrain(model, x, stages=2, **SETTINGS)
    after = digest(model.variables)
    moved = {stage_of(name) for name in before if before[name] != after[name]}
    assert moved == {"1", "2"}
    assert [stage.name for stage in report.stages] == ["1_dense", "2_dense"]


def test_stages_are_the_same_one_by_one_and_together(x):
    together, first = rich(), rich()
    greedy_pretrain(together, x, stages=2, **SETTINGS)
    greedy_pretrain(first, x, stages=1, **SETTINGS)
    names = [layer.name for layer in first.layers if layer.name < "2"]
    for name in names:
        same(first.get_layer(name), together.get_layer(name))


def test_dropout_is_off(x):
    plain, dropping = rich(), rich(dropout=0.9)
    report = greedy_pretrain(plain, x, **SETTINGS)
    dropped = greedy_pretrain(dropping, x, **SETTINGS)
    for layer in plain.layers:
        close(layer, dropping.get_layer(layer.name), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(report.history["loss"], dropped.history["loss"], rtol=1e-6)


def test_codes_are_of_clean_inputs_in_inference_mode(x):
    model = rich(dropout=0.5)
    model.get_layer("0_norm").moving_mean.assign(uniform(8))
    report = greedy_pretrain(model, x, DenoisingAutoencoder(Masking(0.9)), **SETTINGS)
    code = codes(model, "1_relu", x).astype("float64")
    expected = (code.var(0)).mean()
    np.testing.assert_allclose(report.stages[1].baseline, expected, rtol=1e-4)


def test_a_stage_follows_the_statistics_of_its_own_inputs(x):
    model = rich()
    greedy_pretrain(model, x, Autoencoder(), stages=1, epochs=1, batch_size=N)
    hidden = codes(model, "0_norm", x) @ array(rich().get_layer("1_dense").kernel)
    np.testing.assert_allclose(
        array(model.get_layer("1_norm").moving_mean), 0.01 * hidden.mean(0), rtol=1e-3, atol=1e-6
    )


# The report


def test_the_report_is_a_table(x):
    report = greedy_pretrain(small(), x, validation_data=x[:10], **SETTINGS)
    columns = ["stage", "member", "seed", "loss_name", "baseline", "updates", "loss", "val_loss"]
    costs = ["seconds", "flops", "movement", "saturated", "dead", "problem"]
    table = report.to_frame()
    assert list(table.columns) == [*columns, *costs]
    assert list(table["updates"]) == [EPOCHS * N // BATCH] * 2
    assert list(table["stage"]) == ["hidden_1", "hidden_2"]
    assert (table["seconds"] > 0).all()
    history = report.history
    assert list(history.columns) == [
        *("stage", "member", "seed", "epoch", "updates", "loss", "val_loss")
    ]
    assert list(history["epoch"]) == [1, 2, 3, 1, 2, 3]
    last = history[history["epoch"] == EPOCHS]
    assert list(table["loss"]) == list(last["loss"])
    assert list(table["val_loss"]) == list(last["val_loss"])


def test_the_report_can_be_read(x):
    report = greedy_pretrain(small(), x, **SETTINGS)
    lines = str(report).splitlines()
    assert len(lines) == 4
    assert lines[3] == "Not pretrained: head."
    assert lines[0].split()[0] == "stage"
    assert "member" not in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["hidden_1", "hidden_2"]
    assert f"{report.to_frame()['loss'][0]:.4g}" in lines[1]


@pytest.mark.parametrize("tied", [False, True])
def test_losses_are_those_of_the_decoders(x, tied):
    model, held_out = small(), uniform(1100, 8, seed=9)
    report = greedy_pretrain(model, x, Autoencoder(tied=tied), validation_data=held_out, **SETTINGS)
    inputs = held_out
    for stage in report.stages:
        code = codes(model, stage.name, held_out)
        outputs = stage.decoders[0].predict(code, verbose=0)
        expected = mean_cross_entropy(inputs, outputs)
        np.testing.assert_allclose(stage.history["val_loss"].iloc[-1], expected, rtol=1e-5)
        inputs = code


def test_baselines_are_those_of_the_mean_input(x):
    model = small()
    report = greedy_pretrain(model, x, **SETTINGS)
    for stage, inputs in zip(report.stages, [x, codes(model, "hidden_1", x)], strict=True):
        mean = inputs.mean(0, "float64")
        entropy = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).mean()
        np.testing.assert_allclose(stage.baseline, [entropy], rtol=1e-5)


def test_movement_is_relative_to_the_start(x):
    model = small()
    start = {v.path: array(v).copy() for v in model.variables}
    report = greedy_pretrain(model, x, **SETTINGS)
    for stage in report.stages:
        layer = model.get_layer(stage.name)
        kernel, before = array(layer.kernel), start[layer.kernel.path]
        expected = np.linalg.norm(kernel - before) / np.linalg.norm(before)
        np.testing.assert_allclose(stage.movement[layer.kernel.path], [expected], rtol=1e-4)
        # A bias starts at zero: there is nothing to compare with.
        assert np.isnan(stage.movement[layer.bias.path]).all()
    firsts = [next(iter(stage.movement.values()))[0] for stage in report.stages]
    assert list(report.to_frame()["movement"]) == firsts


def test_the_table_shows_the_movement_of_a_matrix(x):
    inputs = keras.Input((8,))
    h = layers.Dense(6, name="a")(inputs)
    inside = layers.BatchNormalization(name="norm")(h)
    h = layers.Add()([h, layers.Dense(6, name="b")(inside)])
    model = keras.Model(inputs, layers.Dense(3)(h))
    report = greedy_pretrain(model, x, **SETTINGS)
    path = model.get_layer("b").kernel.path
    assert report.to_frame()["movement"][1] == report.stages[1].movement[path][0]


@pytest.mark.parametrize("tied", [False, True])
def test_flops_are_counted_by_hand(x, tied):
    report = greedy_pretrain(small(), x[:50], Autoencoder(tied=tied), **SETTINGS)
    # Forward and backward is three times forward, through encoder and decoder; then the codes.
    for stage, weights in zip(report.stages, [8 * 7, 7 * 6], strict=True):
        assert stage.flops == 3 * 2 * (2 * weights) * 50 * EPOCHS + 2 * weights * 50


# Data


class Batches(keras.utils.PyDataset):
    """Batches of an array, with targets that nobody should read."""

    def __init__(self, x, size, targets=False):
        super().__init__()
        self.x, self.size, self.targets = x, size, targets

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, i):
        batch = self.x[i * self.size : (i + 1) * self.size]
        return (batch, np.full(len(batch), "unread")) if self.targets else batch


def as_tf_data(x, size):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


DATASETS = {
    "PyDataset": lambda x: Batches(x, 10),
    "tf.data": lambda x: as_tf_data(x, 10),
    "one batch": lambda x: Batches(x, N),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_that_fits_in_memory_is_an_array(x, kind):
    from_array, from_dataset = small(), small()
    held_out = uniform(30, 8)
    report = greedy_pretrain(from_array, x, validation_data=held_out, **SETTINGS)
    dataset, held_out = DATASETS[kind](x), DATASETS[kind](held_out)
    from_batches = greedy_pretrain(from_dataset, dataset, validation_data=held_out, **SETTINGS)
    same(from_array, from_dataset)
    assert report.history.equals(from_batches.history)


@pytest.mark.parametrize("kind", [*DATASETS, "array"])
def test_codes_that_do_not_fit_in_memory_are_computed_anew(x, kind):
    data = DATASETS[kind](x) if kind in DATASETS else x
    in_memory, blockwise = small(), small()
    report = greedy_pretrain(in_memory, x, Autoencoder(), **SETTINGS)
    held_out = {"validation_data": x}
    anew = greedy_pretrain(blockwise, data, Autoencoder(), max_memory=1, **held_out, **SETTINGS)
    one, other = report.to_frame(), anew.to_frame()
    np.testing.assert_allclose(one["baseline"], other["baseline"], rtol=1e-4)
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=0.02)
    assert list(one["flops"]) == list(other["flops"])
    # A pass over all codes, block by block, is the same as over one block.
    code = codes(blockwise, "hidden_1", x)
    outputs = anew.stages[1].decoders[0].predict(codes(blockwise, "hidden_2", x), verbose=0)
    np.testing.assert_allclose(other["val_loss"][1], mean_cross_entropy(code, outputs), rtol=1e-5)


def test_codes_computed_anew_are_the_same_codes(x):
    # With all examples in one batch there is one block, however little memory there is.
    settings = {**SETTINGS, "batch_size": N}
    in_memory, anew = small(), small()
    greedy_pretrain(in_memory, x, **settings)
    greedy_pretrain(anew, x, max_memory=1, **settings)
    close(in_memory, anew, rtol=1e-5, atol=1e-6)


def test_a_dataset_of_one_batch_per_block_keeps_its_batches(x):
    # Without corruption, only the order within a batch is left to the seed.
    class Adds(Batches):
        pass

    order = np.random.default_rng(0).permutation(N)
    one, other = small(), small()
    settings = {**SETTINGS, "max_memory": 1}
    greedy_pretrain(one, Batches(x[order], BATCH), Autoencoder(), seed=1, **settings)
    greedy_pretrain(other, Batches(x[order], BATCH), Autoencoder(), seed=1, **settings)
    same(one, other)
    within = order.reshape(-1, BATCH)[:, ::-1].reshape(-1)
    greedy_pretrain(again := small(), Batches(x[within], BATCH), Autoencoder(), seed=1, **settings)
    close(one, again, rtol=1e-3, atol=1e-4)


def test_targets_of_a_dataset_are_not_used(x):
    tf = pytest.importorskip("tensorflow")
    with_targets, without = small(), small()
    dataset = tf.data.Dataset.from_tensor_slices((x, np.arange(N) % 3)).batch(10)
    greedy_pretrain(with_targets, dataset, validation_data=dataset, **SETTINGS)
    greedy_pretrain(without, x, **SETTINGS)
    same(with_targets, without)


def test_a_dataset_may_change_from_pass_to_pass(x):
    class Noisy(Batches):
        def __getitem__(self, i):
            return super().__getitem__(i) + np.random.default_rng().normal(0, 0.01, (1, 8))

    report = greedy_pretrain(small(), Noisy(x, 10), max_memory=1, **SETTINGS)
    assert np.isfinite(report.history["loss"]).all()


@pytest.mark.parametrize("data", [lambda x: x, lambda x: (x,), lambda x: (x, np.arange(len(x)))])
def test_validation_data_is_given_as_to_keras(x, data):
    report = greedy_pretrain(small(), x, validation_data=data(x[:20]), **SETTINGS)
    assert np.isfinite(report.history["val_loss"]).all()


def test_validation_does_not_change_the_training(x):
    one, other = small(), small()
    greedy_pretrain(one, x, **SETTINGS)
    greedy_pretrain(other, x, validation_data=uniform(30, 8), **SETTINGS)
    same(one, other)


@pytest.mark.parametrize("preamble", [[layers.Rescaling(1 / 255)], []], ids=["rescaled", "raw"])
def test_images_of_integers_are_as_good_as_floats(preamble):
    x = np.random.default_rng(0).integers(0, 256, (N, 5), dtype=np.uint8)
    trained = []
    for data in (x, x.astype("float32")):
        dense = layers.Dense(4, activation="sigmoid", kernel_initializer="ones")
        model = keras.Sequential([keras.Input((5,)), *preamble, dense, layers.Dense(2)])
        report = greedy_pretrain(model, data, **SETTINGS)
        trained.append((array(dense.kernel), report.history["loss"].tolist()))
    np.testing.assert_array_equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_losses_of_low_precision_layers_are_of_full_precision(x, policy):
    stack = [layers.Dense(units, "sigmoid", dtype=policy) for units in (7, 6)]
    model = keras.Sequential([keras.Input((8,)), *stack, layers.Dense(3)])
    report = greedy_pretrain(model, x, epochs=20, batch_size=BATCH, learning_rate=0.02)
    history = report.history.groupby("stage", sort=False)["loss"].agg(["first", "last"])
    assert (history["last"] < history["first"]).all(), str(history)


@pytest.mark.parametrize("own", [False, True])
def test_a_preamble_serves_all_members(own):
    def build(seed):
        return networks.mlp((4, 2), 3, depth=1, units=5, activation="sigmoid", seed=seed)

    images = uniform(N, 4, 2)
    data = [images, images[::-1].copy()] if own else images
    population = Population(build, [3, 5])
    greedy_pretrain(population, data, **SETTINGS)
    for i, seed in enumerate([3, 5]):
        greedy_pretrain(alone := build(seed), data[i] if own else data, seed=seed, **SETTINGS)
        same(population.member(i), alone)


# Seeds


def test_one_seed_gives_one_result_to_the_bit(x):
    def pretrained(seed):
        keras.utils.set_random_seed(0)
        # Names that Keras numbers through: they must not matter.
        stack = [layers.Dense(7, activation="sigmoid"), layers.Dense(6), layers.Dense(3)]
        model = keras.Sequential([keras.Input((8,)), *stack])
        return model, greedy_pretrain(model, x, seed=seed, **SETTINGS)

    (one, report), (again, repeated), (other, _) = (pretrained(seed) for seed in (4, 4, 5))
    same(one, again)
    assert report.history["loss"].tolist() == repeated.history["loss"].tolist()
    decoders = [r.stages[0].decoders[0] for r in (report, repeated)]
    same(*decoders)
    assert (values(one)[0] != values(other)[0]).any()


def test_nothing_depends_on_the_random_state_of_others(x):
    one, other = small(), small()
    keras.utils.set_random_seed(1)
    greedy_pretrain(one, x, **SETTINGS)
    keras.utils.set_random_seed(2)
    greedy_pretrain(other, x, **SETTINGS)
    same(one, other)


def test_stages_have_random_numbers_of_their_own():
    # Two equal stages on equal inputs: their decoders must not start alike.
    model = networks.mlp((6,), 2, depth=2, units=6, activation=None, seed=0)
    for name in ("hidden_1", "hidden_2"):
        model.get_layer(name).kernel.assign(np.eye(6))
    optimizer = keras.optimizers.SGD(1e-30)
    report = greedy_pretrain(
        model, gaussian(N, 6), Autoencoder(), optimizer=optimizer, epochs=1, batch_size=BATCH
    )
    one, other = (array(stage.decoders[0].weights[0]) for stage in report.stages)
    assert (one != other).all()


# Populations


@pytest.mark.parametrize("objective", [None, Autoencoder(tied=True)], ids=str)
def test_a_member_equals_the_same_model_alone(x, objective):
    seeds = [3, 5, 9]
    population = Population(small, seeds)
    held_out = {"validation_data": uniform(30, 8)}
    report = greedy_pretrain(population, x, objective, **held_out, **SETTINGS)
    for i, seed in enumerate(seeds):
        model = small(seed)
        alone = greedy_pretrain(model, x, objective, seed=seed, **held_out, **SETTINGS)
        same(population.member(i), model)
        together = report.history[report.history["member"] == i]
        assert together["loss"].tolist() == alone.history["loss"].tolist()
        assert together["val_loss"].tolist() == alone.history["val_loss"].tolist()
        assert set(together["seed"]) == {seed}
        for stage, single in zip(report.stages, alone.stages, strict=True):
            same(stage.decoders[i], single.decoders[0])
            assert stage.baseline[i] == single.baseline[0]
            for name, movement in stage.movement.items():
                np.testing.assert_array_equal(movement[i], single.movement[name][0])
            assert stage.flops[i] == single.flops[0]


@pytest.mark.parametrize("tied", [False, True])
def test_decoders_belong_to_their_members(x, tied):
    population = Population(small, [3, 5])
    held_out = uniform(30, 8)
    report = greedy_pretrain(
        population, x, Autoencoder(tied=tied), validation_data=held_out, **SETTINGS
    )
    for i in range(2):
        member, inputs = population.member(i), held_out
        for stage in report.stages:
            code = codes(member, stage.name, held_out)
            outputs = stage.decoders[i].predict(code, verbose=0)
            losses = stage.history[stage.history["member"] == i]["val_loss"]
            np.testing.assert_allclose(
                losses.iloc[-1], mean_cross_entropy(inputs, outputs), rtol=1e-5
            )
            inputs = code


def test_models_of_a_population_are_pretrained_in_place(x):
    models = [small(3), small(5)]
    population = Population.from_models(models, [3, 5])
    greedy_pretrain(population, x, **SETTINGS)
    for model, seed in zip(models, (3, 5), strict=True):
        alone = small(seed)
        greedy_pretrain(alone, x, seed=seed, **SETTINGS)
        same(model, alone)


@pytest.mark.parametrize("max_memory", [10**9, 1])
def test_members_may_have_inputs_of_their_own(x, max_memory):
    own = [x, x[::-1].copy()]
    settings = {**SETTINGS, "max_memory": max_memory}
    population = Population(small, [3, 5])
    report = greedy_pretrain(population, own, validation_data=(own,), **settings)
    for i, seed in enumerate([3, 5]):
        alone = small(seed)
        single = greedy_pretrain(alone, own[i], seed=seed, validation_data=own[i], **settings)
        same(population.member(i), alone)
        assert report.stages[0].baseline[i] == single.stages[0].baseline[0]


def test_members_may_have_rates_of_their_own(x):
    population = Population(small, [3, 3])
    greedy_pretrain(population, x, learning_rate=[0.01, 0.001], **SETTINGS)
    for i, rate in enumerate([0.01, 0.001]):
        alone = small(3)
        greedy_pretrain(alone, x, seed=3, learning_rate=rate, **SETTINGS)
        same(population.member(i), alone)


@pytest.mark.filterwarnings("ignore:(invalid|overflow)")
def test_a_diverging_member_leaves_the_others_alone(x):
    population = Population(small, [3, 3])
    objective = Autoencoder(loss="mean_squared_error")
    rates = [1e30, 0.01]
    report = greedy_pretrain(
        population, x, objective, optimizer="sgd", learning_rate=rates, **SETTINGS
    )
    alone = small(3)
    greedy_pretrain(alone, x, objective, optimizer="sgd", learning_rate=0.01, seed=3, **SETTINGS)
    same(population.member(1), alone)
    last = report.to_frame().groupby("member")["loss"].last()
    assert not np.isfinite(last[0])
    assert np.isfinite(last[1])


# Arguments


def test_every_stage_may_have_an_objective_of_its_own(x):
    objectives = [Autoencoder(tied=True), DenoisingAutoencoder(loss="mean_squared_error")]
    report = greedy_pretrain(small(), x, objectives, **SETTINGS)
    assert [stage.loss for stage in report.stages] == ["binary_crossentropy", "mean_squared_error"]
    one, other = small(), small()
    greedy_pretrain(one, x, [None, None], **SETTINGS)
    greedy_pretrain(other, x, **SETTINGS)
    same(one, other)


def test_the_optimizer_is_a_name_or_an_instance_and_stays_fresh(x):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    one, again, by_name = small(), small(), small()
    greedy_pretrain(one, x, optimizer=optimizer, **SETTINGS)
    greedy_pretrain(again, x, optimizer=optimizer, **SETTINGS)
    same(one, again)
    assert int(array(optimizer.iterations)) == 0
    assert float(array(optimizer.learning_rate)) == pytest.approx(0.1)
    greedy_pretrain(by_name, x, optimizer="sgd", learning_rate=0.1, **SETTINGS)
    plain = small()
    greedy_pretrain(plain, x, optimizer=keras.optimizers.SGD(0.1), **SETTINGS)
    same(by_name, plain)


def test_a_subclassed_model_is_pretrained_by_names(x):
    model = chain_model(8)
    before = digest(model.variables)
    report = greedy_pretrain(model, x, stages=[["first", "norm"], ["second"]], **SETTINGS)
    assert [stage.name for stage in report.stages] == ["first", "second"]
    after = digest(model.variables)
    unmoved = {name for name in before if before[name] == after[name]}
    assert unmoved == {name for name in before if "/out/" in name}


def test_a_model_with_an_embedding_is_pretrained_behind_it():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(9, 3, name="embedding"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="dense"),
            layers.Dense(2, name="head"),
        ]
    )
    x = np.random.default_rng(0).integers(0, 9, (N, 4))
    before = digest(model.variables)
    greedy_pretrain(model, x, stages=[["dense"]], **SETTINGS)
    after = digest(model.variables)
    assert {n.split("/")[-2] for n in before if before[n] != after[n]} == {"dense"}


# What goes wrong


class Interrupt(keras.callbacks.Callback):
    """The user presses Ctrl-C in the second stage."""

    def on_epoch_begin(self, epoch, logs=None):
        if self.model.name == "hidden_2":
            raise KeyboardInterrupt


@pytest.mark.parametrize("as_population", [False, True])
def test_finished_stages_survive_an_interrupt(x, as_population):
    model, finished = small(), small()
    given = Population.from_models([model], [0]) if as_population else model
    with pytest.raises(KeyboardInterrupt):
        greedy_pretrain(given, x, callbacks=[Interrupt()], **SETTINGS)
    greedy_pretrain(finished, x, stages=1, **SETTINGS)
    same(model, finished)


DIVERGENCE = {"optimizer": "sgd", "learning_rate": 1e30, **SETTINGS}


def test_a_stage_that_diverges_ends_with_its_last_finite_weights(x):
    model, untouched = small(activation="relu"), small(activation="relu")
    with pytest.raises(FloatingPointError, match="Stage 'hidden_1' diverged in epoch 1.*smaller"):
        greedy_pretrain(model, x - 0.5, Autoencoder(), **DIVERGENCE)
    same(model, untouched)


def test_a_callback_may_stop_a_stage_that_diverges(x):
    model, stop = small(activation="relu"), keras.callbacks.TerminateOnNaN()
    with pytest.warns(PretrainingWarning, match="Stage 'hidden_1' diverged"):
        report = greedy_pretrain(
            model, x - 0.5, Autoencoder(), stages=1, callbacks=[stop], **DIVERGENCE
        )
    same(model, small(activation="relu"))
    assert report.to_frame()["problem"].tolist() == ["diverged"]
    assert len(report.history) == 1


@pytest.mark.filterwarnings("ignore:(invalid|overflow)")
def test_members_that_diverge_are_named(x):
    rates = {**DIVERGENCE, "learning_rate": [0.01, 1e30]}
    population = Population(lambda seed: small(seed, activation="relu"), [3, 5])
    with pytest.warns(PretrainingWarning, match=r"Stage 'hidden_1'.*diverged.*\(members \[1\]\)"):
        report = greedy_pretrain(population, x - 0.5, Autoencoder(), stages=1, **rates)
    assert ["diverged" in text for text in report.to_frame()["problem"]] == [False, True]


def test_raw_pixels_are_told_of():
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8)).astype("float32")
    with pytest.warns(PretrainingWarning, match=r"in 12 updates: its loss.*; is saturated: \d"):
        report = greedy_pretrain(small(), pixels, Autoencoder(), stages=1, **SETTINGS)
    assert report.to_frame()["problem"][0].startswith("above baseline, saturated")
    assert report.stages[0].saturated > 0.9


def test_dead_units_are_counted(x):
    model = small(activation="relu")
    model.get_layer("hidden_1").bias.assign([-100] * 4 + [1] * 3)
    with pytest.warns(PretrainingWarning, match="is dead: 57% of its units"):
        report = greedy_pretrain(model, x, Autoencoder(), stages=1, **SETTINGS)
    np.testing.assert_allclose(report.stages[0].dead, [4 / 7])
    assert np.isnan(report.stages[0].saturated).all()


def test_a_good_stage_is_not_told_of(x, recwarn):
    report = greedy_pretrain(small(), x, epochs=60, batch_size=4, learning_rate=0.03, stages=1)
    assert report.to_frame()["problem"].tolist() == [""]
    assert not [w for w in recwarn if issubclass(w.category, PretrainingWarning)]


@pytest.mark.parametrize("pretrain", [greedy_pretrain, joint_pretrain])
def test_an_encoder_is_pretrained_to_its_last_layer(x, pretrain):
    before = digest(small().variables)
    report = pretrain(model := small(), x, Autoencoder(), head=0, **SETTINGS)
    after = digest(model.variables)
    assert all(before[name] != after[name] for name in before)
    assert [stage.name for stage in report.stages] == ["hidden_1", "hidden_2", "head"]
    assert unroll(model, report).encode(x).shape == (N, 3)
    assert not report.left_out
    with pytest.raises(ValueError, match="pass head=0, or name.*stages=3, head=1"):
        pretrain(small(), x, Autoencoder(), stages=3, **SETTINGS)


FORCED = {
    "cross-entropy": (lambda: Autoencoder(loss="binary_crossentropy"), -0.5, "hidden_1"),
    "denoising": (lambda: DenoisingAutoencoder(loss="binary_crossentropy"), 1.0, "hidden_1"),
    "binary units": (lambda: RestrictedBoltzmannMachine(visible="binary"), -0.5, "hidden_1"),
    "Bernoulli": (lambda: VariationalAutoencoder(output="bernoulli"), 1.0, "hidden_1"),
    "above tanh": (
        lambda: [Autoencoder(), Autoencoder(loss="binary_crossentropy")],
        0.0,
        "hidden_2",
    ),
}


@pytest.mark.parametrize("name", FORCED)
def test_a_forced_binary_loss_needs_binary_inputs(x, name):
    objective, shift, stage = FORCED[name]
    model = small(activation="tanh" if stage == "hidden_2" else "sigmoid")
    before = digest(model.variables)
    with pytest.raises(ValueError, match=rf"needs inputs in \[0, 1\].*inputs of stage '{stage}'"):
        greedy_pretrain(model, x + shift, objective(), **SETTINGS)
    assert digest(model.variables) == before


def test_held_out_examples_are_not_binary_either(x):
    report = greedy_pretrain(small(), x, validation_data=2 * x, stages=1, **SETTINGS)
    assert report.stages[0].loss == "mean_squared_error"


def test_a_stage_has_the_same_loss_alone(x):
    # Rectified features happen to lie in [0, 1] before anything is trained.
    def build():
        return small(activation="relu")

    hidden = [["hidden_1"], ["hidden_2"]]
    together = greedy_pretrain(build(), 0.1 * x, Autoencoder(), stages=hidden, **SETTINGS)
    alone = greedy_pretrain(build(), 0.1 * x, Autoencoder(), stages=hidden[1:], **SETTINGS)
    assert alone.stages[0].loss == together.stages[1].loss == "mean_squared_error"


def table():
    return gaussian(N, 8) * np.arange(1, 9, dtype="float32") * 20 + 300


def normalized_first():
    stack = [layers.Dense(6, "tanh"), layers.Dense(3)]
    return keras.Sequential([keras.Input((8,)), layers.BatchNormalization(), *stack])


def test_batch_normalization_of_raw_columns_sees_them_first():
    population = Population.from_models(models := [normalized_first(), normalized_first()])
    own = [table(), 2 * table()]
    report = greedy_pretrain(population, own, Autoencoder(), **SETTINGS)
    for model, x in zip(models, own, strict=True):
        norm = model.layers[0]
        np.testing.assert_allclose(array(norm.moving_mean), x.mean(0), rtol=1e-4)
        np.testing.assert_allclose(array(norm.moving_variance), x.var(0), rtol=1e-3)
    np.testing.assert_allclose(report.stages[0].baseline, [1, 1], rtol=1e-3)


def test_normalization_that_has_seen_data_stays():
    model = normalized_first()
    model.layers[0].moving_mean.assign(np.arange(8.0))
    greedy_pretrain(model, table(), Autoencoder(), **SETTINGS)
    np.testing.assert_array_equal(array(model.layers[0].moving_mean), np.arange(8.0))
    stack = [layers.Normalization(), layers.Dense(6), layers.Dense(3)]
    with pytest.raises(ValueError, match="call its adapt.x. first. Received: layer 'norm"):
        greedy_pretrain(keras.Sequential([keras.Input((8,)), *stack]), table(), **SETTINGS)


@dataclasses.dataclass(frozen=True)
class Misfit:
    """A corruption process of images, which fails for vectors."""

    def __call__(self, x, seed):
        return x[:, :, 0]


def test_an_objective_that_does_not_fit_is_refused_before_anything_moves(x):
    model = small()
    before = digest(model.variables)
    objectives = [DenoisingAutoencoder(), DenoisingAutoencoder(Misfit())]
    with pytest.raises(ValueError, match="does not fit stage 'hidden_2'.*shape .7,."):
        greedy_pretrain(model, x, objectives, **SETTINGS)
    assert digest(model.variables) == before


@pytest.mark.parametrize("verbose, shown", [(0, ""), (1, "2/2"), (2, "")])
def test_verbose_is_as_in_keras(x, verbose, shown, capsys):
    options = {"epochs": 2, "batch_size": BATCH, "verbose": verbose}
    greedy_pretrain(small(), x, validation_data=x, stages=1, **options)
    out, err = capsys.readouterr()
    assert ("stage 1 of 1: hidden_1 (without hidden_2, head)" in err + out) == (verbose > 0)
    assert shown in err and ("val_loss" in err) == (verbose == 1)
    assert len(out.splitlines()) == (2 if verbose == 2 else 0)


def test_a_report_is_a_table_in_a_notebook_and_short_elsewhere(x):
    report = greedy_pretrain(small(), x, **SETTINGS)
    assert "<td>hidden_2</td>" in report._repr_html_()
    assert repr(report) == "<Report of 2 stages (hidden_1, hidden_2), 1 members>"
    assert "hidden_1" in repr(report.stages[0]) and len(repr(report.stages[0])) < 99


def test_quantized_stages_are_refused_before_anything_moves(x):
    model = networks.mlp((8,), 3, depth=2, units=5, seed=0)
    model.get_layer("hidden_2").quantize("int8")
    before = digest(model.variables)
    with pytest.raises(ValueError, match="floating point.*Received: stage 'hidden_2'.*kernel"):
        greedy_pretrain(model, x, epochs=1)
    assert digest(model.variables) == before


def test_new_layers_on_a_frozen_backbone_are_pretrained_alone():
    backbone = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ]
    )
    backbone.trainable = False
    inputs = keras.Input((6, 6, 2))
    outputs = layers.Dense(4, activation="tanh", name="new_1")(backbone(inputs, training=False))
    outputs = layers.Dense(4, activation="tanh", name="new_2")(outputs)
    model = keras.Model(inputs, layers.Dense(2, name="head")(outputs))
    before, images = digest(backbone.variables), uniform(64, 6, 6, 2)
    kernel = array(model.get_layer("new_1").kernel)
    with pytest.raises(ValueError, match="name the stages to train.*Received: stage 'conv2d"):
        greedy_pretrain(model, images, epochs=1)
    cut = [["new_1"], ["new_2"]]
    report = greedy_pretrain(model, images, stages=cut, epochs=30, batch_size=16)
    assert digest(backbone.variables) == before
    assert not np.array_equal(array(model.get_layer("new_1").kernel), kernel)
    # The decoder of the first stage reconstructs what the backbone computes.
    features = backbone.predict(images, verbose=0)
    codes = model.get_layer("new_1")(features)
    error = np.mean((array(report.stages[0].decoders[0](codes)) - features) ** 2)
    assert error < report.stages[0].history["loss"].iloc[0] / 2
    # Nor does a deep autoencoder reconstruct more.
    assert unroll(model, report).reconstruct(images).shape == features.shape


def test_a_frozen_stage_is_refused_before_anything_moves(x):
    model = small()
    model.get_layer("hidden_2").trainable = False
    before = digest(model.variables)
    with pytest.raises(ValueError, match="trainable weights.*Received: stage 'hidden_2'.*frozen"):
        greedy_pretrain(model, x, **SETTINGS)
    assert digest(model.variables) == before


def test_a_stage_of_which_only_a_normalization_would_be_trained_is_refused(x):
    model = networks.mlp((x.shape[1],), depth=2, units=4, normalization="batch")
    frozen, _ = split_stages(model)
    frozen.projection.operation.trainable = False
    assert frozen.trainable_variables
    before = digest(model.variables)
    with pytest.raises(ValueError, match="trainable weights.*whose projections are frozen"):
        greedy_pretrain(model, x, **SETTINGS)
    assert digest(model.variables) == before


def test_a_stage_that_cannot_be_tied_is_refused_before_anything_moves(x):
    model = NETWORKS["highway"]()
    before = digest(model.variables)
    with pytest.raises(ValueError, match="Tied weights.*Received: stage 'hidden_2'"):
        greedy_pretrain(model, x, Autoencoder(tied=True), **SETTINGS)
    assert digest(model.variables) == before
