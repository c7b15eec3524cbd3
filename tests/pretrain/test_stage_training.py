"""Early stopping, callbacks, and stages that are kept in a folder."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from pretrain_helpers import array, digest, uniform, values

from pretrain import (
    Autoencoder,
    Population,
    RestrictedBoltzmannMachine,
    SupervisedGreedy,
    VariationalAutoencoder,
    greedy_pretrain,
    networks,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

X = uniform(64, 6)
HELD_OUT = uniform(40, 6, seed=2)


def model_of(seed=0):
    return networks.mlp((6,), 3, depth=2, units=5, activation="sigmoid", seed=seed)


def pretrained(model, x=X, objective=None, **options):
    options = {"epochs": 3, "batch_size": 16, "optimizer": keras.optimizers.SGD(0.5)} | options
    return greedy_pretrain(model, x, objective or Autoencoder(), **options)


# Early stopping


def over_fitting(seeds=(0,), **options):
    """Eight examples, a large rate: the validation loss soon grows."""
    population = Population(model_of, seeds)
    options = {"epochs": 60, "validation_data": (HELD_OUT,), "batch_size": 8} | options
    optimizer = keras.optimizers.Adam(0.1)
    return population, pretrained(population, X[:8], optimizer=optimizer, **options)


def test_a_stage_has_the_weights_of_its_best_epoch():
    population, report = over_fitting(patience=3)
    history = report.stages[0].history
    best = int(history["val_loss"].argmin()) + 1
    assert len(history) == best + 3 < 60
    shorter, _ = over_fitting(epochs=best, stages=1)
    for one, other in zip(
        population.member(0).layers[1].weights, shorter.member(0).layers[1].weights, strict=True
    ):
        np.testing.assert_array_equal(array(one), array(other))


def test_the_decoder_is_that_of_the_best_epoch():
    _, report = over_fitting(patience=3, stages=1)
    best = int(report.stages[0].history["val_loss"].argmin()) + 1
    _, shorter = over_fitting(epochs=best, stages=1)
    for one, other in zip(
        *(values(r.stages[0].decoders[0]) for r in (report, shorter)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_members_stop_by_themselves():
    together, report = over_fitting((0, 1, 2), patience=2, stages=1)
    lengths = report.history.groupby("member").size().tolist()
    assert len(set(lengths)) > 1
    for i in range(3):
        alone, single = over_fitting((i,), patience=2, stages=1)
        assert len(single.history) == lengths[i]
        assert report.stages[0].flops[i] == single.stages[0].flops[0]
        for one, other in zip(values(together.member(i)), values(alone.member(0)), strict=True):
            np.testing.assert_array_equal(one, other)
    frame = report.to_frame()
    last = report.history.groupby("member").tail(1).sort_values("member")
    assert frame["val_loss"].tolist() == last["val_loss"].tolist()


def test_patience_needs_validation_data():
    with pytest.raises(ValueError, match="expected `validation_data`. Received: patience=2"):
        pretrained(model_of(), patience=2)
    with pytest.raises(ValueError, match="`patience` must be an integer.*patience=0"):
        pretrained(model_of(), patience=0, validation_data=(HELD_OUT,))


# Callbacks


class Recorder(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.events, self.stop_after = [], stop_after

    def on_train_begin(self, logs=None):
        self.events.append(("begin", self.model.name))

    def on_epoch_end(self, epoch, logs=None):
        kernel = array(self.model.trainable_variables[0])
        self.events.append((epoch, logs, kernel))
        if self.stop_after == epoch + 1:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.events.append(("end", self.model.name))


def test_callbacks_see_every_stage_as_a_training():
    model, recorder = model_of(), Recorder()
    report = pretrained(model, callbacks=[recorder], validation_data=(HELD_OUT,))
    kinds = [event[0] for event in recorder.events]
    assert kinds == ["begin", 0, 1, 2, "end"] * 2
    assert [e[1] for e in recorder.events if e[0] == "begin"] == ["hidden_1", "hidden_2"]
    logs = [event[1] for event in recorder.events if isinstance(event[0], int)]
    for name in ("loss", "val_loss"):
        assert [log[name] for log in logs] == pytest.approx(report.history[name].tolist())
    np.testing.assert_array_equal(recorder.events[-2][2], array(model.layers[2].kernel))
    assert (recorder.events[1][2] != recorder.events[2][2]).any()


def test_a_callback_may_end_a_stage():
    report = pretrained(model_of(), callbacks=[Recorder(stop_after=2)])
    assert report.history.groupby("stage").size().tolist() == [2, 2]


def test_kerass_own_callbacks_work(tmp_path):
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True)
    stop = keras.callbacks.EarlyStopping("loss", min_delta=10)
    report = pretrained(model_of(), callbacks=[log, stop], epochs=6)
    assert len(report.history) == 4
    assert pd.read_csv(tmp_path / "log.csv")["epoch"].tolist() == [0, 1, 0, 1]


def test_callbacks_change_nothing():
    one, other = model_of(), model_of()
    pretrained(one, callbacks=[Recorder()])
    pretrained(other)
    assert digest(one.weights) == digest(other.weights)


# Stages that are kept


class Interruption(Exception):
    pass


class Interrupter(keras.callbacks.Callback):
    """Ends the program in the second stage."""

    def on_epoch_end(self, epoch, logs=None):
        if self.model.name == "hidden_2":
            raise Interruption


@pytest.mark.parametrize(
    "objective",
    [
        Autoencoder(),
        Autoencoder(tied=True),
        VariationalAutoencoder(latent=2),
        RestrictedBoltzmannMachine(persistent=True, chains=8),
        SupervisedGreedy(3),
    ],
    ids=str,
)
def test_an_interrupted_pretraining_goes_on(objective, tmp_path):
    y = np.arange(64) % 3 if objective.needs_targets else None
    options = {"objective": objective, "y": y}
    undisturbed = Population(model_of, [0, 1])
    expected = pretrained(undisturbed, **options)
    with pytest.raises(Interruption):
        population = Population(model_of, [0, 1])
        pretrained(population, callbacks=[Interrupter()], folder=tmp_path, **options)
    resumed, recorder = Population(model_of, [0, 1]), Recorder()
    report = pretrained(resumed, callbacks=[recorder], folder=tmp_path, **options)
    assert [e[1] for e in recorder.events if e[0] == "begin"] == ["hidden_2"]
    for i in (0, 1):
        assert digest(resumed.member(i).weights) == digest(undisturbed.member(i).weights)
    pd.testing.assert_frame_equal(
        report.to_frame().drop(columns="seconds"), expected.to_frame().drop(columns="seconds")
    )
    for one, other in zip(report.stages, expected.stages, strict=True):
        for kind in ("decoders", "heads"):
            for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
                assert (a is None) == (b is None)
                for v, w in zip(values(a) if a else [], values(b) if b else [], strict=True):
                    np.testing.assert_array_equal(v, w)


def test_a_damaged_stage_is_trained_again(tmp_path):
    model, again = model_of(), model_of()
    pretrained(model, folder=tmp_path)
    path = tmp_path / "stage_1.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    recorder = Recorder()
    pretrained(again, folder=tmp_path, callbacks=[recorder])
    assert [e[1] for e in recorder.events if e[0] == "begin"] == ["hidden_2"]
    assert digest(again.weights) == digest(model.weights)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stage_0.npz", "stage_1.npz"]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"x": HELD_OUT}, "data"),
        ({"epochs": 2}, "epochs .3, more than 2"),
        ({"seed": 1}, "seeds"),
        ({"objective": Autoencoder(reduction="sum")}, "objective"),
        ({"optimizer": keras.optimizers.SGD(0.1)}, "settings"),
        ({"learning_rate": 0.3}, "settings"),
        ({"validation_data": (HELD_OUT,)}, "data"),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_stages_of_another_pretraining_are_refused(change, named, tmp_path):
    pretrained(model_of(), folder=tmp_path)
    model = model_of()
    before = digest(model.weights)
    with pytest.raises(ValueError, match=f"other arguments: other {named}.*Received: folder="):
        pretrained(model, folder=tmp_path, **change)
    assert digest(model.weights) == before


class Scaled(layers.Layer):
    """A layer without a configuration, whose factor is an attribute."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


