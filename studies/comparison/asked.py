"""A comparison that is asked for on the command line, with networks that workers import."""

import argparse
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from studies.comparison.settings import Settings
from studies.engine.execute import Outcome, Run
from studies.engine.study import findable

_TYPES = {"seeds": int, "minutes": float, "optimizer": str, "pretraining_optimizer": str}


def add_options(run: argparse.ArgumentParser) -> None:
    """Add the options of `run compare`."""
    run.add_argument(
        "--model",
        required=True,
        metavar="FILE.py:FUNCTION",
        help="a function from a seed to a Keras model",
    )
    run.add_argument(
        "--data",
        required=True,
        metavar="NAME|PATH",
        help="a .csv file, a .npz file with x and y, a folder of images for each class, or a name "
        "of pretrain.datasets",
    )
    run.add_argument("--target", metavar="COLUMN", help="the column of a .csv file to predict")
    run.add_argument("--task", choices=("classification", "regression"))
    run.add_argument(
        "--error",
        metavar="NAME|FILE.py:FUNCTION",
        help="what is compared: a loss of Keras, such as mean_absolute_error, or a function of "
        "targets and outputs; default: the share of wrong classes, or the mean squared error",
    )
    run.add_argument("--unlabeled", metavar="PATH", help="more examples, without labels")
    run.add_argument(
        "--arms",
        nargs="+",
        default=["denoising"],
        metavar="ARM",
        help="objectives by name, lsuv, or FILE.py:FUNCTION, which changes a model; default: "
        "denoising",
    )
    for field in dataclasses.fields(Settings):
        is_grid = field.name.endswith("rates")
        run.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=float if is_grid else _TYPES.get(field.name, int),
            nargs="+" if is_grid else None,
            default=field.default,
            metavar="X",
        )


def files(args: argparse.Namespace) -> set[Path]:
    """The files of the functions that the options name."""
    named = [each for each in (args.model, args.error or "", *args.arms) if ".py:" in each]
    return {Path(each.rpartition(":")[0]).resolve() for each in named}


def conducted(
    args: argparse.Namespace, executor: Executor, run_cell: Callable[..., list[dict]], workers: int
) -> tuple[Run, Outcome]:
    """Run the comparison of the options, or what is left of it.

    Raises:
        ValueError: If model and data do not fit, or the options make no sense.
    """
    # Imported only here: the command line starts without NumPy.
    from studies.comparison import arms, data
    from studies.comparison.conduct import conduct

    fields = {f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)}
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
    settings = Settings(**given)
    made = arms.made(
        _function(args.model),
        [_known(each) for each in args.arms],
        settings.optimizer,
        settings.pretraining_optimizer,
        args.error and _known(args.error),
    )
    source = data.source(
        args.data,
        (args.results / "compare").absolute(),
        target=args.target,
        unlabeled=args.unlabeled,
        task=args.task,
        data_folder=args.data_folder,
    )
    folder = args.data_folder
    return conduct(made, source, settings, args.results, executor, run_cell, workers, folder)


def _known(named: str) -> str:
    """A name that the package knows, or that of a function of a file."""
    return _function(named) if ":" in named else named


def _function(function: str) -> str:
    """A function of a file, by the name that workers import it by: `"my:build"`."""
    file, _, name = function.rpartition(":")
    if not file.endswith(".py"):
        raise ValueError(f"Expected FILE.py:FUNCTION. Received: {function}")
    return f"{findable(Path(file).resolve(), 'the file of a function')}:{name}"
