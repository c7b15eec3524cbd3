"""A trial: one training run, whose key is a hash of what is run."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Fields that do not say what is trained; the version stands in the key by another name.
UNHASHED = ("arm_version", "rule")


@dataclass(frozen=True)
class Trial:
    """One training run of one seed: a frozen record of scalars.

    A kind of experiment that varies more has a subclass with more fields. A default never changes
    once it is released, since `key` hashes only the fields that differ from their defaults.

    Args:
        dataset: Name understood by `pretrain.datasets.load`.
        train_size: Number of training examples.
        validation_size: Number of validation examples.
        test_size: Number of test examples, the first of the official test set.
        unlabeled: Number of examples without labels, which only pretraining sees.
        arm: Name of the arm.
        depth: Number of hidden layers.
        width: Units of every hidden layer.
        batch_size: Examples per update, also in pretraining.
        epochs: Epochs of training; of every stage, if `role` is `"pretraining"`.
        learning_rate: Rate of the optimizer; 0 for an arm that has no rate.
        pretraining_epochs: Epochs of every stage of the stack that the trial starts from.
        pretraining_rate: Learning rate of that stack; 0 is no pretraining.
        rule: How this rate was chosen: see `studies.engine.scale.Scale`. What is trained does not
            depend on the rule, and neither does the key.
        seed: Seed of the streams split, order, init and corruption.
        role: `"pretraining"` (a stack, no labels), `"selection"` (to choose a rate; never sees
            the test set) or `"report"` (a fresh seed at the chosen rate).
        arm_version: What the arm means: see `studies.arms.version_of`.
    """

    dataset: str = "mnist"
    train_size: int = 10_000
    validation_size: int = 2_000
    test_size: int = 10_000
    unlabeled: int = 0
    arm: str = "random"
    depth: int = 1
    width: int = 200
    batch_size: int = 20
    epochs: int = 20
    learning_rate: float = 0.1
    pretraining_epochs: int = 0
    pretraining_rate: float = 0.0
    rule: str = "validation"
    seed: int = 0
    role: str = "report"
    arm_version: int | str = 1

    # Cached: planning asks for the same keys after every cell.
    @cached_property
    def key(self) -> str:
        """Hash of the fields of the trial, and never of paths, workers, devices or order."""
        fields = {
            # The type makes a rate of 1 and one of 1.0 the same trial.
            f.name: type(f.default)(value)
            for f in dataclasses.fields(self)
            if f.name not in UNHASHED and (value := getattr(self, f.name)) != f.default
        }
        fields["version"] = self.arm_version
        return _hash(json.dumps(fields, sort_keys=True, separators=(",", ":")))


@dataclass(frozen=True)
class Cell:
    """Trials that differ only in seed and learning rate: one population, one write of records.

    Args:
        trials: The trials, in the order of the population's members.
        arm: The arm of all trials.
        kind: The kind of experiment, a `studies.kinds.kind.Kind`.
        label: The trials in a few words, for messages.
        stacks: The pretraining cells that hold the trials' pretrained stacks, each as a tuple of
            all its trials: a lost stack is made anew in the population it was first made in.
        shape: Size of the flattened input and number of classes that the plan counts on.
        code: What `studies.engine.worker.code` tells of the driver's source; empty if nothing is
            known of it.
    """

    trials: tuple[Trial, ...]
    arm: Any = None
    kind: Any = None
    label: str = ""
    stacks: tuple[tuple[Trial, ...], ...] = ()
    shape: tuple[int, int] | None = None
    code: str = ""

    @property
    def key(self) -> str:
        return _hash(" ".join(trial.key for trial in self.trials))

    def __str__(self) -> str:
        rates = {trial.learning_rate for trial in self.trials}
        seeds = len({trial.seed for trial in self.trials})
        rate = f"{len(rates)} rates, " if len(rates) > 1 else f"rate {max(rates):g}, "
        return f"{self.label}, {rate if any(rates) else ''}{seeds} seed{'s' * (seeds > 1)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
