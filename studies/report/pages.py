"""The pages that people read: a page for each scale, and the front page. Text in, text out."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import quote

import pandas as pd

from studies.engine.journal import FINAL
from studies.engine.scale import Scale, is_custom
from studies.engine.study import Study
from studies.report import glossary, tables, verdicts
from studies.report.answers import NO_RUNS, Numbers
from studies.report.figures import Figure, told
from studies.report.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED, Finding, Judgment

_VERDICTS = """\
A claim *holds* if the intervals of all its effects lie within their bounds, *fails* if an interval
lies wholly outside, and is *undecided* if neither is the case. An effect of an arm whose rate lies
at the edge of its grid decides nothing, unless the arm trains at no rate. The column *finding* says
what was found. The *power* is the chance of this verdict in studies that are simulated from the
records. For an undecided claim, the column says how many pairs of seeds would decide the claim with
a chance of at least 0.8, if the estimates of the records are true."""
# The scale that a study is run at first.
FIRST = "standard"
_LEDGER = f"""\
The ledger says what the literature claims and what is found here. A claim and its check were
fixed before the runs that decide them, unless the page of a study says otherwise.
{_VERDICTS}
The intervals are adjusted for the number of claims (Holm 1979). A claim may name several effects:
the column *effect* shows the effect that decides the verdict, which has the least room within its
bounds. A claim is *not run* (X) if records are missing. Where a claim was judged on several data
sets, *on all data* it holds if it holds on each, and fails if it fails on any. The file
[claims.csv](claims.csv) holds the ledger as data, and [claims.md](claims.md) has the checks in
words."""
# In a study's docstring, the heading of the part that stands at the end of its page.
AFTERWORD = "\nWhat was tried\n"
_DEMONSTRATION = (
    "A demonstration shows in minutes what a study does. Its intervals are wide and its rates are "
    "chosen on few seeds, so that nothing is concluded from it."
)
_ARMS = """\
What is compared. Figures and tables name an arm by its title; the checks of claims, `table.csv` and
`records.jsonl` name an arm by its short name."""
_PRETRAINING = """\
How the hidden layers of each arm were pretrained, and the rate that was chosen for this arm."""
_PUBLISHED = """\
A number of a paper beside our mean, and the interval in which a single run of ours lies in 95 % of
cases."""
_EARLIER = "Earlier runs"
_EFFECTS = """\
- *interval*: the interval of the effect at the claim's level, which Holm's procedure adjusts for
  the number of claims. A mean has Student's t interval, a geometric mean that of the logarithms, a
  median or a ratio of interquartile ranges (IQR) a bootstrap interval, a probability or a share the
  exact binomial interval. Where a run
  ends at chance or diverges, a median stands for a mean.