def scaled(factor):
    return lambda x: factor * x


def stack_of(scale=1.0, slope=0.1, first=None, seed=0, **options):
    keras.utils.set_random_seed(seed)
    dense = layers.Dense(5, **options)
    last = [layers.Dense(4, "sigmoid"), layers.Dense(3)]
    scaling = first or layers.Rescaling(scale)
    return keras.Sequential([keras.Input((6,)), scaling, dense, layers.LeakyReLU(slope), *last])


OTHERS = {
    "seed": {"seed": 1},
    "preprocessing": {"scale": 0.5},
    "slope": {"slope": 0.2},
    "regularizer": {"kernel_regularizer": keras.regularizers.L2(0.1)},
    "constraint": {"kernel_constraint": "non_neg"},
    "initializer": {"kernel_initializer": "he_normal"},
    "activation": {"activation": scaled(2.0)},
    "frozen": {"trainable": False},
    "layer": {"first": Scaled(2.0)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_stages_of_another_model_are_refused(name, tmp_path):
    base = {"activation": scaled(1.0)} if name == "activation" else {}
    base = {"first": Scaled(1.0)} if name == "layer" else base
    pretrained(stack_of(**base), epochs=1, stages=1, folder=tmp_path)
    # The same model, made anew, is known.
    again, recorder = stack_of(**base), Recorder()
    pretrained(again, epochs=1, stages=1, folder=tmp_path, callbacks=[recorder])
    assert not recorder.events
    with pytest.raises(ValueError, match="another model|frozen"):
        pretrained(stack_of(**OTHERS[name]), epochs=1, stages=1, folder=tmp_path)


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return len(self.x) // 16

    def __getitem__(self, i):
        return self.x[16 * i : 16 * i + 16]


def test_a_dataset_that_differs_late_is_another_dataset(tmp_path):
    pretrained(model_of(), Batches(X), epochs=1, stages=1, folder=tmp_path)
    pretrained(model_of(), Batches(X[::-1]), epochs=1, stages=1, folder=tmp_path)
    other = X.copy()
    other[-1, -1] = 0.5
    with pytest.raises(ValueError, match="other data.*other data"):
        pretrained(model_of(), Batches(other), epochs=1, stages=1, folder=tmp_path)


def test_more_stages_go_on_from_fewer(tmp_path):
    whole, recorder = model_of(), Recorder()
    pretrained(whole)
    pretrained(model_of(), stages=1, folder=tmp_path)
    pretrained(again := model_of(), folder=tmp_path, callbacks=[recorder])
    assert [e[1] for e in recorder.events if e[0] == "begin"] == ["hidden_2"]
    assert digest(again.weights) == digest(whole.weights)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("patience", [None, 9])
def test_more_epochs_go_on_and_equal_all_at_once(optimizer, patience, tmp_path):
    options = {"optimizer": optimizer, "objective": Autoencoder(tied=True), "patience": patience}
    options["validation_data"] = (HELD_OUT,)
    once, some, more = (Population(model_of, [0, 1]) for _ in range(3))
    expected = pretrained(once, epochs=5, **options)
    pretrained(some, epochs=2, folder=tmp_path, **options)
    recorder = Recorder()
    report = pretrained(more, epochs=5, folder=tmp_path, callbacks=[recorder], **options)
    first = [e[0] for e in recorder.events][1:6]
    assert first == ([2, 3, 4, "end", "begin"] if patience is None else [0, 1, 2, 3, 4])
    for i in (0, 1):
        assert digest(more.member(i).weights) == digest(once.member(i).weights)
    pd.testing.assert_frame_equal(
        report.to_frame().drop(columns="seconds"), expected.to_frame().drop(columns="seconds")
    )
    pd.testing.assert_frame_equal(report.history, expected.history, check_dtype=False)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        pretrained(model_of(), folder=tmp_path / "file")
