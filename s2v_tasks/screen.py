"""Stage 2: what a free look at a picture means: keep it, or a reason.

Pure rules; ``headers`` reads the bytes, ``addresses`` says where they may come from. A picture is refused
only when it can't pass: whatever could not be known is kept, for a call costs little and a lost picture can't
be had back.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from s2v_tasks.headers import Header, NotAnImage
from s2v_tasks.models import Profile, Screened

UNREACHABLE: Final = frozenset({"not_found", "no_such_host", "refused", "timeout"})
"""Reasons that tell of the place, not of the picture; their share is held against a threshold."""

REASONS: Final = UNREACHABLE | {
    "not_an_image",
    "truncated",
    "unsupported_format",
    "too_small",
    "too_large",
    "private_address",
    "odd_port",
    "too_many_redirects",
    "bad_redirect",
    "malformed_url",
}
"""Every reason for which a look at a picture refuses it."""


class Trouble(StrEnum):
    """Why a look came to nothing."""

    TIMEOUT = "timeout"
    RESET = "reset"
    TLS = "tls"
    DNS_BUSY = "dns_busy"
    NO_SUCH_HOST = "no_such_host"
    REFUSED = "refused"


LATE_RETRY: Final = frozenset({Trouble.TIMEOUT, Trouble.RESET, Trouble.TLS, Trouble.DNS_BUSY})
"""Troubles that may pass by themselves: looked at once more, at the end of the shard."""

REASON_OF_TROUBLE: Final[Mapping[Trouble, str]] = MappingProxyType(
    dict.fromkeys(LATE_RETRY, "timeout") | {Trouble.NO_SUCH_HOST: "no_such_host", Trouble.REFUSED: "refused"}
)
"""The reason a picture is refused for when the trouble lasts."""


def judge_status(http_status: int) -> Literal["not_found", "look", "keep"]:
    """Say what an answer's status means; ``keep``: the picture can't be known from here, the detector may.

    401, 403, 405, 429 and the like are often for us alone: hosts treat unknown fetchers differently.
    """
    if http_status in (404, 410):
        return "not_found"
    return "look" if http_status in (200, 206) else "keep"


def is_of_the_picture(screened: Screened) -> bool:
    """Whether a look read a picture's header, so that it may be remembered.

    All else may be the place's fault, or that of the hour, and is looked at again.
    """
    return screened.image_format is not None and screened.reason != "truncated"


def lacks_content(screened: Screened) -> bool:
    """Whether a picture is kept and its bytes are still to be had, to be compared with those of others."""
    return screened.reason is None and screened.image_format is not None and screened.content_key is None


def judge(header: Header | NotAnImage, profile: Profile) -> str | None:
    """Return why the detector could not take this picture, or None. A side at the limit is kept."""
    if isinstance(header, NotAnImage):
        return "not_an_image"
    if header.image_format not in profile.formats:
        return "unsupported_format"
    sides = [side for side in (header.width_px, header.height_px) if side is not None]
    if any(side < profile.min_side_px for side in sides):
        return "too_small"
    return "too_large" if any(side > profile.max_side_px for side in sides) else None