- *pairs*: the number of pairs of seeds; a probability leaves ties out.
- *why these bounds*: the reason of a bound that is not 0.
- *p*: the p-value of the sign-flip test against the nearest bound, not adjusted: a second opinion.
- The brackets after an arm hold its values on the axes. The numbers are in `claims.csv`."""


@dataclass(frozen=True)
class Results:
    """The results of a study at a scale.

    `judgments` is empty if the scale judges no claims, `pretraining` if no arm is pretrained;
    `origins` says where the records were made.
    """

    study: Study
    name: str
    scale: Scale
    table: pd.DataFrame
    counts: Counter
    numbers: Numbers
    pretraining: pd.DataFrame
    judgments: list[Judgment] = field(default_factory=list)
    origins: dict[str, list[str]] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        """The figures of the scale, the headline first."""
        return self.study.kind.show.offered(self.scale, self.study.figures)

    @property
    def folder(self) -> str:
        """The folder of the scale, below the folder of all results."""
        return f"{self.study.name}/{self.name}"

    @property
    def missing(self) -> int:
        return self.counts.total() - sum(self.counts[status] for status in FINAL)


@dataclass(frozen=True)
class Entry:
    """What the front page says of a study: results and judgments by the name of the scale.

    Only results of scales that judge claims are shown, the first of them first.
    """

    study: Study
    found: dict[str, Results]
    judgments: dict[str, list[Judgment]]


def terminal(found: Results) -> str:
    """The table of results, with what a reader must know of it, for a terminal."""
    show = found.study.kind.show
    block = show.summary(found.table, found.scale)
    title = f"{show.title[0].lower()}{show.title[1:]}"
    remarks = [*tables.notes(block), *_state(found)]
    heading = f"{found.study.name} {found.name}: {title}"
    answer = [*_own_words(found), ""] if _own_words(found) else []
    return "\n".join([*answer, heading, "", tables.plain(block), "", *remarks])


def scale_page(found: Results) -> str:
    """`README.md` of a scale: the answer, a figure and a table first, the method last."""
    show = found.study.kind.show
    text, _, tried = found.study.text.partition(AFTERWORD)
    demonstration = [_DEMONSTRATION] if found.scale.demonstration else []
    figures = [_shown(figure, found) for figure in found.figures]
    parts = [
        f"# {tables.escaped(found.study.question)}",
        *_state(found),
        *_superseded(found.study, ""),
        *_answer(found),
        *figures[:1],
        f"## {show.title}",
        *show.sections(found.table, found.scale),
        *_claims(found.judgments, found.scale),
        "## The arms",
        _ARMS,
        tables.markdown(glossary.table(found.scale), numbers=False),
        *_pretraining(found.pretraining),
        *(["## More figures"] if figures[1:] else []),
        *figures[1:],
        "## All numbers",
        *show.numbers(found.table, found.scale),
        "## The question",
        text.strip(),
        *_beside_papers(found),
        "## Protocol",
        show.protocol(found.scale),
        "## Caveats",
        tables.listed(
            [*demonstration, *show.caveats(found.table, found.scale), *_differences(found)]
        ),
        *(
            [f"## {_EARLIER}", tables.listed(found.study.earlier_runs)]
            if found.study.earlier_runs
            else []
        ),
        *([f"## {AFTERWORD.strip()}", tried.strip()] if tried else []),
        "## Making it again",
        _commands(found),
        *_origins(found),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _shown(figure: Figure, found: Results) -> str:
    title, seen = tables.escaped(figure.title), figure.seen(found.table, found.scale)
    image = f"![{tables.escaped(seen)}]({quote(figure.name)}.png)"
    return f"{image}\n\n**{title}.** {figure.caption}"


def _pretraining(block: pd.DataFrame) -> list[str]:
    if block.empty:
        return []
    marks = tables.listed(tables.notes(block[["arm", "chosen rate"]]))
    return ["### Pretraining", _PRETRAINING, tables.markdown(block, numbers=False), marks]


def _beside_papers(found: Results) -> list[str]:
    """Published numbers beside ours, and in what the study differs from its paper."""
    study, parts = found.study, []
    if study.published:
        rows = [found.numbers.beside(each) for each in study.published]
        parts += [_PUBLISHED, tables.markdown(pd.DataFrame(rows), numbers=False)]
    if study.deviations:
        parts += ["In this the study differs from its paper:", tables.listed(study.deviations)]
    return ["## Beside the paper", *parts] if parts else []


# Pages beside the front page, by file, which other commands make.
BESIDE = {
    "gallery.md": "## Networks and data of one's own\n\n[gallery.md](gallery.md) says when "
    "pretraining pays for small networks on common data, which no paper has chosen.",
    "speed.md": "## Speed\n\n[speed.md](speed.md) says how fast many networks train at once.",
}


_OVERVIEW = """\
**What pretraining gains in test error, at equal cost.** A row is a kind of net, with the name of
its study, and a marker is the mean over seeds with its 95 % interval. The control is not pretrained
and trains on to the same total cost; both have rates of their own. A marker is open if one of these
rates lies at the edge of its grid."""


def front_page(entries: list[Entry], beside: Collection[str], overview: str = "") -> str:
    """`README.md` of all results.

    `beside` names the files of `BESIDE` that there are, and `overview` the picture of all gains, if
    there is one.
    """
    parts = [
        "# Results",
        "*Do we still need layer-wise pretraining?* Each study asks a part of this question. All "
        "arms of a study have the same data, the same budget and the same seeds; their rates are "
        "tuned alike, and intervals are over seeds. Where no other data are named, nets tell the "
        "digits of MNIST apart.",
        *_in_short(entries),
        *([f"![The gains of the sentences above]({overview})\n\n{_OVERVIEW}"] if overview else []),
        *(part for entry in entries if entry.found for part in _section(entry)),
        *_not_run(entries),
    ]
    claims = ledger(entries)
    if len(claims):
        parts += ["## The ledger", _LEDGER]
    # The claims of studies that have not been run stand in `claims.md` only.
    claims = claims[claims["link"] != ""]
    if len(claims):
        short = claims.assign(
            study=_linked(claims, "study"), verdict=_linked(claims, "verdict", to_row=True)
        )
        if "on all data" in short:
            short["study"] = short["study"] + " " + short["scale"]
        wanted = ["statement", "verdict", "on all data", "finding", "effect", "pairs", "study"]
        short = short[[name for name in wanted if name in short]]
        parts.append(tables.markdown(short, numbers=False))
    parts += [text for name, text in BESIDE.items() if name in beside]
    return "\n\n".join(filter(None, parts)) + "\n"


def ledger(entries: list[Entry]) -> pd.DataFrame:
    """All claims of all studies, as text, a row each; `link` is the page behind a claim, if any."""
    blocks = [
        verdicts.ledger(judgments).assign(
            study=entry.study.name,
            scale=name,
            claim=[judgment.claim.name for judgment in judgments],
            link=f"{entry.found[name].folder}/README.md" if name in entry.found else "",
        )
        for entry in entries
        for name, judgments in entry.judgments.items()
        if judgments
    ]
    columns = ["study", "scale", "claim", *verdicts.LEDGER, "link"]
    if not blocks:
        return pd.DataFrame(columns=columns)
    claims = pd.concat(blocks, ignore_index=True)[columns]
    judged = claims.groupby(["study", "claim"])["verdict"]
    if (judged.size() > 1).any():
        of_all = judged.transform(lambda each: verdicts.over_all(list(each)))
        of_all = of_all.mask(judged.transform("size") == 1, tables.NOT_APPLICABLE)
        claims.insert(columns.index("link"), "on all data", of_all)
    return claims


def ledger_page(entries: list[Entry]) -> str:
    """`claims.md`: the ledger with the checks in words."""
    claims = ledger(entries)
    block = claims.assign(scale=_linked(claims, "scale")).drop(columns=["claim", "link"])
    parts = ["# Claims", _LEDGER]
    if len(block):
        parts.append(tables.markdown(block, numbers=False))
    return "\n\n".join(filter(None, parts)) + "\n"


def _linked(claims: pd.DataFrame, column: str, to_row: bool = False) -> list[str]:
    """A column with a link to the page behind each claim, or to the claim's row on that page."""
    rows = zip(claims[column], claims["link"], claims["claim"], strict=True)
    return [
        f"[{text}]({quote(link)}{f'#{tables.row_name(claim)}' if to_row else ''})" if link else text
        for text, link, claim in rows
    ]


