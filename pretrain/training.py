"""The training loop: an iterable of epochs, whose caller may look at the members after each."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm.auto import tqdm

from pretrain.checks import brief, check_choice, checked_optimizer, checked_rates, positive
from pretrain.examples import Block
from pretrain.members import Members, get_program, key_of
from pretrain.seeds import derive
from pretrain.task import Task


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training ended with.

    Args:
        number: Number of the epoch, from 1.
        updates: Number of updates so far, those of the epochs before included.
        scores: By name, `"loss"` first, the means over the epoch's batches, and with `"val_"` in
            front of the name those of the validation examples after it: arrays (members,).
    """

    number: int
    updates: int
    scores: dict[str, np.ndarray]

    def rows(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of a history, one for each member."""
        return [
            {"member": i, "seed": seed, "epoch": self.number, "updates": self.updates}
            | {name: values[i] for name, values in self.scores.items()}
            for i, seed in enumerate(seeds)
        ]


class Trainer:
    """Trains members on a task, in place, epoch by epoch, for as long as somebody iterates over it.

    A training starts with the weights that the members have, a fresh optimizer for each, and
    epoch 1. Whoever sets `epoch` and `updates`, the numbers of epochs and updates so far, and
    `states`, the values of the optimizer's variables for each member, goes on with an earlier
    training.

    Args:
        members: The members.
        task: What to train them on.
        read: Function that reads all examples once, in consecutive blocks: a block for all
            members, or one for each.
        optimizer: Keras optimizer, by name or instance.
        learning_rate: One rate for all or one per member; `None` is the optimizer's own.
        batch_size: Examples per update; the last batch of an epoch may have fewer.
        drop_remainder: Whether examples that fill no batch are left out of the epoch.
        validate: Function that returns the scores of validation examples, shape (members, names).
        stream: Name of the random stream of order and corruption, beside a member's seed.
        schedule: Function of the epoch (from 0) and a member's learning rate, which returns the
            rate of that epoch; `None` keeps the rate.

    Raises:
        ValueError: If an argument is out of range; in an epoch, if no batch is left.
    """

    def __init__(
        self,
        members: Members,
        task: Task,
        read: Callable[[], Iterable[list[Block]]],
        *,
        optimizer: str | keras.optimizers.Optimizer,
        learning_rate: float | Sequence[float] | None,
        batch_size: int,
        drop_remainder: bool = False,
        validate: Callable[[], np.ndarray] | None = None,
        stream: str = "",
        schedule: Callable[[int, float], float] | None = None,
    ) -> None:
        optimizer = checked_optimizer(optimizer)
        self.rates = checked_rates(optimizer, learning_rate, len(members))
        self._members = members
        self._names = task.names
        self._read = read
        self._batch_size = positive("batch_size", batch_size)
        self._drops = drop_remainder
        self._validate = validate
        self._stream = stream
        self._schedule = _checked_schedule(schedule, self.rates)
        self._program = get_program(members.template, task, optimizer)
        self.states = [self._program.optimizer_state(rate) for rate in self.rates]
        self.epoch = self.updates = 0

    def __iter__(self) -> Iterator[Epoch]:
        for number in itertools.count(self.epoch + 1):
            if self._schedule:
                rates = [self._schedule(number - 1, rate) for rate in self.rates]
                self.states = list(map(self._program.with_rate, self.states, rates))
            results, steps = self._epoch(number, self.states)
            self.epoch, self.updates = number, self.updates + steps
            scores = dict(zip(self._names, results.T, strict=True))
            if self._validate:
                validated = zip(self._names, self._validate().T, strict=True)
                scores |= {f"val_{name}": values for name, values in validated}
            yield Epoch(number, self.updates, scores)

    def _epoch(self, number: int, slots: list[list]) -> tuple[np.ndarray, int]:
        """Trains on all examples once.

        Returns the results (members, names): scores are means over the batches, each as much as it
        is full; and the number of updates.
        """
        steps = trained = seen = 0
        seeds = self._members.seeds
        keys = [key_of("corruption", self._stream, seed, number) for seed in seeds]
        measured = [[self._program.totals() for _ in seeds]]
        measured.append([self._program.metric_states() for _ in seeds])
        for position, blocks in enumerate(self._read()):
            n = len(blocks[0].x)
            used = n - n % self._batch_size * self._drops
            seen, trained = seen + n, trained + used
            if not used:
                continue
            orders = [self._order(n, seed, number, position)[:used] for seed in seeds]
            batches = zip(*map(self._batches, orders), strict=True)
            firsts = [ops.convert_to_tensor(steps, "int32")] * len(seeds)
            measured = self._train(slots, [*measured, *batches, keys, firsts], blocks)
            steps += -(-used // self._batch_size)
        if not steps:
            raise ValueError(
                "Expected at least one full batch of examples, since drop_remainder=True drops a "
                f"partial one. Received: {seen} examples, batch_size={self._batch_size}"
            )
        means = [ops.convert_to_numpy(t) / (trained / self._batch_size) for t in measured[0]]
        return np.stack(list(map(self._program.results, means, measured[1]))), steps

    def _order(self, n: int, seed: int, epoch: int, position: int) -> np.ndarray:
        """A permutation of the examples of a block."""
        random = np.random.RandomState(derive("order", self._stream, seed, epoch, position))
        return random.permutation(n)

    def _batches(self, order: np.ndarray) -> tuple[Any, Any]:
        """The full batches (steps, batch) of a permutation, and the partial one, maybe empty."""
        full = len(order) // self._batch_size * self._batch_size
        rows = order.astype("int32")
        batches = rows[:full].reshape(-1, self._batch_size)
        return ops.convert_to_tensor(batches), ops.convert_to_tensor(rows[full:])

    def _train(self, slots: list[list], own: list[Sequence], blocks: list[Block]) -> list[Sequence]:
        """Trains on blocks; returns the members' sums of scores and states of metrics."""
        results = self._members.each(self._program.train, [slots, *own], blocks)
        trained, fixed, slots[:], *measured = zip(*results, strict=True)
        self._members.values = [[*t, *f] for t, f in zip(trained, fixed, strict=True)]
        return measured


def _checked_schedule(schedule: Any, rates: list[float | None]) -> Any:
    if schedule is not None and not (callable(schedule) and None not in rates):
        raise ValueError(
            "`schedule` must be a function of the epoch and the rate, and an optimizer that has a "
            f"schedule of its own takes no other. Received: schedule={brief(schedule)}"
        )
    return schedule


class BestEpoch:
    """Members, each as it was when its score was lowest.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from pretrain import BestEpoch, Population, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> population = Population(lambda seed: networks.mlp((6,), 3, seed=seed), seeds=range(2))
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> best = BestEpoch(population.members)
    >>> options = {"loss": loss, "validation_data": (x, y), "verbose": 0}
    >>> for epoch in population.epochs(x, y, epochs=3, **options):
    ...     better = best.update(epoch.scores["val_loss"])
    >>> best_population = population.with_members(best.members)

    Args:
        members: The members, which go on being trained.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._scores = np.full(len(members), np.inf)
        self._values = list(members.values)

    def update(self, scores: np.ndarray, among: np.ndarray | bool = True) -> np.ndarray:
        """Keeps each member as it is now whose score is lower than ever.

        Args:
            scores: A score for each member; NaN is never low.
            among: Which members are asked about, booleans.

        Returns:
            Which members were kept, booleans.
        """
        better = (scores < self._scores) & among
        self._scores = np.where(better, scores, self._scores)
        for i in np.flatnonzero(better):
            self._values[i] = self._members.values[i]
        return better

    @property
    def members(self) -> Members:
        """The members as they were kept; a member that never had a score, as it was at first."""
        return Members(self._members.template, self._members.seeds, list(self._values))


def progress(
    epochs: Iterable[Epoch], done: int, total: int, verbose: str | int, title: str = "training"
) -> Iterator[Epoch]:
    """Yields epochs and shows their number, loss, validation loss and the time left.

    Args:
        epochs: The epochs, which may end early.
        done: Number of epochs before the first.
        total: Number of the last epoch.
        verbose: As for Keras's `fit`: `"auto"` is a progress bar in a terminal or notebook, 1 a
            bar anywhere, 2 a line for each epoch, 0 nothing.
        title: What is trained.
    """
    check_choice("verbose", verbose, ("auto", 0, 1, 2))
    bar = tqdm(
        total=total,
        initial=done,
        unit=" epochs",
        desc=title,
        disable={"auto": _unseen(), 1: False}.get(verbose, True),
    )
    with bar:
        for epoch in epochs:
            losses = {k: v.mean() for k, v in epoch.scores.items() if k.endswith("loss")}
            shown = {name: f"{value:.4g}" for name, value in losses.items()}
            bar.set_postfix(shown, refresh=False)
            bar.update()
            if verbose == 2:
                line = " - ".join(f"{name}: {value}" for name, value in shown.items())
                print(f"{title} - epoch {epoch.number}/{total} - {line}")
            yield epoch


def _unseen() -> bool:
    """Whether a progress bar would be seen neither in a notebook nor in a terminal."""
    return tqdm.__module__ != "tqdm.notebook" and not sys.stderr.isatty()
