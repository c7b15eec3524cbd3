import base64
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from studies_synthetic import STUDIES
from studies_synthetic import records as synthetic

from studies.arms import ARMS
from studies.engine import scale as scales
from studies.report import html, write
from studies.report.claims import Claim, Condition, InShort, difference, equivalent, sample
from studies.report.published import Published
from studies.report.write import PAGE, write_scale

ROOT = Path(__file__).parents[2]
DEPTH = STUDIES["depth"]
SMALL = {"arms": ("random", "denoising", "he"), "axes": {"depth": (1, 5)}}
QUICK = replace(DEPTH.scales["quick"], **SMALL)
STANDARD = replace(QUICK, report_seeds=4, demonstration=False)
FIGURES = ("error_against_depth", "rate_sensitivity")
# The depth study, smaller.
STUDY = replace(
    DEPTH,
    scales={"quick": QUICK, "standard": STANDARD},
    figures=("error_against_{axis}", "rate_sensitivity"),
)


def write_all(results, *studies, only=None):
    """The pages that were written without an error."""
    pages, errors = write.write_all(results, [*(studies or [STUDY])], only)
    assert errors == []
    return pages


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
    text = write_scale(folder, STUDY, "quick")
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    tables = {"table.csv", "README.md", "index.html", "records.jsonl"}
    assert set(contents(folder)) == figures | tables
    assert all((folder / link).exists() for link in links(folder / "README.md"))
    page = (folder / "README.md").read_text()
    assert page.startswith("# Does layer-wise pretraining still pay")
    for words in ("Refuted if", "2,000 training", "demonstration: 3 seeds", "--scale quick"):
        assert words in page
    assert ARMS["denoising"].title in text
    assert "demonstration" in text
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == len(QUICK.places)


def test_written_twice_is_the_same_bytes(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    text = write_scale(folder, STUDY, "quick")
    before = contents(folder)
    slower = [{**row, "seconds": 1e6, "provenance": {"host": "b"}} for row in quick_rows[::-1]]
    store(tmp_path, slower)
    assert write_scale(folder, STUDY, "quick") == text
    after = contents(folder)
    assert [name for name in before if after[name] != before[name]] == ["records.jsonl"]


def test_a_page_says_in_what_its_records_differ(tmp_path, quick_rows):
    place = {"commit": "a1", "processor": "P", "versions": {"keras": "3.10"}, "data": "d1"}
    other = place | {"versions": {"keras": "3.15"}, "data": "d2", "accelerator": "A"}
    rows = [{**row, "provenance": other if i else place} for i, row in enumerate(quick_rows)]
    write_scale(store(tmp_path, rows), STUDY, "quick")
    page = (tmp_path / "depth" / "quick" / PAGE).read_text()
    differences = "keras 3.10, 3.15; processor P, P with A; test set of mnist d1, d2"
    assert f"They differ in: {differences}.\n" in page


def test_incomplete_scale_says_what_is_missing(tmp_path, quick_rows):
    gone = [r for r in quick_rows if (r["role"], r["arm"], r["depth"]) == ("report", "he", 5)]
    rows = [r for r in quick_rows if r not in gone] + [{**gone[0], "status": "killed"}]
    folder = store(tmp_path, rows)
    text = write_scale(folder, STUDY, "quick")
    for words in (text, (folder / "README.md").read_text()):
        assert f"3 of {len(quick_rows)} trials have no result yet" in words
        assert "1 trials failed" in words
        assert "X: missing" in words


def test_complete_scale_says_nothing_of_missing_trials(tmp_path, quick_rows):
    text = write_scale(store(tmp_path, quick_rows), STUDY, "quick")
    assert "no result yet" not in text
    assert "trials failed" not in text


def test_no_result_is_an_error_and_writes_nothing(tmp_path, quick_rows):
    folder = store(tmp_path, [{**row, "status": "error"} for row in quick_rows])
    with pytest.raises(ValueError, match="Received"):
        write_scale(folder, STUDY, "quick")
    assert list(contents(folder)) == ["records.jsonl"]


def test_failure_to_write_leaves_whole_files(tmp_path, quick_rows, monkeypatch):
    folder = store(tmp_path, quick_rows)
    write_scale(folder, STUDY, "quick")
    before = contents(folder)
    replacing = write.replacing

    @contextmanager
    def full_disk(path):
        with replacing(path) as file:
            yield file
            if path.suffix == ".svg":
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "replacing", full_disk)
    with pytest.raises(OSError, match=r"No space left.*Expected.*Received: .*svg"):
        write_scale(folder, STUDY, "quick")
    assert contents(folder) == before


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_report_is_none(tmp_path, stop, monkeypatch):
    replacing, written = write.replacing, []

    @contextmanager
    def stopped(path):
        with replacing(path) as file:
            written.append(path)
            if len(written) == 2:
                raise stop
            yield file

    monkeypatch.setattr(write, "replacing", stopped)
    if isinstance(stop, OSError):
        assert "No space left" in write.write_all(tmp_path, [STUDY])[1][0]
    else:
        with pytest.raises(KeyboardInterrupt):
            write.write_all(tmp_path, [STUDY])
    assert len(written) == 2
    assert contents(tmp_path) == {}


