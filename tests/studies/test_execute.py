import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fake_cells
import pytest
from fake_cells import SCALE, STUDY, wait_until

from studies.arms import Arm
from studies.engine import executors, journal
from studies.engine.execute import Run, execute
from studies.engine.executors import LocalExecutor
from studies.engine.journal import JournalError
from studies.engine.plan import plan, progress

ROOT = Path(__file__).parents[2]
CELLS = progress(SCALE, []).cells


@pytest.fixture
def run(tmp_path):
    return Run(STUDY, "quick", SCALE, tmp_path / "results")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The file that a run without disturbance leaves."""
    run = Run(STUDY, "quick", SCALE, tmp_path_factory.mktemp("undisturbed"))
    in_threads(run, workers=1)
    return run.journal.read_bytes()


def in_threads(run, run_cell=fake_cells.run, workers=2):
    with ThreadPoolExecutor(workers) as executor:
        return execute(run, run_cell, executor, workers)


def in_processes(run, run_cell, workers=2):
    with LocalExecutor(workers, run.logs) as executor:
        return execute(run, run_cell, executor, workers)


def driver(run, function, *room):
    """Start a driver of its own, that may write files of at most `room` bytes."""
    script = ROOT / "tests" / "fake_cells.py"
    command = [sys.executable, script, run.results, function, *map(str, room)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=fake_cells.hear_ctrl_c,
    )


def is_running(pid):
    try:
        # A zombie has no command line.
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def trained(run):
    """Run what is missing, and return the trials that were trained for it."""
    trials = []

    def note(cell, cache):
        trials.extend(cell.trials)
        return fake_cells.run(cell, cache)

    in_threads(run, note)
    return trials


def statuses(run):
    records = journal.read(run.journal)
    return {status: sum(r["status"] == status for r in records) for status in ("done", "error")}


# A run


def test_a_run_records_every_trial_with_its_identity(run):
    outcome = in_threads(run)
    assert (outcome.cells, outcome.failures) == (CELLS, {})
    records = journal.read(run.journal)
    assert len(records) == progress(SCALE, records).trials_done == 35
    for record in records:
        assert (record["format"], record["study"], record["status"]) == (1, "depth", "done")
        assert record["provenance"] == {"backend": "none"}
        assert {"key", "cell", "members", "arm", "seed", "role"} <= set(record)


def test_running_again_does_nothing(run):
    in_threads(run)
    before = run.journal.read_bytes()
    outcome = in_threads(run, fake_cells.exits)
    assert (outcome.cells, outcome.failures) == (0, {})
    assert run.journal.read_bytes() == before


@pytest.mark.parametrize("workers", [1, 3])
def test_records_do_not_depend_on_the_number_of_workers(run, workers, undisturbed):
    in_threads(run, workers=workers)
    assert run.journal.read_bytes() == undisturbed


def test_never_more_cells_in_flight_than_workers(run):
    running, most = set(), []

    def count(cell, cache):
        running.add(cell.key)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(cell.key)
        return fake_cells.run(cell, cache)

    with ThreadPoolExecutor(8) as executor:
        execute(run, count, executor, workers=2)
    assert max(most) == 2


def test_each_finished_cell_is_one_line_and_the_first_to_start_too(run, capsys):
    in_threads(run)
    first, second, *lines = capsys.readouterr().out.splitlines()
    assert first == "[0/10] selection random depth 1, 2 rates, 2 seeds: started"
    assert second.endswith(": started")
    assert len(lines) == CELLS
    assert lines[-1].startswith("[10/10] report denoising depth")
    assert any("loss over baseline" in line and "pretraining" in line for line in lines)


def test_results_of_another_study_are_reused(run, undisturbed):
    in_threads(replace(run, study=replace(STUDY, name="other"), scale_name="standard"))
    outcome = in_threads(run, fake_cells.exits)
    assert (outcome.cells, outcome.failures) == (CELLS, {})
    assert run.journal.read_bytes() == undisturbed


def test_a_kill_between_copied_arrays_and_their_records_blocks_nothing(run, undisturbed):
    elsewhere = replace(run, study=replace(STUDY, name="other"))
    in_threads(elsewhere)
    name = journal.arrays_name(journal.read(elsewhere.journal)[0]["key"])
    run.folder.mkdir(parents=True)
    (elsewhere.folder / name).write_bytes(b"arrays")
    (run.folder / name).write_bytes(b"arr")
    assert in_threads(run, fake_cells.exits).failures == {}
    assert run.journal.read_bytes() == undisturbed
    assert (run.folder / name).read_bytes() == b"arrays"


def test_of_a_smaller_scale_only_the_rest_is_run(run):
    part = replace(SCALE, report_seeds=2, learning_rates=(0.1,))
    in_threads(replace(run, scale_name="part", scale=part))
    fake = fake_cells.calls(run.cache)
    in_threads(run)
    assert statuses(run)["done"] == 35
    assert len(fake_cells.calls(run.cache)) > len(fake)
    shared = {r["key"] for r in journal.read(run.results / "depth" / "part" / "records.jsonl")}
    assert shared & {r["key"] for r in journal.read(run.journal)}


def test_a_corrupted_journal_elsewhere_is_not_reused_and_stops_nothing(run, capsys):
    other = run.results / "other" / "quick"
    other.mkdir(parents=True)
    (other / "records.jsonl").write_text("broken\n")
    assert in_threads(run).cells == CELLS
    assert "Nothing of this journal is reused" in capsys.readouterr().out


def test_a_bad_record_elsewhere_is_not_taken_over(run):
    elsewhere = replace(run, study=replace(STUDY, name="other"))
    in_threads(elsewhere)
    first, *lines = elsewhere.journal.read_text().splitlines(keepends=True)
    bad = {k: v for k, v in json.loads(first).items() if k != "checksum"} | {"seed": 7}
    elsewhere.journal.write_text("".join([json.dumps(bad) + "\n", *lines]))
    assert [trial.key for trial in trained(run)] == [bad["key"]]
    assert {r["seed"] for r in run.records} == {0, 1, 2, 1000, 1001}
    with pytest.raises(JournalError, match="key .* is not that of its fields"):
        in_threads(elsewhere)


def test_added_seeds_and_arms_train_nothing_else(run):
    in_threads(run)
    ten_seeds = replace(run, scale=replace(SCALE, report_seeds=13))
    assert {(t.role, t.seed) for t in trained(ten_seeds)} == {
        (role, seed) for role in ("report", "pretraining") for seed in range(3, 13)
    }
    arms = (*SCALE.arms, "glorot")
    an_arm = replace(run, scale=replace(ten_seeds.scale, arms=arms))
    assert {(t.role, t.arm) for t in trained(an_arm)} == {
        ("selection", "glorot"),
        ("report", "glorot"),
    }
    assert trained(an_arm) == []


# Failures


def test_an_exception_is_recorded_and_the_rest_goes_on(run, capsys):
    outcome = in_processes(run, fake_cells.raises)
    assert list(outcome.failures.values()) == ["_Unpicklable: no such thing"]
    failed = [r for r in journal.read(run.journal) if r["status"] == "error"]
    assert {(r["role"], r["arm"], r["depth"]) for r in failed} == {("selection", "denoising", 1)}
    assert {r["error"] for r in failed} == {"_Unpicklable: no such thing"}
    assert "raise _Unpicklable" in failed[0]["traceback"]
    # Tried once, and the report that waits for it not at all.
    cell = next(c for c in plan(SCALE, journal.read(run.journal)))
    assert cell.trials[0].role == "selection"
    assert outcome.cells == CELLS - 2
    assert "error: _Unpicklable: no such thing" in capsys.readouterr().out


def test_failures_are_tried_again_by_the_next_run(run, undisturbed):
    in_threads(run, fake_cells.raises)
    assert statuses(run) == {"done": 28, "error": 4}
    outcome = in_threads(run)
    assert (outcome.cells, outcome.failures) == (2, {})
    assert run.journal.read_bytes() == undisturbed


def test_a_source_that_changes_during_a_run_is_refused(run, tmp_path, monkeypatch):
    source = tmp_path / "edited.py"
    source.write_text("def net(input_shape, classes, trial):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    arm = Arm("edited", build="edited:net")
    run = replace(run, scale=replace(SCALE, arms=("random", arm)))

    def edits(cell, cache):
        if cell.trials[0].arm == "random":
            source.write_text("# Another one.\n")
        return fake_cells.run(cell, cache)

    outcome = in_threads(run, edits, workers=1)
    assert all("edited" in cell for cell in outcome.failures)
    assert set(outcome.failures)
    assert "source is not the driver's" in next(iter(outcome.failures.values()))
    assert {r["arm"] for r in journal.read(run.journal) if r["status"] == "done"} == {"random"}


@pytest.mark.parametrize(
    ("run_cell", "message"),
    [
        (fake_cells.exits, "SystemExit: leave it"),
        (fake_cells.answers_too_little, "Received: 3 results"),
        (fake_cells.answers_nothing, "TypeError: "),
        (fake_cells.answers_without_score, "done with a validation_error. Received: 4 results"),
    ],
)
def test_a_worker_that_does_not_answer_as_it_should_is_an_error(run, run_cell, message):
    outcome = in_threads(run, run_cell)
    assert statuses(run)["done"] == 0
    assert any(message in error for error in outcome.failures.values())


def test_a_death_is_retried_once_and_leaves_no_trace_in_the_records(run, undisturbed):
    outcome = in_processes(run, fake_cells.dies_once)
    assert (outcome.cells, outcome.failures) == (CELLS, {})
    assert run.journal.read_bytes() == undisturbed
    assert len(fake_cells.calls(run.cache)) == CELLS + 1


def test_a_second_death_is_recorded_as_killed_and_the_rest_goes_on(run):
    outcome = in_processes(run, fake_cells.dies)
    ((cell, error),) = outcome.failures.items()
    assert cell.startswith("selection random depth 1")
    assert "died 2 times, killed by SIGKILL, as the system does when memory runs out" in error
    killed = [r for r in journal.read(run.journal) if r["status"] == "killed"]
    assert {(r["role"], r["arm"], r["depth"]) for r in killed} == {("selection", "random", 1)}
    assert len(fake_cells.calls(run.cache, killed[0]["cell"])) == 2
    assert outcome.cells == CELLS - 2


def test_running_out_of_memory_is_an_error_with_advice(run, undisturbed):
    outcome = in_processes(run, fake_cells.runs_out_of_memory)
    assert list(outcome.failures.values()) == ["MemoryError:  (out of memory: try fewer workers)"]
    assert outcome.cells == CELLS - 2
    in_threads(run)
    assert run.journal.read_bytes() == undisturbed


def test_a_second_driver_is_refused_and_leaves_the_first_alone(run, undisturbed):
    first = driver(run, "slow")
    wait_until(lambda: run.journal.exists())
    with pytest.raises(JournalError, match="Another run"):
        in_threads(run)
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert run.journal.read_bytes() == undisturbed


@pytest.mark.parametrize("room", [1_000, 5_000, 10_000])
def test_a_full_disk_ends_the_run_and_loses_no_record(run, room, undisturbed):
    """A limit on the size of files lets through half of a write, as a full disk does."""
    process = driver(run, "run", room)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"JournalError: Could not append to the journal: File too large" in errors
    records = journal.read(run.journal)
    assert run.journal.stat().st_size <= room
    assert run.journal.read_bytes().endswith(b"\n") == bool(records)
    in_threads(run)
    assert run.journal.read_bytes() == undisturbed


def test_a_folder_that_turns_read_only_ends_the_run_and_loses_no_record(
    run, read_only, undisturbed
):
    in_threads(run, fake_cells.raises)
    before = run.journal.read_bytes()
    with read_only(run.folder), pytest.raises(JournalError, match="Permission denied"):
        in_threads(run)
    assert run.journal.read_bytes() == before
    in_threads(run)
    assert run.journal.read_bytes() == undisturbed


# Processes


def test_a_process_that_has_grown_too_large_is_replaced_between_calls(tmp_path):
    for memory, processes in ((1, 3), (1 << 40, 1)):
        with LocalExecutor(1, tmp_path, memory) as executor:
            pids = [executor.submit(os.getpid).result() for _ in range(3)]
        assert len(set(pids)) == processes


def test_a_process_that_stands_still_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_STILL_SECONDS", 0.5)
    with LocalExecutor(1, tmp_path) as executor:
        executor.submit(abs, -1).result()
        assert executor.trouble() == ""
        still = executor.submit(time.sleep, 20)
        wait_until(executor.trouble)
        assert "has computed nothing for 0.5 seconds" in executor.trouble()
        executor.kill()
        with pytest.raises(BrokenExecutor):
            still.result()
        assert executor.trouble() == ""


def test_what_keeps_cells_from_ending_is_told_once(run, capsys, monkeypatch):
    monkeypatch.setattr("studies.engine.execute._PATIENCE_SECONDS", 0.01)

    class Troubled(ThreadPoolExecutor):
        def trouble(self):
            return "Something is wrong."

    with Troubled(2) as executor:
        execute(run, fake_cells.slow, executor, 2)
    assert capsys.readouterr().out.count("Something is wrong.") == 1


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "{0} {1}", "memory.max": "{2}"},
        {
            "cpu/cpu.cfs_quota_us": "{0}",
            "cpu/cpu.cfs_period_us": "{1}",
            "memory/memory.limit_in_bytes": "{2}",
        },
    ],
    ids=["second version", "first version"],
)
def test_cores_and_memory_are_those_of_the_container(tmp_path, monkeypatch, files):
    monkeypatch.setattr(executors.os, "cpu_count", lambda: 8)
    monkeypatch.delattr(executors.os, "sched_getaffinity", raising=False)
    memory = executors.psutil.virtual_memory().total
    monkeypatch.setattr(executors, "_CGROUP", tmp_path)
    assert (executors.cores(), executors.machine_memory()) == (8, memory)
    without = ("max", "max") if "cpu.max" in files else ("-1", 2**63 - 4096)
    for quota, limit, expected in (
        (*without, (8, memory)),
        ("250000", "1000", (2, 1000)),
        ("50000", 2**60, (1, memory)),
    ):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.format(quota, 100_000, limit) + "\n")
        assert (executors.cores(), executors.machine_memory()) == expected


def test_a_death_between_calls_is_no_attempt(tmp_path):
    with LocalExecutor(1, tmp_path) as executor:
        pid = executor.submit(os.getpid).result()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        assert executor.submit(fake_cells.dies_in, tmp_path / "died").result() == "alive"


def test_a_log_that_cannot_be_written_costs_no_result(tmp_path):
    (tmp_path / "logs").touch()
    with LocalExecutor(1, tmp_path / "logs") as executor:
        assert executor.submit(abs, -1).result() == 1


def test_workers_have_one_thread_and_their_own_log(run):
    in_processes(run, fake_cells.environment)
    found = journal.read(run.journal)[0]["provenance"]
    assert (found["TF_NUM_INTRAOP_THREADS"], found["OMP_NUM_THREADS"]) == ("1", "1")
    assert "--xla_cpu_multi_thread_eigen=false" in found["XLA_FLAGS"]
    assert "chatter" in "".join(log.read_text() for log in run.logs.glob("worker-*.log"))


def test_a_driver_needs_neither_keras_nor_numpy(run, undisturbed):
    process = driver(run, "run")
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    assert run.journal.read_bytes() == undisturbed


def test_kill_9_of_the_driver_leaves_no_orphan_and_loses_only_cells_in_flight(run, undisturbed):
    kills = 0
    for cells in (1, 4, 7):
        process = driver(run, "slow")
        wait_until(lambda cells=cells: len({r["cell"] for r in journal.read(run.journal)}) >= cells)
        process.kill()
        process.communicate()
        kills += 1
        workers = {pid for pid, _ in fake_cells.calls(run.cache)}
        wait_until(lambda workers=workers: not any(map(is_running, workers)), seconds=5)
    process = driver(run, "slow")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert run.journal.read_bytes() == undisturbed
    assert len(fake_cells.calls(run.cache)) <= CELLS + 2 * kills


def test_ctrl_c_ends_the_workers_at_once(run):
    process = driver(run, "stuck")
    wait_until(lambda: len(fake_cells.calls(run.cache)) == 2)
    # As a terminal does: to all processes of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors
    assert not any(is_running(pid) for pid, _ in fake_cells.calls(run.cache))
    assert journal.read(run.journal) == []
