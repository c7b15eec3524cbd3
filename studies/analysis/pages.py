"""The pages that people read: what a scale found, and the front page. Text in, text out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import pandas as pd

from studies.analysis import figures, tables
from studies.runner.journal import FINAL
from studies.runner.scale import CUSTOM, Scale

HEADLINE = figures.error_against_depth
# Title and caption.
FIGURES = {
    HEADLINE: (
        "Test error against depth.",
        "Means with their 95 % t intervals over seeds; the dots are seeds. Solid lines: "
        "pretrained; dashed lines: not. Here and below, the error axis is stretched at its low "
        "end: it is even in 1 / sqrt(error).",
    ),
    figures.error_over_seeds: (
        "Test error of every seed.",
        "The bar is the median.",
    ),
    figures.nll_trajectories: (
        "Optimizer or regularizer?",
        "Mean test NLL against mean training NLL, from the first epoch (upper right) to the last "
        "(marker); the dotted line is what a control goes through when trained on to the cost of "
        "its pretrained neighbor. Of two arms at one training NLL, the lower one generalizes "
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
}

_COLUMNS = """\
- *error %*: at the epoch of the lowest validation error; *last epoch %*: at the last one. A
  diverged run counts as chance error.
- *points from control*: error minus that of the control with the same seed, with its interval.
- *rate*: learning rate, chosen on the validation error of other seeds.
- *FLOPs*: of one run, the pretraining of its layers in full.
- *at equal cost*: a control, trained on to the cost of its pretrained neighbor; for a pretrained
  arm, its error minus that of its control so trained.
- A – does not apply."""


@dataclass(frozen=True)
class Findings:
    """What is known of a study at a scale.

    Args:
        study: Name of the study.
        name: Name of the scale.
        scale: The scale.
        table: Its `tables.main_table`.
        counts: Number of its trials by status, from `plan.tally`.
    """

    study: str
    name: str
    scale: Scale
    table: pd.DataFrame
    counts: Counter

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
        demonstration: The scale whose headline figure stands in for them, if there is that figure.
    """

    study: str
    question: str
    scales: tuple[str, ...]
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
    if has_speed:
        parts += ["## Speed", "What training many networks at once gains: [speed.md](speed.md)."]
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
    block = tables.error_block(found.table, found.scale)
    return [tables.markdown(block), "\n".join(f"- {note}" for note in tables.notes(block))]


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
        f"{scale.pretraining_epochs} epochs per layer, rate chosen without labels from "
        f"{pretraining_rates}. Report: {_seeds(scale.report_seeds)}{_headline(scale)}, none of "
        "them among those."
    )


def _headline(scale: Scale) -> str:
    if not scale.headline_arms:
        return ""
    depths = ", ".join(map(str, scale.headline_depths))
    arms = " and ".join(f"`{arm}`" for arm in scale.headline_arms)
    return f" ({scale.headline_seeds} for the headline, {arms} at depths {depths})"


def _caveats(scale: Scale) -> str:
    sampling = 100 * (0.05 * 0.95 / scale.test_size) ** 0.5
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
            f"[![{entry.question}]({folder}/{HEADLINE.__name__}.png)]({folder}/README.md)",
            f"Tables, figures and caveats: {links}.",
        ]
    if entry.demonstration:
        picture = f"![{entry.question}]({demonstration_figure(entry.study)})"
        parts += [picture, f"*A {_demonstration(entry.demonstration)}; not a result.*"]
    command = f"python -m studies run {entry.study} --scale standard"
    return [*parts, f"The standard run has not been made yet. This makes it:\n\n    {command}"]
