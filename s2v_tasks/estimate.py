"""What a run will cost, told before it costs anything. Pure arithmetic over counts and a sample.

Rows, duplicates and pictures known to the ledger are counted, not guessed. How many of the others the free
screen will throw out is guessed from a random sample: a 95 % interval (Wilson's, widened because it foretells
a number still to be drawn, not a share), in which the sampled pictures themselves are certain.
"""

import math
from dataclasses import dataclass
from typing import Final

from s2v_tasks.ledger import usd

Z_95: Final = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""
CLIP_S: Final = 10
CLIP_USD_PER_S: Final[dict[str, float]] = {"480P": 0.071677, "720P": 0.129018}
"""The stage behind, wan2.2-s2v, by resolution. Source: vendor's price page, as of 2026-10."""


@dataclass(frozen=True, slots=True)
class Span:
    """A lower and an upper end, both possible."""

    low: float
    high: float

    def times(self, factor: float) -> "Span":
        """Both ends, in another unit."""
        return Span(self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known before a run. Counts are rows, then unique pictures.

    ``rows`` = ``refused`` (by their address) + ``duplicates`` + ``known`` (to the ledger) + ``left``; of
    ``left``, ``sampled`` were looked at and ``sampled_out`` of them can't pass. ``budget_images`` is what the
    budget buys, None without one. ``is_screened`` False: no picture is looked at before it is paid for.
    """

    rows: int
    refused: int
    duplicates: int
    known: int
    left: int
    sampled: int
    sampled_out: int
    price_micro_usd: int
    rate_per_s: float
    budget_images: int | None = None
    is_screened: bool = True

    @property
    def to_pay(self) -> Span:
        """Pictures to pay for, whatever the budget: whole numbers."""
        if not self.is_screened:
            return Span(self.left, self.left)
        return kept_of(self.left, self.sampled, self.sampled - self.sampled_out)

    @property
    def paid(self) -> Span:
        """Pictures that the budget reaches."""
        most = self.left if self.budget_images is None else self.budget_images
        return Span(min(self.to_pay.low, most), min(self.to_pay.high, most))

    @property
    def screened_out(self) -> Span:
        """Pictures that the free screen will throw out, among ``left``."""
        return Span(self.left - self.to_pay.high, self.left - self.to_pay.low)

    @property
    def cost_usd(self) -> Span:
        """What the run will spend; every answer counted, as if each were billed."""
        return self.paid.times(usd(self.price_micro_usd))

    @property
    def hours(self) -> Span:
        """How long the paid calls take at the account's rate, alone on it."""
        return self.paid.times(1 / (3600 * self.rate_per_s))

    def clips_usd(self, resolution: str) -> Span:
        """What the stage behind would cost: a ten-second clip of each picture that is paid for."""
        return self.paid.times(CLIP_S * CLIP_USD_PER_S[resolution])

    @property
    def is_short(self) -> bool:
        """Whether the budget may end before all is judged."""
        return self.paid.high < self.to_pay.high


def kept_of(left: int, sampled: int, kept: int) -> Span:
    """How many of ``left`` pictures are kept, as ``kept`` of ``sampled`` were: a 95 % interval.

    The sampled pictures themselves are certain; without any, all is possible.
    """
    rest = left - sampled
    if not rest:
        return Span(kept, kept)
    if not sampled:
        return Span(0, left)
    share = wilson(kept, sampled, Z_95 * math.sqrt(1 + sampled / rest))
    return Span(kept + math.floor(rest * share.low), kept + math.ceil(rest * share.high))


def wilson(hits: int, trials: int, z: float = Z_95) -> Span:
    """Wilson's score interval for a share, 0 to 1."""
    share, squared = hits / trials, z * z
    middle = (share + squared / (2 * trials)) / (1 + squared / trials)
    half = z / (1 + squared / trials) * math.sqrt(share * (1 - share) / trials + squared / (4 * trials**2))
    # At the ends the share itself is possible; arithmetic must not leave it out by a hair.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == trials else min(1.0, middle + half)
    return Span(low, high)


def needs_approval(estimate: Estimate, above_usd: float | None) -> bool:
    """Whether a person must say yes first: the upper end is over the amount."""
    return above_usd is not None and estimate.cost_usd.high > above_usd


def headline(estimate: Estimate) -> str:
    """The estimate in one line."""
    return (
        f"{_whole(estimate.paid)} pictures to pay for, USD {_money(estimate.cost_usd)},"
        f" {_duration(estimate.hours)} at {estimate.rate_per_s:g} calls a second"
    )


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """The estimate as labels and values, in the order of the way a row takes."""
    e = estimate
    found = [
        ("rows", f"{e.rows:,}"),
        ("refused by their address", f"{e.refused:,}"),
        ("duplicates", f"{e.duplicates:,}"),
        ("known to the ledger, free", f"{e.known:,}"),
        ("screened out for free", _screening(e)),
        ("pictures to pay for", _whole(e.to_pay)),
        ("cost, USD", _money(e.cost_usd)),
        ("time", f"{_duration(e.hours)} at {e.rate_per_s:g} calls a second"),
    ]
    if e.is_short:
        found.insert(-2, ("the budget reaches", f"{_whole(e.paid)} of them"))
    found += [
        (f"a {CLIP_S} s clip of each, {resolution}, USD", _money(e.clips_usd(resolution), 2))
        for resolution in CLIP_USD_PER_S
    ]
    return found


def markdown(estimate: Estimate) -> str:
    """The same for a page."""
    table = "\n".join(f"| {label} | {value} |" for label, value in lines(estimate))
    return f"## Estimate: {headline(estimate)}\n\n| | |\n| --- | ---: |\n{table}\n\n{NOTE}\n"


NOTE: Final = (
    "Ranges are 95 % intervals, from a random sample. A lost answer counts at full price and may be asked"
    " once more. The clips are what the stage behind would cost, and what a check of each picture protects."
)


def _screening(estimate: Estimate) -> str:
    if not estimate.is_screened:
        return "0 (not screened)"
    if not estimate.left:
        return "0"
    return f"{_whole(estimate.screened_out)} ({estimate.sampled_out:,} of {estimate.sampled:,} looked at)"


def _whole(span: Span) -> str:
    return _span(f"{span.low:,.0f}", f"{span.high:,.0f}")


def _money(span: Span, digits: int = 4) -> str:
    return _span(f"{span.low:,.{digits}f}", f"{span.high:,.{digits}f}")


def _duration(hours: Span) -> str:
    if hours.high >= 1:
        return _span(f"{hours.low:,.1f}", f"{hours.high:,.1f}") + " h"
    minutes = hours.times(60)
    if minutes.high >= 1:
        return _span(f"{minutes.low:.0f}", f"{minutes.high:.0f}") + " min"
    seconds = minutes.times(60)
    return _span(f"{seconds.low:.0f}", f"{seconds.high:.0f}") + " s"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
