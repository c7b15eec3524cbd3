"""What is reconstructed: clean targets of noisy inputs, known values, and steps without padding."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian, sequential, uniform

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Gaussian,
    Masking,
    RestrictedBoltzmannMachine,
    SparseAutoencoder,
    SupervisedGreedy,
    VariationalAutoencoder,
    greedy_pretrain,
    joint_pretrain,
    split_stages,
)
from pretrain.seeds import derive

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

N = 40
PLAIN = {"epochs": 2, "batch_size": 16, "verbose": 0}
SQUARED = Autoencoder(loss="mean_squared_error")


def mlp(*preprocessing, features=6):
    hidden = [layers.Dense(5, "tanh", name="a"), layers.Dense(4, "tanh", name="b")]
    return sequential((features,), *preprocessing, *hidden, layers.Dense(2))


def pairs():
    clean = gaussian(N, 6)
    return clean + gaussian(N, 6, seed=2) / 2, clean


def codes_of(model, x, number):
    for stage in split_stages(model)[:number]:
        x = stage(x)
    return array(x)


def reconstruction(model, report, number, x):
    """What the model's stage and the report's decoder make of inputs of the model."""
    return array(report.stages[number].decoders[0](codes_of(model, x, number + 1)))


def last(report, name="val_loss"):
    return [stage.last()[name].item() for stage in report.stages]


def test_noisy_inputs_are_mapped_to_clean_targets_by_every_stage():
    (noisy, clean), model = pairs(), mlp()
    data = {"targets": clean, "validation_data": (noisy, clean)}
    report = greedy_pretrain(model, noisy, **data, **PLAIN)
    expected = [
        ((reconstruction(model, report, i, noisy) - codes_of(model, clean, i)) ** 2).mean()
        for i in (0, 1)
    ]
    np.testing.assert_allclose(last(report), expected, rtol=1e-5)
    np.testing.assert_allclose(report.stages[0].baseline, clean.var(axis=0).mean(), rtol=1e-5)


def test_a_stage_learns_from_pairs_as_keras_does():
    (noisy, clean), model, twin = pairs(), mlp(), mlp()
    twin.set_weights(model.get_weights())
    (stage, _) = split_stages(twin)
    decoder = SQUARED.build(stage, derive("decoder", "stage 0", 0)).decoder
    whole = keras.Sequential([keras.Input((6,)), twin.get_layer("a"), decoder])
    whole.compile(keras.optimizers.SGD(0.5), "mse")
    whole.fit(noisy, clean, epochs=3, batch_size=N, verbose=0)
    options = {"epochs": 3, "batch_size": N, "verbose": 0, "stages": 1}
    optimizer = keras.optimizers.SGD(0.5)
    greedy_pretrain(model, noisy, SQUARED, targets=clean, optimizer=optimizer, **options)
    for own, kerass in zip(model.get_weights()[:2], twin.get_weights()[:2], strict=True):
        np.testing.assert_allclose(own, kerass, rtol=1e-4, atol=1e-6)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return tuple(part[10 * i : 10 * (i + 1)] for part in pairs())


@pytest.mark.parametrize("how", ["dataset", "little memory"])
def test_pairs_come_from_datasets_and_are_read_block_by_block(how):
    (noisy, clean), models = pairs(), [mlp(), mlp()]
    models[1].set_weights(models[0].get_weights())
    options = {**PLAIN, "batch_size": N}
    other = (Batches(), {"targets": "y"}) if how == "dataset" else (noisy, {"targets": clean})
    memory = {"max_memory": 1} if how == "little memory" else {}
    reports = [
        greedy_pretrain(models[0], noisy, targets=clean, **options),
        greedy_pretrain(models[1], other[0], **other[1], **memory, **options),
    ]
    np.testing.assert_allclose(*(last(report, "loss") for report in reports), rtol=1e-5)


def test_stages_learn_together_from_pairs():
    (noisy, clean), model = pairs(), mlp()
    data = {"targets": clean, "validation_data": (noisy, clean)}
    report = joint_pretrain(model, noisy, **data, **PLAIN)
    upper = report.stages[1].decoders[0](codes_of(model, noisy, 2))
    decoded = array(report.stages[0].decoders[0](upper))
    np.testing.assert_allclose(last(report), ((decoded - clean) ** 2).mean(), rtol=1e-5)


def test_the_range_of_the_targets_decides_the_loss():
    clean = uniform(N, 6)
    report = greedy_pretrain(mlp(), clean + gaussian(N, 6), targets=clean, **PLAIN)
    assert report.stages[0].loss == "binary_crossentropy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": gaussian(N, 6)}, "labels.*the clean ones go to `targets`"),
        ({"targets": gaussian(N, 5)}, r"shape of x.*targets.shape=\(40, 5\)"),
        ({"targets": gaussian(N - 1, 6)}, r"shape of x.*targets.shape=\(39, 6\)"),
        ({"targets": "y"}, "shape of x.*targets.shape=None"),
        ({"targets": gaussian(N, 6), "y": np.zeros(N)}, "no room for labels.*y of type ndarray"),
        ({"targets": gaussian(N, 6), "validation_data": gaussian(N, 6)}, r"\(x, targets\)"),
        ({"targets": gaussian(N, 6), "objective": SupervisedGreedy(2)}, "beside.*Supervised"),
        ({"missing": True, "objective": RestrictedBoltzmannMachine()}, "beside.*Boltzmann"),
    ],
)
def test_what_is_no_pair_is_refused(options, message):
    model = mlp()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        greedy_pretrain(model, gaussian(N, 6), **options, **PLAIN)
    for own, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, earlier)


def holes(make=gaussian):
    x = make(N, 6)
    x[np.random.default_rng(3).random(x.shape) < 0.3] = np.nan
    return x


def known_baseline(x, loss=lambda x, mean: (x - mean) ** 2):
    """The mean over all known values of the loss of the columns' means."""
    return np.nanmean(loss(x, np.nanmean(x, axis=0)))


