"""On a real dask cluster of processes of this machine."""

import gc
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import fake_cells
import pytest
from fake_cells import SCALE, STUDY, wait_until

from studies import depth
from studies.commands import main
from studies.engine import journal
from studies.engine.execute import Run, execute
from studies.engine.executors import ClusterExecutor, LocalExecutor, on_worker
from studies.engine.plan import progress
from studies.engine.worker import run_cell

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
CELLS = progress(SCALE, []).cells


def workers(count, threads=1):
    return distributed.LocalCluster(
        n_workers=count, threads_per_worker=threads, processes=True, dashboard_address=":0"
    )


@pytest.fixture(scope="module")
def cluster():
    with workers(2) as cluster:
        yield cluster


@pytest.fixture
def run(tmp_path):
    return Run(STUDY, "quick", SCALE, tmp_path / "results")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The arguments that run a small study, of which nothing is reported."""
    monkeypatch.setattr(depth, "SCALES", {"quick": SCALE})
    monkeypatch.setattr("studies.commands._print_table", lambda run: None)
    return ["run", "depth", "--results", str(tmp_path / "results")]


def on_cluster(run, cluster, run_cell, **options):
    run_cell = partial(on_worker, partial(run_cell, **options))
    with ClusterExecutor(cluster.scheduler_address) as executor:
        return execute(run, run_cell, executor, executor.workers)


def test_a_run_is_that_of_this_machine(run, cluster, command):
    assert main(command, fake_cells.run) == 0
    at_home = run.journal.read_bytes()
    run.journal.unlink()
    assert main([*command, "--dask", cluster.scheduler_address], fake_cells.run) == 0
    assert run.journal.read_bytes() == at_home


def test_workers_are_sent_the_file_of_a_study_of_ones_own(cluster, command, tmp_path, monkeypatch):
    shutil.copy(Path(fake_cells.__file__).with_name("fake_study.py"), tmp_path / "sent.py")
    monkeypatch.setattr(sys, "path", [*sys.path])
    _, _, *results = command
    address = cluster.scheduler_address
    command = ["run", str(tmp_path / "sent.py"), *results, "--dask", address]
    assert main(command, fake_cells.run) == 0
    sys.modules.pop("sent")
    records = journal.read(tmp_path / "results" / "sent" / "quick" / journal.FILE)
    assert {r["status"] for r in records} == {"done"}


@pytest.mark.slow
def test_a_comparison_is_that_of_this_machine(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own_model.py").write_text(
        "import keras\n\ndef build(seed):\n    dense = keras.layers.Dense\n"
        "    return keras.Sequential([keras.Input((2,)), dense(4, 'relu'), dense(1)])\n"
    )
    Path("own_error.py").write_text(
        "def half(targets, outputs):\n    return (targets - outputs) / 2\n"
    )
    rows = [f"{i % 7},{i % 5},{(i % 7) * (i % 5)}.5" for i in range(100)]
    Path("own.csv").write_text("\n".join(["a,b,y", *rows]))
    options = (
        "--model own_model.py:build --error own_error.py:half --data own.csv --seeds 1 "
        "--epochs 1 --pretraining-epochs 1 --selection-seeds 1 --learning-rates 0.01 "
        "--pretraining-rates 0.01"
    )
    asked = ["run", "compare", *options.split()]
    assert main([*asked, "--results", "here", "--workers", "1"]) == 0
    assert main([*asked, "--results", "there", "--dask", cluster.scheduler_address]) == 0
    here, there = (
        [(r["key"], r.get("test_error")) for r in journal.read(path)]
        for folder in ("here", "there")
        for path in Path(folder).glob(f"compare/*/{journal.FILE}")
    )
    assert len(here) > 8
    assert here == there


def test_a_death_in_mid_cell_is_retried_alone(run, cluster, tmp_path):
    outcome = on_cluster(run, cluster, fake_cells.dies_once, log=tmp_path)
    assert (outcome.cells, outcome.failures) == (CELLS, {})
    called = [cell for _, cell in fake_cells.calls(tmp_path)]
    records = journal.read(run.journal)
    assert len(records) == 35
    (killed,) = {r["cell"] for r in records if called.count(r["cell"]) > 1}
    assert (len(called), called.count(killed)) == (CELLS + 1, 2)
    assert len(run.journal.read_text().splitlines()) == 35


def test_a_second_death_is_recorded_as_killed_and_the_rest_goes_on(run, cluster, tmp_path):
    outcome = on_cluster(run, cluster, fake_cells.dies, log=tmp_path)
    ((cell, error),) = outcome.failures.items()
    assert cell.startswith("selection random depth 1")
    assert re.search(r"worker died 2 times.*Received: tcp://", error)
    killed = [r for r in journal.read(run.journal) if r["status"] == "killed"]
    assert len(fake_cells.calls(tmp_path, killed[0]["cell"])) == 2
    assert outcome.cells == CELLS - 2


def test_an_exception_is_not_retried(run, cluster):
    outcome = on_cluster(run, cluster, fake_cells.raises)
    assert list(outcome.failures.values()) == ["_Unpicklable: no such thing"]


def test_workers_have_one_thread_and_a_cache_of_their_own(run, cluster):
    on_cluster(run, cluster, fake_cells.environment)
    records = journal.read(run.journal)
    for found in (record["provenance"] for record in records):
        assert (found["TF_NUM_INTRAOP_THREADS"], found["OMP_NUM_THREADS"]) == ("1", "1")
        assert found["XLA_FLAGS"].count("--xla_cpu_multi_thread_eigen=false") == 1
        assert not found["cache"].startswith(str(run.results))
    assert not run.cache.exists()


def test_a_cluster_that_is_lost_ends_the_run_and_no_record(run):
    cluster = workers(1)

    class Ends(ClusterExecutor):
        """Loses its cluster when there are some records."""

        def submit(self, *args):
            future = super().submit(*args)
            if len(journal.read(run.journal)) > 8:
                cluster.close()
            return future

    run_cell = partial(on_worker, fake_cells.slow)
    with (
        Ends(cluster.scheduler_address) as executor,
        pytest.raises(ConnectionError, match="cluster is gone"),
    ):
        execute(run, run_cell, executor, 1)
    statuses = [r["status"] for r in journal.read(run.journal)]
    assert statuses.count("done") > 8
    assert "killed" in statuses


def test_a_cluster_without_a_worker_left_is_told():
    cluster = workers(1)

    with cluster, ClusterExecutor(cluster.scheduler_address) as executor:
        assert executor.trouble() == ""
        cluster.scale(0)
        wait_until(executor.trouble)
        assert "no worker left" in executor.trouble()


@pytest.mark.slow
def test_training_gives_what_it_gives_on_this_machine(run, cluster):
    """Though a worker that did not pretrain a stack makes it again."""
    scale = replace(SCALE, arms=("denoising",), axes={"depth": (1,)}, width=12, epochs=2)
    run = replace(run, scale=scale)
    home = replace(run, study=replace(STUDY, name="home"))
    on_cluster(run, cluster, run_cell)
    (run.folder).rename(run.results.with_name("away"))
    with LocalExecutor(1, home.logs) as executor:
        execute(home, run_cell, executor, 1)
    away = journal.read(run.results.with_name("away") / journal.FILE)
    assert [measured(r) for r in away] == [measured(r) for r in journal.read(home.journal)]
    assert {r["status"] for r in away} == {"done"}


def measured(record):
    return {k: v for k, v in record.items() if k not in ("study", "seconds", "provenance")}


# Wrong commands


def test_where_no_scheduler_is_the_address_is_named(command, capsys):
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main([*command, "--dask", "tcp://127.0.0.1:9"], fake_cells.run) == 2
    assert "Received: tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", "http://127.0.0.1:9"])
def test_an_address_that_makes_no_sense_is_named(address, command, capsys):
    assert main([*command, "--dask", address], fake_cells.run) == 2
    assert f"Received: {address}" in capsys.readouterr().err


def test_a_client_that_cannot_connect_is_gone_at_once():
    """One that is collected while another client starts blocks both of them."""

    def clients():
        return sum(type(thing) is distributed.Client for thing in gc.get_objects())

    before = clients()
    gc.disable()
    try:
        with pytest.raises(ConnectionError):
            ClusterExecutor("nonsense")
        assert clients() == before
    finally:
        gc.enable()


_LACKING = """
import asyncio, sys
sys.modules["studies"] = None
from distributed import Worker

async def work():
    async with Worker(sys.argv[1], nthreads=1, dashboard=False) as worker:
        await worker.finished()

asyncio.run(work())
"""


def test_workers_without_the_package_are_refused(command, capsys):
    with workers(0) as cluster:
        worker = subprocess.Popen([sys.executable, "-c", _LACKING, cluster.scheduler_address])
        with cluster.get_client() as client:
            client.wait_for_workers(1, timeout=20)
        assert main([*command, "--dask", cluster.scheduler_address], fake_cells.run) == 2
        worker.kill()
        worker.wait()
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_workers_with_several_threads_are_refused(command, capsys):
    with workers(1, threads=2) as crowded:
        assert main([*command, "--dask", crowded.scheduler_address], fake_cells.run) == 2
    assert "--nthreads 1" in capsys.readouterr().err


def test_a_cluster_without_workers_is_refused(command, capsys):
    with workers(0) as empty:
        assert main([*command, "--dask", empty.scheduler_address], fake_cells.run) == 2
    assert "--workers N" in capsys.readouterr().err


def test_without_dask_the_extra_is_named(command, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*command, "--dask", "tcp://127.0.0.1:9"], fake_cells.run) == 2
    assert "pretrain[cluster]" in capsys.readouterr().err
