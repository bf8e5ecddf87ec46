"""Rate limit: one send time per call, for all processes of an account; a 429 delays them all. Pure.

The shared row is a `RateLimitState`; times are integer microseconds on the ledger's clock. A send time is the
theoretical arrival time of the generic cell rate algorithm (GCRA) with a burst of one: calls are spaced
evenly, which any kind of rate window admits.
"""

from dataclasses import dataclass, replace
from typing import Final

SECOND_US: Final = 1_000_000
BASE_MARGIN_PPM: Final = 10_000
"""1 %: enough to stay inside a sliding second, if there is no network jitter."""
MAX_MARGIN_PPM: Final = 200_000
FIRST_PAUSE_US: Final = SECOND_US
MAX_PAUSE_US: Final = 60 * SECOND_US
CLEAN_US: Final = 60 * SECOND_US
"""After a minute without a 429, a third of the extra margin is removed."""
SLOW_START_US: Final = 60 * SECOND_US
"""The vendor advises to slow down for about a minute after a 429.
Source: vendor's rate-limit page, as of 2026-10."""
SLOW_START: Final = 4
"""How many times slower than allowed a slow start begins."""


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """The row that all processes of an account share, for one model."""

    next_us: int = 0
    margin_ppm: int = BASE_MARGIN_PPM
    paused_until_us: int = 0
    pause_us: int = 0
    throttled_us: int = 0
    """When the last 429 was recorded, or the margin last reduced; 0: never."""
    slow_until_us: int = 0
    """End of the slow start, during which the interval shrinks to that of the rate."""
    written_us: int = 0
    """When the row was written last: a clock behind it has been set back."""

    def interval_us(self, rate_per_s: float, send_us: int = 0) -> int:
        """Microseconds from a call at ``send_us`` to the next at ``rate_per_s``, margin included."""
        slow = min(max(0, self.slow_until_us - send_us) / SLOW_START_US, 1.0)
        return round(SECOND_US * (1 + self.margin_ppm / 1e6) * (1 + (SLOW_START - 1) * slow) / rate_per_s)


def reserve(
    state: RateLimitState, now_us: int, rate_per_s: float, lead_us: int = 0
) -> tuple[int, RateLimitState]:
    """Reserve the next free send time; return it, and the state with the reservation.

    Args:
        state: The shared state.
        now_us: The time now.
        rate_per_s: Calls per second; above 0.
        lead_us: The send time is at least this far away.
    """
    state = _relaxed(_as_of(state, now_us), now_us)
    send_us = max(state.next_us, state.paused_until_us, now_us + lead_us)
    return send_us, replace(state, next_us=send_us + state.interval_us(rate_per_s, send_us))


def release_slot(state: RateLimitState, send_us: int, next_us_after: int) -> RateLimitState:
    """Release a missed send time; it is free again if no later one is reserved.

    Args:
        state: The shared state.
        send_us: The missed send time.
        next_us_after: ``next_us`` after its reservation.
    """
    return replace(state, next_us=send_us) if state.next_us == next_us_after else state


def throttled(
    state: RateLimitState, sent_us: int, now_us: int, retry_after_us: int = 0, *, burst: bool = False
) -> RateLimitState:
    """Record a 429: all processes pause, and the margin grows by half.

    A 429 for a call that was in flight when the pause began changes nothing else. The pause doubles only when
    calls sent right after it are throttled again. A burst is followed by a slow start.

    Args:
        state: The shared state.
        sent_us: When the throttled call was sent.
        now_us: The time now.
        retry_after_us: The pause that the response asks for.
        burst: The response is about a rate that rose too suddenly.
    """
    state = _as_of(state, now_us)
    if state.throttled_us and sent_us < state.paused_until_us:
        return replace(state, paused_until_us=max(state.paused_until_us, now_us + retry_after_us))
    follows = state.pause_us and sent_us - state.paused_until_us < 2 * SECOND_US
    pause = min(2 * state.pause_us, MAX_PAUSE_US) if follows else FIRST_PAUSE_US
    paused_until_us = now_us + max(pause, retry_after_us)
    return replace(
        state,
        margin_ppm=min(round(state.margin_ppm * 1.5), MAX_MARGIN_PPM),
        pause_us=pause,
        paused_until_us=paused_until_us,
        throttled_us=now_us,
        slow_until_us=paused_until_us + SLOW_START_US if burst else state.slow_until_us,
    )


def _as_of(state: RateLimitState, now_us: int) -> RateLimitState:
    """The state on the current clock: if that was set back (or restarted), shift all times back with it."""
    back_us = max(0, state.written_us - now_us)
    return replace(
        state,
        next_us=state.next_us - back_us,
        paused_until_us=state.paused_until_us - back_us,
        throttled_us=max(0, state.throttled_us - back_us),
        slow_until_us=state.slow_until_us - back_us,
        written_us=now_us,
    )


def _relaxed(state: RateLimitState, now_us: int) -> RateLimitState:
    excess = state.margin_ppm - BASE_MARGIN_PPM
    clean_since_us = max(state.throttled_us, state.paused_until_us)  # a pause proves nothing
    if excess <= 0 or now_us - clean_since_us < CLEAN_US:
        return state
    excess = excess * 2 // 3 if excess > 300 else 0
    return replace(state, margin_ppm=BASE_MARGIN_PPM + excess, throttled_us=now_us)