@pytest.mark.parametrize(
    "objective", [SQUARED, DenoisingAutoencoder(Masking(0.0)), ContractiveAutoencoder(weight=0.0)]
)
def test_missing_values_are_fed_as_0_and_leave_the_loss(objective):
    x, model = holes(), mlp()
    data = {"missing": True, "validation_data": x}
    report = greedy_pretrain(model, x, objective, **data, **PLAIN)
    filled = np.nan_to_num(x)
    expected = [
        np.nanmean((reconstruction(model, report, 0, filled) - x) ** 2),
        ((reconstruction(model, report, 1, filled) - codes_of(model, filled, 1)) ** 2).mean(),
    ]
    np.testing.assert_allclose(last(report), expected, rtol=1e-5)
    np.testing.assert_allclose(report.stages[0].baseline, known_baseline(x), rtol=1e-5)


def test_a_column_without_any_value_moves_nothing():
    x, model = holes(), mlp()
    x[:, 2] = np.nan
    before = model.get_weights()[0]
    report = greedy_pretrain(model, x, missing=True, **PLAIN)
    bias = array(report.stages[0].decoders[0].weights[-1])
    assert bias[2] == 0 and (bias[[0, 1, 3, 4, 5]] != 0).all()
    moved = (model.get_weights()[0] != before).any(axis=1)
    np.testing.assert_array_equal(moved, np.arange(6) != 2)
    assert np.isfinite(report.stages[0].baseline).all()


def test_missing_values_are_0_behind_preprocessing():
    x = 100 + 10 * holes()
    normalization = layers.Normalization(mean=np.full(6, 100.0), variance=np.full(6, 100.0))
    model = mlp(normalization)
    data = {"missing": True, "validation_data": x}
    report = greedy_pretrain(model, x, SQUARED, **data, **PLAIN)
    scaled = (x - 100) / 10
    decoded = reconstruction(model, report, 0, np.nan_to_num(scaled))
    np.testing.assert_allclose(last(report)[0], np.nanmean((decoded - scaled) ** 2), rtol=1e-4)


def test_a_first_batch_normalization_gets_the_moments_of_known_values():
    x = 100 + 10 * holes()
    model = mlp(layers.BatchNormalization(name="norm"))
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.zeros(6))
    norm.moving_variance.assign(np.ones(6))
    greedy_pretrain(model, x, missing=True, **PLAIN)
    np.testing.assert_allclose(array(norm.moving_mean), np.nanmean(x, axis=0), rtol=1e-4)
    np.testing.assert_allclose(array(norm.moving_variance), np.nanvar(x, axis=0), rtol=1e-2)


def entropy(x, mean):
    return -(x * np.log(mean) + (1 - x) * np.log(1 - mean))


def nats(x, mean):
    return ((x - mean) ** 2 + np.log(2 * np.pi)) / 2


