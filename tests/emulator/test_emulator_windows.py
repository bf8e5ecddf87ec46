"""The rate windows, on a clock that the test holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_tasks.emulator.windows import WINDOW_NAMES, LeakyBucket, make_window
from s2v_tasks.errors import UsageError


def admitted(name: str, limit: float | None, times: list[float]) -> list[bool]:
    window = make_window(name, limit)
    return [window.admit(at) for at in times]


def test_sliding_second_admits_five_and_the_sixth_only_a_second_after_the_first() -> None:
    """A sliding window spans exactly one second from each call."""
    times = [0.0, 0.5, 0.5, 0.75, 0.75, 0.875, 1.0, 1.25, 1.5]
    assert admitted("sliding", 5, times) == [True] * 5 + [False, True, False, True]


def test_fixed_second_admits_ten_calls_around_its_edge() -> None:
    """A fixed window lets a burst at its end and one at its start pass, which a sliding one does not."""
    times = [10.9] * 6 + [11.1] * 6
    assert admitted("fixed", 5, times) == ([True] * 5 + [False]) * 2
    assert admitted("sliding", 5, times).count(True) == 5


def test_leaky_bucket_admits_its_depth_at_once_and_then_the_rate() -> None:
    """A leaky bucket that is full has room again one interval later."""
    times = [0.0] * 6 + [0.1, 0.2, 0.3, 0.4]
    assert admitted("leaky", 5, times) == [True] * 5 + [False, False, True, False, True]


def test_leaky_bucket_of_depth_one_admits_an_even_rate_and_nothing_else() -> None:
    """Calls exactly one interval apart always fit, in spite of floating point."""
    even = LeakyBucket(rate_per_s=5, depth=1)
    assert all(even.admit(n / 5) for n in range(1000))
    hurried = LeakyBucket(rate_per_s=5, depth=1)
    assert [hurried.admit(at) for at in (0.0, 0.199, 0.2)] == [True, False, True]


def test_minute_admits_sixty_times_the_limit_in_any_minute() -> None:
    """The per-minute rule of five a second is 300 calls, however bunched."""
    assert admitted("minute", 5, [0.0] * 301 + [59.9, 60.0]) == [True] * 300 + [False, False, True]


@pytest.mark.parametrize("name", WINDOW_NAMES)
def test_refused_calls_do_not_count(name: str) -> None:
    """Knocking all the time does not keep a window shut."""
    window = make_window(name, 5)
    while window.admit(100.0):
        pass
    assert not any(window.admit(100.0 + n / 1000) for n in range(100))
    assert window.admit(161.0)


@pytest.mark.parametrize("name", WINDOW_NAMES)
@given(gaps=st.lists(st.floats(0, 0.4), max_size=60), limit=st.sampled_from([0.5, 1, 2.5, 5]))
def test_no_window_admits_more_than_its_rate_and_one_full_span(
    name: str, gaps: list[float], limit: float
) -> None:
    """Whatever the arrivals: over a run of seconds at most rate x seconds plus one span's worth get in."""
    window, now, count = make_window(name, limit), 0.0, 0
    for gap in gaps:
        now += gap
        count += window.admit(now)
    span_s = 60 if name == "minute" else max(1, 1 / limit)
    spans = 2 if name == "fixed" else 1
    assert count <= limit * (now + span_s * spans) + 1


def test_half_a_call_a_second_is_one_in_two_seconds() -> None:
    """A limit below one stretches the span instead of shutting the window for good."""
    assert admitted("sliding", 0.5, [0.0, 1.0, 1.9, 2.0, 3.0]) == [True, False, False, True, False]
    assert admitted("fixed", 0.5, [0.0, 1.9, 2.0]) == [True, False, True]


def test_no_limit_admits_everything() -> None:
    """None is no limit."""
    assert all(admitted("sliding", None, [0.0] * 100))


@pytest.mark.parametrize(
    ("name", "limit"), [("hourly", 5), ("sliding", 0), ("sliding", -1), ("leaky", float("nan"))]
)
def test_a_window_that_can_not_be_is_refused(name: str, limit: float) -> None:
    """A wrong name or limit is a usage error that says what is allowed."""
    with pytest.raises(UsageError, match=r"sliding, fixed, leaky, minute|above 0"):
        make_window(name, limit)
