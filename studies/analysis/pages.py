"""The pages that people read: what a scale found, and the front page. Text in, text out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import pandas as pd

from studies.analysis import classification, density, tables, verdicts
from studies.analysis.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED, Judgment
from studies.arms import CLASSIFICATION, DENSITY
from studies.runner.journal import FINAL
from studies.runner.scale import CUSTOM, Scale

_LEDGER = """\
What the literature says and what is found here. Every claim and its check were fixed before the
run; what was not fixed before stands with the study. A claim *holds* if the intervals of all its effects lie within their bounds, *fails* if one
lies wholly outside, and is *undecided* otherwise; the intervals are adjusted for the number of
claims (Holm 1979). *Effect*: a claim may name several effects; the one that decides is shown.
*Not run* (X): records are missing. The same as data: [claims.csv](claims.csv); with the checks in words:
[claims.md](claims.md)."""
_CLAIMS = """\
A claim *holds* if the intervals of all its effects lie within their bounds, *fails* if one lies
wholly outside, and is *undecided* otherwise. All checks were fixed before the run."""
_EFFECTS = """\
- *interval*: at the claim's level, adjusted for the number of claims by Holm's procedure: Student's
  t of a mean, bootstrap of a median or a ratio of interquartile ranges (IQR), exact binomial of a
  probability or a share.
- *pairs*: of seeds, ties left out of a probability.
- *p*: of the sign-flip test against the nearest bound, not adjusted: a second opinion.
- The number in brackets after an arm is its depth. The numbers are in `claims.csv`."""


@dataclass(frozen=True)
class Findings:
    """What is known of a study at a scale.

    Args:
        study: Name of the study.
        name: Name of the scale.
        scale: The scale.
        table: Its main table.
        counts: Number of its trials by status, from `plan.tally`.
        judgments: What its claims come to; empty if the scale judges none.
    """

    study: str
    name: str
    scale: Scale
    table: pd.DataFrame
    counts: Counter
    judgments: list[Judgment]

    @property
    def shown(self) -> ModuleType:
        """How its kind of results is shown."""
        return presentation(self.scale)

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> int:
        return self.counts.total() - sum(self.counts[status] for status in FINAL)


@dataclass(frozen=True)
class Entry:
    """What the front page says of a study.

    Args:
        study: Name of the study.
        question: The first line of its docstring.
        headline: Name of the figure that says most.
        found: What is known of it, by the name of the scale, of those whose results are to be
            relied on; best known first.
        judgments: What its claims come to, by the name of the scale they are judged on.
        demonstration: The scale whose headline figure stands in for them, if there is that figure.
    """

    study: str
    question: str
    headline: str
    found: dict[str, Findings]
    judgments: dict[str, list[Judgment]]
    demonstration: Scale | None = None


def presentation(scale: Scale) -> ModuleType:
    """The module that shows a scale's kind of results: its tables, figures and words."""
    return {CLASSIFICATION: classification, DENSITY: density}[scale.task]


def terminal(found: Findings) -> str:
    """The table of results and what must be known to read it, for a terminal."""
    shown = found.shown
    block = shown.summary(found.table, found.scale)
    title = shown.TITLE
    heading = f"{found.study} {found.name}: {title[0].lower()}{title[1:]}"
    remarks = [*shown.notes(block), *_state(found)]
    return "\n".join([heading, "", tables.plain(block), "", *remarks])


def table_page(found: Findings) -> str:
    """`table.md`: the table of results, and the one with everything."""
    shown = found.shown
    parts = [
        f"# {shown.TITLE}",
        *shown.sections(found.table, found.scale),
        *shown.numbers(found.table),
    ]
    return "\n\n".join(parts) + "\n"


def scale_page(found: Findings) -> str:
    """`README.md` of a scale: question, table, figures, caveats."""
    question, _, body = import_module(f"studies.{found.study}").__doc__.partition("\n")
    shown = found.shown
    parts = [
        f"# {question}",
        *_state(found),
        *_corrections(found.study),
        body.strip(),
        *_claims(found.judgments),
        f"## {shown.TITLE}",
        *shown.sections(found.table, found.scale),
        *(_figure(draw, *words) for draw, words in shown.figures(found.scale).items()),
        "## All numbers",
        *shown.numbers(found.table),
        "## Protocol",
        shown.protocol(found.scale),
        "## Caveats",
        _caveats(found),
        "## Making it again",
        _commands(found),
    ]
    return "\n\n".join(parts) + "\n"


