"""What changes while a run works."""

from dataclasses import dataclass, field

import polars as pl

from s2v_tasks.adapters.storage.run_folder import Status


@dataclass(slots=True)
class RunState:
    """Counters of one process of a run, and the status with which it ended.

    ``known`` counts images that had a verdict when they were looked up, ``kept`` and ``screened_out`` results
    of the screen for others; ``left_out``: of the kept images those that are not to be checked, as things
    stand. ``several_results``: several URLs were sent for an image, so it may have several results.
    ``hopeless``: the segments whose pass rate, as the sample shows, can't reach what the gate wants, so none
    of their images are checked any more; None is the whole run. ``rules``: of `s2v_tasks.domain.faces`, those
    by which images are dropped.
    """

    status: Status = "running"
    known: int = 0
    kept: int = 0
    screened_out: int = 0
    left_out: int = 0
    several_results: bool = False
    hopeless: set[str | None] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)

    @property
    def is_hopeless(self) -> bool:
        """Whether the whole run is, so that no more is sent."""
        return None in self.hopeless

    def count_screened(self, results: pl.DataFrame) -> None:
        """Count results of the screen: `s2v_tasks.domain.verdict_table.SCREENED_SCHEMA`."""
        self.kept += results["screen_reason"].null_count()
        self.screened_out += results["screen_reason"].count()
