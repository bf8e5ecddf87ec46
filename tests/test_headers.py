"""Headers of pictures: format and sides from the first bytes, by rule and against Pillow."""

import io
import itertools
import struct
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from s2v_tasks.headers import Found, Header, NeedMore, NotAnImage, read_header
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.screen import judge

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


def bare(found: Found) -> Found:
    """Without the traits: of those, a longer beginning may tell more."""
    return replace(found, traits=()) if isinstance(found, Header) else found


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_format_and_sides_are_read_as_stored(data: bytes) -> None:
    """What Pillow says of a generated picture is what we say, without decoding it."""
    with Image.open(io.BytesIO(data)) as image:
        told = Header((image.format or "").lower(), *image.size)
    assert bare(read_header(data)) == told == Header(told.image_format, WIDTH, HEIGHT)


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
            assert bare(found) == bare(whole)
    assert needed < len(data)


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)
def test_following_the_wanted_bytes_reads_any_header(data: bytes) -> None:
    """Fetching exactly what is asked for, again and again, comes to the header, and within the file."""
    found, steps = read_header(b""), 0
    while isinstance(found, NeedMore):
        assert found.total_bytes <= len(data)
        found, steps = read_header(data[: found.total_bytes]), steps + 1
    assert bare(found) == bare(read_header(data))
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
