"""What this process did for a run, for progress and summaries; the ledger is the truth about money."""

from collections import Counter
from dataclasses import dataclass, field

from s2v_tasks.domain.detect import DetectResponse, Kind
from s2v_tasks.models import Billing, Outcome


@dataclass(slots=True)
class RunStats:
    """Counts of this process. ``charged_micro_usd`` counts lost responses at full price."""

    checked: Counter[Outcome] = field(default_factory=Counter)
    reused: int = 0
    calls: int = 0
    charged_micro_usd: int = 0
    throttled: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    unrecognised: int = 0
    first_unrecognised: DetectResponse | None = None
    sent: int = 0
    first_sent_s: float = 0.0
    last_sent_s: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Calls a second from the first to the last one sent."""
        span_s = self.last_sent_s - self.first_sent_s
        return (self.sent - 1) / span_s if span_s > 0 else 0.0

    def count_sent(self, now_s: float) -> None:
        """Count a call that is sent."""
        self.first_sent_s = self.first_sent_s if self.sent else now_s
        self.last_sent_s = now_s
        self.sent += 1

    def count_response(self, response: DetectResponse, price_micro_usd: int) -> None:
        """Count a response."""
        self.calls += 1
        self.charged_micro_usd += price_micro_usd * (response.billing is not Billing.NOT_BILLED)
        self.throttled += response.kind is Kind.THROTTLED
        if response.kind is not Kind.VERDICT:
            self.codes[response.code or response.reason or "?"] += 1
        if response.kind is Kind.UNRECOGNISED:
            self.unrecognised += 1
            self.first_unrecognised = self.first_unrecognised or response
