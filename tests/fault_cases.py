"""The vendor's error table and the ways a connection breaks, as literal data with what each must lead to.

Written from the vendor's documents and from this project's promises, not from the code that reads responses.
A name is one of the emulator's; ``reason`` and ``status`` are those of the verdict when the fault persists.
Source: vendor's error-code, API and price pages, as of 2026-10.
"""

from dataclasses import dataclass, replace
from typing import Final

PRICE_MICRO_USD: Final = 574
IMAGES: Final = 3
POSITIONS: Final = {"first": 0, "middle": 1, "last": 2}


@dataclass(frozen=True, slots=True)
class Consequence:
    """What becomes of the one image that a fault hits, of the money and of the run.

    ``calls`` are sent for it; ``lost`` of them are unknown, at full price, and ``lost_invoiced`` of those
    are on the vendor's invoice. ``later`` is what the next run finds: a ``verdict``, an image that is
    ``given up``, or ``nothing``, so that it sends them. ``wait_s`` bounds the time between two of its calls,
    ``pause_s`` the pause after its first, but for one call that had its send time already. ``stopped`` names
    the error that ends the run.
    """

    outcome: str
    billing: str
    calls: int
    later: str
    lost: int = 0
    lost_invoiced: int = 0
    wait_s: tuple[float, float] | None = None
    pause_s: tuple[float, float] | None = None
    stopped: str | None = None


# When the fault persists.
CHECK_FAILED: Final = Consequence("failed", "not_billed", calls=1, later="verdict")
CHECK_FAILED_BILLED: Final = Consequence("failed", "billed", calls=1, later="verdict")
IMAGE_REFUSED: Final = Consequence("error", "not_billed", calls=1, later="verdict")
# What depends on the URL of the day, such as an expired signature, must not condemn the image.
ADDRESS_REFUSED: Final = Consequence("error", "not_billed", calls=1, later="nothing")
LATE_S: Final = (20.0, 61.0)
NOT_FETCHED: Final = Consequence("error", "not_billed", calls=2, later="nothing", wait_s=LATE_S)
# 1 s of pause, doubled up to 60 s, until nothing usable came for 300 s: 1 2 4 8 16 32 60 60 60 60.
THROTTLED: Final = Consequence(
    "skipped", "none", calls=11, later="nothing", pause_s=(1.0, 1.3), stopped="Outage"
)
BACKOFF_S: Final = (0.5, 6.0)
FAILING: Final = Consequence("error", "not_billed", calls=4, later="nothing", wait_s=BACKOFF_S)
LOST: Final = Consequence(
    "unknown", "unknown", calls=2, later="given up", lost=2, lost_invoiced=2, wait_s=BACKOFF_S
)
ACCOUNT: Final = Consequence("skipped", "none", calls=1, later="nothing", stopped="AccountRefused")

# When it strikes once and the call after it goes well.
RECOVERED: Final = Consequence("passed", "billed", calls=2, later="verdict")
RECOVERED_LATE: Final = replace(RECOVERED, wait_s=LATE_S)
RECOVERED_AFTER_PAUSE: Final = replace(RECOVERED, pause_s=(1.0, 1.3))
RECOVERED_AFTER_BACKOFF: Final = replace(RECOVERED, wait_s=BACKOFF_S)
RECOVERED_AFTER_LOSS: Final = replace(RECOVERED_AFTER_BACKOFF, lost=1, lost_invoiced=1)


@dataclass(frozen=True, slots=True)
class Fault:
    """One row: the emulator's name of it, with options, and the verdict's reason, HTTP status and code.

    ``code`` None: the name up to its slash.
    """

    name: str
    reason: str
    status: int | None = None
    code: str | None = None

    @property
    def kept_code(self) -> str:
        """The code of the verdict, empty for none."""
        return self.name.partition(":")[0].partition("/")[0] if self.code is None else self.code


