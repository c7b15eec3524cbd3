"""Which studies there are, and what the file of a study says."""

import argparse
import ast
import dataclasses
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from studies import ORDER
from studies.arms import ARMS, Arm
from studies.engine.scale import CUSTOM, Scale, is_custom, load_custom

_GRIDS = {"arms": str, "learning_rates": float, "pretraining_rates": float}
_NUMBERS = ("selection_train_size", "selection_seeds", "report_seeds", "pretraining_epochs")
# What tells no custom run from another.
_UNNAMED = (
    *("axes", "kind", "demonstration", "headline_arms", "headline_axes", "headline_seeds"),
    *("features", "classes", "chance_error", "remarks"),
)
_LONGEST_NAME = 60
_FOLDER = Path(__file__).parents[1]


# Begins the paragraph of a docstring that the front page shows, too.
_WOULD_CHANGE = "What would change the answer: "


class StudyError(Exception):
    """There is no such study, or its file lacks what the file of a study needs."""


@dataclass(frozen=True)
class Study:
    """A question and how it is asked, as the file of a study says it.

    Args:
        name: Name of the study, which is the name of its file.
        question: First line of the docstring.
        text: The rest of the docstring.
        kind: `KIND` of the file, a `studies.kinds.kind.Kind`.
        scales: `SCALES` of the file, by name.
        claims: `CLAIMS` of the file, if it has any.
        figures: `FIGURES` of the file: names of figures, or `Figure`s of the study's own, the
            headline first; by default, all figures that the kind offers.
        earlier_runs: `EARLIER_RUNS` of the file: what was wrong with runs that are superseded.
        answer: `answer` of the file, if it has one: a function of the numbers of a scale (a
            `studies.report.answers.Numbers`), which returns what the study found, in a sentence or
            two.
        in_short: `IN_SHORT` of the file, if it has one: whether pretraining pays, in a sentence (a
            `studies.report.claims.InShort`). The front page begins with these sentences.
        published: `PUBLISHED` of the file: numbers of papers (`studies.report.published`), which
            stand beside ours.
        deviations: `DEVIATIONS` of the file: in what the study differs from its paper.
        file: A file outside of the package; `None` for a study of the package.
    """

    name: str
    question: str
    text: str
    kind: Any
    scales: dict[str, Scale]
    claims: tuple = ()
    figures: tuple = ()
    earlier_runs: tuple[str, ...] = ()
    answer: Callable[[Any], str] | None = None
    in_short: Any = None
    published: tuple = ()
    deviations: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def would_change(self) -> str:
        """What would change the answer, as the docstring says; empty if it does not say."""
        found = re.search(rf"^{_WOULD_CHANGE}(.+?)(?:\n\n|\Z)", self.text, re.DOTALL | re.MULTILINE)
        return " ".join(found[1].split()) if found else ""

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms that the study may name: the arms of the package and its own."""
        return ARMS | {arm.name: arm for scale in self.scales.values() for arm in scale.arms}

    @property
    def command(self) -> str:
        """The word that names the study on the command line."""
        return str(self.file) if self.file else self.name

    def scale(self, name: str, folder: Path) -> Scale:
        """Find a scale by name: a scale of the file, or the scale of a custom run in the folder of
        its results.

        Raises:
            KeyError: If the study has no such scale.
            OSError: If the custom scale cannot be read.
        """
        return load_custom(self, folder) if is_custom(name) else self.scales[name]

    def folders(self, results: Path) -> dict[str, Path]:
        """The folders of the study's scales below `results`, by name, those of custom runs last."""
        custom = sorted(path.name for path in (results / self.name).glob(f"{CUSTOM}*"))
        names = [*self.scales, *filter(is_custom, custom)]
        return {name: results / self.name / name for name in names}


def questions() -> dict[str, str]:
    """Find the studies of the package, and their questions by name.

    A question is the first line of a docstring. No study is imported, since that takes seconds.
    """
    read = {path.stem: _question(path) for path in sorted(_FOLDER.glob("*.py"))}
    # An underscore at the end keeps a file from hiding a function of the package.
    found = {name.rstrip("_"): text for name, text in read.items() if text is not None}
    names = [*filter(found.__contains__, ORDER), *found]
    return {name: found[name] for name in names}


