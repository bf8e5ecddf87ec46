"""A host of photographs on loopback: byte ranges, keep-alive, and counters of requests and bytes.

Run as a program it takes a number of photographs to draw, or a folder of files ``NUMBER.jpg``, prints its
port, and serves until its input ends: `/NUMBER...` is a file, 404 where there is none. ``/count`` returns the
counters and resets them.
"""

import asyncio
import io
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHOTOGRAPHS = 40
SMALLEST_BYTES = 200_000
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb" /(\d+)")


def photographs(count: int) -> list[bytes]:
    """JPEG files of 200 KB and more; every tenth has a side under 400 pixels, every fifth 20 KB of EXIF."""
    from PIL import Image, ImageFilter

    made = []
    for number in range(min(count, PHOTOGRAPHS)):
        size = (380, 3200) if number % 10 == 0 else (1500 + 20 * number, 1100 + 10 * number)
        noise = Image.effect_noise(size, 60).filter(ImageFilter.GaussianBlur(1))
        image = Image.merge("RGB", (noise, noise.transpose(Image.Transpose.FLIP_LEFT_RIGHT), noise))
        tags = Image.Exif()
        tags[0x010E] = "x" * (20_000 if number % 5 == 0 else 50)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=85, exif=tags.tobytes())
        made.append(file.getvalue())
    if min(map(len, made)) < SMALLEST_BYTES:
        raise SystemExit("a photograph came out too small for this comparison")
    return made


def drawn(count: int) -> Callable[[int], bytes | None]:
    """Photographs by number, as many as there may be: they repeat."""
    files = photographs(count)
    return lambda number: files[number % len(files)]


def stored(folder: Path) -> Callable[[int], bytes | None]:
    """The files of a folder."""

    def read(number: int) -> bytes | None:
        path = folder / f"{number}.jpg"
        return path.read_bytes() if path.exists() else None

    return read


@dataclass(frozen=True, slots=True)
class ImageHost:
    """The host of photographs."""

    port: int
    mean_bytes: int

    def urls(self, count: int, file: Path) -> Path:
        """Write ``count`` URLs, each of its own image."""
        lines = [f"http://127.0.0.1:{self.port}/{number}.jpg" for number in range(count)]
        file.write_text("\n".join(lines) + "\n", "utf-8")
        return file

    def count(self) -> dict[str, Any]:
        """Requests and bytes since the last call."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count") as response:
            counted: dict[str, Any] = json.load(response)
        return counted


@contextmanager
def image_host(what: int | Path) -> Iterator[ImageHost]:
    """Start the host of so many photographs, or of a folder's files; end it afterwards."""
    program = [sys.executable, __file__, str(what)]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None  # noqa: S101  (both were args for)
    assert child.stdout is not None  # noqa: S101
    try:
        yield ImageHost(**json.loads(child.stdout.readline()))
    finally:
        child.stdin.close()
        child.wait()


class _Connection(asyncio.Protocol):
    file: Callable[[int], bytes | None]
    count: dict[str, Any] = {}  # noqa: RUF012  (one for all of them)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._out: Any = transport
        self._in = b""
        self.count["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self._in += data
        while b"\r\n\r\n" in self._in:
            head, self._in = self._in.split(b"\r\n\r\n", 1)
            if head.startswith(b"GET /count "):
                self._send(b"200 OK", json.dumps(self.count).encode())
                self.count.update(dict.fromkeys(self.count, 0))
            else:
                self._image(head)

    def _image(self, head: bytes) -> None:
        number = _NUMBER.search(head)
        file = self.file(int(number[1])) if number else None
        if file is None:
            self._send(b"404 Not Found", b"")
            return
        requested, now = _RANGE.search(head), time.monotonic()
        start, end = (
            (int(requested[1]), min(int(requested[2]) + 1, len(file))) if requested else (0, len(file))
        )
        span = b"Content-Range: bytes %d-%d/%d\r\n" % (start, end - 1, len(file)) if requested else b""
        sent = self._send(b"206 Part" if requested else b"200 OK", file[start:end], span)
        self.count["requests"] += 1
        self.count["bytes"] += sent
        self.count["first_s"] = self.count["first_s"] or now
        self.count["last_s"] = time.monotonic()

    def _send(self, status: bytes, body: bytes, more: bytes = b"") -> int:
        head = b"HTTP/1.1 %b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n%b\r\n" % (
            status,
            len(body),
            more,
        )
        self._out.write(head)
        self._out.write(body)
        return len(head) + len(body)


async def _serve() -> None:
    what = sys.argv[1]
    _Connection.file = staticmethod(drawn(int(what)) if what.isdigit() else stored(Path(what)))
    _Connection.count = {"requests": 0, "bytes": 0, "connections": 0, "first_s": 0.0, "last_s": 0.0}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1000)
    files = [file for number in range(PHOTOGRAPHS) if (file := _Connection.file(number)) is not None]
    mean = sum(map(len, files)) // max(1, len(files))
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "mean_bytes": mean}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