def _state(found: Results) -> list[str]:
    """Say what keeps the numbers from being results, if anything does."""
    lines = [*found.scale.remarks]
    if found.scale.demonstration:
        size, examples = told(found.scale, "train_size"), found.scale.kind.examples_of(found.scale)
        lines.append(
            f"This is a demonstration: {tables.seeds(found.scale.report_seeds)} and {size} "
            f"training {examples} are too little to judge a claim by."
        )
    if failed := found.counts["error"] + found.counts["killed"]:
        lines.append(f"{failed} trials failed; `python -m studies status` says why.")
    if found.missing:
        lines.append(f"{found.missing} of {found.counts.total()} trials have no result yet.")
    return lines


def _differences(found: Results) -> list[str]:
    """Say in what the records differ that should be alike, if they do."""
    differing = {name: each for name, each in found.origins.items() if len(each) > 1}
    listed = [f"Not all records were made alike. They differ in: {_listed(differing)}."]
    return listed if differing else []


def _origins(found: Results) -> list[str]:
    """Where the records were made, if they say so."""
    words = f"{found.counts.total():,} trials. The records name: {_listed(found.origins)}."
    return ["## Where it was run", words] if found.origins else []


def _listed(origins: dict[str, list[str]]) -> str:
    return "; ".join(f"{name} {', '.join(each)}" for name, each in origins.items())


