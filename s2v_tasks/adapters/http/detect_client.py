"""HTTP client of the detect API: sends one request and returns the parsed response."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx

from s2v_tasks.domain.detect import DetectResponse, Request, lost_response, parse_response
from s2v_tasks.models import DetectorSpec
from s2v_tasks.settings import Credentials

RESPONSE_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
MIN_KEY_BYTES: Final = 8
MAX_RESPONSE_BYTES: Final = 1_048_576
_HEAD_WRITTEN: Final = "http11.send_request_body.started"
"""The event of httpx's trace when the head of a request is written, and its body is next."""
_VENDOR: Final = ".aliyuncs.com"
_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Errors before anything was sent: no connection, no tunnel, or a header that can't be written."""


def service_of(base_url: str) -> str:
    """The service name of verdicts: ``dashscope`` for the vendor's hosts, else the base URL's origin."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    netloc = parts.netloc.rpartition("@")[2]  # without user name and password
    return "dashscope" if host.endswith(_VENDOR) else f"{parts.scheme}://{netloc}".lower()


class DetectClient:
    """Sends detect calls; use it as an async context manager.

    It retries nothing and follows no redirect: a call is sent once, or not at all.
    """

    def __init__(
        self,
        credentials: Credentials,
        detector: DetectorSpec,
        transport: httpx.AsyncBaseTransport | None = None,
        response_timeout_s: float = RESPONSE_TIMEOUT_S,
    ) -> None:
        self._detector = detector
        headers = {
            "Authorization": f"Bearer {credentials.api_key.get_secret_value()}",
            "Content-Type": "application/json",
        }
        if credentials.workspace:
            headers["X-DashScope-WorkSpace"] = credentials.workspace
        # The vendor may close an idle connection. The client closes it first: no call is sent on a dead one.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=30.0)
        self._http = httpx.AsyncClient(
            transport=transport,
            headers=headers,
            timeout=httpx.Timeout(response_timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=limits,
            follow_redirects=False,
        )
        self._base_url = credentials.base_url
        self._key = credentials.api_key
        self._response_timeout_s = response_timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def warm(self) -> None:
        """Open a connection, so that the first reserved call is sent in time; ignore a failure."""
        try:
            await self._http.request("OPTIONS", self._base_url, timeout=CONNECT_TIMEOUT_S)
        except httpx.HTTPError:
            return

    async def send(self, request: Request, on_written: Callable[[], None] = lambda: None) -> DetectResponse:
        """Send one call and parse its response; a call without a response gives a ``lost_response``.

        ``on_written``: called when the request is written to the network.
        """
        response, body = None, b""

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event == _HEAD_WRITTEN and info["request"].method == b"POST":  # not a proxy's CONNECT
                on_written()

        url, extensions = self._base_url + request.path, {"trace": trace}
        try:
            async with (
                asyncio.timeout(self._response_timeout_s + CONNECT_TIMEOUT_S),  # for slow bodies
                self._http.stream("POST", url, content=request.body, extensions=extensions) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BYTES:
                        break
            key = self._key.get_secret_value().encode()
            if len(key) >= MIN_KEY_BYTES:  # a shorter key is no secret, and may be part of any word
                body = body.replace(key, b"***")  # a response that quotes the key must not pass it on
        except _NOT_SENT as error:
            return lost_response(f"no connection ({_why(error)})", sent=False)
        except (httpx.HTTPError, TimeoutError) as error:
            if response is not None and response.status_code != 200:  # an error cut short is an error
                return parse_response(self._detector, response.status_code, _headers(response), body)
            headers = {} if response is None else _headers(response)
            return lost_response(f"no response ({type(error).__name__})", sent=True, headers=headers)
        return parse_response(self._detector, response.status_code, _headers(response), body)


def _why(error: Exception) -> str:
    """The error's class, with the system's words where it has some: what this machine lacks, for one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            is_own = isinstance(cause, ssl.SSLError | socket.gaierror)  # these have numbers of their own
            return f"{type(error).__name__}: {cause.strerror if is_own else os.strerror(cause.errno)}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
