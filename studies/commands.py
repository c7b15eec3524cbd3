"""The command line, which runs studies and reports on them: `python -m studies --help`."""

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from io import TextIOWrapper
from math import prod
from pathlib import Path

from studies.comparison import asked
from studies.engine import journal
from studies.engine.execute import Outcome, Run, execute, results_elsewhere
from studies.engine.executors import (
    ClusterExecutor,
    LocalExecutor,
    cores,
    machine_memory,
    on_worker,
)
from studies.engine.journal import FINAL, JournalError
from studies.engine.plan import estimate, memory, progress, spent, tally
from studies.engine.scale import CUSTOM, Scale, is_custom
from studies.engine.study import (
    Study,
    StudyError,
    add_axes,
    default_name,
    load,
    overridden,
    questions,
)
from studies.engine.worker import processor, run_cell

_STATUS = (*FINAL, "error", "killed", "missing")


class UsageError(Exception):
    """The command line asks for a scale, folder or dataset that does not exist."""


def main(argv: list[str] | None = None, run_cell: Callable[..., list[dict]] = run_cell) -> int:
    """Run the command line, by default that of the process; `run_cell` trains a cell in a worker.

    Returns the exit code: 0, 1 if something failed, 2 for a wrong command, 130 for a run that was
    interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no ± still gets its table.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        args = _parser(argv).parse_args(argv)
        args.again, args.run_cell = f"python -m studies {shlex.join(argv)}", run_cell
        return args.command(args)
    except (UsageError, StudyError) as error:
        print(error, file=sys.stderr)
        return 2
    except (JournalError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies", description="Repeat experiments on layer-wise pretraining."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "list", _list, "list the studies and their questions")
    run = _add(commands, "run", _run, "run what is missing of a study")
    run.add_argument("study", metavar="STUDY", help="a study's name, or the path of its file")
    _add_machines(run)
    named = [word for word in argv if word.endswith(".py") or word in questions()]
    study = load(named[0]) if named else None
    if study and not study.scales:
        asked.add_options(run)
        run.set_defaults(command=_compare)
    else:
        _add_scale(run, study)
    report = _add(commands, "report", _report, "write tables and figures anew, from the records")
    status = _add(commands, "status", _status, "count what is done, failed and missing")
    for command in (report, status):
        command.add_argument("study", metavar="STUDY", nargs="?", help="default: all")
    for command in (run, report, status):
        command.add_argument("--results", metavar="DIR", type=Path, default=Path("results"))
    return parser


def _add(commands, name: str, command: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=command)
    return parser


def _add_machines(run: argparse.ArgumentParser) -> None:
    """Add the options that say where cells run."""
    run.add_argument(
        "--workers",
        metavar="N",
        type=_count,
        help="cells that are trained at the same time; default: one per core for which there is "
        "memory, or one per worker of the cluster; on a GPU, 1 or as many as share it by MPS",
    )
    run.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="train on a dask cluster, whose scheduler has this address",
    )
    run.add_argument(
        "--data-folder", metavar="DIR", help="where to look for the dataset's files first"
    )


def _add_scale(run: argparse.ArgumentParser, study: Study | None) -> None:
    """Add the options that say what is run of a study."""
    run.add_argument("--scale", default="quick", help="default: quick")
    run.add_argument(
        "--dataset",
        metavar="NAME|PATH",
        help="another dataset: a name, or a file or folder that pretrain.datasets.load reads; its "
        "results go to a folder of their own",
    )
    run.add_argument(
        "--name",
        metavar="NAME",
        type=_name,
        help="name of a run with axes or data of its own, whose results go to the folder "
        "custom-NAME; default: made of the axes",
    )
    run.add_argument(
        "--dry-run", action="store_true", help="say what there is to do and how long it takes"
    )
    # Which axes there are depends on the kind of the study.
    if study:
        add_axes(run, study.kind)


def _workers(args: argparse.Namespace, run: Run) -> int:
    """The workers that were asked for; by default, a core for each, and memory for its cells."""
    fit = machine_memory() // memory(run.scale)
    return args.workers or max(1, min(cores(), fit))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1. Received: {text}")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.+-]{1,100}", text):
        raise argparse.ArgumentTypeError(
            f"expected at most 100 letters, digits, and any of . _ + -. Received: {text}"
        )
    return text


def _list(args: argparse.Namespace) -> int:
    found = questions()
    width = max(map(len, found))
    for name, question in found.items():
        print(f"{name:<{width}}  {question}")
    return 0


def _run(args: argparse.Namespace) -> int:
    run = _composed(args)
    if args.dry_run:
        return _dry_run(run, _workers(args, run))
    _check_backend()
    # The trials name a file by its content; only the workers need its path.
    is_file = args.dataset not in (None, run.scale.dataset)
    source = str(Path(args.dataset).absolute()) if is_file else None
    run_cell = partial(args.run_cell, dataset=source, data_folder=args.data_folder)
    if args.dask:
        run_cell = partial(on_worker, run_cell)
    own = [run.study.file] if run.study.file else []
    try:
        with _executor(args, _workers(args, run), run.logs, *own) as executor:
            outcome = execute(run, run_cell, executor, args.workers or executor.workers)
    except KeyboardInterrupt:
        _print_part(run)
        print(f"Interrupted. {_recorded(run)} To go on: {args.again}", file=sys.stderr)
        return 130
    return _concluded(run, outcome, args.again)


def _compare(args: argparse.Namespace) -> int:
    """Run the comparison that the options ask for."""
    _check_backend()
    logs = args.results / "compare" / "logs"
    run_cell = partial(on_worker, args.run_cell) if args.dask else args.run_cell
    try:
        with _executor(args, args.workers or cores(), logs, *asked.files(args)) as executor:
            workers = args.workers or executor.workers
            run, outcome = asked.conducted(args, executor, run_cell, workers)
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: {args.again}", file=sys.stderr)
        return 130
    except (ValueError, ImportError, FileNotFoundError) as error:
        raise UsageError(f"There is nothing to compare. {error}") from error
    return _concluded(run, outcome, args.again)


def _check_backend() -> None:
    """Refuse a backend that is not installed, before a cell fails for it."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend and not find_spec(backend):
        raise UsageError(
            "Keras's backend is not installed. Expected an installed backend, or no "
            f"KERAS_BACKEND for the default. Received: KERAS_BACKEND={backend}"
        )


