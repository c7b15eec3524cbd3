"""Many copies of one architecture, trained by one compiled program."""

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from pretrain.callbacks import Watched, check_callbacks
from pretrain.checks import check_model, checked_optimizer, checked_rates, checked_seeds, positive
from pretrain.examples import MAX_MEMORY, Examples, split_validation
from pretrain.members import Members, values_of, variables_of
from pretrain.task import check_labeled, check_one_output, check_targets, prediction_task
from pretrain.training import Epoch, Trainer, progress


class Population:
    """Copies of one architecture that differ in seed, initial weights and learning rate.

    All members run one compiled program, which other populations of the same architecture reuse,
    whatever their seeds and initializers. On a processor the members run whole epochs one after
    another, as many at once as there are cores, so that the weights of a member stay in the
    cache; on an accelerator (JAX) they are vectorized. A member's result does not depend on the
    others: a member that diverges leaves them untouched.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from pretrain import Population, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> population = Population(lambda seed: networks.mlp((6,), 3, seed=seed), seeds=range(10))
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> history = population.fit(x, y, loss=loss, metrics=["accuracy"], epochs=2, learning_rate=0.1)
    >>> population.evaluate(x, y, loss=loss, metrics=["accuracy"]).shape
    (10, 4)

    Args:
        build: Function from a seed to a built `keras.Model`, the same architecture for each seed.
        seeds: A seed for each member; members may share seeds (to differ in learning rate).

    """

    def __init__(self, build: Callable[[int], keras.Model], seeds: Iterable[int]) -> None:
        self.seeds = checked_seeds(seeds)
        self._build = build
        self._models: list[keras.Model] | None = None
        models = [build(seed) for seed in self.seeds]
        for model in models:
            check_model(model, models[0])
        if len(set(map(id, models))) < len(models):
            raise ValueError(
                "Expected a model of its own for each member, of one architecture. "
                f"Received: {models[0].name!r} for several of {len(models)} members"
            )
        values = [values_of(variables_of(model)) for model in models]
        self.members = Members(models[0], self.seeds, values)

    @classmethod
    def from_models(
        cls, models: Sequence[keras.Model], seeds: Iterable[int] | None = None
    ) -> "Population":
        """A population of existing models of one architecture.

        Args:
            models: Built Keras models.
            seeds: A seed for each model (batch order, corruption); `None` is 0, 1, ...

        Returns:
            The population; `member(i)` is `models[i]`, with the weights that the member has then.
        """
        models = list(models)
        seeds = checked_seeds(range(len(models)) if seeds is None else seeds)
        if len(seeds) != len(models):
            raise ValueError(
                f"Expected a seed for each model. Received: {len(models)} models, seeds={seeds}"
            )
        remaining = iter(models)
        population = cls(lambda seed: next(remaining), seeds)
        population._models = models
        return population

    def with_members(self, members: Members) -> "Population":
        """The same population with other weights, for example those of a `BestEpoch`.

        Args:
            members: As many members of the same architecture.

        Returns:
            A population of its own.
        """
        population = copy.copy(self)
        population.members = members
        return population

    @property
    def template(self) -> keras.Model:
        """The model whose architecture every member has."""
        return self.members.template

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        return f"<Population of {len(self)} x {self.template.name}, seeds={self.seeds}>"

    def member(self, i: int) -> keras.Model:
        """Member `i` as a Keras model.

        Args:
            i: Index of the member, from 0.

        Returns:
            The `i`-th model of `from_models`, or a new one from the build function, with the
            member's weights.

        Raises:
            IndexError: If there is no such member.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"Expected a member of {len(self)}. Received: i={i}")
        model = self._models[i] if self._models else self._build(self.seeds[i])
        self.members.assign(i, model)
        return model

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: str | keras.losses.Loss | Callable,
        epochs: int = 1,
        batch_size: int | None = None,
        optimizer: str | keras.optimizers.Optimizer = "sgd",
        learning_rate: float | Sequence[float] | None = None,
        schedule: Callable[[int, float], float] | None = None,
        metrics: Sequence[str | keras.metrics.Metric | Callable] = (),
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        validation_data: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_split: float = 0.0,
        drop_remainder: bool = False,
        max_memory: int = MAX_MEMORY,
        verbose: str | int = "auto",
    ) -> pd.DataFrame:
        """Trains every member.

        Each epoch is a new permutation of the examples, drawn from a member's seed; the last batch
        may have fewer examples. Every call starts anew, with a fresh optimizer and epoch 1.

        Args:
            x: Inputs (n, ...): an array, a DataFrame, a SciPy sparse matrix or nested lists; or a
                list with such an array for each member; or a finite dataset (`tf.data.Dataset`,
                `keras.utils.PyDataset`) of `(x, y)` or `(x, y, sample_weight)`.
            y: Targets (n, ...), or a list of them.
            loss: Keras loss, by name, class or instance, or a function `(y_true, y_pred)`. As in
                Keras, targets (n,) of a model with outputs (n, 1) become (n, 1).
            epochs: Number of epochs, at least 1.
            batch_size: Examples per update; `None` is 32, or the size of a dataset's first batch.
            optimizer: Keras optimizer, by name or instance.
            learning_rate: One rate for all or one per member; `None` is the optimizer's own.
            schedule: Function of the epoch (from 0) and a member's rate, which returns the rate of
                that epoch; `None` keeps the rate.
            metrics: Keras metrics, by name, class or instance, or functions `(y_true, y_pred)`.
            sample_weight: Weights of the loss (n,).
            class_weight: Weights of the loss by class, 1 for a class that is not named.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset, evaluated each epoch.
            callbacks: Keras callbacks, which see an epoch as one execution of all its batches. The
                logs are means over members; `callback.model` is the first member. Weights that a
                callback sets are the first member's; a learning rate that it sets changes the rates
                of all members in proportion.
            validation_split: Share of arrays to validate on instead, the last examples; 0 for none.
            drop_remainder: Whether examples that fill no batch are left out of an epoch.
            max_memory: Bytes that examples may take on the device. Those that take more, and
                datasets, are read in every epoch anew, in blocks, and shuffled within blocks.
            verbose: As in Keras's `fit`: `"auto"` is a progress bar in a terminal or notebook, 1 a
                bar anywhere, 2 a line for each epoch, 0 nothing.

        Returns:
            A row per member and epoch: `member`, `seed`, `epoch` (from 1), `learning_rate` (before
            any schedule), `updates` (so far), `loss` (mean over the epoch), the metrics, and each
            with `val_`.

        Raises:
            ValueError: If an argument is out of range or data and model do not fit.
        """
        loop = self.epochs(
            x,
            y,
            loss=loss,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            schedule=schedule,
            metrics=metrics,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            callbacks=callbacks,
            validation_split=validation_split,
            drop_remainder=drop_remainder,
            max_memory=max_memory,
            verbose=verbose,
        )
        table = pd.DataFrame([row for epoch in loop for row in epoch.rows(self.seeds)])
        rates = checked_rates(checked_optimizer(optimizer), learning_rate, len(self))
        table.insert(3, "learning_rate", [rates[i] for i in table["member"]])
        return table

    def epochs(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: str | keras.losses.Loss | Callable,
        epochs: int = 1,
        batch_size: int | None = None,
        optimizer: str | keras.optimizers.Optimizer = "sgd",
        learning_rate: float | Sequence[float] | None = None,
        schedule: Callable[[int, float], float] | None = None,
        metrics: Sequence[str | keras.metrics.Metric | Callable] = (),
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        validation_data: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_split: float = 0.0,
        drop_remainder: bool = False,
        max_memory: int = MAX_MEMORY,
        verbose: str | int = "auto",
    ) -> Iterator[Epoch]:
        """Trains every member, and hands over to the caller after each epoch.

        In the body of the loop the population has the weights of that epoch; to break out of the
        loop is early stopping.

        Example:

        >>> import keras
        >>> import numpy as np
        >>> from pretrain import Population, networks
        >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
        >>> population = Population(lambda seed: networks.mlp((6,), 3, seed=seed), seeds=[0, 1])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> for epoch in population.epochs(x, y, loss=loss, epochs=100, verbose=0):
        ...     if epoch.number == 3 or epoch.scores["loss"].max() < 0.1:
        ...         break
        >>> epoch.scores["loss"].shape
        (2,)

        Args:
            x: As in `fit`, like all other arguments.

        Yields:
            The epoch's `number`, from 1, and its `scores`: by name, an array (members,) of each
            column that `fit` returns, such as `"loss"` and `"val_loss"`.

        Raises:
            ValueError: If an argument is out of range or data and model do not fit.
        """
        epochs, callbacks = positive("epochs", epochs), check_callbacks(callbacks, len(self))
        optimizer = checked_optimizer(optimizer)
        options = {"model": self.template, "members": len(self)}
        examples = Examples(x, y, sample_weight, class_weight=class_weight, **options)
        examples, validation = split_validation(
            examples, validation_data, validation_split, **options
        )
        task = prediction_task(self.template, examples, loss, metrics)
        size = examples.batch_size(batch_size, default=32)
        checked = functools.partial(check_targets, self.template, task)
        limit, held_out = positive("max_memory", max_memory), None
        if validation:
            check_labeled(self.template, task, validation)
            held_out = validation.reader(limit, 1, checked)
        trainer = Trainer(
            self.members,
            task,
            examples.reader(limit, size, checked),
            optimizer=optimizer,
            learning_rate=learning_rate,
            batch_size=size,
            drop_remainder=drop_remainder,
            validate=held_out and (lambda: self.members.scores(task, held_out())),
            schedule=schedule,
        )
        watched = Watched(
            trainer, self.members, callbacks, lambda: self.template, optimizer, epochs
        )
        return self._watched(progress(watched, 0, epochs, verbose), watched)

    def _watched(self, epochs: Iterator[Epoch], watched: Watched) -> Iterator[Epoch]:
        try:
            yield from epochs
        except GeneratorExit:
            # The caller has left the loop, which is early stopping.
            watched.end()
            raise
        watched.end()

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: str | keras.losses.Loss | Callable,
        metrics: Sequence[str | keras.metrics.Metric | Callable] = (),
        sample_weight: Any = None,
    ) -> pd.DataFrame:
        """Mean loss and metrics of every member.

        Args:
            x: As in `fit`.
            y: Targets (n, ...), or a list of them.
            loss: As in `fit`.
            metrics: As in `fit`.
            sample_weight: Weights of the loss (n,).

        Returns:
            A row per member: `member`, `seed`, `loss` and the metrics.

        Raises:
            ValueError: If data and model do not fit.
        """
        options = {"model": self.template, "members": len(self)}
        examples = Examples(x, y, sample_weight, **options)
        task = prediction_task(self.template, examples, loss, metrics)
        checked = functools.partial(check_targets, self.template, task)
        read = examples.reader(MAX_MEMORY, 1, checked)
        scores = self.members.scores(task, read())
        table = pd.DataFrame(scores, columns=task.names)
        table.insert(0, "member", range(len(self)))
        table.insert(1, "seed", self.seeds)
        return table

    def predict(self, x: Any) -> np.ndarray:
        """Outputs of every member, in inference mode.

        Args:
            x: As in `fit`; targets of a dataset are not used.

        Returns:
            Array of shape (members, n, ...).

        Raises:
            ValueError: If x does not fit the model.
        """
        check_one_output(self.template)
        examples = Examples(x, model=self.template, members=len(self))
        rows = examples.rows_within(MAX_MEMORY, 1)
        outputs = [self.members.outputs([b.x for b in blocks]) for blocks in examples.blocks(rows)]
        return np.stack([np.concatenate(pieces) for pieces in zip(*outputs, strict=True)])

    def take_over(self, trained: Members) -> None:
        """Takes the weights that stages have learned, and gives them to the models.

        Args:
            trained: Members of a layer that shares variables with the template.
        """
        self.members.take_over(trained)
        for i, model in enumerate(self._models or [self.template]):
            self.members.assign(i, model)
