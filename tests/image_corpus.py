"""Generated images in every variant of the four formats that the screen reads, the smallest that do."""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

SIZES = ((1, 1), (3, 2), (101, 203), (203, 101), (30, 1200))
LARGE = (613, 401)
NOISE = bytes(zlib.crc32(bytes([n % 251, n % 7])) & 0xFF for n in range(60_000))


def saved(image_format: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    """Encode an image that is not all of one colour."""
    out = io.BytesIO()
    grey = Image.frombytes("L", (100, 100), NOISE[:10_000]).resize(size)
    image = (
        grey.point(lambda value: value * 257, "I").convert("I;16") if mode == "I;16" else grey.convert(mode)
    )
    image.save(out, image_format, **options)
    return out.getvalue()


def exif(size: int = 60_000) -> bytes:
    """Tags of an image that is turned by a quarter, with a long text."""
    tags = Image.Exif()
    tags[0x0112] = 6
    tags[0x010E] = "x" * size
    return tags.tobytes()


def segment(marker: int, body: bytes) -> bytes:
    """One segment of a JPEG file."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Put segments before a JPEG's own."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bmp(
    size: tuple[int, int], header_bytes: int = 40, bits: int = 24, packing: int = 0, upside: int = 1
) -> bytes:
    """Write a BMP with a header of any generation: OS/2 1 (12), OS/2 2 (64), Windows 3 to 5 (40 to 124)."""
    width, height = size
    rows = height * ((width * bits + 31) // 32 * 4)
    palette = (3 if header_bytes == 12 else 4) * 2**bits if bits <= 8 else 0
    masks = 12 if packing == 3 and header_bytes == 40 else 0
    start = 14 + header_bytes + masks + palette
    if header_bytes == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        fields = (header_bytes, width, upside * height, 1, bits, packing, rows, 2835, 2835, 0, 0)
        header = struct.pack("<IiiHHIIiiII", *fields)
        if packing == 3:
            header += struct.pack("<III", 0xF800, 0x07E0, 0x001F)
        header = header.ljust(header_bytes + masks, b"\0")
    return struct.pack("<2sIHHI", b"BM", start + rows, 0, 0, start) + header + bytes(palette) + bytes(rows)


def _jpegs() -> Iterator[tuple[str, bytes]]:
    for mode, progressive, tags, size in itertools.product(("L", "RGB", "CMYK"), (0, 1), (0, 300), SIZES):
        more = {"exif": exif(tags)} if tags else {}
        yield (
            f"{mode} {progressive} {tags} {size}",
            saved("JPEG", mode, size, progressive=progressive, **more),
        )
    plain = saved("JPEG", "RGB", LARGE)
    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
        yield sampling, saved("JPEG", "RGB", LARGE, subsampling=sampling)
    yield "restart markers", saved("JPEG", "RGB", LARGE, restart_marker_rows=2)
    yield "optimised", saved("JPEG", "RGB", LARGE, optimize=True)
    yield "kept as RGB", saved("JPEG", "RGB", LARGE, keep_rgb=True)
    yield "64 KB of exif", saved("JPEG", "RGB", LARGE, exif=exif(65_000))
    yield "a colour profile of 200 KB", saved("JPEG", "RGB", LARGE, icc_profile=NOISE * 3 + NOISE[:20_000])
    yield "xmp", saved("JPEG", "RGB", LARGE, xmp=b"<x:xmpmeta/>" * 100)
    yield "a thumbnail", with_segments(plain, segment(0xE1, b"Exif\0\0" + saved("JPEG", "RGB", (160, 120))))
    yield "a comment like a frame", saved("JPEG", "RGB", LARGE, comment=b"\xff\xc0\0\x11 no frame")
    yield "300 KB of segments", with_segments(plain, *[segment(0xE2, b"\xff\xc0" * 30_000)] * 5)
    yield "2,000 segments", with_segments(plain, *[segment(0xFE, b"x")] * 2000)
    yield "fill bytes", with_segments(plain, b"\xff\xff\xff" + segment(0xFE, b"x") + b"\xff\xff")
    yield "tables first", with_segments(plain, plain[plain.index(b"\xff\xdb") :][:69])


def _pngs() -> Iterator[tuple[str, bytes]]:
    for mode, size in itertools.product(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), SIZES):
        yield f"{mode} {size}", saved("PNG", mode, size)
    for level in (0, 9):
        yield f"level {level}", saved("PNG", "RGB", LARGE, compress_level=level)
    yield "exif", saved("PNG", "RGB", LARGE, exif=exif())
    yield "a colour profile", saved("PNG", "RGB", LARGE, icc_profile=NOISE)
    yield "transparent", saved("PNG", "P", LARGE, transparency=0)
    plain = saved("PNG", "RGB", LARGE)
    yield "a long text first", plain[:33] + chunk(b"tEXt", b"Comment\0" + b"x" * 9000) + plain[33:]
    yield "one chunk of many", plain[:33] + chunk(b"tIME", b"\x07\xea\x0b\x16\x0c\0\0") + plain[33:]
    for size in SIZES[2:]:
        yield f"animated {size}", _animated("PNG", "RGB", size)


def _bmps() -> Iterator[tuple[str, bytes]]:
    for mode, size in itertools.product(("1", "L", "P", "RGB", "RGBA"), SIZES):
        yield f"{mode} {size}", saved("BMP", mode, size)
    for header_bytes, size in itertools.product((12, 40, 52, 56, 64, 108, 124), SIZES):
        yield f"header {header_bytes} {size}", bmp(size, header_bytes)
    for header_bytes in (40, 64, 108, 124):
        yield f"top down, header {header_bytes}", bmp(LARGE, header_bytes, upside=-1)
    for bits in (1, 4, 8):
        yield f"OS/2, {bits} bits", bmp(LARGE, 12, bits)
        yield f"{bits} bits", bmp(LARGE, 40, bits)
    for header_bytes in (40, 108, 124):
        yield f"565, header {header_bytes}", bmp(LARGE, header_bytes, 16, packing=3)


def _webps() -> Iterator[tuple[str, bytes]]:
    for mode, lossless, tags, size in itertools.product(("RGB", "RGBA"), (False, True), (0, 300), SIZES):
        more = {"exif": exif(tags)} if tags else {}
        yield (
            f"{mode} {lossless} {tags} {size}",
            saved("WEBP", mode, size, lossless=lossless, method=0, **more),
        )
    yield "a colour profile", saved("WEBP", "RGB", LARGE, icc_profile=NOISE)
    for size, lossless in itertools.product(SIZES[2:], (False, True)):
        yield f"animated {size} {lossless}", _animated("WEBP", "RGBA", size, lossless=lossless, method=0)


def _animated(image_format: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    other = Image.new(mode, size, "red")
    return saved(image_format, mode, size, save_all=True, append_images=[other], duration=99, **options)


CORPUS = {
    f"{name}: {variant}": data
    for name, images in (("jpeg", _jpegs()), ("png", _pngs()), ("bmp", _bmps()), ("webp", _webps()))
    for variant, data in images
}
"""Every variant by its name."""
