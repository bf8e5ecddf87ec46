"""The image fetcher against real servers on loopback, that behave and misbehave as scripted."""

import asyncio
import datetime
import io
import logging
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from image_server import (
    ReceivedRequest,
    Responder,
    closed_port,
    cut_off,
    file,
    hang_up,
    in_turn,
    local,
    responding,
    serving,
    write,
)
from PIL import Image

from s2v_tasks.adapters.http.fetch_options import FetchOptions
from s2v_tasks.adapters.http.fetch_rules import LOCAL, failure_of
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.domain.dead_links import LATE_RETRY, REASON_OF_FAILURE, FetchFailure
from s2v_tasks.domain.image_url import normal_form
from s2v_tasks.domain.screening import file_key
from s2v_tasks.errors import S2VError
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage

OPTIONS = FetchOptions(allow_private_hosts=True, timeout_s=30.0, connect_timeout_s=30.0)
SECRET = "X-Amz-Signature=sesame"  # noqa: S105 - what must not be seen in a log
KEY = "k" * 32
NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's certificates takes long


def jpeg(width: int = 512, height: int = 600, exif_bytes: int = 0) -> bytes:
    out, tags = io.BytesIO(), Image.Exif()
    tags[0x010E] = "x" * exif_bytes
    Image.new("RGB", (width, height)).save(out, "JPEG", exif=tags.tobytes())
    return out.getvalue()


