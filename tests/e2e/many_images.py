"""A server of images that does nothing but count: fast enough for tens of thousands in a test."""

import asyncio
import io
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from PIL import Image

from s2v_tasks.emulator.sample_images import portrait


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("1", (800, 600)).save(content, "PNG")
    return content.getvalue()


def _responses(file: bytes) -> dict[bool, bytes]:
    """The responses to a request for a range, the first 4 KB of which are sent, and to one for the whole."""
    first = file[:4096]
    part = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{len(first) - 1}/{len(file)}\r\n"
        f"Content-Length: {len(first)}\r\n\r\n"
    )
    whole = f"HTTP/1.1 200 OK\r\nContent-Length: {len(file)}\r\n\r\n"
    return {True: part.encode() + first, False: whole.encode() + file}


NO_FACE, FACE = _responses(_png()), _responses(portrait(1))
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
EXPIRED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


class ImageServer:
    """On loopback, in a thread; a path with ``gone`` in it is not found, one with ``expired`` is forbidden.

    One with ``face`` in it is a drawn portrait, any other shows nothing.

    ``fetched`` counts the fetches of each path: one begins with a request for a range, and requests the whole
    only before an image is given up. ``whole`` counts those.
    """

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        opened = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", backlog=1024), self._loop
        )
        self._server = opened.result()
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                path = request.split(b" ", 2)[1].decode()
                is_range = b"\r\nrange:" in request.lower()
                (self.fetched if is_range else self.whole)[path] += 1
                good = (FACE if "face" in path else NO_FACE)[is_range]
                writer.write(GONE if "gone" in path else EXPIRED if "expired" in path else good)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
