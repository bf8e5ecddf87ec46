"""Rate windows: decide whether a call at ``now`` is admitted. Pure; seconds of one monotonic clock.

The vendor does not document its window, so there is one class for each plausible kind. ``limit`` is always
calls per second. A refused call does not count towards any window.
"""

from collections import deque
from math import floor
from typing import Final, Protocol

from s2v_tasks.errors import UsageError


class Window(Protocol):
    """Anything that admits or refuses calls in order of arrival; ``now`` never goes back."""

    def admit(self, now: float) -> bool:
        """Whether the call arriving at ``now`` (seconds) is admitted; count it if so."""


class Unlimited:
    """Admits every call."""

    def admit(self, now: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Admit."""
        return True


class SlidingWindow:
    """At most ``calls`` in any half-open span of ``span_s`` seconds."""

    def __init__(self, calls: int, span_s: float) -> None:
        self._calls = calls
        self._span_s = span_s
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Admit unless ``calls`` were admitted within the last ``span_s`` seconds."""
        while self._admitted and now - self._admitted[0] >= self._span_s:
            self._admitted.popleft()
        if len(self._admitted) >= self._calls:
            return False
        self._admitted.append(now)
        return True


class FixedWindow:
    """At most ``calls`` in each span of the clock's own grid: [0, span), [span, 2 span), ..."""

    def __init__(self, calls: int, span_s: float) -> None:
        self._calls = calls
        self._span_s = span_s
        self._span: int | None = None
        self._count = 0

    def admit(self, now: float) -> bool:
        """Admit unless the grid span that ``now`` falls in is full."""
        span = floor(now / self._span_s)
        if span != self._span:
            self._span, self._count = span, 0
        if self._count >= self._calls:
            return False
        self._count += 1
        return True


class LeakyBucket:
    """A bucket of ``depth`` calls, empty at first, that leaks ``rate_per_s`` calls a second."""

    def __init__(self, rate_per_s: float, depth: int) -> None:
        self._rate_per_s = rate_per_s
        self._depth = depth
        self._level = 0.0
        self._at: float | None = None

    def admit(self, now: float) -> bool:
        """Admit if one more call fits into the bucket."""
        if self._at is not None:
            self._level = max(0.0, self._level - (now - self._at) * self._rate_per_s)
        self._at = now
        # A call exactly one interval later must fit, despite rounding.
        if self._level + 1 > self._depth + 1e-9:
            return False
        self._level += 1
        return True


WINDOW_NAMES: Final = ("sliding", "fixed", "leaky", "minute")
"""``sliding`` and ``fixed`` second, ``leaky`` bucket, ``minute``: any sliding 60 seconds."""

_MINUTE_S: Final = 60.0


def make_window(name: str, limit: float | None) -> Window:
    """Make the window called ``name`` that admits ``limit`` calls a second; None: no limit.

    A limit that is no whole number of calls keeps its rate by a shorter or longer span: 2.5 a second is 2 in
    0.8 s, 0.5 a second is 1 in 2 s. ``leaky`` holds one second's worth of calls.

    Raises:
        UsageError: The window is unknown, or the limit is not above 0.
    """
    if name not in WINDOW_NAMES:
        raise UsageError(f"no rate window is called {name!r}. Choose one of {', '.join(WINDOW_NAMES)}")
    if limit is None:
        return Unlimited()
    if not limit > 0:
        raise UsageError(f"a rate limit is above 0 calls a second, not {limit}; leave it out for no limit")
    if name == "leaky":
        return LeakyBucket(limit, max(1, floor(limit)))
    calls = max(1, floor(limit * (_MINUTE_S if name == "minute" else 1.0)))
    span_s = calls / limit
    return FixedWindow(calls, span_s) if name == "fixed" else SlidingWindow(calls, span_s)
