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
SLOW_START_US: Final = 60 * SECOND_US
"""The vendor advises to slow down for about a minute after a throttle.
Source: vendor's rate-limit page, as of 2026-10."""
SLOW_START: Final = 4
"""How many times slower than allowed a slow start begins."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The row that all processes of an account share, for one model."""

    next_us: int = 0
    margin_ppm: int = BASE_MARGIN_PPM
    paused_until_us: int = 0
    pause_us: int = 0
    throttled_us: int = 0
    """When the last throttle was noticed, or its last relaxation; 0: never."""
    slow_until_us: int = 0
    """Until when calls are further apart than the rate asks for, ever less so: a slow start."""
    written_us: int = 0
    """When the row was written last: a clock that shows less has been set back."""

    def interval_us(self, rate_per_s: float, instant_us: int = 0) -> int:
        """Microseconds from a call at ``instant_us`` to the next at ``rate_per_s``, margin included."""
        slow = min(max(0, self.slow_until_us - instant_us) / SLOW_START_US, 1.0)
        return round(SECOND_US * (1 + self.margin_ppm / 1e6) * (1 + (SLOW_START - 1) * slow) / rate_per_s)


def reserve(pace: Pace, now_us: int, rate_per_s: float, lead_us: int = 0) -> tuple[int, Pace]:
    """The next free instant, at least ``lead_us`` away, and the row after taking it.

    ``rate_per_s`` must be positive: whoever is allowed nothing does not reserve.
    """
    pace = _relaxed(_as_of(pace, now_us), now_us)
    instant = max(pace.next_us, pace.paused_until_us, now_us + lead_us)
    return instant, replace(pace, next_us=instant + pace.interval_us(rate_per_s, instant))


def give_back(pace: Pace, instant_us: int, after_us: int) -> Pace:
    """The row after an instant was missed: free again if nobody reserved after it.

    ``after_us`` is what its reservation left in ``next_us``.
    """
    return replace(pace, next_us=instant_us) if pace.next_us == after_us else pace


def throttled(pace: Pace, sent_us: int, now_us: int, retry_after_us: int = 0, *, burst: bool = False) -> Pace:
    """The row after a 429 for a call that left at ``sent_us``; ``burst``: for calling too suddenly.

    Everyone pauses and the margin grows by half. Calls that were under way when the pause began tell nothing
    new. The pause doubles only when calls made right after it are throttled again. A burst is followed by a
    slow start.
    """
    pace = _as_of(pace, now_us)
    if pace.throttled_us and sent_us < pace.paused_until_us:
        return replace(pace, paused_until_us=max(pace.paused_until_us, now_us + retry_after_us))
    follows = pace.pause_us and sent_us - pace.paused_until_us < 2 * SECOND_US
    pause = min(2 * pace.pause_us, MAX_PAUSE_US) if follows else FIRST_PAUSE_US
    paused_until_us = now_us + max(pause, retry_after_us)
    return replace(
        pace,
        margin_ppm=min(round(pace.margin_ppm * 1.5), MAX_MARGIN_PPM),
        pause_us=pause,
        paused_until_us=paused_until_us,
        throttled_us=now_us,
        slow_until_us=paused_until_us + SLOW_START_US if burst else pace.slow_until_us,
    )


def _as_of(pace: Pace, now_us: int) -> Pace:
    """The row on the clock of now: if that was set back (or started anew), all its times go back with it."""
    back_us = max(0, pace.written_us - now_us)
    return replace(
        pace,
        next_us=pace.next_us - back_us,
        paused_until_us=pace.paused_until_us - back_us,
        throttled_us=max(0, pace.throttled_us - back_us),
        slow_until_us=pace.slow_until_us - back_us,
        written_us=now_us,
    )


def _relaxed(pace: Pace, now_us: int) -> Pace:
    excess = pace.margin_ppm - BASE_MARGIN_PPM
    clean_since_us = max(pace.throttled_us, pace.paused_until_us)  # a pause proves nothing
    if excess <= 0 or now_us - clean_since_us < CLEAN_US:
        return pace
    excess = excess * 2 // 3 if excess > 300 else 0
    return replace(pace, margin_ppm=BASE_MARGIN_PPM + excess, throttled_us=now_us)
