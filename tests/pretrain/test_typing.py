"""Type hints, as mypy reads them in a user's script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretrain

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[2]
ACCEPTED = """
import keras
import numpy as np

import pretrain
from pretrain import DenoisingAutoencoder, Masking, Population, StageReport, datasets
from pretrain import greedy_pretrain, networks, unroll

data: datasets.Dataset = datasets.load("mnist", train_size=1000)
x, y = data.train
model: keras.Model = networks.mlp(x.shape[1:], data.classes, depth=2, units=(100, 50), seed=0)
objective = DenoisingAutoencoder(Masking(0.25), tied=True)
report = greedy_pretrain(model, x, [objective, pretrain.Autoencoder()], epochs=2)
stages: list[StageReport] = report.stages
codes: np.ndarray = unroll(model, report).encode(x)
population = Population(lambda seed: networks.mlp((784,), seed=seed), seeds=range(3))
population.fit(x, y, loss="sparse_categorical_crossentropy", learning_rate=[0.1, 0.2, 0.3])
pretrain.joint_pretrain(population, x, learning_rate=0.1, stages=2)
"""
REFUSED = {
    'greedy_pretrain(model, x, epochs="ten")': 'expected "int | Sequence[int]"',
    "greedy_pretrain(model, x, Masking(0.25))": 'incompatible type "Masking"',
    "greedy_pretrain(model, x, epoch=10)": 'Unexpected keyword argument "epoch"',
    'unroll(model, report, member="first")': 'incompatible type "str"; expected "int | None"',
    "Population(lambda seed: model, seeds=3)": 'incompatible type "int"; expected "Iterable[int]"',
    "pretrain.greedy_pretraining": 'has no attribute "greedy_pretraining"',
    'report.stage["h1"]': '"Report" has no attribute "stage"',
}


@pytest.mark.slow
def test_a_script_is_accepted_and_wrong_calls_are_refused(tmp_path):
    names = f"from pretrain import {', '.join(pretrain.__all__)}\n"
    (tmp_path / "accepted.py").write_text(names + ACCEPTED)
    (tmp_path / "refused.py").write_text("\n".join([ACCEPTED, *REFUSED]))
    # The imported modules of this checkout are read, but not checked, as those of a package are.
    options = ["--follow-imports=silent", "--ignore-missing-imports", "--config-file="]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *options, "accepted.py", "refused.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    errors = [line for line in result.stdout.splitlines() if ": error: " in line]
    first = (ACCEPTED + "\n").count("\n") + 1
    places = [f"refused.py:{number}" for number in range(first, first + len(REFUSED))]
    assert [error.split(": ")[0] for error in errors] == places, result.stdout + result.stderr
    for error, message in zip(errors, REFUSED.values(), strict=True):
        assert message in error


def test_the_package_says_that_it_has_type_hints():
    assert (Path(pretrain.__file__).parent / "py.typed").exists()
