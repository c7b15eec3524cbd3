"""Kill -9 at random moments, many times; in the end, nothing shows."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_cells
import pytest
from fake_cells import STORM, STUDY, wait_until

from studies.engine import journal
from studies.engine.execute import Run, execute
from studies.engine.plan import plan, progress

ROOT = Path(__file__).parents[2]
KILLS = 40
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers in /proc"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = Run(STUDY, "quick", STORM, tmp_path_factory.mktemp("undisturbed"))
    with ThreadPoolExecutor(1) as executor:
        execute(run, fake_cells.run, executor, workers=1)
    return run.journal.read_bytes()


@pytest.fixture
def run(tmp_path):
    return Run(STUDY, "quick", STORM, tmp_path / "results")


def start(code, *arguments):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, *code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def workers(driver):
    """The process ids of a driver's workers, which are children of its threads."""
    try:
        threads = Path(f"/proc/{driver.pid}/task").glob("*/children")
        pids = [int(pid) for thread in threads for pid in thread.read_text().split()]
        return [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
    except OSError:
        return []


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def check(run, undisturbed):
    """Finish without disturbance: every trial exactly once, and no trace of what happened."""
    driver = start([ROOT / "tests" / "fake_cells.py"], run.results, "storm")
    driver.wait(timeout=60)
    records = journal.read(run.journal)
    assert driver.returncode == 0
    assert plan(STORM, records) == []
    lines = run.journal.read_text().splitlines()
    assert len(lines) == len(records) == progress(STORM, records).trials
    assert max(Counter(r["key"] for r in records).values()) == 1
    assert run.journal.read_bytes() == undisturbed


def test_of_drivers_and_workers(tmp_path, undisturbed):
    generator, kills, rounds, killed = random.Random(0), 0, 0, Counter()
    while kills < KILLS:
        rounds += 1
        run = Run(STUDY, "quick", STORM, tmp_path / str(rounds))
        driver = None
        while plan(STORM, journal.read(run.journal)) and kills < KILLS:
            if driver is None or driver.poll() is not None:
                driver = start([ROOT / "tests" / "fake_cells.py"], run.results, "storm")
            kind = generator.choice(["driver", "worker"])
            if kind == "worker":
                wait_until(lambda d=driver: workers(d) or d.poll() is not None)
            time.sleep(generator.uniform(0, 0.7))
            victims = workers(driver) if kind == "worker" else [driver.pid]
            killed[kind] += kill(generator.choice(victims)) if victims else 0
            kills = killed.total()
            if kind == "driver":
                driver.wait()
        driver.kill()
        driver.wait()
        check(run, undisturbed)
    assert min(killed["driver"], killed["worker"]) > KILLS / 5, killed


def test_of_a_writer(run):
    """The journal of a writer that does nothing but write has only whole cells, at any moment."""
    generator, grew, before = random.Random(0), 0, set()

    def length():
        return run.journal.stat().st_size if run.journal.exists() else 0

    for _ in range(KILLS):
        writer = start(["-c", "import fake_cells, sys; fake_cells.write(sys.argv[1])"], run.folder)
        size = length()
        wait_until(lambda size=size: length() != size)
        time.sleep(generator.uniform(0, 0.05))
        writer.kill()
        writer.wait()
        records = journal.read(run.journal)
        cells = Counter(r["cell"] for r in records)
        assert set(cells.values()) == {3}
        known = {r["key"] for r in records}
        assert known >= before, "what was recorded stays"
        grew += len(known) > len(before)
        before = known
    assert grew > KILLS / 2
