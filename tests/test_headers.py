"""Headers of pictures: format and sides from the first bytes, by rule and against Pillow."""

import io
import itertools
import struct
import warnings
from dataclasses import replace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from picture_corpus import CORPUS, LARGE, bmp, saved, segment, with_segments
from PIL import Image

from s2v_tasks.headers import Found, Header, NeedMore, NotAnImage, cut_short, read_header
from s2v_tasks.models import WAN22_S2V_DETECT
from s2v_tasks.screen import judge

ODD = {
    "jpeg: stray bytes": with_segments(CORPUS["jpeg: 4:2:0"], segment(0xFE, b"x") + b"stray\xff\x00"),
    "jpeg: a length of nothing": with_segments(CORPUS["jpeg: 4:2:0"], b"\xff\xfe\0\0"),
    "jpeg: unknown tables": with_segments(
        CORPUS["jpeg: 4:2:0"], segment(0xC8, b"123456"), segment(0xCC, b"1")
    ),
}
"""What decoders pass over, though none writes it."""
PICTURES = CORPUS | ODD
each_picture = pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES)


def bare(found: Found) -> Found:
    """Without the traits: of those, a longer beginning may tell more."""
    return replace(found, traits=()) if isinstance(found, Header) else found


def test_the_corpus_is_of_a_size() -> None:
    """Every variant of the four formats is there."""
    assert len(CORPUS) >= 200
    assert {name.partition(":")[0] for name in CORPUS} == {"jpeg", "png", "bmp", "webp"}


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS)
def test_format_sides_and_traits_are_what_a_full_decode_says(data: bytes) -> None:
    """Pillow decodes every pixel; we look at the first bytes, and say the same."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        told = (image.format or "").lower(), *image.size
        animated = ["animated"] if getattr(image, "is_animated", False) else []
        traits = [*animated, *{"CMYK": ["cmyk"], "I;16": ["16_bit"]}.get(image.mode, [])]
    found = read_header(data)
    assert found == Header(*told, tuple(traits))
    assert not cut_short(data[:4096], len(data))


@each_picture
def test_a_file_cut_anywhere_tells_the_truth_or_asks_for_more(data: bytes) -> None:
    """A beginning of a picture never gives a wrong header, is never refused, and asks for bytes to come."""
    whole = read_header(data)
    for length in (*range(min(len(data), 300)), *range(300, len(data), 1 + len(data) // 50)):
        found = read_header(data[:length])
        if isinstance(found, NeedMore):
            assert found.total_bytes > length
        else:
            assert bare(found) == bare(whole)


@each_picture
def test_following_the_wanted_bytes_reads_any_header(data: bytes) -> None:
    """Fetching what is asked for, a little more each time, comes to the header within the file."""
    found, steps = read_header(b""), 0
    while isinstance(found, NeedMore):
        assert found.total_bytes <= len(data)
        found, steps = read_header(data[: max(found.total_bytes, 2**steps)]), steps + 1
    assert bare(found) == bare(read_header(data))
    assert steps < 30


@each_picture
def test_a_picture_cut_before_its_pixels_end_is_seen_where_its_header_tells(data: bytes) -> None:
    """BMP and WEBP say how long they are, PNG how long its first chunk is; JPEG says nothing of the kind."""
    half = len(data) // 2
    found = read_header(data[:half])
    if isinstance(found, NeedMore) or isinstance(read_header(data[:4096]), NeedMore):
        return  # it ends before its header does: no image
    one_chunk = data.startswith(b"\x89PNG") and data.count(b"IDAT") == 1
    assert cut_short(data[:half][:4096], half) or not (data.startswith((b"RIFF", b"BM")) or one_chunk)


SMALL = [data for data in CORPUS.values() if len(data) < 8000]


@given(st.sampled_from(SMALL), st.lists(st.tuples(st.integers(0, 699), st.integers(0, 255)), max_size=3))
@settings(max_examples=300, deadline=None)
def test_what_a_decoder_can_read_is_never_misread(data: bytes, changes: list[tuple[int, int]]) -> None:
    """With any bytes changed, either Pillow can't read the picture any more or we say what it says."""
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(changed)) as image:
                assume(image.width * image.height < 3_000_000)
                image.load()
                told = (image.format or "").lower(), *image.size
        except (OSError, SyntaxError, ValueError, struct.error, IndexError, Image.DecompressionBombError):
            return
    assume(told[0] in WAN22_S2V_DETECT.formats)
    assert bare(read_header(bytes(changed))) == Header(*told)


def test_a_megabyte_of_empty_segments_is_not_walked() -> None:
    """The event loop is not held: the sides stay unknown, and the picture is kept."""
    jpeg = with_segments(CORPUS["jpeg: 4:2:0"], b"\xff\xfe\0\2" * 260_000)
    assert read_header(jpeg) == Header("jpeg")


def test_no_trait_refuses_a_picture() -> None:
    """Animated, CMYK and 16-bit pictures are the detector's to judge: its page does not exclude them."""
    traits = {read_header(data) for data in CORPUS.values() if getattr(read_header(data), "traits", ())}
    assert {trait for found in traits for trait in found.traits} == {"animated", "cmyk", "16_bit"}
    large = [replace(found, width_px=500, height_px=500) for found in traits]
    assert {judge(found, WAN22_S2V_DETECT) for found in large} == {None}


def test_a_height_told_behind_the_pixels_is_unknown() -> None:
    """A JPEG with height 0 is a picture whose sides the header does not tell."""
    jpeg = bytearray(CORPUS["jpeg: 4:2:0"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 7] = b"\0\0"
    assert read_header(bytes(jpeg)) == Header("jpeg")
    assert judge(Header("jpeg"), WAN22_S2V_DETECT) is None


FOREIGN = {
    "gif": saved("GIF", "RGB", LARGE),
    "tiff": saved("TIFF", "RGB", LARGE),
    "ico": saved("ICO", "RGB", (64, 64)),
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
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\2\0\0\0\2\0\x08\2\0\0\0wrong sum",
        b"\xff\xd8\xff\xc0\0\x07" + b"\x08\2\0\2\0\3" + b"\0" * 40,
        bmp((0, 9), 12) + b"\0" * 40,
        bmp((9, 0), 40),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    """Pages, errors, sounds, films and broken headers are not images."""
    assert read_header(data) == NotAnImage()
    assert judge(NotAnImage(), WAN22_S2V_DETECT) == "not_an_image"


STARTS = st.sampled_from([b"", *(data[:n] for data, n in itertools.product(SMALL[::7], (2, 12, 26, 200)))])


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
