"""The paid call against a real server on loopback, which responds, stalls and breaks off as scripted."""

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from pydantic import SecretStr

from s2v_tasks.adapters.http.detect_client import DetectClient, service_of
from s2v_tasks.domain.detect import DetectResponse, Kind, Request, build_request
from s2v_tasks.models import WAN22_S2V_DETECT, Billing
from s2v_tasks.settings import DASHSCOPE_BASE_URL, Credentials, DashScope

KEY = "sk-sesame"
IMAGE_URL = "https://host.example/ä b.jpg?sig=a%2Fb+c&x='\"<>"
CALL = build_request(WAN22_S2V_DETECT, IMAGE_URL)
PASSED = json.dumps({"output": {"check_pass": True, "humanoid": True}, "request_id": "r-1"}).encode()

Write = asyncio.StreamWriter
Reply = Callable[[Write], Awaitable[None]]


@dataclass
class ReceivedRequest:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Service:
    """A server that records its requests and sends the given responses."""

    reply: Reply
    requests: list[ReceivedRequest] = field(default_factory=list)
    base_url: str = ""
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: Write) -> None:
        """One connection, for as long as it lives."""
        self.connections += 1
        connection = self.connections
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split()
                self.requests.append(ReceivedRequest(method, target, headers, body, connection))
                await self.reply(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


def http(status: int = 200, body: bytes = PASSED, *headers: str, length: int | None = None) -> Reply:
    """A plain HTTP response."""
    lines = [
        f"HTTP/1.1 {status} Words",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]

    async def reply(writer: Write) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return reply


async def hang_up(writer: Write) -> None:
    """Close the connection without a word."""
    writer.close()


async def reset(writer: Write) -> None:
    """Break the connection."""
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
    )  # so that closing sends a reset
    writer.transport.abort()


async def say_nothing(writer: Write) -> None:
    """Keep the caller waiting."""
    await asyncio.sleep(30)


async def babble(writer: Write) -> None:
    """What is no HTTP."""
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    writer.close()


async def truncate(writer: Write) -> None:
    """Promise more than is sent."""
    await http(200, PASSED[:20], length=500)(writer)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[Service]:
    service = Service(reply)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    service.base_url = f"http://{host}:{port}/api/v1"
    try:
        yield service
    finally:
        server.close()
        for task in [t for t in asyncio.all_tasks() if getattr(t.get_coro(), "__name__", "") == "serve"]:
            task.cancel()


def access(base_url: str, workspace: str | None = None) -> Credentials:
    return Credentials(base_url, SecretStr(KEY), workspace)


def client_of(base_url: str, workspace: str | None = None, timeout_s: float = 10.0) -> DetectClient:
    return DetectClient(access(base_url, workspace), WAN22_S2V_DETECT, response_timeout_s=timeout_s)


async def response_to(reply: Reply, timeout_s: float = 10.0) -> DetectResponse:
    """What one call to a server that replies so gives."""
    async with serving(reply) as service, client_of(service.base_url, timeout_s=timeout_s) as client:
        response = await client.send(CALL)
        assert len(service.requests) == 1, "a call is sent once"
        return response


async def test_the_request_is_the_documented_one() -> None:
    """Path, headers and body, byte for byte."""
    async with serving(http()) as service, client_of(service.base_url) as client:
        response = await client.send(CALL)
    (request,) = service.requests
    assert (request.method, request.target) == ("POST", "/api/v1/services/aigc/image2video/face-detect")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert "x-dashscope-workspace" not in request.headers
    assert request.body == CALL.body
    assert json.loads(request.body)["input"]["image_url"] == IMAGE_URL
    assert (response.kind, response.billing, response.request_id) == (Kind.VERDICT, Billing.BILLED, "r-1")


async def test_a_workspace_is_named_if_there_is_one() -> None:
    """In the vendor's header."""
    async with serving(http()) as service, client_of(service.base_url, "ws-7") as client:
        await client.send(CALL)
    assert service.requests[0].headers["x-dashscope-workspace"] == "ws-7"


