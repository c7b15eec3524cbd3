"""What a comparison returns: a sentence, a table and a figure."""

import os
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from studies.engine.execute import Run
from studies.report import tables, write
from studies.report.pages import Results


class Comparison:
    """The result of `studies.compare`; printed, it is its sentence and its table.

    Args:
        run: The run, of which all trials are done.
        end: Called when the result is used no more: it removes a temporary folder.

    Attributes:
        folder: The folder of the records, with a page, `index.html`, unless it is temporary.
    """

    def __init__(self, run: Run, end: Callable[[], None]):
        self._run = run
        self.folder: Path = run.folder
        weakref.finalize(self, end)

    @property
    def sentence(self) -> str:
        """What was found, with its verdict: a sentence for each arm beside "none"."""
        return self._run.study.answer(self._results.numbers)

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers, a row per arm: errors in percent, differences in points, their intervals."""
        return self._results.table

    def figure(self) -> Figure:
        """The gains, with their intervals, in the caller's style of matplotlib."""
        headline = self._results.figures[0]
        return headline.draw(self._found[1], self._run.scale)

    def __str__(self) -> str:
        lines = [self.sentence, "", tables.plain(self._block), "", *tables.notes(self._block)]
        return os.linesep.join([*lines, *self._run.scale.remarks])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The sentence and the table, in a notebook."""
        remarks = "".join(f"<p>{remark}</p>" for remark in self._run.scale.remarks)
        return f"<p>{self.sentence}</p>{self._block.to_html(index=False)}{remarks}"

    @property
    def _block(self) -> pd.DataFrame:
        return self._run.study.kind.show.summary(self.frame, self._run.scale)

    @property
    def _results(self) -> Results:
        return self._found[0]

    @cached_property
    def _found(self) -> tuple[Results, pd.DataFrame]:
        return write.results_of(self.folder, self._run.study, self._run.scale_name)
