"""When calls were written to the network: what is sent after a late one keeps its distance from it."""

from collections import deque
from math import inf
from typing import Final

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.domain.rate_limit import BASE_MARGIN_PPM

_REMEMBERED: Final = 1_000
"""Calls; at a higher rate than so many a second nothing is delayed."""
_MARGIN: Final = BASE_MARGIN_PPM / 1e6 / 2
"""Half of that of the send times: a call that was written in time delays none."""


class WrittenCalls:
    """The last calls that this process wrote.

    A call is written after its send time: by milliseconds if the event loop is busy, by more if a connection
    is opened first. The service counts what arrives: by their send times alone the calls after it would be
    too many in one second.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_s: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self) -> None:
        """A call is written."""
        self._at_s.append(self._clock.monotonic())

    def next_s(self, rate_per_s: float) -> float:
        """The earliest time of one more call, on the clock: a second after the one that many calls before."""
        calls = max(1, int(rate_per_s))
        if len(self._at_s) < calls:
            return -inf
        return self._at_s[-calls] + (1 + _MARGIN) * calls / rate_per_s
