"""Stage 3: what is sent to the detector, and how its answer is read. Pure; the table below is the whole rule.

An answer is judged on (HTTP status, code, message), never on the status alone; the first matching rule wins.
Source: vendor's error-code and model pages, 2024-11 to 2026-10.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from s2v_tasks.models import Billing, Outcome, Profile

MAX_RETRY_AFTER_S: Final = 60.0


class Kind(StrEnum):
    """What an answer means for the run."""

    VERDICT = "verdict"
    """A judgement about the picture."""
    IMAGE = "image"
    """This URL can never be judged."""
    ORIGIN = "origin"
    """The vendor could not fetch the picture; once more, much later."""
    THROTTLED = "throttled"
    """Everybody slows down, then this picture again."""
    TRANSIENT = "transient"
    """Again, with backoff."""
    ACCOUNT = "account"
    """Every further call would fail: the run stops."""
    UNRECOGNISED = "unrecognised"
    """Not in the table: handled like ``ORIGIN``, counted, and the first is shown in the log."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: an answer with one of ``codes`` (any, if empty), ``statuses`` and ``message``."""

    kind: Kind
    reason: str
    codes: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    message: re.Pattern[str] | None = None
    late_retry: bool = False
    remembered: bool = False

    def matches(self, status: int, code: str, message: str) -> bool:
        """Whether this row speaks about such an answer. Codes compare without case."""
        return (
            (not self.codes or code.casefold() in self.codes)
            and (not self.statuses or status in self.statuses)
            and (self.message is None or self.message.search(message) is not None)
        )


def _rule(
    kind: Kind,
    reason: str,
    *codes: str,
    statuses: tuple[int, ...] = (),
    message: str | None = None,
    late_retry: bool = False,
    remembered: bool = False,
) -> Rule:
    return Rule(
        kind,
        reason,
        frozenset(code.casefold() for code in codes),
        frozenset(statuses),
        re.compile(message, re.IGNORECASE) if message else None,
        late_retry,
        remembered,
    )


CHECK_FAILED: Final = "check_failed"
FAILED_CHECKS: Final[Mapping[str, str]] = {
    "InvalidFile.NoHuman": "no_human",
    "InvalidFile.MultiHuman": "several_humans",
    "InvalidFile.Content": "content",
    "InvalidFile.BodyProportion": "body_proportion",
    "InvalidFile.FacePose": "face_pose",
    "InvalidFile.FullFace": "face_not_whole",
    "InvalidFile.FrontBody": "body_not_frontal",
    "InvalidFile.BodyPose": "body_pose",
    "InvalidFile.FullBody": "body_not_whole",
    "InvalidFile.Value": "image_value",
    "InvalidFile.FaceNotMatch": "face_not_match",
    "InvalidPerson": "invalid_person",
    "InvalidImage.NoHumanFace": "no_human_face",
}
"""Codes of a failed check, in a 200 (billed) or a 400 (not billed), and their reason."""

_NOT_FETCHED = r"download|fetch|time[d ]*[ -]?out|connect"
_NOT_ALLOWED = r"not? authori|unauthori|permission|forbidden|access denied"
_MODERATION = r"inspection|inappropriate|moderat|sensitive|green network|comply"
_PICTURE = r"image|picture|url|decod|format|resolution|size|content.?type|media|file"

