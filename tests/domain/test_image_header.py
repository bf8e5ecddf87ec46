"""Headers of images: format and sides from the first bytes, by rule and against Pillow."""

import io
import itertools
import struct
import warnings
from dataclasses import replace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from image_corpus import CORPUS, LARGE, bmp, chunk, saved, segment, with_segments
from PIL import Image

from s2v_tasks.domain.image_header import (
    ImageHeader,
    NeedMore,
    NotAnImage,
    ParseResult,
    cut_short,
    read_header,
)
from s2v_tasks.domain.screening import check_header
from s2v_tasks.models import WAN22_S2V_DETECT

ODD = {
    "jpeg: stray bytes": with_segments(CORPUS["jpeg: 4:2:0"], segment(0xFE, b"x") + b"stray\xff\x00"),
    "jpeg: a length of nothing": with_segments(CORPUS["jpeg: 4:2:0"], b"\xff\xfe\0\0"),
    "jpeg: unknown tables": with_segments(
        CORPUS["jpeg: 4:2:0"], segment(0xC8, b"123456"), segment(0xCC, b"1")
    ),
}
"""What decoders pass over, though none writes it."""
IMAGES = CORPUS | ODD
each_image = pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)


def bare(found: ParseResult) -> ParseResult:
    """Without the traits: a longer beginning may hold more of them."""
    return replace(found, traits=()) if isinstance(found, ImageHeader) else found


def test_the_corpus_is_of_a_size() -> None:
    """Every variant of the four formats is there."""
    assert len(CORPUS) >= 200
    assert {name.partition(":")[0] for name in CORPUS} == {"jpeg", "png", "bmp", "webp"}


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS)
def test_format_sides_and_traits_are_what_a_full_decode_says(data: bytes) -> None:
    """Pillow decodes every pixel; the parser reads the first bytes, with the same result."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        expected = (image.format or "").lower(), *image.size
        animated = ["animated"] if getattr(image, "is_animated", False) else []
        traits = [*animated, *{"CMYK": ["cmyk"], "I;16": ["16_bit"]}.get(image.mode, [])]
    found = read_header(data)
    assert found == ImageHeader(*expected, tuple(traits))
    assert not cut_short(data[:4096], len(data))


@each_image
def test_a_file_cut_anywhere_is_read_correctly_or_needs_more(data: bytes) -> None:
    """A beginning of an image never gives a wrong header, is never refused, and requests later bytes."""
    whole = read_header(data)
    for length in (*range(min(len(data), 300)), *range(300, len(data), 1 + len(data) // 50)):
        found = read_header(data[:length])
        if isinstance(found, NeedMore):
            assert found.total_bytes > length
        else:
            assert bare(found) == bare(whole)


@each_image
def test_following_the_wanted_bytes_reads_any_header(data: bytes) -> None:
    """Fetching the requested bytes, more each time, gives the header within the file."""
    found, steps = read_header(b""), 0
    while isinstance(found, NeedMore):
        assert found.total_bytes <= len(data)
        found, steps = read_header(data[: max(found.total_bytes, 2**steps)]), steps + 1
    assert bare(found) == bare(read_header(data))
    assert steps < 30


@each_image
def test_an_image_cut_before_its_pixels_end_is_recognised_where_its_header_says_so(data: bytes) -> None:
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
    """With any bytes changed, either Pillow can't read the image any more or we say what it says."""
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(changed)) as image:
                assume(image.width * image.height < 3_000_000)
                image.load()
                expected = (image.format or "").lower(), *image.size
        except (OSError, SyntaxError, ValueError, struct.error, IndexError, Image.DecompressionBombError):
            return
    assume(expected[0] in WAN22_S2V_DETECT.formats)
    assert bare(read_header(bytes(changed))) == ImageHeader(*expected)


def test_a_megabyte_of_empty_segments_is_not_walked() -> None:
    """The event loop is not held: the sides stay unknown, and the image is kept."""
    jpeg = with_segments(CORPUS["jpeg: 4:2:0"], b"\xff\xfe\0\2" * 260_000)
    assert read_header(jpeg) == ImageHeader("jpeg")


def test_no_trait_rejects_an_image() -> None:
    """Animated, CMYK and 16-bit images are accepted: the detector's documentation does not exclude them."""
    traits = {read_header(data) for data in CORPUS.values() if getattr(read_header(data), "traits", ())}
    assert {trait for found in traits for trait in found.traits} == {"animated", "cmyk", "16_bit"}
    large = [replace(found, width_px=500, height_px=500) for found in traits]
    assert {check_header(found, WAN22_S2V_DETECT) for found in large} == {None}


