"""What a failed request means, in terms of the HTTP client."""

import errno
import ssl
from typing import Final

import aiohttp

from s2v_tasks.domain.dead_links import FetchFailure

LOCAL: Final = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
        *(errno.EPERM, errno.EACCES),
    }
)
"""Errors of this machine: no file, buffer or port is left, it has no such network or route, or a firewall."""


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
