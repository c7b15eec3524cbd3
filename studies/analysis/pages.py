"""The pages that people read: what a scale found, and the front page. Text in, text out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pandas as pd

from studies.analysis import figures, tables, verdicts
from studies.analysis.statistics import sampling_error
from studies.analysis.verdicts import FAILS, HOLDS, NOT_RUN, UNDECIDED, Judgment
from studies.runner.journal import FINAL
from studies.runner.scale import CUSTOM, Scale

HEADLINE = figures.error_against_depth
# Title and caption.
FIGURES = {
    HEADLINE: (
        "Test error against depth.",
        "Medians with their 95 % bootstrap intervals over seeds; the dots are seeds. Solid lines: "
        "pretrained; dashed lines: not. Here and below, the error axis is stretched at its low "
        "end: it is even in 1 / sqrt(error).",
    ),
    figures.error_over_seeds: (
        "Test error of every seed.",
        "The bar is the median.",
    ),
    figures.nll_trajectories: (
        "Optimizer or regularizer?",
        "Mean validation NLL against mean training NLL, from the first epoch (upper right) to the "
        "last (marker); the dotted line is what a control goes through when trained on to the cost "
        "of its pretrained neighbor. Of two arms at one training NLL, the lower one generalizes "
        "better (Erhan et al. 2010, figure 7).",
    ),
    figures.error_against_cost: (
        "Test error against cost.",
        "Means over seeds; a run's cost is that of its pretraining in full and its training. Open "
        "markers: the control trained on to the cost of its pretrained neighbor.",
    ),
    figures.rate_sensitivity: (
        "Validation error against learning rate.",
        "Means over the selection seeds. Ringed: the chosen rate, which the reported runs have.",
    ),
    figures.tuning_budget: (
        "Expected validation error against tuning budget.",
        "The expected error of the best of n learning rates, drawn from the grid without "
        "replacement, for n from 1 to all of them (Dodge et al. 2019), against what the selection "
        "runs at n rates cost, the pretraining of each in full.",
    ),
}

_EQUAL_COST = """\
Controls are trained on, at their chosen rate, to the total cost of their pretrained neighbor; each
net is read where its validation error is lowest. Pretrained arms are as above; arms that have no
pretrained neighbor are left out."""
_COLUMNS = """\
- *error %*: at the epoch of the lowest validation error; *last epoch %*: at the last one. A
  diverged run counts as chance error.
- *points from control*: error minus that of the control with the same seed, with its interval.
- *rate*: learning rate, chosen on the validation error of other seeds.
- *FLOPs*: of one run, the pretraining of its layers in full.
- *at equal cost*: a control, trained on to the cost of its pretrained neighbor; for a pretrained
  arm, its error minus that of its control so trained.
- A – does not apply."""


_LEDGER = """\
What the literature says and what is found here. Every claim and its check were fixed before the
run. A claim *holds* if the intervals of all its effects lie within their bounds, *fails* if one
lies wholly outside, and is *undecided* else; the intervals are adjusted for the number of claims
(Holm 1979). *Effect*: of those that a claim names, the one that decides. *Not run* (X): records are
missing. The same as data: [claims.csv](claims.csv); with the checks in words:
[claims.md](claims.md)."""
_CLAIMS = """\
A claim *holds* if the intervals of all its effects lie within their bounds, *fails* if one lies
wholly outside, and is *undecided* else. All checks were fixed before the run."""
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
        table: Its `tables.main_table`.
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
        scales: Names of those of its scales whose results are to be relied on, best known first.
        judgments: What its claims come to, by the name of the scale they are judged on.
        demonstration: The scale whose headline figure stands in for them, if there is that figure.
    """

    study: str
    question: str
    scales: tuple[str, ...]
    judgments: dict[str, list[Judgment]]
    demonstration: Scale | None = None


def terminal(found: Findings) -> str:
    """The table of errors and what must be known to read it, for a terminal."""
    block = tables.error_block(found.table, found.scale)
    heading = f"{found.study} {found.name}: test error %"
    remarks = [*tables.notes(block), *_state(found)]
    return "\n".join([heading, "", tables.plain(block), "", *remarks])


def table_page(found: Findings) -> str:
    """`table.md`: the table of errors, and the one with everything."""
    return "\n\n".join(["# Test error %", *_errors(found), *_everything(found)]) + "\n"


