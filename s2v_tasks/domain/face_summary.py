"""Face summary: what a run with a face check did not check, for people and for other programs.

That is what its rules dropped, with the proof of how little they give up, and what was left out as hopeless.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from s2v_tasks.domain.ledger import HOPELESS
from s2v_tasks.domain.missed_share import MissedShare
from s2v_tasks.domain.shown_text import shown
from s2v_tasks.models import Outcome

MISSED: Final = "missed"
_NAMED: Final = 3  # segments
_MAX_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class FaceSummary:
    """``sampled``: attempted images of the random sample; ``hopeless``: images left out, by segment.

    Without a segment column the only segment is empty. Most images first.
    """

    sampled: int
    missed_share: MissedShare
    hopeless: tuple[tuple[str, int], ...] = ()

    @property
    def dropped(self) -> int:
        """Images that the rules dropped."""
        return sum(images for _, images in self.missed_share.dropped)

    @property
    def left_out(self) -> int:
        """Images that were left out as hopeless."""
        return sum(images for _, images in self.hopeless)

    def figures(self, limit: float | None) -> dict[str, int | float | None]:
        """The figures for other programs; ``limit``: the highest missed share that the gate allows."""
        return {
            "dropped": self.dropped,
            **dict(self.missed_share.dropped),
            "sampled": self.sampled,
            "sampled_passed": self.missed_share.passed,
            "sampled_missed": self.missed_share.missed,
            "missed_share_upper": self.missed_share.upper,
            "max_missed_share": limit,
            "hopeless": self.left_out,
            "hopeless_segments": sum(1 for segment, _ in self.hopeless if segment),
        }

    def lines(self, limit: float | None) -> list[tuple[str, str]]:
        """The figures for people: labels of up to 10 characters, and sentences. ``limit`` as in `figures`."""
        found = [("face check", self._checked())]
        if self.missed_share.upper is not None:
            found.append((MISSED, self._missed(self.missed_share.upper, limit)))
        if self.hopeless:
            found.append((HOPELESS, self._hopeless()))
        return found

    def _checked(self) -> str:
        by_rule = ", ".join(f"{rule} {images:,}" for rule, images in self.missed_share.dropped)
        dropped = f"{_images(self.dropped)} dropped ({by_rule})" if by_rule else "no image dropped"
        return f"{dropped}; {self.sampled:,} checked as a random sample, whatever their faces"

    def _missed(self, upper: float, limit: float | None) -> str:
        """The bound, what it is measured on, and its threshold."""
        proof = self.missed_share
        allowed = "" if limit is None else f" (the gate allows {limit:.1%})"
        return (
            f"at most {upper:.1%} of all that would pass{allowed}: the rules would have dropped"
            f" {proof.missed:,} of {proof.passed:,} passed images of the whole run's random sample"
        )

    def _hopeless(self) -> str:
        named = [(shown(segment)[:_MAX_CHARACTERS], images) for segment, images in self.hopeless if segment]
        where = ""
        if named:
            some = ", ".join(f"{segment} {images:,}" for segment, images in named[:_NAMED])
            more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
            where = f" of {len(named):,} segment{'s' if len(named) > 1 else ''} ({some}{more})"
        why = "the pass rate can't reach what the gate wants"
        also = "" if self.missed_share.upper is None else "; good ones among them are not in the missed share"
        return f"{_images(self.left_out)}{where} not checked: {why}{also}"


def hopeless_of(counts: pl.DataFrame, segment: str) -> tuple[tuple[str, int], ...]:
    """Rows left out as hopeless by segment, most first.

    Args:
        counts: Columns ``outcome``, ``reason``, ``rows`` and that of the segment.
        segment: The name of that column.
    """
    found = counts.filter(outcome=Outcome.SKIPPED.value, reason=HOPELESS).group_by(segment)
    by_segment = found.agg(pl.col("rows").sum()).sort("rows", segment, descending=[True, False])
    return tuple(by_segment.iter_rows())


def markdown(lines: Iterable[tuple[str, str]]) -> str:
    """Lines as one paragraph each, in Markdown; others' text in them was made plain."""
    return "".join(f"**{label.capitalize()}** {_plain(text)}\n\n" for label, text in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{one}" if one in r"\`*_{}[]<>#|" else one for one in text)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
