"""Screening rules: decide from a fetched header whether an image is kept or rejected for a reason. Pure.

`image_header` parses the bytes; `ssrf` decides which addresses may be connected to, `dead_links` what a
status or a failed fetch means, `opt_out` what the host forbids. An image is rejected only if it can't pass.
An image that could not be checked is kept: a call costs little, and a rejected image is lost.
"""

from hashlib import blake2b
from typing import Final

from s2v_tasks.domain.dead_links import UNREACHABLE, WEB_PAGE
from s2v_tasks.domain.fetched import FetchedHeader
from s2v_tasks.domain.image_header import ImageHeader, NotAnImage
from s2v_tasks.domain.opt_out import OPTED_OUT
from s2v_tasks.models import DetectorSpec, Screened

TRUNCATED: Final = "truncated"
"""The file ends before its pixels do."""

FILE_KEY: Final = "u"
"""The first character of every ``file_key``: no hexadecimal digit, so that no hash of bytes equals one."""
REASONS: Final = UNREACHABLE | {
    "not_an_image",
    TRUNCATED,
    "unsupported_format",
    "too_small",
    "too_large",
    "private_address",
    "odd_port",
    "too_many_redirects",
    "bad_redirect",
    "malformed_url",
    OPTED_OUT,
}
"""Every reason for which screening rejects an image."""


def is_cacheable(screened: Screened) -> bool:
    """Whether the image's header was read, so that the result may be cached.

    Any other result may be caused by the host or be temporary; such an image is fetched again.
    """
    return screened.image_format is not None and screened.reason != TRUNCATED


def gave_no_image(screened: Screened) -> bool:
    """Whether a URL led to no image, so that another URL of the image may: it expired, or its host fails.

    A host that forbids the use forbids it for all of them.
    """
    return screened.image_format is None and screened.reason != OPTED_OUT


def is_better(found: Screened, before: Screened) -> bool:
    """Whether the result of another URL replaces that of a newer one, which led to no image."""
    return not gave_no_image(found) or (found.reason is None and before.reason is not None)


def lacks_content(screened: Screened) -> bool:
    """Whether an image is kept and its bytes must still be fetched, to compare them with other images."""
    hashed = screened.content_key is not None and not screened.content_key.startswith(FILE_KEY)
    return screened.reason is None and screened.image_format is not None and not hashed


def file_key(url: str, file_bytes: int | None, etag: str | None) -> str | None:
    """A content key for the file at a final URL, by its length, else by its strong ETag.

    Args:
        url: The final URL, in normal form.
        file_bytes: The file's length, if known.
        etag: The file's strong ETag, if known.

    Returns:
        The key; None if neither is known: nothing proves then that another response is of the same file.
    """
    version = etag if file_bytes is None else str(file_bytes)
    if version is None:
        return None
    file = f"{url} {version}".encode(errors="surrogatepass")
    return FILE_KEY + blake2b(file, digest_size=16).hexdigest()[1:]


def check_header(header: ImageHeader | NotAnImage, detector: DetectorSpec) -> str | None:
    """The reason why the detector can't accept this image, or None. A side at the limit is accepted."""
    if isinstance(header, NotAnImage):
        return "not_an_image"
    if header.image_format not in detector.formats:
        return "unsupported_format"
    sides = [side for side in (header.width_px, header.height_px) if side is not None]
    if any(side < detector.min_side_px for side in sides):
        return "too_small"
    return "too_large" if any(side > detector.max_side_px for side in sides) else None


def rejection_reason(fetched: FetchedHeader, detector: DetectorSpec) -> str | None:
    """The reason for which a fetched image is rejected, or None: it is kept.

    The fetch's own reason comes first, then the header's, then the end of the file.
    """
    if fetched.reason is not None or fetched.header is None:
        return fetched.reason
    if isinstance(fetched.header, NotAnImage) and fetched.is_page:
        return WEB_PAGE
    return check_header(fetched.header, detector) or (TRUNCATED if fetched.is_cut else None)