def test_a_height_given_after_the_pixels_is_unknown() -> None:
    """A JPEG with height 0 is an image whose sides the header lacks."""
    jpeg = bytearray(CORPUS["jpeg: 4:2:0"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 7] = b"\0\0"
    assert read_header(bytes(jpeg)) == ImageHeader("jpeg")
    assert check_header(ImageHeader("jpeg"), WAN22_S2V_DETECT) is None


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
def test_an_image_of_another_format_is_named(name: str, data: bytes) -> None:
    """The detector takes four formats; the others are recognised, so that the reason can say so."""
    assert read_header(data) == ImageHeader(name)
    assert check_header(ImageHeader(name), WAN22_S2V_DETECT) == "unsupported_format"


def test_an_avif_in_a_general_container_is_an_avif() -> None:
    """Its brand may be the container's and its own name stand among the compatible ones."""
    assert read_header(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif" + b"\0" * 40) == ImageHeader("avif")


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><html><body><svg></svg></body></html>",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b"BMW and other words that start like a bitmap",
        b'{"error": "there is no image here, sorry"}',
        b"\0" * 64,
        b"\0\0\0\x20ftypmp42" + b"\0" * 40,
        b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 40,
        b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIDAT" + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + b"\0" * 40,
        b"\xff\xd8\xff\xd9" + b"\0" * 40,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0cIHDR\0\0\2\0\0\0\2\0\x08\2\0\0an IHDR of 12 bytes",
        b"\xff\xd8\xff\xc0\0\x07" + b"\x08\2\0\2\0\3" + b"\0" * 40,
        bmp((0, 9), 12) + b"\0" * 40,
        bmp((9, 0), 40),
    ],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Pages, errors, sounds, films and broken headers are not images."""
    assert read_header(data) == NotAnImage()
    assert check_header(NotAnImage(), WAN22_S2V_DETECT) == "not_an_image"


PNG = saved("PNG", "RGB", LARGE)
KEPT_BY_DECODERS = {
    "jpeg: a stray byte behind its first marker": CORPUS["jpeg: 4:2:0"][:2]
    + b"x"
    + CORPUS["jpeg: 4:2:0"][2:],
    "jpeg: a line end behind its first marker": CORPUS["jpeg: 4:2:0"][:2]
    + b"\r\n"
    + CORPUS["jpeg: 4:2:0"][2:],
    "png: a wrong checksum of the header": PNG[:29] + b"\0\0\0\0" + PNG[33:],
    "png: CgBI first": PNG[:8] + chunk(b"CgBI", b"P\0 \2") + PNG[8:],
    "png: a text first": PNG[:8] + chunk(b"tEXt", b"Comment\0" + b"x" * 900) + PNG[8:],
    "png: a long IHDR": PNG[:8] + chunk(b"IHDR", PNG[16:29] + b"\0") + PNG[33:],
    "bmp: a header of 66 bytes": bmp(LARGE, 66),
    "bmp: a header of 16 bytes": bmp(LARGE, 16)[:30] + b"\1\0\0\0" + bmp(LARGE, 16)[34:],
    "bmp: 64 bits": bmp(LARGE, 40, 64),
}
"""What OpenCV, libpng without checksums, ImageMagick or Apple's own decoder read, though not each of them."""


@pytest.mark.parametrize("data", KEPT_BY_DECODERS.values(), ids=KEPT_BY_DECODERS)
def test_what_some_common_decoder_reads_is_kept(data: bytes) -> None:
    """The detector's decoder is not known, so an oddity that one decoder passes over refuses nothing."""
    found = read_header(data)
    assert isinstance(found, ImageHeader)
    assert (found.width_px, found.height_px) == LARGE
    assert not cut_short(data[:4096], len(data))
    for length in range(1, 400):
        part = read_header(data[:length])
        assert part.total_bytes > length if isinstance(part, NeedMore) else bare(part) == bare(found)


def png_of(colour: int, depth: int) -> bytes:
    ihdr = struct.pack(">IIBBBBB", *LARGE, depth, colour, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", ihdr) + PNG[33:]


@pytest.mark.parametrize(
    "data",
    [
        *(png_of(colour, 8) for colour in (1, 5, 7, 9, 255)),
        *(png_of(0, depth) for depth in (0, 3, 5, 32)),
        *(png_of(colour, 4) for colour in (2, 4, 6)),
        png_of(3, 16),
        *(bmp(LARGE, 40, bits) for bits in (0, 3, 12)),
        bmp(LARGE, 12, 0) + bytes(8),
    ],
)
def test_what_no_decoder_opens_is_no_image(data: bytes) -> None:
    """Colour types and depths that no format knows."""
    assert read_header(data) == NotAnImage()
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(data)) as image:
        image.load()


def test_a_png_with_all_its_pixels_is_whole_whatever_follows() -> None:
    """Its end, a text behind the pixels and their checksums may be missing: decoders show every pixel."""
    small = saved("PNG", "L", (101, 203))
    assert small.count(b"IDAT") == 1
    pixels_end = small.index(b"IEND") - 8  # its checksum and the length of IEND lie between
    for kept in (len(small) - 12, len(small) - 3, pixels_end + 2, pixels_end, pixels_end - 4):
        assert not cut_short(small[:4096], kept)
    assert cut_short(small[:4096], pixels_end - 5)
    text = chunk(b"tEXt", b"Comment\0" + b"x" * 900)
    end = small.index(b"IEND") - 4
    with_text = small[:end] + text + small[end:]
    assert not cut_short(with_text, len(with_text) - 500)
    before = small[:33] + text + small[33:]
    assert cut_short(before, 300)


def test_an_image_of_less_than_thirty_bytes_is_read() -> None:
    """A lossless WEBP of one colour may be as short, whatever its sides."""
    sides = struct.pack("<I", (512 - 1) | (600 - 1) << 14)
    data = b"RIFF\x14\0\0\0WEBPVP8L\x08\0\0\0\x2f" + sides + b"\x88\x88\x08"
    assert len(data) == 28
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == (512, 600)
    assert read_header(data) == ImageHeader("webp", 512, 600)
    assert read_header(data[:24]) == NeedMore(30)
    assert not cut_short(data, len(data))


def apng(*actl: int, text: int = 0) -> bytes:
    """A PNG with these acTL chunks (numbers of frames), behind a text."""
    chunks = chunk(b"tEXt", b"Comment\0" + b"x" * text) if text else b""
    chunks += b"".join(chunk(b"acTL", struct.pack(">II", frames, 0)) for frames in actl)
    return PNG[:33] + chunks + PNG[33:]


@pytest.mark.parametrize(
    ("data", "traits"),
    [
        (apng(2), ("animated",)),
        (apng(2, text=5000), ("animated",)),
        (apng(2, 2), ("animated",)),
        (apng(1), ()),
        (apng(0), ()),
        (apng(1, text=5000), ()),
        (apng(), ()),
    ],
)
def test_an_animation_has_several_frames_and_is_reported_once(data: bytes, traits: tuple[str, ...]) -> None:
    """Wherever acTL is before the pixels; where it may yet come, the header says how far to read."""
    assert read_header(data) == ImageHeader("png", *LARGE, traits)
    found = read_header(data[:60])
    while isinstance(found, ImageHeader) and found.traits_within:
        assert not found.traits
        assert 60 < found.traits_within <= len(data)
        found = read_header(data[: found.traits_within])
    assert found == ImageHeader("png", *LARGE, traits)


def test_a_webp_animation_of_one_frame_is_none() -> None:
    """The flag alone does not prove several frames; if the fetched bytes do, the trait is reported."""
    animated = CORPUS["webp: animated (101, 203) False"]
    assert read_header(animated).traits == ("animated",)
    frame = animated.index(b"ANMF")
    size = 8 + struct.unpack_from("<I", animated, frame + 4)[0]
    single = animated[: frame + size + size % 2]
    single = single[:4] + struct.pack("<I", len(single) - 8) + single[8:]
    with Image.open(io.BytesIO(single)) as image:
        assert image.n_frames == 1
    assert read_header(single).traits == ()


STARTS = st.sampled_from([b"", *(data[:n] for data, n in itertools.product(SMALL[::7], (2, 12, 26, 200)))])


@given(STARTS, st.binary(max_size=300))
@example(b"\xff\xd8\xff", b"\xff" * 300)
def test_no_bytes_break_the_reader(start: bytes, rest: bytes) -> None:
    """Any bytes give a result; a header has sides of at least one pixel or none, more is really more."""
    found = read_header(start + rest)
    if isinstance(found, NeedMore):
        assert found.total_bytes > len(start + rest)
    elif isinstance(found, ImageHeader):
        assert found.width_px is None or found.width_px > 0
        assert found.height_px is None or found.height_px > 0
