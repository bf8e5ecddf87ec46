"""Detect API: builds the request for one image and parses its response. Pure.

Status, code and message together decide what a response means, never the status alone. `error_body` finds
code and message in a body; the table in `response_rules` classifies them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from s2v_tasks.domain.error_body import (
    URL_PATTERN,
    Reading,
    json_object,
    normalize_code,
    readings,
    request_id,
    text,
)
from s2v_tasks.domain.response_rules import (
    CHECK_FAILED,
    CHECKS,
    DEBT,
    FAILED_CHECKS,
    GATEWAY,
    REASONS,
    RESPONSE_LOST,
    RULES,
    UNRECOGNISED,
    Kind,
    Rule,
)
from s2v_tasks.models import Billing, DetectorSpec, Outcome

__all__ = [
    "CHECK_FAILED",
    "FAILED_CHECKS",
    "MAX_RETRY_AFTER_S",
    "REASONS",
    "RESPONSE_LOST",
    "RULES",
    "DetectResponse",
    "Kind",
    "Request",
    "account_error_message",
    "build_request",
    "lost_response",
    "parse_response",
]

MAX_RETRY_AFTER_S: Final = 60.0


_BURST_CODES: Final = frozenset({normalize_code("Throttling.BurstRate"), normalize_code("limit_burst_rate")})


@dataclass(frozen=True, slots=True)
class DetectResponse:
    """The parsed response to one call. ``message`` is the vendor's, or describes the missing response.

    ``listed``: the code alone decided. ``systemic``: the response may concern every request, not this image.
    """

    kind: Kind
    billing: Billing
    reason: str | None = None
    check_pass: bool | None = None
    humanoid: bool | None = None
    code: str | None = None
    message: str | None = None
    request_id: str | None = None
    http_status: int | None = None
    retry_after_s: float | None = None
    late_retry: bool = False
    remembered: bool = False
    listed: bool = False
    systemic: bool = False

    @property
    def is_burst(self) -> bool:
        """Whether the rate rose too suddenly: the account needs a slow start."""
        return self.kind is Kind.THROTTLED and normalize_code(self.code or "") in _BURST_CODES

    @property
    def description(self) -> str:
        """Status, code and message as text."""
        status = f"HTTP {self.http_status}" if self.http_status else "no HTTP response"
        return " ".join(part for part in (status, self.code, self.message) if part)

    @property
    def sample(self) -> str:
        """The description for a log: without URLs, with the request's id."""
        return f"{URL_PATTERN.sub('...', self.description)} (request {self.request_id or 'without an id'})"

    @property
    def outcome(self) -> Outcome:
        """The image's outcome if no further attempt is made."""
        if self.kind is Kind.VERDICT:
            return Outcome.PASSED if self.check_pass else Outcome.FAILED
        return Outcome.UNKNOWN if self.billing is Billing.UNKNOWN else Outcome.ERROR


@dataclass(frozen=True, slots=True)
class Request:
    """One call, ready to send. ``path`` is relative to the base URL; ``body`` is secret: it holds the URL."""

    path: str
    body: bytes = field(repr=False)


def build_request(detector: DetectorSpec, image_url: str) -> Request:
    """Build the request that checks one image; the URL is sent exactly as given."""
    body = {"model": detector.model, "input": {"image_url": image_url}}
    return Request(detector.path, json.dumps(body).encode())


def parse_response(
    detector: DetectorSpec, status: int, headers: Mapping[str, str], body: bytes
) -> DetectResponse:
    """Parse an HTTP response. It never raises: an unreadable response gives a ``DetectResponse`` too.

    Args:
        detector: The detector that was called.
        status: The HTTP status.
        headers: The HTTP headers, names in lower case.
        body: The body, or its first part if it broke off.
    """
    document = json_object(body)
    vendor_id = request_id(document) or text(headers.get("x-request-id"))
    if status == 200:
        return _read_200(detector, document, vendor_id)
    rule, reading = _rule_for(status, document)
    # A gateway that timed out does not know whether the service did the work.
    lost = not document and status in {502, 504}
    return DetectResponse(
        rule.kind,
        Billing.UNKNOWN if lost else Billing.NOT_BILLED,
        rule.reason,
        check_pass=False if rule.kind is Kind.VERDICT else None,
        code=reading.code or None,
        message=reading.message or None,
        request_id=vendor_id,
        http_status=status,
        retry_after_s=_retry_after(headers.get("retry-after")),
        late_retry=rule.late_retry,
        remembered=rule.remembered,
        listed=rule.is_listed,
        systemic=300 <= status < 500 and (rule.systemic or rule.kind is Kind.UNRECOGNISED),
    )


