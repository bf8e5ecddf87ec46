"""A server of pictures that does nothing but count: fast enough for tens of thousands in a test."""

import asyncio
import io
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from PIL import Image


def _png() -> bytes:
    content = io.BytesIO()
    Image.new("1", (800, 600)).save(content, "PNG")
    return content.getvalue()


PNG = _png()
GOOD = (
    f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-{len(PNG) - 1}/{len(PNG)}\r\n"
    f"Content-Length: {len(PNG)}\r\n\r\n"
).encode() + PNG
GONE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class PictureServer:
    """On loopback, in a thread; a path with ``gone`` in it is not found. ``fetched`` counts paths."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
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
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                self.fetched[path] += 1
                writer.write(GONE if "gone" in path else GOOD)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
