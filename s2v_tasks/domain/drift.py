"""Drift: a run beside the last publications of its output, overall and by segment.

A run's baseline is fixed when its gate is first evaluated: a later evaluation compares with the same.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict

from s2v_tasks.domain import pass_rate
from s2v_tasks.domain.by_source import amount, code, share
from s2v_tasks.domain.publish_rules import PastPublication, ScopeFacts
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import Facts

MAX_PUBLICATIONS: Final = 10
MIN_PUBLICATIONS: Final = 3
"""With fewer publications a drop of the pass rate is not evaluated."""
METRICS: Final = ("pass_rate", "unreachable_share", "cost_per_approved_usd")
HEADER: Final = (
    "pass rate", "median", "unreachable", "median", "USD per approved", "median", "publications", "note",
)  # fmt: skip
"""What `cells` has after the segment."""
MAX_SHOWN: Final = 12
_MAX_CHARACTERS: Final = 60
_NAMED: Final = 3


class Median(BaseModel):
    """Of one of ``METRICS`` over the publications that know it; ``segment`` None: overall."""

    model_config = ConfigDict(frozen=True)

    metric: str
    segment: str | None
    median: float
    publications: int


class Baseline(BaseModel):
    """What a run is compared with: ids of the runs that were published, and their medians."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[str, ...] = ()
    medians: tuple[Median, ...] = ()

    @property
    def pass_rate(self) -> float | None:
        """The overall pass rate that a drop is measured from; None: too few publications, or none passed."""
        for one in self.medians:
            if (one.metric, one.segment) == ("pass_rate", None) and one.publications >= MIN_PUBLICATIONS:
                return one.median or None
        return None


@dataclass(frozen=True, slots=True)
class Compared:
    """One of ``METRICS``: ``now`` is this run's, ``median`` that of so many publications; None: not known."""

    metric: str
    segment: str | None
    now: float | None
    median: float | None
    publications: int


@dataclass(frozen=True, slots=True)
class Scope:
    """The dataset (``segment`` None) or a segment; ``rows``: one for each of ``METRICS``, in that order.

    ``passed`` and ``sampled``: of this run, as in `s2v_tasks.models.Facts`.
    """

    segment: str | None
    rows: tuple[Compared, ...]
    is_absent: bool
    passed: int
    sampled: int | None

    @property
    def note(self) -> str:
        """What a number does not say: a source that brings nothing any more, or one that is new."""
        if self.segment is None:
            return ""
        if self.is_absent:
            return "not in this run"
        if self.is_gone:
            return "none passed"
        return "" if any(one.publications for one in self.rows) else "new"

    @property
    def is_gone(self) -> bool:
        """Whether it is a segment of which images passed before, and none now."""
        rate = self.rows[0]
        return self.segment is not None and bool(rate.median) and not self.passed

    @property
    def drop(self) -> float:
        """How much lower the pass rate is than its median, as a share of it: 1 if nothing passed."""
        rate = self.rows[0]
        now = 0.0 if self.is_gone else rate.now
        return -math.inf if not rate.median or now is None else (rate.median - now) / rate.median


def baseline(past: Sequence[PastPublication]) -> Baseline:
    """The baseline of these publications, which lie before the run that is compared."""
    values: dict[tuple[str | None, str], list[float]] = defaultdict(list)
    for fact in (fact for publication in past for fact in publication.facts):
        segment = fact.segment if fact.scope == "segment" else None
        for metric in METRICS:
            if (value := _value(fact, metric)) is not None:
                values[segment, metric].append(value)
    medians = [
        Median(metric=metric, segment=segment, median=median(found), publications=len(found))
        for (segment, metric), found in values.items()
    ]
    return Baseline(runs=tuple(one.run_id for one in past if one.facts), medians=tuple(medians))


def compare(baseline: Baseline, facts: Sequence[Facts]) -> tuple[Scope, ...]:
    """This run beside its baseline: overall, then the segments of both, those that lost most first.

    A run without a segment column is compared overall only. Empty without a publication to compare with.
    """
    if not baseline.runs:
        return ()
    now = {fact.segment: fact for fact in facts}
    medians = {(one.segment, one.metric): one for one in baseline.medians}
    segments = {segment for segment in now if segment is not None}
    if segments:
        segments |= {one.segment for one in baseline.medians if one.segment is not None}
    scopes = [_scope(segment, now.get(segment), medians) for segment in (None, *sorted(segments))]
    return (scopes[0], *sorted(scopes[1:], key=lambda one: -one.drop))


def cells(scopes: Sequence[Scope]) -> list[list[str]]:
    """Each scope as text: its name, then what ``HEADER`` names."""
    return [
        [
            "overall" if scope.segment is None else shown(scope.segment)[:_MAX_CHARACTERS],
            *(text for one in scope.rows for text in _shown(one, scope.sampled)),
            str(max(one.publications for one in scope.rows)),
            scope.note,
        ]
        for scope in scopes
    ]


def gone(scopes: Sequence[Scope]) -> str:
    """The segments without a passed image now, in a sentence; empty if there is none."""
    names = [shown(one.segment)[:_MAX_CHARACTERS] for one in scopes if one.is_gone]
    if not names:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"Images of these segments passed before, and none now: {', '.join(names[:_NAMED])}{more}."


def markdown(scopes: Sequence[Scope]) -> str:
    """The comparison as a table in Markdown, of at most ``MAX_SHOWN`` rows; empty without a scope."""
    if not scopes:
        return ""
    lines = [["", *HEADER], ["---", *("---:" for _ in HEADER[:-1]), "---"]]
    lines += [[code(name), *numbers] for name, *numbers in cells(scopes[:MAX_SHOWN])]
    left_out = len(scopes) - MAX_SHOWN
    more = f"\nand {left_out:,} more segments\n" if left_out > 0 else ""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + more


def _scope(
    segment: str | None, fact: Facts | None, medians: Mapping[tuple[str | None, str], Median]
) -> Scope:
    def row(metric: str) -> Compared:
        found = medians.get((segment, metric))
        now = None if fact is None else _value(fact, metric)
        return Compared(
            metric, segment, now, found.median if found else None, found.publications if found else 0
        )

    rows, passed = tuple(row(metric) for metric in METRICS), 0 if fact is None else fact.passed
    return Scope(segment, rows, fact is None, passed, None if fact is None else fact.sampled)


def _value(fact: Facts | ScopeFacts, metric: str) -> float | None:
    """A metric of a run; no pass rate of a few images."""
    value: float | None = getattr(fact, metric)
    return pass_rate.known(value, fact.sampled) if metric == "pass_rate" else value


def _shown(one: Compared, sampled: int | None) -> tuple[str, str]:
    """This run's value and the median."""
    if one.metric == "cost_per_approved_usd":
        return amount(one.now, 6), amount(one.median, 6)
    return pass_rate.shown(one.now, sampled if one.metric == "pass_rate" else None), share(one.median)