@pytest.mark.parametrize(
    ("reply", "kind", "billing"),
    [
        (http(503, b"<html>busy</html>"), Kind.TRANSIENT, Billing.NOT_BILLED),
        (http(504, b"<html>gave up</html>"), Kind.TRANSIENT, Billing.UNKNOWN),
        (http(200, b""), Kind.TRANSIENT, Billing.UNKNOWN),
        (http(200, gzip.compress(PASSED), "Content-Encoding: gzip"), Kind.VERDICT, Billing.BILLED),
        (http(200, PASSED, "Content-Encoding: gzip"), Kind.TRANSIENT, Billing.UNKNOWN),
        (truncate, Kind.TRANSIENT, Billing.UNKNOWN),
        (hang_up, Kind.TRANSIENT, Billing.UNKNOWN),
        (reset, Kind.TRANSIENT, Billing.UNKNOWN),
        (babble, Kind.TRANSIENT, Billing.UNKNOWN),
    ],
    ids=["503", "504", "empty", "gzip", "no gzip", "truncated", "closed", "reset", "no http"],
)
async def test_what_comes_back_is_a_response(reply: Reply, kind: Kind, billing: Billing) -> None:
    """Once the call is sent, anything that is no response may have cost."""
    response = await response_to(reply)
    assert (response.kind, response.billing) == (kind, billing)


async def test_a_response_that_does_not_come_may_have_cost() -> None:
    """The time-out is the reading's, and the message says so."""
    response = await response_to(say_nothing, timeout_s=0.2)
    assert (response.kind, response.billing, response.reason) == (
        Kind.TRANSIENT,
        Billing.UNKNOWN,
        "response_lost",
    )
    assert response.message == "no response (ReadTimeout)"


async def test_the_caller_learns_when_a_call_is_written() -> None:
    """Once, before the response; the request that opens a proxy's tunnel is no call."""
    at: list[str] = []
    async with serving(http()) as service, client_of(service.base_url) as client:
        await client.send(CALL, lambda: at.append(f"written, {len(service.requests)} received"))
    assert at == ["written, 0 received"]

    async def open_and_close(writer: Write) -> None:
        await http(200, b"")(writer)
        await hang_up(writer)

    async with serving(open_and_close) as proxy:
        transport = httpx.AsyncHTTPTransport(proxy=proxy.base_url.removesuffix("/api/v1"))
        client = DetectClient(access("https://host.example/api/v1"), WAN22_S2V_DETECT, transport)
        async with client:
            await client.send(CALL, lambda: at.append("written"))
    assert proxy.requests[0].method == "CONNECT"
    assert len(at) == 1


