"""Fetches one image from an untrusted URL: its header, and all its bytes if wanted, under stated caps.

The fetch follows redirects itself and checks each target like the first URL. It decodes nothing, and bounds
bytes, seconds, requests and redirects; `connection_pool` makes every connection. It uses no cookies and no
proxies or credentials of the environment, and logs no URL, which may be signed. What a response proves is
decided in `s2v_tasks.domain.image_response`; only a response to a request without Range rejects an image.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import aiohttp

from s2v_tasks.adapters.http.body import copy_body, is_encoded_page
from s2v_tasks.adapters.http.connection_pool import ConnectionPool, FetchAborted, OriginConnections
from s2v_tasks.adapters.http.fetch_rules import failure_of, is_malformed
from s2v_tasks.adapters.http.request_url import RequestUrl, parsed_url, redirect_target
from s2v_tasks.domain.dead_links import FetchFailure, check_status, wants_no_range
from s2v_tasks.domain.fetched import ByteSink, FetchedHeader
from s2v_tasks.domain.image_header import (
    ImageHeader,
    NeedMore,
    NotAnImage,
    ParseResult,
    cut_short,
    read_header,
)
from s2v_tasks.domain.image_response import Assembly, is_encoded, is_web_page, retry_after_s
from s2v_tasks.domain.opt_out import OPTED_OUT, opted_out

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NOT_MODIFIED: Final = 304

SinkFor = Callable[[FetchedHeader], ByteSink | None]


class Fetch:
    """The fetch of one image. A second ``run`` continues with the requests that are left.

    It holds no reference to its caller: a reference cycle would delay the release of each image's data.

    Args:
        pool: Makes the connections.
        slots: Bounds the requests in flight, to all hosts.
        url: The image's URL, as given.
        validator: A strong ETag of the image at this URL.
        reads_traits: Whether to read bytes behind this header, which may hold more traits.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        slots: asyncio.Semaphore,
        url: str,
        validator: str | None = None,
        *,
        reads_traits: Callable[[ImageHeader], bool],
    ) -> None:
        self._pool, self._slots = pool, slots
        self._options = pool.options
        self._given_url, self._validator = url, validator
        self._reads_traits = reads_traits
        self._requests_left = self._options.max_requests
        self._image = Assembly()
        self._by_header: FetchedHeader | None = None
        self._ranged = True
        self._range_resets = False
        self._url: RequestUrl | None = None
        self._redirected = False

    async def run(self, *, is_late: bool = False, sink_for: SinkFor | None = None) -> FetchedHeader:
        """Fetch the header, then all bytes if they are wanted.

        Args:
            is_late: This is the last fetch.
            sink_for: Gives the sink of all bytes of an image with this header; None: don't fetch them.

        Raises:
            FetchAborted: The host can't be reached, must not be connected to, or throttles.
        """
        self._by_header, self._redirected = None, False
        try:
            return await self._follow(is_late, sink_for)
        except (TimeoutError, aiohttp.ClientError) as error:
            failure = error
        if (header := self._header_so_far()) is not None:
            return header
        if is_malformed(failure):
            return self._unknown()
        kind = failure_of(failure)
        self._range_resets = kind is FetchFailure.RESET  # some servers reset the connection on a Range header
        raise FetchAborted(kind)

    async def _follow(self, is_late: bool, sink_for: SinkFor | None) -> FetchedHeader:
        url = parsed_url(self._given_url)
        if url is None:
            return FetchedHeader(reason="malformed_url")
        clock, left_s = asyncio.get_running_loop().time, self._options.timeout_s
        for _ in range(self._options.max_redirects + 1):
            self._url = url
            # A fetch holds nothing while it waits for a host's slot: neither hosts that redirect to each
            # other nor a slow host can block the rest. The timeout runs only during requests.
            async with self._pool.acquire(url) as connections:
                await connections.resolve()
                async with connections.slots:
                    await connections.wait_until_ready(is_late=is_late)
                    async with self._slots:
                        began = clock()
                        async with asyncio.timeout(left_s):
                            result = await self._fetch_header(connections, url)
                        left_s -= clock() - began
                        sink = sink_for(result) if sink_for and isinstance(result, FetchedHeader) else None
                        if sink is not None and isinstance(result, FetchedHeader):
                            result = await self._with_bytes(connections, url, result, sink, left_s)
            if isinstance(result, FetchedHeader):
                return result
            url, self._redirected = result, True
        return FetchedHeader(reason="too_many_redirects")

    async def _fetch_header(
        self, connections: OriginConnections, url: RequestUrl
    ) -> FetchedHeader | RequestUrl:
        """Request as much as the header needs; return the result, or the target of a redirect."""
        self._image.clear()
        self._ranged = not self._range_resets
        end = self._options.first_bytes
        while self._requests_left:
            result: FetchedHeader | NeedMore | RequestUrl | None = None
            try:
                response = await self._request(connections, url, self._range(end))
                try:
                    result = await self._read_response(connections, url, response, end)
                finally:
                    response.close()  # its connection too, unless it was read to its end
            except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
                if not self._ranged or self._header_so_far() is not None:
                    raise
            if result is None and not self._ranged:
                return self._unknown()
            if result is None:
                self._ranged = False
                self._image.clear()
            elif isinstance(result, NeedMore):
                # The bytes behind a long segment too, and at least twice as many: few requests suffice.
                room = result.total_bytes + self._options.first_bytes
                end = min(max(room, 2 * len(self._image.data)), self._options.max_bytes)
            else:
                return result
        return self._unknown()

    async def _request(
        self, connections: OriginConnections, url: RequestUrl, more: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        self._requests_left -= 1
        headers = {"User-Agent": self._options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        return await connections.get(url, headers | more if more else headers)

    def _range(self, end: int) -> dict[str, str] | None:
        if not self._ranged:
            return None
        start = len(self._image.data)
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if self._validator and not self._redirected:  # it is for the image's own URL
            headers["If-None-Match"] = self._validator
        if start and self._image.etag:
            headers["If-Range"] = self._image.etag
        return headers

    async def _read_response(
        self, connections: OriginConnections, url: RequestUrl, response: aiohttp.ClientResponse, end: int
    ) -> FetchedHeader | NeedMore | RequestUrl | None:
        """The result of a response, or the target of a redirect; None: send a request without Range."""
        status, headers = response.status, response.headers
        if opted_out(status, headers.getall("x-robots-tag", ())):
            return FetchedHeader(reason=OPTED_OUT)
        pause_s = retry_after_s(status, headers, datetime.now(UTC))
        connections.record_response(pause_s)
        if pause_s is not None:
            raise FetchAborted(FetchFailure.THROTTLED)
        if status in _REDIRECTS and "location" in headers:
            return redirect_target(url, headers["location"]) or FetchedHeader(reason="bad_redirect")
        if status == _NOT_MODIFIED and self._validator and not self._redirected:
            return FetchedHeader(is_unchanged=True)
        verdict = check_status(status)
        if verdict != "read":
            if self._ranged and wants_no_range(status):
                return None
            return FetchedHeader(reason=verdict) if verdict == "not_found" else self._unknown()
        if is_encoded(headers):  # although not accepted; its bytes are not the file's
            if not await is_encoded_page(response, self._options.first_bytes):
                return self._unknown()
            return None if self._ranged else FetchedHeader(NotAnImage(), is_page=True)
        if not self._image.accept(status, headers):
            return None
        limit = end if self._ranged and not self._image.is_whole else self._options.max_bytes
        parsed, ended = await self._read_body(response, limit)
        return self._result(response, parsed, ended, end)

    async def _read_body(self, response: aiohttp.ClientResponse, limit: int) -> tuple[ParseResult, bool]:
        """Read until the header is known, the body ends (then True) or ``limit`` is reached."""
        data, wanted = self._image.data, 0
        is_last = self._is_last
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) >= limit:
                del data[limit:]
                break
            # A range is read to its end, so that its connection can be used again.
            if is_last and len(data) >= wanted:
                parsed = read_header(bytes(data))
                more = self._bytes_needed(parsed)
                if not len(data) < more <= limit:
                    return parsed, False
                wanted = max(more, 2 * len(data))
        return read_header(bytes(data)), response.content.at_eof() and len(data) < limit

    @property
    def _is_last(self) -> bool:
        """Whether the current body goes to the file's end."""
        return self._image.is_whole or not self._ranged

    def _bytes_needed(self, parsed: ParseResult) -> int:
        """Bytes from the start of the file that are needed to parse more; 0: the header is complete."""
        if isinstance(parsed, NeedMore):
            return parsed.total_bytes
        if isinstance(parsed, ImageHeader) and parsed.traits_within and self._reads_traits(parsed):
            return parsed.traits_within
        return 0

    def _result(
        self, response: aiohttp.ClientResponse, parsed: ParseResult, ended: bool, end: int
    ) -> FetchedHeader | NeedMore | None:
        """The result of the bytes so far; None as in ``_read_response``."""
        image, limit, is_last = self._image, self._options.max_bytes, self._is_last
        size = len(image.data)
        total = size if image.total is None and ended and is_last else image.total
        more = self._bytes_needed(parsed)
        may_continue = not is_last and size == end < more <= limit and (total is None or more <= total)
        if isinstance(parsed, ImageHeader):
            is_cut = total is not None and cut_short(bytes(image.data), total)
            if may_continue or (is_cut and self._ranged):
                self._by_header = self._header(parsed)
                return NeedMore(more) if may_continue and not is_cut else None
            return self._header(parsed, total, is_cut=is_cut)
        if isinstance(parsed, NeedMore):
            if may_continue:
                return parsed
            ends_before = total is not None and more > total
            if more > limit and not ends_before:
                return self._unknown()
            if self._ranged or not ends_before:
                return None
        elif self._ranged:
            return None
        is_page = is_web_page(response.headers, bytes(image.data))
        return FetchedHeader(NotAnImage(), is_page=is_page)

    def _header(
        self, parsed: ImageHeader, total: int | None = None, *, is_cut: bool = False
    ) -> FetchedHeader:
        redirected_to = str(self._url) if self._redirected else None
        return FetchedHeader(
            parsed, file_bytes=total, is_cut=is_cut, etag=self._image.etag, redirected_to=redirected_to
        )

    def _header_so_far(self) -> FetchedHeader | None:
        """The header, if the bytes so far hold it: a later failure does not matter."""
        parsed = read_header(bytes(self._image.data))
        return self._header(parsed) if isinstance(parsed, ImageHeader) else self._by_header

    def _unknown(self) -> FetchedHeader:
        return self._by_header or FetchedHeader()

    async def _with_bytes(
        self,
        connections: OriginConnections,
        url: RequestUrl,
        header: FetchedHeader,
        sink: ByteSink,
        left_s: float,
    ) -> FetchedHeader:
        """Pass all bytes of the image to a sink; ``is_read``: all arrived within the bounds."""
        if not self._requests_left:
            return header
        with suppress(TimeoutError, aiohttp.ClientError, FetchAborted):
            async with asyncio.timeout(left_s):
                response = await self._request(connections, url)
                try:
                    if opted_out(response.status, response.headers.getall("x-robots-tag", ())):
                        return FetchedHeader(reason=OPTED_OUT)
                    most = self._options.max_image_bytes
                    return replace(header, is_read=await copy_body(response, sink, self._image.data, most))
                finally:
                    response.close()
        return header
