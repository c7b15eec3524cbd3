"""Many copies of one architecture, trained by one compiled program."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from tqdm import tqdm

from pretrain.backend import Compiled
from pretrain.checks import (
    check_model,
    checked_optimizer,
    checked_rates,
    checked_seeds,
    positive,
)
from pretrain.examples import MAX_MEMORY, Block, Examples, rows_within, split_validation
from pretrain.program import Task, get_program, values_of
from pretrain.seeds import derive
from pretrain.task import check_inputs, check_labeled, check_targets, prediction_task

_PREDICTION_CHUNK = 1000


class Population:
    """Copies of one architecture that differ in seed, initial weights and learning rate.

    All members run one compiled program, which other populations of the same architecture reuse,
    whatever their seeds and initializers. On a processor the members run whole epochs one after
    another, as many at once as there are cores, so that the weights of a member stay in the
    cache; on an accelerator (JAX) they are vectorized. A member's result does not depend on the
    others: a member that diverges leaves them untouched.

    Args:
        build: Function from a seed to a built `keras.Model`, the same architecture for each seed.
        seeds: A seed for each member; members may share seeds (to differ in learning rate).

    Example:

    ```python
    population = Population(lambda seed: mlp((28, 28, 1), depth=3, seed=seed), seeds=range(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    history = population.fit(x, y, loss=loss, metrics=["accuracy"], epochs=10, learning_rate=0.1)
    ```
    """

    def __init__(self, build: Callable[[int], keras.Model], seeds: Iterable[int]) -> None:
        self.seeds = checked_seeds(seeds)
        self._build: Callable | None = build
        self._models: list[keras.Model] | None = None
        self._hold([build(seed) for seed in self.seeds])

    @classmethod
    def from_models(
        cls, models: Sequence[keras.Model], seeds: Iterable[int] | None = None
    ) -> "Population":
        """A population of existing models of one architecture.

        Args:
            models: Built Keras models.
            seeds: A seed for each model (batch order, corruption); `None` is 0, 1, ...

        Returns:
            The population; `member(i)` is `models[i]`, with the weights it has then.
        """
        models = list(models)
        population = cls.__new__(cls)
        population.seeds = checked_seeds(range(len(models)) if seeds is None else seeds)
        if len(population.seeds) != len(models):
            raise ValueError(
                "Expected a seed for each model. Received: "
                f"{len(models)} models, seeds={population.seeds}"
            )
        population._build, population._models = None, models
        population._hold(models)
        return population

    @classmethod
    def _from_values(cls, template: Any, seeds: list[int], trained: list, fixed: list):
        """A population of any Keras layer from its members' variables."""
        population = cls.__new__(cls)
        population.seeds, population.template = seeds, template
        population._build = population._models = None
        population._trained, population._fixed = trained, fixed
        return population

    @classmethod
    def assembled(cls, populations: Sequence["Population"]) -> "Population":
        """A population whose member i is member i of `populations[i]`, as it is now.

        Args:
            populations: Populations of one template and of the same seeds: one at several times.

        Returns:
            The population; it has no models of its own.
        """
        first = populations[0]
        trained = [population._trained[i] for i, population in enumerate(populations)]
        fixed = [population._fixed[i] for i, population in enumerate(populations)]
        return cls._from_values(first.template, first.seeds, trained, fixed)

    def _hold(self, models: list[keras.Model]) -> None:
        for model in models:
            check_model(model, models[0])
        if len(set(map(id, models))) < len(models):
            raise ValueError(
                "Expected a model of its own for each member, of one architecture. "
                f"Received: {models[0].name!r} for several of {len(models)} members"
            )
        self.template = models[0]
        self._trained = [values_of(model.trainable_variables) for model in models]
        self._fixed = [values_of(model.non_trainable_variables) for model in models]

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
        self._assign(i, model)
        return model

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: Any,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: Any = "sgd",
        learning_rate: float | Sequence[float] | None = None,
        metrics: Sequence[Any] = (),
        sample_weight: Any = None,
        validation_data: Any = None,
        max_memory: int = MAX_MEMORY,
        verbose: Any = "auto",
    ) -> pd.DataFrame:
        """Trains every member.

        Each epoch is a new permutation of the examples, drawn from a member's seed; the last
        partial batch is dropped. Every call starts anew, with a fresh optimizer and epoch 1.

        Args:
            x: Inputs (n, ...); or a list with such an array for each member; or a finite dataset
                (`tf.data.Dataset`, `keras.utils.PyDataset`) of batches `(x, y)` or
                `(x, y, sample_weight)`, which is shuffled within blocks.
            y: Targets (n, ...), or a list of them.
            loss: Keras loss, by name or instance, or a function `(y_true, y_pred)`.
            epochs: Number of epochs, at least 1.
            batch_size: Examples per update.
            optimizer: Keras optimizer, by name or instance.
            learning_rate: One rate for all or one per member; `None` is the optimizer's own.
            metrics: Keras metrics that are means over examples, by name, or functions
                `(y_true, y_pred) -> (batch,)`.
            sample_weight: Weights of the loss (n,).
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset, evaluated each epoch.
            max_memory: Bytes that a block of a dataset may take.
            verbose: `"auto"` shows a progress bar in a terminal, 0 never.

        Returns:
            A row per member and epoch: `member`, `seed`, `epoch` (from 1), `learning_rate`,
            `loss` (mean over the epoch's batches), the metrics, and each with `val_`.

        Raises:
            ValueError: If an argument is out of range or data and model do not fit.
        """
        examples = Examples(x, y, sample_weight, members=len(self))
        validation = split_validation(validation_data, len(self))
        task = prediction_task(loss, metrics)
        for data in (examples, validation):
            check_labeled(self.template, task, data)
        trainer = Trainer(self, task, optimizer, learning_rate, batch_size)
        checked = functools.partial(check_targets, self.template, task)
        held_out = validation and on_device(checked(next(validation.blocks())))
        resident = None if examples.is_dataset else [on_device(examples.first())]
        rows = rows_within(positive("max_memory", max_memory), examples.first()[0].x, batch_size)
        history = []
        for epoch in progress(range(1, positive("epochs", epochs) + 1), "epochs", verbose):
            blocks = resident or map(on_device, map(checked, examples.blocks(rows)))
            scores = trainer.epoch(blocks, epoch)
            validated = held_out and self.scores(task, held_out)
            history += self.history(task.names, epoch, scores, validated)
        table = pd.DataFrame(history)
        table.insert(3, "learning_rate", [trainer.rates[i] for i in table["member"]])
        return table

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        loss: Any,
        metrics: Sequence[Any] = (),
        sample_weight: Any = None,
    ) -> pd.DataFrame:
        """Mean loss and metrics of every member.

        Args:
            x: Inputs (n, ...), a list of such arrays, or a dataset.
            y: Targets (n, ...), or a list of them.
            loss: As in `fit`.
            metrics: As in `fit`.
            sample_weight: Weights of the loss (n,).

        Returns:
            A row per member: `member`, `seed`, `loss` and the metrics.

        Raises:
            ValueError: If data and model do not fit.
        """
        examples = Examples(x, y, sample_weight, members=len(self))
        task = prediction_task(loss, metrics)
        check_labeled(self.template, task, examples)
        blocks = check_targets(self.template, task, next(examples.blocks()))
        scores = self.scores(task, on_device(blocks))
        table = pd.DataFrame(scores, columns=task.names)
        table.insert(0, "member", range(len(self)))
        table.insert(1, "seed", self.seeds)
        return table

    def predict(self, x: Any) -> np.ndarray:
        """Outputs of every member, in inference mode.

        Args:
            x: Inputs (n, ...), a list of such arrays, or a dataset.

        Returns:
            Array of shape (members, n, ...).

        Raises:
            ValueError: If x does not fit the model.
        """
        examples = Examples(x, members=len(self))
        check_inputs(self.template, examples)
        return np.stack(self.outputs([block.x for block in next(examples.blocks())]))

    def outputs(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs of every member; `inputs` holds one array for all or one for each."""
        infer = get_program(self.template).infer
        n = len(inputs[0])
        chunk = min(n, _PREDICTION_CHUNK)
        outputs = []
        for start in range(0, n, chunk):
            rows = np.minimum(np.arange(start, start + chunk), n - 1)
            part = [(ops.convert_to_tensor(x[rows]),) for x in inputs]
            outputs.append([ops.convert_to_numpy(o) for o in self._each(infer, [], part)])
        return [np.concatenate(pieces)[:n] for pieces in zip(*outputs, strict=True)]

    def scores(self, task: Task, blocks: list[Block], stream: str = "") -> np.ndarray:
        """Mean scores (members, names); `blocks` holds one block for all or one for each."""
        score = get_program(self.template, task).score
        keys = [_key(derive("validation", stream, seed)) for seed in self.seeds]
        return np.stack([ops.convert_to_numpy(s) for s in self._each(score, [keys], blocks)])

    def _each(self, function: Compiled, own: list[list], data: list[tuple]) -> list:
        """Calls a program for every member: its variables, what it has of its own, data."""
        members = list(zip(self._trained, self._fixed, *own, strict=True))
        if len(data) == 1:
            return function.each(members, tuple(data[0]))
        return function.each([(*m, *d) for m, d in zip(members, data, strict=True)], ())

    def history(
        self, names: tuple[str, ...], epoch: int, scores: np.ndarray, validated: np.ndarray | None
    ) -> list[dict]:
        """Rows of a history: a dict for each member, from scores of shape (members, names)."""
        rows = []
        for i, seed in enumerate(self.seeds):
            row = {"member": i, "seed": seed, "epoch": epoch}
            row |= dict(zip(names, scores[i], strict=True))
            if validated is not None:
                row |= {f"val_{k}": v for k, v in zip(names, validated[i], strict=True)}
            rows.append(row)
        return rows

    def part(self, layer: Any, own: Sequence[dict] | None = None) -> "Population":
        """A population of a layer that shares variables with this one's template.

        Args:
            layer: A layer, or stage, of the model, or one that contains it. Without variables it
                is the same for all members, so the part has one member.
            own: For each member, the values of variables that are the layer's own, by `id`.

        Returns:
            The part; `set_part` takes over what it learns.
        """
        members = range(len(self) if layer.variables else 1)

        def values(variables: list, i: int) -> list:
            return [self.value(i, v) if self._has(v) else own[i][id(v)] for v in variables]

        return self._from_values(
            layer,
            self.seeds[: len(members)],
            [values(layer.trainable_variables, i) for i in members],
            [values(layer.non_trainable_variables, i) for i in members],
        )

    def with_values(self, members: list[list]) -> "Population":
        """A population of the same template with other weights.

        Args:
            members: For each member, the values of the template's variables, trainable ones first.
        """
        trained = len(self.template.trainable_variables)
        tensors = [[ops.convert_to_tensor(value) for value in values] for values in members]
        return self._from_values(
            self.template,
            self.seeds,
            [values[:trained] for values in tensors],
            [values[trained:] for values in tensors],
        )

    def values(self) -> list[list[np.ndarray]]:
        """For each member, the values of the template's variables, trainable ones first."""
        members = zip(self._trained, self._fixed, strict=True)
        return [[ops.convert_to_numpy(v) for v in [*own, *fixed]] for own, fixed in members]

    def set_part(self, part: "Population") -> None:
        """Takes over the weights of a part, and gives them to the models the members are from."""
        for variable in _variables(part.template):
            if self._has(variable):
                kind, position = self._places[id(variable)]
                for i in range(len(self)):
                    getattr(self, kind)[i][position] = part.value(i, variable)
        for i, model in enumerate(self._models or [self.template]):
            self._assign(i, model)

    def value(self, i: int, variable: keras.Variable) -> Any:
        """Member `i`'s value of a variable of the template."""
        kind, position = self._places[id(variable)]
        return getattr(self, kind)[i][position]

    def _has(self, variable: keras.Variable) -> bool:
        return id(variable) in self._places

    @property
    def _places(self) -> dict[int, tuple[str, int]]:
        """Where the values of each of the template's variables are held."""
        lists = {
            "_trained": self.template.trainable_variables,
            "_fixed": self.template.non_trainable_variables,
        }
        return {id(v): (kind, p) for kind in lists for p, v in enumerate(lists[kind])}

    def _assign(self, i: int, model: Any) -> None:
        values = [*self._trained[i], *self._fixed[i]]
        for variable, value in zip(_variables(model), values, strict=True):
            # A copy: training with Keras on JAX deletes the arrays that a model held.
            variable.assign(ops.copy(value))


class BestEpoch:
    """The members of a population, each as it was when its score was lowest.

    Args:
        population: The population, which goes on being trained.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self._scores = np.full(len(population), np.inf)
        self._members = [self._now()] * len(population)

    def update(self, scores: np.ndarray, among: Any = True) -> np.ndarray:
        """Keeps the members as they are now whose score is lower than ever.

        Args:
            scores: A score for each member; NaN is never low.
            among: Which members are asked about, booleans.

        Returns:
            Which members were kept, booleans.
        """
        better = (scores < self._scores) & among
        self._scores = np.where(better, scores, self._scores)
        now = self._now()
        self._members = [now if b else old for b, old in zip(better, self._members, strict=True)]
        return better

    @property
    def population(self) -> Population:
        """The members as they were kept; those that never had a score, as they were at first."""
        return Population.assembled(self._members)

    def _now(self) -> Population:
        return self._population.part(self._population.template)


class Trainer:
    """Trains a population epoch by epoch, on a task, with a fresh optimizer for each member.

    Args:
        population: Whose members to train, in place.
        task: What to train them on.
        optimizer: Keras optimizer, by name or instance.
        learning_rate: One rate for all or one per member; `None` is the optimizer's own.
        batch_size: Examples per update.
        stream: Name of the random stream of order and corruption, beside a member's seed.
    """

    def __init__(
        self,
        population: Population,
        task: Task,
        optimizer: Any,
        learning_rate: Any,
        batch_size: int,
        stream: str = "",
    ) -> None:
        optimizer = checked_optimizer(optimizer)
        self.population = population
        self.batch_size = positive("batch_size", batch_size)
        self.rates = checked_rates(optimizer, learning_rate, len(population))
        self.stream = stream
        self._program = get_program(population.template, task, optimizer)
        fixed_rates = [None] * len(self.rates) if None in self.rates else self.rates
        self._slots = [self._program.optimizer_state(rate) for rate in fixed_rates]

    def epoch(self, blocks: Iterable[list[Block]], epoch: int) -> np.ndarray:
        """Trains every member on all examples once.

        Args:
            blocks: Consecutive examples: a block for all members, or one for each.
            epoch: Number of the epoch, from 1.

        Returns:
            Mean scores over the epoch's batches, shape (members, names).

        Raises:
            ValueError: If there are fewer examples than one batch.
        """
        steps = seen = 0
        totals = 0.0
        seeds = self.population.seeds
        keys = [_key(derive("corruption", self.stream, seed, epoch)) for seed in seeds]
        for position, block in enumerate(blocks):
            n = len(block[0].x)
            seen += n
            if n < self.batch_size:
                continue
            index = [self._order(n, seed, epoch, position) for seed in seeds]
            totals = totals + self._train(block, index, keys, steps)
            steps += n // self.batch_size
        if not steps:
            raise ValueError(
                "Expected at least one full batch of examples, since a partial one is dropped. "
                f"Received: {seen} examples, batch_size={self.batch_size}"
            )
        return totals / steps

    def _order(self, n: int, seed: int, epoch: int, position: int) -> Any:
        """Batches (steps, batch) of a permutation of the examples of a block."""
        random = np.random.RandomState(derive("order", self.stream, seed, epoch, position))
        rows = random.permutation(n)[: n // self.batch_size * self.batch_size]
        return ops.convert_to_tensor(rows.reshape(-1, self.batch_size).astype("int32"))

    def _train(self, blocks: list[Block], index: list, keys: list, first: int) -> np.ndarray:
        population = self.population
        firsts = [ops.convert_to_tensor(first, "int32")] * len(population)
        own = [self._slots, index, keys, firsts]
        results = population._each(self._program.train, own, blocks)
        trained, fixed, slots, totals = zip(*results, strict=True)
        population._trained, population._fixed = list(trained), list(fixed)
        self._slots = list(slots)
        return np.stack([ops.convert_to_numpy(total) for total in totals])


def progress(steps: Any, unit: str, verbose: Any, **options: Any) -> Any:
    """A progress bar over `steps`, in a terminal only, none if `verbose` is 0."""
    return tqdm(steps, unit=f" {unit}", disable=None if verbose else True, **options)


def on_device(blocks: list[Block]) -> list[Block]:
    """Blocks as tensors of the backend; an array that several members share is moved once."""
    arrays = {id(part): part for block in blocks for part in block if part is not None}
    tensors = {key: ops.convert_to_tensor(array) for key, array in arrays.items()}
    return [Block(*(None if p is None else tensors[id(p)] for p in block)) for block in blocks]


def _variables(layer: Any) -> list:
    return [*layer.trainable_variables, *layer.non_trainable_variables]


def _key(seed: int) -> Any:
    return ops.convert_to_tensor(seed, "int32")
