"""A kind, an axis, arms, a figure and claims of one's own, in one file outside of the package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

STUDY = Path(__file__).parents[1] / "zlib_study.py"


def studies(folder, *arguments):
    command = [sys.executable, "-m", "studies", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(STUDY, folder)
    printed = studies(folder, "run", "./zlib_study.py", "--scale", "standard", "--workers", "1")
    assert "Results: results/zlib_study/standard" in printed
    return folder


def test_it_runs_and_is_reported(folder):
    results = folder / "results" / "zlib_study" / "standard"
    records = pd.read_json(results / "records.jsonl", lines=True)
    assert (len(records), set(records["status"])) == (2 * 3 * 8, {"done"})
    assert set(records["level"]) == {1, 6, 9}
    table = pd.read_csv(results / "table.csv").set_index(["arm", "level"])
    single = records[(records["arm"] == "single") & (records["level"] == 9)]
    assert table.loc[("single", 9), "bits"] == pytest.approx(single["bits"].mean(), rel=1e-5)
    page = (results / "README.md").read_text()
    for figure in ("bits_against_level", "bits_over_seeds"):
        assert f"({figure}.png)" in page
        assert (results / f"{figure}.png").stat().st_size > 1000


def test_it_is_judged(folder):
    claims = pd.read_csv(folder / "results" / "zlib_study" / "standard" / "claims.csv")
    assert dict(zip(claims["claim"], claims["verdict"], strict=True)) == {
        "levels-matter": "holds",
        "single-is-smaller": "fails",
    }
    assert claims["effect"][0].endswith("bits per pixel")


def test_it_is_known_by_its_path_only(folder):
    assert "nothing" not in studies(folder, "status", "./zlib_study.py")
    before = (folder / "results" / "README.md").exists()
    studies(folder, "report", "./zlib_study.py")
    assert not before
    assert "How small does zlib make digits" in (folder / "results" / "README.md").read_text()


def test_other_values_of_its_axis_are_options(folder):
    printed = studies(folder, "run", "./zlib_study.py", "--scale", "standard", "--level", "2", "4")
    assert "level" in printed
    again = studies(folder, "run", "./zlib_study.py", "--scale", "standard", "--dry-run")
    assert "0 cells, 0 trials" in again
