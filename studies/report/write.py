"""Write what the records of a study say: tables, figures and pages.

Every file is made anew from `records.jsonl`, without training and without Keras, and holds nothing
that differs between two reports on the same records.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd

from pretrain.files import replacing
from studies.engine import journal, plan
from studies.engine.journal import JournalError
from studies.engine.scale import Scale
from studies.engine.study import Study
from studies.report import fairness, frame, glossary, html, overview, pages, tables, verdicts
from studies.report.answers import Numbers
from studies.report.claims import Claim
from studies.report.figures import render
from studies.report.pages import Results
from studies.report.verdicts import Judgment

PAGE = "README.md"
# The same page, and its pictures, in a file for a browser.
INDEX = "index.html"


def write_scale(folder: Path, study: Study, name: str) -> str:
    """Write the tables, figures and page of a scale beside its records.

    Returns the table of results as text for a terminal. Without a result, it raises `ValueError`;
    for records that cannot be read, or do not compare arms alike, `JournalError`. If a file cannot
    be written, it raises `OSError`, and every file is the old or the new one, whole.
    """
    return pages.terminal(_write_scale(folder, study, name))


def table_of(folder: Path, study: Study, name: str) -> str:
    """The table of results as text for a terminal; it writes nothing, and raises the same."""
    return pages.terminal(results_of(folder, study, name)[0])


def write_all(
    results: Path, studies: list[Study], only: Study | None = None
) -> tuple[list[Path], list[str]]:
    """Write every scale that has results, of all studies or of one, and the front page.

    Returns the pages that were written, the front page last, and what went wrong, in words: a
    folder that cannot be reported on stops no other folder. The front page and the ledger are
    about all studies, so that they stay as they are if a folder that they are about is bad. It
    raises `FileNotFoundError` if the one study has no results.
    """
    found: dict[tuple[str, str], Results] = {}
    errors: dict[str, None] = {}
    for study in [only] if only else studies:
        for name, folder in study.folders(results).items():
            with _noted(errors, folder):
                if _done(study, name, folder):
                    found[study.name, name] = _write_scale(folder, study, name)
    if only and not (found or errors):
        raise FileNotFoundError(
            f"There is nothing to report on. Expected results of the study {only.name}, made by "
            f"`python -m studies run {only.command}`. Received: {results}"
        )
    pages = [results / "/".join(key) / PAGE for key in found]
    with _noted(errors, results):
        _write_front(results, studies, found)
        pages.append(results / PAGE)
    return pages, list(errors)


@contextmanager
def _noted(errors: dict[str, None], folder: Path) -> Iterator[None]:
    try:
        yield
    except (JournalError, OSError) as error:
        errors[str(error)] = None
    # A study's own figure can raise any exception.
    except Exception as error:
        errors[f"{folder} cannot be reported on. {type(error).__name__}: {error}"] = None


def _write_front(
    results: Path, studies: list[Study], found: dict[tuple[str, str], Results]
) -> None:
    """Write the files about all studies, also about studies that were not written just now."""
    entries = []
    # A study without scales is asked of a user's data, on pages of their own.
    for study in filter(lambda study: study.scales, studies):
        own = {
            name: found.get((study.name, name))
            or results_of(results / study.name / name, study, name)[0]
            for name, scale in study.scales.items()
            if not scale.demonstration
            and "report" in _done(study, name, results / study.name / name)
        }
        judgments = {name: each.judgments for name, each in own.items()}
        entries.append(pages.Entry(study, own, judgments | _not_run(study, judgments)))
    beside = [name for name in pages.BESIDE if (results / name).exists()]
    pictures = overview.files(entries)
    _write(results, pictures)
    front = pages.front_page(entries, beside, f"{overview.NAME}.png" if pictures else "")
    behind = {
        f"{each.folder}/{PAGE}": pages.scale_page(each)
        for entry in entries
        for each in entry.found.values()
    }
    hints: dict[str, str] = {}
    for entry in entries:
        for each in entry.found.values():
            hints |= glossary.hints(each.scale)
    contents = {
        PAGE: front,
        INDEX: html.document(results, front, behind, hints),
        "claims.md": pages.ledger_page(entries),
        "claims.csv": tables.to_csv(pages.ledger(entries)),
    }
    _write(results, {name: content.encode() for name, content in contents.items()})


def _not_run(study: Study, judgments: dict[str, list[Judgment]]) -> dict[str, list[Judgment]]:
    """Claims that no scale with results asks, by the first scale that would ask them."""
    known = {judgment.claim for judged in judgments.values() for judgment in judged}
    found = {}
    for name, scale in study.scales.items():
        if not scale.demonstration and name not in judgments:
            missing = [claim for claim in _asked(study, name) if claim not in known]
            found |= {name: verdicts.not_run(tuple(missing))} if missing else {}
            known |= set(missing)
    return found


def _write_scale(folder: Path, study: Study, name: str) -> Results:
    found, table = results_of(folder, study, name)
    contents = {"table.csv": tables.to_csv(found.table).encode()}
    if found.judgments:
        contents["claims.csv"] = tables.to_csv(verdicts.to_frame(found.judgments)).encode()
    for figure in found.figures:
        contents |= render(figure, table, found.scale, study.published)
    page = pages.scale_page(found)
    _write(folder, contents | {PAGE: page.encode()})
    # Made of the pictures, which are written now.
    index = html.document(folder, page, {}, glossary.hints(found.scale), study.question)
    _write(folder, {INDEX: index.encode()})
    return found


def results_of(folder: Path, study: Study, name: str) -> tuple[Results, pd.DataFrame]:
    """The results in the records of a scale, and the frame of these records."""
    records, scale = _records(study, folder), study.scale(name, folder)
    table = frame.frame(records, scale, folder)
    fairness.check(table, scale)
    numbers = study.kind.show.main_table(table, scale)
    claims = _claims(study, name, scale)
    counts = plan.tally(scale, records)
    # Incomplete results judge no claim.
    whole = all(status in journal.FINAL for status in +counts)
    judged = verdicts.judge(claims, table, scale) if whole else verdicts.not_run(claims)
    found = Results(
        study,
        name,
        scale,
        numbers,
        counts,
        Numbers(table, scale, judged),
        glossary.pretraining(table, scale),
        judged,
        frame.origins(table),
    )
    return found, table


def _claims(study: Study, name: str, scale: Scale) -> tuple[Claim, ...]:
    """The claims that a scale judges: those of its kind, and those of the study."""
    if scale.demonstration:
        return ()
    return (_asked(study, name) if name in study.scales else ()) + scale.kind.claims(scale)


def _asked(study: Study, name: str) -> tuple[Claim, ...]:
    """The study's claims that a scale can judge, and of the first scale those that none can."""
    can = {
        each: set(verdicts.asked(study.claims, scale))
        for each, scale in study.scales.items()
        if not scale.demonstration
    }
    if name == pages.FIRST:
        can[name] |= set(study.claims) - set().union(*can.values())
    return tuple(claim for claim in study.claims if claim in can[name])


def _done(study: Study, name: str, folder: Path) -> set[str]:
    """The roles of the trials of a scale that have a result."""
    records = _records(study, folder)
    if not records:
        return set()
    done = {record["key"] for record in records if record["status"] in journal.FINAL}
    groups = plan.groups(study.scale(name, folder), records)
    return {trial.role for group in groups for trial in group.trials if trial.key in done}


def _records(study: Study, folder: Path) -> list[dict]:
    return journal.read(folder / journal.FILE, study.kind.check_record)


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files before any of them takes its place, the page last.

    So a full disk leaves the old report, and a page never stands beside files that are missing.
    """
    with ExitStack() as stack:
        # The stack ends the files in reverse.
        for name in sorted(contents, key=PAGE.__ne__):
            file = stack.enter_context(replacing(folder / name))
            file.write(contents[name])
            file.flush()
