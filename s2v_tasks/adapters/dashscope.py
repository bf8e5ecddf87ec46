"""The door to the vendor: one warm HTTP client that sends a request and hands back what came."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from s2v_tasks.detect import Answer, Request, no_answer, read_answer
from s2v_tasks.models import Profile
from s2v_tasks.settings import DashScope

ANSWER_TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 10.0
MIN_KEY_BYTES: Final = 8
MAX_ANSWER_BYTES: Final = 1_048_576
_VENDOR: Final = ".aliyuncs.com"
_NEVER_LEFT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""Nothing of the call was sent: no connection, no tunnel, or a header that can't be written."""


def service_of(base_url: str) -> str:
    """The name verdicts are kept under: ``dashscope`` for any of the vendor's hosts, else the address."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    address = parts.netloc.rpartition("@")[2]  # a name and a password before it are nobody's business
    return "dashscope" if host.endswith(_VENDOR) else f"{parts.scheme}://{address}".lower()


@dataclass(frozen=True, slots=True)
class Access:
    """Where the service is and with which key; the key shows in no ``repr``."""

    base_url: str
    api_key: SecretStr
    workspace: str | None = None

    @classmethod
    def of(cls, settings: DashScope) -> "Access":
        """The access that the environment gives."""
        return cls(str(settings.http_base_url).rstrip("/"), settings.api_key, settings.workspace)


class DetectClient:
    """Sends detect calls; use it as an async context manager.

    Nothing is retried here and no redirect is followed: a call leaves once, or not at all.
    """

    def __init__(
        self,
        access: Access,
        profile: Profile,
        transport: httpx.AsyncBaseTransport | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._profile = profile
        headers = {
            "Authorization": f"Bearer {access.api_key.get_secret_value()}",
            "Content-Type": "application/json",
        }
        if access.workspace:
            headers["X-DashScope-WorkSpace"] = access.workspace
        # The vendor's edge may close an idle connection; ours goes first, so no call meets a dead one.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=30.0)
        self._http = httpx.AsyncClient(
            transport=transport,
            headers=headers,
            timeout=httpx.Timeout(answer_timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=limits,
            follow_redirects=False,
        )
        self._base_url = access.base_url
        self._key = access.api_key
        self._answer_timeout_s = answer_timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def warm(self) -> None:
        """Open a connection, so that the first reserved call is not late; a failure shows at that call."""
        try:
            await self._http.request("OPTIONS", self._base_url, timeout=CONNECT_TIMEOUT_S)
        except httpx.HTTPError:
            return

    async def send(self, request: Request) -> Answer:
        """Make one call and read what comes back; a failure to get an answer is an answer too."""
        response, body = None, b""
        try:
            async with (
                asyncio.timeout(self._answer_timeout_s + CONNECT_TIMEOUT_S),  # a server may drip for ever
                self._http.stream("POST", self._base_url + request.path, content=request.body) as response,
            ):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        break
            key = self._key.get_secret_value().encode()
            if len(key) >= MIN_KEY_BYTES:  # a shorter one is no secret, and may stand in any word
                body = body.replace(key, b"***")  # whatever quotes the key must not spread it
        except _NEVER_LEFT as error:
            return no_answer(f"no connection ({type(error).__name__})", sent=False)
        except (httpx.HTTPError, TimeoutError) as error:
            if response is not None and response.status_code != 200:  # a refusal cut short is still one
                return read_answer(self._profile, response.status_code, _headers(response), body)
            headers = {} if response is None else _headers(response)
            return no_answer(f"no answer ({type(error).__name__})", sent=True, headers=headers)
        return read_answer(self._profile, response.status_code, _headers(response), body)


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