def test_front_page_without_any_results(tmp_path):
    assert write_all(tmp_path) == [tmp_path / "README.md"]
    page = (tmp_path / "README.md").read_text()
    assert "has not been made yet" in page
    ledger = pd.read_csv(tmp_path / "claims.csv")
    assert set(ledger["verdict"]) == {"not run"}
    assert len(ledger) == len(STUDY.claims)
    assert ledger["link"].isna().all()
    assert "python -m studies run depth --scale standard" in page
    assert "![" not in page


def test_a_demonstration_is_no_part_of_the_front_page(tmp_path, quick_rows):
    folder = store(tmp_path, quick_rows)
    assert write_all(tmp_path) == [folder / PAGE, tmp_path / PAGE]
    assert "demonstration: 3 seeds" in (folder / PAGE).read_text()
    page = (tmp_path / PAGE).read_text()
    assert "has not been made yet" in page
    assert links(tmp_path / PAGE) == ["claims.csv", "claims.md"]
    # Its records are ignored by git: elsewhere all must be the same.
    before = contents(tmp_path)
    shutil.rmtree(folder)
    write_all(tmp_path)
    assert contents(tmp_path) == before
    assert set(before) == {"README.md", "index.html", "claims.md", "claims.csv"}


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


# The claims of the study on the small scale: one that it can judge, and one that it cannot.
CLAIMS = (
    Claim(
        "better",
        "It helps.",
        "A paper",
        "It is better.",
        (Condition(difference("denoising", "random", depth=1), below=0),),
    ),
    Claim(
        "same",
        "It is the same.",
        "A paper",
        "They are equal.",
        (
            equivalent(difference("denoising", "random", depth=5)),
            equivalent(difference("denoising", "random", depth=8)),
        ),
    ),
)
EIGHT = replace(STANDARD, report_seeds=8)
JUDGED = replace(STUDY, scales={"quick": QUICK, "standard": EIGHT}, claims=CLAIMS)


@pytest.fixture(scope="module")
def judged_rows():
    return synthetic(EIGHT)


@pytest.fixture
def judged(tmp_path, judged_rows):
    """Results of a standard run that judges claims."""
    return store(tmp_path, judged_rows, "standard")


def test_claims_are_judged_and_stand_in_the_ledger(tmp_path, judged):
    write_all(tmp_path, JUDGED)
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
        text = page.read_text()
        assert "claim holds:** “It helps”. Verdicts of the other claims: not run 1." in text


def test_study_without_claims_shows_its_numbers_instead_of_a_verdict(tmp_path, judged):
    write_all(tmp_path, replace(JUDGED, claims=(), answer=None))
    page = (tmp_path / "README.md").read_text()
    own = (judged / "README.md").read_text().partition("## Test error %")[2]
    header, _, random, *_ = (line for line in own.splitlines() if line.startswith("|"))
    assert "headline claim" not in page
    assert "No claim is judged here. Test error %:" in page
    assert header in page and random.startswith("| sigmoid, random start") and random in page


