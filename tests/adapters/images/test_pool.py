"""The decoder's pool: hostile bytes are decoded in a child process, and cost no more than it."""

import asyncio
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from s2v_tasks.adapters.images.pool import Decoded, DecoderPool, Limits

MIB = 2**20
ORIENTATION, GPS, DESCRIPTION = 0x0112, 0x8825, 0x010E


def decoders() -> list[psutil.Process]:
    """The pool's children: other tests of this process have left servers of their own."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(argument.endswith("decoder.py") for argument in child.cmdline()):
                found.append(child)
    return found


def session_nice(process: psutil.Process) -> int | None:
    """The nice value of a process's session, by which Linux compares sessions; None: this kernel has none."""
    autogroup = Path(f"/proc/{process.pid}/autogroup")
    return int(autogroup.read_text("ascii").split()[-1]) if autogroup.exists() else None


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The file of an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def declared_png(width_px: int, height_px: int) -> bytes:
    """A PNG whose header says that it is so large; its pixels end early."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(9)))
        + chunk(b"IEND", b"")
    )


def halves(width_px: int = 400, height_px: int = 200, mode: str = "RGB") -> Image.Image:
    """Left black, right white."""
    image = Image.new("L", (width_px, height_px))
    image.paste(255, (width_px // 2, 0, width_px, height_px))
    return image.convert(mode)


async def decode(data: bytes, limits: Limits | None = None) -> Decoded | str:
    async with DecoderPool(limits) as pool:
        return await pool.run("thumbnail", data)


def shown(result: Decoded | str) -> Image.Image:
    """The thumbnail, which has the sides that are said."""
    assert isinstance(result, Decoded), result
    image = Image.open(io.BytesIO(result.data))
    assert image.size == (result.facts["width_px"], result.facts["height_px"])
    return image


def animated() -> bytes:
    frames = [halves(), Image.new("RGB", (400, 200), "red")]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


KINDS = {
    **{kind.lower(): encoded(halves(), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF")},
    "cmyk": encoded(halves(mode="CMYK")),
    "grey": encoded(halves(mode="L")),
    "palette": encoded(halves(mode="P"), "PNG", transparency=3),
    "one bit": encoded(halves(mode="1"), "PNG"),
    "transparent": encoded(halves(mode="RGBA"), "PNG"),
    "16 bits": encoded(halves(mode="I").point(lambda value: value * 257).convert("I;16"), "PNG"),
    "progressive": encoded(halves(), progressive=True),
    "animated": animated(),
}


async def test_every_kind_of_image_becomes_a_small_jpeg() -> None:
    """Of at most 160 px a side, with its colours; of an animated image the first frame."""
    async with DecoderPool() as pool:
        for kind, data in KINDS.items():
            image = shown(await pool.run("thumbnail", data))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (160, 80)), kind
            left, right = image.getpixel((20, 40)), image.getpixel((140, 40))
            assert max(left) < 40, kind  # type: ignore[arg-type,type-var]
            assert min(right) > 215, kind  # type: ignore[arg-type,type-var]


async def test_a_thumbnail_is_upright_and_holds_no_metadata() -> None:
    """EXIF turns the image; neither it, a place, a profile nor a comment is in the thumbnail."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION] = 6, "secret description"
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0)})
    data = encoded(halves(), exif=exif, comment=b"secret comment", icc_profile=b"secret profile")
    assert all(word in data for word in (b"secret description", b"secret comment", b"secret profile"))

    result = await decode(data)

    image = shown(result)
    assert image.size == (80, 160)
    assert image.getpixel((40, 10)) < (40, 40, 40) < image.getpixel((40, 150))  # type: ignore[operator]
    assert isinstance(result, Decoded)
    assert not image.getexif()
    assert b"secret" not in result.data
    assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)


REFUSED = {
    "empty": (b"", "unreadable"),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "unreadable"),
    "noise": (os.urandom(5000), "unreadable"),
    "truncated": (encoded(halves())[:700], "unreadable"),
    "truncated png": (encoded(halves(), "PNG")[:-60], "unreadable"),
    "a tiff": (encoded(halves(), "TIFF"), "unreadable"),
    "30,000 x 30,000": (declared_png(30_000, 30_000), "too_large"),
    "more pixels than allowed": (encoded(Image.new("1", (8000, 6300)), "PNG"), "too_large"),
}


