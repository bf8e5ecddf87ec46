"""Format and sides of a picture, read from the first bytes of its file. Pure; pixels are never decoded.

Kept libraries want the whole file for WEBP, or turn the sides by EXIF, or name no format. The rule here: what
a decoder could read is never misread and never called broken; what no decoder could read is told where these
bytes show it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Header:
    """The format of a picture and its sides as stored, in pixels; None where the header does not tell.

    EXIF orientation is not applied: both sides have the same limits. ``traits``: what may matter later and
    refuses nothing, of ``animated``, ``cmyk`` (or another four-channel JPEG), ``12_bit`` and ``16_bit``.
    """

    image_format: str
    width_px: int | None = None
    height_px: int | None = None
    traits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header reaches at least to byte ``total_bytes`` of the file, counted from its start."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class NotAnImage:
    """These bytes start no picture of any kind known here."""


Found = Header | NeedMore | NotAnImage

_ENOUGH_TO_TELL: Final = 30  # bytes; the sides of all but JPEG lie within, and no picture is shorter
_SVG_WITHIN: Final = 1024
_FOREIGN: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\x00", "tiff"),
    (0, b"MM\x00*", "tiff"),
    (0, b"II+\x00", "tiff"),
    (0, b"MM\x00+", "tiff"),
    (0, b"\x00\x00\x01\x00", "ico"),
    (0, b"\x00\x00\x02\x00", "ico"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypavis", "avif"),
    (4, b"ftyphei", "heic"),
    (4, b"ftyphev", "heic"),
    (4, b"ftypmif1", "heic"),
    (4, b"ftypmsf1", "heic"),
    (0, b"\xff\x0a", "jxl"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (0, b"\xff\x4f\xff\x51", "jp2"),
    (0, b"8BPS", "psd"),
)
"""Where other formats carry their mark: offset, bytes, name."""
_SVG: Final = re.compile(rb"\s*(?:<\?xml|<!--|<!doctype\s+svg|<svg)", re.IGNORECASE)
# A segment of a JPEG file with a length behind it. Decoders pass over fill bytes and stray ones before it.
_JPEG_SEGMENT: Final = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # not tables, not reserved
_JPEG_ENDS: Final = frozenset({0xD9, 0xDA})  # the pixels or the end: a frame would have come before
# A megabyte of empty segments would hold the event loop, and with it the paid calls, for a third of a second.
_JPEG_MOST_SEGMENTS: Final = 4096
_CMYK_CHANNELS: Final = 4
_PNG_HEADER_END: Final = 33
_BMP_CORE: Final = 12
_BMP_HEADERS: Final = frozenset({16, 40, 52, 56, 64, 108, 124})
_BMP_DEPTHS: Final = frozenset({1, 2, 4, 8, 16, 24, 32})
_VP8X_BYTES: Final = 10
_VP8X_ANIMATED: Final = 0x02


def read_header(data: bytes) -> Found:
    """Read format and sides from the first bytes of a file.

    ``NeedMore`` of a file that has no more bytes means that it is broken. A header that takes more than
    ``_JPEG_MOST_SEGMENTS`` steps is not read to its end: the sides stay unknown.
    """
    if len(data) < _ENOUGH_TO_TELL:
        return NeedMore(_ENOUGH_TO_TELL)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    return _foreign(data)


def cut_short(data: bytes, file_bytes: int) -> bool:
    """Whether a file of ``file_bytes`` ends before the pixels that its first bytes promise.

    BMP, PNG and WEBP say how long they are; of a JPEG only its end would tell, which is not fetched.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _number(data, 4, 8) + 8 > file_bytes
    if data.startswith(b"\x89PNG"):
        return _png_cut_short(data, file_bytes)
    if data.startswith(b"BM"):
        return _bmp_end(data) - 3 > file_bytes  # some leave out what only fills the last row
    return False


def _sized(image_format: str, width_px: int, height_px: int, *traits: str) -> Found:
    if width_px > 0 and height_px > 0:
        return Header(image_format, width_px, height_px, traits)
    return NotAnImage()


def _number(data: bytes, start: int, end: int) -> int:
    return int.from_bytes(data[start:end], "little")


def _jpeg(data: bytes) -> Found:
    at = 2
    for _ in range(_JPEG_MOST_SEGMENTS):
        segment = _JPEG_SEGMENT.search(data, at)
        if segment is None:
            return NeedMore(max(at, len(data) - 1) + 10)
        marker, at = data[segment.start() + 1], segment.start()
        if marker in _JPEG_ENDS:
            return NotAnImage()
        if len(data) < at + 10:
            return NeedMore(at + 10)
        length = int.from_bytes(data[at + 2 : at + 4])
        if marker in _JPEG_FRAMES:
            return _jpeg_frame(data[at + 2 : at + 10])
        at += 2 + max(length, 2)  # decoders pass over a length that can't be
    return Header("jpeg")