def test_incomplete_scale_judges_nothing(tmp_path, judged):
    rows = [json.loads(line) for line in (judged / "records.jsonl").read_text().splitlines()]
    gone = next(r for r in rows if r["role"] == "report" and r["arm"] == "he")
    store(tmp_path, [r for r in rows if r is not gone], "standard")
    write_all(tmp_path, JUDGED)
    assert set(pd.read_csv(tmp_path / "claims.csv")["verdict"]) == {"not run"}
    assert pd.read_csv(judged / "claims.csv")["estimate"].isna().all()
    assert "Not judged yet" in (tmp_path / "README.md").read_text()


def test_demonstration_and_custom_scales_judge_nothing(tmp_path, quick_rows, judged):
    folder = store(tmp_path, quick_rows)
    custom = store(tmp_path, synthetic(STANDARD), scales.CUSTOM)
    scales.save_custom(STANDARD, custom)
    write_all(tmp_path, JUDGED)
    for page in (folder, custom):
        assert "## Claims" not in (page / "README.md").read_text()
        assert not (page / "claims.csv").exists()


def test_unfair_results_are_refused_and_every_file_stays(tmp_path, judged):
    write_all(tmp_path, JUDGED)
    before = contents(judged) | contents(tmp_path)
    records = (judged / "records.jsonl").read_text()
    rows = [json.loads(line) for line in records.splitlines()]
    next(r for r in rows if r["role"] == "selection")["test_error"] = 0.1
    store(tmp_path, rows, "standard")
    pages, (error,) = write.write_all(tmp_path, [JUDGED])
    assert pages == []
    assert re.search("saw the test set.*Received: test_error", error)
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

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_index_needs_nothing_else_and_holds_every_page(tmp_path, judged):
    write_all(tmp_path, JUDGED)
    text = (tmp_path / "index.html").read_text()
    outline = Outline(text)
    assert not outline.open
    assert len(outline.sources) == 1 + len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in outline.sources)
    figure = (judged / "error_against_depth.png").read_bytes()
    assert base64.b64decode(outline.sources[0].partition(",")[2]) == figure
    # Links lead within the document or to files beside it.
    inside = {a[1:] for a in outline.addresses if a.startswith("#")}
    assert inside <= set(outline.ids)
    assert len(set(outline.ids)) == len(outline.ids)
    # A verdict leads to its effects, and the number of an effect to its row.
    assert {"depth-standard-better", "depth-standard-denoising-1"} <= inside
    assert {"the-ledger", "depth-standard", "depth-standard-all-numbers"} <= inside
    assert all((tmp_path / a).exists() for a in outline.addresses if not a.startswith("#"))
    markdown = (tmp_path / "README.md").read_text() + (judged / "README.md").read_text()
    assert outline.tables == len(re.findall(r"^\|[-:| ]+\|$", markdown, re.MULTILINE))


def test_markup_becomes_html(tmp_path):
    table = "| a | b |\n| - | -: |\n| x < `*y*` | **1** |\n| k | 2 |"
    text = f"# A *b*\n\n{table}\n\n- i\n  j\n- k\n\nThis <b>makes it:\n\n    run &\n"
    found = html.document(tmp_path, text, {}, {"k": "one < two"})
    for expected in (
        "<h1>A <em>b</em></h1>",
        '<td><abbr title="one &lt; two">k</abbr></td>',
        '<td>x &lt; <code>*y*</code></td>\n<td style="text-align:right"><strong>1</strong></td>',
        "<li>i\nj</li>\n<li>k</li>",
        "<p>This &lt;b&gt;makes it:</p>\n<pre><code>run &amp;\n</code></pre>",
    ):
        assert expected in found


def test_the_page_ends_with_what_was_tried(tmp_path, quick_rows):
    text = "Question: which?\n\nWhat was tried\n\nThis and that."
    folder = store(tmp_path, quick_rows)
    write_scale(folder, replace(STUDY, text=text, earlier_runs=("It was wrong.",)), "quick")
    page = (folder / PAGE).read_text()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    last = ["Caveats", "Earlier runs", "What was tried", "Making it again"]
    assert headings[-4:] == last
    assert "## What was tried\n\nThis and that.\n\n## Making it again" in page
    assert "## Earlier runs\n\n- It was wrong." in page
    assert page.index("an earlier run](#earlier-runs)") < page.index("## ")


