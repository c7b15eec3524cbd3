import pytest
import studies_synthetic
from fake_cells import SCALE

from studies.engine.plan import ASSUMED_SPEED, estimate, progress, speeds, spent


def done(role, flops, seconds, members, **fields):
    record = {"status": "done", "role": role, "flops": flops, "seconds": seconds}
    return {**record, "members": members, **fields}


def test_the_time_of_a_cell_is_shared_by_its_trials():
    cell = [done("selection", 30, seconds=10, members=2)] * 2
    assert speeds(cell, SCALE)["selection"] == 6


def test_a_shared_stack_is_no_work():
    record = done("report", 130, 1, 1, pretraining_flops=100)
    assert speeds([record], SCALE)["report"] == 30


def test_a_role_that_was_never_run_is_as_fast_as_the_others():
    history = [done("selection", 30, 1, 1), done("report", 10, 1, 1)]
    assert speeds(history, SCALE)["pretraining"] == 20


def test_without_measurements_a_speed_is_assumed():
    total = progress(SCALE, [])
    found = estimate(SCALE, [], [], workers=2)
    assert (found.cells, found.trials, found.flops) == (total.cells, total.trials, total.flops)
    assert found.seconds == pytest.approx(total.flops / ASSUMED_SPEED / 2)
    assert "assumed: no records" in str(found)


def test_the_whole_is_what_its_trials_took():
    history = studies_synthetic.records(SCALE)
    found = estimate(SCALE, [], history, workers=1)
    assert found.measured == found.trials
    assert found.seconds == pytest.approx(sum(r["seconds"] for r in history))
    assert estimate(SCALE, history, history, workers=1).cells == 0


def test_the_time_that_was_spent_is_said_by_role():
    history = [{**r, "seconds": 120, "members": 2} for r in studies_synthetic.records(SCALE)]
    reports = sum(r["role"] == "report" for r in history)
    assert f"report {reports:.1f} ({reports} trials)" in spent(SCALE, history)
    assert spent(SCALE, []) == ""
    assert spent(SCALE, [{**r, "key": "not wanted"} for r in history]) == ""


@pytest.mark.parametrize("lacking", ["seconds", "flops"])
def test_records_that_do_not_say_how_long_they_took_are_no_measurement(lacking):
    record = done("selection", 1, 1, 1)
    del record[lacking]
    assert estimate(SCALE, [], [record], workers=1).measured == 0
