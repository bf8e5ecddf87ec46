"""Response rules: the table that maps status, code and message of an error response to kind and reason. Pure.

The first rule that matches wins. Source: vendor's error-code and model pages, 2024-11 to 2026-10; responses
of its gateway that others have published, to 2026-11.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from s2v_tasks.domain.error_body import URL_PATTERN, Reading, normalize_code


class Kind(StrEnum):
    """The class of a response: what it means for the run."""

    VERDICT = "verdict"
    """A verdict on the image."""
    IMAGE = "image"
    """This URL can never be checked."""
    ORIGIN = "origin"
    """The vendor could not fetch the image; sent once more, much later."""
    THROTTLED = "throttled"
    """The account exceeds its rate: every process slows down, then the image is sent again."""
    TRANSIENT = "transient"
    """The service failed: sent again, with backoff."""
    ACCOUNT = "account"
    """Every further call would fail: the run stops."""
    UNRECOGNISED = "unrecognised"
    """Not in the table: handled like ``ORIGIN``, counted, and the first is shown in the log.

    Several in a row stop the run: `s2v_tasks.domain.systemic_refusal`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: a response with one of ``codes`` (any, if empty), ``statuses`` and ``message``.

    ``codes`` are normalized (`s2v_tasks.domain.error_body.normalize_code`); "" is a response without a code.
    ``remembered``: the verdict is stored for later runs; only a listed code proves it, never a message.
    ``systemic``: the response may concern every request, although its text is about an image.
    """

    kind: Kind
    reason: str
    codes: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    message: re.Pattern[str] | None = None
    late_retry: bool = False
    remembered: bool = False
    systemic: bool = False

    def matches(self, status: int, reading: Reading) -> bool:
        """Whether this rule applies to a response with that status and reading."""
        return (
            (not self.codes or normalize_code(reading.code) in self.codes)
            and (not self.statuses or status in self.statuses)
            and (self.message is None or self.message.search(_decisive_text(reading.message)) is not None)
        )

    @property
    def is_listed(self) -> bool:
        """Whether the code alone decides."""
        return bool(self.codes) and self.message is None


def _rule(
    kind: Kind,
    reason: str,
    *codes: str,
    statuses: tuple[int, ...] = (),
    message: str | None = None,
    late_retry: bool = False,
    remembered: bool = False,
    systemic: bool = False,
) -> Rule:
    return Rule(
        kind,
        reason,
        frozenset(normalize_code(code) for code in codes),
        frozenset(statuses),
        re.compile(message, re.IGNORECASE) if message else None,
        late_retry,
        remembered,
        systemic,
    )


# A URL (an image called timeout.jpg, a help page), the reporting stage and a field's name decide nothing.
_STAGE = re.compile(r"\b(?:for|during|in|by) the data inspection\b", re.IGNORECASE)
_FIELD = re.compile(r"\b(?:input|parameters?|body|payload)(?:\.\w+)+|\b\w+_\w+\b", re.IGNORECASE)


def _decisive_text(message: str) -> str:
    """The part of a message that may decide."""
    return _FIELD.sub("", _STAGE.sub("", URL_PATTERN.sub("", message)))


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
CHECKS: Final[Mapping[str, str]] = {normalize_code(code): reason for code, reason in FAILED_CHECKS.items()}

_PARAMETER = (
    "InvalidParameter", "InvalidParameter.DataInspection", "invalid_parameter_error", "invalid_request_error",
)  # fmt: skip
"""Generic codes: with these the message decides."""
_QUOTA = r"(free|hour|week|month) allocated quota exceeded|free tier\b.*\bexhausted"
DEBT: Final = r"overdue|in arrears|good standing|insufficient balance|\u6b20\u8d39"
_NOT_FETCHED = r"download|fetch|time[d ]*[ -]?out|connect"
_NOT_ALLOWED = r"not? authori|unauthori|permission|forbidden|access denied"
_REQUEST = (
    r"\brequired\b|\bmust (exist|be provided)\b|\bparameters?\b.*\b(invalid|missing|unknown|check)\b"
    r"|\binput should be\b|\bextra inputs\b|\bjson\b|support (a?synchronous|this model)"
)
_SIZE = (
    r"\b(size|resolution|width|height)\b"
    r".*\b(not supported\b|do not meet\b|must be (larg|small)|too (small|larg|big)|exceed)"
)
_MODERATION = r"inspection|inappropriate|moderat|sensitive|green network|comply"
_IMAGE = r"image|picture|url|decod|format|resolution|size|content.?type|media|file"

RULES: Final[tuple[Rule, ...]] = (
    # account: first, because some of its codes share a status or a family with milder ones
    _rule(
        Kind.ACCOUNT, "account",
        "InvalidApiKey", "NOT AUTHORIZED", "AccessDenied", "AccessDenied.Unpurchased",
        "Model.AccessDenied", "Workspace.AccessDenied", "Endpoint.AccessDenied", "App.AccessDenied",
        "BailianGateway.Workspace.NotAuthorised", "AllocationQuota.FreeTierOnly", "BudgetLimitExceeded",
        "Arrearage", "CommodityNotPurchased", "PrepaidBillOverdue", "PostpaidBillOverdue",
        "NotFound", "ModelNotFound", "WorkSpaceNotFound",
        "BadRequest.EmptyInput", "BadRequest.EmptyModel", "BadRequest.EmptyParameters",
        "BadRequest.IllegalInput", "UnsupportedOperation",
        "isv.OUT_OF_SERVICE", "isv.AMOUNT_NOT_ENOUGH", "isv.ACCOUNT_NOT_EXISTS", "isv.ACCOUNT_ABNORMAL",
        "isv.PRODUCT_UN_SUBSCRIPT", "isv.PRODUCT_UNSUBSCRIBE", "isp.RAM_PERMISSION_DENY",
    ),
    # No key, no money, no such path.
    _rule(Kind.ACCOUNT, "account", statuses=(401, 402)),
    _rule(Kind.ACCOUNT, "account", "", statuses=(404,)),
    _rule(Kind.ACCOUNT, "account", statuses=(400, 403, 429), message=DEBT),
    _rule(Kind.ACCOUNT, "account", message=rf"{_QUOTA}|^(the )?model\b.*\bnot exist"),
    # throttled
    _rule(
        Kind.THROTTLED, "throttled",
        "Throttling", "Throttling.RateQuota", "limit_requests", "Throttling.BurstRate", "limit_burst_rate",
        "Throttling.AllocationQuota", "insufficient_quota", "Throttling.Concurrency",
        "Throttling.ResourceExhausted", "Throttling.ServiceOverloaded", "rate_limit_exceeded",
        "ModelServingError",
    ),
    _rule(Kind.THROTTLED, "throttled", statuses=(429,)),
    # verdict: a failed check that came as an error
    *(
        _rule(Kind.VERDICT, reason, code, statuses=(400,), remembered=True)
        for code, reason in FAILED_CHECKS.items()
    ),
    # The path does not fit the model, or, as one client saw it, an image could not be reached.
    _rule(
        Kind.ORIGIN, "origin_failed", *_PARAMETER,
        message=r"^url error", late_retry=True, systemic=True,
    ),
    # image: before the next, as its message speaks of fetching too
    _rule(Kind.IMAGE, "not_authorized", *_PARAMETER, message=_NOT_ALLOWED),
    # origin
    _rule(
        Kind.ORIGIN, "origin_failed",
        "InvalidURL.Timeout", "InvalidURL.ConnectionRefused", "InvalidFile.DownloadFailed",
        "BadRequest.InputDownloadFailed",
        late_retry=True,
    ),
    _rule(Kind.ORIGIN, "origin_failed", *_PARAMETER, message=_NOT_FETCHED, late_retry=True),
    _rule(
        Kind.ORIGIN, "origin_failed", "InternalError.Algo",
        message=r"download|fetch|content.?length|multimodal url", late_retry=True,
    ),
    # image: what depends on the current URL, such as an expired signature, is not remembered
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
        "DataInspectionFailed", "IPInfringementSuspect",
        remembered=True,
    ),
    # an account's own rules, which it may change
    _rule(Kind.IMAGE, "moderated", "CustomRoleBlocked", "FaqRuleBlocked"),
    # the message decides: words about the request come before words about an image
    _rule(Kind.UNRECOGNISED, "unrecognised", *_PARAMETER, message=_REQUEST, late_retry=True),
    _rule(Kind.IMAGE, "image_size", *_PARAMETER, message=_SIZE),
    _rule(Kind.IMAGE, "moderated", *_PARAMETER, message=_MODERATION),
    _rule(Kind.IMAGE, "image_refused", *_PARAMETER, message=_IMAGE),
    # transient
    _rule(
        Kind.TRANSIENT, "service_error",
        "InternalError", "InternalError.Algo", "InternalError.Timeout", "InternalError.FileUpload",
        "InternalError.Upload", "InternalServerError", "SystemError", "RequestTimeOut", "ResponseTimeout",
        "ModelServiceFailed", "ModelUnavailable", "ClientDisconnect", "ServiceUnavailable",
        "ServiceUnavailableError", "APIConnectionError",
    ),
)  # fmt: skip
"""The table. An error that no row matches is ``UNRECOGNISED``."""

UNRECOGNISED: Final = Rule(Kind.UNRECOGNISED, "unrecognised", late_retry=True)
GATEWAY: Final = Rule(Kind.TRANSIENT, "service_error")
UNFETCHED: Final = frozenset({"origin_failed", "invalid_url", "not_authorized", UNRECOGNISED.reason})
"""Reasons that concern the URL, not the image behind it: another URL of the image may be sent."""
RESPONSE_LOST: Final = "response_lost"
REASONS: Final = frozenset({*FAILED_CHECKS.values(), *(r.reason for r in RULES)}) | {
    CHECK_FAILED,
    UNRECOGNISED.reason,
    RESPONSE_LOST,
}
"""Every reason that a response can give: a closed set."""
