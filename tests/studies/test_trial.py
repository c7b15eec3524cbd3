import dataclasses

import pytest

from studies.arms import ARMS
from studies.engine import journal
from studies.engine.plan import groups
from studies.engine.study import load
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


@pytest.mark.parametrize("study", ["choosing", "tutorial_sda", "vae_latent"])
def test_committed_records_are_found(study, pytestconfig):
    path = pytestconfig.rootpath / "results" / study / "standard" / journal.FILE
    records = journal.read(path)
    keys, run = {record["key"] for record in records}, {record["arm"] for record in records}
    wanted = [t for group in groups(load(study).scales["standard"], records) for t in group.trials]
    assert {trial.key for trial in wanted if trial.arm in run} <= keys
    assert len(run) >= 1


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Trial)])
def test_every_field_counts_but_the_rule(field):
    value = getattr(Trial(), field)
    other = value + 1 if isinstance(value, int | float) else ARMS["he"].name
    key = dataclasses.replace(Trial(), **{field: other}).key
    assert (key == Trial().key) == (field == "rule")


def test_equal_trials_have_equal_keys():
    assert Trial(learning_rate=1) == Trial(learning_rate=1.0)
    assert Trial(learning_rate=1).key == Trial(learning_rate=1.0).key


def test_cell_is_named_by_its_trials_and_not_by_their_stacks():
    trials = (PRETRAINED, dataclasses.replace(PRETRAINED, seed=8))
    assert Cell(trials).key == Cell(trials, stacks=((STACK,),)).key
    assert Cell(trials).key != Cell(trials[:1]).key


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ((0.03,), "report denoising depth 3, rate 0.03, 2 seeds"),
        ((0.03, 0.1), "report denoising depth 3, 2 rates, 2 seeds"),
        # An arm without rates.
        ((0.0,), "report denoising depth 3, 2 seeds"),
    ],
)
def test_cell_describes_itself(rates, text):
    trials = [
        dataclasses.replace(PRETRAINED, seed=seed, learning_rate=rate)
        for seed in (7, 8)
        for rate in rates
    ]
    assert str(Cell(tuple(trials), label="report denoising depth 3")) == text
