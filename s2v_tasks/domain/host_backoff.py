"""Backoff for a host that responds with 429, or 503 with Retry-After: a pause, then a lower rate. Pure.

Additive increase and multiplicative decrease of the rate, as an interval between two requests; and a circuit
breaker: after some refusals in a row nothing is sent until the pause has passed.
"""

from dataclasses import dataclass
from typing import Final

MAX_PAUSE_S: Final = 30.0
"""The longest wait for a host; images of a host that asks for longer are not requested."""
_MIN_INTERVAL_S: Final = 0.25
_MAX_INTERVAL_S: Final = 2.0
_QUICKER: Final = 0.8  # the interval after a response that is no refusal
_REFUSALS: Final = 3


@dataclass(slots=True)
class HostBackoff:
    """The state of one host. Times are seconds of one monotonic clock.

    ``pause_s``: the pause after the first refusal that names none; each further refusal doubles it.
    """

    pause_s: float = 1.0
    refusals: int = 0
    interval_s: float = 0.0
    paused_until: float = 0.0
    next_at: float = 0.0

    def delay(self, now: float, *, is_late: bool = False) -> float | None:
        """Seconds until the next request may be sent, which this call reserves; None: none may.

        ``is_late``: this is the image's last fetch, so it waits through more refusals.
        """
        pause = max(0.0, self.paused_until - now)
        if pause > MAX_PAUSE_S or (pause and self.refusals >= _REFUSALS * (1 + is_late)):
            return None
        at = max(now + pause, self.next_at)
        self.next_at = at + self.interval_s
        return at - now

    def record_refusal(self, now: float, retry_after_s: float) -> None:
        """Record a refusal that names a pause; 0 if it names none."""
        if now < self.paused_until:  # sent before the last refusal arrived: one burst counts once
            self.paused_until = max(self.paused_until, now + retry_after_s)
            return
        self.paused_until = now + (retry_after_s or min(self.pause_s * 2**self.refusals, MAX_PAUSE_S))
        self.refusals += 1
        self.interval_s = min(max(2 * self.interval_s, _MIN_INTERVAL_S), _MAX_INTERVAL_S)

    def record_success(self) -> None:
        """Record a response that is no refusal."""
        self.refusals = 0
        self.interval_s *= _QUICKER
        if self.interval_s < _MIN_INTERVAL_S / 4:
            self.interval_s = 0.0
