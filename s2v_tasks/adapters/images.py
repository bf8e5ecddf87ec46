"""Fetches the first bytes of candidate pictures, so that stage 2 can judge them.

The addresses come from strangers. So redirects are followed by hand and checked like the first address,
nothing is decoded, and bytes, seconds and redirects are bounded; ``hosts`` is the door to the network.
No cookies, no proxies and credentials from the environment, and no URL in a log, for it may be signed.
"""

import asyncio
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b
from traceback import extract_tb
from types import TracebackType
from typing import Final, Self, TypeGuard

import aiohttp
import httpx

from s2v_tasks.adapters.hosts import FetchOptions, Host, Hosts, Unreached
from s2v_tasks.adapters.names import Resolver, SystemNames
from s2v_tasks.candidates import refusal
from s2v_tasks.errors import S2VError
from s2v_tasks.headers import Found, Header, NeedMore, NotAnImage, cut_short, read_header
from s2v_tasks.models import Candidate, Profile, Screened
from s2v_tasks.screen import LATE_RETRY, REASON_OF_TROUBLE, Trouble, judge, judge_status, lacks_content

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PARTIAL: Final = 206
_RANGE_REFUSED: Final = 416
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_STRONG_TAG: Final = re.compile(r'"[!#-~]{1,200}"')
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)


class ImageFetcher:
    """Looks at pictures; an async context manager. One per process: it holds the bounds on connections.

    ``resolver`` and ``tls`` replace the system's name lookup and certificates.
    """

    def __init__(
        self,
        options: FetchOptions,
        profile: Profile,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.options = options
        self.profile = profile
        self._names = SystemNames(options.connect_timeout_s)
        self.hosts = Hosts(options, resolver or self._names, tls or httpx.create_ssl_context())
        self.in_flight = asyncio.Semaphore(options.max_in_flight)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._names.close()
        await self.hosts.close()

    async def screen(self, candidates: Sequence[Candidate]) -> list[Screened]:
        """Look at the pictures of one shard; one result each, in the order given.

        What met a trouble that may pass is looked at once more after the others.

        Raises:
            S2VError: a defect of this program, met at the picture that it names.

        """
        first = await self._pass(candidates)
        late = [i for i, seen in enumerate(first) if isinstance(seen, Trouble) and seen in LATE_RETRY]
        again = dict(zip(late, await self._pass([candidates[i] for i in late]), strict=True))
        results = []
        for i, candidate in enumerate(candidates):
            seen = again.get(i, first[i])
            if isinstance(seen, Trouble):
                seen = Screened(candidate.image_key, REASON_OF_TROUBLE[seen])
            results.append(seen)
        return results

    async def _pass(self, candidates: Sequence[Candidate]) -> list[Screened | Trouble]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_Look(self, one).result()) for one in candidates]
        except ExceptionGroup as defects:
            raise defects.exceptions[0] from None
        return [task.result() for task in tasks]


