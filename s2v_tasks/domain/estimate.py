"""Estimate: what a run will cost, before its first call. Pure arithmetic over counts and a sample.

Rows, duplicates and images already checked are counted. How many of the others the free screening rejects is
estimated from a random sample: a 95 % interval (Wilson's, widened because it predicts a count that is still
to be drawn, not a share), in which the sampled images themselves are certain.
"""

import math
from dataclasses import dataclass
from typing import Final

from s2v_tasks.domain import face_estimate
from s2v_tasks.domain.face_estimate import SampledFaces
from s2v_tasks.domain.interval import Z_95, Span, wilson
from s2v_tasks.domain.ledger import usd

CLIP_S: Final = 10
CLIP_USD_PER_S: Final[dict[str, float]] = {"480P": 0.071677, "720P": 0.129018}
"""Prices of the downstream stage, wan2.2-s2v, by resolution. Source: vendor's price page, as of 2026-10."""

TEMPORARY_KEY: Final = "st-"
TEMPORARY_KEY_S: Final = (60, 1_800)
"""Its lifetime in seconds, by default and at most. Source: vendor's page on temporary keys, as of 2026-11."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The figures known before a run. Counts are rows, then unique images.

    ``rows`` = ``rejected`` (by their URL) + ``duplicates`` + ``already_checked`` (by any run of the ledger) +
    ``remaining``; of ``remaining``, ``sampled`` were screened and ``sampled_out`` of them can't pass, for
    ``reasons``, each with its count. ``budget_images`` is what the budget buys, None without one.
    ``is_screened`` False: no image is screened before it is paid for.
    """

    rows: int
    rejected: int
    duplicates: int
    already_checked: int
    remaining: int
    sampled: int
    sampled_out: int
    price_micro_usd: int
    rate_per_s: float
    budget_images: int | None = None
    is_screened: bool = True
    reasons: tuple[tuple[str, int], ...] = ()
    faces: SampledFaces | None = None

    @property
    def to_pay(self) -> Span:
        """Images to pay for, whatever the budget: whole numbers."""
        if not self.is_screened:
            return Span(self.remaining, self.remaining)
        return kept_span(self.remaining, self.sampled, self.sampled - self.sampled_out)

    @property
    def paid(self) -> Span:
        """Images that the budget reaches."""
        most = self.remaining if self.budget_images is None else self.budget_images
        return Span(min(self.to_pay.low, most), min(self.to_pay.high, most))

    @property
    def screened_out(self) -> Span:
        """Images that the free screening rejects, of ``remaining``."""
        return Span(self.remaining - self.to_pay.high, self.remaining - self.to_pay.low)

    @property
    def run_cost_usd(self) -> Span:
        """What the run will spend, with every call counted as billed."""
        return self.paid.times(usd(self.price_micro_usd))

    @property
    def hours(self) -> Span:
        """How long the paid calls take at the account's rate, alone on it."""
        return self.paid.times(1 / (3600 * self.rate_per_s))

    def clips_usd(self, resolution: str) -> Span:
        """What the downstream stage would cost: a ten-second clip of each image that is paid for."""
        return self.paid.times(CLIP_S * CLIP_USD_PER_S[resolution])

    @property
    def is_short(self) -> bool:
        """Whether the budget may end before every image is checked."""
        return self.paid.high < self.to_pay.high

    def figures(self) -> dict[str, object]:
        """The figures for other programs: counts, and each interval as ``[low, high]``."""
        spans = ("to_pay", "paid", "screened_out", "run_cost_usd", "hours")
        counts = ("rows", "rejected", "duplicates", "already_checked", "remaining", "sampled", "sampled_out")
        return {
            **{name: getattr(self, name) for name in counts},
            **{name: [getattr(self, name).low, getattr(self, name).high] for name in spans},
            "is_short": self.is_short,
            **{name: [span.low, span.high] for name, span in self.with_faces().items()},
        }

    def with_faces(self) -> dict[str, Span]:
        """What `s2v_tasks.domain.face_estimate.spans` says; empty without a face check."""
        return {} if self.faces is None else face_estimate.spans(self.faces, self.to_pay, self.paid)


