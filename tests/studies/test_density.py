"""How models of the inputs' density are judged and shown, on records made without training."""

import math
from dataclasses import replace

import numpy as np
import pytest
from studies_synthetic import STUDIES, diverged
from studies_synthetic import records as synthetic

from studies.arms import Arm
from studies.engine import journal
from studies.engine.plan import choose_rate, mean_by_rate
from studies.report import verdicts
from studies.report.frame import frame

STUDY = STUDIES["vae_latent"]
SCALE = replace(STUDY.scales["standard"], report_seeds=8, epochs=4)
SHOW = SCALE.kind.show
FIGURES = {figure.name: figure for figure in SHOW.offered(SCALE)}
BEST = 0.003


@pytest.fixture(scope="module")
def rows():
    return synthetic(SCALE)


def of(rows, role, latent):
    return [r for r in rows if (r["role"], r["latent"]) == (role, latent)]


def table_of(rows):
    return SHOW.main_table(frame(rows, SCALE), SCALE)


def test_the_rate_of_the_highest_validation_bound_is_chosen(rows):
    assert choose_rate(of(rows, "selection", 5), SCALE) == BEST
    assert {r["learning_rate"] for r in rows if r["role"] == "report"} == {BEST}


def test_a_diverged_rate_counts_as_the_mean_image_and_is_not_chosen(rows):
    selection = of(rows, "selection", 5)
    worst = [diverged(r, SCALE) if r["learning_rate"] == BEST else r for r in selection]
    assert choose_rate(worst, SCALE) != BEST
    assert mean_by_rate(worst, SCALE)[BEST] == 206
    # Nothing is known of a run that ended before its first epoch.
    unknown = [r | {"baseline_bound": None} for r in worst]
    assert mean_by_rate(unknown, SCALE)[BEST] == math.inf


def test_the_table_is_of_means_over_seeds(rows):
    table = table_of(rows)
    assert list(table["latent"]) == [2, 3, 5, 10, 20, 200]
    line = table.set_index("latent").loc[10]
    bounds = [r["test_bound"] for r in of(rows, "report", 10)]
    assert line["test_bound"] == pytest.approx(np.mean(bounds))
    assert line["bound_gap"] == pytest.approx(3)
    assert (line["seeds"], line["learning_rate"]) == (8, BEST)
    assert "-121" in SHOW.summary(table, SCALE).to_string()


def test_missing_places_print_x(rows):
    table = table_of([r for r in rows if r["latent"] != 3])
    block = SHOW.summary(table, SCALE).set_index("latent variables")
    assert set(block.loc["3"]) == {"X"}
    assert "X" not in set(block.loc["5"])


def test_a_diverged_run_has_the_bound_of_the_mean_image_and_no_active_units(rows):
    bad = [diverged(r, SCALE) if r in of(rows, "report", 2) else r for r in rows]
    line = table_of(bad).set_index("latent").loc[2]
    assert (line["test_bound"], line["active_units"], line["diverged"]) == (-206, 0, 8)


def test_claims_are_judged_in_nats(rows):
    judgments = verdicts.judge(STUDY.claims, frame(rows, SCALE), SCALE)
    verdict = {j.claim.name: j.verdict for j in judgments}
    assert verdict == {
        "superfluous-latents-do-not-overfit": "holds",
        "bound-rises-with-latents": "holds",
        "active-units-saturate": "holds",
    }
    rise, units = judgments[1].findings[0], judgments[2].findings[0]
    assert rise.interval.estimate == pytest.approx(200 / 3 - 200 / 5)
    assert units.effect == "mean of active units of variational(latent 200), variables"


def test_arrays_are_read_as_they_were_written(tmp_path):
    written = {"samples": np.arange(12, dtype="uint8").reshape(3, 4)}
    journal.save_arrays(tmp_path, "abc", written)
    np.testing.assert_equal(journal.load_arrays(tmp_path), {"abc": written})
    assert journal.load_arrays(tmp_path / "no such folder") == {}
    assert [path.name for path in tmp_path.iterdir()] == ["abc.npz"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_corrupted_arrays_are_an_error(tmp_path, content):
    (tmp_path / "abc.npz").write_bytes(content)
    with pytest.raises(OSError, match="Could not read the arrays.*Received: .*abc.npz"):
        journal.load_arrays(tmp_path)


def test_what_is_worse_than_the_mean_image_leaves_space_for_the_rest(rows):
    bad = next(r for r in rows if r["role"] == "selection")
    changed = [r | {"validation_bound": -1e6} if r is bad else r for r in rows]
    low, high = FIGURES["rate_sensitivity"].draw(frame(changed, SCALE), SCALE).axes[0].get_ylim()
    best = max(r["validation_bound"] for r in changed if r["role"] == "selection")
    assert low == bad["baseline_bound"]
    assert best < high < best + 0.1 * (best - low)


def test_arrays_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Could not write.*Received: .*abc.npz"):
        journal.save_arrays(tmp_path / "file", "abc", {"samples": np.zeros(3)})


def test_samples_and_the_manifold_are_those_of_the_first_seed_that_has_any(rows, tmp_path):
    first = of(rows, "report", 3)[0]
    pictures = np.full((100, 28, 28, 1), 7, dtype="uint8")
    grid = np.full((20, 20, 28, 28, 1), 9, dtype="uint8")
    journal.save_arrays(tmp_path, first["key"], {"samples": pictures, "latent_grid": grid})
    table = frame(rows, SCALE, tmp_path)
    for name, pixels, side in (("samples", 7, 280), ("latent_grid", 9, 560)):
        figure = FIGURES[name].draw(table, SCALE)
        (image,) = (image for ax in figure.axes for image in ax.images)
        assert image.get_array().shape == (side, side)
        assert (image.get_array() == pixels).all()
    titles = [ax.get_title() for ax in FIGURES["samples"].draw(table, SCALE).axes]
    assert "3 latent variables" in titles


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": (Arm("plain", activation="tanh"),)}, "one objective.*Received: plain without"),
        ({"arms": ("variational", "residual_batch_norm")}, "does not use.*Received: shortcut"),
        ({"axes": {"latent": (2,), "depth": (1, 2)}}, "depth 1"),
    ],
)
def test_densities_and_classifiers_are_not_compared(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SCALE, **changes)
