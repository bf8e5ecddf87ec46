"""Circuit breaker: sends ever more rarely to a service that fails, and stops the run after too long."""

from s2v_tasks.adapters.clock import Clock
from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.domain.ledger import is_success
from s2v_tasks.domain.retry_policy import RetryPolicy
from s2v_tasks.errors import Outage


class CircuitBreaker:
    """Counts the failures since the last response that says something about an image."""

    def __init__(self, clock: Clock, policy: RetryPolicy) -> None:
        self._clock = clock
        self._policy = policy
        self._failures = 0
        self._failing_since_s: float | None = None

    def record(self, response: DetectResponse) -> Outage | None:
        """Count a response; an `Outage` if the service has failed for too long."""
        if is_success(response):
            self._failures, self._failing_since_s = 0, None
            return None
        now_s = self._clock.monotonic()
        self._failures += response.kind is Kind.TRANSIENT
        self._failing_since_s = now_s if self._failing_since_s is None else self._failing_since_s
        failing_s = now_s - self._failing_since_s
        if failing_s <= self._policy.outage_after_s:
            return None
        return Outage(
            f"the service gave no usable response for {failing_s:.0f} s (last: {response.description});"
            " everything received is kept: run the same command again later"
        )

    def restart_clock(self) -> None:
        """A pause by the operator is no outage: time failures from the next one."""
        self._failing_since_s = None

    @property
    def backoff_s(self) -> float:
        """Seconds to wait before the next call: 0 while the service works."""
        if self._failures <= 2:
            return 0.0
        return min(0.5 * 2.0 ** min(self._failures - 3, 10), self._policy.max_backoff_s)