RULES: Final[tuple[Rule, ...]] = (
    # account: first, because some of its codes share a status or a family with milder ones
    _rule(
        Kind.ACCOUNT, "account",
        "InvalidApiKey", "invalid_api_key", "NOT AUTHORIZED", "AccessDenied", "AccessDenied.Unpurchased",
        "Model.AccessDenied", "Workspace.AccessDenied", "AllocationQuota.FreeTierOnly", "Arrearage",
        "CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue", "ModelNotFound",
        "WorkSpaceNotFound", "BadRequest.EmptyInput", "BadRequest.EmptyModel", "BadRequest.IllegalInput",
        "UnsupportedOperation",
    ),
    _rule(Kind.ACCOUNT, "account", statuses=(401,), message=r"not authorized|expired|api.?key|token"),
    _rule(Kind.ACCOUNT, "account", message=r"free allocated quota exceeded|^model not exist|^url error"),
    # throttled
    _rule(
        Kind.THROTTLED, "throttled",
        "Throttling", "Throttling.RateQuota", "limit_requests", "Throttling.BurstRate", "limit_burst_rate",
        "Throttling.AllocationQuota", "insufficient_quota", "ModelServingError",
    ),
    _rule(Kind.THROTTLED, "throttled", statuses=(429,)),
    # verdict: a failed check that came as an error
    *(
        _rule(Kind.VERDICT, reason, code, statuses=(400,), remembered=True)
        for code, reason in FAILED_CHECKS.items()
    ),
    # image: before the next, as its message speaks of fetching too
    _rule(Kind.IMAGE, "not_authorized", "InvalidParameter", message=_NOT_ALLOWED),
    # origin
    _rule(
        Kind.ORIGIN, "origin_failed",
        "InvalidURL.Timeout", "InvalidURL.ConnectionRefused", "InvalidFile.DownloadFailed",
        "BadRequest.InputDownloadFailed", "InternalError.Algo",
        late_retry=True,
    ),
    _rule(
        Kind.ORIGIN, "origin_failed", "InvalidParameter", "InvalidParameter.DataInspection",
        message=_NOT_FETCHED, late_retry=True,
    ),
    # image: what depends on the address of the day, such as an expired signature, is not remembered
    _rule(Kind.IMAGE, "invalid_url", "InvalidURL", late_retry=True),
    _rule(
        Kind.IMAGE, "image_size",
        "InvalidFile.Size", "InvalidFile.ImageSize", "InvalidFile.AspectRatio", "InvalidFile.Resolution",
        "InvalidImage.ImageSize", "InvalidImageResolution", "BadRequest.TooLarge",
        remembered=True,
    ),
    _rule(
        Kind.IMAGE, "image_format",
        "InvalidFile.Format", "InvalidFile.Openerror", "InvalidImage.FileFormat", "InvalidImageFormat",
        "BadRequest.UnsupportedFileFormat",
        remembered=True,
    ),
    _rule(
        Kind.IMAGE, "moderated",
        "DataInspectionFailed", "data_inspection_failed", "IPInfringementSuspect",
        remembered=True,
    ),
    _rule(
        Kind.IMAGE, "moderated", "InvalidParameter", "InvalidParameter.DataInspection",
        message=_MODERATION, remembered=True,
    ),
    _rule(
        Kind.IMAGE, "image_refused", "InvalidParameter", "InvalidParameter.DataInspection",
        message=_PICTURE, remembered=True,
    ),
    # transient
    _rule(
        Kind.TRANSIENT, "service_error",
        "InternalError", "SystemError", "RequestTimeOut", "ResponseTimeout", "ModelServiceFailed",
        "ModelUnavailable", "ClientDisconnect", "ServiceUnavailableError", "APIConnectionError",
    ),
)  # fmt: skip
"""The table. An error that no row matches is ``UNRECOGNISED``."""

UNRECOGNISED: Final = Rule(Kind.UNRECOGNISED, "unrecognised", late_retry=True)
GATEWAY: Final = Rule(Kind.TRANSIENT, "service_error")
NO_ANSWER: Final = "no_answer"
REASONS: Final = frozenset({*FAILED_CHECKS.values(), *(r.reason for r in RULES)}) | {
    CHECK_FAILED,
    UNRECOGNISED.reason,
    NO_ANSWER,
}
"""Every reason that an answer can give: a closed set."""


_BURST_CODES: Final = frozenset({"Throttling.BurstRate", "limit_burst_rate"})


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's answer, as read. ``message`` is the vendor's, or says what came instead of an answer."""

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

    @property
    def is_burst(self) -> bool:
        """Whether the calls came too suddenly: the account starts slowly again."""
        return self.kind is Kind.THROTTLED and self.code in _BURST_CODES

    @property
    def words(self) -> str:
        """What came, in words: status, code and message."""
        status = f"HTTP {self.http_status}" if self.http_status else "no HTTP answer"
        return " ".join(part for part in (status, self.code, self.message) if part)

    @property
    def sample(self) -> str:
        """The same for a log, without addresses and with the request's id."""
        return f"{_ADDRESS.sub('...', self.words)} (request {self.request_id or 'without an id'})"

    @property
    def outcome(self) -> Outcome:
        """The picture's outcome if no further attempt is made."""
        if self.kind is Kind.VERDICT:
            return Outcome.PASSED if self.check_pass else Outcome.FAILED
        return Outcome.UNKNOWN if self.billing is Billing.UNKNOWN else Outcome.ERROR


@dataclass(frozen=True, slots=True)
class Request:
    """One call, ready to send: ``path`` is relative to the base URL; the body holds the URL, so not shown."""

    path: str
    body: bytes = field(repr=False)


def build_request(profile: Profile, image_url: str) -> Request:
    """The call that asks ``profile``'s detector about one picture; the URL goes out exactly as given."""
    body = {"model": profile.model, "input": {"image_url": image_url}}
    return Request(profile.path, json.dumps(body).encode())


