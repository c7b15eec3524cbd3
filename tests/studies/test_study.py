"""Studies of the package and of a user's own file, and the arms that such a file may hold."""

import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import fake_cells
import pytest
from fake_cells import SCALE

from studies.arms import ARMS, Arm, functions, version_of
from studies.engine.plan import plan
from studies.engine.study import StudyError, load, questions

FILE = Path(fake_cells.__file__).with_name("fake_study.py")


@pytest.fixture(autouse=True)
def forgotten(tmp_path, monkeypatch):
    """What a test imports from its folder is not there for the next one."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def written(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", questions())
def test_a_study_of_the_package_is_known_by_its_name(name):
    study = load(name)
    assert (study.name, study.command, study.file) == (name, name, None)
    assert study.question == questions()[name]
    assert {scale.kind for scale in study.scales.values()} <= {study.kind}


def test_a_study_of_ones_own_is_known_by_its_path(tmp_path, monkeypatch):
    shutil.copy(FILE, tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    study = load("./mine.py")
    assert (study.name, study.command) == ("mine", str(tmp_path / "mine.py"))
    assert study.question == "Does a study have to lie in the package?"
    assert study.text.startswith("No: tests copy")
    assert study.scales["quick"].kind is study.kind
    assert study.arms == ARMS | {a.name: a for a in study.scales["quick"].arms}
    assert load("./mine.py") == study
    assert "mine" not in questions()


SCALE_OF = """'''A question?'''
from studies.engine.scale import Scale
from studies.arms import Arm
from studies.kinds.classification import KIND
SCALES = {"quick": Scale(arms=(%s,), train_size=20, validation_size=1, test_size=1, epochs=1,
                         report_seeds=1, learning_rates=(0.1,), selection_seeds=1, axes=%s)}
"""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere.py", None, "no such file.*Received: .*nowhere.py"),
        ("nowhere", None, "no such study. Expected one of: depth, modern.*Received: .*nowhere"),
        ("kindless.py", "'''A question?'''\nSCALES = {'quick': 1}", "without KIND$"),
        ("empty.py", "", "without __doc__, KIND, SCALES$"),
        ("raising.py", "1 / 0", "imported: ZeroDivisionError: .*Received: .*raising.py"),
        ("json.py", "", "name that no other module has.*Received: json.py"),
        ("fake_cells.py", "", "Received: fake_cells.py"),
        ("my.study.py", "", "Received: my.study.py"),
        ("latent.py", SCALE_OF % ("'he'", "{'latent': (1,)}"), "study .*latent.py.*axes="),
        ("built.py", SCALE_OF % ("Arm('a', build='json:no')", "{}"), "study .*build='json:no'"),
    ],
)
def test_what_is_no_study_is_refused(name, text, message, tmp_path):
    if text is not None:
        written(tmp_path / name, text)
    with pytest.raises(StudyError, match=message):
        load(str(tmp_path / name) if name.endswith(".py") else name)


def test_a_file_hides_no_module_that_is_yet_to_be_imported(tmp_path, monkeypatch):
    written(tmp_path / "installed" / "somebodys.py", "")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    with pytest.raises(StudyError, match="Received: somebodys.py"):
        load(written(tmp_path / "mine" / "somebodys.py", FILE.read_text()))


def test_two_files_of_one_name_are_not_confused(tmp_path):
    load(written(tmp_path / "one" / "mine.py", FILE.read_text()))
    with pytest.raises(StudyError, match="Received: mine.py"):
        load(written(tmp_path / "two" / "mine.py", FILE.read_text()))


# Arms of one's own


def keys(*arms):
    cells = plan(replace(SCALE, arms=arms, pretraining_rates=(0.1,)), [])
    return {trial.key for cell in cells for trial in cell.trials}


def test_an_arm_of_ones_own_is_another_than_the_packages_of_its_name():
    own = replace(ARMS["random"], activation="tanh")
    assert not keys(own) & keys("random")
    assert keys(replace(ARMS["random"])) == keys("random")


@pytest.mark.parametrize(
    ("field", "value", "counts"),
    [
        ("activation", "relu", True),
        ("optimizer", "adam", True),
        ("version", 2, True),
        ("paper", "ours", False),
        ("family", "ours", False),
        ("look", ("red", "o"), False),
        ("control", "random", False),
    ],
)
def test_what_an_arm_is_counts_and_what_is_said_of_it_does_not(field, value, counts):
    arm = Arm("mine", activation="tanh")
    assert (keys(arm) != keys(replace(arm, **{field: value}))) == counts


def test_the_source_of_a_build_function_counts(tmp_path):
    path = tmp_path / "builds.py"
    sys.path.insert(0, str(tmp_path))
    arm = Arm("mine", build="builds:net")
    versions = []
    for body in ("return 1", "return 1 + 1", "return 1"):
        written(path, f"def net(input_shape, classes, trial):\n    {body}\n\n\nother = '{body}'")
        importlib.invalidate_caches()
        sys.modules.pop("builds", None)
        versions.append(version_of(arm))
    assert versions[0] == versions[2] != versions[1]
    assert functions(arm)["build"](None, None, None) == 1


@pytest.mark.parametrize("build", ["no_such:net", "json:no_such", "json"])
def test_a_build_function_that_does_not_exist_is_named(build):
    with pytest.raises(ValueError, match=f"arm 'mine' cannot be found.*Received: build='{build}'"):
        functions(Arm("mine", build=build))
