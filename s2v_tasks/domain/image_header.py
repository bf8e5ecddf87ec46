"""Image headers: parses format and sides from the first bytes of a file. Pure; pixels are never decoded.

Maintained libraries need the whole file for WEBP, or swap the sides by EXIF, or give no format. The rule: a
file that a decoder can read is never misread and never called broken; a file that no decoder can read is
reported where its first bytes prove it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The format of an image and its sides as stored, in pixels; None where the header lacks them.

    EXIF orientation is not applied: both sides have the same limits. ``traits``: properties that reject
    nothing but may matter later: ``animated``, ``cmyk`` (or another four-channel JPEG), ``12_bit`` and
    ``16_bit``. ``traits_within``: if above 0, the file up to this byte may hold another trait.
    """

    image_format: str
    width_px: int | None = None
    height_px: int | None = None
    traits: tuple[str, ...] = ()
    traits_within: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header reaches at least to byte ``total_bytes`` of the file, counted from its start."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class NotAnImage:
    """These bytes start no image of any supported or recognised format."""


ParseResult = ImageHeader | NeedMore | NotAnImage

_MIN_BYTES: Final = 30  # bytes; the sides of all but JPEG lie within
_VP8L_BYTES: Final = 25  # a lossless WEBP of one colour has 26 to 28 bytes in all, no other image under 30
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
"""Signatures of unsupported formats: offset, bytes, name."""
_SVG: Final = re.compile(rb"\s*(?:<\?xml|<!--|<!doctype\s+svg|<svg)", re.IGNORECASE)
# A JPEG segment with a length field. Decoders skip fill bytes and stray bytes before it.
_JPEG_SEGMENT: Final = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # not tables, not reserved
_JPEG_ENDS: Final = frozenset({0xD9, 0xDA})  # the pixels or the end: a frame would have come before
# A megabyte of empty segments would block the event loop, and the paid calls, for a third of a second.
_MAX_SEGMENTS: Final = 4096
_CMYK_CHANNELS: Final = 4
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_IHDR_BYTES: Final = 13
_PNG_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample by colour type: no decoder reads another combination."""
_CHECKSUM_BYTES: Final = 4  # after a chunk, and after the pixels in it: decoders need neither
_BMP_CORE: Final = 12
_BMP_HEADERS: Final = range(
    16, 65_536
)  # standard sizes are 16, 40, 52, 56, 64, 108, 124; decoders read others as 40
_BMP_DEPTHS: Final = frozenset({1, 2, 4, 8, 16, 24, 32, 64})
_VP8X_BYTES: Final = 10
_VP8X_END: Final = 30
_VP8X_ANIMATED: Final = 0x02


def read_header(data: bytes) -> ParseResult:
    """Read format and sides from the first bytes of a file.

    ``NeedMore`` of a file that has no more bytes means that it is broken. A header that takes more than
    ``_MAX_SEGMENTS`` steps is not read to its end: the sides of a JPEG, the traits of a PNG stay unknown.
    """
    if len(data) < _MIN_BYTES:
        short = len(data) >= _VP8L_BYTES and data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8L"
        return _webp(data) if short else NeedMore(_MIN_BYTES)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(_PNG_SIGNATURE):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    return _foreign(data)


def cut_short(data: bytes, file_bytes: int) -> bool:
    """Whether a file of ``file_bytes`` ends before the pixels that its header declares.

    BMP, PNG and WEBP declare their length. A JPEG does not: only its end would show it, which is not fetched.
    """
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _number(data, 4, 8) + 8 > file_bytes
    if data.startswith(b"\x89PNG"):
        return _png_cut_short(data, file_bytes)
    if data.startswith(b"BM"):
        return _bmp_end(data) - 3 > file_bytes  # some files omit the padding of the last row
    return False


def _sized(image_format: str, width_px: int, height_px: int, *traits: str) -> ParseResult:
    if width_px > 0 and height_px > 0:
        return ImageHeader(image_format, width_px, height_px, traits)
    return NotAnImage()


def _number(data: bytes, start: int, end: int) -> int:
    return int.from_bytes(data[start:end], "little")


def _jpeg(data: bytes) -> ParseResult:
    at = 2
    for _ in range(_MAX_SEGMENTS):
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
        at += 2 + max(length, 2)  # decoders skip an impossible length
    return ImageHeader("jpeg")


def _jpeg_frame(frame: bytes) -> ParseResult:
    """Parse a frame: its length, bits of a sample, height, width and number of channels."""
    bits, channels = frame[2], frame[7]
    if int.from_bytes(frame[:2]) != 8 + 3 * channels or not channels:
        return NotAnImage()
    height, width = int.from_bytes(frame[3:5]), int.from_bytes(frame[5:7])
    traits = [f"{bits}_bit"] if bits in (12, 16) else []
    traits += ["cmyk"] if channels == _CMYK_CHANNELS else []
    if not height:  # it follows the pixels (DNL)
        return ImageHeader("jpeg", traits=tuple(traits))
    return _sized("jpeg", width, height, *traits)


def _png(data: bytes) -> ParseResult:
    """Parse IHDR, wherever it is (Apple writes CgBI before it), then search for acTL up to the pixels."""
    header: ImageHeader | None = None
    next_at = len(_PNG_SIGNATURE)
    for kind, body, end in islice(_png_chunks(data), _MAX_SEGMENTS):
        if header is None and kind == b"IHDR":
            if len(data) < body + _IHDR_BYTES:
                return NeedMore(body + _IHDR_BYTES)
            parsed = _png_header(data[body : min(body + _IHDR_BYTES, end - _CHECKSUM_BYTES)])
            if not isinstance(parsed, ImageHeader):
                return parsed
            header = parsed
        elif kind in (b"IDAT", b"IEND") or not kind.isalpha():
            return header or NotAnImage()
        elif header is not None and kind == b"acTL":
            if len(data) >= body + 4:  # the number of frames; a second acTL is ignored
                return _animated(header, int.from_bytes(data[body : body + 4]) > 1)
            return replace(header, traits_within=body + 4)
        next_at = end
    if header is None:
        return NeedMore(max(next_at, len(data) - 7) + 8)
    return replace(header, traits_within=next_at + 8)


def _png_header(ihdr: bytes) -> ParseResult:
    if len(ihdr) < _IHDR_BYTES or ihdr[8] not in _PNG_DEPTHS.get(ihdr[9], ()):
        return NotAnImage()
    traits = ("16_bit",) if ihdr[8] == 16 else ()
    return _sized("png", int.from_bytes(ihdr[:4]), int.from_bytes(ihdr[4:8]), *traits)


def _animated(header: ImageHeader, is_animated: bool) -> ImageHeader:
    return replace(header, traits=(*header.traits, "animated")) if is_animated else header


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over the chunks whose names were fetched: name, offset of the content, offset of the end."""
    at = len(_PNG_SIGNATURE)
    while len(data) >= at + 8:
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end