def test_the_front_page_has_the_answer_of_every_scale(tmp_path, judged, judged_rows):
    more = replace(EIGHT, dataset="digits")
    store(tmp_path, synthetic(more), "digits")
    text = "Question: what?\n\nWhat would change the answer: luck.\n\nMore."
    study = replace(
        JUDGED,
        text=text,
        scales=JUDGED.scales | {"digits": more},
        answer=lambda found: f"Nets are {found.comparison('denoising', 'random', depth=1)}.",
        in_short=InShort("In short, {}.", {"nets": difference("denoising", "random", depth=1)}),
    )
    write_all(tmp_path, study)
    front = (tmp_path / PAGE).read_text()
    (short,) = re.findall(r"^- In short, .*$", front, re.MULTILINE)
    assert re.match(r"- In short, \w+ by .* points ", short)
    assert short.endswith("([depth](depth/standard/README.md)) *What would change this:* luck.")
    first, further = re.findall(r"^- (\w+): Nets are .* points .*$", front, re.MULTILINE)
    assert (first, further) == ("standard", "digits")
    assert "](overview.png)" in front
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert front.index(short) < front.index("\n## ") < front.index("- standard: ")


def test_the_front_page_leaves_out_a_sentence_that_lacks_runs(tmp_path, judged):
    gains = {"nets": difference("no", "random", depth=1)}
    write_all(tmp_path, replace(JUDGED, in_short=InShort("In short, {}.", gains)))
    front = (tmp_path / PAGE).read_text()
    assert "In short" not in front
    assert "overview" not in front
    assert not list(tmp_path.glob("overview.*"))


def test_a_page_answers_first_and_explains_its_arms(tmp_path, judged):
    study = replace(
        JUDGED,
        text="Question: what?\n\nWhat would change the answer: more data,\nor luck.\n\nMore.",
        answer=lambda found: f"Nets are {found.comparison('denoising', 'random', depth=1)}.",
        published=(Published(7.5, sample("denoising", depth=1), "A paper, table 1"),),
        deviations=("There are 2,000 images.",),
    )
    write_all(tmp_path, study)
    front, page = ((folder / PAGE).read_text() for folder in (tmp_path, judged))
    (answer,) = re.findall(r"^Nets are .* points .*\.$", front, re.MULTILINE)
    order = [answer, "headline claim", "![Test error against", "## Test error %", "## Claims"]
    order += ["## The arms", "### Pretraining", "## All numbers", "## The question"]
    order += ["## Beside the paper", "| 7.5 ", "- There are 2,000 images."]
    places = [page.index(words) for words in order]
    assert places == sorted(places)
    row = page.partition("## The arms")[2].partition(f"| {ARMS['denoising'].title} ")[2]
    row = row.partition("\n")[0]
    for words in ("sigmoid units", "masking (rate 0.25)", "Vincent"):
        assert words in row


def test_a_page_says_where_its_records_were_made(tmp_path, quick_rows):
    made = {"commit": "a1-dirty", "processor": "P", "versions": {"keras": "3.15"}}
    days = ["2026-11-26", "2026-11-25", "2026-11-27"]
    rows = [{**r, "provenance": made | {"date": days[i % 3]}} for i, r in enumerate(quick_rows)]
    write_scale(store(tmp_path, rows), STUDY, "quick")
    page = (tmp_path / "depth" / "quick" / PAGE).read_text()
    days = "date 2026-11-25 to 2026-11-27"
    assert f"a1 with changes that were not committed; {days}; keras 3.15; processor P." in page
    assert "a1-dirty" not in page
    assert "made alike" not in page


def test_the_pretraining_rate_at_the_edge_of_its_grid_is_marked(tmp_path):
    def best(record):
        is_tuned = record["role"] == "selection" and record["pretraining_rate"]
        return {"validation_error": 0.05 + 0.1 * record["pretraining_rate"]} if is_tuned else {}

    write_scale(store(tmp_path, synthetic(QUICK, change=best)), STUDY, "quick")
    page = (tmp_path / "depth" / "quick" / PAGE).read_text()
    table = page.partition("### Pretraining")[2].partition("\n## ")[0]
    assert re.search(r"\| 0\.1† +\| 0\.1, 0\.3, 1 ", table)
    assert "†: the chosen learning rate lies at the edge" in table


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
    scales.save_custom(QUICK, folder)
    assert write_all(tmp_path)[0] == folder / "README.md"
    assert "--scale" not in (folder / "README.md").read_text()


