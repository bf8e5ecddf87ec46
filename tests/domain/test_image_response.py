"""What the heads of responses say about an image, and how a throttling host is treated, by rule."""

import gzip
from datetime import UTC, datetime

import pytest

from s2v_tasks.domain.host_backoff import MAX_PAUSE_S, HostBackoff
from s2v_tasks.domain.image_response import Assembly, decoded, is_web_page, retry_after_s

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "value", "wanted"),
    [
        (429, None, 0.0),
        (429, "7", 7.0),
        (429, "Thu, 26 Nov 2026 12:01:00 GMT", 60.0),
        (429, "Thu, 26 Nov 2026 11:01:00 GMT", 0.0),
        (429, "Thu, 26 Nov 2026 12:01:00", 0.0),
        (429, "soon", 0.0),
        (429, "-1", 0.0),
        (429, "9" * 40, 0.0),
        (503, "7", 7.0),
        (503, None, None),
        (500, "7", None),
        (200, "7", None),
    ],
)
def test_a_host_says_how_long_it_wants_to_be_left_alone(
    status: int, value: str | None, wanted: float | None
) -> None:
    """In seconds or by a date; a 503 only counts with such a time."""
    assert retry_after_s(status, {"retry-after": value} if value else {}, NOW) == wanted


def test_a_response_goes_on_where_the_bytes_end_or_proves_nothing() -> None:
    """A part of another offset, of another version, or of none that is named."""
    image = Assembly()
    assert image.accept(206, {"content-range": "bytes 0-3/10", "etag": '"a"'})
    image.data += b"abcd"
    assert not image.accept(206, {"content-range": "bytes 0-3/10", "etag": '"a"'})
    assert not image.accept(206, {"content-range": "bytes 4-9/10", "etag": '"b"'})
    assert not image.accept(206, {"content-range": "bytes 4-9/11", "etag": '"a"'})
    assert not image.accept(206, {"content-range": "bytes four-9/10"})
    assert not image.accept(206, {})
    assert image.accept(206, {"content-range": "bytes 4-9/*"})
    assert image.accept(200, {"content-length": "7", "etag": '"b"'})
    assert (image.data, image.total, image.is_whole, image.etag) == (b"", 7, True, '"b"')
    modified = Assembly()
    assert modified.accept(206, {"content-range": "bytes 0-0/9", "last-modified": "x"})
    modified.data += b"a"
    assert not modified.accept(206, {"content-range": "bytes 1-1/9", "last-modified": "y"})


@pytest.mark.parametrize(
    ("data", "media_type", "wanted"),
    [
        (b"<!doctype html>", "", True),
        (b"<?xml version='1.0'?><html xmlns='x'>", "", True),
        (b"<HTML><head>", "image/jpeg", True),
        (b"<p >please wait", "", True),
        (b"", "text/html", True),
        (b'{"error": 1}', "application/json; charset=utf-8", True),
        (b"a note", "text/plain", False),
        (b"", "", False),
        (b"<image of bytes", "", False),
        (b"\0\1\2", "text/html", False),
        (b"\x89PNG", "image/png", False),
    ],
)
def test_a_page_is_known_by_its_first_tag_or_its_type(data: bytes, media_type: str, wanted: bool) -> None:
    """Binary data is no page, whatever it is called."""
    assert is_web_page({"content-type": media_type}, data) is wanted


def test_a_bomb_is_decoded_to_the_wanted_bytes_only() -> None:
    """And what can't be decoded is no text."""
    bomb = gzip.compress(b"\0" * 10_000_000)
    assert decoded({"content-encoding": "gzip"}, bomb, 4096) == b"\0" * 4096
    assert decoded({"content-encoding": "gzip"}, b"nonsense", 4096) == b""
    assert decoded({"content-encoding": "br"}, b"nonsense", 4096) == b""


def test_a_burst_of_refusals_counts_once_and_pauses_grow() -> None:
    """Eight requests were in flight when the host throttled; after its pause requests are slower."""
    host = HostBackoff(pause_s=1.0)
    for _ in range(8):
        host.record_refusal(100.0, 0.0)
    assert host.refusals == 1
    assert host.delay(100.5) == pytest.approx(0.5)
    assert host.delay(100.5) == pytest.approx(0.75)  # the next one by an interval later
    host.record_refusal(101.0, 0.0)
    assert host.delay(101.0) == pytest.approx(2.0)
    for now in range(102, 130):
        host.record_success()
        assert host.delay(float(now)) is not None
    assert (host.refusals, host.interval_s) == (0, 0.0)


def test_a_host_that_goes_on_refusing_gets_no_more_requests_for_its_time() -> None:
    """After three refusals only the last tries wait, after six none; and none waits for long."""
    host = HostBackoff(pause_s=1.0)
    now = 0.0
    for _ in range(3):
        host.record_refusal(now, 0.0)
        now = host.paused_until
    assert host.delay(now - 1) is None
    assert host.delay(now - 1, is_late=True) is not None
    for _ in range(3):
        host.record_refusal(now, 0.0)
        assert host.paused_until - now <= MAX_PAUSE_S
        now = host.paused_until
    assert host.delay(now - 1, is_late=True) is None
    patient = HostBackoff()
    patient.record_refusal(0.0, MAX_PAUSE_S + 1)
    assert patient.delay(0.0, is_late=True) is None
    assert patient.delay(1.0) == pytest.approx(MAX_PAUSE_S)