CHECKS: Final = (
    Fault("InvalidFile.NoHuman", "no_human", 400),
    Fault("InvalidFile.MultiHuman", "several_humans", 400),
    Fault("InvalidFile.Content", "content", 400),
    Fault("InvalidFile.BodyProportion", "body_proportion", 400),
    Fault("InvalidFile.FacePose", "face_pose", 400),
    Fault("InvalidFile.FullFace", "face_not_whole", 400),
    Fault("InvalidFile.FrontBody", "body_not_frontal", 400),
    Fault("InvalidFile.BodyPose", "body_pose", 400),
    Fault("InvalidFile.FullBody", "body_not_whole", 400),
    Fault("InvalidFile.Value", "image_value", 400),
    Fault("InvalidFile.FaceNotMatch", "face_not_match", 400),
    Fault("InvalidPerson", "invalid_person", 400),
    Fault("InvalidImage.NoHumanFace", "no_human_face", 400),
)
"""A failed check that comes as an error: free, and a verdict."""

CHECKED: Final = (
    (Fault("scenery", "no_human", 200), CHECK_FAILED_BILLED, False),
    (Fault("crowd", "several_humans", 200), CHECK_FAILED_BILLED, True),
    (Fault("back", "check_failed", 200), CHECK_FAILED_BILLED, None),
    (Fault("cartoon", "check_failed", 200), CHECK_FAILED_BILLED, False),
    (Fault("nobody", "no_human", 400), CHECK_FAILED, None),
)
"""Words in an image's name by which the emulator fails it, and what ``humanoid`` then is."""

REFUSED_IMAGES: Final = (
    Fault("InvalidFile.Size", "image_size", 400),
    Fault("InvalidFile.ImageSize", "image_size", 400),
    Fault("InvalidFile.AspectRatio", "image_size", 400),
    Fault("InvalidFile.Resolution", "image_size", 400),
    Fault("InvalidImage.ImageSize", "image_size", 400),
    Fault("InvalidImageResolution", "image_size", 400),
    Fault("BadRequest.TooLarge", "image_size", 400),
    Fault("InvalidFile.Format", "image_format", 400),
    Fault("InvalidFile.Openerror", "image_format", 400),
    Fault("InvalidImage.FileFormat", "image_format", 400),
    Fault("InvalidImageFormat", "image_format", 400),
    Fault("BadRequest.UnsupportedFileFormat", "image_format", 400),
    Fault("DataInspectionFailed", "moderated", 400),
    Fault("data_inspection_failed", "moderated", 400),
    Fault("IPInfringementSuspect", "moderated", 400),
    Fault("InternalError.Algo.DataInspectionFailed", "moderated", 400),
)
"""An image that can never be checked: its code says so."""

REFUSED_BY_MESSAGE: Final = (
    Fault("InvalidParameter", "image_refused", 400),
    Fault("InvalidParameter/decode", "image_refused", 400),
    Fault("InvalidParameter/format", "image_refused", 400),
    Fault("InvalidParameter/size", "image_size", 400),
    Fault("InvalidParameter/inspection-size", "image_size", 400),
    Fault("InvalidParameter/moderation", "moderated", 400),
    Fault("InvalidParameter/content-type", "image_refused", 400),
)
"""An image that is refused under a code that says nothing, in words about it: they prove nothing for good."""

REFUSED_ADDRESSES: Final = (Fault("InvalidParameter/no-authorization", "not_authorized", 400),)
"""A URL that does not admit the vendor now."""

NOT_FETCHED_NOW: Final = (
    Fault("InvalidURL", "invalid_url", 400),
    Fault("InvalidURL.Timeout", "origin_failed", 400),
    Fault("InvalidURL.ConnectionRefused", "origin_failed", 400),
    Fault("InvalidFile.DownloadFailed", "origin_failed", 400),
    Fault("BadRequest.InputDownloadFailed", "origin_failed", 400),
    Fault("InvalidParameter/download-failed", "origin_failed", 400),
    Fault("InvalidParameter/download-timeout", "origin_failed", 400),
    Fault("InvalidParameter.DataInspection", "origin_failed", 400),
    Fault("InternalError.Algo", "origin_failed", 500),
    Fault("InternalError.Algo.InvalidParameter", "origin_failed", 400),
    Fault("InvalidParameter/url-error", "origin_failed", 400),
    Fault("InvalidParameter/field-required", "unrecognised", 400),
    Fault("Emulator.Unlisted", "unrecognised", 400),
)
"""The vendor could not fetch the image; and a response that no table lists, which is treated alike."""

