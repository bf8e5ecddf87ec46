"""Screens images: fetches their headers and applies the rules of `s2v_tasks.domain.screening`."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from traceback import extract_tb
from types import TracebackType
from typing import Any, Self

import httpx

from s2v_tasks.adapters import open_files
from s2v_tasks.adapters.http.connection_pool import ConnectionPool, FetchAborted
from s2v_tasks.adapters.http.dns import Resolver, SystemResolver
from s2v_tasks.adapters.http.fetch_options import FetchOptions
from s2v_tasks.adapters.http.fetcher import Fetch
from s2v_tasks.domain.alternate_urls import MAX_URLS
from s2v_tasks.domain.dead_links import LATE_RETRY, REASON_OF_FAILURE, FetchFailure
from s2v_tasks.domain.fetched import FetchedHeader
from s2v_tasks.domain.image_header import ImageHeader
from s2v_tasks.domain.image_url import normal_form
from s2v_tasks.domain.screening import (
    check_header,
    file_key,
    gave_no_image,
    is_better,
    lacks_content,
    rejection_reason,
)
from s2v_tasks.errors import S2VError
from s2v_tasks.models import DetectorSpec, Screened, UniqueImage


class ImageFetcher:
    """Fetches and checks images; an async context manager. One per process: it bounds all connections.

    Args:
        options: The bounds of a fetch.
        detector: Whose limits the images are checked against.
        resolver: Replaces the system's DNS.
        tls: Replaces the system's certificates.
    """

    def __init__(
        self,
        options: FetchOptions,
        detector: DetectorSpec,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.options = options = options.within(open_files.room())
        self.detector = detector
        self._system_resolver = SystemResolver(options.connect_timeout_s, options.dns_threads)
        tls = tls or httpx.create_ssl_context()
        self.pool = ConnectionPool(options, resolver or self._system_resolver, tls)
        self.in_flight = asyncio.Semaphore(options.max_in_flight)

    def reads_traits(self, header: ImageHeader) -> bool:
        """Whether traits behind this header matter: only of an image that is kept."""
        return check_header(header, self.detector) is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system_resolver.close()
        await self.pool.close()

    async def screen(self, images: Sequence[UniqueImage]) -> list[Screened]:
        """Screen the images of one shard; one result each, in the order given.

        An image whose URL gave none is fetched from its next URL; the newest that may be checked is used.

        Raises:
            S2VError: A defect of this program; names the image.
        """
        results = await self._fetch(images)
        for index in range(1, MAX_URLS):
            again = {
                i: replace(image, url=image.others[index - 1])
                for i, image in enumerate(images)
                if index <= len(image.others) and _gave_no_image(results[i])
            }
            for i, result in zip(again, await self._fetch([*again.values()]), strict=True):
                found = _screened(images[i], result)
                if is_better(found, _screened(images[i], results[i])):
                    results[i] = replace(found, url_index=index)
        return [_screened(*pair) for pair in zip(images, results, strict=True)]

    async def _fetch(self, images: Sequence[UniqueImage]) -> list[Screened | FetchFailure]:
        """Fetch each from its URL; what failed for a transient cause once more after the others."""
        checks = [_ImageCheck(self, image) for image in images]
        results = await self._pass(checks)
        late = [i for i, result in enumerate(results) if _may_be_transient(result)]
        for i, result in zip(late, await self._pass([checks[i] for i in late], is_late=True), strict=True):
            results[i] = result
        return results

    async def _pass(
        self, checks: Sequence["_ImageCheck"], *, is_late: bool = False
    ) -> list[Screened | FetchFailure]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(check.result(is_late=is_late)) for check in checks]
        except ExceptionGroup as defects:
            raise defects.exceptions[0] from None
        return [task.result() for task in tasks]


class _ImageCheck:
    """The check of one image: its fetch, and the screening rules applied to the result."""

    def __init__(self, fetcher: ImageFetcher, image: UniqueImage) -> None:
        self._options, self._detector = fetcher.options, fetcher.detector
        self._image = image
        self._digest: Any = None
        self._fetch = Fetch(
            fetcher.pool,
            fetcher.in_flight,
            image.url,
            image.cached.validator if image.cached is not None else None,
            reads_traits=fetcher.reads_traits,
        )

    async def result(self, *, is_late: bool = False) -> Screened | FetchFailure:
        """Fetch and check the image; return the result, or the failure of the fetch."""
        try:
            sink_for = self._sink_for if self._options.same_content else None
            fetched = await self._fetch.run(is_late=is_late, sink_for=sink_for)
        except FetchAborted as aborted:
            cause = aborted.cause
            return cause if isinstance(cause, FetchFailure) else self._screened(cause)
        except Exception as error:  # noqa: BLE001 - raised below, without its message, which may hold the URL
            frame = extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {frame.name}, line {frame.lineno}"
            defect = S2VError(f"a defect in screening: {what}; please report it", self._image.image_key)
        else:
            screened = self._check(fetched)
            return replace(screened, content_key=self._digest.hexdigest()) if fetched.is_read else screened
        raise defect

    def _screened(self, reason: str | None = None) -> Screened:
        return Screened(self._image.image_key, reason)

    def _sink_for(self, fetched: FetchedHeader) -> Any:
        """A hash of all bytes, where it is needed to compare the image with others."""
        if not lacks_content(self._check(fetched)):
            return None
        self._digest = blake2b(digest_size=16)
        return self._digest

    def _check(self, fetched: FetchedHeader) -> Screened:
        if fetched.is_unchanged and self._image.cached is not None:
            return self._image.cached
        header, reason = fetched.header, rejection_reason(fetched, self._detector)
        if fetched.reason is not None or not isinstance(header, ImageHeader):
            return self._screened(reason)
        return Screened(
            self._image.image_key,
            reason,
            header.width_px,
            header.height_px,
            header.image_format,
            ",".join(header.traits) or None,
            self._file_key(fetched) if reason is None and fetched.redirected_to else None,
            fetched.validator,
            file_key=self._file_key(fetched) if reason is None and not fetched.redirected_to else None,
        )

    def _file_key(self, fetched: FetchedHeader) -> str | None:
        """The content key of the file, at the URL that redirects led to or at the image's own."""
        url = fetched.redirected_to or self._image.url
        return file_key(normal_form(url), fetched.file_bytes, fetched.etag)


def _gave_no_image(result: Screened | FetchFailure) -> bool:
    """See `gave_no_image`; a host that throttles this client is not sent more requests."""
    return result is not FetchFailure.THROTTLED if isinstance(result, FetchFailure) else gave_no_image(result)


def _may_be_transient(result: Screened | FetchFailure) -> bool:
    return isinstance(result, FetchFailure) and result in LATE_RETRY


def _screened(image: UniqueImage, result: Screened | FetchFailure) -> Screened:
    if isinstance(result, FetchFailure):
        return Screened(image.image_key, REASON_OF_FAILURE[result])
    return result