@pytest.mark.parametrize(
    ("objective", "make", "loss", "of_example"),
    [
        (SparseAutoencoder(norm="l1"), uniform, entropy, False),
        (Autoencoder(reduction="sum"), uniform, entropy, True),
        (VariationalAutoencoder(latent=2), gaussian, nats, True),
    ],
)
def test_baselines_are_those_of_the_known_values(objective, make, loss, of_example):
    x = holes(make)
    report = greedy_pretrain(mlp(), x, objective, missing=True, stages=1, **PLAIN)
    known = (~np.isnan(x)).sum(axis=1).mean() if of_example else 1
    np.testing.assert_allclose(
        report.stages[0].baseline, known * known_baseline(x, loss), rtol=1e-5
    )


def test_the_bound_of_a_variational_stage_is_that_of_the_known_values():
    x, model = holes(), mlp()
    learner = VariationalAutoencoder(latent=2, output="gaussian").build(split_stages(model)[0], 0)
    objective, key = VariationalAutoencoder(latent=2, output="gaussian"), np.array([1, 2], "int32")
    filled = ops.convert_to_tensor(np.nan_to_num(x))
    outputs = learner(objective.inputs(filled, ops.convert_to_tensor(key)))
    found = objective.scores(filled, ops.convert_to_tensor(x), outputs)[1]
    expected = np.nansum(nats(x, array(outputs["reconstruction"])), axis=1)
    np.testing.assert_allclose(array(found), expected, rtol=1e-5)


def sequences(steps=6, n=N):
    x = np.zeros((n, steps, 3), "float32")
    values = gaussian(n, 6, 3)
    for i, length in enumerate(np.arange(n) % 6 + 1):
        x[i, :length] = values[i, :length]
    return x


def recurrent(steps=6):
    lstms = [layers.LSTM(5, return_sequences=True, name="a"), layers.LSTM(4, name="b")]
    return sequential((steps, 3), layers.Masking(), *lstms, layers.Dense(2))


def test_padded_steps_leave_the_loss_and_its_baseline():
    x, model = sequences(), recurrent()
    report = greedy_pretrain(model, x, SQUARED, validation_data=x, **PLAIN)
    known = np.where((x != 0).any(axis=-1, keepdims=True), x, np.nan)
    decoded = reconstruction(model, report, 0, codes_of_preamble(model, x))
    np.testing.assert_allclose(last(report)[0], np.nanmean((decoded - known) ** 2), rtol=1e-5)
    # Every step has a mean of its own, which only examples that are long enough count for.
    np.testing.assert_allclose(report.stages[0].baseline, known_baseline(known), rtol=1e-5)


def codes_of_preamble(model, x):
    return split_stages(model)[0].preamble(x)


def test_more_padding_changes_no_loss():
    models, data = [recurrent(6), recurrent(9)], [sequences(6), sequences(9)]
    models[1].set_weights(models[0].get_weights())
    short, long = (
        greedy_pretrain(model, x, SQUARED, stages=1, validation_data=x, **PLAIN).stages[0]
        for model, x in zip(models, data, strict=True)
    )
    columns = ["loss", "val_loss"]
    np.testing.assert_allclose(short.history[columns], long.history[columns], rtol=1e-5)
    np.testing.assert_allclose(short.baseline, long.baseline, rtol=1e-6)


def test_a_comparison_inside_a_stage_masks_nothing():
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, "tanh")(ops.where(inputs > 0, inputs, -inputs))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    named = [[operation.name for operation in model.operations[1:-1]]]
    (stage,) = split_stages(model, stages=named)
    x = ops.convert_to_tensor(gaussian(N, 6))
    assert stage.counted(x) is None and stage(x).shape == (N, 4)


@pytest.mark.parametrize("corruption", [Gaussian(1.0), Masking(0.9)])
def test_corruption_neither_fills_nor_makes_padding(corruption):
    x = ops.convert_to_tensor(sequences())
    stage = split_stages(recurrent())[0]
    learner = DenoisingAutoencoder(corruption, loss="mean_squared_error").build(stage, 0)
    key = ops.convert_to_tensor(np.array([1, 2], "int32"))
    inputs = DenoisingAutoencoder(corruption).inputs(stage.preamble(x), key)
    code = array(learner(inputs)["code"])
    np.testing.assert_array_equal((code != 0).any(axis=-1), (sequences() != 0).any(axis=-1))