async def test_a_refused_connection_costs_nothing() -> None:
    """The call was never sent."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with client_of(f"http://127.0.0.1:{port}/api/v1") as client:
        response = await client.send(CALL)
        await client.warm()  # says nothing: the call itself will
    assert (response.kind, response.billing) == (Kind.TRANSIENT, Billing.NOT_BILLED)
    assert response.message == "no connection (ConnectError: Connection refused)"


async def test_a_server_that_speaks_no_tls_costs_nothing() -> None:
    """The handshake comes before the call."""

    async def greet(reader: asyncio.StreamReader, writer: Write) -> None:
        await babble(writer)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client_of(f"https://127.0.0.1:{port}/api/v1") as client:
        response = await client.send(CALL)
    assert response.billing is Billing.NOT_BILLED


@pytest.mark.parametrize("workspace", ["ws\n7", "ws\r\nX-Evil: 1"])
async def test_a_header_that_can_not_be_sent_costs_nothing(workspace: str) -> None:
    """Refused on this side: counting it as lost would spend the budget on calls that were never sent."""
    async with serving(http()) as service, client_of(service.base_url, workspace) as client:
        response = await client.send(CALL)
    assert response.billing is Billing.NOT_BILLED
    assert service.requests == []


async def test_a_proxy_that_refuses_the_tunnel_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used, as companies need it; its refusal is no lost response."""
    async with serving(http(407, b"")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.removesuffix("/api/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with client_of("https://service.invalid/api/v1") as client:
            response = await client.send(CALL)
    assert proxy.requests[0].method == "CONNECT"
    assert "authorization" not in proxy.requests[0].headers
    assert response.billing is Billing.NOT_BILLED


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """The key is sent to no other host, and a call is sent once."""
    async with serving(http()) as elsewhere:
        response = await response_to(http(status, b"", f"Location: {elsewhere.base_url}"))
    assert elsewhere.requests == []
    assert (response.kind, response.http_status) == (Kind.UNRECOGNISED, status)


async def test_a_huge_response_is_cut() -> None:
    """A mebibyte is read, not a flood; it may have cost."""
    written = 0

    async def flood(writer: Write) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with asyncio.timeout(20):
        response = await response_to(flood)
    assert response.billing is Billing.UNKNOWN
    assert written < 20_000_000


async def test_a_retry_after_header_is_read() -> None:
    """In any spelling of its name."""
    body = json.dumps({"code": "Throttling", "message": ""}).encode()
    response = await response_to(http(429, body, "RETRY-AFTER: 7", "X-Request-ID: r-9"))
    assert (response.kind, response.retry_after_s, response.request_id) == (Kind.THROTTLED, 7.0, "r-9")


async def test_the_connection_is_opened_once_and_kept() -> None:
    """Warmed up before the first call, so that none is late, and used for all that follow one another."""
    async with serving(http()) as service, client_of(service.base_url) as client:
        await client.warm()
        assert service.connections == 1
        for _ in range(3):
            await client.send(CALL)
    assert [request.method for request in service.requests] == ["OPTIONS", "POST", "POST", "POST"]
    assert {request.connection for request in service.requests} == {1}


async def test_calls_do_not_wait_for_each_other() -> None:
    """A slow response delays no other call: as many connections as there are calls."""
    everybody = asyncio.Event()
    waiting = 0

    async def wait_for_all(writer: Write) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            everybody.set()
        await everybody.wait()
        await http()(writer)

    async with serving(wait_for_all) as service, client_of(service.base_url) as client:
        responses = await asyncio.gather(*(client.send(CALL) for _ in range(20)))
    assert {response.billing for response in responses} == {Billing.BILLED}


async def test_a_connection_the_server_has_closed_is_not_used_again() -> None:
    """The next call takes a new one and gets its response."""

    async def respond_and_close(writer: Write) -> None:
        await http()(writer)
        await writer.drain()
        writer.close()

    async with serving(respond_and_close) as service, client_of(service.base_url) as client:
        assert (await client.send(CALL)).billing is Billing.BILLED
        await asyncio.sleep(0.05)  # a real server, which takes a moment to close
        assert (await client.send(CALL)).billing is Billing.BILLED


async def test_neither_key_nor_url_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level, in success and failure, in texts and in errors."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    for reply in (http(), hang_up, http(500, b"")):
        async with serving(reply) as service, client_of(service.base_url) as client:
            await client.warm()
            response = await client.send(CALL)
            assert KEY not in f"{client!r} {access(service.base_url)!r} {response!r} {vars(client)!r}"
    assert len(caplog.records) > 10
    for record in caplog.records:
        assert KEY not in record.getMessage()
        assert "sig=" not in record.getMessage()


def test_a_request_is_recognised_by_its_path_alone() -> None:
    """The body holds the URL."""
    assert repr(Request("/path", b"secret")) == "Request(path='/path')"


@pytest.mark.parametrize(
    ("base_url", "service"),
    [
        (DASHSCOPE_BASE_URL, "dashscope"),
        ("https://ws-1.cn-beijing.maas.aliyuncs.com/api/v1", "dashscope"),
        ("HTTP://127.0.0.1:8080/api/v1", "http://127.0.0.1:8080"),
        ("https://aliyuncs.com.evil.example/api/v1", "https://aliyuncs.com.evil.example"),
        ("https://user:sesame@proxy.example/api/v1", "https://proxy.example"),
    ],
)
def test_the_service_that_verdicts_are_kept_under(base_url: str, service: str) -> None:
    """One for the vendor, whatever the workspace; any other address is one of its own, without a password."""
    assert service_of(base_url) == service


def test_access_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names that the vendor's SDK reads; a slash at the end is no matter."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)
    monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", "http://127.0.0.1:1/api/v1/")
    monkeypatch.setenv("DASHSCOPE_WORKSPACE", "ws")
    assert Credentials.of(DashScope()) == access("http://127.0.0.1:1/api/v1", "ws")