def front_page(entries: list[Entry], has_speed: bool) -> str:
    """`README.md` of all results.

    Args:
        entries: The studies.
        has_speed: Whether the benchmark's page stands beside this one.

    Returns:
        The page.
    """
    parts = [
        "# Results",
        "*Do we still need layer-wise pretraining?* Each study asks one part of it: same data, "
        "same budget, same seeds, rates tuned alike for every arm, intervals over seeds.",
        *(part for entry in entries for part in _section(entry)),
    ]
    claims = ledger(entries)
    if len(claims):
        links = [
            f"[{row.study}]({row.link})" if row.link else row.study for row in claims.itertuples()
        ]
        short = claims.assign(study=links)[["statement", "verdict", "effect", "pairs", "study"]]
        parts += ["## The ledger", _LEDGER, tables.markdown(short, numbers=False)]
    if has_speed:
        parts += ["## Speed", "What training many networks at once gains: [speed.md](speed.md)."]
    return "\n\n".join(parts) + "\n"


def ledger(entries: list[Entry]) -> pd.DataFrame:
    """All claims of all studies, as text, a row each.

    Args:
        entries: The studies.

    Returns:
        A DataFrame with columns `study`, `scale`, those of `verdicts.ledger`, and `link`, the page
        behind the claim, empty if there is none yet.
    """
    blocks = [
        verdicts.ledger(judgments).assign(
            study=entry.study,
            scale=name,
            link=f"{entry.study}/{name}/README.md" if name in entry.found else "",
        )
        for entry in entries
        for name, judgments in entry.judgments.items()
        if judgments
    ]
    columns = [
        "study",
        "scale",
        "statement",
        "source",
        "check",
        "effect",
        "pairs",
        "verdict",
        "link",
    ]
    return pd.concat(blocks)[columns] if blocks else pd.DataFrame(columns=columns)


def ledger_page(entries: list[Entry]) -> str:
    """`claims.md`: the ledger with the checks in words."""
    claims = ledger(entries)
    links = [f"[{row.scale}]({row.link})" if row.link else row.scale for row in claims.itertuples()]
    block = claims.assign(scale=links).drop(columns="link")
    parts = ["# Claims", _LEDGER]
    if len(block):
        parts.append(tables.markdown(block, numbers=False))
    return "\n\n".join(parts) + "\n"


def demonstration_figure(study: str) -> str:
    """File name, beside the front page, of a study's figure until it has results."""
    return f"{study}_quick.png"


def _state(found: Findings) -> list[str]:
    """Say what keeps the numbers from being results, if anything."""
    lines = []
    if found.scale.demonstration:
        lines.append(f"A {_demonstration(found.scale)}; too little to judge anything by.")
    if failed := found.counts["error"] + found.counts["killed"]:
        lines.append(f"{failed} trials failed: `python -m studies status` says why.")
    if not found.complete:
        lines.append(f"{found.missing} of {found.counts.total()} trials have no result yet.")
    return lines


def _demonstration(scale: Scale) -> str:
    return (
        f"demonstration: {tables.seeds(scale.report_seeds)}, {scale.train_size:,} training images"
    )


def _corrections(study: str) -> list[str]:
    """What is known to be wrong with a study's results."""
    corrections = getattr(import_module(f"studies.{study}"), "CORRECTIONS", ())
    if not corrections:
        return []
    return ["**Known to be wrong with these results:**", "\n".join(f"- {c}" for c in corrections)]


def _claims(judgments: list[Judgment]) -> list[str]:
    if not judgments:
        return []
    block = verdicts.ledger(judgments)[["statement", "source", "check", "verdict"]]
    parts = ["## Claims", _sentence(judgments), _CLAIMS, tables.markdown(block, numbers=False)]
    effects = pd.DataFrame(
        _effect_row(judgment, finding) for judgment in judgments for finding in judgment.findings
    )
    return [*parts, "### Effects", tables.markdown(effects, numbers=False), _EFFECTS]


