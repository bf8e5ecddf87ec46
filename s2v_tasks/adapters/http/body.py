"""Response bodies: copies the bytes of an image to a sink, and recognises encoded web pages."""

from typing import Final

import aiohttp

from s2v_tasks.domain.fetched import ByteSink
from s2v_tasks.domain.image_header import NotAnImage, read_header
from s2v_tasks.domain.image_response import decoded, is_encoded, is_web_page, may_be_encoded_page

_OK: Final = 200


async def copy_body(
    response: aiohttp.ClientResponse, sink: ByteSink, start: bytes | bytearray, max_bytes: int
) -> bool:
    """Pass a body to a sink; return whether it is whole and begins as expected.

    Args:
        response: The response to a request without Range.
        sink: Gets the bytes.
        start: The known beginning of the file: some hosts send the image only to requests with Range.
        max_bytes: The limit of the body.
    """
    if response.status != _OK or is_encoded(response.headers):
        return False
    size, head = 0, bytearray()
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            return False
        sink.update(chunk)
        head += chunk[: len(start) - len(head)]
    return head == start


async def is_encoded_page(response: aiohttp.ClientResponse, max_bytes: int) -> bool:
    """Whether an encoded body is a web page; reads it only if its media type is that of a page."""
    if not may_be_encoded_page(response.headers):
        return False
    text = decoded(response.headers, await response.content.read(max_bytes), max_bytes)
    return bool(text) and read_header(text) == NotAnImage() and is_web_page(response.headers, text)
