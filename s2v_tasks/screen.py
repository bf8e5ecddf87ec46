"""Stage 2: what the first bytes of a picture tell for free, and what a failed look means.

Pure rules; the bytes are fetched elsewhere. A picture is refused only when it can't pass: whatever could not
be known is kept, for a call costs little and a lost picture can't be had back.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from s2v_tasks.models import Profile

UNREACHABLE: Final = frozenset({"not_found", "no_such_host", "refused", "timeout"})
"""Reasons that tell of the place, not of the picture; their share is held against a threshold."""

REASONS: Final = UNREACHABLE | {
    "not_an_image",
    "unsupported_format",
    "too_small",
    "too_large",
    "private_address",
    "too_many_redirects",
    "bad_redirect",
    "malformed_url",
}
"""Every reason for which a look at a picture refuses it."""


class Trouble(StrEnum):
    """Why a look came to nothing."""

    TIMEOUT = "timeout"
    RESET = "reset"
    TLS = "tls"
    DNS_BUSY = "dns_busy"
    NO_SUCH_HOST = "no_such_host"
    REFUSED = "refused"


LATE_RETRY: Final = frozenset({Trouble.TIMEOUT, Trouble.RESET, Trouble.TLS, Trouble.DNS_BUSY})
"""Troubles that may pass by themselves: looked at once more, at the end of the shard."""

REASON_OF_TROUBLE: Final[Mapping[Trouble, str]] = MappingProxyType(
    dict.fromkeys(LATE_RETRY, "timeout") | {Trouble.NO_SUCH_HOST: "no_such_host", Trouble.REFUSED: "refused"}
)
"""The reason a picture is refused for when the trouble lasts."""


def judge_status(http_status: int) -> Literal["not_found", "look", "keep"]:
    """Say what an answer's status means; ``keep``: the picture can't be known from here, the detector may.

    401, 403, 405, 429 and the like are often for us alone: hosts treat unknown fetchers differently.
    """
    if http_status in (404, 410):
        return "not_found"
    return "look" if http_status in (200, 206) else "keep"


@dataclass(frozen=True, slots=True)
class Header:
    """The format of a picture and its sides as stored, in pixels; None where the header does not tell.

    EXIF orientation is not applied: both sides have the same limits.
    """

    image_format: str
    width_px: int | None = None
    height_px: int | None = None


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The header reaches at least to byte ``total_bytes`` of the file, counted from its start."""

    total_bytes: int


@dataclass(frozen=True, slots=True)
class NotAnImage:
    """These bytes start no picture of any kind known here."""


Found = Header | NeedMore | NotAnImage

_ENOUGH_TO_TELL: Final = 30  # bytes; the sides of all but JPEG lie within, and no real file is shorter
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
_BMP_CORE: Final = 12
_BMP_HEADERS: Final = frozenset({16, 40, 52, 56, 64, 108, 124})


def read_header(data: bytes) -> Found:
    """Read format and sides from the first bytes of a file; pixels are never decoded.

    ``NeedMore`` of a file that has no more bytes means that it is broken.
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


def _sized(image_format: str, width_px: int, height_px: int) -> Found:
    return Header(image_format, width_px, height_px) if width_px > 0 and height_px > 0 else NotAnImage()


def _jpeg(data: bytes) -> Found:
    at = 2
    while segment := _JPEG_SEGMENT.search(data, at):
        marker, at = data[segment.start() + 1], segment.start()
        if marker in _JPEG_ENDS:
            return NotAnImage()
        if len(data) < at + 9:
            return NeedMore(at + 9)
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2:
            return NotAnImage()
        if marker in _JPEG_FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            # A height of 0 is told behind the pixels (DNL).
            return _sized("jpeg", width, height) if height else Header("jpeg")
        at += 2 + length
    return NeedMore(max(at, len(data) - 1) + 9)


def _png(data: bytes) -> Found:
    if data[8:16] != b"\x00\x00\x00\x0dIHDR":
        return NotAnImage()
    return _sized("png", int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


def _webp(data: bytes) -> Found:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = int.from_bytes(data[24:27], "little"), int.from_bytes(data[27:30], "little")
        return Header("webp", width + 1, height + 1)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return _sized("webp", width & 0x3FFF, height & 0x3FFF)  # the upper bits ask for scaling
    return NotAnImage()


def _bmp(data: bytes) -> Found:
    size = int.from_bytes(data[14:18], "little")
    if size == _BMP_CORE:  # OS/2 1.x
        return _sized("bmp", int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little"))
    if size not in _BMP_HEADERS:
        return NotAnImage()
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = int.from_bytes(data[22:26], "little", signed=True)
    return _sized("bmp", width, abs(height))  # negative: rows from top to bottom


def _foreign(data: bytes) -> Found:
    for offset, mark, name in _FOREIGN:
        if data.startswith(mark, offset):
            # An AVIF may name the container as its brand and itself only as compatible.
            return Header("avif" if name == "heic" and b"avif" in data[16:_ENOUGH_TO_TELL] else name)
    text = data[:_SVG_WITHIN].removeprefix(b"\xef\xbb\xbf")
    if _SVG.match(text) and b"<svg" in text.lower() and b"<html" not in text.lower():
        return Header("svg")
    return NotAnImage()


def judge(header: Header | NotAnImage, profile: Profile) -> str | None:
    """Return why the detector could not take this picture, or None. A side at the limit is kept."""
    if isinstance(header, NotAnImage):
        return "not_an_image"
    if header.image_format not in profile.formats:
        return "unsupported_format"
    sides = [side for side in (header.width_px, header.height_px) if side is not None]
    if any(side < profile.min_side_px for side in sides):
        return "too_small"
    return "too_large" if any(side > profile.max_side_px for side in sides) else None


_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local, and with it the metadata service of most clouds
        "fe80::/10",
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle
        "fd00:ec2::/32",  # Amazon
        "fd20:ce::254/128",  # Google
    )
)
"""Metadata services give out credentials: no option opens these."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_LOW_32_BITS: Final = 0xFFFF_FFFF


def may_connect(address: str, allow_private: bool = False) -> bool:
    """Say whether a host at this address may be asked for a picture.

    Raises:
        ValueError: this is no address.

    """
    ip = _unwrapped(ipaddress.ip_address(address))
    if ip.is_multicast or ip.is_unspecified or any(ip in network for network in _NEVER):
        return False
    if allow_private:
        return True
    return ip.is_global and not ip.is_reserved and ip not in _NAT64_LOCAL


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does."""
    if ip.version == 4:
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & _LOW_32_BITS)
    return ip.ipv4_mapped or ip.sixtofour or ip