def _effect_row(judgment: Judgment, finding: verdicts.Finding) -> dict:
    interval, p_value = finding.interval, finding.p_value
    estimate = bounds = pairs = tables.MISSING
    if interval:
        estimate, pairs = f"{interval.estimate:.2f}", str(interval.n)
        bounds = f"{100 * (1 - judgment.level):.2f} %: {interval.low:.2f} to {interval.high:.2f}"
    return {
        "claim": judgment.claim.name,
        "effect": str(finding.condition),
        "estimate": estimate,
        "interval": bounds,
        "pairs": pairs,
        "p": tables.NOT_APPLICABLE if pd.isna(p_value) else f"{p_value:.2g}",
    }


def _sentence(judgments: list[Judgment]) -> str:
    """The verdict of a study in one sentence, the headline claim's first."""
    counts = Counter(judgment.verdict for judgment in judgments)
    if counts[NOT_RUN] == len(judgments):
        return f"**Not judged yet:** records are missing for all of {len(judgments)} claims."
    headline, *others = judgments
    rest = Counter(judgment.verdict for judgment in others)
    words = {
        HOLDS: ("holds", "hold"),
        FAILS: ("fails", "fail"),
        UNDECIDED: ("is undecided", "are undecided"),
        NOT_RUN: ("was not run", "were not run"),
    }
    counts = [(rest[verdict], *word) for verdict, word in words.items() if rest[verdict]]
    text = ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts)
    verdict = f"is {headline.verdict}" if headline.verdict == UNDECIDED else headline.verdict
    claims = "claim" if len(others) == 1 else "claims"
    more = f"; of {len(others)} other {claims} {text}" if others else ""
    return f"**The headline claim {verdict}:** “{headline.claim.statement.rstrip('.')}”{more}."


def _answer(found: Findings) -> list[str]:
    """What a study found: its verdict in one sentence, or its numbers if it has no claims."""
    if found.judgments:
        return [_sentence(found.judgments)]
    shown = found.shown
    block = shown.summary(found.table, found.scale)
    notes = "\n".join(f"- {note}" for note in shown.notes(block))
    return [f"No claim is judged here. {shown.TITLE}:", tables.markdown(block), notes]


def _figure(draw: Callable, title: str, caption: str) -> str:
    return f"![{title}]({draw.__name__}.png)\n\n**{title}** {caption}"


def _caveats(found: Findings) -> str:
    lines = found.shown.caveats(found.scale)
    if found.scale.demonstration:
        demonstration = (
            "A demonstration shows what a study does, in minutes. Its intervals are wide and its "
            "rates chosen on little; nothing is concluded from it."
        )
        lines = [demonstration, *lines]
    return "\n".join(f"- {line}" for line in lines)


def _commands(found: Findings) -> str:
    report = f"python -m studies report {found.study}"
    run = f"python -m studies run {found.study} --scale {found.name}"
    # The command line of a custom scale is not known here.
    commands = [report] if found.name == CUSTOM else [run, report]
    return (
        "`run` trains what is missing in `records.jsonl`; `report` makes everything else from it, "
        "without training. The numbers of all columns are in `table.csv`.\n\n"
        "```\n" + "\n".join(commands) + "\n```"
    )


def _section(entry: Entry) -> list[str]:
    parts = [f"## {entry.question}"]
    if entry.found:
        name, found = next(iter(entry.found.items()))
        folder = f"{entry.study}/{name}"
        links = ", ".join(f"[{name}]({entry.study}/{name}/README.md)" for name in entry.found)
        return [
            *parts,
            *_answer(found),
            *_corrections(found.study),
            f"[![{entry.question}]({folder}/{entry.headline}.png)]({folder}/README.md)",
            f"Tables, figures and caveats: {links}.",
        ]
    if entry.demonstration:
        picture = f"![{entry.question}]({demonstration_figure(entry.study)})"
        parts += [picture, f"*A {_demonstration(entry.demonstration)}; not a result.*"]
    command = f"python -m studies run {entry.study} --scale standard"
    return [*parts, f"The standard run has not been made yet. This makes it:\n\n    {command}"]
