"""Hostile URLs and servers: what is connected to is recorded at the socket, and every row ends in time.

Two attacks at large: reach what only this machine can reach, and keep the fetcher busy for ever.
"""

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from image_server import ReceivedRequest, Responder, file, hang_up, in_turn, responding, serving
from test_image_fetcher import GOOD, NO_TRUST

from s2v_tasks.adapters.http.dns import SystemResolver
from s2v_tasks.adapters.http.fetch_options import FetchOptions
from s2v_tasks.adapters.http.image_fetcher import ImageFetcher
from s2v_tasks.models import WAN22_S2V_DETECT, Screened, UniqueImage

CAP_S = 2.0
"""Of one fetch; a row gets two at most."""
SLACK_S = 30.0
"""For a busy machine: what these servers would like is for ever."""

_recording: list[tuple[Any, ...]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _recording is not None and arguments[0].family != socket.AF_UNIX:
        _recording.append(arguments[1][:2])


sys.addaudithook(_hook)  # for good: Python knows no way back


@contextmanager
def connections() -> Iterator[list[tuple[Any, ...]]]:
    """Record every address that any socket of this process connects to."""
    global _recording  # noqa: PLW0603 - the hook has no other way to know
    _recording = []
    try:
        yield _recording
    finally:
        _recording = None


def blocked() -> str:
    """What the guard of these tests had to stop, so that it came to no connection."""
    log = Path(os.environ["TESTS_BLOCKED_LOG"])
    return log.read_text("utf-8") if log.exists() else ""


NAMES = {
    "mixed.test": ["93.184.215.14", "127.0.0.1"],
    "private.test": ["10.0.0.7"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "nat64.test": ["64:ff9b::a9fe:a9fe"],
    "metadata.test": ["169.254.169.254"],
    "azure.test": ["168.63.129.16"],
    "local.test": ["127.0.0.1"],
    "other.test": ["127.0.0.1"],
    "localhost.": ["127.0.0.1"],
    "empty.test": [],
}


class Names:
    """A name server in the hands of an attacker; the system resolves other names."""

    def __init__(self) -> None:
        self._system = SystemResolver(5.0)
        self._resolved: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self._resolved.append(host)
        if host == "rebinding.test":  # first as wanted, and then
            return ["127.0.0.1"] if self._resolved.count(host) == 1 else ["169.254.169.254"]
        return NAMES[host] if host in NAMES else await self._system(host, port)

    def close(self) -> None:
        self._system.close()


@asynccontextmanager
async def fetching(options: FetchOptions) -> AsyncIterator[ImageFetcher]:
    names = Names()
    try:
        async with ImageFetcher(options, WAN22_S2V_DETECT, names, NO_TRUST) as fetcher:
            yield fetcher
    finally:
        names.close()


PRIVATE = "private_address"
URLS = {
    "http://127.0.0.1:{port}/": PRIVATE,
    "http://localhost:{port}/": PRIVATE,
    "http://LocalHost.:{port}/": PRIVATE,
    "http://2130706433:{port}/": PRIVATE,
    "http://0x7f000001:{port}/": PRIVATE,
    "http://0x7F.0x0.0x0.0x1:{port}/": PRIVATE,
    "http://0177.0.0.1:{port}/": "malformed_url",
    "http://017700000001:{port}/": PRIVATE,
    "http://127.1:{port}/": PRIVATE,
    "http://127.000.000.001:{port}/": "malformed_url",
    "http://0:{port}/": PRIVATE,
    "http://0.0.0.0:{port}/": PRIVATE,
    "http://[::]:{port}/": PRIVATE,
    "http://[::1]:{port}/": PRIVATE,
    "http://[::ffff:127.0.0.1]:{port}/": PRIVATE,
    "http://[0:0:0:0:0:ffff:7f00:1]:{port}/": PRIVATE,
    "http://[::127.0.0.1]:{port}/": PRIVATE,
    "http://[::ffff:0:127.0.0.1]:{port}/": PRIVATE,
    "http://[64:ff9b::127.0.0.1]:{port}/": PRIVATE,
    "http://[64:ff9b:1::127.0.0.1]:{port}/": PRIVATE,
    "http://[2002:7f00:1::]:{port}/": PRIVATE,
    "http://[fec0::1]/": PRIVATE,
    "http://10.0.0.1/": PRIVATE,
    "http://172.31.255.254/": PRIVATE,
    "http://192.168.0.1/": PRIVATE,
    "http://100.64.0.1/": PRIVATE,
    "http://169.254.169.254/latest/meta-data/": PRIVATE,
    "http://[fe80::1]/": PRIVATE,
    "http://[fd00:ec2::254]/latest/meta-data/": PRIVATE,
    "http://100.100.100.200/latest/meta-data/": PRIVATE,
    "http://168.63.129.16/machine": PRIVATE,
    "http://224.0.0.1/": PRIVATE,
    "http://255.255.255.255/": PRIVATE,
    "http://mixed.test:{port}/": PRIVATE,
    "http://private.test/": PRIVATE,
    "http://mapped.test:{port}/": PRIVATE,
    "http://nat64.test/": PRIVATE,
    "http://metadata.test/": PRIVATE,
    "http://azure.test/": PRIVATE,
    "http://local.test:{port}#@innocent.test/": PRIVATE,
    "http://127\u30020\u30020\u30021:{port}/": PRIVATE,
    "http://\uff11\uff12\uff17.0.0.1:{port}/": "malformed_url",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{port}/": "malformed_url",
    "http://empty.test/": "no_such_host",
    "http://127.0.0.1:22/": "odd_port",
    "http://local.test:6379/": "odd_port",
    "http://innocent.test@127.0.0.1:{port}/": "malformed_url",
    "http://innocent.test:80\\@127.0.0.1:{port}/": "malformed_url",
    "http://127.0.0.1:{port}\\.innocent.test/": "malformed_url",
    "http://[::1%25lo]:{port}/": "malformed_url",
    "http://127.0.0.1:65536/": "malformed_url",
    "http://127.0.0.1:{port}\r\nx: y/": "malformed_url",
    "http:127.0.0.1:{port}/": "malformed_url",
    "http:///127.0.0.1:{port}/": "malformed_url",
    "//127.0.0.1:{port}/": "malformed_url",
    "gopher://127.0.0.1:{port}/_GET": "malformed_url",
    "file:///etc/passwd": "malformed_url",
    "ftp://127.0.0.1:{port}/p.jpg": "malformed_url",
    "unix:///var/run/docker.sock": "malformed_url",
    "data:image/png;base64,iVBORw0KGgo=": "malformed_url",
}


async def test_no_url_reaches_a_host_that_is_not_public() -> None:
    """Loopback, private networks and metadata by every spelling: a reason each, and not one connection."""
    async with serving(file(GOOD)) as server:
        options = FetchOptions(ports=frozenset({80, server.port}), timeout_s=CAP_S)
        urls = {url.replace("{port}", str(server.port)): reason for url, reason in URLS.items()}
        before = blocked()
        async with fetching(options) as fetcher:
            with connections() as made:
                seen = await fetcher.screen([UniqueImage(url, url) for url in urls])
        assert {one.image_key: one.reason for one in seen} == urls
        assert made == []
        assert blocked() == before
        assert server.connections == 0
    assert len(URLS) >= 40


def test_what_is_recorded_is_what_a_socket_connects_to() -> None:
    """The recorder above is no defect of itself: a plain connection is seen."""
    with socket.socket() as server, socket.socket() as client, connections() as made:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        assert made == [server.getsockname()]


def moved(location: str) -> Responder:
    return responding(302, location=location)


def raw(
    *parts: bytes, repeat: bytes = b"", every_s: float = 0.0, end: Callable[..., None] | None = None
) -> Responder:
    """Write these bytes, and one part again and again until the other side goes."""

    async def respond(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        while repeat and not writer.is_closing():
            writer.write(repeat)
            await writer.drain()
            await asyncio.sleep(every_s)
        if end is not None:
            end(writer)

    return respond


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


OK = b"HTTP/1.1 200 OK\r\n"
PART = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-4095/9999999\r\n\r\n"
LENGTH = b"Content-Length: 99999999\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ZEROS = b"\0" * 65_536
SEGMENTS = b"\xff\xfe\x00\x02" * 16_384
TIMEOUT = "timeout"
SERVERS: dict[str, tuple[Responder, str | None]] = {
    "redirect to metadata": (moved("http://169.254.169.254/latest/meta-data/"), PRIVATE),
    "redirect to a name of metadata": (moved("http://metadata.test/"), PRIVATE),
    "redirect to mapped metadata": (moved("http://[::ffff:169.254.169.254]/"), PRIVATE),
    "redirect to translated metadata": (moved("http://[64:ff9b::a9fe:a9fe]/"), PRIVATE),
    "redirect to metadata in decimal": (moved("http://2852039166/"), PRIVATE),
    "redirect to metadata over ipv6": (moved("http://[fd00:ec2::254]/"), PRIVATE),
    "redirect to a link-local host": (moved("//[fe80::1]/p.jpg"), PRIVATE),
    "redirect to gopher": (moved("gopher://127.0.0.1:6379/_INFO"), "bad_redirect"),
    "redirect to a file": (moved("file:///etc/passwd"), "bad_redirect"),
    "redirect with a password": (moved("http://me:you@127.0.0.1/"), "bad_redirect"),
    "redirect to a broken URL": (moved("http://[::1/"), "bad_redirect"),
    "redirect loop": (moved("/again"), "too_many_redirects"),
    "redirect of 100 KB": (moved("/" + "a" * 100_000), None),
    "endless body": (raw(OK + LENGTH + GOOD[:200], repeat=ZEROS), "not_an_image"),
    "endless header of an image": (raw(OK + LENGTH + b"\xff\xd8", repeat=SEGMENTS), None),
    "endless fill bytes": (raw(OK + LENGTH + b"\xff\xd8", repeat=b"\xff" * 65_536), None),
    "endless part": (raw(PART + b"\xff\xd8", repeat=SEGMENTS), None),
    "endless text": (raw(OK + LENGTH, repeat=b" " * 65_536), "not_an_image"),
    "endless error page": (raw(b"HTTP/1.1 404 Gone\r\n" + LENGTH, repeat=ZEROS), "not_found"),
    "drip of a body": (raw(OK + LENGTH + b"\xff\xd8\xff", repeat=b"\xff", every_s=0.02), TIMEOUT),
    "drip of headers": (raw(OK, repeat=b"a: b\r\n", every_s=0.02), TIMEOUT),
    "drip of a header": (raw(OK + b"a: ", repeat=b"b", every_s=0.02), TIMEOUT),
    "silence": (raw(), TIMEOUT),
    "giant header": (raw(OK + b"a: " + b"b" * 2_000_000 + b"\r\n\r\n"), None),
    "giant status": (raw(b"HTTP/1.1 200 " + b"O" * 2_000_000 + b"\r\n\r\n"), None),
    "thousands of headers": (raw(OK + b"a: b\r\n" * 100_000 + b"\r\n"), None),
    "endless headers": (raw(OK, repeat=b"a: b\r\n" * 1000), None),
    "endless interim responses": (raw(repeat=b"HTTP/1.1 100 Continue\r\n\r\n" * 100), TIMEOUT),
    "gzip bomb": (raw(OK + b"Content-Encoding: gzip\r\n" + LENGTH + b"\x1f\x8b\x08", repeat=ZEROS), None),
    "gzip bomb in transfer": (raw(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", repeat=ZEROS), None),
    "chunk of many exabytes": (raw(OK + CHUNKED + b"f" * 15 + b"\r\n" + b"\xff\xd8\xff", repeat=ZEROS), None),
    "chunk size without end": (raw(OK + CHUNKED, repeat=b"0" * 65_536), TIMEOUT),
    "two lengths": (raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", repeat=ZEROS), None),
    "negative length": (raw(OK + b"Content-Length: -1\r\n\r\n", repeat=ZEROS), None),
    "not http": (raw(b"SSH-2.0-OpenSSH_9.9\r\n", repeat=b"nonsense\r\n"), None),
    "nothing": (hang_up, TIMEOUT),
    "cut in the middle": (raw(OK + LENGTH + GOOD[:100], end=lambda writer: writer.close()), TIMEOUT),
    "reset": (raw(end=reset), TIMEOUT),
    "reset in the middle": (raw(OK + LENGTH + GOOD[:100], end=reset), TIMEOUT),
    "part from elsewhere": (responding(206, GOOD, content_range="bytes 9-99/100"), None),
    "part of a nonsense total": (responding(206, GOOD[:99], content_range="bytes 0-98/\u0663"), None),
}


async def test_no_server_leads_elsewhere_or_holds_a_row() -> None:
    """Redirects, floods, drips, bombs and nonsense: a reason each, within the cap, no other host touched."""
    options = FetchOptions(
        allow_private_hosts=True, timeout_s=CAP_S, connect_timeout_s=CAP_S, max_bytes=262_144
    )
    before = blocked()
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(fetching(options))
        servers = {
            name: await stack.enter_async_context(serving(responder))
            for name, (responder, _) in SERVERS.items()
        }
        stack.push_async_callback(fetcher.pool.close)  # before the servers check for open connections

        async def timed(name: str) -> tuple[Screened, float]:
            began = time.monotonic()
            [seen] = await fetcher.screen([UniqueImage(name, servers[name].url(host="local.test"))])
            return seen, time.monotonic() - began

        with connections() as made:
            ended = dict(zip(servers, await asyncio.gather(*map(timed, servers)), strict=True))
    wanted = {name: reason for name, (_, reason) in SERVERS.items()}
    assert {name: seen.reason for name, (seen, _) in ended.items()} == wanted
    assert set(made) <= {("127.0.0.1", server.port) for server in servers.values()}
    assert blocked() == before
    assert max(took for _, took in ended.values()) < 2 * CAP_S + SLACK_S
    assert len(servers["redirect loop"].requests) == options.max_redirects + 1


async def test_a_name_that_changes_its_address_is_checked_each_time() -> None:
    """First this machine, as allowed, then metadata: the second is refused, no permission opens it."""
    options = FetchOptions(allow_private_hosts=True, timeout_s=CAP_S)
    async with serving(file(GOOD)) as server, serving(file(GOOD)) as other, fetching(options) as fetcher:
        with connections() as made:
            first, second = [
                (await fetcher.screen([UniqueImage("k", where.url(host="rebinding.test"))]))[0].reason
                for where in (server, other)
            ]
        await fetcher.pool.close()
    assert (first, second) == (None, PRIVATE)
    assert made == [("127.0.0.1", server.port)]


async def test_a_host_gets_few_connections_though_it_holds_them_all() -> None:
    """Hundreds of images at one silent host: eight connections, and another host's image goes by."""
    options = FetchOptions(allow_private_hosts=True, timeout_s=1.0)
    async with serving(raw()) as silent, serving(file(GOOD)) as good, fetching(options) as fetcher:
        held = asyncio.create_task(
            fetcher.screen([UniqueImage("k", silent.url(f"/{n}", host="local.test")) for n in range(20)])
        )
        [other] = await fetcher.screen([UniqueImage("k", good.url(host="other.test"))])
        assert {one.reason for one in await held} == {TIMEOUT}
        await fetcher.pool.close()
    assert other.reason is None
    assert silent.most_busy <= options.per_host


async def test_a_cookie_and_a_password_are_never_kept() -> None:
    """What a server hands out is not handed back, also over a redirect."""
    responses = in_turn(
        responding(302, location="/b", set_cookie="a=b"), responding(200, GOOD, set_cookie="c=d")
    )
    options = FetchOptions(allow_private_hosts=True, timeout_s=CAP_S)
    async with serving(responses) as server, fetching(options) as fetcher:
        for _ in range(2):
            await fetcher.screen([UniqueImage("k", server.url(host="local.test"))])
        await fetcher.pool.close()
    assert len(server.requests) == 3
    assert all({"cookie", "authorization"}.isdisjoint(request.headers) for request in server.requests)