def _report(args: argparse.Namespace) -> int:
    only = load(args.study) if args.study else None
    if not args.results.is_dir():
        raise UsageError(
            "There are no results. Expected a folder that `run` has written. "
            f"Received: --results {args.results}"
        )
    # Imported only here: plotting takes seconds to import.
    from studies.report.write import write_all

    known, errors = _loaded()
    own = [only] if only and only.file else []
    _, failed = write_all(args.results, known + own, only)
    print(f"Results: {args.results}")
    return _named(errors + failed)


def _loaded() -> tuple[list[Study], list[str]]:
    """The studies of the package, and what is wrong with those that cannot be loaded."""
    studies, errors = [], []
    for name in questions():
        try:
            studies.append(load(name))
        except StudyError as error:
            errors.append(str(error))
    return studies, errors


def _named(errors: list[str]) -> int:
    """Name what went wrong while all else went on; return the exit code."""
    print(*errors, sep="\n", end="\n" * bool(errors), file=sys.stderr)
    return 1 if errors else 0


def _status(args: argparse.Namespace) -> int:
    studies, errors = ([load(args.study)], []) if args.study else _loaded()
    begun = [
        (study, name, folder)
        for study in studies
        for name, folder in study.folders(args.results).items()
        if (folder / journal.FILE).exists()
    ]
    if begun:
        print(_row("study", "scale", *_STATUS))
    else:
        print(f"There are no results in {args.results}. Run a study: python -m studies run STUDY")
    for study, name, folder in begun:
        try:
            _print_status(Run(study, name, study.scale(name, folder), args.results))
        except (JournalError, OSError) as error:
            errors.append(str(error))
    return _named(errors)


def _composed(args: argparse.Namespace) -> Run:
    study = load(args.study)
    if args.scale not in study.scales:
        raise UsageError(
            f"The study {study.name} has no such scale. Expected one of: "
            f"{', '.join(study.scales)}. Received: --scale {args.scale}"
        )
    own = study.scales[args.scale]
    try:
        scale = overridden(args, study, own)
    except ValueError as error:
        raise UsageError(f"The study cannot be run with these axes. {error}") from error
    sizes = [getattr(args, size) for size in ("train_size", "validation_size", "test_size")]
    if args.dataset or args.data_folder or any(sizes):
        scale = _on_dataset(scale, args)
    run = Run(study, _scale_name(args, scale, own), scale, args.results)
    _check_name(run)
    return run


def _scale_name(args: argparse.Namespace, scale: Scale, own: Scale) -> str:
    if scale == own and args.name:
        raise UsageError(
            "Only a run with axes of its own has a name of its own. Expected other axes, or no "
            f"name. Received: --name {args.name}"
        )
    if scale == own:
        return args.scale
    return f"{CUSTOM}-{args.name or f'{args.scale}-{default_name(scale, own)}'}"


def _check_name(run: Run) -> None:
    """Refuse a name under which a run with other axes has its results."""
    try:
        taken = is_custom(run.scale_name) and run.study.scale(run.scale_name, run.folder)
    except OSError:
        # There is no such run, or its axes cannot be read any more and are written anew.
        return
    if taken and taken != run.scale:
        raise UsageError(
            "A run with other axes has this name. Expected another name, or the same axes. "
            f"Received: --name, whose results are in {run.folder}"
        )


