"""The documentation is whole: every public name is in it, with an example that runs."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import matplotlib
import pytest

import pretrain

DOCS = Path(pretrain.__file__).parent / "docs"
LIBRARY = DOCS / "library.md"


def documented():
    """The names that the directives of the page of the library document, with their modules."""
    module, names = "pretrain", []
    for line in LIBRARY.read_text().splitlines():
        found = re.match(r"\.\. (currentmodule|auto\w+):: (\S+)", line)
        if found and found[1] == "currentmodule":
            module = found[2]
        elif found:
            where, _, name = found[2].rpartition(".")
            names.append((where or module, name))
    return names


def test_every_public_name_is_documented():
    names = {name for _, name in documented()}
    modules = {name for name in pretrain.__all__ if inspect.ismodule(getattr(pretrain, name))}
    assert set(pretrain.__all__) - modules <= names


@pytest.mark.usefixtures("plain_graphs")
@pytest.mark.parametrize("module, name", documented(), ids=lambda each: each.rpartition(".")[2])
def test_the_example_of_a_docstring_runs(module, name):
    matplotlib.use("agg")
    entry = getattr(importlib.import_module(module), name)
    tests = doctest.DocTestFinder(recurse=False).find(entry, name, globs={})
    assert any(test.examples for test in tests), "the docstring has no example"
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0


def test_a_model_with_several_inputs_is_pretrained_as_documented():
    page = (DOCS / "architectures.md").read_text()
    (script,) = re.findall(r"## Several inputs.*?```python\n(.*?)```", page, re.DOTALL)
    build, rest = script.split("greedy_pretrain(", 1)
    names = {}
    exec(build, names)
    before = names["model"].get_weights()
    exec(f"greedy_pretrain({rest}", names)
    moved = [(w != b).any() for w, b in zip(names["model"].get_weights(), before, strict=True)]
    # Three hidden layers have a kernel and a bias; the classifier is left out.
    assert moved == [True] * 6 + [False] * 2
