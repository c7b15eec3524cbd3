import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from studies_synthetic import records as synthetic

import studies.depth
from studies.report import classification, html, report
from studies.report.claims import Claim, Condition, difference, equivalent
from studies.report.report import write_all, write_scale
from studies.engine import scale as scales
from studies.engine.journal import JournalError

ROOT = Path(__file__).parents[2]
QUICK = replace(studies.depth.SCALES["quick"], arms=("random", "denoising", "he"), depths=(1, 5))
STANDARD = replace(QUICK, report_seeds=4, demonstration=False)


@pytest.fixture(autouse=True)
def small_study(monkeypatch):
    """The depth study, smaller."""
    monkeypatch.setattr(studies.depth, "SCALES", {"quick": QUICK, "standard": STANDARD})
    question = studies.depth.__doc__.partition("\n")[0]
    monkeypatch.setattr(report, "studies", lambda: {"depth": question})


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
    figures = {
        f"{draw.__name__}.{kind}" for draw in classification.FIGURES for kind in ("png", "svg")
    }
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
    ledger = pd.read_csv(tmp_path / "claims.csv")
    assert set(ledger["verdict"]) == {"not run"}
    assert len(ledger) == len(studies.depth.CLAIMS)
    assert ledger["link"].isna().all()
    assert "python -m studies run depth --scale standard" in page
    assert "![" not in page


