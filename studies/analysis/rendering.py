"""Rendering figures: a function that draws in, the bytes of files out.

In the project's style, and repeatably: drawn twice in one environment, a figure is the same bytes.
"""

import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

import matplotlib.style
import pandas as pd

from studies.runner.scale import Scale

_STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "savefig.dpi": 150,
    "svg.hashsalt": "pretrain",
}
# Of a process of a `painter`: frame and scale.
_shared: list = []


def render(draw: Callable, frame: pd.DataFrame, scale: Scale) -> dict[str, bytes]:
    """Draw a figure and encode it.

    Args:
        draw: One of the functions of `figures` or `density_figures`.
        frame: Results, from `records.frame`.
        scale: The scale they belong to.

    Returns:
        The contents of its `"png"` and `"svg"` file, without dates and versions.
    """
    strip = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    files = {}
    with matplotlib.style.context(["default", _STYLE]):
        figure = draw(frame, scale)
        # Lay out once, not once per file: it takes longer than all else.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)
        for kind, metadata in strip.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files


@contextmanager
def painter(frame: pd.DataFrame, scale: Scale, processes: int = 1) -> Iterator[Callable]:
    """Renders many figures of the same results.

    Args:
        frame: Results, from `records.frame`.
        scale: The scale they belong to.
        processes: Number of processes that draw. More than one are forked from the caller, which
            has to be on Linux and must have started no threads.

    Yields:
        A function that takes the functions that draw and returns an iterator over what `render`
        returns for each. Other processes draw while the caller goes on.
    """
    if processes == 1:
        yield partial(map, partial(render, frame=frame, scale=scale))
        return
    # Forked, they have the results, which take long to send.
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, forked, _share, (frame, scale)) as pool:
        yield partial(pool.map, _render_shared)


def _share(*results: object) -> None:
    _shared.extend(results)


def _render_shared(draw: Callable) -> dict[str, bytes]:
    return render(draw, *_shared)