def kept_span(remaining: int, sampled: int, kept: int) -> Span:
    """How many of ``remaining`` images are kept, if ``kept`` of ``sampled`` were: a 95 % interval.

    Args:
        remaining: Images, the sampled ones included.
        sampled: Images of the random sample; 0 gives the widest interval.
        kept: Images of the sample that are kept.
    """
    rest = remaining - sampled
    if not rest:
        return Span(kept, kept)
    if not sampled:
        return Span(0, remaining)
    share = wilson(kept, sampled, Z_95 * math.sqrt(1 + sampled / rest))
    return Span(kept + math.floor(rest * share.low), kept + math.ceil(rest * share.high))


def needs_approval(estimate: Estimate, above_usd: float | None) -> bool:
    """Whether a person must approve first: the upper end is above the amount."""
    return above_usd is not None and estimate.run_cost_usd.high > above_usd


def headline(estimate: Estimate) -> str:
    """The estimate in one line."""
    return (
        f"{estimate.paid.shown()} images to pay for, USD {estimate.run_cost_usd.shown(4)},"
        f" {_duration(estimate.hours)} at {estimate.rate_per_s:g} calls a second"
    )


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """The estimate as labels and values, in the order of the stages."""
    e = estimate
    table = [
        ("rows", f"{e.rows:,}"),
        ("rejected by their URL", f"{e.rejected:,}"),
        ("duplicates", f"{e.duplicates:,}"),
        ("already checked, free", f"{e.already_checked:,}"),
        ("screened out for free", _screening(e)),
        *((f"    {reason}", f"{count:,} of {e.sampled:,}") for reason, count in e.reasons),
        ("images to pay for", e.to_pay.shown()),
        ("cost, USD", e.run_cost_usd.shown(4)),
        ("time", f"{_duration(e.hours)} at {e.rate_per_s:g} calls a second"),
    ]
    if e.is_short:
        table.insert(-2, ("the budget reaches", f"{e.paid.shown()} of them"))
    if e.faces is not None:
        table += face_estimate.lines(e.faces, e.to_pay, e.paid, usd(e.price_micro_usd))
    table += [
        (f"a {CLIP_S} s clip of each, {resolution}, USD", e.clips_usd(resolution).shown(2))
        for resolution in CLIP_USD_PER_S
    ]
    return table


def markdown(estimate: Estimate) -> str:
    """The estimate as Markdown."""
    table = "\n".join(f"| {label} | {value} |" for label, value in lines(estimate))
    return f"## Estimate: {headline(estimate)}\n\n| | |\n| --- | ---: |\n{table}\n\n{NOTE}\n"


NOTE: Final = (
    "Ranges are 95 % intervals, from a random sample. A lost response counts at full price and may be sent"
    " once more. The clips show what the downstream stage would cost, which the check of each image protects."
)


def _screening(estimate: Estimate) -> str:
    if not estimate.is_screened:
        return "0 (not screened)"
    if not estimate.remaining:
        return "0"
    return f"{estimate.screened_out.shown()} ({estimate.sampled_out:,} of {estimate.sampled:,} sampled)"


def _duration(hours: Span) -> str:
    if hours.high >= 1:
        return f"{hours.shown(1)} h"
    minutes = hours.times(60)
    return f"{minutes.shown()} min" if minutes.high >= 1 else f"{minutes.times(60).shown()} s"


def key_warning(api_key: str, images: float, rate_per_s: float) -> str | None:
    """A warning about a temporary key that may expire before ``images`` are checked; None for other keys."""
    needed_s = images / rate_per_s if rate_per_s else 0.0
    default_s, most_s = TEMPORARY_KEY_S
    if not api_key.startswith(TEMPORARY_KEY) or needed_s <= default_s:
        return None
    will = "will expire" if needed_s > most_s else "may expire"
    return (
        f"the key is a temporary one ({TEMPORARY_KEY}...), which lives {default_s} to {most_s:,} s: it {will}"
        f" before this run, which takes about {needed_s:,.0f} s. Use a lasting key (sk-...), or continue the"
        " run with new ones"
    )