SLOW_DOWN: Final = (
    Fault("Throttling", "run_stopped"),
    Fault("Throttling.RateQuota", "run_stopped"),
    Fault("limit_requests", "run_stopped"),
    Fault("Throttling.BurstRate", "run_stopped"),
    Fault("limit_burst_rate", "run_stopped"),
    Fault("Throttling.Concurrency", "run_stopped"),
    Fault("Throttling.AllocationQuota", "run_stopped"),
    Fault("insufficient_quota", "run_stopped"),
    Fault("ModelServingError/500", "run_stopped"),
    Fault("ModelServingError", "run_stopped"),
)
"""Too many calls: HTTP 429, and the two of 500 and 503 that mean the same."""

RETRY_AFTER: Final = (
    (Fault("Throttling.RateQuota:retry_after=0", "run_stopped"), (1.0, 1.3)),
    (Fault("Throttling.RateQuota:retry_after=7", "run_stopped"), (7.0, 7.3)),
    (Fault("Throttling.BurstRate:retry_after=60", "run_stopped"), (60.0, 60.3)),
    (Fault("ModelServingError:retry_after=7", "run_stopped"), (7.0, 7.3)),
    (Fault("limit_requests:retry_after=3600", "run_stopped"), (60.0, 60.3)),
)
"""A throttle that says for how long, and the silence that follows: obeyed up to a minute."""

RETRY_AFTER_FAILURES: Final = (
    Fault("ModelUnavailable:retry_after=7", "service_error", 503),
    Fault("html:retry_after=7", "service_error", 503),
    Fault("empty:retry_after=7", "service_error", 503),
)
"""Failures of the service, with the seconds after which it may be sent again."""

SERVICE_ERRORS: Final = (
    Fault("InternalError", "service_error", 500),
    Fault("internal_error", "service_error", 500),
    Fault("InternalError.Timeout", "service_error", 500),
    Fault("InternalError.FileUpload", "service_error", 500),
    Fault("InternalError.Algo/no-backend", "service_error", 500),
    Fault("SystemError", "service_error", 500),
    Fault("RequestTimeOut", "service_error", 500),
    Fault("ResponseTimeout", "service_error", 500),
    Fault("ModelServiceFailed", "service_error", 500),
    Fault("ModelUnavailable", "service_error", 503),
    Fault("ClientDisconnect", "service_error", 400),
    Fault("ServiceUnavailableError", "service_error", 400),
    Fault("APIConnectionError", "service_error", 400),
    Fault("html", "service_error", 503),
    Fault("empty", "service_error", 503),
)
"""A failure of the service, said in a response, so nothing was billed."""

REFUSED_CONNECTIONS: Final = (Fault("refused", "service_error"),)
"""No server listens at the service's port: the call is never sent."""

LOST_RESPONSES: Final = (
    (Fault("drop", "response_lost"), True),
    (Fault("reset", "response_lost"), False),
    (Fault("truncate", "response_lost"), True),
    (Fault("nojson", "response_lost"), True),
    (Fault("no_check_pass", "response_lost"), True),
    (Fault("stall:delay_s=3", "response_lost"), True),
)
"""A call whose verdict never came, and whether the vendor billed it: the caller can't know."""

