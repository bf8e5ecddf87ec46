"""Detector of the emulator: fetches an image, checks format and size, and decides the verdict by its name.

**The emulator does not detect people; the file name decides**: an image shows exactly one person facing the
camera unless a whole word of the last path segment of its URL is one of `NAME_RULES`. The URL is the one in
the request, not one that it redirects to.
"""

import asyncio
import io
import re
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx
from PIL import Image

from s2v_tasks.emulator.catalogue import CATALOGUE
from s2v_tasks.models import WAN22_S2V_DETECT

FETCHER_USER_AGENT: Final = "s2v-emulator-fetcher"
"""The emulator's User-Agent for image fetches, by which its own protected samples admit it."""
_MAX_BYTES: Final = 20_000_000
_MAX_REDIRECTS: Final = 5
_PILLOW_FORMATS: Final = tuple(name.upper() for name in sorted(WAN22_S2V_DETECT.formats))


@dataclass(frozen=True, slots=True)
class EmulatedResponse:
    """A response without its request id: HTTP status, JSON body, and the rule that decided."""

    status: int
    body: Mapping[str, object]
    rule: str

    @property
    def billed(self) -> bool:
        """Every HTTP 200 is billed, whatever the verdict. Source: vendor's price page, as of 2026-10."""
        return self.status == 200

    @property
    def error_code(self) -> str:
        """The code of an error response; empty for a verdict."""
        inner = self.body.get("error")
        return str((inner if isinstance(inner, Mapping) else self.body).get("code", ""))


def error(name: str, rule: str) -> EmulatedResponse:
    """EmulatedResponse with the vendor's error of that catalogue name."""
    entry = CATALOGUE[name]
    return EmulatedResponse(entry.status, {"code": entry.code, "message": entry.message}, rule)


def nested(response: EmulatedResponse) -> EmulatedResponse:
    """The same error in the gateway's other shape. Source: responses in public, as of 2026-11."""
    inner = {**response.body, "type": response.error_code, "param": None}
    return EmulatedResponse(response.status, {"error": inner}, response.rule)


def verdict(output: Mapping[str, object], rule: str) -> EmulatedResponse:
    """A 200 with that ``output``."""
    return EmulatedResponse(200, {"output": output, "usage": {"image_count": 1}}, rule)


ONE_PERSON: Final = verdict({"check_pass": True, "humanoid": True}, "one-person")

# The documentation does not define the output of a failed check, so the words cover every shape: with and
# without `humanoid`, with and without a code, and the check that fails as a free HTTP 400.
# Source: vendor's API and error-code pages, as of 2026-10.
NAME_RULES: Final[Mapping[str, EmulatedResponse]] = {
    "scenery": verdict(
        {
            "check_pass": False,
            "humanoid": False,
            "code": "InvalidFile.NoHuman",
            "message": CATALOGUE["InvalidFile.NoHuman"].message,
        },
        "word:scenery",
    ),
    "crowd": verdict(
        {
            "check_pass": False,
            "humanoid": True,
            "code": "InvalidFile.MultiHuman",
            "message": CATALOGUE["InvalidFile.MultiHuman"].message,
        },
        "word:crowd",
    ),
    "back": verdict({"check_pass": False, "code": "", "message": ""}, "word:back"),
    "cartoon": verdict({"check_pass": False, "humanoid": False, "code": "", "message": ""}, "word:cartoon"),
    "nobody": error("InvalidFile.NoHuman", "word:nobody"),
}
"""Responses by a word of the file name. ``nobody`` is a failed check that is not billed (HTTP 400)."""


def check_name(url: str) -> EmulatedResponse:
    """The response by the words (runs of letters) of the last path segment."""
    words = re.findall(r"[a-z]+", unquote(urlsplit(url).path.rpartition("/")[2]).lower())
    return next((NAME_RULES[word] for word in words if word in NAME_RULES), ONE_PERSON)


def check_file(data: bytes) -> EmulatedResponse | None:
    """Check format and size from the file's header, without decoding; None: both are accepted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is accepted
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
                sides = image.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        # More pixels than Pillow accepts are more than the largest allowed square, so a side is too long.
        return error("InvalidFile.Resolution", "resolution")
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        return error("InvalidFile.Format", "format")
    if min(sides) < WAN22_S2V_DETECT.min_side_px or max(sides) > WAN22_S2V_DETECT.max_side_px:
        return error("InvalidFile.Resolution", "resolution")
    return None


def is_web_url(url: str) -> bool:
    """Whether this is an http(s) URL with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


class Detector:
    """Checks images by URL. With ``fetch`` False it checks only the name, not the file.

    ``timeout_s`` is for a whole fetch. It is made for a service on loopback: it fetches any URL.
    """

    def __init__(self, *, fetch: bool, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client: httpx.AsyncClient | None = None
        if fetch:
            self._client = httpx.AsyncClient(
                headers={"user-agent": FETCHER_USER_AGENT},
                follow_redirects=True,
                max_redirects=_MAX_REDIRECTS,
                timeout=timeout_s,
                event_hooks={"request": [_check_port]},
                limits=httpx.Limits(max_connections=None, keepalive_expiry=5.0),
                trust_env=False,
            )

    async def check(self, url: str) -> EmulatedResponse:
        """Check the image at ``url``; a failed fetch gives an error response."""
        if not is_web_url(url):
            return error("InvalidURL", "fetch:url")
        if self._client is not None:
            fetched = await self._fetch(self._client, url)
            error_response = fetched if isinstance(fetched, EmulatedResponse) else check_file(fetched)
            if error_response is not None:
                return error_response
        return check_name(url)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _fetch(self, client: httpx.AsyncClient, url: str) -> bytes | EmulatedResponse:
        try:
            async with asyncio.timeout(self._timeout_s), client.stream("GET", url) as response:
                if response.status_code >= 500 or response.status_code == 429:
                    return error("InvalidFile.DownloadFailed", "fetch:status")
                if response.status_code != 200:
                    return error("InvalidURL", "fetch:status")
                return await _read(response)
        except (TimeoutError, httpx.TimeoutException):
            return error("InvalidURL.Timeout", "fetch:timeout")
        except (
            httpx.InvalidURL,
            httpx.UnsupportedProtocol,
            httpx.LocalProtocolError,
            OverflowError,
            ValueError,
        ):
            # The last two: a port or a host name that only the resolver rejects.
            return error("InvalidURL", "fetch:url")
        except httpx.TooManyRedirects:
            return error("InvalidURL", "fetch:redirects")
        except httpx.ConnectError as cause:
            if _name_not_found(cause):
                return error("InvalidURL", "fetch:no-such-host")
            return error("InvalidURL.ConnectionRefused", "fetch:refused")
        except httpx.HTTPError:
            return error("InvalidFile.DownloadFailed", "fetch:broken")


async def _check_port(request: httpx.Request) -> None:
    # For each hop: httpx accepts an impossible port, and the connection fails with an unspecific error.
    if (request.url.port or 80) > 65_535:
        raise httpx.InvalidURL("no such port")


async def _read(response: httpx.Response) -> bytes | EmulatedResponse:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MAX_BYTES:
            return error("InvalidFile.Size", "fetch:too-many-bytes")
    return bytes(data)


def _name_not_found(cause: BaseException | None) -> bool:
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
