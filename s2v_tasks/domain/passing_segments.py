"""Passing segments: which rows of a dataset are published, if only segments that keep every threshold are."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import polars as pl

from s2v_tasks.domain.gate_rules import segment_of
from s2v_tasks.errors import UsageError
from s2v_tasks.models import Facts, LeftOut, Outcome
from s2v_tasks.settings import CurateParameters, Thresholds
from s2v_tasks.settings.fields import Limit, declared

PASSING_SEGMENTS: Final = "passing_segments"
"""The value of ``thresholds.publish`` that leaves the other segments out."""


def is_wanted(thresholds: Thresholds, segment_column: str | None) -> bool:
    """Whether only the segments that pass are published.

    Raises:
        UsageError: They are, and there is no segment column.
    """
    if thresholds.publish != PASSING_SEGMENTS:
        return False
    if segment_column is None:
        raise UsageError("--publish-passing-segments needs segments: name their column with --segment-column")
    return True


def left_out(facts: Sequence[Facts], limits: Mapping[str, float | None]) -> tuple[LeftOut, ...]:
    """The segments that don't keep every threshold on their own, each with the first that it breaks.

    ``facts``: overall and of each segment. ``limits``: by the expectations' parameters.
    """
    thresholds = [
        (one.limit, limits.get(one.limit.parameter or one.name))
        for one in declared(CurateParameters)
        if one.limit is not None
    ]
    segments = (fact for fact in facts if fact.segment is not None)
    return tuple(LeftOut(fact, why) for fact in segments if (why := _why(fact, thresholds)))


def published_rows(
    verdicts: pl.LazyFrame, segment_column: str | None, segments_left_out: Collection[str]
) -> pl.LazyFrame:
    """The rows of the other segments."""
    if segment_column is None or not segments_left_out:
        return verdicts
    return verdicts.filter(~segment_of(segment_column).is_in(list(segments_left_out)))


def approved(verdicts: pl.LazyFrame, *, keep_duplicates: bool = False) -> pl.LazyFrame:
    """The rows to publish: each passed image once, or with the duplicates of passed ones."""
    wanted = pl.col("outcome") == Outcome.PASSED.value
    if keep_duplicates:
        wanted |= (pl.col("outcome") == Outcome.DUPLICATE.value) & pl.col("check_pass")
    return verdicts.filter(wanted)


def _why(fact: Facts, thresholds: Sequence[tuple[Limit, float | None]]) -> str:
    """The first reason not to publish a segment; empty if there is none."""
    if not fact.attempted:
        return "no image was checked"
    if fact.pass_rate is None:
        return "no image of its sample was checked"
    for limit, value in thresholds:
        observed = getattr(fact, limit.fact)
        if not limit.holds(observed, value):
            return f"{limit.fact} {observed:.4g}, wanted {limit.side} {value:g}"
    return ""