def _read_200(
    detector: DetectorSpec, document: Mapping[str, object], vendor_id: str | None
) -> DetectResponse:
    """Parse a 200: with a verdict it is billed; without one it may be, because the vendor bills every 200."""
    output = _member(document, "output")
    verdict = output.get(detector.verdict_field)
    if not isinstance(verdict, bool):
        rule, reading = _rule_for(200, document)
        return DetectResponse(
            Kind.ACCOUNT if rule.kind is Kind.ACCOUNT else Kind.TRANSIENT,
            Billing.UNKNOWN,
            RESPONSE_LOST,
            code=reading.code or None,
            message=reading.message or "HTTP 200 without a verdict",
            request_id=vendor_id,
            http_status=200,
        )
    reading = next(iter(readings(output)), Reading("", ""))
    humanoid = output.get("humanoid")
    return DetectResponse(
        Kind.VERDICT,
        Billing.BILLED,
        None if verdict else CHECKS.get(normalize_code(reading.code), CHECK_FAILED),
        check_pass=verdict,
        humanoid=humanoid if isinstance(humanoid, bool) else None,
        code=reading.code or None,
        message=reading.message or None,
        request_id=vendor_id,
        http_status=200,
        remembered=True,
        listed=True,
    )


_MONEY: Final = "pay the account's bill in the vendor's console"
_ADVICE: Final[Mapping[str, str]] = {
    "commoditynotpurchased|isvproductun": "activate the model in the vendor's console",
    "arrearage": "pay the account's balance in the vendor's console",
    f"{DEBT}|outofservice|amountnotenough|^402": _MONEY,
    "budgetlimit": "raise the account's spending limit in the vendor's console",
    r"(hour|week|month) allocated quota": "the plan's quota is used up: use another key, or wait",
    "quota|free tier": "the free quota is used up: switch off 'free tier only' in the vendor's console",
    "badrequest": "the vendor refuses the request as such: update this program",
    "unsupportedoperation": "the vendor does not let this account call the model this way: contact support",
    r"\bnot exist": "check the model's name and the region of the vendor's base URL",
    "endpointaccessdenied": (
        "DASHSCOPE_API_KEY must be a key of the workspace that DASHSCOPE_HTTP_BASE_URL names"
    ),
    "^401|apikey": (
        "check DASHSCOPE_API_KEY: it must be a key of the China (Beijing) region and of this workspace"
        " (a temporary one, st-..., lives 60 to 1,800 s)"
    ),
    "^403|accessdenied|isv|isp": (
        "grant the account access to the model (and the workspace) in the vendor's console"
    ),
    r"^404 +$": "check DASHSCOPE_HTTP_BASE_URL: it begins with https:// and ends in /api/v1",
    "notfound|^404": (
        "check the model's and the workspace's name, and the region of the base URL (it ends in /api/v1)"
    ),
}
"""The fix, by a pattern of "status code message" with the normalized code; the first match wins."""
_SEE: Final = "see the vendor's error-code page"


def account_error_message(response: DetectResponse) -> str:
    """The message for a refused account: the fact, then the fix."""
    text = f"{response.http_status} {normalize_code(response.code or '')} {response.message or ''}"
    fix = next((fix for sign, fix in _ADVICE.items() if re.search(sign, text, re.IGNORECASE)), _SEE)
    return (
        f"the vendor refuses the account ({response.description}); {fix}."
        " Everything received is kept: run the same command again afterwards"
    )


def lost_response(detail: str, *, sent: bool, headers: Mapping[str, str] | None = None) -> DetectResponse:
    """The response of a call that got none: not billed if it was not sent, else of unknown billing.

    Args:
        detail: What happened, for the message.
        sent: Whether anything of the request was sent.
        headers: HTTP headers that arrived before the response broke off, names in lower case.
    """
    vendor_id = text((headers or {}).get("x-request-id"))
    if not sent:
        return DetectResponse(Kind.TRANSIENT, Billing.NOT_BILLED, GATEWAY.reason, message=detail)
    return DetectResponse(
        Kind.TRANSIENT, Billing.UNKNOWN, RESPONSE_LOST, message=detail, request_id=vendor_id
    )


def _rule_for(status: int, document: Mapping[str, object]) -> tuple[Rule, Reading]:
    """The first rule that matches one of a body's readings, and that reading."""
    candidates = readings(document) or [Reading("", "")]
    if not document and status >= 500:
        return GATEWAY, candidates[0]
    matching = ((rule, reading) for rule in RULES for reading in candidates if rule.matches(status, reading))
    return next(matching, (UNRECOGNISED, candidates[0]))


def _member(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, 0 to 60. A date is ignored: the vendor does not document one."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return None if seconds is None or seconds != seconds else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
