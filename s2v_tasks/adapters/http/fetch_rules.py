"""Which URLs are requested, and what a failure means, in terms of the HTTP client."""

import errno
import ssl
from typing import Final

import aiohttp
import httpx

from s2v_tasks.domain.dead_links import FetchFailure
from s2v_tasks.domain.fetched import FetchedHeader
from s2v_tasks.domain.image_url import url_rejection_reason

LOCAL: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
        *(errno.EPERM, errno.EACCES),
    }
)
"""Errors of this machine: no file, buffer or port is left, it has no such network or route, or a firewall."""


def redirect_target(url: httpx.URL, location: str) -> FetchedHeader | httpx.URL:
    """The target of a redirect; or the refusal of one that is not followed."""
    target = parsed_url(location, url)
    if target is None or (url.scheme, target.scheme) == ("https", "http"):
        return FetchedHeader(reason="bad_redirect")
    return target


def parsed_url(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """Parse a URL, relative to ``base`` if given; None if no request can be sent to it."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        return None
    # The limit on length is the detector's, and the detector never gets a redirect's target.
    return url if url_rejection_reason(str(url)) in (None, "url_too_long") else None


def is_malformed(error: TimeoutError | aiohttp.ClientError) -> bool:
    """Whether a response arrived that only this HTTP parser refuses: others may be more tolerant."""
    if isinstance(error, aiohttp.ClientResponseError):
        return True
    cause = error.__cause__
    return (
        isinstance(error, aiohttp.ClientPayloadError)
        and isinstance(cause, aiohttp.http_exceptions.BadHttpMessage)
        and not isinstance(cause, aiohttp.http_exceptions.ContentLengthError)
    )


def failure_of(error: TimeoutError | aiohttp.ClientError) -> FetchFailure:
    """The kind of failure that a request met."""
    if isinstance(error, TimeoutError):
        return FetchFailure.TIMEOUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return FetchFailure.TLS
        if isinstance(cause, ConnectionRefusedError):
            return FetchFailure.REFUSED
        if isinstance(cause, OSError) and cause.errno in LOCAL:
            return FetchFailure.LOCAL
        cause = cause.__cause__ or cause.__context__
    return FetchFailure.RESET
