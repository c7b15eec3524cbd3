"""Numbers that papers publish, as plain data: a study's `PUBLISHED` holds them.

This module imports nothing heavy, since every run imports the studies.
"""

from dataclasses import dataclass

from studies.report.claims import Sample


@dataclass(frozen=True)
class Published:
    """A number of a paper, to stand beside ours and as a line in the figures of its metric.

    Args:
        value: The number, in the unit in which the metric is shown.
        of: Our runs that it is compared with, as `studies.report.claims.sample` names them.
        source: The paper, with its table or figure.
        runs: The number of runs that it is the mean of.
    """

    value: float
    of: Sample
    source: str
    runs: int = 1
