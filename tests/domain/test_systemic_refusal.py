"""The rule that stops a run whose every request is refused with an unlisted code, without an engine."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.domain.detect import DetectResponse, Kind, parse_response
from s2v_tasks.domain.systemic_refusal import Refusals, message
from s2v_tasks.models import WAN22_S2V_DETECT


def response(status: int, code: str, text: str = "") -> DetectResponse:
    if status == 200:
        return parse_response(WAN22_S2V_DETECT, 200, {}, b'{"output":{"check_pass":true}}')
    body = json.dumps({"code": code, "message": text, "request_id": "r-1"}).encode()
    return parse_response(WAN22_S2V_DETECT, status, {}, body)


UNLISTED = response(400, "Brandnew", "no")
OTHER = response(403, "Other.New", "no")
FIELD = response(400, "InvalidParameter", "Field required: input.media")
URL_ERROR = response(400, "InvalidParameter", "url error, please check url！")  # noqa: RUF001
PASSED = response(200, "")
FREE_VERDICT = response(400, "InvalidFile.NoHuman")
IMAGE = response(400, "InvalidFile.Size")
BY_MESSAGE = response(400, "InvalidParameter", "Failed to decode the image")
ORIGIN = response(400, "InvalidURL.Timeout")
THROTTLED = response(429, "Throttling")
TRANSIENT = response(500, "InternalError")
UNLISTED_500 = response(500, "InternalError.Other")


def seen(responses: Sequence[DetectResponse], state: Refusals | None = None, first: int = 0) -> Refusals:
    """The state after responses about different images of one host."""
    state = state or Refusals()
    for number, one in enumerate(responses, first):
        state = state.after(f"k{number}", "host.example", one)
    return state


@pytest.mark.parametrize("refused", [UNLISTED, FIELD, URL_ERROR], ids=["unlisted", "request", "url error"])
def test_five_images_in_a_row_refused_alike_stop_the_run(refused: DetectResponse) -> None:
    """Not four; and the five are suspected from then on."""
    four = seen([refused] * 4)
    assert not four.stopped
    five = seen([refused], four, first=4)
    assert five.stopped
    assert five.stop_counts == {f"k{n}": 1 for n in range(5)}
    assert all(five.is_refused(f"k{n}") for n in range(5))
    assert not five.is_refused("k5")


def test_a_code_counts_in_any_spelling() -> None:
    """The gateway and the proxies before it write it in several ways."""
    assert seen([UNLISTED, replace(UNLISTED, code="brand_new")] * 2 + [UNLISTED]).stopped


def test_responses_without_a_code_are_alike_by_their_status() -> None:
    """A firewall's page has none."""
    page = parse_response(WAN22_S2V_DETECT, 403, {}, b"<html>blocked</html>")
    assert seen([page] * 5).stopped
    other = parse_response(WAN22_S2V_DETECT, 405, {}, b"<html>blocked</html>")
    assert not seen([page, other] * 4).stopped


@pytest.mark.parametrize("between", [PASSED, FREE_VERDICT, IMAGE], ids=["passed", "free verdict", "image"])
def test_a_verdict_or_a_listed_image_code_resets_the_count(between: DetectResponse) -> None:
    """The vendor checks images, so these refusals concern these images."""
    assert not seen([UNLISTED] * 4 + [between] + [UNLISTED] * 4).stopped


@pytest.mark.parametrize(
    "between",
    [ORIGIN, THROTTLED, TRANSIENT, UNLISTED_500, BY_MESSAGE],
    ids=["origin", "throttled", "transient", "unlisted 500", "image by its message"],
)
def test_what_says_nothing_about_the_request_neither_counts_nor_resets(between: DetectResponse) -> None:
    """However many stand between."""
    four = seen([UNLISTED, between, UNLISTED, between, between, UNLISTED, UNLISTED, between])
    assert not four.stopped
    assert seen([UNLISTED], four, first=8).stopped
    assert not seen([between] * 20).stopped


def test_another_code_restarts_the_count() -> None:
    """Five alike, not five of any kind."""
    assert not seen([UNLISTED] * 4 + [OTHER] * 4).stopped
    assert seen([UNLISTED] * 4 + [OTHER] * 5).stopped


def test_one_image_counts_once() -> None:
    """Its late retry proves nothing about the others."""
    state = Refusals()
    for _ in range(10):
        state = state.after("k", "host.example", UNLISTED)
    assert not state.stopped


