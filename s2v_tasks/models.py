"""The records that travel between the stages: frozen, slotted, without behaviour that waits or writes."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """What became of one input row; every row has exactly one."""

    PASSED = "passed"
    FAILED = "failed"
    SCREENED_OUT = "screened_out"
    ERROR = "error"
    UNKNOWN = "unknown"
    UNSPENT = "unspent"
    DUPLICATE = "duplicate"


ATTEMPTED: Final = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.UNKNOWN)
"""The outcomes of pictures that the detector was asked about; what shares are shares of."""


class Billing(StrEnum):
    """Whether the vendor charged a call. ``UNKNOWN`` counts at full price; ``NONE``: no call was made."""

    BILLED = "billed"
    NOT_BILLED = "not_billed"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Profile:
    """What is particular to one detector.

    ``price_micro_usd`` is per successful request, ``rate_per_s`` per account and model, sides in pixels.
    """

    model: str
    path: str
    verdict_field: str
    price_micro_usd: int
    rate_per_s: float
    min_side_px: int
    max_side_px: int
    formats: frozenset[str]


WAN22_S2V_DETECT = Profile(
    model="wan2.2-s2v-detect",
    path="/services/aigc/image2video/face-detect",
    verdict_field="check_pass",
    price_micro_usd=574,
    rate_per_s=5.0,
    min_side_px=400,
    max_side_px=7000,
    formats=frozenset({"jpeg", "png", "bmp", "webp"}),
)
"""The portrait check of wan2.2-s2v. Source: vendor's model, price and rate pages, as of 2026-10."""


@dataclass(frozen=True, slots=True)
class Screened:
    """What the free look at a picture told. ``reason`` None: keep; sizes None: could not be known.

    ``image_traits``: what refuses nothing but may matter later, joined by commas, such as ``animated``.
    ``content_key``: a hash of all its bytes, if they were wanted and had. ``validator``: its strong ETag.
    """

    image_key: str
    reason: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    image_format: str | None = None
    image_traits: str | None = None
    content_key: str | None = None
    validator: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One unique picture: its key and the URL to send, as given. It may be signed: not shown.

    ``seen``: what an earlier look told, for a new one that need only find it unchanged.
    """

    image_key: str
    url: str = field(repr=False)
    seen: Screened | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about one unique picture after the paid stage.

    ``attempts`` and ``cost_micro_usd`` are this run's, ``paid_micro_usd`` is all that was ever charged or may
    have been; ``billing`` is that of the attempt that decided.
    """

    image_key: str
    outcome: Outcome
    reason: str | None = None
    check_pass: bool | None = None
    humanoid: bool | None = None
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None
    billing: Billing = Billing.NONE
    judged_at: datetime | None = None
    attempts: int = 0
    cost_micro_usd: int = 0
    paid_micro_usd: int = 0
    from_ledger: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """The numbers a gate judges, for the whole data set or one segment of it.

    Counts are unique pictures (duplicates not counted), reused verdicts included; shares are 0 to 1 and None
    where there is nothing to divide by; amounts in USD. ``cost_per_approved_usd`` is infinite when money was
    spent and nothing passed.
    """

    scope: str
    segment: str | None
    rows: int
    unique: int
    passed: int
    failed: int
    error: int
    unknown: int
    unspent: int
    screened_out: int
    unreachable: int
    attempted: int
    pass_rate: float | None
    error_share: float | None
    unknown_share: float | None
    unspent_share: float | None
    unreachable_share: float | None
    cost_usd: float
    data_set_cost_usd: float
    cost_per_approved_usd: float | None


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expectation as it was judged: its name, what was seen, the threshold it was held against."""

    suite: str
    name: str
    success: bool
    observed: str
    threshold: str
    segment: str | None = None

    def __str__(self) -> str:
        where = f" (segment {self.segment})" if self.segment is not None else ""
        return f"{self.name}{where}: observed {self.observed}, wanted {self.threshold}"


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate says: open only if every expectation of every suite held."""

    open: bool
    expectations: tuple[Expectation, ...]
    facts: tuple[Facts, ...]
    judged_at: datetime

    @property
    def failed(self) -> tuple[Expectation, ...]:
        """The expectations that did not hold."""
        return tuple(e for e in self.expectations if not e.success)
