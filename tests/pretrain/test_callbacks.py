"""Keras's callbacks: each does what it does in `fit`, or is refused by name."""

import inspect

import keras
import numpy as np
import pandas as pd
import pytest
from pretrain_helpers import array, digest, uniform

from pretrain import (
    Autoencoder,
    Population,
    SupervisedGreedy,
    VariationalAutoencoder,
    greedy_pretrain,
    joint_pretrain,
    networks,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

X = uniform(48, 6)
SGD = {"epochs": 3, "batch_size": 16, "optimizer": keras.optimizers.SGD(0.5, momentum=0.5)}
CALLBACKS = {
    name: kind
    for name, kind in vars(keras.callbacks).items()
    if inspect.isclass(kind) and name not in ("Callback", "CallbackList")
}
REFUSED = {"BackupAndRestore": "use `folder`", "SwapEMAWeights": "no moving averages"}
# Packages or servers that these need are not there.
UNAVAILABLE = ("OrbaxCheckpoint", "RemoteMonitor")


def model_of(seed=0):
    return networks.mlp((6,), 3, depth=2, units=5, activation="sigmoid", seed=seed)


def pretrained(model, *callbacks, objective=None, pretrain=greedy_pretrain, **options):
    options = SGD | {"validation_data": (X[:20],)} | options
    return pretrain(model, X, objective or Autoencoder(), callbacks=list(callbacks), **options)


def made(name, folder):
    """A callback of Keras of that name."""
    arguments = {
        "BackupAndRestore": [folder / "backup"],
        "CSVLogger": [folder / "log.csv"],
        "LearningRateScheduler": [lambda epoch: 0.1],
        "ModelCheckpoint": [folder / "model.keras"],
        "TensorBoard": [folder / "board"],
    }
    return CALLBACKS[name](*arguments.get(name, []))


@pytest.mark.parametrize("name", [name for name in CALLBACKS if name not in UNAVAILABLE])
def test_every_callback_of_keras_works_or_is_refused_by_name(name, tmp_path):
    if name == "TensorBoard":
        pytest.importorskip("tensorboard")
    callback = made(name, tmp_path)
    population = Population(model_of, [0])
    prediction = {"loss": "mse", "epochs": 1, "validation_data": (X, uniform(48, 3))}
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"{name} cannot work here.*{REFUSED[name]}"):
            pretrained(model_of(), callback)
        with pytest.raises(ValueError, match=f"{name} cannot work here"):
            population.fit(X, uniform(48, 3), callbacks=[callback], **prediction)
        return
    pretrained(model_of(), callback, epochs=1)
    population.fit(X, uniform(48, 3), callbacks=[callback], **prediction)


def test_what_is_no_callback_is_refused():
    with pytest.raises(ValueError, match="must be Keras callbacks. Received: callbacks=str"):
        pretrained(model_of(), "early stopping")


def test_early_stopping_restores_the_best_weights():
    def over_fitted(epochs, *callbacks):
        model, optimizer = model_of(), keras.optimizers.Adam(0.1)
        options = {"epochs": epochs, "batch_size": 8, "optimizer": optimizer, "stages": 1}
        held_out = {"validation_data": (uniform(40, 6, seed=2),)}
        x = X[:8]
        report = greedy_pretrain(
            model, x, Autoencoder(), callbacks=callbacks, **options, **held_out
        )
        return model, report.history["val_loss"]

    stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    model, losses = over_fitted(60, stop)
    best = int(losses.argmin()) + 1
    assert len(losses) == best + 3 < 60
    assert digest(model.weights) == digest(over_fitted(best)[0].weights)


class Sets(keras.callbacks.Callback):
    """Sets something after the first epoch."""

    def __init__(self, set_):
        super().__init__()
        self.set = set_

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.set(self.model)


def set_rate(model):
    model.optimizer.learning_rate = 0.25