def test_a_url_error_counts_only_before_the_runs_first_verdict() -> None:
    """Afterwards the path is known to be right, and the words are about an image."""
    assert not seen([PASSED] + [URL_ERROR] * 9).stopped
    assert not seen([URL_ERROR] * 9, Refusals(succeeded=True)).stopped
    assert seen([PASSED] + [FIELD] * 5).stopped


def test_after_four_of_one_host_the_next_image_should_be_of_another() -> None:
    """A firewall in front of one host's images must not count as a refused account."""
    state = Refusals()
    for number in range(4):
        assert state.avoided_host is None
        state = state.after(f"k{number}", "a.example", UNLISTED)
    assert state.avoided_host == "a.example"
    assert state.after("k4", "b.example", PASSED).avoided_host is None
    mixed = seen([UNLISTED] * 3).after("k3", "b.example", UNLISTED)
    assert mixed.avoided_host is None


def test_a_call_that_was_under_way_at_the_stop_is_suspected_too() -> None:
    """Refused alike, it is as little an image's fault; other responses are what they are."""
    state = seen([UNLISTED] * 6)
    assert state.is_refused("k5")
    assert state.stop_counts["k5"] == 1
    assert not state.after("k6", "host.example", OTHER).is_refused("k6")
    later = state.after("k6", "host.example", PASSED)
    assert all(later.is_refused(f"k{n}") for n in range(6))


def continued(state: Refusals) -> Refusals:
    """What the next process of the run begins with."""
    return Refusals(succeeded=state.succeeded, stop_counts=state.stop_counts)


def test_images_stop_a_run_a_second_time_only_if_no_verdict_came_in_between() -> None:
    """Once the account works again, their responses stand."""
    first = seen([UNLISTED] * 5)
    assert seen([UNLISTED] * 5, continued(first)).stopped
    fixed = seen([PASSED], continued(first), first=9)
    assert not seen([UNLISTED] * 5, fixed).stopped
    assert not seen([UNLISTED] * 5, continued(fixed)).stopped


def test_images_never_stop_a_run_a_third_time() -> None:
    """Then they are unrecognised, whatever the account does."""
    first = seen([UNLISTED] * 5)
    second = seen([UNLISTED] * 5, continued(first))
    assert second.stop_counts == {f"k{n}": 2 for n in range(5)}
    third = seen([UNLISTED] * 5, continued(second))
    assert not third.stopped
    assert third.streak == ()
    assert seen([UNLISTED] * 5, third, first=10).stopped


def test_the_message_shows_a_sample_and_what_to_do() -> None:
    """With the vendor's request id, and without an image's URL."""
    said = message(response(400, "Brandnew", "not for https://host.example/a.jpg?sig=sesame"))
    assert "HTTP 400 Brandnew" in said
    assert "r-1" in said
    assert "DASHSCOPE_HTTP_BASE_URL" in said
    assert "same command" in said
    assert "host.example" not in said


EVENTS = st.sampled_from(
    [UNLISTED, OTHER, FIELD, URL_ERROR, PASSED, FREE_VERDICT, IMAGE, BY_MESSAGE, ORIGIN, THROTTLED, TRANSIENT]
)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), EVENTS), max_size=40))
def test_a_stop_is_always_five_different_images_alike(events: list[tuple[int, str, DetectResponse]]) -> None:
    """For any order of responses: what stops the run is what the rule says, and no image stops it thrice."""
    state, stops = Refusals(), dict[str, int]()
    for number, host, one in events:
        before = state
        state = state.after(key := f"k{number}", host, one)
        assert all(0 < times <= 2 for times in state.stop_counts.values())
        assert set(before.stop_counts) <= set(state.stop_counts)
        assert len({image for image, _ in state.streak}) == len(state.streak)
        if one.kind in {Kind.ORIGIN, Kind.THROTTLED, Kind.TRANSIENT} and not one.systemic:
            assert state == before
        if not state.stopped:
            continue
        assert one.systemic
        assert one.kind is not Kind.VERDICT
        assert len(state.streak) == 5
        assert key in state.stop_counts
        for image, _ in state.streak:
            stops[image] = stops.get(image, 0) + 1
        assert max(stops.values()) <= 2
        state = continued(state)