class _Look:
    """One look at one picture: what was read of it so far, and how long it may still take."""

    def __init__(self, fetcher: ImageFetcher, candidate: Candidate) -> None:
        self._fetcher = fetcher
        self._options = fetcher.options
        self._candidate = candidate
        self._data = bytearray()
        self._at_home = True  # validators are for the picture's own address

    async def result(self) -> Screened | Trouble:
        """Look, and tell what was seen or what was in the way."""
        try:
            return await self._follow()
        except Unreached as out:
            return out.why if isinstance(out.why, Trouble) else self._screened(out.why)
        except (TimeoutError, aiohttp.ClientError) as error:
            return _trouble(error)
        except Exception as error:  # noqa: BLE001 - raised below, without the words: they may hold the URL
            frame = extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {frame.name}, line {frame.lineno}"
            defect = S2VError(f"a defect in screening: {what}; please report it", self._candidate.image_key)
        raise defect

    def _screened(self, reason: str | None = None) -> Screened:
        return Screened(self._candidate.image_key, reason)

    async def _follow(self) -> Screened:
        url = _parsed(self._candidate.url)
        if url is None:
            return self._screened("malformed_url")
        clock, left = asyncio.get_running_loop().time, self._options.timeout_s
        for _ in range(self._options.max_redirects + 1):
            # Nothing is held while waiting for a host's turn: neither hosts that redirect to each other nor a
            # slow one can stop the rest. And a picture's time runs only while it is being asked for.
            async with self._fetcher.hosts.visit(url) as host:
                await host.look_up()
                async with host.turns, self._fetcher.in_flight:
                    began = clock()
                    async with asyncio.timeout(left):
                        seen = await self._ask(host, url)
                    left -= clock() - began
                    if self._wants_all(seen):
                        seen = replace(seen, content_key=await self._content(host, url, left))
            if isinstance(seen, Screened):
                return seen
            url, self._at_home = seen, False
        return self._screened("too_many_redirects")

    async def _ask(self, host: Host, url: httpx.URL) -> Screened | httpx.URL:
        """Ask for as much as the header needs; the result, or where the picture is said to be."""
        self._data.clear()
        end: int | None = self._options.first_bytes
        while True:
            response = await host.get(url, self._headers(end))
            try:
                if response.status in _REDIRECTS and "location" in response.headers:
                    return self._target(url, response.headers["location"])
                if response.status == _RANGE_REFUSED and not self._data and end is not None:
                    end = None
                    continue
                seen = await self._read(response, end)
            finally:
                response.close()  # its connection too, unless it was read to its end
            if isinstance(seen, Screened):
                return seen
            # With room for what follows a long segment, and twice as much at least: few requests suffice.
            room = seen.total_bytes + self._options.first_bytes
            end = min(max(room, 2 * len(self._data)), self._options.max_bytes)

    def _wants_all(self, seen: Screened | httpx.URL) -> TypeGuard[Screened]:
        """Whether a picture's bytes are still to be compared with those of others."""
        return self._options.same_content and isinstance(seen, Screened) and lacks_content(seen)

    async def _content(self, host: Host, url: httpx.URL, left_s: float) -> str | None:
        """A hash of all bytes; None if they can't be had within the bounds, then the picture is its own.

        They must begin as what was judged did: some hosts answer ranges, and send others a page of words.
        """
        digest, size, head = blake2b(digest_size=16), 0, bytearray()
        with suppress(TimeoutError, aiohttp.ClientError, Unreached):
            async with asyncio.timeout(left_s):
                response = await host.get(url, self._headers(None))
                try:
                    if response.status != _OK or _is_encoded(response):
                        return None
                    async for chunk in response.content.iter_any():
                        size += len(chunk)
                        if size > self._options.max_picture_bytes:
                            return None
                        digest.update(chunk)
                        head += chunk[: len(self._data) - len(head)]
                finally:
                    response.close()
                return digest.hexdigest() if head == self._data else None
        return None

    def _headers(self, end: int | None) -> dict[str, str]:
        headers = {"User-Agent": self._options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        if end is None:
            return headers
        if self._at_home and self._candidate.seen is not None and self._candidate.seen.validator:
            headers["If-None-Match"] = self._candidate.seen.validator
        return {**headers, "Range": f"bytes={len(self._data)}-{end - 1}"}

    def _target(self, url: httpx.URL, location: str) -> Screened | httpx.URL:
        target = _parsed(location, url)
        if target is None or (url.scheme, target.scheme) == ("https", "http"):
            return self._screened("bad_redirect")
        return target

    async def _read(self, response: aiohttp.ClientResponse, end: int | None) -> Screened | NeedMore:
        """Judge an answer; ``NeedMore`` only where another request can give it."""
        status, data, limit = response.status, self._data, self._options.max_bytes
        if status == _RANGE_REFUSED and data:  # the file ended before its header did
            return self._screened("not_an_image")
        if status == _NOT_MODIFIED and self._at_home and self._candidate.seen is not None:
            return self._candidate.seen
        meaning = judge_status(status)
        if meaning != "look":
            return self._screened(meaning if meaning == "not_found" else None)
        if _is_encoded(response):
            return self._screened()  # unasked for, and its bytes are not the file's: kept, size unknown
        whole = status != _PARTIAL
        size = response.headers.get("content-length", "*")
        if whole:
            data.clear()
        else:
            span = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if span is None or span[1] != str(len(data)):
                return self._screened()
            size = span[2]
        before = len(data)
        found, ended = await self._take(response, whole, limit if whole or end is None else end)
        total = int(size) if _LENGTH.fullmatch(size) else len(data) if whole and ended else None
        if not isinstance(found, NeedMore):
            validator = _validator(response) if self._at_home else None
            return replace(self._judged(found, total), validator=validator)
        if (whole and ended) or (total is not None and found.total_bytes > total):
            return self._screened("not_an_image")
        if found.total_bytes > limit or len(data) == before or whole:
            return self._screened()
        return found

    async def _take(self, response: aiohttp.ClientResponse, whole: bool, limit: int) -> tuple[Found, bool]:
        """Read until the header is known, the answer ends (then True) or ``limit`` is reached."""
        data, wanted = self._data, 0
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) >= limit:
                del data[limit:]
                break
            # A range is read to its end, or its connection could not be used again.
            if whole and len(data) >= wanted:
                found = read_header(bytes(data))
                if not isinstance(found, NeedMore) or found.total_bytes > limit:
                    return found, False
                wanted = max(found.total_bytes, 2 * len(data))
        return read_header(bytes(data)), response.content.at_eof() and len(data) < limit

    def _judged(self, found: Header | NotAnImage, file_bytes: int | None) -> Screened:
        key, reason = self._candidate.image_key, judge(found, self._fetcher.profile)
        if isinstance(found, NotAnImage):
            return Screened(key, reason)
        if reason is None and file_bytes is not None and cut_short(bytes(self._data), file_bytes):
            reason = "truncated"
        traits = ",".join(found.traits) or None
        return Screened(key, reason, found.width_px, found.height_px, found.image_format, traits)


def _is_encoded(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("content-encoding", "identity").lower() != "identity"


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What tells whether the picture is still the same: a strong ETag."""
    tag = response.headers.get("etag", "")
    return tag if _STRONG_TAG.fullmatch(tag) else None


def _parsed(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """Return an address that can be asked, seen from the page that names it; None if it can't."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        return None
    # The limit on length is the detector's, for what it is given, and a redirect's target is not.
    return url if refusal(str(url)) in (None, "url_too_long") else None


def _trouble(error: TimeoutError | aiohttp.ClientError) -> Trouble:
    if isinstance(error, TimeoutError):
        return Trouble.TIMEOUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Trouble.TLS
        if isinstance(cause, ConnectionRefusedError):
            return Trouble.REFUSED
        cause = cause.__cause__ or cause.__context__
    return Trouble.RESET
