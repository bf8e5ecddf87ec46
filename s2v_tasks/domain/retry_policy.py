"""Retry policy: which responses (429, lost ones) are worth another attempt, and after how long. Pure."""

from dataclasses import dataclass
from typing import Final

from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.settings import OnLostResponse

MAX_LOST_RESPONSES: Final[dict[OnLostResponse, int]] = {"retry": 2, "assume-paid": 1}
"""Lost responses of one image, over all runs of a ledger, after which it is not sent again."""
STOP_S: Final = 12.0
"""How long a run waits for anything after a signal."""


@dataclass(frozen=True, slots=True)
class AttemptHistory:
    """The history of one image in this run: transient failures and late retries so far."""

    transient: int = 0
    late: int = 0

    def after(self, response: DetectResponse) -> "AttemptHistory":
        """The history with one more response."""
        is_transient = response.kind is Kind.TRANSIENT
        return AttemptHistory(self.transient + is_transient, self.late + response.late_retry)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of retries; times in seconds.

    ``transient``: attempts of an image that end in a failure of the service. Over all images a run repeats up
    to ``budget`` such calls plus ``budget_share`` of all calls with a response, so that a failing service
    does not get ever more calls. ``late``: retries of an image that the vendor could not fetch, each a random
    time within ``late_s`` later. ``max_in_flight`` is for the model's documented rate, and grows with a
    larger rate limit. ``settle_s``: how long a stopping run waits for calls in flight, and for a ledger that
    is away; ``stop_s``: the same, after a signal.
    """

    transient: int = 4
    budget: int = 100
    budget_share: float = 0.2
    backoff_s: float = 1.0
    max_backoff_s: float = 30.0
    late: int = 1
    late_s: tuple[float, float] = (20.0, 60.0)
    outage_after_s: float = 300.0
    busy_s: float = 0.5
    max_in_flight: int = 64
    settle_s: float = 30.0
    stop_s: float = STOP_S

    def next_delay(
        self, response: DetectResponse, history: AttemptHistory, repeated: int, calls: int, jitter: float
    ) -> float | None:
        """Seconds until the next attempt for an image, or None: its last response is final.

        Args:
            response: The last response.
            history: The image's history, ``response`` included.
            repeated: Calls that the run has repeated after failures of the service.
            calls: Calls of the run that had a response.
            jitter: A random number from 0 to 1.
        """
        retry_after_s = response.retry_after_s or 0.0
        if response.kind is Kind.THROTTLED:
            return 0.0  # `rate_limit.throttled` delays it
        if response.kind is Kind.TRANSIENT:
            if history.transient >= self.transient or repeated >= self.budget + self.budget_share * calls:
                return None
            ceiling = min(self.backoff_s * 2.0 ** (history.transient - 1), self.max_backoff_s)
            return max((0.5 + 0.5 * jitter) * ceiling, retry_after_s)
        if response.late_retry and history.late <= self.late:
            low, high = self.late_s
            return max(low + (high - low) * jitter, retry_after_s)
        return None