def webp(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((width, height), 90).save(out, "WEBP", method=0)
    return out.getvalue()


GOOD = jpeg()
KEPT = Screened(KEY, None, 512, 600, "jpeg")
UNKNOWN = Screened(KEY)


def redirected(screened: Screened, url: str, size: int = len(GOOD)) -> Screened:
    """The same, with the key of the file that redirects led to."""
    return replace(screened, content_key=file_key(normal_form(url), size, None))


async def screen_one(
    *urls: str, options: FetchOptions = OPTIONS, resolver=local, tls=NO_TRUST
) -> list[Screened]:
    async with ImageFetcher(options, WAN22_S2V_DETECT, resolver, tls) as fetcher:
        return await fetcher.screen([UniqueImage(KEY, url) for url in urls])


async def test_an_image_is_kept_with_its_sides_from_one_small_range() -> None:
    """The request is for 4 KB, and plain: no cookie, no compression, the host by its name."""
    async with serving(file(GOOD)) as server:
        assert await screen_one(server.url("/p.jpg?" + SECRET + "#top")) == [KEPT]
    [request] = server.requests
    assert request.target == "/p.jpg?" + SECRET
    assert request.headers.pop("user-agent").startswith("s2v-tasks")
    assert request.headers == {
        "host": f"images.test:{server.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "range": "bytes=0-4095",
    }


WHOLE = replace(OPTIONS, same_content=True, max_image_bytes=100_000)


async def test_bytes_are_compared_only_where_that_is_wanted() -> None:
    """Equal ones have one key, whatever their URL and however they were sent; other bytes have another."""
    ranged, plain, other = jpeg(), responding(200, jpeg()), file(jpeg(512, 601))
    async with serving(file(ranged)) as first, serving(plain) as second, serving(other) as third:
        urls = [server.url() for server in (first, second, third)]
        seen = await screen_one(*urls, options=WHOLE)
        assert {one.content_key for one in await screen_one(*urls)} == {None}
    keys = [one.content_key for one in seen]
    assert keys[0] == keys[1] == blake2b(ranged, digest_size=16).hexdigest()
    assert keys[2] not in (None, keys[0])
    assert [request.range for request in first.requests] == [(0, 4095), None, (0, 4095)]


@pytest.mark.parametrize(
    "rest",
    [
        responding(200, GOOD + b"\0" * 100_000),
        responding(200, GOOD, content_encoding="gzip"),
        cut_off(GOOD, len(GOOD) + 1),
        responding(200, b"<html>robots, please wait</html>"),
        responding(200),
        responding(503),
        hang_up,
    ],
    ids=["too large", "encoded", "cut off", "other bytes", "empty", "refused", "reset"],
)
async def test_an_image_whose_bytes_cant_be_had_is_kept_as_its_own(rest: Responder) -> None:
    """Nothing is said of its bytes; that is no reason to refuse it."""
    async with serving(in_turn(file(GOOD), rest)) as server:
        assert await screen_one(server.url(), options=WHOLE) == [KEPT]


async def test_an_opt_out_with_the_whole_image_alone_is_obeyed() -> None:
    """The response to the range had none; the image is neither compared nor paid for."""
    async with serving(in_turn(file(GOOD), responding(200, GOOD, x_robots_tag="noai"))) as server:
        assert [one.reason for one in await screen_one(server.url(), options=WHOLE)] == ["opted_out"]


async def test_bytes_that_drip_end_at_the_cap_of_the_fetch() -> None:
    """The timeout is for the whole fetch, the rest of the image included."""

    async def drip(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await write(writer, 200, b"", content_length=50_000)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    began = time.monotonic()
    async with serving(in_turn(file(GOOD), drip)) as server:
        assert await screen_one(server.url(), options=replace(WHOLE, timeout_s=0.5)) == [KEPT]
    assert time.monotonic() - began < 60


async def test_a_refused_image_is_not_fetched_whole() -> None:
    """Its bytes are of no interest."""
    async with serving(file(jpeg(90, 90))) as server:
        [seen] = await screen_one(server.url(), options=WHOLE)
    assert (seen.reason, seen.content_key, len(server.requests)) == ("too_small", None, 1)


async def test_an_image_that_did_not_change_is_as_it_was_seen() -> None:
    """Requested with its validator; the response has no bytes, and what was known of them stays."""
    before = replace(KEPT, content_key="c" * 32, validator='"v1"')

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        unchanged = request.headers.get("if-none-match") == '"v1"'
        await (write(writer, 304, etag='"v1"') if unchanged else file(GOOD)(request, writer))

    async with (
        serving(respond) as server,
        ImageFetcher(WHOLE, WAN22_S2V_DETECT, local, NO_TRUST) as fetcher,
    ):
        assert await fetcher.screen([UniqueImage(KEY, server.url(), before)]) == [before]
        changed = replace(before, validator='"v0"', width_px=1)
        [seen] = await fetcher.screen([UniqueImage(KEY, server.url(), changed)])
        assert (seen.width_px, seen.validator) == (512, None)
        assert seen.content_key == blake2b(GOOD, digest_size=16).hexdigest()


async def test_a_validator_is_for_the_images_own_url() -> None:
    """A redirect may change: its target's tag is not kept, and the target never gets the first URL's tag."""
    before = replace(KEPT, validator='"v1"')

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.target == "/moved":
            await write(writer, 302, location="/p.jpg")
        elif "if-none-match" in request.headers:
            await write(writer, 304)
        else:
            await write(writer, 200, GOOD, etag='"v1"')

    async with (
        serving(respond) as server,
        ImageFetcher(OPTIONS, WAN22_S2V_DETECT, local, NO_TRUST) as fetcher,
    ):
        moved = redirected(KEPT, server.url())
        assert await fetcher.screen([UniqueImage(KEY, server.url("/moved"), before)]) == [moved]
        assert await fetcher.screen([UniqueImage(KEY, server.url(), before)]) == [before]


@pytest.mark.parametrize(
    ("tag", "kept"),
    [
        ('"v1"', '"v1"'),
        ('W/"v1"', None),
        ("v1", None),
        ('"' + "x" * 300 + '"', None),
        ('"a" "b"', None),
    ],
)
async def test_a_strong_validator_is_kept_and_no_other(tag: str, kept: str | None) -> None:
    """A weak one may identify other bytes; a malformed one is never sent."""
    async with serving(responding(200, GOOD, etag=tag)) as server:
        assert await screen_one(server.url()) == [replace(KEPT, validator=kept)]


async def test_a_304_without_a_validator_is_a_response_like_others() -> None:
    """Nothing is known: kept."""
    async with serving(responding(304)) as server:
        assert await screen_one(server.url()) == [UNKNOWN]


async def test_what_may_matter_later_is_reported() -> None:
    """An image in four channels is kept, and said to be one."""
    out = io.BytesIO()
    Image.new("CMYK", (512, 600)).save(out, "JPEG")
    async with serving(file(out.getvalue())) as server:
        assert await screen_one(server.url()) == [Screened(KEY, None, 512, 600, "jpeg", "cmyk")]


async def test_a_long_header_is_followed_by_ranges_on_one_connection() -> None:
    """Only the missing bytes are requested, and the connection is used again."""
    data = jpeg(exif_bytes=60_000)
    async with serving(file(data)) as server:
        assert await screen_one(server.url()) == [KEPT]
    first, second = (request.range for request in server.requests)
    assert first == (0, 4095)
    assert second is not None
    assert second[0] == 4096
    assert 60_000 < second[1] < 66_000
    assert server.connections == 1


async def test_a_header_in_thousands_of_pieces_takes_few_requests() -> None:
    """Ranges grow, so that small segments are not fetched one by one."""
    data = GOOD[:2] + (b"\xff\xfe\x00\x42" + b"." * 64) * 4_000 + GOOD[2:]
    async with serving(file(data)) as server:
        assert await screen_one(server.url()) == [KEPT]
    assert len(server.requests) < 10


async def test_a_server_that_ignores_ranges_is_read_until_enough_is_known() -> None:
    """An endless 200 costs no more than the header and what was under way."""
    sent = 0

    async def endless(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await write(writer, 200, jpeg(exif_bytes=60_000), content_length=None)
        while not writer.is_closing():
            writer.write(b"\0" * 65_536)
            sent += 65_536
            await writer.drain()

    async with serving(endless) as server:
        assert await screen_one(server.url()) == [KEPT]
    assert sent < 8_000_000  # the sender's buffer, mostly


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_header_beyond_the_cap_is_not_read_and_the_image_kept(ranges: bool) -> None:
    """What could not be known for the allowed bytes is left to the detector."""
    data = GOOD[:2] + (b"\xff\xe2\xff\xff" + b"\0" * 65_533) * 20 + GOOD[2:]
    async with serving(file(data) if ranges else responding(200, data)) as server:
        assert await screen_one(server.url()) == [UNKNOWN]
    assert (
        sum(request.range[1] - request.range[0] + 1 for request in server.requests if request.range)
        <= 1_048_576
    )


async def test_a_dripping_server_cannot_hold_an_image() -> None:
    """Each byte in time, the whole too late: the total counts, twice, then it is unreachable."""

    async def drip(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await write(writer, 200, b"\xff\xd8\xff", content_length=100_000)
        while not writer.is_closing():
            writer.write(b"\xff")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(drip) as server:
        began = time.monotonic()
        seen = await screen_one(server.url(), options=FetchOptions(allow_private_hosts=True, timeout_s=0.3))
        assert time.monotonic() - began < 60
    assert seen == [Screened(KEY, "timeout")]
    assert len(server.requests) == 2


async def test_endless_response_headers_end_in_time() -> None:
    """A head that our parser gives up on says nothing about the image, which is kept: others may read it."""

    async def chatter(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x: " + b"y" * 10_000 + b"\r\n")
            await writer.drain()

    async with serving(chatter) as server:
        assert await screen_one(server.url()) == [UNKNOWN]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_missing_image_is_refused_when_a_request_without_range_says_so(status: int) -> None:
    """Some servers respond so to the range alone; then gone is gone: no late retry."""
    async with serving(responding(status, b"no such thing")) as server:
        assert await screen_one(server.url()) == [Screened(KEY, "not_found")]
    assert [request.range for request in server.requests] == [(0, 4095), None]
    async with serving(in_turn(responding(status), responding(200, GOOD))) as server:
        assert await screen_one(server.url()) == [KEPT]


@pytest.mark.parametrize("status", [204, 300, 401, 403, 405, 500, 503])
async def test_a_status_that_may_be_for_us_alone_keeps_the_image(status: int) -> None:
    """The detector fetches from another network; the sides stay unknown."""
    async with serving(responding(status)) as server:
        assert await screen_one(server.url()) == [UNKNOWN]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Screened(KEY, "not_an_image")),
        (b"<html><body>sorry</body></html>" * 9, Screened(KEY, "web_page")),
        (GOOD[:100], Screened(KEY, "not_an_image")),
        (jpeg(exif_bytes=60_000)[:30_000], Screened(KEY, "not_an_image")),
        (b"GIF89a" + b"\0" * 90, Screened(KEY, "unsupported_format", None, None, "gif")),
        (webp(500, 600)[:4000], Screened(KEY, "truncated", 500, 600, "webp")),
        (jpeg(399, 500), Screened(KEY, "too_small", 399, 500, "jpeg")),
        (jpeg(400, 7000), Screened(KEY, None, 400, 7000, "jpeg")),
        (jpeg(400, 7001), Screened(KEY, "too_large", 400, 7001, "jpeg")),
    ],
    ids=["empty", "page", "cut", "cut in a segment", "gif", "cut pixels", "small", "limits", "large"],
)
@pytest.mark.parametrize("ranges", [True, False])
async def test_a_file_is_screened_the_same_with_and_without_ranges(
    body: bytes, expected: Screened, ranges: bool
) -> None:
    """Empty, foreign, cut, small and large files get their reasons whatever the server can do."""
    async with serving(file(body) if ranges else responding(200, body)) as server:
        assert await screen_one(server.url()) == [expected]


async def test_a_file_of_unknown_length_that_ends_early_is_no_image() -> None:
    """Where the server does not send the length, the whole file does; if that can't be had, it is kept."""
    cut = jpeg(exif_bytes=60_000)[:4096]
    first = responding(206, cut, content_range="bytes 0-4095/*")
    async with serving(in_turn(first, responding(416), responding(200, cut))) as server:
        assert await screen_one(server.url()) == [Screened(KEY, "not_an_image")]
    async with serving(in_turn(first, responding(416))) as server:
        assert await screen_one(server.url()) == [UNKNOWN]
    assert len(server.requests) == 3


async def test_a_refused_range_is_requested_again_without() -> None:
    """Some servers respond with 416 to any range."""
    async with serving(in_turn(responding(416), responding(200, GOOD))) as server:
        assert await screen_one(server.url()) == [KEPT]
    assert [request.range for request in server.requests] == [(0, 4095), None]


async def test_a_server_that_forgets_about_ranges_starts_over() -> None:
    """A 200 in the middle is the file from its start."""
    data = jpeg(exif_bytes=60_000)
    async with serving(in_turn(file(data), responding(200, data))) as server:
        assert await screen_one(server.url()) == [KEPT]


@pytest.mark.parametrize("span", [None, "bytes 7-99/100", "pages 0-1/2", "bytes 0-4095/nan"])
async def test_a_range_that_was_not_requested_is_not_parsed(span: str | None) -> None:
    """Bytes from elsewhere in a file could be anything: the image is kept."""
    async with serving(responding(206, b"<html>" * 20, content_range=span)) as server:
        assert await screen_one(server.url()) == [UNKNOWN]


async def test_an_encoded_response_is_not_parsed() -> None:
    """Compression was declined; compressed bytes are not the file's, so the image is kept."""
    async with serving(responding(200, b"\x1f\x8b" + b"\0" * 90, content_encoding="gzip")) as server:
        assert await screen_one(server.url()) == [UNKNOWN]


async def test_a_redirect_is_followed_to_the_image() -> None:
    """Relative, to another host, with its query: up to three."""
    responses = in_turn(
        responding(302, location="/b?" + SECRET),
        responding(301, location="c"),
        responding(307, b"x" * 9, location="/d"),
    )
    async with serving(file(GOOD)) as target, serving(responses) as server:
        last = responding(308, location=target.url("/e", host="other.test"))
        assert await screen_one(server.url("/a"), options=OPTIONS) == [Screened(KEY, "too_many_redirects")]
        assert [request.target for request in server.requests] == ["/a", f"/b?{SECRET}", "/c", "/d"]
        server.responder = last
        final = target.url("/e", host="other.test")
        assert await screen_one(server.url("/a")) == [redirected(KEPT, final)]
    assert target.requests[0].headers["host"] == f"other.test:{target.port}"


@pytest.mark.parametrize(
    "location",
    ["ftp://a.test/p.jpg", "http://me:you@a.test/", "file:///etc/passwd", "http://[::1/", "http://a.test:x/"],
)
async def test_a_redirect_to_nowhere_is_refused(location: str) -> None:
    """Only http and https URLs are followed."""
    async with serving(responding(302, location=location)) as server:
        assert await screen_one(server.url()) == [Screened(KEY, "bad_redirect")]


async def test_a_private_address_is_rejected_without_a_connection() -> None:
    """Loopback by any name needs permission, also when only one of several addresses is private."""

    async def mixed(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", "127.0.0.1"]

    async with serving(file(GOOD)) as server:
        strict = FetchOptions(ports=frozenset({server.port}))
        urls = [server.url(), server.url(host="127.0.0.1"), server.url(host="[::ffff:7f00:1]")]
        assert await screen_one(urls[0], options=strict, resolver=mixed) == [Screened(KEY, "private_address")]
        seen = await screen_one(*urls[1:], server.url(host="2130706433"), options=strict, resolver=None)
        assert seen == [Screened(KEY, "private_address")] * 3
    assert server.connections == 0


async def test_a_redirect_to_a_metadata_address_is_rejected_even_with_permission() -> None:
    """Each hop is checked, and no option opens the services that give out credentials."""

    async def names(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "images.test" else ["169.254.169.254"]

    async with serving(responding(302, location="http://innocent.test/latest/meta-data")) as server:
        assert await screen_one(server.url(), resolver=names) == [Screened(KEY, "private_address")]


async def test_the_checked_address_is_the_one_connected_to() -> None:
    """A name is resolved once per hop, so it can't change between check and use."""
    looked_up = []

    async def changing(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["169.254.169.254"]

    async with serving(file(jpeg(exif_bytes=60_000))) as server:
        seen = await screen_one(server.url("/1"), server.url("/2"), resolver=changing)
    assert seen == [KEPT, KEPT]
    assert looked_up == ["images.test"]


async def test_a_refused_connection_is_final() -> None:
    """No server listens there."""
    assert await screen_one(f"http://images.test:{closed_port()}/") == [Screened(KEY, "refused")]


async def test_the_next_address_is_tried_when_one_takes_no_connection() -> None:
    """A host with a dead address is not a dead host."""

    async def two(host: str, port: int) -> Sequence[str]:
        return ["::1", "127.0.0.1"]

    async with serving(file(GOOD)) as server:
        assert await screen_one(server.url(), resolver=two) == [KEPT]


@pytest.mark.parametrize(
    ("errors", "expected", "lookups"),
    [
        ([socket.EAI_NONAME], Screened(KEY, "no_such_host"), 1),
        ([socket.EAI_AGAIN, socket.EAI_AGAIN], Screened(KEY, "timeout"), 2),
        ([socket.EAI_AGAIN], KEPT, 2),
    ],
)
async def test_a_name_that_is_not_found_is_distinguished_from_one_that_may_be_later(
    errors: list[int], expected: Screened, lookups: int
) -> None:
    """A missing name is final; the name of a busy name server is resolved once more at the end."""
    resolved, resolves = [], asyncio.Event()

    async def failing(host: str, port: int) -> Sequence[str]:
        if host == "other.test":
            resolves.set()
            return ["127.0.0.1"]
        await resolves.wait()
        resolved.append(host)
        if errors:
            raise socket.gaierror(errors.pop(0), "no")
        return ["127.0.0.1"]

    async with serving(file(GOOD)) as server:
        both = await screen_one(server.url(), server.url(host="other.test"), resolver=failing)
    assert both == [expected, KEPT]
    assert len(resolved) == lookups


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_AGAIN, "no"), TimeoutError(), OSError(24, "files")]
)
async def test_without_a_resolver_no_image_is_blamed(error: Exception) -> None:
    """No name resolves, or none does any more: the images are kept, unknown."""
    resolves = True

    async def resolver(host: str, port: int) -> Sequence[str]:
        if resolves:
            return ["127.0.0.1"]
        raise error

    async with (
        serving(file(GOOD)) as server,
        ImageFetcher(OPTIONS, WAN22_S2V_DETECT, resolver, NO_TRUST) as one,
    ):
        urls = [server.url(host=f"{n}.test") for n in range(20)]
        images = [UniqueImage(KEY, url) for url in urls]
        assert await one.screen(images[:4]) == [KEPT] * 4
        resolves = False
        assert await one.screen(images[4:]) == [UNKNOWN] * 16
    assert await screen_one(*urls[:2], resolver=resolver) == [UNKNOWN] * 2


@pytest.mark.parametrize("number", sorted(LOCAL))
def test_what_this_machine_lacks_is_no_fault_of_the_image(number: int) -> None:
    """It is tried again late, and then the image is kept."""
    connector = aiohttp.ClientOSError(number, "wrapped")
    assert failure_of(connector) is FetchFailure.LOCAL
    assert REASON_OF_FAILURE[FetchFailure.LOCAL] is None
    assert FetchFailure.LOCAL in LATE_RETRY


FEW_FILES = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from s2v_tasks.adapters.http.fetch_options import FetchOptions
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.models import WAN22_S2V_DETECT, UniqueImage

async def main():
    urls = [f"http://127.0.{n // 250}.{n % 250 + 1}:{sys.argv[1]}/{n}.jpg" for n in range(1000)]
    images = [UniqueImage(f"{n:032}", url) for n, url in enumerate(urls)]
    options = FetchOptions(allow_private_hosts=True, timeout_s=60, connect_timeout_s=60)
    async with ImageFetcher(options, WAN22_S2V_DETECT) as fetcher:
        shards = [fetcher.screen(images[start : start + 100]) for start in range(0, 1000, 100)]
        found = [one for shard in await asyncio.gather(*shards) for one in shard]
    print(sum(one.image_format == "jpeg" for one in found), {one.reason for one in found})

asyncio.run(main())
"""


async def test_no_image_is_lost_where_few_files_may_be_open() -> None:
    """1,000 slow hosts under ``ulimit -n 256``: fewer at a time, and every header is read."""

    async def slow(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await file(GOOD)(request, writer)

    async with serving(slow, host="0.0.0.0") as server:  # noqa: S104 - every address of loopback
        arguments = [sys.executable, "-c", FEW_FILES, str(server.port)]
        child = await asyncio.create_subprocess_exec(
            *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await child.communicate()
    assert out == b"1000 {None}\n", err


async def test_the_system_knows_this_machine() -> None:
    """Without a resolver in the arguments the system's is used; names that it rejects are no host."""
    async with serving(file(GOOD)) as server:
        assert await screen_one(server.url(host="127.0.0.1"), resolver=None, tls=None) == [KEPT]


async def test_a_reset_is_fetched_again_after_the_others() -> None:
    """A connection that breaks is opened once more at once, and if that breaks, late."""
    async with serving(in_turn(hang_up, hang_up, file(GOOD))) as server:
        one = FetchOptions(allow_private_hosts=True, per_host=1)
        assert await screen_one(server.url("/1"), server.url("/2"), options=one) == [KEPT, KEPT]
        assert [request.target for request in server.requests] == ["/1", "/1", "/2", "/1"]
        server.responder = hang_up
        assert await screen_one(server.url()) == [Screened(KEY, "timeout")]


async def test_a_response_cut_off_is_a_failure_and_no_verdict() -> None:
    """A promised length that does not come says nothing about the image."""
    async with serving(in_turn(cut_off(GOOD[:100], len(GOOD)), file(GOOD))) as server:
        assert await screen_one(server.url()) == [KEPT]


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog is silent on Linux")
async def test_a_silent_host_does_not_hold_the_shard() -> None:
    """After a few silent connects a host's other images do not wait for it one by one."""
    options = FetchOptions(allow_private_hosts=True, connect_timeout_s=0.3, per_host=1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        seen = await screen_one(*[f"http://images.test:{port}/{i}" for i in range(50)], options=options)
        for filler in fillers:
            filler.close()
    assert seen == [Screened(KEY, "timeout")] * 50
    assert time.monotonic() - began < 10  # one by one they would take 15 s


async def test_results_come_in_the_order_given() -> None:
    """Whatever ends first, and the late ones too."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        number = int(request.target[1:])
        await asyncio.sleep(0.03 - number / 1000)
        await write(writer, *((200, jpeg(400 + number)) if number % 3 else (404, b"")))

    async with serving(respond) as server, ImageFetcher(OPTIONS, WAN22_S2V_DETECT, local) as fetcher:
        seen = await fetcher.screen([UniqueImage(f"key{i}", server.url(f"/{i}")) for i in range(30)])
    assert [one.image_key for one in seen] == [f"key{i}" for i in range(30)]
    assert [one.width_px for one in seen] == [400 + i if i % 3 else None for i in range(30)]


async def test_an_empty_shard_requests_nothing() -> None:
    """No images, no results."""
    assert await screen_one() == []


async def test_a_host_gets_few_requests_at_a_time_whatever_the_shards() -> None:
    """The bound on a host holds over shards that run at once; another host has its own."""

    async def slow(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        await write(writer, 200, GOOD)

    options = FetchOptions(allow_private_hosts=True, per_host=3, max_in_flight=5)
    async with serving(slow) as server, ImageFetcher(options, WAN22_S2V_DETECT, local) as fetcher:
        shard = [UniqueImage(KEY, server.url(f"/{i}")) for i in range(12)]
        assert await asyncio.gather(fetcher.screen(shard), fetcher.screen(shard)) == [[KEPT] * 12] * 2
        assert server.most_busy == 3
        server.most_busy = 0
        await fetcher.screen([UniqueImage(KEY, server.url(host=f"h{i}.test")) for i in range(20)])
        assert server.most_busy == 5


async def test_hosts_that_redirect_to_each_other_do_not_block_each_other() -> None:
    """A turn at one host is given back before the next one's is waited for."""

    async def cross(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        if request.target == "/end":
            await write(writer, 200, GOOD)
        else:
            other = "b.test" if request.headers["host"].startswith("a.test") else "a.test"
            await write(writer, 302, location=f"http://{other}:{server.port}/end")

    options = FetchOptions(allow_private_hosts=True, per_host=1, max_in_flight=2, timeout_s=2)
    async with serving(cross) as server:
        urls = [server.url("/start", host=host) for host in ("a.test", "b.test")] * 5
        seen = await screen_one(*urls, options=options)
    finals = [server.url("/end", host=host) for host in ("b.test", "a.test")] * 5
    assert seen == [redirected(KEPT, final) for final in finals]


async def test_hosts_at_one_address_do_not_share_a_connection() -> None:
    """What was opened, and verified, for one name never serves another."""
    async with serving(file(GOOD)) as server:
        urls = [server.url(f"/{i}", host=host) for i in range(3) for host in ("a.test", "b.test")]
        one = FetchOptions(allow_private_hosts=True, per_host=1)
        assert await screen_one(*urls, options=one) == [KEPT] * 6
    assert server.connections == 2
    assert len({(request.connection, request.headers["host"]) for request in server.requests}) == 2


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for a certificate of images.test."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images.test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    names = x509.SubjectAlternativeName([x509.DNSName("images.test")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cafile=str(folder / "both.pem"))


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def test_a_certificate_is_checked_against_the_name(tls: Contexts) -> None:
    """Though the address is connected to, the name is announced and verified; another name is a failure."""
    async with serving(file(GOOD), tls[0]) as server:
        assert await screen_one(server.url(scheme="https"), tls=tls[1]) == [KEPT]
        other = server.url(scheme="https", host="other.test")
        assert await screen_one(other, tls=tls[1]) == [Screened(KEY, "timeout")]
    assert len(server.requests) == 1


async def test_a_redirect_never_leaves_encryption(tls: Contexts) -> None:
    """From https to http is refused, before the target is requested."""
    async with serving(file(GOOD)) as plain, serving(responding(302, location=plain.url()), tls[0]) as server:
        assert await screen_one(server.url(scheme="https"), tls=tls[1]) == [Screened(KEY, "bad_redirect")]
    assert plain.connections == 0


@pytest.mark.parametrize(
    ("host", "sent"), [("MÜNCHEN.test", "xn--mnchen-3ya.test"), ("under_score.test", "under_score.test")]
)
async def test_an_international_name_is_sent_in_its_ascii_form(host: str, sent: str) -> None:
    """The resolved and announced name is the one in DNS."""
    looked_up = []

    async def names(name: str, port: int) -> Sequence[str]:
        looked_up.append(name)
        return ["127.0.0.1"]

    async with serving(file(GOOD)) as server:
        assert await screen_one(server.url(host=host), resolver=names) == [KEPT]
    assert looked_up == [sent]
    assert server.requests[0].headers["host"] == f"{sent}:{server.port}"


async def test_a_name_with_a_dot_at_the_end_is_verified_without(tls: Contexts) -> None:
    """The dot is for the name server only."""
    async with serving(file(GOOD), tls[0]) as server:
        assert await screen_one(server.url(scheme="https", host="images.test."), tls=tls[1]) == [KEPT]


@pytest.mark.parametrize(
    "url", ["http://\u2603\u200d.test/", "http:///p.jpg", "http://a..test/", "http://[v1.x]/"]
)
async def test_a_url_that_cannot_be_requested_is_rejected(url: str) -> None:
    """No host, or a name that has no ASCII form, is no URL; nothing is resolved."""
    assert await screen_one(url, resolver=None) == [Screened(KEY, "malformed_url")]


@given(st.lists(st.text(max_size=30), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_url_breaks_a_shard(tails: list[str]) -> None:
    """Whatever an image's URL holds, it gets a reason, and the others theirs."""

    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    seen = asyncio.run(screen_one(*[f"http://{tail}" for tail in tails], resolver=nowhere))
    assert len(seen) == len(tails)
    assert {one.reason for one in seen} <= {"malformed_url", "no_such_host"}


async def test_nothing_of_the_environment_or_of_earlier_responses_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No proxy, no password from a file, no cookie."""
    monkeypatch.setenv("HTTP_PROXY", f"http://me:you@127.0.0.1:{closed_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://me:you@127.0.0.1:{closed_port()}")
    async with serving(responding(200, GOOD, set_cookie="a=b")) as server:
        assert await screen_one(*[server.url()] * 2, options=FetchOptions(True, per_host=1)) == [KEPT] * 2
    assert {"cookie", "authorization", "proxy-authorization"}.isdisjoint(server.requests[1].headers)


async def test_no_log_holds_a_query(caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level, in redirects and failures too."""
    caplog.set_level(logging.DEBUG)
    responses = in_turn(hang_up, responding(302, location="/b?" + SECRET), file(GOOD))
    async with serving(responses) as server:
        assert await screen_one(server.url("/a?" + SECRET)) == [redirected(KEPT, server.url("/b?" + SECRET))]
    assert len(server.requests) == 3
    assert "sesame" not in caplog.text


async def test_a_defect_ends_the_shard_and_names_the_image_only() -> None:
    """A defect is not hidden in a result, and its message, which may hold a URL, is not repeated."""

    async def broken(host: str, port: int) -> Sequence[str]:
        raise KeyError(SECRET)

    with pytest.raises(S2VError) as caught:
        await screen_one("http://images.test/?" + SECRET, "http://images.test/", resolver=broken)
    assert caught.value.image_key == KEY
    assert "KeyError at broken" in str(caught.value)
    assert "sesame" not in "".join(traceback.format_exception(caught.value)).replace("KeyError(SECRET)", "")


async def test_a_cancelled_shard_closes_its_connections() -> None:
    """Stopping a run leaves nothing open."""
    all_here = asyncio.Barrier(5)

    async def never(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await all_here.wait()  # and no response: the server goes on to read, until the fetcher goes

    async with serving(never) as server:
        shard = asyncio.create_task(screen_one(*[server.url(f"/{i}") for i in range(4)]))
        await all_here.wait()
        shard.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shard
        assert await server.all_closed()
