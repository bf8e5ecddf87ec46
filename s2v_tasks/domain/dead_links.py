"""Dead links: which HTTP statuses and failed fetches reject an image, and which prove nothing. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

GONE: Final = frozenset({404, 410})
"""The statuses of a dead link."""
_RANGE_REFUSED: Final = 416

WEB_PAGE: Final = "web_page"
"""The host sent a web page instead of an image: a robot check, a consent page, a removal notice."""

UNREACHABLE: Final = frozenset({"not_found", "no_such_host", "refused", "timeout", WEB_PAGE})
"""Reasons that say nothing about the image; their share is checked against a threshold."""

NO_RESPONSE: Final = frozenset({"no_such_host", "refused", "timeout"})
"""Reasons of images whose host gave no response."""


class FetchFailure(StrEnum):
    """Why a fetch got no response."""

    TIMEOUT = "timeout"
    RESET = "reset"
    TLS = "tls"
    DNS_BUSY = "dns_busy"
    NO_SUCH_HOST = "no_such_host"
    REFUSED = "refused"
    THROTTLED = "throttled"
    LOCAL = "local"
    """This machine lacked something: open files, ports, a route, a resolver."""


LATE_RETRY: Final = frozenset(set(FetchFailure) - {FetchFailure.NO_SUCH_HOST, FetchFailure.REFUSED})
"""Transient failures: these images are fetched once more, at the end of the shard."""

REASON_OF_FAILURE: Final[Mapping[FetchFailure, str | None]] = MappingProxyType(
    dict.fromkeys(
        (FetchFailure.TIMEOUT, FetchFailure.RESET, FetchFailure.TLS, FetchFailure.DNS_BUSY), "timeout"
    )
    | {
        FetchFailure.NO_SUCH_HOST: "no_such_host",
        FetchFailure.REFUSED: "refused",
        FetchFailure.THROTTLED: None,
        FetchFailure.LOCAL: None,
    }
)
"""The reason for which an image is rejected if the failure persists; None: a host that throttles this client
exists, and may not throttle the detector; and what this machine lacks says nothing about an image."""


def check_status(http_status: int) -> Literal["not_found", "read", "keep"]:
    """Classify an HTTP status; ``keep``: the image can't be checked here, but the detector may fetch it.

    401, 403, 405, 429 and the like often concern this client alone: hosts treat unknown clients differently.
    """
    if http_status in GONE:
        return "not_found"
    return "read" if http_status in (200, 206) else "keep"


def wants_no_range(status: int) -> bool:
    """Whether a status that would reject the image may be caused by the Range header alone."""
    return status in GONE or status == _RANGE_REFUSED