def scale_page(found: Findings) -> str:
    """`README.md` of a scale: question, table, figures, caveats."""
    question, _, body = import_module(f"studies.{found.study}").__doc__.partition("\n")
    parts = [
        f"# {question}",
        *_state(found),
        body.strip(),
        *_claims(found.judgments),
        "## Test error %",
        *_errors(found),
        *(_figure(draw, *words) for draw, words in FIGURES.items()),
        "## All numbers",
        *_everything(found),
        "## Protocol",
        _protocol(found.scale),
        "## Caveats",
        _caveats(found.scale),
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
            link=f"{entry.study}/{name}/README.md" if name in entry.scales else "",
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
    return f"demonstration: {_seeds(scale.report_seeds)}, {scale.train_size:,} training images"


def _seeds(n: int) -> str:
    return f"{n} seed" if n == 1 else f"{n} seeds"


def _errors(found: Findings) -> list[str]:
    """The table at equal epochs, and that at equal cost if any control is trained on to it."""
    epochs = tables.error_block(found.table, found.scale)
    cost = tables.error_block(found.table, found.scale, equal_cost=True)
    notes = "\n".join(f"- {note}" for note in tables.notes(epochs))
    parts = ["### At equal epochs", tables.markdown(epochs), notes]
    if len(cost):
        parts += ["### At equal cost", _EQUAL_COST, tables.markdown(cost)]
    return parts


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
    words = {HOLDS: "hold", FAILS: "fail", UNDECIDED: "are undecided", NOT_RUN: "were not run"}
    text = ", ".join(f"{rest[verdict]} {word}" for verdict, word in words.items() if rest[verdict])
    verdict = f"is {headline.verdict}" if headline.verdict == UNDECIDED else headline.verdict
    more = f"; of {len(others)} other claims {text}" if others else ""
    return f"**The headline claim {verdict}:** “{headline.claim.statement.rstrip('.')}”{more}."


def _everything(found: Findings) -> list[str]:
    return [tables.markdown(tables.long_block(found.table)), _COLUMNS]


def _figure(draw: Callable, title: str, caption: str) -> str:
    return f"![{title}]({draw.__name__}.png)\n\n**{title}** {caption}"


def _protocol(scale: Scale) -> str:
    rates = ", ".join(f"{rate:g}" for rate in scale.learning_rates)
    pretraining_rates = ", ".join(f"{rate:g}" for rate in scale.pretraining_rates)
    return (
        f"Data: {scale.dataset}, {scale.train_size:,} training, {scale.validation_size:,} "
        f"validation and {scale.test_size:,} test images. Networks: {scale.width} units in every "
        f"hidden layer. Training: {scale.epochs} epochs of plain SGD, batches of "
        f"{scale.batch_size}, learning rate chosen from {rates} per arm and depth, on the "
        f"validation error of {_seeds(scale.selection_seeds)}. Pretraining: "
        f"{scale.pretraining_epochs} epochs per layer, at the rate of {pretraining_rates} whose "
        "worst layer reconstructs its input best, on validation images, which asks for no labels. "
        f"Report: {_seeds(scale.report_seeds)}{_headline(scale)}, none of "
        "them among those."
    )


def _headline(scale: Scale) -> str:
    if not scale.headline_arms:
        return ""
    depths = ", ".join(map(str, scale.headline_depths))
    arms = " and ".join(f"`{arm}`" for arm in scale.headline_arms)
    return f" ({scale.headline_seeds} for the headline, {arms} at depths {depths})"


def _caveats(scale: Scale) -> str:
    sampling = 100 * sampling_error(0.05, scale.test_size)
    lines = [
        "Intervals are over seeds: initial weights, batch order and split. That the test set is a "
        f"sample comes on top: with {scale.test_size:,} test images, the standard error of an "
        f"error of 5 % is {sampling:.2f} points.",
        "Learning rates are tuned for every arm alike; the settings of pretraining, but for its "
        "rate, are not tuned.",
        "Cost is counted, not measured: 2 FLOPs per multiply-add, training three times the "
        "forward pass, every layer's pretraining in full, though runs share it.",
    ]
    if scale.demonstration:
        lines.insert(
            0,
            "A demonstration shows what a study does, in minutes. Its intervals are wide and its "
            "rates chosen on little; nothing is concluded from it.",
        )
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
    if entry.scales:
        folder = f"{entry.study}/{entry.scales[0]}"
        links = ", ".join(f"[{name}]({entry.study}/{name}/README.md)" for name in entry.scales)
        return [
            *parts,
            *(_sentence(j) for j in list(entry.judgments.values())[:1] if j),
            f"[![{entry.question}]({folder}/{HEADLINE.__name__}.png)]({folder}/README.md)",
            f"Tables, figures and caveats: {links}.",
        ]
    if entry.demonstration:
        picture = f"![{entry.question}]({demonstration_figure(entry.study)})"
        parts += [picture, f"*A {_demonstration(entry.demonstration)}; not a result.*"]
    command = f"python -m studies run {entry.study} --scale standard"
    return [*parts, f"The standard run has not been made yet. This makes it:\n\n    {command}"]