def _png_cut_short(data: bytes, file_bytes: int) -> bool:
    """Whether the pixels, or a chunk before them, exceed the file; checksums excepted."""
    next_at, pixels = len(_PNG_SIGNATURE), False
    for kind, _, end in islice(_png_chunks(data), _MAX_SEGMENTS):
        if pixels and kind != b"IDAT":
            return False  # decoders have all pixels by then
        pixels = kind == b"IDAT"
        if end - _CHECKSUM_BYTES * (1 + pixels) > file_bytes:
            return True
        next_at = end
    return not pixels and next_at + 8 > file_bytes


def _webp(data: bytes) -> ParseResult:
    kind = data[12:16]
    if kind == b"VP8X" and _number(data, 16, 20) == _VP8X_BYTES:
        header = ImageHeader("webp", _number(data, 24, 27) + 1, _number(data, 27, 30) + 1)
        return _animated(header, bool(data[20] & _VP8X_ANIMATED) and not _webp_single_frame(data))
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _number(data, 21, 25)
        if not bits >> 29:  # the version
            return ImageHeader("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and not data[20] & 1:  # a key frame
        # The upper bits ask for scaling.
        return _sized("webp", _number(data, 26, 28) & 0x3FFF, _number(data, 28, 30) & 0x3FFF)
    return NotAnImage()


def _webp_single_frame(data: bytes) -> bool:
    """Whether the fetched bytes prove that an animation has only one frame."""
    at, file_end, frames = _VP8X_END, _number(data, 4, 8) + 8, 0
    for _ in range(_MAX_SEGMENTS):
        if at >= file_end:
            return frames == 1
        if len(data) < at + 8:
            return False
        frames += data[at : at + 4] == b"ANMF"
        if frames > 1:
            return False
        size = _number(data, at + 4, at + 8)
        at += 8 + size + size % 2
    return False


def _bmp(data: bytes) -> ParseResult:
    size = _number(data, 14, 18)
    if _bmp_depth(data) not in _BMP_DEPTHS:
        return NotAnImage()
    if size == _BMP_CORE:  # OS/2 1.x
        return _sized("bmp", _number(data, 18, 20), _number(data, 20, 22))
    if size not in _BMP_HEADERS:
        return NotAnImage()
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = int.from_bytes(data[22:26], "little", signed=True)
    return _sized("bmp", width, abs(height))  # negative: rows from top to bottom


def _bmp_depth(data: bytes) -> int:
    """Bits of a pixel."""
    return _number(data, 24, 26) if _number(data, 14, 18) == _BMP_CORE else _number(data, 28, 30)


def _bmp_end(data: bytes) -> int:
    """The offset at which the last row of pixels ends; 0 if the header does not declare it."""
    size = _number(data, 14, 18)
    core = size == _BMP_CORE
    width, height = ((18, 20), (20, 22)) if core else ((18, 22), (22, 26))
    packing = _number(data, 30, 34) if size >= 20 else 0  # a shorter header has no such field
    if packing not in (0, 3):
        return 0
    rows = abs(int.from_bytes(data[slice(*height)], "little", signed=not core))
    row_bytes = (_number(data, *width) * _bmp_depth(data) + 31) // 32 * 4
    return _number(data, 10, 14) + rows * row_bytes


def _foreign(data: bytes) -> ParseResult:
    for offset, mark, name in _FOREIGN:
        if data.startswith(mark, offset):
            # An AVIF may name the container as its brand and itself only as compatible.
            return ImageHeader("avif" if name == "heic" and b"avif" in data[16:_MIN_BYTES] else name)
    text = data[:_SVG_WITHIN].removeprefix(b"\xef\xbb\xbf")
    if _SVG.match(text) and b"<svg" in text.lower() and b"<html" not in text.lower():
        return ImageHeader("svg")
    return NotAnImage()