def test_a_rate_that_a_callback_sets_is_trained_with():
    rates = {"optimizer": keras.optimizers.SGD(), "learning_rate": 0.5, "stages": 1}
    halved, expected = model_of(), model_of()
    pretrained(halved, Sets(set_rate), epochs=2, **rates)

    class Halves(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return keras.ops.where(step < 3, 0.5, 0.25)

        def get_config(self):
            return {}

    pretrained(expected, epochs=2, stages=1, optimizer=keras.optimizers.SGD(Halves()))
    assert digest(halved.weights) == digest(expected.weights)


def test_a_rate_that_a_callback_sets_is_in_proportion_for_every_member():
    population, alone = Population(model_of, [0, 1]), Population(model_of, [1])
    rates = {"optimizer": keras.optimizers.SGD(), "epochs": 2, "stages": 1}
    pretrained(population, Sets(set_rate), learning_rate=[0.5, 2.0], **rates)

    def set_half(model):
        model.optimizer.learning_rate = 1.0

    pretrained(alone, Sets(set_half), learning_rate=[2.0], **rates)
    assert digest(population.member(1).weights) == digest(alone.member(0).weights)


def test_weights_that_a_callback_sets_are_taken_back():
    def set_zero(model):
        for weight in model.trainable_variables:
            weight.assign(np.zeros(weight.shape))

    model = model_of()
    pretrained(model, Sets(set_zero), epochs=1, stages=1)
    assert not any(array(weight).any() for weight in model.layers[1].weights)


def test_the_callbacks_model_reconstructs_and_can_be_loaded(tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{stage:.0f}.keras")
    model = model_of()
    pretrained(model, checkpoint)
    deep = keras.saving.load_model(tmp_path / "1.keras")
    np.testing.assert_allclose(deep.encode(X), array(model.layers[1](X)), rtol=1e-6)
    assert deep.reconstruct(X).shape == X.shape
    assert keras.saving.load_model(tmp_path / "2.keras").encode(X[:, :5]).shape == (48, 5)


@pytest.mark.parametrize("objective", [SupervisedGreedy(3), VariationalAutoencoder(latent=2)])
def test_the_callbacks_model_is_of_the_objective(objective, tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    y = np.arange(48) % 3 if objective.needs_targets else None
    options = {"stages": 1, "epochs": 1, "y": y, "validation_data": None}
    pretrained(model_of(), checkpoint, objective=objective, **options)
    outputs = keras.saving.load_model(tmp_path / "model.keras").predict(X, verbose=0)
    assert outputs.shape == ((48, 3) if objective.needs_targets else (48, 6))


def test_the_callbacks_model_of_joint_training_is_the_deep_autoencoder(tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    pretrained(model := model_of(), checkpoint, pretrain=joint_pretrain)
    deep = keras.saving.load_model(tmp_path / "model.keras")
    code = model.layers[2](model.layers[1](X))
    np.testing.assert_allclose(deep.encode(X), array(code), rtol=1e-5)


def test_a_log_keeps_all_stages(tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    report = pretrained(model_of(), logger)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["stage"].tolist() == [1, 1, 1, 2, 2, 2]
    np.testing.assert_allclose(log["val_loss"], report.history["val_loss"], rtol=1e-6)
    assert not logger.append


class Recorder(keras.callbacks.Callback):
    """Records the names of all calls of hooks."""

    def __init__(self):
        super().__init__()
        self.calls = []
        for name in dir(keras.callbacks.Callback):
            if name.startswith("on_") and "predict" not in name:
                setattr(self, name, lambda *a, name=name, **k: self.calls.append((name, a[:1])))


def test_hooks_are_called_as_by_fit_with_an_epoch_as_one_execution():
    ours, theirs = Recorder(), Recorder()
    y, loss = uniform(48, 3), "mse"
    Population(model_of, [0]).fit(
        X, y, loss=loss, epochs=2, batch_size=16, validation_data=(X, y), callbacks=[ours]
    )
    model = model_of()
    model.compile("sgd", loss, steps_per_execution=3, run_eagerly=False)
    options = {"batch_size": 16, "validation_data": (X, y), "validation_batch_size": 48}
    model.fit(X, y, epochs=2, callbacks=[theirs], verbose=0, **options)

    def calls(recorder):
        return [c for c in recorder.calls if not c[0].startswith("on_batch")]

    names = [[name for name, _ in calls(recorder)] for recorder in (ours, theirs)]
    assert names[0] == names[1]
    numbered = ("on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end")
    numbers = [[c for c in calls(recorder) if c[0] in numbered] for recorder in (ours, theirs)]
    assert numbers[0] == numbers[1]


def test_a_population_has_no_best_weights_in_common():
    stop = keras.callbacks.EarlyStopping(restore_best_weights=True)
    with pytest.raises(ValueError, match="EarlyStopping cannot work here.*use `patience`"):
        pretrained(Population(model_of, [0, 1]), stop)


def test_a_callback_ends_the_training_of_a_population():
    def stop(model):
        model.stop_training = True

    population = Population.from_models([model := model_of()])
    model.compile("adam", "mse")
    optimizer = model.optimizer
    history = population.fit(X, uniform(48, 3), loss="mse", epochs=5, callbacks=[Sets(stop)])
    assert len(history) == 1
    assert model.optimizer is optimizer


def test_leaving_the_loop_ends_the_callbacks():
    recorder = Recorder()
    loop = Population(model_of, [0]).epochs(
        X, uniform(48, 3), loss="mse", epochs=5, callbacks=[recorder]
    )
    next(loop)
    loop.close()
    assert recorder.calls[-1][0] == "on_train_end"
