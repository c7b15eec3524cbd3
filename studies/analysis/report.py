"""Write what the records of a study say: tables, figures and pages.

Everything is made anew from `records.jsonl`, without training and without Keras, and holds nothing
that differs between two reports on the same records.
"""

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import pandas as pd

from studies.analysis import fairness, html, pages, records, rendering, tables, verdicts
from studies.analysis.claims import Claim
from studies.runner import arrays, journal, plan
from studies.runner.catalog import studies
from studies.runner.scale import CUSTOM, Scale, find

DEMONSTRATION = "quick"
VERDICTS = ("standard", "paper")
PAGE = "README.md"


def write_scale(folder: Path, study: str, scale: str) -> str:
    """Write the tables, figures and page of a scale beside its records.

    Args:
        folder: The folder of the scale's results.
        study: Name of the study.
        scale: Name of the scale.

    Returns:
        The table of errors as text for a terminal.

    Raises:
        JournalError: If the records cannot be read, or do not compare arms alike (`fairness`).
        ValueError: If no record is a result of the scale.
        OSError: If a file cannot be written. Every file is then the old or the new one, whole.
    """
    return pages.terminal(_write_scale(folder, study, scale))


def write_all(results: Path, study: str | None = None, processes: int = 1) -> list[Path]:
    """Write every scale that has results, and the front page.

    Args:
        results: Folder of the results of all studies.
        study: Name of the one study to write; by default all. The front page is about all.
        processes: Number of processes that draw figures: as in `rendering.painter`.

    Returns:
        The pages that were written, the front page last.

    Raises:
        FileNotFoundError: If the study has no results.
        JournalError: If records cannot be read, or do not compare arms alike (`fairness`).
        OSError: If a file cannot be written.
    """
    begun = [(s, n) for s in studies() if study in (None, s) for n in _scales_begun(results, s)]
    if study and not begun:
        raise FileNotFoundError(
            f"There is nothing to report on. Expected results of the study {study}, made by "
            f"`python -m studies run {study}`. Received: {results}"
        )
    found = {}
    for name, scale in begun:
        found[name, scale] = _write_scale(results / name / scale, name, scale, processes)
        if scale == DEMONSTRATION and found[name, scale].complete and not _relied_on(results, name):
            headline = _headline(found[name, scale].scale)
            picture = (results / name / scale / f"{headline}.png").read_bytes()
            _write(results, {pages.demonstration_figure(name): picture})
    _write_front(results, found)
    return [*(results / name / scale / PAGE for name, scale in begun), results / PAGE]


def _write_front(results: Path, found: dict[tuple[str, str], pages.Findings]) -> None:
    """Write what is about all studies: those too that were not written anew just now."""
    behind = [(name, scale) for name in studies() for scale in _relied_on(results, name)]
    found = {key: found.get(key) or _findings(results / "/".join(key), *key) for key in behind}
    entries = [_entry(results, name, question, found) for name, question in studies().items()]
    front = pages.front_page(entries, has_speed=(results / "speed.md").exists())
    shown = {f"{name}/{scale}/{PAGE}": pages.scale_page(f) for (name, scale), f in found.items()}
    contents = {
        PAGE: front,
        "index.html": html.document(results, front, shown),
        "claims.md": pages.ledger_page(entries),
        "claims.csv": tables.to_csv(pages.ledger(entries)),
    }
    _write(results, {name: content.encode() for name, content in contents.items()})


def _frame(folder: Path, scale: Scale) -> pd.DataFrame:
    held = arrays.load(folder)
    frame = records.frame(_records(folder), scale)
    return frame.assign(arrays=[held.get(key) for key in frame["key"]])