def _jpeg_frame(frame: bytes) -> Found:
    """Read a frame: its length, bits of a sample, height, width and number of channels."""
    bits, channels = frame[2], frame[7]
    if int.from_bytes(frame[:2]) != 8 + 3 * channels or not channels:
        return NotAnImage()
    height, width = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7])
    traits = [f"{bits}_bit"] if bits in (12, 16) else []
    traits += ["cmyk"] if channels == _CMYK_CHANNELS else []
    if not height:  # it is told behind the pixels (DNL)
        return Header("jpeg", traits=tuple(traits))
    return _sized("jpeg", width, height, *traits)


def _png(data: bytes) -> Found:
    if len(data) < _PNG_HEADER_END:
        return NeedMore(_PNG_HEADER_END)
    if data[8:16] != b"\x00\x00\x00\x0dIHDR" or crc32(data[12:29]) != int.from_bytes(data[29:33]):
        return NotAnImage()
    traits = ["16_bit"] if data[24] == 16 else []
    for kind, _ in _png_chunks(data):
        if kind == b"IDAT":
            break
        if kind == b"acTL":
            traits.append("animated")
    return _sized("png", int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), *traits)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Walk the chunks behind the header whose names are at hand: name, and where in the file each ends."""
    at = _PNG_HEADER_END
    while len(data) >= at + 8:
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        yield kind, end
        if kind == b"IEND":
            return
        at = end


def _png_cut_short(data: bytes, file_bytes: int) -> bool:
    """Whether a chunk, its checksum apart, ends behind the file, or the file before any pixels."""
    next_at, pixels = _PNG_HEADER_END, False
    for kind, end in _png_chunks(data):
        if end - 4 > file_bytes:
            return True
        next_at, pixels = end, pixels or kind == b"IDAT"
    return not pixels and next_at + 8 > file_bytes


def _webp(data: bytes) -> Found:
    kind = data[12:16]
    if kind == b"VP8X" and _number(data, 16, 20) == _VP8X_BYTES:
        traits = ("animated",) if data[20] & _VP8X_ANIMATED else ()
        return Header("webp", _number(data, 24, 27) + 1, _number(data, 27, 30) + 1, traits)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _number(data, 21, 25)
        if not bits >> 29:  # the version
            return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and not data[20] & 1:  # a key frame
        # The upper bits ask for scaling.
        return _sized("webp", _number(data, 26, 28) & 0x3FFF, _number(data, 28, 30) & 0x3FFF)
    return NotAnImage()


def _bmp(data: bytes) -> Found:
    size = _number(data, 14, 18)
    if size == _BMP_CORE:  # OS/2 1.x
        return _sized("bmp", _number(data, 18, 20), _number(data, 20, 22))
    if size not in _BMP_HEADERS:
        return NotAnImage()
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = int.from_bytes(data[22:26], "little", signed=True)
    return _sized("bmp", width, abs(height))  # negative: rows from top to bottom


def _bmp_end(data: bytes) -> int:
    """Where in the file the last row of pixels ends; 0 where the header does not tell."""
    core = _number(data, 14, 18) == _BMP_CORE
    width, height = (18, 20), (20, 22)
    bits, packing = _number(data, 24, 26), 0
    if not core:
        width, height = (18, 22), (22, 26)
        bits, packing = _number(data, 28, 30), _number(data, 30, 34)
    if packing not in (0, 3) or bits not in _BMP_DEPTHS:
        return 0
    rows = abs(int.from_bytes(data[slice(*height)], "little", signed=not core))
    row_bytes = (_number(data, *width) * bits + 31) // 32 * 4
    return _number(data, 10, 14) + rows * row_bytes


def _foreign(data: bytes) -> Found:
    for offset, mark, name in _FOREIGN:
        if data.startswith(mark, offset):
            # An AVIF may name the container as its brand and itself only as compatible.
            return Header("avif" if name == "heic" and b"avif" in data[16:_ENOUGH_TO_TELL] else name)
    text = data[:_SVG_WITHIN].removeprefix(b"\xef\xbb\xbf")
    if _SVG.match(text) and b"<svg" in text.lower() and b"<html" not in text.lower():
        return Header("svg")
    return NotAnImage()