def _on_dataset(scale: Scale, args: argparse.Namespace) -> Scale:
    """Return the scale with the dataset of the command line, which is checked here."""
    from pretrain import datasets

    if args.dataset and "dataset" in scale.axes:
        # Every trial would be trained on the dataset of the option, whatever the trial names.
        raise UsageError(
            "The scale compares datasets. Expected no dataset beside "
            f"{', '.join(scale.axes['dataset'])}. Received: --dataset {args.dataset}"
        )

    def largest(name: str) -> int:
        return max(scale.axes.get(name, (getattr(scale, name),)))

    names = [args.dataset] if args.dataset else scale.axes.get("dataset", [scale.dataset])
    # A folder is for datasets that must be found; where none must be, `load` says so.
    found = [name for name in names if name in datasets.TO_BE_FOUND] or names
    for name in names:
        try:
            data = datasets.load(
                name,
                train_size=largest("train_size"),
                validation_size=largest("validation_size"),
                folder=args.data_folder if name in found else None,
            )
        except (ValueError, ImportError, FileNotFoundError) as error:
            raise UsageError(f"The study cannot be run on this dataset. {error}") from error
        x, _ = data.test
        if len(x) < largest("test_size"):
            raise UsageError(
                f"The dataset is too small for the scale. Expected at least "
                f"{largest('test_size')} test examples. Received: {len(x)} in {data.name}"
            )
    if "dataset" in scale.axes or data.name == scale.dataset:
        return scale
    shape = {"features": prod(x.shape[1:]), "classes": data.classes}
    return replace(scale, dataset=data.name, **shape, demonstration=True)


def _dry_run(run: Run, workers: int) -> int:
    # As in a run, the own result of a trial counts, whatever another study found.
    known = results_elsewhere(run) | {r["key"]: r for r in run.records}
    records, place = known.values(), processor()
    here = [r for r in records if (r.get("provenance") or {}).get("processor") == place]
    all_of_it = progress(run.scale, records)
    print(
        f"{run.study.name} {run.scale_name}: {all_of_it.cells} cells, {all_of_it.trials} trials, "
        f"{all_of_it.flops:.2g} FLOP\nTo do: {estimate(run.scale, records, here, workers)}"
    )
    return 0


def _executor(
    args: argparse.Namespace, workers: int, logs: Path, *files: Path
) -> LocalExecutor | ClusterExecutor:
    """Where cells run; files of the user's go to the workers of a cluster."""
    if not args.dask:
        return LocalExecutor(workers, logs)
    try:
        executor = ClusterExecutor(args.dask)
    except (ImportError, ConnectionError, ValueError) as error:
        raise UsageError(error) from error
    if not (args.workers or executor.workers):
        executor.shutdown()
        raise UsageError(
            "The cluster has no workers yet. Expected workers, or the number that there will be: "
            f"--workers N. Received: --dask {args.dask}"
        )
    for file in files:
        executor.send(file)
    return executor


def _recorded(run: Run) -> str:
    done = progress(run.scale, run.records)
    return f"{done.trials_done} of {done.trials} trials are recorded in {run.folder}."


def _concluded(run: Run, outcome: Outcome, again: str) -> int:
    if not outcome.cells and not outcome.failures:
        print(
            f"Nothing to do. {_recorded(run)} "
            "To run the trials anew, choose another folder with --results DIR."
        )
    # Written even if nothing was run: a run that was killed may have left half a report.
    _print_table(run)
    if minutes := spent(run.scale, run.records):
        print(minutes)
    print(f"Results: {run.folder}")
    if (page := run.folder / "index.html").exists():
        print(f"To read in a browser: {page.resolve().as_uri()}")
    if outcome.failures:
        print(
            f"Cells that failed: {len(outcome.failures)}. Cells that depend on them were not run. "
            f"{_recorded(run)} To try again: {again}",
            *(f"- {cell}: {error}" for cell, error in outcome.failures.items()),
            sep="\n",
            file=sys.stderr,
        )
    return 1 if outcome.failures else 0


def _print_table(run: Run) -> None:
    if not progress(run.scale, run.records).trials_done:
        return
    # Imported only here: plotting takes seconds to import.
    from studies.report.write import write_scale

    print(write_scale(run.folder, run.study, run.scale_name))


def _print_part(run: Run) -> None:
    """Print what there is of the table; no file is written."""
    records = run.records
    reported = any(r["role"] == "report" and r["status"] in FINAL for r in records)
    if not (reported and progress(run.scale, records).trials_done):
        return
    # Imported only here: plotting takes seconds to import.
    from studies.report.write import table_of

    print(table_of(run.folder, run.study, run.scale_name))


def _print_status(run: Run) -> None:
    records = run.records
    count = tally(run.scale, records)
    print(_row(run.study.name, run.scale_name, *(count[status] for status in _STATUS)))
    failures = Counter(
        f"{r['status']}: {r['role']} {r['arm']}"
        + "".join(f" {axis.replace('_', ' ')} {r.get(axis)}" for axis in run.scale.axes)
        + f": {r.get('error')}"
        for r in records
        if r["status"] not in FINAL
    )
    for failure, trials in failures.items():
        print(f"  {failure} ({trials} trials)")


def _row(study: str, scale: str, *columns: object) -> str:
    return f"{study:<16}{scale:<10} " + "".join(f"{column!s:>10}" for column in columns)
