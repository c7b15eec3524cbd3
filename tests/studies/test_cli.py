import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import fake_cells
import numpy as np
import pytest
from fake_cells import SCALE

from studies import depth
from studies.commands import main
from studies.engine import journal
from studies.engine.study import load, questions

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small depth study, reported on in one line; the reports that were asked for."""
    written = []
    monkeypatch.setattr(depth, "SCALES", {"quick": SCALE, "standard": replace(SCALE, epochs=4)})
    report = SimpleNamespace(
        write_scale=lambda folder, study, name: f"the table of {study.name} {name}",
        write_all=lambda results, studies, only: (written.append((studies, only)), []),
    )
    monkeypatch.setitem(sys.modules, "studies.report.write", report)
    return written


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def own_data(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.random((200, 5, 5)),
        "y_train": np.arange(200) % 3,
        "x_test": generator.random((60, 5, 5)),
        "y_test": np.arange(60) % 3,
    }
    path = tmp_path / "own.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def own_study(tmp_path, monkeypatch):
    """The path of a study of the user's own, as it is given in its folder."""
    shutil.copy(ROOT / "tests" / "fake_study.py", tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "./mine.py"
    sys.modules.pop("mine", None)


def run(results, *arguments, run_cell=fake_cells.run, study="depth"):
    return main(["run", study, "--results", str(results), *arguments], run_cell)


def custom_folder(results, study="depth"):
    """The folder of the only custom run."""
    (folder,) = (results / study).glob("custom*")
    return folder


def custom(results, study="depth"):
    """The custom scale that stands in the results."""
    study = load(study)
    folder = custom_folder(results, study.name)
    return study.scale(folder.name, folder)


def spawn(*arguments, folders=(), **options):
    """Run the command line in a process of its own, with modules from `folders`, too."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *folders]))
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


# list


def test_list_says_what_each_study_asks(capsys):
    assert main(["list"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["depth"].startswith("Does layer-wise pretraining still pay")
    assert {"tutorial_sda", "vae_latent"} <= listed.keys()


def test_a_study_is_a_module_with_scales():
    assert "depth" in questions()
    assert not {"arms", "__main__", "__init__", "speed"} & set(questions())


@pytest.mark.parametrize("command", [["list"], ["run", "depth", "--help"]])
def test_the_command_line_starts_fast_and_imports_nothing_heavy(command):
    begin = time.monotonic()
    process = spawn("-X", "importtime", "-m", "studies", *command)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in errors.splitlines()}
    assert "studies.engine.plan" in imported
    heavy = {"keras", "tensorflow", "numpy", "pandas", "scipy", "matplotlib", "seaborn"}
    assert not heavy & imported
    assert time.monotonic() - begin < 3, "half a second on an idle machine"


# run


def test_a_run_ends_with_the_table_and_the_place_of_the_results(results, capsys):
    assert run(results) == 0
    *_, table, place = capsys.readouterr().out.splitlines()
    assert table == "the table of depth quick"
    assert place == f"Results: {results / 'depth' / 'quick'}"
    assert len(journal.read(results / "depth" / "quick" / "records.jsonl")) == 35


def test_a_run_ends_with_the_address_of_a_page_for_a_browser(results, capsys):
    page = results / "depth" / "quick" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    assert run(results) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(page.resolve().as_uri())


def test_a_complete_scale_says_so_and_how_to_run_it_anew(results, capsys):
    run(results)
    capsys.readouterr()
    assert run(results, run_cell=fake_cells.exits) == 0
    output = capsys.readouterr().out
    assert "Nothing to do. 35 of 35 trials are recorded" in output
    assert "--results DIR" in output


def test_failed_cells_are_named_and_the_exit_code_says_so(results, capsys):
    assert run(results, run_cell=fake_cells.raises) == 1
    errors = capsys.readouterr().err
    assert "Cells that failed: 1" in errors
    assert "28 of 35 trials are recorded" in errors
    assert "- selection denoising depth 1" in errors
    assert "_Unpicklable: no such thing" in errors
    assert f"To try again: python -m studies run depth --results {results}" in errors
    assert run(results) == 0


def test_if_everything_fails_there_is_no_table(results, capsys):
    assert run(results, run_cell=fake_cells.exits) == 1
    assert "the table" not in capsys.readouterr().out


_SLOW = (
    "import sys, fake_cells, studies.depth, studies.commands as m;"
    "studies.depth.SCALES = {'quick': fake_cells.SCALE};"
    "m._print_part = lambda run: print('the table');"
    "sys.exit(m.main(sys.argv[1:], fake_cells.slow))"
)


# When workers start, and when there is a record.
@pytest.mark.parametrize("first", ["started", "validation error"])
def test_ctrl_c_keeps_what_is_recorded_and_says_how_to_go_on(results, first):
    command = ["run", "depth", "--workers", "1", "--results", str(results)]
    process = spawn(
        "-c", _SLOW, *command, start_new_session=True, preexec_fn=fake_cells.hear_ctrl_c
    )
    while first not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    done = len(journal.read(results / "depth" / "quick" / "records.jsonl"))
    assert errors == (
        f"Interrupted. {done} of 35 trials are recorded in {results / 'depth' / 'quick'}. "
        f"To go on: python -m studies {' '.join(command)}\n"
    )
    assert done < 35
    assert output.endswith("the table\n")
    assert run(results) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_imports_with_one_line(tmp_path, times):
    (tmp_path / "sitecustomize.py").write_text(_SLOW_IMPORT)
    command = ["-m", "studies", "list"]
    process = spawn(*command, folders=[tmp_path], preexec_fn=fake_cells.hear_ctrl_c)
    assert process.stdout.readline() == "importing\n"
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "Interrupted.\n")


_SLOW_IMPORT = """\
import sys, time

class Slow:
    def find_spec(name, *_):
        if name == "studies.commands":
            print("importing", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow)
"""


def test_what_there_is_of_the_table_is_printed(results, monkeypatch, capsys):
    report = sys.modules["studies.report.write"]
    monkeypatch.setattr(report, "table_of", lambda *_: "a part of the table", raising=False)
    found = []
    for run_cell in (fake_cells.exits, fake_cells.run):
        run(results, run_cell=run_cell)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr("studies.commands.execute", interrupted)
            assert run(results) == 130
        found.append("a part of the table" in capsys.readouterr().out)
    assert found == [False, True]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_terminal_that_has_not_every_letter_gets_its_table(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code = "import studies.commands as m; m.questions = lambda: {'a': '1 ± 2'}; m.main(['list'])"
    output, errors = spawn("-c", code).communicate(timeout=20)
    assert (output, errors) == ("a  1 ? 2\n", "")


def test_a_folder_in_use_is_refused(results, capsys):
    with journal.Journal(results / "depth" / "quick"):
        assert run(results) == 1
    assert "Another run is writing" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == 1
    assert "Could not write to the journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "breadth"], "Expected one of: depth, modern, initialization.* Received: breadth"),
        (["report", "breadth"], "Received: breadth"),
        (["status", "breadth"], "Received: breadth"),
        (["run", "depth", "--scale", "huge"], "one of: quick, standard. Received: --scale huge"),
        (["run", "depth", "--dataset", "no_such"], "one of mnist, .* Received: name='no_such'"),
        (["run", "depth", "--dataset", "no.npz"], "no such file. Received: name='no.npz'"),
        (["run", "depth", "--data-folder", "x"], "Received: name='mnist', folder='x'"),
        (["run", "depth", "--depth", "0"], r"with these axes.*Received: depth=\(0,\)"),
        (["run", "depth", "--depth", "1000000000"], r"Received: depth=\(1000000000,\)"),
        (["run", "depth", "--epochs", "1000000000"], "Received: epochs=1000000000"),
        (["run", "depth", "--learning-rates", "inf"], r"Received: learning_rates=\(inf,\)"),
        (["run", "depth", "--selection-seeds", "5000"], "Received: selection_seeds=5000"),
        (["run", "depth", "--width", "50", "0"], r"with these axes.*Received: width=\(50, 0\)"),
        (["run", "./nowhere.py"], "no such file.*Received: .*nowhere.py"),
        (["report", "./nowhere.py"], "no such file.*Received: .*nowhere.py"),
        (["run", "depth", "--arms", "no"], r"one of random.*Received: arms=\('no',\)"),
        (["run", "depth", "--train-size", "70000"], "Received: train_size=70000"),
        (["report", "--results", "nowhere"], "Received: --results nowhere"),
    ],
)
def test_what_does_not_exist_is_a_wrong_command(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command, fake_cells.run) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors)
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_workers_are_counted_from_one(workers, results, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(results, f"--workers={workers}")
    assert f"at least 1. Received: {workers}" in capsys.readouterr().err


def test_a_backend_that_is_not_installed_is_refused(results, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    assert run(results, run_cell=fake_cells.exits) == 2
    assert "Received: KERAS_BACKEND=nonsense" in capsys.readouterr().err
    assert not results.exists()


def test_there_are_no_more_workers_than_fit_in_memory(results, monkeypatch, capsys):
    monkeypatch.setattr("studies.commands.cores", lambda: 8)
    for gib, workers in ((64, 8), (3, 2), (0.5, 1)):
        monkeypatch.setattr("studies.commands.machine_memory", lambda gib=gib: gib * 2**30)
        assert run(results, "--dry-run") == 0
        assert f"with {workers} workers" in capsys.readouterr().out


# run --dataset


def test_own_data_is_a_custom_scale_named_by_content(results, own_data):
    assert run(results, "--dataset", str(own_data), run_cell=fake_cells.sources) == 0
    folder = custom_folder(results)
    scale = custom(results)
    assert (scale.features, scale.classes, scale.demonstration) == (25, 3, True)
    records = journal.read(folder / "records.jsonl")
    (name,) = {record["dataset"] for record in records}
    assert name == scale.dataset
    assert name.startswith("own-")
    # The place is for the workers alone.
    assert records[0]["provenance"] == {"dataset": str(own_data), "data_folder": None}
    assert str(own_data) not in (folder / "scale.json").read_text()


def test_the_dataset_of_the_scale_is_no_other(results):
    assert run(results, "--dataset", "mnist", run_cell=fake_cells.sources) == 0
    records = journal.read(results / "depth" / "quick" / "records.jsonl")
    assert records[0]["provenance"] == {"dataset": None, "data_folder": None}


def test_a_dataset_beside_an_axis_of_datasets_is_refused(results, own_data, monkeypatch, capsys):
    axes = {"dataset": ("mnist", "digits")}
    monkeypatch.setitem(depth.SCALES, "quick", replace(SCALE, axes=axes))
    assert run(results, "--dataset", str(own_data), run_cell=fake_cells.sources) == 2
    assert f"beside mnist, digits. Received: --dataset {own_data}" in capsys.readouterr().err
    assert run(results, run_cell=fake_cells.sources) == 0
    records = journal.read(results / "depth" / "quick" / "records.jsonl")
    assert {record["dataset"] for record in records} == {"mnist", "digits"}


@pytest.mark.parametrize("size", ["train_size", "validation_size", "test_size"])
def test_a_dataset_smaller_than_the_scale_is_refused(results, own_data, size, monkeypatch, capsys):
    monkeypatch.setitem(depth.SCALES, "quick", replace(SCALE, **{size: 180}))
    assert run(results, "--dataset", str(own_data)) == 2
    assert "Received: " in capsys.readouterr().err
    assert not results.exists()


# run --depth ... --dry-run


def test_overridden_axes_are_a_custom_demonstration(results):
    axes = "--depth 3 1 --seeds 2 --arms he --learning-rates 1 0.5 --train-size 60 --width 7"
    assert run(results, *axes.split()) == 0
    assert custom(results) == replace(
        SCALE,
        axes={"depth": (3, 1)},
        report_seeds=2,
        arms=("he",),
        learning_rates=(1.0, 0.5),
        train_size=60,
        width=7,
        demonstration=True,
    )
    assert not (results / "depth" / "quick").exists()


def test_several_values_of_a_fixed_setting_are_a_second_axis(results):
    assert run(results, "--depth", "2", "--width", "50", "100") == 0
    axes = {"depth": (2,), "width": (50, 100)}
    assert custom(results) == replace(SCALE, axes=axes, demonstration=True)
    records = journal.read(custom_folder(results) / "records.jsonl")
    assert {(r["depth"], r["width"]) for r in records} == {(2, 50), (2, 100)}


def test_overridden_seeds_are_those_of_the_headline_too(results, monkeypatch):
    headline = {"headline_arms": ("random",), "headline_axes": {"depth": (1,)}, "headline_seeds": 4}
    monkeypatch.setattr(depth, "SCALES", {"quick": replace(SCALE, **headline)})
    assert run(results, "--seeds", "2") == 0
    assert custom(results).seeds(("random", 1)) == range(2)


def test_axes_that_are_those_of_the_scale_are_no_others(results):
    assert run(results, "--depth", "1", "2", "--seeds", "3", "--train-size", "100") == 0
    assert not [*(results / "depth").glob("custom*")]


@pytest.mark.parametrize("study", [name for name in questions() if load(name).scales])
def test_every_axis_has_an_option(study, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["run", study, "--help"])
    text = capsys.readouterr().out
    axes = {field.name for field in fields(SCALE)}
    axes -= {"axes", "kind", "features", "classes", "demonstration", "only_at", "reference"}
    axes -= {"chance_error", "unlabeled", "remarks"}
    axes = {name for name in axes if not name.startswith("headline")} | load(study).kind.axes.keys()
    flags = {f"--{name.replace('_', '-')}" for name in axes - {"report_seeds"}} | {"--seeds"}
    assert not [flag for flag in flags if f"{flag} " not in text]
    assert ("--latent " in text) == (study in ("vae_latent", "generative"))


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(results, capsys):
    assert run(results, "--dry-run", "--workers", "3", run_cell=fake_cells.exits) == 0
    assert not results.exists()
    total, todo = capsys.readouterr().out.splitlines()
    assert total == "depth quick: 10 cells, 35 trials, 1.3e+10 FLOP"
    assert todo == (
        "To do: 10 cells, 35 trials, 1.3e+10 FLOP: about a minute with 3 workers, at 20 GFLOP/s "
        "each (assumed: no records of this machine)"
    )


def test_a_dry_run_leaves_out_what_is_recorded_here_or_elsewhere(results, capsys):
    run(results, run_cell=fake_cells.raises)
    run(results, "--scale", "standard", "--epochs", "3", "--arms", "random")
    capsys.readouterr()
    assert run(results, "--dry-run") == 0
    assert "To do: 2 cells, 7 trials" in capsys.readouterr().out
    run(results)
    capsys.readouterr()
    assert run(results, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("To do: 0 cells, 0 trials, 0 FLOP\n")


def test_a_dry_run_plans_by_the_study_s_own_records_as_a_run_does(results, capsys):
    run(results)
    own = journal.read(results / "depth/quick" / journal.FILE)
    # Another study has the same trials, of which another rate is the best.
    worse = {"validation_error": 0.9}
    chosen = {r["learning_rate"] for r in own if r["role"] == "report"}
    others = [
        r | (worse if r["role"] == "selection" and r["learning_rate"] in chosen else {})
        for r in own
    ]
    with journal.Journal(results / "depth/standard") as elsewhere:
        elsewhere.append(others)
    capsys.readouterr()
    assert run(results, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("To do: 0 cells, 0 trials, 0 FLOP\n")


# status and report


def test_status_counts_and_explains(results, capsys):
    run(results, run_cell=fake_cells.raises)
    capsys.readouterr()
    assert main(["status", "--results", str(results)]) == 0
    head, row, failure = capsys.readouterr().out.splitlines()
    assert head.split() == ["study", "scale", "done", "diverged", "error", "killed", "missing"]
    assert row.split() == ["depth", "quick", "28", "0", "4", "0", "3"]
    assert failure == (
        "  error: selection denoising depth 1: _Unpicklable: no such thing (4 trials)"
    )


def test_status_of_nothing_says_how_to_begin(results, capsys):
    assert main(["status", "depth", "--results", str(results)]) == 0
    assert "python -m studies run" in capsys.readouterr().out


def test_custom_runs_do_not_overwrite_each_other(results, capsys):
    assert run(results, "--depth", "1") == 0
    assert run(results, "--depth", "1", "--learning-rates", "0.1") == 0
    assert run(results, "--depth", "1", "--scale", "standard", "--name", "mine") == 0
    names = {"quick-depth_1", "quick-learning_rates_0.1-depth_1", "mine"}
    assert {path.name for path in (results / "depth").iterdir()} == {f"custom-{n}" for n in names}
    capsys.readouterr()
    assert main(["status", "--results", str(results)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run(results, "--depth", "2", "--name", "mine") == 2
    assert "A run with other axes has this name" in capsys.readouterr().err
    assert run(results, "--name", "other") == 2
    with pytest.raises(SystemExit, match="2"):
        run(results, "--depth", "1", "--name", "../mine")


def test_a_long_name_is_cut_and_stays_its_own(results):
    rates = [f"{0.001 * i:g}" for i in range(1, 41)]
    for seeds in ("2", "3"):
        own = ["--learning-rates", *rates, "--seeds", seeds, "--arms", "random", "--depth", "1"]
        assert run(results, *own, run_cell=fake_cells.answers_nothing) == 1
    names = [path.name for path in (results / "depth").iterdir()]
    assert len(names) == 2
    assert max(map(len, names)) < 130


def test_a_corrupted_custom_scale_is_named(results, capsys):
    run(results, "--depth", "1")
    path = custom_folder(results) / "scale.json"
    for content in ("{", "[]", '{"arms": ["he"]}', ""):
        path.write_text(content)
        assert main(["status", "--results", str(results)]) == 1
        assert f"Received: {path}" in capsys.readouterr().err


def test_status_of_a_corrupted_journal_names_the_line(results, capsys):
    run(results)
    path = results / "depth" / "quick" / "records.jsonl"
    path.write_bytes(b"broken\n" + path.read_bytes())
    assert main(["status", "--results", str(results)]) == 1
    assert "records.jsonl, line 1" in capsys.readouterr().err


def test_a_corrupted_journal_hides_no_other(results, capsys):
    run(results)
    run(results, "--depth", "1")
    (results / "depth" / "quick" / "records.jsonl").write_text("broken\n")
    capsys.readouterr()
    assert main(["status", "--results", str(results)]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].split() == [
        "depth",
        "custom-quick-depth_1",
        "21",
        "0",
        "0",
        "0",
        "0",
    ]
    assert "quick/records.jsonl, line 1" in output.err


def test_a_bad_study_of_the_package_stops_no_other(results, monkeypatch, capsys):
    run(results)
    monkeypatch.setattr("studies.vae_latent.__doc__", None)
    for command in ("status", "report"):
        capsys.readouterr()
        assert main([command, "--results", str(results)]) == 1
        output = capsys.readouterr()
        assert "vae_latent without __doc__" in output.err
        assert output.out


def test_a_study_with_an_error_is_listed_with_it_and_hides_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("studies.engine.study._FOLDER", tmp_path)
    (tmp_path / "broken.py").write_text("SCALES = {\n")
    (tmp_path / "sound.py").write_text('"""Is it?"""\nSCALES = {}\n')
    assert main(["list"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["sound"] == "Is it?"
    assert "error: '{' was never closed" in listed["broken"]
    assert main(["status", "broken"]) == 2
    assert "cannot be imported" in capsys.readouterr().err


def test_nothing_that_windows_lacks_is_imported():
    lacking = {"fcntl", "resource", "pwd", "grp", "termios"}
    for path in [*(ROOT / "studies").rglob("*.py"), *(ROOT / "pretrain").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not names & lacking, path


def test_report_needs_results_only(results, small, capsys):
    run(results)
    capsys.readouterr()
    assert main(["report", "depth", "--results", str(results)]) == 0
    assert capsys.readouterr().out == f"Results: {results}\n"
    ((known, only),) = small
    assert ([study.name for study in known], only.name) == ([*questions()], "depth")


# A study of one's own


def test_a_study_of_ones_own_is_run_by_its_path(results, own_study, small, capsys):
    assert run(results, "--workers", "2", study=own_study) == 0
    *_, table, place = capsys.readouterr().out.splitlines()
    assert table == "the table of mine quick"
    assert place == f"Results: {results / 'mine' / 'quick'}"
    records = journal.read(results / "mine" / "quick" / "records.jsonl")
    asked = {(r["role"], r["arm"]) for r in records}
    assert asked == {("selection", "random"), ("selection", "built")} | {
        ("report", arm) for arm in ("random", "built", "fixed")
    }
    assert {(r["study"], r["share"]) for r in records} == {("mine", 0.25), ("mine", 1)}
    assert run(results, "--dry-run", study=own_study) == 0
    assert capsys.readouterr().out.endswith("To do: 0 cells, 0 trials, 0 FLOP\n")
    assert main(["status", own_study, "--results", str(results)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:3] == ["mine", "quick", "34"]
    assert main(["report", own_study, "--results", str(results)]) == 0
    ((known, only),) = small
    assert only.name == "mine"
    assert {study.name for study in known} == {*questions(), "mine"}


def test_the_axis_of_ones_own_kind_is_an_option(results, own_study):
    axes = "--share 0.75 --epochs 2 3 --arms built fixed"
    assert run(results, *axes.split(), study=own_study) == 0
    scale = custom(results, own_study)
    assert (scale.axes, scale.arm_names) == (
        {"share": (0.75,), "epochs": (2, 3)},
        ["built", "fixed"],
    )
