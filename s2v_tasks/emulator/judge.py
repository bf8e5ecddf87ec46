"""What the emulator answers about a picture, and why: real checks of the file, a stated rule for the person.

Fetching, format and size are judged for real. **The emulator does not look for people; it goes by the file
name**: a picture shows exactly one person facing the camera unless a whole word of the last path segment of
its URL is one of `NAME_RULES`. The URL is the one asked about, not one that it redirects to.
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
"""Who the emulator says it is when it fetches a picture; its own protected samples let it in by that."""
_MAX_BYTES: Final = 20_000_000
_MAX_REDIRECTS: Final = 5
_PILLOW_FORMATS: Final = tuple(name.upper() for name in sorted(WAN22_S2V_DETECT.formats))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without its request id: HTTP status, JSON body, and the rule that decided."""

    status: int
    body: Mapping[str, object]
    rule: str

    @property
    def billed(self) -> bool:
        """Every HTTP 200 is billed, whatever the verdict. Source: vendor's price page, as of 2026-10."""
        return self.status == 200

    @property
    def error_code(self) -> str:
        """The code of an error answer; empty for a verdict."""
        return str(self.body.get("code", ""))


def error(name: str, rule: str) -> Answer:
    """Answer with the vendor's error of that catalogue name."""
    known = CATALOGUE[name]
    return Answer(known.status, {"code": known.code, "message": known.message}, rule)


def verdict(output: Mapping[str, object], rule: str) -> Answer:
    """Answer 200 with that ``output``."""
    return Answer(200, {"output": output, "usage": {"image_count": 1}}, rule)


ONE_PERSON: Final = verdict({"check_pass": True, "humanoid": True}, "one-person")

# The documents leave open what a failed check holds, so the words cover every shape: with and without
# `humanoid`, with and without a code, and the check that fails as a free HTTP 400.
# Source: vendor's API and error-code pages, as of 2026-10.
NAME_RULES: Final[Mapping[str, Answer]] = {
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
"""A word of the file name -> the answer. ``nobody`` is a failed check that is not billed (HTTP 400)."""


def judge_name(url: str) -> Answer:
    """Judge by the words of the last path segment, letters between anything else."""
    words = re.findall(r"[a-z]+", unquote(urlsplit(url).path.rpartition("/")[2]).lower())
    return next((NAME_RULES[word] for word in words if word in NAME_RULES), ONE_PERSON)


def judge_file(data: bytes) -> Answer | None:
    """Judge format and size from the file's header, without decoding; None: nothing against it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is the picture's business
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
                sides = image.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        # More pixels than Pillow likes is more than the largest allowed square, so a side is too long.
        return error("InvalidFile.Resolution", "resolution")
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        return error("InvalidFile.Format", "format")
    if min(sides) < WAN22_S2V_DETECT.min_side_px or max(sides) > WAN22_S2V_DETECT.max_side_px:
        return error("InvalidFile.Resolution", "resolution")
    return None


def is_web_url(url: str) -> bool:
    """Tell whether this is an http(s) URL with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


class Judge:
    """Judges pictures by URL. With ``fetch`` False only the name is looked at, not the file.

    ``timeout_s`` is for a whole fetch. Made for a service on loopback: it fetches any address it is given.
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

    async def judge(self, url: str) -> Answer:
        """Judge the picture at ``url``; troubles with it are answers too."""
        if not is_web_url(url):
            return error("InvalidURL", "fetch:url")
        if self._client is not None:
            fetched = await self._fetch(self._client, url)
            objection = fetched if isinstance(fetched, Answer) else judge_file(fetched)
            if objection is not None:
                return objection
        return judge_name(url)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _fetch(self, client: httpx.AsyncClient, url: str) -> bytes | Answer:
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
            # The last two: a port or a host name that only the resolver finds impossible.
            return error("InvalidURL", "fetch:url")
        except httpx.TooManyRedirects:
            return error("InvalidURL", "fetch:redirects")
        except httpx.ConnectError as trouble:
            if _name_not_found(trouble):
                return error("InvalidURL", "fetch:no-such-host")
            return error("InvalidURL.ConnectionRefused", "fetch:refused")
        except httpx.HTTPError:
            return error("InvalidFile.DownloadFailed", "fetch:broken")


async def _check_port(request: httpx.Request) -> None:
    # For each hop: httpx lets an impossible port through, and the connect fails with no error of its own.
    if (request.url.port or 80) > 65_535:
        raise httpx.InvalidURL("no such port")


async def _read(response: httpx.Response) -> bytes | Answer:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MAX_BYTES:
            return error("InvalidFile.Size", "fetch:too-many-bytes")
    return bytes(data)


def _name_not_found(trouble: BaseException | None) -> bool:
    while trouble is not None:
        if isinstance(trouble, socket.gaierror):
            return True
        trouble = trouble.__cause__ or trouble.__context__
    return False