def _findings(
    folder: Path, study: str, name: str, frame: pd.DataFrame | None = None
) -> pages.Findings:
    """What the records of a scale say; `frame` is what `_frame` makes of them, if it is there."""
    scale = find(study, name, folder)
    frame = _frame(folder, scale) if frame is None else frame
    fairness.check(frame, scale)
    table = pages.presentation(scale).main_table(frame, scale)
    counts = plan.tally(scale, _records(folder))
    found = pages.Findings(study, name, scale, table, counts, [])
    claims = _claims(study) if name in VERDICTS and not scale.demonstration else ()
    # What is incomplete judges nothing.
    judged = verdicts.judge(claims, frame, scale) if found.complete else verdicts.not_run(claims)
    return replace(found, judgments=judged)


def _claims(study: str) -> tuple[Claim, ...]:
    return getattr(import_module(f"studies.{study}"), "CLAIMS", ())


def _write_scale(folder: Path, study: str, name: str, processes: int = 1) -> pages.Findings:
    scale = find(study, name, folder)
    frame = _frame(folder, scale)
    draws = list(pages.presentation(scale).figures(scale))
    with rendering.painter(frame, scale, processes) as paint:
        painted = paint(draws)
        found = _findings(folder, study, name, frame)
        pictures = {
            f"{draw.__name__}.{kind}": content
            for draw, files in zip(draws, painted, strict=True)
            for kind, content in files.items()
        }
    contents = {
        "table.csv": tables.to_csv(found.table).encode(),
        "table.md": pages.table_page(found).encode(),
    }
    if found.judgments:
        contents["claims.csv"] = tables.to_csv(verdicts.to_frame(found.judgments)).encode()
    _write(folder, contents | pictures | {PAGE: pages.scale_page(found).encode()})
    return found


def _headline(scale: Scale) -> str:
    return next(iter(pages.presentation(scale).figures(scale))).__name__


def _scales_begun(results: Path, study: str) -> list[str]:
    names = [*import_module(f"studies.{study}").SCALES, CUSTOM]
    return [name for name in names if _roles_done(results, study, name)]


def _relied_on(results: Path, study: str) -> tuple[str, ...]:
    """Those of a study's scales that verdicts are read from and that have something to show."""
    scales = import_module(f"studies.{study}").SCALES
    return tuple(
        name
        for name in VERDICTS
        if name in scales and "report" in _roles_done(results, study, name)
    )


def _roles_done(results: Path, study: str, name: str) -> set[str]:
    """The roles of those of a scale's trials that have a result."""
    folder = results / study / name
    rows = _records(folder)
    if not rows:
        return set()
    done = {row["key"] for row in rows if row["status"] in journal.FINAL}
    groups = plan.groups(find(study, name, folder), rows)
    return {trial.role for group in groups for trial in group.trials if trial.key in done}


def _records(folder: Path) -> list[dict]:
    """The records of a folder, read anew only if they have changed."""
    path = folder / journal.FILE
    return _read(path, path.stat().st_mtime_ns) if path.exists() else []


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> list[dict]:
    return journal.read(path)


def _entry(
    results: Path, study: str, question: str, found: dict[tuple[str, str], pages.Findings]
) -> pages.Entry:
    drawn = (results / pages.demonstration_figure(study)).exists()
    scales = import_module(f"studies.{study}").SCALES
    demonstration = scales.get(DEMONSTRATION) if drawn else None
    own = {scale: f for (name, scale), f in found.items() if name == study}
    judgments = {scale: f.judgments for scale, f in own.items()}
    return pages.Entry(
        study,
        question,
        _headline(next(iter(scales.values()))),
        own,
        judgments or {VERDICTS[0]: verdicts.not_run(_claims(study))},
        demonstration,
    )


def _write(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files, each whole or not at all."""
    for name, content in contents.items():
        new = folder / f".{name}.new"
        try:
            new.write_bytes(content)
            new.replace(folder / name)
        except OSError as error:
            raise OSError(
                f"Could not write the report: {error.strerror or error}. Expected a folder that "
                f"can be written to, on a disk with space left. Received: {folder / name}"
            ) from error
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)
