"""Stage 2 rules: headers of pictures, statuses, sides, addresses."""

import io
import itertools
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.screen import (
    LATE_RETRY,
    REASON_OF_TROUBLE,
    REASONS,
    UNREACHABLE,
    Header,
    NeedMore,
    NotAnImage,
    Trouble,
    judge,
    judge_status,
    may_connect,
    read_header,
)

WIDTH, HEIGHT = 613, 401


def saved(
    image_format: str, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: object
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, image_format, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(*segments: bytes) -> bytes:
    jpeg = saved("JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def os2_bmp(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    pixels = b"\0" * 64
    return (
        b"BM"
        + struct.pack("<IHHI", 26 + len(pixels), 0, 0, 26)
        + struct.pack("<IHHHH", 12, width, height, 1, 24)
        + pixels
    )


def bmp_with_height(height: int) -> bytes:
    bmp = bytearray(saved("BMP"))
    bmp[22:26] = struct.pack("<i", height)
    return bytes(bmp)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6  # turned by a quarter
    tags[0x010E] = "x" * 60_000
    return tags.tobytes()


def thumbnail_segment() -> bytes:
    """A small JPEG inside an APP1 segment: its frame is not the picture's."""
    return segment(0xE1, b"Exif\0\0" + saved("JPEG", size=(160, 120)))


ANIMATION = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
PICTURES = {
    "jpeg": saved("JPEG"),
    "jpeg progressive": saved("JPEG", progressive=True),
    "jpeg grey": saved("JPEG", "L"),
    "jpeg cmyk": saved("JPEG", "CMYK"),
    "jpeg turned, 60 KB of exif": saved("JPEG", exif=exif()),
    "jpeg thumbnail": with_segments(thumbnail_segment()),
    "jpeg comment": saved("JPEG", comment=b"\xff\xc0 no frame"),
    "jpeg 300 KB of segments": with_segments(*[segment(0xE2, b"\xff\xc0" * 30_000)] * 5),
    "jpeg fill bytes": with_segments(b"\xff\xff\xff" + segment(0xFE, b"x") + b"\xff\xff"),
    "jpeg stray bytes": with_segments(segment(0xFE, b"x") + b"stray\xff\x00"),
    "jpeg tables first": with_segments(
        segment(0xC4, b"\0" * 20), segment(0xC8, b"12345678"), segment(0xCC, b"1")
    ),
    "png": saved("PNG"),
    "png palette": saved("PNG", "P"),
    "png alpha": saved("PNG", "RGBA"),
    "png 1 bit": saved("PNG", "1"),
    "png 16 bits": saved("PNG", "I;16"),
    "bmp": saved("BMP"),
    "bmp palette": saved("BMP", "P"),
    "bmp grey": saved("BMP", "L"),
    "bmp top down": bmp_with_height(-HEIGHT),
    "bmp os/2": os2_bmp(),
    "webp lossy": saved("WEBP"),
    "webp lossless": saved("WEBP", lossless=True),
    "webp alpha": saved("WEBP", "RGBA"),
    "webp animated": saved("WEBP", save_all=True, append_images=ANIMATION[1:]),
    "webp exif": saved("WEBP", exif=exif()),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_format_and_sides_are_read_as_stored(data: bytes) -> None:
    """What Pillow says of a generated picture is what we say, without decoding it."""
    with Image.open(io.BytesIO(data)) as image:
        told = Header((image.format or "").lower(), *image.size)
    assert read_header(data) == told == Header(told.image_format, WIDTH, HEIGHT)


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_a_file_cut_anywhere_tells_the_truth_or_asks_for_more(data: bytes) -> None:
    """A beginning of a picture never gives a wrong header, is never refused, and asks for bytes to come."""
    whole = read_header(data)
    needed = 0
    for length in (*range(min(len(data), 2000)), *range(2000, len(data), 997)):
        found = read_header(data[:length])
        if isinstance(found, NeedMore):
            assert found.total_bytes > length
            needed = length
        else:
            assert found == whole
    assert needed < len(data)


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_following_the_wanted_bytes_reads_any_header(data: bytes) -> None:
    """Fetching exactly what is asked for, again and again, comes to the header, and within the file."""
    found, steps = read_header(b""), 0
    while isinstance(found, NeedMore):
        assert found.total_bytes <= len(data)
        found, steps = read_header(data[: found.total_bytes]), steps + 1
    assert found == read_header(data)
    assert steps < 30


def test_a_height_told_behind_the_pixels_is_unknown() -> None:
    """A JPEG with height 0 is a picture whose sides the header does not tell."""
    jpeg = bytearray(saved("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 7] = b"\0\0"
    assert read_header(bytes(jpeg)) == Header("jpeg")
    assert judge(Header("jpeg"), WAN22_S2V_DETECT) is None


FOREIGN = {
    "gif": saved("GIF"),
    "tiff": saved("TIFF"),
    "ico": saved("ICO", size=(64, 64)),
    "avif": b"\0\0\0\x20ftypavif" + b"\0" * 40,
    "heic": b"\0\0\0\x20ftypheic" + b"\0" * 40,
    "jxl": b"\xff\x0a" + b"\0" * 40,
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
    "psd": b"8BPS" + b"\0" * 40,
    "svg": b"\xef\xbb\xbf <?xml version='1.0'?>\n<!-- x --><svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize(("name", "data"), FOREIGN.items(), ids=FOREIGN)
def test_a_picture_of_another_format_is_named(name: str, data: bytes) -> None:
    """The detector takes four formats; the others are recognised, so that the reason can say so."""
    assert read_header(data) == Header(name)
    assert judge(Header(name), WAN22_S2V_DETECT) == "unsupported_format"


def test_an_avif_in_a_general_container_is_an_avif() -> None:
    """Its brand may be the container's and its own name stand among the compatible ones."""
    assert read_header(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif" + b"\0" * 40) == Header("avif")


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><html><body><svg></svg></body></html>",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"BMW and other words that start like a bitmap",
        b'{"error": "there is no picture here, sorry"}',
        b"\0" * 64,
        b"\0\0\0\x20ftypmp42" + b"\0" * 40,
        b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 40,
        b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIDAT" + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + b"\0" * 40,
        b"\xff\xd8\xff\xd9" + b"\0" * 40,
        b"\xff\xd8\xff\xe0\0\x01" + b"\0" * 40,
        os2_bmp(width=0),
        bmp_with_height(0),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    """Pages, errors, sounds, films and broken headers are not images."""
    assert read_header(data) == NotAnImage()
    assert judge(NotAnImage(), WAN22_S2V_DETECT) == "not_an_image"


STARTS = st.sampled_from(
    [b"", *(data[:n] for data, n in itertools.product(PICTURES.values(), (2, 12, 26, 200)))]
)


@given(STARTS, st.binary(max_size=300))
@example(b"\xff\xd8\xff", b"\xff" * 300)
def test_no_bytes_break_the_reader(start: bytes, rest: bytes) -> None:
    """Any bytes give an answer; a header has sides of at least one pixel or none, more is really more."""
    found = read_header(start + rest)
    if isinstance(found, NeedMore):
        assert found.total_bytes > len(start + rest)
    elif isinstance(found, Header):
        assert found.width_px is None or found.width_px > 0
        assert found.height_px is None or found.height_px > 0


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (400, 400, None),
        (7000, 7000, None),
        (400, 7000, None),
        (399, 400, "too_small"),
        (400, 399, "too_small"),
        (7001, 7000, "too_large"),
        (7000, 7001, "too_large"),
        (399, 7001, "too_small"),
    ],
)
def test_a_side_at_the_limit_is_kept(width: int, height: int, reason: str | None) -> None:
    """Sides of exactly 400 and 7000 are never refused for free; a pixel beyond is."""
    assert judge(Header("png", width, height), WAN22_S2V_DETECT) == reason


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        *((status, "not_found") for status in (404, 410)),
        *((status, "look") for status in (200, 206)),
        *((status, "keep") for status in (401, 403, 405, 408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, "keep") for status in (204, 300, 304, 400, 402, 406, 416, 418, 451, 999)),
    ],
)
def test_only_a_missing_picture_is_refused_by_status(status: int, meaning: str) -> None:
    """Hosts that refuse us may serve the detector, so every other status keeps the picture."""
    assert judge_status(status) == meaning


def test_every_trouble_has_a_reason_from_the_closed_sets() -> None:
    """Whatever is in the way ends in a reason that counts as unreachable."""
    assert set(REASON_OF_TROUBLE) == set(Trouble)
    assert set(REASON_OF_TROUBLE.values()) | {"not_found"} == UNREACHABLE
    assert UNREACHABLE < REASONS
    assert {trouble for trouble, reason in REASON_OF_TROUBLE.items() if reason == "timeout"} == LATE_RETRY


PUBLIC = ["93.184.215.14", "2606:2800:220:1::1", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]
PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
    "::ffff:127.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "224.0.0.1",
    "239.1.2.3",
    "ff02::1",
    "0.0.0.0",  # noqa: S104 - an address that must not be connected to
    "::",
]
REFUSED = [
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "2001:db8::1",
    "::7f00:1",
    "64:ff9b:1::1",
    "198.18.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    """The world is open, by whatever notation."""
    assert may_connect(address)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_needs_permission(address: str) -> None:
    """A candidate must not reach into the network of who runs this, even wrapped into IPv6."""
    assert not may_connect(address)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_no_permission_opens_metadata_and_link_local_addresses(address: str) -> None:
    """Such services hand out credentials."""
    assert not may_connect(address)
    assert not may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_of_no_host_is_refused(address: str) -> None:
    """Reserved and documentation networks are not the world."""
    assert not may_connect(address)
