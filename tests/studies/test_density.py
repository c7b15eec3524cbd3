"""How models of the inputs' density are judged and shown, on records made without training."""

from dataclasses import replace

import numpy as np
import pytest

import studies.vae_latent
from studies.report import density, density_figures, records, rendering, verdicts
from studies.report.claims import Difference, Runs
from studies.arms import ARMS
from studies.engine import arrays
from studies.engine.plan import plan
from studies.engine.selection import choose_rate, score

SCALE = replace(studies.vae_latent.SCALES["standard"], report_seeds=8, epochs=4)
BEST = 0.003


def record(trial):
    latent = ARMS[trial.arm].objective["latent"]
    bound = -100 - 200 / latent - abs(np.log(trial.learning_rate / BEST)) - 0.1 * (trial.seed % 7)
    curve = [bound - 20, bound - 5, bound - 1, bound]
    made = {
        **vars(trial),
        "key": trial.key,
        "status": "done",
        "validation_bound": bound,
        "baseline_bound": -206.0,
        "flops": 10**12,
        "curves": {"train_bound": curve, "validation_bound": curve},
    }
    if trial.role == "report":
        made |= {
            "train_bound": bound + 2,
            "test_bound": bound - 1,
            "test_importance_weighted_bound": bound + 1,
            "active_units": min(latent, 25 + trial.seed % 2),
        }
    return made


def made(scale=SCALE):
    rows = []
    while cells := plan(scale, rows):
        rows += [record(trial) for cell in cells for trial in cell.trials]
    return rows


@pytest.fixture(scope="module")
def rows():
    return made()


def frame_of(rows, scale=SCALE):
    return records.frame(rows, scale).assign(arrays=None)


def test_the_rate_of_the_highest_validation_bound_is_chosen(rows):
    chosen = choose_rate([r for r in rows if r["role"] == "selection"], "latent_5", 1, 10)
    assert chosen == BEST
    assert {r["learning_rate"] for r in rows if r["role"] == "report"} == {BEST}


def test_a_diverged_rate_is_never_chosen(rows):
    diverged = {"status": "diverged", "validation_bound": None}
    selection = [r for r in rows if r["role"] == "selection" and r["arm"] == "latent_5"]
    worst = [r | diverged if r["learning_rate"] == BEST else r for r in selection]
    assert choose_rate(worst, "latent_5", 1, 10) != BEST
    assert score(selection[0] | diverged) == float("inf")


def test_the_table_is_of_means_over_seeds(rows):
    table = density.main_table(frame_of(rows), SCALE)
    assert list(table["latent"]) == [2, 3, 5, 10, 20, 200]
    reported = [r for r in rows if r["role"] == "report" and r["arm"] == "latent_10"]
    line = table.set_index("latent").loc[10]
    assert line["test_bound"] == pytest.approx(np.mean([r["test_bound"] for r in reported]))
    assert line["bound_gap"] == pytest.approx(3)
    assert line["seeds"] == 8
    assert line["learning_rate"] == BEST
    assert "-121" in density.summary(table, SCALE).to_string()


def test_missing_arms_print_x(rows):
    table = density.main_table(frame_of([r for r in rows if r["arm"] != "latent_3"]), SCALE)
    block = density.summary(table, SCALE).set_index("latent variables")
    assert set(block.loc["3"]) == {"X"}
    assert "X" not in set(block.loc["5"])


def test_a_diverged_run_has_the_bound_of_the_mean_image(rows):
    diverged = {"status": "diverged", "validation_bound": None, "test_bound": None}
    bad = [r | diverged if r["role"] == "report" and r["arm"] == "latent_2" else r for r in rows]
    table = density.main_table(frame_of(bad), SCALE).set_index("latent")
    assert table.loc[2, "test_bound"] == -206
    assert table.loc[2, "diverged"] == 8


def test_claims_are_judged_in_nats(rows):
    judgments = verdicts.judge(studies.vae_latent.CLAIMS, frame_of(rows), SCALE)
    verdict = {j.claim.name: j.verdict for j in judgments}
    assert verdict == {
        "superfluous-latents-do-not-overfit": "holds",
        "bound-rises-with-latents": "holds",
        "active-units-saturate": "holds",
    }
    rise = judgments[1].findings[0]
    assert rise.interval.estimate == pytest.approx(200 / 3 - 200 / 5)
    units = Difference((Runs("latent_200", 1, metric="active_units"),), ())
    assert str(units) == "mean of active_units(latent_200), variables"


@pytest.mark.parametrize("draw", density.FIGURES)
@pytest.mark.parametrize("missing", ["nothing", "report", "latent_3"])
def test_figures_can_be_drawn_of_what_there_is(rows, draw, missing):
    kept = [r for r in rows if missing not in (r["role"], r["arm"])]
    rendering.render(draw, frame_of(kept), SCALE)


def test_arrays_are_read_as_they_were_written(tmp_path):
    written = {"samples": np.arange(12, dtype="uint8").reshape(3, 4)}
    arrays.save(tmp_path, "abc", written)
    np.testing.assert_equal(arrays.load(tmp_path), {"abc": written})
    assert arrays.load(tmp_path / "no such folder") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["abc.npz"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_corrupted_arrays_are_an_error(tmp_path, content):
    (tmp_path / "abc.npz").write_bytes(content)
    with pytest.raises(OSError, match="Could not read the arrays.*Received: .*abc.npz"):
        arrays.load(tmp_path)


def test_what_is_worse_than_the_mean_image_leaves_space_for_the_rest(rows):
    bad = next(r for r in rows if r["role"] == "selection")
    changed = [r | {"validation_bound": -1e6} if r is bad else r for r in rows]
    low, high = density_figures.rate_sensitivity(frame_of(changed), SCALE).axes[0].get_ylim()
    best = max(r["validation_bound"] for r in changed if r["role"] == "selection")
    assert low == bad["baseline_bound"]
    assert best < high < best + 0.1 * (best - low)


def test_arrays_that_cannot_be_written_are_an_error(tmp_path):
    with pytest.raises(OSError, match="arrays of a trial.*Received"):
        arrays.save(tmp_path / "no such folder", "abc", {"samples": np.zeros(3)})


def test_densities_and_classifiers_are_not_compared():
    with pytest.raises(ValueError, match="density"):
        replace(SCALE, arms=("latent_2", "random"))
    with pytest.raises(ValueError, match="depth 1"):
        replace(SCALE, depths=(2,))
