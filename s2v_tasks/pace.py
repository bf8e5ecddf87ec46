"""The pace: one reserved instant per call, shared by everyone on an account. Pure arithmetic.

The shared row is a `Pace`; times are integer microseconds on the ledger's clock. An instant is the
theoretical arrival time of the generic cell rate algorithm (GCRA) with a burst of one: calls are spread
evenly, which any kind of window admits.
"""

from dataclasses import dataclass, replace
from typing import Final

SECOND_US: Final = 1_000_000
BASE_MARGIN_PPM: Final = 10_000
"""1 %: with no jitter on the way, enough to stay inside a sliding second."""
MAX_MARGIN_PPM: Final = 200_000
FIRST_PAUSE_US: Final = SECOND_US
MAX_PAUSE_US: Final = 60 * SECOND_US
CLEAN_US: Final = 60 * SECOND_US
"""A minute without a throttle takes a third of the extra margin back."""
MAX_LEAD_US: Final = 30 * SECOND_US
MAX_LEAD_CALLS: Final = 64
"""No honest instant is further ahead than both: beyond, the clock jumped back (or the machine restarted)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The row that all processes of an account share, for one model."""

    next_us: int = 0
    margin_ppm: int = BASE_MARGIN_PPM
    paused_until_us: int = 0
    pause_us: int = 0
    throttled_us: int = 0
    """When the last throttle was noticed, or its last relaxation; 0: never."""

    def interval_us(self, rate_per_s: float) -> int:
        """Microseconds between two calls at ``rate_per_s``, margin included."""
        return round(SECOND_US * (1 + self.margin_ppm / 1e6) / rate_per_s)


def reserve(pace: Pace, now_us: int, rate_per_s: float) -> tuple[int, Pace]:
    """The next free instant, and the row after taking it.

    ``rate_per_s`` must be positive: whoever is allowed nothing does not reserve.
    """
    lead = max(MAX_LEAD_US, MAX_LEAD_CALLS * pace.interval_us(rate_per_s))
    if pace.next_us - now_us > lead + max(0, pace.paused_until_us - now_us):
        pace = replace(pace, next_us=now_us)
    pace = _relaxed(_sane(pace, now_us), now_us)
    instant = max(pace.next_us, pace.paused_until_us, now_us)
    return instant, replace(pace, next_us=instant + pace.interval_us(rate_per_s))


def postpone(
    pace: Pace, instant_us: int, after_us: int, now_us: int, lead_us: int, rate_per_s: float
) -> tuple[int, Pace]:
    """A new instant for one that was missed: soon if nobody reserved after it, else the next free one.

    ``after_us`` is what the missed reservation left in ``next_us``; ``lead_us`` is for the time that it takes
    to write this one down, or on a slow disk it would be missed again.
    """
    if pace.next_us == after_us:
        pace = replace(pace, next_us=instant_us)
    return reserve(pace, now_us + lead_us, rate_per_s)


def throttled(pace: Pace, sent_us: int, now_us: int, retry_after_us: int = 0) -> Pace:
    """The row after a 429 for a call that left at ``sent_us``.

    Everyone pauses and the margin grows by half. Calls that were under way when the pause began tell nothing
    new. The pause doubles only when calls made right after it are throttled again.
    """
    pace = _sane(pace, now_us)
    if pace.throttled_us and sent_us < pace.paused_until_us:
        return replace(pace, paused_until_us=max(pace.paused_until_us, now_us + retry_after_us))
    follows = pace.pause_us and sent_us - pace.paused_until_us < 2 * SECOND_US
    pause = min(2 * pace.pause_us, MAX_PAUSE_US) if follows else FIRST_PAUSE_US
    return replace(
        pace,
        margin_ppm=min(round(pace.margin_ppm * 1.5), MAX_MARGIN_PPM),
        pause_us=pause,
        paused_until_us=now_us + max(pause, retry_after_us),
        throttled_us=now_us,
    )


def _sane(pace: Pace, now_us: int) -> Pace:
    # A second more, for clocks are also corrected a little.
    if pace.paused_until_us - now_us > MAX_PAUSE_US + SECOND_US:
        pace = replace(pace, paused_until_us=now_us, next_us=min(pace.next_us, now_us))
    return pace if pace.throttled_us <= now_us else replace(pace, throttled_us=now_us)


def _relaxed(pace: Pace, now_us: int) -> Pace:
    excess = pace.margin_ppm - BASE_MARGIN_PPM
    clean_since_us = max(pace.throttled_us, pace.paused_until_us)  # a pause proves nothing
    if excess <= 0 or now_us - clean_since_us < CLEAN_US:
        return pace
    excess = excess * 2 // 3 if excess > 300 else 0
    return replace(pace, margin_ppm=BASE_MARGIN_PPM + excess, throttled_us=now_us)
