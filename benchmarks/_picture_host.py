"""A host of photographs on loopback: ranges, keep-alive, and a count of what it was asked for and sent.

Run as a program it draws its photographs, prints its port, serves until its input ends. ``/count`` answers
with the counters and sets them to zero.
"""

import asyncio
import io
import json
import re
import sys
import time
from typing import Any

PHOTOGRAPHS = 40
SMALLEST_BYTES = 200_000
_RANGE = re.compile(rb"\r\nrange: bytes=(\d+)-(\d+)", re.IGNORECASE)


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


class _Connection(asyncio.Protocol):
    files: tuple[bytes, ...] = ()
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
                self._picture(head)

    def _picture(self, head: bytes) -> None:
        file = self.files[int(head.split(b"/", 2)[1].split(b".")[0]) % len(self.files)]
        asked, now = _RANGE.search(head), time.monotonic()
        start, end = (int(asked[1]), min(int(asked[2]) + 1, len(file))) if asked else (0, len(file))
        span = b"Content-Range: bytes %d-%d/%d\r\n" % (start, end - 1, len(file)) if asked else b""
        sent = self._send(b"206 Part" if asked else b"200 OK", file[start:end], span)
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
    _Connection.files = tuple(photographs(int(sys.argv[1])))
    _Connection.count = {"requests": 0, "bytes": 0, "connections": 0, "first_s": 0.0, "last_s": 0.0}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=1000)
    mean = sum(map(len, _Connection.files)) // len(_Connection.files)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "mean_bytes": mean}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
