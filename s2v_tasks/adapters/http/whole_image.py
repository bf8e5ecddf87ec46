"""Fetches whole images from untrusted URLs, by the rules by which the screen fetches."""

from typing import Literal, NamedTuple

from s2v_tasks.adapters.http.connection_pool import FetchAborted
from s2v_tasks.adapters.http.fetcher import Fetch
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.domain.fetched import FetchedHeader
from s2v_tasks.domain.image_header import ImageHeader, NotAnImage
from s2v_tasks.domain.opt_out import OPTED_OUT

NotFetched = Literal["not_fetched", "not_shown", "too_large", "unreadable"]
"""Why there are no bytes: the host sent none, it opted out, more than the cap, or no image."""


class WholeImage(NamedTuple):
    """All bytes of an image, or why there are none; its strong ETag at the image's own URL, if known."""

    content: bytes | NotFetched
    validator: str | None = None


class _TooLarge(Exception):
    """More bytes came than are wanted."""


class _Body:
    """A sink that holds at most so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.data = bytearray()
        self.validator: str | None = None
        self._max_bytes = max_bytes

    def update(self, chunk: bytes, /) -> None:
        """Take the next bytes.

        Raises:
            _TooLarge: They are too many; the fetch ends.
        """
        if len(self.data) + len(chunk) > self._max_bytes:
            raise _TooLarge
        self.data += chunk

    def wanted(self, header: FetchedHeader) -> "_Body | None":
        """This sink, if all bytes of an image with this header are wanted."""
        if header.reason is not None or not isinstance(header.header, ImageHeader):
            return None
        self.validator = header.validator
        if (header.file_bytes or 0) > self._max_bytes:
            raise _TooLarge
        return self


async def fetch_whole(fetcher: ImageFetcher, url: str, max_bytes: int) -> WholeImage:
    """The image at a URL.

    Args:
        fetcher: Bounds time, requests and redirects of each fetch, and how many there are at a time.
        url: Untrusted.
        max_bytes: Of the file; a longer one is not read to its end.
    """
    body = _Body(max_bytes)
    fetch = Fetch(fetcher.pool, fetcher.in_flight, url, reads_traits=lambda _: False)
    try:
        found = await fetch.run(sink_for=body.wanted)
    except _TooLarge:
        return WholeImage("too_large", body.validator)
    except FetchAborted:
        return WholeImage("not_fetched")
    if found.reason == OPTED_OUT:
        return WholeImage("not_shown")
    if isinstance(found.header, NotAnImage) and not found.is_page:
        return WholeImage("unreadable")
    return WholeImage(bytes(body.data), body.validator) if found.is_read else WholeImage("not_fetched")