ACCOUNTS: Final = (
    (Fault("InvalidApiKey", "run_stopped", 401), "DASHSCOPE_API_KEY"),
    (Fault("invalid_api_key", "run_stopped", 401), "DASHSCOPE_API_KEY"),
    (Fault("InvalidApiKey/expired", "run_stopped", 401), "DASHSCOPE_API_KEY"),
    (Fault("NOT AUTHORIZED", "run_stopped", 401), "workspace"),
    (Fault("AccessDenied", "run_stopped", 403), "grant the account access"),
    (Fault("access_denied", "run_stopped", 403), "grant the account access"),
    (Fault("Endpoint.AccessDenied", "run_stopped", 403), "DASHSCOPE_HTTP_BASE_URL"),
    (Fault("/overdue", "run_stopped", 403), "pay the account's bill"),
    (Fault("isv.OUT_OF_SERVICE", "run_stopped", 400), "pay the account's bill"),
    (Fault("BudgetLimitExceeded", "run_stopped", 429), "spending limit"),
    (Fault("Throttling/json", "run_stopped", 429, code="PostpaidBillOverdue"), "pay the account's bill"),
    (Fault("model_not_found", "run_stopped", 404), "model's name"),
    (Fault("NotFound", "run_stopped", 404), "/api/v1"),
    (Fault("no_path", "run_stopped", 404, code=""), "DASHSCOPE_HTTP_BASE_URL"),
    (Fault("BadRequest.EmptyParameters", "run_stopped", 400), "vendor"),
    (Fault("AccessDenied.Unpurchased", "run_stopped", 403), "grant the account access"),
    (Fault("Model.AccessDenied", "run_stopped", 403), "access to the model"),
    (Fault("Workspace.AccessDenied", "run_stopped", 403), "workspace"),
    (Fault("AllocationQuota.FreeTierOnly", "run_stopped", 403), "free tier only"),
    (Fault("Arrearage", "run_stopped", 400), "pay the account's balance"),
    (Fault("CommodityNotPurchased", "run_stopped", 429), "vendor"),
    (Fault("PrepaidBillOverdue", "run_stopped", 429), "pay the account's bill"),
    (Fault("PostpaidBillOverdue", "run_stopped", 429), "pay the account's bill"),
    (Fault("Throttling.AllocationQuota/free-quota", "run_stopped", 429), "free tier only"),
    (Fault("insufficient_quota/free-quota", "run_stopped", 429), "free tier only"),
    (Fault("ModelNotFound", "run_stopped", 404), "model's"),
    (Fault("WorkSpaceNotFound", "run_stopped", 404), "workspace's"),
    (Fault("BadRequest.EmptyInput", "run_stopped", 400), "vendor"),
    (Fault("BadRequest.EmptyModel", "run_stopped", 400), "vendor"),
    (Fault("BadRequest.IllegalInput", "run_stopped", 400), "vendor"),
    (Fault("UnsupportedOperation", "run_stopped", 400), "vendor"),
    (Fault("InvalidParameter/model-not-exist", "run_stopped", 400), "vendor"),
)
"""Every further call would fail as well; with the message that says what to fix."""

NESTED: Final = (
    (Fault("InvalidFile.NoHuman:shape=nested", "no_human", 400), CHECK_FAILED),
    (Fault("InvalidFile.Size:shape=nested", "image_size", 400), IMAGE_REFUSED),
    (Fault("data_inspection_failed:shape=nested", "moderated", 400), IMAGE_REFUSED),
    (Fault("InvalidParameter:shape=nested", "image_refused", 400), ADDRESS_REFUSED),
    (Fault("InvalidURL.Timeout:shape=nested", "origin_failed", 400), NOT_FETCHED),
    (Fault("Emulator.Unlisted:shape=nested", "unrecognised", 400), NOT_FETCHED),
    (Fault("Throttling.RateQuota:shape=nested", "run_stopped"), THROTTLED),
    (Fault("internal_error:shape=nested", "service_error", 500), FAILING),
    (Fault("Arrearage:shape=nested", "run_stopped", 400), ACCOUNT),
    (Fault("invalid_api_key:shape=nested", "run_stopped", 401), ACCOUNT),
    (Fault("Workspace.AccessDenied:shape=nested", "run_stopped", 403), ACCOUNT),
    (Fault("AllocationQuota.FreeTierOnly:shape=nested", "run_stopped", 403), ACCOUNT),
)
"""One of each class in the gateway's other shape, with what becomes of it: the same."""

EXIT_STATUSES: Final = (
    ("UsageError", 2, False),
    ("InputError", 2, False),
    ("RunFinished", 2, False),
    ("Withdrawn", 2, False),
    ("LedgerNotFound", 2, False),
    ("LedgerRefused", 2, False),
    ("RunStopped", 1, True),
    ("AccountRefused", 1, True),
    ("Outage", 1, True),
    ("LeaseLost", 1, True),
    ("LedgerUnavailable", 1, True),
    ("StorageUnavailable", 1, True),
    ("PrefectUnavailable", 1, True),
    ("TaskRunnerLost", 1, True),
    ("Interrupted", 1, True),
    ("NotApproved", 5, False),
    ("GateClosed", 3, False),
    ("BudgetExhausted", 4, False),
    ("SuiteError", 5, False),
    ("DataIntegrityError", 5, False),
)
"""Every error, the status its command exits with, and whether running the same command again may help."""
