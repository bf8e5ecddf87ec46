"""The child process of `s2v_tasks.adapters.images.pool`: decodes one image after the other, under limits.

It runs as a file, imports only Pillow and the standard library, and speaks on standard input and output. A
request is a line of JSON, ``{"function": ..., "bytes": n}``, and n bytes; a response is
``{"bytes": n, ...facts}`` and n bytes, or ``{"refusal": slug}``. End of file ends it.
"""

import copy
import io
import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageColor,
    ImagePalette,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,  # EXIF is TIFF
    WebPImagePlugin,
)

LOADED: Final = (
    BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin,
    WebPImagePlugin, ImageColor, ImagePalette, copy,
)  # fmt: skip
"""Loaded before the limits: afterwards no file can be opened."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SIDE_PX: Final = 160
_NICE: Final = 10
_BACKGROUND: Final = (255, 255, 255)
_QUALITY: Final = 80
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation. Source: EXIF 2.32, tag 274."""

Result = tuple[dict[str, Any], bytes]


class Refused(Exception):
    """The image is not decoded; ``slug`` says why."""

    def __init__(self, slug: str) -> None:
        super().__init__(slug)
        self.slug = slug


def opened(data: bytes, max_pixels: int) -> Image.Image:
    """An image of a known format whose header says no more than so many pixels; none is decoded yet."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise Refused("too_large")
    return image


def upright(data: bytes, max_pixels: int, side_px: int) -> Image.Image:
    """The first frame as RGB, upright, at most ``side_px`` a side."""
    image = opened(data, max_pixels)
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    image.draft(None, (2 * side_px, 2 * side_px))  # a JPEG is decoded at an eighth, if that is enough
    small = _with_smooth_colours(image)
    small.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
    small = _opaque(small)
    return small if turn is None else small.transpose(turn)


def thumbnail(data: bytes, max_pixels: int) -> Result:
    """A JPEG of at most ``SIDE_PX`` a side, upright, of the first frame, without metadata."""
    small = upright(data, max_pixels, SIDE_PX)
    pixels = Image.new("RGB", small.size)  # nothing but pixels is taken over
    pixels.paste(small)
    written = io.BytesIO()
    pixels.save(written, "JPEG", quality=_QUALITY)
    return {"width_px": pixels.width, "height_px": pixels.height}, written.getvalue()


def _with_smooth_colours(image: Image.Image) -> Image.Image:
    """The image in a mode that can be scaled."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("I") if image.mode.startswith("I;") else image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):  # 16 bits a sample
        return image.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "RGBa", "La"):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, _BACKGROUND)
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")


Functions = dict[str, Callable[[bytes, int], Result]]
FUNCTIONS: Final[Functions] = {"thumbnail": thumbnail}
"""All that this process does: data and the highest number of pixels in, facts and bytes out."""


def main(functions: Functions = FUNCTIONS) -> None:
    """Serve requests until the parent closes the pipe."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    limits = json.loads(source.readline())
    Image.preinit()
    _restrict(limits["memory_bytes"])
    Image.MAX_IMAGE_PIXELS = None  # ours is lower, and no warning
    _send(sink, {"ready": True})
    while line := source.readline():
        request = json.loads(line)
        data = source.read(request["bytes"])
        if len(data) < request["bytes"]:
            return
        _allow_cpu(limits["cpu_s"])
        facts, result = _done(functions[request["function"]], data, limits["max_pixels"])
        _send(sink, {**facts, "bytes": len(result)}, result)


def _done(function: Callable[[bytes, int], Result], data: bytes, max_pixels: int) -> Result:
    try:
        return function(data, max_pixels)
    except Refused as refused:
        slug = refused.slug
    except MemoryError:
        slug = "memory_limit"
    except Exception:  # noqa: BLE001 - whatever hostile bytes make a decoder raise
        slug = "unreadable"
    return {"refusal": slug}, b""


def _send(sink: BinaryIO, facts: dict[str, Any], data: bytes = b"") -> None:
    sink.write(json.dumps(facts).encode() + b"\n" + data)
    sink.flush()


def _restrict(memory_bytes: int) -> None:
    """Low priority; no core dump, no file written or opened, no more memory than now and ``memory_bytes``.

    macOS keeps no limit on memory: the limits on pixels and time are all there.
    """
    os.nice(_NICE)
    with suppress(OSError):  # on Linux, priorities of different sessions are compared by this one instead
        Path("/proc/self/autogroup").write_text(str(_NICE), "ascii")
    limits = dict.fromkeys((resource.RLIMIT_CORE, resource.RLIMIT_FSIZE), 0)
    limits[resource.RLIMIT_NOFILE] = 3
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _allow_cpu(seconds: int) -> None:
    """So many more seconds of CPU time; then the kernel ends this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
