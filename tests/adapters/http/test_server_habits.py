"""Habits of real image hosts, played on loopback: what each may do to a good image, and what it must not."""

import asyncio
import gzip
import io
import struct
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import pytest
from image_corpus import LARGE, bmp, chunk, saved
from image_server import ReceivedRequest, Responder, file, hang_up, in_turn, local, responding, serving, write
from PIL import Image
from test_hostile import raw
from test_image_fetcher import GOOD, KEPT, KEY, NO_TRUST, OPTIONS, UNKNOWN, jpeg, screen_one

from s2v_tasks.adapters.http.fetch_options import FetchOptions, user_agent
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage

LONG = jpeg(exif_bytes=60_000)
OTHER = jpeg(700, 800, exif_bytes=30_000)
PNG = saved("PNG", "RGB", LARGE, compress_level=0)
KEPT_PNG = Screened(KEY, None, *LARGE, "png")
BMP = bmp((512, 600))
PAGE = b"<!DOCTYPE html><html><body>Are you a robot?</body></html>"
CHANGED = Screened(KEY, None, 700, 800, "jpeg")
CUT = Screened(KEY, "truncated", *LARGE, "png")


def ranged(with_range: Responder, without: Responder) -> Responder:
    """One response to requests with Range, another to those without."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await (with_range if request.range else without)(request, writer)

    return respond


def lied_part(data: bytes, status: int = 206, total: int | None = None, **headers: object) -> Responder:
    """The requested range under any status, with any total; the whole file to others."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.range is None:
            await write(writer, 200, data)
            return
        start, end = request.range
        part = data[start : end + 1]
        span = f"bytes {start}-{start + len(part) - 1}/{total or len(data)}"
        await write(writer, status, part, content_range=span, **headers)

    return respond


def closing(data: bytes, sent: int) -> Responder:
    """The full length announced, some bytes sent, the connection closed; the whole file without Range."""
    cut = raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:sent], end=lambda w: w.close()
    )
    return ranged(cut, file(data))


def changing(*versions: bytes, tags: bool = True, if_range: bool = False) -> Responder:
    """A file that is another one at each request, and then stays."""
    left = list(versions)

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        data = left.pop(0) if len(left) > 1 else left[0]
        etag = f'"{hash(data)}"' if tags else None
        start, end = request.range or (0, len(data) - 1)
        if request.range is None or (if_range and request.headers.get("if-range", etag) != etag):
            await write(writer, 200, data, etag=etag)
        else:
            span = f"bytes {start}-{min(end, len(data) - 1)}/{len(data)}"
            await write(writer, 206, data[start : end + 1], content_range=span, etag=etag)

    return respond


