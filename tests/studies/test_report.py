import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from studies_synthetic import records as synthetic

import studies.depth
from studies.analysis import pages, report
from studies.analysis.report import write_all, write_scale
from studies.runner import scale as scales

ROOT = Path(__file__).parents[2]
QUICK = replace(studies.depth.SCALES["quick"], arms=("random", "denoising", "he"), depths=(1, 5))
STANDARD = replace(QUICK, report_seeds=4, demonstration=False)


@pytest.fixture(autouse=True)
def small_study(monkeypatch):
    """The depth study, smaller."""
    monkeypatch.setattr(studies.depth, "SCALES", {"quick": QUICK, "standard": STANDARD})


@pytest.fixture(scope="module")
def quick_rows():
    return synthetic(QUICK)


def store(results, rows, name="quick"):
    folder = results / "depth" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "records.jsonl").write_text(text)
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def links(page):
    return re.findall(r"\]\(([^)#]+)\)", page.read_text())


def test_everything_is_written_and_every_link_leads_somewhere(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    text = write_scale(folder, "depth", "quick")
    figures = {f"{draw.__name__}.{kind}" for draw in pages.FIGURES for kind in ("png", "svg")}
    tables = {"table.csv", "table.md", "README.md", "records.jsonl"}
    assert set(contents(folder)) == figures | tables
    assert all((folder / link).exists() for link in links(folder / "README.md"))
    page = (folder / "README.md").read_text()
    assert page.startswith("# Does layer-wise pretraining still pay")
    for words in (
        "Refuted if",
        "2,000 training",
        "demonstration: 3 seeds",
        "--scale quick",
    ):
        assert words in page
    assert "denoising" in text
    assert "demonstration" in text
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == len(QUICK.arms) * len(QUICK.depths)


def test_written_twice_is_the_same_bytes(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    text = write_scale(folder, "depth", "quick")
    before = contents(folder)
    slower = [{**row, "seconds": 1e6, "provenance": {"host": "b"}} for row in quick_rows[::-1]]
    store(tmp_path, slower)
    assert write_scale(folder, "depth", "quick") == text
    after = contents(folder)
    assert [name for name in before if after[name] != before[name]] == ["records.jsonl"]


def test_incomplete_scale_says_what_is_missing(tmp_path, quick_rows):
    gone = [r for r in quick_rows if (r["role"], r["arm"], r["depth"]) == ("report", "he", 5)]
    rows = [r for r in quick_rows if r not in gone] + [{**gone[0], "status": "killed"}]
    folder = store(tmp_path, rows)
    text = write_scale(folder, "depth", "quick")
    for words in (text, (folder / "README.md").read_text()):
        assert f"3 of {len(quick_rows)} trials have no result yet" in words
        assert "1 trials failed" in words
        assert "X: missing" in words


def test_complete_scale_says_nothing_of_missing_trials(tmp_path, quick_rows):
    text = write_scale(store(tmp_path, quick_rows), "depth", "quick")
    assert "no result yet" not in text
    assert "failed" not in text


def test_no_result_is_an_error_and_writes_nothing(tmp_path, quick_rows):
    folder = store(tmp_path, [{**row, "status": "error"} for row in quick_rows])
    with pytest.raises(ValueError, match="Received"):
        write_scale(folder, "depth", "quick")
    assert list(contents(folder)) == ["records.jsonl"]


def test_failure_to_write_leaves_whole_files(tmp_path, quick_rows, monkeypatch):
    folder = store(tmp_path, quick_rows)
    write_scale(folder, "depth", "quick")
    before = contents(folder)
    written = Path.write_bytes

    def full_disk(path, content):
        if "svg" in path.name:
            written(path, content[:100])
            raise OSError(28, "No space left on device")
        written(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match=r"No space left.*Expected.*Received: .*svg"):
        write_scale(folder, "depth", "quick")
    assert contents(folder) == before


def test_front_page_without_any_results(tmp_path):
    assert write_all(tmp_path) == [tmp_path / "README.md"]
    page = (tmp_path / "README.md").read_text()
    assert "has not been made yet" in page
    assert "python -m studies run depth --scale standard" in page
    assert "![" not in page


def test_front_page_shows_the_demonstration_until_there_is_a_result(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    written = write_all(tmp_path)
    assert written == [folder / "README.md", tmp_path / "README.md"]
    picture = tmp_path / "depth_quick.png"
    assert picture.read_bytes() == (folder / "error_against_depth.png").read_bytes()
    page = (tmp_path / "README.md").read_text()
    assert links(tmp_path / "README.md") == ["depth_quick.png"]
    assert "demonstration: 3 seeds, 2,000 training images; not a result" in page
    assert "has not been made yet" in page
    # The records are ignored by git, the picture is not: elsewhere the page must be the same.
    shutil.rmtree(folder)
    write_all(tmp_path)
    assert (tmp_path / "README.md").read_text() == page
    assert picture.exists()


def test_unfinished_demonstration_does_not_replace_the_picture(tmp_path, quick_rows):
    store(tmp_path, quick_rows[:-1])
    (tmp_path / "depth_quick.png").write_bytes(b"committed")
    write_all(tmp_path)
    assert (tmp_path / "depth_quick.png").read_bytes() == b"committed"


def test_front_page_shows_the_standard_run_once_it_exists(tmp_path, quick_rows):
    store(tmp_path, quick_rows)
    store(tmp_path, synthetic(STANDARD), "standard")
    write_all(tmp_path)
    found = links(tmp_path / "README.md")
    assert "depth/standard/README.md" in found
    assert all((tmp_path / link).exists() for link in found)
    page = (tmp_path / "README.md").read_text()
    assert "demonstration" not in page
    assert "not been made" not in page
    assert not (tmp_path / "depth_quick.png").exists()


def test_standard_run_without_a_report_yet_is_none(tmp_path):
    begun = [r for r in synthetic(STANDARD) if r["role"] != "report"]
    folder = store(tmp_path, begun, "standard")
    assert write_all(tmp_path) == [folder / "README.md", tmp_path / "README.md"]
    assert "has not been made yet" in (tmp_path / "README.md").read_text()


def test_front_page_links_the_benchmark_if_there_is_one(tmp_path):
    write_all(tmp_path)
    assert "speed.md" not in (tmp_path / "README.md").read_text()
    (tmp_path / "speed.md").write_text("fast")
    write_all(tmp_path)
    assert "speed.md" in links(tmp_path / "README.md")


def test_custom_scale_is_found_by_its_folder(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows, scales.CUSTOM)
    scales.save(QUICK, folder)
    assert write_all(tmp_path)[0] == folder / "README.md"
    assert "--scale" not in (folder / "README.md").read_text()


def test_study_without_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run depth.*Received: "):
        write_all(tmp_path, "depth")


_PROCESS = """
import sys
from pathlib import Path
import studies.depth
from dataclasses import replace
quick = replace(studies.depth.SCALES["quick"], arms=("random", "denoising", "he"), depths=(1, 5))
studies.depth.SCALES = {"quick": quick}
from studies.analysis.report import write_all
write_all(Path(sys.argv[1]))
heavy = {"keras", "tensorflow", "jax"} & set(sys.modules)
assert not heavy, heavy
"""


def test_report_needs_no_keras_and_is_the_same_in_every_process(tmp_path, quick_rows):
    found = []
    for seed, backend in (("1", "agg"), ("2", "svg")):
        results = tmp_path / seed
        folder = store(results, quick_rows)
        settings = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "MPLBACKEND": backend}
        environment = os.environ | settings
        subprocess.run([sys.executable, "-c", _PROCESS, results], env=environment, check=True)
        found.append(contents(folder) | contents(results))
    assert found[0] == found[1]
    assert report.PAGE in found[0]
