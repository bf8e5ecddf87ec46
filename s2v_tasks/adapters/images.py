"""Fetches the first bytes of candidate pictures, so that stage 2 can judge them.

The addresses come from strangers. So a host is looked up once and only a checked address is connected to,
redirects are followed by hand and checked alike, nothing is decoded, and bytes, seconds and redirects are
bounded. ``httpx`` is used below its client: no cookies, no proxies and credentials from the environment, and
no URL in a log, for it may be signed.
"""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from traceback import extract_tb
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

import httpx

from s2v_tasks.candidates import refusal
from s2v_tasks.errors import S2VError
from s2v_tasks.models import Candidate, Profile, Screened
from s2v_tasks.screen import (
    LATE_RETRY,
    REASON_OF_TROUBLE,
    Found,
    Header,
    NeedMore,
    NotAnImage,
    Trouble,
    judge,
    judge_status,
    may_connect,
    read_header,
)

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to addresses, best first; raises ``socket.gaierror``."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RANGE_REFUSED: Final = 416
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_UNKNOWN_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_TRIED_ADDRESSES: Final = 3
_SILENT_CONNECTS: Final = 3  # in a row: then a host's other pictures wait for the late retry, not for it
_DNS_THREADS: Final = 16  # of our own: slow name servers must not hold up the event loop's other threads


def _user_agent() -> str:
    try:
        return f"s2v-tasks/{version('s2v-tasks')}"
    except PackageNotFoundError:  # run from a folder that is not installed
        return "s2v-tasks"


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to fetch. ``timeout_s`` and ``max_bytes`` are for one look in all, waiting in line apart.

    ``allow_private_hosts`` opens private and loopback addresses, never link-local and metadata ones.
    """

    allow_private_hosts: bool = False
    timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    max_bytes: int = 1_048_576
    first_bytes: int = 4096
    max_redirects: int = 3
    max_in_flight: int = 64
    per_host: int = 8
    user_agent: str = field(default_factory=_user_agent)


class _Unreached(Exception):
    """The look ended before an answer: a trouble, or the reason for a refusal."""

    def __init__(self, why: Trouble | str) -> None:
        super().__init__(why)
        self.why = why


class _Host:
    """One origin during one pass over a shard: its addresses, looked up once, and its connections.

    Connections are not shared between hosts: one that was verified for a host must not serve another that
    happens to live at the same address.
    """

    def __init__(self, fetcher: "ImageFetcher", url: httpx.URL) -> None:
        limits = httpx.Limits(max_connections=fetcher.options.per_host)
        self.users = 0
        self.turns = fetcher.turns(url)
        self.transport = httpx.AsyncHTTPTransport(verify=fetcher.tls, trust_env=False, limits=limits)
        self._fetcher = fetcher
        self._lookup = asyncio.Lock()
        self._known: tuple[str, ...] | Trouble | str | None = None
        self._silent = 0

    async def send(self, url: httpx.URL, headers: list[tuple[str, str]]) -> httpx.Response:
        """Send to the first of the host's addresses that takes a connection."""
        options, failed = self._fetcher.options, None
        timeout = httpx.Timeout(options.timeout_s, connect=options.connect_timeout_s).as_dict()
        addresses = await self._addresses(url)
        for address in addresses:
            if self._silent >= _SILENT_CONNECTS:
                raise _Unreached(Trouble.TIMEOUT)
            # Certificates have no dot at the end of a name.
            extensions = {"timeout": timeout, "sni_hostname": url.raw_host.decode().removesuffix(".")}
            request = httpx.Request(
                "GET", url.copy_with(host=address), headers=headers, extensions=extensions
            )
            try:
                response = await self.transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = failed or error
                self._silent += isinstance(error, httpx.ConnectTimeout)
            else:
                self._silent = 0
                self._known = (address, *(other for other in addresses if other != address))
                return response
        raise failed or _Unreached(Trouble.NO_SUCH_HOST)

    async def _addresses(self, url: httpx.URL) -> tuple[str, ...]:
        async with self._lookup:
            if self._known is None:
                self._known = await self._look_up(url)
        if isinstance(self._known, str):
            raise _Unreached(self._known)
        return self._known

    async def _look_up(self, url: httpx.URL) -> tuple[str, ...] | Trouble | str:
        options = self._fetcher.options
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                found = await self._fetcher.resolver(url.raw_host.decode(), port)
        except socket.gaierror as error:
            return Trouble.NO_SUCH_HOST if error.errno in _UNKNOWN_NAME else Trouble.DNS_BUSY
        except TimeoutError:
            return Trouble.DNS_BUSY
        # All of them: a name with one public and one private address is an attempt, or a mistake.
        if not all(may_connect(address, options.allow_private_hosts) for address in found):
            return "private_address"
        return tuple(dict.fromkeys(found))[:_TRIED_ADDRESSES]


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
        self.resolver = resolver or self._system_resolver
        self.tls = tls or httpx.create_ssl_context()
        self.in_flight = asyncio.Semaphore(options.max_in_flight)
        self._turns: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()
        self._dns = ThreadPoolExecutor(_DNS_THREADS, thread_name_prefix="s2v-dns")

    async def __aenter__(self) -> Self:
        # At DEBUG it would log the headers of answers, and so the signed target of a redirect.
        wire = logging.getLogger("httpcore.http11")
        wire.setLevel(max(wire.level, logging.INFO))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dns.shutdown(wait=False, cancel_futures=True)

    def turns(self, url: httpx.URL) -> asyncio.Semaphore:
        """Return the bound on one host, whatever shard asks; forgotten when nobody holds it."""
        return self._turns.setdefault(url.raw_host, asyncio.Semaphore(self.options.per_host))

    async def _system_resolver(self, host: str, port: int) -> Sequence[str]:
        # As bytes: Python's own IDNA would raise on names that httpx has encoded or left alone.
        found = await asyncio.get_running_loop().run_in_executor(
            self._dns, lambda: socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]

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
        hosts: dict[tuple[str, bytes, int | None], _Host] = {}
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_Look(self, hosts, one).result()) for one in candidates]
        except ExceptionGroup as defects:
            raise defects.exceptions[0] from None
        return [task.result() for task in tasks]


