"""Stage 4: the money rules. Pure; the database adapter keeps what they say, in one transaction each.

An attempt is one call, reserved before it leaves and settled with its answer::

    reserved ──> billed        an answer came, and it costs
        ├──────> not_billed    an answer came, and it is free
        ├──────> (forgotten)   the call never left: its money is given back
        └──────> unknown       no answer, or its run died: counts at full price
    unknown ───> billed | not_billed    the answer came late after all

What counts against a budget is ``reserved + billed + unknown``, in whole pictures, so a cap is met exactly
and never passed.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Final

from s2v_tasks.detect import NO_ANSWER, Answer, Kind
from s2v_tasks.models import Billing, Outcome, Profile, Verdict
from s2v_tasks.settings import OnUnknown


class State(StrEnum):
    """The state of an attempt."""

    RESERVED = "reserved"
    BILLED = "billed"
    NOT_BILLED = "not_billed"
    UNKNOWN = "unknown"


MOVES: Final[frozenset[tuple[State, State]]] = frozenset(
    {
        (State.RESERVED, State.BILLED),
        (State.RESERVED, State.NOT_BILLED),
        (State.RESERVED, State.UNKNOWN),
        (State.UNKNOWN, State.BILLED),
        (State.UNKNOWN, State.NOT_BILLED),
    }
)
"""The moves an attempt may make; every other one is refused."""

CHARGED: Final = frozenset({State.RESERVED, State.BILLED, State.UNKNOWN})
"""The states that count against a budget."""

MICRO_USD: Final = 1_000_000
MAX_IMAGES: Final = 2**62
"""More than anybody has, and small enough for a database's integers."""
BUDGET_SPENT: Final = "budget_spent"
RUN_STOPPED: Final = "run_stopped"
LOST_ANSWERS_ALLOWED: Final[dict[OnUnknown, int]] = {"retry": 2, "assume-paid": 1}
"""How many answers may be lost for one picture, over all runs of a ledger, before it is asked no more."""


def images_bought(budget_usd: float, price_micro_usd: int) -> int:
    """Whole pictures that ``budget_usd`` buys; exact, as if the amount were written in decimals."""
    return min(int(Fraction(repr(budget_usd)) * MICRO_USD // price_micro_usd), MAX_IMAGES)


def usd(micro_usd: int) -> float:
    """An amount of the ledger in USD."""
    return micro_usd / MICRO_USD


def settled_state(answer: Answer) -> State:
    """The state an answer moves its attempt to."""
    return State(answer.billing.value)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger knows about one picture.

    ``verdict`` is the remembered answer, if any; ``verdict_run`` the run that paid for it; ``calls_run`` and
    ``charges_run`` count the asking run's attempts, ``charges`` everybody's, ``lost`` the unknown ones.
    """

    image_key: str
    verdict: Verdict | None = None
    verdict_run: str | None = None
    calls_run: int = 0
    charges_run: int = 0
    charges: int = 0
    lost: int = 0

    def is_exhausted(self, on_unknown: OnUnknown) -> bool:
        """Whether so many answers were lost that the picture is asked no more."""
        return self.verdict is None and self.lost >= LOST_ANSWERS_ALLOWED[on_unknown]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose pictures and whose pace: verdicts are kept apart by service, the pace by account too."""

    service: str
    account: str
    profile: Profile


@dataclass(frozen=True, slots=True)
class Reserved:
    """A call that may be made: picture, money and instant are reserved. ``at_s`` is on the local clock."""

    attempt_id: int
    at_s: float
    instant_us: int
    after_us: int


@dataclass(frozen=True, slots=True)
class NotReserved:
    """No call is to be made: the standing says why (known or exhausted)."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Busy:
    """Another live run has a call for this picture under way."""


@dataclass(frozen=True, slots=True)
class Spent:
    """The budget is used up. Not ``final`` while calls are under way that may turn out free."""

    final: bool


def verdict_of(image_key: str, answer: Answer) -> Verdict:
    """The verdict that an answer gives if no further attempt is made."""
    return Verdict(
        image_key,
        answer.outcome,
        NO_ANSWER if answer.outcome is Outcome.UNKNOWN else answer.reason,
        check_pass=answer.check_pass,
        humanoid=answer.humanoid,
        code=answer.code,
        message=answer.message,
        request_id=answer.request_id,
        http_status=answer.http_status,
        billing=answer.billing,
    )


def lost_verdict(image_key: str) -> Verdict:
    """The verdict on a picture whose answers were lost too often to ask again."""
    return Verdict(image_key, Outcome.UNKNOWN, NO_ANSWER, billing=Billing.UNKNOWN)


def unasked(image_key: str, reason: str) -> Verdict:
    """The verdict on a picture that was not asked: ``budget_spent`` or ``run_stopped``."""
    return Verdict(image_key, Outcome.UNSPENT, reason)


def best_of(came: Verdict, answer: Answer) -> Verdict:
    """The verdict when no retry could be made: an answer about the picture, or a lost one, stands."""
    stands = answer.billing is Billing.UNKNOWN or answer.late_retry
    if came.outcome in {Outcome.UNSPENT, Outcome.UNKNOWN} and stands:
        return verdict_of(came.image_key, answer)
    return came


def charged(verdict: Verdict, standing: Standing, run_id: str, now: datetime) -> Verdict:
    """A verdict with what the ledger knows: whose it is, this run's calls and cost, all that was paid."""
    verdict = standing.verdict or verdict  # the ledger's word, with the time it was given
    asked, decided = standing.calls_run > 0, verdict.outcome is not Outcome.UNSPENT
    reused = verdict.outcome is Outcome.UNKNOWN and not asked
    if standing.verdict is not None:
        reused = standing.verdict_run != run_id
    return replace(
        verdict,
        attempts=standing.calls_run,
        cost_micro_usd=standing.charges_run,
        paid_micro_usd=standing.charges,
        from_ledger=reused,
        judged_at=verdict.judged_at or (now if asked and decided else None),
    )


def is_success(answer: Answer) -> bool:
    """Whether the service works: it gave an answer about the picture, whatever it says."""
    return answer.kind in {Kind.VERDICT, Kind.IMAGE, Kind.ORIGIN}