def test_a_report_on_one_study_keeps_what_the_front_page_says_of_others(tmp_path, judged):
    both = [JUDGED, replace(JUDGED, name="other", question="And here?")]
    shutil.copytree(judged, tmp_path / "other" / "standard")
    write_all(tmp_path, *both)
    before = contents(tmp_path)
    assert "## And here?" in before[PAGE].decode()
    (tmp_path / "other" / "standard" / PAGE).write_text("kept")
    assert write_all(tmp_path, *both, only=JUDGED) == [judged / PAGE, tmp_path / PAGE]
    assert contents(tmp_path) == before
    assert (tmp_path / "other" / "standard" / PAGE).read_text() == "kept"


def test_one_bad_folder_stops_no_other(tmp_path, quick_rows, judged):
    custom = [store(tmp_path, quick_rows, f"custom-{name}") for name in ("bad", "good", "lost")]
    for folder in custom[:2]:
        scales.save_custom(QUICK, folder)
    with (custom[0] / "records.jsonl").open("a") as file:
        file.write("\n")
    store(tmp_path, quick_rows)
    pages, errors = write.write_all(tmp_path, [JUDGED])
    written = [tmp_path / "depth" / "quick", judged, custom[1], tmp_path]
    assert pages == [folder / PAGE for folder in written]
    assert len(errors) == 2
    assert "custom-bad/records.jsonl, line" in errors[0]
    assert "custom-lost/scale.json" in errors[1]


def test_names_and_texts_are_shown_and_open_nothing(tmp_path):
    name = "a|b<img src=x onerror=y> $x_{$ ](z) `q"
    scale = replace(STANDARD, arms=("random", replace(ARMS["denoising"], name=name, title="")))
    picture = tmp_path / "secret.png"
    picture.write_bytes(b"secret")
    study = replace(
        STUDY,
        name='a" b',
        question="Q | <script>s</script> ](x",
        text=f"![of a disk]({picture}) [mail](mailto:a@b) [far](/far) [near](table.csv)",
        scales={"standard": scale},
        claims=CLAIMS[:1],
    )
    folder = store(tmp_path / "results", synthetic(scale), "standard")
    folder.parent.rename(folder.parents[1] / study.name)
    write_all(tmp_path / "results", study)
    text = (tmp_path / "results" / "index.html").read_text()
    outline = Outline(text)
    assert outline.sources and all("c2VjcmV0" not in source for source in outline.sources)
    assert {"mailto:a@b", "/far", "a%22%20b/standard/table.csv"} <= set(outline.addresses)
    assert text.count("<script") == 1 and "<img src=x" not in text
    assert "$x_{$ ](z)" in text
    assert '">a|b&lt;img src=x onerror=y&gt; $x_{$ ](z) `q</abbr></td>' in text
    page = (tmp_path / "results" / study.name / "standard" / PAGE).read_text()
    assert "| a\\|b\\<img src" in page


def test_study_without_results_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run depth.*Received: "):
        write_all(tmp_path, only=STUDY)


_PROCESS = """
import sys
from pathlib import Path
from test_report import STUDY, write_all
write_all(Path(sys.argv[1]), STUDY)
heavy = {"keras", "tensorflow", "jax"} & set(sys.modules)
assert not heavy, heavy
"""


def test_report_needs_no_keras_and_is_the_same_in_every_process(tmp_path, quick_rows):
    found = []
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "studies")))
    for seed, backend in (("1", "agg"), ("2", "svg")):
        results = tmp_path / seed
        folder = store(results, quick_rows)
        settings = {"PYTHONPATH": paths, "PYTHONHASHSEED": seed, "MPLBACKEND": backend}
        command = [sys.executable, "-c", _PROCESS, results]
        subprocess.run(command, env=os.environ | settings, check=True)
        found.append(contents(folder) | contents(results))
    assert found[0] == found[1]
    assert PAGE in found[0]
