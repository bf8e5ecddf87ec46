"""Ledger rules: the state machine of paid calls. Pure; the database adapter applies each in one transaction.

An attempt is one call, reserved before it is sent and settled with its response::

    reserved ──> billed        a response that is charged
        ├──────> not_billed    a response that is free
        ├──────> (released)    the call was not sent: its money is released
        └──────> unknown       no response, or its run died: counts at full price
    unknown ───> billed | not_billed    the response arrived late

What counts against a budget is ``reserved + billed + unknown``, in whole images, so a cap is never exceeded
and never passed.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Final

from s2v_tasks.domain.detect import RESPONSE_LOST, DetectResponse, Kind
from s2v_tasks.domain.retry_policy import MAX_LOST_RESPONSES
from s2v_tasks.models import Billing, DetectorSpec, Outcome, Verdict
from s2v_tasks.settings import OnLostResponse


class State(StrEnum):
    """The state of an attempt."""

    RESERVED = "reserved"
    BILLED = "billed"
    NOT_BILLED = "not_billed"
    UNKNOWN = "unknown"


TRANSITIONS: Final[frozenset[tuple[State, State]]] = frozenset(
    {
        (State.RESERVED, State.BILLED),
        (State.RESERVED, State.NOT_BILLED),
        (State.RESERVED, State.UNKNOWN),
        (State.UNKNOWN, State.BILLED),
        (State.UNKNOWN, State.NOT_BILLED),
    }
)
"""The transitions that an attempt may make; every other one is refused."""

CHARGED: Final = frozenset({State.RESERVED, State.BILLED, State.UNKNOWN})
"""The states that count against a budget."""

MICRO_USD: Final = 1_000_000
MAX_IMAGES: Final = 2**62
"""More than any dataset has; fits a database's integers."""
BUDGET_EXHAUSTED: Final = "budget_exhausted"
RUN_STOPPED: Final = "run_stopped"
HOPELESS: Final = "hopeless"
"""The reason of images that are left out as their pass rate can't reach what the gate wants."""


def images_bought(budget_usd: float, price_micro_usd: int) -> int:
    """Whole images that ``budget_usd`` buys; exact, as if the amount were written in decimals."""
    return min(int(Fraction(repr(budget_usd)) * MICRO_USD // price_micro_usd), MAX_IMAGES)


def usd(micro_usd: int) -> float:
    """An amount of the ledger in USD."""
    return micro_usd / MICRO_USD


def settled_state(response: DetectResponse) -> State:
    """The state to which a response settles its attempt."""
    return State(response.billing.value)


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """The ledger's records of one image.

    ``verdict`` is the stored verdict, if any; ``verdict_run`` the run that paid for it. ``calls_run`` counts
    the current run's attempts and ``charges_run`` their micro-USD; ``charges`` covers all runs; ``lost``
    counts attempts of unknown billing.
    """

    image_key: str
    verdict: Verdict | None = None
    verdict_run: str | None = None
    calls_run: int = 0
    charges_run: int = 0
    charges: int = 0
    lost: int = 0

    def is_exhausted(self, on_lost_response: OnLostResponse) -> bool:
        """Whether so many responses were lost that the image is not sent again."""
        return self.verdict is None and self.lost >= MAX_LOST_RESPONSES[on_lost_response]


@dataclass(frozen=True, slots=True)
class Scope:
    """Service, account and detector. Verdicts belong to a service, a rate limit to a service and account."""

    service: str
    account: str
    detector: DetectorSpec


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call that may be sent: image, money and send time are reserved. ``at_s`` is on the local clock."""

    attempt_id: int
    at_s: float
    send_us: int
    next_us_after: int


@dataclass(frozen=True, slots=True)
class NotReserved:
    """No call may be sent: ``image_status`` says why (already checked, or exhausted)."""

    image_status: ImageStatus


@dataclass(frozen=True, slots=True)
class Busy:
    """Another live run has a call for this image in flight."""


@dataclass(frozen=True, slots=True)
class OutOfBudget:
    """The budget is used up. Not ``final`` while calls in flight may turn out free."""

    final: bool


def verdict_of(image_key: str, response: DetectResponse) -> Verdict:
    """The verdict that a response gives if no further attempt is made."""
    return Verdict(
        image_key,
        response.outcome,
        RESPONSE_LOST if response.outcome is Outcome.UNKNOWN else response.reason,
        check_pass=response.check_pass,
        humanoid=response.humanoid,
        code=response.code,
        message=response.message,
        request_id=response.request_id,
        http_status=response.http_status,
        billing=response.billing,
    )


def lost_verdict(image_key: str) -> Verdict:
    """The verdict on an image whose responses were lost too often to send it again."""
    return Verdict(image_key, Outcome.UNKNOWN, RESPONSE_LOST, billing=Billing.UNKNOWN)


def skipped_verdict(image_key: str, reason: str) -> Verdict:
    """The verdict on an image that was not sent: ``budget_exhausted`` or ``run_stopped``."""
    return Verdict(image_key, Outcome.SKIPPED, reason)


def final_verdict(retried: Verdict, response: DetectResponse) -> Verdict:
    """The verdict if a retry could not be sent: a response about the image, or a lost one, is final."""
    is_final = response.billing is Billing.UNKNOWN or response.late_retry
    if retried.outcome in {Outcome.SKIPPED, Outcome.UNKNOWN} and is_final:
        return verdict_of(retried.image_key, response)
    return retried


def with_ledger_figures(verdict: Verdict, image_status: ImageStatus, run_id: str, now: datetime) -> Verdict:
    """A verdict with the ledger's figures: reused or not, the run's calls and cost, the lifetime cost."""
    verdict = image_status.verdict or verdict  # a stored verdict wins, with its time
    was_sent, decided = image_status.calls_run > 0, verdict.outcome is not Outcome.SKIPPED
    reused = verdict.outcome is Outcome.UNKNOWN and not was_sent
    if image_status.verdict is not None:
        reused = image_status.verdict_run != run_id
    return replace(
        verdict,
        attempts=image_status.calls_run,
        run_cost_micro_usd=image_status.charges_run,
        lifetime_cost_micro_usd=image_status.charges,
        from_ledger=reused,
        checked_at=verdict.checked_at or (now if was_sent and decided else None),
    )


def is_success(response: DetectResponse) -> bool:
    """Whether the service works: the response is about the image, whatever its verdict."""
    return response.kind in {Kind.VERDICT, Kind.IMAGE, Kind.ORIGIN}