class _Look:
    """One look at one picture: what was read of it so far, and how long it may still take."""

    def __init__(
        self, fetcher: ImageFetcher, hosts: dict[tuple[str, bytes, int | None], _Host], candidate: Candidate
    ) -> None:
        self._fetcher = fetcher
        self._options = fetcher.options
        self._hosts = hosts
        self._candidate = candidate
        self._data = bytearray()

    async def result(self) -> Screened | Trouble:
        """Look, and tell what was seen or what was in the way."""
        try:
            return await self._follow()
        except _Unreached as out:
            return out.why if isinstance(out.why, Trouble) else self._screened(out.why)
        except TimeoutError:
            return Trouble.TIMEOUT
        except httpx.TransportError as error:
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
            async with self._host(url) as host, host.turns, self._fetcher.in_flight:
                began = clock()
                async with asyncio.timeout(left):
                    seen = await self._ask(host, url)
                left -= clock() - began
            if isinstance(seen, Screened):
                return seen
            url = seen
        return self._screened("too_many_redirects")

    @asynccontextmanager
    async def _host(self, url: httpx.URL) -> AsyncIterator[_Host]:
        """Share the host with the pass's other pictures; the last one closes its connections."""
        origin = (url.scheme, url.raw_host, url.port)
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = _Host(self._fetcher, url)
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            if not host.users:
                del self._hosts[origin]
                await host.transport.aclose()

    async def _ask(self, host: _Host, url: httpx.URL) -> Screened | httpx.URL:
        """Ask for as much as the header needs; the result, or where the picture is said to be."""
        self._data.clear()
        end: int | None = self._options.first_bytes
        while True:
            response = await host.send(url, self._headers(url, end))
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return self._target(url, response.headers["location"])
                if response.status_code == _RANGE_REFUSED and not self._data and end is not None:
                    end = None
                    continue
                seen = await self._read(response)
            finally:
                await response.aclose()
            if isinstance(seen, Screened):
                return seen
            # With room for what follows a long segment, and twice as much at least: few requests suffice.
            room = seen.total_bytes + self._options.first_bytes
            end = min(max(room, 2 * len(self._data)), self._options.max_bytes)

    def _headers(self, url: httpx.URL, end: int | None) -> list[tuple[str, str]]:
        headers = [
            ("Host", url.netloc.decode()),
            ("User-Agent", self._options.user_agent),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
        ]
        return headers if end is None else [*headers, ("Range", f"bytes={len(self._data)}-{end - 1}")]

    def _target(self, url: httpx.URL, location: str) -> Screened | httpx.URL:
        target = _parsed(location, url)
        if target is None or (url.scheme, target.scheme) == ("https", "http"):
            return self._screened("bad_redirect")
        return target

    async def _read(self, response: httpx.Response) -> Screened | NeedMore:
        """Judge an answer; ``NeedMore`` only where another request can give it."""
        status, data = response.status_code, self._data
        if status == _RANGE_REFUSED and data:  # the file ended before its header did
            return self._screened("not_an_image")
        meaning = judge_status(status)
        if meaning != "look":
            return self._screened(meaning if meaning == "not_found" else None)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            return self._screened()  # unasked for, and its bytes are not the file's: kept, size unknown
        whole = status != httpx.codes.PARTIAL_CONTENT
        size = response.headers.get("content-length", "*")
        if whole:
            data.clear()
        else:
            span = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if span is None or int(span[1]) != len(data):
                return self._screened()
            size = span[2]
        before = len(data)
        found, ended = await self._take(response, whole)
        if not isinstance(found, NeedMore):
            return self._judged(found)
        if (whole and ended) or (size.isdecimal() and found.total_bytes > int(size)):
            return self._screened("not_an_image")
        if found.total_bytes > self._options.max_bytes or len(data) == before or whole:
            return self._screened()
        return found

    async def _take(self, response: httpx.Response, whole: bool) -> tuple[Found, bool]:
        """Read until the header is known, the answer ends (then True) or it is too long."""
        data, wanted, limit = self._data, 0, self._options.max_bytes
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) >= limit:
                return read_header(bytes(data[:limit])), False
            # A range is read to its end, or its connection could not be used again.
            if whole and len(data) >= wanted:
                found = read_header(bytes(data))
                if not isinstance(found, NeedMore) or found.total_bytes > limit:
                    return found, False
                wanted = max(found.total_bytes, 2 * len(data))
        return read_header(bytes(data)), True

    def _judged(self, found: Header | NotAnImage) -> Screened:
        key, reason = self._candidate.image_key, judge(found, self._fetcher.profile)
        if isinstance(found, NotAnImage):
            return Screened(key, reason)
        return Screened(key, reason, found.width_px, found.height_px, found.image_format)


def _parsed(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """Return an address that can be asked, seen from the page that names it; None if it can't."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        return None
    # The limit on length is the detector's, for what it is given, and a redirect's target is not.
    return url if refusal(str(url)) in (None, "url_too_long") else None


def _trouble(error: httpx.TransportError) -> Trouble:
    if isinstance(error, httpx.TimeoutException):
        return Trouble.TIMEOUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Trouble.TLS
        if isinstance(cause, ConnectionRefusedError):
            return Trouble.REFUSED
        cause = cause.__cause__ or cause.__context__
    return Trouble.RESET
