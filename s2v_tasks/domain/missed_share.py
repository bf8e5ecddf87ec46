"""Missed share: passing images that rules of the face check drop, as a share of all that pass; its bounds.

It is measured among the passed images of the run's random sample, in which images are checked whatever the
rules say: the share of those that a rule would drop. The upper bound is that of `confidence`. What the sample
itself has checked is not lost, so the share that is given up is lower still.

Images whose faces are not known do not count. Most of them have a verdict from another run; if that was of
the sample, the same images are in the sample again, and as passes that no rule drops they would prove it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import polars as pl

from s2v_tasks.domain import faces
from s2v_tasks.domain.confidence import Tally
from s2v_tasks.domain.funnel import is_dropped
from s2v_tasks.models import Outcome

PROOF: Final = 6.5
"""Passed images without a miss that prove a share, times that share: 130 for 0.05.

116 would be enough (`confidence`); the rest allows for a miss now and then.
"""
_ENOUGH: Final = 60
"""Results that a share is estimated from, the pass rate of the sample's: so many come early."""
_RULES: Final = tuple(faces.BUCKET_OF)
_BOUNDS: Final = ("missed_share_upper", *(f"{rule}_missed_upper" for rule in _RULES))


@dataclass(frozen=True, slots=True)
class MissedShare:
    """What rules dropped in a run, and what its random sample says of it.

    ``dropped``: images by rule, without rules that dropped none. ``passed``: passed images of the sample, of
    which these rules would have dropped ``missed``. ``upper``: the bound; None: nothing was dropped.
    """

    dropped: tuple[tuple[str, int], ...]
    passed: int
    missed: int
    upper: float | None

    @classmethod
    def of(cls, counted: Mapping[str, Any]) -> "MissedShare":
        """That of a run, by the sums of its `tallies`."""
        hits, passed = _measured(counted, "audited_in_run")
        missed = sum(hits.values())
        dropped = tuple((rule, counted[f"dropped_{rule}"]) for rule in hits)
        return cls(dropped, passed, missed, _upper(missed, passed) if hits else None)


def tallies() -> list[pl.Expr]:
    """Counts of verdict rows, as aggregates, that `with_bounds` and `MissedShare.of` work from."""
    is_passed = pl.col("outcome") == Outcome.PASSED.value
    found = [is_dropped().sum().cast(pl.Int64).alias("dropped")]
    for sample in ("audited", "audited_in_run"):
        of_sample = is_passed & pl.col(sample).fill_null(value=False) & pl.col("faces_seen").is_not_null()
        found.append(of_sample.sum().cast(pl.Int64).alias(f"{sample}_passed"))
        for rule in _RULES:
            hits = of_sample & (faces.rule_of([rule]) == rule).fill_null(value=False)
            found.append(hits.sum().cast(pl.Int64).alias(f"{sample}_{rule}"))
    for rule in _RULES:
        of_rule = is_dropped() & (pl.col("reason") == rule)
        found.append(of_rule.sum().cast(pl.Int64).alias(f"dropped_{rule}"))
    return found


def with_bounds(facts: pl.DataFrame) -> pl.DataFrame:
    """Rows of `tallies` with a ``scope``, and their bounds; a rule that dropped nothing has none."""
    found: dict[str, list[float | None]] = {name: [] for name in _BOUNDS}
    for row in facts.iter_rows(named=True):
        is_overall = row["scope"] == "overall"
        hits, passed = _measured(row, "audited_in_run" if is_overall else "audited")
        found["missed_share_upper"].append(
            _upper(sum(hits.values()), passed) if hits and is_overall else None
        )
        for rule in _RULES:
            found[f"{rule}_missed_upper"].append(_upper(hits[rule], passed) if rule in hits else None)
    dropped = pl.when(pl.col("scope") == "overall").then("dropped").alias("dropped")
    return facts.with_columns(dropped).with_columns(
        pl.Series(name, values, pl.Float64) for name, values in found.items()
    )


def checks_to_prove(limit: float, pass_rate: float) -> float:
    """How many images the sample checks until a missed share is proven, at a pass rate."""
    proven = limit * pass_rate
    return PROOF / proven if proven else math.inf


def is_out_of_reach(images: float, sample: Tally, limit: float) -> bool:
    """Whether the proof would check most of what the rules drop, so that they save nothing.

    The sample takes images at random, so it checks the same part of all as of those that the rules drop.
    Until it has 60 results, the pass rate counts as 1.

    Args:
        images: Images that can be checked, of the whole run.
        sample: The run's sample so far.
        limit: The highest missed share that the gate allows.
    """
    rate = share(sample.hits, sample.hits + sample.misses)
    return checks_to_prove(limit, rate) > images / 2


def share(part: int, of: int) -> float:
    """A share so far; 1 until there are enough of them."""
    return part / of if of >= _ENOUGH else 1.0


def out_of_reach_message(images: float, sample: Tally, limit: float) -> str:
    """Why the rules are not used."""
    passes = checks_to_prove(limit, 1.0)
    results = sample.hits + sample.misses
    rate = f", and {sample.hits} of {results} images of the sample passed" if results else ""
    return (
        f"images are dropped by no rule, only ordered: to prove a missed share of at most {limit:g} takes"
        f" about {passes:.0f} passed images of the random sample, which is most of {images:.0f} images{rate}"
    )


def wrong_rule_message(rule: str, sample: Tally, limit: float) -> str:
    """Why a rule is not used any more."""
    return (
        f"the rule {rule} drops no more images, and those that it dropped are checked: of"
        f" {sample.hits + sample.misses} passed images of the random sample it would have dropped"
        f" {sample.hits}, at least {sample.bounds.low:.1%}; the gate allows {limit:g}"
    )


def _measured(counted: Mapping[str, Any], sample: str) -> tuple[dict[str, int], int]:
    """Of the passed images of a sample those of each rule that dropped some, and how many passed."""
    hits = {rule: counted[f"{sample}_{rule}"] for rule in _RULES if counted[f"dropped_{rule}"]}
    return hits, counted[f"{sample}_passed"]


@cache
def _upper(hits: int, passed: int) -> float:
    return Tally(hits, passed - hits).bounds.high
