"""A trial: one training run, named by what it is."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from studies.arms import ARMS


@dataclass(frozen=True)
class Trial:
    """One training run of one seed: a frozen record of scalars.

    Defaults never change once released, since `key` hashes only the fields that differ from them.

    Args:
        dataset: Name understood by `pretrain.datasets.load`.
        train_size: Number of training examples.
        validation_size: Number of validation examples.
        test_size: Number of test examples, the first of the official test set.
        arm: Name of an arm in `studies.arms.ARMS`.
        depth: Number of hidden layers.
        width: Units of every hidden layer.
        batch_size: Examples per update, in pretraining too.
        epochs: Epochs of training (of every stage, if `role` is `"pretraining"`).
        extra_epochs: Epochs that a control trains on after `epochs`, to the total cost of its
            pretrained neighbor.
        learning_rate: Rate of the arm's optimizer (in pretraining, of plain SGD).
        pretraining_epochs: Epochs of every stage of the stack the trial starts from.
        pretraining_rate: Learning rate of that stack; 0 is no pretraining.
        seed: Seed of the streams split, order, init and corruption.
        role: `"pretraining"` (a stack, no labels), `"selection"` (to choose a rate; never sees
            the test set) or `"report"` (fresh seeds at the chosen rate).
    """

    dataset: str = "mnist"
    train_size: int = 10_000
    validation_size: int = 2_000
    test_size: int = 10_000
    arm: str = "random"
    depth: int = 1
    width: int = 200
    batch_size: int = 20
    epochs: int = 20
    extra_epochs: int = 0
    learning_rate: float = 0.1
    pretraining_epochs: int = 0
    pretraining_rate: float = 0.0
    seed: int = 0
    role: str = "report"

    # Cached: planning asks for the same keys after every cell.
    @cached_property
    def key(self) -> str:
        """Hash of what the trial is; never of paths, workers, devices or order."""
        fields = {
            # The type makes a rate of 1 and one of 1.0 the same trial.
            f.name: f.type(value)
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) != f.default
        }
        fields["version"] = ARMS[self.arm].version
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """Trials that differ only in seed and learning rate: one population, one write of records.

    Args:
        trials: The trials, in the order of the population's members.
        stacks: The pretraining cells (tuples of trials, whole, since a lost stack is made anew in
            the population it was first made in) that hold the trials' pretrained stacks.
    """

    trials: tuple[Trial, ...]
    stacks: tuple[tuple[Trial, ...], ...] = ()

    @property
    def key(self) -> str:
        return hashlib.sha256(" ".join(t.key for t in self.trials).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        first, rates = self.trials[0], {t.learning_rate for t in self.trials}
        seeds = {t.seed for t in self.trials}
        rate = f"rate {first.learning_rate:g}" if len(rates) == 1 else f"{len(rates)} rates"
        return f"{first.role} {first.arm} depth {first.depth}, {rate}, {len(seeds)} seeds"