@cache
def _question(path: Path) -> str | None:
    """The question of a study's file; `None` for another module."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        return f"(The file has an error: {error}.)" if "SCALES" in text else None
    names = [ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)]
    return (ast.get_docstring(tree) or "").partition("\n")[0] if "SCALES" in names else None


def load(name: str) -> Study:
    """Load a study.

    Args:
        name: Name of a study of the package, or path of a study's file.

    Returns:
        The study.

    Raises:
        StudyError: If there is no such study, or its file lacks what a study needs.
    """
    file = Path(name).resolve() if name.endswith(".py") else None
    if file is None and name not in questions():
        raise StudyError(
            f"There is no such study. Expected one of: {', '.join(questions())}, or the path of a "
            f"study's file. Received: {name}"
        )
    module = _imported(findable(file) if file else _module_name(name), file or name)
    lacking = [n for n in ("__doc__", "KIND", "SCALES") if getattr(module, n, None) is None]
    if lacking:
        raise StudyError(
            "A study's file needs a docstring whose first line is its question, a `KIND` and "
            f"`SCALES`. Received: {name} without {', '.join(lacking)}"
        )
    question, _, text = module.__doc__.partition("\n")
    try:
        scales = {k: replace(scale, kind=module.KIND) for k, scale in module.SCALES.items()}
    except ValueError as error:
        raise StudyError(f"A scale of the study {name} cannot be run. {error}") from error
    return Study(
        name=file.stem if file else name,
        question=question,
        text=text.strip(),
        kind=module.KIND,
        scales=scales,
        claims=getattr(module, "CLAIMS", ()),
        figures=getattr(module, "FIGURES", ()),
        earlier_runs=getattr(module, "EARLIER_RUNS", ()),
        answer=getattr(module, "answer", None),
        in_short=getattr(module, "IN_SHORT", None),
        published=getattr(module, "PUBLISHED", ()),
        deviations=getattr(module, "DEVIATIONS", ()),
        file=file,
    )


def _module_name(study: str) -> str:
    hidden = (_FOLDER / f"{study}_.py").exists()
    return f"studies.{study}{'_' * hidden}"


def findable(file: Path, what: str = "a study's file") -> str:
    """The name by which a file can be imported, here and by workers, which are given its path.

    Raises `StudyError`, which calls the file by `what` it is, if there is no such name.
    """
    if _is_taken(file):
        raise StudyError(
            f"{what[0].upper()}{what[1:]} must have a name that no other module has. "
            f"Received: {file.name}, and there is a module {file.stem!r} already"
        )
    if not file.is_file():
        raise StudyError(f"There is no such file. Expected {what}. Received: {file}")
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    return file.stem


def _imported(module: str, study: str | Path) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise StudyError(
            f"The study's file cannot be imported: {type(error).__name__}: {error}. "
            f"Received: {study}"
        ) from error


def _is_taken(file: Path) -> bool:
    """Tell whether another module, imported or not, has the name of a file."""
    try:
        known = importlib.util.find_spec(file.stem)
    except (ImportError, ValueError):
        # The name has dots, or it is the name of a module without a file, such as `__main__`.
        return True
    # A folder of this name has no origin, and Python prefers the file.
    return bool(known and known.origin and Path(known.origin).resolve() != file)


# The settings of a scale as options of the command line


def add_axes(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Add an option for every field of a kind's trials that can be an axis, and for every grid."""
    group = parser.add_argument_group(
        "axes",
        "Other values for what the scale varies, or several values for what the scale keeps fixed. "
        "The results go to a folder of their own.",
    )
    for name, type_ in (_axes(kind) | _GRIDS).items():
        group.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=type_, metavar="X")
    for name in _NUMBERS:
        flag = "--seeds" if name == "report_seeds" else f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, type=int, metavar="N")


def overridden(args: argparse.Namespace, study: Study, scale: Scale) -> Scale:
    """Apply the options of `add_axes` to a scale, which is returned itself if nothing changes.

    A changed scale is a demonstration, in which no arm has more seeds for a headline claim. A value
    that makes no sense raises `ValueError`.
    """
    given = {n: getattr(args, n) for n in (*_GRIDS, *_NUMBERS) if getattr(args, n) is not None}
    changes = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    if "arms" in changes:
        changes["arms"] = tuple(study.arms.get(name, name) for name in changes["arms"])
    axes = dict(scale.axes)
    for name in _axes(study.kind):
        values = tuple(getattr(args, name) or ())
        if name in axes or len(values) > 1 or values and not hasattr(scale, name):
            axes[name] = values or axes[name]
        elif values:
            changes[name] = values[0]
    if axes != scale.axes:
        changes["only_at"] = {}
    changed = replace(scale, axes=axes, **changes)
    if changed == scale:
        return scale
    return replace(changed, demonstration=True, headline_arms=())


def default_name(scale: Scale, own: Scale) -> str:
    """Name a custom run by what tells its scale from a scale of the study: `depth_1_2-width_50`."""
    fields = [f.name for f in dataclasses.fields(Scale) if f.name not in _UNNAMED]
    values = {name: _values(scale, name) for name in [*fields, *scale.axes]}
    changed = {name: each for name, each in values.items() if each != _values(own, name)}
    words = ["_".join([name, *map(_word, each)]) for name, each in changed.items()]
    name = "-".join(words)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _values(scale: Scale, name: str) -> tuple:
    if name in scale.axes:
        return scale.axes[name]
    value = scale.arm_names if name == "arms" else getattr(scale, name, None)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _word(value: object) -> str:
    return re.sub(r"[^\w.+]+", "_", f"{value:g}" if isinstance(value, float) else str(value))


def _axes(kind: Any) -> dict[str, type]:
    # The dataset has an option of its own, which looks the data up.
    return {name: type_ for name, type_ in kind.axes.items() if name != "dataset"}
