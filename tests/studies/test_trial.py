import dataclasses

import pytest

from studies.arms import ARMS
from studies.engine.trial import Cell, Trial

STACK = Trial(
    role="pretraining", arm="denoising", depth=8, epochs=15, learning_rate=0.01, seed=1000
)
TUNED = Trial(
    role="selection",
    arm="he",
    train_size=2_000,
    validation_size=1_000,
    epochs=25,
    learning_rate=1.0,
    seed=1001,
)
PRETRAINED = Trial(
    arm="denoising",
    depth=3,
    learning_rate=0.03,
    pretraining_epochs=15,
    pretraining_rate=0.01,
    seed=7,
)


# Records in the world are found by these keys: a change here runs every study again.
@pytest.mark.parametrize(
    ("trial", "key"),
    [
        (Trial(), "2430f1a2ad2982d0"),
        (PRETRAINED, "8cb8bc6ff8715ca7"),
        (STACK, "301dac79ded3741f"),
        (TUNED, "8a8230b24e346803"),
    ],
)
def test_keys_never_change(trial, key):
    assert trial.key == key


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Trial)])
def test_every_field_counts(field):
    value = getattr(Trial(), field)
    other = value + 1 if isinstance(value, int | float) else ARMS["he"].name
    assert dataclasses.replace(Trial(), **{field: other}).key != Trial().key


def test_version_of_the_arm_counts(monkeypatch):
    before = Trial().key
    monkeypatch.setitem(ARMS, "random", dataclasses.replace(ARMS["random"], version=2))
    assert Trial().key != before


def test_equal_trials_have_equal_keys():
    assert Trial(learning_rate=1) == Trial(learning_rate=1.0)
    assert Trial(learning_rate=1).key == Trial(learning_rate=1.0).key


def test_cell_is_named_by_its_trials_and_not_by_their_stacks():
    trials = (PRETRAINED, dataclasses.replace(PRETRAINED, seed=8))
    assert Cell(trials).key == Cell(trials, stacks=((STACK,),)).key
    assert Cell(trials).key != Cell(trials[:1]).key


def test_cell_describes_itself():
    trials = (PRETRAINED, dataclasses.replace(PRETRAINED, seed=8))
    assert "denoising depth 3" in str(Cell(trials))
