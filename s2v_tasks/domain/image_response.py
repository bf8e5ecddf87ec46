"""Image responses: what headers and first bytes of an HTTP response prove about an image. Pure.

Servers respond to range requests in ways that RFC 9110 does not define. So such a response proves only the
bytes it holds; only a response to a request without Range proves the end of a file, or that there is no
image.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, Self

Headers = Mapping[str, str]
"""HTTP headers of a response; names in lower case, or a mapping that ignores case."""

_PARTIAL: Final = 206
_THROTTLED: Final = 429
_UNAVAILABLE: Final = 503
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,9}", re.ASCII)
_STRONG_TAG: Final = re.compile(r'"[!#-~]{1,200}"')
# The tags by which browsers recognise a page. Source: the WHATWG's MIME Sniffing Standard, as of 2026-11.
_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--|<(?:!doctype html|html|head|script|iframe|h1|div|font"
    rb"|table|a|style|title|b|body|br|p|meta|link|center|noscript|form)[\s/>])",
    re.IGNORECASE,
)
_PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml", "application/json"})
_SNIFFED_BYTES: Final = 512


def strong_etag(headers: Headers) -> str | None:
    """A strong ETag, which identifies the same bytes; None for a weak or malformed one."""
    tag = headers.get("etag", "")
    return tag if _STRONG_TAG.fullmatch(tag) else None


def is_encoded(headers: Headers) -> bool:
    """Whether the body's bytes are not the file's."""
    return headers.get("content-encoding", "identity").strip().lower() not in ("identity", "")


def retry_after_s(status: int, headers: Headers, now: datetime) -> float | None:
    """The pause in seconds that a throttling response asks for, 0 if it names none; None: no throttling."""
    if status not in (_THROTTLED, _UNAVAILABLE):
        return None
    value = headers.get("retry-after", "").strip()
    if status == _UNAVAILABLE and not value:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):  # no date, or a date without a time zone
        return 0.0


def is_web_page(headers: Headers, data: bytes) -> bool:
    """Whether bytes that are no image are a web page: a robot check, a notice, an error."""
    start = data[:_SNIFFED_BYTES]
    return (_media_type(headers) in _PAGE_TYPES and b"\0" not in start) or _PAGE.match(start) is not None


def may_be_encoded_page(headers: Headers) -> bool:
    """Whether an encoded body is worth decoding: its media type is that of a page."""
    return _media_type(headers) in _PAGE_TYPES


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def decoded(headers: Headers, data: bytes, max_bytes: int) -> bytes:
    """Up to ``max_bytes`` first bytes of an encoded body, decoded; empty if they can't be decoded."""
    if headers.get("content-encoding", "").strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return b""
    try:
        return zlib.decompressobj(47).decompress(data, max_bytes)  # 47: detect gzip or zlib
    except zlib.error:
        return b""


class _Version(NamedTuple):
    """The properties that distinguish two versions of a file, as far as the server sends them."""

    etag: str | None
    modified: str | None
    total: int | None

    def may_equal(self, other: Self) -> bool:
        return all(a is None or b is None or a == b for a, b in zip(self, other, strict=True))


@dataclass(slots=True)
class Assembly:
    """The beginning of one version of a file, assembled from responses.

    ``total``: the file's length, as the responses declare it. ``is_whole``: the last response was the file
    from its start, not a part.
    """

    data: bytearray = field(default_factory=bytearray)
    total: int | None = None
    is_whole: bool = False
    etag: str | None = None
    _version: _Version | None = None

    def clear(self) -> None:
        """Discard everything."""
        self.data.clear()
        self._version = self.total = self.etag = None

    def accept(self, status: int, headers: Headers) -> bool:
        """Whether the body of this response, 200 or 206, continues where ``data`` ends.

        A 200 is the file from its start, and ``data`` is cleared for it, unless its headers declare a part.
        """
        content_range = headers.get("content-range")
        self.is_whole = status != _PARTIAL and content_range is None
        if self.is_whole:
            self.clear()
            size = headers.get("content-length", "")
        else:
            span = _CONTENT_RANGE.fullmatch(content_range or "")
            if span is None or int(span[1]) != len(self.data):
                return False
            size = span[2]
        self.total = int(size) if _LENGTH.fullmatch(size) else None
        version = _Version(headers.get("etag"), headers.get("last-modified"), self.total)
        if self._version is None:
            self._version, self.etag = version, strong_etag(headers)
            return True
        return version.may_equal(self._version)