def test_front_page_shows_the_demonstration_until_there_is_a_result(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    written = write_all(tmp_path)
    assert written == [folder / "README.md", tmp_path / "README.md"]
    picture = tmp_path / "depth_quick.png"
    assert picture.read_bytes() == (folder / "error_against_depth.png").read_bytes()
    page = (tmp_path / "README.md").read_text()
    assert links(tmp_path / "README.md") == ["depth_quick.png", "claims.csv", "claims.md"]
    assert "demonstration: 3 seeds, 2,000 training images; not a result" in page
    assert "has not been made yet" in page
    # The records are ignored by git, the picture is not: elsewhere all must be the same.
    before = contents(tmp_path)
    shutil.rmtree(folder)
    write_all(tmp_path)
    assert contents(tmp_path) == before
    assert {"depth_quick.png", "index.html", "claims.md", "claims.csv"} < set(before)


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


# The claims of the study on the small scale: one that it can judge, and one that it cannot.
CLAIMS = (
    Claim(
        "better",
        "It helps.",
        "A paper",
        "It is better.",
        (Condition(difference("denoising", "random", 1), below=0),),
    ),
    Claim(
        "same",
        "It is the same.",
        "A paper",
        "They are equal.",
        (
            equivalent(difference("denoising", "random", 5)),
            equivalent(difference("denoising", "random", 8)),
        ),
    ),
)


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Results of a standard run that judges claims."""
    scale = replace(STANDARD, report_seeds=8)
    monkeypatch.setattr(studies.depth, "SCALES", {"quick": QUICK, "standard": scale})
    monkeypatch.setattr(studies.depth, "CLAIMS", CLAIMS)
    return store(tmp_path, synthetic(scale), "standard")


def test_claims_are_judged_and_stand_in_the_ledger(tmp_path, judged):
    write_all(tmp_path)
    ledger = pd.read_csv(tmp_path / "claims.csv")
    assert list(ledger["verdict"]) == ["holds", "not run"]
    assert list(ledger["effect"].str[-1]) == ["]", "X"]
    assert all((tmp_path / link).exists() for link in ledger["link"])
    table = pd.read_csv(judged / "table.csv")
    expected = table[(table["arm"] == "denoising") & (table["depth"] == 1)].iloc[0]
    found = pd.read_csv(judged / "claims.csv")
    assert list(found["claim"]) == ["better", "same", "same"]
    assert found["estimate"][0] == pytest.approx(expected["difference"])
    # Of two claims, one is judged, at half of 5 %.
    assert found["confidence"][0] == pytest.approx(0.975)
    assert found["low"][0] < expected["difference_low"]
    for page in (judged / "README.md", tmp_path / "README.md"):
        assert "**The headline claim holds:** “It helps”; of 1 other claim 1 was not run." in (
            page.read_text()
        )


def test_study_without_claims_shows_its_numbers_instead_of_a_verdict(tmp_path, judged, monkeypatch):
    monkeypatch.setattr(studies.depth, "CLAIMS", ())
    write_all(tmp_path)
    page = (tmp_path / "README.md").read_text()
    header, _, random, *_ = (judged / "table.md").read_text().splitlines()[4:]
    assert "headline claim" not in page
    assert "No claim is judged here. Test error %:" in page
    assert header in page and random.startswith("| random") and random in page


def test_incomplete_scale_judges_nothing(tmp_path, judged):
    rows = [json.loads(line) for line in (judged / "records.jsonl").read_text().splitlines()]
    gone = next(r for r in rows if r["role"] == "report" and r["arm"] == "he")
    store(tmp_path, [r for r in rows if r is not gone], "standard")
    write_all(tmp_path)
    assert set(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == {"not run"}
    assert pd.read_csv(judged / "claims.csv")["estimate"].isna().all()
    assert "Not judged yet" in (tmp_path / "README.md").read_text()


def test_demonstration_and_custom_scales_judge_nothing(tmp_path, quick_rows, judged):
    folder = store(tmp_path, quick_rows)
    custom = store(tmp_path, synthetic(STANDARD), scales.CUSTOM)
    scales.save(STANDARD, custom)
    write_all(tmp_path)
    for page in (folder, custom):
        assert "## Claims" not in (page / "README.md").read_text()
        assert not (page / "claims.csv").exists()


def test_unfair_results_are_refused_and_every_file_stays(tmp_path, judged):
    write_all(tmp_path)
    before = contents(judged) | contents(tmp_path)
    records = (judged / "records.jsonl").read_text()
    rows = [json.loads(line) for line in records.splitlines()]
    next(r for r in rows if r["role"] == "selection")["test_error"] = 0.1
    store(tmp_path, rows, "standard")
    with pytest.raises(JournalError, match="saw the test set.*Received: test_error"):
        write_all(tmp_path)
    (judged / "records.jsonl").write_text(records)
    assert contents(judged) | contents(tmp_path) == before


class Outline(HTMLParser):
    """What a browser would have to load, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.addresses, self.ids, self.tables = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.addresses += [attrs["href"]] if "href" in attrs else []
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables += 1
            assert self.open[-2] == "div"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_index_needs_nothing_else_and_holds_every_page(tmp_path, judged):
    write_all(tmp_path)
    text = (tmp_path / "index.html").read_text()
    outline = Outline(text)
    assert not outline.open
    assert len(outline.sources) == 1 + len(classification.FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in outline.sources)
    figure = (judged / "error_against_depth.png").read_bytes()
    assert base64.b64decode(outline.sources[0].partition(",")[2]) == figure
    # Links lead within the document or to files beside it.
    inside = {a[1:] for a in outline.addresses if a.startswith("#")}
    assert inside == {"depth-standard"} == set(outline.ids)
    assert all((tmp_path / a).exists() for a in outline.addresses if not a.startswith("#"))
    markdown = (tmp_path / "README.md").read_text() + (judged / "README.md").read_text()
    assert outline.tables == len(re.findall(r"^\|[-:| ]+\|$", markdown, re.MULTILINE))


def test_markup_becomes_html(tmp_path):
    text = "# A *b*\n\n| a | b |\n| - | -: |\n| x < `*y*` | **1** |\n\n- i\n  j\n- k\n\n    run &\n"
    found = html.document(tmp_path, text, {})
    for expected in (
        "<h1>A <em>b</em></h1>",
        '<td>x &lt; <code>*y*</code></td><td class="number"><strong>1</strong></td>',
        "<li>i\n  j</li>\n<li>k</li>",
        "<pre><code>run &amp;</code></pre>",
    ):
        assert expected in found


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
from studies.report.report import write_all
write_all(Path(sys.argv[1]), processes=int(sys.argv[2]))
heavy = {"keras", "tensorflow", "jax"} & set(sys.modules)
assert not heavy, heavy
"""


def test_report_needs_no_keras_and_is_the_same_in_every_process(tmp_path, quick_rows):
    found = []
    several = "3" if sys.platform == "linux" else "1"
    for seed, backend, processes in (("1", "agg", "1"), ("2", "svg", several)):
        results = tmp_path / seed
        folder = store(results, quick_rows)
        settings = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "MPLBACKEND": backend}
        environment = os.environ | settings
        command = [sys.executable, "-c", _PROCESS, results, processes]
        subprocess.run(command, env=environment, check=True)
        found.append(contents(folder) | contents(results))
    assert found[0] == found[1]
    assert report.PAGE in found[0]