async def stalling(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """Send half of the part, then nothing more."""
    await write(writer, 206, GOOD[:2048], content_length=4096, content_range=f"bytes 0-4095/{len(GOOD)}")
    await asyncio.sleep(0.5)


async def by_the_byte(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """One byte a range, and a whole file that never comes."""
    start = request.range[0] if request.range else 0
    await write(writer, 206, LONG[start : start + 1], content_range=f"bytes {start}-{start}/{len(LONG)}")


async def four_kilobytes_a_range(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    """No more than that in one response, and no file without Range."""
    start = request.range[0] if request.range else 0
    part = LONG[start : start + 4096]
    await write(writer, 206, part, content_range=f"bytes {start}-{start + len(part) - 1}/{len(LONG)}")


def apng(frames: int) -> bytes:
    text = chunk(b"tEXt", b"Comment\0" + b"x" * 5000)
    return PNG[:33] + text + chunk(b"acTL", struct.pack(">II", frames, 0)) + PNG[33:]


def odd(*lines: bytes, body: bytes = GOOD, status: bytes = b"HTTP/1.1 200 OK") -> Responder:
    head = b"\r\n".join((status, *lines, b"Content-Length: %d" % len(body)))
    return raw(head + b"\r\n\r\n" + body, end=lambda w: w.close())


@dataclass
class Habit:
    """What a server does, what becomes of the image, and how many requests it may take."""

    responder: Responder
    wanted: Screened
    requests: int = 16
    options: FetchOptions = field(default=OPTIONS)


GZ = {"content_encoding": "gzip", "content_type": "text/html; charset=utf-8"}
OPTED_OUT = Screened(KEY, "opted_out")
WEB_PAGE = Screened(KEY, "web_page")
NOT_FOUND = Screened(KEY, "not_found")
NOT_HTTP = {
    "two equal lengths": odd(b"Content-Length: %d" % len(GOOD)),
    "chunked with a length": raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a header line of 9 KB": odd(b"Set-Cookie: " + b"c" * 9000),
    "a blank before a colon": odd(b"Server : x"),
    "a status line in lower case": odd(status=b"http/1.1 200 ok"),
    "two hundred header lines": odd(*[b"X-A: b"] * 200),
    "a header line without a colon": odd(b"nonsense"),
    "a broken chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + GOOD),
}

HABITS = {
    # A part taken for the whole
    "200 with Content-Range": Habit(lied_part(LONG, 200), KEPT),
    "200 with Content-Range, a PNG": Habit(lied_part(PNG, 200), KEPT_PNG),
    "200 with another part": Habit(
        ranged(responding(200, b"x" * 99, content_range="bytes 9-107/999"), file(GOOD)), KEPT
    ),
    "200 with the part alone and its length": Habit(
        ranged(in_turn(responding(200, LONG[:4096])), file(LONG)), KEPT
    ),
    "200 with the part alone, a PNG": Habit(ranged(responding(200, PNG[:4096]), file(PNG)), KEPT_PNG),
    "200 with the part alone and no length": Habit(
        ranged(raw(b"HTTP/1.1 200 OK\r\n\r\n" + LONG[:4096], end=lambda w: w.close()), file(LONG)), KEPT
    ),
    "206 whose total is the part's": Habit(lied_part(LONG, total=4096), KEPT, 2),
    "206 whose total is the part's, a PNG": Habit(lied_part(PNG, total=4096), KEPT_PNG, 2),
    "206 whose total is the part's, a BMP": Habit(
        lied_part(BMP, total=4096), replace(KEPT, image_format="bmp"), 2
    ),
    "206 of several parts": Habit(
        ranged(responding(206, b"--x\r\n\r\n" + GOOD, content_type="multipart/byteranges"), file(GOOD)),
        KEPT,
        2,
    ),
    "206 to a request without Range": Habit(
        ranged(responding(404), responding(206, GOOD, content_range=f"bytes 0-{len(GOOD) - 1}/{len(GOOD)}")),
        KEPT,
        2,
    ),
    "a full length and a part": Habit(closing(LONG, 4096), KEPT, 2),
    "a full length and a part, a PNG": Habit(closing(PNG, 4096), KEPT_PNG),
    "a PNG that is cut": Habit(file(PNG[:5000]), CUT, 2),
    "a PNG that is cut, and no ranges": Habit(responding(200, PNG[:5000]), CUT),
    # Two versions
    "another file at the second range": Habit(
        changing(LONG, OTHER), replace(CHANGED, validator=f'"{hash(OTHER)}"'), 3
    ),
    "another file, known by its length": Habit(
        changing(LONG, OTHER, tags=False), CHANGED, 3
    ),
    "another file, and If-Range": Habit(
        changing(LONG, OTHER, if_range=True), replace(CHANGED, validator=f'"{hash(OTHER)}"'), 2
    ),
    # A connection that fails behind the header
    "half of a part": Habit(
        raw(
            b"HTTP/1.1 206 P\r\nContent-Length: 4096\r\nContent-Range: bytes 0-4095/9999\r\n\r\n",
            GOOD[:2048],
            end=lambda w: w.close(),
        ),
        KEPT,
        1,
    ),
    "half of a part, then silence": Habit(stalling, KEPT, 1, replace(OPTIONS, timeout_s=0.3)),
    "reset by a range": Habit(ranged(hang_up, file(GOOD)), KEPT),
    # Statuses
    "404 to a range": Habit(ranged(responding(404), file(GOOD)), KEPT, 2),
    "410 to a range": Habit(ranged(responding(410), file(GOOD)), KEPT, 2),
    "404 to all": Habit(responding(404), NOT_FOUND, 2),
    "404 to a range, 403 to others": Habit(ranged(responding(404), responding(403)), UNKNOWN, 2),
    "404 behind a part": Habit(
        in_turn(file(LONG), responding(404), file(LONG)), KEPT, 3
    ),
    "a page to a range": Habit(ranged(responding(200, PAGE), file(GOOD)), KEPT, 2),
    # Walls
    "a page": Habit(responding(200, PAGE), WEB_PAGE, 2),
    "a page after blanks": Habit(responding(200, b"\xef\xbb\xbf\r\n  <html>" + b"x" * 99), WEB_PAGE, 2),
    "a page that begins with a comment": Habit(responding(200, b"<!-- consent -->\n<html>" * 9), WEB_PAGE, 2),
    "a page that begins with a script": Habit(responding(200, b"<script src='/w.js'>" * 3), WEB_PAGE, 2),
    "a short page": Habit(responding(200, b"<html>robot?</html>"), WEB_PAGE, 2),
    "a compressed page": Habit(responding(200, gzip.compress(PAGE * 50), **GZ), WEB_PAGE, 2),
    "a message in JSON": Habit(
        responding(200, b'{"error": "please log in to see this image"}', content_type="application/json"),
        WEB_PAGE,
        2,
    ),
    "a page in parts": Habit(file(PAGE * 200), WEB_PAGE, 2),
    "an empty page": Habit(responding(200, b"", content_type="text/html"), WEB_PAGE, 2),
    "an image called a page": Habit(responding(200, GOOD, content_type="text/html"), KEPT, 1),
    "a compressed image called a page": Habit(responding(200, gzip.compress(GOOD), **GZ), UNKNOWN, 1),
    "bytes of no kind called text": Habit(
        responding(200, b"\1\0\2\0" * 99, content_type="text/plain"), Screened(KEY, "not_an_image"), 2
    ),
    "an empty file": Habit(responding(200, b""), Screened(KEY, "not_an_image"), 2),
    # Opt-outs
    "noai": Habit(responding(200, GOOD, x_robots_tag="noai"), OPTED_OUT, 1),
    "noimageai among others": Habit(responding(200, GOOD, x_robots_tag="noindex, NoImageAI"), OPTED_OUT, 1),
    "noai in a redirect": Habit(responding(302, location="/b", x_robots_tag="noai"), OPTED_OUT, 1),
    "noai in a part": Habit(lied_part(GOOD, x_robots_tag="noai"), OPTED_OUT, 1),
    "noai with a refusal": Habit(responding(403, x_robots_tag="noai"), OPTED_OUT, 1),
    "noai of another agent": Habit(responding(200, GOOD, x_robots_tag="otherbot: noai"), KEPT, 1),
    "noindex": Habit(responding(200, GOOD, x_robots_tag="noindex, noimageindex"), KEPT, 1),
    "noai in a second header": Habit(
        odd(b"X-Robots-Tag: otherbot: noindex", b"X-Robots-Tag: noai"), OPTED_OUT, 1
    ),
    "noai of a missing image": Habit(responding(404, x_robots_tag="noai"), NOT_FOUND, 2),
    # Bounds
    "one byte a range": Habit(by_the_byte, UNKNOWN, 2),
    "four kilobytes a range": Habit(four_kilobytes_a_range, UNKNOWN),
    # An animation behind a long text
    "an APNG": Habit(file(apng(2)), replace(KEPT_PNG, image_traits="animated"), 2),
    "an APNG without ranges": Habit(responding(200, apng(2)), replace(KEPT_PNG, image_traits="animated"), 1),
    "an APNG of one frame": Habit(file(apng(1)), KEPT_PNG, 2),
    "a text that can't be had": Habit(in_turn(file(apng(2)), hang_up), KEPT_PNG, 3),
    **{name: Habit(responder, UNKNOWN, 2) for name, responder in NOT_HTTP.items()},
}  # fmt: skip


@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
async def test_what_a_host_does_to_an_image(habit: Habit) -> None:
    """Good images are kept, only the right images are refused, and no host gets too many requests."""
    async with serving(habit.responder) as server:
        assert await screen_one(server.url(), options=habit.options) == [habit.wanted]
    assert 1 <= len(server.requests) <= habit.requests


async def test_a_changed_file_is_requested_by_its_version() -> None:
    """The second range holds only for the first one's file, if the server heeds If-Range."""
    async with serving(changing(LONG)) as server:
        await screen_one(server.url())
    assert [request.headers.get("if-range") for request in server.requests] == [None, f'"{hash(LONG)}"']


async def test_an_opt_out_since_the_last_visit_is_heard_in_a_304() -> None:
    """What was known of the image holds, its host's permission does not."""
    before = replace(KEPT, validator='"v1"')
    async with (
        serving(responding(304, etag='"v1"', x_robots_tag="noai")) as server,
        ImageFetcher(OPTIONS, WAN22_S2V_DETECT, local, NO_TRUST) as fetcher,
    ):
        assert await fetcher.screen([UniqueImage(KEY, server.url(), before)]) == [OPTED_OUT]


async def test_an_image_gets_sixteen_requests_in_all() -> None:
    """Redirects, ranges, the late retry and the fetch of all bytes together."""

    async def endless(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        start, end = request.range or (0, 0)
        if request.range is None:
            writer.close()
            return
        body = (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 300_000)[start : end + 1]
        await write(writer, 206, body, content_range=f"bytes {start}-{end}/9999999")

    options = replace(OPTIONS, max_bytes=10_000_000, first_bytes=16, max_requests=5, same_content=True)
    for responder in (endless, hang_up, by_the_byte, changing(LONG, OTHER, LONG, OTHER, LONG, OTHER)):
        async with serving(responder) as server:
            await screen_one(server.url(), options=options)
        assert len(server.requests) <= 5
    assert FetchOptions().max_requests == 16


def throttling(times: int, status: int = 429, **headers: object) -> Responder:
    return in_turn(*[responding(status, **headers)] * times, file(GOOD))


POLITE = replace(OPTIONS, pause_s=0.05)


@pytest.mark.parametrize(
    "responder", [throttling(1), throttling(1, 503, retry_after="1"), throttling(1, 429, retry_after="1")]
)
async def test_a_host_that_throttles_is_fetched_again_later(responder: Responder) -> None:
    """After the time that it names; then its images are known as well as others."""
    loop = asyncio.get_running_loop()
    async with serving(responder) as server:
        began = loop.time()
        assert await screen_one(server.url(), options=POLITE) == [KEPT]
    assert loop.time() - began >= 0.05
    assert len(server.requests) == 2


async def test_images_of_a_host_that_goes_on_throttling_are_kept_and_few_requests_sent() -> None:
    """The detector may be let in; the fetcher sends few requests, and another host's images don't wait."""
    async with serving(responding(429)) as busy, serving(file(GOOD)) as good:
        urls = [busy.url(f"/{n}.jpg", host="busy.test") for n in range(60)]
        seen = await screen_one(*urls, good.url(), options=replace(POLITE, pause_s=0.01))
    assert seen == [UNKNOWN] * 60 + [KEPT]
    assert len(busy.requests) < 60


async def test_a_host_that_wants_to_be_left_alone_for_long_is() -> None:
    """An hour is not waited for: its images are kept, and it gets no more than those under way."""
    async with serving(responding(429, retry_after="3600")) as server:
        urls = [server.url(f"/{n}.jpg") for n in range(60)]
        assert await screen_one(*urls, options=POLITE) == [UNKNOWN] * 60
    assert len(server.requests) <= POLITE.per_host


async def test_a_host_learns_whom_to_write_to() -> None:
    """The contact is in the User-Agent."""
    options = replace(OPTIONS, user_agent=user_agent("https://example.org/about; me@example.org"))
    async with serving(file(GOOD)) as server:
        await screen_one(server.url(), options=options)
    [request] = server.requests
    assert request.headers["user-agent"].startswith("s2v-tasks/")
    assert request.headers["user-agent"].endswith(" (https://example.org/about; me@example.org)")


async def test_links_that_lead_to_one_file_have_one_content_key() -> None:
    """Its URL without a signature, with its query, and its length or tag: else they are different images."""

    def moving(target: str, responder: Responder) -> Responder:
        async def moved(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            if request.target.startswith("/to/"):
                await write(writer, 302, location=request.target.removeprefix("/to"))
            else:
                await responder(request, writer)

        return moved

    signed = "?X-Amz-Signature={}&X-Amz-Date=1"
    lengths = {"/a.jpg": GOOD, "/b.jpg": GOOD, "/c.jpg": LONG}

    async def by_name(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await file(lengths[request.target.partition("?")[0]])(request, writer)

    targets = [
        "/to/a.jpg", "/to/a.jpg#x", f"/to/a.jpg{signed.format('1')}", f"/to/a.jpg{signed.format('2')}",
        "/to/a.jpg?id=1", "/to/a.jpg?id=2", "/to/b.jpg", "/to/c.jpg", "/a.jpg",
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(moving("", by_name)))
        screened = await screen_one(*[server.url(target) for target in targets])
        keys = [one.content_key for one in screened]
        untold = await stack.enter_async_context(
            serving(moving("", responding(206, GOOD[:4096], content_range="bytes 0-4095/*")))
        )
        tagged = await stack.enter_async_context(
            serving(moving("", responding(206, GOOD[:4096], content_range="bytes 0-4095/*", etag='"1"')))
        )
        no_length = [(await screen_one(one.url("/to/a.jpg")))[0].content_key for one in (untold, tagged)]
    assert keys[0] is not None
    assert keys[:4] == [keys[0]] * 4
    assert len(set(keys[3:8])) == 5
    assert keys[8] is None
    assert [one.file_key for one in screened] == [None] * 8 + [keys[0]]
    assert no_length[0] is None
    assert no_length[1] is not None


def test_the_images_of_these_habits_are_what_they_are_called() -> None:
    """Pillow reads each; their headers are longer or shorter than the first range, as wanted."""
    for data in (GOOD, LONG, OTHER, PNG, BMP):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    assert LONG.index(b"\xff\xc0") > 4096
    assert min(len(data) for data in (GOOD, LONG, OTHER, PNG, BMP)) > 4096
