"""Keras's callbacks around the compiled epochs of a training."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.internals import copied_optimizer
from pretrain.members import Members, values_of, variables_of
from pretrain.training import Epoch, Trainer

# Why some of Keras's callbacks cannot do what they promise, and what does.
_REFUSED = {
    "BackupAndRestore": "it would restore a stage into another stage; use `folder` instead",
    "SwapEMAWeights": "the optimizers here keep no moving averages of weights",
}


def check_callbacks(callbacks: Any, members: int) -> list[keras.callbacks.Callback]:
    """The callbacks as a list, after a check that each of them can work."""
    callbacks = keras.tree.flatten(callbacks)
    for callback in callbacks:
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback):
            raise ValueError(f"`callbacks` must be Keras callbacks. Received: callbacks={name}")
        names = [kind.__name__ for kind in type(callback).__mro__]
        reason = next((why for refused, why in _REFUSED.items() if refused in names), None)
        if members > 1 and getattr(callback, "restore_best_weights", False):
            reason = "every member has a best epoch of its own; use `patience` instead"
        if reason:
            raise ValueError(f"{name} cannot work here: {reason}. Received: callbacks={name}")
    return callbacks


@contextlib.contextmanager
def appending(callbacks: Sequence[keras.callbacks.Callback]) -> Iterator[None]:
    """Makes a `CSVLogger` that has begun a file go on with the file in further trainings."""
    loggers = [c for c in callbacks if isinstance(c, keras.callbacks.CSVLogger) and not c.append]
    for logger in loggers:
        logger.append = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.append = False


class Watched:
    """The epochs of a training, which Keras callbacks see, change and end.

    An epoch is one execution, so callbacks see what they see in Keras with as many
    `steps_per_execution` as an epoch has updates: the begin and the end of one batch in every
    epoch. The scores in the logs are means over members. The callbacks' model and its optimizer are
    those of the first member, and what callbacks set in them is taken back. Weights are set for the
    first member, and a learning rate for every member, in proportion.

    Args:
        trainer: The training.
        members: The members that are trained.
        callbacks: The callbacks.
        model: Function that returns a model that shares variables with the members' template.
        optimizer: An optimizer like those of the members.
        epochs: Number of the last epoch.
        logs: What the logs hold beside the scores.
    """

    def __init__(
        self,
        trainer: Trainer,
        members: Members,
        callbacks: Sequence[keras.callbacks.Callback],
        model: Callable[[], keras.Model],
        optimizer: keras.optimizers.Optimizer,
        epochs: int,
        logs: dict[str, float] | None = None,
    ) -> None:
        self._trainer = trainer
        self._members = members
        self._epochs = epochs
        self._logs = logs or {}
        self._model = None
        if callbacks:
            self._prepare(callbacks, model(), optimizer)

    def _prepare(self, callbacks: Any, model: keras.Model, optimizer: Any) -> None:
        self._former = getattr(model, "optimizer", None)
        self._optimizer = copied_optimizer(optimizer)
        self._optimizer.build(self._members.template.trainable_variables)
        self._model, model.optimizer, model.stop_training = model, self._optimizer, False
        params = {"epochs": self._epochs, "steps": None, "verbose": 0}
        self._callbacks = keras.callbacks.CallbackList(list(callbacks), model=model, **params)

    def __iter__(self) -> Iterator[Epoch]:
        epochs = itertools.islice(self._trainer, self._epochs - self._trainer.epoch)
        return self._watched(epochs) if self._model else epochs

    def _watched(self, epochs: Iterator[Epoch]) -> Iterator[Epoch]:
        with self._shown() as callbacks:
            callbacks.on_train_begin()
        while not self.stopped and self._trainer.epoch < self._epochs:
            with self._shown() as callbacks:
                callbacks.on_epoch_begin(self._trainer.epoch)
                callbacks.on_train_batch_begin(0)
            before = self._trainer.updates
            epoch = next(epochs)
            with self._shown() as callbacks:
                self._tell(callbacks, epoch, last=epoch.updates - before - 1)
            yield epoch

    @property
    def stopped(self) -> bool:
        """Whether a callback has ended the training."""
        return self._model is not None and self._model.stop_training

    def end(self) -> None:
        """Tells the callbacks that the training has ended."""
        if not self._model:
            return
        with self._shown() as callbacks:
            callbacks.on_train_end()
        self._model.optimizer = self._former

    def _tell(self, callbacks: keras.callbacks.CallbackList, epoch: Epoch, last: int) -> None:
        """Tells of an epoch, whose last batch has the number `last`."""
        scores = {name: float(np.mean(values)) for name, values in epoch.scores.items()}
        trained = {name: score for name, score in scores.items() if not name.startswith("val_")}
        callbacks.on_train_batch_end(last, trained)
        if len(scores) > len(trained):
            validated = {name: scores[f"val_{name}"] for name in trained}
            callbacks.on_test_begin()
            callbacks.on_test_batch_begin(0)
            callbacks.on_test_batch_end(0, validated)
            callbacks.on_test_end(validated)
        callbacks.on_epoch_end(epoch.number - 1, scores | self._logs)

    @contextlib.contextmanager
    def _shown(self) -> Iterator[keras.callbacks.CallbackList]:
        """Shows the first member to the callbacks, and takes back what they set."""
        members, states = self._members, self._trainer.states
        members.assign(0, members.template)
        for variable, value in zip(self._optimizer.variables, states[0], strict=True):
            variable.assign(ops.copy(value))
        yield self._callbacks
        members.values[0] = values_of(variables_of(members.template))
        states[:] = self._scaled(states)
        states[0] = values_of(self._optimizer.variables)

    def _scaled(self, states: list[list]) -> list[list]:
        """The states of all members, with the learning rate that the callbacks have set."""
        rate = self._optimizer.learning_rate
        places = [i for i, v in enumerate(self._optimizer.variables) if v is rate]
        if not places:
            return states
        (place,) = places
        shown, new = states[0][place], rate.value
        return [
            [*state[:place], _in_proportion(state[place], shown, new), *state[place + 1 :]]
            for state in states
        ]


def _in_proportion(rate: Any, shown: Any, new: Any) -> Any:
    """A member's rate, after the rate that was shown has become a new one."""
    rate, shown, new = (ops.convert_to_numpy(value) for value in (rate, shown, new))
    scaled = new if rate == shown or not shown else rate * (new / shown)
    return ops.convert_to_tensor(scaled, "float32")
