"""Audit: the random sample of a run that checks the likeliest images first.

Only the sample estimates the pass rate: the likeliest images do not. All unique candidates have one order,
which the seed and their keys decide before the first check. The sample of a segment is a prefix of its images
in that order: every image of the prefix has its outcome, whatever the face check said. One that was checked
because it was likely counts with that verdict. The first image that was skipped, or dropped by a rule, ends
the prefix. Without a segment column all images are one segment.

The sample of the run is a prefix of the whole order. It goes by the same rule, but images that a hopeless
segment leaves out do not end it: they are no attempts.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from s2v_tasks.domain import funnel
from s2v_tasks.domain.candidate_table import mixed, partition_of_key, u64
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.gate_rules import segment_of
from s2v_tasks.domain.ledger import HOPELESS
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import Outcome

EARLY: Final = 60
"""Images of each segment that come early: the first of its sample."""
EARLY_SHARE: Final = 0.3
"""Of the calls while an early image waits, at most."""
LATER_SHARE: Final = 0.1
"""Of the calls when none waits."""

_KEY_DIGITS: Final = 15  # hexadecimal, so that they fit an Int64
_PARTITION: Final = 2**48
_ROUNDING: Final = 1e-6


class Share:
    """The sample's share of the calls; what it did not use, it may use later."""

    def __init__(self) -> None:
        self._due = 0.0

    def due(self, images: int, *, is_early: bool) -> int:
        """How many of the next ``images`` are the sample's; ``is_early``: an early image waits."""
        return min(max(0, int(self._due + _share(is_early) * images + _ROUNDING)), images)

    def took(self, sampled: int, images: int, *, is_early: bool) -> None:
        """So many images were taken, and of these so many for the sample."""
        self._due += _share(is_early) * images - sampled


def _share(is_early: bool) -> float:
    return EARLY_SHARE if is_early else LATER_SHARE


def position(seed: int, partitions: int) -> pl.Expr:
    """The place of each image in the order: by partition, and there at random. Column ``image_key``.

    A partition is a random part of the images, as keys are hashes.
    """
    digits = pl.col("image_key").str.slice(8, _KEY_DIGITS)
    number = digits.str.to_integer(base=16, dtype=pl.Int64, strict=False).cast(pl.UInt64)
    drawn = mixed(mixed(u64(seed)) + number * u64(0x9E3779B97F4A7C15)) // 2**16
    return partition_of_key(partitions) * _PARTITION + drawn.cast(pl.Int64)


@dataclass(frozen=True, slots=True)
class AuditedRows:
    """Which rows of a run's table are the sample's.

    ``seed`` of the order, for so many ``partitions``; ``hopeless``: segments of which no more images were
    checked.
    """

    seed: int
    partitions: int
    segment_column: str | None
    hopeless: Collection[str | None]
    _ends: dict[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The input's columns that `read` needs."""
        return [] if self.segment_column is None else [self.segment_column]

    @property
    def _segment(self) -> pl.Expr:
        return pl.lit("") if self.segment_column is None else segment_of(self.segment_column)

    def read(self, verdicts: pl.DataFrame) -> None:
        """Note where the segments' samples end, by some rows; all rows are read before any is `marked`."""
        place = position(self.seed, self.partitions).alias("place")
        is_open = (pl.col("outcome") == Outcome.SKIPPED.value) | funnel.is_dropped()
        unchecked = verdicts.filter(is_open).select(self._segment.alias("segment"), place)
        for segment, first in unchecked.group_by("segment").agg(pl.col("place").min()).iter_rows():
            self._ends[segment] = min(first, self._ends.get(segment, first))

    def marked(self, verdicts: pl.DataFrame) -> pl.DataFrame:
        """The rows with ``audited``, and with the reason of those that were left out as hopeless."""
        end = self._segment.replace_strict(self._ends, default=None, return_dtype=pl.Int64)
        is_image = pl.col("image_key").is_not_null() & (pl.col("outcome") != Outcome.DUPLICATE.value)
        is_before = end.is_null() | (position(self.seed, self.partitions) < end)
        stopped = [segment for segment in self.hopeless if segment is not None]
        run_end = min((place for of, place in self._ends.items() if of not in stopped), default=None)
        is_in_run = pl.lit(True) if run_end is None else position(self.seed, self.partitions) < run_end
        is_hopeless = (pl.col("outcome") == Outcome.SKIPPED.value) & self._segment.is_in(stopped)
        return verdicts.with_columns(
            (is_image & is_before).fill_null(value=False).alias("audited"),
            (is_image & is_in_run).fill_null(value=False).alias("audited_in_run"),
            pl.when(is_hopeless).then(pl.lit(HOPELESS)).otherwise("reason").alias("reason"),
        )


def hopeless_message(segment: str | None, sample: Tally, lowest: float) -> str:
    """Why no more images of a segment are checked, or of the run (None)."""
    of = "" if segment is None else f" of {shown(segment)}"
    return (
        f"no more images{of} are checked: {sample.hits} of {sample.hits + sample.misses} images of the random"
        f" sample passed, so the pass rate is at most {sample.bounds.high:.0%}; the gate wants {lowest:.0%}"
    )