def read_answer(profile: Profile, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Read an HTTP answer (header names in lower case). Never raises: what can't be read is an answer too."""
    document = _object(body)
    output = _member(document, "output")
    request_id = _text(document.get("request_id")) or _text(headers.get("x-request-id"))
    if status == 200:
        verdict = output.get(profile.verdict_field)
        if not isinstance(verdict, bool):
            return Answer(
                Kind.TRANSIENT, Billing.UNKNOWN, NO_ANSWER, request_id=request_id, http_status=status,
                message="HTTP 200 without a verdict",
            )  # fmt: skip
        code = _text(output.get("code"))
        humanoid = output.get("humanoid")
        return Answer(
            Kind.VERDICT,
            Billing.BILLED,
            None if verdict else FAILED_CHECKS.get(code or "", CHECK_FAILED),
            check_pass=verdict,
            humanoid=humanoid if isinstance(humanoid, bool) else None,
            code=code,
            message=_text(output.get("message")),
            request_id=request_id,
            http_status=status,
            remembered=True,
        )
    code, message = _text(document.get("code")), _text(document.get("message"))
    rule = _rule_for(status, code or "", message or "", is_json=bool(document))
    # A gateway that gave up waiting does not know whether the service behind it did the work.
    lost = not document and status in {502, 504}
    return Answer(
        rule.kind,
        Billing.UNKNOWN if lost else Billing.NOT_BILLED,
        rule.reason,
        check_pass=False if rule.kind is Kind.VERDICT else None,
        code=code,
        message=message,
        request_id=request_id,
        http_status=status,
        retry_after_s=_retry_after(headers.get("retry-after")),
        late_retry=rule.late_retry,
        remembered=rule.remembered,
    )


_ADVICE: Final[Mapping[str, str]] = {
    "CommodityNotPurchased": "activate the model in the vendor's console",
    "Arrearage": "pay the account's balance in the vendor's console",
    "overdue": "pay the account's bill in the vendor's console",
    "quota": "the free quota is used up: switch off 'free tier only' in the vendor's console",
    "BadRequest": "the vendor refuses the request as such: update this program",
    "UnsupportedOperation": "the vendor does not let this account call the model this way: ask its support",
    "not exist": "check the model's name and the region of the vendor's base URL",
    "401": "check DASHSCOPE_API_KEY: it must be a key of the China (Beijing) region and of this workspace",
    "403": "grant the account access to the model (and the workspace) in the vendor's console",
    "404": "check the model's and the workspace's name, and the region of the base URL",
}
"""What to do, by what stands in the answer; the first that fits."""
_SEE: Final = "see the vendor's error-code page"


def refusal(answer: Answer) -> str:
    """What to say of a refused account, and what to do about it."""
    text = f"{answer.http_status} {answer.code} {answer.message}".casefold()
    advice = next((say for sign, say in _ADVICE.items() if sign.casefold() in text), _SEE)
    return (
        f"the vendor refuses the account ({answer.words}); {advice}."
        " Everything received is kept: run the same command again afterwards"
    )


def no_answer(detail: str, *, sent: bool, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer when none came: not billed if the request never left, else nobody knows.

    ``headers`` (names in lower case) are what came before the answer broke off.
    """
    request_id = _text((headers or {}).get("x-request-id"))
    if not sent:
        return Answer(Kind.TRANSIENT, Billing.NOT_BILLED, GATEWAY.reason, message=detail)
    return Answer(Kind.TRANSIENT, Billing.UNKNOWN, NO_ANSWER, message=detail, request_id=request_id)


def _rule_for(status: int, code: str, message: str, *, is_json: bool) -> Rule:
    if not is_json and status >= 500:
        return GATEWAY
    words = _ADDRESS.sub("", message)  # a picture called timeout.jpg, or a link to a help page, tells nothing
    return next((rule for rule in RULES if rule.matches(status, code, words)), UNRECOGNISED)


def _object(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except ValueError:  # also bytes that are no UTF-8
        return {}
    except RecursionError:
        return {}
    return document if isinstance(document, dict) else {}


def _member(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


# Whatever the scheme and the escaping: what follows a question mark or a fragment sign, and a password.
_SECRET = re.compile(r"(?:\?|%3F|(?<=\S)#)\S+", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=/)[^\s/@]*:[^\s/@]*@")
_ADDRESS = re.compile(r"https?:\S+", re.IGNORECASE)


def _text(value: object) -> str | None:
    """A non-empty text, or None. Vendors quote the URL in messages; its query string is a secret.

    Half characters and NUL, which no database takes, are replaced.
    """
    if not isinstance(value, str) or not value:
        return None
    value = value.encode(errors="replace").decode().replace("\0", "?")
    return _PASSWORD.sub("...@", _SECRET.sub("?...", value))[:1000]


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, 0 to 60. A date, which the vendor is not known to send, is not obeyed."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return None if seconds is None or seconds != seconds else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
