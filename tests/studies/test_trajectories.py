"""Regions of nets in the space of functions, and what is kept of the nets."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.metrics import silhouette_samples

from pretrain import datasets
from studies.arms import ARMS
from studies.engine import plan
from studies.engine.study import load
from studies.engine.trial import Cell
from studies.engine.worker import run_cell
from studies.kinds import classification, trajectories
from studies.kinds.trajectories import regions
from studies.report import figures
from studies.report.frame import frame

RNG = np.random.default_rng(0)
GROUPS = np.repeat(["a", "b", "c"], 8)
POINTS = RNG.normal(size=(24, 30)) + np.repeat(RNG.normal(size=(3, 30)), 8, axis=0)
SEEDS = np.tile(np.arange(8), 3)


def test_distances_are_roots_of_mean_squared_differences():
    found = regions.distances(POINTS)
    expected = np.sqrt(((POINTS[:, None] - POINTS) ** 2).mean(axis=-1))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    a = expected[:8, :8]
    np.testing.assert_allclose(regions.within(found, GROUPS)[:8], a.sum(axis=1) / 7)


def test_silhouettes_are_those_of_scikit_learn():
    found = regions.silhouettes(regions.distances(POINTS), GROUPS)
    np.testing.assert_allclose(found, silhouette_samples(POINTS, GROUPS))
    alone = regions.silhouettes(regions.distances(POINTS[:9]), GROUPS[:9])
    np.testing.assert_allclose(alone, silhouette_samples(POINTS[:9], GROUPS[:9]))
    assert np.isnan(regions.silhouettes(regions.distances(POINTS[:8]), GROUPS[:8])).all()


def test_principal_components_are_those_of_scikit_learn_but_for_their_sign():
    found, expected = regions.principal(POINTS), PCA(2).fit_transform(POINTS)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert regions.principal(POINTS[:1]).shape == (1, 2)


def test_the_probe_is_the_ridge_regression_of_scikit_learn():
    found = regions.told(POINTS, GROUPS, SEEDS)
    for seed in range(8):
        known = seed != SEEDS
        targets = GROUPS[known, None] == ["a", "b", "c"]
        centered = POINTS[known] - POINTS[known].mean(axis=0)
        penalty = 1e-3 * (centered**2).sum() / known.sum()
        scores = Ridge(alpha=penalty).fit(POINTS[known], targets.astype(float))
        names = np.array(["a", "b", "c"])[scores.predict(POINTS[~known]).argmax(axis=1)]
        np.testing.assert_array_equal(found[~known], names == GROUPS[~known])


def test_groups_that_do_not_differ_are_told_at_chance():
    draws = [regions.told(RNG.normal(size=(24, 30)), GROUPS, SEEDS).mean() for _ in range(200)]
    assert np.mean(draws) == pytest.approx(1 / 3, abs=0.03)


def of_net(level, outputs, arm, seed):
    """A net whose training NLL falls by half in each epoch, and its outputs."""
    path = level * 0.5 ** np.arange(len(outputs))
    curves = {"train_nll": path.tolist()}
    return {"arm": arm, "seed": seed, "depth": 2, "curves": curves, "arrays": {"outputs": outputs}}


def test_nets_are_compared_where_all_are_trained_equally_well():
    # The slow net ends where the fast net is after its second epoch.
    fast, slow = (np.arange(4.0)[:, None, None] + start for start in (0.0, 100.0))
    runs = pd.DataFrame([of_net(1.0, fast, "a", 0), of_net(4.0, slow, "b", 0)])
    assert regions.at_equal_training(runs).ravel().tolist() == [1.0, 103.0]
    assert regions.last(runs).ravel().tolist() == [3.0, 103.0]


def test_an_arm_is_compared_with_its_control_among_nets_that_are_alike():
    outputs = POINTS.reshape(24, 1, 5, 6).repeat(2, axis=1)
    both = zip(outputs, GROUPS, SEEDS, strict=True)
    rows = [of_net(1.0, *each) | {"depth": depth} for each in both for depth in (1, 2)]
    runs = pd.DataFrame([*rows, rows[0] | {"arrays": None}])
    found = regions.metrics(runs, ["depth"], {"b": "a"})
    # Groups a and b, and for each seed the mean of the nets of both.
    expected = silhouette_samples(POINTS[:16], GROUPS[:16]).reshape(2, 8).mean(axis=0)
    for depth in (0, 1):
        np.testing.assert_allclose(found["silhouette"][16 + depth : 32 : 2], expected)
    told = regions.told(POINTS[:16], GROUPS[:16], SEEDS[:16]).reshape(2, 8).mean(axis=0)
    np.testing.assert_allclose(found["told"][16:32:2], told)
    # Groups without a control are compared with nothing but themselves.
    alone = found[["silhouette", "told", "equal_silhouette"]]
    assert alone[found.index < 16].isna().all(axis=None)
    assert alone[found.index >= 32].isna().all(axis=None)
    halves = silhouette_samples(POINTS[:8], SEEDS[:8] % 2)
    np.testing.assert_allclose(found["split_silhouette"][0:16:2], halves)
    assert found["distance"][:48].notna().all()
    assert found.loc[48].isna().all()
    assert regions.metrics(runs[48:], ["depth"], {}).empty


def trial(role, **fields):
    sizes = {"train_size": 60, "validation_size": 40, "test_size": 100, "width": 12, "epochs": 3}
    return trajectories.TrajectoryTrial(role=role, depth=2, **sizes, **fields)


def test_the_outputs_of_reports_are_kept_after_each_epoch(tmp_path):
    asked = [trial("report", watched=30, seed=seed) for seed in (0, 1)]
    results = run_cell(Cell(tuple(asked), ARMS["random"], trajectories.KIND), tmp_path)
    (x, y) = (array[:30] for array in datasets.load("mnist", 60, 40).test)
    for each in results:
        outputs = each["arrays"]["outputs"]
        assert outputs.shape == (3, 30, 10)
        assert outputs.dtype == "float16"
        np.testing.assert_allclose(outputs.astype(float).sum(axis=-1), 1, atol=6e-3)
    # What is kept are the outputs of the net that is tested: its errors are those that are counted.
    plain = [replace(each, test_size=30, watched=0) for each in asked]
    kind = classification.KIND
    tested = run_cell(Cell(tuple(plain), ARMS["random"], kind), tmp_path)
    for watched, counted in zip(results, tested, strict=True):
        named = watched["arrays"]["outputs"][-1].argmax(axis=-1)
        assert (named != y).mean() == pytest.approx(counted["final_test_error"])
        assert "arrays" not in counted


def test_only_reports_are_watched_and_other_trials_are_those_of_other_studies():
    scale = load("trajectories").scales["quick"]
    groups = plan.groups(scale, [])
    watched = {group.trials[0].role: group.trials[0].watched for group in groups}
    assert watched == {"pretraining": 0, "selection": 0, "report": trajectories.WATCHED}
    same = plan.groups(replace(scale, kind=classification.KIND), [])
    keys, others = ({t.key for g in each for t in g.trials} for each in (groups, same))
    assert {t.key for g in groups for t in g.trials if t.role != "report"} < others
    assert not {t.key for g in groups for t in g.trials if t.role == "report"} & others
    assert len(keys) == len(others)


@pytest.fixture
def watched():
    """Results of nets with outputs, made without training."""
    from studies_synthetic import records

    scale = replace(load("trajectories").scales["quick"], report_seeds=4)
    results, generator = frame(records(scale), scale), np.random.default_rng(0)
    starts = {arm: generator.random((20, 6, 10)) for arm in scale.arm_names}
    results["arrays"] = [
        {"outputs": starts[run.arm] + generator.random((20, 6, 10))}
        if run.role == "report"
        else None
        for run in results.itertuples()
    ]
    return scale, scale.kind.derive(results, scale)


def test_a_map_is_the_same_whenever_it_is_drawn(watched):
    scale, results = watched
    (paths,) = (f for f in scale.kind.show.offered(scale) if f.name == "paths")
    first, second = (figures.render(paths, results, scale) for _ in range(2))
    assert first == second


def test_a_map_that_lacks_scikit_learn_says_so(watched, monkeypatch):
    scale, results = watched
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    (paths,) = (f for f in scale.kind.show.offered(scale) if f.name == "paths")
    maps = paths.draw(results, scale).axes
    assert [ax.get_title() for ax in maps] == ["PCA", "t-SNE", "Isomap"] * 2
    assert all(ax.lines for ax in maps[::3])
    for ax in maps[1:3] + maps[4:]:
        assert "pip install scikit-learn" in ax.texts[0].get_text()
        assert not ax.lines