def _superseded(study: Study, page: str) -> list[str]:
    """Where it stands what was wrong with earlier runs of a study, if there were any."""
    link = f"[What was wrong with an earlier run]({page}#{_EARLIER.lower().replace(' ', '-')})"
    return [f"{link}, and what was changed."] if study.earlier_runs else []


def _in_short(entries: list[Entry]) -> list[str]:
    """A sentence of every study that has one, with a link, if its first scale has all numbers."""
    lines = []
    for found in (next(iter(entry.found.values()), None) for entry in entries):
        if found and (short := found.study.in_short):
            told = [found.numbers.of(gain)[0] for gain in short.gains.values()]
            link = f"([{found.study.name}]({quote(found.folder)}/README.md))"
            if not any(NO_RUNS in each for each in told):
                lines.append(f"{short.sentence.format(*told)} {link}{_open(found.study)}")
    return [tables.listed(lines)] if lines else []


def _open(study: Study) -> str:
    return f" *What would change this:* {study.would_change}" if study.would_change else ""


def _answers(entry: Entry) -> list[str]:
    """What a study found on every scale, in its own words, if no number lacks."""
    told = {each.name: _told(each) for each in entry.found.values() if each.study.answer}
    whole = {name: answer for name, answer in told.items() if NO_RUNS not in answer}
    if len(entry.found) == 1:
        return list(whole.values())
    lines = [f"{name}: {answer}" for name, answer in whole.items()]
    return [tables.listed(lines)] if lines else []


def _told(found: Results) -> str:
    """The answer of a study in its own words, in one line."""
    return " ".join(found.study.answer(found.numbers).split())


def _claims(judgments: list[Judgment], scale: Scale) -> list[str]:
    if not judgments:
        return []
    block = verdicts.ledger(judgments)[["statement", "source", "check", "verdict", "finding"]]
    parts = [
        "## Claims",
        f"{_VERDICTS}\nA check was fixed before the runs that decide it, "
        "unless this page says otherwise.",
        tables.markdown(block, numbers=False),
    ]
    effects = pd.DataFrame(
        _effect_row(judgment, finding, scale)
        for judgment in judgments
        for finding in judgment.findings
    )
    names = [
        tables.row_name(judgment.claim.name, *([i] if i else []))
        for judgment in judgments
        for i in range(len(judgment.findings))
    ]
    table = tables.markdown(effects, numbers=False, names=names)
    return [*parts, "### Effects", table, _EFFECTS]


def _estimate(finding: Finding, scale: Scale) -> str:
    """An estimate, with a link to the row of the first arm that it is about."""
    if not finding.interval:
        return tables.MISSING
    of, *_ = finding.condition.effect.samples
    place = [dict(of.place).get(axis, only[0]) for axis, only in scale.axes.items()]
    estimate = finding.interval.text("{estimate}")
    return f"[{estimate}](#{tables.row_name(of.arm, *place)})"


