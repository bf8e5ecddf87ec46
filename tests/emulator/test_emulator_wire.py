"""Responses that break on the wire, seen from the client's side of a real connection."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from emulator_caller import CALL_PATH, Caller

from s2v_tasks.models import WAN22_S2V_DETECT

GOOD = "gen/portrait-3.jpg"


def raw_call(caller: Caller, image_url: str) -> bytes:
    """Send one call by hand and return every byte that came back before the connection ended."""
    target = urlsplit(caller.emulator.base_url)
    body = json.dumps({"model": WAN22_S2V_DETECT.model, "input": {"image_url": image_url}}).encode()
    head = (
        f"POST {target.path}{CALL_PATH} HTTP/1.1\r\nHost: {target.netloc}\r\nAuthorization: Bearer k\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    received = b""
    with socket.create_connection((target.hostname, target.port), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def test_drop_bills_and_closes_without_a_byte(caller: Caller) -> None:
    """The worst case for a payer: the call was made and paid, and nothing came back."""
    caller.emulator.set_faults(["drop"])
    assert raw_call(caller, caller.url(GOOD)) == b""
    assert [line["image_url"] for line in caller.emulator.invoice()] == [caller.url(GOOD)]
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        caller.send_sample(GOOD)


def test_drop_of_a_response_that_is_free_bills_nothing(caller: Caller) -> None:
    """A dropped 400 was never billed, so a lost response may or may not have cost."""
    caller.emulator.set_faults(["drop"])
    assert raw_call(caller, caller.url("missing-000.jpg")) == b""
    assert caller.emulator.invoice() == []


def test_reset_resets_the_connection_and_bills_nothing(caller: Caller) -> None:
    """The client sees a TCP reset, and the image was not even fetched."""
    caller.emulator.set_faults(["reset"])
    with pytest.raises(ConnectionResetError):
        raw_call(caller, caller.url(GOOD))
    with pytest.raises(httpx.ReadError):
        caller.send_sample(GOOD)
    assert caller.emulator.invoice() == []
    assert caller.emulator.calls()["by_status"] == {"none": 2}


def test_truncate_bills_and_sends_half_of_the_body(caller: Caller) -> None:
    """The head announces more than comes; what comes is no JSON."""
    caller.emulator.set_faults(["truncate"])
    head, _, body = raw_call(caller, caller.url(GOOD)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    [announced] = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    assert len(body) == announced // 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        caller.send_sample(GOOD)
    assert len(caller.emulator.invoice()) == 2


def test_html_and_empty_are_free_503s_of_a_gateway(caller: Caller) -> None:
    """A gateway's responses have no JSON and are not billed."""
    caller.emulator.set_faults(["html:times=1", "empty"])
    html, empty = caller.send_sample(GOOD), caller.send_sample(GOOD)
    assert (html.status_code, html.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert html.text.startswith("<html>")
    assert (empty.status_code, empty.content) == (503, b"")
    assert caller.emulator.invoice() == []


def test_nojson_and_no_check_pass_are_billed_200s_without_a_verdict(caller: Caller) -> None:
    """A 200 that says nothing about the image is paid all the same."""
    caller.emulator.set_faults(["nojson:times=1", "no_check_pass"])
    nojson, without = caller.send_sample(GOOD), caller.send_sample(GOOD)
    assert (nojson.status_code, without.status_code) == (200, 200)
    with pytest.raises(json.JSONDecodeError):
        nojson.json()
    assert without.json() == {"output": {}, "request_id": without.headers["x-request-id"]}
    assert len(caller.emulator.invoice()) == 2


def test_stall_bills_long_before_it_responds(caller: Caller) -> None:
    """A client that gives up on the response finds the call on the invoice."""
    caller.emulator.set_faults(["stall:delay_s=30,times=1"])
    with pytest.raises(httpx.ReadTimeout):
        caller.send_sample(GOOD, timeout=0.3)
    assert [line["image_url"] for line in caller.emulator.invoice()] == [caller.url(GOOD)]


def test_a_stalled_response_comes_in_the_end(caller: Caller) -> None:
    """After its delay the response is the normal one."""
    caller.emulator.set_faults(["stall:delay_s=0.1"])
    response = caller.send_sample(GOOD)
    assert response.json()["output"]["check_pass"] is True
    assert response.elapsed.total_seconds() >= 0.1


def test_connections_are_kept_alive_and_calls_are_quick(caller: Caller) -> None:
    """Many calls use one connection, and none waits for the 40 ms of Nagle's algorithm."""
    with httpx.Client(trust_env=False, limits=httpx.Limits(max_connections=1)) as client:
        one = Caller(caller.emulator, client)
        streams = {
            id(one.send_sample(GOOD).extensions["network_stream"].get_extra_info("socket")) for _ in range(9)
        }
        quickest = min(one.send_sample(GOOD).elapsed.total_seconds() for _ in range(9))
    assert len(streams) == 1
    assert quickest < 0.03