async def test_what_is_no_image_is_refused_in_one_word() -> None:
    """Each by the same child, which goes on with the next image."""
    async with DecoderPool(size=1) as pool:
        for name, (data, why) in REFUSED.items():
            assert await pool.run("thumbnail", data) == why, name
        (child,) = decoders()
        assert isinstance(await pool.run("thumbnail", KINDS["jpeg"]), Decoded)
        assert decoders() == [child]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps no limit on memory")
async def test_a_bomb_ends_at_the_limit_of_memory() -> None:
    """49 million pixels in 100 KB."""
    bomb = encoded(Image.new("RGB", (7000, 7000)), "PNG", compress_level=1)
    async with DecoderPool(Limits(memory_bytes=64 * MIB), size=1) as pool:
        assert await pool.run("thumbnail", bomb) == "memory_limit"
        assert isinstance(await pool.run("thumbnail", KINDS["jpeg"]), Decoded)
    assert isinstance(await decode(bomb), Decoded)


async def test_an_image_that_takes_too_long_ends_the_child() -> None:
    """By the clock; the next image gets another child."""
    slow = encoded(Image.effect_noise((2000, 2000), 90), "PNG", compress_level=1)
    async with DecoderPool(Limits(wall_s=0.001), size=1) as pool:
        assert await pool.run("thumbnail", slow) == "time_limit"
        assert decoders() == []


async def test_a_killed_child_is_a_value_and_is_replaced() -> None:
    """Between two images and in the middle of one."""
    async with DecoderPool(size=1) as pool:
        assert isinstance(await pool.run("thumbnail", KINDS["jpeg"]), Decoded)
        decoders()[0].kill()
        assert await pool.run("thumbnail", KINDS["jpeg"]) == "crashed"
        assert isinstance(await pool.run("thumbnail", KINDS["jpeg"]), Decoded)
        (child,) = decoders()
        child.suspend()  # so that it can't be done before it is killed
        decoding = asyncio.create_task(pool.run("thumbnail", KINDS["jpeg"]))
        await asyncio.sleep(0)
        child.kill()
        assert await decoding == "crashed"
        assert isinstance(await pool.run("thumbnail", KINDS["jpeg"]), Decoded)
    assert decoders() == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process may do")
async def test_a_child_has_no_secret_and_no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in its environment, no core dump, no file, no socket, bounded memory, and a low priority."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with DecoderPool(size=1) as pool:
        await pool.run("thumbnail", KINDS["jpeg"])
        (child,) = decoders()
        environment = child.environ()
        assert set(environment) <= {"PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LC_CTYPE"}
        assert "secret" not in str(environment)
        assert child.nice() >= 10
        assert session_nice(child) in (None, 10)
        for limit, most in ((psutil.RLIMIT_CORE, 0), (psutil.RLIMIT_FSIZE, 0), (psutil.RLIMIT_NOFILE, 3)):
            assert child.rlimit(limit) == (most, most)
        assert 0 < child.rlimit(psutil.RLIMIT_AS)[0] < 2**31
        assert 0 < child.rlimit(psutil.RLIMIT_CPU)[0] < 60
        assert child.net_connections() == []


PARENT = """
import asyncio, io, os, psutil, signal
from PIL import Image
from s2v_tasks.adapters.images.pool import DecoderPool

async def main():
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "PNG")
    pool = DecoderPool(size=1)
    await pool.run("thumbnail", file.getvalue())
    print(psutil.Process().children()[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_no_child_outlives_its_parent(tmp_path: Path) -> None:
    """The parent is killed: the child's standard input ends, and so does it."""
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, cwd=tmp_path)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid = int(parent.stdout)
    if psutil.pid_exists(pid):
        try:
            psutil.Process(pid).wait(60)
        except psutil.NoSuchProcess:
            return
    assert not psutil.pid_exists(pid)