def _effect_row(judgment: Judgment, finding: Finding, scale: Scale) -> dict:
    interval, p_value = finding.interval, finding.p_value
    bounds = pairs = tables.MISSING
    if interval:
        pairs = str(interval.n)
        ends = interval.text("{low} to {high}")
        bounds = f"{100 * (1 - judgment.level):.2f} %: {ends}"
    return {
        "claim": judgment.claim.name,
        "effect": finding.text,
        "why these bounds": finding.condition.reason or tables.NOT_APPLICABLE,
        "estimate": _estimate(finding, scale),
        "interval": bounds,
        "pairs": pairs,
        "p": tables.NOT_APPLICABLE if pd.isna(p_value) else f"{p_value:.2g}",
    }


def _sentence(judgments: list[Judgment]) -> str:
    """The verdicts of a study in one sentence, which begins with the headline claim."""
    headline, *others = judgments
    counts = Counter(judgment.verdict for judgment in others)
    if headline.verdict == NOT_RUN and counts[NOT_RUN] == len(others):
        return f"**Not judged yet:** records are missing for every claim, {len(judgments)} in all."
    verdict = f"is {headline.verdict}" if headline.verdict == UNDECIDED else headline.verdict
    order = [each for each in (HOLDS, FAILS, UNDECIDED, NOT_RUN) if counts[each]]
    listed = ", ".join(f"{each} {counts[each]}" for each in order)
    more = f" Verdicts of the other claims: {listed}." if others else ""
    return f"**The headline claim {verdict}:** “{headline.claim.statement.rstrip('.')}”.{more}"


def _answer(found: Results) -> list[str]:
    """What a study found: in its own words, and its verdicts in one sentence."""
    return [*_own_words(found), *([_sentence(found.judgments)] if found.judgments else [])]


def _own_words(found: Results) -> list[str]:
    return [_told(found)] if found.study.answer and not found.scale.demonstration else []


def _summary(found: Results) -> list[str]:
    """The numbers of a study that has neither words nor verdicts."""
    show = found.study.kind.show
    block = show.summary(found.table, found.scale)
    title = f"No claim is judged here. {show.title}:"
    return [title, tables.markdown(block), tables.listed(tables.notes(block))]


def _commands(found: Results) -> str:
    report = f"python -m studies report {found.study.command}"
    run = f"python -m studies run {found.study.command} --scale {found.name}"
    # The command line of a custom scale is not known here.
    commands = [report] if is_custom(found.name) else [run, report]
    return (
        "`run` trains the trials that `records.jsonl` lacks. `report` makes all other files from "
        "`records.jsonl`, without training. The numbers of all columns are in `table.csv`.\n\n"
        "```\n" + "\n".join(commands) + "\n```"
    )


def _not_run(entries: list[Entry]) -> list[str]:
    """The studies without results, each with the command that makes them."""
    lines = [
        f"{tables.escaped(study.question)} `python -m studies run {study.command} --scale {FIRST}`"
        for study in (entry.study for entry in entries if not entry.found)
    ]
    words = f"The {FIRST} run of these studies has not been made yet. A command makes each run:"
    return ["## Not run yet", words, tables.listed(lines)] if lines else []


def _section(entry: Entry) -> list[str]:
    found = next(iter(entry.found.values()))
    folder = quote(found.folder)
    pages = {name: f"{quote(each.folder)}/README.md" for name, each in entry.found.items()}
    seen = tables.escaped(found.figures[0].seen(found.table, found.scale))
    links = ", ".join(f"[{name}]({page})" for name, page in pages.items())
    verdict = [_sentence(found.judgments)] if found.judgments else []
    return [
        f"## {tables.escaped(entry.study.question)}",
        *_superseded(entry.study, pages[found.name]),
        *(_answers(entry) + verdict or _summary(found)),
        f"[![{seen}]({folder}/{quote(found.figures[0].name)}.png)]({folder}/README.md)",
        f"Tables, figures and caveats: {links}.",
    ]
